/* One pass over the running sequences gives every decoding one its row, a second gives prompts what is left of the budget,
 * then the queue is admitted from its head while slots, budget and blocks last.
 *
 * Blocks. A prompt takes all its blocks at admission, so a prefill never stops half way; a decode takes one block each time
 * it crosses a boundary. When none can be had, the youngest running sequence is preempted by recompute: its full blocks stay
 * cached, and it waits where its arrival puts it, before everybody who came later. Admission leaves one block per running
 * sequence free, so that the newcomer is not thrown out again at the next boundary.
 *
 * Why it ends: rows are planned oldest first and victims are taken youngest first, so the oldest is never a victim as long as
 * it fits alone, which submit has checked. Nothing already planned is unwound, because victims stand behind the taker.
 *
 * Prompts that share a prefix not yet computed (n choices of one prompt, a system prompt after a restart): the first one
 * computes it, the others wait for it and then match.
 *
 * Steps under way. Planning looks at n_tokens and n_computed, which run ahead of the device; the index sees only what has
 * completed. A sequence that leaves RUNNING, by its end or by preemption, lets its blocks go at once although a launched step
 * may still write to them: whoever takes them writes in a step launched later, and steps run in the order of their launch. What
 * that step wrote is never indexed, for its row is stale: the slot's epoch has moved on. A preempted sequence forgets its
 * pending token with it; the token is drawn again, equal bit for bit, because a draw depends on the sequence alone.
 *
 * Rejected: swapping blocks out on preemption (there is no lower tier yet; full blocks survive in the cache anyway);
 * admitting a small request past a head that does not fit (starves the head); keeping the epoch in the sequence's record (the
 * record is the submitting thread's between two requests, while a stale row of the first may still be under way). */
#include "scheduler.h"

#include "mem.h"

#include <assert.h>
#include <string.h>

enum { HOLD_BLOCKS = 4 }; /* a shared run shorter than this is computed twice rather than waited for */

struct sched {
    struct sched_options o;
    struct kv_prefix *kv;
    struct sched_seq *seqs; /* [n_slots] */
    uint32_t *epoch;        /* [n_slots] rises whenever the slot leaves RUNNING */
    uint32_t *run;          /* [max_num_seqs] slots by order */
    uint32_t *admitted;     /* [max_num_seqs] */
    struct sched_row *rows; /* [max_num_seqs] */
    uint32_t n_run, n_waiting, head, tail;
    uint64_t next_order, rng;
    uint32_t n_disturbed; /* random preemptions so far */
    uint32_t budget_left; /* while planning */
    struct sched_plan plan;
};

int sched_create(struct sched **out, const struct sched_options *o, struct kv_prefix *kv, struct err *e)
{
    if (o->max_num_seqs == 0 || o->max_num_seqs > o->n_slots)
        return err_set(e, ST_EINVAL, "max-num-seqs %u: 1 to %u", o->max_num_seqs, o->n_slots);
    if (o->max_num_batched_tokens < o->max_num_seqs)
        return err_set(e, ST_EINVAL, "max-num-batched-tokens %u is below max-num-seqs %u",
                       o->max_num_batched_tokens, o->max_num_seqs);
    struct sched *s = mem_zalloc(1, sizeof *s);
    if (!s)
        return err_set(e, ST_ENOMEM, "scheduler: no memory");
    s->o = *o;
    s->kv = kv;
    s->rng = o->test_seed;
    s->head = s->tail = KV_NONE;
    s->seqs = mem_zalloc(o->n_slots, sizeof *s->seqs);
    s->epoch = mem_zalloc(o->n_slots, sizeof *s->epoch);
    s->run = mem_zalloc(o->max_num_seqs, sizeof *s->run);
    s->admitted = mem_zalloc(o->max_num_seqs, sizeof *s->admitted);
    s->rows = mem_zalloc(o->max_num_seqs, sizeof *s->rows);
    if (!s->seqs || !s->epoch || !s->run || !s->admitted || !s->rows) {
        sched_destroy(s);
        return err_set(e, ST_ENOMEM, "scheduler: no memory for %u slots", o->n_slots);
    }
    *out = s;
    return ST_OK;
}

void sched_destroy(struct sched *s)
{
    if (!s)
        return;
    mem_free(s->seqs);
    mem_free(s->epoch);
    mem_free(s->run);
    mem_free(s->admitted);
    mem_free(s->rows);
    mem_free(s);
}

struct sched_seq *sched_seq(struct sched *s, uint32_t slot)
{
    assert(slot < s->o.n_slots);
    return &s->seqs[slot];
}

/* ---- the waiting list, in order of arrival -------------------------------------------------------------------------- */

/* From the tail for newcomers, from the head for preempted ones: both are near their end. */
static void wait_insert(struct sched *s, uint32_t slot, bool from_head)
{
    struct sched_seq *q = &s->seqs[slot];
    uint32_t next = KV_NONE, prev = s->tail;
    if (from_head) {
        for (next = s->head; next != KV_NONE && s->seqs[next].order < q->order; next = s->seqs[next].next)
            ;
        prev = next == KV_NONE ? s->tail : s->seqs[next].prev;
    }
    q->prev = prev;
    q->next = next;
    if (prev == KV_NONE)
        s->head = slot;
    else
        s->seqs[prev].next = slot;
    if (next == KV_NONE)
        s->tail = slot;
    else
        s->seqs[next].prev = slot;
    q->state = SCHED_WAITING;
    s->n_waiting++;
}

