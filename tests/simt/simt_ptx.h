/* simt_ptx: what kernels/cuda/ptx.h declares, for a CPU: the same names and types over the fibers of simt.cc.
 *
 * Owns     nothing.
 * Units    as ptx.h.
 * States   -
 * Threads  as ptx.h, and checked: lanes of a warp that wait at different places, or wait for one that has left, are reported.
 * Errors   every broken rule ends the launch with a report (simt.h).
 * Bounds   SIMT_COPIES asynchronous copies in flight per thread.
 * Source   kernels/cuda/ptx.h; PTX ISA 9.0 for the conversions and the fragment layouts.
 *
 * Stricter than a GPU: a copy's destination is poison from its issue until it is waited for, the block's shared memory is
 * poison (0xff, a NaN in every float type) when the block begins, every copy and matrix row is checked for its bounds and its
 * alignment, the rows of a matrix for banks of their own (slow on a GPU, not wrong). More exact than a GPU: an mma is summed
 * in double, k ascending, and rounded once.
 */
#ifndef STATOR_SIMT_PTX_H
#define STATOR_SIMT_PTX_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* ---- what the CUDA compiler brings along ---------------------------------------------------------------------------- */

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__

struct alignas(8) uint2 { uint32_t x, y; };
struct uint3 { uint32_t x, y, z; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
struct alignas(8) int2 { int32_t x, y; };
struct alignas(16) int4 { int32_t x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };

struct dim3 {
    uint32_t x, y, z;
    constexpr dim3(uint32_t x_ = 1, uint32_t y_ = 1, uint32_t z_ = 1) : x(x_), y(y_), z(z_) {}
};

static inline uint2 make_uint2(uint32_t x, uint32_t y) { return uint2{x, y}; }
static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return uint4{x, y, z, w}; }
static inline int2 make_int2(int32_t x, int32_t y) { return int2{x, y}; }
static inline int4 make_int4(int32_t x, int32_t y, int32_t z, int32_t w) { return int4{x, y, z, w}; }
static inline float2 make_float2(float x, float y) { return float2{x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return float4{x, y, z, w}; }

#define PTX_FN static inline __attribute__((always_inline, unused))
#define PTX_FN_IN static inline __attribute__((always_inline))
#define PTX_KERNEL(threads, min_blocks) void
#define PTX_PARAM(type) const type & /* one copy for all threads of the launch */
#define PTX_SMEM(name) unsigned char *const name = simt_now.smem

/* ---- the emulation behind it: simt.cc and simt_warp.cc -------------------------------------------------------------- */

enum { SIMT_COPIES = 256 };

struct simt_lane { /* the head of a fiber */
    uint3 thread;
};

extern struct simt_lane *simt_self; /* the running fiber; NULL outside of kernels */

extern struct simt_now { /* the running block */
    uint3 block;
    dim3 blocks, threads;
    unsigned char *smem;
} simt_now;

#define threadIdx (simt_self->thread)
#define blockIdx (simt_now.block)
#define blockDim (simt_now.threads)
#define gridDim (simt_now.blocks)

/* Where a kernel calls: the default arguments are evaluated there. */
#define SIMT_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

enum simt_shuffle { SIMT_XOR, SIMT_IDX, SIMT_UP };

void simt_copy_issue(void *smem, const void *gmem, uint32_t src_bytes, const char *file, int line);
void simt_copy_commit(void);
void simt_copy_wait(uint32_t newest, const char *file, int line);
void simt_ldmatrix(uint32_t *r, const void *row, int matrices, bool trans, const char *file, int line);
void simt_mma(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1, bool f16, const char *file, int line);
void simt_barrier(int id, int n, const char *file, int line); /* id 0: the whole block */
void simt_syncwarp(const char *file, int line);
uint64_t simt_shfl(uint64_t v, int by, enum simt_shuffle how, const char *file, int line);
uint32_t simt_ballot(bool v, const char *file, int line);
void simt_atomic(const void *p, size_t bytes, const char *file, int line); /* what comes before the access itself */
void simt_read(const void *p, size_t bytes, const char *file, int line);   /* alignment */
void simt_pdl_wait(void);
uint32_t simt_smem_addr(const void *smem);

/* ---- copies ----------------------------------------------------------------------------------------------------------- */

PTX_FN uint32_t ptx_smem_addr(const void *smem)
{
    return simt_smem_addr(smem);
}

PTX_FN void ptx_cp16(void *smem, const void *gmem, uint32_t src_bytes, SIMT_SITE)
{
    simt_copy_issue(smem, gmem, src_bytes, file, line);
}

PTX_FN void ptx_cp_commit(void)
{
    simt_copy_commit();
}

template <int N> PTX_FN void ptx_cp_wait(SIMT_SITE)
{
    simt_copy_wait(N, file, line);
}

/* ---- tensor cores ----------------------------------------------------------------------------------------------------- */

PTX_FN void ptx_ldmatrix_x4(uint32_t r[4], const void *smem_row, SIMT_SITE)
{
    simt_ldmatrix(r, smem_row, 4, false, file, line);
}

PTX_FN void ptx_ldmatrix_x4_trans(uint32_t r[4], const void *smem_row, SIMT_SITE)
{
    simt_ldmatrix(r, smem_row, 4, true, file, line);
}

PTX_FN void ptx_ldmatrix_x2(uint32_t r[2], const void *smem_row, SIMT_SITE)
{
    simt_ldmatrix(r, smem_row, 2, false, file, line);
}

PTX_FN void ptx_mma_bf16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1, SIMT_SITE)
{
    simt_mma(c, a, b0, b1, false, file, line);
}

