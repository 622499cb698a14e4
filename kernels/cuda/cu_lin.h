/* cu_lin: y = x W^T on the GPU, with what follows it: two kernels of one numeric class and a library call.
 *
 * Owns     nothing here; struct cu_lt (cu_lt.h) owns the library's handle and the tuned choices.
 * Units    elements; m = tokens (rows of x), n = outputs (rows of w), k = inputs.
 * States   -
 * Threads  the stream's.
 * Errors   ST_EINVAL: a shape or type that the kernel does not take (nothing was launched); ST_EDEVICE.
 * Bounds   n a multiple of 16, k a multiple of 64, 1 <= m; lin_stream: m <= 16. Rows of w and x are 16-byte aligned.
 * Source   KERNELS design, sections 1 and 2. Class L: lin_stream and lin_tile give equal bits for equal rows, whatever m.
 */
#ifndef STATOR_CU_LIN_H
#define STATOR_CU_LIN_H

#include "cu_rows.h"

#ifdef __cplusplus
extern "C" {
#endif

enum cu_epilogue {
    CU_STORE,  /* y[m][ldy] of yt (the activation type, or CU_F32) = sum + bias */
    CU_ADD,    /* y[m][ldy] f32 += sum + bias */
    CU_SWIGLU  /* rows of w interleaved by 8 (CU_GATE_GROUP), bias likewise: y[m][ldy] of yt, n/2 columns = silu(gate) * up */
};

struct cu_lin {
    const void *w;        /* [n][k] of wt, row after row */
    const void *x;        /* [m][ldx] of wt (both sides have one type) */
    const float *w_scale; /* [n], or NULL = 1. sum * (w_scale * x_scale), the product of scales rounded first */
    const float *x_scale; /* [m], or NULL = 1 */
    const float *bias;    /* [n] or NULL; added after the scales */
    void *y;
    void *slabs; /* lin_tile's workspace, or NULL: no tile is cut along k. Of one stream at a time */
    uint32_t m, n, k, ldx, ldy;
    uint32_t n_out; /* columns of y that may be written: beyond them (padding of w) nothing is stored. SWIGLU: of n/2 */
    uint8_t wt;     /* CU_BF16, CU_F16 or CU_E4M3 */
    uint8_t yt;     /* CU_BF16, CU_F16 or CU_F32 */
    uint8_t epilogue;
};

int cu_lin_stream(struct gpu_stream *s, const struct cu_lin *p);
int cu_lin_tile(struct gpu_stream *s, const struct cu_lin *p);

/* Bytes of a workspace for products of any shape. Zero before its first use; what has to be zero again, is after each. */
size_t cu_lin_slab_bytes(const struct gpu_info *g);

/* cu_lin_stream on the rows that cu_rows_norm(norm) would write, bit for bit, in one launch: every block norms them for itself.
 * p->x and p->ldx are not looked at, norm->y, ldy and y_scale are not written; CU_E4M3: the rows' scales take the place of
 * p->x_scale. y must not overlap norm->x, which other blocks may still read. norm: m and yt (= wt) as p has them, d <= k.
 * ST_EINVAL beyond CU_LIN_NORM_ROWS tokens, or where rows of x do not fit into shared memory beside 106 KB: the caller launches
 * the two kernels then. Bytes of a row (k, twice that in 16 bits) that fit: m = 4: 14,336 on an A100, 30,720 on an H100;
 * m = 1: 57,344 and 122,880. */
enum { CU_LIN_NORM_ROWS = 4 };
int cu_lin_stream_norm(struct gpu_stream *s, const struct cu_lin *p, const struct cu_norm *norm);

#ifdef __cplusplus
}
#endif
#endif
