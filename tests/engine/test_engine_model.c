/* Goal: every schedule gives the tokens of the one-at-a-time run, now on real models and the real CPU backend. Method: the
 * tiny models of tests/golden/model; each request of a random schedule is first run alone (one slot, no prefix cache, whole
 * prompts), then all of them together in a random engine (see schedules.h), once with one step under way and once with two
 * (late_cpu.h), and compared token for token and bit for bit of their log-probabilities. A failing (model, seed) is printed. */
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
#include "model.h"
#include "schedules.h"

enum { SCHEDULES_EACH = 40 };

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

static void run_alone(struct be *be, struct model *m, enum be_type kv_type, uint32_t n_jobs)
{
    struct engine_options o = {.max_num_seqs = 1,
                               .max_num_batched_tokens = SCHEDULE_CONTEXT,
                               .block_tokens = 16,
                               .n_blocks = SCHEDULE_CONTEXT / 16,
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

static void run_together(struct engine_options o, struct be *be, struct model *m, uint32_t n_jobs)
{
    uint64_t live = mem_live();
    struct engine *g = open_engine(&o, be, m);
    for (uint32_t i = 0; i < n_jobs; i++)
        copy_job(&played[i], &jobs[i]);
    struct drive d = {.g = g, .jobs = played, .n_jobs = n_jobs};
    drive_run(&d);
    drive_check_empty(g);
    engine_destroy(g);
    assert_int_equal(mem_live(), live);
    for (uint32_t i = 0; i < n_jobs; i++)
        compare(&played[i], &alone[i]);
}

static void run_schedule(struct be *be, struct model *m, enum be_type kv_type, uint64_t seed, bool deep)
{
    struct engine_options o;
    schedule_rng = seed;
    make_engine(&o);
    o.kv_type = kv_type;
    uint32_t n_jobs = 1 + rnd(12), vocab = model_info(m)->vocab;
    for (uint32_t i = 0; i < n_jobs; i++) {
        make_job(&jobs[i], vocab);
        jobs[i].r.top_k = rnd(3) ? 0 : 1 + rnd(vocab);
        jobs[i].r.top_p = rnd(3) ? 1 : 0.8f;
        jobs[i].r.min_p = rnd(3) ? 0 : 0.05f;
        jobs[i].r.n_logprobs = (int32_t)rnd(3);
    }
    late_cpu_off(be);
    run_alone(be, m, kv_type, n_jobs);
    run_together(o, be, m, n_jobs);
    late_cpu_on(be);
    if (deep)
        run_together(o, be, m, n_jobs);
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
        for (uint64_t k = 0; k < SCHEDULES_EACH; k++) {
            uint64_t seed = k < SCHEDULES_EACH / 2 ? 1000 * i + k : fresh + 1000 * i + k;
            printf("%s seed %llu\n", fixtures[i].path, (unsigned long long)seed);
            fflush(stdout);
            run_schedule(be, m, fixtures[i].kv_type, seed, k % 4 == 0 || all);
        }
        model_destroy(m);
        be_destroy(be);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_schedule_gives_the_tokens_of_the_lone_run)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
