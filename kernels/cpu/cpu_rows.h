/* cpu_rows: everything of a forward that is not a matrix multiply, one table of functions per instruction
 * set.
 *
 * Owns     nothing.
 * Units    elements unless a name says bytes.
 * States   -
 * Threads  any; all functions are pure in their arguments.
 * Errors   none; shapes are checked where weights and pools are made.
 * Bounds   no allocation. Reads and writes exactly the given lengths (odd lengths included).
 * Source   docs/CPU.md sections 4 and 6. All tables give the same bits: each family is written once against
 *          a vector of 16 floats (cpu_vec.h) and compiled three times. Callers set FTZ and DAZ first (same
 *          MXCSR = same bits).
 */
#ifndef STATOR_CPU_ROWS_H
#define STATOR_CPU_ROWS_H

#include "cpu_attn.h"
#include "cpu_sample.h"

struct cpu_row_kernels {
    const char *isa; /* "c", "avx2", "avx512" */

    /* out[i] = x[i] * (1 / sqrt(mean(x^2) + eps)) * gain[i]; out may be x. */
    void (*norm)(float *out, const float *x, const float *gain, uint32_t d, float eps);
    /* out[i] = silu(gate[i]) * up[i]; out may be gate or up. */
    void (*silu_mul)(float *out, const float *gate, const float *up, uint32_t n);
    /* Rotates the pairs (2i, 2i+1), i < rot_dim / 2, of one head in place; cos_sin is [rot_dim/2][2]. */
    void (*rope)(float *x, const float *cos_sin, uint32_t rot_dim);
    /* Stores one head's K and V, each [head_dim], at `slot`. Returns how many values f16 could not hold
     * (stored as +-65504). */
    uint32_t (*kv_append)(const struct cpu_kv_view *kv, uint32_t layer, uint32_t head, uint32_t slot,
                          const float *k, const float *v);
    /* Computes one item of a planned attention into a->out. */
    void (*attn_item)(const struct cpu_attn *a, uint32_t item, void *scratch);
    /* Samples one row; edits `logits` in place. */
    void (*sample)(float *logits, uint32_t vocab, const struct be_sample_row *p, struct be_sample_out *out,
                   void *scratch);
};

extern const struct cpu_row_kernels cpu_rows_c, cpu_rows_avx2, cpu_rows_avx512;

#endif
