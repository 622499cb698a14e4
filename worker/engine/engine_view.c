/* What other threads see of the engine: numbers that it writes and they read, each by itself. A picture may mix two moments, and
 * that is good enough for a page of metrics and a view of the queue: nothing is decided by it.
 *
 * What changes with every step is written with every step. What costs a walk over all requests (who waits in which class, where
 * each one stands) is written every VIEW_NS and before the engine sleeps. */
#include "engine_state.h"

enum { VIEW_NS = 10000000 };

static void put32(_Atomic uint32_t *to, uint32_t v)
{
    atomic_store_explicit(to, v, memory_order_relaxed);
}

static void put64(_Atomic uint64_t *to, uint64_t v)
{
    atomic_store_explicit(to, v, memory_order_relaxed);
}

static enum engine_slot_state state_of(const struct sched_seq *q)
{
    switch (q->state) {
    case SCHED_LOADING:
        return ENGINE_SLOT_LOADING;
    case SCHED_RUNNING:
        return q->n_tokens > q->n_prompt ? ENGINE_SLOT_DECODE : ENGINE_SLOT_PREFILL;
    default:
        return q->n_preempted > 0 ? ENGINE_SLOT_PREEMPTED : ENGINE_SLOT_QUEUED;
    }
}

static void publish_requests(struct engine *g)
{
    for (uint32_t i = 0; i < g->n_live; i++) {
        const struct sched_seq *q = sched_seq(g->sched, g->live[i]);
        struct slot_view *v = &g->views[g->live[i]];
        put32(&v->state, state_of(q));
        put32(&v->n_computed, q->n_computed);
        put32(&v->n_output, req_at(g->reqs, g->live[i])->n_output);
        put32(&v->n_blocks, q->kv.n_blocks);
        put32(&v->n_preempted, q->n_preempted);
    }
}

/* How many there are now, by class; preempted ones are not among the waiting. */
struct census {
    uint32_t waiting[SCHED_CLASSES], preempted[SCHED_CLASSES], loading[SCHED_CLASSES], running[SCHED_CLASSES];
};

/* By the list of those that are the engine's: a slot that is not may be filled this moment. */
static void count_requests(const struct engine *g, struct census *out)
{
    *out = (struct census){0};
    for (uint32_t i = 0; i < g->n_live; i++) {
        const struct sched_seq *q = sched_seq(g->sched, g->live[i]);
        out->running[q->cls] += q->state == SCHED_RUNNING;
        out->loading[q->cls] += q->state == SCHED_LOADING;
        out->preempted[q->cls] += q->state == SCHED_WAITING && q->n_preempted > 0;
        out->waiting[q->cls] += q->state == SCHED_WAITING && q->n_preempted == 0;
    }
}

static void publish_classes(struct engine *g)
{
    const struct sched_counters *n = sched_counters(g->sched);
    struct census now;
    count_requests(g, &now);
    for (uint32_t c = 0; c < ENGINE_CLASSES; c++) {
        struct class_counters *to = &g->stats.cls[c];
        put32(&to->waiting, now.waiting[c]);
        put32(&to->running, now.running[c]);
        put32(&to->preempted, now.preempted[c]);
        put32(&to->loading, now.loading[c]);
        for (uint32_t by = 0; by < ENGINE_CLASSES; by++)
            for (uint32_t r = 0; r < ENGINE_RESOURCES; r++)
                put64(&to->preemptions[by][r], n->preemptions[c][by][r]);
        put64(&to->resumed, n->resumed[c]);
        put64(&to->recomputed, n->recomputed[c]);
        put64(&to->aged_ahead, n->aged_ahead[c]);
        put64(&to->held, n->held[c]);
    }
    put64(&g->stats.saved, n->saved);
    put64(&g->stats.loaded, n->loaded);
}

/* Whom a refused request would wait for, by class. */
static void publish_retry(struct engine *g)
{
    for (uint32_t c = 0; c < ENGINE_CLASSES; c++) {
        uint32_t kept = engine_reserved_for_higher(g, c);
        const struct service_queue q = {.waiting = sched_waiting(g->sched),
                                        .work = g->learn.waiting_work,
                                        .places = g->o.max_queue > kept ? g->o.max_queue - kept : 0};
        put32(&g->stats.retry_s[c],
              estimate_retry_after_s(&g->learn.service, c, &q, g->now_ns, g->n_launched));
    }
}

void engine_publish(struct engine *g, bool all)
{
    struct kv_pool *pool = kv_prefix_pool(g->kv);
    put32(&g->stats.running, sched_running(g->sched));
    put32(&g->stats.waiting, sched_waiting(g->sched));
    put32(&g->stats.blocks_free, kv_pool_free(pool));
    put32(&g->stats.blocks_cached, kv_pool_cached(pool));
    if (!all && g->now_ns - g->viewed_ns < VIEW_NS)
        return;
    g->viewed_ns = g->now_ns;
    put32(&g->stats.host_free, kv_prefix_host_free(g->kv));
    put32(&g->stats.host_cached, kv_prefix_host_cached(g->kv));
    put64(&g->stats.evicted, kv_prefix_evictions(g->kv));
    publish_requests(g);
    publish_classes(g);
    publish_retry(g);
}

bool engine_slot_view(const struct engine *g, uint32_t slot, uint32_t gen, struct engine_slot_view *out)
{
    if (slot >= g->limits.n_slots)
        return false;
    const struct slot_view *v = &g->views[slot];
    uint32_t state = atomic_load(&v->state);
    if (state == 0 || atomic_load(&v->gen) != gen)
        return false;
    *out = (struct engine_slot_view){.state = (enum engine_slot_state)state,
                                     .cls = atomic_load(&v->cls),
                                     .n_computed = atomic_load(&v->n_computed),
                                     .n_output = atomic_load(&v->n_output),
                                     .n_blocks = atomic_load(&v->n_blocks),
                                     .n_preempted = atomic_load(&v->n_preempted)};
    return true;
}

uint32_t engine_retry_after_s(const struct engine *g, uint32_t cls)
{
    uint32_t s = cls < ENGINE_CLASSES ? atomic_load(&g->stats.retry_s[cls]) : 0;
    return s ? s : 1; /* the engine has not looked yet */
}

static void read_class(const struct class_counters *c, struct engine_class_stats *out)
{
    *out = (struct engine_class_stats){
        .waiting = atomic_load(&c->waiting),
        .running = atomic_load(&c->running),
        .preempted = atomic_load(&c->preempted),
        .loading = atomic_load(&c->loading),
        .resumed_tokens = atomic_load(&c->resumed),
        .recomputed_tokens = atomic_load(&c->recomputed),
        .aged_ahead = atomic_load(&c->aged_ahead),
        .held = atomic_load(&c->held),
    };
    for (uint32_t by = 0; by < ENGINE_CLASSES; by++)
        for (uint32_t r = 0; r < ENGINE_RESOURCES; r++)
            out->preemptions[by][r] = atomic_load(&c->preemptions[by][r]);
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
        .host_blocks_total = g->o.n_host_blocks,
        .host_blocks_free = atomic_load(&c->host_free),
        .host_blocks_cached = atomic_load(&c->host_cached),
        .blocks_saved = atomic_load(&c->saved),
        .blocks_loaded = atomic_load(&c->loaded),
        .blocks_evicted = atomic_load(&c->evicted),
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
    for (uint32_t i = 0; i < ENGINE_CLASSES; i++)
        read_class(&c->cls[i], &out->cls[i]);
}
