/* cpu_attn: the layout of KV blocks on the CPU, and attention over a mixed batch of decode and prefill rows.
 *
 * Owns     nothing; the caller owns the pool, the output and one scratch area per thread.
 * Units    sizes in bytes; positions absolute; `slot` = block * block_tokens + offset.
 * States   layout_init once per pool; plan once per op call; then every item of the plan, in any order, on
 *          any thread.
 * Threads  a plan is read-only after cpu_attn_plan; items write disjoint parts of `out`.
 * Errors   cpu_kv_layout_init: ST_EINVAL with the field. Nothing else can fail.
 * Bounds   head_dim a multiple of 16 up to CPU_HEAD_DIM_MAX; scratch is cpu_attn_scratch_bytes(head_dim).
 * Source   docs/CPU.md section 6. A row's bits depend on its q and its positions' K and V alone: scores are
 *          one FMA chain over rising d, the softmax runs in panels of 64 absolute positions, and no row is
 *          split over items.
 */
#ifndef STATOR_CPU_ATTN_H
#define STATOR_CPU_ATTN_H

#include "backend.h"

enum { CPU_KV_SUB = 16, CPU_HEAD_DIM_MAX = 256 };

/* One block, contiguous over all layers: [layer][kv head][sub-block of 16 tokens]{ K [head_dim][16], V
 * [16][head_dim] }. */
struct cpu_kv_layout {
    enum be_type type;
    uint32_t n_layers, n_kv_heads, head_dim, block_tokens, n_blocks;
    size_t sub_bytes;   /* K and V of 16 tokens of one head */
    size_t head_bytes;  /* one head of one layer in one block */
    size_t layer_bytes; /* all heads of one layer in one block */
    size_t block_bytes;
    size_t total_bytes; /* n_blocks * block_bytes; n_blocks may be 0 */
};

struct cpu_kv_view {
    struct cpu_kv_layout l;
    char *base; /* [l.total_bytes], 64-byte aligned, zeroed when created */
};

int cpu_kv_layout_init(struct cpu_kv_layout *out, const struct be_kv_shape *s, struct err *e);

/* One attention op. The caller fills the first part; cpu_attn_plan fills the rest. */
struct cpu_attn {
    const struct be_batch *batch;
    const struct cpu_kv_view *kv;
    const float *q; /* [n_rows][n_heads][head_dim] */
    float *out;     /* [n_rows][n_heads][head_dim] */
    uint32_t layer, n_heads;
    uint32_t window; /* 0 = none */
    float scale;
    /* plan */
    uint32_t tile_rows, tile_heads; /* an item is at most this large */
    uint32_t head_chunks;           /* items per (row tile, kv head) */
    uint32_t n_items;
};

/* What item `i` covers: rows row0..+n_rows of the batch, query heads head0..+n_heads. */
struct cpu_attn_range {
    uint32_t span, row0, n_rows, kv_head, head0, n_heads;
};

void cpu_attn_plan(struct cpu_attn *a,
                   uint32_t n_threads); /* sets a->n_items; the results do not depend on n_threads */
void cpu_attn_range(const struct cpu_attn *a, uint32_t item, struct cpu_attn_range *out);
size_t cpu_attn_scratch_bytes(uint32_t head_dim); /* per thread, 64-byte aligned by the caller */

#endif
