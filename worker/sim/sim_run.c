/* One loop stands for the clients, the io thread and the engine thread:
 *
 *   submit what is due -> one turn of the engine -> take its events -> nothing under way? let time pass
 *
 * Time passes in two places: in the backend, to the end of a step, and here, to the next arrival or the end of a copy, when the
 * engine has no step to wait for. While it holds requests that cannot run now (they load, or wait for company) it is asked again
 * every millisecond: it has no way to say when, and needs none outside of simulations.
 *
 * A request arrives when its time has come and those that it waits for have ended, well or badly: a client whose earlier call
 * was refused goes on too. Prompts, and the digests that the backend checks against, are made at that moment; the digests are
 * dropped at the end. */
#include "sim_run.h"

#include "clock.h"
#include "engine_core.h"
#include "heap.h"
#include "mem.h"
#include "model.h"
#include "sim_rand.h"

#include <assert.h>
#include <string.h>

static const int64_t idle_tick_ns = NS_PER_MS, stuck_after_ns = (int64_t)600 * NS_PER_S;

struct driver {
    const struct sim_options *o;
    const struct sim_trace *t;
    struct sim_result *out;
    struct be *be;
    struct engine *engine;
    struct heap *due;           /* requests whose predecessors have ended, by arrival */
    struct sim_expect *expect;  /* [n] */
    uint32_t *missing;          /* [n] predecessors that have not ended */
    int64_t *ended_ns;          /* [n] when the last one of them did */
    uint32_t *heirs, *heirs_at; /* who waits for request i: heirs[heirs_at[i] .. heirs_at[i + 1]) */
    uint32_t *of_slot, *gen;    /* [engine_slots] whose slot it is; its generation */
    int32_t *prompt;            /* [longest] */
    uint32_t n_live, vocab;
};

/* ---- arrivals ---------------------------------------------------------------------------------------------------------- */

static int64_t now(const struct driver *d)
{
    return sim_be_now_ns(d->be) - SIM_BE_START_NS;
}

static void make_due(struct driver *d, uint32_t i)
{
    const struct sim_request *r = &d->t->requests[i];
    int64_t after = r->n_after > 0 ? d->ended_ns[i] + r->delay_ns : 0;
    heap_push(d->due, i, after > r->at_ns ? after : r->at_ns, i);
}

static void note_end(struct driver *d, uint32_t i)
{
    int64_t t = now(d);
    d->out->end_ns = t;
    for (uint32_t k = d->heirs_at[i]; k < d->heirs_at[i + 1]; k++) {
        uint32_t heir = d->heirs[k];
        d->ended_ns[heir] = t;
        if (--d->missing[heir] == 0)
            make_due(d, heir);
    }
}

/* The prompt, and what the backend will check it against. */
static int expect(struct driver *d, uint32_t i)
{
    const struct sim_request *r = &d->t->requests[i];
    uint32_t n = r->n_prompt + r->n_output;
    uint64_t text = sim_trace_output(d->t, i), digest = 0;
    uint64_t *digests = mem_alloc((size_t)n * sizeof *digests);
    if (!digests)
        return ST_ENOMEM;
    sim_trace_prompt(d->t, i, d->vocab, d->prompt);
    for (uint32_t p = 0; p < n; p++) {
        int32_t token = p < r->n_prompt ? d->prompt[p] : sim_token(text, p - r->n_prompt, d->vocab);
        digests[p] = digest = sim_be_digest(digest, token, p);
    }
    d->expect[i] = (struct sim_expect){.text = text, .n_prompt = r->n_prompt, .digests = digests};
    return ST_OK;
}

static void forget(struct driver *d, uint32_t i)
{
    mem_free((void *)(uintptr_t)d->expect[i].digests);
    d->expect[i].digests = NULL;
}

