/* Vectors of 8 lanes for the AVX2 and AVX-VNNI files: a tile is done as two halves. */
#include <immintrin.h>
#include <stdint.h>

#include "cpu_linear.h"

#define LANES 8
#define VF __m256
#define VI __m256i
#define VF_ZERO() _mm256_setzero_ps()
#define VF_LOAD(p) _mm256_loadu_ps((const float *)(p))
#define VF_STORE(p, v) _mm256_storeu_ps(p, v)
#define VF_BC(p) _mm256_broadcast_ss((const float *)(p))
#define VF_F16(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p)))
#define VF_MUL _mm256_mul_ps
#define VF_FMA _mm256_fmadd_ps
#define VF_FNMA _mm256_fnmadd_ps
#define VI_ZERO() _mm256_setzero_si256()
#define VI_LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define VI_BC(p) _mm256_set1_epi32(*(const int32_t *)(p))
#define VI_AND _mm256_and_si256
#define VI_ADD _mm256_add_epi32
#define VI_CVT _mm256_cvtepi32_ps
#define VI_U8(p) _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p)))
#define VI_I8(p) _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p)))
#define LOW4 _mm256_set1_epi8(15)
#define VI_HIGH4(p) _mm256_and_si256(_mm256_srli_epi16(p, 4), LOW4)
#define HIGH16 _mm256_set1_epi32((int)0xffff0000u)
#define BF16_ODD(p) _mm256_castsi256_ps(_mm256_and_si256(p, HIGH16))
#define BF16_EVEN(p) _mm256_castsi256_ps(_mm256_slli_epi32(p, 16))
#define BF16_ACC(acc, p, odd, even, x) bf16_acc(acc, odd, even, VI_BC(x))

static inline VF bf16_acc(VF acc, VF odd, VF even, VI x)
{
    acc = _mm256_fmadd_ps(BF16_ODD(x), odd, acc);
    return _mm256_fmadd_ps(BF16_EVEN(x), even, acc);
}

static inline int32_t sum16(__m128i q)
{
    __m128i s = _mm_madd_epi16(_mm_add_epi16(_mm_cvtepi8_epi16(q), _mm_cvtepi8_epi16(_mm_srli_si128(q, 8))),
                               _mm_set1_epi16(1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

static inline __m128i round16(const float *x, __m256 scale)
{
    __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), scale));
    __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), scale));
    __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    return _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
}

static inline void store_group(const float *x, struct cpu_act_group *g, uint32_t row)
{
    const __m256 no_sign = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 m = _mm256_and_ps(_mm256_loadu_ps(x), no_sign);
    for (int i = 8; i < CPU_GROUP; i += 8)
        m = _mm256_max_ps(m, _mm256_and_ps(_mm256_loadu_ps(x + i), no_sign));
    __m128 h = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    float amax = _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
    if (amax < 1e-30f)
        amax = 0;
    float id = amax > 0 ? 127.0f / amax : 0, d = amax / 127.0f;
    __m128i q0 = round16(x, _mm256_set1_ps(id)), q1 = round16(x + 16, _mm256_set1_ps(id));
    _mm_storeu_si128((__m128i *)g->q[row], q0);
    _mm_storeu_si128((__m128i *)(g->q[row] + 16), q1);
    int32_t h0 = sum16(q0), h1 = sum16(q1);
    g->d[row] = d;
    g->s[row] = d * (float)(h0 + h1);
    g->n128[row] = -128 * (h0 + h1);
    g->n8[row] = -8 * (h0 + h1);
    g->h32[0][row] = -32 * h0;
    g->h32[1][row] = -32 * h1;
}
