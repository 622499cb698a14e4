/* The pool: every chunk runs exactly once and before run() returns, also when the threads sleep in between. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "cpu_pool.h"
#include "mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

enum { CHUNKS_MAX = 300 };

struct count {
    atomic_uint runs[CHUNKS_MAX];
    atomic_uint bad_thread, total;
    uint32_t n_threads;
};

static void count_chunk(void *ctx, uint32_t chunk, uint32_t thread)
{
    struct count *c = ctx;
    atomic_fetch_add(&c->runs[chunk], 1);
    atomic_fetch_add(&c->total, 1);
    if (thread >= c->n_threads)
        atomic_fetch_add(&c->bad_thread, 1);
}

static void pause_ms(long ms)
{
    struct timespec t = {0, ms * 1000000};
    nanosleep(&t, NULL);
}

static void every_chunk_runs_once(void **state)
{
    (void)state;
    static struct count c;
    for (uint32_t threads = 1; threads <= 4; threads++) {
        struct cpu_pool *p = NULL;
        assert_int_equal(cpu_pool_create(&p, threads, NULL), ST_OK);
        assert_int_equal(cpu_pool_threads(p), threads);
        for (uint32_t round = 0; round < 300; round++) {
            uint32_t n = round % CHUNKS_MAX;
            memset(&c, 0, sizeof c);
            c.n_threads = threads;
            cpu_pool_run(p, n, count_chunk, &c);
            assert_int_equal(atomic_load(&c.total), n);
            for (uint32_t i = 0; i < CHUNKS_MAX; i++)
                assert_int_equal(atomic_load(&c.runs[i]), i < n ? 1 : 0);
            assert_int_equal(atomic_load(&c.bad_thread), 0);
            if (round % 100 == 99)
                pause_ms(2); /* long enough for the threads to fall asleep */
            if (round % 3 == 0)
                cpu_pool_wake(p);
        }
        cpu_pool_destroy(p);
    }
}

static void idle_threads_burn_no_cpu(void **state)
{
    (void)state;
    struct cpu_pool *p = NULL;
    assert_int_equal(cpu_pool_create(&p, 3, NULL), ST_OK);
    static struct count c;
    c.n_threads = 3;
    cpu_pool_run(p, 8, count_chunk, &c);
    pause_ms(20);
    struct timespec a, b;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    pause_ms(200);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    long long used = (b.tv_sec - a.tv_sec) * 1000000000LL + (b.tv_nsec - a.tv_nsec);
    assert_true(used < 20000000); /* two spinning threads would have used 400 ms */
    cpu_pool_destroy(p);
}

static void too_many_threads_are_refused(void **state)
{
    (void)state;
    struct cpu_pool *p = NULL;
    struct err e = {0};
    assert_int_equal(cpu_pool_create(&p, 100000, &e), ST_EINVAL);
    assert_non_null(strstr(e.text, "100000"));
    assert_int_equal(cpu_pool_create(&p, 0, &e), ST_OK);
    assert_true(cpu_pool_threads(p) >= 1);
    cpu_pool_destroy(p);
    cpu_pool_destroy(NULL);
}

static void failing_memory_is_reported(void **state)
{
    (void)state;
    uint64_t live = mem_live();
    for (uint64_t n = 1; n <= 2; n++) {
        struct cpu_pool *p = NULL;
        mem_fail_after(n);
        assert_int_equal(cpu_pool_create(&p, 2, NULL), ST_ENOMEM);
        mem_fail_after(0);
        assert_int_equal(mem_live(), live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_chunk_runs_once),
        cmocka_unit_test(idle_threads_burn_no_cpu),
        cmocka_unit_test(too_many_threads_are_refused),
        cmocka_unit_test(failing_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
