/* cu_sample: from logits to tokens on the GPU, one CTA a row.
 *
 * Owns     nothing.
 * Units    tokens.
 * States   -
 * Threads  the stream's.
 * Errors   ST_EINVAL, ST_EDEVICE. A row without a drawable token (NaN, all -inf) gives token -1.
 * Bounds   vocab < 2^24; logits are edited in place.
 * Source   KERNELS design, section 6; semantics: op_sample of backend.h, and the same tokens as kernels/cpu/cpu_sample.inl
 *          from equal logits (masses are integers, noise is Philox(seed, position, token)).
 */
#ifndef STATOR_CU_SAMPLE_H
#define STATOR_CU_SAMPLE_H

#include "backend.h"
#include "cu_step.h"
#include "cu_types.h"
#include "gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* be_sample_row as the device sees it: lists are ranges of the step's pools. */
struct cu_sample_row {
    uint32_t logits_row, position;
    uint64_t seed;
    float temperature, top_p, min_p, repetition, frequency, presence;
    uint32_t top_k;
    uint32_t bias0, n_bias, seen0, n_seen, banned0, n_banned;
    int32_t n_logprobs;
    uint32_t prev;    /* 0, or 1 + row of the previous step's `drawn` */
    uint32_t allowed; /* 0, or the byte of the step's blob at which the row's mask begins: [(vocab + 31) / 32] words */
};

struct cu_sample {
    float *logits; /* [..][ld] */
    const struct cu_sample_row *rows; /* [m] */
    const uint32_t *n_rows;           /* device: rows that are real; the others are skipped. NULL: m */
    const struct be_bias *bias;
    const struct be_seen *seen;
    const int32_t *banned;
    const int32_t *prev_drawn; /* [..] what the previous step drew: another array than drawn (cu_unpack.prev) */
    int32_t *drawn;            /* out [m] token or -1 */
    struct be_sample_out *out; /* out [m], device or pinned host memory; `top` only where asked for */
    const uint8_t *blob[CU_BLOBS];
    const uint32_t *parity; /* device: which blob is this step's; read for rows with a mask only */
    uint32_t m, vocab, ld;
};

int cu_sample_launch(struct gpu_stream *s, const struct cu_sample *p);

#ifdef __cplusplus
}
#endif
#endif
