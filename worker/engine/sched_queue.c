/* Who waits, and who is first. Requests of one rank that never ran stand in a chain, in order of arrival; its head stands in the
 * heap, beside those who wait alone: preempted, loaded or set aside ones. The key of the heap is `since`: a request that has
 * waited as long as one of no priority since that moment. All leads grow alike while their owners wait, so the order in the
 * heap never changes with time, and nothing is ever sorted again.
 *
 *   lead(now) = points * aging + waited = now - since
 *
 * Only heads age. Were the age counted from arrival, a backlog of low priority 300 s long would go before a fresh request that
 * is ten points above it; what bounds anybody's wait is that each head in turn grows past all that come later. When a head
 * goes on, the next one's age begins; when it gives up, the next one inherits its age, or cancelling would cost those behind.
 *
 * A preempted request goes before equals that never ran (a quarter of a point for each of up to three times), but it does not
 * take anything from anybody for that: sched_may_take looks at the lead alone.
 *
 * Rejected: priorities as buckets that recency never crosses (starves); keys that are recomputed (cost, and an order that
 * depends on when it was looked at); an age from arrival spaced by an estimated rate (inverts as soon as the rate is wrong). */
#include "sched_state.h"

#include "mem.h"

#include <assert.h>

enum { BONUS_MAX = 3, IMMUNE_PLANS = 8 };

static int64_t points(const struct sched *s, const struct sched_seq *q)
{
    return s->o.aging_ns * q->rank + s->o.aging_ns * q->latency / (2 * SCHED_LATENCY_MAX);
}

int sched_queue_init(struct sched *s, struct err *e)
{
    uint32_t ranks = (SCHED_STRICT_MAX + 1) * (2 * s->o.priority_clamp + 1);
    s->n_chains = s->o.priorities ? 2 * ranks : 1;
    s->chains = mem_zalloc(s->n_chains, sizeof *s->chains);
    s->chain_bits = mem_zalloc(s->n_chains / 64 + 1, sizeof *s->chain_bits);
    s->held = mem_zalloc(s->o.n_slots, sizeof *s->held);
    if (!s->chains || !s->chain_bits || !s->held)
        return err_set(e, ST_ENOMEM, "scheduler: no memory for %u chains", s->n_chains);
    for (uint32_t i = 0; i < s->n_chains; i++)
        s->chains[i].head = s->chains[i].tail = KV_NONE;
    return heap_create(&s->heap, s->o.n_slots, e);
}

void sched_queue_fini(struct sched *s)
{
    mem_free(s->chains);
    mem_free(s->chain_bits);
    mem_free(s->held);
    heap_destroy(s->heap);
}

static uint32_t chain_of(const struct sched *s, const struct sched_seq *q)
{
    if (!s->o.priorities)
        return 0;
    bool fast = q->latency >= SCHED_FAST;
    return 2 * (uint32_t)(q->rank + (int32_t)s->o.priority_clamp) + fast;
}

static void heap_add(struct sched *s, uint32_t slot)
{
    const struct sched_seq *q = &s->seqs[slot];
    int64_t bonus = q->n_preempted < BONUS_MAX ? q->n_preempted : BONUS_MAX;
    heap_push(s->heap, slot, s->o.priorities ? q->since_ns - bonus * s->o.aging_ns / 4 : 0, q->order);
}

/* It is the first of its chain from `from_ns` on. */
static void become_head(struct sched *s, uint32_t slot, int64_t from_ns)
{
    struct sched_seq *q = &s->seqs[slot];
    q->since_ns = (q->arrival_ns > from_ns ? q->arrival_ns : from_ns) - points(s, q);
    heap_add(s, slot);
}

void sched_queue_submit(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = &s->seqs[slot];
    int32_t clamp = (int32_t)s->o.priority_clamp;
    q->rank = 0;
    if (s->o.priorities) {
        int32_t p = q->priority < -clamp ? -clamp : q->priority > clamp ? clamp : q->priority;
        q->rank =
            p + (2 * clamp + 1) * (int32_t)(q->strict < SCHED_STRICT_MAX ? q->strict : SCHED_STRICT_MAX);
    }
    q->order = s->next_order++;
    q->alone = false;
    q->state = SCHED_WAITING;
    s->n_waiting++;
    uint32_t at = chain_of(s, q);
    struct sched_chain *c = &s->chains[at];
    q->prev = c->tail;
    q->next = KV_NONE;
    if (c->tail != KV_NONE) {
        s->seqs[c->tail].next = slot;
        c->tail = slot;
        return;
    }
    c->head = c->tail = slot;
    s->chain_bits[at / 64] |= UINT64_C(1) << at % 64;
    become_head(s, slot, q->arrival_ns);
}

