/* Goal: whole workloads through the real engine: right tokens under any schedule, equal results from equal seeds, first
 * come, first served while priorities are off.
 *
 *   test_sim_run [SEED]   the first of the seeds of random schedules */
#include "sim_case.h"

static uint64_t first_seed = 1;

static void every_workload_ends_with_the_right_tokens(void **state)
{
    static const struct {
        const char *name;
        uint32_t n;
    } workloads[] = {{"low_flood", 100}, {"triage", 10}, {"agents", 4},
                     {"longdoc", 60},    {"thrash", 32}, {"diurnal", 500}};
    static const char *const gpus[] = {"h100", "a100"};
    (void)state;
    for (size_t i = 0; i < sizeof workloads / sizeof workloads[0]; i++)
        for (size_t g = 0; g < sizeof gpus / sizeof gpus[0]; g++) {
            struct sim_case c = sim_case_of(workloads[i].name, workloads[i].n);
            c.o.gpu = sim_gpu_find(gpus[g]);
            sim_case_run(&c);
            assert_int_equal(c.r.n_refused, 0);
            sim_case_fini(&c);
        }
}

static void equal_seeds_give_equal_tables(void **state)
{
    struct buf text[3] = {{0}, {0}, {0}};
    (void)state;
    for (uint64_t i = 0; i < 3; i++) {
        struct sim_case c = sim_case_of("triage", 20);
        c.o.seed = i < 2 ? 7 : 8;
        sim_case_run(&c);
        sim_report_table(&text[i], &c.r, &c.t, &c.o.policy);
        sim_report_csv(&text[i], &c.r, &c.t, &c.o.policy);
        assert_int_equal(text[i].failed, ST_OK);
        sim_case_fini(&c);
    }
    assert_string_equal(text[0].p, text[1].p);
    assert_string_not_equal(text[0].p, text[2].p);
    for (int i = 0; i < 3; i++)
        buf_fini(&text[i]);
}

static void preemptions_and_evictions_change_no_token(void **state)
{
    (void)state;
    for (uint64_t seed = first_seed; seed < first_seed + 6; seed++) {
        struct sim_case c = sim_case_of(seed % 2 ? "triage" : "thrash", seed % 2 ? 6 : 24);
        printf("seed %llu\n", (unsigned long long)seed);
        c.o.test_seed = seed;
        c.o.gpu = sim_gpu_find(seed % 3 ? "h100" : "cpu2");
        c.o.kv_bytes = (uint64_t)20000 * 131072;
        c.o.max_num_seqs = 32;
        sim_case_run(&c);
        sim_case_fini(&c);
    }
}

static void without_priorities_it_is_first_come_first_served(void **state)
{
    struct sim_case c = sim_case_of("low_flood", 300);
    (void)state;
    c.o.max_num_seqs = 64;
    sim_case_run(&c);
    for (uint32_t i = 0; i < c.r.n; i++)
        for (uint32_t k = 0; k < c.r.n; k++)
            if (c.r.outcomes[i].arrival_ns < c.r.outcomes[k].arrival_ns)
                assert_true(c.r.outcomes[i].scheduled_ns <= c.r.outcomes[k].scheduled_ns);
    sim_case_fini(&c);
}

static void successors_come_after_their_predecessors(void **state)
{
    static const char *const names[] = {"triage", "agents"};
    (void)state;
    for (int w = 0; w < 2; w++) {
        struct sim_case c = sim_case_of(names[w], w ? 4 : 10);
        sim_case_run(&c);
        for (uint32_t i = 0; i < c.t.n; i++)
            for (uint32_t k = 0; k < c.t.requests[i].n_after; k++) {
                const struct sim_outcome *before = &c.r.outcomes[c.t.requests[i].after + k];
                assert_true(c.r.outcomes[i].arrival_ns >= before->last_ns + c.t.requests[i].delay_ns);
            }
        sim_case_fini(&c);
    }
}

static void sessions_find_their_own_past_in_the_cache(void **state)
{
    struct sim_case c = sim_case_of("agents", 2);
    uint64_t prompt = 0, cached = 0;
    (void)state;
    sim_case_run(&c);
    for (uint32_t i = 0; i < c.r.n; i++) {
        const struct sim_request *q = &c.t.requests[i];
        const struct sim_outcome *x = &c.r.outcomes[i];
        prompt += x->n_prompt;
        cached += x->n_cached;
        if (q->parent !=
            SIM_NONE) /* two sessions fit: all full blocks of what was said, but the last token's */
            assert_true(x->n_cached + 17 >=
                        c.t.requests[q->parent].n_prompt + c.t.requests[q->parent].n_output);
    }
    assert_true(cached * 10 > prompt * 8);
    sim_case_fini(&c);
}

