/* Goal: no message is lost, doubled or reordered per producer; a full ring refuses; a sleeping consumer is always woken;
 * a lane runs its jobs in order.
 * Method: threads that push numbered messages through a small ring, with the sleep protocol on the consumer's side. */
#define _GNU_SOURCE
#include "jobs.h"
#include "mem.h"
#include "ring.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

enum { PRODUCERS = 4, MESSAGES = 20000 };

struct message {
    uint32_t producer, number;
    uint64_t check;
};

static struct ring *shared;

static void *produce(void *arg)
{
    uint32_t who = (uint32_t)(uintptr_t)arg;
    for (uint32_t i = 0; i < MESSAGES; i++) {
        struct message m = {who, i, (uint64_t)who << 32 | i};
        while (ring_push(shared, &m) == ST_AGAIN)
            sched_yield();
    }
    return NULL;
}

static void every_message_arrives_once_and_in_order(void **state)
{
    (void)state;
    assert_int_equal(ring_create(&shared, 8, sizeof(struct message)), ST_OK);
    pthread_t t[PRODUCERS];
    for (uintptr_t i = 0; i < PRODUCERS; i++)
        pthread_create(&t[i], NULL, produce, (void *)i);
    uint32_t next[PRODUCERS] = {0};
    for (uint32_t got = 0; got < PRODUCERS * MESSAGES;) {
        struct message m;
        if (ring_pop(shared, &m)) {
            assert_in_range(m.producer, 0, PRODUCERS - 1);
            assert_int_equal(m.number, next[m.producer]++);
            assert_int_equal(m.check, (uint64_t)m.producer << 32 | m.number);
            got++;
        } else if (ring_sleep(shared)) {
            struct pollfd p = {.fd = ring_fd(shared), .events = POLLIN};
            assert_int_equal(poll(&p, 1, 10000), 1); /* 0 would be a lost wake-up */
            ring_drain_fd(shared);
        }
    }
    for (int i = 0; i < PRODUCERS; i++)
        pthread_join(t[i], NULL);
    ring_destroy(shared);
}

static void a_full_ring_refuses(void **state)
{
    (void)state;
    struct ring *r;
    assert_int_equal(ring_create(&r, 4, 4), ST_OK);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(ring_push(r, &i), ST_OK);
    uint32_t v = 9;
    assert_int_equal(ring_push(r, &v), ST_AGAIN);
    assert_true(ring_pop(r, &v));
    assert_int_equal(v, 0);
    v = 4;
    assert_int_equal(ring_push(r, &v), ST_OK);
    for (uint32_t i = 1; i <= 4; i++) {
        assert_true(ring_pop(r, &v));
        assert_int_equal(v, i);
    }
    assert_false(ring_pop(r, &v));
    ring_destroy(r);
}

static void quiet_pushes_wake_once_and_only_when_told(void **state)
{
    (void)state;
    struct ring *r;
    assert_int_equal(ring_create(&r, 8, 4), ST_OK);
    struct pollfd p = {.fd = ring_fd(r), .events = POLLIN};
    uint32_t v = 1;
    assert_true(ring_sleep(r));
    for (int i = 0; i < 3; i++)
        assert_int_equal(ring_push_quiet(r, &v), ST_OK);
    assert_int_equal(poll(&p, 1, 0), 0);
    ring_wake(r);
    ring_wake(r);
    assert_int_equal(poll(&p, 1, 0), 1);
    ring_drain_fd(r);
    assert_int_equal(poll(&p, 1, 0), 0);
    assert_false(ring_sleep(r)); /* three messages are there */
    while (ring_pop(r, &v))
        ;
    assert_true(ring_sleep(r));
    ring_destroy(r);
}

static uint64_t order[64];
static uint32_t ran;

static void job(void *ctx, uint64_t arg)
{
    (void)ctx;
    order[ran++] = arg;
}

static void a_lane_runs_its_jobs_in_order_and_finishes_them(void **state)
{
    (void)state;
    struct jobs *j;
    assert_int_equal(jobs_create(&j, 64, "test"), ST_OK);
    for (uint64_t i = 0; i < 64; i++)
        assert_int_equal(jobs_push(j, job, NULL, i), ST_OK);
    jobs_destroy(j);
    assert_int_equal(ran, 64);
    for (uint64_t i = 0; i < 64; i++)
        assert_int_equal(order[i], i);
}

static void a_failed_create_leaves_nothing(void **state)
{
    (void)state;
    uint64_t live = mem_live();
    for (uint64_t n = 1; n <= 3; n++) {
        struct ring *r;
        struct jobs *j;
        mem_fail_after(n);
        if (ring_create(&r, 4, 4) == ST_OK)
            ring_destroy(r);
        mem_fail_after(n);
        if (jobs_create(&j, 4, "x") == ST_OK)
            jobs_destroy(j);
        mem_fail_after(0);
        assert_int_equal(mem_live(), live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_arrives_once_and_in_order),
        cmocka_unit_test(a_full_ring_refuses),
        cmocka_unit_test(quiet_pushes_wake_once_and_only_when_told),
        cmocka_unit_test(a_lane_runs_its_jobs_in_order_and_finishes_them),
        cmocka_unit_test(a_failed_create_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
