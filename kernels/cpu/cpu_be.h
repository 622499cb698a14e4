/* cpu_be: what the files of the CPU backend share: its objects, opaque to everyone else.
 *
 * Owns     see each struct.
 * Units    bytes; rows and columns in elements.
 * States   see backend.h.
 * Threads  the owner's thread; pool threads see these objects only inside cpu_pool_run, and only read them.
 * Errors   see backend.h.
 * Bounds   scratch grows when weights and pools are made, never inside a step.
 * Source   docs/CPU.md sections 5 and 6.
 */
#ifndef STATOR_CPU_BE_H
#define STATOR_CPU_BE_H

#include "cpu_pick.h"
#include "cpu_pool.h"

struct cpu_slab; /* large-page memory that packed weights share */

struct cpu_be {
    struct be be;
    struct cpu_pick pick;
    struct cpu_pool *pool;
    bool exact;
    struct cpu_slab *slabs;
    char *scratch; /* [threads][scratch_bytes], 64-byte aligned */
    size_t scratch_bytes;
    uint32_t mxcsr; /* of the caller, between begin_step and end_step */
    bool in_step;
    uint64_t kv_saturated; /* K and V values that f16 could not hold */
    uint64_t n_copies;     /* of blocks: the next ticket */
    char describe[96];
};

struct cpu_part {
    enum be_type type; /* as packed */
    uint32_t rows, tiles;
    size_t tile_bytes;
    uint8_t *data; /* [tiles][tile_bytes] */
};

struct be_weight {
    enum be_weight_use use;
    enum cpu_class cls;
    uint32_t k, k_pad, n, tiles, n_parts;
    struct cpu_part parts[BE_WEIGHT_PARTS_MAX];
    uint32_t head_dim, rot_dim; /* QKV */
    bool permuted;              /* QKV: q and k rows were reordered so that rope pairs stand side by side */
    float *vec;                 /* VECTOR: [k] */
    size_t bytes;
    struct cpu_slab *slab;
};

struct be_act {
    uint32_t max_rows, max_k;
    enum cpu_class cls;
    uint32_t n_rows, k;
    size_t panel_bytes; /* for k in cls */
    uint8_t *panels;    /* large enough for max_rows x max_k in every class */
    size_t map_bytes;
    float *rows; /* [max_rows][max_k]: results that are about to be rounded */
};

struct be_kv {
    struct cpu_kv_view view;
};

/* Matrix ops compute blocks of CPU_OPS_ROWS x CPU_OPS_COLS in L1: two of them (gate and up, or k and v of one head). */
enum {
    CPU_OPS_ROWS = 32,
    CPU_OPS_TILES = 4,
    CPU_OPS_COLS = CPU_HEAD_DIM_MAX,
    CPU_OPS_SCRATCH = 2 * CPU_OPS_ROWS * CPU_OPS_COLS * sizeof(float)
};

/* Every thread's scratch is at least this large afterwards. */
int cpu_be_scratch(struct cpu_be *b, size_t bytes);

static inline void *cpu_be_thread_scratch(const struct cpu_be *b, uint32_t thread)
{
    return b->scratch + thread * b->scratch_bytes;
}

/* cpu_pack.c */
int cpu_pack_weight(struct be *be, const struct be_weight_desc *d, struct be_weight **out, struct err *e);
void cpu_pack_destroy(struct be *be, struct be_weight *w);
/* For a QKV weight: the source row of packed row p within one head of q or k. */
uint32_t cpu_pack_source_row(const struct be_weight *w, uint32_t p);
/* cpu_unpack.c: row `row` of a packed part as floats. */
void cpu_unpack_row(const struct cpu_part *p, uint32_t row, uint32_t k, float *out);

/* cpu_ops.c */
int cpu_op_embed(struct be *be, const struct op_embed *p);
int cpu_op_norm(struct be *be, const struct op_norm *p);
int cpu_op_qkv(struct be *be, const struct op_qkv *p);
int cpu_op_attention(struct be *be, const struct op_attention *p);
int cpu_op_linear_add(struct be *be, const struct op_linear_add *p);
int cpu_op_gated(struct be *be, const struct op_gated *p);
int cpu_op_logits(struct be *be, const struct op_logits *p);
int cpu_op_sample(struct be *be, const struct op_sample *p);

#endif
