/* sim_case: a workload, run with the options of the worker's defaults and the changes that a test makes.
 *
 *   struct sim_case c = sim_case_of("low_flood", 100);
 *   c.o.policy.priorities = true;
 *   sim_case_run(&c);                      fails the test when a token is wrong or a request did not end
 *   sim_report_percentile(&c.r, ...)
 *   sim_case_fini(&c);
 */
#ifndef STATOR_TEST_SIM_CASE_H
#define STATOR_TEST_SIM_CASE_H

#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "clock.h"
#include "mem.h"
#include "model.h"
#include "sim_rand.h"
#include "sim_report.h"
#include "sim_run.h"
#include "sim_synth.h"

#define SIM_CASE_MODEL STATOR_SOURCE_DIR "/bench/configs/llama-3.1-8b"

struct sim_case {
    struct model *model;
    struct sim_trace t;
    struct sim_options o;
    struct sim_result r;
};

/* On an H100 with the 8B model; priorities off. The trace is empty. */
static inline struct sim_case sim_case_empty(void)
{
    struct sim_case c = {.t = {.seed = 1}};
    struct err e = {0};
    if (model_open_dummy(&c.model, SIM_CASE_MODEL, &e) != ST_OK)
        fail_msg("%s", e.text);
    c.o = (struct sim_options){.gpu = sim_gpu_find("h100"),
                               .model = model_info(c.model),
                               .seed = 1,
                               .max_num_seqs = 256,
                               .max_num_batched_tokens = 2048,
                               .max_queue = 2048,
                               .block_tokens = 16,
                               .noise = true,
                               .policy = {.aging_ms = 30000,
                                          .priority_clamp = 100,
                                          .classes = {0, 5, 10},
                                          .max_step_ms = 15,
                                          .batch_wait_ms = 50}};
    return c;
}

static inline struct sim_case sim_case_of(const char *workload, uint32_t n)
{
    struct sim_case c = sim_case_empty();
    struct err e = {0};
    if (sim_synth(&c.t, workload, n, &e) != ST_OK)
        fail_msg("%s", e.text);
    return c;
}

static inline void sim_case_run(struct sim_case *c)
{
    struct err e = {0};
    sim_result_fini(&c->r);
    if (sim_run(&c->r, &c->o, &c->t, &e) != ST_OK)
        fail_msg("%s", e.text);
    assert_int_equal(c->r.n, c->t.n);
    assert_int_equal(c->r.n_wrong, 0);
    assert_int_equal(c->r.totals.n_wrong, 0);
    assert_int_equal(c->r.n_failed, 0);
    for (uint32_t i = 0; i < c->r.n; i++)
        assert_true(c->r.outcomes[i].end == SIM_DONE || c->r.outcomes[i].end == SIM_REFUSED);
}

static inline void sim_case_fini(struct sim_case *c)
{
    sim_result_fini(&c->r);
    sim_trace_fini(&c->t);
    model_destroy(c->model);
}

#endif
