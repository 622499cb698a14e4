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

/* That of the one error item. */
static void error_is(int stream, const char *expected)
{
    char *all = rig_response(&G, stream, true);
    if (!strstr(all, expected))
        fail_msg("%s does not say %s", all, expected);
    mem_free(all);
}

static void more_choices_than_there_are_places_are_the_client_s_error(void **state)
{
    (void)state;
    ask("s", "{\"token_ids\":[1,2],\"sampling_options\":{\"n\":9}}");
    error_is(rig_accept(&G), "\"message\":\"n: 9 choices, and class normal may fill 8 places\"");
    ask("s", "{\"token_ids\":[1,2],\"sampling_options\":{\"n\":8},\"routing\":{\"priority\":-1}}");
    error_is(rig_accept(&G), "\"error_type\":\"InvalidArgument\"");
    assert_int_equal(G.count.errors[DYN_ERROR_INVALID], 2);
    assert_int_equal(atomic_load(&G.engine->submits), 0);
}

static void refused(const char *json)
{
    rig_ask(&G, plane, true, "s", json);
    assert_int_equal(strncmp(rig_ack(&G, plane), "Server overloaded: ", 19), 0);
}

/* Nobody who comes right behind is refused because of it. */
static void choices_that_find_no_place_take_none(void **state)
{
    (void)state;
    atomic_store(&G.engine->hold, 1);
    ask("first", "{\"token_ids\":[1,2]}");
    refused("{\"token_ids\":[1,2],\"sampling_options\":{\"n\":8}}");
    assert_int_equal(atomic_load(&G.engine->submits), 1);
    ask("next", "{\"token_ids\":[1,2],\"sampling_options\":{\"n\":7}}");
    atomic_store(&G.engine->hold, 0);
    for (int i = 0; i < 2; i++)
        read_all(rig_accept(&G));
    settle();
    assert_int_equal(finished(METRICS_STOP), FAKE_SLOTS);
}

/* There is no vocabulary here, so whoever looked at the form would say that. */
static void a_form_is_not_looked_at_while_no_place_is_free(void **state)
{
    static const char formed[] =
        "{\"token_ids\":[1],\"sampling_options\":{\"guided_decoding\":{\"choice\":[\"a\"]}}}";
    (void)state;
    ask("s", formed);
    error_is(rig_accept(&G), "\"error_type\":\"NotImplemented\"");
    atomic_store(&G.engine->hold, 1);
    ask("all", "{\"token_ids\":[1,2],\"sampling_options\":{\"n\":8}}");
    refused(formed);
    atomic_store(&G.engine->hold, 0);
    read_all(rig_accept(&G));
}

/* Without memory for one of them nothing is left of those that had begun. */
static void all_choices_or_none_leaves_nothing_to_see(void **state)
{
    struct dyn_streams *streams;
    struct dyn_stream *stream;
    struct err e;
    struct buf body = {0};
    const struct dyn_streams_options o = {.streams_max = 8, .bytes_max = 1 << 20, .output_max = 1 << 20};
    const struct dyn_control control = {.codec = DYN_CODEC_MSGPACK, .address = "127.0.0.1:1", .id = "s"};
    enum dyn_answer answer = DYN_OVERLOADED;
    (void)state;
    atomic_store(&G.engine->hold, 1);
    assert_int_equal(dyn_streams_create(&streams, &o), ST_OK);
    assert_int_equal(
        dyn_json_to_msgpack(STR_LIT("{\"token_ids\":[1,2],\"sampling_options\":{\"n\":3}}"), &body), ST_OK);
    for (uint64_t n = 1; answer != DYN_ACCEPT; n++) {
        assert_int_equal(dyn_stream_open(streams, &control, &stream, &e), ST_OK);
        const struct dyn_call call = {&control, (const uint8_t *)body.p, body.n, stream};
        mem_fail_after(n);
        answer = dyn_generate_call(G.generate, &call, &e);
        mem_fail_after(0);
        assert_int_equal(look().n, answer == DYN_ACCEPT ? 3 : 0);
        if (answer == DYN_ACCEPT)
            break;
        assert_int_equal(answer, DYN_OVERLOADED);
        dyn_stream_discard(stream);
        settle();
    }
    assert_int_equal(atomic_load(&G.engine->submits), 1 + 2 + 3); /* the second failed, the third, none */
    dyn_generate_stop(G.generate);
    dyn_streams_destroy(streams);
    buf_fini(&body);
}

/* Half of an item is no item: the stream ends before its end at once, and the frontend goes on elsewhere. `fail`: the item is
 * that of the engine's error. */
static void without_memory(bool fail)
{
    const char *m;
    atomic_store(&G.engine->hold, 1);
    ask("s", "{\"token_ids\":[1,2],\"stop_conditions\":{\"ignore_eos\":true,\"max_tokens\":4000}}");
    int stream = rig_accept(&G);
    for (int i = 0; i < 2; i++)
        assert_non_null(rig_message(&G, stream, true));
    atomic_store(&G.engine->fail_next, fail);
    mem_fail_after(1);
    atomic_store(&G.engine->hold, 0);
    while (dyn_generate_count(G.generate))
        rig_wait(&G);
    mem_fail_after(0);
    rig_turn(&G);
    assert_true(dyn_plane_idle(G.plane));       /* nothing is waited for */
    while ((m = rig_message(&G, stream, true))) /* MessagePack to the last byte */
        assert_string_not_equal(m, "\"sentinel\"");
    close(stream);
    settle();
}

static void an_item_without_memory_ends_the_stream(void **state)
{
    (void)state;
    without_memory(false);
    assert_int_equal(G.count.errors[DYN_ERROR_PUBLISH], 1);
    assert_int_equal(atomic_load(&G.engine->cancels), 1);
    without_memory(true);
    assert_int_equal(G.count.errors[DYN_ERROR_GENERATE], 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_open_request_shows_its_name_its_session_and_its_hints, up, down),
        cmocka_unit_test_setup_teardown(its_tokens_and_its_end_are_timed, up, down),
        cmocka_unit_test_setup_teardown(each_end_counts_under_its_reason, up, down),
        cmocka_unit_test_setup_teardown(who_is_gone_is_out_of_sight_at_once_and_counts_as_aborted, up, down),
        cmocka_unit_test_setup_teardown(hints_out_of_range_are_counted_by_name, up, down),
        cmocka_unit_test_setup_teardown(more_choices_than_there_are_places_are_the_client_s_error, up, down),
        cmocka_unit_test_setup_teardown(choices_that_find_no_place_take_none, up, down),
        cmocka_unit_test_setup_teardown(a_form_is_not_looked_at_while_no_place_is_free, up, down),
        cmocka_unit_test_setup_teardown(all_choices_or_none_leaves_nothing_to_see, up, down),
        cmocka_unit_test_setup_teardown(an_item_without_memory_ends_the_stream, up, down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
