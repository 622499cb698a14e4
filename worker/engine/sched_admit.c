/* Admission of the head of the queue: it gets a place to run, or its blocks from the host tier first, or it is set aside, or it
 * is refused, and then nobody behind it is looked at in this plan.
 *
 * A prompt takes all its blocks at admission, so a prefill never stops half way; a decode takes one block each time it crosses a
 * boundary. Admission counts what the request is expected to need to its end, and what those of its rank and above still will
 * (sched_take.c), so that the newcomer is not thrown out again at the next boundary.
 *
 * Prompts that share a prefix not yet computed (n choices of one prompt, a system prompt after a restart): the first one
 * computes it, the others are set aside and then match. If one of them ranks higher than the first, the first one's chunk is
 * planned before all others. In the same way one loads a shared prefix from the host tier, and the others wait for those copies:
 * their own would have come behind them.
 *
 * A head that does not fit is asked again in every plan: what can be known without matching its prompt again is looked at
 * first.
 *
 * Rejected: admitting a small request past a head that does not fit (starves the head). */
#include "sched_state.h"

enum {
    HOLD_BLOCKS = 4, /* a shared run shorter than this is computed or loaded twice rather than waited for */
    LATENCY_WAITS = 20, /* hundredths of sensitivity up to which a request may wait for company */
    RANK_WAITS = 5      /* below which */
};

static enum sched_admission set_aside(struct sched *s, uint32_t slot)
{
    if (s->n_aside == SCHED_ASIDE_MAX)
        return SCHED_REFUSED;
    sched_queue_remove(s, slot, true);
    s->aside[s->n_aside++] = slot;
    return SCHED_SET_ASIDE;
}

/* A producer that ranks lower than one who waits for it computes before those between them. */
static enum sched_admission wait_for_producer(struct sched *s, uint32_t slot)
{
    uint32_t producer = s->seqs[slot].producer;
    if (sched_before(s, slot, producer))
        s->wanted_by[producer] = s->n_plans;
    return set_aside(s, slot);
}

static bool still_computes(const struct sched *s, const struct sched_seq *q)
{
    const struct sched_seq *r = &s->seqs[q->producer];
    return s->epoch[q->producer] == q->producer_epoch && r->state == q->producer_state &&
           r->kv.n_full < q->producer_blocks;
}

/* Does r bring the blocks of q up to this one, of which the cache has the first n_matched? An identity covers all tokens before
 * it, so one comparison a few blocks ahead decides for the whole run. */
static bool brings(const struct sched_seq *r, const struct sched_seq *q, uint32_t n_matched, uint32_t at)
{
    return !r->kv.apart && r->kv.n_full <= n_matched && at < r->kv.n_ids &&
           kv_id_eq(&r->kv.ids[at], &q->kv.ids[at]);
}

static bool wait_for(const struct sched *s, struct sched_seq *q, uint32_t producer, uint32_t at)
{
    q->producer = producer;
    q->producer_epoch = s->epoch[producer];
    q->producer_state = s->seqs[producer].state;
    q->producer_blocks = at + 1;
    return true;
}

/* Are the blocks that `q` would load next on their way already? */
static bool find_loader(const struct sched *s, struct sched_seq *q, uint32_t n_matched, uint32_t n_host)
{
    uint32_t at = n_matched + HOLD_BLOCKS - 1;
    if (n_host < HOLD_BLOCKS)
        return false;
    for (uint32_t i = 0; i < s->n_loading; i++) {
        const struct sched_seq *r = &s->seqs[s->loading[i]];
        if (at < r->load_end / r->kv.block_tokens && brings(r, q, n_matched, at))
            return wait_for(s, q, s->loading[i], at);
    }
    return false;
}

/* Is a running prompt computing the blocks that come next for `q`, or about to? Then waiting is cheaper than doing it twice. */
static bool find_producer(const struct sched *s, struct sched_seq *q, uint32_t n_matched)
{
    uint32_t at = n_matched + HOLD_BLOCKS - 1;
    if (!q->kv.ids || at >= q->kv.n_ids || (at + 1) * q->kv.block_tokens >= q->n_tokens)
        return false;
    for (uint32_t i = 0; i < s->n_run; i++)
        if (brings(&s->seqs[s->run[i]], q, n_matched, at))
            return wait_for(s, q, s->run[i], at);
    return false;
}

/* Somebody decodes whom it may wait for, and it has not waited long. */
static bool waits_for_company(const struct sched *s, const struct sched_seq *q)
{
    if (!s->o.priorities || q->latency > LATENCY_WAITS || q->rank >= RANK_WAITS || q->n_preempted ||
        s->n_run == 0)
        return false;
    int64_t most = s->o.batch_wait_ns * (LATENCY_WAITS - q->latency) / LATENCY_WAITS;
    return s->now_ns - q->arrival_ns < most && sched_decodes(&s->seqs[s->run[0]]);
}

static void run(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = &s->seqs[slot];
    uint32_t had = q->n_had ? q->n_had : q->n_computed;
    if (q->n_preempted > 0) {
        s->counters.resumed[q->cls] += had < q->n_computed ? had : q->n_computed;
        s->counters.recomputed[q->cls] += had < q->n_computed ? 0 : had - q->n_computed;
    }
    if (sched_queue_higher(s, q->rank))
        s->counters.aged_ahead[q->cls]++;
    q->n_had = q->n_saved = 0;
    sched_unhold(s, slot);
    sched_queue_remove(s, slot, true);
    sched_run_insert(s, slot);
    s->settled[slot] = s->n_plans;
    s->wanted += q->n_tokens - q->n_computed;
    s->admitted[s->plan.n_admitted++] = slot;
}

