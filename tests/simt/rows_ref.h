/* rows_ref: what the tests of the row-wise and step kernels share: a seeded generator, an emulated GPU whose memory tests
 * fill and read in place, and conversions by definition rather than by bit tricks. */
#ifndef STATOR_TEST_ROWS_REF_H
#define STATOR_TEST_ROWS_REF_H

extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
}

#include "cpu_half.h"
#include "cu_types.h"
#include "simt.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- numbers ---------------------------------------------------------------------------------------------------------- */

static uint64_t ref_state;

static inline void ref_seed(const char *test)
{
    const char *set = getenv("STATOR_TEST_SEED");
    uint64_t seed = set ? strtoull(set, NULL, 0) : (uint64_t)time(NULL);
    printf("%s: STATOR_TEST_SEED=%llu\n", test, (unsigned long long)seed);
    ref_state = seed * 0x9E3779B97F4A7C15u + 1;
    simt_seed(seed);
}

static inline uint32_t ref_rand(void)
{
    ref_state ^= ref_state << 13;
    ref_state ^= ref_state >> 7;
    ref_state ^= ref_state << 17;
    return (uint32_t)(ref_state >> 32);
}

static inline uint32_t ref_below(uint32_t n)
{
    return (uint32_t)((uint64_t)ref_rand() * n >> 32);
}

static inline float ref_normal(void)
{
    double u = (ref_rand() + 0.5) / 4294967296.0, v = (ref_rand() + 0.5) / 4294967296.0;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

/* ---- conversions: bf16 and f16 as ptx.h makes them ---------------------------------------------------------------------- */

static inline uint16_t ref_to16(float x, int type)
{
    if (x != x)
        return 0x7fff;
    if (type == CU_BF16)
        return cpu_f32_bf16(x);
    _Float16 h = (_Float16)x;
    uint16_t bits;
    memcpy(&bits, &h, sizeof bits);
    return bits;
}

static inline float ref_from16(uint16_t h, int type)
{
    return type == CU_BF16 ? cpu_bf16_f32(h) : cpu_f16_f32(h);
}

/* Largest relative error of one rounding to `type`. */
static inline double ref_half_ulp(int type)
{
    return type == CU_BF16 ? 0x1p-8 : 0x1p-11;
}

static inline double ref_e4m3_value(uint8_t code)
{
    int e = code >> 3 & 15, f = code & 7;
    double v = e ? ldexp(8 + f, e - 10) : ldexp(f, -9);
    return code & 0x80 ? -v : v;
}

/* The nearest of all codes, of two equally near ones the even; beyond 448 the last. */
static inline uint8_t ref_e4m3(float x)
{
    if (x != x)
        return 0x7f;
    uint8_t best = 0;
    double a = fabs((double)x);
    for (int c = 1; c <= 0x7e; c++) {
        double d = fabs(ref_e4m3_value((uint8_t)c) - a), b = fabs(ref_e4m3_value(best) - a);
        if (d < b || (d == b && c % 2 == 0))
            best = (uint8_t)c;
    }
    return isinf(x) ? (signbit(x) ? 0xfe : 0x7e) : (uint8_t)(best | (signbit(x) ? 0x80 : 0));
}

/* ---- the device --------------------------------------------------------------------------------------------------------- */

static struct gpu *ref_gpu;
static struct gpu_stream *ref_stream;

static inline int ref_open(void **state)
{
    (void)state;
    struct err e;
    gpu_sim_device(90);
    assert_int_equal(gpu_open(&ref_gpu, &e), ST_OK);
    assert_int_equal(gpu_stream_create(ref_gpu, &ref_stream), ST_OK);
    return 0;
}

static inline int ref_close(void **state)
{
    (void)state;
    gpu_stream_destroy(ref_stream);
    gpu_close(ref_gpu);
    assert_int_equal(gpu_sim_live(), 0);
    return 0;
}

/* Device memory of `n` values that looks like leftovers. */
template <class V> static V *ref_alloc(size_t n)
{
    void *p = gpu_alloc(ref_gpu, n * sizeof(V));
    assert_non_null(p);
    memset(p, 0xa5, n * sizeof(V));
    return (V *)p;
}

static inline void ref_free(const void *p)
{
    gpu_free(ref_gpu, (void *)p);
}

static inline void ref_sync(void)
{
    assert_int_equal(gpu_stream_sync(ref_stream), ST_OK);
}

#define REF_TEST(f) cmocka_unit_test_setup_teardown(f, ref_open, ref_close)

#endif
