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

/* One piece of work: packed rows [row0, row0 + n_rows) of one span and kv head against splits [split0, split1) of its KV.
 *
 * Results that are not of a row's whole KV go to records: record max(split + 1, merged) - merged of a row is that of `split`, so
 * that splits 0 .. merged - 1 are in one. They are what a cut row group's last item to arrive merges.
 *
 * A shared item (member_rows > 0) reads splits that several spans have in the same blocks, once for all of them: its packed row r
 * is row r % member_rows of the run that item members[member0 + r / member_rows] of list 0 belongs to. It writes records only:
 * the rest of a member's splits are that run's own items, which run in a later kernel. token0, pos0 and table are its first
 * member's, pos0 the smallest of all. */
struct cu_attn_item {
    uint32_t token0;  /* row of the step at which the span begins */
    uint32_t row0;    /* first packed row within the span: token row0 / group, head row0 % group */
    uint32_t pos0;    /* position of the span's first token */
    uint32_t table;   /* first entry of the span's block table in `tables` */
    uint32_t partial; /* first record of its row group: record n of row r is partial + n * n_rows + r; CU_NO_SLOT: none, whole */
    uint32_t counter; /* arrival counter of its row group, with n_parts items; 0 parts: a shared item */
    uint32_t member0;
    uint32_t split_tokens;
    uint16_t n_rows, kv_head;
    uint16_t split0, split1;
    uint16_t n_parts, part;
    uint16_t merged, member_rows;
};

struct cu_attn_span {
    uint32_t row0, n_rows, pos0; /* as be_span */
    uint32_t table;              /* first entry in `tables` */
};

struct cu_attn_shape {
    uint32_t n_heads, n_kv_heads, head_dim, block_tokens;
    uint32_t ctas; /* persistent CTAs of the 16-row kernel: a constant of the device */
    uint32_t sms;
};

/* Few rows of one span with one size of splits, while a plan is made (cu_attn_share.h). */
enum { CU_ATTN_BORDERS = 4 };
struct cu_attn_peer {
    struct cu_attn_span span;
    uint32_t border[CU_ATTN_BORDERS]; /* blocks at the ends of splits 4, 8, 16 and 32, or CU_NO_SLOT */
    uint32_t size;                    /* tokens of a split */
    uint32_t n, row_groups;           /* of a group's first: how many peers it has, and items per part and head */
    uint32_t partial, counter;        /* of kv head 0's run, if it shares */
    uint32_t records;                 /* of a row */
    uint16_t whole;                   /* splits before its first row's own */
    uint16_t common;                  /* those that it has in common with the peer before it */
    uint16_t shared, parts, merged;   /* splits that shared items do (0: none), in how many parts, in the first part */
};

/* A plan for one step: list 0 for the 16-row kernel (decode), list 1 for the 128-row kernel (prompt chunks, shared items), which
 * is launched first. `begin` is CSR: CTA c of list 0 does items begin[c] .. begin[c+1]-1; list 1 is one item per CTA, longest
 * first. */
struct cu_attn_plan {
    struct cu_attn_item *items[2]; /* [max_items[j]] */
    uint32_t *begin;               /* [ctas + 1] */
    uint32_t *members;             /* [max_members] items of list 0, one per run there */
    struct cu_attn_peer *peers;    /* [max_peers] for the planner alone */
    uint32_t n_items[2], max_items[2];
    uint32_t n_members, max_members; /* n: 0 where nothing is shared */
    uint32_t n_peers, max_peers;
    uint32_t n_partials, max_partials; /* records of (head_dim + 2) floats, of what is cut or shared; see cu_attn_item */
    uint32_t n_counters, max_counters;
};

/* Arrays that are large enough for every step within these limits. */
void cu_attn_bounds(const struct cu_attn_shape *s, uint32_t max_rows, uint32_t max_spans, uint32_t max_context,
                    struct cu_attn_plan *out_max);
/* tables: block ids, by which it finds what spans share; NULL: share nothing. */
int cu_attn_make_plan(const struct cu_attn_shape *s, const struct cu_attn_span *spans, uint32_t n_spans,
                      const uint32_t *tables, struct cu_attn_plan *plan);

struct cu_attn {
    const void *q; /* [m][n_heads][head_dim] of xt */
    void *y;       /* out [m][ldy] of xt, columns head * head_dim + d; columns from n_heads * head_dim to ldy as zeros */
    struct cu_kv kv;
    const struct cu_attn_item *items;
    const uint32_t *begin;           /* list 0 only */
    const struct cu_attn_item *runs; /* list 1 only: list 0's items, to which `members` lead */
    const uint32_t *members;         /* list 1 only */
    const uint32_t *tables;          /* block ids */
    const uint32_t *n_items;         /* device: list 1's count, so that a graph's grid may be larger */
    float *partials;
    uint32_t *counters; /* zero before the first launch of a step; every launch leaves them zero */
    uint32_t layer, n_heads, ldy, window, ctas; /* ctas: grid */
    float scale;
    uint8_t xt;
};

/* Of one plan: rows128 before rows16, which merges what shared items have left. */
int cu_attn_rows16(struct gpu_stream *s, const struct cu_attn *p);
int cu_attn_rows128(struct gpu_stream *s, const struct cu_attn *p);
/* CTAs of the 16-row kernel that are resident at once on this device for this shape: the plan's `ctas`. */
uint32_t cu_attn_ctas(const struct gpu_info *i, uint32_t head_dim, enum cu_type kv);

#ifdef __cplusplus
}
#endif
#endif
