/* The loop is one thread that owns everything behind the two rings:
 *
 *   submit, cancel --> inbox ring --> [ drain -> schedule -> build batch -> forward -> sample -> commit -> emit ] --> events ring
 *
 * Hand-over. A slot's memory belongs to the submitting thread until its SUBMIT message, then to the engine until its END
 * event. Each live request therefore has at most one SUBMIT and one CANCEL in the inbox, which is sized for that: pushing
 * there never fails.
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
#include "engine_core.h"

#include "batch.h"
#include "clock.h"
#include "hash.h"
#include "log.h"
#include "mem.h"
#include "req.h"
#include "ring.h"
#include "scheduler.h"

#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum message_type { MSG_SUBMIT = 1, MSG_CANCEL };

struct message {
    uint32_t type, slot, gen;
};

struct counters {
    _Atomic uint32_t running, waiting, blocks_free, blocks_cached;
    _Atomic uint64_t prefix_query_tokens, prefix_hit_tokens, prompt_tokens, output_tokens;
    _Atomic uint64_t steps, preemptions, cancelled, step_rows, step_ns, device_ns;
    _Atomic bool failed;
};

struct engine {
    struct engine_options o;
    struct engine_core core;
    struct req_limits limits;
    uint8_t fingerprint[HASH_BYTES];
    struct req_table *reqs;
    struct ring *inbox, *events;
    pthread_t thread;
    bool started;
    _Atomic bool stopping;

    /* submitting thread */
    uint32_t *free_slots; /* [n_slots] */
    uint32_t n_free_slots;

    /* engine thread */
    struct kv_prefix *kv;
    struct sched *sched;
    struct batch *batch;
    struct be_kv *be_kv;
    float *logits;     /* backend buffer [max_num_seqs][vocab] */
    uint32_t *live;    /* [n_slots] slots with an unfinished request, for the day when all must end */
    uint32_t *live_at; /* [n_slots] place in live */
    uint32_t n_live;
    uint64_t pushed;
    uint64_t event_capacity;
    int64_t now_ns;
    int failed_status;

    _Atomic uint64_t popped;
    _Atomic bool want_room;
    struct counters stats;
};

/* ---- create, start, destroy ------------------------------------------------------------------------------------------ */

static int create_parts(struct engine *g, struct err *e)
{
    const struct engine_options *o = &g->o;
    uint32_t n_slots = g->limits.n_slots;
    int rc = req_table_create(&g->reqs, &g->limits, e);
    if (rc == ST_OK)
        rc = kv_prefix_create(&g->kv, o->n_blocks, e);
    struct sched_options so = {.n_slots = n_slots,
                               .max_num_seqs = o->max_num_seqs,
                               .max_num_batched_tokens = o->max_num_batched_tokens,
                               .test_seed = o->test_seed};
    if (rc == ST_OK)
        rc = sched_create(&g->sched, &so, g->kv, e);
    if (rc == ST_OK)
        rc = batch_create(&g->batch, o->max_num_batched_tokens, o->max_num_seqs, o->block_tokens, e);
    if (rc != ST_OK)
        return rc;
    g->event_capacity = (uint64_t)n_slots + 4 * (uint64_t)o->max_num_seqs;
    g->free_slots = mem_zalloc(n_slots, sizeof *g->free_slots);
    g->live = mem_zalloc(n_slots, sizeof *g->live);
    g->live_at = mem_zalloc(n_slots, sizeof *g->live_at);
    if (!g->free_slots || !g->live || !g->live_at ||
        ring_create(&g->inbox, 2 * n_slots, sizeof(struct message)) != ST_OK ||
        ring_create(&g->events, (uint32_t)g->event_capacity, sizeof(struct engine_event)) != ST_OK)
        return err_set(e, ST_ENOMEM, "engine: no memory for %u request slots", n_slots);
    for (uint32_t i = 0; i < n_slots; i++)
        g->free_slots[i] = n_slots - 1 - i;
    g->n_free_slots = n_slots;
    return ST_OK;
}

static int create_device_parts(struct engine *g, struct err *e)
{
    struct be *be = g->o.be;
    size_t bytes;
    int rc = be->ops->kv_create(be, &g->core.kv, &g->be_kv, e);
    if (rc != ST_OK)
        return rc;
    if (!mem_mul(g->core.vocab, g->o.max_num_seqs, &bytes) || !mem_mul(bytes, sizeof(float), &bytes) ||
        !(g->logits = be->ops->buffer_create(be, bytes)))
        return err_set(e, ST_ENOMEM, "engine: no memory for %u rows of logits", g->o.max_num_seqs);
    return ST_OK;
}

