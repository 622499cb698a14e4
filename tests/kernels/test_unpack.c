/* File formats to floats against an independent reading of each format in double, and E4M3 over all its codes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "kernels/ref_weight.h"
#include "unpack.h"

#include <math.h>

static void every_type_means_what_its_format_says(void **state)
{
    (void)state;
    uint64_t seed = 99;
    for (int t = 0; t < BE_E4M3; t++) {
        enum { K = 1024, ROWS = 40 };
        uint64_t row_bytes = 0;
        uint8_t *w = ref_weight_random((enum be_type)t, ROWS, K, &seed);
        assert_true(be_type_row_bytes((enum be_type)t, K, &row_bytes));
        for (uint32_t r = 0; r < ROWS; r++) {
            float v[K];
            uint32_t first = ref_next(&seed) % 4 * 256, n = 1 + ref_next(&seed) % (K - first);
            memset(v, 0x55, sizeof v);
            unpack_values((enum be_type)t, w + r * row_bytes, first, n, v);
            for (uint32_t i = 0; i < n; i++) {
                double want = ref_weight_at((enum be_type)t, w + r * row_bytes, first + i);
                if (fabs((double)v[i] - want) > 2e-7 * (fabs(want) + 0.2))
                    fail_msg("%s, row %u, element %u: %.9g, not %.9g", be_type_name((enum be_type)t), r,
                             first + i, (double)v[i], want);
            }
            if (n < K)
                assert_memory_equal(&v[n], "\x55\x55\x55\x55", 4); /* not one value more */
        }
        free(w);
    }
}

static void e4m3_has_no_infinity_and_one_nan(void **state)
{
    (void)state;
    for (uint32_t q = 0; q < 256; q++) {
        uint8_t byte = (uint8_t)q;
        float v;
        int e = (int)(q >> 3 & 15u), m = (int)(q & 7u);
        double want = e ? ldexp(1 + m / 8.0, e - 7) : ldexp(m, -9);
        unpack_values(BE_E4M3, &byte, 0, 1, &v);
        if ((q & 127u) == 127u) {
            assert_true(isnan(v));
            continue;
        }
        assert_true((double)v == (q & 128u ? -want : want));
        assert_int_equal(!!signbit(v), q >> 7);
    }
}

static void halves_are_exact_over_all_codes(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        int e = (int)(h >> 10 & 31u), m = (int)(h & 1023u);
        float v = unpack_f16((uint16_t)h);
        double want = e ? ldexp(1 + m / 1024.0, e - 15) : ldexp(m, -24);
        if (e == 31)
            assert_true(m ? isnan(v) : isinf(v));
        else
            assert_true((double)v == (h >> 15 ? -want : want));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_means_what_its_format_says),
        cmocka_unit_test(e4m3_has_no_infinity_and_one_nan),
        cmocka_unit_test(halves_are_exact_over_all_codes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
