/* One attention item, written once against v16; included by the per-ISA files after cpu_vec.h.
 *
 * For each panel of 64 absolute positions, and each group of up to 6 queries in it:
 *     s = q K^T       (q carries scale * log2 e, so that the softmax is in powers of two)
 *     m' = max(m, max s);  if it grew: l, o *= 2^(m - m')
 *     p = 2^(s - m');  l += p (16 lanes);  o += p V
 * and at the end out = o / sum of l. A panel, not a sub-block, is the step because the two horizontal
 * maxima and the rescaling of o are then paid once per 64 positions. Panels stand at absolute positions, so
 * a row takes the same steps whatever tile it is in. Positions that a row may not see have s = -inf and p =
 * 0: they add nothing, and so it does not matter which of them a tile computes.
 *
 * Tiles of many queries copy K and V of the panel to f32 first: the micro-kernels then spend no
 * conversions, and V is one product over up to 64 tokens instead of four.
 */

#define MM(name) mm_f32_##name
#define MM_T float
#define MM_LOAD(p) v16_load(p)
#include "cpu_attn_mm.inl"
#define MM(name) mm_f16_##name
#define MM_T uint16_t
#define MM_LOAD(p) v16_load_f16(p)
#include "cpu_attn_mm.inl"
#define MM(name) mm_bf16_##name
#define MM_T uint16_t
#define MM_LOAD(p) v16_load_bf16(p)
#include "cpu_attn_mm.inl"

struct attn_tile {
    const struct cpu_attn *a;
    struct cpu_attn_range r;
    const uint32_t *table;
    uint32_t pos0;      /* position of the tile's first row */
    uint32_t n_queries; /* query i = row i / n_heads, head i % n_heads */
    uint32_t dim;
    size_t ld;         /* of q and o */
    bool widened;      /* the panel's V stands in one piece, [64][dim] */
    enum be_type type; /* of k_sub, v_sub */
    const void *k_sub[CPU_ATTN_PANEL / 16], *v_sub[CPU_ATTN_PANEL / 16]; /* index: sub-block in the panel */
    float *q, *o, *l, *s, *wide, *m;
};

/* First position that a row at `pos` sees. */
VEC_FN uint32_t attn_row_lo(const struct cpu_attn *a, uint32_t pos)
{
    return a->window > 0 && pos + 1 > a->window ? pos + 1 - a->window : 0;
}

static void attn_begin(struct attn_tile *t, const struct cpu_attn *a, uint32_t item, void *scratch)
{
    t->a = a;
    cpu_attn_range(a, item, &t->r);
    const struct be_span *span = &a->batch->spans[t->r.span];
    t->table = span->table;
    t->pos0 = span->pos0 + (t->r.row0 - span->row0);
    t->n_queries = t->r.n_rows * t->r.n_heads;
    t->dim = a->kv->l.head_dim;
    t->ld = t->dim + CPU_ATTN_PAD;
    t->type = a->kv->l.type;
    t->q = scratch;
    t->o = t->q + CPU_ATTN_QUERIES * t->ld;
    t->l = t->o + CPU_ATTN_QUERIES * t->ld;
    t->s = t->l + CPU_ATTN_QUERIES * 16;
    t->wide = t->s + CPU_ATTN_GROUP * CPU_ATTN_SCORES;
    t->m = t->wide + (size_t)2 * CPU_ATTN_PANEL * t->dim;
    struct v16 factor = v16_set1(a->scale * 0x1.715476p+0f), zero = v16_set1(0);
    for (uint32_t i = 0; i < t->n_queries; i++) {
        size_t row = t->r.row0 + i / t->r.n_heads, head = t->r.head0 + i % t->r.n_heads;
        const float *src = a->q + (row * a->n_heads + head) * t->dim;
        for (uint32_t d = 0; d < t->dim; d += 16) {
            v16_store(t->q + i * t->ld + d, v16_mul(v16_load(src + d), factor));
            v16_store(t->o + i * t->ld + d, zero);
        }
        v16_store(t->l + i * 16, zero);
        t->m[i] = -FLT_MAX;
    }
}

