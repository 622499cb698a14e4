/* Goal: the step-time model finds a machine out from a wrong guess within 200 steps, keeps to it through noise and stalls,
 * follows when it changes, and gives chunks that fit.
 * Method: machines of SCHEDULING.md 10.2 (weights and math overlap as a 4-norm; contexts and attention add up) with noise,
 * under steps as a busy worker has them: decoding rows and a prompt's chunk. A failing seed is printed and replays with it as
 * argument. */
#define _GNU_SOURCE
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "clock.h"
#include "steptime.h"

enum { RUNS = 40, LEARN = 200, STEPS = 1000 };

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

static double normal(void)
{
    return sqrt(-2 * log(unit())) * cos(6.283185307179586 * unit());
}

struct machine {
    const char *name;
    double fixed_ns, weights_ns, row_ns, attention_ns, context_ns, noise;
};

/* An 8B model in bf16, and a 135M one on two cores. */
static const struct machine machines[] = {
    {"h100", 0.30e6, 5.35e6, 17670, 0.885, 43.7, 0.02},
    {"a100", 0.35e6, 8.77e6, 55840, 2.8, 71.6, 0.02},
    {"cpu2", 0.05e6, 13.5e6, 1.8e6, 590, 1150, 0.02},
};
enum { MACHINES = sizeof machines / sizeof *machines };

static double truth_ns(const struct machine *m, const struct steptime_load *l)
{
    double r = l->n_rows * m->row_ns / m->weights_ns;
    return m->fixed_ns + m->weights_ns * sqrt(sqrt(1 + r * r * r * r)) +
           m->attention_ns * (double)l->attention + m->context_ns * (double)l->context;
}

static int64_t measured_ns(const struct machine *m, const struct steptime_load *l)
{
    return (int64_t)(truth_ns(m, l) * exp(m->noise * normal()));
}

/* A guess off by `wrong`, of the steps' fixed part and of the rest. */
static struct steptime_seed seed_of(const struct machine *m, double wrong, double wrong_attention)
{
    return (struct steptime_seed){.step_ns = (m->fixed_ns + m->weights_ns) * wrong,
                                  .row_ns = m->row_ns * wrong,
                                  .attention_ns = m->attention_ns * wrong_attention,
                                  .context_ns = m->context_ns * wrong_attention};
}

/* Rows come and go slowly; every other step has a chunk. */
struct traffic {
    uint32_t rows;
};

