/* The loop is one thread that owns everything behind the two rings:
 *
 *   submit, cancel --> inbox ring --> [ drain -> schedule -> build batch -> forward -> sample -> commit -> emit ] --> events ring
 *
 * Hand-over. A slot's memory belongs to the submitting thread until its SUBMIT message, then to the engine until its END
 * event. A slot therefore has at most three messages in the inbox: the CANCEL of a request that ended by itself meanwhile,
 * and SUBMIT and CANCEL of the one that took the slot after it, which cannot end before its SUBMIT and all in front of it were
 * popped. The inbox is sized for that: pushing there never fails.
 *
 * Back-pressure. The events ring keeps room for one END per slot at all times; a step runs only when every row of it could
 * still emit a token besides. When the consumer is slow the engine sleeps until the consumer has popped, and goes on hearing
 * its inbox: a cancel must not wait for the client that it is about.
 *
 * Faults. An op that fails is sticky by the backend's contract, so there is nothing to retry: every request ends with the
 * status, and so does each later one. A row whose logits are not finite fails alone.
 *
 * Rejected: look-ahead planning of step n+1 while n runs. On a CPU the planner would steal the cores it overlaps with; the
 * whole of schedule, build, commit and emit is microseconds (bench/engine.c prints it). */
#define _GNU_SOURCE
#include "engine_state.h"

#include "clock.h"
#include "log.h"

#include <assert.h>
#include <poll.h>

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
    sched_remove(g->sched, slot);
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

static bool room_for_step(struct engine *g)
{
    uint64_t used = g->pushed - atomic_load(&g->popped);
    return used + g->limits.n_slots + g->o.max_num_seqs <= g->event_capacity;
}

static void publish(struct engine *g)
{
    if (g->announced != g->pushed)
        ring_wake(g->events);
    g->announced = g->pushed;
    struct kv_pool *pool = kv_prefix_pool(g->kv);
    atomic_store(&g->stats.running, sched_running(g->sched));
    atomic_store(&g->stats.waiting, sched_waiting(g->sched));
    atomic_store(&g->stats.blocks_free, kv_pool_free(pool));
    atomic_store(&g->stats.blocks_cached, kv_pool_cached(pool));
}

/* ---- the steps of the loop ------------------------------------------------------------------------------------------------ */

static void take_submit(struct engine *g, uint32_t slot)
{
    g->live_at[slot] = g->n_live;
    g->live[g->n_live++] = slot;
    sched_submit(g->sched, slot);
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
    g->now_ns = clock_now_ns();
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
        q->scheduled_ns = g->now_ns;
        q->n_cached = s->n_matched;
        atomic_fetch_add(&g->stats.prefix_query_tokens, q->n_prompt);
        atomic_fetch_add(&g->stats.prefix_hit_tokens, q->n_cached);
    }
    atomic_fetch_add(&g->stats.preemptions, plan->n_preempted);
}

static void build_batch(struct engine *g, const struct sched_plan *plan)
{
    batch_reset(g->batch);
    for (uint32_t i = 0; i < plan->n_rows; i++) {
        const struct sched_row *row = &plan->rows[i];
        const struct req *q = req_at(g->reqs, row->slot);
        int32_t at = batch_add(g->batch, q->tokens, q->table, row->start, row->n, row->sample);
        if (at >= 0)
            req_sample_row(q, (uint32_t)at, &g->batch->sample[at]);
    }
}

static int forward_and_sample(struct engine *g, struct err *e)
{
    struct be *be = g->o.be;
    int rc = be->ops->begin_step(be, &g->batch->be);
    if (rc != ST_OK)
        return err_set(e, rc, "begin of step: %s", status_text(rc));
    rc = g->core.forward(g->core.ctx, &g->batch->be, g->be_kv, g->logits);
    struct op_sample p = {.n_rows = g->batch->be.n_logits,
                          .vocab = g->core.vocab,
                          .logits = g->logits,
                          .rows = g->batch->sample,
                          .out = g->batch->drawn};
    if (rc == ST_OK && p.n_rows > 0)
        rc = be->ops->sample(be, &p);
    int rc_end = be->ops->end_step(be, e);
    if (rc != ST_OK)
        return err_set(e, rc, "an operation of the step failed: %s", status_text(rc));
    return rc_end == ST_OK ? be->ops->wait_step(be, e) : rc_end;
}

