/* lin_stream and lin_tile: values against sums in double, bits against each other (class L), and what they must not touch.
 * Everything beyond the shape is NaN when it is read and a pattern when it is written: rows of x from m on, columns of x from k
 * on, rows of w from n on, the rest of y. */
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

typedef int lin_fn(struct gpu_stream *s, const struct cu_lin *p);

static struct gpu *gpu;
static struct gpu_stream *stream;

/* ---- numbers ---------------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint32_t below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(mix(state) % n);
}

static float uniform(uint64_t *state) /* -1 .. 1 */
{
    return (float)(int32_t)(mix(state) >> 40) * 0x1p-23f - 1.0f;
}

static void put(void *array, uint8_t type, size_t i, float v)
{
    if (type == CU_F32)
        ((float *)array)[i] = v;
    else if (type == CU_E4M3)
        ((uint8_t *)array)[i] = (uint8_t)ptx_e4m3x2(v, 0.0f);
    else
        ((uint16_t *)array)[i] = (uint16_t)(type == CU_BF16 ? ptx_bf16x2(v, 0.0f) : ptx_f16x2(v, 0.0f));
}

static double get(const void *array, uint8_t type, size_t i)
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
    void *memory[8];
    int memories;
};

static void *filled(struct lin_case *c, size_t bytes, int fill)
{
    void *p = gpu_host_alloc(gpu, bytes);
    assert_non_null(p);
    memset(p, fill, bytes);
    c->memory[c->memories++] = p;
    return p;
}

static const float *floats(struct lin_case *c, uint32_t n, uint64_t *state, float about, float spread)
{
    float *f = (float *)filled(c, (n + SPARE_ROWS) * sizeof *f, 0xff);
    for (uint32_t i = 0; i < n; i++)
        f[i] = about + spread * uniform(state);
    return f;
}

/* y of m rows, each element of it a function of its place alone. */
static void *fresh_y(struct lin_case *c, uint32_t m)
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
static double *random_rows(void *array, uint8_t type, uint32_t rows, uint32_t k, uint32_t pitch, float size, uint64_t *state)
{
    double *values = (double *)malloc((size_t)rows * k * sizeof *values);
    for (uint32_t row = 0; row < rows; row++)
        for (uint32_t i = 0; i < k; i++) {
            put(array, type, (size_t)row * pitch + i, size * uniform(state));
            values[(size_t)row * k + i] = get(array, type, (size_t)row * pitch + i);
        }
    return values;
}

static void case_make(struct lin_case *c, const struct shape *s, uint64_t seed)
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

static void case_free(struct lin_case *c)
{
    free(c->before);
    free(c->w);
    free(c->x);
    while (c->memories)
        gpu_host_free(gpu, c->memory[--c->memories]);
}

static void run(lin_fn *fn, const struct cu_lin *p)
{
    assert_int_equal(fn(stream, p), ST_OK);
    assert_int_equal(gpu_stream_sync(stream), ST_OK);
}

/* ---- the reference ---------------------------------------------------------------------------------------------------- */

struct value {
    double v, err; /* err: what class L may be off by, on any GPU (KERNELS design, 14.3) */
};

static struct value ref_sum(const struct lin_case *c, uint32_t token, uint32_t n)
{
    const struct cu_lin *p = &c->p;
    const double *w = c->w + (size_t)n * p->k, *x = c->x + (size_t)token * p->k;
    double sum = 0, size = 0;
    for (uint32_t i = 0; i < p->k; i++) {
        sum += w[i] * x[i];
        size += fabs(w[i] * x[i]);
    }
    const float scale = (p->w_scale ? p->w_scale[n] : 1.0f) * (p->x_scale ? p->x_scale[token] : 1.0f);
    const double v = sum * scale + (p->bias ? p->bias[n] : 0.0f);
    return {v, 0x1p-20 * size * (p->k / 16 + 8) * scale + 0x1p-23 * (fabs(sum * scale) + fabs(v))};
}

