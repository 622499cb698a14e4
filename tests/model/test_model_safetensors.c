/* safetensors: tensors as written, shards as one set; truncated and lying files refused by name. */
#define _GNU_SOURCE
#include "buf.h"
#include "guard.h"
#include "mem.h"
#include "safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <cmocka.h>

#define GOLDEN STATOR_SOURCE_DIR "/tests/golden/model/"

static void put_file(struct buf *b, const char *json, size_t data)
{
    uint64_t n = strlen(json);
    buf_put(b, &n, 8);
    buf_puts(b, json);
    for (size_t i = 0; i < data; i++)
        buf_putc(b, (char)i);
    assert_int_equal(b->failed, ST_OK);
}

static const char sample[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                             "\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                             "\"h\":{\"dtype\":\"BF16\",\"shape\":[5],\"data_offsets\":[24,34]},"
                             "\"i\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[34,42]},"
                             "\"s\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[42,44]},"
                             "\"new\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[44,46]}}";

static void tensors_are_placed(void **state)
{
    (void)state;
    struct buf b = {0};
    struct safetensors *s;
    struct err e = {0};
    put_file(&b, sample, 46);
    assert_int_equal(safetensors_parse(&s, b.p, b.n, "x", &e), ST_OK);
    assert_int_equal(safetensors_n_tensors(s), 5);
    const struct tensor *w = safetensors_tensor(s, "w"), *h = safetensors_tensor(s, "h"),
                        *i = safetensors_tensor(s, "i"), *f4 = safetensors_tensor(s, "new");
    assert_true(w->type == BE_F32 && w->n_dims == 2 && w->dims[0] == 2 && w->dims[1] == 3 && w->bytes == 24);
    assert_int_equal(w->data[23], 23);
    assert_true(h->type == BE_BF16 && h->n_dims == 1 && h->bytes == 10 && h->data[0] == 24);
    assert_true(i->type == -1 && i->data == NULL);
    assert_true(f4->type == -1 && f4->bytes == 2);
    assert_null(safetensors_tensor(s, "__metadata__"));
    safetensors_close(s);
    buf_fini(&b);
}

static void shards_are_one_set(void **state)
{
    (void)state;
    struct safetensors *s;
    struct err e = {0};
    assert_int_equal(safetensors_open(&s, GOLDEN "bf16_shards", &e), ST_OK);
    assert_int_equal(safetensors_n_files(s), 3);
    assert_int_equal(safetensors_n_tensors(s), 21); /* embedding, head, norm, 2 x 9 */
    const struct tensor *t = safetensors_tensor(s, "model.layers.1.mlp.down_proj.weight");
    assert_true(t != NULL && t->type == BE_BF16 && t->dims[0] == 32 && t->dims[1] == 80);
    safetensors_close(s);
    assert_int_equal(safetensors_open(&s, GOLDEN "tied", &e), ST_OK);
    assert_int_equal(safetensors_n_files(s), 1);
    safetensors_close(s);
    assert_int_equal(safetensors_open(&s, GOLDEN "gguf_f32", &e), ST_ENOENT);
    assert_non_null(strstr(e.text, "has neither model.safetensors nor model.safetensors.index.json"));
    assert_int_equal(mem_live(), 0);
}

static void every_cut_is_refused(void **state)
{
    (void)state;
    struct buf b = {0};
    put_file(&b, sample, 46);
    for (size_t n = 0; n < b.n; n++) {
        struct guard guard = {0};
        struct safetensors *s = NULL;
        struct err e = {0};
        assert_int_equal(guard_put(&guard, b.p, n), 0);
        assert_int_equal(safetensors_parse(&s, guard.p, n, "cut", &e), ST_EFORMAT);
        assert_non_null(strstr(e.text, "cut: "));
        guard_free(&guard);
    }
    buf_fini(&b);
    assert_int_equal(mem_live(), 0);
}

/* Every byte of the file replaced in turn: parsed or refused, and what is parsed lies inside. */
static void no_lie_reads_outside_the_file(void **state)
{
    (void)state;
    static const unsigned char bytes[] = "\0\1\x7f\xff\"09[]{},:-.eE\\ \n";
    struct buf b = {0};
    struct guard guard = {0};
    uint64_t parsed = 0, refused = 0, sum = 0;
    put_file(&b, sample, 46);
    assert_int_equal(guard_put(&guard, b.p, b.n), 0);
    for (size_t at = 0; at < 8 + sizeof sample - 1; at++) {
        for (size_t i = 0; i < sizeof bytes; i++) {
            struct safetensors *s = NULL;
            guard.p[at] = bytes[i];
            int rc = safetensors_parse(&s, guard.p, b.n, "lie", NULL);
            if (rc == ST_OK) {
                for (uint32_t t = 0; t < safetensors_n_tensors(s); t++) {
                    const struct tensor *v = safetensors_tensor_at(s, t);
                    for (size_t j = 0; v->data != NULL && j < v->bytes; j++)
                        sum += v->data[j];
                }
                safetensors_close(s);
                parsed++;
            } else {
                assert_int_equal(rc, ST_EFORMAT);
                refused++;
            }
            guard.p[at] = (unsigned char)b.p[at];
        }
    }
    print_message("%llu lies refused, %llu harmless, sum %llu\n", (unsigned long long)refused,
                  (unsigned long long)parsed, (unsigned long long)sum);
    guard_free(&guard);
    buf_fini(&b);
    assert_int_equal(mem_live(), 0);
}

static void refuse(const char *json, size_t data, const char *says)
{
    struct buf b = {0};
    struct safetensors *s = NULL;
    struct err e = {0};
    put_file(&b, json, data);
    assert_int_equal(safetensors_parse(&s, b.p, b.n, "x", &e), ST_EFORMAT);
    assert_string_equal(e.text, says);
    buf_fini(&b);
}

static void lies_are_named(void **state)
{
    (void)state;
    refuse("[]", 0, "x: header: expected an object");
    refuse("{\"a\":7}", 0, "x: tensor 'a': expected an object");
    refuse("{\"a\":{\"shape\":[1]}}", 0, "x: tensor 'a': dtype: expected a string");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":4,\"data_offsets\":[0,4]}}", 4,
           "x: tensor 'a': shape: expected an array");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4,
           "x: tensor 'a': shape[0]: expected a whole number");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1e99],\"data_offsets\":[0,4]}}", 4,
           "x: tensor 'a': shape[0]: expected a whole number");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
           "x: tensor 'a': shape: more than 4 dims");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}", 4,
           "x: tensor 'a': the product of its shape overflows");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,1073741824],\"data_offsets\":[0,4]}}", 4,
           "x: tensor 'a': its size overflows");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
           "x: tensor 'a': 4 bytes of data, but its shape and dtype ask for 8");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 4,
           "x: tensor 'a': data_offsets 4..8 exceed the file (4 bytes of data)");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,4]}}", 8,
           "x: tensor 'a': data_offsets 8..4 exceed the file (8 bytes of data)");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,5]}}", 4,
           "x: tensor 'a': data_offsets: expected two whole numbers");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
           "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
           1, "x: tensor 'a' stands twice");
    struct buf b = {0};
    struct safetensors *s = NULL;
    struct err e = {0};
    uint64_t huge = UINT64_MAX - 4;
    buf_put(&b, &huge, 8);
    assert_int_equal(safetensors_parse(&s, b.p, b.n, "x", &e), ST_EFORMAT);
    assert_string_equal(e.text,
                        "x: a header of 18446744073709551611 bytes exceeds the file (8 bytes) or the limit");
    buf_fini(&b);
}

