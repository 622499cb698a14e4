/* MessagePack and its JSON: each form read and written, values unchanged over both, and lies refused. */
#include "dyn_json.h"
#include "dyn_msgpack.h"
#include "mem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t seed = 1;

static uint64_t next(void)
{
    seed += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = seed;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static struct dyn_value read_one(const void *p, size_t n)
{
    struct dyn_msgpack m = dyn_msgpack_of(p, n);
    struct dyn_value v;
    assert_int_equal(dyn_msgpack_read(&m, &v), ST_OK);
    assert_true(dyn_msgpack_end(&m));
    return v;
}

/* bytes of the specification, value, and whether the writer takes this very form */
static void every_form_of_a_number_is_read_and_the_shortest_is_written(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        int64_t value;
        bool shortest;
    } forms[] = {
        {"\x00", 1, 0, true},
        {"\x7f", 1, 127, true},
        {"\xcc\x80", 2, 128, true},
        {"\xcc\x05", 2, 5, false},
        {"\xcd\x01\x00", 3, 256, true},
        {"\xce\x00\x01\x00\x00", 5, 65536, true},
        {"\xcf\x00\x00\x00\x01\x00\x00\x00\x00", 9, INT64_C(1) << 32, true},
        {"\xff", 1, -1, true},
        {"\xe0", 1, -32, true},
        {"\xd0\xdf", 2, -33, true},
        {"\xd0\x05", 2, 5, false},
        {"\xd1\xff\x7f", 3, -129, true},
        {"\xd2\xff\xff\x7f\xff", 5, -32769, true},
        {"\xd3\xff\xff\xff\xff\x7f\xff\xff\xff", 9, -INT64_C(2147483649), true},
        {"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", 9, INT64_MIN, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct dyn_value v = read_one(forms[i].bytes, forms[i].n);
        assert_int_equal(v.type, forms[i].value < 0 ? DYN_INT : DYN_UINT);
        assert_true((v.type == DYN_INT ? v.i : (int64_t)v.u) == forms[i].value);
        struct buf b = {0};
        dyn_msgpack_put_int(&b, forms[i].value);
        if (forms[i].shortest)
            assert_memory_equal(b.p, forms[i].bytes, forms[i].n);
        buf_fini(&b);
    }
}

static void floats_of_both_widths_are_doubles(void **state)
{
    (void)state;
    assert_true(read_one("\xca\x3f\x00\x00\x00", 5).f == 0.5);
    assert_true(read_one("\xcb\x40\x14\x00\x00\x00\x00\x00\x00", 9).f == 5.0);
}

static void lengths_take_the_form_that_fits(void **state)
{
    static const size_t lengths[] = {0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536};
    char *bytes = calloc(1, 65536);
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        size_t n = lengths[i];
        struct buf b = {0};
        dyn_msgpack_put_str(&b, (struct str){bytes, n});
        assert_int_equal(b.n - n, n < 32 ? 1 : n < 256 ? 2 : n < 65536 ? 3 : 5);
        struct dyn_value v = read_one(b.p, b.n);
        assert_int_equal(v.type, DYN_STR);
        assert_int_equal(v.s.n, n);
        buf_reset(&b);
        dyn_msgpack_put_bin(&b, bytes, n);
        assert_int_equal(read_one(b.p, b.n).type, DYN_BIN);
        buf_reset(&b);
        dyn_msgpack_put_array(&b, (uint32_t)n);
        size_t head = b.n;
        assert_int_equal(head, n < 16 ? 1 : n < 65536 ? 3 : 5);
        buf_put(&b, bytes, n); /* so many zeros */
        struct dyn_msgpack m = dyn_msgpack_of(b.p, b.n);
        assert_int_equal(dyn_msgpack_skip(&m), ST_OK);
        assert_true(dyn_msgpack_end(&m));
        buf_fini(&b);
    }
    free(bytes);
}

