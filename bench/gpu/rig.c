/* Kernels of a few microseconds cannot be timed one by one: the launch takes longer. So a timing is a graph of many calls on
 * changing data, as in a decode step, between two events. */
#include "rig.h"

#include "cpu_half.h"
#include "mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { FILL_BYTES = 16 << 20, GEMM_SIDE = 8192, COPY_BYTES = 1 << 30 };

int rig_open(struct rig *r, const char *dir, struct err *e)
{
    *r = (struct rig){.dir = dir};
    int rc = gpu_open(&r->gpu, e);
    if (rc != ST_OK)
        return rc;
    r->info = gpu_info(r->gpu);
    if (gpu_stream_create(r->gpu, &r->stream) != ST_OK || gpu_event_create(r->gpu, true, &r->from) != ST_OK ||
        gpu_event_create(r->gpu, true, &r->to) != ST_OK)
        rc = err_set(e, ST_EDEVICE, "%s", gpu_failure(r->gpu) ? gpu_failure(r->gpu) : "out of memory");
    struct err why = {0};
    if (rc == ST_OK && cu_lt_create(&r->lt, r->gpu, NULL, &why) != ST_OK)
        fprintf(stderr, "%s\n", why.text);
    if (rc != ST_OK)
        rig_close(r);
    return rc;
}

void rig_close(struct rig *r)
{
    rig_table_end(r);
    cu_lt_destroy(r->lt);
    gpu_event_destroy(r->from);
    gpu_event_destroy(r->to);
    gpu_stream_destroy(r->stream);
    gpu_close(r->gpu);
    *r = (struct rig){0};
}

int rig_gone(const struct rig *r)
{
    const char *why = gpu_failure(r->gpu);
    if (why == NULL)
        return ST_OK;
    fprintf(stderr, "%s: %s\n", r->info->name, why);
    return ST_EDEVICE;
}

/* ---- timing ------------------------------------------------------------------------------------------------------ */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int rig_time(struct rig *r, rig_call *call, void *ctx, uint32_t n, double *us)
{
    struct gpu_graph *graph = NULL;
    double t[RIG_REPEATS];
    int rc = call(ctx, r->stream, 0); /* loads the kernel, and refuses what it does not take, before anything is recorded */
    if (rc == ST_OK)
        rc = gpu_stream_sync(r->stream);
    if (rc == ST_OK)
        rc = gpu_capture_begin(r->stream);
    if (rc != ST_OK)
        return rc;
    for (uint32_t i = 0; i < n && rc == ST_OK; i++)
        rc = call(ctx, r->stream, i);
    int end = gpu_capture_end(r->stream, &graph);
    if (rc == ST_OK)
        rc = end;
    for (int i = -2; i < RIG_REPEATS && rc == ST_OK; i++) { /* two to warm up */
        rc = gpu_event_record(r->from, r->stream);
        if (rc == ST_OK)
            rc = gpu_graph_launch(graph, r->stream);
        if (rc == ST_OK)
            rc = gpu_event_record(r->to, r->stream);
        if (rc == ST_OK)
            rc = gpu_event_wait(r->to);
        if (rc == ST_OK && i >= 0)
            rc = gpu_event_us(r->from, r->to, &t[i]);
    }
    gpu_graph_destroy(graph);
    if (rc != ST_OK)
        return rc;
    qsort(t, RIG_REPEATS, sizeof *t, ascending);
    *us = t[RIG_REPEATS / 2] / n;
    return ST_OK;
}

/* ---- data -------------------------------------------------------------------------------------------------------- */

/* About normal: the sum of four uniform values. */
static float draw(uint32_t *seed)
{
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        *seed = *seed * 1664525u + 1013904223u;
        sum += (float)(*seed >> 8) / 16777216.0f;
    }
    return (sum - 2) * 1.7320508f;
}

static void fill_host(uint8_t *p, size_t bytes, enum cu_type t, float dev)
{
    uint32_t seed = 1;
    for (size_t i = 0; i + cu_type_bytes(t) <= bytes; i += cu_type_bytes(t)) {
        float v = t == CU_E4M3 ? 0 : draw(&seed) * dev;
        uint16_t h = cpu_f32_bf16(v);
        if (t == CU_F32) {
            memcpy(p + i, &v, 4);
        } else if (t == CU_E4M3) {
            seed = seed * 1664525u + 1013904223u;
            p[i] = (uint8_t)(((seed >> 24) & 0x87) | (3 + (seed >> 20) % 4) << 3); /* sign, mantissa; exponents -4 to -1 */
        } else {
            memcpy(p + i, &h, 2);
        }
    }
}

int rig_fill(struct rig *r, void *dst, size_t bytes, enum cu_type t, float dev)
{
    size_t chunk = bytes < FILL_BYTES ? bytes : FILL_BYTES;
    uint8_t *host = gpu_host_alloc(r->gpu, chunk);
    int rc = host != NULL ? ST_OK : ST_ENOMEM;
    if (rc == ST_OK)
        fill_host(host, chunk, t, dev);
    for (size_t at = 0; at < bytes && rc == ST_OK; at += chunk)
        rc = gpu_copy(r->stream, (uint8_t *)dst + at, host, bytes - at < chunk ? bytes - at : chunk);
    if (rc == ST_OK)
        rc = gpu_stream_sync(r->stream);
    gpu_host_free(r->gpu, host);
    return rc;
}

