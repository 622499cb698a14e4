/* Weights rotate through a pool larger than the L2 cache, as the layers of a model do; x stays, as it does between ops. The
 * share is of the larger of the two floors: bytes at the copy's speed, products at the library's best. */
#include "linears.h"

#include "cu_rows.h"
#include <string.h>

enum { M_MAX = 2048, HEAD_M_MAX = 512, HEAD_N = 16032, N_MAX = 128256, K_MAX = 14336, COLD_BYTES = 256 << 20 };
#define LINEARS_POOL ((size_t)1200 << 20)

static const struct shape {
    const char *model, *op;
    uint32_t n, k;
    uint8_t epilogue, yt;
} shapes[] = {
    {"8B", "qkv", 6144, 4096, CU_STORE, CU_BF16},       {"8B", "o", 4096, 4096, CU_ADD, CU_F32},
    {"8B", "gate_up", 28672, 4096, CU_SWIGLU, CU_BF16}, {"8B", "down", 4096, 14336, CU_ADD, CU_F32},
    {"8B", "head", 128256, 4096, CU_STORE, CU_F32},     {"70B/8", "qkv", 1280, 8192, CU_STORE, CU_BF16},
    {"70B/8", "o", 8192, 1024, CU_ADD, CU_F32},         {"70B/8", "gate_up", 7168, 8192, CU_SWIGLU, CU_BF16},
    {"70B/8", "down", 8192, 3584, CU_ADD, CU_F32},      {"70B/8", "head", 16032, 8192, CU_STORE, CU_F32},
    {"135M", "qkv", 960, 576, CU_STORE, CU_BF16},       {"135M", "o", 576, 576, CU_ADD, CU_F32},
    {"135M", "gate_up", 3072, 576, CU_SWIGLU, CU_BF16}, {"135M", "down", 576, 1536, CU_ADD, CU_F32},
    {"135M", "head", 49152, 576, CU_STORE, CU_F32},
};

static const uint32_t row_counts[] = {1, 2, 4, 8, 16, 17, 32, 64, 128, 256, 512, 2048};

enum path { STREAM, TILE, TILE_CUT, LIBRARY, NORM_STREAM, STREAM_NORM, PATHS };
static const char *const path_names[] = {"stream", "tile", "tile_cut", "cublaslt", "norm+stream", "norm_inside"};

struct linears {
    struct rig *r;
    uint8_t *pool, *x, *y, *gu; /* gu: what the library leaves for SwiGLU */
    float *scales;              /* [N_MAX] */
    float *x_scales;            /* [M_MAX] */
    float *residual, *gain;     /* [CU_LIN_NORM_ROWS][K_MAX], [K_MAX]: what a norm reads */
    void *slabs;                /* of TILE_CUT */
    struct cu_lin p;
    size_t w_bytes;
    enum path path;
};

/* The norm in front of the product, as a kernel or inside of it. */
static int run_normed(struct linears *l, struct gpu_stream *s, const struct cu_lin *p)
{
    struct cu_norm norm = {.x = l->residual,
                           .gain = l->gain,
                           .y = l->x,
                           .y_scale = p->wt == CU_E4M3 ? l->x_scales : NULL,
                           .m = p->m,
                           .d = p->k,
                           .ldy = p->k,
                           .eps = 1e-5f,
                           .yt = p->wt};
    if (l->path == STREAM_NORM)
        return cu_lin_stream_norm(s, p, &norm);
    int rc = cu_rows_norm(s, &norm);
    return rc == ST_OK ? cu_lin_stream(s, p) : rc;
}

