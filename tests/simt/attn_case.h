/* attn_case: a world for the tests of attention: sequences whose K and V lie in a pool of blocks in random order, everything else
 * in the pool NaN; steps over it through the plan and both kernels; results in double for each row.
 *
 * Owns     device memory of the emulated GPU: attn_case_end frees it.
 * Units    tokens, rows.
 * States   begin -> run any number of times -> end.
 * Threads  one.
 * Errors   cmocka assertions.
 * Bounds   ATTN_SEQS sequences.
 * Source   kernels/cuda/cu_attn.h.
 */
#ifndef STATOR_ATTN_CASE_H
#define STATOR_ATTN_CASE_H

#include "cu_attn.h"
#include "ptx.h"
#include "simt.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

enum { ATTN_SEQS = 40, ATTN_PATTERN = 0x5a5a };

struct attn_model {
    uint32_t n_heads, n_kv_heads, head_dim, block_tokens, window;
    uint8_t xt, kvt;
    float q_size; /* deviation of logits, about */
};

struct attn_seq {
    uint32_t tokens, table; /* in `tables` */
};

/* A span of a step: rows of a sequence. */
struct attn_rows {
    uint32_t seq, pos0, n_rows;
};

struct attn_case {
    struct attn_model m;
    struct gpu *gpu;
    struct gpu_stream *stream;
    struct cu_kv kv;
    struct attn_seq seqs[ATTN_SEQS];
    uint32_t n_seqs, layer;
    uint32_t *tables;
    uint64_t seed, state;
};

static uint64_t attn_mix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline uint32_t attn_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(attn_mix(state) % n);
}

static inline float attn_normal(uint64_t *state) /* about */
{
    float sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (float)(int32_t)(attn_mix(state) >> 40) * 0x1p-23f - 1.0f;
    return sum * 0.866f;
}

static inline uint16_t attn_to16(uint8_t type, float v)
{
    return (uint16_t)(type == CU_BF16 ? ptx_bf16x2(v, 0.0f) : ptx_f16x2(v, 0.0f));
}

static inline float attn_from16(uint8_t type, uint32_t v)
{
    return type == CU_BF16 ? ptx_bf16_lo(v) : ptx_f16_f32(v);
}

/* ---- K and V ------------------------------------------------------------------------------------------------------- */

static inline size_t attn_row(const struct attn_case *c, const struct attn_seq *s, uint32_t is_v, uint32_t head, uint32_t token,
                              size_t *block)
{
    *block = (size_t)c->tables[s->table + token / c->kv.block_tokens] * c->kv.block_stride;
    return ((size_t)(c->layer * 2 + is_v) * c->kv.n_kv_heads + head) * c->kv.block_tokens + token % c->kv.block_tokens;
}

static inline void attn_fill_row(struct attn_case *c, const struct attn_seq *s, uint32_t is_v, uint32_t head, uint32_t token)
{
    size_t block, row = attn_row(c, s, is_v, head, token, &block), dims = c->kv.head_dim;
    uint8_t *pool = c->kv.pool + block;
    if (c->kv.type != CU_E4M3) {
        for (size_t d = 0; d < dims; d++)
            ((uint16_t *)pool)[row * dims + d] = attn_to16(c->kv.type, attn_normal(&c->state));
        return;
    }
    /* mostly the exponents of values around 1, now and then any that rope_append may write */
    int e = attn_below(&c->state, 16) ? -8 + (int)attn_below(&c->state, 2) : -15 + (int)attn_below(&c->state, 23);
    float size = e > -4 ? ldexpf(1.0f, -7 - e) : 100.0f;
    pool[c->kv.scale_offset + row] = (uint8_t)(e + 127);
    for (size_t d = 0; d < dims; d++)
        pool[row * dims + d] = (uint8_t)ptx_e4m3x2(attn_normal(&c->state) * size, 0.0f);
}

static inline double attn_kv(const struct attn_case *c, const struct attn_seq *s, uint32_t is_v, uint32_t head, uint32_t token,
                             uint32_t d)
{
    size_t block, row = attn_row(c, s, is_v, head, token, &block);
    const uint8_t *pool = c->kv.pool + block;
    if (c->kv.type != CU_E4M3)
        return attn_from16(c->kv.type, ((const uint16_t *)pool)[row * c->kv.head_dim + d]);
    return ldexp(ptx_f16_f32(ptx_e4m3x2_f16x2(pool[row * c->kv.head_dim + d])), pool[c->kv.scale_offset + row] - 127);
}