/* It has its blocks: it needs a place, and perhaps the block of a token that was drawn meanwhile. */
static enum sched_admission admit_holder(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = &s->seqs[slot];
    uint32_t blocks = kv_seq_blocks_for(q->n_tokens, q->kv.block_tokens);
    uint32_t need = blocks > q->kv.n_blocks ? blocks - q->kv.n_blocks : 0;
    if (!sched_obtain(s, slot, need, need, true))
        return SCHED_REFUSED;
    sched_extend(s, slot);
    run(s, slot);
    return SCHED_ADMITTED;
}

/* Blocks that it will have needed at its expected end, as far as it can have them at all. */
static uint32_t expected_blocks(const struct sched *s, const struct sched_seq *q)
{
    uint64_t end = (uint64_t)q->n_prompt + q->n_expect;
    end = end < q->n_tokens ? q->n_tokens : end > q->n_max ? q->n_max : end;
    uint32_t blocks = kv_seq_blocks_for((uint32_t)end, q->kv.block_tokens),
             all = kv_pool_total(kv_prefix_pool(s->kv));
    return blocks < all ? blocks : all;
}

/* After the match: what of the rest is to be had from the host tier. Returns the positions that are then valid. */
static uint32_t find_in_host(struct sched *s, struct sched_seq *q, uint32_t *n_host, bool *parked)
{
    uint32_t bt = q->kv.block_tokens, cap = kv_pool_total(kv_prefix_pool(s->kv));
    *n_host = s->cap_moves - s->plan.n_moves > cap
                  ? kv_seq_host_run(&q->kv, s->kv, q->n_tokens - 1, s->hosts, cap)
                  : 0;
    uint32_t full = (q->kv.n_full + *n_host) * bt;
    *parked = q->parked != KV_NONE && s->cap_moves - s->plan.n_moves > cap && full < q->n_had &&
              q->n_had <= full + bt;
    return *parked ? q->n_had : full;
}

static void drop_parked(struct sched *s, struct sched_seq *q)
{
    if (q->parked != KV_NONE)
        kv_prefix_host_give(s->kv, q->parked);
    q->parked = KV_NONE;
}

/* Is the answer still no? Without matching its prompt again: nobody gives way, and the match, if it has not grown, leaves more to
 * be found than there is. */
static bool still_too_large(struct sched *s, uint32_t slot)
{
    const struct sched_seq *q = &s->seqs[slot];
    uint32_t at = q->refused_at;
    if (s->n_run == s->o.max_num_seqs) {
        s->stamp++;
        return sched_pick_runner(s, slot) == KV_NONE;
    }
    if (at == KV_NONE || (at < q->kv.n_ids && kv_prefix_find(s->kv, &q->kv.ids[at]) != KV_NONE))
        return false;
    s->stamp++;
    uint64_t need = kv_seq_blocks_for(q->n_tokens, q->kv.block_tokens), all = expected_blocks(s, q);
    return sched_pick_any(s, slot) == KV_NONE &&
           (need - at > kv_prefix_available(s->kv) ||
            all - at + sched_promised(s, slot) > kv_prefix_available(s->kv));
}

/* It was matched in vain. */
static void let_go_again(struct sched *s, uint32_t slot)
{
    kv_seq_release(&s->seqs[slot].kv, s->kv, s->now_ns, s->now_ns);
    sched_claim(s, slot, true); /* of what it had, if it ran before: the match ended it */
}

static enum sched_admission admit_fresh(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = &s->seqs[slot];
    uint32_t n_host, bt = q->kv.block_tokens;
    bool parked;
    if (still_too_large(s, slot))
        return SCHED_REFUSED;
    kv_seq_match(&q->kv, s->kv, q->n_tokens - 1);
    uint32_t valid = find_in_host(s, q, &n_host, &parked), held = q->kv.n_blocks;
    if (find_loader(s, q, held, n_host) || find_producer(s, q, held + n_host)) {
        s->counters.held[q->cls]++;
        let_go_again(s, slot);
        return wait_for_producer(s, slot);
    }
    uint32_t need = kv_seq_blocks_for(q->n_tokens, bt) - held, reserve = expected_blocks(s, q) - held;
    bool loads = n_host > 0 || parked;
    for (uint32_t i = 0; i < n_host; i++) /* what victims save must not go where we load from */
        kv_prefix_host_pin(s->kv, s->hosts[i]);
    if (!sched_obtain(s, slot, need, reserve, !loads)) {
        for (uint32_t i = 0; i < n_host; i++)
            kv_prefix_host_unpin(s->kv, s->hosts[i]);
        q->refused_at = held;
        let_go_again(s, slot);
        return SCHED_REFUSED;
    }
    sched_extend(s, slot);
    q->n_matched = valid;
    q->load_end = valid;
    q->n_computed = q->kv.n_full * bt;
    if (!parked)
        drop_parked(s, q);
    if (!loads) {
        run(s, slot);
        return SCHED_ADMITTED;
    }
    sched_queue_remove(s, slot, true);
    q->alone = true;
    sched_load(s, slot, s->hosts, n_host, parked);
    return SCHED_ADMITTED;
}

enum sched_admission sched_admit(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = &s->seqs[slot];
    if (sched_awaits(q))
        return set_aside(s, slot);
    if (q->holds)
        return admit_holder(s, slot);
    if (q->producer != KV_NONE && still_computes(s, q))
        return wait_for_producer(s, slot);
    q->producer = KV_NONE;
    if (q->parking || waits_for_company(s, q))
        return set_aside(s, slot);
    return admit_fresh(s, slot);
}
