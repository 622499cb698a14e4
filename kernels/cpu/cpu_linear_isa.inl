/* The matrix kernels of one instruction set; the including file defines its vectors (VF, VI, LANES and their operations),
 * its integer dots, MR_MAX and ISA_TABLE first. Everything here is static but the one table. */
#include "cpu_linear.h"

#include "cpu_half.h"

#include <stddef.h>

#define AHEAD_BYTES 8192

#define MR 1
#define R(X) X(0)
#include "cpu_linear_mr.inl"
#define MR 2
#define R(X) X(0) X(1)
#include "cpu_linear_mr.inl"
#define MR 3
#define R(X) X(0) X(1) X(2)
#include "cpu_linear_mr.inl"
#define MR 4
#define R(X) X(0) X(1) X(2) X(3)
#include "cpu_linear_mr.inl"
#if MR_MAX > 4
#define MR 5
#define R(X) X(0) X(1) X(2) X(3) X(4)
#include "cpu_linear_mr.inl"
#define MR 6
#define R(X) X(0) X(1) X(2) X(3) X(4) X(5)
#include "cpu_linear_mr.inl"
#define MR 7
#define R(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6)
#include "cpu_linear_mr.inl"
#define MR 8
#define R(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#include "cpu_linear_mr.inl"
#define EACH_MR(name) {name##1, name##2, name##3, name##4, name##5, name##6, name##7, name##8}
#else
#define EACH_MR(name) {name##1, name##2, name##3, name##4}
#endif

typedef void mr_fn(const uint8_t *w, uint32_t lane, uint32_t k, const uint8_t *a, const uint8_t *ad, float *out,
                   size_t ld);

/* Panels outside, tiles inside, the rows of a panel in even parts: a tile is read from memory once. */
static void run_gemm(const struct cpu_gemm *g, mr_fn *const *fns)
{
    for (uint32_t r0 = 0; r0 < g->n_rows; r0 += CPU_PANEL) {
        const uint8_t *panel = g->act + r0 / CPU_PANEL * g->panel_bytes;
        uint32_t rows = g->n_rows - r0 < CPU_PANEL ? g->n_rows - r0 : CPU_PANEL;
        uint32_t parts = (rows + MR_MAX - 1) / MR_MAX;
        for (uint32_t t = 0; t < g->n_tiles; t++) {
            const uint8_t *w = g->w + t * g->tile_bytes;
            for (uint32_t i = 0; i < parts; i++) {
                uint32_t r = rows * i / parts, n = rows * (i + 1) / parts - r;
                float *out = g->out + (r0 + r) * g->ld + (size_t)t * CPU_TILE;
                for (uint32_t lane = 0; lane < CPU_TILE; lane += LANES)
                    fns[n - 1](w, lane, g->k, panel + 32 * r, panel + 4 * r, out + lane, g->ld);
            }
        }
    }
}

#define GEMM(type)                                               \
    static void gemm_##type(const struct cpu_gemm *g)            \
    {                                                            \
        static mr_fn *const fns[MR_MAX] = EACH_MR(type##_);      \
        run_gemm(g, fns);                                        \
    }
GEMM(bf16)

#ifdef ONLY_BF16

const struct cpu_linear_kernels ISA_TABLE = {.name = ISA_NAME, .gemm = {[BE_BF16] = gemm_bf16}};

#else

GEMM(q4_0)
GEMM(q4_1)
GEMM(q8_0)
GEMM(q4_k)
GEMM(q6_k)
GEMM(f16)
GEMM(f32)

static void store_int8(const float *x, uint32_t k0, uint32_t n, uint8_t *panel, uint32_t row)
{
    struct cpu_act_group *g = (struct cpu_act_group *)panel + k0 / CPU_GROUP;
    for (uint32_t i = 0; i < n; i += CPU_GROUP)
        store_group(x + i, g + i / CPU_GROUP, row);
}

static void store_bf16(const float *x, uint32_t k0, uint32_t n, uint8_t *panel, uint32_t row)
{
    uint32_t end = (n + CPU_BF16_K - 1) / CPU_BF16_K * CPU_BF16_K;
    uint8_t *to = panel + (size_t)(k0 / CPU_BF16_K) * CPU_FLOAT_BLOCK + row * 32;
    for (uint32_t i = 0; i < end; i += CPU_BF16_K, to += CPU_FLOAT_BLOCK)
        for (uint32_t j = 0; j < CPU_BF16_K; j++) {
            uint16_t h = i + j < n ? cpu_f32_bf16(x[i + j]) : 0;
            memcpy(to + 2 * j, &h, 2);
        }
}

static void store_f32(const float *x, uint32_t k0, uint32_t n, uint8_t *panel, uint32_t row)
{
    uint8_t *to = panel + (size_t)(k0 / CPU_F32_K) * CPU_FLOAT_BLOCK + row * 32;
    for (uint32_t i = 0; i < n; i += CPU_F32_K, to += CPU_FLOAT_BLOCK) {
        float v[CPU_F32_K] = {0};
        memcpy(v, x + i, (n - i < CPU_F32_K ? n - i : CPU_F32_K) * sizeof *v);
        memcpy(to, v, sizeof v);
    }
}

const struct cpu_linear_kernels ISA_TABLE = {
    .name = ISA_NAME,
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

#endif