static inline void attn_case_begin(struct attn_case *c, struct gpu *gpu, struct gpu_stream *stream, const struct attn_model *m,
                                   const uint32_t *tokens, uint32_t n_seqs, uint64_t seed)
{
    *c = {};
    c->m = *m;
    c->gpu = gpu;
    c->stream = stream;
    c->seed = c->state = seed;
    c->n_seqs = n_seqs;
    c->layer = 1;
    uint32_t entries = 0;
    for (uint32_t i = 0; i < n_seqs; i++) {
        c->seqs[i] = {tokens[i], entries};
        entries += (tokens[i] + m->block_tokens - 1) / m->block_tokens;
    }
    struct cu_kv *kv = &c->kv;
    kv->type = m->kvt;
    kv->n_layers = 3;
    kv->n_kv_heads = m->n_kv_heads;
    kv->head_dim = m->head_dim;
    kv->block_tokens = m->block_tokens;
    kv->n_blocks = entries + 3;
    const uint64_t rows = (uint64_t)kv->n_layers * 2 * kv->n_kv_heads * kv->block_tokens; /* of a block */
    kv->scale_offset = rows * kv->head_dim * cu_type_bytes((cu_type)m->kvt);
    kv->block_stride = (kv->scale_offset + rows + 4095) / 4096 * 4096;
    kv->pool = (uint8_t *)gpu_alloc(gpu, kv->n_blocks * kv->block_stride);
    memset(kv->pool, 0xff, kv->n_blocks * kv->block_stride); /* NaN in every type */
    for (uint32_t i = 0; m->kvt == CU_E4M3 && i < kv->n_blocks; i++)
        memset(kv->pool + i * kv->block_stride + kv->scale_offset, 127 + 16, rows); /* inf as f16 */
    std::vector<uint32_t> blocks;
    for (uint32_t i = 0; i < kv->n_blocks; i++)
        blocks.insert(blocks.begin() + attn_below(&c->state, i + 1), i);
    c->tables = (uint32_t *)gpu_alloc(gpu, (entries + 1) * 4);
    memcpy(c->tables, blocks.data(), entries * 4);
    c->tables[entries] = 0xffffffff; /* read by nobody */
    for (uint32_t i = 0; i < n_seqs; i++)
        for (uint32_t token = 0; token < tokens[i]; token++)
            for (uint32_t head = 0; head < m->n_kv_heads; head++)
                for (uint32_t is_v = 0; is_v < 2; is_v++)
                    attn_fill_row(c, &c->seqs[i], is_v, head, token);
}

/* The sequence has its first tokens in the same blocks as another one; its own blocks for them are nobody's. */
static inline void attn_share(struct attn_case *c, uint32_t seq, uint32_t with, uint32_t tokens)
{
    assert_true(tokens % c->m.block_tokens == 0 && tokens <= c->seqs[seq].tokens && tokens <= c->seqs[with].tokens);
    for (uint32_t i = 0; i < tokens / c->m.block_tokens; i++) {
        uint32_t *entry = &c->tables[c->seqs[seq].table + i], *other = &c->tables[c->seqs[with].table + i];
        if (*entry != *other)
            memset(c->kv.pool + *entry * c->kv.block_stride, 0xff, c->kv.scale_offset);
        *entry = *other;
    }
}

static inline void attn_case_end(struct attn_case *c)
{
    gpu_free(c->gpu, c->kv.pool);
    gpu_free(c->gpu, c->tables);
}

/* ---- q, which depends on (sequence, position, head) alone ---------------------------------------------------------- */

static inline void attn_q(const struct attn_case *c, uint32_t seq, uint32_t pos, uint32_t head, uint16_t *q)
{
    uint64_t state = c->seed ^ ((uint64_t)seq << 48 | (uint64_t)pos << 16 | head) * 0x9e3779b97f4a7c15u;
    for (uint32_t d = 0; d < c->m.head_dim; d++)
        q[d] = attn_to16(c->m.xt, attn_normal(&state) * c->m.q_size);
}

/* ---- a step -------------------------------------------------------------------------------------------------------- */

struct attn_result {
    std::vector<attn_rows> spans;
    std::vector<uint16_t> y; /* [rows + 1][ldy], the last one without an item */
    uint32_t rows, ldy, n_items[2], n_partials;
    uint32_t n_shared; /* items of several spans */
};

