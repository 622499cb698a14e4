/* cpu_sample_row: the pieces of sampling one row that need no vector; shared by cpu_sample.c and the
 * per-ISA files.
 *
 * Owns     nothing.
 * Units    key = (logit, id) as one integer: larger = more likely, then lower id. mass = e^((z - max) / T)
 *          * 2^32, truncated.
 * States   -
 * Threads  pure functions.
 * Errors   none.
 * Bounds   cut: O(8 n).
 * Source   KERNELS design, section 6 (the device sampler keeps the same rules).
 */
#ifndef STATOR_CPU_SAMPLE_ROW_H
#define STATOR_CPU_SAMPLE_ROW_H

#include "cpu_sample.h"

#include <math.h>
#include <string.h>

#define CPU_PHILOX_M0 0xD2511F53u
#define CPU_PHILOX_M1 0xCD9E8D57u
#define CPU_PHILOX_W0 0x9E3779B9u
#define CPU_PHILOX_W1 0xBB67AE85u

struct cpu_sample_cand {
    uint64_t key, mass;
};

static inline uint64_t cpu_sample_key(float z, uint32_t id)
{
    float positive_zero = z + 0.0f; /* -0 and 0 are a tie */
    uint32_t b;
    memcpy(&b, &positive_zero, sizeof b);
    b = b & 0x80000000u ? ~b : b | 0x80000000u;
    return (uint64_t)b << 32 | (uint32_t)~id;
}

static inline uint32_t cpu_sample_id(uint64_t key)
{
    return (uint32_t)~key;
}

static inline float cpu_sample_logit(uint64_t key)
{
    uint32_t b = (uint32_t)(key >> 32);
    b = b & 0x80000000u ? b & 0x7fffffffu : ~b;
    float z;
    memcpy(&z, &b, sizeof z);
    return z;
}

void cpu_sample_edit(float *z, uint32_t vocab, const struct be_sample_row *p);
/* The smallest key kept when the largest keys are kept until their count or mass reaches target; 0 = keep
 * all. */
uint64_t cpu_sample_cut(const struct cpu_sample_cand *c, size_t n, uint64_t target, bool by_mass);
size_t cpu_sample_keep(struct cpu_sample_cand *c, size_t n,
                       uint64_t cut); /* in place; returns how many stay */
uint64_t cpu_sample_target(float top_p, uint64_t total);
/* The candidates, at most BE_LOGPROBS_MAX, into out->top, sorted. */
void cpu_sample_top(struct be_sample_out *out, const struct cpu_sample_cand *c, size_t n, float log_z);

#endif