static struct value ref_output(const struct lin_case *c, uint32_t token, uint32_t column)
{
    const struct cu_lin *p = &c->p;
    if (p->epilogue == CU_SWIGLU) {
        const uint32_t n = column / CU_GATE_GROUP * 2 * CU_GATE_GROUP + column % CU_GATE_GROUP;
        const struct value g = ref_sum(c, token, n), u = ref_sum(c, token, n + CU_GATE_GROUP);
        const double silu = g.v / (1 + exp(-g.v));
        return {silu * u.v, 1.1 * g.err * (fabs(u.v) + u.err) + fabs(silu) * u.err + 0x1p-20 * fabs(silu * u.v)};
    }
    struct value o = ref_sum(c, token, column);
    if (p->epilogue == CU_ADD) {
        o.v += ((const float *)c->before)[(size_t)token * p->ldy + column];
        o.err += 0x1p-24 * fabs(o.v);
    }
    return o;
}

static double half_ulp(uint8_t type, double v)
{
    return type == CU_BF16 ? 0x1p-8 * fabs(v) : type == CU_F16 ? 0x1p-11 * fabs(v) + 0x1p-24 : 0x1p-23 * fabs(v);
}

static void check(const struct lin_case *c, const char *name)
{
    const struct cu_lin *p = &c->p;
    const size_t bytes = cu_type_bytes((enum cu_type)p->yt);
    for (size_t i = 0; i < c->y_bytes / bytes; i++) {
        const uint32_t token = (uint32_t)(i / p->ldy), column = (uint32_t)(i % p->ldy);
        bool good;
        struct value want = {0, 0};
        if (token < p->m && column < p->n_out) {
            want = ref_output(c, token, column);
            good = fabs(get(p->y, p->yt, i) - want.v) <= want.err + half_ulp(p->yt, want.v);
        } else {
            good = memcmp((unsigned char *)p->y + i * bytes, c->before + i * bytes, bytes) == 0;
        }
        if (!good)
            fail_msg("%s seed %llu: types %d -> %d, epilogue %d, m %u n %u (%u) k %u: token %u column %u is %.9g, "
                     "want %.9g +- %.3g",
                     name, (unsigned long long)c->seed, p->wt, p->yt, p->epilogue, p->m, p->n, p->n_out, p->k, token, column,
                     get(p->y, p->yt, i), want.v, want.err);
    }
}

/* ---- the tests -------------------------------------------------------------------------------------------------------- */

static const uint8_t types[] = {CU_BF16, CU_F16, CU_E4M3};
static const struct {
    uint8_t epilogue, yt;
} outputs[] = {{CU_STORE, CU_F32},   {CU_STORE, CU_BF16}, {CU_STORE, CU_F16},  {CU_ADD, CU_F32},
               {CU_SWIGLU, CU_BF16}, {CU_SWIGLU, CU_F16}, {CU_SWIGLU, CU_F32}};
/* Parts of one stage, parts that are empty, a last part that is short; 64, 192, 320 and 576 end in half a stage of e4m3. */
static const uint32_t ks[] = {64, 128, 192, 320, 512, 576, 1024, 1536};

#define COUNT(a) (uint32_t)(sizeof(a) / sizeof(a)[0])

static void check_all(lin_fn *fn, const char *name, const uint32_t *ms, uint32_t n_ms, const uint32_t *ns, uint32_t n_ns)
{
    uint64_t seed = 1;
    for (uint32_t t = 0; t < COUNT(types); t++)
        for (uint32_t o = 0; o < COUNT(outputs); o++)
            for (uint32_t i = 0; i < n_ms; i++) {
                const uint32_t at = t + 5 * o + 3 * i; /* every m meets every type and output; n and k turn */
                const struct shape s = {types[t], outputs[o].yt, outputs[o].epilogue, ms[i], ns[at % n_ns], ks[at % COUNT(ks)]};
                struct lin_case c;
                case_make(&c, &s, seed++);
                run(fn, &c.p);
                check(&c, name);
                case_free(&c);
            }
}

static void test_stream_values(void **)
{
    static const uint32_t ms[] = {1, 2, 3, 5, 7, 8, 9, 11, 13, 15, 16}, ns[] = {16, 32, 48, 80, 112};
    check_all(cu_lin_stream, "lin_stream", ms, COUNT(ms), ns, COUNT(ns));
}

static void test_tile_values(void **)
{
    static const uint32_t ms[] = {1, 17, 33, 63, 67, 129}, ns[] = {16, 528, 144, 400, 272};
    check_all(cu_lin_tile, "lin_tile", ms, COUNT(ms), ns, COUNT(ns));
}

