/* sample_math: the arithmetic of sampling, operation for operation that of kernels/cpu (cpu_vec.h, cpu_sample.inl), so that both
 * draw the same token from the same logits.
 *
 * Owns     nothing.
 * Units    nats; y = (z - max) / T <= 0; mass = e^y * 2^32, truncated: integers, whose sums do not depend on order;
 *          key = (logit, id) as an integer of 56 bits, larger = more likely, then lower id.
 * States   -
 * Threads  any.
 * Errors   -
 * Bounds   ids < 2^24. Subnormal logits count as they are; the CPU takes them for 0.
 * Source   KERNELS design, section 6. Only ptx_fma fuses.
 */
#ifndef STATOR_SAMPLE_MATH_CUH
#define STATOR_SAMPLE_MATH_CUH

#include "philox.cuh"

#define SAMPLE_FLT_MAX 0x1.fffffep+127f
#define SAMPLE_FLT_MIN 0x1p-126f
#define SAMPLE_NOISE_MAX 22.9f /* no random word gives more noise: 33 ln 2 */
#define SAMPLE_DEPTH 22.3f     /* where y is below minus this, the mass is 0: 32 ln 2 and a margin */

enum { SAMPLE_ID_BITS = 24, SAMPLE_IDS = 1 << SAMPLE_ID_BITS, SAMPLE_KEY_BITS = 32 + SAMPLE_ID_BITS };

#define SAMPLE_KEY_MIN ((uint64_t)0x00800000u << SAMPLE_ID_BITS) /* of -FLT_MAX: a -inf is below */

PTX_FN float sample_inf(void)
{
    return ptx_float(0x7f800000u);
}

/* ---- order of tokens ---------------------------------------------------------------------------------------------- */

PTX_FN uint64_t sample_key(float z, uint32_t id)
{
    uint32_t b = ptx_bits(z + 0.0f); /* -0 and 0 are a tie */
    b = b & 0x80000000u ? ~b : b | 0x80000000u;
    return (uint64_t)b << SAMPLE_ID_BITS | (~id & 0xffffffu);
}

PTX_FN uint32_t sample_key_id(uint64_t key)
{
    return ~(uint32_t)key & 0xffffffu;
}

PTX_FN float sample_key_value(uint64_t key)
{
    uint32_t b = (uint32_t)(key >> SAMPLE_ID_BITS);
    return ptx_float(b & 0x80000000u ? b & 0x7fffffffu : ~b);
}

/* ---- e^x, ln x ------------------------------------------------------------------------------------------------------ */

/* x <= 88; exactly 0 below -87. */
PTX_FN float sample_exp(float x)
{
    const float magic = 12582912.0f; /* x + magic has the nearest integer in its low bits */
    float t = ptx_fma(x, 0x1.715476p+0f, magic);
    float n = t - magic;
    float r = ptx_fma(n, -0x1.62e4p-1f, x); /* ln 2 in two parts: n * the first is exact */
    r = ptx_fma(n, -0x1.7f7d1cp-20f, r);
    float p = 0.0013814465f;
    p = ptx_fma(p, r, 0.008368781f);
    p = ptx_fma(p, r, 0.041668393f);
    p = ptx_fma(p, r, 0.1666652f);
    p = ptx_fma(p, r, 0.49999994f);
    p = ptx_fma(p, r * r, r);
    p = p + 1.0f;
    return x < -87.0f ? 0.0f : ptx_float(ptx_bits(p) + (ptx_bits(t) << 23));
}

/* x positive and normal. */
PTX_FN float sample_log(float x)
{
    uint32_t off = ptx_bits(x) - 0x3f3504f3u; /* the mantissa is taken from [sqrt(1/2), sqrt(2)) */
    float k = (float)((int32_t)off >> 23);
    float f = ptx_float((off & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    float p = -0.07634438f;
    p = ptx_fma(p, f, 0.12761563f);
    p = ptx_fma(p, f, -0.13160197f);
    p = ptx_fma(p, f, 0.1420176f);
    p = ptx_fma(p, f, -0.16623355f);
    p = ptx_fma(p, f, 0.20001227f);
    p = ptx_fma(p, f, -0.25000823f);
    p = ptx_fma(p, f, 0.3333333f);
    float f2 = f * f;
    float r = f2 * f * p;
    r = ptx_fma(k, -0x1.05c61p-29f, r); /* ln 2 in two parts, the low one negative */
    r = ptx_fma(f2, -0.5f, r);
    r = f + r;
    return ptx_fma(k, 0x1.62e43p-1f, r);
}

/* ---- masses and noise ----------------------------------------------------------------------------------------------- */

PTX_FN uint64_t sample_mass(float y)
{
    float e = sample_exp(y) * 65536.0f;
    int32_t hi = (int32_t)e;
    int32_t lo = (int32_t)((e - (float)hi) * 65536.0f);
    return ((uint64_t)(uint32_t)hi << 16) + (uint32_t)lo;
}

/* The mass that a share of the total comes to, rounded up, at least 1. */
PTX_FN uint64_t sample_target(float share, uint64_t total)
{
    double x = (double)share * (double)total;
    uint64_t t = x > 0 ? (uint64_t)x : 0;
    if ((double)t < x)
        t++;
    return t > 0 ? t : 1;
}

/* A random word as V in (0, 1): near 0, where the noise is large, it keeps its relative precision. */
PTX_FN float sample_uniform(uint32_t word)
{
    float f = ptx_fma((float)(int32_t)(word >> 16), 65536.0f, (float)(int32_t)(word & 0xffffu));
    float v = (f + 0.5f) * 0x1p-32f;
    return v < 0x1.fffffep-1f ? v : 0x1.fffffep-1f;
}

/* Gumbel noise -ln(E), E = -log1p(-V). */
PTX_FN float sample_gumbel(float v)
{
    const float tiny = 0x1p-12f;
    float e = ptx_fma(v * v, 0.5f, v);
    if (!(v < tiny)) {
        float u = 1.0f - v; /* ln(u) is off by the rounding of u; v / (1 - u) undoes that */
        e = ptx_div(sample_log(u) * v, u - 1.0f);
    }
    return 0.0f - sample_log(e);
}

/* Never below y + sample_gumbel(v), without a logarithm: v >= 2^k, so the noise is at most -k ln 2. */
PTX_FN float sample_score_bound(float y, float v)
{
    float k = (float)(((int32_t)ptx_bits(v) >> 23) - 127);
    return ptx_fma(k, -0.693148f, y + 0.001f);
}

#endif
