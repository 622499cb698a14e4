/* Goal: what priorities promise, each rule in the smallest case that shows it: who is taken from, how fast, what a victim keeps,
 * how long anybody waits. Method: the world of sched_world.h, whose blocks hold checked values; time is injected. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "engine/sched_world.h"

enum { Z = 1000000, HIGH = 10 }; /* ns of waiting that are worth a point: here one plan is one ns */

static struct sched_options options(uint32_t max_num_seqs, uint32_t budget)
{
    return (struct sched_options){.max_num_seqs = max_num_seqs,
                                  .max_num_batched_tokens = budget,
                                  .priorities = true,
                                  .aging_ns = Z,
                                  .priority_clamp = 100};
}

static void open_simple(uint32_t max_num_seqs, uint32_t budget, uint32_t n_blocks, uint32_t n_host)
{
    struct sched_options o = options(max_num_seqs, budget);
    open_world(&o, n_blocks, n_host);
}

static struct sched_seq *seq(uint32_t slot)
{
    return sched_seq(w.s, slot);
}

static void run_to_end(void)
{
    for (uint32_t i = 0; sched_running(w.s) + sched_waiting(w.s) > 0; i++) {
        turn();
        assert_true(i < 20000);
    }
}

/* ---- a cancel, in every state ---------------------------------------------------------------------------------------- */

enum scene {
    IN_CHAIN,
    HEAD_OF_CHAIN,
    SET_ASIDE,
    RUNNING,
    RUNNING_UNDER_WAY,
    HOLDING,
    PARKING,
    RELEASED,
    LOADING,
    HELD_LOADED,
    SCENES
};

/* Slot 0 is in that state. Two low requests fill the pool; 0 is the younger one, and the first to give way. */
static void play(enum scene scene)
{
    open_simple(scene == HOLDING ? 2 : 3, 256, scene == HOLDING ? 20 : 8, 8);
    submit(scene == HEAD_OF_CHAIN ? 0 : 1, 40, 60, 1, 0);
    submit(scene == HEAD_OF_CHAIN ? 1 : 0, 40, 60, 2, 0);
    if (scene <= HEAD_OF_CHAIN)
        return;
    if (scene == SET_ASIDE) {
        sched_remove(w.s, 0, w.now);
        sched_remove(w.s, 1, w.now);
        submit(1, 100, 20, 3, 0);
        launch(plan());
        submit(0, 100, 20, 3, 0); /* its blocks are under way */
        plan();
        assert_true(seq(0)->alone && !seq(0)->holds && seq(0)->producer == 1);
        return;
    }
    turns(10);
    assert_int_equal(seq(0)->state, SCHED_RUNNING);
    if (scene == RUNNING)
        return;
    if (scene == RUNNING_UNDER_WAY) {
        launch(plan());
        return;
    }
    submit(2, scene == HOLDING ? 16 : 80, 10, 3, HIGH);
    launch(plan());
    complete();
    if (scene == HOLDING || scene == PARKING)
        return;
    finish_moves(1, 0);
    if (scene == RELEASED)
        return;
    while (seq(2)->state == SCHED_RUNNING)
        turn();
    plan(); /* without its moves being done */
    assert_int_equal(seq(0)->state, SCHED_LOADING);
    if (scene == LOADING)
        return;
    finish_moves(1, 0);
}

static void check_scene(enum scene scene)
{
    const struct sched_seq *q = seq(0);
    static const uint8_t state[SCENES] = {SCHED_WAITING, SCHED_WAITING, SCHED_WAITING, SCHED_RUNNING,
                                          SCHED_RUNNING, SCHED_WAITING, SCHED_WAITING, SCHED_WAITING,
                                          SCHED_LOADING, SCHED_WAITING};
    assert_int_equal(q->state, state[scene]);
    assert_int_equal(q->holds, scene == HOLDING || scene == HELD_LOADED);
    assert_int_equal(q->parking, scene == PARKING);
    assert_int_equal(q->parked != KV_NONE, scene == PARKING || scene == RELEASED);
    assert_int_equal(q->n_loading > 0, scene == LOADING);
}