static void wait_remove(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = &s->seqs[slot];
    if (q->prev == KV_NONE)
        s->head = q->next;
    else
        s->seqs[q->prev].next = q->next;
    if (q->next == KV_NONE)
        s->tail = q->prev;
    else
        s->seqs[q->next].prev = q->prev;
    s->n_waiting--;
}

/* ---- the running array, in order of arrival ------------------------------------------------------------------------- */

static void run_insert(struct sched *s, uint32_t slot)
{
    uint32_t i = s->n_run++;
    for (; i > 0 && s->seqs[s->run[i - 1]].order > s->seqs[slot].order; i--)
        s->run[i] = s->run[i - 1];
    s->run[i] = slot;
    s->seqs[slot].state = SCHED_RUNNING;
}

/* Its blocks are free at once and its rows under way stale: the head of this file says why that is safe. */
static void run_remove(struct sched *s, uint32_t slot)
{
    uint32_t i = 0;
    while (s->run[i] != slot)
        i++;
    s->n_run--;
    memmove(s->run + i, s->run + i + 1, (s->n_run - i) * sizeof *s->run);
    kv_seq_release(&s->seqs[slot].kv, s->kv, 0, 0);
    s->epoch[slot]++;
}

void sched_submit(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = sched_seq(s, slot);
    assert(q->state == SCHED_IDLE && q->n_tokens == q->n_prompt && q->n_prompt > 0 && q->n_max > q->n_prompt);
    q->order = s->next_order++;
    wait_insert(s, slot, false);
}

void sched_remove(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = sched_seq(s, slot);
    if (q->state == SCHED_WAITING) {
        wait_remove(s, slot);
    } else if (q->state == SCHED_RUNNING) {
        run_remove(s, slot);
    }
    q->state = SCHED_IDLE;
}

static void preempt(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = &s->seqs[slot];
    run_remove(s, slot);
    q->n_tokens -= q->n_pending;
    q->n_pending = q->n_computed = 0;
    q->n_preempted++;
    wait_insert(s, slot, true);
    s->plan.n_preempted++;
}

/* ---- the plan ------------------------------------------------------------------------------------------------------- */

static uint32_t rnd(struct sched *s, uint32_t n)
{
    s->rng = s->rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(s->rng >> 33) % n;
}

static void give(struct sched *s, uint32_t slot, uint32_t n)
{
    const struct sched_seq *q = &s->seqs[slot];
    struct sched_row *row = &s->rows[s->plan.n_rows++];
    *row = (struct sched_row){slot, q->n_computed, n, s->epoch[slot], q->n_computed + n == q->n_tokens};
    s->plan.n_tokens += n;
    s->budget_left -= n;
}

static bool decodes(const struct sched_seq *q)
{
    return q->n_tokens > q->n_prompt && q->n_tokens - q->n_computed == 1;
}

/* Every decoding sequence gets one row and, at a block's edge, a block: taken from the youngest if need be. A sequence whose
 * last token is pending has nothing more to feed. */
static void plan_decodes(struct sched *s)
{
    for (uint32_t i = 0; i < s->n_run; i++) {
        uint32_t slot = s->run[i];
        struct sched_seq *q = &s->seqs[slot];
        if (!decodes(q) || q->n_tokens == q->n_max || (s->o.test_seed && i > 0 && rnd(s, 8) == 0))
            continue;
        while (i < s->n_run && kv_seq_extend(&q->kv, s->kv, q->n_tokens) != ST_OK)
            preempt(s, s->run[s->n_run - 1]);
        if (i < s->n_run)
            give(s, slot, 1);
    }
}

/* The next chunk of a prompt (or of what a preempted sequence has to compute again). Ends on a block's edge where it does not
 * end the prompt, so that whole blocks are committed. */
static void plan_chunk(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = &s->seqs[slot];
    uint32_t want = q->n_tokens - q->n_computed, n = want;
    if (n > s->budget_left)
        n = s->budget_left;
    if (s->o.test_seed && rnd(s, 2))
        n = n ? 1 + rnd(s, n) : 0;
    else if (n < want) {
        uint32_t over = (q->n_computed + n) % q->kv.block_tokens;
        if (over < n)
            n -= over;
    }
    if (n > 0)
        give(s, slot, n);
}

/* Is a running prompt computing the blocks that come next for `q`, or about to? Then waiting is cheaper than doing it twice:
 * the budget goes to that prompt meanwhile, and nobody behind `q` may overtake it anyway. An identity covers all tokens
 * before it, so one comparison a few blocks ahead decides for the whole run. The producer runs, hence ends, so the wait does. */
