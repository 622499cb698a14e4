/* ref_weight: random weights in file formats, and what they mean, written independently of the packing code.
 *
 * Owns     nothing; the caller frees what ref_weight_random returns.
 * Units    elements; a row is `k` values.
 * States   -
 * Threads  one.
 * Errors   asserts.
 * Bounds   tests only.
 * Source   the GGUF block formats.
 */
#ifndef STATOR_REF_WEIGHT_H
#define STATOR_REF_WEIGHT_H

#include "backend.h"
#include "cpu_half.h"

#include <stdlib.h>

static inline uint32_t ref_next(uint64_t *s)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    uint64_t x = *s;
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdu;
    return (uint32_t)(x >> 32);
}

static inline float ref_unit(uint64_t *s) /* about N(0, 1) */
{
    float t = 0;
    for (int i = 0; i < 4; i++)
        t += (float)(ref_next(s) >> 8) / 16777216.0f - 0.5f;
    return t * 1.7f;
}

/* f32 to f16 for normal values of moderate size, rounded to nearest. */
static inline uint16_t ref_f16(float f)
{
    uint32_t u = cpu_bits_f32(f), sign = u >> 16 & 0x8000u;
    int32_t e = (int32_t)(u >> 23 & 255u) - 112;
    if (e <= 0)
        return (uint16_t)sign;
    uint32_t m = (u & 0x7fffffu) + 0x1000u;
    return (uint16_t)(sign | (((uint32_t)e << 10) + (m >> 13)));
}

static inline uint8_t *ref_weight_random(enum be_type t, uint32_t rows, uint32_t k, uint64_t *seed)
{
    uint64_t row_bytes = 0;
    if (!be_type_row_bytes(t, k, &row_bytes))
        abort();
    size_t n = (size_t)row_bytes * rows, block = be_type_block_bytes(t);
    uint8_t *p = malloc(n + 1);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)ref_next(seed);
    for (size_t i = 0; i < n; i += block) {
        uint16_t d = ref_f16(0.002f + 0.01f * (float)(ref_next(seed) % 1000) / 1000), m = ref_f16(-0.05f);
        float f = ref_unit(seed) * 0.1f;
        uint16_t h = ref_f16(f), b = cpu_f32_bf16(f);
        if (t == BE_F32)
            memcpy(p + i, &f, 4);
        else if (t == BE_F16)
            memcpy(p + i, &h, 2);
        else if (t == BE_BF16)
            memcpy(p + i, &b, 2);
        else
            memcpy(p + i + (t == BE_Q6_K ? 208 : 0), &d, 2);
        if (t == BE_Q4_1)
            memcpy(p + i + 2, &m, 2);
        if (t == BE_Q4_K) {
            d = ref_f16(0.0003f);
            m = ref_f16(0.0003f * 7.5f); /* a mean of about zero */
            memcpy(p + i, &d, 2);
            memcpy(p + i + 2, &m, 2);
        }
        if (t == BE_Q6_K) {
            d = ref_f16(0.0001f);
            memcpy(p + i + 208, &d, 2);
        }
    }
    return p;
}

static inline double ref_half(const uint8_t *p)
{
    return cpu_f16_f32(cpu_load_u16(p));
}

static inline double ref_q4_k(const uint8_t *b, uint32_t i)
{
    const uint8_t *s = b + 4;
    uint32_t g = i / 32, sc, mn, q;
    if (g < 4) {
        sc = s[g] & 63u;
        mn = s[g + 4] & 63u;
    } else {
        sc = (s[g + 4] & 15u) + 16u * (s[g - 4] / 64u);
        mn = (s[g + 4] / 16u) + 16u * (s[g] / 64u);
    }
    q = b[16 + i / 64 * 32 + i % 32];
    q = i % 64 < 32 ? q % 16 : q / 16;
    return ref_half(b) * sc * q - ref_half(b + 2) * mn;
}

static inline double ref_q6_k(const uint8_t *b, uint32_t i)
{
    uint32_t half = i / 128, l = i % 32, quarter = i % 128 / 32;
    uint32_t low = b[half * 64 + quarter % 2 * 32 + l], high = b[128 + half * 32 + l];
    low = quarter < 2 ? low % 16 : low / 16;
    high = high >> (2 * quarter) & 3u;
    return ref_half(b + 208) * (int8_t)b[192 + i / 16] * ((int)(low + 16 * high) - 32);
}

/* The value of element i of a row in file format. */
static inline double ref_weight_at(enum be_type t, const uint8_t *row, uint32_t i)
{
    const uint8_t *b = row + (size_t)i / be_type_block(t) * be_type_block_bytes(t);
    uint32_t j = i % be_type_block(t);
    float f;
    switch (t) {
    case BE_F32:
        memcpy(&f, b, 4);
        return f;
    case BE_F16:
        return ref_half(b);
    case BE_BF16:
        return cpu_bf16_f32(cpu_load_u16(b));
    case BE_Q4_0:
        return ref_half(b) * ((j < 16 ? b[2 + j] % 16 : b[2 + j - 16] / 16) - 8);
    case BE_Q4_1:
        return ref_half(b) * (j < 16 ? b[4 + j] % 16 : b[4 + j - 16] / 16) + ref_half(b + 2);
    case BE_Q8_0:
        return ref_half(b) * (int8_t)b[2 + j];
    case BE_Q4_K:
        return ref_q4_k(b, j);
    default:
        return ref_q6_k(b, j);
    }
}

#endif
