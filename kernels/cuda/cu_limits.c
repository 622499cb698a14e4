/* Everything that a step needs, allocated once, from the largest step that the caller names and the shapes of the weights and
 * the KV pool that are there by then. Nothing is allocated later, so nothing can run out in the middle of serving.
 *
 * Biases and banned tokens are bounded per row. The tokens that sequences have seen are not: 256 of them may have seen most of
 * the vocabulary each, 260 MB that hardly a step will ever have. The blob has room for a step of usual ones, and for any one row;
 * a step of more brings them in turns (cu_run.c). Masks of tokens have room for every row: they are a 32nd of the logits. */
#include "cu_be.h"

#include "mem.h"

#include <string.h>

enum { ARRAYS_MAX = 32, SLACK = 64 }; /* sections are copied in units of 16 bytes */

struct want {
    void **at;
    size_t bytes;
    const char *what;
};

static size_t rows_bytes(uint32_t rows, size_t each)
{
    return (size_t)rows * each;
}

static uint32_t widest(const struct cu_be *b, enum be_weight_use use)
{
    uint32_t n = 0;
    for (const struct be_weight *w = b->weights; w; w = w->next)
        if (w->use == use && w->n_pad > n)
            n = w->n_pad;
    return n;
}

/* All device arrays of a step; bytes 0: not needed. */
static uint32_t wants(struct cu_be *b, struct want w[ARRAYS_MAX])
{
    const struct be_step_limits *l = &b->limits;
    struct cu_arrays *a = &b->a;
    struct cu_attn_plan *p = &b->plan;
    size_t item = sizeof(struct cu_attn_item), rows = l->max_rows, logits = l->max_logits;
    const struct want all[] = {
        {(void **)&a->tokens, rows * 4, "tokens"},
        {(void **)&a->positions, rows * 4, "positions"},
        {(void **)&a->slots, rows * 4, "slots"},
        {(void **)&a->lists, rows * 4, "row lists"},
        {(void **)&a->counts, CU_COUNTS * 4, "counts"},
        {(void **)&a->items[0], p->max_items[0] * item, "attention plan"},
        {(void **)&a->items[1], p->max_items[1] * item, "attention plan"},
        {(void **)&a->begin, rows_bytes(b->shape.ctas + 1, 4), "attention plan"},
        {(void **)&a->members, rows_bytes(p->max_members, 4), "attention plan"},
        {(void **)&a->tables, rows_bytes(l->max_blocks, 4), "block tables"},
        {(void **)&a->partials, p->max_partials * (size_t)(b->shape.head_dim + 2) * 4, "partial attention"},
        {(void **)&a->counters, rows_bytes(p->max_counters, 4), "attention counters"},
        {&a->slabs, rows > CU_STREAM_ROWS ? cu_lin_slab_bytes(gpu_info(b->gpu)) : 0, "parts of products"},
        {(void **)&a->rows, logits * sizeof *a->rows, "sampling"},
        {(void **)&a->bias, b->max_bias * sizeof *a->bias, "sampling"},
        {(void **)&a->seen, b->max_seen * sizeof *a->seen, "seen tokens"},
        {(void **)&a->banned, rows_bytes(b->max_banned, 4), "sampling"},
        {(void **)&a->drawn, logits * 4, "sampling"},
        {(void **)&a->prev, logits * 4, "sampling"},
        {(void **)&a->out, logits * sizeof *a->out, "sampling"},
        {(void **)&a->qkv, rows * widest(b, BE_USE_QKV) * cu_type_bytes(b->xt), "queries, keys and values"},
        {(void **)&a->gated, b->lt ? rows * widest(b, BE_USE_GATED) * cu_type_bytes(b->xt) : 0,
         "gate and up"},
        {(void **)&a->blob[0], b->blob_bytes, "step data"},
        {(void **)&a->blob[1], b->blob_bytes, "step data"},
        {(void **)&a->parity, 4, "step data"},
    };
    _Static_assert(sizeof all / sizeof *all <= ARRAYS_MAX, "room");
    memcpy(w, all, sizeof all);
    return sizeof all / sizeof *all;
}

