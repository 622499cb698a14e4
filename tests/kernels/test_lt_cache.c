/* Goal: the file of tuned choices is taken whole or not at all, only on the device and library that it was written for, and no
 * byte of it can ask for more than a rank below CU_LT_CANDIDATES.
 * Method: round trips; every single-byte change, every cut; each part of the identity changed. */
#include "cuda/cu_lt_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const struct cu_lt_id id = {"NVIDIA H100 80GB HBM3", 132, 13000, 130001};

static void fill(struct cu_lt_choice *c, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = 0; j < CU_LT_FIELDS; j++)
            c[i].key[j] = i * 2654435761u >> (j * 3 & 31);
        c[i].rank = i % CU_LT_CANDIDATES;
        c[i].ns = i == 0 ? UINT32_MAX : i * 1000;
    }
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    static const uint32_t counts[] = {0, 1, 7, CU_LT_CHOICES};
    static struct cu_lt_choice in[CU_LT_CHOICES], out[CU_LT_CHOICES];
    fill(in, CU_LT_CHOICES);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct buf b = {.limit = CU_LT_TEXT_MAX};
        uint32_t n = 99;
        assert_int_equal(cu_lt_cache_print(&b, &id, in, counts[i]), ST_OK);
        assert_int_equal(cu_lt_cache_parse(buf_str(&b), &id, out, &n), ST_OK);
        assert_int_equal(n, counts[i]);
        assert_memory_equal(in, out, n * sizeof *in);
        buf_fini(&b);
    }
}

static void a_file_of_another_machine_is_refused(void **state)
{
    (void)state;
    struct cu_lt_choice c[1], out[1];
    struct cu_lt_id other[4] = {id, id, id, id};
    struct buf b = {0};
    uint32_t n;
    fill(c, 1);
    assert_int_equal(cu_lt_cache_print(&b, &id, c, 1), ST_OK);
    strcpy(other[0].gpu, "NVIDIA H100 80GB HBM");
    other[1].sms = 13; /* the true number begins with it */
    other[2].driver++;
    other[3].library++;
    for (int i = 0; i < 4; i++) {
        n = 99;
        assert_int_equal(cu_lt_cache_parse(buf_str(&b), &other[i], out, &n), ST_EUNSUP);
        assert_int_equal(n, 0);
    }
    buf_fini(&b);
}

/* A changed byte is either refused, or read as what prints to the very bytes that were read. */
static void only_its_own_spelling_is_taken(void **state)
{
    (void)state;
    static struct cu_lt_choice c[3], out[CU_LT_CHOICES];
    struct buf b = {0};
    uint32_t n, taken = 0;
    fill(c, 3);
    assert_int_equal(cu_lt_cache_print(&b, &id, c, 3), ST_OK);
    char *text = malloc(b.n);
    for (size_t i = 0; i < b.n; i++) {
        for (int v = 0; v < 256; v++) {
            memcpy(text, b.p, b.n);
            text[i] = (char)v;
            if (cu_lt_cache_parse((struct str){text, b.n}, &id, out, &n) != ST_OK)
                continue;
            struct buf again = {0};
            assert_int_equal(cu_lt_cache_print(&again, &id, out, n), ST_OK);
            assert_int_equal(again.n, b.n);
            assert_memory_equal(again.p, text, b.n);
            buf_fini(&again);
            for (uint32_t j = 0; j < n; j++)
                assert_true(out[j].rank < CU_LT_CANDIDATES);
            taken++;
        }
    }
    assert_true(taken > b.n); /* digits of the rows may be other digits */
    for (size_t i = 0; i < b.n; i++) {
        assert_int_not_equal(cu_lt_cache_parse((struct str){b.p, i}, &id, out, &n), ST_OK);
        assert_int_equal(n, 0);
    }
    free(text);
    buf_fini(&b);
}

static void no_more_rows_than_there_is_room(void **state)
{
    (void)state;
    static struct cu_lt_choice c[CU_LT_CHOICES + 1], out[CU_LT_CHOICES];
    struct buf b = {0};
    uint32_t n;
    fill(c, CU_LT_CHOICES + 1);
    assert_int_equal(cu_lt_cache_print(&b, &id, c, CU_LT_CHOICES + 1), ST_OK);
    assert_int_equal(cu_lt_cache_parse(buf_str(&b), &id, out, &n), ST_EFORMAT);
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(a_file_of_another_machine_is_refused),
        cmocka_unit_test(only_its_own_spelling_is_taken),
        cmocka_unit_test(no_more_rows_than_there_is_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
