/* The request plane against a fake engine: what a frontend sends and sees. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "plane_rig.h"

static void a_request_is_answered_in_its_codec(void **state)
{
    static const int families[] = {AF_INET, AF_INET6};
    (void)state;
    for (int f = 0; f < 2; f++)
        for (int msgpack = 0; msgpack < 2; msgpack++) {
            struct rig g;
            rig_start(&g, &plain, families[f]);
            int fd = rig_connect(&g);
            rig_ask(&g, fd, msgpack, "s1", HI);
            assert_string_equal(rig_ack(&g, fd), "");
            rig_answer_is(&g, rig_accept(&g), msgpack, HI_ANSWER("s1"));
            rig_settle(&g);
            assert_int_equal(g.count.requests, 1);
            close(fd);
            rig_stop(&g);
        }
}

/* Byte by byte and at once; the answers do not differ. */
static void frames_may_come_in_any_pieces(void **state)
{
    struct rig g;
    struct buf b = {0};
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int fd = rig_connect(&g);
    rig_frame(&g, &b, true, "s1", HI);
    for (size_t i = 0; i < b.n; i++) {
        assert_int_equal(send(fd, b.p + i, 1, MSG_NOSIGNAL), 1);
        rig_turn(&g);
    }
    assert_string_equal(rig_ack(&g, fd), "");
    rig_answer_is(&g, rig_accept(&g), true, HI_ANSWER("s1"));
    for (size_t cut = 1; cut < b.n; cut += 7) { /* a frame and a part of the next, then the rest */
        struct buf two = {0};
        buf_put(&two, b.p, b.n);
        buf_put(&two, b.p, cut);
        rig_send(&g, fd, &two);
        buf_reset(&two);
        buf_put(&two, b.p + cut, b.n - cut);
        rig_send(&g, fd, &two);
        buf_fini(&two);
        for (int i = 0; i < 2; i++) {
            assert_string_equal(rig_ack(&g, fd), "");
            rig_answer_is(&g, rig_accept(&g), true, HI_ANSWER("s1"));
        }
    }
    rig_settle(&g);
    close(fd);
    buf_fini(&b);
    rig_stop(&g);
}

static void pipelined_requests_are_acked_in_order(void **state)
{
    struct rig g;
    struct buf b = {0};
    (void)state;
    rig_start(&g, &plain, AF_INET);
    atomic_store(&g.engine->hold, 1);
    int fd = rig_connect(&g);
    for (int i = 0; i < FAKE_SLOTS + 2;
         i++) { /* two more than there is room for, and an unknown path between */
        if (i == 3)
            rig_frame_to(&b, "ab/dynamo/backend/nothing", "127.0.0.1:1", "tcp_server", "json", "s",
                         STR_LIT("{}"));
        rig_frame(&g, &b, i & 1, "s1", HI);
    }
    rig_send(&g, fd, &b);
    for (int i = 0; i < FAKE_SLOTS + 2; i++) {
        if (i == 3)
            assert_string_equal(rig_ack(&g, fd),
                                "Server unavailable: unknown endpoint ab/dynamo/backend/nothing");
        const char *text = rig_ack(&g, fd);
        if (i < FAKE_SLOTS)
            assert_string_equal(text, "");
        else
            assert_int_equal(strncmp(text, "Server overloaded: ", 19), 0);
    }
    atomic_store(&g.engine->hold, 0);
    for (int i = 0; i < FAKE_SLOTS; i++)
        mem_free(rig_response(&g, rig_accept(&g), false));
    rig_settle(&g);
    close(fd);
    buf_fini(&b);
    rig_stop(&g);
}