static int check_options(const struct engine_options *o, const struct engine_core *c, struct err *e)
{
    if (o->block_tokens == 0 || o->block_tokens % 16 != 0 || o->block_tokens > 4096)
        return err_set(e, ST_EINVAL, "block-size %u: a multiple of 16, at most 4096", o->block_tokens);
    if (o->max_num_seqs == 0 || o->max_num_seqs > 65536 || o->max_queue > 1u << 20)
        return err_set(e, ST_EINVAL, "max-num-seqs %u (1 to 65536), max-queue %u (to 1048576)",
                       o->max_num_seqs, o->max_queue);
    if ((uint64_t)o->n_blocks * o->block_tokens > UINT32_MAX)
        return err_set(e, ST_EINVAL, "%u KV blocks of %u tokens: at most 2^32 - 1 positions", o->n_blocks,
                       o->block_tokens);
    if (c->vocab == 0 || c->vocab > INT32_MAX)
        return err_set(e, ST_EINVAL, "vocabulary of %u tokens", c->vocab);
    return ST_OK;
}

int engine_core_create(struct engine **out, const struct engine_options *o, const struct engine_core *c,
                       struct err *e)
{
    int rc = check_options(o, c, e);
    if (rc != ST_OK)
        return rc;
    struct engine *g = mem_zalloc(1, sizeof *g);
    if (!g)
        return err_set(e, ST_ENOMEM, "engine: no memory");
    g->o = *o;
    g->core = *c;
    g->core.fingerprint = NULL; /* the caller's */
    g->core.kv.block_tokens = o->block_tokens;
    g->core.kv.n_blocks = o->n_blocks;
    g->core.kv.type = o->kv_type;
    g->limits = (struct req_limits){.n_slots = o->max_num_seqs + o->max_queue,
                                    .context_length = o->context_length,
                                    .block_tokens = o->block_tokens,
                                    .n_blocks = o->n_blocks,
                                    .vocab = c->vocab};
    /* The same weights with KV of another type are another computation. */
    struct hash h;
    hash_init(&h);
    hash_update(&h, c->fingerprint, c->fingerprint_bytes);
    hash_update(&h, be_type_name(o->kv_type), strlen(be_type_name(o->kv_type)));
    hash_final(&h, g->fingerprint);
    rc = create_parts(g, e);
    if (rc == ST_OK)
        rc = create_device_parts(g, e);
    if (rc != ST_OK) {
        engine_destroy(g);
        return rc;
    }
    atomic_store(&g->stats.blocks_free, o->n_blocks);
    *out = g;
    return ST_OK;
}

static void *engine_main(void *arg);

int engine_start(struct engine *g, struct err *e)
{
    int rc = pthread_create(&g->thread, NULL, engine_main, g);
    if (rc != 0)
        return err_set(e, ST_ENOMEM, "engine: no thread: %s", strerror(rc));
    g->started = true;
    return ST_OK;
}

void engine_destroy(struct engine *g)
{
    if (!g)
        return;
    if (g->started) {
        atomic_store(&g->stopping, true);
        ring_kick(g->inbox);
        pthread_join(g->thread, NULL);
    }
    if (g->logits)
        g->o.be->ops->buffer_destroy(g->o.be, g->logits);
    if (g->be_kv)
        g->o.be->ops->kv_destroy(g->o.be, g->be_kv);
    batch_destroy(g->batch);
    sched_destroy(g->sched);
    kv_prefix_destroy(g->kv);
    req_table_destroy(g->reqs);
    ring_destroy(g->inbox);
    ring_destroy(g->events);
    mem_free(g->free_slots);
    mem_free(g->live);
    mem_free(g->live_at);
    mem_free(g);
}

/* ---- submitting thread ------------------------------------------------------------------------------------------------ */

static void send(struct engine *g, enum message_type type, uint32_t slot, uint32_t gen)
{
    struct message m = {.type = type, .slot = slot, .gen = gen};
    int rc = ring_push(g->inbox, &m);
    assert(rc == ST_OK);
    (void)rc;
}

