/* backend_net: a small transformer over any backend's op table, for tests: layers that share one set of weights, sequences fed
 * in any cuts.
 *
 * Owns     a source owns the file side of the weights; a net owns its backend and what is made through it.
 * Units    tokens; rows.
 * States   source_init -> net_init (any number) -> step* -> net_fini -> source_fini.
 * Threads  one.
 * Errors   fail the test.
 * Bounds   NET_SEQS sequences of NET_LEN positions; a test that needs more of these defines NET_POSITIONS.
 */
#ifndef STATOR_BACKEND_NET_H
#define STATOR_BACKEND_NET_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "backend.h"
#include "kernels/ref_weight.h"

#include <math.h>

#ifndef NET_POSITIONS
#define NET_POSITIONS 45
#endif

enum {
    NET_LEN = NET_POSITIONS,
    NET_BLOCK = 16,
    NET_SEQS = 20,
    NET_ROWS = NET_SEQS * NET_LEN,
    NET_TABLE = (NET_LEN + NET_BLOCK - 1) / NET_BLOCK,
    NET_BLOCKS = NET_SEQS * NET_TABLE + 4
};

struct shape {
    uint32_t layers, d, heads, kv_heads, hd, ff, vocab, rot;
    enum be_type main, v; /* v and down may be of another type, as mixed files have it */
    bool interleaved, bias;
};

struct source {
    struct shape s;
    uint8_t *embed, *q, *k, *v, *o, *gate, *up, *down;
    float *gain, *bias, *rope, *gated_bias;
};

struct net {
    const struct source *m;
    struct be *be;
    struct be_weight *embed, *qkv, *o, *gated, *down, *gain, *bias, *gated_bias;
    struct be_kv *kv;
    struct be_act *a, *b;
    float *x, *q, *logits, *rope;
    uint32_t max_rows;
    uint32_t window;
};

static uint64_t net_seed = 4711;

static inline float *net_floats(uint32_t n, float base, float spread)
{
    float *p = malloc(n * sizeof *p);
    for (uint32_t i = 0; i < n; i++)
        p[i] = base + spread * ref_unit(&net_seed);
    return p;
}

static inline void source_init(struct source *m, const struct shape *s)
{
    m->s = *s;
    m->embed = ref_weight_random(s->main, s->vocab, s->d, &net_seed);
    m->q = ref_weight_random(s->main, s->heads * s->hd, s->d, &net_seed);
    m->k = ref_weight_random(s->main, s->kv_heads * s->hd, s->d, &net_seed);
    m->v = ref_weight_random(s->v, s->kv_heads * s->hd, s->d, &net_seed);
    m->o = ref_weight_random(s->main, s->d, s->heads * s->hd, &net_seed);
    m->gate = ref_weight_random(s->main, s->ff, s->d, &net_seed);
    m->up = ref_weight_random(s->main, s->ff, s->d, &net_seed);
    m->down = ref_weight_random(s->v, s->d, s->ff, &net_seed);
    m->gain = net_floats(s->d, 1, 0.1f);
    m->bias = net_floats((s->heads + 2 * s->kv_heads) * s->hd, 0, 0.3f);
    m->gated_bias = net_floats(2 * s->ff, 0, 0.3f);
    m->rope = malloc((size_t)NET_LEN * s->rot * sizeof(float));
    for (uint32_t p = 0; p < NET_LEN; p++)
        for (uint32_t i = 0; i < s->rot / 2; i++) {
            double a = p * pow(1000, -2.0 * i / s->rot);
            m->rope[p * s->rot + 2 * i] = (float)cos(a);
            m->rope[p * s->rot + 2 * i + 1] = (float)sin(a);
        }
}

