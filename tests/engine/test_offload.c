/* Goal: offload carries moves out in order, in batches, the urgent ones at once, and tells each exactly once how it went, also
 * when the device fails or the engine ends. Method: the real scheduler makes the moves, in a pool too small for what wants to
 * run; a backend of this file's own records the copies and finishes or fails them as the test says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "engine/sched_world.h"
#include "offload.h"

enum { N_HOST = 64, BLOCK_BYTES = OFFLOAD_BYTES / 4, SMALL_BYTES = 64, COPIES = 256 };

struct copy {
    uint32_t n;
    bool store, done;
};

static struct device {
    struct be be;
    struct be_ops ops;
    size_t block_bytes;
    struct copy copies[COPIES];
    uint32_t n, open;                        /* begun; of which not done */
    bool hold;                               /* nothing gets done */
    uint32_t fail_begin;                     /* this one (1 = first) cannot be begun; */
    uint32_t fail_poll;                      /* this one fails */
    uint32_t most_blocks;                    /* in one copy */
    uint32_t blocks[2][COPIES], n_blocks[2]; /* of loads, of stores, in the order in which they were begun */
} dev;
static uint32_t wanted[2][COPIES], n_wanted[2]; /* in which they were put */

static size_t block_bytes(struct be *be, const struct be_kv_shape *shape)
{
    (void)be;
    (void)shape;
    return dev.block_bytes;
}

static void *host_alloc(struct be *be, size_t bytes)
{
    (void)be;
    return mem_alloc(dev.block_bytes == SMALL_BYTES ? bytes : 1); /* only addresses are looked at */
}

static void host_free(struct be *be, void *p)
{
    (void)be;
    mem_free(p);
}

static int begin(const struct be_block_copy *list, uint32_t n, bool store, uint64_t *ticket)
{
    assert_true(n > 0 && dev.n < COPIES);
    for (uint32_t i = 0; i < dev.n; i++) /* one copy under way each way */
        assert_true(dev.copies[i].done || dev.copies[i].store != store);
    if (dev.fail_begin == dev.n + 1) {
        dev.fail_begin = 0;
        return ST_EDEVICE;
    }
    dev.copies[dev.n] = (struct copy){.n = n, .store = store};
    for (uint32_t i = 0; i < n; i++)
        dev.blocks[store][dev.n_blocks[store]++] = list[i].block;
    dev.most_blocks = n > dev.most_blocks ? n : dev.most_blocks;
    *ticket = dev.n++;
    return ST_OK;
}

static int store(struct be *be, struct be_kv *kv, const struct be_block_copy *list, uint32_t n,
                 uint64_t *ticket)
{
    (void)be;
    (void)kv;
    return begin(list, n, true, ticket);
}

static int load(struct be *be, struct be_kv *kv, const struct be_block_copy *list, uint32_t n,
                uint64_t *ticket)
{
    (void)be;
    (void)kv;
    return begin(list, n, false, ticket);
}

static int poll_copy(struct be *be, uint64_t ticket)
{
    (void)be;
    assert_true(ticket < dev.n);
    if (dev.hold)
        return 0;
    dev.copies[ticket].done = true;
    return dev.fail_poll == ticket + 1 ? ST_EDEVICE : 1;
}

static struct offload *off;
static struct err last;

static void open_all(size_t bytes, uint32_t n_blocks, uint32_t save_batch)
{
    struct sched_options o = {.max_num_seqs = 8,
                              .max_num_batched_tokens = 512,
                              .priorities = true,
                              .aging_ns = 1000000,
                              .priority_clamp = 100,
                              .save_batch = save_batch};
    struct be_kv_shape shape = {0};
    struct err e = {0};
    open_world(&o, n_blocks, N_HOST);
    dev = (struct device){.block_bytes = bytes};
    n_wanted[0] = n_wanted[1] = 0;
    dev.ops = (struct be_ops){.name = "recorder",
                              .kv_block_bytes = block_bytes,
                              .host_alloc = host_alloc,
                              .host_free = host_free,
                              .kv_store = store,
                              .kv_load = load,
                              .copy_poll = poll_copy};
    dev.be.ops = &dev.ops;
    assert_int_equal(offload_create(&off, &dev.be, NULL, &shape, N_HOST, n_blocks, &e), ST_OK);
}

static void close_all(void)
{
    for (uint32_t i = 0; i < w.o.n_slots; i++)
        sched_remove(w.s, i, w.now);
    offload_abandon(off, w.s, w.now);
    close_world(); /* where nothing is pinned, and no move is left */
    offload_destroy(off);
}

/* A plan goes to offload, and its step is run without looking at what blocks hold. */
static const struct sched_plan *step(int *rc)
{
    static struct sched_row rows[WORLD_SLOTS];
    const struct sched_plan *p = sched_plan(w.s, ++w.now);
    for (int urgent = 1; urgent >= 0; urgent--)
        for (uint32_t i = 0; i < p->n_moves; i++) {
            bool stores = p->moves[i].kind != SCHED_LOAD;
            if (p->moves[i].urgent == urgent)
                wanted[stores][n_wanted[stores]++] = p->moves[i].block;
        }
    int put = offload_put(off, w.s, p, w.now, &last);
    if (rc)
        *rc = put;
    memcpy(rows, p->rows, p->n_rows * sizeof *rows);
    for (uint32_t i = 0; i < p->n_rows; i++)
        sched_launch(w.s, &rows[i]);
    for (uint32_t i = 0; i < p->n_rows; i++) {
        sched_commit(w.s, &rows[i]);
        if (rows[i].sample)
            sched_append(w.s, rows[i].slot);
    }
    check_world();
    return p;
}

