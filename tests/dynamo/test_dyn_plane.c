/* The request plane against a fake engine: what a frontend sends and sees, and what hostile peers do not achieve. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "plane_rig.h"

static const struct dyn_plane_options plain = {0};

#define HI "{\"token_ids\":[104,105],\"stop_conditions\":{\"max_tokens\":5}}"
#define HI_ANSWER(subject)                                                                                \
    "{\"subject\":\"" subject "\",\"stream_type\":\"response\"}\n{\"error\":null}\n"                      \
    "{\"data\":{\"data\":{\"token_ids\":[104],\"index\":0}},\"complete_final\":false}\n"                  \
    "{\"data\":{\"data\":{\"token_ids\":[105],\"index\":0}},\"complete_final\":false}\n"                  \
    "{\"data\":{\"data\":{\"token_ids\":[],\"index\":0,\"finish_reason\":\"stop\",\"completion_usage\":{" \
    "\"prompt_tokens\":2,"                                                                                \
    "\"completion_tokens\":2,\"total_tokens\":4,\"prompt_tokens_details\":{\"cached_tokens\":0}}}},"      \
    "\"complete_final\":false}\n{\"complete_final\":true}\n\"sentinel\"\n"

static void ask(struct rig *g, int fd, bool msgpack, const char *subject, const char *json)
{
    struct buf b = {0};
    rig_frame(g, &b, msgpack, subject, json);
    rig_send(g, fd, &b);
    buf_fini(&b);
}

static void settle(struct rig *g)
{
    while (atomic_load(&g->engine->submits) != atomic_load(&g->engine->releases) ||
           dyn_generate_count(g->generate) || !dyn_plane_idle(g->plane))
        rig_wait(g);
    assert_int_equal(g->count.inflight, 0);
}

static void answer_is(struct rig *g, int fd, bool msgpack, const char *expected)
{
    char *all = rig_response(g, fd, msgpack);
    assert_string_equal(all, expected);
    mem_free(all);
}

static void a_request_is_answered_in_its_codec(void **state)
{
    static const int families[] = {AF_INET, AF_INET6};
    (void)state;
    for (int f = 0; f < 2; f++)
        for (int msgpack = 0; msgpack < 2; msgpack++) {
            struct rig g;
            rig_start(&g, &plain, families[f]);
            int fd = rig_connect(&g);
            ask(&g, fd, msgpack, "s1", HI);
            assert_string_equal(rig_ack(&g, fd), "");
            answer_is(&g, rig_accept(&g), msgpack, HI_ANSWER("s1"));
            settle(&g);
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
    answer_is(&g, rig_accept(&g), true, HI_ANSWER("s1"));
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
            answer_is(&g, rig_accept(&g), true, HI_ANSWER("s1"));
        }
    }
    settle(&g);
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
    settle(&g);
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
        ask(&g, fd, false, "s1", cases[i].json);
        assert_string_equal(rig_ack(&g, fd), "");
        char *all = rig_response(&g, rig_accept(&g), false);
        assert_non_null(strstr(all, "{\"error\":null}\n{\"data\":{\"event\":\"error\""));
        assert_non_null(strstr(all, cases[i].expected));
        assert_non_null(strstr(all, "{\"complete_final\":true}\n\"sentinel\"\n"));
        mem_free(all);
    }
    settle(&g);
    assert_int_equal(atomic_load(&g.engine->submits), 0);
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
    ask(&g, fd, true, "s1",
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
    ask(&g, fd, true, "s1", "{\"token_ids\":[104,105],\"sampling_options\":{\"n\":9}}"); /* all or nothing */
    assert_int_equal(strncmp(rig_ack(&g, fd), "Server overloaded: ", 19), 0);
    settle(&g);
    close(fd);
    rig_stop(&g);
}

static void a_watched_stop_token_ends_the_answer(void **state)
{
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int fd = rig_connect(&g);
    ask(&g, fd, false, "s1",
        "{\"token_ids\":[1,2,3,4],\"stop_conditions\":{\"stop_token_ids_visible\":[2]}}");
    assert_string_equal(rig_ack(&g, fd), "");
    char *all = rig_response(&g, rig_accept(&g), false);
    assert_non_null(strstr(all, "[2]"));
    assert_null(strstr(all, "[3]"));
    assert_non_null(strstr(all, "\"finish_reason\":\"stop\""));
    assert_non_null(strstr(all, "\"completion_tokens\":2"));
    mem_free(all);
    ask(&g, fd, false, "s1",
        "{\"token_ids\":[1,2,3,4],\"stop_conditions\":{\"ignore_eos\":true,\"stop_token_ids\":[3],\"max_"
        "tokens\":9}}");
    assert_string_equal(rig_ack(&g, fd), "");
    all = rig_response(&g, rig_accept(&g), false);
    assert_non_null(strstr(all, "[2]"));
    assert_null(strstr(all, "[3]"));
    mem_free(all);
    settle(&g);
    close(fd);
    rig_stop(&g);
}

