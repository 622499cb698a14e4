/* ptx: everything in a kernel that is not plain C++: warp and block collectives, tensor-core and copy instructions, number
 * conversions. Kernels use these and nothing else, so that tests/simt can run the same source on a CPU (simt_ptx.h).
 *
 * Owns     nothing.
 * Units    bytes; lane = threadIdx.x % 32.
 * States   -
 * Threads  collectives: all 32 lanes reach the same call (full masks only).
 * Errors   -
 * Bounds   -
 * Source   PTX ISA 9.0; KERNELS design, section 14.
 *
 * Rules for kernels: one `const __grid_constant__` params struct; no asm, __shfl, __syncthreads, atomics, printf or #if
 * __CUDA_ARCH__ outside this header; no float atomics at all; shared memory through PTX_SMEM only, carved by hand; byte
 * offsets in size_t; contraction is off (-fmad=false): write ptx_fma where one is meant.
 */
#ifndef STATOR_PTX_H
#define STATOR_PTX_H

#include <stddef.h>
#include <stdint.h>

#ifdef STATOR_SIMT
#include "simt_ptx.h"
#else

#include <cuda_runtime.h>

#define PTX_FN static __device__ __forceinline__
#define PTX_FN_IN static __device__ __forceinline__ /* inside a struct */
#define PTX_KERNEL(threads, min_blocks) __global__ void __launch_bounds__(threads, min_blocks)
#define PTX_PARAM(type) const __grid_constant__ type
/* The block's dynamic shared memory, 1024-byte aligned. */
#define PTX_SMEM(name) extern __shared__ __align__(1024) unsigned char name[]

PTX_FN uint32_t ptx_smem_addr(const void *smem)
{
    return (uint32_t)__cvta_generic_to_shared(smem);
}

/* ---- copies global -> shared, 16 bytes a lane --------------------------------------------------------------------- */

/* Bytes from src_bytes on (0..16) become zeros; with 0 nothing is read. Complete for this thread after ptx_cp_wait. */
PTX_FN void ptx_cp16(void *smem, const void *gmem, uint32_t src_bytes)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(ptx_smem_addr(smem)), "l"(gmem),
                 "r"(src_bytes)
                 : "memory");
}

PTX_FN void ptx_cp_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* All but the newest N groups of this thread are complete. */
template <int N> PTX_FN void ptx_cp_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* ---- tensor cores ------------------------------------------------------------------------------------------------- */

PTX_FN void ptx_ldmatrix_x4(uint32_t r[4], const void *smem_row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(ptx_smem_addr(smem_row))
                 : "memory");
}

PTX_FN void ptx_ldmatrix_x4_trans(uint32_t r[4], const void *smem_row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(ptx_smem_addr(smem_row))
                 : "memory");
}

PTX_FN void ptx_ldmatrix_x2(uint32_t r[2], const void *smem_row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(ptx_smem_addr(smem_row))
                 : "memory");
}

PTX_FN void ptx_mma_bf16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

PTX_FN void ptx_mma_f16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* ---- warp and block ----------------------------------------------------------------------------------------------- */

PTX_FN void ptx_syncthreads(void)
{
    __syncthreads();
}

PTX_FN void ptx_syncwarp(void)
{
    __syncwarp();
}

/* Barrier `id` (1..15) among `n` threads (a multiple of 32) of the block. */
PTX_FN void ptx_bar(int id, int n)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(n) : "memory");
}

PTX_FN uint32_t ptx_shfl_xor(uint32_t v, int mask)
{
    return __shfl_xor_sync(0xffffffffu, v, mask);
}

PTX_FN float ptx_shfl_xor(float v, int mask)
{
    return __shfl_xor_sync(0xffffffffu, v, mask);
}

PTX_FN uint64_t ptx_shfl_xor(uint64_t v, int mask)
{
    return (uint64_t)__shfl_xor_sync(0xffffffffu, (unsigned long long)v, mask);
}

PTX_FN uint32_t ptx_shfl(uint32_t v, int lane)
{
    return __shfl_sync(0xffffffffu, v, lane);
}

PTX_FN float ptx_shfl(float v, int lane)
{
    return __shfl_sync(0xffffffffu, v, lane);
}