static int submit(struct driver *d, uint32_t i, int64_t arrival_ns, struct err *e)
{
    const struct sim_request *r = &d->t->requests[i];
    struct sim_outcome *x = &d->out->outcomes[i];
    struct engine_request q = {.prompt = d->prompt,
                               .n_prompt = r->n_prompt,
                               .max_tokens = r->n_output,
                               .top_p = 1,
                               .repetition = 1,
                               .seed = i,
                               .n_logprobs = -1,
                               .priority = r->priority,
                               .strict_priority = r->strict,
                               .expected_output_tokens = (int32_t)r->osl,
                               .latency_sensitivity = r->sensitivity,
                               .iat_ms = r->iat_ms,
                               .arrival_ns = arrival_ns + SIM_BE_START_NS};
    uint32_t slot = 0, gen = 0;
    *x = (struct sim_outcome){.arrival_ns = arrival_ns,
                              .n_prompt = r->n_prompt,
                              .cls = (uint8_t)engine_class(d->engine, r->priority, r->strict),
                              .end = SIM_REFUSED};
    int rc = (uint64_t)r->n_prompt + r->n_output <= d->out->context_length ? ST_OK : ST_EINVAL;
    if (rc == ST_OK)
        rc = expect(d, i);
    if (rc == ST_OK)
        rc = engine_submit(d->engine, &q, &slot, &gen, NULL);
    if (rc != ST_OK) {
        forget(d, i);
        d->out->n_refused++;
        note_end(d, i);
        return rc == ST_EBUSY || rc == ST_EINVAL ? ST_OK
                                                 : err_set(e, rc, "request %u: %s", i, status_text(rc));
    }
    x->end = SIM_UNSEEN;
    d->of_slot[slot] = i;
    d->gen[slot] = gen;
    d->n_live++;
    return ST_OK;
}

static int submit_due(struct driver *d, struct err *e)
{
    int rc = ST_OK;
    for (uint32_t i = heap_peek(d->due); rc == ST_OK && i != HEAP_NONE && heap_key(d->due, i) <= now(d);
         i = heap_peek(d->due)) {
        int64_t arrival_ns = heap_key(d->due, i);
        heap_pop(d->due);
        rc = submit(d, i, arrival_ns, e);
    }
    return rc;
}

/* ---- events ------------------------------------------------------------------------------------------------------------ */

uint32_t sim_gap_bucket(int64_t gap_ns)
{
    uint64_t v = gap_ns > 0 ? (uint64_t)gap_ns : 0;
    if (v < 64)
        return (uint32_t)v;
    uint32_t top = 63 - (uint32_t)__builtin_clzll(v), shift = top - 6;
    return (shift + 1) * 64 + (uint32_t)((v >> shift) & 63);
}

int64_t sim_gap_ns(uint32_t bucket)
{
    if (bucket < 64)
        return bucket;
    uint32_t shift = bucket / 64 - 1;
    return (int64_t)((64 + (uint64_t)(bucket % 64)) << shift) + (int64_t)((1ull << shift) / 2);
}

bool sim_result_good(const struct sim_outcome *x, const struct engine_policy *p)
{
    if (x->end != SIM_DONE ||
        (p->slo_ttft_ms && x->first_ns - x->arrival_ns > (int64_t)p->slo_ttft_ms * NS_PER_MS))
        return false;
    return !p->slo_itl_ms || x->n_late * 20 <= x->n_output; /* 95 % of the gaps */
}

static void take_token(struct driver *d, uint32_t i, const struct engine_event *ev)
{
    struct sim_outcome *x = &d->out->outcomes[i];
    int64_t t = ev->t_ns - SIM_BE_START_NS;
    if (x->n_output > 0) {
        d->out->gaps[x->cls][sim_gap_bucket(t - x->last_ns)]++;
        x->n_late += d->o->policy.slo_itl_ms && t - x->last_ns > (int64_t)d->o->policy.slo_itl_ms * NS_PER_MS;
    }
    x->wrong |= ev->sample.token != sim_token(d->expect[i].text, x->n_output, d->vocab);
    x->last_ns = t;
    x->n_output++;
}

static void take_end(struct driver *d, uint32_t i, const struct engine_event *ev)
{
    struct sim_outcome *x = &d->out->outcomes[i];
    bool done = ev->finish == ENGINE_FINISH_LENGTH && ev->n_output == d->t->requests[i].n_output;
    x->end = done ? SIM_DONE : SIM_FAILED;
    x->wrong |= x->n_output != ev->n_output;
    x->n_cached = ev->n_cached;
    x->n_preempted = ev->n_preempted;
    x->scheduled_ns = ev->scheduled_ns - SIM_BE_START_NS;
    x->first_ns = ev->first_token_ns - SIM_BE_START_NS;
    d->out->n_failed += !done;
    d->out->n_wrong += x->wrong;
    d->n_live--;
    forget(d, i);
    engine_release(d->engine, ev->slot, ev->gen);
    note_end(d, i);
}

static bool take_events(struct driver *d)
{
    struct engine_event ev;
    bool any = false;
    for (; engine_pop_event(d->engine, &ev); any = true) {
        if (ev.type == ENGINE_TOKEN)
            take_token(d, d->of_slot[ev.slot], &ev);
        else
            take_end(d, d->of_slot[ev.slot], &ev);
    }
    return any;
}

