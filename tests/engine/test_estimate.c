/* Goal: each estimator finds out what its clients' announcements are worth, and what it tells clients comes true.
 * Method: known answers for the arithmetic; clients with known habits; for Retry-After a queue with n servers and two classes
 * under overload, where each announcement is compared with when a place was free. A failing seed is printed and replays with it
 * as argument. */
#define _GNU_SOURCE
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "estimate.h"

enum { RUNS = 40, NORMAL = 1, HIGH = 3 };
#define SECOND INT64_C(1000000000)

static uint64_t only_seed, seed, rng;

static void start(uint64_t s)
{
    seed = rng = only_seed ? only_seed : s;
}

#define check(what)                                                     \
    do {                                                                \
        if (!(what))                                                    \
            fail_msg("seed %llu: %s", (unsigned long long)seed, #what); \
    } while (0)

static uint64_t rnd(uint64_t n)
{
    uint64_t z = (rng += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) % n;
}

static double unit(void)
{
    return ((double)rnd(1u << 30) + 0.5) / (1u << 30);
}

static bool within(int64_t x, int64_t least, int64_t most)
{
    return x >= least && x <= most;
}

/* ---- output --------------------------------------------------------------------------------------------------------- */

static void a_fresh_estimate_believes_the_client(void **state)
{
    (void)state;
    struct output_estimate s = {0};
    assert_int_equal(estimate_output(&s, NORMAL, 512, 4096), 512);
    assert_int_equal(estimate_output(&s, NORMAL, 1, 4096), 16);
    assert_int_equal(estimate_output(&s, NORMAL, 2048, 9), 9);
    assert_int_equal(estimate_output(&s, NORMAL, UINT32_MAX, 4096), 4096);
    assert_int_equal(estimate_output(&s, NORMAL, 0, 4096), 256);
    assert_int_equal(estimate_output(&s, NORMAL, 0, 100), 100);
}

static void a_constant_512_is_corrected_to_120_within_32_calls(void **state)
{
    (void)state;
    for (uint64_t run = 1; run <= RUNS; run++) {
        start(run);
        struct output_estimate s = {0};
        for (uint32_t i = 0; i < 8; i++)
            estimate_note_output(&s, NORMAL, 512, 4096, 90 + (uint32_t)rnd(61));
        assert_int_equal(estimate_output(&s, NORMAL, 512, 4096), 512); /* too few to judge by */
        for (uint32_t i = 0; i < 24; i++)
            estimate_note_output(&s, NORMAL, 512, 4096, 90 + (uint32_t)rnd(61));
        check(within(estimate_output(&s, NORMAL, 512, 4096), 102, 138));
        assert_int_equal(estimate_output(&s, HIGH, 512, 4096), 512); /* another class is another client */
    }
}

/* T-25: how many fit by what is reserved, against how many do. */
static void concurrency_by_reservation_is_within_10_percent_after_64_calls(void **state)
{
    (void)state;
    enum { POOL = 100000, PROMPT = 200 };
    double sum = 0;
    for (uint64_t run = 1; run <= RUNS; run++) {
        start(run);
        struct output_estimate s = {0};
        for (uint32_t i = 0; i < 64; i++)
            estimate_note_output(&s, NORMAL, 512, 4096, 90 + (uint32_t)rnd(61));
        double ratio = (PROMPT + 120.0) / (PROMPT + estimate_output(&s, NORMAL, 512, 4096));
        check(ratio > 0.9 && ratio < 1.1);
        sum += ratio;
    }
    print_message("concurrency: mean %.3f of the oracle's\n", sum / RUNS);
}

static void short_answers_within_a_small_max_tokens_teach_nothing_wrong(void **state)
{
    (void)state;
    struct output_estimate s = {0};
    for (uint32_t i = 0; i < 100; i++)
        estimate_note_output(&s, NORMAL, 512, 9, 9);
    assert_int_equal(estimate_output(&s, NORMAL, 512, 4096), 512);
}

static void lies_move_the_estimate_by_8_down_and_4_up_at_most(void **state)
{
    (void)state;
    struct output_estimate low = {0}, high = {0};
    for (uint32_t i = 0; i < 1000; i++) {
        estimate_note_output(&low, NORMAL, UINT32_MAX, UINT32_MAX, 0);
        estimate_note_output(&high, NORMAL, 1, 8192, 8192);
    }
    assert_int_equal(estimate_output(&low, NORMAL, 800, 4096), 100);
    assert_int_equal(estimate_output(&high, NORMAL, 800, 4096), 3200);
}

static void without_announcement_it_is_the_70th_percentile_of_the_class(void **state)
{
    (void)state;
    for (uint64_t run = 1; run <= RUNS; run++) {
        start(run);
        struct output_estimate s = {0};
        uint32_t span = 100 + (uint32_t)rnd(3000);
        for (uint32_t i = 0; i < 400; i++)
            estimate_note_output(&s, NORMAL, 0, 8192, 1 + (uint32_t)rnd(span));
        double exact = 0.7 * span;
        check(fabs(estimate_output(&s, NORMAL, 0, 8192) - exact) < 0.25 * exact);
        assert_int_equal(estimate_output(&s, HIGH, 0, 8192),
                         estimate_output(&s, NORMAL, 0, 8192)); /* of all */
        for (uint32_t i = 0; i < 8; i++)
            estimate_note_output(&s, HIGH, 0, 8192, 40);
        check(within(estimate_output(&s, HIGH, 0, 8192), 32, 63));
        for (uint32_t i = 0; i < 4 * 512; i++) /* habits change: the old ones fade */
            estimate_note_output(&s, NORMAL, 0, 8192, 40);
        check(within(estimate_output(&s, NORMAL, 0, 8192), 32, 63));
    }
}

static void an_estimate_stays_within_its_bounds_whatever_is_said(void **state)
{
    (void)state;
    for (uint64_t run = 1; run <= RUNS; run++) {
        start(run);
        struct output_estimate s = {0};
        for (uint32_t i = 0; i < 2000; i++) {
            uint32_t cls = (uint32_t)rnd(ENGINE_CLASSES),
                     cap = (uint32_t)rnd(2) + (uint32_t)rnd(1u << rnd(32));
            uint32_t announced = (uint32_t)rnd(1u << rnd(32)), n = estimate_output(&s, cls, announced, cap);
            check(within(n, cap < 16 ? cap : 16, cap));
            estimate_note_output(&s, cls, announced, cap, (uint32_t)rnd((uint64_t)cap + 1));
        }
    }
}

/* ---- returns and expiry ---------------------------------------------------------------------------------------------- */

static void returns_are_learned_as_a_multiple_of_what_is_announced(void **state)
{
    (void)state;
    for (uint64_t run = 1; run <= RUNS; run++) {
        start(run);
        struct return_estimate s = {0};
        int64_t gap, window;
        assert_true(estimate_return(&s, 10000, &gap, &window));
        assert_int_equal(gap, 10000);
        assert_int_equal(window, 2500);
        for (uint32_t i = 0; i < 64; i++) { /* twice as long as said, give or take a quarter */
            int64_t said = 1000 + (int64_t)rnd(20000);
            estimate_note_return(&s, said, (int64_t)((double)said * (1.5 + unit())));
        }
        assert_true(estimate_return(&s, 10000, &gap, &window));
        check(within(gap, 17500, 22500));
        check(within(window, 1000, 4500));
        assert_true(estimate_return(&s, 100, &gap, &window));
        assert_int_equal(window, 250);
        assert_false(estimate_return(&s, 0, &gap, &window));
        assert_false(estimate_return(&s, -5, &gap, &window));
    }
}

static struct retain_ask ask_of(int64_t points, int64_t iat_ms)
{
    return (struct retain_ask){.now_ns = 1000 * SECOND,
                               .device_residence_ns = 8 * SECOND,
                               .host_residence_ns = 600 * SECOND,
                               .points = points,
                               .iat_ms = iat_ms};
}

static void lying_iat_is_ignored_after_16_that_never_came_back(void **state)
{
    (void)state;
    struct return_estimate s = {0}, fresh = {0};
    struct retain_ask liar = ask_of(0, 45000), silent = ask_of(0, 0);
    struct retain_until plain = estimate_expiry(&fresh, &silent);
    for (uint32_t i = 0; i < 16; i++) {
        assert_int_not_equal(estimate_expiry(&s, &liar).device_ns, plain.device_ns);
        estimate_note_no_return(&s);
    }
    assert_int_equal(estimate_expiry(&s, &liar).device_ns, plain.device_ns);
    assert_int_equal(estimate_expiry(&s, &liar).host_ns, plain.host_ns);
    for (uint32_t i = 0; i < 8; i++) /* it may mend its ways */
        estimate_note_return(&s, 45000, 45000);
    assert_int_not_equal(estimate_expiry(&s, &liar).device_ns, plain.device_ns);
}

static void priority_scales_the_residence_from_half_to_double(void **state)
{
    (void)state;
    struct return_estimate s = {0};
    int64_t before = 0;
    for (int64_t p = -12; p <= 12; p++) {
        struct retain_ask ask = ask_of(p, 0);
        int64_t clamped = p < -8 ? -8 : p > 8 ? 8 : p;
        double exact = 8e9 * (exp2((double)clamped / 8) - 1);
        int64_t x = estimate_expiry(&s, &ask).device_ns - ask.now_ns;
        assert_true(fabs((double)x - exact) < 0.001 * 16e9);
        assert_true(x > before || p <= -8 || p > 8);
        before = x;
    }
}

static void a_near_return_keeps_a_far_one_lets_go_first(void **state)
{
    (void)state;
    struct return_estimate s = {0};
    struct retain_ask near = ask_of(0, 250), later = ask_of(0, 12000), far = ask_of(0, 45000),
                      never = ask_of(0, INT64_MAX);
    assert_int_equal(estimate_expiry(&s, &near).device_ns, near.now_ns);
    assert_int_equal(estimate_expiry(&s, &later).device_ns, later.now_ns + 7 * SECOND); /* and a quarter */
    assert_int_equal(estimate_expiry(&s, &far).device_ns, far.now_ns - 8 * SECOND);
    assert_int_equal(estimate_expiry(&s, &far).host_ns, far.now_ns);
    assert_int_equal(estimate_expiry(&s, &never).device_ns, never.now_ns - 8 * SECOND);
    assert_int_equal(estimate_expiry(&s, &never).host_ns, never.now_ns - 600 * SECOND);
}

/* ---- Retry-After: servers, two classes, one queue --------------------------------------------------------------------- */

enum { SERVERS = 8, PLACES_HIGH = 50, PLACES_NORMAL = 35, SAMPLES = 4000, PENDING = 4096 };

struct world {
    struct service_estimate s;
    double now_s, done_s[SERVERS], work[SERVERS]; /* done_s 0: free */
    double queue[PLACES_HIGH];                    /* works waiting, oldest first */
    uint32_t n_queue;
    struct {
        double at_s, told_s;
    } pending[PENDING]; /* told, and no place yet */
    uint32_t n_pending, n_ratios;
    double ratios[SAMPLES];
    uint64_t n_requests;
    double speed;
};

static double service_s(void) /* mean 30, half of them below 22 */
{
    return -15 * (log(unit()) + log(unit()));
}

static void serve(struct world *w)
{
    for (uint32_t i = 0; i < SERVERS; i++)
        if (w->done_s[i] == 0 && w->n_queue > 0) {
            w->work[i] = w->queue[0];
            w->done_s[i] = w->now_s + w->work[i] / w->speed;
            memmove(w->queue, w->queue + 1, --w->n_queue * sizeof *w->queue);
        }
    if (w->n_queue >= PLACES_NORMAL)
        return;
    for (uint32_t i = 0; i < w->n_pending && w->n_ratios < SAMPLES; i++)
        w->ratios[w->n_ratios++] = (w->now_s - w->pending[i].at_s) / w->pending[i].told_s;
    w->n_pending = 0;
}

static void arrive(struct world *w, uint32_t cls)
{
    int64_t now_ns = (int64_t)(w->now_s * 1e9);
    uint32_t places = cls == HIGH ? PLACES_HIGH : PLACES_NORMAL;
    w->n_requests++;
    if (w->n_queue < places) {
        double work = service_s();
        w->queue[w->n_queue++] = work;
        estimate_note_accepted(&w->s, cls, work, now_ns);
    } else if (cls == NORMAL && w->n_pending < PENDING) {
        struct service_queue q = {.waiting = w->n_queue, .places = places};
        for (uint32_t i = 0; i < w->n_queue; i++)
            q.work += w->queue[i];
        uint32_t told = estimate_retry_after_s(&w->s, cls, &q, now_ns, w->n_requests);
        check(within(told, 1, 120));
        w->pending[w->n_pending].at_s = w->now_s;
        w->pending[w->n_pending++].told_s = told;
    }
}

/* The next arrival, or until half a second has passed: then work was retired. */
static void advance(struct world *w, double load_high, double load_normal)
{
    double rate = w->speed * SERVERS / 30, dt = -log(unit()) / (rate * (load_high + load_normal));
    double until = w->now_s + dt;
    while (w->now_s < until) {
        double to = fmin(until, w->now_s + 0.5), retired = 0;
        for (uint32_t i = 0; i < SERVERS; i++)
            if (w->done_s[i] > 0)
                retired += (fmin(to, w->done_s[i]) - w->now_s) * w->speed;
        if (retired > 0)
            estimate_note_retired(&w->s, retired, (int64_t)((to - w->now_s) * 1e9));
        w->now_s = to;
        for (uint32_t i = 0; i < SERVERS; i++)
            if (w->done_s[i] > 0 && w->done_s[i] <= to)
                w->done_s[i] = 0;
        serve(w);
    }
    arrive(w, unit() * (load_high + load_normal) < load_high ? HIGH : NORMAL);
    serve(w);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Load of the two classes over a day of ten minutes, in what the servers can do. */
struct day {
    const char *name;
    double high_night, high_noon, normal_night, normal_noon, speed;
};

static void what_a_refused_client_is_told_comes_true(void **state)
{
    (void)state;
    static const struct day days[] = {{"diurnal", 0.35, 1.05, 0.2, 1, 1},
                                      {"always too much", 0.1, 0.1, 1.5, 1.5, 1},
                                      {"one class", 1e-9, 1e-9, 0.5, 2, 1},
                                      {"a slow machine", 0.3, 0.8, 0.5, 1.5, 0.3}};
    static struct world w;
    static double medians[RUNS];
    for (uint32_t d = 0; d < sizeof days / sizeof *days; d++) {
        for (uint64_t run = 1; run <= RUNS; run++) {
            start(run);
            memset(&w, 0, sizeof w);
            w.speed = days[d].speed;
            while (w.n_ratios < SAMPLES) {
                double noon = (1 + sin(w.now_s * 6.283185307179586 / 600)) / 2;
                advance(&w, days[d].high_night + noon * (days[d].high_noon - days[d].high_night),
                        days[d].normal_night + noon * (days[d].normal_noon - days[d].normal_night));
            }
            qsort(w.ratios, SAMPLES, sizeof *w.ratios, by_size);
            medians[run - 1] = w.ratios[SAMPLES / 2];
        }
        qsort(medians, RUNS, sizeof *medians, by_size);
        print_message(
            "%s: actual / announced: medians %.2f .. %.2f .. %.2f; of the last run, P10 %.2f, P90 %.2f\n",
            days[d].name, medians[0], medians[RUNS / 2], medians[RUNS - 1], w.ratios[SAMPLES / 10],
            w.ratios[SAMPLES * 9 / 10]);
        assert_true(medians[0] >= 0.7 && medians[RUNS - 1] <= 1.5);
    }
}

static void retry_after_is_spread_and_bounded(void **state)
{
    (void)state;
    struct service_estimate s = {0};
    struct service_queue q = {.waiting = 100, .work = 1000, .places = 91};
    assert_int_equal(estimate_retry_after_s(&s, NORMAL, &q, 0, 1), 1); /* nothing is known */
    for (uint32_t i = 0; i < 100; i++)
        estimate_note_retired(&s, 1, SECOND);
    uint32_t least = 120, most = 0;
    for (uint64_t r = 0; r < 1000;
         r++) { /* ten must leave, every ten seconds one: 95.6 s, and up to a tenth more */
        uint32_t t = estimate_retry_after_s(&s, NORMAL, &q, 0, r);
        least = t < least ? t : least;
        most = t > most ? t : most;
    }
    assert_int_equal(least, 96);
    assert_int_equal(most, 106);
    q.work = 1e6;
    assert_in_range(estimate_retry_after_s(&s, NORMAL, &q, 0, 7), 110, 120);
    q.work = 1000;
    for (uint32_t i = 0; i < 60; i++) /* higher ones bring as much as is retired: no end in sight */
        estimate_note_accepted(&s, HIGH, 2, (int64_t)i * SECOND);
    assert_in_range(estimate_retry_after_s(&s, NORMAL, &q, 60 * SECOND, 7), 110, 120);
    q.work = 20;
    assert_in_range(estimate_retry_after_s(&s, NORMAL, &q, 60 * SECOND, 7), 110, 120);
    assert_int_equal(estimate_retry_after_s(&s, HIGH, &q, 60 * SECOND, 7), 2);
    assert_in_range(estimate_retry_after_s(&s, NORMAL, &q, 3600 * SECOND, 7), 2,
                    3); /* that was an hour ago */
}

int main(int argc, char **argv)
{
    if (argc > 1)
        only_seed = strtoull(argv[1], NULL, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fresh_estimate_believes_the_client),
        cmocka_unit_test(a_constant_512_is_corrected_to_120_within_32_calls),
        cmocka_unit_test(concurrency_by_reservation_is_within_10_percent_after_64_calls),
        cmocka_unit_test(short_answers_within_a_small_max_tokens_teach_nothing_wrong),
        cmocka_unit_test(lies_move_the_estimate_by_8_down_and_4_up_at_most),
        cmocka_unit_test(without_announcement_it_is_the_70th_percentile_of_the_class),
        cmocka_unit_test(an_estimate_stays_within_its_bounds_whatever_is_said),
        cmocka_unit_test(returns_are_learned_as_a_multiple_of_what_is_announced),
        cmocka_unit_test(lying_iat_is_ignored_after_16_that_never_came_back),
        cmocka_unit_test(priority_scales_the_residence_from_half_to_double),
        cmocka_unit_test(a_near_return_keeps_a_far_one_lets_go_first),
        cmocka_unit_test(what_a_refused_client_is_told_comes_true),
        cmocka_unit_test(retry_after_is_spread_and_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
