/* Everything about a step is decided at its launch, since nothing that comes later can change it: when it begins (after the step
 * before it and after every load issued before it), when it ends, what each row draws. Until wait_step the results stay here.
 *
 * Copies are the opposite: what they move is read and written when they are done, and until then their destination holds
 * rubbish. A caller that lets a step write to a block too early, or reads one that was not waited for, gets wrong digests.
 * Each direction is a lane, first come, first served; a copy issued while the other lane is busy runs at the rate of both ways
 * for all of its length, which is fair enough for batches of equal size.
 *
 * Digests per position, not per block: a position that a stale row wrote is written again with the same value, as real KV is. */
#define _GNU_SOURCE
#include "sim_be.h"

#include "mem.h"
#include "sim_rand.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

enum { DEPTH_MAX = 2, TO_DEVICE = 0, TO_HOST, LANES };

static const uint64_t rubbish = 0xdeadbeefdeadbeefu;
static const int64_t copy_latency_ns = 12000, poll_ns = 1000, hiccup_ns = 20000000;
static const uint32_t hiccup_every = 20000; /* steps: the host pages something in */
static const double noise = 0.02;           /* of a step's time, one sigma */

struct sim_step {
    int64_t end_ns;
    uint32_t n;
    struct be_sample_out *out; /* the engine's, from the launch to the wait */
    int32_t *tokens;           /* drawn, one per row of logits */
};

struct sim_copy {
    uint64_t ticket;
    int64_t end_ns;
    uint32_t block, host;
};

struct lane {
    struct sim_copy *ring;  /* [cap] */
    uint32_t first, n, cap; /* n under way, of which the first `applied` have moved their bytes */
    uint32_t applied;
    int64_t end_ns; /* of the last one issued */
};

