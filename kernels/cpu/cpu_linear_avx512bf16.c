/* The dot-product instruction for bf16: it adds the odd k first, then the even one, each fused, with denormals flushed,
 * which is the chain that class BF16 is defined by. Only this entry replaces the AVX-512 table's. */
#include "cpu_linear_zmm.inl"

#define ISA_TABLE cpu_linear_avx512bf16
#define ISA_NAME "avx512bf16"
#define MR_MAX 8
#define ONLY_BF16
#define BF16_ACC(acc, p, odd, even, x) _mm512_dpbf16_ps(acc, (__m512bh)(p), (__m512bh)VI_BC(x))

#include "cpu_linear_isa.inl"
