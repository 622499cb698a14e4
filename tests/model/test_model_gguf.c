/* GGUF: values and tensors as written; truncated and lying files refused, without a read behind the last
 * byte. */
#define _GNU_SOURCE
#include "buf.h"
#include "gguf.h"
#include "guard.h"
#include "hparams.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

/* ---- writing ------------------------------------------------------------------------------------------- */

static void u32(struct buf *b, uint32_t v)
{
    buf_put(b, &v, 4);
}

static void u64(struct buf *b, uint64_t v)
{
    buf_put(b, &v, 8);
}

static void text(struct buf *b, const char *s)
{
    u64(b, strlen(s));
    buf_puts(b, s);
}

static void key(struct buf *b, const char *name, uint32_t type)
{
    text(b, name);
    u32(b, type);
}

static void array(struct buf *b, const char *name, uint32_t type, uint64_t n)
{
    key(b, name, GGUF_ARRAY);
    u32(b, type);
    u64(b, n);
}

static void tensor(struct buf *b, const char *name, uint64_t k, uint64_t rows, uint32_t type, uint64_t off)
{
    text(b, name);
    u32(b, rows > 0 ? 2 : 1);
    u64(b, k);
    if (rows > 0)
        u64(b, rows);
    u32(b, type);
    u64(b, off);
}

static void head(struct buf *b, uint32_t version, uint64_t tensors, uint64_t keys)
{
    buf_puts(b, "GGUF");
    u32(b, version);
    u64(b, tensors);
    u64(b, keys);
}

/* One of everything: 15 keys, 3 tensors, 32-byte alignment. */
static size_t sample(struct buf *b)
{
    float f = 1.5f;
    double d = -2.25;
    head(b, 3, 3, 15);
    key(b, "u8", GGUF_U8), buf_putc(b, (char)200);
    key(b, "i8", GGUF_I8), buf_putc(b, (char)-5);
    key(b, "u16", GGUF_U16), buf_put(b, "\x01\x80", 2);
    key(b, "i16", GGUF_I16), buf_put(b, "\xfe\xff", 2);
    key(b, "u32", GGUF_U32), u32(b, 4000000000u);
    key(b, "i32", GGUF_I32), u32(b, (uint32_t)-7);
    key(b, "f32", GGUF_F32), buf_put(b, &f, 4);
    key(b, "bool", GGUF_BOOL), buf_putc(b, 1);
    key(b, "str", GGUF_STRING), text(b, "hello");
    key(b, "u64", GGUF_U64), u64(b, 1ull << 40);
    key(b, "i64", GGUF_I64), u64(b, (uint64_t)-9);
    key(b, "f64", GGUF_F64), buf_put(b, &d, 8);
    array(b, "words", GGUF_STRING, 3), text(b, "a"), text(b, ""), text(b, "ccc");
    array(b, "ints", GGUF_I32, 2), u32(b, 3), u32(b, (uint32_t)-4);
    array(b, "floats", GGUF_F32, 1), buf_put(b, &f, 4);
    tensor(b, "m", 32, 2, 3, 0);     /* Q4_1: 40 bytes */
    tensor(b, "v", 3, 0, 0, 64);     /* F32: 12 bytes */
    tensor(b, "odd", 32, 1, 13, 96); /* Q5_K: known by name, not read */
    size_t header = b->n;
    while (b->n % 32 != 0)
        buf_putc(b, 0);
    for (int i = 0; i < 96; i++)
        buf_putc(b, (char)i);
    assert_int_equal(b->failed, ST_OK);
    return header;
}

static int parse(struct gguf **g, const struct buf *b, struct err *e)
{
    return gguf_parse(g, b->p, b->n, "x.gguf", e);
}

/* ---- reading ------------------------------------------------------------------------------------------- */

