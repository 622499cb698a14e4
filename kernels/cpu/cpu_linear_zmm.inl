/* Vectors of 16 lanes and VNNI dots for the AVX-512 files: a tile is one register wide. */
#include <immintrin.h>
#include <stdint.h>

#include "cpu_linear.h"

#define LANES 16
#define VF __m512
#define VI __m512i
#define VF_ZERO() _mm512_setzero_ps()
#define VF_LOAD(p) _mm512_loadu_ps((const float *)(p))
#define VF_STORE(p, v) _mm512_storeu_ps(p, v)
#define VF_BC(p) _mm512_set1_ps(*(const float *)(p))
#define VF_F16(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p)))
#define VF_MUL _mm512_mul_ps
#define VF_FMA _mm512_fmadd_ps
#define VF_FNMA _mm512_fnmadd_ps
#define VI_ZERO() _mm512_setzero_si512()
#define VI_LOAD(p) _mm512_loadu_si512(p)
#define VI_BC(p) _mm512_set1_epi32(*(const int32_t *)(p))
#define VI_AND _mm512_and_si512
#define VI_ADD _mm512_add_epi32
#define VI_CVT _mm512_cvtepi32_ps
#define VI_U8(p) _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(p)))
#define VI_I8(p) _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p)))
#define LOW4 _mm512_set1_epi8(15)
#define VI_HIGH4(p) _mm512_and_si512(_mm512_srli_epi16(p, 4), LOW4)
#define NIB_ACC _mm512_dpbusd_epi32
#define NIB_FIN(s) (s)
#define BYTE_PREP(p) (p)
#define BYTE_ABS(p) (p)
#define BYTE_START(p) VI_BC(p)
#define BYTE_ACC(s, p, p_abs, x) _mm512_dpbusd_epi32(s, p, x)
#define SIX_ACC _mm512_dpbusd_epi32
#define HIGH16 _mm512_set1_epi32((int)0xffff0000u)
#define BF16_ODD(p) _mm512_castsi512_ps(_mm512_and_si512(p, HIGH16))
#define BF16_EVEN(p) _mm512_castsi512_ps(_mm512_slli_epi32(p, 16))

static inline void store_group(const float *x, struct cpu_act_group *g, uint32_t row)
{
    __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
    float amax = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
    if (amax < 1e-30f)
        amax = 0;
    float id = amax > 0 ? 127.0f / amax : 0, d = amax / 127.0f;
    __m512 scale = _mm512_set1_ps(id);
    __m128i q0 = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(a, scale)));
    __m128i q1 = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(b, scale)));
    __m256i q = _mm256_inserti128_si256(_mm256_castsi128_si256(q0), q1, 1);
    _mm256_storeu_si256((__m256i *)g->q[row], q);
    __m256i sum = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), q);
    sum = _mm256_hadd_epi32(sum, sum);
    sum = _mm256_hadd_epi32(sum, sum);
    int32_t h0 = _mm256_cvtsi256_si32(sum), h1 = _mm_cvtsi128_si32(_mm256_extracti128_si256(sum, 1));
    g->d[row] = d;
    g->s[row] = d * (float)(h0 + h1);
    g->n128[row] = -128 * (h0 + h1);
    g->n8[row] = -8 * (h0 + h1);
    g->h32[0][row] = -32 * h0;
    g->h32[1][row] = -32 * h1;
}
