/* sim_run: a trace through the real engine, scheduler and cache over the simulated backend: a driver without threads.
 *
 * Owns     the engine and the backend of the run; a sim_result owns its outcomes.
 * Units    ns of virtual time from the start of the trace; tokens; bytes.
 * States   sim_run fills a result, which sim_result_fini empties.
 * Threads  one. Equal options and equal trace give equal results, bit for bit.
 * Errors   ST_EINVAL for what cannot be; ST_ENOMEM; ST_EINTERNAL: the engine stands still with requests left. A wrong token is no
 *          error but a count in the result, which the caller must look at.
 * Bounds   one outcome per request of the trace; digests only for requests that the engine has.
 * Source   shared/design/SCHEDULING.md 10.
 */
#ifndef STATOR_SIM_RUN_H
#define STATOR_SIM_RUN_H

#include "engine.h"
#include "sim_be.h"
#include "sim_trace.h"

struct model_info;

struct sim_options {
    const struct sim_gpu *gpu;
    const struct model_info *model;
    uint64_t seed;
    uint32_t max_num_seqs, max_num_batched_tokens, max_queue, block_tokens;
    uint64_t kv_bytes; /* 0: what the machine's memory leaves, or the workload's own size */
    uint64_t host_kv_bytes;
    struct engine_policy policy;
    bool noise;
    uint64_t test_seed; /* as engine_options: random preemptions, for tests */
};

enum sim_end { SIM_UNSEEN, SIM_REFUSED, SIM_DONE, SIM_FAILED };

struct sim_outcome {
    uint8_t end, cls; /* enum sim_end */
    bool wrong;       /* a token was not the one that it must be */
    uint32_t n_prompt, n_cached, n_output, n_preempted,
        n_late; /* n_late: gaps above the target between tokens */
    int64_t arrival_ns, scheduled_ns, first_ns, last_ns;
};

/* Gaps between tokens: buckets of 1/64 of a power of two. */
enum { SIM_GAPS = 64 * 64 };

struct sim_result {
    struct sim_outcome *outcomes; /* [n] as the trace */
    uint32_t n, n_wrong, n_refused, n_failed;
    uint32_t n_blocks, n_host_blocks, context_length;
    uint64_t gaps[ENGINE_CLASSES][SIM_GAPS];
    int64_t end_ns; /* of the last request */
    struct engine_stats stats;
    struct sim_be_totals totals;
};

int sim_run(struct sim_result *out, const struct sim_options *o, const struct sim_trace *t, struct err *e);
void sim_result_fini(struct sim_result *r);
/* Did it come in time by the policy's targets? */
bool sim_result_good(const struct sim_outcome *x, const struct engine_policy *p);
uint32_t sim_gap_bucket(int64_t gap_ns);
int64_t sim_gap_ns(uint32_t bucket); /* the middle of one */

#endif
