/* v16 as one 512-bit register (F, BW, VL, DQ). */

#include <immintrin.h>

struct v16 {
    __m512 z;
};

struct w16 {
    __m512i z;
};

#define V(expr) ((struct v16){(expr)})
#define W(expr) ((struct w16){(expr)})

VEC_FN struct v16 v16_set1(float x)
{
    return V(_mm512_set1_ps(x));
}

VEC_FN struct v16 v16_load(const float *p)
{
    return V(_mm512_loadu_ps(p));
}

VEC_FN void v16_store(float *p, struct v16 a)
{
    _mm512_storeu_ps(p, a.z);
}

VEC_FN struct v16 v16_add(struct v16 a, struct v16 b)
{
    return V(_mm512_add_ps(a.z, b.z));
}

VEC_FN struct v16 v16_sub(struct v16 a, struct v16 b)
{
    return V(_mm512_sub_ps(a.z, b.z));
}

VEC_FN struct v16 v16_mul(struct v16 a, struct v16 b)
{
    return V(_mm512_mul_ps(a.z, b.z));
}

VEC_FN struct v16 v16_div(struct v16 a, struct v16 b)
{
    return V(_mm512_div_ps(a.z, b.z));
}

VEC_FN struct v16 v16_sqrt(struct v16 a)
{
    return V(_mm512_sqrt_ps(a.z));
}

VEC_FN struct v16 v16_fma(struct v16 a, struct v16 b, struct v16 c)
{
    return V(_mm512_fmadd_ps(a.z, b.z, c.z));
}

VEC_FN struct v16 v16_max(struct v16 a, struct v16 b)
{
    return V(_mm512_max_ps(a.z, b.z));
}

VEC_FN struct v16 v16_min(struct v16 a, struct v16 b)
{
    return V(_mm512_min_ps(a.z, b.z));
}

VEC_FN float v16_sum(struct v16 a)
{
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a.z), _mm512_extractf32x8_ps(a.z, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

VEC_FN float v16_maximum(struct v16 a)
{
    __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a.z), _mm512_extractf32x8_ps(a.z, 1));
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

VEC_FN struct v16 v16_zero_below(struct v16 a, struct v16 x, struct v16 lim)
{
    return V(_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.z, lim.z, _CMP_NLT_UQ), a.z));
}

VEC_FN struct v16 v16_pick_below(struct v16 x, struct v16 lim, struct v16 a, struct v16 b)
{
    return V(_mm512_mask_mov_ps(b.z, _mm512_cmp_ps_mask(x.z, lim.z, _CMP_LT_OQ), a.z));
}

VEC_FN struct v16 v16_keep(struct v16 a, int32_t lo, int32_t hi)
{
    uint32_t below_hi = hi <= 0 ? 0 : hi >= 16 ? 0xffffu : (1u << hi) - 1;
    uint32_t below_lo = lo <= 0 ? 0 : lo >= 16 ? 0xffffu : (1u << lo) - 1;
    return V(_mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), (__mmask16)(below_hi & ~below_lo), a.z));
}

VEC_FN uint32_t v16_ge_mask(struct v16 a, struct v16 b)
{
    return _mm512_cmp_ps_mask(a.z, b.z, _CMP_GE_OQ);
}

VEC_FN uint32_t v16_eq_mask(struct v16 a, struct v16 b)
{
    return _mm512_cmp_ps_mask(a.z, b.z, _CMP_EQ_OQ);
}

VEC_FN struct v16 v16_rotate(struct v16 x, struct v16 t)
{
    __m512 cross = _mm512_mul_ps(_mm512_permute_ps(x.z, 0xb1), _mm512_movehdup_ps(t.z));
    return V(_mm512_fmaddsub_ps(x.z, _mm512_moveldup_ps(t.z), cross));
}

VEC_FN struct v16 v16_add_exponent(struct v16 p, struct v16 t)
{
    __m512i n = _mm512_slli_epi32(_mm512_castps_si512(t.z), 23);
    return V(_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p.z), n)));
}