/* ---- the loop ---------------------------------------------------------------------------------------------------------- */

/* False: nothing will ever happen again. */
static bool pass_time(struct driver *d)
{
    uint32_t next = heap_peek(d->due);
    int64_t at = next != HEAP_NONE ? heap_key(d->due, next) + SIM_BE_START_NS : INT64_MAX;
    int64_t copy = sim_be_next_copy_ns(d->be), tick = sim_be_now_ns(d->be) + idle_tick_ns;
    at = copy < at ? copy : at;
    at = d->n_live > 0 && tick < at ? tick : at;
    if (at == INT64_MAX)
        return false;
    sim_be_advance(d->be, at);
    return true;
}

/* After a failure: an engine can be destroyed once nothing runs in it. */
static void abandon(struct driver *d)
{
    for (uint32_t slot = 0; slot < engine_slots(d->engine); slot++)
        engine_cancel(d->engine, slot, d->gen[slot]);
    while (engine_turn(d->engine) || take_events(d))
        continue;
}

static int drive(struct driver *d, struct err *e)
{
    int64_t progress_ns = now(d);
    for (;;) {
        int rc = submit_due(d, e);
        if (rc != ST_OK)
            return rc;
        bool busy = engine_turn(d->engine);
        bool events = take_events(d);
        if (busy || events || d->n_live == 0)
            progress_ns = now(d);
        if (now(d) - progress_ns > stuck_after_ns)
            return err_set(e, ST_EINTERNAL, "simulation: the engine stands still with %u requests",
                           d->n_live);
        if (!busy && !events && !pass_time(d))
            return ST_OK;
    }
}

/* ---- making and unmaking ------------------------------------------------------------------------------------------------ */

static void *array(uint32_t n, size_t size)
{
    return mem_zalloc((size_t)n + 1, size);
}

/* Who waits for whom, turned round. */
static int link_heirs(struct driver *d, struct err *e)
{
    const struct sim_trace *t = d->t;
    d->heirs_at = array(t->n + 1, sizeof *d->heirs_at);
    uint64_t links = 0;
    for (uint32_t i = 0; i < t->n; i++)
        links += t->requests[i].n_after;
    d->heirs = links < UINT32_MAX ? array((uint32_t)links, sizeof *d->heirs) : NULL;
    if (!d->heirs_at || !d->heirs)
        return err_set(e, ST_ENOMEM, "simulation: no memory");
    for (uint32_t i = 0; i < t->n; i++)
        for (uint32_t k = 0; k < t->requests[i].n_after; k++) {
            assert(t->requests[i].after + k < i);
            d->heirs_at[t->requests[i].after + k + 2]++;
        }
    for (uint32_t i = 2; i < t->n + 2; i++)
        d->heirs_at[i] += d->heirs_at[i - 1];
    for (uint32_t i = 0; i < t->n; i++)
        for (uint32_t k = 0; k < t->requests[i].n_after; k++)
            d->heirs[d->heirs_at[t->requests[i].after + k + 1]++] = i;
    return ST_OK;
}

static int init_arrays(struct driver *d, struct err *e)
{
    uint32_t n = d->t->n;
    int rc = heap_create(&d->due, n, e);
    rc = rc ? rc : link_heirs(d, e);
    if (rc != ST_OK)
        return rc;
    d->out->outcomes = array(n, sizeof *d->out->outcomes);
    d->expect = array(n, sizeof *d->expect);
    d->missing = array(n, sizeof *d->missing);
    d->ended_ns = array(n, sizeof *d->ended_ns);
    d->of_slot = array(d->o->max_num_seqs + d->o->max_queue, sizeof *d->of_slot);
    d->gen = array(d->o->max_num_seqs + d->o->max_queue, sizeof *d->gen);
    d->prompt = array(d->out->context_length, sizeof *d->prompt);
    if (!d->out->outcomes || !d->expect || !d->missing || !d->ended_ns || !d->of_slot || !d->gen ||
        !d->prompt)
        return err_set(e, ST_ENOMEM, "simulation: no memory for %u requests", n);
    d->out->n = n;
    for (uint32_t i = 0; i < n; i++) {
        d->missing[i] = d->t->requests[i].n_after;
        if (d->missing[i] == 0)
            make_due(d, i);
    }
    return ST_OK;
}