static void a_cancel_in_any_state_leaves_nothing(void **state)
{
    (void)state;
    for (int scene = 0; scene < SCENES; scene++)
        for (int rest = 0; rest < 3; rest++) {
            play((enum scene)scene);
            check_scene((enum scene)scene);
            sched_remove(w.s, 0, w.now);
            assert_int_equal(seq(0)->state, SCHED_IDLE);
            assert_int_equal(seq(0)->kv.n_blocks, 0);
            check_world();
            if (rest ==
                0) { /* the slot goes on with another request, before the moves of the first are done */
                submit(0, 50, 10, 9, 0);
                plan();
                check_world();
            }
            if (rest < 2)
                remove_all();
            while (w.under_way > 0)
                complete();
            finish_moves(1, 0);
            run_to_end();
            close_world();
        }
}

/* ---- a high request is in the next plan ------------------------------------------------------------------------------ */

static void high_takes_a_place_from_exactly_one(void **state)
{
    (void)state;
    open_simple(8, 256, 200, 0);
    for (uint32_t i = 0; i < 8; i++)
        submit(i, 40, 200, (int32_t)i, 0);
    turns(5);
    uint32_t blocks[8];
    for (uint32_t i = 0; i < 8; i++)
        blocks[i] = seq(i)->kv.n_blocks;
    submit(20, 40, 5, 50, HIGH);
    const struct sched_plan *p = turn();
    assert_non_null(row_of(p, 20));
    assert_int_equal(p->n_preempted, 1);
    assert_int_equal(p->preempted[0].resource, SCHED_SLOTS);
    assert_int_equal(p->preempted[0].victim, 7); /* of equals the youngest */
    assert_true(seq(7)->holds);
    assert_int_equal(seq(7)->kv.n_blocks, blocks[7]);
    run_to_end();
    assert_int_equal(recomputed(), 0);
    close_world();
}

/* The pool is full of low runners; a high request wants most of it. */
static void high_takes_blocks(uint32_t save_batch, bool in_flight)
{
    struct sched_options o = options(8, 256);
    o.save_batch = save_batch;
    open_world(&o, 24, 64);
    for (uint32_t i = 0; i < 6; i++)
        submit(i, 40, 30, (int32_t)i, 0);
    turns(14);
    assert_int_equal(kv_pool_free(kv_prefix_pool(w.kv)), 0);
    if (in_flight)
        launch(plan());
    submit(20, 200, 30, 50, HIGH);
    const struct sched_plan *p = plan();
    assert_non_null(row_of(p, 20));
    uint32_t urgent = 0;
    for (uint32_t i = 0; i < p->n_moves; i++)
        urgent += p->moves[i].urgent;
    assert_int_equal(urgent > 0, save_batch == 0);
    assert_true(p->n_preempted > 0 && p->n_preempted < 6);
    for (uint32_t i = 0; i < p->n_preempted; i++)
        assert_int_equal(p->preempted[i].resource, SCHED_BLOCKS);
    launch(p);
    while (w.under_way > 0)
        complete();
    run_to_end();
    assert_int_equal(recomputed(), 0);
    assert_true(sched_counters(w.s)->loaded > 0);
    close_world();
}

static void high_takes_blocks_that_have_copies(void **state)
{
    (void)state;
    high_takes_blocks(16, false);
    high_takes_blocks(16, true);
}

static void blocks_without_copies_are_saved_first(void **state)
{
    (void)state;
    high_takes_blocks(0, false);
    high_takes_blocks(0, true);
}

/* Both victims' part-filled blocks would have to stay until they are copied, and the high one needs all but one. */
static void a_part_filled_block_does_not_keep_high_out(void **state)
{
    (void)state;
    open_simple(3, 256, 8, 8);
    submit(0, 40, 60, 1, 0);
    submit(1, 40, 60, 2, 0);
    turns(10);
    submit(2, 100, 10, 3, HIGH);
    assert_non_null(row_of(turn(), 2));
    run_to_end();
    assert_true(recomputed() < 2 * BT);
    close_world();
}