static struct steptime_load next_load(struct traffic *t)
{
    t->rows = (uint32_t)(1 + (t->rows + rnd(9) + 252) % 256);
    struct steptime_load l = {.n_rows = t->rows, .context = t->rows * (100 + rnd(2000))};
    if (rnd(2))
        l = steptime_with_chunk(&l, (uint32_t)rnd(2) * (uint32_t)rnd(8000), 1 + (uint32_t)rnd(1 + rnd(2048)));
    return l;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* P95 of the relative error over STEPS steps, learning on. */
static double p95_error(struct steptime *m, const struct machine *machine, struct traffic *t)
{
    static double errors[STEPS];
    for (uint32_t i = 0; i < STEPS; i++) {
        struct steptime_load l = next_load(t);
        int64_t ns = measured_ns(machine, &l);
        errors[i] = fabs(steptime_predict_ns(m, &l, 0) - (double)ns) / (double)ns;
        steptime_update(m, &l, ns);
    }
    qsort(errors, STEPS, sizeof *errors, by_size);
    return errors[STEPS * 95 / 100];
}

static void learn(struct steptime *m, const struct machine *machine, struct traffic *t, uint32_t steps)
{
    for (uint32_t i = 0; i < steps; i++) {
        struct steptime_load l = next_load(t);
        steptime_update(m, &l, measured_ns(machine, &l));
    }
}

static void error_p95_is_below_8_percent_after_200_steps_from_a_wrong_seed(void **state)
{
    (void)state;
    static const double wrong[][2] = {{2, 2}, {0.5, 0.5}, {2, 0.5}, {0.5, 2}, {1, 1}, {20, 20}, {0.05, 0.05}};
    for (uint32_t k = 0; k < MACHINES; k++)
        for (uint32_t w = 0; w < sizeof wrong / sizeof *wrong; w++) {
            double worst = 0;
            for (uint64_t s = 1; s <= RUNS; s++) {
                struct steptime m;
                struct steptime_seed guess = seed_of(&machines[k], wrong[w][0], wrong[w][1]);
                struct traffic t = {0};
                start(s);
                steptime_init(&m, &guess);
                learn(&m, &machines[k], &t, LEARN);
                double p95 = p95_error(&m, &machines[k], &t);
                if (p95 > 0.08)
                    fail_msg("seed %llu: %s from x%g, x%g: P95 error %.3f", (unsigned long long)seed,
                             machines[k].name, wrong[w][0], wrong[w][1], p95);
                worst = fmax(worst, p95);
            }
            print_message("%s from x%g, x%g: worst P95 error %.1f %%\n", machines[k].name, wrong[w][0],
                          wrong[w][1], 100 * worst);
        }
}

static void prediction_rises_with_each_part_of_the_load(void **state)
{
    (void)state;
    for (uint64_t s = 1; s <= RUNS; s++) {
        start(s);
        const struct machine *machine = &machines[rnd(MACHINES)];
        struct steptime_seed guess = seed_of(machine, 0.1 + 3 * unit(), 0.1 + 3 * unit());
        struct steptime m;
        struct traffic t = {0};
        steptime_init(&m, &guess);
        for (uint32_t round = 0; round < 50; round++) {
            struct steptime_load l = next_load(&t), more;
            steptime_update(&m, &l,
                            (int64_t)rnd((uint64_t)(3 * truth_ns(machine, &l)))); /* any measurement at all */
            double before = 0;
            for (l.n_rows = 0; l.n_rows < 20000; l.n_rows += 1 + (uint32_t)rnd(50)) {
                double ns = steptime_predict_ns(&m, &l, 1.5);
                check(ns >= before && isfinite(ns));
                before = ns;
            }
            l.n_rows = (uint32_t)rnd(9000);
            more = l;
            more.attention += rnd(1000000);
            check(steptime_predict_ns(&m, &more, 0) >= steptime_predict_ns(&m, &l, 0));
            more = l;
            more.context += rnd(1000000);
            check(steptime_predict_ns(&m, &more, 0) >= steptime_predict_ns(&m, &l, 0));
            check(steptime_predict_ns(&m, &l, 1.5) >= steptime_predict_ns(&m, &l, 0));
        }
    }
}

static void fit_is_the_largest_chunk_under_the_cap(void **state)
{
    (void)state;
    for (uint64_t s = 1; s <= RUNS; s++) {
        start(s);
        const struct machine *machine = &machines[rnd(MACHINES)];
        struct steptime_seed guess = seed_of(machine, 0.5 + unit(), 0.5 + unit());
        struct steptime m;
        struct traffic t = {0};
        steptime_init(&m, &guess);
        learn(&m, machine, &t, (uint32_t)rnd(100));
        for (uint32_t round = 0; round < 20; round++) {
            struct steptime_load base = {.n_rows = (uint32_t)rnd(200), .context = rnd(100000)};
            uint32_t start_at = (uint32_t)rnd(100000), want = (uint32_t)rnd(3000), n = 0;
            double cap_ns = truth_ns(machine, &base) * (0.5 + 4 * unit()), z = rnd(2) ? 1.5 : 0;
            for (uint32_t i = 1; i <= want; i++) { /* the twin: one after the other */
                struct steptime_load l = steptime_with_chunk(&base, start_at, i);
                if (steptime_predict_ns(&m, &l, z) > cap_ns)
                    break;
                n = i;
            }
            check(steptime_fit(&m, &base, start_at, want, cap_ns, z) == n);
        }
    }
}

static void a_stall_now_and_then_changes_nothing(void **state)
{
    (void)state;
    for (uint64_t s = 1; s <= RUNS; s++) {
        struct steptime calm, stalled;
        struct steptime_seed guess = seed_of(&machines[0], 2, 2);
        struct traffic t = {0};
        start(s);
        steptime_init(&calm, &guess);
        learn(&calm, &machines[0], &t, LEARN);
        stalled = calm;
        uint64_t doubted = calm.n_doubted;
        for (uint32_t i = 0; i < 100; i++) {
            struct steptime_load l = next_load(&t);
            int64_t ns = measured_ns(&machines[0], &l);
            steptime_update(&calm, &l, ns);
            steptime_update(&stalled, &l, ns);
            if (i % 7 == 0)
                steptime_update(&stalled, &l, 3 * ns);
        }
        check(stalled.n_doubted - calm.n_doubted == 15);
        check(calm.n_doubted - doubted <= 1);
        struct steptime_load l = {.n_rows = 100, .context = 100000};
        check(steptime_predict_ns(&stalled, &l, 1.5) == steptime_predict_ns(&calm, &l, 1.5));
    }
}

static void a_stall_in_the_first_step_is_forgotten(void **state)
{
    (void)state;
    for (uint64_t s = 1; s <= RUNS; s++) {
        struct steptime m;
        struct steptime_seed guess = seed_of(&machines[0], 1, 1);
        struct traffic t = {0};
        start(s);
        steptime_init(&m, &guess);
        struct steptime_load l = next_load(&t);
        steptime_update(&m, &l, 50 * measured_ns(&machines[0], &l));
        learn(&m, &machines[0], &t, LEARN);
        check(p95_error(&m, &machines[0], &t) < 0.08);
    }
}

static void a_machine_of_half_the_speed_is_believed_at_the_fifth_step(void **state)
{
    (void)state;
    for (uint64_t s = 1; s <= RUNS; s++) {
        struct machine slow = machines[0];
        struct steptime m;
        struct steptime_seed guess = seed_of(&slow, 1, 1);
        struct traffic t = {0};
        start(s);
        steptime_init(&m, &guess);
        learn(&m, &slow, &t, LEARN);
        slow.fixed_ns *= 2;
        slow.weights_ns *= 2;
        slow.row_ns *= 2;
        slow.attention_ns *= 2;
        slow.context_ns *= 2;
        uint64_t doubted = m.n_doubted;
        learn(&m, &slow, &t, 5);
        check(m.n_doubted - doubted == 5);
        learn(&m, &slow, &t, LEARN);
        double p95 = p95_error(&m, &slow, &t);
        if (p95 > 0.08)
            fail_msg("seed %llu: P95 error %.3f", (unsigned long long)seed, p95);
    }
}

static void same_steps_give_the_same_bits(void **state)
{
    (void)state;
    double ns[2];
    for (int k = 0; k < 2; k++) {
        struct steptime m;
        struct steptime_seed guess = seed_of(&machines[1], 2, 0.5);
        struct traffic t = {0};
        struct steptime_load l = {.n_rows = 77, .attention = 1000, .context = 5000};
        rng = 7;
        steptime_init(&m, &guess);
        learn(&m, &machines[1], &t, LEARN);
        ns[k] = steptime_predict_ns(&m, &l, 1.5);
    }
    assert_memory_equal(&ns[0], &ns[1], sizeof *ns);
}

/* No bound is asserted: the machine may be busy. Asked for: a fit below 1 us. */
static void what_a_fit_and_an_update_cost(void **state)
{
    (void)state;
    struct steptime m;
    struct steptime_seed guess = seed_of(&machines[0], 1, 1);
    struct traffic t = {0};
    uint64_t sum = 0;
    rng = 1;
    steptime_init(&m, &guess);
    learn(&m, &machines[0], &t, LEARN);
    enum { TIMES = 100000 };
    struct steptime_load l = {.n_rows = 200, .context = 100000};
    int64_t t0 = clock_now_ns();
    for (uint32_t i = 0; i < TIMES; i++)
        sum += steptime_fit(&m, &l, i % 5000, 2048, 15e6, 1.5);
    int64_t t1 = clock_now_ns();
    for (uint32_t i = 0; i < TIMES; i++)
        steptime_update(&m, &l, (int64_t)truth_ns(&machines[0], &l));
    int64_t t2 = clock_now_ns();
    print_message("fit %.0f ns, update %.0f ns (mean chunk %.0f)\n", (double)(t1 - t0) / TIMES,
                  (double)(t2 - t1) / TIMES, (double)sum / TIMES);
    assert_true(sum > 0);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        only_seed = strtoull(argv[1], NULL, 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_p95_is_below_8_percent_after_200_steps_from_a_wrong_seed),
        cmocka_unit_test(prediction_rises_with_each_part_of_the_load),
        cmocka_unit_test(fit_is_the_largest_chunk_under_the_cap),
        cmocka_unit_test(a_stall_now_and_then_changes_nothing),
        cmocka_unit_test(a_stall_in_the_first_step_is_forgotten),
        cmocka_unit_test(a_machine_of_half_the_speed_is_believed_at_the_fifth_step),
        cmocka_unit_test(same_steps_give_the_same_bits),
        cmocka_unit_test(what_a_fit_and_an_update_cost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
