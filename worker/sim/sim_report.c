/* Percentiles are of the nearest rank over sorted copies: no interpolation, so a table of integers in, the same table out. Where
 * memory for a copy is short the number is left out ("-"), as it is where there is nothing to rank. */
#include "sim_report.h"

#include "mem.h"

#include <inttypes.h>
#include <stdlib.h>

static const char *const class_names[ENGINE_CLASSES + 1] = {"background", "normal", "elevated", "high",
                                                            "all"};

static bool counts(const struct sim_outcome *x, uint32_t cls)
{
    return x->end == SIM_DONE && (cls == SIM_ALL || x->cls == cls);
}

static int64_t time_of(const struct sim_outcome *x, enum sim_time what)
{
    int64_t end = what == SIM_TTFT ? x->first_ns : what == SIM_QUEUE ? x->scheduled_ns : x->last_ns;
    return end - x->arrival_ns;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Sorts v. */
static int64_t rank_of(int64_t *v, uint32_t n, double p)
{
    if (n == 0)
        return -1;
    qsort(v, n, sizeof *v, compare);
    uint32_t at = (uint32_t)(p * n);
    return v[at < n ? at : n - 1];
}

int64_t sim_report_percentile(const struct sim_result *r, uint32_t cls, enum sim_time what, double p)
{
    int64_t *v = mem_zalloc((size_t)r->n + 1, sizeof *v), found = -1;
    uint32_t n = 0;
    for (uint32_t i = 0; v && i < r->n; i++)
        if (counts(&r->outcomes[i], cls))
            v[n++] = time_of(&r->outcomes[i], what);
    if (v)
        found = rank_of(v, n, p);
    mem_free(v);
    return found;
}

int64_t sim_report_gap(const struct sim_result *r, uint32_t cls, double p)
{
    uint32_t first = cls == SIM_ALL ? 0 : cls, end = cls == SIM_ALL ? ENGINE_CLASSES : cls + 1;
    uint64_t total = 0, seen = 0;
    for (uint32_t c = first; c < end; c++)
        for (uint32_t i = 0; i < SIM_GAPS; i++)
            total += r->gaps[c][i];
    uint64_t at = (uint64_t)(p * (double)total);
    for (uint32_t i = 0; i < SIM_GAPS; i++) {
        for (uint32_t c = first; c < end; c++)
            seen += r->gaps[c][i];
        if (seen > at)
            return sim_gap_ns(i);
    }
    return -1;
}

struct flow {
    int64_t begin_ns, end_ns;
    bool seen, broken; /* broken: a request of it did not end well */
};

int64_t sim_report_flow(const struct sim_result *r, const struct sim_trace *t, double p)
{
    struct flow *flows =
        mem_zalloc((size_t)r->n + 1, sizeof *flows); /* a flow's number is below the number of requests */
    int64_t *v = mem_zalloc((size_t)r->n + 1, sizeof *v), found = -1;
    uint32_t n = 0;
    for (uint32_t i = 0; flows && i < r->n; i++) {
        const struct sim_outcome *x = &r->outcomes[i];
        if (t->requests[i].flow >= r->n)
            continue;
        struct flow *f = &flows[t->requests[i].flow];
        f->broken |= x->end != SIM_DONE;
        f->begin_ns = f->seen && f->begin_ns < x->arrival_ns ? f->begin_ns : x->arrival_ns;
        f->end_ns = f->end_ns > x->last_ns ? f->end_ns : x->last_ns;
        f->seen = true;
    }
    for (uint32_t i = 0; flows && v && i < r->n; i++)
        if (flows[i].seen && !flows[i].broken)
            v[n++] = flows[i].end_ns - flows[i].begin_ns;
    if (v)
        found = rank_of(v, n, p);
    mem_free(flows);
    mem_free(v);
    return found;
}

/* ---- the table --------------------------------------------------------------------------------------------------------- */

static void put_ms(struct buf *out, int64_t ns)
{
    if (ns < 0)
        buf_printf(out, " %9s", "-");
    else
        buf_printf(out, " %9.1f", (double)ns / 1e6);
}

static void put_row(struct buf *out, const struct sim_result *r, uint32_t cls, const struct engine_policy *p)
{
    uint64_t n = 0, refused = 0, good = 0, preempted = 0, cached = 0, prompt = 0, output = 0, resumed = 0,
             recomputed = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        const struct sim_outcome *x = &r->outcomes[i];
        if (cls != SIM_ALL && x->cls != cls)
            continue;
        n++;
        refused += x->end == SIM_REFUSED;
        good += sim_result_good(x, p);
        preempted += x->n_preempted;
        cached += x->n_cached;
        prompt += x->end == SIM_DONE ? x->n_prompt : 0;
        output += x->n_output;
    }
    for (uint32_t c = 0; c < ENGINE_CLASSES; c++) {
        resumed += cls == c || cls == SIM_ALL ? r->stats.cls[c].resumed_tokens : 0;
        recomputed += cls == c || cls == SIM_ALL ? r->stats.cls[c].recomputed_tokens : 0;
    }
    if (n == 0)
        return;
    buf_printf(out, "%-10s %7" PRIu64 " %7" PRIu64, class_names[cls], n, refused);
    static const double ttft[3] = {0.5, 0.9, 0.99}, half[2] = {0.5, 0.99};
    for (int i = 0; i < 3; i++)
        put_ms(out, sim_report_percentile(r, cls, SIM_TTFT, ttft[i]));
    for (int i = 0; i < 2; i++)
        put_ms(out, sim_report_gap(r, cls, half[i]));
    for (int i = 0; i < 2; i++)
        put_ms(out, sim_report_percentile(r, cls, SIM_QUEUE, half[i]));
    buf_printf(out, " %7" PRIu64 " %9" PRIu64 " %10" PRIu64 " %6.1f %8.0f %6.1f\n", preempted, resumed,
               recomputed, prompt ? 100.0 * (double)cached / (double)prompt : 0,
               r->end_ns > 0 ? (double)output * 1e9 / (double)r->end_ns : 0,
               100.0 * (double)good / (double)n);
}

