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
 * Rejected: longest-processing-time over single splits (the same balance, every result through records), and split sizes that
 * follow the batch (other bits).
 */
#include "cu_attn.h"
#include "status.h"

#include <stdbool.h>
#include <stdlib.h>

enum {
    ROWS_SMALL = 16,             /* packed rows of an item of list 0 */
    ROWS_LARGE = 128,            /* of list 1 */
    ITEM_TOKENS = 64,            /* what beginning and ending an item costs, in tokens of KV */
    RECORDS_BYTES = 64 << 20,
    POSITIONS = 1 << 30 /* tokens of a sequence: far beyond memory, and nothing overflows */
};

struct run {
    struct cu_attn_item item; /* all splits, not cut */
    uint32_t tokens;          /* that its last row sees */
};

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t div_up(uint32_t n, uint32_t by)
{
    return (n + by - 1) / by;
}

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
    const uint32_t n = min_u32(span->n_rows, cu_attn_split(span->pos0) * CU_ATTN_SPLITS - span->pos0);
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
    const uint32_t group = s->n_heads / s->n_kv_heads, spans = min_u32(max_spans * sizes, max_rows);
    const uint32_t small = spans * s->n_kv_heads;
    /* a span of r packed rows has at most r / 128 + 1 groups */
    const uint32_t large = (div_up(max_rows * group, ROWS_LARGE) + spans) * s->n_kv_heads;
    const uint64_t splits = min_u32(div_up(max_context, CU_SPLIT), CU_ATTN_SPLITS), record = (s->head_dim + 2) * sizeof(float);
    /* at most one run per block is cut in list 0; in list 1 only what is longer than a fair share: fewer runs than blocks */
    const uint64_t rows = (uint64_t)min_u32(small, s->ctas) * ROWS_SMALL + (uint64_t)min_u32(large, s->ctas) * ROWS_LARGE;
    const uint64_t records = rows * splits, most = RECORDS_BYTES / record;
    *out_max = (struct cu_attn_plan){
        .max_items = {small + s->ctas, large + s->ctas + 1},
        .max_partials = (uint32_t)(records < most ? records : most),
        .max_counters = 2 * s->ctas,
    };
}

/* Room for the records of a run in `parts` parts; if there is none it has to be one. */
static uint32_t take_records(struct cu_attn_plan *p, struct run *r, uint32_t parts)
{
    const uint64_t records = (uint64_t)r->item.n_rows * r->item.split1;
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
        .split1 = (uint16_t)div_up(r.tokens, split),
        .n_parts = 1,
        .split_tokens = split,
    };
    return r;
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
    const uint32_t splits = r->item.split1, size = r->item.split_tokens, first = p->n_items[0];
    uint64_t room = line_room(l, s, p, size / 2);
    if (r->tokens <= room + size / 2 || take_records(p, r, splits) == 1) {
        l->done += run_cost(r);
        return put_item(p, 0, r, 0, splits);
    }
    l->done += ITEM_TOKENS;
    for (uint32_t split = 0; split < splits; room = line_room(l, s, p, size / 2)) {
        const uint32_t tokens = r->tokens - split * size;
        uint32_t n = splits - split;
        if (tokens > room + size / 2) /* and room is at least half a split: n > 0 */
            n = (uint32_t)((room + size / 2) / size);
        int rc = put_item(p, 0, r, split, split + n);
        if (rc != ST_OK)
            return rc;
        l->done += min_u32(tokens, n * size);
        split += n;
    }
    for (uint32_t i = first; i < p->n_items[0]; i++) {
        p->items[0][i].n_parts = (uint16_t)(p->n_items[0] - first);
        p->items[0][i].part = (uint16_t)(i - first);
    }
    return ST_OK;
}

static int deal_span(struct line *l, const struct cu_attn_shape *s, struct cu_attn_plan *p, const struct cu_attn_span *span)
{
    const uint32_t group = s->n_heads / s->n_kv_heads;
    for (uint32_t head = 0; head < s->n_kv_heads; head++) {
        struct run r = make_run(span, group, head, 0, span->n_rows * group);
        int rc = deal_run(l, s, p, &r);
        if (rc != ST_OK)
            return rc;
    }
    return ST_OK;
}

static int plan_small(const struct cu_attn_shape *s, const struct cu_attn_span *spans, uint32_t n_spans, struct cu_attn_plan *p)
{
    const uint32_t group = s->n_heads / s->n_kv_heads;
    struct cu_attn_span rest, piece;
    struct line l = {0};
    for (uint32_t i = 0; i < n_spans; i++)
        for (rest = spans[i]; take_piece(&rest, &piece);)
            if (piece.n_rows * group <= ROWS_SMALL) {
                struct run r = make_run(&piece, group, 0, 0, piece.n_rows * group);
                l.total += run_cost(&r) * s->n_kv_heads;
            }
    p->begin[0] = 0;
    for (uint32_t i = 0; i < n_spans; i++)
        for (rest = spans[i]; take_piece(&rest, &piece);) {
            int rc = piece.n_rows * group <= ROWS_SMALL ? deal_span(&l, s, p, &piece) : ST_OK;
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
    return rows > ROWS_SMALL ? div_up(rows, ROWS_LARGE) : 0;
}

static struct run large_run(const struct cu_attn_span *piece, uint32_t group, uint32_t row_group, uint32_t head)
{
    const uint32_t row0 = row_group * ROWS_LARGE;
    return make_run(piece, group, head, row0, min_u32(ROWS_LARGE, piece->n_rows * group - row0));
}

/* fair: tokens. */
static int put_parts(struct cu_attn_plan *p, struct run *r, uint64_t fair)
{
    const uint32_t splits = r->item.split1;
    uint32_t parts = 1;
    if (r->tokens > fair + fair / 2) {
        const uint32_t size = div_up((uint32_t)(fair / 2) + 1, r->item.split_tokens); /* splits of a part */
        parts = take_records(p, r, div_up(splits, size));
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
    const uint32_t sms = div_up(s->ctas, 2); /* about: list 0 has two or three blocks on each */
    for (uint32_t i = 0; i < n_spans; i++)
        for (rest = spans[i]; take_piece(&rest, &piece);)
            for (uint32_t j = 0; j < large_groups(&piece, group) * s->n_kv_heads; j++) {
                struct run r = large_run(&piece, group, j / s->n_kv_heads, j % s->n_kv_heads);
                int rc = put_parts(p, &r, total / sms);
                if (rc != ST_OK)
                    return rc;
            }
    if (p->n_items[1] > 1)
        qsort(p->items[1], p->n_items[1], sizeof *p->items[1], longer);
    return ST_OK;
}

int cu_attn_make_plan(const struct cu_attn_shape *s, const struct cu_attn_span *spans, uint32_t n_spans,
                      struct cu_attn_plan *plan)
{
    if (s->n_kv_heads == 0 || s->n_heads == 0 || s->n_heads % s->n_kv_heads || s->n_kv_heads > UINT16_MAX || s->ctas == 0)
        return ST_EINVAL;
    for (uint32_t i = 0; i < n_spans; i++)
        if (spans[i].n_rows == 0 || spans[i].pos0 >= POSITIONS || spans[i].n_rows > POSITIONS - spans[i].pos0)
            return ST_EINVAL;
    plan->n_items[0] = plan->n_items[1] = plan->n_partials = plan->n_counters = 0;
    int rc = plan_small(s, spans, n_spans, plan);
    return rc != ST_OK ? rc : plan_large(s, spans, n_spans, plan);
}