struct sim_be {
    struct be be;
    struct be_ops ops;
    struct sim_be_options o;
    struct sim_rand noise;
    int64_t now_ns, launched_end_ns, loaded_end_ns; /* ends of the last step and the last load issued */
    struct be_kv_shape shape;
    size_t block_bytes;
    uint64_t *kv; /* [n_blocks * block_tokens] */
    char *host;   /* [host_bytes] addresses only */
    size_t host_bytes;
    uint64_t *host_kv; /* [host_bytes / block_bytes * block_tokens] */
    struct lane lanes[LANES];
    uint64_t tickets;

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

static void sim_host_free(struct be *be, void *p)
{
    struct sim_be *s = of(be);
    if (p && p == s->host) {
        munmap(s->host, s->host_bytes);
        s->host = NULL;
    }
}

static void sim_destroy(struct be *be)
{
    struct sim_be *s = of(be);
    for (int i = 0; i < DEPTH_MAX; i++)
        mem_free(s->steps[i].tokens);
    for (int i = 0; i < LANES; i++)
        mem_free(s->lanes[i].ring);
    sim_host_free(be, s->host);
    mem_free(s->host_kv);
    mem_free(s->kv);
    mem_free(s);
}

static const char *sim_describe(const struct be *be)
{
    return ((const struct sim_be *)be)->o.gpu->name;
}

static size_t sim_block_bytes(struct be *be, const struct be_kv_shape *shape)
{
    (void)be;
    return (size_t)2 * 2 * shape->n_layers * shape->n_kv_heads * shape->head_dim * shape->block_tokens;
}

/* ---- pool and tier, made in either order --------------------------------------------------------------------------- */

/* Digests of the host tier, and lanes that hold as many copies as there are blocks: once its blocks' size is known. */
static bool tier_create(struct sim_be *s)
{
    size_t n = s->host_bytes / s->block_bytes;
    if (n > UINT32_MAX - s->shape.n_blocks ||
        !(s->host_kv = mem_alloc(n * s->shape.block_tokens * sizeof *s->host_kv)))
        return false;
    for (int i = 0; i < LANES; i++) {
        s->lanes[i].cap = s->shape.n_blocks + (uint32_t)n;
        s->lanes[i].ring = mem_zalloc(s->lanes[i].cap, sizeof *s->lanes[i].ring);
        if (!s->lanes[i].ring)
            return false;
    }
    return true;
}

static int sim_kv_create(struct be *be, const struct be_kv_shape *shape, struct be_kv **out, struct err *e)
{
    struct sim_be *s = of(be);
    size_t n = (size_t)shape->n_blocks * shape->block_tokens;
    s->shape = *shape;
    s->block_bytes = sim_block_bytes(be, shape);
    s->kv = mem_alloc(n * sizeof *s->kv);
    if (!s->kv)
        return err_set(e, ST_ENOMEM, "simulation: no memory for the digests of %zu positions", n);
    for (size_t i = 0; i < n; i++)
        s->kv[i] = rubbish;
    if (s->host && !tier_create(s))
        return err_set(e, ST_ENOMEM, "simulation: no memory for the digests of the host tier");
    *out = (struct be_kv *)(void *)s->kv;
    return ST_OK;
}

static void sim_kv_destroy(struct be *be, struct be_kv *kv)
{
    (void)kv;
    mem_free(of(be)->kv);
    of(be)->kv = NULL;
}

static void *sim_host_alloc(struct be *be, size_t bytes)
{
    struct sim_be *s = of(be);
    assert(!s->host); /* one tier, so one call */
    void *p =
        bytes ? mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) : MAP_FAILED;
    if (p == MAP_FAILED)
        return NULL;
    s->host = p;
    s->host_bytes = bytes;
    if (s->kv && !tier_create(s)) {
        sim_host_free(be, p);
        return NULL;
    }
    return p;
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

static uint64_t *device_at(struct sim_be *s, uint32_t block)
{
    return s->kv + (size_t)block * s->shape.block_tokens;
}

static uint64_t *host_at(struct sim_be *s, uint32_t host)
{
    return s->host_kv + (size_t)host * s->shape.block_tokens;
}

static void spoil(struct sim_be *s, uint64_t *digests)
{
    for (uint32_t i = 0; i < s->shape.block_tokens; i++)
        digests[i] = rubbish;
}

static struct sim_copy *nth(const struct lane *l, uint32_t i)
{
    return &l->ring[(l->first + i) % l->cap];
}

/* Moves the bytes of all that is done by then, which is now or the beginning of a step being launched. A load may bring what an
 * earlier store put there: in the order of their ends. */
static void settle(struct sim_be *s, int64_t until_ns)
{
    for (;;) {
        struct lane *next = NULL;
        for (int i = 0; i < LANES; i++) {
            struct lane *l = &s->lanes[i];
            if (l->applied < l->n && nth(l, l->applied)->end_ns <= until_ns &&
                (!next || nth(l, l->applied)->end_ns < nth(next, next->applied)->end_ns))
                next = l;
        }
        if (!next)
            break;
        const struct sim_copy *c = nth(next, next->applied++);
        uint64_t *device = device_at(s, c->block), *host = host_at(s, c->host);
        bool load = next == &s->lanes[TO_DEVICE];
        memcpy(load ? device : host, load ? host : device, s->shape.block_tokens * sizeof *device);
    }
    for (int i = 0; i < LANES; i++)
        for (struct lane *l = &s->lanes[i]; l->applied > 0 && nth(l, 0)->end_ns <= s->now_ns;
             l->applied--, l->n--)
            l->first = (l->first + 1) % l->cap;
}

static int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int copy(struct be *be, const struct be_block_copy *list, uint32_t n, int way, uint64_t *ticket)
{
    struct sim_be *s = of(be);
    struct lane *l = &s->lanes[way], *other = &s->lanes[LANES - 1 - way];
    if (n == 0 || !s->host)
        return ST_EINVAL;
    if (n > l->cap - l->n)
        return ST_AGAIN;
    settle(s, s->now_ns);
    int64_t begin =
        later(later(s->now_ns, l->end_ns), s->launched_end_ns); /* a step under way may use the blocks */
    double rate = sim_gpu_copy_rate(s->o.gpu, way == TO_DEVICE, other->end_ns > begin);
    *ticket = s->tickets++ * LANES + (uint64_t)way;
    for (uint32_t i = 0; i < n; i++) {
        size_t host = (size_t)((const char *)list[i].host - s->host) / s->block_bytes;
        assert(list[i].block < s->shape.n_blocks && host < s->host_bytes / s->block_bytes);
        l->end_ns = begin + copy_latency_ns + (int64_t)((double)s->block_bytes * (i + 1) / rate * 1e9);
        *nth(l, l->n++) = (struct sim_copy){
            .ticket = *ticket, .end_ns = l->end_ns, .block = list[i].block, .host = (uint32_t)host};
        spoil(s, way == TO_DEVICE ? device_at(s, list[i].block) : host_at(s, (uint32_t)host));
    }
    *(way == TO_DEVICE ? &s->totals.n_loaded : &s->totals.n_stored) += n;
    if (way == TO_DEVICE)
        s->loaded_end_ns = l->end_ns;
    return ST_OK;
}

static int sim_store(struct be *be, struct be_kv *kv, const struct be_block_copy *list, uint32_t n,
                     uint64_t *ticket)
{
    (void)kv;
    return copy(be, list, n, TO_HOST, ticket);
}

static int sim_load(struct be *be, struct be_kv *kv, const struct be_block_copy *list, uint32_t n,
                    uint64_t *ticket)
{
    (void)kv;
    return copy(be, list, n, TO_DEVICE, ticket);
}

/* Asking takes time as well: a caller that asks until the copy is done must see it done. */
static int sim_copy_poll(struct be *be, uint64_t ticket)
{
    struct sim_be *s = of(be);
    const struct lane *l = &s->lanes[ticket % LANES];
    settle(s, s->now_ns);
    if (l->n == 0 || l->ring[l->first].ticket > ticket)
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
    uint32_t bt = s->shape.block_tokens;
    assert(position / bt < span->n_blocks);
    return device_at(s, span->table[position / bt]) + position % bt;
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
        s->kv[b->kv_slots[span->row0 + i]] = digest;
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

static double copying_rate(const struct sim_be *s, int64_t at_ns)
{
    bool busy[LANES];
    double rate = 0;
    for (int i = 0; i < LANES; i++)
        busy[i] = s->lanes[i].end_ns > at_ns;
    for (int i = 0; i < LANES; i++)
        rate += busy[i] ? sim_gpu_copy_rate(s->o.gpu, i == TO_DEVICE, busy[LANES - 1 - i]) : 0;
    return rate;
}

static int sim_end_step(struct be *be, struct err *e)
{
    struct sim_be *s = of(be);
    struct sim_step *step = &s->steps[(s->first + s->n_steps) % DEPTH_MAX];
    struct sim_load load = {0};
    (void)e;
    int64_t begin = later(later(s->now_ns, s->launched_end_ns), s->loaded_end_ns);
    settle(s, begin);
    run_batch(s, step, &load);
    double ns = sim_gpu_step_ns(s->o.gpu, &s->o.model, &load, copying_rate(s, begin));
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
    int64_t next = INT64_MAX;
    for (int i = 0; i < LANES; i++)
        for (uint32_t k = 0; k < s->lanes[i].n; k++) {
            int64_t end = nth(&s->lanes[i], k)->end_ns;
            if (end > s->now_ns) {
                next = end < next ? end : next;
                break;
            }
        }
    return next;
}

void sim_be_totals(const struct be *be, struct sim_be_totals *out)
{
    *out = ((const struct sim_be *)be)->totals;
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
    s->noise.state = sim_mix(o->seed, 0x6e6f697365);
    s->now_ns = SIM_BE_START_NS;
    *out = &s->be;
    return ST_OK;
}
