/* Who gives way, and what becomes of his blocks.
 *
 * A place to run costs its victim nothing: he waits with all his blocks and goes on where he was. Only when blocks themselves
 * are scarce does he let them go, and then in the way that loses least: his full blocks stay in the index, claimed, so that
 * everything else in the cache goes before them; those that have a copy in the host tier may go at any time. The part-filled
 * block, which no index knows, is parked in a host slot of its own. What is still under way in it counts: a copy reads what the
 * launched steps leave.
 *
 * Copies are made ahead of need (sched_save_some), so that a victim's blocks are usually clean when they are wanted. If a
 * claimed block has to go that is not, its copy is *urgent*: it is made before the step of this plan is launched. The step
 * is later by that much, once; the alternative is to compute the block again.
 *
 * Victims. First it is counted what a set of victims would free: a block that two of them share comes free with the second one.
 * Only if that is enough does anybody give way. Order: those who wait with blocks, least lead first, then runners by lead in
 * half points, then the less sensitive to latency, then who loses less, who gave way less often, and the youngest.
 *
 * Rejected: taking victims one by one until it suffices (preempts for nothing when it does not); letting the blocks of a victim
 * go at once (he would load or compute them again although nobody took them). */
#include "sched_state.h"

#include <assert.h>
#include <string.h>

enum { CLAIM_RESIDENCES = 8, SAVE_PATH_MAX = 64 };

/* ---- places to run ------------------------------------------------------------------------------------------------- */

void sched_run_insert(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = &s->seqs[slot];
    uint32_t i = s->n_run++;
    q->lead_ns = sched_lead(s, slot);
    q->state = SCHED_RUNNING;
    q->started_plan = s->n_plans;
    for (; i > 0 && sched_before(s, slot, s->run[i - 1]); i--)
        s->run[i] = s->run[i - 1];
    s->run[i] = slot;
}

void sched_run_remove(struct sched *s, uint32_t slot)
{
    uint32_t i = 0;
    while (s->run[i] != slot)
        i++;
    s->n_run--;
    memmove(s->run + i, s->run + i + 1, (s->n_run - i) * sizeof *s->run);
}

void sched_hold(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = &s->seqs[slot];
    q->holds = q->kv.n_blocks > 0;
    if (!q->holds)
        return;
    q->held_at = s->n_held;
    s->held[s->n_held++] = slot;
}

void sched_unhold(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = &s->seqs[slot];
    if (!q->holds)
        return;
    uint32_t last = s->held[--s->n_held];
    s->held[q->held_at] = last;
    s->seqs[last].held_at = q->held_at;
    q->holds = false;
}

void sched_preempt(struct sched *s, uint32_t victim, uint32_t taker, enum sched_resource why)
{
    struct sched_seq *q = &s->seqs[victim];
    q->since_ns = s->now_ns - q->lead_ns;
    q->n_preempted++;
    sched_run_remove(s, victim);
    sched_queue_alone(s, victim);
    sched_hold(s, victim);
    s->preempted[s->plan.n_preempted++] = (struct sched_preemption){victim, taker, (uint8_t)why};
    s->counters.preemptions[q->cls][s->seqs[taker].cls][why]++;
}

/* ---- moves --------------------------------------------------------------------------------------------------------- */

static bool can_move(const struct sched *s)
{
    return s->plan.n_moves < s->cap_moves;
}

static void put_move(struct sched *s, struct sched_move m)
{
    m.epoch = m.slot == KV_NONE ? 0 : s->epoch[m.slot];
    m.lease = m.slot == KV_NONE ? 0 : s->lease[m.slot];
    s->moves[s->plan.n_moves++] = m;
    s->n_moving++;
}

