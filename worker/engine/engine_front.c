/* The side of the engine that other threads see: making and unmaking it, and the ends of the two rings that the submitting
 * thread holds. Requests are checked, copied into their slot and hashed here, on the caller's thread: the loop only ever
 * sees what can run, and never waits for a long prompt's identities. */
#include "engine_state.h"

#include "clock.h"
#include "kv_event.h"
#include "mem.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define NS_PER_MS INT64_C(1000000)

/* First guesses, an 8B model on a large GPU and a small one on few cores: the first steps correct them. */
static const struct steptime_seed seed_device = {.step_ns = 5e6, .row_ns = 2e4, .attention_ns = 0.7, .context_ns = 40},
                                  seed_host = {.step_ns = 2e6, .row_ns = 6e5, .attention_ns = 50, .context_ns = 50};

enum { SAVE_BATCH = 64 }; /* blocks a plan may save ahead of need */

/* ---- create, start, destroy ------------------------------------------------------------------------------------------ */

static int step_init(struct step *s, const struct engine_options *o, struct err *e)
{
    s->rows = mem_zalloc(o->max_num_seqs, sizeof *s->rows);
    if (!s->rows)
        return err_set(e, ST_ENOMEM, "engine: no memory for %u rows of a plan", o->max_num_seqs);
    return batch_create(&s->batch, o->max_num_batched_tokens, o->max_num_seqs, o->block_tokens, e);
}

static int64_t ns_of(uint32_t ms)
{
    return (int64_t)ms * NS_PER_MS; /* 30 s do not fit 32 bits */
}

static int create_kv_events(struct engine *g, struct err *e)
{
    const struct kv_event_options o = {.capacity = g->o.kv_event_capacity, .seed = g->o.kv_event_seed};
    int rc = kv_events_create(&g->kv_events, kv_prefix_nodes(g->kv), &o, e);
    if (rc == ST_OK)
        kv_prefix_tell(g->kv, g->kv_events);
    return rc;
}

