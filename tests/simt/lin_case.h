/* lin_case: what the tests of the linears share: a seeded generator, a linear with its memory, the shapes that are tried.
 * Everything beyond the shape is NaN when it is read and a pattern when it is written: rows of x from m on, columns of x from k
 * on, rows of w from n on, the rest of y. */
#ifndef STATOR_TEST_LIN_CASE_H
#define STATOR_TEST_LIN_CASE_H

extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
}
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cu_lin.h"
#include "ptx.h"
#include "simt.h"

#define COUNT(a) (uint32_t)(sizeof(a) / sizeof(a)[0])

typedef int lin_fn(struct gpu_stream *s, const struct cu_lin *p);

static struct gpu *gpu;
static struct gpu_stream *stream;

/* ---- numbers ---------------------------------------------------------------------------------------------------------- */

static inline uint64_t mix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline uint32_t below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(mix(state) % n);
}

static inline float uniform(uint64_t *state) /* -1 .. 1 */
{
    return (float)(int32_t)(mix(state) >> 40) * 0x1p-23f - 1.0f;
}

static inline void put(void *array, uint8_t type, size_t i, float v)
{
    if (type == CU_F32)
        ((float *)array)[i] = v;
    else if (type == CU_E4M3)
        ((uint8_t *)array)[i] = (uint8_t)ptx_e4m3x2(v, 0.0f);
    else
        ((uint16_t *)array)[i] = (uint16_t)(type == CU_BF16 ? ptx_bf16x2(v, 0.0f) : ptx_f16x2(v, 0.0f));
}

static inline double get(const void *array, uint8_t type, size_t i)
{
    if (type == CU_F32)
        return ((const float *)array)[i];
    if (type == CU_E4M3)
        return ptx_f16_f32(ptx_e4m3x2_f16x2(((const uint8_t *)array)[i]));
    const uint32_t v = ((const uint16_t *)array)[i];
    return type == CU_BF16 ? ptx_bf16_lo(v) : ptx_f16_f32(v);
}

/* ---- a case: a linear and its memory ---------------------------------------------------------------------------------- */

enum { SPARE_ROWS = 3, PATTERN = 0x5a };

struct shape {
    uint8_t wt, yt, epilogue;
    uint32_t m, n, k;
};

struct lin_case {
    struct cu_lin p;
    uint64_t seed;
    size_t y_bytes;
    unsigned char *before; /* y as it was */
    double *w, *x;         /* [n][k], [m][k] */
    void *memory[12];
    int memories;
};

static inline void *filled(struct lin_case *c, size_t bytes, int fill)
{
    void *p = gpu_host_alloc(gpu, bytes);
    assert_non_null(p);
    memset(p, fill, bytes);
    assert_true(c->memories < (int)COUNT(c->memory));
    c->memory[c->memories++] = p;
    return p;
}

static inline const float *floats(struct lin_case *c, uint32_t n, uint64_t *state, float about, float spread)
{
    float *f = (float *)filled(c, (n + SPARE_ROWS) * sizeof *f, 0xff);
    for (uint32_t i = 0; i < n; i++)
        f[i] = about + spread * uniform(state);
    return f;
}

/* y of m rows, each element of it a function of its place alone. */
static inline void *fresh_y(struct lin_case *c, uint32_t m)
{
    const struct cu_lin *p = &c->p;
    c->y_bytes = (size_t)(m + SPARE_ROWS) * p->ldy * cu_type_bytes((enum cu_type)p->yt);
    unsigned char *y = (unsigned char *)filled(c, c->y_bytes, PATTERN);
    if (p->epilogue == CU_ADD)
        for (size_t i = 0; i < (size_t)m * p->ldy; i++)
            ((float *)y)[i] = (float)(i * 2654435761u % 1024) / 256.0f;
    return y;
}

