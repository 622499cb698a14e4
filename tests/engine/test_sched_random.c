/* Goal: the scheduler's promises (scheduler.h) under random loads: priorities, hints, cancels, pools that are far too small, a
 * host tier whose copies are late and fail, one or two steps under way. Method: the world of sched_world.h, where a block that
 * holds the wrong thing shows; everything recounted after every call; "no inversion" against a naive look at who could have
 * had what. A failing seed is printed and replays with it as argument. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "engine/sched_world.h"

enum { SLOTS = 24, CONTEXT = 160, REQUESTS = 60, LOADS = 400, END = 100000 };

static uint64_t only_seed, fail_copies;
static struct sched_counters total;
static uint64_t urgent, heads;
static bool in_front[SLOTS]; /* before the plan: of its chain, or alone */

/* ---- the plan's own promises ------------------------------------------------------------------------------------------- */

static bool fed(const struct sched_seq *q)
{
    return q->n_tokens == q->n_max && sched_decodes(q); /* its last token is pending */
}

/* Copies under way hold the block that it needs. */
static bool short_of_blocks(const struct sched_seq *q)
{
    return sched_moving(w.s) > 0 && kv_seq_blocks_for(q->n_tokens, BT) > q->kv.n_blocks;
}

static void check_rows(const struct sched_plan *p)
{
    uint32_t tokens = 0, first = KV_NONE;
    bool prompts = false;
    for (uint32_t i = 0; i < p->n_rows; i++) {
        const struct sched_row *r = &p->rows[i];
        const struct sched_seq *q = sched_seq(w.s, r->slot);
        assert_int_equal(q->state, SCHED_RUNNING);
        assert_int_equal(r->start, q->n_computed);
        assert_true(r->n > 0 && r->start + r->n <= q->n_tokens);
        assert_int_equal(r->sample, r->start + r->n == q->n_tokens);
        assert_true(kv_seq_blocks_for(r->start + r->n, BT) <= q->kv.n_blocks);
        assert_false(sched_decodes(q) && prompts);
        prompts |= !sched_decodes(q);
        tokens += r->n;
        for (uint32_t k = 0; k < i; k++)
            assert_int_not_equal(p->rows[k].slot, r->slot);
    }
    assert_int_equal(tokens, p->n_tokens);
    assert_true(tokens <= w.o.max_num_batched_tokens && sched_running(w.s) <= w.o.max_num_seqs);
    if (sched_running(w.s) > 0 && !w.o.test_seed) {
        first = sched_running_slot(w.s, 0);
        assert_true(row_of(p, first) || fed(sched_seq(w.s, first)) || short_of_blocks(sched_seq(w.s, first)));
    }
    bool idle = sched_running(w.s) + sched_waiting(w.s) == 0;
    if (p->n_rows == 0 && !w.o.test_seed && w.under_way == 0 && sched_moving(w.s) == 0 && !idle) {
        print_world();
        fail_msg("nothing to do, and it is not the end");
    }
}

static void check_victims(const struct sched_plan *p)
{
    for (uint32_t i = 0; i < p->n_preempted; i++) {
        const struct sched_preemption *t = &p->preempted[i];
        assert_true(w.o.priorities || t->resource == SCHED_GROWTH);
        assert_true((t->taker == t->victim) <= (t->resource == SCHED_GROWTH));
    }
}

static bool aside(uint32_t x)
{
    for (uint32_t i = 0; i < w.s->n_aside; i++)
        if (w.s->aside[i] == x)
            return true;
    return false;
}

static void check_aside(void)
{
    for (uint32_t i = 0; i < w.s->n_aside; i++) {
        const struct sched_seq *q = sched_seq(w.s, w.s->aside[i]);
        bool company = q->latency <= 20 && q->n_preempted == 0 && w.now - q->arrival_ns < w.o.batch_wait_ns;
        assert_true(q->n_tokens == q->n_max || q->parking || q->producer != KV_NONE || company);
    }
}

/* ---- no inversion -------------------------------------------------------------------------------------------------------- */

/* First in the queue of those that were not set aside. */
static uint32_t passed_over(void)
{
    uint32_t best = KV_NONE;
    for (uint32_t i = 0; i < SLOTS; i++) {
        if (!heap_contains(w.s->heap, i) || aside(i))
            continue;
        int64_t a = heap_key(w.s->heap, i), b = best == KV_NONE ? 0 : heap_key(w.s->heap, best);
        if (best == KV_NONE || a < b || (a == b && sched_seq(w.s, i)->order < sched_seq(w.s, best)->order))
            best = i;
    }
    return best;
}

/* What those want who were settled before x came up. That may be all of them if it came to the front in this very plan, or if
 * one stood before it that had given way: those go before greater leads. */
