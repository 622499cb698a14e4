/* Goal: a log line is one line whatever text a client put into it; levels and limits hold; statuses have names.
 * Method: standard error is redirected into a pipe and read back. */
#define _GNU_SOURCE
#include "log.h"
#include "mem.h"
#include "status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static size_t captured(char *out, size_t cap, void (*fn)(void))
{
    int p[2], saved = dup(2);
    assert_int_equal(pipe(p), 0);
    dup2(p[1], 2);
    close(p[1]);
    fn();
    dup2(saved, 2);
    close(saved);
    ssize_t n = read(p[0], out, cap - 1);
    close(p[0]);
    out[n > 0 ? n : 0] = 0;
    return n > 0 ? (size_t)n : 0;
}

static void forged(void)
{
    log_info("http", "path=%s", "x\nerror engine fake\x1b[2J");
    log_debug("http", "hidden");
}

static void huge(void)
{
    char text[5000];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = 0;
    log_error("m", "%s", text);
}

static void flood(void)
{
    for (int i = 0; i < 1000; i++)
        log_warn_limited("m", "again");
}

static void a_line_cannot_be_forged(void **state)
{
    (void)state;
    char out[8192];
    captured(out, sizeof out, forged);
    assert_string_equal(out, "info  http     path=x?error engine fake?[2J\n");
}

static void a_long_line_is_cut_and_marked(void **state)
{
    (void)state;
    char out[8192];
    size_t n = captured(out, sizeof out, huge);
    assert_true(n <= LOG_LINE_MAX);
    assert_string_equal(out + n - 4, "...\n");
}

static void repeats_are_limited(void **state)
{
    (void)state;
    char out[8192];
    captured(out, sizeof out, flood);
    assert_string_equal(out, "warn  m        again\n");
}

static void statuses_have_names_and_http_codes(void **state)
{
    (void)state;
    assert_string_equal(status_name(ST_EINVAL), "ST_EINVAL");
    assert_int_equal(status_http(ST_EBUSY), 429);
    assert_int_equal(status_http(-999), 500);
    struct err e;
    assert_int_equal(err_set(&e, ST_ETOOBIG, "%s: %d", "x", 3), ST_ETOOBIG);
    assert_string_equal(e.text, "x: 3");
    assert_int_equal(err_set(NULL, ST_EIO, "x"), ST_EIO);
}

static void sizes_never_wrap(void **state)
{
    (void)state;
    size_t r = 7;
    assert_false(mem_mul(SIZE_MAX, 2, &r));
    assert_false(mem_add(SIZE_MAX, 1, &r));
    assert_int_equal(r, 7);
    assert_null(mem_zalloc(SIZE_MAX, 2));
    struct arena a;
    assert_int_equal(arena_init(&a, 100), ST_OK);
    assert_non_null(arena_alloc(&a, 50));
    assert_null(arena_alloc(&a, 60));
    assert_null(arena_alloc(&a, SIZE_MAX));
    arena_reset(&a);
    assert_non_null(arena_alloc(&a, 100));
    arena_fini(&a);
    char *p = mem_map(5 << 20);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % (2 << 20), 0);
    p[(5 << 20) - 1] = 1;
    mem_unmap(p, 5 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_cannot_be_forged), cmocka_unit_test(a_long_line_is_cut_and_marked),
        cmocka_unit_test(repeats_are_limited),     cmocka_unit_test(statuses_have_names_and_http_codes),
        cmocka_unit_test(sizes_never_wrap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