static void high_is_given_tokens_before_the_lowest(void **state)
{
    (void)state;
    open_simple(66, 66, 400, 0);
    for (uint32_t i = 0; i < 64; i++)
        submit(i, 1, 100, (int32_t)i, 0);
    turns(3);
    assert_int_equal(turn()->n_rows, 64);
    submit(100, 16, 5, 100, HIGH);
    const struct sched_plan *p = turn();
    assert_int_equal(p->n_preempted, 0);
    assert_int_equal(row_of(p, 100)->n, 16);
    for (uint32_t i = 0; i < 64; i++)
        assert_int_equal(row_of(p, i) != NULL, i < 50);
    assert_int_equal(turn()->n_rows, 65); /* nobody missed more than one */
    remove_all();
    close_world();
}

/* ---- nobody waits for ever ------------------------------------------------------------------------------------------- */

/* SCHEDULING 3.2: a head is admitted within H = (P_max - P + 1/2 + 3/4 + 2) Z, and the work of those who stood before it then:
 * the heads of chains and those who run or ran. The n-th of its chain: within n H. */
static void a_low_one_waits_no_longer_than_the_bound(void **state)
{
    (void)state;
    enum { SECOND = 1000, SEQS = 2, LOWS = 6, TOKENS = 50, PLANS = 20000, LOW_SLOT = 100 };
    struct sched_options o = options(SEQS, 64);
    o.aging_ns = SECOND;
    o.priority_clamp = 2;
    open_world(&o, 400, 0);
    int64_t started[LOWS] = {0}, work = (int64_t)(SEQS + 2 + SEQS) * TOKENS * 20 / SEQS;
    int64_t bound = (2 + 2) * SECOND + 5 * SECOND / 4 + 2 * SECOND + work;
    uint32_t slot = 0, n_started = 0;
    for (uint32_t i = 0; i < LOWS; i++)
        submit_ask(LOW_SLOT + i,
                   &(struct ask){.n_prompt = 8, .max_tokens = TOKENS, .kind = (int32_t)i, .priority = -50});
    for (uint32_t i = 0; i < PLANS && n_started < LOWS; i++) {
        w.tick = i < 1500 ? 10 : 20; /* the machine is half as fast from here on */
        while (sched_waiting(w.s) - (LOWS - n_started) < 4 || sched_waiting(w.s) < LOWS - n_started) {
            slot = (slot + 1) % LOW_SLOT;
            if (seq(slot)->state == SCHED_IDLE)
                submit_ask(
                    slot,
                    &(struct ask){
                        .n_prompt = 8, .max_tokens = TOKENS, .kind = 50, .priority = 50, .latency = 100});
        }
        const struct sched_plan *p = turn();
        for (uint32_t k = 0; k < LOWS; k++)
            if (was_admitted(p, LOW_SLOT + k) && !started[k]) {
                started[k] = w.now;
                n_started++;
            }
    }
    for (uint32_t k = 0; k < LOWS; k++) {
        assert_true(started[k] > 0);
        assert_true(started[k] <= (k + 1) * bound);
    }
    remove_all();
    close_world();
}

static void equals_take_only_to_grow(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        rng = seed;
        struct sched_options o = options(1 + rnd(6), 64);
        open_world(&o, 12 + rnd(20), rnd(2) ? 16 : 0);
        uint32_t n = 0;
        for (uint32_t left = 40; left + sched_waiting(w.s) + sched_running(w.s) > 0;) {
            uint32_t slot = rnd(20);
            if (left > 0 && seq(slot)->state == SCHED_IDLE && rnd(2)) {
                submit(slot, 1 + rnd(100), 1 + rnd(80), (int32_t)rnd(5), 3);
                left--;
            }
            const struct sched_plan *p = turn();
            for (uint32_t i = 0; i < p->n_preempted; i++)
                assert_int_equal(p->preempted[i].resource, SCHED_GROWTH);
            n += p->n_preempted;
        }
        (void)n;
        close_world();
    }
}

