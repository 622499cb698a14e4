/* Goal: the scheduler's promises (scheduler.h), without engine, thread or backend. Method: the few rules that a small case
 * shows, then random loads under a pool that is far too small, with one or two steps under way, every plan checked against
 * every promise. Time is the number of plans: nothing starves when every request ends within a bound. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "mem.h"
#include "scheduler.h"

enum { SLOTS = 24, BT = 16, CONTEXT = 160, BLOCKS_MAX = CONTEXT / BT, DEPTH_MAX = 2 };

struct world {
    struct kv_prefix *kv;
    struct sched *s;
    struct sched_options o;
    int64_t now; /* counts plans */
    int32_t tokens[SLOTS][CONTEXT];
    uint32_t table[SLOTS][BLOCKS_MAX];
    struct kv_id ids[SLOTS][BLOCKS_MAX];
    uint32_t n_output[SLOTS], max_tokens[SLOTS];
    uint64_t born[SLOTS];
    struct sched_row rows[DEPTH_MAX][SLOTS]; /* steps under way, oldest first */
    uint32_t n_rows[DEPTH_MAX], under_way;
};

static struct world w;
static uint64_t rng;

static uint32_t rnd(uint32_t n)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng >> 33) % n;
}

static void open_world(uint32_t n_blocks, uint32_t max_num_seqs, uint32_t budget, uint64_t test_seed)
{
    struct err e = {0};
    memset(&w, 0, sizeof w);
    w.o = (struct sched_options){.n_slots = SLOTS,
                                 .max_num_seqs = max_num_seqs,
                                 .max_num_batched_tokens = budget,
                                 .test_seed = test_seed};
    assert_int_equal(kv_prefix_create(&w.kv, n_blocks, 0, &e), ST_OK);
    assert_int_equal(sched_create(&w.s, &w.o, w.kv, &e), ST_OK);
}

static void close_world(void)
{
    assert_int_equal(kv_prefix_available(w.kv), kv_pool_total(kv_prefix_pool(w.kv)));
    sched_destroy(w.s);
    kv_prefix_destroy(w.kv);
}

/* Tokens from `kind`: equal kinds share all of their prompts' common length. */
static void submit(uint32_t slot, uint32_t n_prompt, uint32_t max_tokens, int32_t kind)
{
    for (uint32_t i = 0; i < CONTEXT; i++)
        w.tokens[slot][i] = kind;
    struct sched_seq *q = sched_seq(w.s, slot);
    *q = (struct sched_seq){.n_prompt = n_prompt, .n_tokens = n_prompt, .n_max = n_prompt + max_tokens};
    q->kv = (struct kv_seq){.table = w.table[slot],
                            .ids = w.ids[slot],
                            .tokens = w.tokens[slot],
                            .block_tokens = BT,
                            .cap_blocks = BLOCKS_MAX};
    kv_id_root(&q->kv.root, "m", 1, "", 0);
    kv_seq_hash(&q->kv, n_prompt);
    w.n_output[slot] = 0;
    w.max_tokens[slot] = max_tokens;
    sched_submit(w.s, slot, w.now);
}

static void launch(const struct sched_plan *p)
{
    assert_true(w.under_way < DEPTH_MAX);
    memcpy(w.rows[w.under_way], p->rows, p->n_rows * sizeof *p->rows);
    w.n_rows[w.under_way++] = p->n_rows;
    for (uint32_t i = 0; i < p->n_rows; i++)
        sched_launch(w.s, &p->rows[i]);
}

/* The oldest step has run; returns how many requests ended. */
static uint32_t complete(void)
{
    uint32_t ended = 0;
    assert_true(w.under_way > 0);
    for (uint32_t i = 0; i < w.n_rows[0]; i++) {
        const struct sched_row *row = &w.rows[0][i];
        if (!sched_row_live(w.s, row))
            continue;
        sched_commit(w.s, row);
        if (!row->sample)
            continue;
        sched_append(w.s, row->slot);
        if (++w.n_output[row->slot] == w.max_tokens[row->slot]) {
            sched_remove(w.s, row->slot, w.now);
            ended++;
        }
    }
    memcpy(w.rows[0], w.rows[1], sizeof w.rows[0]);
    w.n_rows[0] = w.n_rows[1];
    w.under_way--;
    return ended;
}

static uint32_t carry_out(const struct sched_plan *p)
{
    launch(p);
    return complete();
}