static int create_parts(struct engine *g, struct err *e)
{
    const struct engine_options *o = &g->o;
    uint32_t n_slots = g->limits.n_slots;
    int rc = req_table_create(&g->reqs, &g->limits, e);
    if (rc == ST_OK)
        rc = kv_prefix_create(&g->kv, o->n_blocks, o->n_host_blocks, e);
    if (rc == ST_OK && o->kv_event_capacity > 0)
        rc = create_kv_events(g, e);
    struct sched_options so = {.n_slots = n_slots,
                               .max_num_seqs = o->max_num_seqs,
                               .max_num_batched_tokens = o->max_num_batched_tokens,
                               .priorities = o->policy.priorities,
                               .aging_ns = ns_of(o->policy.aging_ms),
                               .priority_clamp = o->policy.priority_clamp,
                               .batch_wait_ns = ns_of(o->policy.batch_wait_ms),
                               .max_step_ns = ns_of(o->policy.max_step_ms),
                               .slo_ttft_ns = ns_of(o->policy.slo_ttft_ms),
                               .slo_itl_ns = ns_of(o->policy.slo_itl_ms),
                               .seed = o->be->ops->memory ? seed_device : seed_host,
                               .save_batch = SAVE_BATCH,
                               .test_seed = o->test_seed};
    if (rc == ST_OK)
        rc = sched_create(&g->sched, &so, g->kv, e);
    for (uint32_t i = 0; rc == ST_OK && i < g->depth; i++)
        rc = step_init(&g->steps[i], o, e);
    if (rc != ST_OK)
        return rc;
    g->event_capacity = (uint64_t)n_slots + (3 + g->depth) * (uint64_t)o->max_num_seqs;
    g->free_slots = mem_zalloc(n_slots, sizeof *g->free_slots);
    g->live = mem_zalloc(n_slots, sizeof *g->live);
    g->live_at = mem_zalloc(n_slots, sizeof *g->live_at);
    g->views = mem_zalloc(n_slots, sizeof *g->views);
    g->mask_words = (g->core.vocab + 31) / 32;
    g->allowed = mem_zalloc((size_t)o->max_num_seqs * g->mask_words, sizeof *g->allowed); /* no page is there before it is used */
    if (!g->allowed || grammar_walk_create(&g->walk) != ST_OK)
        return err_set(e, ST_ENOMEM, "engine: no memory for %u masks of tokens", o->max_num_seqs);
    if (!g->free_slots || !g->live || !g->live_at || !g->views ||
        ring_create(&g->inbox, 3 * n_slots, sizeof(struct message)) != ST_OK ||
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
    uint64_t blocks = (uint64_t)g->o.max_num_seqs * kv_seq_blocks_for(g->o.context_length, g->o.block_tokens);
    const struct be_step_limits l = {.max_rows = g->o.max_num_batched_tokens,
                                     .max_spans = g->o.max_num_seqs,
                                     .max_logits = g->o.max_num_seqs,
                                     .max_context = g->o.context_length,
                                     .max_blocks = blocks < UINT32_MAX ? (uint32_t)blocks : UINT32_MAX,
                                     .vocab = g->core.vocab};
    rc = be->ops->step_limits(be, &l, e);
    if (rc == ST_OK && g->o.n_host_blocks > 0)
        rc = offload_create(&g->offload, be, g->be_kv, &g->core.kv, g->o.n_host_blocks, g->o.n_blocks, e);
    return rc;
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
    assert(o->be->ops->depth > 0);
    g->depth = o->be->ops->depth < ENGINE_DEPTH_MAX ? o->be->ops->depth : ENGINE_DEPTH_MAX;
    g->test_rng = o->test_seed;
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
    g->now_ns = c->now_ns ? c->now_ns(c->ctx) : clock_now_ns();
    engine_publish(g, true);
    g->ready = true;
    *out = g;
    return ST_OK;
}

int engine_start(struct engine *g, struct err *e)
{
    int rc = pthread_create(&g->thread, NULL, engine_loop, g);
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
    else if (g->ready)
        engine_wind_up(g); /* it was driven from outside, or never */
    offload_destroy(g->offload);
    if (g->logits)
        g->o.be->ops->buffer_destroy(g->o.be, g->logits);
    if (g->be_kv)
        g->o.be->ops->kv_destroy(g->o.be, g->be_kv);
    for (int i = 0; i < ENGINE_DEPTH_MAX; i++) {
        batch_destroy(g->steps[i].batch);
        mem_free(g->steps[i].rows);
    }
    sched_destroy(g->sched);
    kv_prefix_destroy(g->kv);
    kv_events_destroy(g->kv_events);
    req_table_destroy(g->reqs);
    ring_destroy(g->inbox);
    ring_destroy(g->events);
    mem_free(g->free_slots);
    mem_free(g->live);
    mem_free(g->live_at);
    mem_free(g->views);
    grammar_walk_destroy(g->walk);
    mem_free(g->allowed);
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

/* Each class above the lowest keeps a tenth of the queue for itself and those above it: a flood of low requests leaves the
 * door open for high ones. Places, not requests, are kept, so the higher class need not have come yet. */
uint32_t engine_reserved_for_higher(const struct engine *g, uint32_t cls)
{
    return g->o.policy.priorities ? (ENGINE_CLASSES - 1 - cls) * (g->o.max_queue / 10) : 0;
}

static int check_place(const struct engine *g, uint32_t cls, struct err *e)
{
    uint32_t n = g->limits.n_slots, kept = engine_reserved_for_higher(g, cls);
    if (g->n_free_slots > kept)
        return ST_OK;
    if (kept == 0)
        return err_set(e, ST_EBUSY, "The server is busy: all %u places for requests are taken; try again later", n);
    return err_set(e, ST_EBUSY,
                   "The server is busy: %u requests are here, and class %s may fill %u places (%u are kept for higher "
                   "classes); try again later",
                   n - g->n_free_slots, engine_class_name(cls), n - kept, kept);
}

static void view_begin(struct slot_view *v, uint32_t gen, uint32_t cls)
{
    atomic_store(&v->gen, gen);
    atomic_store(&v->cls, (uint8_t)cls);
    atomic_store(&v->n_computed, 0);
    atomic_store(&v->n_output, 0);
    atomic_store(&v->n_blocks, 0);
    atomic_store(&v->n_preempted, 0);
    atomic_store(&v->state, ENGINE_SLOT_QUEUED);
}

int engine_submit(struct engine *g, const struct engine_request *r, uint32_t *slot_out, uint32_t *gen_out,
                  struct err *e)
{
    int rc = req_validate(&g->limits, r, e);
    if (rc != ST_OK)
        return rc;
    if (r->grammar && !g->o.be->ops->masks)
        return err_set(e, ST_EUNSUP, "structured output is not supported on this device (%s)", g->o.be->ops->name);
    if (atomic_load(&g->stopping))
        return err_set(e, ST_EDRAIN, "the engine is shutting down");
    if (atomic_load(&g->stats.failed))
        return err_set(e, ST_EDEVICE, "the device has failed; the worker must be restarted");
    uint32_t cls = engine_class(g, r->priority, r->strict_priority);
    rc = check_place(g, cls, e);
    if (rc != ST_OK)
        return rc;
    uint32_t slot = g->free_slots[--g->n_free_slots];
    struct req *q = req_at(g->reqs, slot);
    req_fill(q, r);
    q->used = true;
    q->ended = q->cancelling = false;
    struct sched_seq *s = sched_seq(g->sched, slot);
    *s = (struct sched_seq){
        .n_prompt = r->n_prompt,
        .n_tokens = r->n_prompt,
        .n_max = r->n_prompt + r->max_tokens,
        .arrival_ns = r->arrival_ns,
        .priority = r->priority,
        .strict = r->strict_priority > 0 ? (uint32_t)r->strict_priority : 0,
        .latency = (uint8_t)(fminf(fmaxf(r->latency_sensitivity, 0), 1) * SCHED_LATENCY_MAX),
        .cls = (uint8_t)engine_class(g, r->priority, r->strict_priority),
        .needs_tokens = r->grammar != NULL};
    s->kv = (struct kv_seq){.table = q->table,
                            .ids = g->o.prefix_caching ? q->ids : NULL,
                            .tokens = q->tokens,
                            .salt_tag = r->salt_tag,
                            .block_tokens = g->o.block_tokens,
                            .cap_blocks = kv_seq_blocks_for(g->limits.context_length, g->o.block_tokens)};
    if (g->o.prefix_caching) {
        kv_id_root(&s->kv.root, g->fingerprint, sizeof g->fingerprint, r->cache_salt, sizeof r->cache_salt);
        kv_seq_hash(&s->kv, r->n_prompt);
    }
    view_begin(&g->views[slot], q->gen, cls);
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
    req_release(q);
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
    if (out->type == ENGINE_END) {
        req_at(g->reqs, out->slot)->ended = true;
        atomic_store(&g->views[out->slot].state, 0);
    }
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

uint32_t engine_places(const struct engine *g, uint32_t cls)
{
    return g->limits.n_slots - engine_reserved_for_higher(g, cls);
}

uint32_t engine_slots(const struct engine *g)
{
    return g->limits.n_slots;
}

uint32_t engine_class(const struct engine *g, int32_t priority, int32_t strict_priority)
{
    const struct engine_policy *p = &g->o.policy;
    uint32_t cls = 0;
    if (strict_priority > 0)
        return ENGINE_CLASSES - 1;
    while (cls < ENGINE_CLASSES - 1 && priority >= (int32_t)p->classes[cls])
        cls++;
    return cls;
}

uint32_t engine_blocks_for(const struct engine *g, uint32_t n_tokens)
{
    return kv_seq_blocks_for(n_tokens, g->o.block_tokens);
}
