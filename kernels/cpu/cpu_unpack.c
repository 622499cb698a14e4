/* One row back out of its tile, as floats: for embedding look-up, which shares the head's packed tensor, and for packing
 * any type as f32. A gather of a few hundred nanoseconds, which is why it is plain C. */
#include "cpu_be.h"

#include "cpu_half.h"

#include <string.h>

static float half_at(const uint8_t *scales, uint32_t lane)
{
    return cpu_f16_f32(cpu_load_u16(scales + 2 * lane));
}

static uint32_t nibble(const uint8_t *group, uint32_t lane, uint32_t i)
{
    uint8_t b = group[i / 8 * 64 + 4 * lane + i % 4];
    return i % 8 < 4 ? b & 15u : b >> 4;
}

static uint32_t byte(const uint8_t *group, uint32_t lane, uint32_t i)
{
    return group[i / 4 * 64 + 4 * lane + i % 4];
}

static void unpack_q4(const uint8_t *g, uint32_t lane, uint32_t k, bool min, float *out)
{
    for (uint32_t i = 0; i < k; i += 32, g += min ? CPU_Q4_1_GROUP : CPU_Q4_0_GROUP) {
        float d = half_at(g + 256, lane), m = min ? half_at(g + 288, lane) : 0;
        for (uint32_t j = 0; j < 32; j++)
            out[i + j] = min ? d * (float)nibble(g, lane, j) + m : d * (float)((int)nibble(g, lane, j) - 8);
    }
}

static void unpack_q8_0(const uint8_t *g, uint32_t lane, uint32_t k, float *out)
{
    for (uint32_t i = 0; i < k; i += 32, g += CPU_Q8_0_GROUP) {
        float d = half_at(g + 512, lane);
        for (uint32_t j = 0; j < 32; j++)
            out[i + j] = d * (float)((int)byte(g, lane, j) - 128);
    }
}

static void unpack_q4_k(const uint8_t *s, uint32_t lane, uint32_t k, float *out)
{
    for (uint32_t i = 0; i < k; i += 32) {
        const uint8_t *super = s + i / 256 * CPU_Q4_K_SUPER, *g = super + i / 32 % 8 * CPU_Q4_K_GROUP;
        float d = half_at(super + 8 * CPU_Q4_K_GROUP, lane) * (float)g[256 + lane];
        float m = half_at(super + 8 * CPU_Q4_K_GROUP + 32, lane) * (float)g[272 + lane];
        for (uint32_t j = 0; j < 32; j++)
            out[i + j] = d * (float)nibble(g, lane, j) - m;
    }
}

static void unpack_q6_k(const uint8_t *s, uint32_t lane, uint32_t k, float *out)
{
    for (uint32_t i = 0; i < k; i += 32) {
        const uint8_t *super = s + i / 256 * CPU_Q6_K_SUPER, *g = super + i / 32 % 8 * CPU_Q6_K_GROUP;
        float d = half_at(super + 8 * CPU_Q6_K_GROUP, lane);
        for (uint32_t j = 0; j < 32; j++) {
            int8_t scale = (int8_t)g[512 + j / 16 * 16 + lane];
            out[i + j] = d * (float)scale * (float)((int)byte(g, lane, j) - 32);
        }
    }
}

static void unpack_float(enum be_type t, const uint8_t *p, uint32_t lane, uint32_t k, float *out)
{
    for (uint32_t i = 0; i < k; i++) {
        if (t == BE_F32)
            memcpy(&out[i], p + (size_t)i * 64 + 4 * lane, 4);
        else if (t == BE_F16)
            out[i] = half_at(p + (size_t)i * 32, lane);
        else
            out[i] = cpu_bf16_f32(cpu_load_u16(p + (size_t)(i / 2) * 64 + 4 * lane + i % 2 * 2));
    }
}

void cpu_unpack_row(const struct cpu_part *p, uint32_t row, uint32_t k, float *out)
{
    const uint8_t *tile = p->data + row / CPU_TILE * p->tile_bytes;
    uint32_t lane = row % CPU_TILE;
    switch (p->type) {
    case BE_Q4_0:
    case BE_Q4_1:
        unpack_q4(tile, lane, k, p->type == BE_Q4_1, out);
        break;
    case BE_Q8_0:
        unpack_q8_0(tile, lane, k, out);
        break;
    case BE_Q4_K:
        unpack_q4_k(tile, lane, k, out);
        break;
    case BE_Q6_K:
        unpack_q6_k(tile, lane, k, out);
        break;
    default:
        unpack_float(p->type, tile, lane, k, out);
        break;
    }
}
