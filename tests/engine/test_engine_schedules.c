/* Goal: every schedule gives the tokens and log-probabilities of the one-at-a-time run, whether steps run one by one or two are
 * under way. Method: random engines (block size, pool just large enough, slots, budget, caching, priorities, a host tier, caps
 * on time, disturbances) are fed random requests (shared prefixes, salts, penalties, biases, seeds, stop tokens, hints,
 * grammars, arrivals, cancels) on a backend whose tokens show any mistake (fake_be.h). After each: no block and no slot is
 * missing, every request got exactly one END, last. A failing seed is printed and replays with it as argument. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "drive.h"
#include "fake_be.h"
#include "grammar_jobs.h"
#include "schedules.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SEEDS = 60 };
#else
enum { SEEDS = 500 }; /* each at both depths */
#endif

static uint64_t only_seed;
static struct job jobs[SCHEDULE_JOBS];

static int open_grammars(void **state)
{
    (void)state;
    grammar_jobs_open(FAKE_VOCAB);
    return 0;
}

static int close_grammars(void **state)
{
    (void)state;
    grammar_jobs_close();
    return 0;
}

static void check_job(const struct job *j)
{
    int32_t want[DRIVE_TOKENS_MAX];
    float logprobs[DRIVE_TOKENS_MAX];
    bool stopped;
    uint32_t n = fake_reference(&j->r, want, logprobs, &stopped);
    assert_true(j->n_out <= n);
    assert_memory_equal(j->out, want, j->n_out * sizeof *want);
    assert_memory_equal(j->logprobs, logprobs, j->n_out * sizeof *logprobs);
    if (j->finish == ENGINE_FINISH_CANCEL) {
        assert_true(j->cancel_after != DRIVE_NEVER || j->cancel_at != DRIVE_NEVER);
        return;
    }
    assert_int_equal(j->n_out, n);
    assert_int_equal(j->finish, stopped ? ENGINE_FINISH_STOP : ENGINE_FINISH_LENGTH);
}

static uint64_t hits, preemptions, cancels, saved, loaded, by_resource[ENGINE_RESOURCES];

static void run_schedule(uint64_t seed, uint32_t depth)
{
    struct engine_options o;
    struct fake_be f = {.depth = depth};
    struct engine *g;
    struct err e = {0};
    schedule_rng = seed;
    make_engine(&o);
    make_policy(&o);
    uint64_t live = mem_live();
    if (fake_engine_create(&g, &f, &o, &e) != ST_OK || engine_start(g, &e) != ST_OK)
        fail_msg("%s", e.text);
    struct drive d = {.g = g, .jobs = jobs, .n_jobs = 1 + rnd(SCHEDULE_JOBS)};
    d.pop_pause = rnd(4) ? 0 : 3;
    for (uint32_t i = 0; i < d.n_jobs; i++) {
        make_job(&jobs[i], FAKE_VOCAB);
        make_hints(&jobs[i].r);
        grammar_jobs_pick(&jobs[i].r);
    }
    drive_run(&d);
    drive_check_empty(g);
    struct engine_stats st;
    engine_stats(g, &st);
    assert_false(st.failed);
    if (!o.prefix_caching)
        assert_int_equal(st.blocks_cached, 0);
    engine_destroy(g);
    assert_int_equal(mem_live(), live);
    for (uint32_t i = 0; i < d.n_jobs; i++)
        check_job(&jobs[i]);
    hits += st.prefix_hit_tokens;
    preemptions += st.preemptions;
    cancels += st.cancelled;
    saved += st.blocks_saved;
    loaded += st.blocks_loaded;
    for (int victim = 0; victim < ENGINE_CLASSES; victim++)
        for (int r = 0; r < ENGINE_CLASSES * ENGINE_RESOURCES; r++)
            by_resource[r % ENGINE_RESOURCES] +=
                st.cls[victim].preemptions[r / ENGINE_RESOURCES][r % ENGINE_RESOURCES];
}

static void every_schedule_gives_the_tokens_of_the_lone_run(void **state)
{
    (void)state;
    uint64_t fresh = (uint64_t)time(NULL) * 1000;
    for (uint64_t i = 0; i < SEEDS && !only_seed; i++) {
        uint64_t seed = i < SEEDS / 2 ? i + 1 : fresh + i;
        printf("schedule seed %llu\n", (unsigned long long)seed);
        fflush(stdout);
        run_schedule(seed, 1);
        run_schedule(seed, 2);
    }
    if (only_seed) {
        run_schedule(only_seed, 1);
        run_schedule(only_seed, 2);
        return;
    }
    printf("%llu tokens from the cache, %llu cancels; %llu preemptions: for places %llu, blocks %llu, growth "
           "%llu; %llu blocks "
           "saved, %llu loaded\n",
           (unsigned long long)hits, (unsigned long long)cancels, (unsigned long long)preemptions,
           (unsigned long long)by_resource[ENGINE_SLOTS], (unsigned long long)by_resource[ENGINE_BLOCKS],
           (unsigned long long)by_resource[ENGINE_GROWTH], (unsigned long long)saved,
           (unsigned long long)loaded);
    assert_true(hits && preemptions && cancels && saved && loaded);
    assert_true(by_resource[ENGINE_SLOTS] && by_resource[ENGINE_BLOCKS] && by_resource[ENGINE_GROWTH]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_schedule_gives_the_tokens_of_the_lone_run)};
    if (argc > 1)
        only_seed = strtoull(argv[1], NULL, 10);
    return cmocka_run_group_tests(tests, open_grammars, close_grammars);
}
