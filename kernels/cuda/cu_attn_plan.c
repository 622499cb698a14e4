/* The plan of a step's attention: which block of threads does what. It decides time alone: class A makes a row's bits
 * independent of it, so the plan may look at the whole batch.
 *
 * A run is a row group of one span and one kv head: it reads the splits 0 .. of the sequence up to its last row. Runs of few
 * rows (decode) go to list 0. They are laid end to end, measured in tokens, and the line is cut into one piece per persistent
 * block, at the nearest borders of splits: no piece differs from the others by much more than a split, and at most one run per
 * block is cut, so that at any batch size few results go through records. Row groups of prompt chunks go to list 1, which
 * hardware deals out, one block per SM, longest first. Only runs much longer than an SM's fair share are cut, into parts of
 * half of it: the rows of a record cost as much memory time as their split costs the tensor cores.
 *
 * A run that is cut needs a record per row and split. Where these would not fit the run stays whole: slower, not wrong. Splits
 * grow with the position (cu_attn_split), so that records stay few, and their merge short, in long sequences too.
 *
 * What sequences with a common prefix share (cu_attn_share.h) goes to list 1 too, as items of up to 128 rows of several runs;
 * each of these runs does the rest in list 0 and merges.
 *
 * Rejected: longest-processing-time over single splits (the same balance, every result through records), and split sizes that
 * follow the batch (other bits).
 */
#include "cu_attn_share.h"
#include "status.h"

#include <stdbool.h>
#include <stdlib.h>

enum {
    ROWS_SMALL = 16,           /* packed rows of an item of list 0 */
    ROWS_LARGE = CU_ATTN_ROWS, /* of list 1 */
    ITEM_TOKENS = 64,          /* what beginning and ending an item costs, in tokens of KV */
    RECORDS_BYTES = 96 << 20,  /* 256 decode rows of 32 heads that share 32 splits, in two parts */
    POSITIONS = 1 << 30        /* tokens of a sequence: far beyond memory, and nothing overflows */
};

struct run {
    struct cu_attn_item item; /* all splits that are its own, not cut */
    uint32_t tokens;          /* of these, as its last row sees them */
};

uint32_t cu_attn_split(uint32_t pos)
{
    uint32_t split = CU_SPLIT;
    while (pos / split >= CU_ATTN_SPLITS)
        split *= 2;
    return split;
}

/* Takes the leading rows off a span that have one size of splits. */
static bool take_piece(struct cu_attn_span *span, struct cu_attn_span *piece)
{
    const uint32_t n = cu_attn_min(span->n_rows, cu_attn_split(span->pos0) * CU_ATTN_SPLITS - span->pos0);
    *piece = *span;
    piece->n_rows = n;
    span->row0 += n;
    span->pos0 += n;
    span->n_rows -= n;
    return n > 0;
}

static uint64_t run_cost(const struct run *r)
{
    return r->tokens + ITEM_TOKENS;
}

void cu_attn_bounds(const struct cu_attn_shape *s, uint32_t max_rows, uint32_t max_spans, uint32_t max_context,
                    struct cu_attn_plan *out_max)
{
    uint32_t sizes = 1; /* of splits: a span may have rows of each */
    for (uint32_t split = cu_attn_split(max_context - 1); split > CU_SPLIT; split /= 2)
        sizes++;
    const uint32_t group = s->n_heads / s->n_kv_heads, spans = cu_attn_min(max_spans * sizes, max_rows);
    const uint32_t small = spans * s->n_kv_heads;
    /* a span of r packed rows has at most r / 128 + 1 groups */
    const uint32_t large = (cu_attn_div_up(max_rows * group, ROWS_LARGE) + spans) * s->n_kv_heads;
    const uint64_t splits = cu_attn_min(cu_attn_div_up(max_context, CU_SPLIT), CU_ATTN_SPLITS);
    const uint64_t record = (s->head_dim + 2) * sizeof(float);
    /* at most one run per block is cut in list 0; in list 1 only what is longer than a fair share: fewer runs than blocks */
    const uint64_t rows = (uint64_t)cu_attn_min(small, s->ctas) * ROWS_SMALL + (uint64_t)cu_attn_min(large, s->ctas) * ROWS_LARGE;
    const uint64_t shared = max_context / CU_SPLIT >= CU_ATTN_SHARE_SPLITS ? (uint64_t)small * ROWS_SMALL : 0;
    const uint64_t records = (rows + shared) * splits, most = RECORDS_BYTES / record;
    *out_max = (struct cu_attn_plan){
        .max_items = {small + s->ctas, large + s->ctas + 1 + cu_attn_share_items(s, small)},
        .max_partials = (uint32_t)(records < most ? records : most),
        .max_counters = 2 * s->ctas + small,
        .max_members = small,
        .max_peers = spans,
    };
}

