/* One pass by rank settles who runs and has blocks: waiting ones and running ones are merged, so that whoever ranks higher is
 * served first and whoever has to give way has not been planned yet: nothing is ever unwound. A second pass shares the
 * tokens: first what everybody can use at least, by rank, then the rest to prompts, by rank.
 *
 * Why the least first. Decodes before prompts would let low decodes starve a high prompt when tokens are scarce; prompts before
 * decodes would stop everybody's stream for each new prompt. With everyone's least in the order of rank neither happens.
 *
 * Why it ends: of equals the first in rank is never a victim, and it fits alone, which submit has checked. Growth is taken from
 * the last in rank. An aged one takes a place at most once per two points of waiting.
 *
 * Steps under way. Planning looks at n_tokens and n_computed, which run ahead of the device; the index sees only what has
 * completed. A sequence that gives way while a step of it runs keeps that step's token. If it ends, or lets its blocks go, they
 * are free at once although the step may still write to them: whoever takes them writes in a step launched later, and steps run
 * in the order of their launch. What that step wrote is then never indexed: the row names another lease.
 *
 * Rejected: swapping on preemption (a place costs nothing to give; blocks are copied ahead of need). */
#include "sched_state.h"

#include "mem.h"

#include <assert.h>
#include <string.h>

enum {
    FIRST_SHARE = 4, /* of the budget: the least chunk of the first prompt by rank */
    LEAST_SHARE = 32 /* of the others */
};

static const struct steptime_seed any_machine = {.row_ns = 1e5, .attention_ns = 10, .context_ns = 10};

static int check_options(const struct sched_options *o, struct err *e)
{
    if (o->max_num_seqs == 0 || o->max_num_seqs > o->n_slots)
        return err_set(e, ST_EINVAL, "max-num-seqs %u: 1 to %u", o->max_num_seqs, o->n_slots);
    if (o->max_num_batched_tokens < o->max_num_seqs)
        return err_set(e, ST_EINVAL, "max-num-batched-tokens %u is below max-num-seqs %u",
                       o->max_num_batched_tokens, o->max_num_seqs);
    if (o->priorities && (o->aging_ns <= 0 || o->priority_clamp > SCHED_CLAMP_MAX))
        return err_set(e, ST_EINVAL, "aging of %lld ns, priorities to %u: above 0, at most %d",
                       (long long)o->aging_ns, o->priority_clamp, SCHED_CLAMP_MAX);
    return ST_OK;
}

int sched_create(struct sched **out, const struct sched_options *o, struct kv_prefix *kv, struct err *e)
{
    int rc = check_options(o, e);
    if (rc != ST_OK)
        return rc;
    struct sched *s = mem_zalloc(1, sizeof *s);
    if (!s)
        return err_set(e, ST_ENOMEM, "scheduler: no memory");
    uint32_t n = o->n_slots, blocks = kv_pool_total(kv_prefix_pool(kv));
    s->o = *o;
    s->kv = kv;
    s->rng = o->test_seed;
    steptime_init(&s->model, o->seed.row_ns > 0 ? &o->seed : &any_machine);
    s->cap_moves = kv_prefix_host_total(kv) > 0 ? 2 * blocks : 0;
    s->seqs = mem_zalloc(n, sizeof *s->seqs);
    s->epoch = mem_zalloc(n, sizeof *s->epoch);
    s->lease = mem_zalloc(n, sizeof *s->lease);
    s->here = mem_zalloc(n, sizeof *s->here);
    s->loading = mem_zalloc(n, sizeof *s->loading);
    s->run = mem_zalloc(o->max_num_seqs, sizeof *s->run);
    s->rows = mem_zalloc(o->max_num_seqs, sizeof *s->rows);
    s->admitted = mem_zalloc(n + SCHED_ADMIT_MAX, sizeof *s->admitted);
    s->preempted = mem_zalloc(n + SCHED_ADMIT_MAX, sizeof *s->preempted);
    s->moves = mem_zalloc(s->cap_moves + 1, sizeof *s->moves);
    s->grant = mem_zalloc(n, sizeof *s->grant);
    s->settled = mem_zalloc(n, sizeof *s->settled);
    s->wanted_by = mem_zalloc(n, sizeof *s->wanted_by);
    s->victims = mem_zalloc(n, sizeof *s->victims);
    s->chosen = mem_zalloc(n, sizeof *s->chosen);
    s->scratch = mem_zalloc(blocks, sizeof *s->scratch);
    s->hosts = mem_zalloc(blocks, sizeof *s->hosts);
    rc = s->seqs && s->epoch && s->lease && s->here && s->loading && s->run && s->rows && s->admitted &&
                 s->preempted && s->moves && s->grant && s->settled && s->wanted_by && s->victims &&
                 s->chosen && s->scratch && s->hosts
             ? sched_queue_init(s, e)
             : err_set(e, ST_ENOMEM, "scheduler: no memory for %u slots", n);
    if (rc != ST_OK) {
        sched_destroy(s);
        return rc;
    }
    *out = s;
    return ST_OK;
}