static void an_announced_length_beyond_the_bytes_is_refused(void **state)
{
    static const struct {
        const char *p;
        size_t n;
    } lies[] = {{"\xa5"
                 "abcd",
                 5},
                {"\xdb\xff\xff\xff\xff", 5},
                {"\xdd\xff\xff\xff\xff\x01", 6},
                {"\xdf\x00\x00\x00\x02\x01\x01\x01", 8},
                {"\x92\x01", 2},
                {"\xc7\x02\x01\x01", 4},
                {"\xd8", 1},
                {"\xcb\x00", 2},
                {"\xc1", 1},
                {"", 0}};
    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct dyn_msgpack m = dyn_msgpack_of(lies[i].p, lies[i].n);
        assert_int_equal(dyn_msgpack_skip(&m), ST_EFORMAT);
        assert_int_equal(m.at, 0); /* the reader stays where it was */
    }
}

static void nesting_without_end_needs_no_stack(void **state)
{
    size_t n = 1 << 20;
    char *deep = malloc(n);
    (void)state;
    memset(deep, 0x91, n);
    struct dyn_msgpack m = dyn_msgpack_of(deep, n);
    assert_int_equal(dyn_msgpack_skip(&m), ST_EFORMAT);
    deep[n - 1] = 0;
    assert_int_equal(dyn_msgpack_skip(&m), ST_OK);
    free(deep);
}

static void members_are_found_past_anything(void **state)
{
    /* {5: nil, "a": [1, {"b": 2}], "c": ext, "b": true} */
    static const char map[] = "\x84\x05\xc0\xa1"
                              "a\x92\x01\x81\xa1"
                              "b\x02\xa1"
                              "c\xd4\x01\x02\xa1"
                              "b\xc3";
    struct dyn_msgpack m = dyn_msgpack_of(map, sizeof map - 1), at;
    struct dyn_value v;
    (void)state;
    assert_true(dyn_msgpack_get(&m, "b", &at));
    assert_int_equal(dyn_msgpack_read(&at, &v), ST_OK);
    assert_int_equal(v.type, DYN_BOOL);
    assert_false(dyn_msgpack_get(&m, "d", &at));
    struct dyn_msgpack list = dyn_msgpack_of("\x91\x01", 2);
    assert_false(dyn_msgpack_get(&list, "b", &at));
}

/* ---- JSON -------------------------------------------------------------------------------------------------------- */

static void both_ways(const char *json, const char *expected)
{
    struct buf packed = {0}, back = {0};
    assert_int_equal(dyn_json_to_msgpack(str_from(json), &packed), ST_OK);
    struct dyn_msgpack m = dyn_msgpack_of(packed.p, packed.n);
    assert_int_equal(dyn_json_from_msgpack(&m, &back), ST_OK);
    assert_true(dyn_msgpack_end(&m));
    assert_string_equal(back.p, expected);
    buf_fini(&packed);
    buf_fini(&back);
}

static void json_comes_back_as_it_was(void **state)
{
    (void)state;
    both_ways(" { } ", "{}");
    both_ways("[1, -2, 3.5, 1e3, -0.25]", "[1,-2,3.5,1000.0,-0.25]");
    both_ways("{\"a\":[true,false,null],\"b\":{\"c\":\"d\"}}",
              "{\"a\":[true,false,null],\"b\":{\"c\":\"d\"}}");
    both_ways("\"\\u00e4\\ud83d\\ude00\\n\\/\\\"\"", "\"\xc3\xa4\xf0\x9f\x98\x80\\n/\\\"\"");
    both_ways("18446744073709551615", "18446744073709551615"); /* 64 bits stay whole */
    both_ways("-9223372036854775808", "-9223372036854775808");
    both_ways("9007199254740993", "9007199254740993");
}

static void what_is_not_json_is_refused(void **state)
{
    static const char *const bad[] = {
        "",      "{",     "[1,]",     "{\"a\"}",     "{\"a\":}",    "{1:2}",    "01",          "1.",
        "-",     "+1",    "1e",       "nul",         "\"a",         "\"\\x\"",  "\"\\ud800\"", "\"\\udc00\"",
        "[1] 2", "1e999", "\"\xff\"", "\"\\u12g4\"", "\"\\u@000\"", "\"\x01\"", "[1 2]"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct buf out = {0};
        assert_int_equal(dyn_json_to_msgpack(str_from(bad[i]), &out), ST_EFORMAT);
        buf_fini(&out);
    }
    char deep[DYN_JSON_DEPTH * 2 + 3] = "";
    struct buf out = {0};
    memset(deep, '[', DYN_JSON_DEPTH + 1);
    memset(deep + DYN_JSON_DEPTH + 1, ']', DYN_JSON_DEPTH + 1);
    assert_int_equal(dyn_json_to_msgpack(str_from(deep), &out), ST_EFORMAT);
    buf_fini(&out);
}

