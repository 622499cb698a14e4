/* Counters are plain numbers of the one thread that writes and prints them; what the engine counts comes as a snapshot.
 * Label values are escaped once per page. */
#include "metrics.h"

#include <assert.h>
#include <inttypes.h>

struct histogram {
    const char *name, *help;
    double upper[METRICS_BUCKETS_MAX]; /* ascending; 0 ends the list */
};

static const struct histogram histograms[METRICS_HISTOGRAMS] = {
    [METRICS_TTFT] = {"time_to_first_token_seconds",
                      "From arrival to the first token.",
                      {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25,  0.5,   0.75,
                       1.0,   2.5,   5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0}},
    [METRICS_ITL] = {"inter_token_latency_seconds",
                     "Between two tokens of one request.",
                     {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,  0.15, 0.2,  0.3,
                      0.4,   0.5,    0.75,  1.0,  2.5,   5.0,  7.5,   10.0, 20.0, 40.0, 80.0}},
    [METRICS_E2E] = {"e2e_request_latency_seconds",
                     "From arrival to the last token.",
                     {0.3,  0.5,  0.8,  1.0,  1.5,   2.0,   2.5,   5.0,   10.0,   15.0,  20.0,
                      30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0}},
    [METRICS_QUEUE] = {"request_queue_time_seconds",
                       "From arrival to the first step that the request took part in.",
                       {0.001, 0.01, 0.1,  0.3,  0.5,  0.8,  1.0,   1.5,   2.0,   2.5,   5.0,    10.0,
                        15.0,  20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0}},
    [METRICS_PROMPT] = {"request_prompt_tokens",
                        "Prompt tokens of a finished request.",
                        {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000,
                         200000}},
    [METRICS_GENERATION] = {"request_generation_tokens",
                            "Generated tokens of a finished request.",
                            {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000,
                             100000, 200000}},
};

static const char *const finish_names[METRICS_FINISHES] = {"stop", "length", "abort", "error"};
static const unsigned codes[METRICS_CODES_MAX] = {200, 400, 401, 404, 405, 408, 413, 429, 499, 500, 503};

static uint32_t bucket_count(enum metrics_histogram h)
{
    uint32_t n = 0;
    while (n < METRICS_BUCKETS_MAX && histograms[h].upper[n] > 0)
        n++;
    return n;
}

void metrics_observe(struct metrics *m, enum metrics_histogram h, double value)
{
    uint32_t n = bucket_count(h), i = 0;
    while (i < n && value > histograms[h].upper[i])
        i++;
    m->histograms[h].count[i]++;
    m->histograms[h].sum += value;
}

void metrics_count_http(struct metrics *m, uint32_t path, unsigned code)
{
    assert(path < METRICS_PATHS_MAX);
    for (uint32_t i = 0; i < METRICS_CODES_MAX; i++)
        if (codes[i] == code) {
            m->http[path][i]++;
            return;
        }
}

/* The model's name as a label, escaped once. */
static void put_label(struct buf *out, struct str model)
{
    buf_puts(out, "model_name=\"");
    for (size_t i = 0; i < model.n; i++) {
        char c = model.p[i];
        if (c == '"' || c == '\\')
            buf_putc(out, '\\');
        if (c == '\n')
            buf_puts(out, "\\n");
        else
            buf_putc(out, c);
    }
    buf_putc(out, '"');
}

static void put_type(struct buf *out, const char *name, const char *help, const char *type)
{
    buf_printf(out, "# HELP stator_%s %s\n# TYPE stator_%s %s\n", name, help, name, type);
}

static void put_value(struct buf *out, const char *name, const char *help, const char *type,
                      const char *label, double value)
{
    put_type(out, name, help, type);
    buf_printf(out, "stator_%s{%s} %.17g\n", name, label, value);
}

