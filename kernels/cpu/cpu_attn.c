/* The parts of attention that need no vector: where K and V lie, and how an op is cut into items.
 *
 * A query head shares its K and V with all heads of its group, and in a prefill with all later rows, so an
 * item is (row tile, KV head): each sub-block of K and V is fetched, and widened to f32, once per item.
 * Cutting along positions would let one long sequence use all threads, but it adds partial sums in another
 * order than a short one: rejected. Tiles are as large as the number of threads lets them be; the bits of a
 * row do not depend on its tile.
 */
#include "cpu_attn.h"
#include "cpu_attn_tile.h"
#include "mem.h"

#include <assert.h>

int cpu_kv_layout_init(struct cpu_kv_layout *out, const struct be_kv_shape *s, struct err *e)
{
    if (s->type != BE_F32 && s->type != BE_F16 && s->type != BE_BF16)
        return err_set(e, ST_EINVAL, "kv type: %s is not one of f32, f16, bf16", be_type_name(s->type));
    if (s->head_dim == 0 || s->head_dim % 16 != 0 || s->head_dim > CPU_HEAD_DIM_MAX)
        return err_set(e, ST_EINVAL, "kv head_dim: %u is not a multiple of 16 up to %d",
                       (unsigned)s->head_dim, CPU_HEAD_DIM_MAX);
    if (s->block_tokens == 0 || s->block_tokens % CPU_KV_SUB != 0)
        return err_set(e, ST_EINVAL, "kv block_tokens: %u is not a multiple of %d", (unsigned)s->block_tokens,
                       CPU_KV_SUB);
    if (s->n_layers == 0 || s->n_kv_heads == 0)
        return err_set(e, ST_EINVAL, "kv shape: no layers or no heads");
    struct cpu_kv_layout l = {.type = s->type,
                              .n_layers = s->n_layers,
                              .n_kv_heads = s->n_kv_heads,
                              .head_dim = s->head_dim,
                              .block_tokens = s->block_tokens,
                              .n_blocks = s->n_blocks};
    l.sub_bytes = (size_t)2 * CPU_KV_SUB * s->head_dim * (s->type == BE_F32 ? 4 : 2);
    uint64_t slots = (uint64_t)s->n_blocks * s->block_tokens;
    if (!mem_mul(l.sub_bytes, s->block_tokens / CPU_KV_SUB, &l.head_bytes) ||
        !mem_mul(l.head_bytes, s->n_kv_heads, &l.layer_bytes) ||
        !mem_mul(l.layer_bytes, s->n_layers, &l.block_bytes) ||
        !mem_mul(l.block_bytes, s->n_blocks, &l.total_bytes) || slots > UINT32_MAX)
        return err_set(e, ST_EINVAL, "kv shape: the size overflows");
    *out = l;
    return ST_OK;
}

/* Items of one span. */
static uint32_t span_items(const struct cpu_attn *a, const struct be_span *s)
{
    uint32_t tiles = (s->n_rows + a->tile_rows - 1) / a->tile_rows;
    return tiles * a->kv->l.n_kv_heads * a->head_chunks;
}

void cpu_attn_plan(struct cpu_attn *a, uint32_t n_threads)
{
    uint32_t n_kv = a->kv->l.n_kv_heads, group = a->n_heads / n_kv;
    assert(a->n_heads % n_kv == 0 && group > 0);
    a->head_chunks = (group + CPU_ATTN_QUERIES / 2 - 1) / (CPU_ATTN_QUERIES / 2);
    a->tile_heads = (group + a->head_chunks - 1) / a->head_chunks;
    for (uint32_t queries = CPU_ATTN_QUERIES;; queries /= 2) {
        a->tile_rows = queries > a->tile_heads ? queries / a->tile_heads : 1;
        a->n_items = 0;
        for (uint32_t i = 0; i < a->batch->n_spans; i++)
            a->n_items += span_items(a, &a->batch->spans[i]);
        /* below 24 queries the fetches of K and V are no longer shared enough */
        if (queries <= 24 || n_threads < 2 || a->n_items >= 6 * n_threads)
            return;
    }
}

void cpu_attn_range(const struct cpu_attn *a, uint32_t item, struct cpu_attn_range *out)
{
    assert(item < a->n_items);
    uint32_t span = 0, n;
    while (item >= (n = span_items(a, &a->batch->spans[span]))) {
        item -= n;
        span++;
    }
    const struct be_span *s = &a->batch->spans[span];
    uint32_t per_tile = a->kv->l.n_kv_heads * a->head_chunks, group = a->n_heads / a->kv->l.n_kv_heads;
    uint32_t tiles = n / per_tile, chunk = item % a->head_chunks;
    /* the last rows have the most positions: long items first, so that no thread ends late */
    uint32_t tile = tiles - 1 - item / per_tile, first = tile * a->tile_rows, head = chunk * a->tile_heads;
    out->span = span;
    out->row0 = s->row0 + first;
    out->n_rows = s->n_rows - first < a->tile_rows ? s->n_rows - first : a->tile_rows;
    out->kv_head = item / a->head_chunks % a->kv->l.n_kv_heads;
    out->head0 = out->kv_head * group + head;
    out->n_heads = group - head < a->tile_heads ? group - head : a->tile_heads;
}

size_t cpu_attn_scratch_bytes(uint32_t head_dim)
{
    size_t ld = head_dim + CPU_ATTN_PAD, n = 2 * CPU_ATTN_QUERIES * ld; /* q, o */
    n += CPU_ATTN_QUERIES * 16 + CPU_ATTN_QUERIES + 16;                 /* l, m */
    n += CPU_ATTN_GROUP * CPU_ATTN_SCORES;
    n += (size_t)2 * CPU_ATTN_PANEL * head_dim;
    return n * sizeof(float);
}
