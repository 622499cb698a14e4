/* rope: the table against cos and sin taken afresh at each place, and the scalings against their definitions. */
#include "rope.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

static struct hparams base(void)
{
    return (struct hparams){.head_dim = 64,
                            .rot_dim = 64,
                            .rope_theta = 500000,
                            .rope_factor = 8,
                            .rope_low = 1,
                            .rope_high = 4,
                            .rope_original = 8192};
}

static void every_entry_is_the_rounded_cosine_and_sine(void **state)
{
    (void)state;
    enum { POSITIONS = 20001, PAIRS = 32 };
    struct hparams h = base();
    double freq[PAIRS], worst = 0;
    float *table = malloc(sizeof *table * POSITIONS * PAIRS * 2);
    assert_non_null(table);
    rope_frequencies(&h, NULL, freq);
    rope_table(freq, PAIRS, POSITIONS, table);
    for (uint32_t p = 0; p < POSITIONS; p++) {
        for (uint32_t i = 0; i < PAIRS; i++) {
            const float *at = table + ((size_t)p * PAIRS + i) * 2;
            worst = fmax(worst, fabs(at[0] - cos(p * freq[i])));
            worst = fmax(worst, fabs(at[1] - sin(p * freq[i])));
        }
    }
    assert_true(worst <= 0x1p-25 * 1.001); /* half a unit in the last place below 1 */
    assert_true(table[0] == 1 && table[1] == 0);
    free(table);
}

static void linear_scaling_divides_all_frequencies(void **state)
{
    (void)state;
    struct hparams h = base();
    double plain[32], scaled[32];
    rope_frequencies(&h, NULL, plain);
    h.scaling = HPARAMS_SCALING_LINEAR;
    rope_frequencies(&h, NULL, scaled);
    for (int i = 0; i < 32; i++)
        assert_true(scaled[i] == plain[i] / 8);
    assert_true(plain[0] == 1 && fabs(plain[16] - 1 / sqrt(500000)) < 1e-15);
}

static void llama3_scaling_keeps_short_waves_and_stretches_long_ones(void **state)
{
    (void)state;
    struct hparams h = base();
    double plain[32], scaled[32];
    int kept = 0, stretched = 0, between = 0;
    rope_frequencies(&h, NULL, plain);
    h.scaling = HPARAMS_SCALING_LLAMA3;
    rope_frequencies(&h, NULL, scaled);
    for (int i = 0; i < 32; i++) {
        double wave = 2 * acos(-1) / plain[i];
        if (wave < 8192 / 4.0) {
            assert_true(scaled[i] == plain[i]);
            kept++;
        } else if (wave > 8192) {
            assert_true(scaled[i] == plain[i] / 8);
            stretched++;
        } else {
            assert_true(scaled[i] < plain[i] && scaled[i] > plain[i] / 8);
            between++;
        }
    }
    assert_true(kept > 0 && stretched > 0 && between > 0);
}

static void factors_divide(void **state)
{
    (void)state;
    struct hparams h = base();
    float factors[32];
    double plain[32], divided[32];
    for (int i = 0; i < 32; i++)
        factors[i] = (float)(i + 1);
    rope_frequencies(&h, NULL, plain);
    rope_frequencies(&h, factors, divided);
    for (int i = 0; i < 32; i++)
        assert_true(divided[i] == plain[i] / (i + 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_entry_is_the_rounded_cosine_and_sine),
        cmocka_unit_test(linear_scaling_divides_all_frequencies),
        cmocka_unit_test(llama3_scaling_keeps_short_waves_and_stretches_long_ones),
        cmocka_unit_test(factors_divide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
