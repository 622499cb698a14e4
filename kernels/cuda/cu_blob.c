/* A step's data on its way to the GPU. Whatever the host decides anew for each step (tokens, positions, block tables, the
 * attention plan, what the sampler shall do) goes into one pinned buffer as sections, in the order in which begin_step and the
 * ops bring it; one copy and one kernel later each section stands at its own address, which never changes. So a graph's
 * kernels need no new parameters, and the copy of step n + 1 runs beside step n. Masks of tokens, 16 KB a row, are no section:
 * the sampler alone wants them, once, and reads them where they arrived.
 *
 * Everything that a kernel takes for an index is checked here, once per step: tokens, positions, slots and block ids. A
 * decode step that a graph may run is padded: rows beyond n_rows have token 0, write no KV, attend to nothing, are not
 * sampled.
 *
 * Rejected: sending only what changed in the block tables (KERNELS 7.1). 256 sequences of 500 tokens have 32 KB of tables:
 * under a microsecond of the bus beside a step of milliseconds, and no state that could go wrong. */
#include "cu_be.h"

#include <string.h>

enum { ALIGN = 16, SAMPLE_SECTIONS = 4 };

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

/* Room for `bytes` at *at; the bytes behind them up to the next multiple of 16 are zero. The blob's size needs no check: it
 * holds the largest parts together. */
static void *room(struct cu_be *b, size_t bytes, uint32_t *at)
{
    size_t size = aligned(bytes);
    *at = (uint32_t)b->step.used;
    b->step.used += size;
    uint8_t *begin = cu_be_slot(b)->blob + *at;
    if (size)
        memset(begin + size - ALIGN, 0, ALIGN);
    return begin;
}

/* Room for `bytes` that will stand at `dst`. NULL: no section is left. */
static void *section(struct cu_be *b, void *dst, size_t bytes)
{
    struct cu_blob *h = (struct cu_blob *)cu_be_slot(b)->blob;
    if (h->n_sections == CU_SECTIONS)
        return NULL;
    uint32_t i = h->n_sections++;
    h->section[i].dst = (uint64_t)(uintptr_t)dst;
    h->section[i].bytes = (uint32_t)aligned(bytes);
    return room(b, bytes, &h->section[i].offset);
}

/* A section of m words, the first n of them given. */
static void words(struct cu_be *b, void *dst, const void *src, uint32_t n, uint32_t m, uint32_t fill)
{
    uint32_t *to = section(b, dst, (size_t)m * 4);
    if (n)
        memcpy(to, src, (size_t)n * 4);
    for (uint32_t i = n; i < m; i++)
        to[i] = fill;
}

static size_t mask_bytes(uint32_t vocab)
{
    return ((size_t)vocab + 31) / 32 * 4;
}

size_t cu_blob_max_bytes(const struct cu_be *b)
{
    const struct be_step_limits *l = &b->limits;
    size_t rows = l->max_rows, bytes = aligned(sizeof(struct cu_blob)) + (size_t)CU_SECTIONS * ALIGN;
    bytes += rows * 4 * 4 + (size_t)l->max_blocks * 4 + CU_COUNTS * 4;
    bytes += (b->plan.max_items[0] + (size_t)b->plan.max_items[1]) * sizeof(struct cu_attn_item);
    bytes += ((size_t)b->shape.ctas + 1 + b->plan.max_members) * 4;
    bytes += l->max_logits * sizeof(struct cu_sample_row);
    bytes += l->max_logits * aligned(mask_bytes(l->vocab));
    return bytes + b->max_bias * sizeof(struct be_bias) + b->max_seen * sizeof(struct be_seen) +
           (size_t)b->max_banned * 4;
}

/* ---- begin ------------------------------------------------------------------------------------------------------- */

static int check_rows(struct cu_be *b, const struct be_batch *p)
{
    const struct be_step_limits *l = &b->limits;
    uint64_t slots = b->kv ? (uint64_t)b->kv->kv.n_blocks * b->kv->kv.block_tokens : 0;
    for (uint32_t i = 0; i < p->n_rows; i++) {
        int32_t t = p->tokens[i];
        if (t >= 0 ? (uint32_t)t >= l->vocab : (uint32_t)(-1 - t) >= l->max_logits)
            return cu_backend_refuse(b, ST_EINVAL, "step: row %u has token %d", i, t);
        if (p->positions[i] >= l->max_context)
            return cu_backend_refuse(b, ST_EINVAL, "step: row %u stands at position %u of %u", i,
                                     p->positions[i], l->max_context);
        if (slots && p->kv_slots[i] >= slots)
            return cu_backend_refuse(b, ST_EINVAL, "step: row %u has KV slot %u of %llu", i, p->kv_slots[i],
                                     (unsigned long long)slots);
    }
    return ST_OK;
}