/* ---- ceilings ---------------------------------------------------------------------------------------------------- */

struct copy {
    uint8_t *a, *b;
};

static int copy_call(void *ctx, struct gpu_stream *s, uint32_t i)
{
    struct copy *c = ctx;
    return gpu_copy(s, i % 2 ? c->a : c->b, i % 2 ? c->b : c->a, COPY_BYTES);
}

static int measure_copy(struct rig *r)
{
    struct copy c = {gpu_alloc(r->gpu, COPY_BYTES), gpu_alloc(r->gpu, COPY_BYTES)};
    double us = 0;
    int rc = c.a && c.b ? rig_time(r, copy_call, &c, 4, &us) : ST_ENOMEM;
    if (rc == ST_OK)
        r->copy_gbs = 2.0 * COPY_BYTES / us / 1e3;
    gpu_free(r->gpu, c.a);
    gpu_free(r->gpu, c.b);
    return rc;
}

struct gemm {
    struct rig *r;
    struct cu_lin p;
};

static int gemm_call(void *ctx, struct gpu_stream *s, uint32_t i)
{
    struct gemm *g = ctx;
    (void)i;
    return cu_lt_run(g->r->lt, s, &g->p);
}

static int measure_gemm(struct rig *r, enum cu_type t, double *tflops)
{
    size_t side = GEMM_SIDE, bytes = side * side * cu_type_bytes(t);
    void *w = gpu_alloc(r->gpu, bytes), *x = gpu_alloc(r->gpu, bytes), *y = gpu_alloc(r->gpu, side * side * 2);
    float *ones = gpu_alloc(r->gpu, side * 4);
    double us = 0;
    int rc = w && x && y && ones ? ST_OK : ST_ENOMEM;
    if (rc == ST_OK)
        rc = rig_fill(r, w, bytes, t, 1.0f / 64);
    if (rc == ST_OK)
        rc = rig_fill(r, x, bytes, t, 1);
    if (rc == ST_OK)
        rc = rig_fill(r, ones, side * 4, CU_F32, 1);
    struct gemm g = {r, {.w = w, .x = x, .y = y, .m = side, .n = side, .n_out = side, .k = side, .ldx = side, .ldy = side}};
    g.p.wt = (uint8_t)t;
    g.p.yt = CU_BF16;
    g.p.epilogue = CU_STORE;
    g.p.w_scale = g.p.x_scale = t == CU_E4M3 ? ones : NULL;
    if (rc == ST_OK)
        rc = cu_lt_tune(r->lt, r->stream, &g.p);
    if (rc == ST_OK)
        rc = rig_time(r, gemm_call, &g, 8, &us);
    if (rc == ST_OK)
        *tflops = 2.0 * (double)side * (double)side * (double)side / us / 1e6;
    gpu_free(r->gpu, w);
    gpu_free(r->gpu, x);
    gpu_free(r->gpu, y);
    gpu_free(r->gpu, ones);
    return rc;
}

int rig_ceilings(struct rig *r)
{
    int rc = measure_copy(r);
    if (rc == ST_OK && r->lt != NULL)
        rc = measure_gemm(r, CU_BF16, &r->gemm_tflops);
    if (rc == ST_OK && r->lt != NULL && r->info->cc >= 90)
        rc = measure_gemm(r, CU_E4M3, &r->gemm_fp8_tflops);
    if (rc == ST_OK)
        printf("%s, %u SMs: copy %.0f GB/s, bf16 product %.0f TFLOP/s, e4m3 product %.0f TFLOP/s\n", r->info->name, r->info->sms,
               r->copy_gbs, r->gemm_tflops, r->gemm_fp8_tflops);
    return rc;
}

double rig_gemm(const struct rig *r, enum cu_type t)
{
    return t == CU_E4M3 && r->gemm_fp8_tflops > 0 ? r->gemm_fp8_tflops : r->gemm_tflops;
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

/* Commas to columns. */
static void show(const char *line)
{
    while (*line != 0) {
        size_t n = strcspn(line, ",");
        printf("%-*.*s ", (int)(n > 10 ? n : 10), (int)n, line);
        line += n + (line[n] == ',');
    }
    printf("\n");
    fflush(stdout);
}

void rig_table(struct rig *r, const char *name, const char *columns)
{
    char path[1024];
    rig_table_end(r);
    printf("\n%s\n", name);
    show(columns);
    if (r->dir == NULL)
        return;
    snprintf(path, sizeof path, "%s/%s.csv", r->dir, name);
    r->csv = fopen(path, "w");
    if (r->csv == NULL)
        perror(path);
    else
        fprintf(r->csv, "%s\n", columns);
}

void rig_row(struct rig *r, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    show(line);
    if (r->csv != NULL) {
        fprintf(r->csv, "%s\n", line);
        fflush(r->csv);
    }
}

void rig_table_end(struct rig *r)
{
    if (r->csv != NULL)
        fclose(r->csv);
    r->csv = NULL;
}
