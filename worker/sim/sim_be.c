/* Everything about a step is decided at its launch, since nothing that comes later can change it: when it begins (after the step
 * before it and after every load issued before it), when it ends, what each row draws. Until wait_step the results stay here.
 * Copies are the opposite (sim_tier.c). */
#include "sim_be.h"

#include "mem.h"
#include "sim_rand.h"
#include "sim_tier.h"

#include <assert.h>

enum { DEPTH_MAX = 2 };

static const int64_t poll_ns = 1000, hiccup_ns = 20000000;
static const uint32_t hiccup_every = 20000; /* steps: the host pages something in */
static const double noise = 0.02;           /* of a step's time, one sigma */

struct sim_step {
    int64_t end_ns;
    uint32_t n;
    struct be_sample_out *out; /* the engine's, from the launch to the wait */
    int32_t *tokens;           /* drawn, one per row of logits */
};

struct sim_be {
    struct be be;
    struct be_ops ops;
    struct sim_be_options o;
    struct sim_rand noise;
    int64_t now_ns, launched_end_ns; /* end of the last step issued */
    struct sim_tier tier;
    struct be_batch batch; /* of the step being built */
    struct op_sample sample;
    struct sim_step steps[DEPTH_MAX];
    uint32_t first, n_steps;
    const struct sim_step *prev; /* launched last */
    struct sim_be_totals totals;
};

static struct sim_be *of(struct be *be)
{
    return (struct sim_be *)be;
}

/* ---- making and unmaking ------------------------------------------------------------------------------------------- */

static void sim_destroy(struct be *be)
{
    struct sim_be *s = of(be);
    for (int i = 0; i < DEPTH_MAX; i++)
        mem_free(s->steps[i].tokens);
    sim_tier_fini(&s->tier);
    mem_free(s);
}

static const char *sim_describe(const struct be *be)
{
    return ((const struct sim_be *)be)->o.gpu->name;
}

/* ---- pool and host tier -------------------------------------------------------------------------------------------- */

static size_t sim_block_bytes(struct be *be, const struct be_kv_shape *shape)
{
    (void)be;
    return sim_tier_block_bytes(shape);
}

static int sim_kv_create(struct be *be, const struct be_kv_shape *shape, struct be_kv **out, struct err *e)
{
    struct sim_tier *t = &of(be)->tier;
    int st = sim_tier_pool(t, shape, e);
    if (!st)
        *out = (struct be_kv *)(void *)t->pool;
    return st;
}

static void sim_kv_destroy(struct be *be, struct be_kv *kv)
{
    (void)kv;
    mem_free(of(be)->tier.pool);
    of(be)->tier.pool = NULL;
}

static void *sim_host_alloc(struct be *be, size_t bytes)
{
    return sim_tier_host(&of(be)->tier, bytes);
}

static void sim_host_free(struct be *be, void *p)
{
    sim_tier_host_free(&of(be)->tier, p);
}

/* ---- small things ---------------------------------------------------------------------------------------------------- */

/* Logits and other activations: something to point at. */
static void *sim_buffer_create(struct be *be, size_t bytes)
{
    (void)be;
    (void)bytes;
    return mem_zalloc(1, 64);
}

static void sim_buffer_destroy(struct be *be, void *p)
{
    (void)be;
    mem_free(p);
}

static void sim_wake(struct be *be)
{
    (void)be;
}

static int sim_step_limits(struct be *be, const struct be_step_limits *l, struct err *e)
{
    struct sim_be *s = of(be);
    for (int i = 0; i < DEPTH_MAX; i++) {
        mem_free(s->steps[i].tokens);
        s->steps[i].tokens = mem_zalloc(l->max_logits, sizeof(int32_t));
        if (!s->steps[i].tokens)
            return err_set(e, ST_ENOMEM, "simulation: no memory for %u rows", l->max_logits);
    }
    return ST_OK;
}

/* ---- copies --------------------------------------------------------------------------------------------------------- */

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* A step under way may use the blocks: no copy begins before its end. */
static int copy(struct be *be, const struct be_block_copy *list, uint32_t n, int way, uint64_t *ticket)
{
    struct sim_be *s = of(be);
    sim_tier_settle(&s->tier, s->now_ns, s->now_ns);
    return sim_tier_copy(&s->tier, list, n, way, later(s->now_ns, s->launched_end_ns), ticket);
}