void sched_destroy(struct sched *s)
{
    if (!s)
        return;
    sched_queue_fini(s);
    mem_free(s->seqs);
    mem_free(s->epoch);
    mem_free(s->lease);
    mem_free(s->here);
    mem_free(s->loading);
    mem_free(s->run);
    mem_free(s->rows);
    mem_free(s->admitted);
    mem_free(s->preempted);
    mem_free(s->moves);
    mem_free(s->grant);
    mem_free(s->settled);
    mem_free(s->wanted_by);
    mem_free(s->victims);
    mem_free(s->chosen);
    mem_free(s->scratch);
    mem_free(s->hosts);
    mem_free(s);
}

struct sched_seq *sched_seq(struct sched *s, uint32_t slot)
{
    assert(slot < s->o.n_slots);
    return &s->seqs[slot];
}

void sched_submit(struct sched *s, uint32_t slot, int64_t now_ns)
{
    struct sched_seq *q = sched_seq(s, slot);
    assert(q->state == SCHED_IDLE && q->n_tokens == q->n_prompt && q->n_prompt > 0 && q->n_max > q->n_prompt);
    q->parked = q->producer = q->refused_at = KV_NONE;
    s->now_ns = now_ns;
    s->here[slot] = true;
    sched_queue_submit(s, slot);
}

void sched_remove(struct sched *s, uint32_t slot, int64_t now_ns)
{
    struct sched_seq *q = sched_seq(s, slot);
    if (q->state == SCHED_IDLE)
        return;
    s->now_ns = now_ns;
    if (q->state == SCHED_WAITING) {
        sched_queue_remove(s, slot, false);
        sched_unhold(s, slot);
    } else if (q->state == SCHED_RUNNING) {
        sched_run_remove(s, slot);
    } else {
        sched_load_end(s, slot);
    }
    if (q->n_had > 0)
        sched_claim(s, slot, false);
    if (q->parked != KV_NONE && !q->parking) /* otherwise the move gives it back */
        kv_prefix_host_give(s->kv, q->parked);
    kv_seq_release(&q->kv, s->kv, now_ns, q->expiry_ns ? q->expiry_ns : now_ns);
    q->state = SCHED_IDLE;
    s->here[slot] = false;
    s->epoch[slot]++;
    s->lease[slot]++;
}

static uint32_t rnd(struct sched *s, uint32_t n)
{
    s->rng = s->rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(s->rng >> 33) % n;
}

/* ---- the plan ---------------------------------------------------------------------------------------------------------- */

/* Those who run and those who wait, merged by rank, until everybody has what he needs or gave way. */
static void settle(struct sched *s)
{
    bool admitting = true;
    uint32_t i = 0, left = SCHED_ADMIT_MAX;
    for (;;) {
        while (i < s->n_run && s->settled[s->run[i]] == s->n_plans)
            i++;
        uint32_t x = admitting ? sched_queue_head(s) : KV_NONE;
        if (x != KV_NONE && (i == s->n_run || sched_before(s, x, s->run[i]))) {
            enum sched_admission a = SCHED_REFUSED;
            if (left > 0 && s->wanted < s->o.max_num_batched_tokens && (!s->o.test_seed || rnd(s, 4)))
                a = sched_admit(s, x);
            admitting = a != SCHED_REFUSED;
            left -= a == SCHED_ADMITTED;
            i = 0; /* the order may be another */
            continue;
        }
        if (i == s->n_run)
            return;
        uint32_t slot = s->run[i], n = s->plan.n_preempted;
        struct sched_seq *q = &s->seqs[slot];
        s->settled[slot] = s->n_plans;
        if (sched_decodes(q) && sched_awaits(q))
            continue;
        if (sched_grow(s, slot))
            s->wanted += q->n_tokens - q->n_computed;
        if (s->plan.n_preempted > n) {
            /* Who was just thrown out would come straight back for the block that was taken from him; unless he was the last,
             * who gave way to one that waits before him: somebody has to run. */
            admitting = s->n_run == 0;
            i = 0;
        }
    }
}

