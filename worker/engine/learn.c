/* A conversation is known by its content: the last full block of a call's prompt stands for all that comes before it, and
 * the next call's prompt begins with it. Not the answer's last block: templates write an answer back in other tokens than it
 * was drawn in, now and then.
 *
 * Only calls that announced a return (iat) are remembered, in a ring; who leaves the ring unseen counts as never come back. */
#include "learn.h"

static double work_of(const struct sched_seq *s, const struct req *q)
{
    return (double)q->n_prompt / LEARN_PROMPT_SHARE + (s->n_expect ? s->n_expect : q->max_tokens);
}

static void see_return(struct learn *l, const struct sched_seq *s, int64_t now_ns)
{
    for (uint32_t i = 0; i < LEARN_TAILS; i++) {
        struct learn_tail *t = &l->tails[i];
        if (t->depth == 0 || t->depth > s->kv.n_ids || !kv_id_eq(&t->id, &s->kv.ids[t->depth - 1]))
            continue;
        estimate_note_return(&l->returns[t->cls], t->iat_ms, (now_ns - t->end_ns) / 1000000);
        t->depth = 0;
    }
}

void learn_arrived(struct learn *l, struct sched_seq *s, const struct req *q, bool priorities, int64_t now_ns)
{
    if (priorities) {
        uint32_t cap = q->max_tokens, announced = q->expected_output > 0 ? (uint32_t)q->expected_output : 0;
        s->n_expect = estimate_output(&l->outputs, s->cls, announced, cap);
        if (s->kv.ids)
            see_return(l, s, now_ns);
    }
    l->waiting_work += work_of(s, q);
    estimate_note_accepted(&l->service, s->cls, work_of(s, q), now_ns);
}

void learn_started(struct learn *l, const struct sched_seq *s, const struct req *q)
{
    l->waiting_work -= work_of(s, q);
    if (l->waiting_work < 0)
        l->waiting_work = 0; /* n_expect may have been revised meanwhile */
}

static void remember(struct learn *l, const struct sched_seq *s, const struct req *q, int64_t now_ns)
{
    uint32_t depth = s->n_prompt / s->kv.block_tokens;
    if (q->iat_ms <= 0 || !s->kv.ids || depth == 0 || depth > s->kv.n_ids)
        return;
    struct learn_tail *t = &l->tails[l->next_tail++ % LEARN_TAILS];
    if (t->depth > 0)
        estimate_note_no_return(&l->returns[t->cls]);
    *t = (struct learn_tail){s->kv.ids[depth - 1], depth, now_ns, q->iat_ms, s->cls};
}

void learn_ended(struct learn *l, struct sched_seq *s, const struct req *q, int64_t residence_ns,
                 int64_t now_ns)
{
    uint32_t announced = q->expected_output > 0 ? (uint32_t)q->expected_output : 0;
    estimate_note_output(&l->outputs, s->cls, announced, q->max_tokens, q->n_output);
    const struct retain_ask ask = {.now_ns = now_ns,
                                   .device_residence_ns = residence_ns,
                                   .host_residence_ns = residence_ns,
                                   .points = s->rank,
                                   .iat_ms = q->iat_ms};
    s->expiry_ns = estimate_expiry(&l->returns[s->cls], &ask).device_ns;
    remember(l, s, q, now_ns);
}

void learn_step(struct learn *l, uint32_t n_drawn, uint32_t n_prompt, int64_t busy_ns)
{
    estimate_note_retired(&l->service, n_drawn + (double)n_prompt / LEARN_PROMPT_SHARE, busy_ns);
}