VEC_FN void attn_widen(float *dst, const char *src, uint32_t n, enum be_type type)
{
    if (type == BE_F16)
        mm_f16_widen(dst, src, n);
    else if (type == BE_BF16)
        mm_bf16_widen(dst, src, n);
    else
        mm_f32_widen(dst, src, n);
}

static const char *attn_sub(const struct attn_tile *t, uint32_t pos)
{
    const struct cpu_kv_layout *l = &t->a->kv->l;
    return t->a->kv->base + (size_t)t->table[pos / l->block_tokens] * l->block_bytes +
           t->a->layer * l->layer_bytes + t->r.kv_head * l->head_bytes +
           pos % l->block_tokens / 16 * l->sub_bytes;
}

/* Finds, and for large tiles widens, the sub-blocks of the panel at position `base` in [lo, end). */
static void attn_load_panel(struct attn_tile *t, uint32_t base, uint32_t lo, uint32_t end)
{
    const struct cpu_kv_layout *l = &t->a->kv->l;
    uint32_t half = CPU_KV_SUB * t->dim, first = lo > base ? (lo - base) / 16 : 0;
    uint32_t last = end - base >= CPU_ATTN_PANEL ? CPU_ATTN_PANEL / 16 : (end - base + 15) / 16;
    t->widened = t->n_queries > CPU_ATTN_GROUP;
    for (uint32_t j = first; j < last; j++) {
        uint32_t pos = base + j * 16;
        const char *k = attn_sub(t, pos);
        const char *v = k + l->sub_bytes / 2;
        t->k_sub[j] = k;
        t->v_sub[j] = v;
        if (!t->widened)
            continue;
        float *wk = t->wide + (size_t)j * half, *wv = wk + (size_t)CPU_ATTN_PANEL * t->dim;
        attn_widen(wk, k, half, l->type);
        attn_widen(wv, v, half, l->type);
        t->k_sub[j] = wk;
        t->v_sub[j] = wv;
    }
    t->type = t->widened ? BE_F32 : l->type;
}

/* Scores to weights for the n queries of a group: sub-blocks first..last of the panel at `base`. The new
 * maxima of all queries are found before any exponential, so that one vector of corrections serves the
 * group. Multiplying l by a correction of 1 is exact, and o is left alone where the maximum stayed: as if
 * each query had been alone. */
static void attn_softmax(struct attn_tile *t, uint32_t query, uint32_t n, uint32_t first, uint32_t last,
                         uint32_t base)
{
    float max[16], corr[16];
    v16_store(max, v16_set1(-FLT_MAX));
    for (uint32_t i = 0; i < n; i++) {
        uint32_t pos = t->pos0 + (query + i) / t->r.n_heads, lo = attn_row_lo(t->a, pos);
        int32_t rel_lo = lo < base ? 0 : (int32_t)(lo - base);
        int32_t rel_end = pos < base                    ? 0
                          : pos - base < CPU_ATTN_PANEL ? (int32_t)(pos - base) + 1
                                                        : CPU_ATTN_PANEL;
        float *s = t->s + i * CPU_ATTN_SCORES;
        struct v16 top = v16_set1(-INFINITY);
        for (uint32_t j = first; j < last; j++) {
            int32_t at = (int32_t)j * 16;
            struct v16 x = v16_load(s + at);
            if (rel_lo > at || rel_end < at + 16) {
                x = v16_keep(x, rel_lo - at, rel_end - at);
                v16_store(s + at, x);
            }
            top = v16_max(top, x);
        }
        max[i] = v16_maximum(top);
    }
    struct v16 old = v16_load(t->m + query), m = v16_max(v16_load(max), old); /* lanes past n: old */
    v16_store(t->m + query, m);
    v16_store(corr, v16_exp2(v16_sub(old, m)));
    uint32_t same = v16_eq_mask(old, m);
    for (uint32_t i = 0; i < n; i++) {
        float *s = t->s + i * CPU_ATTN_SCORES, *o = t->o + (query + i) * t->ld, *lp = t->l + (query + i) * 16;
        struct v16 mi = v16_set1(t->m[query + i]), c = v16_set1(corr[i]), l = v16_mul(v16_load(lp), c);
        for (uint32_t j = first; j < last; j++) {
            struct v16 p = v16_exp2(v16_sub(v16_load(s + j * 16), mi));
            l = v16_add(l, p);
            v16_store(s + j * 16, p);
        }
        v16_store(lp, l);
        for (uint32_t d = 0; !(same >> i & 1) && d < t->dim; d += 16)
            v16_store(o + d, v16_mul(v16_load(o + d), c));
    }
}

