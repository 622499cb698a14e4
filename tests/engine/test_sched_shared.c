/* Goal: what several prompts have in common is computed, or loaded from the host tier, by one of them, and nobody waits for
 * longer than that takes. Method: the world of sched_world.h; work is counted in positions and copies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "engine/sched_world.h"

enum { HIGH = 10 };

static void open_shared(uint32_t max_num_seqs, uint32_t budget, uint32_t n_blocks, uint32_t n_host)
{
    const struct sched_options o = {.max_num_seqs = max_num_seqs,
                                    .max_num_batched_tokens = budget,
                                    .priorities = true,
                                    .aging_ns = 1000000,
                                    .priority_clamp = 100,
                                    .save_batch = 16};
    open_world(&o, n_blocks, n_host);
}

static struct sched_seq *seq(uint32_t slot)
{
    return sched_seq(w.s, slot);
}

/* One of those that have their first `shared` tokens in common. */
static void submit_shared(uint32_t slot, uint32_t n_prompt, uint32_t shared)
{
    submit_ask(slot, &(struct ask){
                         .n_prompt = n_prompt, .max_tokens = 2, .kind = 7, .shared = shared, .latency = 50});
}

static void run_to_end(void)
{
    for (uint32_t i = 0; sched_running(w.s) + sched_waiting(w.s) > 0; i++) {
        turn();
        assert_true(i < 20000);
    }
}

/* ---- computed ---------------------------------------------------------------------------------------------------------- */

static void a_prefix_is_computed_once(void **state)
{
    (void)state;
    enum { PREFIX = 4096 };
    for (uint32_t n = 2; n <= 64; n *= 2) {
        open_shared(64, 512, 1024, 0);
        for (uint32_t i = 0; i < n; i++)
            submit_shared(i, PREFIX + 10, PREFIX);
        run_to_end();
        assert_true(w.n_computed <= PREFIX + n * (BT + 2) + 20);
        close_world();
    }
}

static void followers_keep_nobody_else_waiting(void **state)
{
    (void)state;
    open_shared(64, 1024, 200, 0);
    for (uint32_t i = 0; i < 60; i++)
        submit_shared(i, 500, 400);
    submit(100, 10, 5, 8, 0); /* of equal rank, and behind all of them */
    const struct sched_plan *p = turn();
    assert_int_equal(p->n_admitted, 2);
    assert_non_null(row_of(p, 100));
    run_to_end();
    close_world();
}

static void a_follower_goes_on_when_the_producer_is_cancelled(void **state)
{
    (void)state;
    enum { PREFIX = 1024, BUDGET = 128, N = 5 };
    for (uint32_t chunk = 0; chunk <= PREFIX / BUDGET; chunk++)
        for (uint32_t under_way = 0; under_way < 2; under_way++) {
            open_shared(8, BUDGET, 200, 0);
            for (uint32_t i = 0; i < N; i++)
                submit_shared(i, PREFIX + 10, PREFIX);
            turns(chunk);
            if (under_way)
                launch(plan());
            sched_remove(w.s, 0, w.now);
            if (under_way)
                complete();
            turn();
            assert_true(seq(1)->state != SCHED_WAITING);
            run_to_end();
            assert_true(w.n_computed <= PREFIX + BUDGET + N * (BT + 2));
            close_world();
        }
}

static void a_high_follower_lends_its_rank(void **state)
{
    (void)state;
    enum { BUDGET = 128 };
    open_shared(8, BUDGET, 1000, 0);
    submit(0, 2000, 2, 1, 0); /* the producer */
    turn();
    submit(1, 1000, 2, 2, 5);
    submit(2, 1000, 2, 3, 5);
    turns(2);
    const struct sched_plan *p = turn();
    assert_true(!row_of(p, 0) || row_of(p, 0)->n <= BT);
    submit(3, 2000, 2, 1, HIGH);
    p = turn();
    assert_null(row_of(p, 3));
    assert_true(row_of(p, 0) && row_of(p, 0)->n >= BUDGET - 2 * BT);
    remove_all();
    close_world();
}

/* ---- loaded ------------------------------------------------------------------------------------------------------------ */

enum { IN_HOST = 512, FOLLOWERS = 8 };

/* The prefix is in the host tier alone, and all of them want it: one loads it, with none of its copies done yet. */
static void play_loading(void)
{
    open_shared(16, 256, 200, 512);
    submit_shared(0, IN_HOST + 10, IN_HOST);
    run_to_end();
    for (uint32_t i = 1; kv_prefix_find(w.kv, &w.ids[0][0]) != KV_NONE; i++) { /* push it out */
        assert_true(i < 100);
        submit(20, 100, 2, 100 + (int32_t)i, 0);
        run_to_end();
    }
    w.n_computed = 0;
    assert_int_equal(sched_counters(w.s)->loaded, 0);
    for (uint32_t i = 0; i < FOLLOWERS; i++)
        submit_shared(i, IN_HOST + 10 + i, IN_HOST);
    launch(plan());
    complete();
    assert_int_equal(seq(0)->state, SCHED_LOADING);
    assert_int_equal(sched_counters(w.s)->loaded, IN_HOST / BT);
    for (uint32_t i = 1; i < FOLLOWERS; i++)
        assert_int_equal(seq(i)->producer, 0);
}

static void a_prefix_is_loaded_once(void **state)
{
    (void)state;
    play_loading();
    run_to_end();
    assert_int_equal(sched_counters(w.s)->loaded, IN_HOST / BT);
    assert_true(w.n_computed <= FOLLOWERS * (BT + FOLLOWERS + 2));
    close_world();
}

/* Cancelled in the middle of its copies: the next one loads. They failed: it computes, for all. */
static void a_follower_goes_on_when_the_loader_does_not(void **state)
{
    (void)state;
    for (uint32_t fails = 0; fails < 2; fails++) {
        play_loading();
        if (fails)
            finish_moves(1, 1);
        else
            sched_remove(w.s, 0, w.now);
        launch(plan());
        complete();
        assert_int_equal(seq(!fails)->state, fails ? SCHED_RUNNING : SCHED_LOADING);
        run_to_end();
        assert_int_equal(sched_counters(w.s)->loaded, (fails ? 1 : 2) * IN_HOST / BT);
        assert_true(w.n_computed <= (fails ? IN_HOST : 0) + FOLLOWERS * (BT + FOLLOWERS + 2));
        close_world();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prefix_is_computed_once),
        cmocka_unit_test(followers_keep_nobody_else_waiting),
        cmocka_unit_test(a_follower_goes_on_when_the_producer_is_cancelled),
        cmocka_unit_test(a_high_follower_lends_its_rank),
        cmocka_unit_test(a_prefix_is_loaded_once),
        cmocka_unit_test(a_follower_goes_on_when_the_loader_does_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
