/* cu_attn_share: which spans of a step have splits of KV in common, and how shared items do them (cascade).
 *
 * Owns     nothing; the peers are the plan's.
 * Units    splits, tokens, packed rows.
 * States   the planner puts spans of few rows into plan->peers -> find -> peers in groups, with records and counters.
 * Threads  any one.
 * Errors   none: what finds no room is not shared.
 * Bounds   peers: plan->max_peers. Items of groups: at most 2 / 3 of the runs of list 0, and two per SM (cu_attn_share_items).
 * Source   KERNELS design, section 4.7.
 */
#ifndef STATOR_CU_ATTN_SHARE_H
#define STATOR_CU_ATTN_SHARE_H

#include "cu_attn.h"

enum {
    CU_ATTN_ROWS = 128,      /* packed rows of an item of list 1 */
    CU_ATTN_SHARE_SPANS = 3, /* a group has at least so many spans ... */
    CU_ATTN_SHARE_SPLITS = 4 /* ... and splits: what records and another kernel cost */
};

static inline uint32_t cu_attn_min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static inline uint32_t cu_attn_div_up(uint32_t n, uint32_t by)
{
    return (n + by - 1) / by;
}

static inline uint32_t cu_attn_peer_rows(const struct cu_attn_shape *s, const struct cu_attn_peer *peer)
{
    return peer->span.n_rows * (s->n_heads / s->n_kv_heads);
}

/* Of `runs` runs of list 0, with at least 8 of them to 128 rows: a group of n >= 3 has at most n / 3 row groups. */
static inline uint32_t cu_attn_share_items(const struct cu_attn_shape *s, uint32_t runs)
{
    return runs / CU_ATTN_SHARE_SPANS * 2 + 2 * s->sms;
}

/* Sorts the peers and forms groups: sets n and row_groups of each group's first peer, and of all its members shared, parts,
 * merged, records, partial and counter; plan->n_members if there is any group. */
void cu_attn_share_find(const struct cu_attn_shape *s, const uint32_t *tables, struct cu_attn_plan *plan);

#endif