static void what_is_wrong_with_a_request_is_an_item_not_a_refusal(void **state)
{
    static const struct {
        const char *json, *expected;
    } cases[] = {
        {"{\"token_ids\":[5000]}", "\"error_type\":\"InvalidArgument\""},
        {"{\"token_ids\":[5],\"stop_conditions\":{\"max_tokens\":5000}}",
         "\"public\":{\"type\":\"context_length\",\"limit\":4096,\"actual\":5001}"},
        {"{\"token_ids\":[5],\"sampling_options\":{\"use_beam_search\":true}}",
         "\"error_type\":\"NotImplemented\""},
        {"{\"token_ids\":[5],\"routing\":{\"lora_name\":\"x\"}}", "\"error_type\":\"NotFound\""},
        {"{\"token_ids\":[5],\"sampling_options\":{\"temperature\":9}}",
         "\"public\":{\"type\":\"message\",\"message\":\"temperature: must be within 0 and 2\"}"},
        {"{", "\"error_type\":\"InvalidArgument\""},
    };
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int fd = rig_connect(&g);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rig_ask(&g, fd, false, "s1", cases[i].json);
        assert_string_equal(rig_ack(&g, fd), "");
        char *all = rig_response(&g, rig_accept(&g), false);
        assert_non_null(strstr(all, "{\"error\":null}\n{\"data\":{\"event\":\"error\""));
        assert_non_null(strstr(all, cases[i].expected));
        assert_non_null(strstr(all, "{\"complete_final\":true}\n\"sentinel\"\n"));
        mem_free(all);
    }
    rig_settle(&g);
    assert_int_equal(atomic_load(&g.engine->submits), 0);
    close(fd);
    rig_stop(&g);
}

/* What would hold up everybody is not parsed: 8 MiB of it, and no byte more. */
static void json_bodies_have_a_bound(void **state)
{
    enum { JSON_MAX = 8 << 20 };
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int fd = rig_connect(&g);
    for (size_t more = 0; more < 2; more++) {
        struct buf body = {0};
        buf_puts(&body, "{\"x\":\"");
        while (body.n < JSON_MAX - 64)
            buf_puts(&body, "and so on, and on, and on, and on, and on, and on, and so on, on");
        while (body.n < JSON_MAX - 2 + more)
            buf_putc(&body, '.');
        buf_puts(&body, "\"}");
        rig_ask(&g, fd, false, "s1", body.p);
        buf_fini(&body);
        assert_string_equal(rig_ack(&g, fd), "");
        char *all = rig_response(&g, rig_accept(&g), false);
        assert_non_null(strstr(all, more ? "the request is not an object" : "token_ids: missing"));
        mem_free(all);
    }
    rig_settle(&g);
    close(fd);
    rig_stop(&g);
}

static void what_cannot_be_answered_is_refused_in_the_ack(void **state)
{
    static const struct {
        const char *address, *transport;
    } cases[] = {{"127.0.0.1:5", "tcp_response_mux_v1"},
                 {"localhost:5", "tcp_server"},
                 {"127.0.0.1:0", "tcp_server"},
                 {"127.0.0.1:70000", "tcp_server"},
                 {"::1:5", "tcp_server"},
                 {"[::1:5", "tcp_server"},
                 {"127.0.0.1", "tcp_server"},
                 {":5", "tcp_server"},
                 {"[]:5", "tcp_server"}};
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int fd = rig_connect(&g);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf b = {0};
        rig_frame_to(&b, RIG_PATH, cases[i].address, cases[i].transport, "json", "s", STR_LIT(HI));
        rig_send(&g, fd, &b);
        buf_fini(&b);
        const char *text = rig_ack(&g, fd);
        assert_int_equal(strncmp(text, "Server unavailable: ", 20), 0);
        assert_non_null(strstr(text, i ? "address" : "tcp_response_mux_v1"));
    }
    /* a frame around nothing */
    assert_int_equal(send(fd, "\0\x1a" RIG_PATH "\0\0\0\0\0\0", 34, 0), 34);
    assert_string_equal(rig_ack(&g, fd), "Server unavailable: payload is no two-part message");
    close(fd);
    rig_stop(&g);
}

