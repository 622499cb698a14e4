/* What the metrics page says of requests by class, and which requests are good. */
#include "clock.h"
#include "timing.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BACKGROUND, NORMAL, ELEVATED, HIGH };
static const int64_t MS = NS_PER_MS;

static struct buf page(const struct metrics *m, const struct engine_stats *s)
{
    struct buf b = {0};
    metrics_put(m, s, STR_LIT("a\"b"), &b);
    assert_int_equal(b.failed, ST_OK);
    return b;
}

#define assert_has(b, text)                              \
    do {                                                 \
        if (!strstr((b).p, text))                        \
            fail_msg("no <%s> in:\n%s", text, (b).p);    \
    } while (0)

static void has_not(const struct buf *b, const char *text)
{
    if (strstr(b->p, text))
        fail_msg("<%s> in:\n%s", text, b->p);
}

/* One request of `n` gaps, `late` of them of 100 ms and the others of 10, that began after 50 ms. */
static void run(struct metrics *m, const struct timing_slo *slo, uint32_t cls, int n, int late, bool good)
{
    struct timing t;
    int64_t now = 1000 * MS;
    timing_init(&t, cls, now);
    now += 50 * MS;
    timing_token(&t, slo, m, now);
    for (int i = 0; i < n; i++)
        timing_token(&t, slo, m, now += (i < late ? 100 : 10) * MS);
    const struct engine_event end = {
        .type = ENGINE_END, .t_ns = now, .scheduled_ns = 1010 * MS, .n_prompt = 3, .n_output = (uint32_t)n + 1};
    timing_end(&t, slo, m, &end, good);
}

static void without_targets_every_good_end_counts(void **state)
{
    (void)state;
    const struct timing_slo none = {0};
    struct metrics m = {0};
    run(&m, &none, NORMAL, 4, 4, true);
    run(&m, &none, HIGH, 9, 9, true);
    run(&m, &none, HIGH, 9, 0, false);
    assert_true(m.good[NORMAL] == 1 && m.good[HIGH] == 1 && m.good[BACKGROUND] == 0);
    assert_true(m.good_tokens[NORMAL] == 5 && m.good_tokens[HIGH] == 10);
}

static void the_first_token_is_held_to_its_target(void **state)
{
    (void)state;
    struct metrics m = {0};
    run(&m, &(struct timing_slo){.ttft_ns = 50 * MS}, NORMAL, 0, 0, true);
    assert_int_equal(m.good[NORMAL], 1);
    run(&m, &(struct timing_slo){.ttft_ns = 50 * MS - 1}, NORMAL, 0, 0, true);
    assert_int_equal(m.good[NORMAL], 1);
}