/* Room for the records of a run in `parts` parts, if it has none yet; if there is no room it has to be one. */
static uint32_t take_records(struct cu_attn_plan *p, struct run *r, uint32_t parts)
{
    const uint64_t records = (uint64_t)r->item.n_rows * r->item.split1;
    if (r->item.partial != CU_NO_SLOT)
        return parts;
    if (parts < 2 || p->n_counters == p->max_counters || records > p->max_partials - p->n_partials)
        return 1;
    r->item.partial = p->n_partials;
    r->item.counter = p->n_counters++;
    p->n_partials += (uint32_t)records;
    return parts;
}

/* One part of a run: its splits from split0 to split1. */
static int put_item(struct cu_attn_plan *p, int list, const struct run *r, uint32_t split0, uint32_t split1)
{
    if (p->n_items[list] == p->max_items[list])
        return ST_NOSPACE;
    struct cu_attn_item *item = &p->items[list][p->n_items[list]++];
    *item = r->item;
    item->split0 = (uint16_t)split0;
    item->split1 = (uint16_t)split1;
    return ST_OK;
}

static struct run make_run(const struct cu_attn_span *span, uint32_t group, uint32_t kv_head, uint32_t row0, uint32_t n_rows)
{
    const uint32_t split = cu_attn_split(span->pos0);
    struct run r = {.tokens = span->pos0 + (row0 + n_rows - 1) / group + 1};
    r.item = (struct cu_attn_item){
        .token0 = span->row0,
        .row0 = row0,
        .pos0 = span->pos0,
        .table = span->table,
        .partial = CU_NO_SLOT,
        .n_rows = (uint16_t)n_rows,
        .kv_head = (uint16_t)kv_head,
        .split1 = (uint16_t)cu_attn_div_up(r.tokens, split),
        .n_parts = 1,
        .merged = 1,
        .split_tokens = split,
    };
    return r;
}

/* ---- spans of few rows, and what groups of them share --------------------------------------------------------------- */

/* The pieces of spans that have few rows. */
static int collect_peers(const struct cu_attn_shape *s, const struct cu_attn_span *spans, uint32_t n_spans,
                         struct cu_attn_plan *p)
{
    struct cu_attn_span rest, piece;
    for (uint32_t i = 0; i < n_spans; i++)
        for (rest = spans[i]; take_piece(&rest, &piece);) {
            struct cu_attn_peer peer = {.span = piece, .size = cu_attn_split(piece.pos0)};
            if (cu_attn_peer_rows(s, &peer) > ROWS_SMALL)
                continue;
            if (p->n_peers == p->max_peers)
                return ST_NOSPACE;
            peer.whole = (uint16_t)(piece.pos0 / peer.size);
            p->peers[p->n_peers++] = peer;
        }
    return ST_OK;
}

/* Members and their heads: a head's runs stand together in the order of the peers. */
static uint32_t member_at(const struct cu_attn_plan *p, const struct cu_attn_peer *peer, uint32_t head)
{
    return head * p->n_peers + (uint32_t)(peer - p->peers);
}

/* The shared items of the peers from .. to - 1 of a group: at most 128 rows. */
static int put_shared(const struct cu_attn_shape *s, struct cu_attn_plan *p, const struct cu_attn_peer *from, uint32_t n)
{
    const uint32_t rows = cu_attn_peer_rows(s, from);
    struct run r = {.item = {.token0 = from->span.row0,
                             .pos0 = from->span.pos0,
                             .table = from->span.table,
                             .n_rows = (uint16_t)(n * rows),
                             .merged = from->merged,
                             .member_rows = (uint16_t)rows,
                             .split_tokens = from->size}};
    for (uint32_t i = 1; i < n; i++)
        r.item.pos0 = cu_attn_min(r.item.pos0, from[i].span.pos0);
    for (uint32_t i = 0; i < s->n_kv_heads * from->parts; i++) {
        const uint32_t part = i % from->parts;
        r.item.kv_head = (uint16_t)(i / from->parts);
        r.item.part = (uint16_t)part;
        r.item.member0 = member_at(p, from, r.item.kv_head);
        int rc = put_item(p, 1, &r, from->shared * part / from->parts, from->shared * (part + 1) / from->parts);
        if (rc != ST_OK)
            return rc;
    }
    return ST_OK;
}

