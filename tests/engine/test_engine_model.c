/* Goal: every schedule gives the tokens of the one-at-a-time run, now on real models and the real CPU backend. Method: the
 * tiny models of tests/golden/model; each request of a random schedule is first run alone (one slot, no prefix cache, whole
 * prompts), then all of them together in a random engine (see schedules.h), once with one step under way and once with two
 * (late_cpu.h), and compared token for token and bit for bit of their log-probabilities. A quarter of the requests have grammars.
 * A failing (model, seed) is printed. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "drive.h"
#include "late_cpu.h"
#include "mem.h"
#include "model_schedules.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SCHEDULES_EACH = 10 };
#else
enum { SCHEDULES_EACH = 40 };
#endif

static const struct {
    const char *path, *isa;
    enum be_type kv_type;
    uint32_t threads;
} fixtures[] = {
    {"tied", "auto", BE_F16, 2},
    {"gguf_q4_1/model.gguf", "auto", BE_F16, 2},
    {"gguf_q4_k_m/model.gguf", "auto", BE_BF16, 3},
    {"mistral_window", "auto", BE_F32, 2},
    {"llama3_rope", "c", BE_F16, 1},
};

/* No byte may be left. */
static void run_together_and_count(struct engine_options o, struct be *be, struct model *m, uint32_t n_jobs)
{
    uint64_t live = mem_live();
    run_together(o, be, m, n_jobs);
    assert_int_equal(mem_live(), live);
}

static void run_schedule(struct be *be, struct model *m, enum be_type kv_type, uint64_t seed, bool deep)
{
    struct engine_options o;
    schedule_rng = seed;
    make_engine(&o);
    o.kv_type = kv_type;
    uint32_t n_jobs = make_model_jobs(12, model_info(m)->vocab);
    late_cpu_off(be);
    run_alone(be, m, 16, kv_type, n_jobs);
    run_together_and_count(o, be, m, n_jobs);
    late_cpu_on(be);
    if (deep)
        run_together_and_count(o, be, m, n_jobs);
}

static void every_schedule_gives_the_tokens_of_the_lone_run(void **state)
{
    (void)state;
    uint64_t fresh = (uint64_t)time(NULL) * 1000;
    const char *set = getenv("STATOR_TEST_LONG");
    bool all = set && strcmp(set, "yes") == 0; /* else every fourth schedule runs with two steps under way as well */
    for (size_t i = 0; i < sizeof fixtures / sizeof fixtures[0]; i++) {
        char path[512];
        struct err e = {0};
        struct be *be = NULL;
        struct model *m = NULL;
        struct be_options bo = {.device = "cpu", .threads = fixtures[i].threads, .cpu_isa = fixtures[i].isa};
        struct model_load_options lo = {.max_context = SCHEDULE_CONTEXT, .max_rows = 256};
        snprintf(path, sizeof path, "%s/tests/golden/model/%s", STATOR_SOURCE_DIR, fixtures[i].path);
        if (be_create(&be, &bo, &e) != ST_OK || model_open(&m, path, &e) != ST_OK)
            fail_msg("%s: %s", path, e.text);
        late_cpu_open(be);
        late_cpu_on(be);
        if (model_load(m, be, &lo, &e) != ST_OK)
            fail_msg("%s: %s", path, e.text);
        grammar_jobs_open(model_info(m)->vocab);
        for (uint64_t k = 0; k < SCHEDULES_EACH; k++) {
            uint64_t seed = k < SCHEDULES_EACH / 2 ? 1000 * i + k : fresh + 1000 * i + k;
            printf("%s seed %llu\n", fixtures[i].path, (unsigned long long)seed);
            fflush(stdout);
            run_schedule(be, m, fixtures[i].kv_type, seed, k % 4 == 0 || all);
        }
        grammar_jobs_close();
        model_destroy(m);
        be_destroy(be);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_schedule_gives_the_tokens_of_the_lone_run)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
