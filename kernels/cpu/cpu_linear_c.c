/* The plain C matrix kernels: the definition of every result, and what an old machine runs.
 *
 * Each output is one chain of fused multiply-adds over rising k. In class INT8 a group of 32 k is first summed as an exact
 * integer, so the order inside the group cannot matter; each group then adds `(dw * d) * isum` and, for types with a
 * minimum, `minimum * s`. Everything that a fast variant may choose (rows at once, tiles at once, vector width) leaves
 * that chain alone, and this is why a row gives the same bits alone, in a batch, and on any instruction set.
 *
 * fmaf() is a library call here: slow, exact. Rejected: mul + add, which rounds twice and would define other bits than the
 * machines that matter can compute fast. */
#include "cpu_linear.h"

#include "cpu_half.h"

#include <assert.h>
#include <math.h>

uint32_t cpu_linear_pad_k(enum be_type t, uint32_t k)
{
    uint32_t b = t == BE_BF16 ? CPU_BF16_K : t == BE_F32 || t == BE_F16 ? CPU_F32_K : be_type_block(t);
    return (k + b - 1) / b * b;
}

size_t cpu_linear_tile_bytes(enum be_type t, uint32_t k)
{
    size_t n = k;
    switch (t) {
    case BE_Q4_0:
        return n / 32 * CPU_Q4_0_GROUP;
    case BE_Q4_1:
        return n / 32 * CPU_Q4_1_GROUP;
    case BE_Q8_0:
        return n / 32 * CPU_Q8_0_GROUP;
    case BE_Q4_K:
        return n / 256 * CPU_Q4_K_SUPER;
    case BE_Q6_K:
        return n / 256 * CPU_Q6_K_SUPER;
    case BE_F16:
        return n / CPU_F32_K * CPU_F16_BLOCK;
    case BE_BF16:
        return n / CPU_BF16_K * CPU_BF16_BLOCK;
    default:
        return n / CPU_F32_K * CPU_F32_BLOCK;
    }
}

size_t cpu_linear_panel_bytes(enum cpu_class c, uint32_t k)
{
    size_t n = k;
    if (c == CPU_INT8)
        return (n + CPU_GROUP - 1) / CPU_GROUP * sizeof(struct cpu_act_group);
    uint32_t per = c == CPU_BF16 ? CPU_BF16_K : CPU_F32_K;
    return (n + per - 1) / per * CPU_FLOAT_BLOCK;
}

/* ---- rounding activations ---------------------------------------------------------------------------------------- */

static void store_group(const float *x, struct cpu_act_group *g, uint32_t row)
{
    float amax = 0;
    for (int i = 0; i < CPU_GROUP; i++) {
        float v = fabsf(x[i]);
        amax = v > amax ? v : amax;
    }
    if (amax < 1e-30f)
        amax = 0;
    float id = amax > 0 ? 127.0f / amax : 0;
    int32_t half[2] = {0, 0};
    for (int i = 0; i < CPU_GROUP; i++) {
        /* adding 1.5 * 2^23 rounds to an integer, ties to even, and leaves it in the low bits */
        int32_t q = (int32_t)(cpu_bits_f32(x[i] * id + 12582912.0f) << 9) >> 9;
        g->q[row][i] = (int8_t)q;
        half[i / 16] += (int8_t)q;
    }
    float d = amax / 127.0f;
    g->d[row] = d;
    g->s[row] = d * (float)(half[0] + half[1]);
    g->n128[row] = -128 * (half[0] + half[1]);
    g->n8[row] = -8 * (half[0] + half[1]);
    g->h32[0][row] = -32 * half[0];
    g->h32[1][row] = -32 * half[1];
}

static void store_int8(const float *x, uint32_t k0, uint32_t n, uint8_t *panel, uint32_t row)
{
    assert(n % CPU_GROUP == 0);
    struct cpu_act_group *g = (struct cpu_act_group *)panel + k0 / CPU_GROUP;
    for (uint32_t i = 0; i < n; i += CPU_GROUP)
        store_group(x + i, g + i / CPU_GROUP, row);
}

static void store_bf16(const float *x, uint32_t k0, uint32_t n, uint8_t *panel, uint32_t row)
{
    uint32_t end = (n + CPU_BF16_K - 1) / CPU_BF16_K * CPU_BF16_K;
    for (uint32_t i = 0; i < end; i++) {
        uint32_t k = k0 + i;
        uint16_t h = i < n ? cpu_f32_bf16(x[i]) : 0;
        memcpy(panel + (size_t)(k / CPU_BF16_K) * CPU_FLOAT_BLOCK + row * 32 + k % CPU_BF16_K * 2, &h, 2);
    }
}