static inline attn_result attn_run(struct attn_case *c, const std::vector<attn_rows> &spans, uint32_t ctas, bool share = true)
{
    const struct attn_model *m = &c->m;
    attn_result r = {};
    r.spans = spans;
    std::vector<cu_attn_span> plan_spans;
    uint32_t context = 1;
    for (const attn_rows &s : spans) {
        plan_spans.push_back({r.rows, s.n_rows, s.pos0, c->seqs[s.seq].table});
        r.rows += s.n_rows;
        context = s.pos0 + s.n_rows > context ? s.pos0 + s.n_rows : context;
    }
    const size_t row = (size_t)m->n_heads * m->head_dim;
    r.ldy = ((uint32_t)row + 63) / 64 * 64 + 64;
    uint16_t *q = (uint16_t *)gpu_alloc(c->gpu, r.rows * row * 2);
    uint16_t *y = (uint16_t *)gpu_alloc(c->gpu, (size_t)(r.rows + 1) * r.ldy * 2);
    for (size_t i = 0; i < (size_t)(r.rows + 1) * r.ldy; i++)
        y[i] = ATTN_PATTERN;
    for (size_t i = 0, at = 0; i < spans.size(); i++)
        for (uint32_t j = 0; j < spans[i].n_rows; j++, at++)
            for (uint32_t head = 0; head < m->n_heads; head++)
                attn_q(c, spans[i].seq, spans[i].pos0 + j, head, q + (at * m->n_heads + head) * m->head_dim);

    const struct cu_attn_shape shape = {m->n_heads, m->n_kv_heads, m->head_dim, m->block_tokens, ctas, (ctas + 1) / 2};
    struct cu_attn_plan plan;
    cu_attn_bounds(&shape, r.rows, (uint32_t)spans.size(), context, &plan);
    for (int j = 0; j < 2; j++)
        plan.items[j] = (struct cu_attn_item *)gpu_alloc(c->gpu, plan.max_items[j] * sizeof *plan.items[j]);
    plan.begin = (uint32_t *)gpu_alloc(c->gpu, (ctas + 1) * 4);
    plan.members = (uint32_t *)gpu_alloc(c->gpu, plan.max_members * 4);
    std::vector<cu_attn_peer> peers(plan.max_peers);
    plan.peers = peers.data();
    assert_int_equal(cu_attn_make_plan(&shape, plan_spans.data(), (uint32_t)spans.size(), share ? c->tables : NULL, &plan),
                     ST_OK);
    float *partials = (float *)gpu_alloc(c->gpu, ((size_t)plan.n_partials * (m->head_dim + 2) + 1) * 4);
    memset(partials, 0xff, ((size_t)plan.n_partials * (m->head_dim + 2) + 1) * 4);
    uint32_t *counters = (uint32_t *)gpu_alloc(c->gpu, plan.max_counters * 4);
    uint32_t *n_items = (uint32_t *)gpu_alloc(c->gpu, 4);
    *n_items = plan.n_items[1];

    struct cu_attn a = {};
    a.q = q, a.y = y, a.kv = c->kv, a.begin = plan.begin, a.tables = c->tables, a.n_items = n_items, a.partials = partials;
    a.counters = counters, a.layer = c->layer, a.n_heads = m->n_heads, a.ldy = r.ldy, a.window = m->window, a.xt = m->xt;
    a.scale = 1.0f / sqrtf((float)m->head_dim);
    a.runs = plan.items[0], a.members = plan.members;
    a.items = plan.items[1], a.ctas = plan.n_items[1] + 1; /* one block that has nothing to do */
    assert_int_equal(cu_attn_rows128(c->stream, &a), ST_OK);
    a.items = plan.items[0], a.ctas = ctas;
    assert_int_equal(cu_attn_rows16(c->stream, &a), ST_OK);
    assert_int_equal(gpu_stream_sync(c->stream), ST_OK);

    for (uint32_t i = 0; i < plan.max_counters; i++)
        assert_int_equal(counters[i], 0);
    r.y.assign(y, y + (size_t)(r.rows + 1) * r.ldy);
    for (int j = 0; j < 2; j++)
        r.n_items[j] = plan.n_items[j];
    r.n_partials = plan.n_partials;
    for (uint32_t i = 0; i < plan.n_items[1]; i++)
        r.n_shared += plan.items[1][i].member_rows > 0;
    void *all[] = {q, y, plan.items[0], plan.items[1], plan.begin, plan.members, partials, counters, n_items};
    for (void *p : all)
        gpu_free(c->gpu, p);
    return r;
}

/* ---- what it has to be --------------------------------------------------------------------------------------------- */