static void steps(uint32_t n)
{
    while (n-- > 0) {
        step(NULL);
        offload_poll(off, w.s, w.now);
    }
}

static uint32_t copied(bool stores)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < dev.n; i++)
        n += dev.copies[i].store == stores ? dev.copies[i].n : 0;
    return n;
}

static void check_order(void)
{
    for (int way = 0; way < 2; way++) {
        assert_true(dev.n_blocks[way] > 0 && dev.n_blocks[way] <= n_wanted[way]);
        assert_memory_equal(dev.blocks[way], wanted[way], dev.n_blocks[way] * sizeof wanted[way][0]);
    }
}

static void fill(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        submit(i, 62, 200, (int32_t)i, 0);
}

static void copies_go_in_batches_of_bounded_size(void **state)
{
    (void)state;
    open_all(BLOCK_BYTES, 26, 16); /* four blocks are a batch */
    fill(5);
    dev.hold = true;
    steps(4);
    assert_int_equal(dev.n, 1); /* one is under way, however many wait */
    assert_true(sched_moving(w.s) > 4);
    dev.hold = false;
    steps(4);
    assert_int_equal(dev.most_blocks, 4);
    assert_int_equal(sched_moving(w.s), 0);
    assert_int_equal(sched_counters(w.s)->saved, copied(true));
    close_all();
}

static void a_load_does_not_wait_for_saves(void **state)
{
    (void)state;
    open_all(SMALL_BYTES, 20, 0);
    fill(4);
    steps(10);
    submit(100, 200, 2, 100, 10); /* takes most blocks: urgent saves, and parks */
    steps(2);
    assert_true(copied(true) > 0);
    sched_remove(w.s, 100, w.now);
    dev.hold = true;
    steps(1); /* those who gave way load what they had */
    assert_int_equal(copied(false) > 0, true);
    uint32_t before = sched_moving(w.s);
    dev.hold = false;
    offload_poll(off, w.s, w.now);
    assert_true(sched_moving(w.s) < before);
    check_order();
    close_all();
}

static void urgent_saves_are_done_when_put_returns(void **state)
{
    (void)state;
    open_all(SMALL_BYTES, 20, 0);
    fill(4);
    steps(10);
    assert_int_equal(dev.n, 0);
    submit(100, 200, 2, 100, 10);
    const struct sched_plan *p = step(NULL);
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_moves; i++)
        n += p->moves[i].urgent;
    assert_true(n > 0);
    assert_int_equal(dev.n, 1); /* one copy of all of them; the parks begin with the next poll */
    assert_int_equal(dev.copies[0].n, n);
    assert_true(dev.copies[0].done);
    assert_int_equal(sched_moving(w.s), p->n_moves - n);
    close_all();
}

/* Urgent saves in several batches, of which one fails: the engine is told, and so is the scheduler of every single one. */
static void an_urgent_save_that_fails_is_fatal_and_leaves_nothing(void **state)
{
    (void)state;
    for (uint32_t at = 1; at <= 3; at++)
        for (uint32_t begun = 0; begun < 2; begun++) {
            int rc;
            open_all(BLOCK_BYTES, 20, 0);
            fill(4);
            steps(10);
            *(begun ? &dev.fail_poll : &dev.fail_begin) = at;
            submit(100, 200, 2, 100, 10);
            const struct sched_plan *p = step(&rc);
            assert_int_equal(rc, ST_EDEVICE);
            assert_non_null(strstr(last.text, "host tier"));
            uint32_t others = 0;
            for (uint32_t i = 0; i < p->n_moves; i++)
                others += !p->moves[i].urgent;
            assert_int_equal(sched_moving(w.s), others);
            close_all();
        }
}

static void a_copy_that_fails_is_told_and_the_next_one_begins(void **state)
{
    (void)state;
    for (uint32_t begun = 0; begun < 2; begun++) {
        open_all(BLOCK_BYTES, 26, 16);
        *(begun ? &dev.fail_poll : &dev.fail_begin) = 2;
        fill(5);
        steps(10);
        assert_true(dev.n > 2);
        assert_true(sched_counters(w.s)->saved < copied(true) + !begun);
        assert_int_equal(kv_prefix_host_cached(w.kv), sched_counters(w.s)->saved);
        close_all();
    }
}

static void abandoned_moves_are_told_as_failed(void **state)
{
    (void)state;
    open_all(BLOCK_BYTES, 26, 16);
    fill(5);
    dev.hold = true;
    steps(4);
    assert_true(sched_moving(w.s) > 4);
    dev.hold = false; /* what was begun is waited for */
    offload_abandon(off, w.s, w.now);
    assert_int_equal(sched_moving(w.s), 0);
    assert_int_equal(dev.n, 1);
    assert_int_equal(sched_counters(w.s)->saved, 0);
    close_all();
}

static void a_backend_without_copies_is_refused(void **state)
{
    (void)state;
    struct be_kv_shape shape = {0};
    struct err e = {0};
    dev = (struct device){.block_bytes = SMALL_BYTES};
    dev.ops.name = "recorder";
    dev.be.ops = &dev.ops;
    assert_int_equal(offload_create(&off, &dev.be, NULL, &shape, 1, 1, &e), ST_EUNSUP);
    assert_non_null(strstr(e.text, "--host-kv-bytes"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_go_in_batches_of_bounded_size),
        cmocka_unit_test(a_load_does_not_wait_for_saves),
        cmocka_unit_test(urgent_saves_are_done_when_put_returns),
        cmocka_unit_test(an_urgent_save_that_fails_is_fatal_and_leaves_nothing),
        cmocka_unit_test(a_copy_that_fails_is_told_and_the_next_one_begins),
        cmocka_unit_test(abandoned_moves_are_told_as_failed),
        cmocka_unit_test(a_backend_without_copies_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