static inline void source_fini(struct source *m)
{
    void *all[] = {m->embed, m->q,    m->k,    m->v,    m->o,    m->gate,
                   m->up,    m->down, m->gain, m->bias, m->rope, m->gated_bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static inline int net_weight(struct net *n, struct be_weight **out, enum be_weight_use use, uint32_t k,
                             uint32_t n_parts, const struct be_part *parts, struct err *e)
{
    const struct shape *s = &n->m->s;
    struct be_weight_desc d = {.use = use, .k = k, .n_parts = n_parts, .name = "w"};
    memcpy(d.parts, parts, n_parts * sizeof *parts);
    if (use == BE_USE_QKV) {
        d.head_dim = s->hd;
        d.rot_dim = s->rot;
        d.rope_interleaved = s->interleaved;
    }
    return n->be->ops->weight_create(n->be, &d, out, e);
}

static inline int net_weights(struct net *n, struct err *e)
{
    const struct source *m = n->m;
    const struct shape *s = &m->s;
    uint32_t qn = s->heads * s->hd, kn = s->kv_heads * s->hd;
    struct be_part embed[] = {{s->main, s->vocab, m->embed, NULL}};
    struct be_part qkv[] = {
        {s->main, qn, m->q, NULL}, {s->main, kn, m->k, NULL}, {s->v, kn, m->v, NULL}};
    struct be_part o[] = {{s->main, s->d, m->o, NULL}};
    struct be_part gated[] = {{s->main, s->ff, m->gate, NULL}, {s->main, s->ff, m->up, NULL}};
    struct be_part down[] = {{s->v, s->d, m->down, NULL}};
    struct be_part gain[] = {{BE_F32, 1, m->gain, NULL}};
    struct be_part bias[] = {{BE_F32, 1, m->bias, NULL}},
                   gated_bias[] = {{BE_F32, 1, m->gated_bias, NULL}};
    int st = net_weight(n, &n->embed, BE_USE_EMBED, s->d, 1, embed, e);
    if (st == ST_OK)
        st = net_weight(n, &n->qkv, BE_USE_QKV, s->d, 3, qkv, e);
    if (st == ST_OK)
        st = net_weight(n, &n->o, BE_USE_LINEAR, qn, 1, o, e);
    if (st == ST_OK)
        st = net_weight(n, &n->gated, BE_USE_GATED, s->d, 2, gated, e);
    if (st == ST_OK)
        st = net_weight(n, &n->down, BE_USE_LINEAR, s->ff, 1, down, e);
    if (st == ST_OK)
        st = net_weight(n, &n->gain, BE_USE_VECTOR, s->d, 1, gain, e);
    if (st == ST_OK && s->bias)
        st = net_weight(n, &n->bias, BE_USE_VECTOR, qn + 2 * kn, 1, bias, e);
    if (st == ST_OK && s->bias)
        st = net_weight(n, &n->gated_bias, BE_USE_VECTOR, 2 * s->ff, 1, gated_bias, e);
    return st;
}

/* A net on `be`, which it owns from now on, also when this fails. */
static inline int net_init(struct net *n, const struct source *m, struct be *be, enum be_type kv,
                           uint32_t max_rows, struct err *e)
{
    const struct shape *s = &m->s;
    const struct be_ops *ops = be->ops;
    *n = (struct net){.m = m, .be = be, .max_rows = max_rows};
    int st = net_weights(n, e);
    if (st)
        return st;
    uint32_t qn = s->heads * s->hd, wide = s->ff > qn ? s->ff : qn;
    struct be_kv_shape ks = {s->layers, s->kv_heads, s->hd, NET_BLOCK, NET_BLOCKS, kv};
    wide = wide > s->d ? wide : s->d;
    n->x = ops->buffer_create(be, sizeof(float) * max_rows * s->d);
    n->q = ops->buffer_create(be, sizeof(float) * max_rows * qn);
    n->logits = ops->buffer_create(be, sizeof(float) * max_rows * s->vocab);
    n->rope = ops->buffer_create(be, sizeof(float) * NET_LEN * s->rot);
    if (!n->x || !n->q || !n->logits || !n->rope)
        return err_set(e, ST_ENOMEM, "no buffers");
    st = ops->act_create(be, max_rows, wide, &n->a);
    if (st == ST_OK)
        st = ops->act_create(be, max_rows, wide, &n->b);
    if (st == ST_OK)
        st = ops->upload(be, n->rope, m->rope, sizeof(float) * NET_LEN * s->rot);
    if (st)
        return err_set(e, st, "no activations");
    st = ops->kv_create(be, &ks, &n->kv, e);
    struct be_step_limits l = {max_rows, NET_SEQS, max_rows, NET_LEN, NET_SEQS * NET_TABLE, s->vocab};
    return st == ST_OK ? ops->step_limits(be, &l, e) : st;
}

static inline void net_fini(struct net *n)
{
    const struct be_ops *ops = n->be->ops;
    struct be_weight *all[] = {n->embed, n->qkv, n->o, n->gated, n->down, n->gain, n->bias, n->gated_bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        ops->weight_destroy(n->be, all[i]);
    ops->kv_destroy(n->be, n->kv);
    ops->act_destroy(n->be, n->a);
    ops->act_destroy(n->be, n->b);
    float *buffers[] = {n->x, n->q, n->logits, n->rope};
    for (int i = 0; i < 4; i++)
        ops->buffer_destroy(n->be, buffers[i]);
    be_destroy(n->be);
}

/* The ops of one step, between begin and end; logits of the rows that the batch names. */
static inline int net_forward(struct net *n, const struct be_batch *b)
{
    const struct shape *s = &n->m->s;
    const struct be_ops *ops = n->be->ops;
    struct be *be = n->be;
    uint32_t rows = b->n_rows, hd = s->hd;
    struct op_embed embed = {b, n->embed, 1.0f, n->x};
    struct op_norm norm = {rows, NULL, s->d, n->x, n->gain, 1e-5f, n->qkv, n->a};
    struct op_linear_add o = {rows, n->b, n->o, NULL, n->x}, down = {rows, n->b, n->down, NULL, n->x};
    struct op_gated gated = {rows, n->a, n->gated, n->gated_bias, n->down, n->b};
    int st = ops->embed(be, &embed);
    for (uint32_t l = 0; l < s->layers && st == ST_OK; l++) {
        struct op_qkv qkv = {b,        n->a,        n->qkv, n->bias, n->rope, s->rot,
                             s->heads, s->kv_heads, hd,     l,       n->kv,   n->q};
        struct op_attention attention = {
            b, n->q, n->kv, l, s->heads, s->kv_heads, hd, n->window, 1.0f / sqrtf((float)hd), n->o, n->b};
        norm.next = n->qkv;
        st = ops->norm(be, &norm);
        st = st ? st : ops->qkv(be, &qkv);
        st = st ? st : ops->attention(be, &attention);
        st = st ? st : ops->linear_add(be, &o);
        norm.next = n->gated;
        st = st ? st : ops->norm(be, &norm);
        st = st ? st : ops->gated(be, &gated);
        st = st ? st : ops->linear_add(be, &down);
    }
    if (st || !b->n_logits)
        return st;
    norm.n_rows = b->n_logits;
    norm.rows = b->logit_rows;
    norm.next = n->embed;
    struct op_logits logits = {b->n_logits, n->a, n->embed, n->logits};
    st = ops->norm(be, &norm);
    return st ? st : ops->logits(be, &logits);
}

static inline int net_step(struct net *n, const struct be_batch *b, struct err *e)
{
    const struct be_ops *ops = n->be->ops;
    int st = ops->begin_step(n->be, b);
    if (st == ST_OK)
        st = net_forward(n, b);
    int end = ops->end_step(n->be, e);
    if (st || end)
        return st ? st : end;
    return ops->wait_step(n->be, e);
}

/* ---- batches ------------------------------------------------------------------------------------------------------- */

/* A batch and the arrays that it points into. */
struct feed {
    struct be_batch b;
    int32_t tokens[NET_ROWS];
    uint32_t positions[NET_ROWS], slots[NET_ROWS], logit_rows[NET_ROWS];
    struct be_span spans[NET_SEQS];
    uint32_t tables[NET_SEQS][NET_TABLE];
};

static inline int32_t net_token(uint32_t seq, uint32_t pos, uint32_t vocab)
{
    return (int32_t)((seq * 31 + pos * 17 + pos * pos) % vocab);
}

static inline void feed_begin(struct feed *f)
{
    f->b = (struct be_batch){.tokens = f->tokens,
                             .positions = f->positions,
                             .kv_slots = f->slots,
                             .spans = f->spans,
                             .logit_rows = f->logit_rows};
    for (uint32_t q = 0; q < NET_SEQS; q++) /* blocks of the sequences interleave */
        for (uint32_t i = 0; i < NET_TABLE; i++)
            f->tables[q][i] = (NET_TABLE - 1 - i) * NET_SEQS + (q * 7 + 3) % NET_SEQS;
}

/* Positions from .. to - 1 of sequence q, with logits of all its rows. */
static inline void feed_add(struct feed *f, uint32_t q, uint32_t from, uint32_t to, uint32_t vocab)
{
    struct be_batch *b = &f->b;
    f->spans[b->n_spans++] =
        (struct be_span){b->n_rows, to - from, from, (to + NET_BLOCK - 1) / NET_BLOCK, f->tables[q]};
    for (uint32_t p = from; p < to; p++, b->n_rows++) {
        f->tokens[b->n_rows] = net_token(q, p, vocab);
        f->positions[b->n_rows] = p;
        f->slots[b->n_rows] = f->tables[q][p / NET_BLOCK] * NET_BLOCK + p % NET_BLOCK;
        f->logit_rows[b->n_logits++] = b->n_rows;
    }
}

/* One step; its logits go to out[seq][pos][vocab]. */
static inline void feed_run(struct net *n, const struct feed *f, const uint32_t *seqs, float *out)
{
    uint32_t vocab = n->m->s.vocab;
    struct err e = {0};
    float *y = malloc(sizeof *y * f->b.n_rows * vocab);
    if (net_step(n, &f->b, &e))
        fail_msg("step of %u rows: %s", f->b.n_rows, e.text);
    assert_int_equal(n->be->ops->download(n->be, y, n->logits, sizeof *y * f->b.n_rows * vocab), ST_OK);
    for (uint32_t i = 0; i < f->b.n_spans; i++)
        memcpy(out + ((size_t)seqs[i] * NET_LEN + f->spans[i].pos0) * vocab,
               y + (size_t)f->spans[i].row0 * vocab, sizeof *y * f->spans[i].n_rows * vocab);
    free(y);
}

enum schedule { WHOLE, ALONE, TOKENS, CHUNKS, SCHEDULES };

/* `n_seqs` sequences of `len` positions through the net, cut in the way of `how`. */
static inline void net_run(struct net *n, enum schedule how, uint32_t n_seqs, uint32_t len, float *out)
{
    static const uint32_t cuts[] = {1, 13, 3, 9, 2};
    uint32_t at[NET_SEQS] = {0}, left = n_seqs, seqs[NET_SEQS];
    struct feed *f = malloc(sizeof *f);
    for (uint32_t i = 0; left; i++) {
        feed_begin(f);
        for (uint32_t q = 0; q < n_seqs; q++) {
            uint32_t want = how == WHOLE    ? len
                            : how == ALONE  ? (i % n_seqs == q ? len : 0)
                            : how == TOKENS ? 1
                                            : cuts[(i + 2 * q) % 5];
            uint32_t to = at[q] + want < len ? at[q] + want : len;
            if (to == at[q] || f->b.n_rows + to - at[q] > n->max_rows)
                continue;
            seqs[f->b.n_spans] = q;
            feed_add(f, q, at[q], to, n->m->s.vocab);
            at[q] = to;
            left -= to == len;
        }
        if (f->b.n_rows)
            feed_run(n, f, seqs, out);
    }
    free(f);
}

#endif