static void no_pair_swaps_twice_in_two_points(void **state)
{
    (void)state;
    enum { POINT = 100, N = 12 };
    static int64_t last[N][N];
    for (uint64_t seed = 1; seed <= 10; seed++) {
        rng = seed;
        memset(last, 0, sizeof last);
        struct sched_options o = options(1 + rnd(4), 64);
        o.aging_ns = POINT;
        open_world(&o, 400, 0);
        for (uint32_t i = 0; i < N; i++)
            submit(i, 8, 500, (int32_t)i, (int32_t)rnd(4));
        uint32_t n = 0;
        while (sched_waiting(w.s) + sched_running(w.s) > 0) {
            const struct sched_plan *p = turn();
            for (uint32_t i = 0; i < p->n_preempted; i++) {
                uint32_t a = p->preempted[i].victim, b = p->preempted[i].taker;
                int64_t *at = a < b ? &last[a][b] : &last[b][a];
                assert_true(*at == 0 || w.now - *at >= 2 * POINT);
                *at = w.now;
                n++;
            }
        }
        assert_true(n > 0);
        close_world();
    }
}

static void a_preempted_one_resumes_before_equals_that_never_ran(void **state)
{
    (void)state;
    open_simple(1, 64, 100, 0);
    submit(0, 20, 50, 0, 0);
    turns(3);
    submit(1, 20, 50, 1, 0); /* waits already when 0 gives way: its lead is greater */
    turns(5);
    submit(2, 20, 5, 2, HIGH);
    turn();
    assert_int_equal(seq(2)->state, SCHED_RUNNING);
    turns(4);
    assert_int_equal(seq(2)->state, SCHED_IDLE);
    turn();
    assert_int_equal(seq(0)->state, SCHED_RUNNING);
    assert_int_equal(seq(1)->state, SCHED_WAITING);
    remove_all();
    close_world();
}

/* ---- enough victims, or none ------------------------------------------------------------------------------------------ */

static void nobody_gives_way_when_it_would_not_suffice(void **state)
{
    (void)state;
    open_simple(8, 256, 20, 0);
    submit(0, 100, 40, 0, HIGH); /* 7 blocks, and 2 to come */
    submit(1, 60, 4, 1, 0);
    submit(2, 60, 4, 2, 0); /* 4 each */
    turns(2);
    submit(3, 230, 5, 3, HIGH); /* 15: free 5 + 8 */
    const struct sched_plan *p = turn();
    assert_int_equal(p->n_preempted, 0);
    assert_int_equal(seq(3)->state, SCHED_WAITING);
    remove_all();
    close_world();
}

static void no_more_give_way_than_needed(void **state)
{
    (void)state;
    for (uint32_t need = 1; need <= 20; need++) {
        open_simple(16, 512, 22, 0);
        for (uint32_t i = 0; i < 10; i++)
            submit(i, 20, 12, (int32_t)i, 0); /* 2 blocks each, none to come */
        turns(2);
        uint32_t available = kv_prefix_available(w.kv), freed = 0, last = 0;
        submit(20, need * BT - 1, 1, 20, HIGH);
        uint32_t had[16];
        for (uint32_t i = 0; i < 10; i++)
            had[i] = seq(i)->kv.n_blocks;
        const struct sched_plan *p = turn();
        assert_true(was_admitted(p, 20));
        for (uint32_t i = 0; i < p->n_preempted; i++)
            freed += last = had[p->preempted[i].victim];
        /* One more is kept for each equal or higher that runs: there is none. */
        assert_true(available + freed >= need);
        assert_true(freed == 0 || available + freed - last < need);
        remove_all();
        close_world();
    }
}

static void the_token_under_way_of_a_victim_is_kept(void **state)
{
    (void)state;
    for (uint32_t wants = 0; wants < 2; wants++) { /* a place; blocks */
        open_simple(wants ? 3 : 2, 256, wants ? 10 : 40, wants ? 8 : 0);
        submit(0, 30, 40, 0, 0);
        submit(1, 30, 40, 1, 0);
        turns(4);
        uint32_t before[2] = {w.n_output[0], w.n_output[1]};
        launch(plan());
        submit(2, wants ? 100 : 20, 5, 2, HIGH);
        const struct sched_plan *p = plan();
        assert_true(was_admitted(p, 2) && p->n_preempted > 0);
        launch(p);
        complete();
        for (uint32_t i = 0; i < 2; i++)
            assert_int_equal(w.n_output[i], before[i] + 1);
        complete();
        finish_moves(1, 0);
        run_to_end(); /* where each output is counted: one more or one less would not end it at its length */
        assert_int_equal(w.n_output[0], 40);
        assert_int_equal(w.n_output[1], 40);
        assert_int_equal(recomputed(), 0);
        close_world();
    }
}