static void decodes_go_first_and_prompts_share_the_rest(void **state)
{
    (void)state;
    open_world(100, 8, 64, 0);
    submit(0, 10, 50, 1);
    submit(1, 100, 5, 2);
    submit(2, 100, 5, 3);
    const struct sched_plan *p = sched_plan(w.s, ++w.now);
    assert_int_equal(p->n_rows, 2); /* 1 could use all that is left: nobody is admitted behind it */
    assert_int_equal(p->rows[1].n, 48); /* 54 were left: cut to the block's edge */
    assert_true(p->rows[0].sample && !p->rows[1].sample);
    carry_out(p);
    p = sched_plan(w.s, ++w.now);
    assert_int_equal(p->rows[0].slot, 0);
    assert_int_equal(p->rows[0].n, 1);
    assert_int_equal(p->rows[1].slot, 1);
    assert_int_equal(p->rows[1].start, 48);
    assert_int_equal(p->rows[1].n, 52);
    assert_true(p->rows[1].sample);
    assert_int_equal(p->rows[2].slot, 2);
    assert_int_equal(p->rows[2].n, 11);
    for (uint32_t i = 0; i < 3; i++)
        sched_remove(w.s, i, w.now);
    close_world();
}

static void nobody_overtakes_a_head_that_does_not_fit(void **state)
{
    (void)state;
    open_world(10, 8, 256, 0);
    submit(0, 90, 5, 1);  /* 6 blocks */
    submit(1, 100, 5, 2); /* 7: must wait */
    submit(2, 10, 5, 3);  /* 1: would fit */
    const struct sched_plan *p = sched_plan(w.s, ++w.now);
    assert_int_equal(p->n_admitted, 1);
    carry_out(p);
    p = sched_plan(w.s, ++w.now);
    assert_int_equal(p->n_admitted, 0);
    assert_int_equal(sched_waiting_head(w.s), 1);
    carry_out(p);
    sched_remove(w.s, 0, w.now);
    p = sched_plan(w.s, ++w.now);
    assert_int_equal(p->n_admitted, 2);
    assert_int_equal(p->admitted[0], 1);
    sched_remove(w.s, 1, w.now);
    sched_remove(w.s, 2, w.now);
    close_world();
}

static void youngest_gives_way_and_comes_back_in_its_place(void **state)
{
    (void)state;
    open_world(5, 4, 64, 0);
    submit(0, 30, 40, 1); /* 2 blocks, a third at position 32 */
    submit(1, 16, 40, 2); /* 1 block, a second at position 16 */
    carry_out(sched_plan(w.s, ++w.now));
    submit(2, 10, 5, 3);
    uint32_t preempted = 0;
    for (int i = 0; i < 60 && !preempted; i++) {
        const struct sched_plan *p = sched_plan(w.s, ++w.now);
        assert_int_equal(p->rows[0].slot, 0);
        preempted = p->n_preempted;
        carry_out(p);
    }
    assert_int_equal(preempted, 1);
    assert_int_equal(sched_waiting_head(w.s), 1); /* before 2, which never ran */
    assert_int_equal(sched_seq(w.s, 1)->kv.n_blocks, 0);
    sched_remove(w.s, 0, w.now);
    const struct sched_plan *p = sched_plan(w.s, ++w.now);
    assert_int_equal(p->admitted[0], 1);
    assert_true(sched_seq(w.s, 1)->n_matched > 0); /* its full blocks were kept */
    sched_remove(w.s, 1, w.now);
    sched_remove(w.s, 2, w.now);
    close_world();
}

static void pending_token_is_fed_unless_it_is_the_last(void **state)
{
    (void)state;
    open_world(10, 4, 64, 0);
    submit(0, 10, 3, 1);
    for (uint32_t i = 0; i < 3; i++) { /* the prompt, then the first and the second token */
        const struct sched_plan *p = sched_plan(w.s, ++w.now);
        assert_int_equal(p->n_rows, 1);
        assert_int_equal(p->rows[0].start, i ? 9 + i : 0);
        assert_true(p->rows[0].sample);
        launch(p);
        assert_int_equal(sched_seq(w.s, 0)->n_pending, i ? 2 : 1);
        if (i)
            assert_int_equal(complete(), 0);
    }
    assert_int_equal(sched_plan(w.s, ++w.now)->n_rows, 0);
    assert_int_equal(complete(), 1);
    close_world();
}

