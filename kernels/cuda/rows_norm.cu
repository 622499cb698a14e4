/* rows_norm: RMS norm, and rows of activations to e4m3.
 *
 * Both are one block a row that must see the whole row before it writes any of it. What bounds them in a decode step is the
 * latency of that one pass over memory, so the row is kept in registers between the two halves (NORM_KEEP and QUANT_KEEP chunks
 * a thread, all their loads under way at once) and only what is beyond is read a second time; a norm fetches its gains,
 * which no kernel writes, before it waits for the kernel in front of it. The norm itself is in rows_norm.cuh.
 */
#include "launch.h"
#include "rows_norm.cuh"

enum { NORM_KEEP = 4, QUANT_KEEP = 8 }; /* rows of 8192 and 16384 values */

struct norm_out { /* the block's row of y */
    unsigned char *row;
    PTX_FN_IN unsigned char *at(const norm_out &out, uint32_t, uint32_t byte)
    {
        return out.row + byte;
    }
};

template <class T, bool QUANT> PTX_KERNEL(ROWS_THREADS, 2) norm_kernel(PTX_PARAM(struct cu_norm) p)
{
    PTX_SMEM(smem);
    float gain[NORM_KEEP][8];
    norm_load_gain(gain, p);
    ptx_pdl_launch();
    ptx_pdl_wait();
    const norm_out out = {(unsigned char *)p.y + (size_t)blockIdx.x * p.ldy * (QUANT ? 1 : 2)};
    norm_rows<T, QUANT, 1>(p, gain, blockIdx.x, 1, p.ldy, out, p.y_scale + blockIdx.x, (float *)smem);
}

template <class T> PTX_KERNEL(ROWS_THREADS, 4) quant_kernel(PTX_PARAM(struct cu_quant) p)
{
    PTX_SMEM(smem);
    uint32_t *maxima = (uint32_t *)smem;
    uint32_t first = 8 * threadIdx.x, beyond = first + QUANT_KEEP * ROWS_STRIDE, max = 0;
    uint4 x[QUANT_KEEP];

    ptx_pdl_launch();
    ptx_pdl_wait();
    const uint16_t *row = (const uint16_t *)p.x + (size_t)blockIdx.x * p.ldx;
    uint8_t *q = (uint8_t *)p.q + (size_t)blockIdx.x * p.ldq;
#pragma unroll
    for (int j = 0; j < QUANT_KEEP; j++)
        x[j] = rows_load_16(row, first + j * ROWS_STRIDE, p.k);
#pragma unroll
    for (int j = 0; j < QUANT_KEEP; j++)
        max = rows_max(max, rows_max_16(x[j]));
    for (uint32_t col = beyond; col < p.k; col += ROWS_STRIDE)
        max = rows_max(max, rows_max_16(rows_load_16(row, col, p.k)));
    rows_leave_max(max, maxima);
    ptx_syncthreads();
    struct rows_scale s = rows_make_scale(T::lo(rows_block_max(maxima)));
    if (threadIdx.x == 0)
        p.scale[blockIdx.x] = s.scale;
#pragma unroll
    for (int j = 0; j < QUANT_KEEP; j++) {
        uint32_t col = first + j * ROWS_STRIDE;
        if (col < p.ldq)
            *(uint64_t *)(q + col) = rows_quantise<T>(x[j], s);
    }
    for (uint32_t col = beyond; col < p.ldq; col += ROWS_STRIDE)
        *(uint64_t *)(q + col) = rows_quantise<T>(rows_load_16(row, col, p.k), s);
}

extern "C" int cu_rows_norm(struct gpu_stream *s, const struct cu_norm *p)
{
    if (!p->m || !p->d || p->ldy < p->d || p->ldy % 8)
        return ST_EINVAL;
    const uint32_t smem = NORM_SHARED(1);
    switch (p->yt) {
    case CU_BF16:
        return gpu_launch(s, "rows_norm", norm_kernel<ptx_bf16, false>, dim3(p->m), ROWS_THREADS, smem, true, *p);
    case CU_F16:
        return gpu_launch(s, "rows_norm", norm_kernel<ptx_f16, false>, dim3(p->m), ROWS_THREADS, smem, true, *p);
    case CU_E4M3:
        return gpu_launch(s, "rows_norm", norm_kernel<ptx_bf16, true>, dim3(p->m), ROWS_THREADS, smem, true, *p);
    default:
        return ST_EINVAL;
    }
}

extern "C" int cu_rows_quant(struct gpu_stream *s, const struct cu_quant *p)
{
    if (!p->m || !p->k || p->ldx < p->k || p->ldq < p->k || p->ldx % 8 || p->ldq % 8)
        return ST_EINVAL;
    uint32_t smem = ROWS_WARPS * sizeof(uint32_t);
    switch (p->xt) {
    case CU_BF16:
        return gpu_launch(s, "rows_quant", quant_kernel<ptx_bf16>, dim3(p->m), ROWS_THREADS, smem, true, *p);
    case CU_F16:
        return gpu_launch(s, "rows_quant", quant_kernel<ptx_f16>, dim3(p->m), ROWS_THREADS, smem, true, *p);
    default:
        return ST_EINVAL;
    }
}
