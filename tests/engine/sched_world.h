/* sched_world: the scheduler in a world without engine, thread or backend: requests, steps under way, copies between tiers, and
 * what each position of each block holds.
 *
 * Every position has a value that depends on all tokens up to it. A step writes its rows' values and asserts that the blocks
 * which it was launched with hold the right ones before them; copies move them, late, in any order, and some fail and leave
 * poison. So a block that was taken too early, restored wrongly or matched by mistake shows at once, as it would in the tokens.
 *
 * Owns     the one world of a test program: w.
 * Units    time in whatever the test makes of it; each plan adds w.tick.
 * States   open_world -> (submit, plan, launch, complete, finish_moves)* -> close_world, which asserts that nothing is left.
 * Threads  one.
 * Bounds   WORLD_SLOTS requests of WORLD_CONTEXT tokens, WORLD_DEPTH steps under way, WORLD_BLOCKS blocks in either tier.
 */
#ifndef STATOR_TEST_SCHED_WORLD_H
#define STATOR_TEST_SCHED_WORLD_H

#include "mem.h"
#include "sched_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    BT = 16,
    WORLD_SLOTS = 128,
    WORLD_CONTEXT = 4352,
    WORLD_TABLE = WORLD_CONTEXT / BT,
    WORLD_BLOCKS = 2048,
    WORLD_DEPTH = 2,
    WORLD_MOVES = 2 * WORLD_BLOCKS
};

struct world_row {
    struct sched_row row;
    uint32_t table[WORLD_TABLE]; /* as it was launched with */
};

struct world_step {
    struct world_row rows[WORLD_SLOTS];
    uint32_t n;
};

struct world_move {
    struct sched_move m;
    uint64_t after; /* steps launched before it */
};

struct world {
    struct kv_prefix *kv;
    struct sched *s;
    struct sched_options o;
    int64_t now, tick;
    int32_t tokens[WORLD_SLOTS][WORLD_CONTEXT];
    uint64_t values[WORLD_SLOTS][WORLD_CONTEXT];
    uint32_t table[WORLD_SLOTS][WORLD_TABLE];
    struct kv_id ids[WORLD_SLOTS][WORLD_TABLE];
    uint32_t n_output[WORLD_SLOTS], max_tokens[WORLD_SLOTS];
    uint64_t born[WORLD_SLOTS];
    uint64_t device[WORLD_BLOCKS][BT], host[WORLD_BLOCKS][BT];
    struct world_step steps[WORLD_DEPTH]; /* under way, oldest first */
    uint32_t under_way;
    uint64_t n_launched, n_ran, n_computed; /* steps; positions written */
    struct world_move moves[WORLD_MOVES];
    uint32_t n_moves;
};

static struct world w;
static uint64_t rng;

static inline uint32_t rnd(uint32_t n)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng >> 33) % n;
}

static inline void open_world(const struct sched_options *o, uint32_t n_blocks, uint32_t n_host)
{
    struct err e = {0};
    memset(&w, 0, sizeof w);
    w.o = *o;
    w.tick = 1;
    if (w.o.n_slots == 0)
        w.o.n_slots = WORLD_SLOTS;
    assert_true(n_blocks <= WORLD_BLOCKS && n_host <= WORLD_BLOCKS && w.o.n_slots <= WORLD_SLOTS);
    assert_int_equal(kv_prefix_create(&w.kv, n_blocks, n_host, &e), ST_OK);
    if (sched_create(&w.s, &w.o, w.kv, &e) != ST_OK)
        fail_msg("%s", e.text);
}

static inline void check_world(void)
{
    const char *why = "";
    if (!sched_check(w.s, &why))
        fail_msg("%s", why);
}

static inline void check_empty(void)
{
    assert_int_equal(sched_running(w.s) + sched_waiting(w.s) + sched_moving(w.s), 0);
    assert_int_equal(kv_prefix_available(w.kv), kv_pool_total(kv_prefix_pool(w.kv)));
    assert_int_equal(kv_prefix_host_free(w.kv) + kv_prefix_host_cached(w.kv), kv_prefix_host_total(w.kv));
    check_world();
}

static inline void close_world(void)
{
    check_empty();
    sched_destroy(w.s);
    kv_prefix_destroy(w.kv); /* which asserts that no pin is left */
}

