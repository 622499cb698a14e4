/* A device whose steps take a fixed real time and no processor: a plug-in of the worker, loaded in the place of the CUDA one. So
 * the program that is measured is the one that is shipped, and what it spends is the host's side of a fast GPU: scheduling,
 * detokenisation, the endpoint, the request plane. BENCH_STEP_US is the time of a step, whatever stands in it.
 *
 * Nothing is computed and nothing is stored: weights, blocks and activations are one address that nobody reads. Tokens come from
 * a hash of where they stand, among ids that are words in the vocabularies of most models. */
#define _GNU_SOURCE
#include "be_plugin.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

enum { DEPTH = 2, WORDS_LOW = 1000, WORDS = 16000 };
static const uint64_t memory_bytes = (uint64_t)16 << 30;

struct step {
    int64_t end_ns;
    uint32_t n;
    struct be_sample_out *out; /* the engine's, from the launch to the wait */
    uint64_t seed;
};

struct device {
    struct be be;
    int64_t step_ns, last_end_ns;
    struct op_sample sample; /* of the step being built */
    struct step steps[DEPTH];
    uint64_t launched, waited;
};

static struct device the_device;
static char nothing[64];

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* ---- what holds nothing ------------------------------------------------------------------------------------------ */

static void destroy(struct be *be)
{
    (void)be;
}

static const char *describe(const struct be *be)
{
    (void)be;
    return "no device: steps of a fixed time";
}

static int weight_create(struct be *be, const struct be_weight_desc *d, struct be_weight **out, struct err *e)
{
    (void)be, (void)d, (void)e;
    *out = (struct be_weight *)(void *)nothing;
    return ST_OK;
}

static void weight_destroy(struct be *be, struct be_weight *w)
{
    (void)be, (void)w;
}

static size_t weight_bytes(const struct be_weight *w)
{
    (void)w;
    return 0;
}

static int kv_create(struct be *be, const struct be_kv_shape *s, struct be_kv **out, struct err *e)
{
    (void)be, (void)s, (void)e;
    *out = (struct be_kv *)(void *)nothing;
    return ST_OK;
}

static void kv_destroy(struct be *be, struct be_kv *kv)
{
    (void)be, (void)kv;
}

static size_t kv_block_bytes(struct be *be, const struct be_kv_shape *s)
{
    (void)be;
    return (size_t)2 * 2 * s->n_layers * s->n_kv_heads * s->head_dim * s->block_tokens;
}

static int act_create(struct be *be, uint32_t max_rows, uint32_t max_k, struct be_act **out)
{
    (void)be, (void)max_rows, (void)max_k;
    *out = (struct be_act *)(void *)nothing;
    return ST_OK;
}

static void act_destroy(struct be *be, struct be_act *a)
{
    (void)be, (void)a;
}

static void *buffer_create(struct be *be, size_t bytes)
{
    (void)be, (void)bytes;
    return nothing;
}

static void buffer_destroy(struct be *be, void *p)
{
    (void)be, (void)p;
}

static int upload(struct be *be, void *dst, const void *host, size_t bytes)
{
    (void)be, (void)dst, (void)host, (void)bytes;
    return ST_OK;
}

static int memory(struct be *be, uint64_t *free_bytes, uint64_t *total_bytes)
{
    (void)be;
    *free_bytes = *total_bytes = memory_bytes;
    return ST_OK;
}

static void wake(struct be *be)
{
    (void)be;
}

static int step_limits(struct be *be, const struct be_step_limits *l, struct err *e)
{
    (void)be, (void)e;
    assert(l->vocab >= WORDS_LOW + WORDS);
    return ST_OK;
}

#define NO_OP(name)                                           \
    static int name(struct be *be, const struct op_##name *p) \
    {                                                         \
        (void)be, (void)p;                                    \
        return ST_OK;                                         \
    }
NO_OP(embed)
NO_OP(norm)
NO_OP(qkv)
NO_OP(attention)
NO_OP(linear_add)
NO_OP(gated)
NO_OP(logits)

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static int begin_step(struct be *be, const struct be_batch *b)
{
    (void)b;
    ((struct device *)be)->sample = (struct op_sample){0};
    return ST_OK;
}

static int sample(struct be *be, const struct op_sample *p)
{
    ((struct device *)be)->sample = *p;
    return ST_OK;
}

/* A step begins when it is launched and the one before it has ended. */
static int end_step(struct be *be, struct err *e)
{
    struct device *d = (struct device *)be;
    (void)e;
    assert(d->launched - d->waited < DEPTH);
    int64_t now = now_ns();
    d->last_end_ns = (d->last_end_ns > now ? d->last_end_ns : now) + d->step_ns;
    d->steps[d->launched % DEPTH] = (struct step){
        .end_ns = d->last_end_ns, .n = d->sample.n_rows, .out = d->sample.out, .seed = d->launched << 16};
    d->launched++;
    return ST_OK;
}

static int wait_step(struct be *be, struct err *e)
{
    struct device *d = (struct device *)be;
    const struct step *s = &d->steps[d->waited++ % DEPTH];
    const struct timespec end = {s->end_ns / 1000000000, s->end_ns % 1000000000};
    (void)e;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) == EINTR)
        ;
    for (uint32_t i = 0; i < s->n; i++) {
        s->out[i].token = WORDS_LOW + (int32_t)(mix(s->seed + i + 1) % WORDS);
        s->out[i].logprob = -1;
        s->out[i].n_top = 0;
    }
    return ST_OK;
}

static const struct be_ops ops = {.name = "bench",
                                  .depth = DEPTH,
                                  .destroy = destroy,
                                  .describe = describe,
                                  .weight_create = weight_create,
                                  .weight_destroy = weight_destroy,
                                  .weight_bytes = weight_bytes,
                                  .kv_create = kv_create,
                                  .kv_destroy = kv_destroy,
                                  .kv_block_bytes = kv_block_bytes,
                                  .act_create = act_create,
                                  .act_destroy = act_destroy,
                                  .buffer_create = buffer_create,
                                  .buffer_destroy = buffer_destroy,
                                  .upload = upload,
                                  .memory = memory,
                                  .wake = wake,
                                  .step_limits = step_limits,
                                  .begin_step = begin_step,
                                  .end_step = end_step,
                                  .wait_step = wait_step,
                                  .embed = embed,
                                  .norm = norm,
                                  .qkv = qkv,
                                  .attention = attention,
                                  .linear_add = linear_add,
                                  .gated = gated,
                                  .logits = logits,
                                  .sample = sample};

static int create(struct be **out, const struct be_options *o, struct err *e)
{
    const char *us = getenv("BENCH_STEP_US");
    (void)o, (void)e;
    the_device = (struct device){.be.ops = &ops, .step_ns = (us ? strtoll(us, NULL, 10) : 10000) * 1000};
    *out = &the_device.be;
    return ST_OK;
}

extern const struct be_plugin stator_plugin;

__attribute__((visibility("default")))
const struct be_plugin stator_plugin = {BE_PLUGIN_NUMBERS, .create = create};