/* Ends on a block's edge where it does not end the prompt, so that whole blocks are committed. */
static uint32_t to_edge(const struct sched_seq *q, uint32_t n)
{
    uint32_t want = q->n_tokens - q->n_computed;
    if (n >= want)
        return want;
    uint32_t over = (q->n_computed + n) % q->kv.block_tokens;
    return over < n ? n - over : n;
}

/* It awaits its last token; or copies hold the block that it needs. */
static bool idles(const struct sched_seq *q)
{
    return sched_decodes(q) &&
           (sched_awaits(q) || kv_seq_blocks_for(q->n_tokens, q->kv.block_tokens) > q->kv.n_blocks);
}

/* Up to n tokens in all; of a prompt what fits under the cap, at least `least`. */
static void give(struct sched *s, uint32_t slot, uint32_t n, uint32_t least)
{
    const struct sched_seq *q = &s->seqs[slot];
    uint32_t have = s->grant[slot], more = n - have;
    if (n <= have)
        return;
    if (more > s->budget_left)
        more = s->budget_left;
    if (!sched_decodes(q)) {
        n = to_edge(q, have + sched_cap_fit(s, q, have, more, least));
        if (s->o.test_seed && rnd(s, 2) && n > have)
            n = have + rnd(s, n - have + 1);
        if (n <= have)
            return;
        more = n - have;
        sched_cap_add(s, q, have, more);
    }
    s->budget_left -= more;
    s->grant[slot] += more;
}

/* A prompt far above somebody who decodes: he waits for it gladly, so its chunk may be large whatever the cap says. */
static bool leads(const struct sched *s, uint32_t slot)
{
    return sched_lead(s, slot) - s->low_ns >= s->o.aging_ns / 2;
}

/* One pass over the running ones; `wanted`: those that a higher one waits for, or the others. */
static void share_least(struct sched *s, bool wanted, bool *first)
{
    uint32_t least = s->o.max_num_batched_tokens / LEAST_SHARE + 1,
             large = s->o.max_num_batched_tokens / FIRST_SHARE + 1;
    for (uint32_t i = 0; i < s->n_run; i++) {
        uint32_t slot = s->run[i];
        const struct sched_seq *q = &s->seqs[slot];
        if ((s->wanted_by[slot] == s->n_plans) != wanted || idles(q))
            continue;
        if (sched_decodes(q)) {
            bool yields = s->yielded == s->n_plans && q->lead_ns <= s->yield_ns;
            if (!yields && (!s->o.test_seed || i == 0 || rnd(s, 8)))
                give(s, slot, 1, 0);
        } else if (s->o.priorities) {
            uint32_t want = q->n_tokens - q->n_computed,
                     n = *first && (wanted || leads(s, slot)) ? large : least;
            n = n < want ? n : want;
            if (*first)
                sched_cap_yield(s, slot, n);
            give(s, slot, n, *first ? n : 0);
            *first = false;
        }
    }
}

static void share_rest(struct sched *s, bool wanted, bool *first)
{
    for (uint32_t i = 0; i < s->n_run && s->budget_left > 0; i++) {
        uint32_t slot = s->run[i];
        const struct sched_seq *q = &s->seqs[slot];
        if (sched_decodes(q) || (s->wanted_by[slot] == s->n_plans) != wanted)
            continue;
        give(s, slot, q->n_tokens - q->n_computed,
             *first ? s->o.max_num_batched_tokens / LEAST_SHARE + 1 : 0);
        *first = false;
    }
}

static void put_rows(struct sched *s, bool decode)
{
    for (uint32_t i = 0; i < s->n_run; i++) {
        uint32_t slot = s->run[i], n = s->grant[slot];
        const struct sched_seq *q = &s->seqs[slot];
        if (n == 0 || sched_decodes(q) != decode)
            continue;
        s->rows[s->plan.n_rows++] = (struct sched_row){
            slot, q->n_computed, n, s->epoch[slot], s->lease[slot], q->n_computed + n == q->n_tokens};
        s->plan.n_tokens += n;
    }
}

/* What production does rarely, now and then at random. Production never takes from the first by rank, which is why everyone
 * ends; here anyone may be hit, so preemptions grow rarer: a long prompt in chunks of one token still gets through. */
