/* One layer's attention, over a pool of several layers that take turns, so that a small batch finds cold KV too. Block tables are
 * shuffled. The plan is the backend's own. Cascade: sequences with a prefix in the same blocks, with a plan that makes use of it
 * and one that does not. */
#include "attend.h"

#include "cu_attn.h"
#include "mem.h"

#include <string.h>

enum { BLOCK_TOKENS = 16, ROWS_MAX = 8192, SPANS_MAX = 256, LAYERS_MAX = 32, COLD_BYTES = 128 << 20, CALLS = 32, OWN = 500,
       KEY_CHARS = 80 };
#define ATTEND_POOL ((size_t)24 << 30)

struct model {
    const char *name;
    uint32_t n_heads, n_kv_heads, head_dim;
};

static const struct model llama8 = {"8B", 32, 8, 128}, llama70 = {"70B/8", 8, 1, 128}, smol = {"135M", 9, 3, 64};

/* `batch` sequences of `prefix` tokens that get `rows` more each. */
struct workload {
    const struct model *model;
    uint32_t batch, prefix, rows;
};

struct attend {
    struct rig *r;
    size_t pool_bytes;
    uint32_t shared;  /* tokens that all sequences have in the same blocks */
    bool cascade;     /* the plan makes use of that */
    struct cu_attn p; /* of list 0 */
    struct cu_attn_plan plan;
    struct cu_attn_item *items[2]; /* device */
    uint8_t *q, *y;
    uint8_t *seen[2]; /* pinned: results of the two plans of a cascade */
};

static int call(void *ctx, struct gpu_stream *s, uint32_t i)
{
    struct attend *a = ctx;
    struct cu_attn p = a->p;
    int rc = ST_OK;
    p.layer = i % p.kv.n_layers;
    p.items = a->items[1];
    p.ctas = a->plan.n_items[1];
    if (p.ctas > 0)
        rc = cu_attn_rows128(s, &p);
    p.items = a->items[0];
    p.ctas = a->p.ctas;
    return rc == ST_OK && a->plan.n_items[0] > 0 ? cu_attn_rows16(s, &p) : rc;
}

