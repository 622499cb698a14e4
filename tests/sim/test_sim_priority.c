/* Goal: what priorities promise, seen in whole workloads: HIGH does not wait for LOW, LOW pays little for it, and tokens are what
 * they were. The bounds leave room for a better scheduler, not for a worse idea. */
#include "sim_case.h"

static void run_both(const char *workload, uint32_t n, struct sim_case *off, struct sim_case *on)
{
    *off = sim_case_of(workload, n);
    *on = sim_case_of(workload, n);
    on->o.policy.priorities = true;
    off->o.max_num_seqs = on->o.max_num_seqs = 64;
    sim_case_run(off);
    sim_case_run(on);
}

static void high_does_not_wait_for_a_flood_of_low(void **state)
{
    enum { HIGH = 3 };
    struct sim_case off, on;
    (void)state;
    run_both("low_flood", 300, &off, &on);
    int64_t before = sim_report_percentile(&off.r, HIGH, SIM_TTFT, 0.5);
    assert_true(before > 5 * (int64_t)NS_PER_S); /* else there was no flood */
    assert_true(sim_report_percentile(&on.r, HIGH, SIM_TTFT, 0.99) < 500 * (int64_t)NS_PER_MS);
    assert_true(sim_report_percentile(&on.r, HIGH, SIM_QUEUE, 0.99) < 150 * (int64_t)NS_PER_MS);
    sim_case_fini(&off);
    sim_case_fini(&on);
}

static void low_loses_less_than_a_tenth_by_it(void **state)
{
    struct sim_case off, on;
    (void)state;
    run_both("low_flood", 300, &off, &on);
    assert_true(on.r.end_ns < off.r.end_ns + off.r.end_ns / 10);
    assert_int_equal(on.r.stats.cls[1].recomputed_tokens, 0);
    sim_case_fini(&off);
    sim_case_fini(&on);
}

/* A HIGH takes at most one place, and gives it back once. */
static void nobody_is_preempted_for_nothing(void **state)
{
    struct sim_case off, on;
    uint32_t n_high = 0, preempted = 0;
    (void)state;
    run_both("low_flood", 300, &off, &on);
    for (uint32_t i = 0; i < on.r.n; i++) {
        n_high += on.r.outcomes[i].cls == 3;
        preempted += on.r.outcomes[i].n_preempted;
    }
    assert_true(preempted > 0 && preempted <= n_high);
    sim_case_fini(&off);
    sim_case_fini(&on);
}

static void priorities_and_a_host_tier_change_no_token(void **state)
{
    static const char *const names[] = {"triage", "thrash", "agents", "longdoc", "diurnal"};
    static const uint32_t n[] = {8, 32, 4, 30, 300};
    (void)state;
    for (int i = 0; i < 5; i++) {
        struct sim_case c = sim_case_of(names[i], n[i]);
        c.o.policy.priorities = true;
        c.o.max_num_seqs = 32;
        c.o.kv_bytes = (uint64_t)140000 * 131072;
        c.o.host_kv_bytes = (uint64_t)400000 * 131072;
        sim_case_run(&c); /* looks at every token */
        assert_int_equal(c.r.n_refused, 0);
        sim_case_fini(&c);
    }
}

static void equal_seeds_give_equal_tables_with_all_of_it_on(void **state)
{
    struct buf text[2] = {{0}, {0}};
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct sim_case c = sim_case_of("agents", 4);
        c.o.policy.priorities = true;
        c.o.kv_bytes = (uint64_t)140000 * 131072;
        c.o.host_kv_bytes = (uint64_t)400000 * 131072;
        sim_case_run(&c);
        sim_report_table(&text[i], &c.r, &c.t, &c.o.policy);
        sim_report_csv(&text[i], &c.r, &c.t, &c.o.policy);
        sim_case_fini(&c);
    }
    assert_string_equal(text[0].p, text[1].p);
    buf_fini(&text[0]);
    buf_fini(&text[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(high_does_not_wait_for_a_flood_of_low),
        cmocka_unit_test(low_loses_less_than_a_tenth_by_it),
        cmocka_unit_test(nobody_is_preempted_for_nothing),
        cmocka_unit_test(priorities_and_a_host_tier_change_no_token),
        cmocka_unit_test(equal_seeds_give_equal_tables_with_all_of_it_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