static int sim_store(struct be *be, struct be_kv *kv, const struct be_block_copy *list, uint32_t n,
                     uint64_t *ticket)
{
    (void)kv;
    return copy(be, list, n, SIM_TIER_STORE, ticket);
}

static int sim_load(struct be *be, struct be_kv *kv, const struct be_block_copy *list, uint32_t n,
                    uint64_t *ticket)
{
    (void)kv;
    return copy(be, list, n, SIM_TIER_LOAD, ticket);
}

/* Asking takes time as well: a caller that asks until the copy is done must see it done. */
static int sim_copy_poll(struct be *be, uint64_t ticket)
{
    struct sim_be *s = of(be);
    sim_tier_settle(&s->tier, s->now_ns, s->now_ns);
    if (sim_tier_is_done(&s->tier, ticket))
        return 1;
    s->now_ns += poll_ns;
    return 0;
}

/* ---- steps ---------------------------------------------------------------------------------------------------------- */

static int sim_begin_step(struct be *be, const struct be_batch *b)
{
    struct sim_be *s = of(be);
    assert(s->n_steps < s->ops.depth);
    s->batch = *b;
    s->sample.n_rows = 0;
    return ST_OK;
}

static int sim_sample(struct be *be, const struct op_sample *p)
{
    of(be)->sample = *p;
    return ST_OK;
}

static uint64_t *position_at(struct sim_be *s, const struct be_span *span, uint32_t position)
{
    uint32_t bt = s->tier.shape.block_tokens;
    assert(position / bt < span->n_blocks);
    return sim_tier_block(&s->tier, span->table[position / bt]) + position % bt;
}

/* The row's own digest tells of the way it came; one of an earlier position, another each time, of blocks lost since. */
static int32_t draw(struct sim_be *s, const struct be_span *span, const struct be_sample_row *r)
{
    uint32_t at = r->position - 1;
    assert(r->seed < s->o.n_expect);
    const struct sim_expect *x = &s->o.expect[r->seed];
    uint32_t past = (uint32_t)((sim_mix(r->seed, at) >> 32) * r->position >> 32);
    int32_t token = sim_token(x->text, r->position - x->n_prompt, s->o.vocab);
    if (*position_at(s, span, at) == x->digests[at] && *position_at(s, span, past) == x->digests[past])
        return token;
    s->totals.n_wrong++;
    return (int32_t)((uint32_t)(token + 1) % s->o.vocab);
}

static void compute_rows(struct sim_be *s, const struct be_batch *b, const struct be_span *span)
{
    uint64_t digest = span->pos0 > 0 ? *position_at(s, span, span->pos0 - 1) : 0;
    for (uint32_t i = 0; i < span->n_rows; i++) {
        int32_t token = b->tokens[span->row0 + i];
        if (token < 0)
            token = s->prev->tokens[-1 - token];
        digest = sim_be_digest(digest, token, span->pos0 + i);
        s->tier.pool[b->kv_slots[span->row0 + i]] = digest;
    }
}

static void run_batch(struct sim_be *s, struct sim_step *step, struct sim_load *load)
{
    const struct be_batch *b = &s->batch;
    uint32_t want = 0;
    for (uint32_t i = 0; i < b->n_spans; i++) {
        const struct be_span *span = &b->spans[i];
        compute_rows(s, b, span);
        if (span->n_rows == 1)
            load->context += span->pos0 + 1;
        else
            load->attention2 += (uint64_t)span->n_rows * (2 * (uint64_t)span->pos0 + span->n_rows);
        if (want < b->n_logits && b->logit_rows[want] == span->row0 + span->n_rows - 1) {
            step->tokens[want] = draw(s, span, &s->sample.rows[want]);
            want++;
        }
    }
    assert(want == b->n_logits && want == s->sample.n_rows);
    load->n_rows = b->n_rows;
    load->n_sampled = step->n = want;
    step->out = s->sample.out;
}