static bool budget_is_used_before(const struct sched_plan *p, uint32_t x)
{
    uint64_t n = 0;
    bool any = !in_front[x];
    for (uint32_t i = 0; i < p->n_admitted; i++)
        any |= sched_seq(w.s, p->admitted[i])->n_preempted > 0;
    for (uint32_t i = 0; i < sched_running(w.s); i++) {
        uint32_t v = sched_running_slot(w.s, i);
        const struct sched_seq *q = sched_seq(w.s, v);
        if (!fed(q) && (any || sched_before(w.s, v, x) || was_admitted(p, v)))
            n += q->n_tokens - q->n_computed;
    }
    return n >= w.o.max_num_batched_tokens;
}

/* Those who would have to give way for x, marked in `set`; true: x could run in somebody's place, or needs nobody's. */
static bool all_victims(uint32_t x, bool *set)
{
    bool place = sched_running(w.s) < w.o.max_num_seqs;
    for (uint32_t i = 0; i < SLOTS; i++) {
        const struct sched_seq *q = sched_seq(w.s, i);
        bool runs = q->state == SCHED_RUNNING && sched_may_take(w.s, x, i);
        set[i] = i != x && (runs || (q->state == SCHED_WAITING && q->holds));
        place |= runs;
    }
    return place;
}

/* Blocks that could be had if all of them let go and x kept what it matches. */
static uint64_t could_have(const struct sched_seq *q, const bool *set, uint32_t n_matched)
{
    uint32_t total_blocks = kv_pool_total(kv_prefix_pool(w.kv));
    static uint32_t pins[WORLD_BLOCKS];
    uint64_t n = kv_pool_free(kv_prefix_pool(w.kv));
    memset(pins, 0, sizeof pins);
    for (uint32_t i = 0; i < SLOTS; i++)
        for (uint32_t k = 0; set[i] && k < sched_seq(w.s, i)->kv.n_blocks; k++)
            pins[w.table[i][k]]++;
    for (uint32_t i = 0; i < n_matched; i++) {
        uint32_t b = kv_prefix_find(w.kv, &q->kv.ids[i]);
        pins[b] = UINT32_MAX; /* stays */
    }
    for (uint32_t b = 0; b < total_blocks; b++)
        n += kv_pool_state(kv_prefix_pool(w.kv), b) != KV_FREE &&
             pins[b] == kv_pool_pins(kv_prefix_pool(w.kv), b);
    return n;
}

static uint64_t promised_to_others(uint32_t x, const bool *set)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < sched_running(w.s); i++) {
        uint32_t v = sched_running_slot(w.s, i);
        const struct sched_seq *q = sched_seq(w.s, v);
        if (set[v] || sched_lead(w.s, v) < sched_lead(w.s, x) - w.o.aging_ns / 2)
            continue;
        uint32_t n_out = q->n_tokens - q->n_prompt, guess = q->n_expect;
        if (guess && n_out >= guess)
            guess = n_out + guess / 2 + BT;
        uint32_t end = q->n_prompt + guess < q->n_max ? q->n_prompt + guess : q->n_max;
        uint32_t blocks = kv_seq_blocks_for(end, BT);
        n += blocks > q->kv.n_blocks ? blocks - q->kv.n_blocks : 1;
    }
    return n;
}

static void check_no_inversion(const struct sched_plan *p)
{
    static bool set[SLOTS];
    uint32_t x = passed_over(), n_matched = 0;
    if (x == KV_NONE || w.o.test_seed || p->n_admitted >= SCHED_ADMIT_MAX ||
        w.s->n_aside == SCHED_ASIDE_MAX || budget_is_used_before(p, x))
        return;
    for (uint32_t i = 0; i < p->n_preempted; i++)
        if (p->preempted[i].resource == SCHED_GROWTH)
            return;
    const struct sched_seq *q = sched_seq(w.s, x);
    if (!all_victims(x, set))
        return; /* no place */
    while (!q->holds && (n_matched + 1) * BT < q->n_tokens && n_matched < q->kv.n_ids &&
           kv_prefix_find(w.kv, &q->kv.ids[n_matched]) != KV_NONE)
        n_matched++;
    uint32_t end = q->n_prompt + q->n_expect, has = q->holds ? q->kv.n_blocks : n_matched;
    end = end < q->n_tokens || q->holds ? q->n_tokens : end > q->n_max ? q->n_max : end;
    uint32_t total_blocks = kv_pool_total(kv_prefix_pool(w.kv)), reserve = kv_seq_blocks_for(end, BT);
    reserve = (reserve < total_blocks ? reserve : total_blocks) - has;
    if (could_have(q, set, n_matched) >= reserve + promised_to_others(x, set)) {
        print_world();
        fail_msg("slot %u could run: %u blocks to reserve", x, reserve);
    }
    heads++;
}

/* ---- loads --------------------------------------------------------------------------------------------------------------- */