void sim_report_table(struct buf *out, const struct sim_result *r, const struct sim_trace *t,
                      const struct engine_policy *p)
{
    buf_printf(out, "%-10s %7s %7s %29s %19s %19s %7s %9s %10s %6s %8s %6s\n", "class", "n", "refused",
               "TTFT ms  P50       P90       P99", "ITL ms P50      P99", "queue ms P50    P99", "preempt",
               "resumed", "recomputed", "hit %", "tok/s", "good %");
    for (uint32_t c = 0; c <= SIM_ALL; c++)
        put_row(out, r, c, p);
    int64_t flow = sim_report_flow(r, t, 0.5);
    if (flow >= 0) {
        buf_puts(out, "flows, ms P50 P90 P99:");
        put_ms(out, flow);
        put_ms(out, sim_report_flow(r, t, 0.9));
        put_ms(out, sim_report_flow(r, t, 0.99));
        buf_putc(out, '\n');
    }
    buf_printf(
        out,
        "%" PRIu64
        " steps, %.1f rows each, device busy %.1f %% of %.2f s; %u blocks, %u on the host; stored %" PRIu64
        ", loaded %" PRIu64 "; %" PRIu64 " preemptions\n",
        r->totals.n_steps, r->totals.n_steps ? (double)r->stats.step_rows / (double)r->totals.n_steps : 0,
        r->end_ns > 0 ? 100.0 * (double)r->totals.busy_ns / (double)r->end_ns : 0, (double)r->end_ns / 1e9,
        r->n_blocks, r->n_host_blocks, r->totals.n_stored, r->totals.n_loaded, r->stats.preemptions);
    if (r->n_wrong || r->n_failed || r->totals.n_wrong)
        buf_printf(out,
                   "WRONG: %u requests with a wrong token, %u failed, %" PRIu64
                   " rows read a block not theirs\n",
                   r->n_wrong, r->n_failed, r->totals.n_wrong);
}

void sim_report_csv(struct buf *out, const struct sim_result *r, const struct sim_trace *t,
                    const struct engine_policy *p)
{
    static const char *const ends[] = {"unseen", "refused", "done", "failed"};
    buf_puts(out, "request,class,priority,flow,arrival_ms,queue_ms,ttft_ms,end_to_end_ms,prompt,cached,"
                  "output,preempted,late,"
                  "good,end\n");
    for (uint32_t i = 0; i < r->n; i++) {
        const struct sim_outcome *x = &r->outcomes[i];
        const struct sim_request *q = &t->requests[i];
        buf_printf(out, "%u,%s,%d,%d,%.3f", i, class_names[x->cls], q->priority,
                   q->flow == SIM_NONE ? -1 : (int)q->flow, (double)x->arrival_ns / 1e6);
        for (int k = SIM_TTFT; k <= SIM_END_TO_END; k++) {
            static const enum sim_time order[] = {SIM_QUEUE, SIM_TTFT, SIM_END_TO_END};
            if (x->end == SIM_DONE)
                buf_printf(out, ",%.3f", (double)time_of(x, order[k]) / 1e6);
            else
                buf_puts(out, ",");
        }
        buf_printf(out, ",%u,%u,%u,%u,%u,%d,%s\n", q->n_prompt, x->n_cached, x->n_output, x->n_preempted,
                   x->n_late, sim_result_good(x, p), ends[x->end]);
    }
}
