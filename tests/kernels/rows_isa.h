/* rows_isa: which tables of row kernels this machine can run, and what every row test needs: a seeded
 * generator, a page that must not be touched behind an array, and FTZ with DAZ as the compute threads have
 * them. */
#ifndef STATOR_TEST_ROWS_ISA_H
#define STATOR_TEST_ROWS_ISA_H

#include "cpu_rows.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <xmmintrin.h>

static inline uint32_t rows_isas(const struct cpu_row_kernels *out[3])
{
    uint32_t n = 0;
    out[n++] = &cpu_rows_c;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        out[n++] = &cpu_rows_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        out[n++] = &cpu_rows_avx512;
    return n;
}

static inline void rows_ftz(void)
{
    _mm_setcsr(_mm_getcsr() | 0x8040u);
}

static inline uint64_t rows_seed(const char *test)
{
    const char *set = getenv("STATOR_TEST_SEED");
    uint64_t seed = set ? strtoull(set, NULL, 0) : (uint64_t)time(NULL);
    printf("%s: STATOR_TEST_SEED=%llu\n", test, (unsigned long long)seed);
    return seed * 0x9E3779B97F4A7C15u + 1;
}

static inline uint32_t rows_rand(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return (uint32_t)(*s >> 32);
}

static inline uint32_t rows_below(uint64_t *s, uint32_t n)
{
    return (uint32_t)((uint64_t)rows_rand(s) * n >> 32);
}

static inline double rows_unit(uint64_t *s)
{
    return (rows_rand(s) + 0.5) / 4294967296.0;
}

static inline float rows_normal(uint64_t *s)
{
    return (float)(sqrt(-2 * log(rows_unit(s))) * cos(6.283185307179586 * rows_unit(s)));
}

/* `bytes` that end where an unreadable page begins. */
struct rows_guarded {
    char *map;
    size_t map_bytes;
    void *p;
};

static inline struct rows_guarded rows_guard(size_t bytes)
{
    struct rows_guarded g;
    size_t body = (bytes + 4095) / 4096 * 4096;
    g.map_bytes = body + 4096;
    g.map = mmap(NULL, g.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert(g.map != MAP_FAILED);
    assert(mprotect(g.map + body, 4096, PROT_NONE) == 0);
    g.p = g.map + body - bytes;
    return g;
}

static inline void rows_unguard(struct rows_guarded g)
{
    munmap(g.map, g.map_bytes);
}

#endif
