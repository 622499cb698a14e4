/* Who may take a place: each class leaves those that are kept for higher ones; what a slot shows while it is taken. The engine
 * is not started, so nothing leaves. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "fake_be.h"

static const struct engine_options defaults = {.max_num_seqs = 4,
                                               .max_num_batched_tokens = 64,
                                               .max_queue = 26, /* a tenth is 2, rounded down */
                                               .block_tokens = 16,
                                               .n_blocks = 40,
                                               .context_length = 64,
                                               .kv_type = BE_F16,
                                               .prefix_caching = true,
                                               .policy = {.priorities = true,
                                                          .aging_ms = 30000,
                                                          .priority_clamp = 100,
                                                          .classes = {0, 5, 10}}};
enum { SLOTS = 30 };

static struct engine *create(struct fake_be *f, const struct engine_options *o)
{
    struct engine *g = NULL;
    struct err e = {0};
    struct engine_options copy = *o;
    f->depth = 1;
    if (fake_engine_create(&g, f, &copy, &e) != ST_OK)
        fail_msg("%s", e.text);
    return g;
}

static int submit(struct engine *g, int32_t priority, int32_t strict, uint32_t *slot, uint32_t *gen, struct err *e)
{
    static const int32_t prompt[] = {1, 2, 3};
    const struct engine_request r = {.prompt = prompt,
                                     .n_prompt = 3,
                                     .max_tokens = 2,
                                     .top_p = 1,
                                     .repetition = 1,
                                     .n_logprobs = -1,
                                     .priority = priority,
                                     .strict_priority = strict};
    *e = (struct err){0};
    return engine_submit(g, &r, slot, gen, e);
}

/* How many more of these the engine takes. */
static uint32_t taken(struct engine *g, int32_t priority, int32_t strict, struct err *e)
{
    uint32_t n = 0, slot, gen;
    int rc;
    while ((rc = submit(g, priority, strict, &slot, &gen, e)) == ST_OK)
        n++;
    assert_int_equal(rc, ST_EBUSY);
    return n;
}

static void a_lower_class_leaves_places_for_the_higher(void **state)
{
    (void)state;
    struct fake_be f = {0};
    struct engine *g = create(&f, &defaults);
    struct err e;
    assert_true(engine_places(g, 0) == SLOTS - 6 && engine_places(g, ENGINE_CLASSES - 1) == SLOTS);
    assert_int_equal(taken(g, -1, 0, &e), SLOTS - 6);
    assert_string_equal(e.text, "The server is busy: 24 requests are here, and class background may fill 24 places "
                                "(6 are kept for higher classes); try again later");
    assert_int_equal(taken(g, 4, 0, &e), 2);
    assert_int_equal(taken(g, 0, 0, &e), 0);
    assert_int_equal(taken(g, 5, 0, &e), 2);
    assert_int_equal(taken(g, 10, 0, &e), 2);
    assert_string_equal(e.text, "The server is busy: all 30 places for requests are taken; try again later");
    assert_int_equal(taken(g, -50, 1, &e), 0);
    engine_destroy(g);
}

static void the_highest_class_may_take_all(void **state)
{
    (void)state;
    struct fake_be f = {0};
    struct engine *g = create(&f, &defaults);
    struct err e;
    assert_int_equal(taken(g, -50, 1, &e), SLOTS); /* strict: whatever its priority */
    assert_int_equal(taken(g, -1, 0, &e), 0);
    assert_string_equal(e.text, "The server is busy: 30 requests are here, and class background may fill 24 places "
                                "(6 are kept for higher classes); try again later");
    engine_destroy(g);
}

static void without_priorities_who_comes_first_is_served(void **state)
{
    (void)state;
    struct fake_be f = {0};
    struct engine_options o = defaults;
    o.policy.priorities = false;
    struct engine *g = create(&f, &o);
    struct err e;
    assert_int_equal(taken(g, -1, 0, &e), SLOTS);
    assert_int_equal(taken(g, 100, 3, &e), 0);
    engine_destroy(g);
}

static void a_short_queue_keeps_nothing_back(void **state)
{
    (void)state;
    struct fake_be f = {0};
    struct engine_options o = defaults;
    o.max_queue = 9;
    struct engine *g = create(&f, &o);
    struct err e;
    assert_int_equal(taken(g, -1, 0, &e), 13);
    engine_destroy(g);
}

static void a_taken_slot_is_seen_and_no_other(void **state)
{
    (void)state;
    struct fake_be f = {0};
    struct engine *g = create(&f, &defaults);
    struct err e;
    struct engine_slot_view v;
    uint32_t slot, gen;
    assert_false(engine_slot_view(g, 0, 0, &v));
    assert_int_equal(submit(g, 7, 0, &slot, &gen, &e), ST_OK);
    assert_true(engine_slot_view(g, slot, gen, &v));
    assert_true(v.state == ENGINE_SLOT_QUEUED && v.cls == 2 && v.n_computed == 0 && v.n_output == 0 && v.n_preempted == 0);
    assert_false(engine_slot_view(g, slot, gen + 1, &v));
    assert_false(engine_slot_view(g, SLOTS, 0, &v));
    assert_in_range(engine_retry_after_s(g, 0), 1, 120);
    engine_destroy(g);
}

static void classes_have_names(void **state)
{
    (void)state;
    static const char *const names[ENGINE_CLASSES] = {"background", "normal", "elevated", "high"};
    for (uint32_t cls = 0; cls < ENGINE_CLASSES; cls++)
        assert_string_equal(engine_class_name(cls), names[cls]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lower_class_leaves_places_for_the_higher),
        cmocka_unit_test(the_highest_class_may_take_all),
        cmocka_unit_test(without_priorities_who_comes_first_is_served),
        cmocka_unit_test(a_short_queue_keeps_nothing_back),
        cmocka_unit_test(a_taken_slot_is_seen_and_no_other),
        cmocka_unit_test(classes_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
