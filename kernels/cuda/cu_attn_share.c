/* Sequences with a common prefix have it in the same blocks. Spans of few rows that begin with the same whole splits form a
 * group: shared items do those splits for up to 128 rows at a time, reading them once, and leave records.
 *
 * To find groups, spans are sorted by the blocks at four borders of splits, which brings those with much in common together.
 * Neighbours are then compared block by block, so that a group's tables are known to agree, whatever the borders say. Groups are
 * runs of neighbours, chosen so that many splits are saved. A group is cut into as many parts as let its items end soonest. The
 * first part merges its splits in registers and leaves one record a row, later parts one per split: the records of 128 rows cost
 * about as much as their split of KV, so that a group is not cut further than the SMs need.
 *
 * Rejected: trusting that a block in two tables means equal blocks before it (two sequences may have computed the same tokens at
 * once), groups of prompt chunks (they have many rows per block already), groups within groups (a second level of records), and
 * shared items that arrive at their members' counters: list 1 runs first, and the order of kernels says the same. */
#include "cu_attn_share.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { RECORD_TOKENS = 256 /* what the records of 128 rows of a split cost, in tokens of KV */ };

/* Table entries of a peer's first splits. */
static uint32_t entries(const struct cu_attn_shape *s, const struct cu_attn_peer *peer, uint32_t splits)
{
    return cu_attn_div_up(splits * peer->size, s->block_tokens);
}

/* Those that may share stand together, those with much in common nearest; then any fixed order. */
static int by_borders(const void *a, const void *b)
{
    const struct cu_attn_peer *x = a, *y = b;
    if (x->size != y->size)
        return x->size < y->size ? -1 : 1;
    if (x->span.n_rows != y->span.n_rows)
        return x->span.n_rows < y->span.n_rows ? -1 : 1;
    for (int i = 0; i < CU_ATTN_BORDERS; i++)
        if (x->border[i] != y->border[i])
            return x->border[i] < y->border[i] ? -1 : 1;
    return x->span.row0 < y->span.row0 ? -1 : x->span.row0 > y->span.row0;
}

/* Leading splits that have the same blocks in both tables; each entry is compared about once. */
static uint32_t common_splits(const struct cu_attn_shape *s, const uint32_t *tables, const struct cu_attn_peer *x,
                              const struct cu_attn_peer *y)
{
    const uint32_t *a = tables + x->span.table, *b = tables + y->span.table;
    uint32_t same = 0, most = cu_attn_min(x->whole, y->whole);
    if (x->size != y->size || x->span.n_rows != y->span.n_rows || most < CU_ATTN_SHARE_SPLITS || x->border[0] != y->border[0])
        return 0;
    while (same < most) {
        const uint32_t to = (same + most + 1) / 2, from = entries(s, x, same);
        if (memcmp(a + from, b + from, (entries(s, x, to) - from) * sizeof *a) == 0)
            same = to;
        else
            most = to - 1;
    }
    return same;
}

static bool sort_peers(const struct cu_attn_shape *s, const uint32_t *tables, struct cu_attn_plan *p)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_peers; i++) {
        struct cu_attn_peer *peer = &p->peers[i];
        n += peer->whole >= CU_ATTN_SHARE_SPLITS;
        for (uint32_t j = 0, split = CU_ATTN_SHARE_SPLITS; j < CU_ATTN_BORDERS; j++, split *= 2)
            peer->border[j] = split <= peer->whole ? tables[peer->span.table + entries(s, peer, split) - 1] : CU_NO_SLOT;
    }
    if (n < CU_ATTN_SHARE_SPANS)
        return false;
    qsort(p->peers, p->n_peers, sizeof *p->peers, by_borders);
    for (uint32_t i = 1; i < p->n_peers; i++)
        p->peers[i].common = (uint16_t)common_splits(s, tables, &p->peers[i - 1], &p->peers[i]);
    return true;
}

/* Makes peers a .. b - 1 one group, if that is worth it, and returns how many splits it saves. */
static uint64_t form_group(struct cu_attn_plan *p, uint32_t a, uint32_t b, uint32_t shared)
{
    if (b - a < CU_ATTN_SHARE_SPANS || shared < CU_ATTN_SHARE_SPLITS)
        return 0;
    for (uint32_t i = a; i < b; i++) {
        p->peers[i].shared = (uint16_t)shared;
        p->peers[i].n = 0;
    }
    p->peers[a].n = b - a;
    return (uint64_t)(b - a - 1) * shared;
}

