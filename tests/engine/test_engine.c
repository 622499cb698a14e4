/* Goal: the engine's contract, one rule at a time, on the fake backend; all of it twice: with one step under way and with two. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "drive.h"
#include "fake_be.h"

static const struct engine_options defaults = {.max_num_seqs = 4,
                                               .max_num_batched_tokens = 64,
                                               .max_queue = 4,
                                               .block_tokens = 16,
                                               .n_blocks = 40,
                                               .context_length = 200,
                                               .kv_type = BE_F16,
                                               .prefix_caching = true};

static uint32_t depth;

static struct engine *start(struct fake_be *f, struct engine_options o)
{
    struct engine *g = NULL;
    struct err e = {0};
    f->depth = depth;
    if (fake_engine_create(&g, f, &o, &e) != ST_OK || engine_start(g, &e) != ST_OK)
        fail_msg("%s", e.text);
    return g;
}

static void fill(struct job *j, uint32_t n_prompt, uint32_t max_tokens, int32_t first)
{
    *j = (struct job){.cancel_after = DRIVE_NEVER, .cancel_at = DRIVE_NEVER};
    for (uint32_t i = 0; i < n_prompt; i++)
        j->prompt[i] = (int32_t)(i + (uint32_t)first) % FAKE_VOCAB;
    j->r = (struct engine_request){.prompt = j->prompt,
                                   .n_prompt = n_prompt,
                                   .max_tokens = max_tokens,
                                   .top_p = 1,
                                   .repetition = 1,
                                   .n_logprobs = -1};
}

static void matches_reference(const struct job *j)
{
    int32_t want[DRIVE_TOKENS_MAX];
    float logprobs[DRIVE_TOKENS_MAX];
    bool stopped;
    uint32_t n = fake_reference(&j->r, want, logprobs, &stopped);
    assert_int_equal(j->n_out, n);
    assert_memory_equal(j->out, want, n * sizeof *want);
    assert_memory_equal(j->logprobs, logprobs, n * sizeof *logprobs);
    assert_int_equal(j->finish, stopped ? ENGINE_FINISH_STOP : ENGINE_FINISH_LENGTH);
}

static void run_one(struct engine *g, struct job *j)
{
    struct drive d = {.g = g, .jobs = j, .n_jobs = 1};
    drive_run(&d);
}

static void cached_prompt_still_computes_its_last_token(void **state)
{
    (void)state;
    struct fake_be f = {0};
    struct engine *g = start(&f, defaults);
    static struct job j;
    fill(&j, 64, 5, 0);
    run_one(g, &j);
    assert_int_equal(j.n_cached, 0);
    matches_reference(&j);
    fill(&j, 64, 5, 0);
    run_one(g, &j);
    assert_int_equal(j.n_cached, 48);
    matches_reference(&j);
    fill(&j, 65, 5, 0);
    run_one(g, &j);
    assert_int_equal(j.n_cached, 64);
    matches_reference(&j);
    fill(&j, 65, 5, 0);
    j.r.cache_salt[31] = 1;
    run_one(g, &j);
    assert_int_equal(j.n_cached, 0);
    matches_reference(&j);
    struct engine_stats st;
    engine_stats(g, &st);
    assert_int_equal(st.prefix_query_tokens, 64 + 64 + 65 + 65);
    assert_int_equal(st.prefix_hit_tokens, 48 + 64);
    assert_int_equal(st.prompt_tokens, 64 + 64 + 65 + 65);
    assert_int_equal(st.output_tokens, 20);
    drive_check_empty(g);
    engine_destroy(g);
}

static void answer_of_a_turn_is_cached_for_the_next(void **state)
{
    (void)state;
    struct fake_be f = {0};
    struct engine *g = start(&f, defaults);
    static struct job a, b;
    fill(&a, 20, 60, 3);
    run_one(g, &a);
    fill(&b, 90, 3, 3);
    memcpy(b.prompt + 20, a.out, 60 * sizeof *a.out);
    run_one(g, &b);
    assert_int_equal(b.n_cached, 64); /* 79 positions were computed: four full blocks */
    matches_reference(&b);
    engine_destroy(g);
}