/* By word, by closing, by reset, in pieces: the engine hears of it in the same turn. */
static void a_frontend_that_ends_a_stream_cancels_at_once(void **state)
{
    static const char kill_message[] = "\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\"kill\"";
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int fd = rig_connect(&g);
    for (int how = 0; how < 4; how++) {
        uint64_t cancels = atomic_load(&g.engine->cancels);
        ask(&g, fd, true, "s1",
            "{\"token_ids\":[104,105],\"stop_conditions\":{\"ignore_eos\":true,\"max_tokens\":4000},"
            "\"sampling_options\":{\"n\":2}}");
        assert_string_equal(rig_ack(&g, fd), "");
        int answer = rig_accept(&g);
        for (int i = 0; i < 4; i++)
            assert_non_null(rig_message(&g, answer, true));
        if (how == 0)
            assert_int_equal(send(answer, kill_message, 30, 0), 30);
        for (int i = 0; how == 1 && i < 30; i++) {
            assert_int_equal(send(answer, kill_message + i, 1, MSG_NOSIGNAL), 1);
            rig_turn(&g);
        }
        if (how == 2)
            shutdown(answer, SHUT_WR);
        if (how == 3) {
            assert_int_equal(
                setsockopt(answer, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger)), 0);
            close(answer);
        }
        while (atomic_load(&g.engine->cancels) != cancels + 2)
            rig_wait(&g);
        settle(&g);
        if (how != 3) {
            const char *m;
            while ((m = rig_message(&g, answer, true))) /* no end frame, no sentinel */
                assert_true(strcmp(m, "\"sentinel\"") != 0);
            close(answer);
        }
        assert_int_equal(g.count.cancellations, how == 0 ? 1 : 2);
    }
    close(fd);
    rig_stop(&g);
}

static void a_reader_that_is_too_slow_is_broken_off(void **state)
{
    struct dyn_plane_options o = {.streams = {.bytes_max = 4096}};
    struct rig g;
    (void)state;
    rig_start(&g, &o, AF_INET);
    assert_int_equal(setsockopt(g.listen_fd, SOL_SOCKET, SO_RCVBUF, &(int){2048}, sizeof(int)), 0);
    atomic_store(&g.engine->step_us, 1);
    int fd = rig_connect(&g);
    for (int round = 0; round < 2000 && !g.count.errors[DYN_ERROR_PUBLISH]; round++) {
        ask(&g, fd, true, "s1",
            "{\"token_ids\":[104],\"stop_conditions\":{\"ignore_eos\":true,\"max_tokens\":4000},\"output_"
            "options\":{\"logprobs\":20}}");
        assert_string_equal(rig_ack(&g, fd), "");
        int answer = rig_accept(&g);
        while (dyn_generate_count(g.generate))
            rig_wait(&g); /* reads nothing */
        close(answer);
    }
    assert_int_equal(g.count.errors[DYN_ERROR_PUBLISH], 1);
    settle(&g);
    close(fd);
    rig_stop(&g);
}

static void a_frontend_that_cannot_be_reached_costs_nothing(void **state)
{
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int fd = rig_connect(&g);
    struct buf b = {0};
    close(g.listen_fd);
    rig_frame(&g, &b, true, "s1", HI);
    rig_send(&g, fd, &b);
    buf_fini(&b);
    assert_string_equal(rig_ack(&g, fd), "");
    settle(&g);
    uint16_t port;
    g.listen_fd = rig_listen(AF_INET, &port);
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
    ask(&g, fd, false, "s1", HI);
    assert_string_equal(rig_ack(&g, fd), "");
    char *all = rig_response(&g, rig_accept(&g), false);
    assert_non_null(strstr(all, "\"error_type\":{\"Backend\":\"EngineShutdown\"}"));
    mem_free(all);
    settle(&g);
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
    ask(&g, fd, false, "s1", HI);
    assert_string_equal(rig_ack(&g, fd), "");
    int first = rig_accept(&g);
    dyn_plane_drain(g.plane, clock_now_ns());
    ask(&g, fd, false, "s2", HI); /* from a frontend that has not heard */
    assert_string_equal(rig_ack(&g, fd), "");
    int second = rig_accept(&g);
    assert_false(dyn_plane_idle(g.plane));
    g.skew_ns = INT64_C(1100) * NS_PER_MS;
    ask(&g, fd, false, "s3", HI);
    assert_string_equal(rig_ack(&g, fd), "Server unavailable: draining");
    atomic_store(&g.engine->hold, 0);
    answer_is(&g, first, false, HI_ANSWER("s1"));
    atomic_store(&g.engine->hold, 1);
    mem_free(rig_response(&g, second, false));
    settle(&g);
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
    ask(&g, fd, false, "s1", HI);
    assert_string_equal(rig_ack(&g, fd), "");
    int answer = rig_accept(&g);
    dyn_generate_stop(g.generate);
    char *all = rig_response(&g, answer, false);
    assert_non_null(strstr(all, "EngineShutdown"));
    mem_free(all);
    settle(&g);
    close(fd);
    rig_stop(&g);
}

