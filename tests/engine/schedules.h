/* schedules: random engines and random requests, reproducible from a seed.
 *
 * Owns     the generator's state: one test, one thread.
 * Bounds   SCHEDULE_JOBS jobs of at most SCHEDULE_CONTEXT tokens.
 */
#ifndef STATOR_TEST_SCHEDULES_H
#define STATOR_TEST_SCHEDULES_H

#include "drive.h"

enum { SCHEDULE_JOBS = 28, SCHEDULE_CONTEXT = 160 };

static uint64_t schedule_rng;

static inline uint32_t rnd(uint32_t n)
{
    schedule_rng = schedule_rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(schedule_rng >> 33) % n;
}

static inline void make_job(struct job *j, uint32_t vocab)
{
    *j = (struct job){.cancel_after = DRIVE_NEVER, .cancel_at = DRIVE_NEVER};
    uint32_t base = rnd(3), n = 1 + rnd(120), shared = rnd(n + 1);
    if (rnd(4) == 0) /* whole blocks, all of them shared: a prompt that may be fully cached */
        shared = n = 16 * (1 + rnd(7));
    for (uint32_t i = 0; i < n; i++)
        j->prompt[i] = i < shared ? (int32_t)((i * 7 + base * 31) % vocab) : (int32_t)rnd(vocab);
    struct engine_request *r = &j->r;
    r->prompt = j->prompt;
    r->n_prompt = n;
    r->max_tokens = 1 + rnd(rnd(3) ? 12 : SCHEDULE_CONTEXT - n);
    r->temperature = rnd(2) ? 0 : 0.7f;
    r->top_p = 1;
    r->repetition = rnd(4) ? 1 : 1.3f;
    r->frequency = rnd(4) ? 0 : 0.4f;
    r->presence = rnd(4) ? 0 : -0.3f;
    r->seed = rnd(1000);
    r->n_logprobs = -1;
    r->n_stop_tokens = rnd(3);
    for (uint32_t i = 0; i < r->n_stop_tokens; i++)
        r->stop_tokens[i] = (int32_t)rnd(vocab);
    r->ignore_eos = rnd(4) == 0;
    r->n_bias = rnd(4) ? 0 : 1 + rnd(4);
    for (uint32_t i = 0; i < r->n_bias; i++) {
        j->bias[i].token = (int32_t)(i * (vocab / 4) + rnd(vocab / 4));
        j->bias[i].add = (float)rnd(5) - 2;
    }
    r->bias = j->bias;
    r->cache_salt[0] = (uint8_t)(rnd(4) == 0);
    j->submit_at = rnd(60);
    if (rnd(5) == 0)
        j->cancel_after = rnd(10);
    else if (rnd(8) == 0)
        j->cancel_at = rnd(100);
}

/* What a client may say about urgency. */
static inline void make_hints(struct engine_request *r)
{
    r->priority = rnd(3) ? (int32_t)rnd(4) - 1 : (int32_t)rnd(30) - 10;
    r->strict_priority = rnd(8) ? 0 : (int32_t)rnd(4);
    r->expected_output_tokens = rnd(2) ? 0 : (int32_t)(1 + rnd(SCHEDULE_CONTEXT));
    r->latency_sensitivity = rnd(3) ? 0.5f : (float)rnd(101) / 100;
    r->iat_ms = rnd(3) ? 0 : (int64_t)rnd(1000);
}

/* Priorities whose points are soon waited for, and a host tier that may be tiny. For engines whose steps take microseconds. */
static inline void make_policy(struct engine_options *o)
{
    o->policy = (struct engine_policy){.priorities = rnd(4) != 0,
                                       .aging_ms = 1 + rnd(rnd(2) ? 5 : 1000),
                                       .priority_clamp = rnd(12),
                                       .classes = {0, 5, 10},
                                       .max_step_ms = rnd(2) ? 0 : 1 + rnd(20),
                                       .slo_ttft_ms = rnd(4) ? 0 : 1 + rnd(20),
                                       .slo_itl_ms = rnd(4) ? 0 : 1 + rnd(20),
                                       .batch_wait_ms = rnd(3) ? 0 : 1 + rnd(3)};
    o->n_host_blocks = rnd(3) ? 1 + rnd(rnd(2) ? 6 : 60) : 0;
}

static inline void make_engine(struct engine_options *o)
{
    *o = (struct engine_options){.context_length = SCHEDULE_CONTEXT, .kv_type = BE_F16};
    o->block_tokens = rnd(3) ? 16 : 32;
    o->n_blocks = SCHEDULE_CONTEXT / o->block_tokens + (rnd(2) ? rnd(20) : 0);
    o->max_num_seqs = 1 + rnd(8);
    o->max_num_batched_tokens = o->max_num_seqs + rnd(rnd(2) ? 8 : 100);
    o->max_queue = rnd(8);
    o->prefix_caching = rnd(4) != 0;
    o->test_seed = rnd(3) ? 1 + rnd(1u << 30) : 0;
}

#endif