PTX_FN void ptx_mma_f16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1, SIMT_SITE)
{
    simt_mma(c, a, b0, b1, true, file, line);
}

/* ---- warp and block --------------------------------------------------------------------------------------------------- */

PTX_FN void ptx_syncthreads(SIMT_SITE)
{
    simt_barrier(0, 0, file, line);
}

PTX_FN void ptx_syncwarp(SIMT_SITE)
{
    simt_syncwarp(file, line);
}

PTX_FN void ptx_bar(int id, int n, SIMT_SITE)
{
    simt_barrier(id, n, file, line);
}

PTX_FN uint32_t ptx_bits(float x)
{
    uint32_t b;
    memcpy(&b, &x, 4);
    return b;
}

PTX_FN float ptx_float(uint32_t b)
{
    float x;
    memcpy(&x, &b, 4);
    return x;
}

PTX_FN uint32_t ptx_shfl_xor(uint32_t v, int mask, SIMT_SITE)
{
    return (uint32_t)simt_shfl(v, mask, SIMT_XOR, file, line);
}

PTX_FN float ptx_shfl_xor(float v, int mask, SIMT_SITE)
{
    return ptx_float((uint32_t)simt_shfl(ptx_bits(v), mask, SIMT_XOR, file, line));
}

PTX_FN uint64_t ptx_shfl_xor(uint64_t v, int mask, SIMT_SITE)
{
    return simt_shfl(v, mask, SIMT_XOR, file, line);
}

PTX_FN uint32_t ptx_shfl(uint32_t v, int lane, SIMT_SITE)
{
    return (uint32_t)simt_shfl(v, lane, SIMT_IDX, file, line);
}

PTX_FN float ptx_shfl(float v, int lane, SIMT_SITE)
{
    return ptx_float((uint32_t)simt_shfl(ptx_bits(v), lane, SIMT_IDX, file, line));
}

PTX_FN uint32_t ptx_shfl_up(uint32_t v, int by, SIMT_SITE)
{
    return (uint32_t)simt_shfl(v, by, SIMT_UP, file, line);
}

PTX_FN uint64_t ptx_shfl_up(uint64_t v, int by, SIMT_SITE)
{
    return simt_shfl(v, by, SIMT_UP, file, line);
}

PTX_FN uint32_t ptx_ballot(bool v, SIMT_SITE)
{
    return simt_ballot(v, file, line);
}

/* ---- atomics: a fiber runs alone; other threads may come in before the access --------------------------------------- */

PTX_FN uint32_t ptx_atomic_add(uint32_t *p, uint32_t v, SIMT_SITE)
{
    simt_atomic(p, sizeof *p, file, line);
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}

PTX_FN uint64_t ptx_atomic_add(uint64_t *p, uint64_t v, SIMT_SITE)
{
    simt_atomic(p, sizeof *p, file, line);
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}

template <class T> PTX_FN T simt_atomic_max(T *p, T v)
{
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);
    __atomic_store_n(p, v > old ? v : old, __ATOMIC_RELAXED);
    return old;
}

PTX_FN uint32_t ptx_atomic_max(uint32_t *p, uint32_t v, SIMT_SITE)
{
    simt_atomic(p, sizeof *p, file, line);
    return simt_atomic_max(p, v);
}

PTX_FN uint64_t ptx_atomic_max(uint64_t *p, uint64_t v, SIMT_SITE)
{
    simt_atomic(p, sizeof *p, file, line);
    return simt_atomic_max(p, v);
}

PTX_FN void ptx_fence_gpu(void)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* ---- loads and stores ------------------------------------------------------------------------------------------------- */