VEC_FN struct v16 v16_load_f16(const uint16_t *p)
{
    return V(_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)));
}

VEC_FN void v16_store_f16(uint16_t *p, struct v16 a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a.z, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

VEC_FN struct w16 w16_set1(uint32_t x)
{
    return W(_mm512_set1_epi32((int)x));
}

VEC_FN struct w16 w16_load(const uint32_t *p)
{
    return W(_mm512_loadu_si512(p));
}

VEC_FN void w16_store(uint32_t *p, struct w16 a)
{
    _mm512_storeu_si512(p, a.z);
}

VEC_FN struct w16 w16_load_u16(const uint16_t *p)
{
    return W(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)));
}

VEC_FN void w16_store_u16(uint16_t *p, struct w16 a)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(a.z));
}

VEC_FN struct w16 w16_add(struct w16 a, struct w16 b)
{
    return W(_mm512_add_epi32(a.z, b.z));
}

VEC_FN struct w16 w16_sub(struct w16 a, struct w16 b)
{
    return W(_mm512_sub_epi32(a.z, b.z));
}

VEC_FN struct w16 w16_and(struct w16 a, struct w16 b)
{
    return W(_mm512_and_si512(a.z, b.z));
}

VEC_FN struct w16 w16_xor(struct w16 a, struct w16 b)
{
    return W(_mm512_xor_si512(a.z, b.z));
}

VEC_FN struct w16 w16_shl16(struct w16 a)
{
    return W(_mm512_slli_epi32(a.z, 16));
}

VEC_FN struct w16 w16_shr16(struct w16 a)
{
    return W(_mm512_srli_epi32(a.z, 16));
}

VEC_FN struct w16 w16_sra(struct w16 a, int n)
{
    return W(_mm512_sra_epi32(a.z, _mm_cvtsi32_si128(n)));
}

VEC_FN struct w16 w16_max_signed(struct w16 a, struct w16 b)
{
    return W(_mm512_max_epi32(a.z, b.z));
}

VEC_FN struct w16 w16_mul_wide(struct w16 a, uint32_t k, struct w16 *hi)
{
    __m512i kk = _mm512_set1_epi32((int)k);
    __m512i even = _mm512_mul_epu32(a.z, kk);
    __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a.z, 32), kk);
    hi->z = _mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xaaaa, odd);
    return W(_mm512_mask_mov_epi32(even, 0xaaaa, _mm512_slli_epi64(odd, 32)));
}

VEC_FN struct v16 w16_as_v16(struct w16 a)
{
    return V(_mm512_castsi512_ps(a.z));
}

VEC_FN struct w16 v16_bits(struct v16 a)
{
    return W(_mm512_castps_si512(a.z));
}

VEC_FN struct v16 w16_to_v16_signed(struct w16 a)
{
    return V(_mm512_cvtepi32_ps(a.z));
}

VEC_FN struct w16 v16_truncate(struct v16 a)
{
    return W(_mm512_cvttps_epi32(a.z));
}

VEC_FN void w16_store_quads(uint32_t *p, struct w16 a, struct w16 b, struct w16 c, struct w16 d)
{
    __m512i ab0 = _mm512_unpacklo_epi32(a.z, b.z), ab1 = _mm512_unpackhi_epi32(a.z, b.z);
    __m512i cd0 = _mm512_unpacklo_epi32(c.z, d.z), cd1 = _mm512_unpackhi_epi32(c.z, d.z);
    _mm512_storeu_si512(p, _mm512_unpacklo_epi64(ab0, cd0));
    _mm512_storeu_si512(p + 16, _mm512_unpackhi_epi64(ab0, cd0));
    _mm512_storeu_si512(p + 32, _mm512_unpacklo_epi64(ab1, cd1));
    _mm512_storeu_si512(p + 48, _mm512_unpackhi_epi64(ab1, cd1));
}

#undef V
#undef W