/* One drawn token: into the sequence, out to the client, and perhaps the end. */
static void take_token(struct engine *g, uint32_t slot, const struct be_sample_out *drawn)
{
    struct req *q = req_at(g->reqs, slot);
    if (!q->first_token_ns) {
        q->first_token_ns = g->now_ns;
        atomic_fetch_add(&g->stats.prompt_tokens, q->n_prompt);
    }
    if (drawn->token < 0 || (uint32_t)drawn->token >= g->core.vocab) {
        end_request(g, slot, ENGINE_FINISH_ERROR, ST_EINTERNAL);
        return;
    }
    if (req_is_stop(q, drawn->token)) {
        end_request(g, slot, ENGINE_FINISH_STOP, ST_OK);
        return;
    }
    req_append(q, drawn->token);
    sched_append(g->sched, slot);
    atomic_fetch_add(&g->stats.output_tokens, 1);
    emit_token(g, slot, drawn);
    if (q->n_output == q->max_tokens)
        end_request(g, slot, ENGINE_FINISH_LENGTH, ST_OK);
}

static void commit_and_emit(struct engine *g, const struct sched_plan *plan)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < plan->n_rows; i++)
        sched_commit(g->sched, &plan->rows[i]);
    for (uint32_t i = 0; i < plan->n_rows; i++)
        if (plan->rows[i].sample)
            take_token(g, plan->rows[i].slot, &g->batch->drawn[at++]);
}

static void fail(struct engine *g, int status, const struct err *e)
{
    log_error("engine", "device failed, no more requests are taken: %s", e->text);
    g->failed_status = status;
    atomic_store(&g->stats.failed, true);
    end_all(g, ENGINE_FINISH_ERROR, status);
}

/* Sleeps until the inbox has a message or somebody kicks it; the caller's loop looks again at what it waits for. */
static void sleep_for_inbox(struct engine *g)
{
    if (!ring_sleep(g->inbox))
        return;
    struct pollfd p = {.fd = ring_fd(g->inbox), .events = POLLIN};
    poll(&p, 1, -1);
    ring_drain_fd(g->inbox);
}

/* The consumer looks at want_room after it popped, we look at popped after we set want_room: one of us sees the other. */
static void wait_for_room(struct engine *g)
{
    publish(g);
    atomic_store(&g->want_room, true);
    if (!room_for_step(g) && !atomic_load(&g->stopping))
        sleep_for_inbox(g);
    atomic_store(&g->want_room, false);
}

static void wait_for_work(struct engine *g)
{
    publish(g);
    if (!atomic_load(&g->stopping))
        sleep_for_inbox(g);
}

static void check(const struct engine *g)
{
    const char *why = "";
    bool ok = sched_check(g->sched, &why);
    if (!ok)
        log_error("engine", "%s", why);
    assert(ok);
}

static void step(struct engine *g, const struct sched_plan *plan)
{
    struct err e = {0};
    build_batch(g, plan);
    int64_t t0 = clock_now_ns();
    int rc = forward_and_sample(g, &e);
    int64_t t1 = clock_now_ns();
    if (rc != ST_OK) {
        fail(g, rc, &e);
        return;
    }
    int64_t t_drained = g->now_ns;
    g->now_ns = t1;
    commit_and_emit(g, plan);
    atomic_fetch_add(&g->stats.steps, 1);
    atomic_fetch_add(&g->stats.step_rows, plan->n_tokens);
    atomic_fetch_add(&g->stats.device_ns, (uint64_t)(t1 - t0));
    atomic_fetch_add(&g->stats.step_ns, (uint64_t)(clock_now_ns() - t_drained));
}

void *engine_loop(void *arg)
{
    struct engine *g = arg;
    while (!atomic_load(&g->stopping)) {
        drain(g);
        if (sched_running(g->sched) + sched_waiting(g->sched) == 0) {
            wait_for_work(g);
            continue;
        }
        if (!room_for_step(g)) {
            wait_for_room(g);
            continue;
        }
        const struct sched_plan *plan = sched_plan(g->sched);
        note_admissions(g, plan);
        assert(plan->n_rows > 0 || g->o.test_seed);
        if (plan->n_rows > 0)
            step(g, plan);
        if (g->o.test_seed)
            check(g);
        publish(g);
    }
    drain(g);
    end_all(g, ENGINE_FINISH_CANCEL, ST_ECANCEL);
    publish(g);
    return NULL;
}