/* The positions behind the last full block, if they are in one block, into a host slot. */
static void park(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = &s->seqs[slot];
    uint32_t bt = q->kv.block_tokens, full = q->kv.n_full * bt, host;
    if (q->n_computed <= full)
        return;
    assert(q->parked == KV_NONE);
    if (q->n_computed - full <= bt && !s->drop_parts && can_move(s) &&
        kv_prefix_host_take(s->kv, &host) == ST_OK) {
        uint32_t block = q->kv.table[q->kv.n_full];
        kv_prefix_pin(s->kv, block);
        q->parked = host;
        q->parking = true;
        put_move(s, (struct sched_move){.kind = SCHED_PARK, .block = block, .host = host, .slot = slot});
        return;
    }
    q->n_computed = full;
}

/* Far enough for all else that is wanted less to go first; a bias that decays, as any other. */
static int64_t claim_expiry(const struct sched *s)
{
    return s->now_ns + CLAIM_RESIDENCES * kv_prefix_residence_ns(s->kv);
}

void sched_claim(struct sched *s, uint32_t slot, bool on)
{
    const struct sched_seq *q = &s->seqs[slot];
    uint32_t n = q->n_had / q->kv.block_tokens;
    for (uint32_t i = 0; q->kv.ids && i < n && i < q->kv.n_ids; i++) {
        uint32_t b = kv_prefix_find(s->kv, &q->kv.ids[i]);
        if (b != KV_NONE)
            kv_prefix_claim(s->kv, b, on);
    }
}

void sched_release(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = &s->seqs[slot];
    sched_unhold(s, slot);
    q->n_had = q->n_computed;
    if (q->kv.ids)
        park(s, slot);
    kv_seq_release(&q->kv, s->kv, s->now_ns, s->o.priorities ? claim_expiry(s) : s->now_ns);
    sched_claim(s, slot, true);
    s->lease[slot]++;
}

/* Frees blocks until `n` are, cached ones first that expire first; what is claimed and has no copy gets one. */
static void make_free(struct sched *s, uint32_t n)
{
    while (kv_pool_free(kv_prefix_pool(s->kv)) < n) {
        uint32_t b = kv_prefix_oldest(s->kv), host;
        assert(b != KV_NONE);
        if (kv_prefix_claimed(s->kv, b) && !kv_prefix_saved(s->kv, b) && can_move(s) &&
            kv_prefix_save_begin(s->kv, b, &host)) {
            /* Done as far as the index is concerned: the caller makes the copy before anything else happens. Until then
             * the slot is nobody else's: two copies into one would leave either. */
            kv_prefix_save_end(s->kv, b, host, true);
            kv_prefix_host_pin(s->kv, host);
            put_move(s, (struct sched_move){
                            .kind = SCHED_SAVE, .urgent = true, .block = b, .host = host, .slot = KV_NONE});
        }
        kv_prefix_evict(s->kv, 1);
    }
}

/* ---- victims ------------------------------------------------------------------------------------------------------- */

/* Positions that letting its blocks go would lose: those under way in more than one block, or in one that cannot be parked. */
static uint32_t would_lose(const struct sched *s, const struct sched_seq *q)
{
    uint32_t tail = q->n_computed - q->kv.n_full * q->kv.block_tokens;
    return tail > q->kv.block_tokens || s->cap_moves == 0 ? tail : 0;
}

/* Is a the better victim? Both run. */
static bool rather(const struct sched *s, const struct sched_seq *a, const struct sched_seq *b)
{
    int64_t step = s->o.aging_ns / 2 + 1;
    if (a->lead_ns / step != b->lead_ns / step)
        return a->lead_ns < b->lead_ns;
    if (a->latency / 10 != b->latency / 10)
        return a->latency < b->latency;
    uint32_t la = would_lose(s, a), lb = would_lose(s, b);
    if (la != lb)
        return la < lb;
    if (a->n_preempted != b->n_preempted)
        return a->n_preempted < b->n_preempted;
    return a->order > b->order;
}

uint32_t sched_pick_runner(const struct sched *s, uint32_t x)
{
    uint32_t best = KV_NONE;
    for (uint32_t i = s->n_run; i > 0; i--) {
        uint32_t v = s->run[i - 1];
        if (s->chosen[v] != s->stamp && sched_may_take(s, x, v) &&
            (best == KV_NONE || rather(s, &s->seqs[v], &s->seqs[best])))
            best = v;
    }
    return best;
}

