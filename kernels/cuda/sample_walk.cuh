/* sample_walk: one CTA reads a row of logits, and reduces what its threads found.
 *
 * Owns     nothing.
 * Units    a quad = the logits of the ids 4q .. 4q + 3, -inf past the vocabulary: what one Philox call serves.
 * States   -
 * Threads  all of the CTA, together.
 * Errors   -
 * Bounds   vocab <= 2^24; rows may start at any float.
 * Source   KERNELS design, section 6.
 */
#ifndef STATOR_SAMPLE_WALK_CUH
#define STATOR_SAMPLE_WALK_CUH

#include "sample_math.cuh"

/* Calls visit(v, id of the first, z[4]) for every quad of the row, in rising order within a thread, and for some of nothing but
 * -inf behind it. V::QUADS loads are under way at once. The logits are edited in place before, so these are plain loads. */
template <int THREADS, class V> PTX_FN void sample_walk(const float *z, uint32_t vocab, V &v)
{
    enum { STRIDE = 4 * THREADS };
    bool aligned = ((size_t)z & 15) == 0;
    for (uint32_t id = 4 * threadIdx.x; id < vocab; id += V::QUADS * STRIDE) {
        float f[V::QUADS][4];
        if (aligned && id + (V::QUADS - 1) * STRIDE + 4 <= vocab) {
#pragma unroll
            for (uint32_t i = 0; i < V::QUADS; i++) {
                uint4 q = *(const uint4 *)(z + id + i * STRIDE);
                f[i][0] = ptx_float(q.x);
                f[i][1] = ptx_float(q.y);
                f[i][2] = ptx_float(q.z);
                f[i][3] = ptx_float(q.w);
            }
        } else {
#pragma unroll
            for (uint32_t i = 0; i < 4 * V::QUADS; i++) {
                uint32_t at = id + i / 4 * STRIDE + i % 4;
                f[i / 4][i % 4] = at < vocab ? z[at] : -sample_inf();
            }
        }
#pragma unroll
        for (uint32_t i = 0; i < V::QUADS; i++)
            visit(v, id + i * STRIDE, f[i]);
    }
}

/* The largest v of the CTA, in all threads. `room`: one word per warp, free again after the call. */
template <int THREADS> PTX_FN uint64_t sample_max(uint64_t v, uint64_t *room)
{
#pragma unroll
    for (int m = 16; m > 0; m /= 2) {
        uint64_t o = ptx_shfl_xor(v, m);
        v = o > v ? o : v;
    }
    if (threadIdx.x % 32 == 0)
        room[threadIdx.x / 32] = v;
    ptx_syncthreads();
#pragma unroll 4
    for (int w = 0; w < THREADS / 32; w++)
        v = room[w] > v ? room[w] : v;
    ptx_syncthreads();
    return v;
}

/* The sum of v over the CTA, in all threads. */
template <int THREADS> PTX_FN uint64_t sample_total(uint64_t v, uint64_t *room)
{
#pragma unroll
    for (int m = 16; m > 0; m /= 2)
        v += ptx_shfl_xor(v, m);
    if (threadIdx.x % 32 == 0)
        room[threadIdx.x / 32] = v;
    ptx_syncthreads();
    v = 0;
#pragma unroll 4
    for (int w = 0; w < THREADS / 32; w++)
        v += room[w];
    ptx_syncthreads();
    return v;
}

/* The same of floats: by the tree of the lanes, then warp after warp. */
template <int THREADS> PTX_FN float sample_sum(float v, uint64_t *room)
{
    float *sum = (float *)room;
#pragma unroll
    for (int m = 16; m > 0; m /= 2)
        v = v + ptx_shfl_xor(v, m);
    if (threadIdx.x % 32 == 0)
        sum[threadIdx.x / 32] = v;
    ptx_syncthreads();
    v = 0.0f;
#pragma unroll 4
    for (int w = 0; w < THREADS / 32; w++)
        v = v + sum[w];
    ptx_syncthreads();
    return v;
}

#endif
