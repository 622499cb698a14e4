/* A job is a small state machine that the io thread advances when something is known: the prompt, a token, an end. It never
 * waits. The engine is spoken to in (slot, generation) pairs; the ledger maps them back. A dropped job drops what it has open
 * there and is gone: tokens find nobody, the END is counted. So a client may vanish at any point without a second clean-up
 * path. */
#define _GNU_SOURCE
#include "http_job.h"

#include "api_limits.h"
#include "clock.h"
#include "http_lane.h"
#include "http_reply.h"
#include "http_seq.h"
#include "log.h"
#include "mem.h"
#include "random.h"
#include "stop.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

_Static_assert((int)API_STOP_MAX == (int)STOP_MAX && (int)API_STOP_BYTES_MAX == (int)STOP_BYTES_MAX,
               "one limit");
_Static_assert((int)API_TOP_LOGPROBS_MAX == (int)BE_LOGPROBS_MAX && (int)API_BIAS_MAX == (int)ENGINE_BIAS_MAX,
               "one limit");

struct http_job {
    struct http_job *prev, *next;
    struct http_jobs *jobs;
    enum api_endpoint endpoint;
    enum http_job_state state;
    bool on_lane, dropped, broken;
    struct buf body;
    struct http_prompt prompt;
    struct stop_set stops;
    struct http_seq *seqs; /* [n_seqs], prompt-major */
    uint32_t n_seqs, n_open;
    int status;
    struct err err;
    struct http_reply reply;
    size_t frame_max; /* the longest frame yet: a call is held until it is whole */
    char id[48], session[API_HINT_BYTES_MAX];
    struct str session_id; /* in `session` */
    uint32_t cls; /* of priority; of a call without hints until the prompt is known */
    int64_t arrival_ns;
    void (*wake)(void *ctx);
    void *wake_ctx;
};

struct http_jobs {
    struct http_jobs_options o;
    struct http_job *first;
    uint32_t count;
    struct http_lane *lane; /* for long bodies */
};

/* ---- life -------------------------------------------------------------------------------------------------------- */

int http_jobs_create(struct http_jobs **out, const struct http_jobs_options *o)
{
    struct http_jobs *jobs = mem_zalloc(1, sizeof *jobs);
    if (!jobs)
        return ST_ENOMEM;
    jobs->o = *o;
    int st = http_lane_create(&jobs->lane);
    if (st) {
        mem_free(jobs);
        return st;
    }
    *out = jobs;
    return ST_OK;
}

static void job_free(struct http_job *j)
{
    if (j->prev)
        j->prev->next = j->next;
    else
        j->jobs->first = j->next;
    if (j->next)
        j->next->prev = j->prev;
    for (uint32_t i = 0; i < j->n_seqs; i++)
        http_seq_fini(&j->seqs[i]);
    mem_free(j->seqs);
    stop_set_fini(&j->stops);
    http_prompt_fini(&j->prompt);
    buf_fini(&j->body);
    http_reply_fini(&j->reply);
    mem_free(j);
}

void http_jobs_destroy(struct http_jobs *jobs)
{
    if (!jobs)
        return;
    http_lane_destroy(jobs->lane);
    for (struct http_job *j = jobs->first, *next; j; j = next) {
        next = j->next;
        job_free(j);
    }
    mem_free(jobs);
}

uint32_t http_jobs_count(const struct http_jobs *jobs)
{
    return jobs->count;
}

static void cancel_open(struct http_job *j)
{
    for (uint32_t i = 0; i < j->n_seqs; i++)
        if (j->seqs[i].open)
            ledger_cancel(j->jobs->o.ledger, j->seqs[i].slot, j->seqs[i].gen);
}

static void drop_open(struct http_job *j)
{
    for (uint32_t i = 0; i < j->n_seqs; i++)
        if (j->seqs[i].open)
            ledger_drop(j->jobs->o.ledger, j->seqs[i].slot, j->seqs[i].gen);
}

void http_job_drop(struct http_job *j)
{
    assert(!j->dropped);
    drop_open(j);
    j->dropped = true;
    j->jobs->count--;
    if (!j->on_lane)
        job_free(j);
}

