/* A job stands between one stream and the engine requests of its choices. Both sides may end first. Whichever does, the other
 * is told and the job is gone in the same call: an engine request that is left behind is dropped in the ledger, and its END frees
 * the slot. So no job waits for anything, and no clean-up has a second path.
 *
 * Refusals differ in where they are said. That no place is free, or that the worker ends, is the worker's matter: it stands in
 * the ack, and a frontend may ask another worker. What is wrong with a request is the client's matter: it is an error item of
 * an accepted stream, as anything else would count against the worker. */
#define _GNU_SOURCE
#include "dyn_generate.h"

#include "api_limits.h"
#include "clock.h"
#include "dyn_item.h"
#include "grammar_schema.h"
#include "log.h"
#include "mem.h"
#include "random.h"

#include <string.h>

struct choice {
    uint32_t slot, gen;
    uint32_t n_tokens;
    bool open;    /* in the engine */
    bool reached; /* a token after which nothing more is told */
};

struct job {
    struct job *prev, *next;
    struct dyn_generate *g;
    struct dyn_stream *stream;
    struct dyn_last last[ENGINE_STOP_TOKENS_MAX];
    uint32_t n_last, min_tokens;
    bool logprobs;
    char id[DYN_ID_MAX], session[API_HINT_BYTES_MAX]; /* what an observer calls it by */
    size_t n_session;
    int64_t began_ns;
    struct dyn_usage usage;
    uint32_t n, n_open;
    struct choice choices[]; /* [n] */
};

struct dyn_generate {
    struct dyn_generate_options o;
    struct job *first;
    uint32_t count;
    struct buf item; /* scratch */
};

int dyn_generate_create(struct dyn_generate **out, const struct dyn_generate_options *o)
{
    struct dyn_generate *g = mem_zalloc(1, sizeof *g);
    if (!g)
        return ST_ENOMEM;
    g->o = *o;
    *out = g;
    return ST_OK;
}

uint32_t dyn_generate_count(const struct dyn_generate *g)
{
    return g->count;
}

/* ---- a job's end ------------------------------------------------------------------------------------------------- */

static void drop_choices(struct job *j)
{
    for (uint32_t i = 0; i < j->n; i++)
        if (j->choices[i].open)
            ledger_drop(j->g->o.ledger, j->choices[i].slot, j->choices[i].gen);
}

static void job_free(struct job *j)
{
    struct dyn_generate *g = j->g;
    *(j->prev ? &j->prev->next : &g->first) = j->next;
    if (j->next)
        j->next->prev = j->prev;
    g->count--;
    mem_free(j);
}

static void job_end(struct job *j)
{
    dyn_count_end(j->g->o.count, clock_now_ns() - j->began_ns);
    drop_choices(j);
    job_free(j);
}

void dyn_generate_destroy(struct dyn_generate *g)
{
    if (!g)
        return;
    while (g->first) {
        drop_choices(g->first);
        job_free(g->first);
    }
    buf_fini(&g->item);
    mem_free(g);
}

/* Half of an item is none: without memory for it the stream ends before its end, which frontends go on elsewhere from. */
static void put(struct dyn_generate *g, struct dyn_stream *stream)
{
    if (g->item.failed) {
        dyn_stream_break(stream);
    } else {
        g->o.count->response_bytes += g->item.n;
        dyn_stream_put(stream, buf_str(&g->item));
    }
    buf_reset(&g->item);
}

static void put_error(struct dyn_generate *g, struct dyn_stream *stream, const struct err *e, uint64_t limit,
                      uint64_t actual)
{
    dyn_item_put_error(&g->item, e, limit, actual);
    put(g, stream);
    dyn_stream_finish(stream);
}

static void job_fail(struct job *j, const struct err *e)
{
    j->g->o.count->errors[DYN_ERROR_GENERATE]++;
    put_error(j->g, j->stream, e, 0, 0);
    job_end(j);
}

void dyn_generate_stop(struct dyn_generate *g)
{
    struct err e;
    err_set(&e, ST_EDRAIN, "The worker is shutting down");
    while (g->first)
        job_fail(g->first, &e);
}