static void long_prompt_is_chunked_under_the_budget(void **state)
{
    (void)state;
    struct fake_be f = {0};
    struct engine_options o = defaults;
    o.max_num_batched_tokens = 32;
    struct engine *g = start(&f, o);
    static struct job j;
    fill(&j, 150, 2, 0);
    run_one(g, &j);
    matches_reference(&j);
    struct engine_stats st;
    drive_check_empty(g);
    engine_stats(g, &st);
    assert_int_equal(st.steps, 5 + 1);
    assert_int_equal(st.step_rows, 150 + 1);
    engine_destroy(g);
}

static uint64_t steps_within_5_s(const struct engine *g, uint64_t want)
{
    struct engine_stats st;
    engine_stats(g, &st);
    for (int i = 0; i < 5000 && st.steps < want; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        engine_stats(g, &st);
    }
    return st.steps;
}

/* As many steps as tokens, and the device has its next one before the host waits for the one before. */
static void device_is_given_all_the_steps_that_it_takes(void **state)
{
    (void)state;
    struct fake_be f = {0};
    struct engine *g = start(&f, defaults);
    static struct job j;
    fill(&j, 30, 100, 0);
    run_one(g, &j);
    matches_reference(&j);
    assert_int_equal(steps_within_5_s(g, 100), 100);
    engine_destroy(g);
    assert_int_equal(f.most_queued, depth);
}

/* The end is seen after the next step was launched: that step is waited for and its row dropped, before the engine sleeps. */
static void end_that_nobody_foresaw_costs_at_most_a_row(void **state)
{
    (void)state;
    struct fake_be f = {0};
    struct engine *g = start(&f, defaults);
    static struct job j;
    int32_t want[DRIVE_TOKENS_MAX];
    float logprobs[DRIVE_TOKENS_MAX];
    bool stopped;
    fill(&j, 30, 100, 0);
    j.r.temperature = 1;
    fake_reference(&j.r, want, logprobs, &stopped);
    j.r.stop_tokens[0] = want[5]; /* so few events that a slow consumer does not hold the engine up */
    j.r.n_stop_tokens = 1;
    uint32_t n = fake_reference(&j.r, want, logprobs, &stopped);
    assert_true(stopped);
    run_one(g, &j);
    matches_reference(&j);
    assert_int_equal(steps_within_5_s(g, n + depth), n + depth);
    drive_check_empty(g);
    engine_destroy(g);
}

static void equal_prompts_are_computed_once(void **state)
{
    (void)state;
    struct fake_be f = {.step_ns = 1000000};
    struct engine *g = start(&f, defaults);
    static struct job j[4];
    for (int i = 0; i < 4; i++) {
        fill(&j[i], 190, 5, 0);
        j[i].r.temperature = 1;
        j[i].r.seed = (uint64_t)i;
    }
    struct drive d = {.g = g, .jobs = j, .n_jobs = 4};
    drive_run(&d);
    uint32_t cached = 0;
    for (int i = 0; i < 4; i++) {
        matches_reference(&j[i]);
        cached += j[i].n_cached;
    }
    assert_true(cached >= 3 * 128); /* the last three blocks are not worth a wait */
    drive_check_empty(g);
    engine_destroy(g);
}

static void full_queue_is_busy_and_release_makes_room(void **state)
{
    (void)state;
    struct fake_be f = {.step_ns = 1000000};
    struct engine *g = start(&f, defaults);
    static struct job j[12];
    uint32_t busy = 0;
    for (int i = 0; i < 12; i++) {
        fill(&j[i], 10, 20, i);
        struct err e = {0};
        int rc = engine_submit(g, &j[i].r, &j[i].slot, &j[i].gen, &e);
        assert_int_equal(rc, i < 8 ? ST_OK : ST_EBUSY);
        busy += rc == ST_EBUSY;
        j[i].submitted = rc == ST_OK;
    }
    assert_int_equal(busy, 4);
    struct drive d = {.g = g, .jobs = j, .n_jobs = 12};
    drive_run(&d);
    for (int i = 0; i < 12; i++)
        matches_reference(&j[i]);
    drive_check_empty(g);
    engine_destroy(g);
}