static uint32_t seq_blocks(const struct workload *w)
{
    return (w->prefix + w->rows + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
}

/* The pool's geometry for as many layers as make it cold; false: one layer does not fit. */
static bool shape_kv(struct attend *a, const struct workload *w, enum cu_type t)
{
    struct cu_kv *kv = &a->p.kv;
    uint64_t shared = a->shared / BLOCK_TOKENS, blocks = shared + (seq_blocks(w) - shared) * (uint64_t)w->batch;
    uint64_t heads = 2ull * w->model->n_kv_heads * BLOCK_TOKENS, data = heads * w->model->head_dim * cu_type_bytes(t);
    uint64_t layers = COLD_BYTES / (blocks * data) + 1;
    layers = layers > LAYERS_MAX ? LAYERS_MAX : layers;
    kv->n_blocks = (uint32_t)blocks;
    kv->n_layers = (uint32_t)layers;
    kv->n_kv_heads = w->model->n_kv_heads;
    kv->head_dim = w->model->head_dim;
    kv->block_tokens = BLOCK_TOKENS;
    kv->type = (uint8_t)t;
    kv->scale_offset = data * layers;
    kv->block_stride = (data + (t == CU_E4M3 ? heads : 0)) * layers;
    kv->block_stride = (kv->block_stride + 4095) / 4096 * 4096;
    return blocks * kv->block_stride <= a->pool_bytes;
}

/* Random values; scales of one. */
static int fill_kv(struct attend *a)
{
    const struct cu_kv *kv = &a->p.kv;
    size_t per_copy = ((size_t)16 << 20) / kv->block_stride + 1, chunk = per_copy * kv->block_stride;
    uint8_t *host = gpu_host_alloc(a->r->gpu, chunk);
    int rc = host == NULL ? ST_ENOMEM : rig_fill(a->r, kv->pool, chunk < a->pool_bytes ? chunk : a->pool_bytes, kv->type, 1);
    if (rc == ST_OK)
        rc = gpu_copy(a->r->stream, host, kv->pool, chunk);
    if (rc == ST_OK)
        rc = gpu_stream_sync(a->r->stream);
    for (size_t i = 0; i < per_copy && rc == ST_OK && kv->type == CU_E4M3; i++)
        memset(host + i * kv->block_stride + kv->scale_offset, 127, kv->block_stride - kv->scale_offset);
    size_t all = kv->n_blocks * kv->block_stride;
    for (size_t at = 0; at < all && rc == ST_OK; at += chunk)
        rc = gpu_copy(a->r->stream, kv->pool + at, host, all - at < chunk ? all - at : chunk);
    if (rc == ST_OK)
        rc = gpu_stream_sync(a->r->stream);
    gpu_host_free(a->r->gpu, host);
    return rc;
}

/* A device copy of a host array, or NULL. */
static void *to_device(struct rig *r, const void *host, size_t bytes)
{
    uint8_t *pinned = gpu_host_alloc(r->gpu, bytes), *d = gpu_alloc(r->gpu, bytes);
    bool ok = pinned != NULL && d != NULL;
    if (ok) {
        if (bytes > 0)
            memcpy(pinned, host, bytes);
        ok = gpu_copy(r->stream, d, pinned, bytes) == ST_OK && gpu_stream_sync(r->stream) == ST_OK;
    }
    gpu_host_free(r->gpu, pinned);
    if (ok)
        return d;
    gpu_free(r->gpu, d);
    return NULL;
}

static uint32_t *shuffled(uint32_t n)
{
    uint32_t *table = mem_alloc((size_t)n * sizeof *table), seed = 7;
    for (uint32_t i = 0; table != NULL && i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        uint32_t j = (uint32_t)(((uint64_t)seed * (i + 1)) >> 32);
        table[i] = table[j];
        table[j] = i;
    }
    return table;
}

/* Block tables of all sequences, end to end; or NULL. */
static uint32_t *make_tables(const struct attend *a, const struct workload *w)
{
    const uint32_t each = seq_blocks(w), shared = a->shared / BLOCK_TOKENS, own = each - shared;
    uint32_t *blocks = shuffled(a->p.kv.n_blocks), *tables = mem_alloc((size_t)w->batch * each * sizeof *tables);
    for (uint32_t i = 0; blocks != NULL && tables != NULL && i < w->batch; i++) {
        memcpy(tables + (size_t)i * each, blocks, shared * sizeof *blocks);
        memcpy(tables + (size_t)i * each + shared, blocks + shared + (size_t)i * own, own * sizeof *blocks);
    }
    if (blocks == NULL) {
        mem_free(tables);
        tables = NULL;
    }
    mem_free(blocks);
    return tables;
}

static void free_plan(struct attend *a)
{
    struct gpu *g = a->r->gpu;
    gpu_free(g, a->items[0]);
    gpu_free(g, a->items[1]);
    gpu_free(g, (void *)a->p.begin);
    gpu_free(g, (void *)a->p.members);
    gpu_free(g, (void *)a->p.tables);
    gpu_free(g, (void *)a->p.n_items);
    gpu_free(g, a->p.partials);
    gpu_free(g, a->p.counters);
    mem_free(a->plan.items[0]);
    mem_free(a->plan.items[1]);
    mem_free(a->plan.begin);
    mem_free(a->plan.members);
    mem_free(a->plan.peers);
    a->items[0] = a->items[1] = NULL;
    a->plan = (struct cu_attn_plan){0};
    a->p.begin = a->p.members = a->p.tables = a->p.n_items = a->p.counters = NULL;
    a->p.partials = NULL;
}

/* The backend's plan for the workload, on the host. */
static int host_plan(struct attend *a, const struct workload *w, const uint32_t *tables)
{
    const struct model *m = w->model;
    struct cu_attn_shape shape = {m->n_heads, m->n_kv_heads, m->head_dim, BLOCK_TOKENS, a->p.ctas, a->r->info->sms};
    struct cu_attn_span spans[SPANS_MAX];
    struct cu_attn_plan *plan = &a->plan;
    cu_attn_bounds(&shape, w->batch * w->rows, w->batch, w->prefix + w->rows, plan);
    for (int i = 0; i < 2; i++)
        plan->items[i] = mem_zalloc(plan->max_items[i] + 1, sizeof *plan->items[i]);
    plan->begin = mem_zalloc(a->p.ctas + 1, sizeof *plan->begin);
    plan->members = mem_zalloc(plan->max_members + 1, sizeof *plan->members);
    plan->peers = mem_zalloc(plan->max_peers + 1, sizeof *plan->peers);
    if (!plan->items[0] || !plan->items[1] || !plan->begin || !plan->members || !plan->peers)
        return ST_ENOMEM;
    for (uint32_t i = 0; i < w->batch; i++)
        spans[i] = (struct cu_attn_span){i * w->rows, w->rows, w->prefix, i * seq_blocks(w)};
    return cu_attn_make_plan(&shape, spans, w->batch, a->cascade ? tables : NULL, plan);
}

static int make_plan(struct attend *a, const struct workload *w)
{
    struct cu_attn *p = &a->p;
    const struct cu_attn_plan *plan = &a->plan;
    uint32_t *tables = make_tables(a, w);
    int rc = tables != NULL ? host_plan(a, w, tables) : ST_ENOMEM;
    if (rc == ST_OK) {
        for (int i = 0; i < 2; i++)
            a->items[i] = to_device(a->r, plan->items[i], (plan->n_items[i] + 1) * sizeof *plan->items[i]);
        p->runs = a->items[0];
        p->members = to_device(a->r, plan->members, (plan->n_members + 1) * sizeof *plan->members);
        p->begin = to_device(a->r, plan->begin, (p->ctas + 1) * sizeof *plan->begin);
        p->tables = to_device(a->r, tables, (size_t)w->batch * seq_blocks(w) * sizeof *tables);
        p->n_items = to_device(a->r, &plan->n_items[1], sizeof plan->n_items[1]);
        p->partials = gpu_alloc(a->r->gpu, ((size_t)plan->n_partials + 1) * (p->kv.head_dim + 2) * sizeof(float));
        p->counters = gpu_alloc(a->r->gpu, ((size_t)plan->n_counters + 1) * sizeof(uint32_t));
        if (!a->items[0] || !a->items[1] || !p->begin || !p->members || !p->tables || !p->n_items || !p->partials ||
            !p->counters)
            rc = ST_ENOMEM;
    }
    mem_free(tables);
    return rc;
}

/* A row's first columns. */
static void print_key(const struct attend *a, const struct workload *w, enum cu_type t, char key[KEY_CHARS])
{
    const char *kv = t == CU_E4M3 ? "e4m3" : "bf16";
    if (a->shared > 0)
        snprintf(key, KEY_CHARS, "%s,%s,%u,%u,%u,%s", w->model->name, kv, w->batch, a->shared, w->prefix + w->rows - a->shared,
                 a->cascade ? "shared" : "apart");
    else
        snprintf(key, KEY_CHARS, "%s,%s,%u,%u,%u", w->model->name, kv, w->batch, w->prefix, w->rows);
}

/* The last call's results, whose bits the plan must not change. */
static int compare(struct attend *a, const struct workload *w, const char **bits)
{
    const size_t bytes = (size_t)w->batch * w->rows * a->p.ldy * 2;
    int rc = gpu_copy(a->r->stream, a->seen[a->cascade], a->y, bytes);
    if (rc == ST_OK)
        rc = gpu_stream_sync(a->r->stream);
    *bits = !a->cascade ? ",-" : memcmp(a->seen[0], a->seen[1], bytes) == 0 ? ",same" : ",DIFFER";
    return rc;
}

/* bits: another column, or "". */
static void print(const struct attend *a, const struct workload *w, enum cu_type t, double us, const char *bits)
{
    struct rig *r = a->r;
    const struct model *m = w->model;
    char key[KEY_CHARS];
    double row = 2.0 * m->n_kv_heads * (m->head_dim * cu_type_bytes(t) + (t == CU_E4M3));
    double context = w->prefix + w->rows, once = a->cascade ? a->shared : 0; /* tokens that are read once for all */
    double bytes = (w->batch * (context - once) + once) * row;
    double pairs = (double)w->batch * w->rows * (w->prefix + (w->rows + 1) / 2.0);
    double flop = 4 * pairs * m->n_heads * m->head_dim;
    double bound = bytes / r->copy_gbs / 1e3;
    if (r->gemm_tflops > 0 && flop / r->gemm_tflops / 1e6 > bound)
        bound = flop / r->gemm_tflops / 1e6;
    print_key(a, w, t, key);
    rig_row(r, "%s,%.1f,%.0f,%.1f,%.3f%s", key, us, bytes / us / 1e3, flop / us / 1e6, bound / us, bits);
}

static int one(struct attend *a, const struct workload *w, enum cu_type t)
{
    const struct model *m = w->model;
    const char *bits = "";
    double us = 0;
    a->p.n_heads = m->n_heads;
    a->p.ldy = m->n_heads * m->head_dim;
    a->p.scale = m->head_dim == 64 ? 0.125f : 0.08838835f;
    a->p.ctas = cu_attn_ctas(a->r->info, m->head_dim, t);
    if (!shape_kv(a, w, t)) {
        char key[KEY_CHARS];
        print_key(a, w, t, key);
        rig_row(a->r, "%s,skipped: no room for its KV,,,%s", key, a->shared > 0 ? "," : "");
        return ST_OK;
    }
    int rc = fill_kv(a);
    if (rc == ST_OK)
        rc = make_plan(a, w);
    if (rc == ST_OK)
        rc = rig_time(a->r, call, a, w->rows > 1 ? 4 : CALLS, &us);
    if (rc == ST_OK && a->shared > 0)
        rc = compare(a, w, &bits);
    if (rc == ST_OK)
        print(a, w, t, us, bits);
    free_plan(a);
    return rc;
}

static const struct workload workloads[] = {
    {&llama8, 1, 499, 1},     {&llama8, 8, 499, 1},     {&llama8, 32, 499, 1},   {&llama8, 64, 499, 1},   {&llama8, 128, 499, 1},
    {&llama8, 200, 499, 1},   {&llama8, 256, 499, 1},   {&llama8, 1, 1999, 1},   {&llama8, 8, 1999, 1},   {&llama8, 32, 1999, 1},
    {&llama8, 64, 1999, 1},   {&llama8, 128, 1999, 1},  {&llama8, 256, 1999, 1}, {&llama8, 1, 7999, 1},   {&llama8, 8, 7999, 1},
    {&llama8, 32, 7999, 1},   {&llama8, 128, 7999, 1},  {&llama8, 1, 19999, 1},  {&llama8, 38, 19999, 1}, {&llama8, 1, 99999, 1},
    {&llama70, 1, 499, 1},    {&llama70, 32, 499, 1},   {&llama70, 256, 499, 1}, {&llama70, 32, 7999, 1}, {&smol, 1, 499, 1},
    {&smol, 32, 499, 1},      {&smol, 256, 499, 1},     {&llama8, 1, 0, 512},    {&llama8, 1, 0, 2048},   {&llama8, 1, 0, 8192},
    {&llama8, 1, 18432, 2048}, {&llama70, 1, 0, 2048},  {&smol, 1, 0, 2048},
};

/* A common prompt of 8k or 32k and OWN tokens of one's own. */
static const struct workload cascades[] = {
    {&llama8, 64, 8192 + OWN - 1, 1},
    {&llama8, 256, 8192 + OWN - 1, 1},
    {&llama8, 64, 32768 + OWN - 1, 1},
    {&llama8, 256, 32768 + OWN - 1, 1},
};

static int cascade_bench(struct attend *a)
{
    static const enum cu_type types[] = {CU_BF16, CU_E4M3};
    struct rig *r = a->r;
    const size_t bytes = (size_t)SPANS_MAX * 32 * 128 * 2;
    a->seen[0] = gpu_host_alloc(r->gpu, bytes);
    a->seen[1] = gpu_host_alloc(r->gpu, bytes);
    int rc = a->seen[0] != NULL && a->seen[1] != NULL ? ST_OK : ST_ENOMEM;
    rig_table(r, "cascade", "model,kv,batch,prefix,own,plan,us,gbs,tflops,share,bits");
    for (int t = 0; t < 2; t++)
        for (size_t i = 0; i < 2 * (sizeof cascades / sizeof *cascades) && rc == ST_OK; i++) {
            const struct workload *w = &cascades[i / 2];
            a->shared = w->prefix + w->rows - OWN;
            a->cascade = i % 2 > 0;
            rc = one(a, w, types[t]);
        }
    rig_table_end(r);
    gpu_host_free(r->gpu, a->seen[0]);
    gpu_host_free(r->gpu, a->seen[1]);
    return rc;
}

int attend_bench(struct rig *r)
{
    struct attend a = {.r = r};
    uint64_t room = 0, total = 0;
    static const enum cu_type types[] = {CU_BF16, CU_E4M3};
    size_t rows_bytes = (size_t)ROWS_MAX * 32 * 128 * 2;
    int rc = gpu_memory(r->gpu, &room, &total);
    a.pool_bytes = room < ATTEND_POOL + ((size_t)4 << 30) ? room / 2 : ATTEND_POOL;
    a.p.xt = CU_BF16;
    a.q = gpu_alloc(r->gpu, rows_bytes);
    a.y = gpu_alloc(r->gpu, rows_bytes);
    a.p.kv.pool = gpu_alloc(r->gpu, a.pool_bytes);
    a.p.q = a.q;
    a.p.y = a.y;
    if (rc == ST_OK && (!a.q || !a.y || !a.p.kv.pool))
        rc = ST_ENOMEM;
    if (rc == ST_OK)
        rc = rig_fill(r, a.q, rows_bytes, CU_BF16, 1);
    rig_table(r, "attention", "model,kv,batch,prefix,rows,us,gbs,tflops,share");
    for (int t = 0; t < 2; t++)
        for (size_t i = 0; i < sizeof workloads / sizeof *workloads && rc == ST_OK; i++)
            rc = one(&a, &workloads[i], types[t]);
    rig_table_end(r);
    if (rc == ST_OK)
        rc = cascade_bench(&a);
    gpu_free(r->gpu, a.q);
    gpu_free(r->gpu, a.y);
    gpu_free(r->gpu, a.p.kv.pool);
    return rc;
}
