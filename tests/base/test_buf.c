/* Goal: UTF-8 rules hold at every byte, buffers keep their limit and their error, JSON strings are always valid.
 * Method: exhaustive two- and random four-byte inputs against a table-free twin; appends with injected failures. */
#include "buf.h"
#include "json.h"
#include "mem.h"
#include "status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* Decode by definition: read the bits, then refuse what is overlong, surrogate or too large. */
static int twin_decode(const unsigned char *p, size_t n, uint32_t *cp)
{
    if (n == 0)
        return 0;
    int len = p[0] < 0x80             ? 1
              : (p[0] & 0xe0) == 0xc0 ? 2
              : (p[0] & 0xf0) == 0xe0 ? 3
              : (p[0] & 0xf8) == 0xf0 ? 4
                                      : -1;
    if (len < 0 || (size_t)len > n)
        return -1;
    uint32_t v = len == 1 ? p[0] : p[0] & (0x7fu >> len);
    for (int i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return -1;
        v = v << 6 | (p[i] & 0x3fu);
    }
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (v < least[len] || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff))
        return -1;
    *cp = v;
    return len;
}

static void utf8_decodes_by_the_definition(void **state)
{
    (void)state;
    unsigned char in[4];
    srand(7);
    for (uint32_t i = 0; i < 2000000; i++) {
        uint32_t bits = i < 65536 ? i << 16 : (uint32_t)rand() << 16 ^ (uint32_t)rand();
        in[0] = (unsigned char)(bits >> 24);
        in[1] = (unsigned char)(bits >> 16);
        in[2] = i % 3 ? (unsigned char)(0x80 | (bits >> 8 & 0x3f)) : (unsigned char)(bits >> 8);
        in[3] = i % 5 ? (unsigned char)(0x80 | (bits & 0x3f)) : (unsigned char)bits;
        for (size_t n = 0; n <= 4; n++) {
            uint32_t a = 0, b = 0;
            assert_int_equal(utf8_decode((char *)in, n, &a), twin_decode(in, n, &b));
            assert_int_equal(a, b);
        }
    }
}

static void utf8_encodes_what_it_decodes(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp <= 0x10ffff; cp++) {
        if (cp >= 0xd800 && cp <= 0xdfff)
            continue;
        char out[4];
        uint32_t back;
        int n = utf8_encode(cp, out);
        assert_int_equal(utf8_decode(out, (size_t)n, &back), n);
        assert_int_equal(back, cp);
    }
}

static void utf8_complete_leaves_only_what_may_still_become_valid(void **state)
{
    (void)state;
    static const struct {
        const char *s;
        size_t n;
    } cases[] = {{"", 0},
                 {"a", 1},
                 {"a\xe2", 1},
                 {"a\xe2\x82", 1},
                 {"a\xe2\x82\xac", 4},
                 {"\xf0\x9f", 0},
                 {"\xf0\x9f\x98", 0},
                 {"\xff", 1},
                 {"a\x80", 2},
                 {"\xe0\x80", 2},
                 {"\xc2", 0},
                 {"\xc0", 1},
                 {"\xed\xa0", 2},
                 {"\xf4\x90\x80", 3},
                 {"\x80\x80\x80\x80", 4}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(utf8_complete(str_from(cases[i].s)), cases[i].n);
}

static void a_buffer_keeps_its_limit_and_its_error(void **state)
{
    (void)state;
    struct buf b = {.limit = 10};
    assert_int_equal(buf_puts(&b, "0123456789"), ST_OK);
    assert_int_equal(buf_putc(&b, 'x'), ST_ETOOBIG);
    assert_int_equal(buf_putc(&b, 'x'), ST_ETOOBIG);
    assert_string_equal(b.p, "0123456789");
    buf_reset(&b);
    assert_int_equal(buf_printf(&b, "%d-%s", 12, "ab"), ST_OK);
    assert_string_equal(b.p, "12-ab");
    buf_fini(&b);
    uint64_t live = mem_live();
    mem_fail_after(1);
    struct buf c = {0};
    assert_int_equal(buf_puts(&c, "x"), ST_ENOMEM);
    mem_fail_after(0);
    assert_int_equal(buf_puts(&c, "x"), ST_ENOMEM);
    buf_fini(&c);
    assert_int_equal(mem_live(), live);
}

static void json_strings_are_valid_for_any_bytes(void **state)
{
    (void)state;
    struct buf none = {0};
    buf_put_json(&none, (struct str){0});
    assert_string_equal(none.p, "\"\"");
    buf_fini(&none);
    srand(11);
    for (int round = 0; round < 20000; round++) {
        char in[24];
        size_t n = (size_t)rand() % sizeof in;
        for (size_t i = 0; i < n; i++)
            in[i] = (char)(rand() % 4 ? rand() : "\"\\\n\x01\xe2\x82\xac"[rand() % 7]);
        struct buf b = {0};
        struct err e = {0};
        cJSON *j = NULL;
        buf_put_json(&b, (struct str){in, n});
        /* cJSON strings cannot hold NULs: those come out as the escape, which json_parse then sees as text. */
        assert_int_equal(json_parse(&j, buf_str(&b), &e), ST_OK);
        assert_true(cJSON_IsString(j));
        if (utf8_valid((struct str){in, n}) && !memchr(in, 0, n))
            assert_memory_equal(j->valuestring, in, n);
        json_free(j);
        buf_fini(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utf8_decodes_by_the_definition),
        cmocka_unit_test(utf8_encodes_what_it_decodes),
        cmocka_unit_test(utf8_complete_leaves_only_what_may_still_become_valid),
        cmocka_unit_test(a_buffer_keeps_its_limit_and_its_error),
        cmocka_unit_test(json_strings_are_valid_for_any_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
