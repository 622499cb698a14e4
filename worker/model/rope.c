/* rope: angles grow to position * 1, so a table computed in float would be off by position * 2^-24: visible
 * at long contexts. Here everything is double until the last rounding. Two libm calls per entry would cost
 * 0.3 s at 131,072 positions, so only every 64th position is computed afresh and the 63 between follow by
 * rotation, which loses under 64 * 2^-52. */
#include "rope.h"

#include <math.h>

static const double two_pi = 6.283185307179586476925286766559;

enum { STRIDE = 64 };

/* Llama-3.1: long wavelengths are stretched by `factor`, short ones kept, those between blended. */
static double scale_llama3(const struct hparams *h, double freq)
{
    double wave = two_pi / freq;
    if (wave > h->rope_original / h->rope_low)
        return freq / h->rope_factor;
    if (wave < h->rope_original / h->rope_high)
        return freq;
    double smooth = (h->rope_original / wave - h->rope_low) / (h->rope_high - h->rope_low);
    return (1 - smooth) * freq / h->rope_factor + smooth * freq;
}

void rope_frequencies(const struct hparams *h, const float *factors, double *out)
{
    for (uint32_t i = 0; i < h->rot_dim / 2; i++) {
        double freq = pow(h->rope_theta, -2.0 * i / h->rot_dim);
        if (h->scaling == HPARAMS_SCALING_LINEAR)
            freq /= h->rope_factor;
        else if (h->scaling == HPARAMS_SCALING_LLAMA3)
            freq = scale_llama3(h, freq);
        out[i] = factors != NULL ? freq / factors[i] : freq;
    }
}

void rope_table(const double *freq, uint32_t n_pairs, uint32_t n_positions, float *out)
{
    for (uint32_t base = 0; base < n_positions; base += STRIDE) {
        uint32_t end = n_positions - base < STRIDE ? n_positions : base + STRIDE;
        for (uint32_t i = 0; i < n_pairs; i++) {
            double c = cos(base * freq[i]), s = sin(base * freq[i]);
            double step_c = cos(freq[i]), step_s = sin(freq[i]);
            for (uint32_t p = base; p < end; p++) {
                float *at = out + ((size_t)p * n_pairs + i) * 2;
                at[0] = (float)c;
                at[1] = (float)s;
                double next = c * step_c - s * step_s;
                s = s * step_c + c * step_s;
                c = next;
            }
        }
    }
}