static void what_can_never_run_is_refused_with_both_numbers(void **state)
{
    (void)state;
    struct fake_be f = {0};
    struct engine_options o = defaults;
    o.n_blocks = 8;
    struct engine *g = start(&f, o);
    static struct job j;
    struct err e = {0};
    uint32_t slot, gen;
    fill(&j, 150, 51, 0);
    assert_int_equal(engine_submit(g, &j.r, &slot, &gen, &e), ST_EINVAL);
    assert_non_null(strstr(e.text, "150"));
    assert_non_null(strstr(e.text, "200"));
    fill(&j, 100, 30, 0);
    assert_int_equal(engine_submit(g, &j.r, &slot, &gen, &e), ST_EINVAL);
    assert_string_equal(e.text, "prompt of 100 tokens and max_tokens 30 need 9 KV blocks, the cache has 8");
    j.r.max_tokens = UINT32_MAX;
    assert_int_equal(engine_submit(g, &j.r, &slot, &gen, &e), ST_EINVAL);
    j.r.max_tokens = 0;
    assert_int_equal(engine_submit(g, &j.r, &slot, &gen, &e), ST_EINVAL);
    fill(&j, 0, 1, 0);
    assert_int_equal(engine_submit(g, &j.r, &slot, &gen, &e), ST_EINVAL);
    fill(&j, 5, 1, 0);
    j.prompt[3] = FAKE_VOCAB;
    assert_int_equal(engine_submit(g, &j.r, &slot, &gen, &e), ST_EINVAL);
    assert_string_equal(e.text, "prompt[3]: token id 97 is outside the vocabulary (0 to 96)");
    fill(&j, 5, 1, 0);
    j.r.temperature = NAN;
    assert_int_equal(engine_submit(g, &j.r, &slot, &gen, &e), ST_EINVAL);
    fill(&j, 100, 29, 0); /* exactly the pool */
    run_one(g, &j);
    matches_reference(&j);
    engine_destroy(g);
}

static void preemption_loses_no_token(void **state)
{
    (void)state;
    struct fake_be f = {0};
    struct engine_options o = defaults;
    o.n_blocks = 12; /* four of 20 + 100 tokens want 32 */
    struct engine *g = start(&f, o);
    static struct job j[4];
    for (int i = 0; i < 4; i++) {
        fill(&j[i], 20, 100, 5 * i);
        j[i].r.temperature = 0.9f;
        j[i].r.frequency = 0.2f;
        j[i].r.seed = (uint64_t)i;
    }
    struct drive d = {.g = g, .jobs = j, .n_jobs = 4};
    drive_run(&d);
    for (int i = 0; i < 4; i++)
        matches_reference(&j[i]);
    struct engine_stats st;
    engine_stats(g, &st);
    assert_true(st.preemptions > 0);
    drive_check_empty(g);
    engine_destroy(g);
}

static void row_without_a_token_fails_alone(void **state)
{
    (void)state;
    struct fake_be f = {.broken_seed = 77};
    struct engine *g = start(&f, defaults);
    static struct job j[3];
    for (int i = 0; i < 3; i++)
        fill(&j[i], 1, 40, 9 + i);
    j[1].r.seed = 77;
    j[1].r.presence = 0.1f;
    struct drive d = {.g = g, .jobs = j, .n_jobs = 3};
    drive_run(&d);
    assert_int_equal(j[1].finish, ENGINE_FINISH_ERROR);
    assert_int_equal(j[1].status, ST_EINTERNAL);
    assert_true(j[1].n_out < 40);
    matches_reference(&j[0]);
    matches_reference(&j[2]);
    struct engine_stats st;
    engine_stats(g, &st);
    assert_false(st.failed);
    drive_check_empty(g);
    engine_destroy(g);
}