/* Who is where, for a failing seed. */
static inline void print_world(void)
{
    printf("plan %llu, now %lld: %u run, %u wait, %u moves; blocks: %u free, %u cached of %u; host: %u free, "
           "%u copies\n",
           (unsigned long long)w.s->n_plans, (long long)w.now, sched_running(w.s), sched_waiting(w.s),
           sched_moving(w.s), kv_pool_free(kv_prefix_pool(w.kv)), kv_pool_cached(kv_prefix_pool(w.kv)),
           kv_pool_total(kv_prefix_pool(w.kv)), kv_prefix_host_free(w.kv), kv_prefix_host_cached(w.kv));
    for (uint32_t i = 0; i < w.o.n_slots; i++) {
        const struct sched_seq *q = sched_seq(w.s, i);
        if (q->state != SCHED_IDLE)
            printf("  %3u: state %u, order %llu, rank %d, lead %lld, tokens %u-%u-%u of %u, %u computed, %u "
                   "blocks (%u full), "
                   "gave way %u, holds %d, alone %d, producer %d, loading %u, parked %d\n",
                   i, q->state, (unsigned long long)q->order, q->rank, (long long)sched_lead(w.s, i),
                   q->n_prompt, q->n_tokens, q->n_pending, q->n_max, q->n_computed, q->kv.n_blocks,
                   q->kv.n_full, q->n_preempted, q->holds, q->alone, (int)q->producer, q->n_loading,
                   (int)q->parked);
    }
}

/* ---- requests ------------------------------------------------------------------------------------------------------ */

static inline uint64_t value_after(uint64_t before, int32_t token)
{
    uint64_t z = (before ^ (uint64_t)(uint32_t)token) * 0xbf58476d1ce4e5b9u + 0x9e3779b97f4a7c15u;
    return z ^ (z >> 29);
}

/* What a request says; the rest of its sched_seq. */
struct ask {
    uint32_t n_prompt, max_tokens;
    int32_t kind;    /* requests of one kind share all they have of ... */
    uint32_t shared; /* the first so many tokens; 0: all of the prompt */
    int32_t priority;
    uint32_t strict, n_expect;
    uint8_t latency;
    int64_t expiry_ns;
};

static inline uint8_t class_of(const struct ask *a)
{
    return a->strict || a->priority >= 10 ? 3 : a->priority >= 5 ? 2 : a->priority >= 0;
}

static inline void submit_ask(uint32_t slot, const struct ask *a)
{
    static int32_t unique = 1000000;
    uint32_t shared = a->shared ? a->shared : a->n_prompt, n = a->n_prompt + a->max_tokens;
    assert_true(n <= WORLD_CONTEXT);
    unique++;
    for (uint32_t i = 0; i < n; i++) {
        w.tokens[slot][i] = i < shared ? a->kind : unique;
        w.values[slot][i] = value_after(i ? w.values[slot][i - 1] : 1, w.tokens[slot][i]);
    }
    struct sched_seq *q = sched_seq(w.s, slot);
    *q = (struct sched_seq){.n_prompt = a->n_prompt,
                            .n_tokens = a->n_prompt,
                            .n_max = n,
                            .n_expect = a->n_expect,
                            .arrival_ns = w.now,
                            .expiry_ns = a->expiry_ns,
                            .priority = a->priority,
                            .strict = a->strict,
                            .latency = a->latency,
                            .cls = class_of(a)};
    q->kv = (struct kv_seq){.table = w.table[slot],
                            .ids = w.ids[slot],
                            .tokens = w.tokens[slot],
                            .block_tokens = BT,
                            .cap_blocks = WORLD_TABLE};
    kv_id_root(&q->kv.root, "m", 1, "", 0);
    kv_seq_hash(&q->kv, a->n_prompt);
    w.n_output[slot] = 0;
    w.max_tokens[slot] = a->max_tokens;
    sched_submit(w.s, slot, w.now);
}

static inline void submit(uint32_t slot, uint32_t n_prompt, uint32_t max_tokens, int32_t kind,
                          int32_t priority)
{
    submit_ask(slot, &(struct ask){.n_prompt = n_prompt,
                                   .max_tokens = max_tokens,
                                   .kind = kind,
                                   .priority = priority,
                                   .latency = 50});
}

/* ---- copies -------------------------------------------------------------------------------------------------------- */

static inline void exec_move(const struct sched_move *m, bool ok)
{
    uint64_t *block = w.device[m->block], *host = w.host[m->host];
    uint64_t *to = m->kind == SCHED_LOAD ? block : host;
    if (ok)
        memcpy(to, to == host ? block : host, sizeof w.host[0]);
    else
        memset(to, 0xa5, sizeof w.host[0]);
    sched_move_done(w.s, m, ok, w.now);
}

/* Neither end of a copy is in another one, unless both only read it. */
static inline void check_clash(const struct sched_move *a, const struct sched_move *b)
{
    bool load_a = a->kind == SCHED_LOAD, load_b = b->kind == SCHED_LOAD;
    assert_false(a->block == b->block && (load_a || load_b));
    assert_false(a->host == b->host && !(load_a && load_b));
}

