/* The loop is one thread that owns everything behind the two rings:
 *
 *   submit, cancel --> inbox ring --> [ drain -> schedule -> build batch -> forward -> sample -> commit -> emit ] --> events ring
 *
 * Hand-over. A slot's memory belongs to the submitting thread until its SUBMIT message, then to the engine until its END
 * event. A slot therefore has at most three messages in the inbox: the CANCEL of a request that ended by itself meanwhile,
 * and SUBMIT and CANCEL of the one that took the slot after it, which cannot end before its SUBMIT and all in front of it were
 * popped. The inbox is sized for that: pushing there never fails.
 *
 * Steps under way. Where the backend runs beside the host (depth 2), step n+1 is planned, built and launched while n runs, so
 * that the device goes from one to the next without the host in between:
 *
 *   host     launch n+1 | wait n, commit n, emit n | launch n+2 | wait n+1, ...
 *   device   ... n                 | n+1                           | n+2 ...
 *
 * What step n draws is needed by n+1 and not known: it stands in the request's tokens as BE_TOKEN_PREV and the device looks it
 * up. When a request ends at n while a row of it runs in n+1, it ends at once; the row's result is stale and dropped (the
 * scheduler's epoch), and so it goes with a preempted sequence. At depth 1 the same loop launches and waits in turn: on a CPU
 * a planner that runs beside the step would steal the cores it overlaps with.
 *
 * Back-pressure. The events ring keeps room for one END per slot at all times; a step is launched only when every row of it, and
 * of those under way, could still emit a token besides. When the consumer is slow the engine sleeps until the consumer has
 * popped, and goes on hearing its inbox: a cancel must not wait for the client that it is about.
 *
 * Faults. An op that fails is sticky by the backend's contract, so there is nothing to retry: every request ends with the
 * status, and so does each later one; steps under way are waited for and forgotten. A row whose logits are not finite fails
 * alone. */
#define _GNU_SOURCE
#include "engine_state.h"

#include "clock.h"
#include "kv_event.h"
#include "log.h"

#include <assert.h>
#include <poll.h>
#include <string.h>

static int64_t now_ns(const struct engine *g)
{
    return g->core.now_ns ? g->core.now_ns(g->core.ctx) : clock_now_ns();
}

/* ---- emit --------------------------------------------------------------------------------------------------------------- */

static void push_event(struct engine *g, const struct engine_event *ev)
{
    int rc = ring_push_quiet(g->events, ev); /* publish wakes the consumer once for all of a step */
    assert(rc == ST_OK);                     /* room_for_step and one END per slot */
    (void)rc;
    g->pushed++;
}

static void emit_token(struct engine *g, uint32_t slot, const struct be_sample_out *drawn)
{
    struct engine_event ev = {.slot = slot,
                              .gen = req_at(g->reqs, slot)->gen,
                              .type = ENGINE_TOKEN,
                              .sample = *drawn,
                              .t_ns = g->now_ns};
    push_event(g, &ev);
}

/* The slot is the consumer's from here on: everything that reads it stands before the push. */
static void end_request(struct engine *g, uint32_t slot, enum engine_finish finish, int status)
{
    struct req *q = req_at(g->reqs, slot);
    struct sched_seq *s = sched_seq(g->sched, slot);
    if (!q->scheduled_ns)
        learn_started(&g->learn, s, q); /* it never will */
    if (finish == ENGINE_FINISH_STOP || finish == ENGINE_FINISH_LENGTH)
        learn_ended(&g->learn, s, q, kv_prefix_residence_ns(g->kv), g->now_ns);
    sched_remove(g->sched, slot, g->now_ns);
    uint32_t last = g->live[--g->n_live];
    g->live[g->live_at[slot]] = last;
    g->live_at[last] = g->live_at[slot];
    struct engine_event ev = {.slot = slot,
                              .gen = q->gen,
                              .type = ENGINE_END,
                              .finish = (uint8_t)finish,
                              .status = status,
                              .n_prompt = q->n_prompt,
                              .n_cached = q->n_cached,
                              .n_output = q->n_output,
                              .cls = s->cls,
                              .n_preempted = s->n_preempted,
                              .arrival_ns = q->arrival_ns,
                              .scheduled_ns = q->scheduled_ns,
                              .first_token_ns = q->first_token_ns,
                              .t_ns = g->now_ns};
    push_event(g, &ev);
}

static void end_all(struct engine *g, enum engine_finish finish, int status)
{
    while (g->n_live > 0)
        end_request(g, g->live[g->n_live - 1], finish, status);
}

static uint64_t under_way(const struct engine *g)
{
    return g->n_launched - g->n_completed;
}