static int plan_shared(const struct cu_attn_shape *s, struct cu_attn_plan *p)
{
    int rc = ST_OK;
    for (uint32_t a = 0; a < p->n_peers; a++) {
        const struct cu_attn_peer *first = &p->peers[a];
        const uint32_t n = first->n, groups = first->row_groups;
        for (uint32_t i = 0; n > 0 && i < groups && rc == ST_OK; i++)
            rc = put_shared(s, p, first + n * i / groups, n * (i + 1) / groups - n * i / groups);
    }
    return rc;
}

/* ---- list 0: a line of tokens, cut into one piece per block -------------------------------------------------------- */

struct line {
    uint64_t total, done; /* tokens of all runs, and of those that have been dealt out */
    uint32_t cta;         /* that is being filled */
};

/* What the current block still has to get; moves on to the next when that is less than `least`. */
static uint64_t line_room(struct line *l, const struct cu_attn_shape *s, struct cu_attn_plan *p, uint32_t least)
{
    for (;;) {
        if (l->cta + 1 == s->ctas)
            return UINT64_MAX / 2; /* the last one takes what is left */
        const uint64_t border = l->total * (l->cta + 1) / s->ctas;
        if (border >= l->done + least)
            return border - l->done;
        p->begin[++l->cta] = p->n_items[0];
    }
}

static int deal_run(struct line *l, const struct cu_attn_shape *s, struct cu_attn_plan *p, struct run *r)
{
    const uint32_t begin = r->item.split0, end = r->item.split1, size = r->item.split_tokens, first = p->n_items[0];
    uint64_t room = line_room(l, s, p, size / 2);
    if (r->tokens <= room + size / 2 || take_records(p, r, end - begin) == 1) {
        l->done += run_cost(r);
        return put_item(p, 0, r, begin, end);
    }
    l->done += ITEM_TOKENS;
    for (uint32_t split = begin; split < end; room = line_room(l, s, p, size / 2)) {
        const uint32_t tokens = r->tokens - (split - begin) * size;
        uint32_t n = end - split;
        if (tokens > room + size / 2) /* and room is at least half a split: n > 0 */
            n = (uint32_t)((room + size / 2) / size);
        int rc = put_item(p, 0, r, split, split + n);
        if (rc != ST_OK)
            return rc;
        l->done += cu_attn_min(tokens, n * size);
        split += n;
    }
    for (uint32_t i = first; i < p->n_items[0]; i++) {
        p->items[0][i].n_parts = (uint16_t)(p->n_items[0] - first);
        p->items[0][i].part = (uint16_t)(i - first);
    }
    return ST_OK;
}

/* A peer's run, without what shared items do. */
static struct run small_run(const struct cu_attn_shape *s, const struct cu_attn_peer *peer, uint32_t head)
{
    const uint32_t rows = cu_attn_peer_rows(s, peer);
    struct run r = make_run(&peer->span, s->n_heads / s->n_kv_heads, head, 0, rows);
    if (peer->shared > 0) {
        r.tokens -= peer->shared * peer->size;
        r.item.split0 = peer->shared;
        r.item.merged = peer->merged;
        r.item.partial = peer->partial + head * rows * peer->records;
        r.item.counter = peer->counter + head;
    }
    return r;
}

static int plan_small(const struct cu_attn_shape *s, struct cu_attn_plan *p)
{
    struct line l = {0};
    for (uint32_t i = 0; i < p->n_peers; i++) {
        const struct run r = small_run(s, &p->peers[i], 0);
        l.total += run_cost(&r) * s->n_kv_heads;
    }
    p->begin[0] = 0;
    for (uint32_t i = 0; i < p->n_peers; i++)
        for (uint32_t head = 0; head < s->n_kv_heads; head++) {
            struct run r = small_run(s, &p->peers[i], head);
            if (p->n_members > 0)
                p->members[member_at(p, &p->peers[i], head)] = p->n_items[0];
            int rc = deal_run(&l, s, p, &r);
            if (rc != ST_OK)
                return rc;
        }
    while (l.cta < s->ctas)
        p->begin[++l.cta] = p->n_items[0];
    return ST_OK;
}

/* ---- list 1: row groups, longest first ----------------------------------------------------------------------------- */