/* Twelve requests while call `k` of begin, forward, sample, end, wait fails; false when that call never came. */
static bool survive_failed_call(uint64_t k, bool once)
{
    struct fake_be f = {.fail_call = k, .fail_once = once};
    uint64_t live = mem_live();
    struct engine *g = start(&f, defaults);
    static struct job j[12];
    for (int i = 0; i < 12; i++) {
        fill(&j[i], 30, 8 + (uint32_t)i, i);
        j[i].submit_at = (uint32_t)i * 6;
    }
    struct drive d = {.g = g, .jobs = j, .n_jobs = 12, .submit_fails_with = ST_EDEVICE};
    drive_run(&d);
    uint32_t errors = 0;
    for (int i = 0; i < 12; i++) {
        int32_t want[DRIVE_TOKENS_MAX];
        float logprobs[DRIVE_TOKENS_MAX];
        bool stopped;
        uint32_t n = fake_reference(&j[i].r, want, logprobs, &stopped);
        assert_true(j[i].n_out <= n);
        assert_memory_equal(j[i].out, want, j[i].n_out * sizeof *want);
        errors += j[i].finish == ENGINE_FINISH_ERROR;
    }
    struct engine_stats st;
    drive_check_empty(g);
    engine_stats(g, &st);
    engine_destroy(g);
    assert_int_equal(mem_live(), live);
    bool failed = f.calls >= k;
    assert_int_equal(st.failed, failed);
    assert_int_equal(errors > 0, failed);
    return failed;
}

static void failed_device_ends_everything_once(void **state)
{
    (void)state;
    for (int once = 0; once < 2; once++) {
        uint64_t k = 1;
        while (survive_failed_call(k, once))
            k++;
        assert_true(k > 5 * 30);
    }
}

static void slow_consumer_stalls_steps_and_loses_nothing(void **state)
{
    (void)state;
    struct fake_be f = {0};
    struct engine *g = start(&f, defaults);
    static struct job j[4];
    struct engine_stats st, later;
    for (int i = 0; i < 4; i++) {
        fill(&j[i], 10, 180, i);
        assert_int_equal(engine_submit(g, &j[i].r, &j[i].slot, &j[i].gen, NULL), ST_OK);
        j[i].submitted = true;
    }
    do { /* until two looks a while apart see the same: the ring is full */
        engine_stats(g, &st);
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
        engine_stats(g, &later);
    } while (later.steps != st.steps || later.steps == 0);
    assert_in_range(later.output_tokens, 1, (3 + depth) * defaults.max_num_seqs); /* none that an END needs */
    engine_cancel(g, j[3].slot, j[3].gen); /* heard although nothing is popped */
    for (int i = 0; i < 2000 && st.cancelled == 0; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        engine_stats(g, &st);
    }
    assert_int_equal(st.cancelled, 1);
    struct drive d = {.g = g, .jobs = j, .n_jobs = 4};
    drive_run(&d);
    for (int i = 0; i < 3; i++)
        matches_reference(&j[i]);
    assert_int_equal(j[3].finish, ENGINE_FINISH_CANCEL);
    drive_check_empty(g);
    engine_destroy(g);
}