static int run_path(struct linears *l, struct gpu_stream *s, const struct cu_lin *p)
{
    if (l->path >= NORM_STREAM)
        return run_normed(l, s, p);
    if (l->path == STREAM)
        return cu_lin_stream(s, p);
    if (l->path == TILE || l->path == TILE_CUT) {
        struct cu_lin tile = *p;
        tile.slabs = l->path == TILE_CUT ? l->slabs : NULL;
        return cu_lin_tile(s, &tile);
    }
    if (l->r->lt == NULL)
        return ST_EUNSUP;
    if (p->epilogue != CU_SWIGLU)
        return cu_lt_run(l->r->lt, s, p);
    struct cu_lin plain = *p; /* as the backend does it: stored, then a kernel of its own */
    plain.epilogue = CU_STORE;
    plain.y = l->gu;
    plain.ldy = plain.n_out = p->n;
    struct cu_swiglu act = {l->gu, p->y, p->m, p->n / 2, p->n, p->ldy, p->yt};
    int rc = cu_lt_run(l->r->lt, s, &plain);
    return rc == ST_OK ? cu_rows_swiglu(s, &act) : rc;
}

static int call(void *ctx, struct gpu_stream *s, uint32_t i)
{
    struct linears *l = ctx;
    struct cu_lin p = l->p;
    p.w = l->pool + i % (LINEARS_POOL / l->w_bytes) * l->w_bytes;
    return run_path(l, s, &p);
}

static void set_shape(struct linears *l, const struct shape *s, enum cu_type t, uint32_t m)
{
    uint32_t columns = s->epilogue == CU_SWIGLU ? s->n / 2 : s->n;
    l->w_bytes = (size_t)s->n * s->k * cu_type_bytes(t);
    l->p = (struct cu_lin){.w = l->pool,
                           .x = l->x,
                           .w_scale = t == CU_E4M3 ? l->scales : NULL,
                           .x_scale = t == CU_E4M3 ? l->x_scales : NULL,
                           .y = l->y,
                           .m = m,
                           .n = s->n,
                           .k = s->k,
                           .ldx = s->k,
                           .ldy = columns,
                           .n_out = columns,
                           .wt = (uint8_t)t,
                           .yt = s->yt,
                           .epilogue = s->epilogue};
}

/* The library's candidates are timed outside of a capture. */
static int tune(struct linears *l)
{
    struct cu_lin p = l->p;
    if (l->path != LIBRARY || l->r->lt == NULL)
        return ST_OK;
    if (p.epilogue == CU_SWIGLU) {
        p.epilogue = CU_STORE;
        p.y = l->gu;
        p.ldy = p.n_out = p.n;
    }
    return cu_lt_tune(l->r->lt, l->r->stream, &p);
}

static int one_row(struct linears *l, const struct shape *s, enum cu_type t, uint32_t m)
{
    struct rig *r = l->r;
    uint32_t y_bytes = s->epilogue == CU_ADD ? 8 : cu_type_bytes((enum cu_type)s->yt);
    double bytes = (double)l->w_bytes + (double)m * s->k * cu_type_bytes(t) + (double)m * l->p.n_out * y_bytes;
    double flop = 2.0 * m * s->n * s->k, us;
    double floor_us = bytes / r->copy_gbs / 1e3;
    if (rig_gemm(r, t) > 0 && flop / rig_gemm(r, t) / 1e6 > floor_us)
        floor_us = flop / rig_gemm(r, t) / 1e6;
    double n = 2000 / floor_us < 4 ? 4 : 2000 / floor_us;
    double cold = COLD_BYTES / (double)l->w_bytes;
    n = n > cold ? n : cold;
    int rc = tune(l);
    if (rc == ST_OK)
        rc = rig_time(r, call, l, n > RIG_CALLS ? RIG_CALLS : (uint32_t)n, &us);
    if (rc == ST_EUNSUP || rc == ST_EINVAL)
        return ST_OK;
    if (rc == ST_OK)
        rig_row(r, "%s,%s,%u,%u,%s,%u,%s,%.2f,%.0f,%.1f,%.3f", s->model, s->op, s->n, s->k, t == CU_E4M3 ? "e4m3" : "bf16", m,
                path_names[l->path], us, bytes / us / 1e3, flop / us / 1e6, floor_us / us);
    return rc;
}