static void choices_have_indexes_and_one_usage(void **state)
{
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int fd = rig_connect(&g);
    rig_ask(
        &g, fd, true, "s1",
        "{\"token_ids\":[104,105],\"sampling_options\":{\"n\":3,\"seed\":7},\"output_options\":{\"logprobs\":"
        "2}}");
    assert_string_equal(rig_ack(&g, fd), "");
    assert_int_equal(g.engine->last.seed, 9); /* 7, 8, 9 */
    char *all = rig_response(&g, rig_accept(&g), true);
    for (int i = 0; i < 3; i++) {
        char expected[200];
        snprintf(expected, sizeof expected,
                 "{\"token_ids\":[105],\"index\":%d,\"log_probs\":[-0.5],\"top_logprobs\":[[{\"rank\":1,"
                 "\"token_id\":97,\"token\":null",
                 i);
        assert_non_null(strstr(all, expected));
        snprintf(expected, sizeof expected, "{\"token_ids\":[],\"index\":%d,\"finish_reason\":\"stop\"", i);
        assert_non_null(strstr(all, expected));
    }
    char *usage = strstr(all, "completion_usage");
    assert_non_null(usage);
    assert_null(strstr(usage + 1, "completion_usage"));
    assert_non_null(strstr(usage, "\"prompt_tokens\":2,\"completion_tokens\":6,\"total_tokens\":8"));
    mem_free(all);
    rig_settle(&g);
    close(fd);
    rig_stop(&g);
}

static void a_watched_stop_token_ends_the_answer(void **state)
{
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int fd = rig_connect(&g);
    rig_ask(&g, fd, false, "s1",
            "{\"token_ids\":[1,2,3,4],\"stop_conditions\":{\"stop_token_ids_visible\":[2]}}");
    assert_string_equal(rig_ack(&g, fd), "");
    char *all = rig_response(&g, rig_accept(&g), false);
    assert_non_null(strstr(all, "[2]"));
    assert_null(strstr(all, "[3]"));
    assert_non_null(strstr(all, "\"finish_reason\":\"stop\""));
    assert_non_null(strstr(all, "\"completion_tokens\":2"));
    mem_free(all);
    rig_ask(&g, fd, false, "s1",
            "{\"token_ids\":[1,2,3,4],\"stop_conditions\":{\"ignore_eos\":true,\"stop_token_ids\":[3],\"max_"
            "tokens\":9}}");
    assert_string_equal(rig_ack(&g, fd), "");
    all = rig_response(&g, rig_accept(&g), false);
    assert_non_null(strstr(all, "[2]"));
    assert_null(strstr(all, "[3]"));
    mem_free(all);
    rig_settle(&g);
    close(fd);
    rig_stop(&g);
}

static void engine_failures_are_told_as_the_worker_s(void **state)
{
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    atomic_store(&g.engine->fail_next, 2);
    int fd = rig_connect(&g);
    rig_ask(&g, fd, false, "s1", HI);
    assert_string_equal(rig_ack(&g, fd), "");
    char *all = rig_response(&g, rig_accept(&g), false);
    assert_non_null(strstr(all, "\"error_type\":{\"Backend\":\"EngineShutdown\"}"));
    mem_free(all);
    rig_settle(&g);
    close(fd);
    rig_stop(&g);
}