void sched_queue_alone(struct sched *s, uint32_t slot)
{
    struct sched_seq *q = &s->seqs[slot];
    q->alone = true;
    q->state = SCHED_WAITING;
    s->n_waiting++;
    heap_add(s, slot);
}

static void chain_remove(struct sched *s, uint32_t slot, bool left)
{
    struct sched_seq *q = &s->seqs[slot];
    uint32_t at = chain_of(s, q);
    struct sched_chain *c = &s->chains[at];
    if (q->next == KV_NONE)
        c->tail = q->prev;
    else
        s->seqs[q->next].prev = q->prev;
    if (q->prev != KV_NONE) {
        s->seqs[q->prev].next = q->next;
        return;
    }
    heap_remove(s->heap, slot);
    c->head = q->next;
    if (c->head == KV_NONE)
        s->chain_bits[at / 64] &= ~(UINT64_C(1) << at % 64);
    else
        become_head(s, c->head, left ? s->now_ns : q->since_ns + points(s, q));
}

void sched_queue_remove(struct sched *s, uint32_t slot, bool left)
{
    struct sched_seq *q = &s->seqs[slot];
    assert(q->state == SCHED_WAITING);
    if (q->alone)
        heap_remove(s->heap, slot);
    else
        chain_remove(s, slot, left);
    s->n_waiting--;
}

uint32_t sched_queue_head(const struct sched *s)
{
    return heap_peek(s->heap); /* KV_NONE is HEAP_NONE */
}

int64_t sched_lead(const struct sched *s, uint32_t slot)
{
    const struct sched_seq *q = &s->seqs[slot];
    if (!s->o.priorities)
        return 0;
    return q->state == SCHED_RUNNING ? q->lead_ns : s->now_ns - q->since_ns;
}

bool sched_before(const struct sched *s, uint32_t a, uint32_t b)
{
    int64_t la = sched_lead(s, a), lb = sched_lead(s, b);
    return la != lb ? la > lb : s->seqs[a].order < s->seqs[b].order;
}

/* Who just started is left alone by all but those far above it: or two requests would take turns at every step. */
bool sched_may_take(const struct sched *s, uint32_t x, uint32_t v)
{
    const struct sched_seq *q = &s->seqs[v];
    if (!s->o.priorities)
        return false;
    int64_t gap = sched_lead(s, x) - sched_lead(s, v);
    if (gap >= 2 * s->o.aging_ns)
        return true;
    return s->seqs[x].rank > q->rank && gap >= s->o.aging_ns / 2 &&
           s->n_plans - q->started_plan >= IMMUNE_PLANS;
}

bool sched_queue_higher(const struct sched *s, int32_t rank)
{
    if (!s->o.priorities)
        return false;
    uint32_t first = 2 * (uint32_t)(rank + (int32_t)s->o.priority_clamp) + 2;
    for (uint32_t at = first; at < s->n_chains; at = (at / 64 + 1) * 64)
        if (s->chain_bits[at / 64] >> at % 64)
            return true;
    return false;
}

bool sched_queue_check(const struct sched *s, const char **why)
{
    uint32_t n = 0;
    *why = "a chain is broken or out of order";
    for (uint32_t at = 0; at < s->n_chains; at++) {
        uint32_t prev = KV_NONE;
        for (uint32_t i = s->chains[at].head; i != KV_NONE; prev = i, i = s->seqs[i].next, n++) {
            const struct sched_seq *q = &s->seqs[i];
            if (n >= s->n_waiting || q->state != SCHED_WAITING || q->alone || q->prev != prev ||
                chain_of(s, q) != at || q->kv.n_blocks != 0 ||
                (prev != KV_NONE && s->seqs[prev].order >= q->order) ||
                heap_contains(s->heap, i) != (prev == KV_NONE))
                return false;
        }
        if (prev != s->chains[at].tail || (prev != KV_NONE) != (s->chain_bits[at / 64] >> at % 64 & 1))
            return false;
    }
    uint32_t n_held = 0;
    for (uint32_t i = 0; i < s->o.n_slots; i++) {
        const struct sched_seq *q = &s->seqs[i];
        *why = "the heap and those who wait alone disagree";
        bool waits = s->here[i] && q->state == SCHED_WAITING;
        if (!waits && heap_contains(s->heap, i))
            return false;
        if (!waits)
            continue;
        n += q->alone;
        if (q->alone && !heap_contains(s->heap, i))
            return false;
        *why = "who waits with blocks is not on the list";
        n_held += q->holds;
        if (q->holds != (q->kv.n_blocks > 0) ||
            (q->holds && (q->held_at >= s->n_held || s->held[q->held_at] != i)))
            return false;
    }
    *why = "waiting ones are miscounted";
    return n == s->n_waiting && n_held == s->n_held;
}