PTX_FN uint4 ptx_ldg16(const void *p, SIMT_SITE)
{
    simt_read(p, 16, file, line);
    return *(const uint4 *)p;
}

PTX_FN float ptx_ld_cg(const float *p)
{
    return ptx_float(__atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED));
}

PTX_FN uint32_t ptx_ld_cg(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

PTX_FN void ptx_prefetch_l2(const void *p)
{
    (void)p;
}

PTX_FN void ptx_pdl_wait(void)
{
    simt_pdl_wait();
}

PTX_FN void ptx_pdl_launch(void)
{
}

/* ---- arithmetic: built with -ffp-contract=off ------------------------------------------------------------------------- */

PTX_FN float ptx_fma(float a, float b, float c)
{
    return fmaf(a, b, c);
}

PTX_FN float ptx_div(float a, float b)
{
    return a / b;
}

PTX_FN float ptx_sqrt(float a)
{
    return sqrtf(a);
}

PTX_FN float ptx_exp2(float x) /* subnormal inputs count as 0: the same result, 1 */
{
    float y = exp2f(x);
    return y < 0x1p-126f ? 0.0f : y;
}

PTX_FN uint32_t ptx_prmt(uint32_t a, uint32_t b, uint32_t sel)
{
    uint64_t both = (uint64_t)b << 32 | a;
    uint32_t r = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t s = sel >> 4 * i, byte = (uint32_t)(both >> 8 * (s & 7)) & 0xff;
        r |= (s & 8 ? (byte & 0x80 ? 0xffu : 0u) : byte) << 8 * i; /* bit 3: the byte's sign, eight times */
    }
    return r;
}

PTX_FN uint32_t ptx_mulhi(uint32_t a, uint32_t b)
{
    return (uint32_t)((uint64_t)a * b >> 32);
}

PTX_FN int ptx_clz(uint32_t x)
{
    return x ? __builtin_clz(x) : 32;
}

PTX_FN int ptx_popc(uint32_t x)
{
    return __builtin_popcount(x);
}

/* ---- conversions ------------------------------------------------------------------------------------------------------ */

PTX_FN uint32_t simt_bf16(float f)
{
    uint32_t u = ptx_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return 0x7fff;
    return (u + 0x7fffu + (u >> 16 & 1)) >> 16;
}

PTX_FN uint32_t simt_f16(float f)
{
    uint32_t u = ptx_bits(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u)
        return 0x7fff;
    if (a >= 0x477ff000u) /* 65520 and above */
        return sign | 0x7c00u;
    if (a < 0x38800000u) /* below 2^-14: multiples of 2^-24, by an addition that rounds */
        return sign | (ptx_bits(ptx_float(a) + 0.5f) - 0x3f000000u);
    return sign | (a + 0xfffu + (a >> 13 & 1) - 0x38000000u) >> 13;
}

PTX_FN uint32_t ptx_bf16x2(float lo, float hi)
{
    return simt_bf16(hi) << 16 | simt_bf16(lo);
}

PTX_FN uint32_t ptx_f16x2(float lo, float hi)
{
    return simt_f16(hi) << 16 | simt_f16(lo);
}

PTX_FN float ptx_f16_f32(uint32_t h)
{
    uint32_t a = (h & 0x7fffu) << 13, sign = (h & 0x8000u) << 16;
    if (a >= 0x0f800000u)
        return ptx_float(sign | 0x7f800000u | (a & 0x7fffffu));
    return ptx_float(sign | ptx_bits(ptx_float(a) * 0x1p112f));
}

PTX_FN uint32_t ptx_f16x2_mul(uint32_t a, uint32_t b) /* the product of two halves is exact in f32 */
{
    return ptx_f16x2(ptx_f16_f32(a) * ptx_f16_f32(b), ptx_f16_f32(a >> 16) * ptx_f16_f32(b >> 16));
}

PTX_FN uint32_t simt_e4m3_f16(uint32_t v)
{
    uint32_t a = v & 0x7f, sign = (v & 0x80) << 8;
    return a == 0x7f ? 0x7fffu : sign | simt_f16(ptx_f16_f32(a << 7) * 256.0f); /* the exponent is 8 too small */
}

PTX_FN uint32_t ptx_e4m3x2_f16x2(uint32_t v)
{
    return simt_e4m3_f16(v >> 8 & 0xff) << 16 | simt_e4m3_f16(v & 0xff);
}

PTX_FN uint32_t ptx_e4m3x2_soft(float lo, float hi); /* ptx.h: sm_80 has the same routine */

PTX_FN uint32_t ptx_e4m3x2(float lo, float hi)
{
    return ptx_e4m3x2_soft(lo, hi);
}

#endif