/* Of those who wait with blocks, and behind x: all of them if x waits, being the head of the queue. Leads alone would not do:
 * who gave way before may be the head in front of a greater lead, and with nobody running both would wait for each other. */
static uint32_t pick_held(const struct sched *s, uint32_t x)
{
    bool head = s->seqs[x].state == SCHED_WAITING;
    uint32_t best = KV_NONE;
    for (uint32_t i = 0; i < s->n_held; i++) {
        uint32_t v = s->held[i];
        if (v != x && s->chosen[v] != s->stamp && (head || sched_before(s, x, v)) &&
            (best == KV_NONE || sched_before(s, best, v)))
            best = v;
    }
    return best;
}

/* What comes free when this one lets go as well. A block that is parked stays until its copy is made. */
static uint32_t count_freed(struct sched *s, uint32_t slot)
{
    const struct sched_seq *q = &s->seqs[slot];
    uint32_t n = 0,
             parks = s->cap_moves > 0 && !s->drop_parts && q->n_computed > q->kv.n_full * q->kv.block_tokens;
    s->chosen[slot] = s->stamp;
    for (uint32_t i = 0; i < q->kv.n_blocks; i++) {
        struct sched_scratch *c = &s->scratch[q->kv.table[i]];
        if (c->stamp != s->stamp)
            *c = (struct sched_scratch){.stamp = s->stamp};
        n += ++c->pins == kv_pool_pins(kv_prefix_pool(s->kv), q->kv.table[i]);
    }
    return n > parks ? n - parks : 0;
}

/* Blocks that a runner will still ask for. */
static uint32_t still_to_come(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = &s->seqs[slot];
    uint32_t n_output = q->n_tokens - q->n_prompt;
    if (q->n_expect && n_output >= q->n_expect)
        q->n_expect = n_output + q->n_expect / 2 + q->kv.block_tokens; /* overrun: a new guess */
    uint64_t end = (uint64_t)q->n_prompt + q->n_expect;
    uint32_t blocks = kv_seq_blocks_for(end < q->n_max ? (uint32_t)end : q->n_max, q->kv.block_tokens);
    return blocks > q->kv.n_blocks ? blocks - q->kv.n_blocks : 1;
}

/* Reserved for those who run, stay and do not rank far below x. */
uint64_t sched_promised(struct sched *s, uint32_t x)
{
    uint64_t n = 0;
    int64_t least = sched_lead(s, x) - s->o.aging_ns / 2;
    for (uint32_t i = 0; i < s->n_run; i++)
        if (s->chosen[s->run[i]] != s->stamp && sched_lead(s, s->run[i]) >= least)
            n += still_to_come(s, s->run[i]);
    return n;
}

uint32_t sched_pick_any(const struct sched *s, uint32_t x)
{
    uint32_t v = pick_held(s, x);
    return v == KV_NONE ? sched_pick_runner(s, x) : v;
}

/* Whom x takes blocks from, and from whom a place to run (KV_NONE: one is free). */
static bool choose_victims(struct sched *s, uint32_t x, uint32_t need, uint32_t reserve, bool place,
                           uint32_t *for_place)
{
    uint64_t have = kv_prefix_available(s->kv);
    uint32_t v;
    s->n_victims = 0;
    s->stamp++;
    *for_place = KV_NONE;
    if (place && s->n_run == s->o.max_num_seqs && (*for_place = sched_pick_runner(s, x)) == KV_NONE)
        return false;
    while (have < need) {
        if ((v = sched_pick_any(s, x)) == KV_NONE)
            return false;
        have += count_freed(s, v);
        s->victims[s->n_victims++] = v;
    }
    /* What else could be taken later counts too: it is enough that it can be had. */
    uint64_t others = sched_promised(s, x);
    while (have < reserve + others) {
        if ((v = sched_pick_any(s, x)) == KV_NONE)
            return false;
        have += count_freed(s, v);
        others = sched_promised(s, x);
    }
    return true;
}

