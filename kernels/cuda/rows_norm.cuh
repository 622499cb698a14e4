/* rows_norm: (internal) the RMS norm of class R for up to ROWS rows at a time: cu_rows_norm's kernel, a row a block, and the
 * linear that norms its own x, all rows in every block, call this one function. So their bits are equal.
 *
 * What bounds it in a decode step is the latency of one pass over memory: the loads of all rows are under way at once, and KEEP
 * chunks a thread of each row stay in registers from the sum to the rounding. Only what is beyond is read again. A norm
 * to e4m3 is the bf16 norm followed by the quantisation, bit for bit.
 */
#ifndef STATOR_ROWS_NORM_CUH
#define STATOR_ROWS_NORM_CUH

#include "cu_rows.h"
#include "rows.cuh"

/* Shared memory of norm_rows: a sum and a maximum per row and warp. */
#define NORM_SHARED(rows) (2 * (rows) * ROWS_WARPS * sizeof(float))

/* The chunks of gains that a thread keeps. No kernel writes gains: this may run ahead of ptx_pdl_wait. */
template <int KEEP> PTX_FN void norm_load_gain(float (&gain)[KEEP][8], const cu_norm &p)
{
#pragma unroll
    for (int j = 0; j < KEEP; j++)
        rows_load_f32(gain[j], p.gain, 8 * threadIdx.x + j * ROWS_STRIDE, p.d);
}

/* (x * r) * gain, rounded to T; zeros from d on whatever r is. */
template <class T> PTX_FN uint4 norm_chunk(const float x[8], const float gain[8], float r, uint32_t col, uint32_t d)
{
    float y[8];
#pragma unroll
    for (uint32_t i = 0; i < 8; i++)
        y[i] = col + i < d ? (x[i] * r) * gain[i] : 0.0f;
    return rows_pack<T>(y);
}

/* The same for a chunk that is not kept. */
template <class T> PTX_FN uint4 norm_chunk_again(const cu_norm &p, const float *row, float r, uint32_t col)
{
    float x[8], gain[8];
    rows_load_f32(x, row, col, p.d);
    rows_load_f32(gain, p.gain, col, p.d);
    return norm_chunk<T>(x, gain, r, col, p.d);
}

PTX_FN float norm_square(const float x[8], float sum)
{
#pragma unroll
    for (int i = 0; i < 8; i++)
        sum = ptx_fma(x[i], x[i], sum);
    return sum;
}

/* All threads: rows first .. first + count - 1 of the norm p, count <= ROWS; columns up to `width`, a multiple of 8, zeros from d
 * on. Out::at(out, i, byte) is the place of byte `byte` of row first + i; 16 aligned bytes of a row lie together. QUANT: e4m3,
 * and scales[i]. The caller sees to a barrier before anybody reads what other threads wrote. */
template <class T, bool QUANT, int ROWS, int KEEP, class Out>
PTX_FN void norm_rows(const cu_norm &p, const float (&gain)[KEEP][8], uint32_t first, uint32_t count, uint32_t width,
                      const Out &out, float *scales, float *shared)
{
    const uint32_t begin = 8 * threadIdx.x, beyond = begin + KEEP * ROWS_STRIDE;
    float *const sums = shared;
    uint32_t *const maxima = (uint32_t *)shared + ROWS * ROWS_WARPS;
    const float *row[ROWS];
    float x[ROWS][KEEP][8], r[ROWS];
    uint4 y[ROWS][KEEP];

#pragma unroll
    for (uint32_t i = 0; i < ROWS; i++)
        if (i < count)
            row[i] = p.x + (size_t)(p.rows ? p.rows[first + i] : first + i) * p.d;
#pragma unroll
    for (uint32_t i = 0; i < ROWS; i++)
        if (i < count)
#pragma unroll
            for (int j = 0; j < KEEP; j++)
                rows_load_f32(x[i][j], row[i], begin + j * ROWS_STRIDE, p.d);
#pragma unroll
    for (uint32_t i = 0; i < ROWS; i++)
        if (i < count) {
            float sum = 0;
#pragma unroll
            for (int j = 0; j < KEEP; j++)
                sum = norm_square(x[i][j], sum);
            for (uint32_t col = beyond; col < p.d; col += ROWS_STRIDE) {
                float v[8];
                rows_load_f32(v, row[i], col, p.d);
                sum = norm_square(v, sum);
            }
            rows_leave_sum(sum, sums + i * ROWS_WARPS);
        }
    ptx_syncthreads();

#pragma unroll
    for (uint32_t i = 0; i < ROWS; i++)
        if (i < count) {
            uint32_t max = 0;
            const float mean = ptx_div(rows_block_sum(sums + i * ROWS_WARPS), (float)p.d);
            r[i] = ptx_div(1.0f, ptx_sqrt(mean + p.eps));
#pragma unroll
            for (int j = 0; j < KEEP; j++) {
                const uint32_t col = begin + j * ROWS_STRIDE;
                y[i][j] = norm_chunk<T>(x[i][j], gain[j], r[i], col, p.d);
                if (QUANT)
                    max = rows_max(max, rows_max_16(y[i][j]));
                else if (col < width)
                    *(uint4 *)Out::at(out, i, 2 * col) = y[i][j];
            }
            for (uint32_t col = beyond; col < width; col += ROWS_STRIDE) {
                const uint4 w = norm_chunk_again<T>(p, row[i], r[i], col);
                if (QUANT)
                    max = rows_max(max, rows_max_16(w));
                else
                    *(uint4 *)Out::at(out, i, 2 * col) = w;
            }
            if (QUANT)
                rows_leave_max(max, maxima + i * ROWS_WARPS);
        }
    if (!QUANT)
        return;

    ptx_syncthreads();
#pragma unroll
    for (uint32_t i = 0; i < ROWS; i++)
        if (i < count) {
            const rows_scale s = rows_make_scale(T::lo(rows_block_max(maxima + i * ROWS_WARPS)));
            if (threadIdx.x == 0)
                scales[i] = s.scale;
#pragma unroll
            for (int j = 0; j < KEEP; j++) {
                const uint32_t col = begin + j * ROWS_STRIDE;
                if (col < width)
                    *(uint64_t *)Out::at(out, i, col) = rows_quantise<T>(y[i][j], s);
            }
            for (uint32_t col = beyond; col < width; col += ROWS_STRIDE)
                *(uint64_t *)Out::at(out, i, col) = rows_quantise<T>(norm_chunk_again<T>(p, row[i], r[i], col), s);
        }
}

#endif
