/* cu_rows: the row-wise kernels: embedding, RMS norm, RoPE + KV append, SwiGLU, activation quantisation.
 *
 * Owns     nothing.
 * Units    elements; rows = tokens of the step. Row pitches (ld*) in elements.
 * States   -
 * Threads  the stream's.
 * Errors   ST_EINVAL (shape or type), ST_EDEVICE.
 * Bounds   d, widths: any; pitches a multiple of 64 where a linear reads them; columns up to the pitch are written as zeros.
 * Source   KERNELS design, section 3. Class R: 256 threads a row, fixed order of sums; no float atomics.
 */
#ifndef STATOR_CU_ROWS_H
#define STATOR_CU_ROWS_H

#include "cu_types.h"
#include "gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cu_embed {
    const int32_t *tokens; /* [m] */
    const void *table;     /* [vocab][ld] of type */
    float *x;              /* out [m][d] f32 */
    uint32_t m, d, ld;
    float scale;
    uint8_t type; /* CU_BF16, CU_F16 */
};

/* y = x * rsqrt(mean(x^2) + eps) * gain; order (x * r) * gain in f32, rounded once; r = 1 / sqrt, both correctly rounded. */
struct cu_norm {
    const float *x;       /* [..][d] */
    const uint32_t *rows; /* device [m], or NULL: 0..m-1 */
    const float *gain;    /* [d] */
    void *y;              /* out [m][ldy] of yt */
    float *y_scale;       /* out [m], yt = CU_E4M3 only: y is the bf16-rounded row / scale, scale = max|row| / 448 */
    uint32_t m, d, ldy;
    float eps;
    uint8_t yt; /* CU_BF16, CU_F16, CU_E4M3 */
};

/* A row of activations to e4m3 and its scale: scale = max(max|row| / 448, 2^-18 / 448), q = e4m3(x * (1 / scale)). NaN or inf
 * in the row makes the scale NaN or inf, so that it shows in every output of the row. */
struct cu_quant {
    const void *x;  /* [m][ldx] of xt */
    void *q;        /* out [m][ldq] e4m3 */
    float *scale;   /* out [m] */
    uint32_t m, k, ldx, ldq;
    uint8_t xt; /* CU_BF16, CU_F16 */
};

/* The block layout [block][layer][k|v][kv_head][token of the block][dim]; e4m3 pools end each block with a plane of E8M0 scales
 * [layer][k|v][kv_head][token], one byte each: value = e4m3 * 2^(byte - 127). */
struct cu_kv {
    uint8_t *pool;         /* [n_blocks][block_stride] */
    uint64_t block_stride; /* bytes, a multiple of 4096 */
    uint64_t scale_offset; /* bytes from the block's begin to its scale plane (e4m3) */
    uint32_t n_blocks, n_layers, n_kv_heads, head_dim, block_tokens;
    uint8_t type; /* CU_BF16, CU_F16, CU_E4M3 */
};

/* qkv rows [m][ldqkv] of xt: q heads, k heads, v heads. Rotates q and k, writes q out and k, v into the pool. Rounding: rotation
 * in f32, q and k to xt; the pool's type is xt, or e4m3, which is made from the xt value.
 * E8M0 scale of a (token, head): e = ceil(log2(amax / 448)) clamped to [-15, 7], byte e + 127, q = e4m3(x * 2^-e). */
struct cu_rope {
    const void *qkv;
    const float *rope;         /* [positions][rot_dim / 2][2] cos, sin */
    const uint32_t *positions; /* [m] */
    const uint32_t *slots;     /* [m] block * block_tokens + offset, or CU_NO_SLOT */
    void *q;                   /* out [m][n_heads][head_dim] of xt */
    struct cu_kv kv;
    uint32_t m, ldqkv, layer, n_heads, rot_dim;
    uint8_t xt;          /* CU_BF16, CU_F16 */
    uint8_t interleaved; /* pairs (2i, 2i+1); else (i, i + rot_dim / 2) */
};

/* Interleaved gate/up (CU_GATE_GROUP) as a library call leaves them -> silu(gate) * up. */
struct cu_swiglu {
    const void *gu; /* [m][ldgu] of xt: groups of 8 gates, 8 ups */
    void *y;        /* out [m][ldy] of xt */
    uint32_t m, width, ldgu, ldy;
    uint8_t xt;
};

int cu_rows_embed(struct gpu_stream *s, const struct cu_embed *p);
int cu_rows_norm(struct gpu_stream *s, const struct cu_norm *p);
int cu_rows_quant(struct gpu_stream *s, const struct cu_quant *p);
int cu_rows_rope(struct gpu_stream *s, const struct cu_rope *p);
int cu_rows_swiglu(struct gpu_stream *s, const struct cu_swiglu *p);

#ifdef __cplusplus
}
#endif
#endif