int engine_submit(struct engine *g, const struct engine_request *r, uint32_t *slot_out, uint32_t *gen_out,
                  struct err *e)
{
    int rc = req_validate(&g->limits, r, e);
    if (rc != ST_OK)
        return rc;
    if (atomic_load(&g->stopping))
        return err_set(e, ST_EDRAIN, "the engine is shutting down");
    if (atomic_load(&g->stats.failed))
        return err_set(e, ST_EDEVICE, "the device has failed; the worker must be restarted");
    if (g->n_free_slots == 0)
        return err_set(e, ST_EBUSY, "all %u request slots are in use", g->limits.n_slots);
    uint32_t slot = g->free_slots[--g->n_free_slots];
    struct req *q = req_at(g->reqs, slot);
    req_fill(q, r);
    q->used = true;
    q->ended = q->cancelling = false;
    struct sched_seq *s = sched_seq(g->sched, slot);
    *s = (struct sched_seq){.n_prompt = r->n_prompt, .n_tokens = r->n_prompt};
    s->kv = (struct kv_seq){.table = q->table,
                            .ids = g->o.prefix_caching ? q->ids : NULL,
                            .tokens = q->tokens,
                            .block_tokens = g->o.block_tokens,
                            .cap_blocks = kv_seq_blocks_for(g->limits.context_length, g->o.block_tokens)};
    if (g->o.prefix_caching) {
        kv_id_root(&s->kv.root, g->fingerprint, sizeof g->fingerprint, r->cache_salt, sizeof r->cache_salt);
        kv_seq_hash(&s->kv, r->n_prompt);
    }
    *slot_out = slot;
    *gen_out = q->gen;
    send(g, MSG_SUBMIT, slot, q->gen);
    return ST_OK;
}

static struct req *req_of(struct engine *g, uint32_t slot, uint32_t gen)
{
    if (slot >= g->limits.n_slots)
        return NULL;
    struct req *q = req_at(g->reqs, slot);
    return q->used && q->gen == gen ? q : NULL;
}

void engine_cancel(struct engine *g, uint32_t slot, uint32_t gen)
{
    struct req *q = req_of(g, slot, gen);
    if (!q || q->ended || q->cancelling)
        return;
    q->cancelling = true;
    send(g, MSG_CANCEL, slot, gen);
}

void engine_release(struct engine *g, uint32_t slot, uint32_t gen)
{
    struct req *q = req_of(g, slot, gen);
    if (!q || !q->ended)
        return;
    q->used = false;
    q->gen++;
    g->free_slots[g->n_free_slots++] = slot;
}

int engine_event_fd(const struct engine *g)
{
    return ring_fd(g->events);
}

bool engine_pop_event(struct engine *g, struct engine_event *out)
{
    if (!ring_pop(g->events, out))
        return false;
    if (out->type == ENGINE_END)
        req_at(g->reqs, out->slot)->ended = true;
    atomic_fetch_add(&g->popped, 1);
    if (atomic_load(&g->want_room) && atomic_exchange(&g->want_room, false))
        ring_kick(g->inbox);
    return true;
}

bool engine_event_sleep(struct engine *g)
{
    return ring_sleep(g->events);
}

void engine_event_drain_fd(struct engine *g)
{
    ring_drain_fd(g->events);
}

uint32_t engine_slots(const struct engine *g)
{
    return g->limits.n_slots;
}

uint32_t engine_blocks_for(const struct engine *g, uint32_t n_tokens)
{
    return kv_seq_blocks_for(n_tokens, g->o.block_tokens);
}

void engine_stats(const struct engine *g, struct engine_stats *out)
{
    const struct counters *c = &g->stats;
    *out = (struct engine_stats){
        .running = atomic_load(&c->running),
        .waiting = atomic_load(&c->waiting),
        .blocks_total = g->o.n_blocks,
        .blocks_free = atomic_load(&c->blocks_free),
        .blocks_cached = atomic_load(&c->blocks_cached),
        .prefix_query_tokens = atomic_load(&c->prefix_query_tokens),
        .prefix_hit_tokens = atomic_load(&c->prefix_hit_tokens),
        .prompt_tokens = atomic_load(&c->prompt_tokens),
        .output_tokens = atomic_load(&c->output_tokens),
        .steps = atomic_load(&c->steps),
        .preemptions = atomic_load(&c->preemptions),
        .cancelled = atomic_load(&c->cancelled),
        .step_rows = atomic_load(&c->step_rows),
        .step_ns = atomic_load(&c->step_ns),
        .device_ns = atomic_load(&c->device_ns),
        .failed = atomic_load(&c->failed),
    };
}

/* ---- emit --------------------------------------------------------------------------------------------------------------- */

static void push_event(struct engine *g, const struct engine_event *ev)
{
    int rc = ring_push(g->events, ev);
    assert(rc == ST_OK); /* room_for_step and one END per slot */
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
    int rc = be->ops->begin_step(be);
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
    return rc_end;
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

/* Sleeps until the inbox has a message or somebody kicks it. `popped_before` etc. are checked by the caller's loop. */
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

static void *engine_main(void *arg)
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
