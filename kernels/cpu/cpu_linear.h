/* cpu_linear: the layouts that packed weights and activations share, and the table of matrix kernels per instruction set.
 *
 * Owns     nothing; layouts and function tables.
 * Units    tile = 16 consecutive outputs; group = 32 k; panel = 16 rows of activations; sizes in bytes.
 * States   -
 * Threads  kernels are pure functions of their arguments; any thread. MXCSR must have FTZ|DAZ set.
 * Errors   none: shapes are checked when a weight is packed and when an op is called.
 * Bounds   kernels read whole panel blocks of the rows given, whole tiles of the weight, and nothing else.
 * Source   CPU design, sections 3-5. The plain C table is the definition of every result; the others equal it bit for bit.
 */
#ifndef STATOR_CPU_LINEAR_H
#define STATOR_CPU_LINEAR_H

#include "backend.h"

/* The numeric class of a weight decides how its activations are rounded. */
enum cpu_class { CPU_INT8, CPU_BF16, CPU_F32, CPU_CLASS_COUNT };

enum { CPU_TILE = 16, CPU_PANEL = 16, CPU_GROUP = 32 };

/* One group of a panel in class INT8. Row r: x[k] is about d[r] * q[r][k]. */
struct cpu_act_group {
    int8_t q[CPU_PANEL][CPU_GROUP];
    float d[CPU_PANEL];
    float s[CPU_PANEL];        /* d * sum of q */
    int32_t n128[CPU_PANEL];   /* -128 * sum of q: where a sum over weights stored as w + 128 starts */
    int32_t n8[CPU_PANEL];     /* -8 * sum of q, for weights stored as w + 8 */
    int32_t h32[2][CPU_PANEL]; /* -32 * sum of q over either half of the group */
};

/* The float classes: a block is 32 bytes of every row of the panel, like q above. */
enum {
    CPU_BF16_K = 16, /* k per block, as bf16 pairs */
    CPU_F32_K = 8,
    CPU_FLOAT_BLOCK = CPU_PANEL * 32
};

/* Packed groups: 32 k of one tile; nibble block j of 4, lane n: 4 bytes, low nibbles k = 8j..8j+3, high 8j+4..8j+7. Byte
 * word j of 8, lane n: k = 4j..4j+3. K-quants: 8 groups, then f16 super-scales [16] (Q4_K: D, Dmin). */
enum {
    CPU_Q4_0_GROUP = 256 + 32,      /* nibbles, f16 d[16] */
    CPU_Q4_1_GROUP = 256 + 32 + 32, /* nibbles, f16 d[16], f16 m[16] */
    CPU_Q8_0_GROUP = 512 + 32,      /* bytes w + 128, f16 d[16] */
    CPU_Q4_K_GROUP = 256 + 16 + 16, /* nibbles, u8 scale[16], u8 min[16] */
    CPU_Q4_K_SUPER = 8 * CPU_Q4_K_GROUP + 64,
    CPU_Q6_K_GROUP = 512 + 32, /* bytes 0..63, i8 scale[2][16] */
    CPU_Q6_K_SUPER = 8 * CPU_Q6_K_GROUP + 32,
    CPU_F16_BLOCK = 8 * 16 * 2,  /* [8 k][16] */
    CPU_BF16_BLOCK = 8 * 16 * 4, /* [8 pairs][16][2] */
    CPU_F32_BLOCK = 8 * 16 * 4   /* [8 k][16] */
};

/* y[r][n] = sum over k for all rows r and the outputs n of n_tiles tiles; every y is one chain over rising k. */
struct cpu_gemm {
    const uint8_t *w; /* first tile */
    size_t tile_bytes;
    uint32_t n_tiles;
    uint32_t k;         /* padded k: whole blocks */
    const uint8_t *act; /* first panel */
    size_t panel_bytes;
    uint32_t n_rows; /* counted from the first row of the first panel */
    float *out;      /* [n_rows][ld], n_tiles * 16 of each row written */
    size_t ld;
    const uint8_t
        *next; /* where the caller will read weights after these: a hint for prefetches; NULL = behind them */
};

typedef void cpu_gemm_fn(const struct cpu_gemm *g);

/* Round x[0..n) of one row into the panel at k = k0 (a multiple of 32); n is a multiple of 32, or reaches the row's end
 * in a float class, where the rest of the block is zeroed. `row` is 0..15 within the panel. */
typedef void cpu_store_fn(const float *x, uint32_t k0, uint32_t n, uint8_t *panel, uint32_t row);

struct cpu_linear_kernels {
    const char *name;
    cpu_store_fn *store[CPU_CLASS_COUNT];
    cpu_gemm_fn *gemm[BE_TYPE_COUNT];
};

extern const struct cpu_linear_kernels cpu_linear_c;
extern const struct cpu_linear_kernels cpu_linear_avx2;
extern const struct cpu_linear_kernels cpu_linear_avxvnni;
extern const struct cpu_linear_kernels cpu_linear_avx512;
/* Replacements for single entries of the AVX-512 table: NULL = keep. */
extern const struct cpu_linear_kernels cpu_linear_avx512bf16;
extern const struct cpu_linear_kernels cpu_linear_amx;

uint32_t cpu_linear_pad_k(enum be_type t, uint32_t k);    /* float types: up to whole activation blocks */
size_t cpu_linear_tile_bytes(enum be_type t, uint32_t k); /* k padded */
size_t cpu_linear_panel_bytes(enum cpu_class c, uint32_t k);

#endif
