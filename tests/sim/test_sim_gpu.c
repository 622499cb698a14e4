/* Goal: the cost model gives the worked table of the design, and what must rise rises. */
#include "sim_case.h"

static struct sim_model model_8b(void)
{
    struct sim_case c = sim_case_empty();
    struct sim_model m;
    sim_model_from(&m, c.o.model);
    sim_case_fini(&c);
    return m;
}

/* `rows` decodes at position 500 and a chunk at position 0, in ms. */
static double step_ms(const char *gpu, uint32_t rows, uint32_t chunk)
{
    struct sim_model m = model_8b();
    struct sim_load l = {.n_rows = rows + chunk,
                         .n_sampled = rows,
                         .attention2 = (uint64_t)chunk * chunk,
                         .context = (uint64_t)rows * 500};
    return sim_gpu_step_ns(sim_gpu_find(gpu), &m, &l, 0) / 1e6;
}

static void the_model_has_the_numbers_of_the_8b(void **state)
{
    (void)state;
    struct sim_model m = model_8b();
    assert_true(m.linear_params > 6.97e9 && m.linear_params < 6.99e9);
    assert_true(m.read_bytes > 15.0e9 && m.read_bytes < 15.02e9);
    assert_true(m.resident_bytes > 16.0e9 && m.resident_bytes < 16.1e9);
    assert_int_equal((int)m.kv_bytes, 131072);
}

static void steps_take_what_the_design_worked_out(void **state)
{
    static const uint32_t rows[3] = {1, 64, 200}, chunks[6] = {0, 128, 256, 512, 1024, 2048};
    static const double want[3][6] = {{5.3, 5.4, 6.0, 9.7, 18.8, 37.9},
                                      {6.7, 7.0, 8.1, 12.1, 21.3, 40.4},
                                      {10.0, 11.1, 13.0, 17.4, 26.7, 45.8}};
    (void)state;
    for (int r = 0; r < 3; r++)
        for (int c = 0; c < 6; c++) {
            double ms = step_ms("h100", rows[r], chunks[c]);
            if (ms < 0.9 * want[r][c] || ms > 1.1 * want[r][c])
                fail_msg("%u rows and a chunk of %u: %.2f ms, %.1f expected", rows[r], chunks[c], ms,
                         want[r][c]);
        }
}

static void more_work_takes_longer_and_better_machines_take_less(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 256; n *= 2) {
        assert_true(step_ms("h100", 2 * n, 0) > step_ms("h100", n, 0));
        assert_true(step_ms("h100", n, 2 * n) > step_ms("h100", n, n));
        assert_true(step_ms("h200", n, n) < step_ms("h100", n, n));
        assert_true(step_ms("a100", n, n) > step_ms("h100", n, n));
        assert_true(step_ms("cpu2", n, n) > step_ms("a100", n, n));
    }
}

static void copies_take_their_share_of_memory_and_link(void **state)
{
    (void)state;
    struct sim_model m = model_8b();
    struct sim_load l = {.n_rows = 1, .context = 1000};
    const struct sim_gpu *g = sim_gpu_find("h100");
    assert_true(sim_gpu_step_ns(g, &m, &l, 83e9) > sim_gpu_step_ns(g, &m, &l, 0));
    assert_true(sim_gpu_copy_rate(g, true, false) == 50e9);
    assert_true(sim_gpu_copy_rate(g, true, true) == 41.5e9 && sim_gpu_copy_rate(g, false, true) == 41.5e9);
    assert_null(sim_gpu_find("h10"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_model_has_the_numbers_of_the_8b),
        cmocka_unit_test(steps_take_what_the_design_worked_out),
        cmocka_unit_test(more_work_takes_longer_and_better_machines_take_less),
        cmocka_unit_test(copies_take_their_share_of_memory_and_link),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
