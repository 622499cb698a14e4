/* The file formats in plain C, one block at a time, for whoever expands weights at load: exactness and brevity count here, the
 * CPU backend's tiles have readers of their own. Every product is rounded as ggml rounds it. */
#include "unpack.h"

#include <math.h>
#include <string.h>

enum { BLOCK_MAX = 256 };

static float bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float unpack_bf16(uint16_t h)
{
    return bits((uint32_t)h << 16);
}

float unpack_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = h >> 10 & 31u, m = h & 0x3ffu;
    if (e == 31)
        return bits(sign | 0x7f800000u | m << 13);
    if (e)
        return bits(sign | (e + 112u) << 23 | m << 13);
    float v = (float)m * 0x1p-24f;
    return sign ? -v : v;
}

float unpack_e4m3(uint8_t q)
{
    uint32_t e = q >> 3 & 15u, m = q & 7u;
    float v = (q & 0x7fu) == 0x7fu ? NAN : e ? bits((e + 120u) << 23 | m << 20) : (float)m * 0x1p-9f;
    return q & 0x80u ? -v : v;
}

static uint16_t u16(const uint8_t *p)
{
    uint16_t u;
    memcpy(&u, p, sizeof u);
    return u;
}

static float half(const uint8_t *p)
{
    return unpack_f16(u16(p));
}

/* 32 nibbles: byte i holds element i low, element 16 + i high. */
static void block_q4(const uint8_t *qs, float d, float add, int zero, float *out)
{
    for (int i = 0; i < 16; i++) {
        out[i] = d * (float)((int)(qs[i] & 15) - zero) + add;
        out[16 + i] = d * (float)((qs[i] >> 4) - zero) + add;
    }
}

static void block_q8_0(const uint8_t *b, float *out)
{
    float d = half(b);
    for (int i = 0; i < 32; i++)
        out[i] = d * (float)(int8_t)b[2 + i];
}

/* 8 groups of 32 with 6-bit scales and minima: the first four plain, the others' high bits in the tops of the first ones. */
static void block_q4_k(const uint8_t *b, float *out)
{
    const uint8_t *s = b + 4;
    for (int g = 0; g < 8; g++) {
        const uint8_t *qs = b + 16 + g / 2 * 32; /* even groups in the low nibbles, odd in the high */
        int scale = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
        int min = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | s[g] >> 6 << 4;
        float d = half(b) * (float)scale, m = half(b + 2) * (float)min;
        for (int i = 0; i < 32; i++)
            out[32 * g + i] = d * (float)(qs[i] >> g % 2 * 4 & 15) - m;
    }
}

/* 16 groups of 16: low four bits, high two bits, an 8-bit scale per group. */
static void block_q6_k(const uint8_t *b, float *out)
{
    float d = half(b + 208);
    for (int i = 0; i < 256; i++) {
        int part = i / 128, quarter = i % 128 / 32, l = i % 32;
        int low = b[part * 64 + quarter % 2 * 32 + l] >> quarter / 2 * 4 & 15;
        int high = b[128 + part * 32 + l] >> quarter * 2 & 3;
        out[i] = d * (float)(int8_t)b[192 + i / 16] * (float)((low | high << 4) - 32);
    }
}

static void block(enum be_type t, const uint8_t *b, float *out)
{
    if (t == BE_Q4_0)
        block_q4(b + 2, half(b), 0, 8, out);
    else if (t == BE_Q4_1)
        block_q4(b + 4, half(b), half(b + 2), 0, out);
    else if (t == BE_Q8_0)
        block_q8_0(b, out);
    else if (t == BE_Q4_K)
        block_q4_k(b, out);
    else
        block_q6_k(b, out);
}

static void plain(enum be_type t, const uint8_t *p, uint32_t n, float *out)
{
    for (uint32_t i = 0; i < n; i++) {
        if (t == BE_F32)
            memcpy(&out[i], p + 4 * (size_t)i, 4);
        else if (t == BE_E4M3)
            out[i] = unpack_e4m3(p[i]);
        else
            out[i] = t == BE_F16 ? half(p + 2 * (size_t)i) : unpack_bf16(u16(p + 2 * (size_t)i));
    }
}

void unpack_values(enum be_type t, const void *row, uint32_t first, uint32_t n, float *out)
{
    uint32_t per_block = be_type_block(t), bytes = be_type_block_bytes(t);
    const uint8_t *p = (const uint8_t *)row + (size_t)first / per_block * bytes;
    if (per_block == 1) {
        plain(t, p, n, out);
        return;
    }
    for (uint32_t i = 0; i < n; i += per_block, p += bytes) {
        float v[BLOCK_MAX];
        bool whole = n - i >= per_block;
        block(t, p, whole ? out + i : v);
        if (!whole)
            memcpy(out + i, v, (n - i) * sizeof *v);
    }
}
