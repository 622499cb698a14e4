/* cpu_half: exact scalar conversions between f32, f16 and bf16.
 *
 * Owns     nothing.
 * Units    f16 and bf16 values travel as uint16_t bit patterns.
 * States   -
 * Threads  pure functions.
 * Errors   none; NaN stays NaN (its payload may change).
 * Bounds   -
 * Source   IEEE 754; integer steps only, so that FTZ and DAZ change nothing.
 */
#ifndef STATOR_CPU_HALF_H
#define STATOR_CPU_HALF_H

#include <stdint.h>
#include <string.h>

static inline float cpu_f32_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint32_t cpu_bits_f32(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float cpu_bf16_f32(uint16_t h)
{
    return cpu_f32_bits((uint32_t)h << 16);
}

static inline uint16_t cpu_f32_bf16(float f)
{
    uint32_t u = cpu_bits_f32(f);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

static inline float cpu_f16_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = (h >> 10) & 31u, m = h & 0x3ffu;
    if (e == 31)
        return cpu_f32_bits(sign | 0x7f800000u | (m << 13));
    if (e)
        return cpu_f32_bits(sign | ((e + 112u) << 23) | (m << 13));
    if (m == 0)
        return cpu_f32_bits(sign);
    uint32_t shift = (uint32_t)__builtin_clz(m) - 21u; /* brings the top bit to bit 10 */
    return cpu_f32_bits(sign | ((113u - shift) << 23) | (((m << shift) & 0x3ffu) << 13));
}

static inline uint16_t cpu_load_u16(const void *p)
{
    uint16_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

#endif