static void block_is_indexed_once_its_step_has_completed(void **state)
{
    (void)state;
    open_world(30, 4, 256, 0);
    submit(0, 100, 5, 1);
    launch(sched_plan(w.s, ++w.now));
    assert_int_equal(kv_prefix_find(w.kv, &w.ids[0][0]), KV_NONE);
    submit(1, 100, 5, 1);
    const struct sched_plan *p = sched_plan(w.s, ++w.now); /* 1 waits for what is under way, 0 goes on */
    assert_int_equal(p->n_admitted, 0);
    assert_int_equal(p->n_rows, 1);
    launch(p);
    complete();
    assert_int_not_equal(kv_prefix_find(w.kv, &w.ids[0][0]), KV_NONE);
    p = sched_plan(w.s, ++w.now);
    assert_int_equal(p->n_admitted, 1);
    assert_int_equal(sched_seq(w.s, 1)->n_matched, 96);
    sched_remove(w.s, 0, w.now);
    sched_remove(w.s, 1, w.now);
    close_world();
}

static void preempted_sequence_keeps_the_token_under_way(void **state)
{
    (void)state;
    open_world(4, 4, 64, 0);
    submit(0, 30, 20, 1); /* wants a third block at position 32 */
    submit(1, 16, 20, 2); /* has the fourth since position 16 */
    const struct sched_plan *p = sched_plan(w.s, ++w.now);
    launch(p);
    while (p->n_preempted == 0) {
        p = sched_plan(w.s, ++w.now);
        launch(p);
        if (p->n_preempted == 0)
            complete();
    }
    const struct sched_seq *q = sched_seq(w.s, 1);
    uint32_t known = w.n_output[1];
    assert_int_equal(q->state, SCHED_WAITING);
    assert_int_equal(q->kv.n_blocks, 0);
    assert_int_equal(q->n_tokens, 16 + known + 1);
    assert_true(sched_row_live(w.s, &w.rows[0][1]));
    complete(); /* the step that drew the token */
    assert_int_equal(w.n_output[1], known + 1);
    sched_remove(w.s, 0, w.now);
    launch(sched_plan(w.s, ++w.now)); /* back, with its first block matched */
    assert_int_equal(q->n_matched, 16);
    assert_int_equal(q->n_tokens, 16 + known + 2);
    complete();
    complete();
    assert_int_equal(w.n_output[1], known + 2);
    sched_remove(w.s, 1, w.now);
    close_world();
}

static void stale_row_does_not_touch_the_slots_next_request(void **state)
{
    (void)state;
    open_world(10, 4, 64, 0);
    submit(0, 16, 5, 1);
    launch(sched_plan(w.s, ++w.now));
    sched_remove(w.s, 0, w.now); /* cancelled while its prompt is under way */
    assert_int_equal(kv_prefix_available(w.kv), 10);
    assert_int_equal(kv_prefix_find(w.kv, &w.ids[0][0]), KV_NONE);
    submit(0, 40, 5, 2);
    launch(sched_plan(w.s, ++w.now));
    assert_int_equal(complete(), 0);
    assert_int_equal(w.n_output[0], 0);
    assert_int_equal(sched_seq(w.s, 0)->kv.n_full, 0);
    complete();
    assert_int_equal(w.n_output[0], 1);
    assert_int_equal(sched_seq(w.s, 0)->kv.n_full, 2);
    sched_remove(w.s, 0, w.now);
    close_world();
}