static bool room_for_step(struct engine *g)
{
    uint64_t used = g->pushed - atomic_load(&g->popped);
    return used + g->limits.n_slots + (under_way(g) + 1) * g->o.max_num_seqs <= g->event_capacity;
}

static bool has_requests(const struct engine *g)
{
    return sched_running(g->sched) + sched_waiting(g->sched) > 0;
}

static void publish(struct engine *g, bool all)
{
    if (g->announced != g->pushed)
        ring_wake(g->events);
    g->announced = g->pushed;
    if (g->kv_events)
        kv_events_flush(g->kv_events);
    engine_publish(g, all);
}

/* ---- the steps of the loop ------------------------------------------------------------------------------------------------ */

static void take_submit(struct engine *g, uint32_t slot)
{
    struct sched_seq *s = sched_seq(g->sched, slot);
    g->live_at[slot] = g->n_live;
    g->live[g->n_live++] = slot;
    learn_arrived(&g->learn, s, req_at(g->reqs, slot), g->o.policy.priorities, g->now_ns);
    sched_submit(g->sched, slot, g->now_ns);
    if (g->failed_status != ST_OK)
        end_request(g, slot, ENGINE_FINISH_ERROR, g->failed_status);
}

static void take_cancel(struct engine *g, uint32_t slot, uint32_t gen)
{
    struct req *q = req_at(g->reqs, slot);
    /* After its END the slot is not ours to read, not even its generation: look at our own list. */
    if (g->live_at[slot] >= g->n_live || g->live[g->live_at[slot]] != slot || q->gen != gen)
        return;
    atomic_fetch_add(&g->stats.cancelled, 1);
    end_request(g, slot, ENGINE_FINISH_CANCEL, ST_OK);
}

static void drain(struct engine *g)
{
    struct message m;
    bool woke = false;
    g->now_ns = now_ns(g);
    while (ring_pop(g->inbox, &m)) {
        if (m.type == MSG_CANCEL) {
            take_cancel(g, m.slot, m.gen);
            continue;
        }
        if (!woke && g->o.be->ops->wake)
            g->o.be->ops->wake(g->o.be);
        woke = true;
        take_submit(g, m.slot);
    }
}

static void note_admissions(struct engine *g, const struct sched_plan *plan)
{
    for (uint32_t i = 0; i < plan->n_admitted; i++) {
        struct req *q = req_at(g->reqs, plan->admitted[i]);
        const struct sched_seq *s = sched_seq(g->sched, plan->admitted[i]);
        if (q->scheduled_ns)
            continue; /* back from preemption */
        learn_started(&g->learn, s, q);
        q->scheduled_ns = g->now_ns;
        q->n_cached = s->n_matched;
        atomic_fetch_add(&g->stats.prefix_query_tokens, q->n_prompt);
        atomic_fetch_add(&g->stats.prefix_hit_tokens, q->n_cached);
    }
    atomic_fetch_add(&g->stats.preemptions, plan->n_preempted);
}

static void note_preemptions(struct engine *g, const struct sched_plan *plan)
{
    static const char *const what[SCHED_RESOURCES] = {"a place", "blocks", "growth"};
    for (uint32_t i = 0; i < plan->n_preempted; i++) {
        const struct sched_preemption *p = &plan->preempted[i];
        const struct sched_seq *v = sched_seq(g->sched, p->victim), *x = sched_seq(g->sched, p->taker);
        log_debug("engine",
                  "preempted: slot %u (priority %d, %u of %u tokens) gives way to slot %u (priority %d, %u tokens) for %s; "
                  "it %s",
                  p->victim, v->priority, v->n_tokens, v->n_max, p->taker, x->priority, x->n_tokens, what[p->resource],
                  v->holds ? "keeps its blocks" : "lets its blocks go");
    }
}

/* What may be drawn next; the token before it is known (needs_tokens). */
static const uint32_t *allowed(struct engine *g, const struct req *q, uint32_t at)
{
    uint32_t *bits = g->allowed + (size_t)at * g->mask_words;
    grammar_mask(q->guide, g->walk, bits, g->core.vocab);
    for (uint32_t i = 0; i < q->n_stop && !q->ignore_eos && grammar_can_end(q->guide); i++)
        bits[q->stop[i] / 32] |= 1u << q->stop[i] % 32;
    return bits;
}

static void build_batch(struct engine *g, struct batch *b, const struct sched_plan *plan)
{
    batch_reset(b);
    for (uint32_t i = 0; i < plan->n_rows; i++) {
        const struct sched_row *row = &plan->rows[i];
        struct req *q = req_at(g->reqs, row->slot);
        int32_t at = batch_add(b, q->tokens, q->table, row->start, row->n, row->sample);
        if (at < 0)
            continue;
        uint32_t position = row->start + row->n; /* of the token to be drawn */
        req_sample_row(q, position, (uint32_t)at, &b->sample[at]);
        if (q->grammar)
            b->sample[at].allowed = allowed(g, q, (uint32_t)at);
        q->tokens[position] = BE_TOKEN_PREV(at); /* until take_token knows it */
    }
}

