/* Percentiles are of the sample, nearest rank: with few requests an interpolated P99 would be a number that no request
 * ever saw. */
#include "report.h"

#include "buf.h"
#include "clock.h"
#include "mem.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct spread {
    const char *name, *key;
    double mean, p50, p90, p99, min, max;
    size_t n;
};
enum { SPREADS = 6 };

struct totals {
    int64_t good, prompt_tokens, output_tokens, cached_tokens, events, with_usage;
    double seconds, output_rate, prompt_rate, request_rate, full_rate, cpu_share;
};

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double rank(const double *sorted, size_t n, double q)
{
    size_t i = (size_t)ceil(q * (double)n);
    return sorted[i ? i - 1 : 0];
}

static struct spread spread_of(const char *name, const char *key, double *v, size_t n)
{
    struct spread s = {.name = name, .key = key, .n = n};
    if (n == 0)
        return s;
    qsort(v, n, sizeof *v, by_value);
    for (size_t i = 0; i < n; i++)
        s.mean += v[i] / (double)n;
    s.min = v[0];
    s.p50 = rank(v, n, 0.50);
    s.p90 = rank(v, n, 0.90);
    s.p99 = rank(v, n, 0.99);
    s.max = v[n - 1];
    return s;
}

static struct totals total(const struct load_result *r)
{
    struct totals t = {.seconds = (double)(r->end_ns - r->begin_ns) / 1e9};
    for (int64_t i = 0; i < r->num_requests; i++) {
        const struct record *q = &r->records[i];
        if (q->failed)
            continue;
        t.good++;
        t.prompt_tokens += q->prompt_tokens;
        t.output_tokens += q->output_tokens;
        t.cached_tokens += q->cached_tokens;
        t.events += q->events;
        t.with_usage += q->has_usage;
    }
    t.output_rate = (double)t.output_tokens / t.seconds;
    t.prompt_rate = (double)t.prompt_tokens / t.seconds;
    t.request_rate = (double)t.good / t.seconds;
    t.full_rate = r->full_ns ? (double)r->full_events * 1e9 / (double)r->full_ns : 0;
    t.cpu_share = r->cpu_s / t.seconds;
    return t;
}

enum column { TTFT, TPOT, E2E, USER, PREFILL };

/* One request's figure; negative when the request has none. */
static double figure(const struct record *q, enum column c)
{
    double ttft = (double)(q->first_ns - q->start_ns) / 1e6;
    double decode = (double)(q->last_ns - q->first_ns) / 1e6;
    bool streamed = q->output_tokens > 1 && decode > 0;
    switch (c) {
    case TTFT:
        return q->first_ns ? ttft : -1;
    case TPOT:
        return streamed ? decode / (double)(q->output_tokens - 1) : -1;
    case E2E:
        return (double)(q->done_ns - q->start_ns) / 1e6;
    case USER:
        return streamed ? 1000 * (double)(q->output_tokens - 1) / decode : -1;
    default:
        return q->first_ns && q->prompt_tokens && ttft > 0 ? 1000 * (double)q->prompt_tokens / ttft : -1;
    }
}

static int spreads(const struct load_result *r, struct spread out[SPREADS])
{
    static const struct {
        const char *name, *key;
        enum column column;
    } ROWS[] = {{"TTFT ms", "ttft_ms", TTFT},
                {"TPOT ms", "tpot_ms", TPOT},
                {"end to end ms", "e2e_ms", E2E},
                {"user tok/s", "user_tok_s", USER},
                {"prefill tok/s", "prefill_tok_s", PREFILL}};
    size_t room = (size_t)r->num_requests > r->gaps ? (size_t)r->num_requests : (size_t)r->gaps;
    double *v = mem_zalloc(room, sizeof *v);
    if (!v)
        return ST_ENOMEM;
    for (int row = 0; row < SPREADS - 1; row++) {
        size_t n = 0;
        for (int64_t i = 0; i < r->num_requests; i++) {
            double x = r->records[i].failed ? -1 : figure(&r->records[i], ROWS[row].column);
            if (x >= 0)
                v[n++] = x;
        }
        out[row] = spread_of(ROWS[row].name, ROWS[row].key, v, n);
    }
    for (uint64_t i = 0; i < r->gaps; i++)
        v[i] = r->gap_us[i] / 1000.0;
    out[SPREADS - 1] = spread_of("ITL ms", "itl_ms", v, (size_t)r->gaps);
    mem_free(v);
    return ST_OK;
}