/* ---- output ------------------------------------------------------------------------------------------------------ */

static void fail(struct http_job *j, int status, const char *text)
{
    if (j->status == ST_OK) {
        j->status = status;
        if (text != j->err.text)
            err_set(&j->err, status, "%s", text);
    }
    cancel_open(j);
}

static struct api_usage usage_of(const struct http_job *j)
{
    struct api_usage u = {0};
    uint32_t n = (uint32_t)j->prompt.request.sampling.n;
    for (uint32_t i = 0; i < j->n_seqs; i++) {
        u.completion += j->seqs[i].n_tokens;
        if (i % n == 0) { /* a prompt counts once, however many choices it has */
            u.prompt += j->prompt.list[i / n].n;
            u.cached += j->seqs[i].n_cached;
        }
    }
    return u;
}

static void finish(struct http_job *j)
{
    const struct api_request *a = &j->prompt.request;
    struct api_usage usage = usage_of(j);
    bool streams = http_job_streams(j);
    j->state = HTTP_JOB_DONE;
    if (streams) {
        http_reply_end(&j->reply, j->status, j->err.text, a->include_usage ? &usage : NULL);
    } else if (!j->status) {
        http_reply_whole(&j->reply, j->seqs, j->n_seqs, a->logprobs >= 0, &usage);
        if (j->reply.out.failed)
            fail(j, ST_ENOMEM, "out of memory for the reply");
    }
}

/* False: the choice has nothing to say yet. */
static bool frame(struct http_job *j, uint32_t index)
{
    size_t before = j->reply.out.n;
    if (!http_job_streams(j) || !http_reply_frame(&j->reply, &j->seqs[index], index))
        return false;
    size_t bytes = j->reply.out.n - before;
    j->frame_max = bytes > j->frame_max ? bytes : j->frame_max;
    return true;
}

/* After every change: is the client still able to follow? A piece of each choice may have come just now: no time to read them. */
static void changed(struct http_job *j)
{
    size_t unread = http_reply_unread(&j->reply), pieces = j->n_seqs * j->frame_max;
    bool behind = http_job_streams(j) && !j->reply.ended && unread > j->jobs->o.stream_bytes_max + pieces;
    if (!j->broken && (j->reply.out.failed || behind)) {
        log_warn_limited("http", "client reads too slowly id=%s unread_bytes=%zu", j->id, unread);
        j->broken = true;
        fail(j, ST_ECANCEL, "the client reads too slowly");
    }
    j->wake(j->wake_ctx);
}

long http_job_read(struct http_job *j, char *out, size_t max)
{
    return j->broken ? -2 : http_reply_read(&j->reply, out, max);
}

struct buf http_job_take_reply(struct http_job *j)
{
    struct buf b = j->reply.out;
    j->reply.out = (struct buf){0};
    return b;
}

enum http_job_state http_job_state(const struct http_job *j)
{
    return j->state;
}

/* A call that was refused before it ran has an ordinary error reply even if it asked for a stream. */
bool http_job_streams(const struct http_job *j)
{
    return j->n_seqs && j->prompt.request.stream;
}

int http_job_status(const struct http_job *j)
{
    return j->status;
}

const char *http_job_text(const struct http_job *j)
{
    return j->err.text;
}

uint32_t http_job_retry_after_s(const struct http_job *j)
{
    return engine_retry_after_s(ledger_engine(j->jobs->o.ledger), j->cls);
}

bool http_job_broken(const struct http_job *j)
{
    return j->broken;
}

/* ---- to the engine ----------------------------------------------------------------------------------------------- */

static void on_event(void *ctx, uint32_t index, const struct engine_event *ev);