/* Launches the step of this batch. An op that fails does not keep end_step from launching what is there: then it is under way. */
static int forward_and_sample(struct engine *g, const struct batch *b, struct err *e)
{
    struct be *be = g->o.be;
    int rc = be->ops->begin_step(be, &b->be);
    if (rc != ST_OK)
        return err_set(e, rc, "begin of step: %s", status_text(rc));
    rc = g->core.forward(g->core.ctx, &b->be, g->be_kv, g->logits);
    struct op_sample p = {.n_rows = b->be.n_logits,
                          .vocab = g->core.vocab,
                          .logits = g->logits,
                          .rows = b->sample,
                          .out = b->drawn};
    if (rc == ST_OK && p.n_rows > 0)
        rc = be->ops->sample(be, &p);
    int rc_end = be->ops->end_step(be, e);
    if (rc_end == ST_OK)
        g->n_launched++;
    if (rc == ST_OK || rc_end != ST_OK)
        return rc_end; /* with its text: a backend that refused an op says there which, and why */
    return err_set(e, rc, "an operation of the step failed: %s", status_text(rc));
}

/* One drawn token: into the sequence, out to the client, and perhaps the end. */
static void take_token(struct engine *g, uint32_t slot, const struct be_sample_out *drawn)
{
    struct req *q = req_at(g->reqs, slot);
    if (!q->first_token_ns) {
        q->first_token_ns = g->now_ns;
        atomic_fetch_add(&g->stats.prompt_tokens, q->n_prompt);
    }
    if (drawn->token >= 0 && req_is_stop(q, drawn->token)) {
        end_request(g, slot, ENGINE_FINISH_STOP, ST_OK);
        return;
    }
    if (drawn->token < 0 || (uint32_t)drawn->token >= g->core.vocab ||
        (q->grammar && !grammar_push_token(q->guide, (uint32_t)drawn->token))) {
        end_request(g, slot, ENGINE_FINISH_ERROR, ST_EINTERNAL);
        return;
    }
    req_append(q, drawn->token);
    sched_append(g->sched, slot);
    atomic_fetch_add(&g->stats.output_tokens, 1);
    emit_token(g, slot, drawn);
    if (q->grammar && grammar_must_end(q->guide))
        end_request(g, slot, ENGINE_FINISH_STOP, ST_OK);
    else if (q->n_output == q->max_tokens)
        end_request(g, slot, ENGINE_FINISH_LENGTH, ST_OK);
}

static void commit_and_emit(struct engine *g, const struct step *s)
{
    const struct be_sample_out *drawn = s->batch->drawn;
    for (uint32_t i = 0; i < s->n_rows; i++)
        if (sched_row_live(g->sched, &s->rows[i]))
            sched_commit(g->sched, &s->rows[i]);
    for (uint32_t i = 0; i < s->n_rows; i++) {
        if (!s->rows[i].sample)
            continue;
        if (sched_row_live(g->sched, &s->rows[i]))
            take_token(g, s->rows[i].slot, drawn);
        drawn++;
    }
}

/* The backend is done with our memory and blocks after this, whatever it says. */
static void drop_steps(struct engine *g)
{
    for (; under_way(g) > 0; g->n_completed++)
        g->o.be->ops->wait_step(g->o.be, NULL);
}

static void fail(struct engine *g, int status, const struct err *e)
{
    log_error("engine", "device failed, no more requests are taken: %s", e->text);
    g->failed_status = status;
    atomic_store(&g->stats.failed, true);
    end_all(g, ENGINE_FINISH_ERROR, status);
    drop_steps(g);
}

/* Sleeps until the inbox has a message or somebody kicks it; the caller's loop looks again at what it waits for. */
static void sleep_for_inbox(struct engine *g, int timeout_ms)
{
    if (!ring_sleep(g->inbox))
        return;
    struct pollfd p = {.fd = ring_fd(g->inbox), .events = POLLIN};
    poll(&p, 1, timeout_ms);
    ring_drain_fd(g->inbox);
}

/* The consumer looks at want_room after it popped, we look at popped after we set want_room: one of us sees the other. */
static void wait_for_room(struct engine *g)
{
    publish(g, true);
    atomic_store(&g->want_room, true);
    if (!room_for_step(g) && !atomic_load(&g->stopping))
        sleep_for_inbox(g, -1);
    atomic_store(&g->want_room, false);
}

