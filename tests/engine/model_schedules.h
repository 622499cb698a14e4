/* model_schedules: a random schedule of requests on a real model: each request alone first, then all of them together, compared
 * token for token and bit for bit of their log-probabilities. Grammars are those that the test opened (grammar_jobs.h).
 *
 * Owns     the requests of one schedule: one test, one thread.
 * Bounds   those of schedules.h.
 */
#ifndef STATOR_TEST_MODEL_SCHEDULES_H
#define STATOR_TEST_MODEL_SCHEDULES_H

#include "grammar_jobs.h"
#include "model.h"

static struct job jobs[SCHEDULE_JOBS], alone[SCHEDULE_JOBS], played[SCHEDULE_JOBS];

/* Between 1 and `most` requests; returns how many. */
static inline uint32_t make_model_jobs(uint32_t most, uint32_t vocab)
{
    uint32_t n_jobs = 1 + rnd(most);
    for (uint32_t i = 0; i < n_jobs; i++) {
        make_job(&jobs[i], vocab);
        jobs[i].r.top_k = rnd(3) ? 0 : 1 + rnd(vocab);
        jobs[i].r.top_p = rnd(3) ? 1 : 0.8f;
        jobs[i].r.min_p = rnd(3) ? 0 : 0.05f;
        jobs[i].r.n_logprobs = (int32_t)rnd(3);
        grammar_jobs_pick(&jobs[i].r);
    }
    return n_jobs;
}

static inline struct engine *open_engine(struct engine_options *o, struct be *be, struct model *m)
{
    struct engine *g = NULL;
    struct err e = {0};
    o->be = be;
    o->model = m;
    if (engine_create(&g, o, &e) != ST_OK || engine_start(g, &e) != ST_OK)
        fail_msg("%s", e.text);
    return g;
}

static inline void copy_job(struct job *to, const struct job *from)
{
    *to = *from;
    to->r.prompt = to->prompt;
    to->r.bias = to->bias;
}

/* One slot, no prefix cache, whole prompts. */
static inline void run_alone(struct be *be, struct model *m, uint32_t block_tokens, enum be_type kv_type, uint32_t n_jobs)
{
    struct engine_options o = {.max_num_seqs = 1,
                               .max_num_batched_tokens = SCHEDULE_CONTEXT,
                               .block_tokens = block_tokens,
                               .n_blocks = SCHEDULE_CONTEXT / block_tokens,
                               .context_length = SCHEDULE_CONTEXT,
                               .kv_type = kv_type};
    struct engine *g = open_engine(&o, be, m);
    for (uint32_t i = 0; i < n_jobs; i++) {
        copy_job(&alone[i], &jobs[i]);
        alone[i].submit_at = 0;
        alone[i].cancel_at = alone[i].cancel_after = DRIVE_NEVER;
        struct drive d = {.g = g, .jobs = &alone[i], .n_jobs = 1};
        drive_run(&d);
        assert_int_equal(alone[i].n_cached, 0);
        assert_true(alone[i].finish == ENGINE_FINISH_STOP || alone[i].finish == ENGINE_FINISH_LENGTH);
    }
    engine_destroy(g);
}

static inline void compare_jobs(const struct job *j, const struct job *lone)
{
    assert_true(j->n_out <= lone->n_out);
    assert_memory_equal(j->out, lone->out, j->n_out * sizeof *j->out);
    assert_memory_equal(j->logprobs, lone->logprobs, j->n_out * sizeof *j->logprobs);
    if (j->finish == ENGINE_FINISH_CANCEL)
        return;
    assert_int_equal(j->n_out, lone->n_out);
    assert_int_equal(j->finish, lone->finish);
}

static inline void run_together(struct engine_options o, struct be *be, struct model *m, uint32_t n_jobs)
{
    struct engine *g = open_engine(&o, be, m);
    for (uint32_t i = 0; i < n_jobs; i++)
        copy_job(&played[i], &jobs[i]);
    struct drive d = {.g = g, .jobs = played, .n_jobs = n_jobs};
    drive_run(&d);
    drive_check_empty(g);
    engine_destroy(g);
    for (uint32_t i = 0; i < n_jobs; i++)
        compare_jobs(&played[i], &alone[i]);
}

#endif