static void test_random_shapes(void **)
{
    for (uint64_t seed = 5000; seed < 5120; seed++) {
        uint64_t r = seed;
        const bool streams = below(&r, 2);
        const uint32_t t = below(&r, COUNT(types)), o = below(&r, COUNT(outputs));
        const uint32_t m = 1 + below(&r, streams ? 16 : 150), n = 16 * (1 + below(&r, 35)), k = 64 * (1 + below(&r, 20));
        const struct shape s = {types[t], outputs[o].yt, outputs[o].epilogue, m, n, k};
        struct lin_case c;
        case_make(&c, &s, seed);
        run(streams ? cu_lin_stream : cu_lin_tile, &c.p);
        check(&c, streams ? "lin_stream" : "lin_tile");
        case_free(&c);
    }
}

/* Rows first .. first + m - 1 of the case as a linear of their own; the result's first m rows must be those of `want`. */
static void same_rows(struct lin_case *c, lin_fn *fn, const char *name, const unsigned char *want, uint32_t first, uint32_t m)
{
    const size_t pitch = c->p.ldy * cu_type_bytes((enum cu_type)c->p.yt);
    struct cu_lin p = c->p;
    p.m = m;
    p.x = (const unsigned char *)p.x + (size_t)first * p.ldx * cu_type_bytes((enum cu_type)p.wt);
    p.x_scale = p.x_scale ? p.x_scale + first : NULL;
    unsigned char *y = (unsigned char *)gpu_host_alloc(gpu, m * pitch);
    assert_non_null(y);
    memcpy(y, c->before + first * pitch, m * pitch);
    p.y = y;
    run(fn, &p);
    for (uint32_t i = 0; i < m; i++)
        if (memcmp(y + i * pitch, want + (first + i) * pitch, pitch))
            fail_msg("seed %llu, type %d, epilogue %d, n %u k %u: row %u of %u from %s has other bits",
                     (unsigned long long)c->seed, p.wt, p.epilogue, p.n, p.k, first + i, m, name);
    gpu_host_free(gpu, y);
}

static void test_same_bits_whatever_the_batch(void **)
{
    enum { M = 133, N = 400 }; /* as many tiles of rows as the emulated GPU has SMs: then m alone picks the tokens of a tile */
    uint64_t seed = 1000;
    for (uint32_t t = 0; t < COUNT(types); t++)
        for (uint32_t i = 0; i < COUNT(ks); i++, seed++) {
            const uint32_t o = (uint32_t)(seed % COUNT(outputs));
            const struct shape s = {types[t], outputs[o].yt, outputs[o].epilogue, M, N, ks[i]};
            struct lin_case c;
            case_make(&c, &s, seed);
            const size_t row = (size_t)c.p.ldx * cu_type_bytes((enum cu_type)s.wt);
            memset((unsigned char *)c.p.x + 3 * row, 0xff, 2); /* a NaN */
            run(cu_lin_tile, &c.p);
            const unsigned char *want = (const unsigned char *)c.p.y;
            for (uint32_t token = 0; token < M; token++)
                for (uint32_t n = 0; n < c.p.n_out; n++)
                    assert_int_equal(isnan(get(want, c.p.yt, (size_t)token * c.p.ldy + n)) != 0, token == 3);
            uint64_t r = seed;
            same_rows(&c, cu_lin_tile, "lin_tile", want, below(&r, 64), 65 + below(&r, 5)); /* other columns of tiles of 128 */
            same_rows(&c, cu_lin_tile, "lin_tile", want, 2, 33 + below(&r, 32));
            same_rows(&c, cu_lin_tile, "lin_tile", want, 0, 1 + below(&r, 32));
            same_rows(&c, cu_lin_stream, "lin_stream", want, 0, 9 + below(&r, 8));
            same_rows(&c, cu_lin_stream, "lin_stream", want, 117, 16);
            same_rows(&c, cu_lin_stream, "lin_stream", want, 2, 2 + below(&r, 7));
            same_rows(&c, cu_lin_stream, "lin_stream", want, below(&r, 128), 1);
            case_free(&c);
        }
}