static void disturb(struct sched *s)
{
    if (rnd(s, 8) == 0)
        kv_prefix_evict(s->kv, rnd(s, 8));
    if (s->n_run > 0 && rnd(s, 12 + s->n_disturbed) == 0) {
        uint32_t slot = s->run[rnd(s, s->n_run)];
        sched_preempt(s, slot, slot, SCHED_GROWTH);
        if (rnd(s, 2))
            sched_release(s, slot);
        s->n_disturbed++;
    }
}

const struct sched_plan *sched_plan(struct sched *s, int64_t now_ns)
{
    bool first = true;
    s->plan = (struct sched_plan){
        .rows = s->rows, .admitted = s->admitted, .preempted = s->preempted, .moves = s->moves};
    s->now_ns = now_ns;
    s->n_plans++;
    s->n_aside = 0;
    s->wanted = 0;
    s->budget_left = s->o.max_num_batched_tokens;
    kv_prefix_set_time(s->kv, now_ns);
    if (s->o.test_seed)
        disturb(s);
    settle(s);
    for (uint32_t i = 0; i < s->n_aside; i++)
        sched_queue_alone(s, s->aside[i]);
    for (uint32_t i = 0; i < s->n_run; i++)
        s->grant[s->run[i]] = 0;
    sched_cap_begin(s);
    share_least(s, true, &first);
    share_least(s, false, &first);
    share_rest(s, true, &first);
    share_rest(s, false, &first);
    put_rows(s, true);
    put_rows(s, false);
    s->plan.load = s->load;
    sched_save_some(s);
    return &s->plan;
}

/* ---- steps --------------------------------------------------------------------------------------------------------------- */

void sched_launch(struct sched *s, const struct sched_row *row)
{
    struct sched_seq *q = sched_seq(s, row->slot);
    assert(sched_row_live(s, row) && q->state == SCHED_RUNNING && q->n_computed == row->start);
    q->n_computed += row->n;
    if (!row->sample)
        return;
    assert(q->n_computed == q->n_tokens && q->n_tokens < q->n_max);
    q->n_tokens++;
    q->n_pending++;
}

bool sched_row_live(const struct sched *s, const struct sched_row *row)
{
    return s->epoch[row->slot] == row->epoch;
}

void sched_commit(struct sched *s, const struct sched_row *row)
{
    struct sched_seq *q = sched_seq(s, row->slot);
    uint32_t n = row->start + row->n;
    assert(sched_row_live(s, row) && n <= q->n_tokens - q->n_pending);
    if (s->lease[row->slot] == row->lease)
        kv_seq_commit(&q->kv, s->kv, n);
}

void sched_append(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = sched_seq(s, slot);
    assert(q->n_pending > 0);
    q->n_pending--;
}

/* ---- what others ask --------------------------------------------------------------------------------------------------- */

uint32_t sched_waiting(const struct sched *s)
{
    return s->n_waiting + s->n_loading;
}

uint32_t sched_running(const struct sched *s)
{
    return s->n_run;
}

uint32_t sched_moving(const struct sched *s)
{
    return s->n_moving;
}

uint32_t sched_running_slot(const struct sched *s, uint32_t i)
{
    assert(i < s->n_run);
    return s->run[i];
}

uint32_t sched_waiting_head(const struct sched *s)
{
    return sched_queue_head(s);
}

const struct sched_counters *sched_counters(const struct sched *s)
{
    return &s->counters;
}

bool sched_check(const struct sched *s, const char **why)
{
    if (!kv_prefix_check(s->kv, why) || !sched_queue_check(s, why))
        return false;
    for (uint32_t i = 0; i < s->n_run; i++) {
        const struct sched_seq *q = &s->seqs[s->run[i]];
        *why = "the running array is broken or out of order";
        if (q->state != SCHED_RUNNING || q->holds || (i && sched_before(s, s->run[i], s->run[i - 1])))
            return false;
        *why = "a running sequence has more positions than tokens or blocks";
        if (q->n_computed > q->n_tokens || q->n_tokens > q->n_max ||
            q->n_pending > q->n_tokens - q->n_prompt ||
            kv_seq_blocks_for(q->n_computed, q->kv.block_tokens) > q->kv.n_blocks)
            return false;
    }
    uint32_t n_loading = 0;
    for (uint32_t i = 0; i < s->o.n_slots; i++)
        n_loading += s->here[i] && s->seqs[i].state == SCHED_LOADING;
    *why = "loading ones are miscounted";
    return n_loading == s->n_loading;
}
