/* The shapes are Llama-3.1-8B's. Data of a few rows stays in the L2 cache from call to call, as it does between the ops of a
 * layer: these figures are latencies, the bandwidth shows at 2048 rows. */
#include "rowops.h"

#include "cu_rows.h"
#include "cu_sample.h"
#include "mem.h"

#include <string.h>

enum { M_MAX = 2048, SAMPLE_MAX = 256, CALLS = 64 };
enum { D = 4096, FFN = 14336, QKV = 6144, HEADS = 32, KV_HEADS = 8, HEAD_DIM = 128, VOCAB = 128256 };
enum { MASK_BEGIN = 16, MASK_BYTES = VOCAB / 8 };

struct rowops {
    struct rig *r;
    uint8_t *in, *out, *table, *pool; /* rows in, rows out, the embedding, KV blocks */
    float *gain, *scale, *rope, *logits;
    uint32_t *slots; /* also positions and tokens */
    uint8_t *blob;   /* masks of random bits, a row's behind another's */
    uint32_t *parity;
    struct cu_sample_row *rows, *host_rows;
    int32_t *drawn, *prev;
    struct be_sample_out *results;
    uint32_t m;
    int variant; /* of the call: e4m3 output, drawing, a mask */
};

static int call_norm(void *ctx, struct gpu_stream *s, uint32_t i)
{
    struct rowops *o = ctx;
    struct cu_norm p = {.x = (float *)o->in, .gain = o->gain, .y = o->out, .m = o->m, .d = D, .ldy = D, .eps = 1e-5f};
    (void)i;
    p.yt = o->variant ? CU_E4M3 : CU_BF16;
    p.y_scale = o->variant ? o->scale : NULL;
    return cu_rows_norm(s, &p);
}

static int call_quant(void *ctx, struct gpu_stream *s, uint32_t i)
{
    struct rowops *o = ctx;
    (void)i;
    struct cu_quant p = {o->in, o->out, o->scale, o->m, FFN, FFN, FFN, CU_BF16};
    return cu_rows_quant(s, &p);
}

static int call_rope(void *ctx, struct gpu_stream *s, uint32_t i)
{
    struct rowops *o = ctx;
    enum cu_type t = o->variant ? CU_E4M3 : CU_BF16;
    uint64_t data = 2ull * KV_HEADS * 16 * HEAD_DIM * cu_type_bytes(t);
    struct cu_kv kv = {.pool = o->pool, .n_blocks = M_MAX / 16, .n_layers = 1, .n_kv_heads = KV_HEADS, .head_dim = HEAD_DIM};
    (void)i;
    kv.block_tokens = 16;
    kv.type = (uint8_t)t;
    kv.scale_offset = data;
    kv.block_stride = (data + (o->variant ? 2 * KV_HEADS * 16 : 0) + 4095) / 4096 * 4096;
    struct cu_rope p = {.qkv = o->in,
                        .rope = o->rope,
                        .positions = o->slots,
                        .slots = o->slots,
                        .q = o->out,
                        .kv = kv,
                        .m = o->m,
                        .ldqkv = QKV,
                        .n_heads = HEADS,
                        .rot_dim = HEAD_DIM,
                        .xt = CU_BF16};
    return cu_rows_rope(s, &p);
}

static int call_swiglu(void *ctx, struct gpu_stream *s, uint32_t i)
{
    struct rowops *o = ctx;
    (void)i;
    struct cu_swiglu p = {o->in, o->out, o->m, FFN, 2 * FFN, FFN, CU_BF16};
    return cu_rows_swiglu(s, &p);
}

static int call_embed(void *ctx, struct gpu_stream *s, uint32_t i)
{
    struct rowops *o = ctx;
    (void)i;
    struct cu_embed p = {(int32_t *)o->slots, o->table, (float *)o->out, o->m, D, D, 1, CU_BF16};
    return cu_rows_embed(s, &p);
}

static int call_sample(void *ctx, struct gpu_stream *s, uint32_t i)
{
    struct rowops *o = ctx;
    struct cu_sample p = {.logits = o->logits, .rows = o->rows, .prev_drawn = o->prev, .drawn = o->drawn, .out = o->results};
    (void)i;
    p.m = o->m;
    p.vocab = p.ld = VOCAB;
    p.blob[0] = o->blob;
    p.parity = o->parity;
    return cu_sample_launch(s, &p);
}

static int print(struct rowops *o, const char *op, double bytes, rig_call *call)
{
    double us = 0;
    int rc = rig_time(o->r, call, o, CALLS, &us);
    if (rc == ST_OK)
        rig_row(o->r, "%s,%u,%.2f,%.0f,%.3f", op, o->m, us, bytes / us / 1e3, bytes / us / 1e3 / o->r->copy_gbs);
    return rc;
}

static int bench_rows(struct rowops *o)
{
    static const uint32_t counts[] = {1, 16, 64, 256, M_MAX};
    int rc = rig_fill(o->r, o->in, (size_t)M_MAX * 2 * FFN * 2, CU_BF16, 1);
    for (size_t i = 0; i < sizeof counts / sizeof *counts && rc == ST_OK; i++) {
        double m = o->m = counts[i];
        for (o->variant = 0; o->variant < 2 && rc == ST_OK; o->variant++) {
            double es = o->variant ? 1 : 2;
            rc = print(o, o->variant ? "norm e4m3" : "norm bf16", m * D * (4 + es), call_norm);
            if (rc == ST_OK)
                rc = print(o, o->variant ? "rope e4m3 kv" : "rope bf16 kv", m * (QKV * 2 + D * 2 + 2 * KV_HEADS * HEAD_DIM * es),
                           call_rope);
        }
        if (rc == ST_OK)
            rc = print(o, "quantise", m * FFN * 3, call_quant);
        if (rc == ST_OK)
            rc = print(o, "swiglu", m * FFN * 6, call_swiglu);
        if (rc == ST_OK)
            rc = print(o, "embed", m * D * 6, call_embed);
    }
    return rc;
}