static int check_spans(struct cu_be *b, const struct be_batch *p)
{
    const struct be_step_limits *l = &b->limits;
    uint64_t entries = 0;
    uint32_t row = 0;
    for (uint32_t i = 0; i < p->n_spans; i++) {
        const struct be_span *s = &p->spans[i];
        uint64_t end = (uint64_t)s->pos0 + s->n_rows;
        entries += s->n_blocks;
        if (s->row0 != row || s->n_rows == 0 || s->n_rows > p->n_rows - row || end > l->max_context ||
            entries > l->max_blocks || (b->kv && (uint64_t)s->n_blocks * b->kv->kv.block_tokens < end))
            return cu_backend_refuse(b, ST_EINVAL,
                                     "step: span %u: rows %u + %u, positions from %u, %u blocks", i, s->row0,
                                     s->n_rows, s->pos0, s->n_blocks);
        for (uint32_t j = 0; b->kv && j < s->n_blocks; j++)
            if (s->table[j] >= b->kv->kv.n_blocks)
                return cu_backend_refuse(b, ST_EINVAL, "step: span %u names block %u of %u", i, s->table[j],
                                         b->kv->kv.n_blocks);
        row += s->n_rows;
    }
    if (row != p->n_rows)
        return cu_backend_refuse(b, ST_EINVAL, "step: the spans have %u rows of %u", row, p->n_rows);
    return ST_OK;
}

static int check(struct cu_be *b, const struct be_batch *p)
{
    const struct be_step_limits *l = &b->limits;
    if (p->n_rows > l->max_rows || p->n_spans > l->max_spans || p->n_logits > l->max_logits ||
        p->n_logits > p->n_rows)
        return cu_backend_refuse(b, ST_EINVAL,
                                 "step: %u rows, %u spans, %u logits; the limits are %u, %u, %u", p->n_rows,
                                 p->n_spans, p->n_logits, l->max_rows, l->max_spans, l->max_logits);
    int st = check_rows(b, p);
    return st == ST_OK ? check_spans(b, p) : st;
}

/* Block tables end to end, and the plan over them. */
static int add_plan(struct cu_be *b, const struct be_batch *p)
{
    struct cu_attn_plan *plan = &b->plan;
    uint32_t n = 0, entries = 0;
    for (uint32_t i = 0; i < p->n_spans; i++)
        entries += p->spans[i].n_blocks;
    uint32_t *tables = section(b, b->a.tables, (size_t)entries * 4);
    for (uint32_t i = 0; i < p->n_spans; i++) {
        const struct be_span *s = &p->spans[i];
        b->spans[i] = (struct cu_attn_span){s->row0, s->n_rows, s->pos0, n};
        memcpy(tables + n, s->table, (size_t)s->n_blocks * 4);
        n += s->n_blocks;
    }
    int st = cu_attn_make_plan(&b->shape, b->spans, p->n_spans, tables, plan);
    if (st)
        return cu_backend_refuse(b, st, "step: no attention plan for %u spans of %u rows", p->n_spans,
                                 p->n_rows);
    for (int j = 0; j < 2; j++) {
        size_t bytes = plan->n_items[j] * sizeof(struct cu_attn_item);
        b->step.n_items[j] = plan->n_items[j];
        if (bytes)
            memcpy(section(b, b->a.items[j], bytes), plan->items[j], bytes);
    }
    b->step.grid = plan->n_items[1];
    words(b, b->a.begin, plan->begin, b->shape.ctas + 1, b->shape.ctas + 1, 0);
    if (plan->n_members)
        words(b, b->a.members, plan->members, plan->n_members, plan->n_members, 0);
    return ST_OK;
}

int cu_blob_begin(struct cu_be *b, const struct be_batch *p)
{
    struct cu_step *s = &b->step;
    static const struct be_batch none;
    if (!p)
        p = &none;
    int st = check(b, p);
    if (st)
        return st;
    *s = (struct cu_step){.open = true, .batch = p, .n_rows = p->n_rows, .m = p->n_rows};
    s->decode = p->n_rows > 0 && p->n_spans == p->n_rows && p->n_logits == p->n_rows;
    uint32_t graph;
    if (s->decode && b->graphs)
        s->m = cu_run_bucket(b, p->n_rows, &graph);
    struct cu_blob *h = (struct cu_blob *)cu_be_slot(b)->blob;
    h->n_sections = 0;
    h->n_tokens = s->m;
    s->used = aligned(sizeof *h);
    words(b, b->a.tokens, p->tokens, p->n_rows, s->m, 0);
    words(b, b->a.positions, p->positions, p->n_rows, s->m, 0);
    words(b, b->a.slots, p->kv_slots, p->n_rows, s->m, CU_NO_SLOT);
    if (b->shape.n_heads)
        st = add_plan(b, p);
    s->counts = section(b, b->a.counts, CU_COUNTS * 4);
    memset(s->counts, 0, CU_COUNTS * 4);
    s->counts[CU_COUNT_ITEMS] = s->n_items[1];
    return st;
}

/* ---- what the ops bring ------------------------------------------------------------------------------------------ */

