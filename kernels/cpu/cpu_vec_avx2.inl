/* v16 as two 256-bit registers: lanes 0..7 in a, 8..15 in b (AVX2, FMA, F16C). */

#include <immintrin.h>

struct v16 {
    __m256 a, b;
};

struct w16 {
    __m256i a, b;
};

#define V1(fn, x) ((struct v16){fn((x).a), fn((x).b)})
#define V2(fn, x, y) ((struct v16){fn((x).a, (y).a), fn((x).b, (y).b)})
#define W2(fn, x, y) ((struct w16){fn((x).a, (y).a), fn((x).b, (y).b)})

VEC_FN struct v16 v16_set1(float x)
{
    return (struct v16){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}

VEC_FN struct v16 v16_load(const float *p)
{
    return (struct v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

VEC_FN void v16_store(float *p, struct v16 x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}

VEC_FN struct v16 v16_add(struct v16 x, struct v16 y)
{
    return V2(_mm256_add_ps, x, y);
}

VEC_FN struct v16 v16_sub(struct v16 x, struct v16 y)
{
    return V2(_mm256_sub_ps, x, y);
}

VEC_FN struct v16 v16_mul(struct v16 x, struct v16 y)
{
    return V2(_mm256_mul_ps, x, y);
}

VEC_FN struct v16 v16_div(struct v16 x, struct v16 y)
{
    return V2(_mm256_div_ps, x, y);
}

VEC_FN struct v16 v16_sqrt(struct v16 x)
{
    return V1(_mm256_sqrt_ps, x);
}

VEC_FN struct v16 v16_fma(struct v16 x, struct v16 y, struct v16 z)
{
    return (struct v16){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}

VEC_FN struct v16 v16_max(struct v16 x, struct v16 y)
{
    return V2(_mm256_max_ps, x, y);
}

VEC_FN struct v16 v16_min(struct v16 x, struct v16 y)
{
    return V2(_mm256_min_ps, x, y);
}

VEC_FN float v16_sum(struct v16 x)
{
    __m256 b = _mm256_add_ps(x.a, x.b);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

VEC_FN float v16_maximum(struct v16 x)
{
    __m256 b = _mm256_max_ps(x.a, x.b);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

VEC_FN struct v16 v16_zero_below(struct v16 x, struct v16 t, struct v16 lim)
{
    return (struct v16){_mm256_andnot_ps(_mm256_cmp_ps(t.a, lim.a, _CMP_LT_OQ), x.a),
                        _mm256_andnot_ps(_mm256_cmp_ps(t.b, lim.b, _CMP_LT_OQ), x.b)};
}

VEC_FN struct v16 v16_pick_below(struct v16 x, struct v16 lim, struct v16 a, struct v16 b)
{
    return (struct v16){_mm256_blendv_ps(b.a, a.a, _mm256_cmp_ps(x.a, lim.a, _CMP_LT_OQ)),
                        _mm256_blendv_ps(b.b, a.b, _mm256_cmp_ps(x.b, lim.b, _CMP_LT_OQ))};
}

VEC_FN __m256 vec_keep_half(__m256 x, __m256i lane, int32_t lo, int32_t hi)
{
    __m256i in = _mm256_and_si256(_mm256_cmpgt_epi32(lane, _mm256_set1_epi32(lo - 1)),
                                  _mm256_cmpgt_epi32(_mm256_set1_epi32(hi), lane));
    return _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), x, _mm256_castsi256_ps(in));
}

VEC_FN struct v16 v16_keep(struct v16 x, int32_t lo, int32_t hi)
{
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return (struct v16){vec_keep_half(x.a, lane, lo, hi),
                        vec_keep_half(x.b, _mm256_add_epi32(lane, _mm256_set1_epi32(8)), lo, hi)};
}

VEC_FN uint32_t v16_ge_mask(struct v16 x, struct v16 y)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, _CMP_GE_OQ)) |
           (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, _CMP_GE_OQ)) << 8;
}

VEC_FN uint32_t v16_eq_mask(struct v16 x, struct v16 y)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(x.a, y.a, _CMP_EQ_OQ)) |
           (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(x.b, y.b, _CMP_EQ_OQ)) << 8;
}

VEC_FN __m256 vec_rotate_half(__m256 x, __m256 t)
{
    __m256 cross = _mm256_mul_ps(_mm256_permute_ps(x, 0xb1), _mm256_movehdup_ps(t));
    return _mm256_fmaddsub_ps(x, _mm256_moveldup_ps(t), cross);
}

VEC_FN struct v16 v16_rotate(struct v16 x, struct v16 t)
{
    return V2(vec_rotate_half, x, t);
}

VEC_FN __m256 vec_add_exponent_half(__m256 p, __m256 t)
{
    __m256i n = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), n));
}

