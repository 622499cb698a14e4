/* AMX int8 for many rows: 16 rows x 16 outputs x 32 k in one instruction, exact integers, hence the bits of every other
 * instruction set. Tiles of bf16 are not used: that instruction adds in an order of its own.
 *
 * Scales change every 32 k, so each product tile goes straight back through L1 into the f32 chains: 16 rows x (convert,
 * scale product, one or two FMAs), which is what bounds the speed, at about twice VNNI's. Weights are unpacked to bytes
 * once per tile and stretch of k, for all panels of the call; chains wait in `out` between stretches (stored f32 is exact).
 * Fewer rows than nearly a panel take the VNNI kernels: the tile unit's time does not shrink with rows. */
#include <immintrin.h>
#include <stddef.h>

#include "cpu_linear.h"

/* STRETCH: groups unpacked at a time, 16 KiB. AHEAD_: lines prefetched per two groups, two groups' worth of weights. */
enum { AMX_ROWS_MIN = 14, STRETCH = 32, AHEAD_NIBBLES = 10, AHEAD_BYTES = 17 };

struct tile_config {
    uint8_t palette, start;
    uint8_t reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} __attribute__((packed));

/* Tiles 0, 1: products (16 rows x 16 int32); 2, 3: weights (8 words x 16 outputs x 4); 4, 5: activations (16 rows x 32). */
static void tiles_begin(void)
{
    struct tile_config c = {.palette = 1, .bytes = {64, 64, 64, 64, 32, 32}, .rows = {16, 16, 8, 8, 16, 16}};
    _tile_loadconfig(&c);
}

