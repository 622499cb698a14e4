/* AVX2 without VNNI: bytes are multiplied in pairs into 16 bits, which must not overflow. Nibbles: 8 products of pairs add
 * up to at most 8 * 2 * 15 * 127 = 30,480, so a whole group is summed in 16 bits before one widening. Q8_0: |w| times the
 * activation with w's sign is at most 2 * 128 * 127 = 32,512. Q6_K: 2 * 63 * 127 = 16,002. All exact. */
#include "cpu_linear_ymm.inl"

#define ISA_TABLE cpu_linear_avx2
#define ISA_NAME "avx2"
#define MR_MAX 4
#define ONES _mm256_set1_epi16(1)
#define NIB_ACC(s, w, x) _mm256_add_epi16(s, _mm256_maddubs_epi16(w, x))
#define NIB_FIN(s) _mm256_madd_epi16(s, ONES)
#define BYTE_PREP(p) _mm256_xor_si256(p, _mm256_set1_epi8(-128))
#define BYTE_ABS(p) _mm256_abs_epi8(p)
#define BYTE_START(p) VI_ZERO()
#define SIX_ACC(s, w, x) VI_ADD(s, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), ONES))
#define BYTE_ACC(s, p, p_abs, x) SIX_ACC(s, p_abs, _mm256_sign_epi8(x, p))

#include "cpu_linear_isa.inl"
