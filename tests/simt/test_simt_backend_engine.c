/* The real engine on the CUDA backend, two steps under way, tokens fed back on the device: random schedules with preemption,
 * prefix hits, chunks and cancellation give the tokens and the log-probabilities' bits of the one-request-at-a-time run. Twin of
 * tests/engine/test_engine_model.c. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "cu_backend.h"
#include "engine/schedules.h"
#include "model.h"
#include "simt_c.h"

static const struct fixture {
    const char *path, *dtype, *quantization;
    enum be_type kv_type;
    bool no_graphs;
    uint32_t schedules;
} fixtures[] = {
    {"tied", "bfloat16", NULL, BE_BF16, false, 4},
    {"mistral_window", "float16", NULL, BE_E4M3, false, 2},
    {"gguf_q4_1/model.gguf", "bfloat16", "fp8", BE_BF16, true, 2},
};

static struct job jobs[SCHEDULE_JOBS], alone[SCHEDULE_JOBS], played[SCHEDULE_JOBS];

static struct engine *open_engine(struct engine_options *o, struct be *be, struct model *m)
{
    struct engine *g = NULL;
    struct err e = {0};
    o->be = be;
    o->model = m;
    if (engine_create(&g, o, &e) != ST_OK || engine_start(g, &e) != ST_OK)
        fail_msg("%s", e.text);
    return g;
}

static void copy_job(struct job *to, const struct job *from)
{
    *to = *from;
    to->r.prompt = to->prompt;
    to->r.bias = to->bias;
}

static void run_alone(struct be *be, struct model *m, const struct engine_options *like, uint32_t n_jobs)
{
    struct engine_options o = {.max_num_seqs = 1,
                               .max_num_batched_tokens = SCHEDULE_CONTEXT,
                               .block_tokens = like->block_tokens,
                               .n_blocks = SCHEDULE_CONTEXT / like->block_tokens,
                               .context_length = SCHEDULE_CONTEXT,
                               .kv_type = like->kv_type};
    struct engine *g = open_engine(&o, be, m);
    for (uint32_t i = 0; i < n_jobs; i++) {
        copy_job(&alone[i], &jobs[i]);
        alone[i].submit_at = 0;
        alone[i].cancel_at = alone[i].cancel_after = DRIVE_NEVER;
        struct drive d = {.g = g, .jobs = &alone[i], .n_jobs = 1};
        drive_run(&d);
    }
    engine_destroy(g);
}

static void compare(const struct job *j, const struct job *lone)
{
    assert_true(j->n_out <= lone->n_out);
    assert_memory_equal(j->out, lone->out, j->n_out * sizeof *j->out);
    assert_memory_equal(j->logprobs, lone->logprobs, j->n_out * sizeof *j->logprobs);
    if (j->finish == ENGINE_FINISH_CANCEL)
        return;
    assert_int_equal(j->n_out, lone->n_out);
    assert_int_equal(j->finish, lone->finish);
}

static void run_schedule(struct be *be, struct model *m, enum be_type kv_type, uint64_t seed)
{
    struct engine_options o;
    schedule_rng = seed;
    sim_seed(seed);
    make_engine(&o);
    o.kv_type = kv_type;
    uint32_t n_jobs = 1 + rnd(8), vocab = model_info(m)->vocab;
    for (uint32_t i = 0; i < n_jobs; i++) {
        make_job(&jobs[i], vocab);
        jobs[i].r.top_k = rnd(3) ? 0 : 1 + rnd(vocab);
        jobs[i].r.top_p = rnd(3) ? 1 : 0.8f;
        jobs[i].r.min_p = rnd(3) ? 0 : 0.05f;
        jobs[i].r.n_logprobs = (int32_t)rnd(3);
    }
    run_alone(be, m, &o, n_jobs);
    struct engine *g = open_engine(&o, be, m);
    for (uint32_t i = 0; i < n_jobs; i++)
        copy_job(&played[i], &jobs[i]);
    struct drive d = {.g = g, .jobs = played, .n_jobs = n_jobs};
    drive_run(&d);
    drive_check_empty(g);
    engine_destroy(g);
    for (uint32_t i = 0; i < n_jobs; i++)
        compare(&played[i], &alone[i]);
}

static void every_schedule_gives_the_tokens_of_the_lone_run(void **state)
{
    (void)state;
    sim_library(false);
    for (size_t i = 0; i < sizeof fixtures / sizeof *fixtures; i++) {
        const struct fixture *f = &fixtures[i];
        char path[512];
        struct err e = {0};
        struct be *be = NULL;
        struct model *m = NULL;
        struct be_options bo = {.device = "cuda",
                                .dtype = f->dtype,
                                .quantization = f->quantization,
                                .deterministic = true,
                                .no_graphs = f->no_graphs};
        struct model_load_options lo = {.max_context = SCHEDULE_CONTEXT, .max_rows = 256};
        snprintf(path, sizeof path, "%s/tests/golden/model/%s", STATOR_SOURCE_DIR, f->path);
        if (cuda_backend_create(&be, &bo, &e) || model_open(&m, path, &e) || model_load(m, be, &lo, &e))
            fail_msg("%s: %s", path, e.text);
        for (uint64_t k = 0; k < f->schedules; k++) {
            print_message("%s seed %llu\n", f->path, (unsigned long long)(1000 * i + k));
            run_schedule(be, m, f->kv_type, 1000 * i + k);
        }
        model_destroy(m);
        be_destroy(be);
    }
    assert_int_equal(sim_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_schedule_gives_the_tokens_of_the_lone_run)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