static void what_cannot_run_is_refused_and_the_rest_goes_on(void **state)
{
    static const char text[] =
        "{\"t_ms\": 0, \"prompt_tokens\": 200000, \"output_tokens\": 10, \"conv\": 1}\n"
        "{\"t_ms\": 0, \"prompt_tokens\": 100, \"output_tokens\": 10, \"conv\": 1}\n"
        "{\"t_ms\": 0, \"prompt_tokens\": 3000, \"output_tokens\": 10}\n";
    struct sim_case c = sim_case_empty();
    (void)state;
    assert_int_equal(sim_trace_parse(&c.t, str_from(text), UINT32_MAX, NULL), ST_OK);
    c.o.kv_bytes = (uint64_t)2048 * 131072;
    sim_case_run(&c);
    assert_int_equal(c.r.n_refused, 2); /* one above the context, one above the pool */
    assert_int_equal(c.r.outcomes[1].end, SIM_DONE);
    sim_case_fini(&c);

    c = sim_case_of("low_flood", 100);
    c.o.max_num_seqs = 8;
    c.o.max_queue = 20;
    sim_case_run(&c);
    assert_true(c.r.n_refused >= 72 && c.r.n_refused < c.r.n);
    sim_case_fini(&c);
}

static void goodput_counts_what_came_in_time(void **state)
{
    struct engine_policy none = {0}, slo = {.slo_ttft_ms = 100, .slo_itl_ms = 20};
    struct sim_outcome x = {.end = SIM_DONE, .n_output = 100, .n_late = 5, .first_ns = 100 * NS_PER_MS};
    (void)state;
    assert_true(sim_result_good(&x, &none) && sim_result_good(&x, &slo));
    x.n_late = 6;
    assert_true(sim_result_good(&x, &none) && !sim_result_good(&x, &slo));
    x.n_late = 0;
    x.first_ns++;
    assert_false(sim_result_good(&x, &slo));
    x.end = SIM_REFUSED;
    assert_false(sim_result_good(&x, &none));
}

static void gaps_fall_into_buckets_of_a_per_cent(void **state)
{
    uint32_t last = 0;
    (void)state;
    for (int64_t v = 1; v < (int64_t)1 << 50; v += v / 50 + 1) {
        uint32_t b = sim_gap_bucket(v);
        int64_t back = sim_gap_ns(b), off = back > v ? back - v : v - back;
        assert_true(b >= last && b < SIM_GAPS && off * 100 <= v);
        last = b;
    }
    assert_true(sim_gap_bucket(INT64_MAX) < SIM_GAPS && sim_gap_bucket(-5) == 0);
}

static void a_run_survives_any_failed_allocation(void **state)
{
    struct sim_case c = sim_case_of("low_flood", 3);
    uint64_t before = mem_live();
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct err e = {0};
        mem_fail_after(n);
        int rc = sim_run(&c.r, &c.o, &c.t, &e);
        mem_fail_after(0);
        if (rc == ST_OK)
            break;
        assert_int_equal(rc, ST_ENOMEM);
        assert_true(mem_live() == before);
    }
    sim_case_fini(&c);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_workload_ends_with_the_right_tokens),
        cmocka_unit_test(equal_seeds_give_equal_tables),
        cmocka_unit_test(preemptions_and_evictions_change_no_token),
        cmocka_unit_test(without_priorities_it_is_first_come_first_served),
        cmocka_unit_test(successors_come_after_their_predecessors),
        cmocka_unit_test(sessions_find_their_own_past_in_the_cache),
        cmocka_unit_test(what_cannot_run_is_refused_and_the_rest_goes_on),
        cmocka_unit_test(goodput_counts_what_came_in_time),
        cmocka_unit_test(gaps_fall_into_buckets_of_a_per_cent),
        cmocka_unit_test(a_run_survives_any_failed_allocation),
    };
    if (argc > 1)
        first_seed = strtoull(argv[1], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