static inline __m512 f16x16(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

static inline void unpack_nibbles(const uint8_t *w, uint8_t *to)
{
    const __m512i low = _mm512_set1_epi8(15);
    for (int j = 0; j < 4; j++) {
        __m512i p = _mm512_loadu_si512(w + 64 * j);
        _mm512_store_si512(to + 128 * j, _mm512_and_si512(p, low));
        _mm512_store_si512(to + 128 * j + 64, _mm512_and_si512(_mm512_srli_epi16(p, 4), low));
    }
}

/* One stretch of one tile, unpacked: bytes, and per group the scale and minimum of every output. */
struct stretch {
    const uint8_t *words; /* group g's 8 words of 64 bytes at words + g * step */
    size_t step;
    _Alignas(64) uint8_t bytes[STRETCH][512]; /* for nibbles; bytes are read where they are packed */
    _Alignas(64) float dw[STRETCH][16], mw[STRETCH][16];
};

enum kind { KIND_MIN, KIND_N8, KIND_N128 }; /* what the group's end adds: a minimum, -8 sum, -128 sum */

/* Product of group g into tile C, from operand tiles W and A. */
#define PRODUCT(C, W, A, g)                         \
    do {                                            \
        _tile_zero(C);                              \
        _tile_loadd(W, s->words + (g)*s->step, 64); \
        _tile_loadd(A, a[g].q, 32);                 \
        _tile_dpbsud(C, A, W);                      \
    } while (0)

static inline __attribute__((always_inline)) void scale_group(const struct stretch *s, uint32_t g,
                                                              const struct cpu_act_group *a,
                                                              int32_t (*sums)[16], __m512 *acc,
                                                              enum kind kind)
{
    __m512 dw = _mm512_load_ps(s->dw[g]), mw = _mm512_load_ps(s->mw[g]);
#pragma GCC unroll 16
    for (uint32_t r = 0; r < 16; r++) {
        __m512i sum = _mm512_load_si512(sums[r]);
        if (kind == KIND_N8)
            sum = _mm512_add_epi32(sum, _mm512_set1_epi32(a[g].n8[r]));
        if (kind == KIND_N128)
            sum = _mm512_add_epi32(sum, _mm512_set1_epi32(a[g].n128[r]));
        acc[r] =
            _mm512_fmadd_ps(_mm512_mul_ps(dw, _mm512_set1_ps(a[g].d[r])), _mm512_cvtepi32_ps(sum), acc[r]);
        if (kind == KIND_MIN)
            acc[r] = _mm512_fmadd_ps(mw, _mm512_set1_ps(a[g].s[r]), acc[r]);
    }
}

/* The product of a group is started two groups before it is scaled and stored one group before: neither the tile unit's
 * latency nor the way through L1 is waited for. Pairs of groups also ask
 * for the lines at `ahead`: the next tile's weights, so that they are there when it is opened. */
static inline __attribute__((always_inline)) void panel_stretch(const struct stretch *s, uint32_t groups,
                                                                const struct cpu_act_group *a, float *out,
                                                                size_t ld, uint32_t rows, bool first,
                                                                const uint8_t *ahead, enum kind kind)
{
    _Alignas(64) int32_t sums[2][16][16];
    __m512 acc[16];
#pragma GCC unroll 16
    for (uint32_t r = 0; r < 16; r++)
        acc[r] = first || r >= rows ? _mm512_setzero_ps() : _mm512_loadu_ps(out + r * ld);
    PRODUCT(0, 2, 4, 0);
    _tile_stored(0, sums[0], 64);
    if (groups > 1)
        PRODUCT(1, 3, 5, 1);
    for (uint32_t g = 0; g < groups; g += 2) {
        if (g + 1 < groups)
            _tile_stored(1, sums[1], 64);
        if (g + 2 < groups)
            PRODUCT(0, 2, 4, g + 2);
        if (ahead)
            for (int i = 0; i < (kind == KIND_N128 ? AHEAD_BYTES : AHEAD_NIBBLES); i++, ahead += 64)
                _mm_prefetch((const char *)ahead, _MM_HINT_T1);
        scale_group(s, g, a, sums[0], acc, kind);
        if (g + 1 == groups)
            break;
        if (g + 2 < groups)
            _tile_stored(0, sums[0], 64);
        if (g + 3 < groups)
            PRODUCT(1, 3, 5, g + 3);
        scale_group(s, g + 1, a, sums[1], acc, kind);
    }
#pragma GCC unroll 16
    for (uint32_t r = 0; r < 16; r++)
        if (r < rows)
            _mm512_storeu_ps(out + r * ld, acc[r]);
}

static void panels_q4_1(const struct stretch *s, uint32_t n, const struct cpu_act_group *a, float *out,
                        size_t ld, uint32_t rows, bool first, const uint8_t *ahead)
{
    panel_stretch(s, n, a, out, ld, rows, first, ahead, KIND_MIN);
}

static void panels_q4_0(const struct stretch *s, uint32_t n, const struct cpu_act_group *a, float *out,
                        size_t ld, uint32_t rows, bool first, const uint8_t *ahead)
{
    panel_stretch(s, n, a, out, ld, rows, first, ahead, KIND_N8);
}

static void panels_q8_0(const struct stretch *s, uint32_t n, const struct cpu_act_group *a, float *out,
                        size_t ld, uint32_t rows, bool first, const uint8_t *ahead)
{
    panel_stretch(s, n, a, out, ld, rows, first, ahead, KIND_N128);
}

/* Fill s with groups [g0, g0 + n) of the tile. */
static void open_q4_1(const uint8_t *w, uint32_t g0, uint32_t n, struct stretch *s)
{
    w += (size_t)g0 * CPU_Q4_1_GROUP;
    for (uint32_t g = 0; g < n; g++, w += CPU_Q4_1_GROUP) {
        unpack_nibbles(w, s->bytes[g]);
        _mm512_store_ps(s->dw[g], f16x16(w + 256));
        _mm512_store_ps(s->mw[g], f16x16(w + 288));
    }
}

static void open_q4_0(const uint8_t *w, uint32_t g0, uint32_t n, struct stretch *s)
{
    w += (size_t)g0 * CPU_Q4_0_GROUP;
    for (uint32_t g = 0; g < n; g++, w += CPU_Q4_0_GROUP) {
        unpack_nibbles(w, s->bytes[g]);
        _mm512_store_ps(s->dw[g], f16x16(w + 256));
    }
}

static void open_q8_0(const uint8_t *w, uint32_t g0, uint32_t n, struct stretch *s)
{
    w += (size_t)g0 * CPU_Q8_0_GROUP;
    s->words = w;
    s->step = CPU_Q8_0_GROUP;
    for (uint32_t g = 0; g < n; g++, w += CPU_Q8_0_GROUP) {
        _mm512_store_ps(s->dw[g], f16x16(w + 512));
    }
}

static void open_q4_k(const uint8_t *w, uint32_t g0, uint32_t n, struct stretch *s)
{
    for (uint32_t g = 0; g < n; g++) {
        const uint8_t *super = w + (g0 + g) / 8 * (size_t)CPU_Q4_K_SUPER;
        const uint8_t *p = super + (g0 + g) % 8 * CPU_Q4_K_GROUP;
        unpack_nibbles(p, s->bytes[g]);
        __m512 sc = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(p + 256))));
        __m512 mn = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(p + 272))));
        _mm512_store_ps(s->dw[g], _mm512_mul_ps(f16x16(super + 8 * CPU_Q4_K_GROUP), sc));
        __m512 m = _mm512_mul_ps(f16x16(super + 8 * CPU_Q4_K_GROUP + 32), mn);
        /* the chain subtracts m * s: the sign goes into m, which is the same fused operation */
        _mm512_store_ps(s->mw[g], _mm512_xor_ps(m, _mm512_set1_ps(-0.0f)));
    }
}