PTX_FN uint32_t ptx_shfl_up(uint32_t v, int by) /* lanes below `by` keep their own */
{
    return __shfl_up_sync(0xffffffffu, v, by);
}

PTX_FN uint64_t ptx_shfl_up(uint64_t v, int by)
{
    return (uint64_t)__shfl_up_sync(0xffffffffu, (unsigned long long)v, by);
}

PTX_FN uint32_t ptx_ballot(bool v)
{
    return __ballot_sync(0xffffffffu, v);
}

/* ---- atomics: integers only, relaxed ------------------------------------------------------------------------------ */

PTX_FN uint32_t ptx_atomic_add(uint32_t *p, uint32_t v)
{
    return atomicAdd(p, v);
}

PTX_FN uint64_t ptx_atomic_add(uint64_t *p, uint64_t v)
{
    return (uint64_t)atomicAdd((unsigned long long *)p, (unsigned long long)v);
}

PTX_FN uint32_t ptx_atomic_max(uint32_t *p, uint32_t v)
{
    return atomicMax(p, v);
}

PTX_FN uint64_t ptx_atomic_max(uint64_t *p, uint64_t v)
{
    return (uint64_t)atomicMax((unsigned long long *)p, (unsigned long long)v);
}

/* Order of this thread's global accesses, for the whole GPU. */
PTX_FN void ptx_fence_gpu(void)
{
    __threadfence();
}

/* ---- loads and stores --------------------------------------------------------------------------------------------- */

/* 16 bytes of data that no running kernel writes. */
PTX_FN uint4 ptx_ldg16(const void *p)
{
    return __ldg((const uint4 *)p);
}

/* Past L1: data that another CTA of this launch may have written. */
PTX_FN float ptx_ld_cg(const float *p)
{
    return __ldcg(p);
}

PTX_FN uint32_t ptx_ld_cg(const uint32_t *p)
{
    return __ldcg(p);
}

PTX_FN void ptx_prefetch_l2(const void *p)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

/* ---- programmatic dependent launch: nothing on sm_80 ---------------------------------------------------------------- */