/* Groups among peers a .. b - 1. They have in common the least of what neighbours have. Where pairs with no more than that part
 * them, some may form groups with more in common, and what stands between these a group with the least; unless one group of all
 * saves as much. Calls itself as deep as there are splits. */
static uint64_t form_groups(struct cu_attn_plan *p, uint32_t a, uint32_t b)
{
    uint32_t least = CU_ATTN_SPLITS, from = a, rest = a;
    uint64_t apart = 0;
    if (b - a < CU_ATTN_SHARE_SPANS)
        return 0;
    for (uint32_t i = a + 1; i < b; i++)
        least = cu_attn_min(least, p->peers[i].common);
    for (uint32_t i = a + 1; i <= b; i++) {
        if (i < b && p->peers[i].common > least)
            continue;
        const uint64_t saved = form_groups(p, from, i);
        if (saved > 0) {
            apart += saved + form_group(p, rest, from, least);
            rest = i;
        }
        from = i;
    }
    apart += form_group(p, rest, b, least);
    const uint64_t together = least < CU_ATTN_SHARE_SPLITS ? 0 : (uint64_t)(b - a - 1) * least;
    return together < apart ? apart : form_group(p, a, b, least);
}

static uint64_t group_tokens(const struct cu_attn_shape *s, const struct cu_attn_peer *first)
{
    return (uint64_t)first->row_groups * s->n_kv_heads * first->shared * first->size;
}

/* Records and counters for the runs of a group in `parts` parts, if there is room. */
static bool take_group(const struct cu_attn_shape *s, struct cu_attn_plan *p, struct cu_attn_peer *first, uint32_t parts)
{
    const uint32_t rows = cu_attn_peer_rows(s, first) * s->n_kv_heads;
    uint64_t records = 0;
    for (struct cu_attn_peer *peer = first; peer < first + first->n; peer++) {
        const uint32_t splits = (peer->span.pos0 + peer->span.n_rows - 1) / peer->size + 1;
        peer->parts = (uint16_t)parts;
        peer->merged = (uint16_t)(peer->shared / parts);
        peer->records = 1 + splits - peer->merged;
        records += (uint64_t)rows * peer->records;
    }
    if (records > p->max_partials - p->n_partials || (uint64_t)first->n * s->n_kv_heads > p->max_counters - p->n_counters)
        return false;
    for (struct cu_attn_peer *peer = first; peer < first + first->n; peer++) {
        peer->partial = p->n_partials;
        peer->counter = p->n_counters;
        p->n_partials += rows * peer->records;
        p->n_counters += s->n_kv_heads;
    }
    return true;
}

/* Parts with which a group's items end soonest on its share of the SMs, or fewer where records run out; false: not even one.
 * Several parts are at most twice as many items as SMs. */
static bool choose_parts(const struct cu_attn_shape *s, struct cu_attn_plan *p, struct cu_attn_peer *first, uint64_t total)
{
    const uint32_t items = first->row_groups * s->n_kv_heads; /* of a part */
    const uint32_t share = (uint32_t)(s->sms * group_tokens(s, first) / total), sms = share > 0 ? share : 1;
    uint64_t best = UINT64_MAX;
    uint32_t parts = 1;
    for (uint32_t n = 1; n <= first->shared && (n == 1 || n * items <= 2 * sms); n++) {
        const uint64_t split = first->size + (n > 1 ? RECORD_TOKENS : 0);
        const uint64_t time = (uint64_t)cu_attn_div_up(n * items, sms) * cu_attn_div_up(first->shared, n) * split;
        if (time < best) {
            best = time;
            parts = n;
        }
    }
    while (parts > 0 && !take_group(s, p, first, parts))
        parts--;
    return parts > 0;
}

void cu_attn_share_find(const struct cu_attn_shape *s, const uint32_t *tables, struct cu_attn_plan *p)
{
    if (!sort_peers(s, tables, p))
        return;
    uint64_t total = 0;
    form_groups(p, 0, p->n_peers);
    for (struct cu_attn_peer *first = p->peers; first < p->peers + p->n_peers; first++)
        if (first->n > 0) {
            first->row_groups = cu_attn_div_up(first->n, CU_ATTN_ROWS / cu_attn_peer_rows(s, first));
            total += group_tokens(s, first);
        }
    for (struct cu_attn_peer *first = p->peers; first < p->peers + p->n_peers; first++) {
        if (first->n == 0)
            continue;
        if (choose_parts(s, p, first, total)) {
            p->n_members = p->n_peers * s->n_kv_heads;
            continue;
        }
        for (uint32_t i = 0; i < first->n; i++)
            first[i].shared = 0;
        first->n = 0;
    }
}