static void random_world(void)
{
    bool roomy = rnd(4) == 0;
    uint32_t seqs = 1 + rnd(8);
    struct sched_options o = {.n_slots = SLOTS,
                              .max_num_seqs = seqs,
                              .max_num_batched_tokens = seqs + rnd(80),
                              .priorities = rnd(4) != 0,
                              .aging_ns = 400 + rnd(4000),
                              .priority_clamp = rnd(12),
                              .batch_wait_ns = rnd(2) ? rnd(40) : 0,
                              .save_batch = rnd(3) ? rnd(8) : 0,
                              .test_seed = rnd(3) ? 0 : 1 + rnd(1000)};
    open_world(&o, CONTEXT / BT + rnd(roomy ? 100 : 14), rnd(3) ? 1 + rnd(rnd(2) ? 6 : 60) : 0);
}

static struct ask random_ask(void)
{
    uint32_t n = 1 + rnd(CONTEXT - 1);
    struct ask a = {.n_prompt = n,
                    .max_tokens = 1 + rnd(rnd(2) ? CONTEXT - n : 12),
                    .kind = (int32_t)rnd(4),
                    .shared = 1 + rnd(CONTEXT),
                    .latency = (uint8_t)rnd(101),
                    .strict = rnd(8) ? 0 : rnd(4),
                    .n_expect = rnd(2) ? rnd(60) : 0,
                    .expiry_ns = rnd(3) ? 0 : w.now + rnd(2000)};
    if (a.max_tokens > CONTEXT - n)
        a.max_tokens = CONTEXT - n;
    a.priority = rnd(3) ? (int32_t)rnd(5) - 1 : (int32_t)rnd(16) - 4;
    return a;
}

static void add_up(void)
{
    const uint64_t *from = (const uint64_t *)sched_counters(w.s);
    uint64_t *to = (uint64_t *)&total;
    for (size_t i = 0; i < sizeof total / sizeof *to; i++)
        to[i] += from[i];
}

static void run_load(uint64_t seed)
{
    rng = seed;
    random_world();
    uint32_t steps = 0, left = REQUESTS, live = 0, depth = 1 + rnd(WORLD_DEPTH), late = 1 + rnd(4);
    while (left + live > 0) {
        uint32_t slot = rnd(SLOTS);
        if (left > 0 && sched_seq(w.s, slot)->state == SCHED_IDLE && rnd(3) == 0) {
            struct ask a = random_ask();
            submit_ask(slot, &a);
            left--;
            live++;
        } else if (sched_seq(w.s, slot)->state != SCHED_IDLE && rnd(60) == 0) {
            sched_remove(w.s, slot, w.now);
            live--;
        }
        check_world();
        for (uint32_t i = 0; i < SLOTS; i++)
            in_front[i] = heap_contains(w.s->heap, i);
        const struct sched_plan *p = plan();
        for (uint32_t i = 0; i < p->n_moves; i++)
            urgent += p->moves[i].urgent;
        check_rows(p);
        check_victims(p);
        check_aside();
        check_no_inversion(p);
        if (p->n_rows > 0)
            launch(p);
        while (w.under_way >= depth || (w.under_way > 0 && p->n_rows == 0))
            live -= complete();
        finish_moves(late, fail_copies ? 4 : 0);
        check_world();
        if (++steps > END)
            fail_msg("no end in sight: %u of %u wait or run", live, REQUESTS);
    }
    add_up();
    remove_all();
    close_world();
}

static void random_loads(uint64_t first)
{
    uint64_t fresh = (uint64_t)time(NULL) * 1000;
    for (uint64_t i = 0; i < LOADS && !only_seed; i++) {
        uint64_t seed = first + (i < LOADS / 2 ? i : fresh + i);
        printf("load seed %llu\n", (unsigned long long)seed);
        fflush(stdout);
        run_load(seed);
    }
    if (only_seed)
        run_load(only_seed);
}

static void random_loads_keep_every_promise(void **state)
{
    (void)state;
    fail_copies = 0;
    random_loads(1);
}

static void so_they_do_when_copies_fail(void **state)
{
    (void)state;
    fail_copies = 1;
    random_loads(10000);
}

static void everything_was_seen(void **state)
{
    (void)state;
    uint64_t by[SCHED_RESOURCES] = {0}, resumed = 0;
    for (int v = 0; v < SCHED_CLASSES; v++) {
        resumed += total.resumed[v];
        for (int t = 0; t < SCHED_CLASSES; t++)
            for (int r = 0; r < SCHED_RESOURCES; r++)
                by[r] += total.preemptions[v][t][r];
    }
    printf("preempted for places %llu, blocks %llu, growth %llu; resumed %llu tokens; saved %llu, %llu of "
           "them urgent, "
           "loaded %llu; heads looked at %llu\n",
           (unsigned long long)by[0], (unsigned long long)by[1], (unsigned long long)by[2],
           (unsigned long long)resumed, (unsigned long long)total.saved, (unsigned long long)urgent,
           (unsigned long long)total.loaded, (unsigned long long)heads);
    assert_true(only_seed ||
                (by[0] && by[1] && by[2] && resumed && total.saved && urgent && total.loaded && heads));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_loads_keep_every_promise),
        cmocka_unit_test(so_they_do_when_copies_fail),
        cmocka_unit_test(everything_was_seen),
    };
    if (argc > 1)
        only_seed = strtoull(argv[1], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