VEC_FN struct v16 v16_add_exponent(struct v16 p, struct v16 t)
{
    return V2(vec_add_exponent_half, p, t);
}

VEC_FN struct v16 v16_load_f16(const uint16_t *p)
{
    return (struct v16){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                        _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}

VEC_FN void v16_store_f16(uint16_t *p, struct v16 x)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}

VEC_FN struct w16 w16_set1(uint32_t x)
{
    return (struct w16){_mm256_set1_epi32((int)x), _mm256_set1_epi32((int)x)};
}

VEC_FN struct w16 w16_load(const uint32_t *p)
{
    return (struct w16){_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)(p + 8))};
}

VEC_FN void w16_store(uint32_t *p, struct w16 x)
{
    _mm256_storeu_si256((__m256i *)p, x.a);
    _mm256_storeu_si256((__m256i *)(p + 8), x.b);
}

VEC_FN struct w16 w16_load_u16(const uint16_t *p)
{
    return (struct w16){_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)),
                        _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(p + 8)))};
}

VEC_FN void w16_store_u16(uint16_t *p, struct w16 x)
{
    __m256i low = _mm256_set1_epi32(0xffff);
    __m256i both = _mm256_packus_epi32(_mm256_and_si256(x.a, low), _mm256_and_si256(x.b, low));
    _mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(both, 0xd8));
}

VEC_FN struct w16 w16_add(struct w16 x, struct w16 y)
{
    return W2(_mm256_add_epi32, x, y);
}

VEC_FN struct w16 w16_sub(struct w16 x, struct w16 y)
{
    return W2(_mm256_sub_epi32, x, y);
}

VEC_FN struct w16 w16_and(struct w16 x, struct w16 y)
{
    return W2(_mm256_and_si256, x, y);
}

VEC_FN struct w16 w16_xor(struct w16 x, struct w16 y)
{
    return W2(_mm256_xor_si256, x, y);
}

VEC_FN struct w16 w16_shl16(struct w16 x)
{
    return (struct w16){_mm256_slli_epi32(x.a, 16), _mm256_slli_epi32(x.b, 16)};
}

VEC_FN struct w16 w16_shr16(struct w16 x)
{
    return (struct w16){_mm256_srli_epi32(x.a, 16), _mm256_srli_epi32(x.b, 16)};
}

VEC_FN struct w16 w16_sra(struct w16 x, int n)
{
    __m128i count = _mm_cvtsi32_si128(n);
    return (struct w16){_mm256_sra_epi32(x.a, count), _mm256_sra_epi32(x.b, count)};
}

VEC_FN struct w16 w16_max_signed(struct w16 x, struct w16 y)
{
    return W2(_mm256_max_epi32, x, y);
}

VEC_FN __m256i vec_mul_wide_half(__m256i x, __m256i k, __m256i *hi)
{
    __m256i even = _mm256_mul_epu32(x, k), odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), k);
    *hi = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
}

VEC_FN struct w16 w16_mul_wide(struct w16 x, uint32_t k, struct w16 *hi)
{
    __m256i kk = _mm256_set1_epi32((int)k);
    return (struct w16){vec_mul_wide_half(x.a, kk, &hi->a), vec_mul_wide_half(x.b, kk, &hi->b)};
}

VEC_FN struct v16 w16_as_v16(struct w16 x)
{
    return V1(_mm256_castsi256_ps, x);
}

VEC_FN struct w16 v16_bits(struct v16 x)
{
    return (struct w16){_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)};
}

VEC_FN struct v16 w16_to_v16_signed(struct w16 x)
{
    return V1(_mm256_cvtepi32_ps, x);
}

VEC_FN struct w16 v16_truncate(struct v16 x)
{
    return (struct w16){_mm256_cvttps_epi32(x.a), _mm256_cvttps_epi32(x.b)};
}

VEC_FN void w16_store_quads(uint32_t *p, struct w16 a, struct w16 b, struct w16 c, struct w16 d)
{
    struct w16 ab0 = W2(_mm256_unpacklo_epi32, a, b), ab1 = W2(_mm256_unpackhi_epi32, a, b);
    struct w16 cd0 = W2(_mm256_unpacklo_epi32, c, d), cd1 = W2(_mm256_unpackhi_epi32, c, d);
    w16_store(p, W2(_mm256_unpacklo_epi64, ab0, cd0));
    w16_store(p + 16, W2(_mm256_unpackhi_epi64, ab0, cd0));
    w16_store(p + 32, W2(_mm256_unpacklo_epi64, ab1, cd1));
    w16_store(p + 48, W2(_mm256_unpackhi_epi64, ab1, cd1));
}

#undef V1
#undef V2
#undef W2