/* ---- chunks ----------------------------------------------------------------------------------------------------------- */

static void prompts_without_end_do_not_starve_a_decode(void **state)
{
    (void)state;
    open_simple(32, 256, 1000, 0);
    for (uint32_t i = 0; i < 8; i++)
        submit(i, 10, 400, (int32_t)i, 0);
    turns(2);
    for (uint32_t n = 0; n < 300; n++) {
        for (uint32_t k = 30; k < 60; k++)
            if (seq(k)->state == SCHED_IDLE)
                submit(k, 200, 3, 0, 0), seq(k)->kv.n_ids = 0; /* computed each time */
        const struct sched_plan *p = turn();
        for (uint32_t i = 0; i < 8; i++)
            assert_non_null(row_of(p, i));
    }
    remove_all();
    close_world();
}

/* ---- order ------------------------------------------------------------------------------------------------------------ */

static void a_backlog_does_not_age(void **state)
{
    (void)state;
    enum { LOWS = 100 };
    open_simple(1, 64, 100, 0);
    for (uint32_t i = 0; i < LOWS; i++)
        submit(i, 8, 12, (int32_t)i, 0);
    w.tick = Z / 10; /* an hour, if a point is 30 s: each of them takes 36 s */
    for (uint32_t i = 0; i < 12 * LOWS - 100; i++)
        turn();
    assert_true(sched_waiting(w.s) > 0);
    submit(110, 8, 12, 110, 3);
    turn();
    assert_int_equal(seq(110)->state, SCHED_RUNNING);
    run_to_end();
    for (int i = 0; i < SCHED_CLASSES; i++)
        assert_int_equal(sched_counters(w.s)->aged_ahead[i], 0);
    close_world();
}

static void without_priorities_it_is_first_come_first_served(void **state)
{
    (void)state;
    rng = 1;
    struct sched_options o = {.max_num_seqs = 4, .max_num_batched_tokens = 64, .batch_wait_ns = 50};
    open_world(&o, 60, 0);
    uint32_t next = 0, n = 0;
    for (uint32_t i = 0; i < 60; i++)
        submit_ask(i, &(struct ask){.n_prompt = 1 + rnd(60),
                                    .max_tokens = 1 + rnd(20),
                                    .kind = (int32_t)i,
                                    .priority = (int32_t)rnd(20) - 10,
                                    .strict = rnd(3),
                                    .latency = (uint8_t)rnd(101)});
    while (sched_waiting(w.s) + sched_running(w.s) > 0) {
        const struct sched_plan *p = turn();
        n += p->n_preempted;
        for (uint32_t i = 0; i < p->n_admitted; i++)
            assert_int_equal(p->admitted[i], next++);
    }
    assert_int_equal(n, 0);
    assert_int_equal(next, 60);
    close_world();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cancel_in_any_state_leaves_nothing),
        cmocka_unit_test(high_takes_a_place_from_exactly_one),
        cmocka_unit_test(high_takes_blocks_that_have_copies),
        cmocka_unit_test(blocks_without_copies_are_saved_first),
        cmocka_unit_test(a_part_filled_block_does_not_keep_high_out),
        cmocka_unit_test(high_is_given_tokens_before_the_lowest),
        cmocka_unit_test(a_low_one_waits_no_longer_than_the_bound),
        cmocka_unit_test(equals_take_only_to_grow),
        cmocka_unit_test(no_pair_swaps_twice_in_two_points),
        cmocka_unit_test(a_preempted_one_resumes_before_equals_that_never_ran),
        cmocka_unit_test(nobody_gives_way_when_it_would_not_suffice),
        cmocka_unit_test(no_more_give_way_than_needed),
        cmocka_unit_test(the_token_under_way_of_a_victim_is_kept),
        cmocka_unit_test(prompts_without_end_do_not_starve_a_decode),
        cmocka_unit_test(a_backlog_does_not_age),
        cmocka_unit_test(without_priorities_it_is_first_come_first_served),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
