/* Goal: whatever is pushed, removed and re-keyed, the heap gives the least by (key, tie), and knows who is in.
 * Method: random operations beside a flat array that is scanned; keys from a small range, so that ties decide often.
 * A seed as argument, or in STATOR_TEST_SEED, replays one run. */
#include "heap.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

enum { N = 70, OPS = 100000 };

static uint64_t rng, seed_given;
static uint32_t rnd(uint32_t n)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng >> 33) % n;
}

struct twin {
    bool in;
    int64_t key;
    uint64_t tie;
};

static int64_t some_key(void)
{
    uint32_t k = rnd(20);
    return k == 0 ? INT64_MIN : k == 1 ? INT64_MAX : (int64_t)k - 10;
}

static uint32_t least(const struct twin *t)
{
    uint32_t best = HEAP_NONE;
    for (uint32_t i = 0; i < N; i++)
        if (t[i].in && (best == HEAP_NONE || t[i].key < t[best].key ||
                        (t[i].key == t[best].key && t[i].tie < t[best].tie)))
            best = i;
    return best;
}

static void compare(const struct heap *h, const struct twin *t)
{
    uint32_t size = 0;
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(heap_contains(h, i), t[i].in);
        size += t[i].in;
        if (t[i].in)
            assert_true(heap_key(h, i) == t[i].key && heap_tie(h, i) == t[i].tie);
    }
    assert_int_equal(heap_size(h), size);
    assert_int_equal(heap_peek(h), least(t));
}

static void run(uint64_t seed)
{
    struct twin t[N] = {0};
    struct heap *h;
    rng = seed;
    assert_int_equal(heap_create(&h, N, NULL), ST_OK);
    /* Waves of growth and of decline, so that it is seen full, empty and in between. */
    for (uint32_t op = 0, tie = 0; op < OPS; op++) {
        uint32_t id = rnd(N), grow = op / 500 % 2 ? 7 : 3, what = rnd(10);
        if (what < grow && !t[id].in) {
            t[id] = (struct twin){.in = true, .key = some_key(), .tie = op % 3 ? ++tie : UINT64_MAX - ++tie};
            heap_push(h, id, t[id].key, t[id].tie);
        } else if (what < grow) {
            t[id] = (struct twin){.in = true, .key = some_key(), .tie = ++tie};
            heap_update(h, id, t[id].key, t[id].tie);
        } else if (what < 8) {
            id = least(t);
            assert_int_equal(heap_pop(h), id);
            if (id != HEAP_NONE)
                t[id].in = false;
        } else if (t[id].in) {
            t[id].in = false;
            heap_remove(h, id);
        }
        assert_int_equal(heap_peek(h), least(t));
        if (op % 16 == 0) {
            compare(h, t);
            assert_true(heap_check(h));
        }
    }
    for (uint32_t id; (id = least(t)) != HEAP_NONE; t[id].in = false)
        assert_int_equal(heap_pop(h), id);
    compare(h, t);
    heap_destroy(h);
}

static void random_operations_agree_with_a_scan(void **state)
{
    (void)state;
    uint64_t seeds[] = {1, 2, (uint64_t)time(NULL)};
    for (int i = 0; i < 3; i++) {
        uint64_t seed = seed_given ? seed_given : seeds[i];
        print_message("seed %llu\n", (unsigned long long)seed);
        run(seed);
    }
}

static void equal_keys_leave_in_order_of_their_ties(void **state)
{
    (void)state;
    struct heap *h;
    assert_int_equal(heap_create(&h, 100, NULL), ST_OK);
    for (uint32_t i = 0; i < 100; i++)
        heap_push(h, i, 5, i * 37 % 100);
    for (uint32_t tie = 0; tie < 100; tie++)
        assert_int_equal(heap_pop(h) * 37 % 100, tie);
    heap_destroy(h);
}

static void an_empty_heap_gives_nobody(void **state)
{
    (void)state;
    struct heap *h;
    assert_int_equal(heap_create(&h, 0, NULL), ST_OK);
    assert_int_equal(heap_peek(h), HEAP_NONE);
    assert_int_equal(heap_pop(h), HEAP_NONE);
    assert_int_equal(heap_size(h), 0);
    heap_destroy(h);
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    uint64_t live = mem_live();
    for (uint64_t k = 1;; k++) {
        struct heap *h = NULL;
        struct err e = {0};
        mem_fail_after(k);
        int rc = heap_create(&h, 100, &e);
        mem_fail_after(0);
        if (rc == ST_OK) {
            heap_destroy(h);
            assert_int_equal(k, 4);
            break;
        }
        assert_int_equal(rc, ST_ENOMEM);
        assert_true(e.text[0] != 0);
        assert_int_equal(mem_live(), live);
    }
    assert_int_equal(mem_live(), live);
}

int main(int argc, char **argv)
{
    const char *given = argc > 1 ? argv[1] : getenv("STATOR_TEST_SEED");
    seed_given = given ? strtoull(given, NULL, 10) : 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations_agree_with_a_scan),
        cmocka_unit_test(equal_keys_leave_in_order_of_their_ties),
        cmocka_unit_test(an_empty_heap_gives_nobody),
        cmocka_unit_test(create_survives_every_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
