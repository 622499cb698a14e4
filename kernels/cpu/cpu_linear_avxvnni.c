/* AVX2 with VNNI on 8 lanes, for machines that have it without AVX-512. */
#include "cpu_linear_ymm.inl"

#define ISA_TABLE cpu_linear_avxvnni
#define ISA_NAME "avxvnni"
#define MR_MAX 4
#define NIB_ACC _mm256_dpbusd_avx_epi32
#define NIB_FIN(s) (s)
#define BYTE_PREP(p) (p)
#define BYTE_ABS(p) (p)
#define BYTE_START(p) VI_BC(p)
#define BYTE_ACC(s, p, p_abs, x) _mm256_dpbusd_avx_epi32(s, p, x)
#define SIX_ACC _mm256_dpbusd_avx_epi32

#include "cpu_linear_isa.inl"