/* More tiles than blocks: rings and sums go on from tile to tile, also with parts that are empty or of one stage. */
static void test_blocks_walk_over_tiles(void **)
{
    const uint32_t sms = gpu_info(gpu)->sms;
    const struct shape shapes[] = {
        {CU_BF16, CU_F32, CU_STORE, 3, 16 * (2 * sms + 3) * 2, 64},    {CU_F16, CU_F16, CU_SWIGLU, 12, 32 * sms * 3 + 16, 192},
        {CU_E4M3, CU_F32, CU_ADD, 8, 16 * (2 * sms + 1), 1088},        {CU_BF16, CU_BF16, CU_STORE, 16, 32 * sms + 16, 576},
    };
    for (uint32_t i = 0; i < COUNT(shapes); i++) {
        struct lin_case c;
        case_make(&c, &shapes[i], 2000 + i);
        run(cu_lin_stream, &c.p);
        check(&c, "lin_stream");
        case_free(&c);
    }
    const struct shape tiles[] = {
        {CU_BF16, CU_F32, CU_STORE, 20, 128 * (2 * sms + 1), 64},
        {CU_E4M3, CU_BF16, CU_STORE, 128 * 9 + 5, 144, 192}, /* two bands of token tiles */
    };
    for (uint32_t i = 0; i < COUNT(tiles); i++) {
        struct lin_case c;
        case_make(&c, &tiles[i], 2100 + i);
        run(cu_lin_tile, &c.p);
        check(&c, "lin_tile");
        case_free(&c);
    }
}

static void test_refusals(void **)
{
    const struct shape s = {CU_BF16, CU_F32, CU_STORE, 16, 32, 64};
    struct lin_case c;
    case_make(&c, &s, 3000);
    struct cu_lin bad[20];
    for (int i = 0; i < 20; i++)
        bad[i] = c.p;
    bad[0].m = 0;
    bad[1].n = 0;
    bad[2].k = 0;
    bad[3].n = 24;
    bad[4].k = 96;
    bad[5].wt = CU_F32;
    bad[6].yt = CU_E4M3;
    bad[7].epilogue = CU_SWIGLU + 1;
    bad[8].epilogue = CU_ADD, bad[8].yt = CU_BF16;
    bad[9].ldx = 48;
    bad[10].ldx = 68;
    bad[11].n_out = 33, bad[11].ldy = 64;
    bad[12].epilogue = CU_SWIGLU, bad[12].n_out = 17;
    bad[13].ldy = bad[13].n_out - 1;
    bad[14].w = NULL;
    bad[15].x = NULL;
    bad[16].y = NULL;
    bad[17].w = (const unsigned char *)c.p.w + 8;
    bad[18].x = (const unsigned char *)c.p.x + 2;
    bad[19].m = 17;
    for (int i = 0; i < 20; i++) {
        if (i < 19)
            assert_int_equal(cu_lin_tile(stream, &bad[i]), ST_EINVAL);
        assert_int_equal(cu_lin_stream(stream, &bad[i]), ST_EINVAL);
    }
    assert_int_equal(gpu_stream_sync(stream), ST_OK);
    assert_memory_equal(c.p.y, c.before, c.y_bytes);
    case_free(&c);
}

static int open_device(int cc)
{
    struct err e = {};
    gpu_sim_device(cc);
    return gpu_open(&gpu, &e) == ST_OK && gpu_stream_create(gpu, &stream) == ST_OK ? 0 : -1;
}

static int setup(void **)
{
    return open_device(90);
}

static int setup_a100(void **)
{
    return open_device(80);
}

static int teardown(void **)
{
    gpu_stream_destroy(stream);
    gpu_close(gpu);
    return 0;
}

/* Every variant fits into the shared memory of an A100. */
static void test_a100(void **)
{
    static const uint32_t ms[] = {8, 16}, ns[] = {48}, tile_ms[] = {32, 64, 128}, tile_ns[] = {400};
    check_all(cu_lin_stream, "lin_stream", ms, COUNT(ms), ns, COUNT(ns));
    check_all(cu_lin_tile, "lin_tile", tile_ms, COUNT(tile_ms), tile_ns, COUNT(tile_ns));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream_values),
        cmocka_unit_test(test_tile_values),
        cmocka_unit_test(test_random_shapes),
        cmocka_unit_test(test_same_bits_whatever_the_batch),
        cmocka_unit_test(test_blocks_walk_over_tiles),
        cmocka_unit_test(test_refusals),
    };
    const struct CMUnitTest a100[] = {
        cmocka_unit_test(test_a100),
    };
    return cmocka_run_group_tests(tests, setup, teardown) + cmocka_run_group_tests(a100, setup_a100, teardown);
}
