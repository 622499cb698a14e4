/* cu_attn: attention over block tables: a host plan once per step, two kernels of one numeric class that carry it out per layer.
 *
 * Owns     the plan's arrays belong to the caller.
 * Units    tokens, rows; a packed row = (token of the step, query head of a kv head's group).
 * States   plan (host) -> copy of the plan to the device -> launch per layer.
 * Threads  the plan: any one; launches: the stream's.
 * Errors   ST_EINVAL (shape), ST_NOSPACE (the plan does not fit the arrays: a bug of the caller's bounds), ST_EDEVICE.
 * Bounds   see cu_attn_bounds.
 * Source   KERNELS design, sections 4 and 5. Class A: a row's bits depend on the row alone, not on the plan.
 */
#ifndef STATOR_CU_ATTN_H
#define STATOR_CU_ATTN_H

#include "cu_rows.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A row's KV is cut into splits at absolute multiples of cu_attn_split(its position) tokens: CU_SPLIT, doubled until the row sees
 * at most CU_ATTN_SPLITS of them. A property of the row alone, and all rows of an item share it. */
enum { CU_ATTN_SPLITS = 64 };
uint32_t cu_attn_split(uint32_t pos);

/* One piece of work: packed rows [row0, row0 + n_rows) of one span and kv head against splits [split0, split1) of its KV. */
struct cu_attn_item {
    uint32_t token0;   /* row of the step at which the span begins */
    uint32_t row0;     /* first packed row within the span: token row0 / group, head row0 % group */
    uint32_t pos0;     /* position of the span's first token */
    uint32_t table;    /* first entry of the span's block table in `tables` */
    uint32_t partial;  /* first record of its row group: record split * n_rows + row; CU_NO_SLOT if it is not cut (n_parts 1) */
    uint32_t counter;  /* arrival counter of its row group, with n_parts items */
    uint16_t n_rows, kv_head;
    uint16_t split0, split1;
    uint16_t n_parts, part;
    uint32_t split_tokens;
};

struct cu_attn_span {
    uint32_t row0, n_rows, pos0; /* as be_span */
    uint32_t table;              /* first entry in `tables` */
};

struct cu_attn_shape {
    uint32_t n_heads, n_kv_heads, head_dim, block_tokens;
    uint32_t ctas; /* persistent CTAs of the 16-row kernel: a constant of the device */
};

/* A plan for one step: list 0 for the 16-row kernel (decode), list 1 for the 128-row kernel (prompt chunks). `begin` is CSR:
 * CTA c of list 0 does items begin[c] .. begin[c+1]-1; list 1 is one item per CTA, longest first. */
struct cu_attn_plan {
    struct cu_attn_item *items[2]; /* [max_items[j]] */
    uint32_t *begin;               /* [ctas + 1] */
    uint32_t n_items[2], max_items[2];
    uint32_t n_partials, max_partials; /* records of (head_dim + 2) floats, one per (split, packed row) of what is cut */
    uint32_t n_counters, max_counters;
};

/* Arrays that are large enough for every step within these limits. */
void cu_attn_bounds(const struct cu_attn_shape *s, uint32_t max_rows, uint32_t max_spans, uint32_t max_context,
                    struct cu_attn_plan *out_max);
int cu_attn_make_plan(const struct cu_attn_shape *s, const struct cu_attn_span *spans, uint32_t n_spans,
                      struct cu_attn_plan *plan);

struct cu_attn {
    const void *q; /* [m][n_heads][head_dim] of xt */
    void *y;       /* out [m][ldy] of xt, columns head * head_dim + d; columns from n_heads * head_dim to ldy as zeros */
    struct cu_kv kv;
    const struct cu_attn_item *items;
    const uint32_t *begin;   /* list 0 only */
    const uint32_t *tables;  /* block ids */
    const uint32_t *n_items; /* device: list 1's count, so that a graph's grid may be larger */
    float *partials;
    uint32_t *counters; /* zero before the first launch of a step; every launch leaves them zero */
    uint32_t layer, n_heads, ldy, window, ctas; /* ctas: grid */
    float scale;
    uint8_t xt;
};

int cu_attn_rows16(struct gpu_stream *s, const struct cu_attn *p);
int cu_attn_rows128(struct gpu_stream *s, const struct cu_attn *p);
/* CTAs of the 16-row kernel that are resident at once on this device for this shape: the plan's `ctas`. */
uint32_t cu_attn_ctas(const struct gpu_info *i, uint32_t head_dim, enum cu_type kv);

#ifdef __cplusplus
}
#endif
#endif
