/* The real engine on the CUDA backend, two steps under way, tokens fed back on the device: random schedules with preemption,
 * prefix hits, chunks, cancellation and grammars give the tokens and the log-probabilities' bits of the one-request-at-a-time
 * run. Twin of tests/engine/test_engine_model.c. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "cu_backend.h"
#include "engine/model_schedules.h"
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

static void run_schedule(struct be *be, struct model *m, enum be_type kv_type, uint64_t seed)
{
    struct engine_options o;
    schedule_rng = seed;
    sim_seed(seed);
    make_engine(&o);
    o.kv_type = kv_type;
    uint32_t n_jobs = make_model_jobs(8, model_info(m)->vocab);
    run_alone(be, m, o.block_tokens, kv_type, n_jobs);
    run_together(o, be, m, n_jobs);
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
        grammar_jobs_open(model_info(m)->vocab);
        for (uint64_t k = 0; k < f->schedules; k++) {
            print_message("%s seed %llu\n", f->path, (unsigned long long)(1000 * i + k));
            run_schedule(be, m, f->kv_type, 1000 * i + k);
        }
        grammar_jobs_close();
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
