/* The instruction sets, from the least to the best. Each level needs all bits of its row; "auto" takes the last row whose
 * bits are there. cpuid says what the core can do, XCR0 what the kernel saves at a context switch: both must agree. AMX
 * state is large, so Linux wants a process to ask for it first; a refusal only costs speed.
 *
 * All tables of class INT8 give the same bits, so the choice is not part of a model's fingerprint. */
#define _GNU_SOURCE
#include "cpu_pick.h"

#include <cpuid.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ARCH_ASK_XCOMP = 0x1023, XFEATURE_TILEDATA = 18 };

enum {
    HAS_AVX2 = 1, /* with FMA and F16C */
    HAS_AVXVNNI = 2,
    HAS_AVX512 = 4, /* F, BW, VL, DQ, VNNI */
    HAS_BF16 = 8,
    HAS_AMX = 16
};

static uint64_t xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return ((uint64_t)hi << 32) | lo;
}

static bool has(uint32_t word, uint32_t bits)
{
    return (word & bits) == bits;
}

static uint32_t machine(void)
{
    uint32_t a, b, c, d, c1, b7, c7, d7, a71 = 0, found = 0;
    if (!__get_cpuid(1, &a, &b, &c1, &d) || !has(c1, 1u << 27)) /* OSXSAVE */
        return 0;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7))
        return 0;
    if (a >= 1)
        __get_cpuid_count(7, 1, &a71, &b, &c, &d);
    uint64_t saved = xcr0();
    if ((saved & 0x6) != 0x6)
        return 0;
    if (has(c1, 1u << 28 | 1u << 12 | 1u << 29) && has(b7, 1u << 5))
        found |= HAS_AVX2;
    if (has(a71, 1u << 4))
        found |= HAS_AVXVNNI;
    if ((saved & 0xe6) == 0xe6 && has(b7, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31) && has(c7, 1u << 11)) {
        found |= HAS_AVX512;
        if (has(a71, 1u << 5))
            found |= HAS_BF16;
        if (has(d7, 1u << 24 | 1u << 25) && (saved & 0x60000) == 0x60000)
            found |= HAS_AMX;
    }
    return found;
}

static bool amx_granted(void)
{
    return syscall(SYS_arch_prctl, ARCH_ASK_XCOMP, XFEATURE_TILEDATA) == 0;
}

static const struct {
    const char *name, *label, *label_bf16;
    uint32_t needs;
    const struct cpu_linear_kernels *linear;
    const struct cpu_row_kernels *rows;
} levels[] = {
    {"c", "plain c", "plain c", 0, &cpu_linear_c, &cpu_rows_c},
    {"avx2", "avx2", "avx2", HAS_AVX2, &cpu_linear_avx2, &cpu_rows_avx2},
    {"avxvnni", "avx2-vnni", "avx2-vnni", HAS_AVX2 | HAS_AVXVNNI, &cpu_linear_avxvnni, &cpu_rows_avx2},
    {"avx512", "avx512-vnni", "avx512-vnni-bf16", HAS_AVX2 | HAS_AVX512, &cpu_linear_avx512,
     &cpu_rows_avx512},
    {"amx", "avx512-vnni-amx", "avx512-vnni-bf16-amx", HAS_AVX2 | HAS_AVX512 | HAS_AMX, &cpu_linear_avx512,
     &cpu_rows_avx512},
};

static void overlay(struct cpu_linear_kernels *to, const struct cpu_linear_kernels *from)
{
    for (int i = 0; i < CPU_CLASS_COUNT; i++)
        if (from->store[i])
            to->store[i] = from->store[i];
    for (int i = 0; i < BE_TYPE_COUNT; i++)
        if (from->gemm[i])
            to->gemm[i] = from->gemm[i];
}

int cpu_pick_init(struct cpu_pick *out, const char *isa, struct err *e)
{
    uint32_t found = machine();
    int n = (int)(sizeof levels / sizeof *levels), level = -1;
    bool best = !isa || strcmp(isa, "auto") == 0;
    for (int i = 0; i < n; i++) {
        bool runs = has(found, levels[i].needs) && (!(levels[i].needs & HAS_AMX) || amx_granted());
        if (best && runs)
            level = i;
        if (best || strcmp(isa, levels[i].name) != 0)
            continue;
        if (!runs)
            return err_set(e, ST_EUNSUP, "cpu_isa: this machine does not run '%s'", isa);
        level = i;
    }
    if (level < 0)
        return err_set(e, ST_EINVAL, "cpu_isa: '%s' is none of auto, c, avx2, avxvnni, avx512, amx", isa);
    bool bf16 = (found & HAS_BF16) && (levels[level].needs & HAS_AVX512);
    *out = (struct cpu_pick){.linear = *levels[level].linear,
                             .rows = levels[level].rows,
                             .isa = levels[level].name,
                             .label = bf16 ? levels[level].label_bf16 : levels[level].label};
    if (bf16)
        overlay(&out->linear, &cpu_linear_avx512bf16);
    if (levels[level].needs & HAS_AMX)
        overlay(&out->linear, &cpu_linear_amx);
    return ST_OK;
}