/* With copies under way it looks again soon: they pin blocks, and nobody else tells that they are done. */
static void wait_for_work(struct engine *g)
{
    publish(g, true);
    if (!atomic_load(&g->stopping))
        sleep_for_inbox(g, sched_moving(g->sched) > 0 ? COPY_POLL_MS : -1);
}

static void check(const struct engine *g)
{
    const char *why = "";
    bool ok = sched_check(g->sched, &why);
    if (!ok)
        log_error("engine", "%s", why);
    assert(ok);
}

static void launch(struct engine *g, const struct sched_plan *plan)
{
    struct err e = {0};
    struct step *s = &g->steps[g->n_launched % g->depth];
    build_batch(g, s->batch, plan);
    s->drained_ns = g->now_ns;
    s->begun_ns = now_ns(g);
    int rc = forward_and_sample(g, s->batch, &e);
    if (rc != ST_OK) {
        fail(g, rc, &e);
        return;
    }
    s->n_rows = plan->n_rows;
    s->n_tokens = plan->n_tokens;
    s->load = plan->load;
    memcpy(s->rows, plan->rows, plan->n_rows * sizeof *s->rows);
    for (uint32_t i = 0; i < plan->n_rows; i++)
        sched_launch(g->sched, &plan->rows[i]);
}

/* The next step, if anybody can run in one. */
static bool plan_and_launch(struct engine *g)
{
    struct err e = {0};
    const struct sched_plan *plan = sched_plan(g->sched, g->now_ns);
    note_admissions(g, plan);
    note_preemptions(g, plan);
    assert(plan->n_rows > 0 || under_way(g) > 0 || sched_moving(g->sched) > 0 || g->o.test_seed);
    int rc = g->offload ? offload_put(g->offload, g->sched, plan, g->now_ns, &e) : ST_OK;
    if (rc != ST_OK)
        fail(g, rc, &e);
    else if (plan->n_rows > 0)
        launch(g, plan);
    return rc == ST_OK && plan->n_rows > 0;
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Waits for the oldest step and takes its results. */
static void complete(struct engine *g)
{
    struct err e = {0};
    const struct step *s = &g->steps[g->n_completed % g->depth];
    int rc = g->o.be->ops->wait_step(g->o.be, &e);
    g->n_completed++;
    if (rc != ST_OK) {
        fail(g, rc, &e);
        return;
    }
    g->now_ns = now_ns(g);
    uint64_t device_ns = (uint64_t)(g->now_ns - later(s->begun_ns, g->completed_ns));
    g->completed_ns = g->now_ns;
    learn_step(&g->learn, s->batch->be.n_logits, s->n_tokens - s->batch->be.n_logits, (int64_t)device_ns);
    sched_step_took(g->sched, &s->load, (int64_t)device_ns);
    commit_and_emit(g, s);
    int64_t end_ns = now_ns(g);
    atomic_fetch_add(&g->stats.steps, 1);
    atomic_fetch_add(&g->stats.step_rows, s->n_tokens);
    atomic_fetch_add(&g->stats.device_ns, device_ns);
    atomic_fetch_add(&g->stats.step_ns, (uint64_t)(end_ns - later(s->drained_ns, g->emitted_ns)));
    g->emitted_ns = end_ns;
}

/* Tests: now and then a step is waited for although another could be launched. */
static bool waits_early(struct engine *g)
{
    if (!g->o.test_seed || under_way(g) == 0)
        return false;
    g->test_rng = g->test_rng * 6364136223846793005u + 1442695040888963407u;
    return g->test_rng >> 62 == 0;
}

bool engine_turn(struct engine *g)
{
    drain(g);
    if (g->offload)
        offload_poll(g->offload, g->sched, g->now_ns);
    bool launched = under_way(g) < g->depth && has_requests(g) && room_for_step(g) && !waits_early(g) &&
                    plan_and_launch(g);
    if (launched && under_way(g) < g->depth)
        return true; /* the device can be given one more before it is waited for */
    bool busy = under_way(g) > 0;
    if (busy)
        complete(g);
    if (g->o.test_seed)
        check(g);
    publish(g, !busy);
    return busy;
}

void *engine_loop(void *arg)
{
    struct engine *g = arg;
    while (!atomic_load(&g->stopping)) {
        if (engine_turn(g))
            continue;
        if (has_requests(g) && room_for_step(g))
            sleep_for_inbox(g, COPY_POLL_MS); /* all wait for copies */
        else if (has_requests(g))
            wait_for_room(g);
        else
            wait_for_work(g);
    }
    engine_wind_up(g);
    return NULL;
}

void engine_wind_up(struct engine *g)
{
    drain(g);
    end_all(g, ENGINE_FINISH_CANCEL, ST_ECANCEL);
    drop_steps(g);
    if (g->offload)
        offload_abandon(g->offload, g->sched, g->now_ns);
    publish(g, true);
}
