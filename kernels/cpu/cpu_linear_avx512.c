/* AVX-512 with VNNI: one register is a tile's width, one instruction four k of 16 outputs. Eight rows at a time keep eight
 * integer and eight float accumulators in half of the registers; more rows gain little. */
#include "cpu_linear_zmm.inl"

#define ISA_TABLE cpu_linear_avx512
#define ISA_NAME "avx512"
#define MR_MAX 8
#define BF16_ACC(acc, p, odd, even, x) bf16_acc(acc, odd, even, VI_BC(x))

static inline VF bf16_acc(VF acc, VF odd, VF even, VI x)
{
    acc = _mm512_fmadd_ps(BF16_ODD(x), odd, acc);
    return _mm512_fmadd_ps(BF16_EVEN(x), even, acc);
}

#include "cpu_linear_isa.inl"