static void put_random(struct buf *b, unsigned depth)
{
    char text[8];
    uint32_t n = (uint32_t)(next() % 5);
    switch (next() % (depth < 5 ? 8 : 6)) {
    case 0:
        dyn_msgpack_put_nil(b);
        break;
    case 1:
        dyn_msgpack_put_bool(b, next() & 1);
        break;
    case 2:
        dyn_msgpack_put_uint(b, next() >> next() % 64);
        break;
    case 3:
        dyn_msgpack_put_int(b, (int64_t)next() >> next() % 64);
        break;
    case 4:
        dyn_msgpack_put_float(b, ldexp((double)(int64_t)next(), (int)(next() % 100) - 80));
        break;
    case 5:
        for (uint32_t i = 0; i < n; i++)
            text[i] = (char)(next() % 127 + 1);
        dyn_msgpack_put_str(b, (struct str){text, n});
        break;
    case 6:
        dyn_msgpack_put_array(b, n);
        for (uint32_t i = 0; i < n; i++)
            put_random(b, depth + 1);
        break;
    default:
        dyn_msgpack_put_map(b, n);
        for (uint32_t i = 0; i < n; i++) {
            snprintf(text, sizeof text, "k%u", i);
            dyn_msgpack_put_key(b, text);
            put_random(b, depth + 1);
        }
    }
}

/* MessagePack -> JSON -> MessagePack -> JSON: both texts equal. */
static void random_values_survive_both_ways(void **state)
{
    (void)state;
    for (int i = 0; i < 20000; i++) {
        struct buf packed = {0}, text = {0}, again = {0}, text2 = {0};
        put_random(&packed, 0);
        struct dyn_msgpack m = dyn_msgpack_of(packed.p, packed.n);
        assert_int_equal(dyn_json_from_msgpack(&m, &text), ST_OK);
        assert_true(dyn_msgpack_end(&m));
        assert_int_equal(dyn_json_to_msgpack(buf_str(&text), &again), ST_OK);
        m = dyn_msgpack_of(again.p, again.n);
        assert_int_equal(dyn_json_from_msgpack(&m, &text2), ST_OK);
        assert_string_equal(text.p, text2.p);
        buf_fini(&packed);
        buf_fini(&text);
        buf_fini(&again);
        buf_fini(&text2);
    }
}

static void a_failed_allocation_is_reported_and_leaves_nothing(void **state)
{
    static const char json[] = "{\"a\":[1,2,\"three\"],\"b\":\"\\u00e4\"}";
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct buf out = {0};
        mem_fail_after(n);
        int st = dyn_json_to_msgpack(STR_LIT(json), &out);
        mem_fail_after(0);
        buf_fini(&out);
        assert_int_equal(mem_live(), 0);
        if (!st)
            break;
        assert_int_equal(st, ST_ENOMEM);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_of_a_number_is_read_and_the_shortest_is_written),
        cmocka_unit_test(floats_of_both_widths_are_doubles),
        cmocka_unit_test(lengths_take_the_form_that_fits),
        cmocka_unit_test(an_announced_length_beyond_the_bytes_is_refused),
        cmocka_unit_test(nesting_without_end_needs_no_stack),
        cmocka_unit_test(members_are_found_past_anything),
        cmocka_unit_test(json_comes_back_as_it_was),
        cmocka_unit_test(what_is_not_json_is_refused),
        cmocka_unit_test(random_values_survive_both_ways),
        cmocka_unit_test(a_failed_allocation_is_reported_and_leaves_nothing),
    };
    seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    printf("seed %llu\n", (unsigned long long)seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