static bool being_computed(const struct sched *s, const struct sched_seq *q)
{
    uint32_t at = q->kv.n_blocks + HOLD_BLOCKS - 1;
    if (!q->kv.ids || at >= q->kv.n_ids || (at + 1) * q->kv.block_tokens >= q->n_tokens)
        return false;
    for (uint32_t i = 0; i < s->n_run; i++) {
        const struct sched_seq *r = &s->seqs[s->run[i]];
        if (!r->kv.apart && r->kv.n_full <= q->kv.n_blocks && at < r->kv.n_ids &&
            kv_id_eq(&r->kv.ids[at], &q->kv.ids[at]))
            return true;
    }
    return false;
}

/* Blocks for all known tokens of the head, with one block per running sequence left over. */
static bool admit_head(struct sched *s)
{
    uint32_t slot = s->head;
    struct sched_seq *q = &s->seqs[slot];
    uint32_t matched = kv_seq_match(&q->kv, s->kv, q->n_tokens - 1);
    uint32_t need = kv_seq_blocks_for(q->n_tokens, q->kv.block_tokens) - q->kv.n_blocks;
    if ((uint64_t)need + s->n_run > kv_prefix_available(s->kv) || being_computed(s, q)) {
        kv_seq_release(&q->kv, s->kv, 0, 0);
        return false;
    }
    int rc = kv_seq_extend(&q->kv, s->kv, q->n_tokens);
    assert(rc == ST_OK);
    (void)rc;
    q->n_computed = q->n_matched = matched;
    wait_remove(s, slot);
    run_insert(s, slot);
    s->admitted[s->plan.n_admitted++] = slot;
    return true;
}

/* What production does rarely, now and then at random. Production never preempts the oldest, which is why everyone ends; here
 * anyone may be hit, so preemptions grow rarer: a long prompt in chunks of one token still gets through. */
static void disturb(struct sched *s)
{
    if (rnd(s, 8) == 0)
        kv_prefix_evict(s->kv, rnd(s, 8));
    if (s->n_run > 0 && rnd(s, 12 + s->n_disturbed) == 0) {
        preempt(s, s->run[rnd(s, s->n_run)]);
        s->n_disturbed++;
    }
}

const struct sched_plan *sched_plan(struct sched *s)
{
    s->plan = (struct sched_plan){.rows = s->rows, .admitted = s->admitted};
    s->budget_left = s->o.max_num_batched_tokens;
    if (s->o.test_seed)
        disturb(s);
    plan_decodes(s);
    for (uint32_t i = 0; i < s->n_run; i++)
        if (!decodes(&s->seqs[s->run[i]]))
            plan_chunk(s, s->run[i]);
    /* Who was just thrown out would come straight back for the block that was taken from it. */
    while (s->plan.n_preempted == 0 && s->head != KV_NONE && s->n_run < s->o.max_num_seqs &&
           s->budget_left > 0) {
        uint32_t slot = s->head;
        if ((s->o.test_seed && rnd(s, 4) == 0) || !admit_head(s))
            break;
        plan_chunk(s, slot);
    }
    return &s->plan;
}

void sched_launch(struct sched *s, const struct sched_row *row)
{
    struct sched_seq *q = sched_seq(s, row->slot);
    assert(sched_row_live(s, row) && q->n_computed == row->start);
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
    kv_seq_commit(&q->kv, s->kv, n);
}

void sched_append(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = sched_seq(s, slot);
    assert(q->n_pending > 0);
    q->n_pending--;
}

uint32_t sched_waiting(const struct sched *s)
{
    return s->n_waiting;
}

uint32_t sched_running(const struct sched *s)
{
    return s->n_run;
}

uint32_t sched_running_slot(const struct sched *s, uint32_t i)
{
    assert(i < s->n_run);
    return s->run[i];
}

uint32_t sched_waiting_head(const struct sched *s)
{
    return s->head;
}

bool sched_check(const struct sched *s, const char **why)
{
    if (!kv_prefix_check(s->kv, why))
        return false;
    uint32_t n = 0, prev = KV_NONE;
    *why = "the waiting list is broken or out of order";
    for (uint32_t i = s->head; i != KV_NONE; prev = i, i = s->seqs[i].next, n++) {
        const struct sched_seq *q = &s->seqs[i];
        if (q->state != SCHED_WAITING || q->prev != prev || q->kv.n_blocks != 0 || q->n_pending != 0 ||
            n >= s->n_waiting || (prev != KV_NONE && s->seqs[prev].order >= q->order))
            return false;
    }
    if (n != s->n_waiting || prev != s->tail)
        return false;
    for (uint32_t i = 0; i < s->n_run; i++) {
        const struct sched_seq *q = &s->seqs[s->run[i]];
        *why = "the running array is broken or out of order";
        if (q->state != SCHED_RUNNING || (i && s->seqs[s->run[i - 1]].order >= q->order))
            return false;
        *why = "a running sequence has more positions than tokens or blocks";
        if (q->n_computed > q->n_tokens || q->n_tokens > q->n_max ||
            q->n_pending > q->n_tokens - q->n_prompt ||
            kv_seq_blocks_for(q->n_computed, q->kv.block_tokens) > q->kv.n_blocks)
            return false;
    }
    return true;
}
