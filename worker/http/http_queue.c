/* One pass over the open requests writes their list and counts them; the counts are written behind it. Groups are the runs of
 * equal ids after a sort: no table to bound. A count that engine_stats could give is taken from the pass instead, so that
 * list and counts agree. */
#include "http_queue.h"

#include "clock.h"
#include "mem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char *const state_names[ENGINE_SLOT_PREEMPTED + 1] = {[ENGINE_SLOT_QUEUED] = "queued",
                                          [ENGINE_SLOT_LOADING] = "loading",
                                          [ENGINE_SLOT_PREFILL] = "prefill",
                                          [ENGINE_SLOT_DECODE] = "decode",
                                          [ENGINE_SLOT_PREEMPTED] = "preempted"};
enum { STATES = ENGINE_SLOT_PREEMPTED + 1 };

struct view {
    const struct engine *engine;
    struct buf *out;
    int64_t now_ns;
    uint32_t n_listed, n_groups;
    bool truncated;
    uint32_t count[ENGINE_CLASSES][STATES];
    struct str groups[HTTP_QUEUE_MAX]; /* [n_groups] prefix_id of each listed request that has one */
};

static void put_known(struct buf *out, const char *name, int64_t value)
{
    if (value)
        buf_printf(out, ",\"%s\":%" PRId64, name, value);
    else
        buf_printf(out, ",\"%s\":null", name);
}

static void put_request(struct view *v, const struct http_open *o, const struct engine_slot_view *s)
{
    const struct api_hints *h = o->hints;
    const struct http_timing *t = o->timing;
    int64_t waited_ns = (t->first_ns ? t->first_ns : v->now_ns) - t->arrival_ns;
    buf_puts(v->out, v->n_listed++ ? ",{\"id\":" : "{\"id\":");
    buf_put_json(v->out, str_from(o->id));
    buf_printf(v->out, ",\"choice\":%u,\"class\":\"%s\",\"state\":\"%s\",\"priority\":%d,\"strict_priority\":%d", o->choice,
               engine_class_name(t->cls), state_names[s->state], h->priority, h->strict_priority);
    buf_printf(v->out, ",\"n_prompt\":%u,\"n_computed\":%u,\"n_output\":%u,\"n_blocks\":%u,\"n_preempted\":%u", o->prompt->n,
               s->n_computed, s->n_output, s->n_blocks, s->n_preempted);
    buf_printf(v->out, ",\"waited_ms\":%" PRId64 ",\"latency_sensitivity\":%.6g", waited_ns / NS_PER_MS,
               h->latency_sensitivity);
    put_known(v->out, "osl", h->osl);
    put_known(v->out, "iat", h->iat_ms);
    buf_puts(v->out, ",\"prefix_id\":");
    if (h->prefix_id.n) {
        buf_put_json(v->out, h->prefix_id);
        v->groups[v->n_groups++] = h->prefix_id;
    } else {
        buf_puts(v->out, "null");
    }
    buf_putc(v->out, '}');
}

static void visit(void *ctx, const struct http_open *o)
{
    struct view *v = ctx;
    struct engine_slot_view s;
    if (!engine_slot_view(v->engine, o->slot, o->gen, &s))
        return; /* it ended, and its END event is on its way */
    v->count[o->timing->cls][s.state]++;
    if (v->n_listed < HTTP_QUEUE_MAX)
        put_request(v, o, &s);
    else
        v->truncated = true;
}

static void put_counts(const struct view *v)
{
    buf_puts(v->out, "],\"classes\":{");
    for (uint32_t cls = 0; cls < ENGINE_CLASSES; cls++) {
        buf_printf(v->out, "%s\"%s\":{", cls ? "," : "", engine_class_name(cls));
        for (int s = ENGINE_SLOT_QUEUED; s < STATES; s++)
            buf_printf(v->out, "%s\"%s\":%u", s > ENGINE_SLOT_QUEUED ? "," : "", state_names[s], v->count[cls][s]);
        buf_putc(v->out, '}');
    }
    buf_puts(v->out, "}");
}

static int compare(const void *a, const void *b)
{
    const struct str *x = a, *y = b;
    int order = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

static void put_groups(struct view *v)
{
    qsort(v->groups, v->n_groups, sizeof *v->groups, compare);
    buf_puts(v->out, ",\"groups\":[");
    for (uint32_t i = 0, n; i < v->n_groups; i += n) {
        for (n = 1; i + n < v->n_groups && str_eq(v->groups[i], v->groups[i + n]);)
            n++;
        buf_puts(v->out, i ? ",{\"prefix_id\":" : "{\"prefix_id\":");
        buf_put_json(v->out, v->groups[i]);
        buf_printf(v->out, ",\"requests\":%u}", n);
    }
    buf_puts(v->out, "]");
}

void http_queue_put(const struct http_jobs *jobs, const struct engine *g, int64_t now_ns, struct buf *out)
{
    struct view *v = mem_zalloc(1, sizeof *v);
    if (!v) {
        out->failed = ST_ENOMEM;
        return;
    }
    v->engine = g;
    v->out = out;
    v->now_ns = now_ns;
    buf_puts(out, "{\"requests\":[");
    http_jobs_visit(jobs, visit, v);
    put_counts(v);
    put_groups(v);
    buf_printf(out, ",\"truncated\":%s}", v->truncated ? "true" : "false");
    mem_free(v);
}