static void print_table(const struct options *o, const struct load_result *r, const struct totals *t,
                        const struct spread *s)
{
    printf("\n%-15s %10s %10s %10s %10s %10s\n", "", "mean", "P50", "P90", "P99", "max");
    for (int i = 0; i < SPREADS; i++)
        if (s[i].n)
            printf("%-15s %10.2f %10.2f %10.2f %10.2f %10.2f\n", s[i].name, s[i].mean, s[i].p50, s[i].p90,
                   s[i].p99, s[i].max);
    printf("\n%lld of %lld requests in %.2f s (%.2f/s)", (long long)t->good, (long long)r->num_requests,
           t->seconds, t->request_rate);
    if (o->rate > 0)
        printf(", open loop %.2f/s", o->rate);
    else
        printf(", %lld at a time", (long long)o->concurrency);
    printf("\noutput %.1f tok/s, input %.1f tok/s", t->output_rate, t->prompt_rate);
    if (t->full_rate > 0)
        printf(", under full load %.1f tok/s for %.1f s", t->full_rate, (double)r->full_ns / 1e9);
    printf(
        "\nmean prompt %.1f tokens (%.1f from the server's cache), mean output %.1f tokens in %.1f events\n",
        (double)t->prompt_tokens / (double)t->good, (double)t->cached_tokens / (double)t->good,
        (double)t->output_tokens / (double)t->good, (double)t->events / (double)t->good);
    if (t->with_usage < t->good)
        printf("warning: %lld replies without usage: events counted as tokens\n",
               (long long)(t->good - t->with_usage));
    if (r->failed)
        printf("warning: %lld requests failed; the first: %s\n", (long long)r->failed, r->first_error);
    printf("this client used %.1f %% of one core\n", 100 * t->cpu_share);
}

static void put_text(struct buf *b, const char *key, const char *value)
{
    buf_printf(b, "  \"%s\": ", key);
    buf_put_json(b, str_from(value));
    buf_puts(b, ",\n");
}

static void put_json(struct buf *b, const struct options *o, const char *model, const struct load_result *r,
                     const struct totals *t, const struct spread *s)
{
    buf_puts(b, "{\n");
    put_text(b, "label", o->label);
    put_text(b, "url", o->url);
    put_text(b, "model", model);
    put_text(b, "endpoint", o->endpoint);
    buf_printf(b, "  \"wall_time\": %lld,\n  \"concurrency\": %lld,\n  \"rate\": %.6g,\n  \"isl\": %lld,\n",
               (long long)clock_wall_s(), (long long)o->concurrency, o->rate, (long long)o->isl);
    buf_printf(b, "  \"osl\": %lld,\n  \"shared_prefix\": %lld,\n  \"seed\": %lld,\n  \"requests\": %lld,\n",
               (long long)o->osl, (long long)o->shared_prefix, (long long)o->seed,
               (long long)r->num_requests);
    buf_printf(b, "  \"failed\": %lld,\n", (long long)r->failed);
    put_text(b, "first_error", r->first_error);
    buf_printf(b, "  \"seconds\": %.6f,\n  \"prompt_tokens\": %lld,\n  \"output_tokens\": %lld,\n",
               t->seconds, (long long)t->prompt_tokens, (long long)t->output_tokens);
    buf_printf(b, "  \"cached_tokens\": %lld,\n  \"text_events\": %lld,\n  \"replies_with_usage\": %lld,\n",
               (long long)t->cached_tokens, (long long)t->events, (long long)t->with_usage);
    buf_printf(b, "  \"output_tok_s\": %.3f,\n  \"input_tok_s\": %.3f,\n  \"requests_per_s\": %.4f,\n",
               t->output_rate, t->prompt_rate, t->request_rate);
    buf_printf(b,
               "  \"full_load_tok_s\": %.3f,\n  \"full_load_seconds\": %.3f,\n  \"client_cpu_share\": %.5f",
               t->full_rate, (double)r->full_ns / 1e9, t->cpu_share);
    for (int i = 0; i < SPREADS; i++)
        buf_printf(b,
                   ",\n  \"%s\": {\"n\": %zu, \"mean\": %.4f, \"min\": %.4f, \"p50\": %.4f, \"p90\": %.4f, "
                   "\"p99\": %.4f, \"max\": %.4f}",
                   s[i].key, s[i].n, s[i].mean, s[i].min, s[i].p50, s[i].p90, s[i].p99, s[i].max);
    buf_puts(b, "\n}\n");
}

static int write_file(const char *path, struct str text, struct err *e)
{
    FILE *f = fopen(path, "w");
    bool ok = f && fwrite(text.p, 1, text.n, f) == text.n;
    if (f && fclose(f) != 0)
        ok = false;
    return ok ? ST_OK : err_set(e, ST_EIO, "--json: %.150s: %s", path, strerror(errno));
}

int report_write(const struct options *o, const char *model, struct load_result *r, struct err *e)
{
    struct spread s[SPREADS];
    struct totals t = total(r);
    if (spreads(r, s) != ST_OK)
        return err_set(e, ST_ENOMEM, "no memory for the report");
    if (!o->quiet)
        print_table(o, r, &t, s);
    if (!o->json)
        return ST_OK;
    struct buf b = {0};
    put_json(&b, o, model, r, &t, s);
    int rc =
        b.failed ? err_set(e, b.failed, "no memory for the report") : write_file(o->json, buf_str(&b), e);
    buf_fini(&b);
    return rc;
}