/* Fills rows of k values, returns what they are. */
static inline double *random_rows(void *array, uint8_t type, uint32_t rows, uint32_t k, uint32_t pitch, float size,
                                  uint64_t *state)
{
    double *values = (double *)malloc((size_t)rows * k * sizeof *values);
    for (uint32_t row = 0; row < rows; row++)
        for (uint32_t i = 0; i < k; i++) {
            put(array, type, (size_t)row * pitch + i, size * uniform(state));
            values[(size_t)row * k + i] = get(array, type, (size_t)row * pitch + i);
        }
    return values;
}

static inline void case_make(struct lin_case *c, const struct shape *s, uint64_t seed)
{
    uint64_t r = seed;
    *c = {};
    c->seed = seed;
    struct cu_lin *p = &c->p;
    const uint32_t bytes = cu_type_bytes((enum cu_type)s->wt), outputs = s->epilogue == CU_SWIGLU ? s->n / 2 : s->n;
    p->wt = s->wt;
    p->yt = s->yt;
    p->epilogue = s->epilogue;
    p->m = s->m;
    p->n = s->n;
    p->k = s->k;
    p->ldx = s->k + 64 * below(&r, 2);
    p->n_out = outputs - below(&r, 8 < outputs ? 8 : outputs);
    p->ldy = outputs + 4 * below(&r, 3);
    const float size = s->wt == CU_E4M3 ? 1.5f : 1.0f;
    void *w = filled(c, (size_t)(s->n + SPARE_ROWS) * s->k * bytes, 0xff);
    void *x = filled(c, (size_t)(s->m + SPARE_ROWS) * p->ldx * bytes, 0xff);
    p->w = w;
    p->x = x;
    c->w = random_rows(w, s->wt, s->n, s->k, s->k, size, &r);
    c->x = random_rows(x, s->wt, s->m, s->k, p->ldx, size, &r);
    const bool scaled = s->wt == CU_E4M3 || below(&r, 4) == 0;
    if (scaled && below(&r, 8))
        p->w_scale = floats(c, s->n, &r, 0.07f, 0.05f);
    if (scaled && below(&r, 8))
        p->x_scale = floats(c, s->m, &r, 0.3f, 0.2f);
    if (below(&r, 2))
        p->bias = floats(c, s->n, &r, 0.0f, 2.0f);
    p->y = fresh_y(c, s->m);
    c->before = (unsigned char *)malloc(c->y_bytes);
    memcpy(c->before, p->y, c->y_bytes);
}

static inline void case_free(struct lin_case *c)
{
    free(c->before);
    free(c->w);
    free(c->x);
    while (c->memories)
        gpu_host_free(gpu, c->memory[--c->memories]);
}

static inline void run(lin_fn *fn, const struct cu_lin *p)
{
    assert_int_equal(fn(stream, p), ST_OK);
    assert_int_equal(gpu_stream_sync(stream), ST_OK);
}

/* ---- shapes ------------------------------------------------------------------------------------------------------------ */

static const uint8_t types[] = {CU_BF16, CU_F16, CU_E4M3};
static const struct {
    uint8_t epilogue, yt;
} outputs[] = {{CU_STORE, CU_F32},   {CU_STORE, CU_BF16}, {CU_STORE, CU_F16},  {CU_ADD, CU_F32},
               {CU_SWIGLU, CU_BF16}, {CU_SWIGLU, CU_F16}, {CU_SWIGLU, CU_F32}};
/* Parts of one stage, parts that are empty, a last part that is short; 64, 192, 320 and 576 end in half a stage of e4m3. */
static const uint32_t ks[] = {64, 128, 192, 320, 512, 576, 1024, 1536};

/* ---- the device --------------------------------------------------------------------------------------------------------- */

static inline int open_device(int cc)
{
    struct err e = {};
    gpu_sim_device(cc);
    return gpu_open(&gpu, &e) == ST_OK && gpu_stream_create(gpu, &stream) == ST_OK ? 0 : -1;
}

static inline int setup(void **)
{
    return open_device(90);
}

static inline int setup_a100(void **)
{
    return open_device(80);
}

static inline int teardown(void **)
{
    gpu_stream_destroy(stream);
    gpu_close(gpu);
    return 0;
}

#endif