/* The frontend killed the stream, or is gone. */
static void on_ended(void *ctx, enum dyn_ending how)
{
    struct job *j = ctx;
    if (how == DYN_KILLED)
        j->g->o.count->cancellations++;
    else
        j->g->o.count->errors[DYN_ERROR_PUBLISH]++;
    job_end(j);
}

/* ---- from the engine --------------------------------------------------------------------------------------------- */

/* A token that ends the answer though the engine goes on: what it draws meanwhile is nobody's. */
static const struct dyn_last *reached(const struct job *j, const struct choice *c, int32_t token)
{
    for (uint32_t i = 0; i < j->n_last && c->n_tokens >= j->min_tokens; i++)
        if (j->last[i].token == token)
            return &j->last[i];
    return NULL;
}

static void on_token(struct job *j, uint32_t index, const struct engine_event *ev)
{
    struct choice *c = &j->choices[index];
    if (c->reached)
        return;
    const struct dyn_last *last = reached(j, c, ev->sample.token);
    if (!last || last->visible) {
        c->n_tokens++;
        dyn_item_put_token(&j->g->item, index, &ev->sample, j->logprobs);
        put(j->g, j->stream);
    }
    if (last) {
        c->reached = true;
        ledger_finish(j->g->o.ledger, c->slot, c->gen);
    }
}

static void on_end(struct job *j, uint32_t index, const struct engine_event *ev)
{
    struct choice *c = &j->choices[index];
    struct err e;
    c->open = false;
    j->n_open--;
    if (!c->reached && ev->finish == ENGINE_FINISH_ERROR) {
        err_set(&e, ev->status ? ev->status : ST_EINTERNAL, "The request failed in the engine: %s",
                status_text(ev->status));
        job_fail(j, &e);
        return;
    }
    if (!c->reached && ev->finish == ENGINE_FINISH_CANCEL) {
        err_set(&e, ST_EDRAIN, "The worker is shutting down");
        job_fail(j, &e);
        return;
    }
    j->usage.completion += c->n_tokens;
    if (index == 0) { /* choices share their prompt */
        j->usage.prompt = ev->n_prompt;
        j->usage.cached = ev->n_cached;
    }
    dyn_item_put_end(&j->g->item, index, !c->reached && ev->finish == ENGINE_FINISH_LENGTH,
                     j->n_open ? NULL : &j->usage);
    put(j->g, j->stream);
    if (j->n_open == 0) {
        dyn_stream_finish(j->stream);
        job_end(j);
    }
}

static void on_event(void *ctx, uint32_t index, const struct engine_event *ev)
{
    struct job *j = ctx;
    if (ev->type == ENGINE_TOKEN)
        on_token(j, index, ev);
    else
        on_end(j, index, ev);
}

/* ---- from the frontend ------------------------------------------------------------------------------------------- */

static struct job *job_new(struct dyn_generate *g, const struct dyn_request *r, const struct dyn_call *call)
{
    struct job *j = mem_zalloc(1, sizeof *j + r->n * sizeof *j->choices);
    if (!j)
        return NULL;
    j->g = g;
    j->stream = call->stream;
    memcpy(j->last, r->last, sizeof j->last);
    j->n_last = r->n_last;
    j->min_tokens = r->engine.min_tokens;
    j->logprobs = r->engine.n_logprobs >= 0;
    memcpy(j->id, call->control->id, sizeof j->id);
    j->n_session = r->session.n < sizeof j->session ? r->session.n : sizeof j->session;
    if (j->n_session)
        memcpy(j->session, r->session.p, j->n_session);
    j->began_ns = clock_now_ns();
    j->next = g->first;
    if (g->first)
        g->first->prev = j;
    g->first = j;
    g->count++;
    return j;
}

/* Before anything is made for the request: what can never fit is the client's matter, and what finds no place now shall not cost
 * a grammar, nor take the places of others until its last choice is refused. */
static int check_places(const struct dyn_generate *g, const struct dyn_request *r, struct err *why)
{
    const struct engine *engine = ledger_engine(g->o.ledger);
    uint32_t cls = engine_class(engine, r->engine.priority, r->engine.strict_priority);
    uint32_t places = engine_places(engine, cls), taken = ledger_open(g->o.ledger);
    if (r->n > places)
        return err_set(why, ST_EINVAL, "n: %u choices, and class %s may fill %u places", r->n,
                       engine_class_name(cls), places);
    if (taken >= places || r->n > places - taken)
        return err_set(
            why, ST_EBUSY,
            "The server is busy: %u requests are here, and class %s may fill %u places; try again later",
            taken, engine_class_name(cls), places);
    return ST_OK;
}

