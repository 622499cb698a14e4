/* One pass over the open requests writes their list and counts them; the counts are written behind it. Groups are the runs of
 * equal names after a sort: no table to bound. A count that engine_stats could give is taken from the pass instead, so that
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
static const char *const door_names[] = {[LEDGER_HTTP] = "http", [LEDGER_DYNAMO] = "dynamo"};

/* Two ways in which requests belong together. */
enum { BY_PREFIX, BY_SESSION, GROUPINGS };
static const char *const group_names[GROUPINGS] = {[BY_PREFIX] = "prefix_id", [BY_SESSION] = "session_id"};

struct groups {
    uint32_t n;
    struct str names[HTTP_QUEUE_MAX]; /* [n] of each listed request that has one */
};

struct view {
    const struct engine *engine;
    struct buf *out;
    int64_t now_ns;
    uint32_t n_listed;
    bool truncated;
    uint32_t count[ENGINE_CLASSES][STATES];
    struct groups groups[GROUPINGS];
};

static void put_known(struct buf *out, const char *name, int64_t value)
{
    if (value)
        buf_printf(out, ",\"%s\":%" PRId64, name, value);
    else
        buf_printf(out, ",\"%s\":null", name);
}

static void put_group(struct view *v, int by, struct str name)
{
    buf_printf(v->out, ",\"%s\":", group_names[by]);
    if (name.n) {
        buf_put_json(v->out, name);
        v->groups[by].names[v->groups[by].n++] = name;
    } else {
        buf_puts(v->out, "null");
    }
}

static void put_request(struct view *v, const struct ledger_request *r, const struct engine_slot_view *s)
{
    const struct timing *t = r->timing;
    int64_t waited_ns = (t->first_ns ? t->first_ns : v->now_ns) - t->arrival_ns;
    buf_puts(v->out, v->n_listed++ ? ",{\"id\":" : "{\"id\":");
    buf_put_json(v->out, str_from(r->name->id));
    buf_printf(v->out, ",\"choice\":%u,\"via\":\"%s\",\"class\":\"%s\",\"state\":\"%s\",\"priority\":%d,\"strict_priority\":%d",
               r->name->choice, door_names[r->name->door], engine_class_name(t->cls), state_names[s->state], r->priority,
               r->strict_priority);
    buf_printf(v->out, ",\"n_prompt\":%u,\"n_computed\":%u,\"n_output\":%u,\"n_blocks\":%u,\"n_preempted\":%u", r->n_prompt,
               s->n_computed, s->n_output, s->n_blocks, s->n_preempted);
    buf_printf(v->out, ",\"waited_ms\":%" PRId64 ",\"latency_sensitivity\":%.6g", waited_ns / NS_PER_MS,
               (double)r->latency_sensitivity);
    put_known(v->out, "osl", r->expected_output_tokens);
    put_known(v->out, "iat", r->iat_ms);
    put_group(v, BY_PREFIX, r->name->prefix_id);
    put_group(v, BY_SESSION, r->name->session_id);
    buf_putc(v->out, '}');
}

static void visit(void *ctx, const struct ledger_request *r)
{
    struct view *v = ctx;
    struct engine_slot_view s;
    if (!engine_slot_view(v->engine, r->slot, r->gen, &s))
        return; /* it ended, and its END event is on its way */
    v->count[r->timing->cls][s.state]++;
    if (v->n_listed < HTTP_QUEUE_MAX)
        put_request(v, r, &s);
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

static void put_groups(struct view *v, int by)
{
    struct groups *g = &v->groups[by];
    qsort(g->names, g->n, sizeof *g->names, compare);
    for (uint32_t i = 0, n; i < g->n; i += n) {
        for (n = 1; i + n < g->n && str_eq(g->names[i], g->names[i + n]);)
            n++;
        bool first = i == 0 && (by == 0 || v->groups[0].n == 0);
        buf_printf(v->out, "%s{\"%s\":", first ? "" : ",", group_names[by]);
        buf_put_json(v->out, g->names[i]);
        buf_printf(v->out, ",\"requests\":%u}", n);
    }
}

void http_queue_put(const struct ledger *l, int64_t now_ns, struct buf *out)
{
    struct view *v = mem_zalloc(1, sizeof *v);
    if (!v) {
        out->failed = ST_ENOMEM;
        return;
    }
    v->engine = ledger_engine(l);
    v->out = out;
    v->now_ns = now_ns;
    buf_puts(out, "{\"requests\":[");
    ledger_visit(l, visit, v);
    put_counts(v);
    buf_puts(out, ",\"groups\":[");
    put_groups(v, BY_PREFIX);
    put_groups(v, BY_SESSION);
    buf_printf(out, "],\"truncated\":%s}", v->truncated ? "true" : "false");
    mem_free(v);
}
