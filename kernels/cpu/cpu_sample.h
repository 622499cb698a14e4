/* cpu_sample: from one row of logits to one token, with log-probabilities.
 *
 * Owns     nothing; scratch is the caller's.
 * Units    logits in nats.
 * States   -
 * Threads  rows are independent; one scratch area per thread.
 * Errors   out->token == -1 when a logit is NaN or +inf, or when nothing may be drawn (all -inf or banned).
 * Bounds   scratch is cpu_sample_scratch_bytes(vocab); no allocation.
 * Source   backend.h (order of edits) and docs/CPU.md section 6. The draw is an argmax of z/T + Gumbel
 *          noise keyed by (seed, position, token): no prefix sums, so that any other sampler with the same
 *          noise draws the same token.
 */
#ifndef STATOR_CPU_SAMPLE_H
#define STATOR_CPU_SAMPLE_H

#include "backend.h"

size_t cpu_sample_scratch_bytes(uint32_t vocab);

/* Philox4x32-10: four words of noise for a counter under a key. Sampling takes counter (position, token /
 * 4, 0, 0), key (low, high half of the seed), and word token % 4. */
void cpu_sample_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2]);

#endif