bool sched_obtain(struct sched *s, uint32_t x, uint32_t need, uint32_t reserve, bool place)
{
    uint32_t for_place;
    s->drop_parts = false;
    if (!choose_victims(s, x, need, reserve, place, &for_place)) {
        /* Parked blocks come free too late: a few positions are computed again rather than x kept out. */
        s->drop_parts = s->cap_moves > 0;
        if (!s->drop_parts || !choose_victims(s, x, need, reserve, place, &for_place))
            return s->drop_parts = false;
    }
    for (uint32_t i = 0; i < s->n_victims; i++) {
        if (s->seqs[s->victims[i]].state == SCHED_RUNNING)
            sched_preempt(s, s->victims[i], x, SCHED_BLOCKS);
        sched_release(s, s->victims[i]);
    }
    s->drop_parts = false;
    if (for_place != KV_NONE && s->n_run == s->o.max_num_seqs)
        sched_preempt(s, for_place, x, SCHED_SLOTS);
    make_free(s, need);
    return true;
}

/* The last in rank that may give way to `slot`, which runs. */
static uint32_t pick_last(const struct sched *s, uint32_t slot)
{
    uint32_t v = pick_held(s, slot);
    for (uint32_t i = s->n_run; v == KV_NONE && i > 0 && s->run[i - 1] != slot; i--)
        if (s->chosen[s->run[i - 1]] != s->stamp)
            v = s->run[i - 1];
    return v;
}

void sched_extend(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = &s->seqs[slot];
    int rc = kv_seq_extend(&q->kv, s->kv, q->n_tokens);
    assert(rc == ST_OK);
    (void)rc;
}

bool sched_grow(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = &s->seqs[slot];
    uint32_t blocks = kv_seq_blocks_for(q->n_tokens, q->kv.block_tokens), v;
    if (blocks <= q->kv.n_blocks)
        return true;
    uint32_t need = blocks - q->kv.n_blocks, have = kv_prefix_available(s->kv);
    s->n_victims = 0;
    s->stamp++;
    while (have < need && (v = pick_last(s, slot)) != KV_NONE) {
        have += count_freed(s, v);
        s->victims[s->n_victims++] = v;
    }
    if (have < need && s->n_moving > 0)
        return false; /* copies hold what it needs: it misses this step */
    if (have < need) {
        s->victims[0] = slot;
        s->n_victims = 1;
    }
    for (uint32_t i = 0; i < s->n_victims; i++) {
        if (s->seqs[s->victims[i]].state == SCHED_RUNNING)
            sched_preempt(s, s->victims[i], slot, SCHED_GROWTH);
        sched_release(s, s->victims[i]);
    }
    if (have < need)
        return false;
    make_free(s, need);
    sched_extend(s, slot);
    return true;
}

/* ---- copies -------------------------------------------------------------------------------------------------------- */

void sched_load(struct sched *s, uint32_t slot, const uint32_t *hosts, uint32_t n, bool parked)
{
    struct sched_seq *q = &s->seqs[slot];
    for (uint32_t i = 0; i < n + parked; i++) {
        struct sched_move m = {.kind = SCHED_LOAD, .block = q->kv.table[q->kv.n_full + i], .slot = slot};
        m.own = i == n;
        m.host = m.own ? q->parked : hosts[i];
        kv_prefix_pin(s->kv, m.block);
        put_move(s, m);
    }
    q->state = SCHED_LOADING;
    s->loading[s->n_loading++] = slot;
    q->n_loading = n + parked;
    q->load_failed = false;
    if (parked)
        q->parked = KV_NONE; /* the move's from here on */
    s->counters.loaded += n + parked;
}

void sched_load_end(struct sched *s, uint32_t slot)
{
    uint32_t i = 0;
    while (s->loading[i] != slot)
        i++;
    s->loading[i] = s->loading[--s->n_loading];
}