static int device_arrays(struct cu_be *b, struct err *e)
{
    struct want w[ARRAYS_MAX];
    uint32_t n = wants(b, w);
    for (uint32_t i = 0; i < n; i++) {
        if (!w[i].bytes)
            continue;
        *w[i].at = gpu_alloc(b->gpu, w[i].bytes + SLACK);
        if (!*w[i].at)
            return cu_backend_no_memory(b, e, w[i].what, w[i].bytes,
                                        "--kv-bytes, --max-num-batched-tokens or --max-num-seqs");
    }
    return ST_OK;
}

static int host_arrays(struct cu_be *b, struct err *e)
{
    const struct be_step_limits *l = &b->limits;
    struct cu_attn_plan *p = &b->plan;
    size_t bytes = 0;
    b->spans = mem_zalloc(l->max_spans, sizeof *b->spans);
    b->records = mem_zalloc(CU_RECORDS, sizeof *b->records);
    b->captured = mem_zalloc(CU_RECORDS, sizeof *b->captured);
    p->items[0] = mem_zalloc(p->max_items[0], sizeof *p->items[0]);
    p->items[1] = mem_zalloc(p->max_items[1], sizeof *p->items[1]);
    p->begin = mem_zalloc((size_t)b->shape.ctas + 1, sizeof *p->begin);
    p->members = mem_zalloc(p->max_members, sizeof *p->members);
    p->peers = mem_zalloc(p->max_peers, sizeof *p->peers);
    bool ok = b->spans && b->records && b->captured && p->items[0] && p->items[1] && p->begin &&
              p->members && p->peers;
    for (int i = 0; ok && i < CU_BLOBS; i++) {
        struct cu_slot *s = &b->slot[i];
        bytes = b->blob_bytes + l->max_logits * sizeof *s->out;
        s->blob = gpu_host_alloc(b->gpu, b->blob_bytes);
        s->out = gpu_host_alloc(b->gpu, l->max_logits * sizeof *s->out);
        ok = s->blob && s->out;
    }
    if (gpu_failure(b->gpu))
        return cu_backend_failed(b, e);
    return ok ? ST_OK : err_set(e, ST_ENOMEM, "cuda: no host memory for a step (%zu bytes pinned)", bytes);
}

static void bounds(struct cu_be *b)
{
    const struct be_step_limits *l = &b->limits;
    uint64_t all = (uint64_t)l->max_logits * l->vocab, usual = l->vocab > CU_SEEN ? l->vocab : CU_SEEN;
    b->max_seen = (uint32_t)(all < usual ? all : usual);
    b->max_bias = l->max_logits * CU_BIAS_PER_ROW;
    b->max_banned = l->max_logits * CU_BANNED_PER_ROW;
    b->max_vocab = l->vocab;
}

static int check(struct cu_be *b, const struct be_step_limits *l, struct err *e)
{
    if (gpu_failure(b->gpu))
        return cu_backend_failed(b, e);
    if (b->in_flight)
        return err_set(e, ST_EINVAL, "cuda: step_limits while steps are under way");
    if (!l->max_rows || l->max_rows > 1u << 20 || !l->max_spans || !l->max_logits || !l->max_context ||
        l->max_context > 1u << 24 || l->max_blocks > 1u << 28 || !l->vocab || l->vocab >= 1u << 24)
        return err_set(e, ST_EINVAL,
                       "cuda: steps of %u rows, %u sequences, %u logits of %u, %u positions, %u blocks",
                       l->max_rows, l->max_spans, l->max_logits, l->vocab, l->max_context, l->max_blocks);
    return ST_OK;
}