/* All choices or none. The second and later ones find the prompt of the first in the cache, or wait for it there. */
static int submit(struct job *j, struct dyn_request *r, struct err *e)
{
    struct engine_request *q = &r->engine;
    int st = ST_OK;
    q->arrival_ns = j->began_ns;
    if (!r->has_seed)
        q->seed = random_u64();
    for (uint32_t i = 0; i < r->n && !st; i++, q->seed++) {
        struct choice *c = &j->choices[i];
        const struct ledger_name name = {
            .door = LEDGER_DYNAMO, .id = j->id, .choice = i, .session_id = {j->session, j->n_session}};
        const struct ledger_owner owner = {.event = on_event, .ctx = j, .tag = i};
        st = ledger_submit(j->g->o.ledger, q, &name, &owner, &c->slot, &c->gen, e);
        c->open = !st;
        j->n = i + !st;
    }
    j->n_open = j->n;
    return st;
}

/* Of the worker: said in the ack. */
static bool refusal(int status, enum dyn_answer *answer)
{
    bool busy = status == ST_EBUSY || status == ST_ENOMEM;
    *answer = busy ? DYN_OVERLOADED : DYN_UNAVAILABLE;
    return busy || status == ST_EDRAIN || status == ST_EDEVICE;
}

/* The reference is given back when the call ends: the engine takes its own. */
static int guide(const struct dyn_generate *g, struct dyn_request *r, struct err *why)
{
    cJSON *guided = NULL;
    struct err inner = {0};
    if (!g->o.limits.vocab)
        return err_set(why, ST_EUNSUP, "guided_decoding: not supported by this worker");
    int st = json_parse(&guided, buf_str(&r->guided), &inner);
    if (!st)
        st = grammar_from_guided(&r->engine.grammar, guided, g->o.limits.vocab, &inner);
    json_free(guided);
    return st ? err_set(why, st, "guided_decoding: %.200s", inner.text) : ST_OK;
}

static int begin(struct dyn_generate *g, const struct dyn_call *call, struct dyn_request *r, struct err *why)
{
    int st = dyn_request_parse(r, call->body, call->n_body, &g->o.limits, why);
    if (!st)
        st = check_places(g, r, why);
    if (!st && r->guided.n)
        st = guide(g, r, why);
    if (st)
        return st;
    metrics_count_hints(ledger_metrics(g->o.ledger), r->clamped);
    struct job *j = job_new(g, r, call);
    if (!j)
        return err_set(why, ST_ENOMEM, "out of memory");
    st = submit(j, r, why);
    if (st) {
        drop_choices(j);
        job_free(j);
        return st;
    }
    dyn_stream_own(call->stream, on_ended, j);
    log_debug("dynamo", "request id=%s prompt=%u choices=%u session=%.*s", j->id, r->engine.n_prompt, r->n,
              (int)j->n_session, j->session);
    return ST_OK;
}

enum dyn_answer dyn_generate_call(void *ctx, const struct dyn_call *call, struct err *why)
{
    struct dyn_generate *g = ctx;
    struct dyn_request r = {0};
    enum dyn_answer answer = DYN_ACCEPT;
    int64_t began_ns = clock_now_ns();
    int st = begin(g, call, &r, why);
    if (!st) {
        dyn_count_begin(g->o.count, call->n_body);
    } else if (!refusal(st, &answer)) {
        answer = DYN_ACCEPT;
        dyn_count_begin(g->o.count, call->n_body);
        g->o.count->errors[st == ST_EFORMAT ? DYN_ERROR_DESERIALIZATION : DYN_ERROR_INVALID]++;
        put_error(g, call->stream, why, r.limit, r.actual);
        dyn_count_end(g->o.count, clock_now_ns() - began_ns);
    } else if (st == ST_EDRAIN) {
        err_set(why, st, "draining");
    }
    grammar_put(r.engine.grammar);
    dyn_request_fini(&r);
    return answer;
}