/* Shapes of fewer tiles of 128 rows and 32 or 64 tokens than SMs: the others run the same with and without slabs. */
static bool narrow(const struct linears *l, const struct shape *s, uint32_t m)
{
    uint32_t tokens = m <= 32 ? 32 : 64;
    return m > CU_STREAM_ROWS && ((s->n - 1) / 128 + 1) * ((m - 1) / tokens + 1) < gpu_info(l->r->gpu)->sms;
}

static int all_rows(struct linears *l, enum cu_type t)
{
    int rc = ST_OK;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t j = 0; j < sizeof row_counts / sizeof *row_counts; j++)
            for (int path = 0; path < PATHS && rc == ST_OK; path++) {
                uint32_t m = row_counts[j];
                if ((path == STREAM && m > CU_STREAM_ROWS) || (path == LIBRARY && m < CU_STREAM_ROWS))
                    continue;
                if (path == TILE_CUT && !narrow(l, &shapes[i], m))
                    continue;
                if (path >= NORM_STREAM && (m > CU_LIN_NORM_ROWS || shapes[i].epilogue == CU_ADD))
                    continue;
                if (shapes[i].n >= HEAD_N && (m > HEAD_M_MAX || t == CU_E4M3))
                    continue; /* heads stay in 16 bits, and see the rows that are sampled */
                l->path = (enum path)path;
                set_shape(l, &shapes[i], t, m);
                rc = one_row(l, &shapes[i], t, m);
            }
    return rc;
}

static int begin(struct linears *l, struct rig *r, size_t pool)
{
    *l = (struct linears){.r = r};
    l->pool = gpu_alloc(r->gpu, pool);
    l->x = gpu_alloc(r->gpu, (size_t)M_MAX * K_MAX * 2);
    l->y = gpu_alloc(r->gpu, (size_t)HEAD_M_MAX * N_MAX * 4);
    l->gu = gpu_alloc(r->gpu, (size_t)M_MAX * 28672 * 2);
    l->scales = gpu_alloc(r->gpu, N_MAX * 4);
    l->x_scales = gpu_alloc(r->gpu, M_MAX * 4);
    l->residual = gpu_alloc(r->gpu, CU_LIN_NORM_ROWS * K_MAX * 4);
    l->gain = gpu_alloc(r->gpu, K_MAX * 4);
    l->slabs = gpu_alloc(r->gpu, cu_lin_slab_bytes(gpu_info(r->gpu)));
    if (!l->pool || !l->x || !l->y || !l->gu || !l->scales || !l->x_scales || !l->residual || !l->gain || !l->slabs)
        return ST_ENOMEM;
    int rc = rig_fill(r, l->scales, N_MAX * 4, CU_F32, 1.0f / 64);
    if (rc == ST_OK)
        rc = rig_fill(r, l->x_scales, M_MAX * 4, CU_F32, 1.0f / 64);
    if (rc == ST_OK)
        rc = rig_fill(r, l->residual, CU_LIN_NORM_ROWS * K_MAX * 4, CU_F32, 1);
    return rc == ST_OK ? rig_fill(r, l->gain, K_MAX * 4, CU_F32, 1) : rc;
}

static void end(struct linears *l)
{
    gpu_free(l->r->gpu, l->pool);
    gpu_free(l->r->gpu, l->x);
    gpu_free(l->r->gpu, l->y);
    gpu_free(l->r->gpu, l->gu);
    gpu_free(l->r->gpu, l->scales);
    gpu_free(l->r->gpu, l->x_scales);
    gpu_free(l->r->gpu, l->residual);
    gpu_free(l->r->gpu, l->gain);
    gpu_free(l->r->gpu, l->slabs);
}