/* ---- hostile peers ----------------------------------------------------------------------------------------------- */

static bool closed(struct rig *g, int fd)
{
    char c;
    return !rig_read(g, fd, &c, 1);
}

static void who_lies_is_closed_and_others_do_not_notice(void **state)
{
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int good = rig_connect(&g), liar = rig_connect(&g), slow = rig_connect(&g);
    assert_int_equal(send(liar, "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL), 18);
    assert_int_equal(send(slow,
                          "\0\x10"
                          "abc",
                          5, MSG_NOSIGNAL),
                     5);
    assert_true(closed(&g, liar));
    rig_turn(&g);
    g.skew_ns = INT64_C(31) * NS_PER_S;
    assert_true(closed(&g, slow)); /* its frame did not come to an end */
    ask(&g, good, true, "s1", HI);
    assert_string_equal(rig_ack(&g, good), "");
    answer_is(&g, rig_accept(&g), true, HI_ANSWER("s1"));
    settle(&g);
    close(good);
    close(liar);
    close(slow);
    rig_stop(&g);
}

/* A flood of refused frames whose acks nobody reads: it stops being read, and ends. */
static void who_does_not_read_acks_is_not_read(void **state)
{
    struct rig g;
    struct buf b = {0};
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int fd = rig_connect(&g), good = rig_connect(&g);
    while (b.n < 60000)
        rig_frame_to(&b, "no/such/path", "127.0.0.1:1", "tcp_server", "json", "s", STR_LIT("{}"));
    int silent = 0;
    size_t at = 0;
    while (silent < 50) {
        ssize_t n = send(fd, b.p + at, b.n - at, MSG_NOSIGNAL);
        at = n > 0 ? (at + (size_t)n) % b.n : at;
        silent = n > 0 ? 0 : silent + 1;
        rig_wait(&g);
    }
    ask(&g, good, true, "s1", HI);
    assert_string_equal(rig_ack(&g, good), "");
    answer_is(&g, rig_accept(&g), true, HI_ANSWER("s1"));
    g.skew_ns = INT64_C(31) * NS_PER_S;
    char sink[65536];
    ssize_t n;
    do
        rig_wait(&g);
    while ((n = recv(fd, sink, sizeof sink, 0)) > 0 || (n < 0 && errno == EAGAIN));
    settle(&g);
    close(fd);
    close(good);
    buf_fini(&b);
    rig_stop(&g);
}

static void connections_that_never_asked_make_room(void **state)
{
    static int idle[DYN_CONNS_MAX];
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    for (int i = 0; i < DYN_CONNS_MAX; i++) {
        idle[i] = rig_connect(&g);
        rig_turn(&g);
    }
    int good = rig_connect(&g);
    ask(&g, good, true, "s1", HI);
    assert_string_equal(rig_ack(&g, good), "");
    answer_is(&g, rig_accept(&g), true, HI_ANSWER("s1"));
    assert_true(closed(&g, idle[0]));
    for (int i = 0; i < DYN_CONNS_MAX; i++)
        close(idle[i]);
    settle(&g);
    close(good);
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
    answer_is(&g, rig_accept(&g), false,
              "{\"subject\":\"s1\",\"stream_type\":\"response\"}\n{\"error\":null}\n"
              "{\"data\":{\"you_said\":{\"worker_id\":18446744073709551615}},\"complete_final\":false}\n"
              "{\"complete_final\":true}\n\"sentinel\"\n");
    assert_int_equal(calls, 1);
    settle(&g);
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
        cmocka_unit_test(what_cannot_be_answered_is_refused_in_the_ack),
        cmocka_unit_test(choices_have_indexes_and_one_usage),
        cmocka_unit_test(a_watched_stop_token_ends_the_answer),
        cmocka_unit_test(a_frontend_that_ends_a_stream_cancels_at_once),
        cmocka_unit_test(a_reader_that_is_too_slow_is_broken_off),
        cmocka_unit_test(a_frontend_that_cannot_be_reached_costs_nothing),
        cmocka_unit_test(engine_failures_are_told_as_the_worker_s),
        cmocka_unit_test(draining_takes_requests_for_a_grace_and_ends_the_open_ones),
        cmocka_unit_test(stopping_tells_frontends_to_go_on_elsewhere),
        cmocka_unit_test(who_lies_is_closed_and_others_do_not_notice),
        cmocka_unit_test(who_does_not_read_acks_is_not_read),
        cmocka_unit_test(connections_that_never_asked_make_room),
        cmocka_unit_test(a_query_has_one_item),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
