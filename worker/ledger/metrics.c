/* Counters are plain numbers of the one thread that writes and prints them; what the engine counts comes as a snapshot.
 * Label values are escaped once per page. */
#include "metrics.h"

#include <assert.h>
#include <inttypes.h>

enum { CLASS_DEFAULT = 1 }; /* of a request without hints: "normal" */

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

static uint32_t bucket_count(enum metrics_histogram h)
{
    uint32_t n = 0;
    while (n < METRICS_BUCKETS_MAX && histograms[h].upper[n] > 0)
        n++;
    return n;
}

void metrics_observe(struct metrics *m, enum metrics_histogram h, uint32_t cls, double value)
{
    uint32_t n = bucket_count(h), i = 0;
    while (i < n && value > histograms[h].upper[i])
        i++;
    m->histograms[h][cls].count[i]++;
    m->histograms[h][cls].sum += value;
}

void metrics_count_hints(struct metrics *m, uint32_t clamped)
{
    for (uint32_t i = 0; i < API_HINTS; i++)
        m->hint_clamped[i] += (clamped >> i) & 1;
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

/* Dashboards find the class that nobody has to ask for from the first scrape on. */
static bool shown(uint32_t cls, uint64_t seen)
{
    return seen || cls == CLASS_DEFAULT;
}

static void put_buckets(const struct metrics *m, enum metrics_histogram h, uint32_t cls, const char *label, struct buf *out)
{
    const struct histogram *d = &histograms[h];
    const uint64_t *count = m->histograms[h][cls].count;
    const char *name = engine_class_name(cls);
    uint32_t n = bucket_count(h);
    uint64_t total = 0, seen = 0;
    for (uint32_t i = 0; i <= n; i++)
        seen += count[i];
    if (!shown(cls, seen))
        return;
    for (uint32_t i = 0; i < n; i++) {
        total += count[i];
        buf_printf(out, "stator_%s_bucket{%s,class=\"%s\",le=\"%g\"} %" PRIu64 "\n", d->name, label, name, d->upper[i], total);
    }
    buf_printf(out, "stator_%s_bucket{%s,class=\"%s\",le=\"+Inf\"} %" PRIu64 "\n", d->name, label, name, seen);
    buf_printf(out, "stator_%s_sum{%s,class=\"%s\"} %.9g\n", d->name, label, name, m->histograms[h][cls].sum);
    buf_printf(out, "stator_%s_count{%s,class=\"%s\"} %" PRIu64 "\n", d->name, label, name, seen);
}

static void put_histogram(const struct metrics *m, enum metrics_histogram h, const char *label, struct buf *out)
{
    put_type(out, histograms[h].name, histograms[h].help, "histogram");
    for (uint32_t cls = 0; cls < ENGINE_CLASSES; cls++)
        put_buckets(m, h, cls, label, out);
}

/* One number per class. */
static void put_by_class(struct buf *out, const char *name, const char *help, const char *label,
                         const uint64_t value[ENGINE_CLASSES])
{
    put_type(out, name, help, "counter");
    for (uint32_t cls = 0; cls < ENGINE_CLASSES; cls++)
        if (shown(cls, value[cls]))
            buf_printf(out, "stator_%s{%s,class=\"%s\"} %" PRIu64 "\n", name, label, engine_class_name(cls), value[cls]);
}

/* Fields of a snapshot are read one by one: their difference may be off for a moment, but never negative. */
static uint32_t rest(uint32_t total, uint32_t a, uint32_t b)
{
    return a < total && b < total - a ? total - a - b : 0;
}

static void put_blocks(struct buf *out, const char *label, const char *tier, uint32_t pinned, uint32_t cached, uint32_t free_)
{
    const char *const states[] = {"pinned", "cached", "free"};
    const uint32_t n[] = {pinned, cached, free_};
    for (int i = 0; i < 3; i++)
        buf_printf(out, "stator_kv_cache_blocks{%s,tier=\"%s\",state=\"%s\"} %u\n", label, tier, states[i], n[i]);
}

static void put_kv(const struct engine_stats *s, const char *label, struct buf *out)
{
    uint32_t pinned = rest(s->blocks_total, s->blocks_free, s->blocks_cached);
    put_type(out, "kv_cache_usage_perc", "Share of KV blocks that running requests hold, 0 to 1.", "gauge");
    buf_printf(out, "stator_kv_cache_usage_perc{%s,tier=\"device\"} %.6g\n", label,
               s->blocks_total ? (double)pinned / s->blocks_total : 0.0);
    put_type(out, "kv_cache_blocks", "KV blocks by tier and state.", "gauge");
    put_blocks(out, label, "device", pinned, s->blocks_cached, s->blocks_free);
    if (s->host_blocks_total)
        put_blocks(out, label, "host", rest(s->host_blocks_total, s->host_blocks_free, s->host_blocks_cached),
                   s->host_blocks_cached, s->host_blocks_free);
    put_value(out, "kv_blocks_saved_total", "KV blocks copied to the host tier.", "counter", label, (double)s->blocks_saved);
    put_value(out, "kv_blocks_loaded_total", "KV blocks copied back from the host tier.", "counter", label,
              (double)s->blocks_loaded);
    put_value(out, "kv_blocks_evicted_total", "Cached KV blocks given to another request.", "counter", label,
              (double)s->blocks_evicted);
}

static void put_engine(const struct engine_stats *s, const char *label, struct buf *out)
{
    put_value(out, "num_requests_running", "Requests in the batch.", "gauge", label, s->running);
    put_value(out, "num_requests_waiting", "Requests in the queue.", "gauge", label, s->waiting);
    put_kv(s, label, out);
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

/* Most pairs of classes never meet: only those that did are shown. */
static void put_preemptions(const struct engine_stats *s, const char *label, struct buf *out)
{
    static const char *const resources[ENGINE_RESOURCES] = {
        [ENGINE_SLOTS] = "slot", [ENGINE_BLOCKS] = "blocks", [ENGINE_GROWTH] = "growth"};
    put_type(out, "preemptions_total", "Requests that gave way, by their class, the class they gave way to, and for what.",
             "counter");
    for (uint32_t cls = 0; cls < ENGINE_CLASSES; cls++)
        for (uint32_t winner = 0; winner < ENGINE_CLASSES; winner++)
            for (uint32_t r = 0; r < ENGINE_RESOURCES; r++)
                if (s->cls[cls].preemptions[winner][r])
                    buf_printf(out,
                               "stator_preemptions_total{%s,class=\"%s\",for_class=\"%s\",resource=\"%s\"} %" PRIu64 "\n",
                               label, engine_class_name(cls), engine_class_name(winner), resources[r],
                               s->cls[cls].preemptions[winner][r]);
}

static void put_classes(const struct engine_stats *s, const char *label, struct buf *out)
{
    put_type(out, "num_requests_by_class", "Requests by class and state; each is in one state.", "gauge");
    uint64_t resumed[ENGINE_CLASSES], recomputed[ENGINE_CLASSES], aged[ENGINE_CLASSES], held[ENGINE_CLASSES];
    for (uint32_t cls = 0; cls < ENGINE_CLASSES; cls++) {
        const struct engine_class_stats *c = &s->cls[cls];
        const char *const states[] = {"running", "waiting", "preempted", "loading"};
        const uint32_t n[] = {c->running, c->waiting, c->preempted, c->loading};
        for (int i = 0; i < 4; i++)
            buf_printf(out, "stator_num_requests_by_class{%s,class=\"%s\",state=\"%s\"} %u\n", label, engine_class_name(cls),
                       states[i], n[i]);
        resumed[cls] = c->resumed_tokens;
        recomputed[cls] = c->recomputed_tokens;
        aged[cls] = c->aged_ahead;
        held[cls] = c->held;
    }
    put_preemptions(s, label, out);
    put_by_class(out, "resumed_tokens_total", "Tokens of preempted requests whose KV was found again.", label, resumed);
    put_by_class(out, "recomputed_tokens_total", "Tokens of preempted requests that were computed again.", label, recomputed);
    put_by_class(out, "aged_ahead_total", "Requests that ran before one of a higher class because they had waited.", label, aged);
    put_by_class(out, "held_total", "Requests that waited for a prompt like theirs to be computed.", label, held);
}

static void put_requests(const struct metrics *m, const char *label, struct buf *out)
{
    put_type(out, "request_success_total", "Finished requests by class and reason.", "counter");
    for (uint32_t cls = 0; cls < ENGINE_CLASSES; cls++)
        for (uint32_t i = 0; i < METRICS_FINISHES; i++)
            if (shown(cls, m->finished[cls][i]))
                buf_printf(out, "stator_request_success_total{%s,class=\"%s\",finished_reason=\"%s\"} %" PRIu64 "\n", label,
                           engine_class_name(cls), finish_names[i], m->finished[cls][i]);
    put_by_class(out, "requests_good_total", "Requests that met every target (--slo-ttft-ms, --slo-itl-ms).", label, m->good);
    put_by_class(out, "goodput_tokens_total", "Tokens that such requests generated.", label, m->good_tokens);
    put_type(out, "hint_clamped_total", "Hints out of range, moved into it.", "counter");
    for (uint32_t i = 0; i < API_HINTS; i++)
        buf_printf(out, "stator_hint_clamped_total{%s,hint=\"%s\"} %" PRIu64 "\n", label, api_hint_name((enum api_hint)i),
                   m->hint_clamped[i]);
}

void metrics_put(const struct metrics *m, const struct engine_stats *s, struct str model, struct buf *out)
{
    struct buf name = {0};
    put_label(&name, model);
    const char *label = name.p ? name.p : "";
    put_engine(s, label, out);
    put_classes(s, label, out);
    put_requests(m, label, out);
    for (uint32_t h = 0; h < METRICS_HISTOGRAMS; h++)
        put_histogram(m, (enum metrics_histogram)h, label, out);
    if (name.failed && !out->failed)
        out->failed = name.failed;
    buf_fini(&name);
}