static void draining_takes_requests_for_a_grace_and_ends_the_open_ones(void **state)
{
    struct dyn_plane_options o = {.drain_grace_ms = 1000};
    struct rig g;
    (void)state;
    rig_start(&g, &o, AF_INET);
    int fd = rig_connect(&g);
    atomic_store(&g.engine->hold, 1);
    rig_ask(&g, fd, false, "s1", HI);
    assert_string_equal(rig_ack(&g, fd), "");
    int first = rig_accept(&g);
    dyn_plane_drain(g.plane, clock_now_ns());
    rig_ask(&g, fd, false, "s2", HI); /* from a frontend that has not heard */
    assert_string_equal(rig_ack(&g, fd), "");
    int second = rig_accept(&g);
    assert_false(dyn_plane_idle(g.plane));
    g.skew_ns = INT64_C(1100) * NS_PER_MS;
    rig_ask(&g, fd, false, "s3", HI);
    assert_string_equal(rig_ack(&g, fd), "Server unavailable: draining");
    atomic_store(&g.engine->hold, 0);
    rig_answer_is(&g, first, false, HI_ANSWER("s1"));
    atomic_store(&g.engine->hold, 1);
    mem_free(rig_response(&g, second, false));
    rig_settle(&g);
    close(fd);
    rig_stop(&g);
}

static void stopping_tells_frontends_to_go_on_elsewhere(void **state)
{
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int fd = rig_connect(&g);
    atomic_store(&g.engine->hold, 1);
    rig_ask(&g, fd, false, "s1", HI);
    assert_string_equal(rig_ack(&g, fd), "");
    int answer = rig_accept(&g);
    dyn_generate_stop(g.generate);
    char *all = rig_response(&g, answer, false);
    assert_non_null(strstr(all, "EngineShutdown"));
    mem_free(all);
    rig_settle(&g);
    close(fd);
    rig_stop(&g);
}

static void answer_query(void *ctx, const uint8_t *body, size_t n, struct buf *reply)
{
    struct dyn_msgpack m = dyn_msgpack_of(body, n);
    *(int *)ctx += 1;
    dyn_msgpack_put_map(reply, 1);
    dyn_msgpack_put_key(reply, "you_said");
    struct dyn_msgpack at = m;
    assert_int_equal(dyn_msgpack_skip(&m), ST_OK);
    buf_put(reply, at.p, m.at);
}

static void a_query_has_one_item(void **state)
{
    struct rig g;
    int calls = 0;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    assert_int_equal(
        dyn_plane_serve(g.plane,
                        &(struct dyn_endpoint){.path = "ab/q", .answer = answer_query, .ctx = &calls}),
        ST_OK);
    int fd = rig_connect(&g);
    char address[64];
    struct buf b = {0};
    snprintf(address, sizeof address, "127.0.0.1:%u", g.port);
    rig_frame_to(&b, "ab/q", address, "tcp_server", "json", "s1",
                 STR_LIT("{\"worker_id\":18446744073709551615}"));
    rig_send(&g, fd, &b);
    buf_fini(&b);
    assert_string_equal(rig_ack(&g, fd), "");
    rig_answer_is(&g, rig_accept(&g), false,
                  "{\"subject\":\"s1\",\"stream_type\":\"response\"}\n{\"error\":null}\n"
                  "{\"data\":{\"you_said\":{\"worker_id\":18446744073709551615}},\"complete_final\":false}\n"
                  "{\"complete_final\":true}\n\"sentinel\"\n");
    assert_int_equal(calls, 1);
    rig_settle(&g);
    close(fd);
    rig_stop(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_answered_in_its_codec),
        cmocka_unit_test(frames_may_come_in_any_pieces),
        cmocka_unit_test(pipelined_requests_are_acked_in_order),
        cmocka_unit_test(what_is_wrong_with_a_request_is_an_item_not_a_refusal),
        cmocka_unit_test(json_bodies_have_a_bound),
        cmocka_unit_test(what_cannot_be_answered_is_refused_in_the_ack),
        cmocka_unit_test(choices_have_indexes_and_one_usage),
        cmocka_unit_test(a_watched_stop_token_ends_the_answer),
        cmocka_unit_test(engine_failures_are_told_as_the_worker_s),
        cmocka_unit_test(draining_takes_requests_for_a_grace_and_ends_the_open_ones),
        cmocka_unit_test(stopping_tells_frontends_to_go_on_elsewhere),
        cmocka_unit_test(a_query_has_one_item),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