typedef void open_fn(const uint8_t *w, uint32_t g0, uint32_t n, struct stretch *s);
typedef void panels_fn(const struct stretch *s, uint32_t n, const struct cpu_act_group *a, float *out,
                       size_t ld, uint32_t rows, bool first, const uint8_t *ahead);

static void run(const struct cpu_gemm *g, enum be_type type, open_fn *open, panels_fn *panels)
{
    if (g->n_rows < AMX_ROWS_MIN) {
        cpu_linear_avx512.gemm[type](g);
        return;
    }
    struct stretch s;
    uint32_t groups = g->k / CPU_GROUP;
    tiles_begin();
    for (uint32_t t = 0; t < g->n_tiles; t++) {
        const uint8_t *w = g->w + t * g->tile_bytes;
        const uint8_t *next = t + 1 == g->n_tiles && g->next ? g->next : w + g->tile_bytes;
        for (uint32_t g0 = 0; g0 < groups; g0 += STRETCH) {
            uint32_t n = groups - g0 < STRETCH ? groups - g0 : STRETCH;
            s.words = s.bytes[0];
            s.step = sizeof s.bytes[0];
            open(w, g0, n, &s);
            for (uint32_t r0 = 0; r0 < g->n_rows; r0 += CPU_PANEL) {
                const uint8_t *panel = g->act + r0 / CPU_PANEL * g->panel_bytes;
                uint32_t rows = g->n_rows - r0 < CPU_PANEL ? g->n_rows - r0 : CPU_PANEL;
                panels(&s, n, (const struct cpu_act_group *)panel + g0,
                       g->out + r0 * g->ld + (size_t)t * CPU_TILE, g->ld, rows, g0 == 0,
                       r0 == 0 ? next + g0 * (g->tile_bytes / groups) : NULL);
            }
        }
    }
    _tile_release();
}

static void gemm_q4_0(const struct cpu_gemm *g)
{
    run(g, BE_Q4_0, open_q4_0, panels_q4_0);
}

static void gemm_q4_1(const struct cpu_gemm *g)
{
    run(g, BE_Q4_1, open_q4_1, panels_q4_1);
}

static void gemm_q8_0(const struct cpu_gemm *g)
{
    run(g, BE_Q8_0, open_q8_0, panels_q8_0);
}

static void gemm_q4_k(const struct cpu_gemm *g)
{
    run(g, BE_Q4_K, open_q4_k, panels_q4_1);
}

const struct cpu_linear_kernels cpu_linear_amx = {
    .name = "amx",
    .gemm = {[BE_Q4_0] = gemm_q4_0, [BE_Q4_1] = gemm_q4_1, [BE_Q8_0] = gemm_q8_0, [BE_Q4_K] = gemm_q4_k},
};
