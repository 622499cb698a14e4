/* The engine's events name slots; whoever submitted knows what a slot stands for. The book between the two is kept once, here,
 * so that the endpoint and the request plane share the engine without knowing each other, and so that an operator sees one
 * list and one set of numbers: nothing is counted at a door. An event of a generation that is not the open one finds nobody.
 * The slot is released before its owner hears of the END: an owner may submit again at once.
 *
 * The engine knows how a request ended for it, which is not always how it ended for the client: one that met a stop string is
 * cancelled, and is a success. So ends that are wished for are told here, before the engine. */
#include "ledger.h"

#include "mem.h"

#include <assert.h>

struct record {
    struct record *prev, *next; /* those that a visit finds */
    struct ledger_request request;
    struct ledger_name name;
    struct timing timing;
    struct ledger_owner owner;
    bool open, finished, cancelled, dropped;
};

struct ledger {
    struct engine *engine;
    struct timing_slo slo;
    struct metrics metrics;
    struct record *first, *last;
    uint32_t n, n_open;
    struct record records[]; /* [n] by slot */
};

int ledger_create(struct ledger **out, struct engine *g, const struct timing_slo *slo)
{
    size_t bytes;
    uint32_t n = engine_slots(g);
    if (!mem_mul(n, sizeof(struct record), &bytes) || !mem_add(bytes, sizeof(struct ledger), &bytes))
        return ST_ENOMEM;
    struct ledger *l = mem_zalloc(1, bytes);
    if (!l)
        return ST_ENOMEM;
    l->engine = g;
    l->slo = *slo;
    l->n = n;
    *out = l;
    return ST_OK;
}

void ledger_destroy(struct ledger *l)
{
    mem_free(l);
}

struct engine *ledger_engine(const struct ledger *l)
{
    return l->engine;
}

struct metrics *ledger_metrics(struct ledger *l)
{
    return &l->metrics;
}

uint32_t ledger_open(const struct ledger *l)
{
    return l->n_open;
}

/* NULL: stale. */
static struct record *find(struct ledger *l, uint32_t slot, uint32_t gen)
{
    struct record *r = slot < l->n ? &l->records[slot] : NULL;
    return r && r->open && r->request.gen == gen ? r : NULL;
}

int ledger_submit(struct ledger *l, const struct engine_request *q, const struct ledger_name *name,
                  const struct ledger_owner *owner, uint32_t *slot_out, uint32_t *gen_out, struct err *e)
{
    int st = engine_submit(l->engine, q, slot_out, gen_out, e);
    if (st)
        return st;
    assert(*slot_out < l->n && !l->records[*slot_out].open);
    struct record *r = &l->records[*slot_out];
    *r = (struct record){.prev = l->last,
                         .request = {.name = &r->name,
                                     .timing = &r->timing,
                                     .slot = *slot_out,
                                     .gen = *gen_out,
                                     .n_prompt = q->n_prompt,
                                     .priority = q->priority,
                                     .strict_priority = q->strict_priority,
                                     .expected_output_tokens = q->expected_output_tokens,
                                     .latency_sensitivity = q->latency_sensitivity,
                                     .iat_ms = q->iat_ms},
                         .name = *name,
                         .owner = *owner,
                         .open = true};
    timing_init(&r->timing, engine_class(l->engine, q->priority, q->strict_priority), q->arrival_ns);
    *(l->last ? &l->last->next : &l->first) = r;
    l->last = r;
    l->n_open++;
    return ST_OK;
}

static void unlink_record(struct ledger *l, struct record *r)
{
    *(r->prev ? &r->prev->next : &l->first) = r->next;
    *(r->next ? &r->next->prev : &l->last) = r->prev;
}

void ledger_finish(struct ledger *l, uint32_t slot, uint32_t gen)
{
    struct record *r = find(l, slot, gen);
    if (!r)
        return;
    r->finished = true;
    engine_cancel(l->engine, slot, gen);
}

void ledger_cancel(struct ledger *l, uint32_t slot, uint32_t gen)
{
    struct record *r = find(l, slot, gen);
    if (!r)
        return;
    r->cancelled = true;
    engine_cancel(l->engine, slot, gen);
}

void ledger_drop(struct ledger *l, uint32_t slot, uint32_t gen)
{
    struct record *r = find(l, slot, gen);
    if (!r || r->dropped)
        return;
    r->dropped = true;
    unlink_record(l, r);
    engine_cancel(l->engine, slot, gen);
}

void ledger_visit(const struct ledger *l, void (*visit)(void *ctx, const struct ledger_request *r), void *ctx)
{
    for (const struct record *r = l->first; r; r = r->next)
        visit(ctx, &r->request);
}

static void count_end(struct ledger *l, const struct record *r, const struct engine_event *end)
{
    static const uint8_t reasons[] = {[ENGINE_FINISH_STOP] = METRICS_STOP,
                                      [ENGINE_FINISH_LENGTH] = METRICS_LENGTH,
                                      [ENGINE_FINISH_CANCEL] = METRICS_ABORT,
                                      [ENGINE_FINISH_ERROR] = METRICS_ERROR};
    assert(end->finish && end->finish < sizeof reasons);
    bool finished = r->finished && !r->dropped;
    enum metrics_finish reason = finished ? METRICS_STOP : (enum metrics_finish)reasons[end->finish];
    l->metrics.finished[end->cls][reason]++;
    bool good = (reason == METRICS_STOP || reason == METRICS_LENGTH) && !r->cancelled;
    if (!r->dropped) /* of the others nobody knows when they would have ended */
        timing_end(&r->timing, &l->slo, &l->metrics, end, good);
}

static void close_record(struct ledger *l, struct record *r, const struct engine_event *end)
{
    count_end(l, r, end);
    if (!r->dropped)
        unlink_record(l, r);
    *r = (struct record){0};
    l->n_open--;
    engine_release(l->engine, end->slot, end->gen);
}

static void hand_out(struct ledger *l, const struct engine_event *ev)
{
    struct record *r = find(l, ev->slot, ev->gen);
    if (!r)
        return;
    const struct ledger_owner owner = r->owner;
    bool told = !r->dropped;
    if (ev->type == ENGINE_END)
        close_record(l, r, ev);
    else if (told)
        timing_token(&r->timing, &l->slo, &l->metrics, ev->t_ns);
    if (told)
        owner.event(owner.ctx, owner.tag, ev);
}

bool ledger_poll(struct ledger *l)
{
    struct engine_event ev;
    for (int i = 0; i < LEDGER_BATCH; i++) {
        if (!engine_pop_event(l->engine, &ev))
            return false;
        hand_out(l, &ev);
    }
    return true;
}
