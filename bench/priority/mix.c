/* One table says what each stage sends, and `ended` what follows from an end: the next of the flood, the next lone HIGH one,
 * the next stage of a pipeline. Everything else is bookkeeping.
 *
 * Steps, seen from outside. Every running LOW stream gets a token at the end of every step, so the tokens of the flood come in
 * bursts, one a step. The time between bursts is the step time, and the number of bursts between the sending of a HIGH request
 * and its first token says how many steps it waited: a count, which a slow spell of the machine does not change.
 *
 * HIGH requests arrive from the start, so that in the window as many end as arrive also where they wait for seconds: the
 * flood's tokens per second then compare between servers. The flood starts staggered (its first replies are of different
 * lengths), or all its streams would end at once and the queue would move in waves. Prompts never repeat, for a prefix cache
 * must not answer; only the stages of one pipeline begin alike, as the calls of an agent do. */
#include "mix.h"

#include "calls.h"
#include "clock.h"
#include "mem.h"
#include "prompt.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    BURST_GAP_NS = 5 * NS_PER_MS
}; /* less than any step of a full CPU worker, more than a burst takes to come out */

static const struct stage {
    const char *name;
    int priority;
    double sensitivity;
    int osl; /* 0: as the options say */
} STAGES[MIX_STAGES] = {
    [MIX_FLOOD] = {"flood", 0, 0.5, 0},       [MIX_HIGH] = {"high", 10, 1, 0},
    [MIX_CLASSIFY] = {"classify", 10, 1, 10}, [MIX_RESEARCH] = {"research", 0, 0.5, 100},
    [MIX_DRAFT] = {"draft", 5, 0.5, 50},      [MIX_REVIEW] = {"review", 10, 1, 10},
};

struct run {
    const struct mix_options *o;
    struct mix_result *r;
    struct calls *calls;
    struct buf body;
    uint64_t arrivals;             /* random state */
    int64_t due_ns;                /* of the next HIGH one */
    int64_t last_low_ns;           /* last token of the flood */
    uint32_t high_sent, high_open; /* high_open: without a first token */
    uint32_t open;                 /* beside the flood */
    uint32_t *researching;         /* [pipelines] */
    bool arriving, in_window, finishing;
    struct err *e;
    int rc;
};

const char *mix_stage_name(enum mix_stage stage)
{
    return STAGES[stage].name;
}

/* ---- sending ------------------------------------------------------------------------------------------------------------ */

static void put_body(struct run *run, enum mix_stage stage, int32_t pipeline, uint64_t index, int64_t osl)
{
    const struct mix_options *o = run->o;
    const struct stage *s = &STAGES[stage];
    const struct options plain = {.endpoint = "completions"};
    int64_t words = stage == MIX_FLOOD ? o->low_isl : stage == MIX_HIGH ? o->high_isl : o->pipeline_isl;
    uint64_t seed = (uint64_t)o->seed * 1000 + (uint64_t)(pipeline + 1);
    buf_reset(&run->body);
    prompt_body(&run->body, &plain, o->model, seed, index, words, pipeline < 0 ? 0 : words / 2, osl);
    run->body.n--; /* its last brace */
    buf_printf(&run->body,
               ",\"nvext\":{\"agent_hints\":{\"priority\":%d,\"latency_sensitivity\":%.1f,\"osl\":%lld}}}",
               s->priority, s->sensitivity, (long long)osl);
}

static void stop(struct run *run, int rc, const char *text)
{
    if (run->rc == ST_OK)
        run->rc = err_set(run->e, rc, "%s", text);
    run->finishing = true;
}

static void send_call(struct run *run, enum mix_stage stage, int32_t pipeline, int64_t osl, int64_t due_ns)
{
    struct mix_result *r = run->r;
    if (r->n == r->cap) {
        uint32_t cap = r->cap ? 2 * r->cap : 256;
        struct mix_record *grown = mem_realloc(r->records, cap * sizeof *grown);
        if (!grown) {
            stop(run, ST_ENOMEM, "no memory for records");
            return;
        }
        r->records = grown;
        r->cap = cap;
    }
    uint32_t tag = r->n++;
    r->records[tag] = (struct mix_record){.stage = (uint8_t)stage,
                                          .pipeline = pipeline,
                                          .n_high = (uint8_t)(run->high_open > 255 ? 255 : run->high_open),
                                          .window = run->in_window,
                                          .start_ns = due_ns};
    if (stage != MIX_FLOOD)
        run->open++;
    if (STAGES[stage].priority >= STAGES[MIX_HIGH].priority)
        run->high_open++;
    put_body(run, stage, pipeline, tag, osl ? osl : STAGES[stage].osl);
    calls_begin(run->calls, tag, buf_str(&run->body));
}