/* Before the first read of what an earlier kernel wrote and before any write; every thread, once. */
PTX_FN void ptx_pdl_wait(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* The next kernel's blocks may come in as soon as there is room. */
PTX_FN void ptx_pdl_launch(void)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* ---- arithmetic: one rounding each, never contracted ---------------------------------------------------------------- */

PTX_FN float ptx_fma(float a, float b, float c)
{
    return __fmaf_rn(a, b, c);
}

PTX_FN float ptx_div(float a, float b)
{
    return __fdiv_rn(a, b);
}

PTX_FN float ptx_sqrt(float a)
{
    return __fsqrt_rn(a);
}

PTX_FN float ptx_exp2(float x) /* at most 2 ulp; subnormal results are 0 */
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

PTX_FN uint32_t ptx_bits(float x)
{
    return __float_as_uint(x);
}

PTX_FN float ptx_float(uint32_t b)
{
    return __uint_as_float(b);
}

/* Bytes of {a (0..3), b (4..7)} picked by the four nibbles of sel. */
PTX_FN uint32_t ptx_prmt(uint32_t a, uint32_t b, uint32_t sel)
{
    return __byte_perm(a, b, sel);
}

/* High 64 and 32 bits of products, leading zeros. */
PTX_FN uint32_t ptx_mulhi(uint32_t a, uint32_t b)
{
    return __umulhi(a, b);
}

PTX_FN int ptx_clz(uint32_t x) /* 32 for 0 */
{
    return __clz((int)x);
}

PTX_FN int ptx_popc(uint32_t x)
{
    return __popc(x);
}

/* ---- conversions, round to nearest even; two values a register, lo in the low half ----------------------------------- */

PTX_FN uint32_t ptx_bf16x2(float lo, float hi) /* NaN becomes 0x7fff */
{
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}

PTX_FN uint32_t ptx_f16x2(float lo, float hi) /* overflow becomes inf, NaN 0x7fff */
{
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
}

PTX_FN float ptx_f16_f32(uint32_t h) /* the low half */
{
    float f;
    asm("{.reg .b16 t; cvt.u16.u32 t, %1; cvt.f32.f16 %0, t;}" : "=f"(f) : "r"(h));
    return f;
}

PTX_FN uint32_t ptx_f16x2_mul(uint32_t a, uint32_t b)
{
    uint32_t r;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}

/* Two e4m3 (low 16 bits of v, first value in the low byte) to f16, exact. NaN codes: NaN on sm_90, 480 on sm_80: whoever makes
 * e4m3 makes no NaN. */
PTX_FN uint32_t ptx_e4m3x2_f16x2(uint32_t v)
{
    uint32_t r;
#if __CUDA_ARCH__ >= 890
    asm("{.reg .b16 t; cvt.u16.u32 t, %1; cvt.rn.f16x2.e4m3x2 %0, t;}" : "=r"(r) : "r"(v));
#else
    uint32_t w = __byte_perm(v, 0, 0x1404); /* each byte into the high byte of a half: the exponent is 8 too small */
    r = ptx_f16x2_mul((w & 0x80008000u) | ((w & 0x7f007f00u) >> 1), 0x5c005c00u); /* times 256 */
#endif
    return r;
}

PTX_FN uint32_t ptx_e4m3x2_soft(float lo, float hi); /* below */

/* Two f32 to e4m3, first in the low byte: saturates at 448 (inf too); NaN becomes 0x7f. */
PTX_FN uint32_t ptx_e4m3x2(float lo, float hi)
{
#if __CUDA_ARCH__ >= 890
    uint32_t r;
    asm("{.reg .b16 t; cvt.rn.satfinite.e4m3x2.f32 t, %1, %2; cvt.u32.u16 %0, t;}" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
#else
    return ptx_e4m3x2_soft(lo, hi);
#endif
}

#endif /* STATOR_SIMT */

/* ---- the same source on both sides ---------------------------------------------------------------------------------- */

PTX_FN float ptx_bf16_lo(uint32_t v)
{
    return ptx_float(v << 16);
}

PTX_FN float ptx_bf16_hi(uint32_t v)
{
    return ptx_float(v & 0xffff0000u);
}

/* ptx_e4m3x2 in integers: sm_80 and the emulation. */
PTX_FN uint32_t ptx_e4m3x2_soft(float lo, float hi)
{
    float f[2] = {lo, hi};
    uint32_t out = 0;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint32_t u = ptx_bits(f[i]), sign = u >> 24 & 0x80u, a = u & 0x7fffffffu, q;
        if (a > 0x7f800000u)
            q = 0x7f;
        else if (a >= 0x43e80000u) /* 464 and above: halfway to the next, which there is not */
            q = 0x7e;
        else if (a < 0x3c800000u) /* below 2^-6: multiples of 2^-9, by an addition that rounds */
            q = ptx_bits(ptx_float(a) + 16384.0f) - 0x46800000u;
        else
            q = (a + 0x7ffffu + (a >> 20 & 1u) - 0x3c000000u) >> 20;
        out |= (q | (q == 0x7f ? 0u : sign)) << 8 * i;
    }
    return out;
}

/* Byte offset of 16-byte chunk `c` of row `r` in a tile of 128-byte rows: ldmatrix without bank conflicts. */
PTX_FN uint32_t ptx_swizzle128(uint32_t r, uint32_t c)
{
    return r * 128 + ((c ^ (r & 7)) << 4);
}

/* The activation types, for templates. */
struct ptx_bf16 {
    PTX_FN_IN void mma(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
    {
        ptx_mma_bf16(c, a, b0, b1);
    }
    PTX_FN_IN uint32_t pack(float lo, float hi)
    {
        return ptx_bf16x2(lo, hi);
    }
    PTX_FN_IN float lo(uint32_t v)
    {
        return ptx_bf16_lo(v);
    }
    PTX_FN_IN float hi(uint32_t v)
    {
        return ptx_bf16_hi(v);
    }
};

struct ptx_f16 {
    PTX_FN_IN void mma(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
    {
        ptx_mma_f16(c, a, b0, b1);
    }
    PTX_FN_IN uint32_t pack(float lo, float hi)
    {
        return ptx_f16x2(lo, hi);
    }
    PTX_FN_IN float lo(uint32_t v)
    {
        return ptx_f16_f32(v);
    }
    PTX_FN_IN float hi(uint32_t v)
    {
        return ptx_f16_f32(v >> 16);
    }
};

#endif