/* Row (seq, pos, head) in double; *size: sum of p |v| / l, the yardstick of errors. */
static inline void attn_reference(const struct attn_case *c, uint32_t seq, uint32_t pos, uint32_t head, double *y, double *size)
{
    const struct attn_model *m = &c->m;
    const struct attn_seq *s = &c->seqs[seq];
    const uint32_t kv_head = head / (m->n_heads / m->n_kv_heads);
    const uint32_t first = m->window && pos + 1 > m->window ? pos + 1 - m->window : 0;
    std::vector<uint16_t> q(m->head_dim);
    std::vector<double> x(pos + 1);
    attn_q(c, seq, pos, head, q.data());
    double top = -INFINITY, sum = 0;
    for (uint32_t token = first; token <= pos; token++) {
        double dot = 0;
        for (uint32_t d = 0; d < m->head_dim; d++)
            dot += (double)attn_from16(m->xt, q[d]) * attn_kv(c, s, 0, kv_head, token, d);
        x[token] = dot / sqrt((double)m->head_dim);
        top = fmax(top, x[token]);
    }
    for (uint32_t d = 0; d < m->head_dim; d++)
        y[d] = size[d] = 0;
    for (uint32_t token = first; token <= pos; token++) {
        const double p = exp(x[token] - top);
        sum += p;
        for (uint32_t d = 0; d < m->head_dim; d++) {
            const double v = attn_kv(c, s, 1, kv_head, token, d);
            y[d] += p * v;
            size[d] += p * fabs(v);
        }
    }
    for (uint32_t d = 0; d < m->head_dim; d++) {
        y[d] /= sum;
        size[d] /= sum;
    }
}

/* Every `stride`-th row and the last. Tolerance: P is rounded to 16 bits (u), l is the sum of the rounded: 2 u of the size, once
 * more u of y for the result; a fifth more for exponents; f16 has subnormals of P, 2^-24 each. */
static inline void attn_check_values(const struct attn_case *c, const attn_result &r, uint32_t stride)
{
    const struct attn_model *m = &c->m;
    const double u_p = m->kvt == CU_BF16 ? 0x1p-8 : 0x1p-11, u_y = m->xt == CU_BF16 ? 0x1p-8 : 0x1p-11;
    std::vector<double> want(m->head_dim), size(m->head_dim);
    size_t row = 0;
    for (const attn_rows &s : r.spans)
        for (uint32_t i = 0; i < s.n_rows; i++, row++) {
            if (i % stride && i + 1 != s.n_rows)
                continue;
            for (uint32_t head = 0; head < m->n_heads; head++) {
                attn_reference(c, s.seq, s.pos0 + i, head, want.data(), size.data());
                for (uint32_t d = 0; d < m->head_dim; d++) {
                    const double got = attn_from16(m->xt, r.y[row * r.ldy + head * m->head_dim + d]);
                    const double tol = 2.4 * u_p * size[d] + 1.2 * u_y * fabs(want[d]) + 0x1p-24 * (s.pos0 + i + 8);
                    if (!(fabs(got - want[d]) <= tol))
                        fail_msg("seed %llu: sequence %u position %u head %u dim %u: %g, not %g (tolerance %g)",
                                 (unsigned long long)c->seed, s.seq, s.pos0 + i, head, d, got, want[d], tol);
                }
            }
        }
    for (size_t i = 0; i <= r.rows; i++)
        for (uint32_t col = i < r.rows ? m->n_heads * m->head_dim : 0; col < r.ldy; col++)
            assert_int_equal(r.y[i * r.ldy + col], i < r.rows ? 0 : ATTN_PATTERN);
}

/* Rows of the same sequence and position in two steps have the same bits; returns how many there are. */
static inline uint32_t attn_check_bits(const struct attn_case *c, const attn_result &a, const attn_result &b)
{
    uint32_t common = 0;
    size_t at = 0;
    for (const attn_rows &s : a.spans)
        for (uint32_t i = 0; i < s.n_rows; i++, at++) {
            size_t bt = 0;
            for (const attn_rows &t : b.spans) {
                const uint32_t pos = s.pos0 + i;
                if (t.seq == s.seq && pos >= t.pos0 && pos < t.pos0 + t.n_rows) {
                    common++;
                    if (memcmp(&a.y[at * a.ldy], &b.y[(bt + pos - t.pos0) * b.ldy], a.ldy * 2))
                        fail_msg("seed %llu: sequence %u position %u: other bits", (unsigned long long)c->seed, s.seq, pos);
                }
                bt += t.n_rows;
            }
        }
    return common;
}

#endif