static void put_histogram(const struct metrics *m, enum metrics_histogram h, const char *label,
                          struct buf *out)
{
    const struct histogram *d = &histograms[h];
    uint32_t n = bucket_count(h);
    uint64_t total = 0;
    put_type(out, d->name, d->help, "histogram");
    for (uint32_t i = 0; i < n; i++) {
        total += m->histograms[h].count[i];
        buf_printf(out, "stator_%s_bucket{%s,le=\"%g\"} %" PRIu64 "\n", d->name, label, d->upper[i], total);
    }
    total += m->histograms[h].count[n];
    buf_printf(out, "stator_%s_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n", d->name, label, total);
    buf_printf(out, "stator_%s_sum{%s} %.9g\n", d->name, label, m->histograms[h].sum);
    buf_printf(out, "stator_%s_count{%s} %" PRIu64 "\n", d->name, label, total);
}

static void put_engine(const struct engine_stats *s, const char *label, struct buf *out)
{
    uint32_t pinned = s->blocks_total - s->blocks_free - s->blocks_cached;
    put_value(out, "num_requests_running", "Requests in the batch.", "gauge", label, s->running);
    put_value(out, "num_requests_waiting", "Requests in the queue.", "gauge", label, s->waiting);
    put_type(out, "kv_cache_usage_perc", "Share of KV blocks that running requests hold, 0 to 1.", "gauge");
    buf_printf(out, "stator_kv_cache_usage_perc{%s,tier=\"device\"} %.6g\n", label,
               s->blocks_total ? (double)pinned / s->blocks_total : 0.0);
    put_type(out, "kv_cache_blocks", "KV blocks by state.", "gauge");
    buf_printf(out, "stator_kv_cache_blocks{%s,tier=\"device\",state=\"pinned\"} %u\n", label, pinned);
    buf_printf(out, "stator_kv_cache_blocks{%s,tier=\"device\",state=\"cached\"} %u\n", label,
               s->blocks_cached);
    buf_printf(out, "stator_kv_cache_blocks{%s,tier=\"device\",state=\"free\"} %u\n", label, s->blocks_free);
    put_value(out, "prefix_cache_queries_total", "Prompt tokens looked up in the prefix index.", "counter",
              label, (double)s->prefix_query_tokens);
    put_value(out, "prefix_cache_hits_total", "Prompt tokens found in the prefix index.", "counter", label,
              (double)s->prefix_hit_tokens);
    put_value(out, "prompt_tokens_total", "Prompt tokens processed.", "counter", label,
              (double)s->prompt_tokens);
    put_value(out, "generation_tokens_total", "Tokens generated.", "counter", label,
              (double)s->output_tokens);
    put_value(out, "num_preemptions_total", "Requests preempted.", "counter", label, (double)s->preemptions);
    put_value(out, "engine_steps_total", "Steps of the engine.", "counter", label, (double)s->steps);
    put_value(out, "engine_step_rows_total", "Rows over all steps.", "counter", label, (double)s->step_rows);
}

void metrics_put(const struct metrics *m, const struct engine_stats *s, struct str model,
                 const char *const *paths, uint32_t n_paths, struct buf *out)
{
    struct buf name = {0};
    put_label(&name, model);
    const char *label = name.p ? name.p : "";
    put_engine(s, label, out);
    put_type(out, "request_success_total", "Finished requests by reason.", "counter");
    for (uint32_t i = 0; i < METRICS_FINISHES; i++)
        buf_printf(out, "stator_request_success_total{%s,finished_reason=\"%s\"} %" PRIu64 "\n", label,
                   finish_names[i], m->finished[i]);
    for (uint32_t h = 0; h < METRICS_HISTOGRAMS; h++)
        put_histogram(m, (enum metrics_histogram)h, label, out);
    put_type(out, "http_requests_total", "HTTP requests by path and status code.", "counter");
    for (uint32_t p = 0; p < n_paths; p++)
        for (uint32_t c = 0; c < METRICS_CODES_MAX && paths[p]; c++)
            if (m->http[p][c])
                buf_printf(out, "stator_http_requests_total{path=\"%s\",code=\"%u\"} %" PRIu64 "\n", paths[p],
                           codes[c], m->http[p][c]);
    if (name.failed && !out->failed)
        out->failed = name.failed;
    buf_fini(&name);
}