static void store_f32(const float *x, uint32_t k0, uint32_t n, uint8_t *panel, uint32_t row)
{
    uint32_t end = (n + CPU_F32_K - 1) / CPU_F32_K * CPU_F32_K;
    for (uint32_t i = 0; i < end; i += CPU_F32_K) {
        float v[CPU_F32_K] = {0};
        memcpy(v, x + i, (n - i < CPU_F32_K ? n - i : CPU_F32_K) * sizeof *v);
        memcpy(panel + (size_t)((k0 + i) / CPU_F32_K) * CPU_FLOAT_BLOCK + row * 32, v, sizeof v);
    }
}

/* ---- one row times one tile -------------------------------------------------------------------------------------- */

static void dot_nibbles(const uint8_t *w, const int8_t *q, int32_t *sum)
{
    for (int j = 0; j < 4; j++)
        for (int n = 0; n < CPU_TILE; n++)
            for (int b = 0; b < 4; b++) {
                uint8_t v = w[j * 64 + n * 4 + b];
                sum[n] += (v & 15) * q[8 * j + b] + (v >> 4) * q[8 * j + 4 + b];
            }
}

/* Words [j0, j1) of a byte group. */
static void dot_bytes(const uint8_t *w, const int8_t *q, int j0, int j1, int32_t *sum)
{
    for (int j = j0; j < j1; j++)
        for (int n = 0; n < CPU_TILE; n++)
            for (int b = 0; b < 4; b++)
                sum[n] += w[j * 64 + n * 4 + b] * q[4 * j + b];
}

static void fill(int32_t *sum, int32_t v)
{
    for (int n = 0; n < CPU_TILE; n++)
        sum[n] = v;
}

static void add_scaled(float *acc, const float *dw, float d, const int32_t *sum)
{
    for (int n = 0; n < CPU_TILE; n++)
        acc[n] = fmaf(dw[n] * d, (float)sum[n], acc[n]);
}

static void load_f16(float *out, const uint8_t *p)
{
    for (int n = 0; n < CPU_TILE; n++)
        out[n] = cpu_f16_f32(cpu_load_u16(p + 2 * n));
}

typedef void tile_fn(const uint8_t *w, uint32_t k, const uint8_t *panel, uint32_t row, float *acc);

static void tile_q4(const uint8_t *w, uint32_t k, const uint8_t *panel, uint32_t row, float *acc, bool min)
{
    const struct cpu_act_group *a = (const struct cpu_act_group *)panel;
    for (uint32_t g = 0; g < k / 32; g++, a++, w += min ? CPU_Q4_1_GROUP : CPU_Q4_0_GROUP) {
        int32_t sum[CPU_TILE];
        float dw[CPU_TILE], mw[CPU_TILE];
        fill(sum, min ? 0 : a->n8[row]);
        dot_nibbles(w, a->q[row], sum);
        load_f16(dw, w + 256);
        add_scaled(acc, dw, a->d[row], sum);
        if (!min)
            continue;
        load_f16(mw, w + 288);
        for (int n = 0; n < CPU_TILE; n++)
            acc[n] = fmaf(mw[n], a->s[row], acc[n]);
    }
}

static void tile_q4_0(const uint8_t *w, uint32_t k, const uint8_t *panel, uint32_t row, float *acc)
{
    tile_q4(w, k, panel, row, acc, false);
}

static void tile_q4_1(const uint8_t *w, uint32_t k, const uint8_t *panel, uint32_t row, float *acc)
{
    tile_q4(w, k, panel, row, acc, true);
}

static void tile_q8_0(const uint8_t *w, uint32_t k, const uint8_t *panel, uint32_t row, float *acc)
{
    const struct cpu_act_group *a = (const struct cpu_act_group *)panel;
    for (uint32_t g = 0; g < k / 32; g++, a++, w += CPU_Q8_0_GROUP) {
        int32_t sum[CPU_TILE];
        float dw[CPU_TILE];
        fill(sum, a->n128[row]);
        dot_bytes(w, a->q[row], 0, 8, sum);
        load_f16(dw, w + 512);
        add_scaled(acc, dw, a->d[row], sum);
    }
}

static void tile_q4_k(const uint8_t *w, uint32_t k, const uint8_t *panel, uint32_t row, float *acc)
{
    const struct cpu_act_group *a = (const struct cpu_act_group *)panel;
    for (uint32_t s = 0; s < k / 256; s++, w += CPU_Q4_K_SUPER) {
        float d[CPU_TILE], m[CPU_TILE];
        load_f16(d, w + 8 * CPU_Q4_K_GROUP);
        load_f16(m, w + 8 * CPU_Q4_K_GROUP + 32);
        for (int g = 0; g < 8; g++, a++) {
            const uint8_t *p = w + g * CPU_Q4_K_GROUP;
            int32_t sum[CPU_TILE];
            float dw[CPU_TILE];
            fill(sum, 0);
            dot_nibbles(p, a->q[row], sum);
            for (int n = 0; n < CPU_TILE; n++)
                dw[n] = d[n] * (float)p[256 + n];
            add_scaled(acc, dw, a->d[row], sum);
            for (int n = 0; n < CPU_TILE; n++)
                acc[n] = fmaf(-(m[n] * (float)p[272 + n]), a->s[row], acc[n]);
        }
    }
}

