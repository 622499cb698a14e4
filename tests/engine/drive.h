/* drive: plays a list of requests against an engine from one thread, and holds it to its contract on the way: events only of
 * live generations, one END each, last, with counts that agree; afterwards no block and no slot is missing.
 *
 * Owns     nothing; outputs go to the jobs' arrays.
 * Bounds   gives up (test fails) when the engine is silent for DRIVE_TIMEOUT_MS.
 */
#ifndef STATOR_TEST_DRIVE_H
#define STATOR_TEST_DRIVE_H

#include "engine.h"

#include <poll.h>
#include <string.h>
#include <time.h>

enum { DRIVE_TIMEOUT_MS = 60000, DRIVE_TOKENS_MAX = 256, DRIVE_NEVER = 0x7fffffff };

struct job {
    struct engine_request r;
    int32_t prompt[DRIVE_TOKENS_MAX];
    struct be_bias bias[4];
    uint32_t submit_at;    /* once this many events were seen */
    uint32_t cancel_after; /* of its own tokens; DRIVE_NEVER */
    uint32_t cancel_at;    /* events seen; DRIVE_NEVER */
    bool submitted, ended, cancel_sent;
    uint32_t slot, gen;
    int32_t out[DRIVE_TOKENS_MAX];
    float logprobs[DRIVE_TOKENS_MAX];
    uint32_t n_out, n_cached;
    uint8_t finish;
    int32_t status;
};

struct drive {
    struct engine *g;
    struct job *jobs;
    uint32_t n_jobs, events, ended, busy;
    uint32_t pop_pause;    /* not 0: sleeps a little after every so many events, a slow consumer */
    int submit_fails_with; /* a status that submit may also return; the job then counts as ended */
};

static inline void drive_submit(struct drive *d)
{
    bool idle = true; /* nothing on its way: whoever comes next comes now */
    for (uint32_t i = 0; i < d->n_jobs; i++)
        idle &= !d->jobs[i].submitted || d->jobs[i].ended;
    for (uint32_t i = 0; i < d->n_jobs; i++) {
        struct job *j = &d->jobs[i];
        if (j->submitted || (j->submit_at > d->events && !idle))
            continue;
        struct err e = {0};
        int rc = engine_submit(d->g, &j->r, &j->slot, &j->gen, &e);
        if (rc == ST_EBUSY) {
            d->busy++;
            return;
        }
        j->submitted = true;
        idle &= rc != ST_OK;
        if (rc != ST_OK && rc == d->submit_fails_with) {
            j->ended = true;
            j->finish = ENGINE_FINISH_ERROR;
            d->ended++;
        } else if (rc != ST_OK) {
            fail_msg("submit: %s", e.text);
        }
        if (j->cancel_after == 0)
            engine_cancel(d->g, j->slot, j->gen);
    }
}

static inline void drive_cancel(struct drive *d)
{
    for (uint32_t i = 0; i < d->n_jobs; i++) {
        struct job *j = &d->jobs[i];
        if (j->submitted && !j->ended && !j->cancel_sent &&
            (j->n_out >= j->cancel_after || d->events >= j->cancel_at)) {
            engine_cancel(d->g, j->slot, j->gen);
            engine_cancel(d->g, j->slot, j->gen + 1); /* another generation: must be ignored */
            j->cancel_sent = true;
        }
    }
}

static inline void drive_event(struct drive *d, const struct engine_event *ev)
{
    struct job *j = NULL;
    for (uint32_t i = 0; i < d->n_jobs; i++)
        if (d->jobs[i].submitted && !d->jobs[i].ended && d->jobs[i].slot == ev->slot)
            j = &d->jobs[i];
    if (!j)
        fail_msg("event for slot %u without a live request", ev->slot);
    assert_int_equal(ev->gen, j->gen);
    d->events++;
    if (ev->type == ENGINE_TOKEN) {
        assert_true(j->n_out < j->r.max_tokens);
        j->logprobs[j->n_out] = ev->sample.logprob;
        j->out[j->n_out++] = ev->sample.token;
        return;
    }
    assert_int_equal(ev->type, ENGINE_END);
    assert_int_equal(ev->n_output, j->n_out);
    assert_int_equal(ev->n_prompt, j->r.n_prompt);
    assert_true(ev->n_cached < j->r.n_prompt);
    assert_true(ev->finish != ENGINE_FINISH_LENGTH || j->n_out == j->r.max_tokens);
    j->ended = true;
    j->finish = ev->finish;
    j->status = ev->status;
    j->n_cached = ev->n_cached;
    d->ended++;
    engine_release(d->g, j->slot, j->gen);
    engine_release(d->g, j->slot, j->gen); /* stale by now: must be ignored */
}

static inline void drive_run(struct drive *d)
{
    while (d->ended < d->n_jobs) {
        struct engine_event ev;
        drive_submit(d);
        if (engine_pop_event(d->g, &ev)) {
            drive_event(d, &ev);
            drive_cancel(d);
            if (d->pop_pause && d->events % d->pop_pause == 0) {
                struct timespec ts = {.tv_nsec = 200000};
                nanosleep(&ts, NULL);
            }
        } else if (d->ended < d->n_jobs && engine_event_sleep(d->g)) {
            struct pollfd p = {.fd = engine_event_fd(d->g), .events = POLLIN};
            if (poll(&p, 1, DRIVE_TIMEOUT_MS) != 1)
                fail_msg("the engine is silent: %u of %u requests ended", d->ended, d->n_jobs);
            engine_event_drain_fd(d->g);
        }
    }
}

/* The last step's numbers are published just after its events. */
static inline void drive_check_empty(struct engine *g)
{
    struct engine_stats st;
    for (int i = 0; i < 5000; i++) {
        engine_stats(g, &st);
        if (st.running + st.waiting == 0 && st.blocks_free + st.blocks_cached == st.blocks_total)
            return;
        struct timespec ts = {.tv_nsec = 1000000};
        nanosleep(&ts, NULL);
    }
    fail_msg("leak: %u running, %u waiting, %u free + %u cached of %u blocks", st.running, st.waiting,
             st.blocks_free, st.blocks_cached, st.blocks_total);
}

#endif
