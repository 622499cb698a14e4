/* How long a step may take. Tokens are a poor measure of it: a prompt's chunk stretches the wait of everybody who decodes
 * beside it, and a request that has just arrived waits for the step that is under way. So chunks are cut by time, which a model
 * of the machine predicts and every step corrects (steptime.h).
 *
 * The cap is the least of what max_step_ns says and what the decoding rows put up with: slo_itl_ns, or a multiple of the
 * step without prompts, wider for those that are less sensitive. A fast prompt, and one that is about to miss slo_ttft_ns, may
 * use max_step_ns, unless somebody as sensitive decodes. Decodes alone may exceed the cap; a little progress of prompts is
 * always allowed on top of it.
 *
 * A few decoding rows beside a prompt cost a GPU next to nothing, for the weights are read anyway; many rows, and any on a
 * CPU, cost more than half of what they cost alone. Then little is gained by putting rows far below a prompt into its step: they
 * yield, and run in the next one. The higher one's first token comes earlier, the others' hardly later. Never twice in a row. */
#include "sched_state.h"

static const double STRETCH_LEAST = 1.5,
                    STRETCH_MORE = 6.5;  /* of a decoding row's wait, fully sensitive and not at all */
static const double LITTLE_GAINED = 0.5; /* of what rows cost alone, if they cost as much beside a prompt */
enum { KNOWN_AFTER = 32 };               /* steps until the model is believed in this */
static const double SLO_MORE = 4, PROGRESS = 1.15, MARGIN = 1.5; /* margin: in spreads of the model */

void sched_cap_begin(struct sched *s)
{
    uint8_t most = 0;
    s->load = (struct steptime_load){0};
    s->cap_ns = s->max_ns = (double)s->o.max_step_ns;
    s->high_ns = INT64_MAX / 2;
    s->low_ns = INT64_MIN / 2;
    for (uint32_t i = 0; i < s->n_run; i++) {
        const struct sched_seq *q = &s->seqs[s->run[i]];
        if (!sched_decodes(q))
            continue;
        if (s->load.n_rows == 0)
            s->high_ns = q->lead_ns;
        s->low_ns = q->lead_ns;
        s->load.n_rows++;
        s->load.context += q->n_computed;
        most = q->latency > most ? q->latency : most;
    }
    if (!s->o.priorities || s->load.n_rows == 0)
        return;
    double calm = 1 - (double)most / SCHED_LATENCY_MAX, alone = steptime_predict_ns(&s->model, &s->load, 0);
    double itl = s->o.slo_itl_ns ? (double)s->o.slo_itl_ns * (1 + SLO_MORE * calm)
                                 : (STRETCH_LEAST + STRETCH_MORE * calm) * alone;
    if (s->max_ns == 0 && s->o.slo_itl_ns == 0)
        return;
    if (s->cap_ns == 0 || itl < s->cap_ns)
        s->cap_ns = itl;
    if (s->cap_ns < PROGRESS * alone)
        s->cap_ns = PROGRESS * alone;
    if (most >= SCHED_FAST)
        s->max_ns = s->cap_ns;
}

void sched_cap_yield(struct sched *s, uint32_t slot, uint32_t n)
{
    int64_t least = sched_lead(s, slot) - s->o.aging_ns / 2;
    struct steptime_load far = {0}, near = s->load;
    if (s->model.n_updates < KNOWN_AFTER || s->n_plans - s->yielded < 2)
        return;
    for (uint32_t i = 0; i < s->n_run; i++) {
        const struct sched_seq *q = &s->seqs[s->run[i]];
        if (!sched_decodes(q) || q->lead_ns > least)
            continue;
        far.n_rows++;
        far.context += q->n_computed;
    }
    near.n_rows -= far.n_rows;
    near.context -= far.context;
    const struct steptime_load with = steptime_with_chunk(&s->load, s->seqs[slot].n_computed, n),
                               without = steptime_with_chunk(&near, s->seqs[slot].n_computed, n);
    double more = steptime_predict_ns(&s->model, &with, 0) - steptime_predict_ns(&s->model, &without, 0);
    if (far.n_rows == 0 || more < LITTLE_GAINED * steptime_predict_ns(&s->model, &far, 0))
        return;
    s->yielded = s->n_plans;
    s->yield_ns = least;
    s->load = near;
}

/* It is fast, or less than two steps are left until its first token is late. */
static bool hurries(const struct sched *s, const struct sched_seq *q)
{
    if (q->n_tokens > q->n_prompt)
        return false;
    if (q->latency >= SCHED_FAST || s->o.slo_ttft_ns == 0)
        return q->latency >= SCHED_FAST;
    const struct steptime_load rest =
        steptime_with_chunk(&s->load, q->n_computed, q->n_tokens - q->n_computed);
    double slack =
        (double)(q->arrival_ns + s->o.slo_ttft_ns - s->now_ns) - steptime_predict_ns(&s->model, &rest, 0);
    return slack < 2 * s->cap_ns;
}

/* Half a point above all that decode: none of them is asked what it puts up with. */
static bool far_above(const struct sched *s, const struct sched_seq *q)
{
    return q->lead_ns - s->high_ns >= s->o.aging_ns / 2;
}

uint32_t sched_cap_fit(const struct sched *s, const struct sched_seq *q, uint32_t have, uint32_t n,
                       uint32_t least)
{
    double cap = s->cap_ns;
    if (cap == 0 || n <= least)
        return n;
    if (s->o.priorities && s->o.max_step_ns > 0 && far_above(s, q))
        cap = (double)s->o.max_step_ns > cap ? (double)s->o.max_step_ns : cap;
    else if (s->max_ns > cap && hurries(s, q))
        cap = s->max_ns;
    uint32_t fits = steptime_fit(&s->model, &s->load, q->n_computed + have, n, cap, MARGIN);
    return fits > least ? fits : least;
}

void sched_cap_add(struct sched *s, const struct sched_seq *q, uint32_t have, uint32_t n)
{
    s->load = steptime_with_chunk(&s->load, q->n_computed + have, n);
}

void sched_step_took(struct sched *s, const struct steptime_load *load, int64_t took_ns)
{
    steptime_update(&s->model, load, took_ns);
}