static int submit_one(struct http_job *j, const struct be_bias *bias, uint32_t index)
{
    struct http_jobs *jobs = j->jobs;
    uint32_t slot = 0, gen = 0;
    struct engine_request r;
    http_prompt_fill(&j->prompt, jobs->o.model, index, random_u64(), &r);
    r.arrival_ns = j->arrival_ns;
    r.bias = bias;
    r.n_bias = j->prompt.request.n_bias;
    const struct ledger_name name = {.door = LEDGER_HTTP,
                                     .id = j->id,
                                     .choice = index,
                                     .prefix_id = j->prompt.request.hints.prefix_id,
                                     .session_id = j->session_id};
    const struct ledger_owner owner = {.event = on_event, .ctx = j, .tag = index};
    int st = ledger_submit(jobs->o.ledger, &r, &name, &owner, &slot, &gen, &j->err);
    if (st)
        return st;
    const struct answer_options answer = http_prompt_answer(&j->prompt, jobs->o.model);
    http_seq_init(&j->seqs[index], slot, gen, &answer);
    j->n_seqs = index + 1;
    j->n_open++;
    return ST_OK;
}

static int submit(struct http_job *j)
{
    const struct api_request *a = &j->prompt.request;
    uint32_t total = j->prompt.n * (uint32_t)a->sampling.n;
    int st = stop_set_init(&j->stops, a->stop, a->n_stop);
    struct be_bias *bias = mem_zalloc(a->n_bias ? a->n_bias : 1, sizeof *bias);
    j->seqs = mem_zalloc(total, sizeof *j->seqs);
    if (st || !bias || !j->seqs)
        st = ST_ENOMEM;
    for (uint32_t i = 0; !st && i < a->n_bias; i++)
        bias[i] = (struct be_bias){a->bias[i].token, a->bias[i].add};
    for (uint32_t i = 0; !st && i < total; i++)
        st = submit_one(j, bias, i);
    mem_free(bias);
    return st;
}

/* All or nothing: when one choice finds no place, those before it are given back and the call is refused as a whole. */
static void refuse(struct http_job *j, int status)
{
    drop_open(j);
    for (uint32_t i = 0; i < j->n_seqs; i++)
        http_seq_fini(&j->seqs[i]);
    j->n_seqs = j->n_open = 0;
    j->status = status;
    if (!j->err.text[0])
        err_set(&j->err, status, "%s",
                status == ST_EBUSY ? "The server is busy: every place in the queue is taken; try again later"
                                   : status_text(status));
    j->state = HTTP_JOB_DONE;
}

/* The prompt is known, or why there is none. */
static void prepared(struct http_job *j)
{
    const struct api_hints *hints = &j->prompt.request.hints;
    if (!j->status) {
        metrics_count_hints(ledger_metrics(j->jobs->o.ledger), hints->clamped);
        j->cls = engine_class(ledger_engine(j->jobs->o.ledger), hints->priority, hints->strict_priority);
        j->status = submit(j);
    }
    if (j->status) {
        refuse(j, j->status);
        return;
    }
    const struct http_model *m = j->jobs->o.model;
    struct str model = j->prompt.request.model;
    const struct api_head head = {.endpoint = j->endpoint,
                                  .id = str_from(j->id),
                                  .model = model.n ? model : m->names[0],
                                  .created = clock_wall_s(),
                                  .usage_null = j->prompt.request.include_usage};
    http_reply_begin(&j->reply, &head, m->tok);
    j->state = HTTP_JOB_RUNNING;
}

static void prepare(void *ctx)
{
    struct http_job *j = ctx;
    j->status = http_prompt_make(&j->prompt, j->jobs->o.model, j->endpoint, buf_str(&j->body), &j->err);
    buf_fini(&j->body);
}

static void on_lane_done(void *ctx)
{
    struct http_job *j = ctx;
    j->on_lane = false;
    if (j->dropped) {
        job_free(j);
        return;
    }
    prepared(j);
    j->wake(j->wake_ctx);
}

static int send_to_lane(struct http_job *j)
{
    const struct http_lane_piece piece = {.work = prepare, .done = on_lane_done, .ctx = j};
    int st = http_lane_push(j->jobs->lane, &piece);
    j->on_lane = !st;
    return st;
}

static void take_session(struct http_job *j, struct str session)
{
    bool whole = session.n <= sizeof j->session;
    j->session_id = (struct str){j->session, whole ? session.n : utf8_complete((struct str){session.p, sizeof j->session})};
    if (session.n)
        memcpy(j->session, session.p, j->session_id.n);
}