static int sim_end_step(struct be *be, struct err *e)
{
    struct sim_be *s = of(be);
    struct sim_step *step = &s->steps[(s->first + s->n_steps) % DEPTH_MAX];
    struct sim_load load = {0};
    (void)e;
    int64_t begin = later(later(s->now_ns, s->launched_end_ns), sim_tier_loaded_ns(&s->tier));
    sim_tier_settle(&s->tier, begin, s->now_ns);
    run_batch(s, step, &load);
    double ns = sim_gpu_step_ns(s->o.gpu, &s->o.model, &load, sim_tier_rate(&s->tier, begin));
    if (s->o.seed) {
        ns *= 1 + noise * sim_rand_normal(&s->noise);
        ns += sim_rand_below(&s->noise, hiccup_every) == 0 ? (double)hiccup_ns : 0;
    }
    step->end_ns = begin + (int64_t)ns;
    s->launched_end_ns = step->end_ns;
    s->prev = step;
    s->n_steps++;
    s->totals.n_steps++;
    s->totals.busy_ns += (int64_t)ns;
    return ST_OK;
}

static int sim_wait_step(struct be *be, struct err *e)
{
    struct sim_be *s = of(be);
    const struct sim_step *step = &s->steps[s->first];
    (void)e;
    assert(s->n_steps > 0);
    s->first = (s->first + 1) % DEPTH_MAX;
    s->n_steps--;
    sim_be_advance(be, step->end_ns);
    for (uint32_t i = 0; i < step->n; i++) {
        step->out[i].token = step->tokens[i];
        step->out[i].logprob = 0;
        step->out[i].n_top = 0;
    }
    return ST_OK;
}

/* ---- the driver's side ----------------------------------------------------------------------------------------------- */

int sim_be_forward(void *be, const struct be_batch *batch, struct be_kv *kv, float *logits)
{
    (void)be;
    (void)batch;
    (void)kv;
    (void)logits;
    return ST_OK;
}

int64_t sim_be_now_ns(void *be)
{
    return ((struct sim_be *)be)->now_ns;
}

void sim_be_advance(struct be *be, int64_t now_ns)
{
    of(be)->now_ns = later(of(be)->now_ns, now_ns);
}

int64_t sim_be_next_copy_ns(const struct be *be)
{
    const struct sim_be *s = (const struct sim_be *)be;
    return sim_tier_next_ns(&s->tier, s->now_ns);
}

void sim_be_totals(const struct be *be, struct sim_be_totals *out)
{
    const struct sim_be *s = (const struct sim_be *)be;
    *out = s->totals;
    out->n_stored = s->tier.n_copied[SIM_TIER_STORE];
    out->n_loaded = s->tier.n_copied[SIM_TIER_LOAD];
}

static const struct be_ops sim_ops = {.name = "sim",
                                      .destroy = sim_destroy,
                                      .describe = sim_describe,
                                      .kv_create = sim_kv_create,
                                      .kv_destroy = sim_kv_destroy,
                                      .kv_block_bytes = sim_block_bytes,
                                      .buffer_create = sim_buffer_create,
                                      .buffer_destroy = sim_buffer_destroy,
                                      .host_alloc = sim_host_alloc,
                                      .host_free = sim_host_free,
                                      .kv_store = sim_store,
                                      .kv_load = sim_load,
                                      .copy_poll = sim_copy_poll,
                                      .wake = sim_wake,
                                      .step_limits = sim_step_limits,
                                      .begin_step = sim_begin_step,
                                      .end_step = sim_end_step,
                                      .wait_step = sim_wait_step,
                                      .sample = sim_sample};

int sim_be_create(struct be **out, const struct sim_be_options *o, struct err *e)
{
    struct sim_be *s = mem_zalloc(1, sizeof *s);
    if (!s)
        return err_set(e, ST_ENOMEM, "simulation: no memory");
    s->ops = sim_ops;
    s->ops.depth = o->gpu->depth;
    s->be.ops = &s->ops;
    s->o = *o;
    s->tier.gpu = o->gpu;
    s->noise.state = sim_mix(o->seed, 0x6e6f697365);
    s->now_ns = SIM_BE_START_NS;
    *out = &s->be;
    return ST_OK;
}