static int bench_sampler(struct rowops *o)
{
    static const uint32_t counts[] = {1, 16, 64, SAMPLE_MAX};
    static const char *const names[] = {"sample greedy", "sample T=1", "sample k=50 p=0.9", "sample p=0.95",
                                        "sample greedy masked"};
    int rc = rig_fill(o->r, o->logits, (size_t)SAMPLE_MAX * VOCAB * 4, CU_F32, 3);
    if (rc == ST_OK)
        rc = rig_fill(o->r, o->blob, MASK_BEGIN + SAMPLE_MAX * MASK_BYTES, CU_BF16, 1);
    for (o->variant = 0; o->variant < 5 && rc == ST_OK; o->variant++) {
        for (uint32_t i = 0; i < SAMPLE_MAX; i++) {
            o->host_rows[i] = (struct cu_sample_row){.logits_row = i, .position = i, .seed = i, .top_p = 1, .repetition = 1};
            o->host_rows[i].n_logprobs = -1;
            o->host_rows[i].temperature = o->variant % 4 > 0;
            o->host_rows[i].allowed = o->variant == 4 ? MASK_BEGIN + i * MASK_BYTES : 0;
            o->host_rows[i].top_k = o->variant == 2 ? 50 : 0;
            o->host_rows[i].top_p = o->variant == 2 ? 0.9f : o->variant == 3 ? 0.95f : 1;
        }
        rc = gpu_copy(o->r->stream, o->rows, o->host_rows, SAMPLE_MAX * sizeof *o->rows);
        if (rc == ST_OK)
            rc = gpu_stream_sync(o->r->stream);
        for (size_t i = 0; i < sizeof counts / sizeof *counts && rc == ST_OK; i++) {
            o->m = counts[i];
            rc = print(o, names[o->variant], (double)o->m * VOCAB * 4, call_sample);
        }
    }
    return rc;
}

/* Positions and slots 0, 1, ...: every row in its own place; as tokens, rows of the embedding. */
static int fill_indices(struct rowops *o)
{
    uint32_t *host = gpu_host_alloc(o->r->gpu, M_MAX * 4);
    for (uint32_t i = 0; host != NULL && i < M_MAX; i++)
        host[i] = i;
    int rc = host != NULL ? gpu_copy(o->r->stream, o->slots, host, M_MAX * 4) : ST_ENOMEM;
    if (rc == ST_OK)
        rc = gpu_stream_sync(o->r->stream);
    gpu_host_free(o->r->gpu, host);
    return rc;
}

int rowops_bench(struct rig *r)
{
    struct rowops o = {.r = r};
    const struct {
        void **p;
        size_t bytes;
    } arrays[] = {{(void **)&o.in, (size_t)M_MAX * 2 * FFN * 2},
                  {(void **)&o.out, (size_t)M_MAX * FFN * 4},
                  {(void **)&o.table, (size_t)M_MAX * D * 2},
                  {(void **)&o.pool, (size_t)M_MAX * 2 * KV_HEADS * HEAD_DIM * 2},
                  {(void **)&o.gain, D * 4},
                  {(void **)&o.scale, M_MAX * 4},
                  {(void **)&o.rope, (size_t)M_MAX * HEAD_DIM * 4},
                  {(void **)&o.logits, (size_t)SAMPLE_MAX * VOCAB * 4},
                  {(void **)&o.slots, M_MAX * 4},
                  {(void **)&o.rows, SAMPLE_MAX * sizeof *o.rows},
                  {(void **)&o.drawn, SAMPLE_MAX * 4},
                  {(void **)&o.prev, SAMPLE_MAX * 4},
                  {(void **)&o.blob, MASK_BEGIN + SAMPLE_MAX * MASK_BYTES},
                  {(void **)&o.parity, 4},
                  {(void **)&o.results, SAMPLE_MAX * sizeof *o.results}};
    const size_t n = sizeof arrays / sizeof *arrays;
    int rc = ST_OK;
    for (size_t i = 0; i < n && rc == ST_OK; i++)
        rc = (*arrays[i].p = gpu_alloc(r->gpu, arrays[i].bytes)) != NULL ? ST_OK : ST_ENOMEM;
    o.host_rows = gpu_host_alloc(r->gpu, SAMPLE_MAX * sizeof *o.rows);
    rc = rc == ST_OK && o.host_rows == NULL ? ST_ENOMEM : rc;
    rig_table(r, "rows", "op,rows,us,gbs,share");
    if (rc == ST_OK)
        rc = fill_indices(&o);
    if (rc == ST_OK)
        rc = bench_rows(&o);
    if (rc == ST_OK)
        rc = bench_sampler(&o);
    rig_table_end(r);
    for (size_t i = 0; i < n; i++)
        gpu_free(r->gpu, *arrays[i].p);
    gpu_host_free(r->gpu, o.host_rows);
    return rc;
}