static void check_plan(const struct sched_plan *p)
{
    const char *why = "";
    if (!sched_check(w.s, &why))
        fail_msg("%s", why);
    bool prompts = false, oldest = sched_running(w.s) == 0 || w.o.test_seed != 0;
    if (!oldest) {
        const struct sched_seq *q = sched_seq(w.s, sched_running_slot(w.s, 0));
        oldest = q->n_tokens == q->n_max;
    }
    uint32_t tokens = 0, decodes = 0;
    for (uint32_t i = 0; i < p->n_rows; i++) {
        const struct sched_row *r = &p->rows[i];
        const struct sched_seq *q = sched_seq(w.s, r->slot);
        bool decode = q->n_tokens > q->n_prompt && q->n_tokens - r->start == 1;
        assert_int_equal(q->state, SCHED_RUNNING);
        assert_int_equal(r->start, q->n_computed);
        assert_true(r->n > 0 && r->start + r->n <= q->n_tokens);
        assert_int_equal(r->sample, r->start + r->n == q->n_tokens);
        assert_true(kv_seq_blocks_for(r->start + r->n, BT) <= q->kv.n_blocks);
        bool fresh = false; /* back from preemption with all but one token cached: stands with the prompts */
        for (uint32_t k = 0; k < p->n_admitted; k++)
            fresh |= p->admitted[k] == r->slot;
        assert_false(decode && prompts && !fresh);
        prompts |= !decode;
        decodes += decode;
        tokens += r->n;
        oldest |= r->slot == sched_running_slot(w.s, 0);
        for (uint32_t k = 0; k < i; k++)
            assert_int_not_equal(p->rows[k].slot, r->slot);
    }
    assert_int_equal(tokens, p->n_tokens);
    assert_true(tokens <= w.o.max_num_batched_tokens);
    assert_true(oldest);
    uint32_t running = sched_running(w.s), want = 0;
    assert_true(running <= w.o.max_num_seqs);
    for (uint32_t i = 0; i < running; i++) {
        const struct sched_seq *q = sched_seq(w.s, sched_running_slot(w.s, i));
        want += q->n_tokens > q->n_prompt && q->n_tokens < q->n_max && q->n_tokens - q->n_computed == 1;
    }
    assert_true(decodes == want || w.o.test_seed);
    uint32_t head = sched_waiting_head(w.s);
    if (head != KV_NONE) {
        const struct sched_seq *q = sched_seq(w.s, head);
        if (q->producer != KV_NONE || q->n_tokens == q->n_max)
            head = KV_NONE; /* it waits for somebody's blocks, or for its own last token */
    }
    for (uint32_t i = 0; head != KV_NONE && i < p->n_admitted; i++)
        assert_true(sched_seq(w.s, p->admitted[i])->order < sched_seq(w.s, head)->order);
    assert_true(p->n_rows > 0 || w.o.test_seed || w.under_way > 0 ||
                sched_running(w.s) + sched_waiting(w.s) == 0);
}

static void run_load(uint64_t seed)
{
    rng = seed;
    uint32_t seqs = 1 + rnd(8), steps = 0, left = 60, live = 0, ended = 0;
    uint32_t n_blocks = BLOCKS_MAX + rnd(12), budget = seqs + rnd(80), test_seed = rnd(3) ? 0 : 1 + rnd(1000);
    uint32_t depth = 1 + rnd(DEPTH_MAX);
    open_world(n_blocks, seqs, budget, test_seed);
    while (left + live > 0) {
        uint32_t slot = rnd(SLOTS);
        if (left > 0 && sched_seq(w.s, slot)->state == SCHED_IDLE && rnd(3) == 0) {
            uint32_t n = 1 + rnd(CONTEXT - 1), max_tokens = 1 + rnd(CONTEXT - n), kind = rnd(4);
            submit(slot, n, max_tokens, (int32_t)kind);
            w.born[slot] = steps;
            left--;
            live++;
        } else if (sched_seq(w.s, slot)->state != SCHED_IDLE && rnd(40) == 0) {
            sched_remove(w.s, slot, w.now); /* cancel */
            live--;
        }
        const struct sched_plan *p = sched_plan(w.s, ++w.now);
        check_plan(p);
        if (p->n_rows > 0)
            launch(p);
        while (w.under_way >= depth || (w.under_way > 0 && p->n_rows == 0)) {
            uint32_t n = complete();
            live -= n;
            ended += n;
        }
        /* At most SLOTS requests stand before anyone, each needs at most CONTEXT plans of its own as the oldest. */
        for (uint32_t i = 0; i < SLOTS && !w.o.test_seed; i++)
            if (sched_seq(w.s, i)->state != SCHED_IDLE)
                assert_true(steps - w.born[i] <= SLOTS * CONTEXT);
        if (++steps > 100000)
            fail_msg("no end in sight");
    }
    assert_true(ended > 0 ||
                w.o.test_seed); /* one token a plan and a preemption every 12 may never get anywhere */
    close_world();
}

static void random_loads_keep_every_promise(void **state)
{
    (void)state;
    uint64_t fresh = (uint64_t)time(NULL) * 1000;
    for (uint64_t i = 0; i < 200; i++) {
        uint64_t seed = i < 100 ? i : fresh + i;
        printf("load seed %llu\n", (unsigned long long)seed);
        fflush(stdout);
        run_load(seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_go_first_and_prompts_share_the_rest),
        cmocka_unit_test(nobody_overtakes_a_head_that_does_not_fit),
        cmocka_unit_test(youngest_gives_way_and_comes_back_in_its_place),
        cmocka_unit_test(pending_token_is_fed_unless_it_is_the_last),
        cmocka_unit_test(block_is_indexed_once_its_step_has_completed),
        cmocka_unit_test(preempted_sequence_keeps_the_token_under_way),
        cmocka_unit_test(stale_row_does_not_touch_the_slots_next_request),
        cmocka_unit_test(random_loads_keep_every_promise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