/* Sizes of the pool and of the longest request that the engine takes. */
static int choose_sizes(struct driver *d, const struct sim_model *m, struct err *e)
{
    const struct sim_options *o = d->o;
    double block_bytes = m->kv_bytes * o->block_tokens, kv_bytes = (double)o->kv_bytes;
    if (o->kv_bytes == 0 && d->t->kv_tokens > 0)
        kv_bytes = (double)d->t->kv_tokens * m->kv_bytes;
    else if (o->kv_bytes == 0)
        kv_bytes = 0.9 * o->gpu->memory_bytes - m->resident_bytes;
    double n = kv_bytes / block_bytes, n_host = (double)o->host_kv_bytes / block_bytes;
    if (n < 1 || n * o->block_tokens > UINT32_MAX / 2 || n_host * o->block_tokens > UINT32_MAX / 2)
        return err_set(e, ST_EINVAL,
                       "%s: weights of %.2f GB leave %.2f GB for KV, a block of which takes %.0f bytes",
                       o->gpu->name, m->resident_bytes / 1e9, kv_bytes / 1e9, block_bytes);
    d->out->n_blocks = (uint32_t)n;
    d->out->n_host_blocks = (uint32_t)n_host;
    uint64_t longest = 0;
    for (uint32_t i = 0; i < d->t->n; i++) {
        uint64_t tokens = (uint64_t)d->t->requests[i].n_prompt + d->t->requests[i].n_output;
        longest = tokens > longest ? tokens : longest;
    }
    uint32_t most = o->model->context_max;
    d->out->context_length = longest < most ? (uint32_t)longest : most;
    return ST_OK;
}

static int create(struct driver *d, const struct sim_model *m, struct err *e)
{
    const struct sim_options *o = d->o;
    const struct model_info *info = o->model;
    struct sim_be_options bo = {.gpu = o->gpu,
                                .model = *m,
                                .seed = o->noise ? o->seed + 1 : 0,
                                .vocab = info->vocab,
                                .expect = d->expect,
                                .n_expect = d->t->n};
    int rc = sim_be_create(&d->be, &bo, e);
    if (rc != ST_OK)
        return rc;
    struct engine_options eo = {.be = d->be,
                                .max_num_seqs = o->max_num_seqs,
                                .max_num_batched_tokens = o->max_num_batched_tokens,
                                .max_queue = o->max_queue,
                                .block_tokens = o->block_tokens,
                                .n_blocks = d->out->n_blocks,
                                .context_length = d->out->context_length,
                                .kv_type = BE_BF16,
                                .prefix_caching = true,
                                .n_host_blocks = d->out->n_host_blocks,
                                .policy = o->policy,
                                .test_seed = o->test_seed};
    struct engine_core core = {
        .forward = sim_be_forward,
        .ctx = d->be,
        .vocab = info->vocab,
        .kv = {.n_layers = info->n_layers, .n_kv_heads = info->n_kv_heads, .head_dim = info->head_dim},
        .fingerprint = info->fingerprint,
        .fingerprint_bytes = sizeof info->fingerprint,
        .now_ns = sim_be_now_ns};
    return engine_core_create(&d->engine, &eo, &core, e);
}

static void destroy(struct driver *d)
{
    engine_destroy(d->engine);
    be_destroy(d->be);
    for (uint32_t i = 0; d->expect && i < d->t->n; i++)
        forget(d, i);
    heap_destroy(d->due);
    mem_free(d->expect);
    mem_free(d->missing);
    mem_free(d->ended_ns);
    mem_free(d->heirs);
    mem_free(d->heirs_at);
    mem_free(d->of_slot);
    mem_free(d->gen);
    mem_free(d->prompt);
}

int sim_run(struct sim_result *out, const struct sim_options *o, const struct sim_trace *t, struct err *e)
{
    struct driver d = {.o = o, .t = t, .out = out, .vocab = o->model->vocab};
    struct sim_model m;
    memset(out, 0, sizeof *out);
    sim_model_from(&m, o->model);
    int rc = choose_sizes(&d, &m, e);
    rc = rc ? rc : init_arrays(&d, e);
    rc = rc ? rc : create(&d, &m, e);
    if (rc == ST_OK && (rc = drive(&d, e)) != ST_OK)
        abandon(&d);
    if (rc == ST_OK) {
        engine_stats(d.engine, &out->stats);
        sim_be_totals(d.be, &out->totals);
    }
    destroy(&d);
    if (rc != ST_OK)
        sim_result_fini(out);
    return rc;
}

void sim_result_fini(struct sim_result *r)
{
    mem_free(r->outcomes);
    r->outcomes = NULL;
    r->n = 0;
}