static void send_high(struct run *run, int64_t due_ns)
{
    run->high_sent++;
    send_call(run, MIX_HIGH, -1, run->o->high_osl, due_ns);
}

static void draw_arrival(struct run *run)
{
    double u = ((double)(prompt_random(&run->arrivals) >> 11) + 1) / 9007199254740993.0;
    run->due_ns += (int64_t)(-log(u) / run->o->high_rate * 1e9);
}

static void send_due(struct run *run, int64_t now)
{
    while (run->arriving && run->high_sent < run->o->high && run->due_ns <= now) {
        send_high(run, run->due_ns);
        draw_arrival(run);
    }
}

/* ---- what comes back ---------------------------------------------------------------------------------------------------- */

static void note_burst(struct run *run, int64_t now)
{
    struct mix_result *r = run->r;
    if (now - run->last_low_ns > BURST_GAP_NS && r->n_steps < MIX_LOG_MAX)
        r->step_ns[r->n_steps++] = now;
    run->last_low_ns = now;
}

/* Its own step's tokens may come just before its first token or just after. */
static uint32_t steps_waited(const struct run *run, const struct mix_record *record)
{
    uint32_t n = 1;
    for (uint32_t i = run->r->n_steps; i-- > 0 && run->r->step_ns[i] > record->start_ns;)
        n += run->r->step_ns[i] < record->first_ns - BURST_GAP_NS;
    return n;
}

static void on_text(void *ctx, uint32_t tag, const struct reply *reply, int64_t now)
{
    struct run *run = ctx;
    struct mix_record *record = &run->r->records[tag];
    if (record->stage == MIX_FLOOD) {
        run->r->flood_events += run->in_window ? reply->events - record->events : 0;
        note_burst(run, now);
    }
    record->events = reply->events;
    if (record->first_ns)
        return;
    record->first_ns = reply->first_ns;
    record->steps = steps_waited(run, record);
    if (STAGES[record->stage].priority >= STAGES[MIX_HIGH].priority)
        run->high_open--;
}

static void ended(struct run *run, const struct mix_record *record, int64_t now)
{
    int32_t p = record->pipeline;
    switch ((enum mix_stage)record->stage) {
    case MIX_FLOOD:
        send_call(run, MIX_FLOOD, -1, run->o->low_osl, now);
        break;
    case MIX_HIGH:
        if (run->o->high_rate <= 0 && run->high_sent < run->o->high)
            send_high(run, now);
        break;
    case MIX_CLASSIFY:
        run->researching[p] = MIX_RESEARCHERS;
        for (int i = 0; i < MIX_RESEARCHERS; i++)
            send_call(run, MIX_RESEARCH, p, 0, now);
        break;
    case MIX_RESEARCH:
        if (--run->researching[p] == 0)
            send_call(run, MIX_DRAFT, p, 0, now);
        break;
    case MIX_DRAFT:
        send_call(run, MIX_REVIEW, p, 0, now);
        break;
    default:
        break;
    }
}

static void on_done(void *ctx, uint32_t tag, const struct reply *reply, const char *error, int64_t now)
{
    struct run *run = ctx;
    struct mix_record *record = &run->r->records[tag];
    if (error || !reply->has_usage) {
        stop(run, ST_EIO, error ? error : "a reply without usage");
        return;
    }
    uint32_t n_gaps = reply->events > 1 ? reply->events - 1 : 0;
    record->done = true;
    record->done_ns = now;
    record->prompt_tokens = reply->prompt_tokens;
    record->output_tokens = reply->output_tokens;
    record->cached_tokens = reply->cached_tokens;
    record->gap_us = mem_alloc(n_gaps * sizeof *record->gap_us);
    if (record->gap_us && n_gaps)
        memcpy(record->gap_us, reply->gap_us, n_gaps * sizeof *record->gap_us);
    if (!record->gap_us)
        stop(run, ST_ENOMEM, "no memory for the times of tokens");
    run->open -= record->stage != MIX_FLOOD;
    if (!run->finishing)
        ended(run, &(struct mix_record){.stage = record->stage, .pipeline = record->pipeline}, now);
}

