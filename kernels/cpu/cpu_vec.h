/* cpu_vec: a vector of 16 floats with the same bits on every instruction set; included only by per-ISA files.
 *
 * Owns     nothing.
 * Units    v16 = 16 f32 lanes, w16 = 16 u32 lanes; lane 0 is the lowest address.
 * States   -
 * Threads  any.
 * Errors   none.
 * Bounds   *_n forms touch exactly n <= 16 elements; lanes past n read as zero.
 * Source   docs/CPU.md section 4. Includer defines CPU_VEC as 0 (C), 2 (AVX2 + FMA + F16C) or 512.
 *          Everything is static: a shared inline compiled in the AVX-512 file must never be the copy that
 *          another file calls.
 *
 * Rules that make the bits equal: one rounding per named op (fma is fma, mul then add is two), min and max
 * as x86 does them (the second operand when either is NaN), sums over lanes only by the tree 8, 4, 2, 1, no
 * reciprocals, no libm but fmaf and sqrtf, which are exact.
 */
#ifndef STATOR_CPU_VEC_H
#define STATOR_CPU_VEC_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#if CPU_VEC == 0 && defined(__SANITIZE_ADDRESS__)
#define VEC_FN \
    static __attribute__((noinline, unused)) /* gcc with sanitizers takes minutes over inlined loops */
#elif CPU_VEC == 0
#define VEC_FN static __attribute__((unused))
#else
#define VEC_FN static inline __attribute__((always_inline, unused))
#endif

#if CPU_VEC == 512
#include "cpu_vec_avx512.inl"
#elif CPU_VEC == 2
#include "cpu_vec_avx2.inl"
#else
#include "cpu_vec_c.inl"
#endif

/* ---- written once, on top of the primitives ---------------------------------------- */

VEC_FN struct v16 v16_load_n(const float *p, uint32_t n)
{
    if (n >= 16)
        return v16_load(p);
    float t[16] = {0};
    memcpy(t, p, n * sizeof *p);
    return v16_load(t);
}

VEC_FN void v16_store_n(float *p, struct v16 a, uint32_t n)
{
    if (n >= 16) {
        v16_store(p, a);
        return;
    }
    float t[16];
    v16_store(t, a);
    memcpy(p, t, n * sizeof *p);
}

/* bfloat16: load is exact; store rounds to nearest even and keeps infinities and NaN. */
VEC_FN struct v16 v16_load_bf16(const uint16_t *p)
{
    return w16_as_v16(w16_shl16(w16_load_u16(p)));
}

VEC_FN void v16_store_bf16(uint16_t *p, struct v16 a)
{
    struct w16 b = v16_bits(a), abs = w16_and(b, w16_set1(0x7fffffffu));
    struct w16 finite = w16_sra(w16_sub(abs, w16_set1(0x7f800000u)), 31);
    struct w16 odd = w16_and(w16_shr16(b), w16_set1(1));
    struct w16 inc = w16_and(w16_add(odd, w16_set1(0x7fffu)), finite);
    w16_store_u16(p, w16_shr16(w16_add(b, inc)));
}

/* x - magic is x rounded to the nearest integer, and the low bits of x + magic are that integer: 1.5 *
 * 2^23. */
#define VEC_MAGIC 12582912.0f

/* e^x, relative error about 1e-7; below -87 exactly 0; the caller keeps x <= 88. NaN stays NaN. */
VEC_FN struct v16 v16_exp(struct v16 x)
{
    struct v16 magic = v16_set1(VEC_MAGIC);
    struct v16 t = v16_fma(x, v16_set1(0x1.715476p+0f), magic);
    struct v16 n = v16_sub(t, magic);
    /* ln 2 in two parts; the first has trailing zeros, so that n * part is exact */
    struct v16 r = v16_fma(n, v16_set1(-0x1.62e4p-1f), x);
    r = v16_fma(n, v16_set1(-0x1.7f7d1cp-20f), r);
    struct v16 p = v16_set1(0.0013814465f);
    p = v16_fma(p, r, v16_set1(0.008368781f));
    p = v16_fma(p, r, v16_set1(0.041668393f));
    p = v16_fma(p, r, v16_set1(0.1666652f));
    p = v16_fma(p, r, v16_set1(0.49999994f));
    p = v16_fma(p, v16_mul(r, r), r);
    p = v16_add(p, v16_set1(1.0f));
    return v16_zero_below(v16_add_exponent(p, t), x, v16_set1(-87.0f));
}

/* 2^x, relative error about 1e-7; below -125 exactly 0; the caller keeps x <= 127. NaN stays NaN. */
VEC_FN struct v16 v16_exp2(struct v16 x)
{
    struct v16 magic = v16_set1(VEC_MAGIC);
    struct v16 t = v16_add(x, magic);
    struct v16 f = v16_sub(x, v16_sub(t, magic));
    struct v16 p = v16_set1(0.00015353257f);
    p = v16_fma(p, f, v16_set1(0.0013399004f));
    p = v16_fma(p, f, v16_set1(0.009618439f));
    p = v16_fma(p, f, v16_set1(0.05550332f));
    p = v16_fma(p, f, v16_set1(0.24022648f));
    p = v16_fma(p, f, v16_set1(0.6931472f));
    p = v16_fma(p, f, v16_set1(1.0f));
    return v16_zero_below(v16_add_exponent(p, t), x, v16_set1(-125.0f));
}

/* ln x of positive normal x. Near 1 the relative error stays small, because f = x - 1 is exact there. */
VEC_FN struct v16 v16_log(struct v16 x)
{
    struct w16 b = v16_bits(x);
    /* k = exponent such that the mantissa lies in [sqrt(1/2), sqrt(2)) */
    struct w16 off = w16_sub(b, w16_set1(0x3f3504f3u));
    struct v16 k = w16_to_v16_signed(w16_sra(off, 23));
    struct w16 mant = w16_add(w16_and(off, w16_set1(0x007fffffu)), w16_set1(0x3f3504f3u));
    struct v16 f = v16_sub(w16_as_v16(mant), v16_set1(1.0f));
    struct v16 p = v16_set1(-0.07634438f);
    p = v16_fma(p, f, v16_set1(0.12761563f));
    p = v16_fma(p, f, v16_set1(-0.13160197f));
    p = v16_fma(p, f, v16_set1(0.1420176f));
    p = v16_fma(p, f, v16_set1(-0.16623355f));
    p = v16_fma(p, f, v16_set1(0.20001227f));
    p = v16_fma(p, f, v16_set1(-0.25000823f));
    p = v16_fma(p, f, v16_set1(0.3333333f));
    struct v16 f2 = v16_mul(f, f);
    struct v16 r = v16_mul(v16_mul(f2, f), p);
    r = v16_fma(k, v16_set1(-0x1.05c61p-29f), r); /* low part of ln 2, its sign: 0x1.62e43p-1 is above ln 2 */
    r = v16_fma(f2, v16_set1(-0.5f), r);
    r = v16_add(f, r);
    return v16_fma(k, v16_set1(0x1.62e43p-1f), r);
}

#endif
