/* The lane beside the io thread: in order, bounded, and nothing is told after its end. A gate holds the thread, so that nobody
 * waits for time to pass. */
#include "http_lane.h"
#include "mem.h"
#include "status.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct gate {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool open;
    int waiting;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER};

static int worked, told, order[2 * HTTP_LANE_MAX];

struct piece {
    int number;
    bool worked;
    pthread_t by;
};

static void work(void *ctx)
{
    struct piece *p = ctx;
    pthread_mutex_lock(&gate.lock);
    gate.waiting++;
    pthread_cond_broadcast(&gate.moved);
    while (!gate.open)
        pthread_cond_wait(&gate.moved, &gate.lock);
    gate.waiting--;
    worked++;
    p->worked = true;
    p->by = pthread_self();
    pthread_mutex_unlock(&gate.lock);
}

static void done(void *ctx)
{
    struct piece *p = ctx;
    assert_true(p->worked);
    assert_false(pthread_equal(p->by, pthread_self()));
    order[told++] = p->number;
}

static void set_gate(bool open)
{
    pthread_mutex_lock(&gate.lock);
    gate.open = open;
    pthread_cond_broadcast(&gate.moved);
    pthread_mutex_unlock(&gate.lock);
}

static int push(struct http_lane *l, struct piece *p, int number)
{
    *p = (struct piece){.number = number};
    return http_lane_push(l, &(struct http_lane_piece){work, done, p});
}

static void wait_until_told(struct http_lane *l, int n)
{
    while (told < n) {
        struct pollfd p = {.fd = http_lane_fd(l), .events = POLLIN};
        if (http_lane_sleep(l)) {
            assert_int_equal(poll(&p, 1, -1), 1);
            http_lane_drain_fd(l);
        }
        http_lane_poll(l);
    }
}

static struct http_lane *L;

static int up(void **state)
{
    (void)state;
    worked = told = 0;
    set_gate(false);
    return http_lane_create(&L);
}

static int down(void **state)
{
    (void)state;
    set_gate(true);
    http_lane_destroy(L);
    return mem_live() != 0;
}

static void pieces_are_told_in_the_order_in_which_they_came(void **state)
{
    (void)state;
    static struct piece pieces[2 * HTTP_LANE_MAX];
    for (int i = 0; i < HTTP_LANE_MAX; i++)
        assert_int_equal(push(L, &pieces[i], i), ST_OK);
    http_lane_poll(L);
    assert_int_equal(told, 0); /* nothing is done yet */
    set_gate(true);
    wait_until_told(L, HTTP_LANE_MAX);
    for (int i = HTTP_LANE_MAX; i < 2 * HTTP_LANE_MAX; i++) /* its places are free again */
        assert_int_equal(push(L, &pieces[i], i), ST_OK);
    wait_until_told(L, 2 * HTTP_LANE_MAX);
    for (int i = 0; i < 2 * HTTP_LANE_MAX; i++)
        assert_int_equal(order[i], i);
}

static void one_more_than_it_holds_is_refused(void **state)
{
    (void)state;
    static struct piece pieces[HTTP_LANE_MAX + 1];
    for (int i = 0; i < HTTP_LANE_MAX; i++)
        assert_int_equal(push(L, &pieces[i], i), ST_OK);
    assert_int_equal(push(L, &pieces[HTTP_LANE_MAX], 0), ST_EBUSY);
    set_gate(true);
    wait_until_told(L, 1);
    assert_int_equal(push(L, &pieces[HTTP_LANE_MAX], 0), ST_OK);
    wait_until_told(L, HTTP_LANE_MAX + 1);
}

/* A job that is being prepared lives until its work is over; that it is over nobody is there to hear. */
static void its_end_waits_for_the_work_and_tells_nobody(void **state)
{
    (void)state;
    static struct piece pieces[3];
    struct http_lane *l;
    assert_int_equal(http_lane_create(&l), ST_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(push(l, &pieces[i], i), ST_OK);
    pthread_mutex_lock(&gate.lock);
    while (!gate.waiting) /* the first is under way, the others are not */
        pthread_cond_wait(&gate.moved, &gate.lock);
    pthread_mutex_unlock(&gate.lock);
    set_gate(true);
    http_lane_destroy(l);
    assert_true(worked == 3 && told == 0);
}

static void without_memory_there_is_no_lane(void **state)
{
    (void)state;
    for (uint64_t fail = 1;; fail++) {
        struct http_lane *l = NULL;
        uint64_t live = mem_live();
        mem_fail_after(fail);
        int st = http_lane_create(&l);
        mem_fail_after(0);
        if (!st) {
            http_lane_destroy(l);
            break;
        }
        assert_int_equal(st, ST_ENOMEM);
        assert_null(l);
        assert_int_equal(mem_live(), live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(pieces_are_told_in_the_order_in_which_they_came, up, down),
        cmocka_unit_test_setup_teardown(one_more_than_it_holds_is_refused, up, down),
        cmocka_unit_test_setup_teardown(its_end_waits_for_the_work_and_tells_nobody, up, down),
        cmocka_unit_test_setup_teardown(without_memory_there_is_no_lane, up, down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