/* ---- the run ------------------------------------------------------------------------------------------------------------ */

static int wait_ms(const struct run *run, int64_t until, int64_t now)
{
    int64_t wait = until - now;
    if (run->arriving && run->high_sent < run->o->high && run->due_ns - now < wait)
        wait = run->due_ns - now;
    wait = (wait + NS_PER_MS - 1) / NS_PER_MS;
    return (int)(wait < 0 ? 0 : wait > 200 ? 200 : wait);
}

/* True: it is `until`. False: `open` went to 0 before (asked for by `or_idle`), or the run failed. */
static bool serve_until(struct run *run, int64_t until, bool or_idle)
{
    for (;;) {
        int64_t now = clock_now_ns();
        if (now >= until)
            return true;
        send_due(run, now);
        if (run->rc != ST_OK || (or_idle && run->open == 0))
            return false;
        calls_poll(run->calls, wait_ms(run, until, now));
    }
}

static void begin_window(struct run *run)
{
    const struct mix_options *o = run->o;
    int64_t now = clock_now_ns();
    run->in_window = true;
    run->r->begin_ns = now;
    if (o->high > 0 && o->high_rate <= 0)
        send_high(run, now);
    for (int32_t p = 0; p < o->pipelines; p++)
        send_call(run, MIX_CLASSIFY, p, 0, now);
}

static void play(struct run *run, void (*window)(bool begins))
{
    const struct mix_options *o = run->o;
    int64_t start = clock_now_ns();
    for (int64_t i = 0; i < o->low; i++)
        send_call(run, MIX_FLOOD, -1, o->low_osl * (i + 1) / o->low, start);
    run->due_ns = start;
    run->arriving = o->high_rate > 0;
    if (run->arriving)
        draw_arrival(run);
    serve_until(run, start + (int64_t)(o->settle_s * 1e9), false);
    window(true);
    begin_window(run);
    int64_t limit = run->r->begin_ns + (int64_t)(o->timeout_s * 1e9);
    if (o->seconds > 0)
        serve_until(run, run->r->begin_ns + (int64_t)(o->seconds * 1e9), false);
    else if (serve_until(run, limit, true))
        stop(run, ST_EIO, "not ended within --timeout");
    run->arriving = run->in_window = false;
    run->r->end_ns = clock_now_ns();
    window(false);
    if (run->rc == ST_OK && serve_until(run, limit, true))
        stop(run, ST_EIO, "not ended within --timeout");
    run->finishing = true;
    for (uint32_t tag = 0; tag < run->r->n; tag++)
        if (!run->r->records[tag].done)
            calls_abort(run->calls, tag);
}

int mix_run(struct mix_result *out, const struct mix_options *o, void (*window)(bool begins), struct err *e)
{
    *out = (struct mix_result){0};
    struct run run = {.o = o, .r = out, .arrivals = (uint64_t)o->seed ^ 0xa5a5, .e = e, .rc = ST_OK};
    struct calls_hooks hooks = {.ctx = &run, .on_text = on_text, .on_done = on_done};
    uint32_t cap = (uint32_t)(o->low + o->high + MIX_RESEARCHERS * o->pipelines) + 1;
    out->step_ns = mem_zalloc(MIX_LOG_MAX, sizeof *out->step_ns);
    run.researching = mem_zalloc((size_t)o->pipelines + 1, sizeof *run.researching);
    if (!out->step_ns || !run.researching)
        run.rc = err_set(e, ST_ENOMEM, "no memory");
    if (run.rc == ST_OK)
        run.rc = calls_create(&run.calls, cap, o->target, &hooks, e);
    if (run.rc == ST_OK)
        play(&run, window);
    calls_destroy(run.calls);
    buf_fini(&run.body);
    mem_free(run.researching);
    return run.rc;
}

void mix_fini(struct mix_result *r)
{
    for (uint32_t i = 0; i < r->n; i++)
        mem_free(r->records[i].gap_us);
    mem_free(r->records);
    mem_free(r->step_ns);
    *r = (struct mix_result){0};
}