/* ---- the index ----------------------------------------------------------------------------------------- */

static void write_file(const char *folder, const char *name, const void *p, size_t n)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void index_refused(const char *folder, const char *index, int status, const char *says)
{
    struct safetensors *s = NULL;
    struct err e = {0};
    write_file(folder, "model.safetensors.index.json", index, strlen(index));
    assert_int_equal(safetensors_open(&s, folder, &e), status);
    if (strstr(e.text, says) == NULL)
        fail_msg("'%s' does not say '%s'", e.text, says);
}

static void an_index_that_lies_is_refused(void **state)
{
    (void)state;
    char folder[] = "/tmp/stator-test-XXXXXX", path[512];
    struct buf b = {0};
    assert_non_null(mkdtemp(folder));
    put_file(&b, "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1);
    write_file(folder, "one", b.p, b.n);
    write_file(folder, "two", b.p, b.n);
    index_refused(folder, "{}", ST_EFORMAT, "weight_map: expected an object");
    index_refused(folder, "{\"weight_map\":{}}", ST_EFORMAT, "weight_map: names no tensor");
    index_refused(folder, "{\"weight_map\":{\"a\":\"../one\"}}", ST_EFORMAT, "expected a plain file name");
    index_refused(folder, "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", ST_EFORMAT,
                  "expected a plain file name");
    index_refused(folder, "{\"weight_map\":{\"a\":\"three\"}}", ST_ENOENT, "three: No such file");
    index_refused(folder, "{\"weight_map\":{\"b\":\"one\"}}", ST_EFORMAT, "tensor 'b' is not in one");
    index_refused(folder, "{\"weight_map\":{\"a\":\"one\",\"b\":\"two\"}}", ST_EFORMAT,
                  "tensor 'a' stands twice");
    index_refused(folder, "{\"weight_map\":", ST_EFORMAT, "model.safetensors.index.json: JSON:");
    assert_int_equal(mem_live(), 1); /* b */
    buf_fini(&b);
    static const char *const names[] = {"one", "two", "model.safetensors.index.json"};
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

static void failed_allocations_leave_nothing_behind(void **state)
{
    (void)state;
    int rc = ST_ENOMEM;
    for (uint64_t n = 1; rc != ST_OK; n++) {
        struct safetensors *s = NULL;
        mem_fail_after(n);
        rc = safetensors_open(&s, GOLDEN "bf16_shards", NULL);
        mem_fail_after(0);
        assert_true(rc == ST_OK || rc == ST_ENOMEM);
        if (rc == ST_OK)
            safetensors_close(s);
        assert_int_equal(mem_live(), 0);
        assert_true(n < 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_are_placed),
        cmocka_unit_test(shards_are_one_set),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(no_lie_reads_outside_the_file),
        cmocka_unit_test(lies_are_named),
        cmocka_unit_test(an_index_that_lies_is_refused),
        cmocka_unit_test(failed_allocations_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