/* Row groups of a piece: none if it belongs to list 0. */
static uint32_t large_groups(const struct cu_attn_span *piece, uint32_t group)
{
    const uint32_t rows = piece->n_rows * group;
    return rows > ROWS_SMALL ? cu_attn_div_up(rows, ROWS_LARGE) : 0;
}

static struct run large_run(const struct cu_attn_span *piece, uint32_t group, uint32_t row_group, uint32_t head)
{
    const uint32_t row0 = row_group * ROWS_LARGE;
    return make_run(piece, group, head, row0, cu_attn_min(ROWS_LARGE, piece->n_rows * group - row0));
}

/* fair: tokens. */
static int put_parts(struct cu_attn_plan *p, struct run *r, uint64_t fair)
{
    const uint32_t splits = r->item.split1;
    uint32_t parts = 1;
    if (r->tokens > fair + fair / 2) {
        const uint32_t size = cu_attn_div_up((uint32_t)(fair / 2) + 1, r->item.split_tokens); /* splits of a part */
        parts = take_records(p, r, cu_attn_div_up(splits, size));
    }
    r->item.n_parts = (uint16_t)parts;
    for (uint32_t i = 0; i < parts; i++) {
        r->item.part = (uint16_t)i;
        int rc = put_item(p, 1, r, splits * i / parts, splits * (i + 1) / parts);
        if (rc != ST_OK)
            return rc;
    }
    return ST_OK;
}

static int64_t item_tokens(const struct cu_attn_item *i)
{
    return (int64_t)(i->split1 - i->split0) * i->split_tokens;
}

/* Longest first; then any fixed order. */
static int longer(const void *a, const void *b)
{
    const struct cu_attn_item *x = a, *y = b;
    const int64_t nx = item_tokens(x), ny = item_tokens(y);
    if (nx != ny)
        return nx > ny ? -1 : 1;
    if (x->token0 != y->token0)
        return x->token0 < y->token0 ? -1 : 1;
    if (x->row0 != y->row0)
        return x->row0 < y->row0 ? -1 : 1;
    return x->kv_head != y->kv_head ? x->kv_head - y->kv_head : x->part - y->part;
}

static int plan_large(const struct cu_attn_shape *s, const struct cu_attn_span *spans, uint32_t n_spans, struct cu_attn_plan *p)
{
    const uint32_t group = s->n_heads / s->n_kv_heads;
    struct cu_attn_span rest, piece;
    uint64_t total = 0;
    for (uint32_t i = 0; i < n_spans; i++)
        for (rest = spans[i]; take_piece(&rest, &piece);)
            for (uint32_t g = 0; g < large_groups(&piece, group); g++)
                total += (uint64_t)large_run(&piece, group, g, 0).tokens * s->n_kv_heads;
    for (uint32_t i = 0; i < n_spans; i++)
        for (rest = spans[i]; take_piece(&rest, &piece);)
            for (uint32_t j = 0; j < large_groups(&piece, group) * s->n_kv_heads; j++) {
                struct run r = large_run(&piece, group, j / s->n_kv_heads, j % s->n_kv_heads);
                int rc = put_parts(p, &r, total / s->sms);
                if (rc != ST_OK)
                    return rc;
            }
    int rc = plan_shared(s, p);
    if (rc == ST_OK && p->n_items[1] > 1)
        qsort(p->items[1], p->n_items[1], sizeof *p->items[1], longer);
    return rc;
}

int cu_attn_make_plan(const struct cu_attn_shape *s, const struct cu_attn_span *spans, uint32_t n_spans,
                      const uint32_t *tables, struct cu_attn_plan *plan)
{
    if (s->n_kv_heads == 0 || s->n_heads == 0 || s->n_heads % s->n_kv_heads || s->n_kv_heads > UINT16_MAX || s->ctas == 0 ||
        s->sms == 0 || s->block_tokens == 0)
        return ST_EINVAL;
    for (uint32_t i = 0; i < n_spans; i++)
        if (spans[i].n_rows == 0 || spans[i].pos0 >= POSITIONS || spans[i].n_rows > POSITIONS - spans[i].pos0)
            return ST_EINVAL;
    plan->n_items[0] = plan->n_items[1] = plan->n_partials = plan->n_counters = plan->n_members = plan->n_peers = 0;
    int rc = collect_peers(s, spans, n_spans, plan);
    if (rc == ST_OK && tables != NULL)
        cu_attn_share_find(s, tables, plan);
    if (rc == ST_OK)
        rc = plan_small(s, plan);
    return rc == ST_OK ? plan_large(s, spans, n_spans, plan) : rc;
}