/* One plan serves all layers: their heads must be alike. */
static int find_shape(struct cu_be *b, struct err *e)
{
    b->shape = (struct cu_attn_shape){0};
    for (const struct be_weight *w = b->weights; w; w = w->next) {
        if (w->use != BE_USE_QKV)
            continue;
        uint32_t heads = w->part_rows[0] / w->head_dim, kv_heads = w->part_rows[1] / w->head_dim;
        if (b->shape.n_heads && (b->shape.n_heads != heads || b->shape.n_kv_heads != kv_heads ||
                                 b->shape.head_dim != w->head_dim))
            return err_set(e, ST_EUNSUP, "cuda: layers with %u and %u heads of %u and %u", b->shape.n_heads,
                           heads, b->shape.head_dim, w->head_dim);
        b->shape.n_heads = heads;
        b->shape.n_kv_heads = kv_heads;
        b->shape.head_dim = w->head_dim;
    }
    if (b->shape.n_heads && !b->kv)
        return err_set(e, ST_EINVAL, "cuda: step_limits before the KV pool");
    return ST_OK;
}

int cu_limits_set(struct be *be, const struct be_step_limits *l, struct err *e)
{
    struct cu_be *b = (struct cu_be *)be;
    int st = check(b, l, e);
    if (st == ST_OK)
        st = find_shape(b, e);
    if (st)
        return st;
    if (cu_load_close(b) || gpu_stream_sync(b->stream))
        return cu_backend_failed(b, e);
    cu_limits_free(b); /* of an engine before this one */
    b->limits = *l;
    if (b->limits.max_spans > l->max_rows)
        b->limits.max_spans = l->max_rows;
    if (b->limits.max_logits > l->max_rows)
        b->limits.max_logits = l->max_rows;
    l = &b->limits;
    if (b->shape.n_heads) {
        b->shape.block_tokens = b->kv->kv.block_tokens;
        b->shape.sms = gpu_info(b->gpu)->sms;
        b->shape.ctas = cu_attn_ctas(gpu_info(b->gpu), b->shape.head_dim, (enum cu_type)b->kv->kv.type);
        cu_attn_bounds(&b->shape, l->max_rows, l->max_spans, l->max_context, &b->plan);
    }
    bounds(b);
    b->blob_bytes = cu_blob_max_bytes(b);
    if (b->blob_bytes > UINT32_MAX) /* places in it have 32 bits */
        st = err_set(e, ST_EINVAL, "cuda: %zu bytes of data for a step; lower --max-num-seqs", b->blob_bytes);
    if (st == ST_OK)
        st = device_arrays(b, e);
    if (st == ST_OK)
        st = host_arrays(b, e);
    if (st == ST_OK && b->lt && cu_tune_all(b)) {
        st = gpu_failure(b->gpu) ? cu_backend_failed(b, e)
                                 : err_set(e, ST_ENOMEM, "cuda: no host memory to tune products");
    }
    if (st)
        cu_limits_free(b);
    return st;
}

/* Graphs go with the arrays that they were captured over, and the parity starts again with the device's. */
void cu_limits_free(struct cu_be *b)
{
    struct want w[ARRAYS_MAX];
    uint32_t n = wants(b, w);
    for (int i = 0; i < 2 * CU_GRAPHS; i++) {
        struct cu_graph *g = &b->graph[i / CU_GRAPHS][i % CU_GRAPHS];
        gpu_graph_destroy(g->graph);
        g->graph = NULL;
    }
    b->n_captured = b->first = 0;
    for (uint32_t i = 0; i < n; i++) {
        gpu_free(b->gpu, *w[i].at);
        *w[i].at = NULL;
    }
    for (int i = 0; i < CU_BLOBS; i++) {
        gpu_host_free(b->gpu, b->slot[i].blob);
        gpu_host_free(b->gpu, b->slot[i].out);
        b->slot[i].blob = NULL;
        b->slot[i].out = NULL;
    }
    void *host[] = {b->spans,         b->records,    b->captured,     b->plan.items[0],
                    b->plan.items[1], b->plan.begin, b->plan.members, b->plan.peers};
    for (size_t i = 0; i < sizeof host / sizeof *host; i++)
        mem_free(host[i]);
    b->spans = NULL;
    b->records = b->captured = NULL;
    b->plan = (struct cu_attn_plan){0};
    b->limits = (struct be_step_limits){0};
}