static void idle_engine_uses_no_processor(void **state)
{
    (void)state;
    struct fake_be f = {0};
    struct engine *g = start(&f, defaults);
    static struct job j;
    fill(&j, 10, 5, 0);
    run_one(g, &j);
    drive_check_empty(g);
    assert_true(atomic_load(&f.wakes) > 0);
    struct timespec a, b;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    assert_true((b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec < 30000000);
    engine_destroy(g);
}

static void destroy_in_full_swing_leaks_nothing(void **state)
{
    (void)state;
    uint64_t live = mem_live();
    for (int round = 0; round < 20; round++) {
        struct fake_be f = {.step_ns = round % 2 ? 100000 : 0};
        struct engine *g = start(&f, defaults);
        static struct job j[8];
        for (int i = 0; i < 8; i++) {
            fill(&j[i], 40, 100, i);
            assert_int_equal(engine_submit(g, &j[i].r, &j[i].slot, &j[i].gen, NULL), ST_OK);
        }
        nanosleep(&(struct timespec){.tv_nsec = 300000 * round}, NULL);
        engine_destroy(g);
        assert_int_equal(mem_live(), live);
    }
    struct fake_be f = {0};
    struct engine_options o = defaults;
    struct engine *g = NULL;
    assert_int_equal(fake_engine_create(&g, &f, &o, NULL), ST_OK);
    engine_destroy(g); /* never started */
    assert_int_equal(mem_live(), live);
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    uint64_t live = mem_live(), k = 1;
    for (;; k++) {
        struct fake_be f = {.depth = depth};
        struct engine_options o = defaults;
        struct engine *g = NULL;
        struct err e = {0};
        mem_fail_after(k);
        int rc = fake_engine_create(&g, &f, &o, &e);
        mem_fail_after(0);
        if (rc == ST_OK) {
            engine_destroy(g);
            break;
        }
        assert_int_equal(rc, ST_ENOMEM);
        assert_true(e.text[0] != 0);
        assert_int_equal(mem_live(), live);
    }
    assert_true(k > 20);
}

static void bad_options_are_named(void **state)
{
    (void)state;
    static const struct {
        size_t at;
        uint32_t value;
        const char *text;
    } bad[] = {
        {offsetof(struct engine_options, block_tokens), 17, "block-size 17"},
        {offsetof(struct engine_options, block_tokens), 0, "block-size 0"},
        {offsetof(struct engine_options, max_num_seqs), 0, "max-num-seqs 0"},
        {offsetof(struct engine_options, max_num_batched_tokens), 3, "max-num-batched-tokens 3"},
        {offsetof(struct engine_options, n_blocks), 0, "0 blocks"},
        {offsetof(struct engine_options, n_blocks), UINT32_MAX, "4294967295 KV blocks"},
        {offsetof(struct engine_options, context_length), 0, "context-length 0"},
    };
    uint64_t live = mem_live();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct fake_be f = {0};
        struct engine_options o = defaults;
        struct engine *g = NULL;
        struct err e = {0};
        memcpy((char *)&o + bad[i].at, &bad[i].value, sizeof bad[i].value);
        assert_int_equal(fake_engine_create(&g, &f, &o, &e), ST_EINVAL);
        if (!strstr(e.text, bad[i].text))
            fail_msg("\"%s\" does not say \"%s\"", e.text, bad[i].text);
        assert_int_equal(mem_live(), live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cached_prompt_still_computes_its_last_token),
        cmocka_unit_test(answer_of_a_turn_is_cached_for_the_next),
        cmocka_unit_test(long_prompt_is_chunked_under_the_budget),
        cmocka_unit_test(device_is_given_all_the_steps_that_it_takes),
        cmocka_unit_test(end_that_nobody_foresaw_costs_at_most_a_row),
        cmocka_unit_test(equal_prompts_are_computed_once),
        cmocka_unit_test(full_queue_is_busy_and_release_makes_room),
        cmocka_unit_test(what_can_never_run_is_refused_with_both_numbers),
        cmocka_unit_test(preemption_loses_no_token),
        cmocka_unit_test(row_without_a_token_fails_alone),
        cmocka_unit_test(failed_device_ends_everything_once),
        cmocka_unit_test(slow_consumer_stalls_steps_and_loses_nothing),
        cmocka_unit_test(idle_engine_uses_no_processor),
        cmocka_unit_test(destroy_in_full_swing_leaks_nothing),
        cmocka_unit_test(create_survives_every_failed_allocation),
        cmocka_unit_test(bad_options_are_named),
    };
    int failed = 0;
    for (depth = 1; depth <= 2; depth++)
        failed += cmocka_run_group_tests_name(depth == 1 ? "one step at a time" : "two steps under way",
                                              tests, NULL, NULL);
    return failed;
}
