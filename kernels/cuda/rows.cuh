/* rows: (internal) what the row-wise kernels share: chunks of eight values, sums and maxima of a block, scales of e4m3 rows.
 *
 * A thread works on chunks of eight columns: 16 bytes of a 16-bit row, 32 of a float row. Rows of 16-bit values have pitches that
 * are a multiple of 8 (the launchers check), so their chunks are whole and aligned; rows of d floats are where d % 4 == 0,
 * and are read value by value elsewhere. Bits of |x| order like |x|, with NaN above infinity: maxima are taken on them as
 * integers, which makes them exact and lets a NaN through.
 */
#ifndef STATOR_ROWS_CUH
#define STATOR_ROWS_CUH

#include "cu_types.h"
#include "ptx.h"

enum { ROWS_THREADS = 256, ROWS_WARPS = ROWS_THREADS / 32, ROWS_STRIDE = 8 * ROWS_THREADS };

/* v = row[col .. col + 8) of a row of d floats, zeros from d on. */
PTX_FN void rows_load_f32(float v[8], const float *row, uint32_t col, uint32_t d)
{
    if (d % 4 == 0 && col + 8 <= d) {
        uint4 a = *(const uint4 *)(row + col), b = *(const uint4 *)(row + col + 4);
        v[0] = ptx_float(a.x), v[1] = ptx_float(a.y), v[2] = ptx_float(a.z), v[3] = ptx_float(a.w);
        v[4] = ptx_float(b.x), v[5] = ptx_float(b.y), v[6] = ptx_float(b.z), v[7] = ptx_float(b.w);
    } else {
#pragma unroll
        for (uint32_t i = 0; i < 8; i++)
            v[i] = col + i < d ? row[col + i] : 0.0f;
    }
}

PTX_FN void rows_store_f32(float *row, const float v[8], uint32_t col, uint32_t d)
{
    if (d % 4 == 0 && col + 8 <= d) {
        *(uint4 *)(row + col) = make_uint4(ptx_bits(v[0]), ptx_bits(v[1]), ptx_bits(v[2]), ptx_bits(v[3]));
        *(uint4 *)(row + col + 4) = make_uint4(ptx_bits(v[4]), ptx_bits(v[5]), ptx_bits(v[6]), ptx_bits(v[7]));
    } else {
#pragma unroll
        for (uint32_t i = 0; i < 8; i++)
            if (col + i < d)
                row[col + i] = v[i];
    }
}

template <class T> PTX_FN void rows_unpack(float v[8], uint4 w)
{
    v[0] = T::lo(w.x), v[1] = T::hi(w.x), v[2] = T::lo(w.y), v[3] = T::hi(w.y);
    v[4] = T::lo(w.z), v[5] = T::hi(w.z), v[6] = T::lo(w.w), v[7] = T::hi(w.w);
}

template <class T> PTX_FN uint4 rows_pack(const float v[8])
{
    return make_uint4(T::pack(v[0], v[1]), T::pack(v[2], v[3]), T::pack(v[4], v[5]), T::pack(v[6], v[7]));
}

/* Eight 16-bit values from column `col`, zeros from d on; nothing is read there. */
PTX_FN uint4 rows_load_16(const void *row, uint32_t col, uint32_t d)
{
    if (col >= d)
        return make_uint4(0, 0, 0, 0);
    uint4 w = *(const uint4 *)((const uint16_t *)row + col);
    uint32_t n = d - col;
    if (n < 8) {
        w.x = n > 1 ? w.x : w.x & 0xffffu;
        w.y = n > 3 ? w.y : n > 2 ? w.y & 0xffffu : 0;
        w.z = n > 5 ? w.z : n > 4 ? w.z & 0xffffu : 0;
        w.w = n > 6 ? w.w & 0xffffu : 0;
    }
    return w;
}

PTX_FN uint32_t rows_max(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* The largest of eight |16-bit values|, as their bits. */
PTX_FN uint32_t rows_max_16(uint4 w)
{
    uint32_t v[4] = {w.x, w.y, w.z, w.w}, max = 0;
#pragma unroll
    for (int i = 0; i < 4; i++)
        max = rows_max(max, rows_max(v[i] & 0x7fffu, v[i] >> 16 & 0x7fffu));
    return max;
}

PTX_FN uint32_t rows_warp_max(uint32_t v)
{
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2)
        v = rows_max(v, ptx_shfl_xor(v, mask));
    return v;
}

/* ---- over a block: each warp leaves its part in warps[ROWS_WARPS], and behind a barrier every thread has the whole -------- */

PTX_FN void rows_leave_max(uint32_t v, uint32_t *warps)
{
    v = rows_warp_max(v);
    if (threadIdx.x % 32 == 0)
        warps[threadIdx.x / 32] = v;
}

PTX_FN uint32_t rows_block_max(const uint32_t *warps)
{
    uint32_t v = 0;
#pragma unroll
    for (int i = 0; i < ROWS_WARPS; i++)
        v = rows_max(v, warps[i]);
    return v;
}

/* Sums in the order of class R: a tree in each warp, then the warps ascending. */
PTX_FN void rows_leave_sum(float v, float *warps)
{
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2)
        v += ptx_shfl_xor(v, mask);
    if (threadIdx.x % 32 == 0)
        warps[threadIdx.x / 32] = v;
}

PTX_FN float rows_block_sum(const float *warps)
{
    float v = warps[0];
#pragma unroll
    for (int i = 1; i < ROWS_WARPS; i++)
        v += warps[i];
    return v;
}

/* ---- e4m3 ------------------------------------------------------------------------------------------------------------------ */

/* A row's e4m3 scale and its inverse; the inverse of one that is not finite is 0. */
struct rows_scale {
    float scale, inverse;
};

PTX_FN struct rows_scale rows_make_scale(float max)
{
    struct rows_scale s;
    s.scale = ptx_div(max, 448.0f);
    if (s.scale < 0x1p-18f / 448.0f) /* false for NaN */
        s.scale = 0x1p-18f / 448.0f;
    s.inverse = ptx_bits(s.scale) < 0x7f800000u ? ptx_div(1.0f, s.scale) : 0.0f;
    return s;
}

/* Eight values times `factor` as e4m3, the first in the lowest byte. */
template <class T> PTX_FN uint64_t rows_e4m3(uint4 w, float factor)
{
    float v[8];
    rows_unpack<T>(v, w);
#pragma unroll
    for (int i = 0; i < 8; i++)
        v[i] *= factor;
    uint32_t lo = ptx_e4m3x2(v[0], v[1]) | ptx_e4m3x2(v[2], v[3]) << 16;
    uint32_t hi = ptx_e4m3x2(v[4], v[5]) | ptx_e4m3x2(v[6], v[7]) << 16;
    return lo | (uint64_t)hi << 32;
}

/* Eight values of a row under its scale. A row whose scale is not finite has zeros: 0 times NaN or infinity is NaN in whatever
 * reads it, and no NaN code arises. */
template <class T> PTX_FN uint64_t rows_quantise(uint4 w, struct rows_scale s)
{
    return s.inverse > 0 ? rows_e4m3<T>(w, s.inverse) : 0;
}

#endif