static bool save(struct sched *s, uint32_t block)
{
    uint32_t host;
    if (!can_move(s) || !kv_prefix_save_begin(s->kv, block, &host))
        return false;
    put_move(s, (struct sched_move){.kind = SCHED_SAVE, .block = block, .host = host, .slot = KV_NONE});
    return true;
}

/* A leaf and what of the path to it is next to go, upwards, within `left`; the uppermost first, since a copy under way pins all
 * above it, and what is pinned has no rank to be saved by. Returns how many are. */
static uint32_t save_path(struct sched *s, uint32_t leaf, uint32_t left)
{
    uint32_t path[SAVE_PATH_MAX], n = 0, n_saved = 0;
    for (uint32_t b = leaf; b != KV_NONE && n < left && n < SAVE_PATH_MAX; b = kv_prefix_unsaved_parent(s->kv, b))
        path[n++] = b;
    while (n > 0 && save(s, path[--n]))
        n_saved++;
    return n_saved;
}

/* Only when little could be had for nothing: free, or cached with a copy. The cached ones go first that expire first, then
 * the full blocks of those runners that would be the first to give way. */
void sched_save_some(struct sched *s)
{
    uint32_t total = kv_pool_total(kv_prefix_pool(s->kv)), left = s->o.save_batch, b, n;
    if (kv_prefix_host_total(s->kv) == 0 || s->n_moving >= s->o.save_batch ||
        kv_pool_free(kv_prefix_pool(s->kv)) + kv_prefix_clean(s->kv) >= total / 10 + s->n_run)
        return;
    while (left > 0 && (b = kv_prefix_next_unsaved(s->kv)) != KV_NONE && (n = save_path(s, b, left)) > 0)
        left -= n;
    for (uint32_t i = s->n_run; i > 0 && left > 0; i--) {
        struct sched_seq *q = &s->seqs[s->run[i - 1]];
        for (; q->n_saved < q->kv.n_indexed && left > 0; q->n_saved++) {
            if (kv_prefix_saved(s->kv, q->kv.table[q->n_saved]))
                continue;
            if (!save(s, q->kv.table[q->n_saved]))
                return;
            left--;
        }
    }
}

static void park_done(struct sched *s, const struct sched_move *m, struct sched_seq *q, bool ok)
{
    if (q)
        q->parking = false;
    if (q && ok)
        return;
    kv_prefix_host_give(s->kv, m->host);
    if (!q)
        return;
    q->parked = KV_NONE;
    q->n_computed = (q->n_computed - 1) / q->kv.block_tokens * q->kv.block_tokens;
}

/* The last of its moves puts it back into the queue, now with blocks. */
static void load_done(struct sched *s, const struct sched_move *m, struct sched_seq *q, bool ok)
{
    if (m->own)
        kv_prefix_host_give(s->kv, m->host);
    else
        kv_prefix_host_unpin(s->kv, m->host);
    if (!q)
        return;
    q->load_failed |= !ok;
    if (--q->n_loading > 0)
        return;
    q->n_computed = q->load_failed ? q->kv.n_full * q->kv.block_tokens : q->load_end;
    kv_seq_commit(&q->kv, s->kv, q->n_computed);
    sched_load_end(s, m->slot);
    sched_queue_alone(s, m->slot);
    sched_hold(s, m->slot);
}

void sched_move_done(struct sched *s, const struct sched_move *m, bool ok, int64_t now_ns)
{
    bool live = m->slot != KV_NONE && s->epoch[m->slot] == m->epoch;
    struct sched_seq *q = live ? &s->seqs[m->slot] : NULL;
    s->now_ns = now_ns;
    s->n_moving--;
    s->counters.saved += ok && m->kind != SCHED_LOAD;
    if (m->kind == SCHED_SAVE) {
        if (m->urgent)
            kv_prefix_host_unpin(s->kv, m->host);
        else
            kv_prefix_save_end(s->kv, m->block, m->host, ok);
        return;
    }
    kv_prefix_unpin(s->kv, m->block);
    if (m->kind == SCHED_PARK)
        park_done(s, m, q, ok);
    else
        load_done(s, m, q, ok);
}
