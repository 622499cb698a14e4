/* rows_norm: RMS norm, and rows of activations to e4m3.
 *
 * Both are one block a row that must see the whole row before it writes any of it. What bounds them in a decode step is the
 * latency of that one pass over memory, so the row is kept in registers between the two halves (NORM_KEEP and QUANT_KEEP chunks
 * a thread, all their loads under way at once) and only what is beyond is read a second time; a norm fetches its gains,
 * which no kernel writes, before it waits for the kernel in front of it. A norm to e4m3 is the bf16 norm followed by the
 * quantisation, bit for bit.
 */
#include "cu_rows.h"
#include "launch.h"
#include "rows.cuh"

enum { NORM_KEEP = 4, QUANT_KEEP = 8 }; /* rows of 8192 and 16384 values */

/* (x * r) * gain, rounded to T; zeros from d on whatever r is. */
template <class T> PTX_FN uint4 norm_chunk(const float x[8], const float gain[8], float r, uint32_t col, uint32_t d)
{
    float y[8];
#pragma unroll
    for (uint32_t i = 0; i < 8; i++)
        y[i] = col + i < d ? (x[i] * r) * gain[i] : 0.0f;
    return rows_pack<T>(y);
}

template <class T, bool QUANT> PTX_KERNEL(ROWS_THREADS, 2) norm_kernel(PTX_PARAM(struct cu_norm) p)
{
    PTX_SMEM(smem);
    float *sums = (float *)smem;
    uint32_t *maxima = (uint32_t *)smem + ROWS_WARPS;
    uint32_t first = 8 * threadIdx.x, beyond = first + NORM_KEEP * ROWS_STRIDE;
    float x[NORM_KEEP][8], gain[NORM_KEEP][8], sum = 0;
    uint4 y[NORM_KEEP];

    ptx_pdl_launch();
#pragma unroll
    for (int j = 0; j < NORM_KEEP; j++)
        rows_load_f32(gain[j], p.gain, first + j * ROWS_STRIDE, p.d);
    ptx_pdl_wait();

    const float *row = p.x + (size_t)(p.rows ? p.rows[blockIdx.x] : blockIdx.x) * p.d;
#pragma unroll
    for (int j = 0; j < NORM_KEEP; j++)
        rows_load_f32(x[j], row, first + j * ROWS_STRIDE, p.d);
#pragma unroll
    for (int j = 0; j < NORM_KEEP; j++)
#pragma unroll
        for (int i = 0; i < 8; i++)
            sum = ptx_fma(x[j][i], x[j][i], sum);
    for (uint32_t col = beyond; col < p.d; col += ROWS_STRIDE) {
        float v[8];
        rows_load_f32(v, row, col, p.d);
#pragma unroll
        for (int i = 0; i < 8; i++)
            sum = ptx_fma(v[i], v[i], sum);
    }
    float mean = ptx_div(rows_block_sum(sum, sums), (float)p.d);
    float r = ptx_div(1.0f, ptx_sqrt(mean + p.eps));

    uint16_t *out = (uint16_t *)p.y + (size_t)blockIdx.x * p.ldy; /* not with QUANT */
    uint32_t max = 0;
#pragma unroll
    for (int j = 0; j < NORM_KEEP; j++) {
        uint32_t col = first + j * ROWS_STRIDE;
        y[j] = norm_chunk<T>(x[j], gain[j], r, col, p.d);
        if (QUANT) {
            uint32_t m = rows_max_16(y[j]);
            max = m > max ? m : max;
        } else if (col < p.ldy) {
            *(uint4 *)(out + col) = y[j];
        }
    }
    for (uint32_t col = beyond; col < p.ldy; col += ROWS_STRIDE) {
        float v[8], g[8];
        rows_load_f32(v, row, col, p.d);
        rows_load_f32(g, p.gain, col, p.d);
        uint4 w = norm_chunk<T>(v, g, r, col, p.d);
        if (QUANT) {
            uint32_t m = rows_max_16(w);
            max = m > max ? m : max;
        } else {
            *(uint4 *)(out + col) = w;
        }
    }
    if (!QUANT)
        return;

    struct rows_scale s = rows_make_scale(T::lo(rows_block_max(max, maxima)));
    uint8_t *q = (uint8_t *)p.y + (size_t)blockIdx.x * p.ldy;
    if (threadIdx.x == 0)
        p.y_scale[blockIdx.x] = s.scale;
#pragma unroll
    for (int j = 0; j < NORM_KEEP; j++) {
        uint32_t col = first + j * ROWS_STRIDE;
        if (col < p.ldy)
            *(uint64_t *)(q + col) = rows_quantise<T>(y[j], s);
    }
    for (uint32_t col = beyond; col < p.ldy; col += ROWS_STRIDE) {
        float v[8], g[8];
        rows_load_f32(v, row, col, p.d);
        rows_load_f32(g, p.gain, col, p.d);
        *(uint64_t *)(q + col) = rows_quantise<T>(norm_chunk<T>(v, g, r, col, p.d), s);
    }
}

template <class T> PTX_KERNEL(ROWS_THREADS, 4) quant_kernel(PTX_PARAM(struct cu_quant) p)
{
    PTX_SMEM(smem);
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
    for (int j = 0; j < QUANT_KEEP; j++) {
        uint32_t m = rows_max_16(x[j]);
        max = m > max ? m : max;
    }
    for (uint32_t col = beyond; col < p.k; col += ROWS_STRIDE) {
        uint32_t m = rows_max_16(rows_load_16(row, col, p.k));
        max = m > max ? m : max;
    }
    struct rows_scale s = rows_make_scale(T::lo(rows_block_max(max, (uint32_t *)smem)));
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
    uint32_t smem = 2 * ROWS_WARPS * sizeof(float);
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
