/* API keys: one per line however the lines end; a file that gives none, or cannot be read, is refused by name. */
#define _GNU_SOURCE
#include "keys.h"

#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/stator-keys-XXXXXX";
static struct keys K;

static int up(void **state)
{
    (void)state;
    K = (struct keys){0};
    memcpy(path + sizeof path - 7, "XXXXXX", 6);
    int fd = mkstemp(path);
    return fd < 0 || close(fd);
}

static int down(void **state)
{
    (void)state;
    keys_fini(&K);
    unlink(path);
    return mem_live() != 0;
}

static int load(const char *key, const char *text, size_t n, struct err *e)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    fclose(f);
    return keys_load(&K, key, path, e);
}

static void each_line_is_a_key_and_an_empty_one_is_none(void **state)
{
    (void)state;
    static const char text[] = "one\n\r\ntwo three\r\n\nfour";
    assert_int_equal(load("zero", text, sizeof text - 1, NULL), ST_OK);
    static const char *const want[] = {"zero", "one", "two three", "four"};
    assert_int_equal(K.n, 4);
    for (int i = 0; i < 4; i++)
        assert_true(str_eq(K.list[i], str_from(want[i])));
}

static void without_either_there_is_none(void **state)
{
    (void)state;
    assert_int_equal(keys_load(&K, NULL, NULL, NULL), ST_OK);
    assert_int_equal(K.n, 0);
}

/* An empty file must not open the endpoint to everybody. */
static void a_file_without_a_key_is_refused(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(load(NULL, "\n\r\n", 3, &e), ST_EINVAL);
    assert_non_null(strstr(e.text, path));
}

static void what_cannot_be_read_is_named(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(keys_load(&K, NULL, "/nowhere/keys", &e), ST_EIO);
    assert_non_null(strstr(e.text, "/nowhere/keys"));
    assert_int_equal(keys_load(&K, NULL, "/", &e), ST_EIO); /* a folder opens, and cannot be read */
}

static void keys_and_bytes_have_bounds(void **state)
{
    (void)state;
    struct err e = {0};
    struct buf b = {0};
    for (int i = 0; i < KEYS_MAX; i++)
        buf_printf(&b, "key%d\n", i);
    assert_int_equal(load(NULL, b.p, b.n, &e), ST_OK);
    assert_int_equal(K.n, KEYS_MAX);
    keys_fini(&K);
    K = (struct keys){0};
    assert_int_equal(load("one more", b.p, b.n, &e), ST_EINVAL);
    keys_fini(&K);
    K = (struct keys){0};
    buf_reset(&b);
    for (int i = 0; i < (1 << 20) + 1; i++)
        buf_putc(&b, 'k');
    assert_int_equal(load(NULL, b.p, b.n, &e), ST_EIO);
    buf_fini(&b);
}

static void without_memory_no_key_is_missed(void **state)
{
    (void)state;
    mem_fail_after(1);
    int st = load(NULL, "one\n", 4, NULL);
    mem_fail_after(0);
    assert_int_equal(st, ST_EIO);
    assert_int_equal(K.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_line_is_a_key_and_an_empty_one_is_none, up, down),
        cmocka_unit_test_setup_teardown(without_either_there_is_none, up, down),
        cmocka_unit_test_setup_teardown(a_file_without_a_key_is_refused, up, down),
        cmocka_unit_test_setup_teardown(what_cannot_be_read_is_named, up, down),
        cmocka_unit_test_setup_teardown(keys_and_bytes_have_bounds, up, down),
        cmocka_unit_test_setup_teardown(without_memory_no_key_is_missed, up, down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