static void values_come_out_as_written(void **state)
{
    (void)state;
    struct buf b = {0};
    struct gguf *g;
    struct err e = {0};
    sample(&b);
    assert_int_equal(parse(&g, &b, &e), ST_OK);
    static const struct {
        const char *key;
        int64_t v;
    } ints[] = {{"u8", 200},         {"i8", -5},  {"u16", 0x8001},    {"i16", -2},
                {"u32", 4000000000}, {"i32", -7}, {"u64", 1ll << 40}, {"i64", -9}};
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        int64_t v = 0;
        assert_int_equal(gguf_need_int(g, ints[i].key, INT64_MIN, INT64_MAX, &v, &e), ST_OK);
        assert_int_equal(v, ints[i].v);
    }
    double d = 0;
    bool yes = false;
    struct str s;
    assert_int_equal(gguf_opt_num(g, "f32", -10, 10, &d, &e), ST_OK);
    assert_true(d == 1.5);
    assert_int_equal(gguf_opt_num(g, "f64", -10, 10, &d, &e), ST_OK);
    assert_true(d == -2.25);
    assert_int_equal(gguf_opt_bool(g, "bool", &yes, &e), ST_OK);
    assert_true(yes);
    assert_int_equal(gguf_need_str(g, "str", &s, &e), ST_OK);
    assert_true(str_eqz(s, "hello"));
    d = 7;
    assert_int_equal(gguf_opt_num(g, "absent", 0, 1, &d, &e), ST_OK);
    assert_true(d == 7 && !gguf_has(g, "absent") && gguf_has(g, "u8"));
    gguf_close(g);
    buf_fini(&b);
}

static void arrays_are_walked_and_indexed(void **state)
{
    (void)state;
    struct buf b = {0};
    struct gguf *g;
    struct err e = {0};
    struct gguf_array a = {0};
    struct str s;
    sample(&b);
    assert_int_equal(parse(&g, &b, &e), ST_OK);
    assert_int_equal(gguf_opt_array(g, "words", GGUF_STRING, &a, &e), ST_OK);
    assert_int_equal(a.n, 3);
    assert_true(gguf_array_str(&a, &s) && str_eqz(s, "a"));
    assert_true(gguf_array_str(&a, &s) && str_eqz(s, ""));
    assert_true(gguf_array_str(&a, &s) && str_eqz(s, "ccc"));
    assert_false(gguf_array_str(&a, &s));
    assert_int_equal(gguf_opt_array(g, "ints", GGUF_ARRAY, &a, &e), ST_OK);
    assert_true(a.type == GGUF_I32 && a.n == 2 && gguf_array_int(&a, 0) == 3 && gguf_array_int(&a, 1) == -4);
    assert_int_equal(gguf_opt_array(g, "floats", GGUF_F32, &a, &e), ST_OK);
    assert_true(gguf_array_num(&a, 0) == 1.5);
    gguf_close(g);
    buf_fini(&b);
}

static void tensors_are_placed(void **state)
{
    (void)state;
    struct buf b = {0};
    struct gguf *g;
    struct err e = {0};
    sample(&b);
    assert_int_equal(parse(&g, &b, &e), ST_OK);
    assert_int_equal(gguf_n_tensors(g), 3);
    const struct tensor *m = gguf_tensor(g, "m"), *v = gguf_tensor(g, "v"), *odd = gguf_tensor(g, "odd");
    assert_true(m != NULL && v != NULL && odd != NULL && gguf_tensor(g, "w") == NULL);
    assert_true(m->type == BE_Q4_1 && m->n_dims == 2 && m->dims[0] == 2 && m->dims[1] == 32 &&
                m->bytes == 40);
    assert_true(m->data[0] == 0 && m->data[39] == 39);
    assert_true(v->type == BE_F32 && v->n_dims == 1 && v->dims[0] == 3 && v->bytes == 12 && v->data[0] == 64);
    assert_true(odd->type == -1 && odd->data == NULL);
    assert_string_equal(odd->type_text, "Q5_K");
    gguf_close(g);
    buf_fini(&b);
}

