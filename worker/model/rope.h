/* rope: the table of cosines and sines that rotary embedding multiplies by.
 *
 * Owns     nothing: it writes the caller's array.
 * Units    positions; angles in radians.
 * States   -
 * Threads  any.
 * Errors   none: hparams_check ran before.
 * Bounds   O(positions * rot_dim / 2).
 * Source   RoFormer (arXiv 2104.09864); linear position interpolation (arXiv 2306.15595); the frequency-
 *          dependent scaling that Llama-3.1 models carry in config.json.
 */
#ifndef STATOR_ROPE_H
#define STATOR_ROPE_H

#include "hparams.h"

/* Angle per position of pair i, out[rot_dim / 2]. `factors` (NULL = none) divides each, as GGUF's
 * rope_freqs.weight does. */
void rope_frequencies(const struct hparams *h, const float *factors, double *out);
/* out[n_positions][rot_dim / 2][2] = cos, sin of position * frequency, computed in double, rounded once. */
void rope_table(const double *freq, uint32_t n_pairs, uint32_t n_positions, float *out);

#endif