static void attn_group(struct attn_tile *t, uint32_t base, uint32_t query, uint32_t n)
{
    uint32_t heads = t->r.n_heads;
    uint32_t pos_first = t->pos0 + query / heads, pos_last = t->pos0 + (query + n - 1) / heads;
    uint32_t lo = attn_row_lo(t->a, pos_first), end = pos_last + 1;
    if (end <= base || lo >= base + CPU_ATTN_PANEL)
        return;
    uint32_t first = lo > base ? (lo - base) / 16 : 0, dim = t->dim;
    uint32_t last = end - base >= CPU_ATTN_PANEL ? CPU_ATTN_PANEL / 16 : (end - base + 15) / 16;
    const float *q = t->q + query * t->ld;
    float *s = t->s, *o = t->o + query * t->ld;
    if (t->type == BE_F32)
        mm_f32_scores(n, last - first, s + first * 16, t->k_sub + first, dim, q, t->ld);
    else if (t->type == BE_F16)
        mm_f16_scores(n, last - first, s + first * 16, t->k_sub + first, dim, q, t->ld);
    else
        mm_bf16_scores(n, last - first, s + first * 16, t->k_sub + first, dim, q, t->ld);
    attn_softmax(t, query, n, first, last, base);
    /* what lies behind `end` is not ours to read */
    uint32_t tokens = (end - base < CPU_ATTN_PANEL ? end - base : CPU_ATTN_PANEL) - first * 16;
    for (uint32_t j = first, piece; tokens > 0; tokens -= piece, j++) {
        piece = t->widened || tokens < 16 ? tokens : 16;
        if (t->type == BE_F32)
            mm_f32_values(n, o, t->ld, t->v_sub[j], dim, s + j * 16, piece);
        else if (t->type == BE_F16)
            mm_f16_values(n, o, t->ld, t->v_sub[j], dim, s + j * 16, piece);
        else
            mm_bf16_values(n, o, t->ld, t->v_sub[j], dim, s + j * 16, piece);
    }
}

static void attn_end(const struct attn_tile *t)
{
    const struct cpu_attn *a = t->a;
    for (uint32_t i = 0; i < t->n_queries; i++) {
        size_t row = t->r.row0 + i / t->r.n_heads, head = t->r.head0 + i % t->r.n_heads;
        float *dst = a->out + (row * a->n_heads + head) * t->dim;
        struct v16 inv = v16_div(v16_set1(1.0f), v16_set1(v16_sum(v16_load(t->l + i * 16))));
        /* + 0 turns -0 to 0: adding p = 0 for an unseen position may or may not have done so */
        for (uint32_t d = 0; d < t->dim; d += 16)
            v16_store(dst + d, v16_fma(v16_load(t->o + i * t->ld + d), inv, v16_set1(0)));
    }
}

static void rows_attn_item(const struct cpu_attn *a, uint32_t item, void *scratch)
{
    struct attn_tile t;
    attn_begin(&t, a, item, scratch);
    uint32_t lo = attn_row_lo(a, t.pos0), end = t.pos0 + t.r.n_rows;
    for (uint32_t base = lo / CPU_ATTN_PANEL * CPU_ATTN_PANEL; base < end; base += CPU_ATTN_PANEL) {
        attn_load_panel(&t, base, lo, end);
        for (uint32_t query = 0; query < t.n_queries; query += CPU_ATTN_GROUP) {
            uint32_t n = t.n_queries - query;
            attn_group(&t, base, query, n < CPU_ATTN_GROUP ? n : CPU_ATTN_GROUP);
        }
    }
    attn_end(&t);
}