static void wrong_types_and_ranges_name_file_and_key(void **state)
{
    (void)state;
    struct buf b = {0};
    struct gguf *g;
    struct err e = {0};
    int64_t v = 0;
    double d = 0;
    struct str s;
    sample(&b);
    assert_int_equal(parse(&g, &b, &e), ST_OK);
    assert_int_equal(gguf_opt_int(g, "f32", 0, 9, &v, &e), ST_EFORMAT);
    assert_string_equal(e.text, "x.gguf: key 'f32': expected an integer, found f32");
    assert_int_equal(gguf_opt_int(g, "u8", 0, 9, &v, &e), ST_EFORMAT);
    assert_string_equal(e.text, "x.gguf: key 'u8': 200 is not within 0 to 9");
    assert_int_equal(gguf_need_str(g, "nope", &s, &e), ST_EFORMAT);
    assert_string_equal(e.text, "x.gguf: key 'nope' is missing");
    assert_int_equal(gguf_opt_num(g, "str", 0, 9, &d, &e), ST_EFORMAT);
    assert_int_equal(v, 0);
    gguf_close(g);
    buf_fini(&b);
}

/* Looks at every byte that a parsed file offers. */
static uint64_t touch(const struct gguf *g, const char *const *keys, size_t n_keys)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < gguf_n_tensors(g); i++) {
        const struct tensor *t = gguf_tensor_at(g, i);
        for (size_t j = 0; t->data != NULL && j < t->bytes; j++)
            sum += t->data[j];
    }
    for (size_t i = 0; i < n_keys; i++) {
        struct gguf_array a = {0};
        struct str s = {0};
        int64_t v = 0;
        if (gguf_opt_array(g, keys[i], GGUF_ARRAY, &a, NULL) == ST_OK)
            for (uint64_t j = 0; j < a.n && a.type != GGUF_STRING; j++)
                sum += (uint64_t)gguf_array_num(&a, j) & 1;
        while (gguf_array_str(&a, &s))
            for (size_t j = 0; j < s.n; j++)
                sum += (unsigned char)s.p[j];
        if (gguf_opt_int(g, keys[i], INT64_MIN, INT64_MAX, &v, NULL) == ST_OK)
            sum += (uint64_t)v;
    }
    return sum;
}

static const char *const all_keys[] = {"u8",  "i8",  "u16", "i16", "u32",   "i32",  "f32",   "bool",
                                       "str", "u64", "i64", "f64", "words", "ints", "floats"};

static void every_cut_is_refused(void **state)
{
    (void)state;
    struct buf b = {0};
    sample(&b);
    /* The last tensor's type is not known: of its bytes the file may hold any part, but its offset must be
     * inside. */
    for (size_t n = 0; n < b.n; n++) {
        struct guard guard = {0};
        struct gguf *g = NULL;
        struct err e = {0};
        assert_int_equal(guard_put(&guard, b.p, n), 0);
        int rc = gguf_parse(&g, guard.p, n, "cut.gguf", &e);
        assert_int_equal(rc, ST_EFORMAT);
        assert_non_null(strstr(e.text, "cut.gguf: "));
        guard_free(&guard);
    }
    buf_fini(&b);
    assert_int_equal(mem_live(), 0);
}

static void no_lie_reads_outside_the_file(void **state)
{
    (void)state;
    static const uint64_t lies[] = {0,         1,          31,         0x7f,           0xff,
                                    0xffff,    0x7fffffff, 0xffffffff, 1ull << 32,     1ull << 53,
                                    INT64_MAX, 1ull << 63, UINT64_MAX, UINT64_MAX - 31};
    struct buf b = {0};
    size_t header = sample(&b), parsed = 0, refused = 0;
    struct guard guard = {0};
    assert_int_equal(guard_put(&guard, b.p, b.n), 0);
    for (size_t at = 0; at < header; at++) {
        for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
            for (size_t width = 1; width <= 8; width *= 2) {
                struct gguf *g = NULL;
                struct err e = {0};
                if (at + width > header)
                    continue;
                memcpy(guard.p + at, &lies[i], width);
                int rc = gguf_parse(&g, guard.p, b.n, "lie.gguf", &e);
                if (rc == ST_OK) {
                    touch(g, all_keys, sizeof all_keys / sizeof *all_keys);
                    gguf_close(g);
                    parsed++;
                } else {
                    assert_true(rc == ST_EFORMAT || rc == ST_EUNSUP);
                    assert_non_null(strstr(e.text, "lie.gguf: "));
                    refused++;
                }
                memcpy(guard.p + at, b.p + at, width);
            }
        }
    }
    print_message("%zu lies refused, %zu harmless\n", refused, parsed);
    guard_free(&guard);
    buf_fini(&b);
    assert_int_equal(mem_live(), 0);
}

