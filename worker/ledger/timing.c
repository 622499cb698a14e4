/* The 95th percentile of a request's gaps is within the target when at most one gap in twenty is above it: so counting two
 * numbers replaces keeping the gaps. */
#include "timing.h"

#include "clock.h"

enum { GAPS_PER_LATE = 20 };

void timing_init(struct timing *t, uint32_t cls, int64_t arrival_ns)
{
    *t = (struct timing){.cls = (uint8_t)cls, .arrival_ns = arrival_ns};
}

static void observe(const struct timing *t, struct metrics *m, enum metrics_histogram h, int64_t ns)
{
    metrics_observe(m, h, t->cls, (double)ns / NS_PER_S);
}

void timing_token(struct timing *t, const struct timing_slo *slo, struct metrics *m, int64_t now_ns)
{
    if (!t->first_ns) {
        t->first_ns = now_ns;
        observe(t, m, METRICS_TTFT, now_ns - t->arrival_ns);
    } else {
        int64_t gap = now_ns - t->last_ns;
        observe(t, m, METRICS_ITL, gap);
        t->n_gaps++;
        t->n_late += slo->itl_ns && gap > slo->itl_ns;
    }
    t->last_ns = now_ns;
}

/* A request without a token is judged by the time at which it said that there is none. */
static bool met(const struct timing *t, const struct timing_slo *slo, int64_t end_ns)
{
    int64_t ttft = (t->first_ns ? t->first_ns : end_ns) - t->arrival_ns;
    return (!slo->ttft_ns || ttft <= slo->ttft_ns) && t->n_late * GAPS_PER_LATE <= t->n_gaps;
}

void timing_end(const struct timing *t, const struct timing_slo *slo, struct metrics *m, const struct engine_event *end,
                     bool good)
{
    if (end->scheduled_ns)
        observe(t, m, METRICS_QUEUE, end->scheduled_ns - t->arrival_ns);
    observe(t, m, METRICS_E2E, end->t_ns - t->arrival_ns);
    metrics_observe(m, METRICS_PROMPT, t->cls, end->n_prompt);
    metrics_observe(m, METRICS_GENERATION, t->cls, end->n_output);
    if (good && met(t, slo, end->t_ns)) {
        m->good[t->cls]++;
        m->good_tokens[t->cls] += end->n_output;
    }
}