static void tile_q6_k(const uint8_t *w, uint32_t k, const uint8_t *panel, uint32_t row, float *acc)
{
    const struct cpu_act_group *a = (const struct cpu_act_group *)panel;
    for (uint32_t s = 0; s < k / 256; s++, w += CPU_Q6_K_SUPER) {
        float d[CPU_TILE];
        load_f16(d, w + 8 * CPU_Q6_K_GROUP);
        for (int g = 0; g < 8; g++, a++) {
            const uint8_t *p = w + g * CPU_Q6_K_GROUP;
            for (int h = 0; h < 2; h++) {
                int32_t sum[CPU_TILE];
                float dw[CPU_TILE];
                fill(sum, a->h32[h][row]);
                dot_bytes(p, a->q[row], 4 * h, 4 * h + 4, sum);
                for (int n = 0; n < CPU_TILE; n++)
                    dw[n] = d[n] * (float)(int8_t)p[512 + 16 * h + n];
                add_scaled(acc, dw, a->d[row], sum);
            }
        }
    }
}

static void tile_f32(const uint8_t *w, uint32_t k, const uint8_t *panel, uint32_t row, float *acc)
{
    for (uint32_t i = 0; i < k; i++, w += CPU_TILE * 4) {
        float x, v[CPU_TILE];
        memcpy(&x, panel + (size_t)(i / CPU_F32_K) * CPU_FLOAT_BLOCK + row * 32 + i % CPU_F32_K * 4, 4);
        memcpy(v, w, sizeof v);
        for (int n = 0; n < CPU_TILE; n++)
            acc[n] = fmaf(v[n], x, acc[n]);
    }
}

static void tile_f16(const uint8_t *w, uint32_t k, const uint8_t *panel, uint32_t row, float *acc)
{
    for (uint32_t i = 0; i < k; i++, w += CPU_TILE * 2) {
        float x, v[CPU_TILE];
        memcpy(&x, panel + (size_t)(i / CPU_F32_K) * CPU_FLOAT_BLOCK + row * 32 + i % CPU_F32_K * 4, 4);
        load_f16(v, w);
        for (int n = 0; n < CPU_TILE; n++)
            acc[n] = fmaf(v[n], x, acc[n]);
    }
}

/* Odd k before even k: the order of the dot-product instruction that newer machines have. */
static void tile_bf16(const uint8_t *w, uint32_t k, const uint8_t *panel, uint32_t row, float *acc)
{
    for (uint32_t i = 0; i < k; i += 2, w += CPU_TILE * 4) {
        const uint8_t *x = panel + (size_t)(i / CPU_BF16_K) * CPU_FLOAT_BLOCK + row * 32 + i % CPU_BF16_K * 2;
        float x0 = cpu_bf16_f32(cpu_load_u16(x)), x1 = cpu_bf16_f32(cpu_load_u16(x + 2));
        for (int n = 0; n < CPU_TILE; n++) {
            acc[n] = fmaf(x1, cpu_bf16_f32(cpu_load_u16(w + 4 * n + 2)), acc[n]);
            acc[n] = fmaf(x0, cpu_bf16_f32(cpu_load_u16(w + 4 * n)), acc[n]);
        }
    }
}

static void each_tile(const struct cpu_gemm *g, tile_fn *fn)
{
    for (uint32_t t = 0; t < g->n_tiles; t++)
        for (uint32_t r = 0; r < g->n_rows; r++) {
            float acc[CPU_TILE] = {0};
            fn(g->w + t * g->tile_bytes, g->k, g->act + r / CPU_PANEL * g->panel_bytes, r % CPU_PANEL, acc);
            memcpy(g->out + r * g->ld + (size_t)t * CPU_TILE, acc, sizeof acc);
        }
}

#define GEMM(type)                                    \
    static void gemm_##type(const struct cpu_gemm *g) \
    {                                                 \
        each_tile(g, tile_##type);                    \
    }
GEMM(q4_0)
GEMM(q4_1)
GEMM(q8_0)
GEMM(q4_k)
GEMM(q6_k)
GEMM(f16)
GEMM(bf16)
GEMM(f32)

const struct cpu_linear_kernels cpu_linear_c = {
    .name = "c",
    .store = {[CPU_INT8] = store_int8, [CPU_BF16] = store_bf16, [CPU_F32] = store_f32},
    .gemm = {[BE_Q4_0] = gemm_q4_0,
             [BE_Q4_1] = gemm_q4_1,
             [BE_Q8_0] = gemm_q8_0,
             [BE_Q4_K] = gemm_q4_k,
             [BE_Q6_K] = gemm_q6_k,
             [BE_F16] = gemm_f16,
             [BE_BF16] = gemm_bf16,
             [BE_F32] = gemm_f32},
};
