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

PTX_FN void sample_unpack(float z[4], uint4 q)
{
    z[0] = ptx_float(q.x);
    z[1] = ptx_float(q.y);
    z[2] = ptx_float(q.z);
    z[3] = ptx_float(q.w);
}

/* Calls visit(v, id of the first, z[4]) for every quad of the row, in rising order within a thread. The logits are edited in
 * place before, so these are plain loads; four are under way at once. */
template <int THREADS, class V> PTX_FN void sample_walk(const float *z, uint32_t vocab, V &v)
{
    bool aligned = ((size_t)z & 15) == 0;
    uint32_t id = threadIdx.x * 4;
    float f[4];
    for (; aligned && id + 12 * THREADS + 4 <= vocab; id += 16 * THREADS) {
        uint4 q[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            q[i] = *(const uint4 *)(z + id + 4 * THREADS * i);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sample_unpack(f, q[i]);
            visit(v, id + 4 * THREADS * i, f);
        }
    }
    for (; id < vocab; id += 4 * THREADS) {
#pragma unroll
        for (uint32_t i = 0; i < 4; i++)
            f[i] = id + i < vocab ? z[id + i] : -sample_inf();
        visit(v, id, f);
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
    for (int w = 0; w < THREADS / 32; w++)
        v = room[w] > v ? room[w] : v;
    ptx_syncthreads();
    return v;
}

/* The sum of v over the CTA, in all threads: by the tree of the lanes, then warp after warp. */
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
    for (int w = 0; w < THREADS / 32; w++)
        v = v + sum[w];
    ptx_syncthreads();
    return v;
}

#endif
