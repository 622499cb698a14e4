/* sim_be: a backend in virtual time: steps and copies take as long as a named machine would need, and compute digests
 * instead of tensors.
 *
 * A position's KV is a digest of its token, its place and the digest before it, found through the block table. What a row draws
 * is known beforehand (sim_token), if the digests it reads are those of its request; otherwise it draws another token. So
 * outputs do not depend on the schedule, and a wrong block, a lost row or a bad copy anywhere shows as a wrong token.
 *
 * Owns     its clock, its digests, the steps and copies under way. One per engine.
 * Units    ns of virtual time, from SIM_BE_START_NS on.
 * States   as backend.h. Time passes in wait_step, to the end of the oldest step, a microsecond in each copy_poll that finds
 *          its copy under way, and in sim_be_advance.
 * Threads  one.
 * Errors   ST_ENOMEM at create; a step or a copy never fails.
 * Bounds   8 bytes per position of pool and host tier; memory of host_alloc is address space only.
 * Source   kernels/backend.h; shared/design/SCHEDULING.md 10.
 */
#ifndef STATOR_SIM_BE_H
#define STATOR_SIM_BE_H

#include "backend.h"
#include "sim_gpu.h"

enum { SIM_BE_START_NS = 1000000000 }; /* not 0, which means "never" to the engine */

/* What a request must read and will draw; be_sample_row.seed is its index. The digests must be there until it has ended. */
struct sim_expect {
    uint64_t text; /* token i of the output is sim_token(text, i) */
    uint32_t n_prompt;
    const uint64_t *digests; /* [positions] sim_be_digest of each */
};

struct sim_be_options {
    const struct sim_gpu *gpu;
    struct sim_model model;
    uint64_t seed; /* of the noise of step times; 0: none */
    uint32_t vocab;
    const struct sim_expect *expect; /* [n_expect] */
    uint32_t n_expect;
};

struct sim_be_totals {
    uint64_t n_steps, n_stored, n_loaded; /* steps; blocks */
    uint64_t n_wrong;                     /* rows that read a digest which is not theirs */
    int64_t busy_ns;                      /* with a step running */
};

/* The digest of a position from that of the one before it (0 before the first). */
static inline uint64_t sim_be_digest(uint64_t before, int32_t token, uint32_t position)
{
    uint64_t z = (before ^ (((uint64_t)position << 32) + (uint32_t)token + 1)) * 0x9e3779b97f4a7c15u;
    return z ^ (z >> 29);
}

int sim_be_create(struct be **out, const struct sim_be_options *o, struct err *e);

/* For struct engine_core; `be` is its ctx. */
int sim_be_forward(void *be, const struct be_batch *batch, struct be_kv *kv, float *logits);
int64_t sim_be_now_ns(void *be);

void sim_be_advance(struct be *be, int64_t now_ns); /* never backwards */
int64_t sim_be_next_copy_ns(const struct be *be); /* when the next copy is done; INT64_MAX: none under way */
void sim_be_totals(const struct be *be, struct sim_be_totals *out);

#endif
