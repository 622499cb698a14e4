/* What an observer sees of the request plane's requests, and what the metrics learn of them: as of any other. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "plane_rig.h"

static struct rig G;
static int plane; /* the frontend's connection */

static int up(void **state)
{
    (void)state;
    rig_start(&G, &plain, AF_INET);
    plane = rig_connect(&G);
    return 0;
}

static void settle(void)
{
    rig_settle(&G);
    assert_int_equal(ledger_open(G.ledger), 0);
}

static int down(void **state)
{
    (void)state;
    settle();
    close(plane);
    rig_stop(&G);
    return 0;
}

static void ask(const char *id, const char *json)
{
    rig_ask(&G, plane, true, id, json);
    assert_string_equal(rig_ack(&G, plane), "");
}

static void read_all(int stream)
{
    mem_free(rig_response(&G, stream, true));
}

struct seen {
    uint32_t n;
    struct ledger_request requests[FAKE_SLOTS];
    struct ledger_name names[FAKE_SLOTS];
};

static void see(void *ctx, const struct ledger_request *r)
{
    struct seen *s = ctx;
    s->names[s->n] = *r->name;
    s->requests[s->n++] = *r;
}

static struct seen look(void)
{
    struct seen s = {0};
    ledger_visit(G.ledger, see, &s);
    return s;
}

static uint64_t finished(enum metrics_finish f)
{
    uint64_t n = 0;
    for (uint32_t cls = 0; cls < ENGINE_CLASSES; cls++)
        n += ledger_metrics(G.ledger)->finished[cls][f];
    return n;
}

static uint64_t observed(enum metrics_histogram h)
{
    uint64_t n = 0;
    for (uint32_t cls = 0; cls < ENGINE_CLASSES; cls++)
        for (int i = 0; i <= METRICS_BUCKETS_MAX; i++)
            n += ledger_metrics(G.ledger)->histograms[h][cls].count[i];
    return n;
}

static void an_open_request_shows_its_name_its_session_and_its_hints(void **state)
{
    (void)state;
    atomic_store(&G.engine->hold, 1);
    ask("call-1",
        "{\"token_ids\":[1,2,3],\"agent_context\":{\"session_id\":\"triage-7\"},\"routing\":{\"priority\":7,"
        "\"strict_priority\":1,\"expected_output_tokens\":40}}");
    ask("call-2", "{\"token_ids\":[4,5],\"sampling_options\":{\"n\":2}}");
    struct seen s = look();
    assert_int_equal(s.n, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(s.names[i].door, LEDGER_DYNAMO);
        assert_string_equal(s.names[i].id, i ? "call-2" : "call-1");
        assert_int_equal(s.names[i].choice, i == 2);
        assert_true(str_eq(s.names[i].session_id, i ? (struct str){0} : STR_LIT("triage-7")));
        assert_int_equal(s.names[i].prefix_id.n, 0);
        assert_int_equal(s.requests[i].n_prompt, i ? 2 : 3);
    }
    assert_true(s.requests[0].priority == 7 && s.requests[0].strict_priority == 1);
    assert_true(s.requests[0].expected_output_tokens == 40 && s.requests[1].expected_output_tokens == 0);
    atomic_store(&G.engine->hold, 0);
    for (int i = 0; i < 2; i++)
        read_all(rig_accept(&G));
    settle();
    assert_int_equal(look().n, 0);
}

static void its_tokens_and_its_end_are_timed(void **state)
{
    (void)state;
    ask("s", HI);
    rig_answer_is(&G, rig_accept(&G), true, HI_ANSWER("s"));
    settle();
    assert_true(observed(METRICS_TTFT) == 1 && observed(METRICS_ITL) == 1 && observed(METRICS_E2E) == 1);
    assert_true(observed(METRICS_PROMPT) == 1 && observed(METRICS_GENERATION) == 1 &&
                observed(METRICS_QUEUE) == 1);
    assert_int_equal(finished(METRICS_STOP), 1);
}

static void each_end_counts_under_its_reason(void **state)
{
    (void)state;
    ask("s", "{\"token_ids\":[1,2,3],\"stop_conditions\":{\"max_tokens\":1}}"); /* as a speculative prefill */
    read_all(rig_accept(&G));
    settle();
    assert_int_equal(finished(METRICS_LENGTH), 1);
    ask("s", "{\"token_ids\":[1,2,3,4],\"stop_conditions\":{\"ignore_eos\":true,\"stop_token_ids\":[2],\"max_"
             "tokens\":4000}}");
    read_all(rig_accept(&G));
    settle(); /* the engine was cancelled at a token that only the plane watches for: a success */
    assert_true(finished(METRICS_STOP) == 1 && finished(METRICS_ABORT) == 0);
    atomic_store(&G.engine->fail_next, 2);
    ask("s", "{\"token_ids\":[1,2,3]}");
    read_all(rig_accept(&G));
    settle();
    assert_int_equal(finished(METRICS_ERROR), 1);
    assert_int_equal(observed(METRICS_E2E), 3);
}

static void who_is_gone_is_out_of_sight_at_once_and_counts_as_aborted(void **state)
{
    (void)state;
    ask("s", "{\"token_ids\":[1,2],\"stop_conditions\":{\"ignore_eos\":true,\"max_tokens\":4000},\"sampling_"
             "options\":{\"n\":2}}");
    int stream = rig_accept(&G);
    for (int i = 0; i < 4; i++)
        assert_non_null(rig_message(&G, stream, true));
    close(stream);
    while (dyn_generate_count(G.generate))
        rig_wait(&G);
    assert_int_equal(look().n, 0);
    settle();
    assert_true(finished(METRICS_ABORT) == 2 && finished(METRICS_STOP) == 0 && observed(METRICS_E2E) == 0);
}

static void hints_out_of_range_are_counted_by_name(void **state)
{
    (void)state;
    ask("s", "{\"token_ids\":[1,2],\"routing\":{\"priority\":101,\"strict_priority\":1},\"sampling_options\":{\"n\":2}}");
    read_all(rig_accept(&G));
    for (int h = 0; h < API_HINTS; h++) /* once for a call, not for each choice */
        assert_int_equal(ledger_metrics(G.ledger)->hint_clamped[h], h == API_HINT_PRIORITY);
}

/* The second choice finds no place: the first has begun already. */
static void all_choices_or_none_leaves_nothing_to_see(void **state)
{
    (void)state;
    rig_ask(&G, plane, true, "s", "{\"token_ids\":[1,2],\"sampling_options\":{\"n\":9}}");
    assert_int_equal(strncmp(rig_ack(&G, plane), "Server overloaded: ", 19), 0);
    assert_int_equal(look().n, 0);
    settle();
    assert_int_equal(finished(METRICS_ABORT) + finished(METRICS_STOP), FAKE_SLOTS);
    assert_int_equal(observed(METRICS_E2E), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_open_request_shows_its_name_its_session_and_its_hints, up, down),
        cmocka_unit_test_setup_teardown(its_tokens_and_its_end_are_timed, up, down),
        cmocka_unit_test_setup_teardown(each_end_counts_under_its_reason, up, down),
        cmocka_unit_test_setup_teardown(who_is_gone_is_out_of_sight_at_once_and_counts_as_aborted, up, down),
        cmocka_unit_test_setup_teardown(hints_out_of_range_are_counted_by_name, up, down),
        cmocka_unit_test_setup_teardown(all_choices_or_none_leaves_nothing_to_see, up, down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