static void refuse(struct buf *b, int status, const char *says)
{
    struct gguf *g = NULL;
    struct err e = {0};
    assert_int_equal(parse(&g, b, &e), status);
    assert_string_equal(e.text, says);
    buf_fini(b);
    memset(b, 0, sizeof *b);
}

static void lies_are_named(void **state)
{
    (void)state;
    struct buf b = {0};
    head(&b, 3, 0, 1u << 30);
    refuse(&b, ST_EFORMAT, "x.gguf: 1073741824 keys exceed the file or the limit 1000000");
    head(&b, 3, UINT64_MAX, 0);
    refuse(&b, ST_EFORMAT, "x.gguf: 18446744073709551615 tensors exceed the file or the limit 100000");
    head(&b, 7, 0, 0);
    refuse(&b, ST_EUNSUP, "x.gguf: GGUF version 7 (2 and 3 are read)");
    head(&b, 0x03000000, 0, 0);
    refuse(&b, ST_EUNSUP, "x.gguf: a big-endian GGUF file");
    buf_puts(&b, "PK\x03\x04");
    refuse(&b, ST_EFORMAT, "x.gguf: not a GGUF file");
    head(&b, 3, 0, 1), array(&b, "many", GGUF_STRING, 1ull << 60);
    refuse(&b, ST_EFORMAT, "x.gguf: key 'many': an array of 1152921504606846976 string exceeds the file");
    head(&b, 3, 0, 1), array(&b, "many", GGUF_U64, (1ull << 61) + 1);
    refuse(&b, ST_EFORMAT, "x.gguf: key 'many': an array of 2305843009213693953 u64 exceeds the file");
    head(&b, 3, 0, 1), array(&b, "deep", GGUF_ARRAY, 1);
    refuse(&b, ST_EFORMAT, "x.gguf: key 'deep': arrays of type 9 are not known");
    head(&b, 3, 0, 2), key(&b, "a", GGUF_U8), buf_putc(&b, 1), key(&b, "a", GGUF_U8), buf_putc(&b, 2);
    refuse(&b, ST_EFORMAT, "x.gguf: key 'a' stands twice");
    head(&b, 3, 1, 0), tensor(&b, "t", 100, 2, 2, 0);
    refuse(&b, ST_EFORMAT, "x.gguf: tensor 't': rows of 100 do not divide into blocks of Q4_0");
    head(&b, 3, 1, 0), tensor(&b, "t", 1ull << 40, 1ull << 40, 0, 0);
    refuse(&b, ST_EFORMAT, "x.gguf: tensor 't': the product of its dims overflows");
    head(&b, 3, 1, 0), tensor(&b, "t", 1ull << 31, 1ull << 32, 0, 0);
    refuse(&b, ST_EFORMAT, "x.gguf: tensor 't': its size overflows");
    head(&b, 3, 1, 0), tensor(&b, "t", 4, 0, 0, UINT64_MAX - 31);
    refuse(&b, ST_EFORMAT,
           "x.gguf: tensor 't': offset 18446744073709551584 + 16 bytes exceeds the file (0 bytes of data)");
    head(&b, 3, 1, 0), tensor(&b, "t", 4, 0, 0, 8);
    refuse(&b, ST_EFORMAT, "x.gguf: tensor 't': offset 8 is no multiple of the alignment 32");
    head(&b, 3, 1, 1), key(&b, "general.alignment", GGUF_U32), u32(&b, 24), tensor(&b, "t", 4, 0, 0, 0);
    refuse(&b, ST_EFORMAT, "x.gguf: general.alignment: 24 is no power of two");
    head(&b, 3, 2, 0), tensor(&b, "t", 1, 0, 0, 0), tensor(&b, "t", 1, 0, 0, 0);
    while (b.n % 32 != 4)
        buf_putc(&b, 0);
    refuse(&b, ST_EFORMAT, "x.gguf: tensor 't' stands twice");
}