int linears_bench(struct rig *r)
{
    struct linears l;
    int rc = begin(&l, r, LINEARS_POOL);
    rig_table(r, "linear", "model,op,n,k,type,m,path,us,gbs,tflops,share");
    static const enum cu_type types[] = {CU_BF16, CU_E4M3};
    for (int i = 0; i < 2 && rc == ST_OK; i++) {
        rc = rig_fill(r, l.pool, LINEARS_POOL, types[i], 1.0f / 64);
        if (rc == ST_OK)
            rc = rig_fill(r, l.x, (size_t)M_MAX * K_MAX * 2, types[i], 1);
        if (rc == ST_OK)
            rc = all_rows(&l, types[i]);
    }
    rig_table_end(r);
    end(&l);
    return rc;
}

/* ---- the probe --------------------------------------------------------------------------------------------------- */

enum { PROBE_N = 4096, PROBE_K = 4096 };
static const uint32_t probe_rows[] = {1, 2, 3, 5, 8, 9, 16, 17, 33, 64, 65, 128, 300, 2048};

/* First row of y through the path, or 0 when it does not take the shape. */
static int probe_row(struct linears *l, uint32_t m, uint8_t *host, bool *ran)
{
    l->p.m = m;
    int rc = run_path(l, l->r->stream, &l->p);
    *ran = rc == ST_OK;
    if (rc == ST_EUNSUP || rc == ST_EINVAL)
        return ST_OK;
    if (rc == ST_OK)
        rc = gpu_copy(l->r->stream, host, l->y, PROBE_N * 4);
    return rc == ST_OK ? gpu_stream_sync(l->r->stream) : rc;
}

static int probe_type(struct linears *l, enum cu_type t, uint8_t *want, uint8_t *got)
{
    static const struct shape s = {"probe", "", PROBE_N, PROBE_K, CU_STORE, CU_F32};
    int rc = rig_fill(l->r, l->pool, (size_t)PROBE_N * PROBE_K * cu_type_bytes(t), t, 1.0f / 64);
    if (rc == ST_OK)
        rc = rig_fill(l->r, l->x, (size_t)M_MAX * PROBE_K * cu_type_bytes(t), t, 1);
    bool ran = false;
    set_shape(l, &s, t, 1);
    l->path = STREAM;
    if (rc == ST_OK)
        rc = probe_row(l, 1, want, &ran);
    for (int path = 0; path <= LIBRARY && rc == ST_OK; path++) {
        char line[256];
        int at = snprintf(line, sizeof line, "%s,%s", t == CU_E4M3 ? "e4m3" : "bf16", path_names[path]);
        l->path = (enum path)path;
        for (size_t i = 0; i < sizeof probe_rows / sizeof *probe_rows && rc == ST_OK; i++) {
            rc = probe_row(l, probe_rows[i], got, &ran);
            const char *mark = !ran ? "-" : memcmp(want, got, PROBE_N * 4) == 0 ? "equal" : "differs";
            at += snprintf(line + at, sizeof line - (size_t)at, ",%s", mark);
        }
        if (rc == ST_OK)
            rig_row(l->r, "%s", line);
    }
    return rc;
}

int linears_probe(struct rig *r)
{
    struct linears l;
    int rc = begin(&l, r, (size_t)PROBE_N * PROBE_K * 2);
    uint8_t *want = gpu_host_alloc(r->gpu, PROBE_N * 4), *got = gpu_host_alloc(r->gpu, PROBE_N * 4);
    if (rc == ST_OK && (!want || !got))
        rc = ST_ENOMEM;
    rig_table(r, "invariance", "type,path,m1,m2,m3,m5,m8,m9,m16,m17,m33,m64,m65,m128,m300,m2048");
    if (rc == ST_OK)
        rc = probe_type(&l, CU_BF16, want, got);
    if (rc == ST_OK)
        rc = probe_type(&l, CU_E4M3, want, got);
    rig_table_end(r);
    gpu_host_free(r->gpu, want);
    gpu_host_free(r->gpu, got);
    end(&l);
    return rc;
}