/* A list of rows, padded with row 0 when it is as long as the step. */
int cu_blob_list(struct cu_be *b, const uint32_t *rows, uint32_t n, const uint32_t **device)
{
    struct cu_step *s = &b->step;
    struct cu_blob *h = (struct cu_blob *)cu_be_slot(b)->blob;
    uint32_t m = n == s->n_rows ? s->m : n;
    m = cu_round_up(m, ALIGN / 4); /* the next list begins where a section may */
    if (m > cu_round_up(b->limits.max_rows, ALIGN / 4) - s->n_lists ||
        h->n_sections + SAMPLE_SECTIONS >= CU_SECTIONS)
        return cu_backend_refuse(b, ST_EINVAL, "norm: no room for a list of %u rows", n);
    for (uint32_t i = 0; i < n; i++)
        if (rows[i] >= s->n_rows)
            return cu_backend_refuse(b, ST_EINVAL, "norm: row %u of %u", rows[i], s->n_rows);
    *device = b->a.lists + s->n_lists;
    words(b, b->a.lists + s->n_lists, rows, n, m, 0);
    s->n_lists += m;
    return ST_OK;
}

static int check_sample(struct cu_be *b, const struct op_sample *p, uint64_t total[3])
{
    const struct be_step_limits *l = &b->limits;
    if (b->step.sample.n_rows || p->n_rows > l->max_logits || p->vocab > b->max_vocab)
        return cu_backend_refuse(b, ST_EINVAL,
                                 "sample: %u rows of %u logits; the limits are %u, %u, once a step",
                                 p->n_rows, p->vocab, l->max_logits, b->max_vocab);
    for (uint32_t i = 0; i < p->n_rows; i++) {
        const struct be_sample_row *r = &p->rows[i];
        if (r->logits_row >= l->max_logits || r->prev > l->max_logits || r->n_logprobs > BE_LOGPROBS_MAX ||
            r->n_seen > b->max_seen)
            return cu_backend_refuse(
                b, ST_EINVAL, "sample: row %u: logits of row %u, previous %u, %d log-probabilities, %u seen",
                i, r->logits_row, r->prev, r->n_logprobs, r->n_seen);
        total[0] += r->n_bias;
        total[1] += r->n_seen;
        total[2] += r->n_banned;
    }
    if (total[0] > b->max_bias || total[2] > b->max_banned)
        return cu_backend_refuse(
            b, ST_EINVAL, "sample: %llu biases and %llu banned tokens; the limits are %u, %u",
            (unsigned long long)total[0], (unsigned long long)total[2], b->max_bias, b->max_banned);
    return ST_OK;
}

static struct cu_sample_row row_of(const struct be_sample_row *r)
{
    return (struct cu_sample_row){.logits_row = r->logits_row,
                                  .position = r->position,
                                  .seed = r->seed,
                                  .temperature = r->temperature,
                                  .top_p = r->top_p,
                                  .min_p = r->min_p,
                                  .repetition = r->repetition,
                                  .frequency = r->frequency,
                                  .presence = r->presence,
                                  .top_k = r->top_k,
                                  .n_bias = r->n_bias,
                                  .n_seen = r->n_seen,
                                  .n_banned = r->n_banned,
                                  .n_logprobs = r->n_logprobs,
                                  .prev = r->prev};
}

static void copy(void *dst, const void *src, size_t bytes)
{
    if (bytes)
        memcpy(dst, src, bytes);
}

int cu_blob_sample(struct cu_be *b, const struct op_sample *p)
{
    uint64_t total[3] = {0, 0, 0};
    int st = check_sample(b, p, total);
    if (st)
        return st;
    struct cu_sample_row *rows = section(b, b->a.rows, p->n_rows * sizeof *rows);
    struct be_bias *bias = section(b, b->a.bias, total[0] * sizeof *bias);
    bool apart = total[1] > b->max_seen;
    struct be_seen *seen = section(b, b->a.seen, apart ? 0 : total[1] * sizeof *seen);
    int32_t *banned = section(b, b->a.banned, total[2] * sizeof *banned);
    uint32_t at[3] = {0, 0, 0};
    for (uint32_t i = 0; i < p->n_rows; i++) {
        const struct be_sample_row *r = &p->rows[i];
        if (apart && at[1] + r->n_seen > b->max_seen)
            at[1] = 0; /* here the next turn begins */
        rows[i] = row_of(r);
        rows[i].bias0 = at[0];
        rows[i].seen0 = at[1];
        rows[i].banned0 = at[2];
        copy(bias + at[0], r->bias, r->n_bias * sizeof *bias);
        if (!apart)
            copy(seen + at[1], r->seen, r->n_seen * sizeof *seen);
        copy(banned + at[2], r->banned, r->n_banned * sizeof *banned);
        if (r->allowed) {
            void *mask = room(b, mask_bytes(p->vocab), &rows[i].allowed);
            memcpy(mask, r->allowed, mask_bytes(p->vocab));
        }
        at[0] += r->n_bias;
        at[1] += r->n_seen;
        at[2] += r->n_banned;
    }
    b->step.counts[CU_COUNT_SAMPLE] = p->n_rows;
    b->step.sample = *p;
    b->step.seen_apart = apart;
    return ST_OK;
}