static void what_is_not_carried_out_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        uint32_t type;
        const char *text; /* of a string key; NULL: the number 2 */
        const char *says;
    } rows[] = {
        {"split.count", GGUF_U32, NULL,
         "x.gguf: key 'split.count': one of 2 files; merge them into one first"},
        {"llama.expert_count", GGUF_U32, NULL,
         "x.gguf: key 'llama.expert_count': mixtures of experts are not supported"},
        {"llama.rope.scaling.type", GGUF_STRING, "yarn",
         "x.gguf: key 'llama.rope.scaling.type': 'yarn' is not supported (none, linear, llama3)"},
    };
    static const char *const needed[] = {"llama.block_count", "llama.embedding_length",
                                         "llama.attention.head_count", "llama.feed_forward_length",
                                         "llama.context_length"};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf b = {0};
        struct gguf *g;
        struct hparams h;
        struct err e = {0};
        head(&b, 3, 0, 7);
        key(&b, "general.architecture", GGUF_STRING), text(&b, "llama");
        for (int j = 0; j < 5; j++)
            key(&b, needed[j], GGUF_U32), u32(&b, 2);
        key(&b, rows[i].key, rows[i].type);
        if (rows[i].text != NULL)
            text(&b, rows[i].text);
        else
            u32(&b, 2);
        assert_int_equal(parse(&g, &b, &e), ST_OK);
        assert_int_equal(hparams_gguf(&h, g, &e), ST_EUNSUP);
        assert_string_equal(e.text, rows[i].says);
        gguf_close(g);
        buf_fini(&b);
    }
    struct buf b = {0};
    struct gguf *g;
    struct hparams h;
    struct err e = {0};
    head(&b, 3, 0, 1), key(&b, "general.architecture", GGUF_STRING), text(&b, "mamba");
    assert_int_equal(parse(&g, &b, &e), ST_OK);
    assert_int_equal(hparams_gguf(&h, g, &e), ST_EUNSUP);
    assert_string_equal(e.text, "x.gguf: architecture 'mamba' is not supported");
    gguf_close(g);
    buf_fini(&b);
}

static void failed_allocations_leave_nothing_behind(void **state)
{
    (void)state;
    struct buf b = {0};
    sample(&b);
    uint64_t before = mem_live();
    int rc = ST_ENOMEM;
    for (uint64_t n = 1; rc == ST_ENOMEM; n++) {
        struct gguf *g = NULL;
        struct err e = {0};
        mem_fail_after(n);
        rc = parse(&g, &b, &e);
        mem_fail_after(0);
        if (rc == ST_OK)
            gguf_close(g);
        assert_int_equal(mem_live(), before);
        assert_true(n < 20);
    }
    assert_int_equal(rc, ST_OK);
    buf_fini(&b);
}

static void a_missing_or_empty_file_is_named(void **state)
{
    (void)state;
    struct gguf *g = NULL;
    struct err e = {0};
    assert_int_equal(gguf_open(&g, "/nonexistent/model.gguf", &e), ST_ENOENT);
    assert_string_equal(e.text, "/nonexistent/model.gguf: No such file or directory");
    assert_int_equal(gguf_open(&g, "/dev/null", &e), ST_EFORMAT);
    assert_string_equal(e.text, "/dev/null: not a regular file");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_out_as_written),
        cmocka_unit_test(arrays_are_walked_and_indexed),
        cmocka_unit_test(tensors_are_placed),
        cmocka_unit_test(wrong_types_and_ranges_name_file_and_key),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(no_lie_reads_outside_the_file),
        cmocka_unit_test(lies_are_named),
        cmocka_unit_test(what_is_not_carried_out_is_refused_by_name),
        cmocka_unit_test(failed_allocations_leave_nothing_behind),
        cmocka_unit_test(a_missing_or_empty_file_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