struct http_job *http_job_start(struct http_jobs *jobs, enum api_endpoint endpoint, struct buf *body, struct str session,
                                void (*wake)(void *ctx), void *ctx)
{
    struct http_job *j = mem_zalloc(1, sizeof *j);
    if (!j)
        return NULL;
    *j = (struct http_job){.jobs = jobs,
                           .endpoint = endpoint,
                           .body = *body,
                           .next = jobs->first,
                           .cls = engine_class(ledger_engine(jobs->o.ledger), 0, 0),
                           .arrival_ns = clock_now_ns(),
                           .wake = wake,
                           .wake_ctx = ctx};
    *body = (struct buf){0};
    take_session(j, session);
    if (jobs->first)
        jobs->first->prev = j;
    jobs->first = j;
    jobs->count++;
    snprintf(j->id, sizeof j->id, "%s-%016" PRIx64 "%08" PRIx32, endpoint == API_CHAT ? "chatcmpl" : "cmpl",
             random_u64(), (uint32_t)random_u64());
    if (j->body.n <= HTTP_INLINE_BYTES) {
        prepare(j);
        prepared(j);
    } else if (send_to_lane(j)) {
        refuse(j, ST_EBUSY);
    }
    return j;
}

/* ---- from the engine and the lane -------------------------------------------------------------------------------- */

static void on_token(struct http_job *j, uint32_t index, const struct engine_event *ev)
{
    struct http_seq *s = &j->seqs[index];
    if (j->status || s->scan.hit)
        return;
    int st =
        http_seq_token(s, j->jobs->o.model->tok, &j->stops, &ev->sample, j->prompt.request.logprobs >= 0);
    if (st)
        fail(j, st, "out of memory for the text");
    else if (s->scan.hit)
        ledger_finish(j->jobs->o.ledger, s->slot, s->gen);
    if (!st && frame(j, index))
        changed(j);
}

static void on_end(struct http_job *j, uint32_t index, const struct engine_event *ev)
{
    struct http_seq *s = &j->seqs[index];
    bool good = ev->finish == ENGINE_FINISH_STOP || ev->finish == ENGINE_FINISH_LENGTH || s->scan.hit;
    s->open = false;
    s->n_cached = ev->n_cached;
    j->n_open--;
    if (good && !j->status) {
        int st = http_seq_end(s, &j->stops, ev->finish == ENGINE_FINISH_LENGTH);
        if (st)
            fail(j, st, "out of memory for the text");
        else
            frame(j, index);
    } else if (ev->finish == ENGINE_FINISH_ERROR) {
        fail(j, ev->status ? ev->status : ST_EINTERNAL, "The request failed in the engine");
    } else {
        fail(j, ST_EDRAIN, "The server is shutting down");
    }
    if (j->n_open == 0)
        finish(j);
    changed(j);
}

static void on_event(void *ctx, uint32_t index, const struct engine_event *ev)
{
    if (ev->type == ENGINE_TOKEN)
        on_token(ctx, index, ev);
    else
        on_end(ctx, index, ev);
}

void http_jobs_poll(struct http_jobs *jobs)
{
    http_lane_poll(jobs->lane);
}

bool http_jobs_sleep(struct http_jobs *jobs)
{
    return http_lane_sleep(jobs->lane);
}

int http_jobs_fd(const struct http_jobs *jobs)
{
    return http_lane_fd(jobs->lane);
}

void http_jobs_drain_fd(struct http_jobs *jobs)
{
    http_lane_drain_fd(jobs->lane);
}

void http_jobs_tick(struct http_jobs *jobs, int64_t now_ns)
{
    int64_t silence = (int64_t)jobs->o.keepalive_ms * NS_PER_MS;
    for (struct http_job *j = jobs->first; j; j = j->next) {
        if (j->dropped || j->state != HTTP_JOB_RUNNING || !http_job_streams(j) ||
            now_ns - j->reply.last_ns < silence)
            continue;
        http_reply_keep_alive(&j->reply, now_ns);
        changed(j);
    }
}

void http_jobs_fail_all(struct http_jobs *jobs, int status, const char *text)
{
    for (struct http_job *j = jobs->first; j; j = j->next)
        if (!j->dropped && j->state == HTTP_JOB_RUNNING)
            fail(j, status, text);
}
