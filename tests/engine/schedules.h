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