static void one_gap_in_twenty_may_be_late(void **state)
{
    (void)state;
    const struct timing_slo slo = {.itl_ns = 20 * MS};
    static const struct {
        int gaps, late, good;
    } cases[] = {{0, 0, 1}, {19, 0, 1}, {19, 1, 0}, {20, 1, 1}, {39, 2, 0}, {40, 2, 1}, {100, 5, 1}, {100, 6, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct metrics m = {0};
        run(&m, &slo, ELEVATED, cases[i].gaps, cases[i].late, true);
        assert_int_equal(m.good[ELEVATED], cases[i].good);
    }
}

static void a_request_without_a_token_is_judged_by_its_end(void **state)
{
    (void)state;
    const struct timing_slo slo = {.ttft_ns = 100 * MS};
    struct metrics m = {0};
    struct timing t;
    timing_init(&t, NORMAL, 0);
    timing_end(&t, &slo, &m, &(struct engine_event){.t_ns = 100 * MS}, true);
    assert_int_equal(m.good[NORMAL], 1);
    timing_end(&t, &slo, &m, &(struct engine_event){.t_ns = 100 * MS + 1}, true);
    assert_int_equal(m.good[NORMAL], 1);
}

/* The counted twin: against the percentile of the sorted gaps. */
static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static unsigned seed = 1;

static void the_count_agrees_with_the_percentile(void **state)
{
    (void)state;
    printf("seed %u\n", seed);
    srand(seed);
    for (int round = 0; round < 2000; round++) {
        int64_t gaps[64], now = 0;
        int n = 1 + rand() % 64;
        const struct timing_slo slo = {.itl_ns = 1 + rand() % 100};
        struct metrics m = {0};
        struct timing t;
        timing_init(&t, NORMAL, 0);
        timing_token(&t, &slo, &m, now = 1);
        for (int i = 0; i < n; i++)
            timing_token(&t, &slo, &m, now += gaps[i] = 1 + rand() % 60);
        timing_end(&t, &slo, &m, &(struct engine_event){.t_ns = now}, true);
        qsort(gaps, (size_t)n, sizeof *gaps, ascending);
        int64_t p95 = gaps[(95 * n + 99) / 100 - 1]; /* nearest rank */
        assert_int_equal(m.good[NORMAL], p95 <= slo.itl_ns);
    }
}

static void histograms_have_a_class_and_only_those_seen(void **state)
{
    (void)state;
    struct metrics m = {0};
    const struct timing_slo none = {0};
    run(&m, &none, HIGH, 2, 0, true);
    m.finished[HIGH][METRICS_STOP]++;
    struct buf b = page(&m, &(struct engine_stats){0});
#define NAME "model_name=\"a\\\"b\""
    assert_has(b, "stator_time_to_first_token_seconds_bucket{" NAME ",class=\"high\",le=\"0.06\"} 1\n");
    assert_has(b, "stator_time_to_first_token_seconds_bucket{" NAME ",class=\"high\",le=\"0.04\"} 0\n");
    assert_has(b, "stator_time_to_first_token_seconds_count{" NAME ",class=\"normal\"} 0\n");
    assert_has(b, "stator_inter_token_latency_seconds_count{" NAME ",class=\"high\"} 2\n");
    assert_has(b, "stator_request_queue_time_seconds_sum{" NAME ",class=\"high\"} 0.01\n");
    assert_has(b, "stator_e2e_request_latency_seconds_count{" NAME ",class=\"high\"} 1\n");
    assert_has(b, "stator_request_success_total{" NAME ",class=\"high\",finished_reason=\"stop\"} 1\n");
    assert_has(b, "stator_request_success_total{" NAME ",class=\"normal\",finished_reason=\"abort\"} 0\n");
    assert_has(b, "stator_requests_good_total{" NAME ",class=\"high\"} 1\n");
    assert_has(b, "stator_goodput_tokens_total{" NAME ",class=\"high\"} 3\n");
    has_not(&b, "_bucket{" NAME ",class=\"background\"");
    has_not(&b, "_bucket{" NAME ",class=\"elevated\"");
    has_not(&b, "finished_reason=\"error\"} 1");
    buf_fini(&b);
}

static void the_engines_classes_are_shown_and_totals_stay_apart(void **state)
{
    (void)state;
    struct metrics m = {0};
    struct engine_stats s = {.running = 5, .waiting = 2, .preemptions = 4};
    s.cls[NORMAL] = (struct engine_class_stats){.running = 4, .waiting = 2, .preempted = 1, .resumed_tokens = 64};
    s.cls[NORMAL].preemptions[HIGH][ENGINE_GROWTH] = 3;
    s.cls[BACKGROUND].preemptions[NORMAL][ENGINE_SLOTS] = 1;
    s.cls[HIGH] = (struct engine_class_stats){.running = 1, .aged_ahead = 9, .recomputed_tokens = 7, .held = 8};
    struct buf b = page(&m, &s);
    assert_has(b, "stator_num_requests_running{" NAME "} 5\n");
    assert_has(b, "stator_num_requests_waiting{" NAME "} 2\n");
    has_not(&b, "stator_num_requests_running{" NAME ",");
    assert_has(b, "stator_num_requests_by_class{" NAME ",class=\"normal\",state=\"running\"} 4\n");
    assert_has(b, "stator_num_requests_by_class{" NAME ",class=\"normal\",state=\"preempted\"} 1\n");
    assert_has(b, "stator_num_requests_by_class{" NAME ",class=\"background\",state=\"loading\"} 0\n");
    assert_has(b, "stator_preemptions_total{" NAME ",class=\"normal\",for_class=\"high\",resource=\"growth\"} 3\n"
                  "# HELP");
    assert_has(b, "counter\nstator_preemptions_total{" NAME
                  ",class=\"background\",for_class=\"normal\",resource=\"slot\"} 1\n"
                  "stator_preemptions_total{");
    assert_has(b, "stator_num_preemptions_total{" NAME "} 4\n");
    assert_has(b, "stator_resumed_tokens_total{" NAME ",class=\"normal\"} 64\n");
    assert_has(b, "stator_recomputed_tokens_total{" NAME ",class=\"high\"} 7\n");
    assert_has(b, "stator_aged_ahead_total{" NAME ",class=\"high\"} 9\n");
    assert_has(b, "stator_held_total{" NAME ",class=\"high\"} 8\n");
    buf_fini(&b);
}

static void the_host_tier_is_shown_when_there_is_one(void **state)
{
    (void)state;
    struct metrics m = {0};
    struct engine_stats s = {.blocks_total = 10, .blocks_free = 3, .blocks_cached = 5, .blocks_evicted = 6};
    struct buf b = page(&m, &s);
    assert_has(b, "stator_kv_cache_blocks{" NAME ",tier=\"device\",state=\"pinned\"} 2\n");
    has_not(&b, "tier=\"host\"");
    buf_fini(&b);
    s.host_blocks_total = 100;
    s.host_blocks_free = 30;
    s.host_blocks_cached = 65;
    s.blocks_saved = 70;
    s.blocks_loaded = 9;
    b = page(&m, &s);
    assert_has(b, "stator_kv_cache_blocks{" NAME ",tier=\"host\",state=\"pinned\"} 5\n"
                  "stator_kv_cache_blocks{" NAME ",tier=\"host\",state=\"cached\"} 65\n"
                  "stator_kv_cache_blocks{" NAME ",tier=\"host\",state=\"free\"} 30\n");
    assert_has(b, "stator_kv_blocks_saved_total{" NAME "} 70\n");
    assert_has(b, "stator_kv_blocks_loaded_total{" NAME "} 9\n");
    assert_has(b, "stator_kv_blocks_evicted_total{" NAME "} 6\n");
    buf_fini(&b);
    /* fields of different moments must not make a number of twenty digits */
    s.host_blocks_free = 80;
    b = page(&m, &s);
    assert_has(b, "tier=\"host\",state=\"pinned\"} 0\n");
    buf_fini(&b);
}

static void clamped_hints_are_counted_by_name(void **state)
{
    (void)state;
    struct metrics m = {0};
    metrics_count_hints(&m, 1u << API_HINT_OSL | 1u << API_HINT_PRIORITY);
    metrics_count_hints(&m, 1u << API_HINT_OSL);
    metrics_count_hints(&m, 0);
    struct buf b = page(&m, &(struct engine_stats){0});
    assert_has(b, "stator_hint_clamped_total{" NAME ",hint=\"osl\"} 2\n");
    assert_has(b, "stator_hint_clamped_total{" NAME ",hint=\"priority\"} 1\n");
    assert_has(b, "stator_hint_clamped_total{" NAME ",hint=\"iat\"} 0\n");
    buf_fini(&b);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        seed = (unsigned)strtoul(argv[1], NULL, 10);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_targets_every_good_end_counts),
        cmocka_unit_test(the_first_token_is_held_to_its_target),
        cmocka_unit_test(one_gap_in_twenty_may_be_late),
        cmocka_unit_test(a_request_without_a_token_is_judged_by_its_end),
        cmocka_unit_test(the_count_agrees_with_the_percentile),
        cmocka_unit_test(histograms_have_a_class_and_only_those_seen),
        cmocka_unit_test(the_engines_classes_are_shown_and_totals_stay_apart),
        cmocka_unit_test(the_host_tier_is_shown_when_there_is_one),
        cmocka_unit_test(clamped_hints_are_counted_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