static inline void put_moves(const struct sched_plan *p)
{
    for (uint32_t i = 0; i < p->n_moves; i++) { /* the urgent ones are one copy */
        for (uint32_t k = 0; k < i && p->moves[i].urgent; k++)
            if (p->moves[k].urgent)
                check_clash(&p->moves[i], &p->moves[k]);
        for (uint32_t k = 0; k < w.n_moves; k++)
            check_clash(&p->moves[i], &w.moves[k].m);
    }
    for (uint32_t i = 0; i < p->n_moves; i++)
        if (p->moves[i].urgent)
            exec_move(&p->moves[i], true);
    uint32_t before = w.n_moves;
    for (uint32_t i = 0; i < p->n_moves; i++) {
        if (p->moves[i].urgent)
            continue;
        for (uint32_t k = before; k < w.n_moves; k++)
            check_clash(&p->moves[i], &w.moves[k].m);
        assert_true(w.n_moves < WORLD_MOVES);
        w.moves[w.n_moves++] = (struct world_move){p->moves[i], w.n_launched};
    }
}

/* One of `in` of those that can be done are, at random; of those one of `fail` fails, if not 0. */
static inline void finish_moves(uint32_t in, uint32_t fail)
{
    for (uint32_t i = w.n_moves; i > 0; i--) {
        struct world_move v = w.moves[i - 1];
        if (v.after > w.n_ran || rnd(in) != 0)
            continue;
        w.moves[i - 1] = w.moves[--w.n_moves];
        exec_move(&v.m, !fail || rnd(fail) != 0);
    }
}

/* ---- steps --------------------------------------------------------------------------------------------------------- */

static inline void launch(const struct sched_plan *p)
{
    assert_true(w.under_way < WORLD_DEPTH);
    struct world_step *t = &w.steps[w.under_way++];
    t->n = p->n_rows;
    for (uint32_t i = 0; i < p->n_rows; i++) {
        const struct sched_seq *q = sched_seq(w.s, p->rows[i].slot);
        t->rows[i].row = p->rows[i];
        memcpy(t->rows[i].table, q->kv.table, q->kv.n_blocks * sizeof *q->kv.table);
        sched_launch(w.s, &p->rows[i]);
    }
    w.n_launched++;
}

static inline void run_row(const struct world_row *r)
{
    uint32_t slot = r->row.slot, end = r->row.start + r->row.n;
    bool live = sched_row_live(w.s, &r->row);
    for (uint32_t i = 0; i < r->row.start && live; i++)
        if (w.device[r->table[i / BT]][i % BT] != w.values[slot][i])
            fail_msg("slot %u reads a wrong position %u of %u", slot, i, r->row.start);
    for (uint32_t i = r->row.start; i < end; i++)
        w.device[r->table[i / BT]][i % BT] = live ? w.values[slot][i] : 0xdead;
    w.n_computed += r->row.n;
}

/* The oldest step has run; returns how many requests ended. */
static inline uint32_t complete(void)
{
    static struct world_step t;
    uint32_t ended = 0;
    assert_true(w.under_way > 0);
    t = w.steps[0];
    for (uint32_t i = 1; i < w.under_way; i++)
        w.steps[i - 1] = w.steps[i];
    w.under_way--;
    w.n_ran++;
    for (uint32_t i = 0; i < t.n; i++)
        run_row(&t.rows[i]);
    for (uint32_t i = 0; i < t.n; i++)
        if (sched_row_live(w.s, &t.rows[i].row))
            sched_commit(w.s, &t.rows[i].row);
    for (uint32_t i = 0; i < t.n; i++) {
        const struct sched_row *row = &t.rows[i].row;
        if (!row->sample || !sched_row_live(w.s, row))
            continue;
        sched_append(w.s, row->slot);
        if (++w.n_output[row->slot] == w.max_tokens[row->slot]) {
            sched_remove(w.s, row->slot, w.now);
            ended++;
        }
    }
    return ended;
}

/* ---- all of it, one step at a time ----------------------------------------------------------------------------------- */

static inline const struct sched_plan *plan(void)
{
    w.now += w.tick;
    const struct sched_plan *p = sched_plan(w.s, w.now);
    check_world();
    put_moves(p);
    return p;
}

/* Plans, runs that step, and all copies are done. */
static inline const struct sched_plan *turn(void)
{
    const struct sched_plan *p = plan();
    launch(p);
    complete();
    finish_moves(1, 0);
    check_world();
    return p;
}

static inline void turns(uint32_t n)
{
    while (n-- > 0)
        turn();
}

static inline void remove_all(void)
{
    for (uint32_t i = 0; i < w.o.n_slots; i++)
        sched_remove(w.s, i, w.now);
    while (w.under_way > 0)
        complete();
    finish_moves(1, 0);
}

static inline const struct sched_row *row_of(const struct sched_plan *p, uint32_t slot)
{
    for (uint32_t i = 0; i < p->n_rows; i++)
        if (p->rows[i].slot == slot)
            return &p->rows[i];
    return NULL;
}

static inline bool was_admitted(const struct sched_plan *p, uint32_t slot)
{
    for (uint32_t i = 0; i < p->n_admitted; i++)
        if (p->admitted[i] == slot)
            return true;
    return false;
}

static inline uint64_t recomputed(void)
{
    uint64_t n = 0;
    for (int i = 0; i < SCHED_CLASSES; i++)
        n += sched_counters(w.s)->recomputed[i];
    return n;
}

#endif
