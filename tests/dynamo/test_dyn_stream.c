/* Response streams: how they end, and what a frontend that does not behave costs. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "plane_rig.h"

static const char kill_message[] = "\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\"kill\"";

/* A query whose answer is as long as `ctx` says. */
static void answer_long(void *ctx, const uint8_t *body, size_t n, struct buf *reply)
{
    (void)body;
    (void)n;
    for (size_t i = 0; i < *(size_t *)ctx; i++)
        dyn_msgpack_put_uint(reply, 7); /* not one value, but nobody here reads it */
}

static void serve_long(struct rig *g, size_t *bytes)
{
    assert_int_equal(
        dyn_plane_serve(g->plane,
                        &(struct dyn_endpoint){.path = "ab/q", .answer = answer_long, .ctx = bytes}),
        ST_OK);
}

/* To an endpoint, answered at this test's listening socket. */
static void send_query(struct rig *g, int fd)
{
    char address[64];
    struct buf b = {0};
    snprintf(address, sizeof address, "127.0.0.1:%u", g->port);
    rig_frame_to(&b, "ab/q", address, "tcp_server", "msgpack", "s1", STR_LIT("\xc0"));
    rig_send(g, fd, &b);
    buf_fini(&b);
    assert_string_equal(rig_ack(g, fd), "");
}

static bool open_still(struct rig *g, int fd)
{
    static char sink[1 << 16];
    ssize_t n;
    rig_turn(g);
    while ((n = recv(fd, sink, sizeof sink, 0)) > 0)
        ;
    return n < 0 && errno == EAGAIN;
}

/* By word, by closing, by reset, in pieces: the engine hears of it in the same turn. */
static void a_frontend_that_ends_a_stream_cancels_at_once(void **state)
{
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int fd = rig_connect(&g);
    for (int how = 0; how < 4; how++) {
        uint64_t cancels = atomic_load(&g.engine->cancels);
        rig_ask(&g, fd, true, "s1",
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
        rig_settle(&g);
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
        rig_ask(&g, fd, true, "s1",
                "{\"token_ids\":[104],\"stop_conditions\":{\"ignore_eos\":true,\"max_tokens\":4000},\"output_"
                "options\":{\"logprobs\":20}}");
        assert_string_equal(rig_ack(&g, fd), "");
        int answer = rig_accept(&g);
        while (dyn_generate_count(g.generate))
            rig_wait(&g); /* reads nothing */
        close(answer);
    }
    assert_int_equal(g.count.errors[DYN_ERROR_PUBLISH], 1);
    rig_settle(&g);
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
    rig_settle(&g);
    uint16_t port;
    g.listen_fd = rig_listen(AF_INET, &port);
    close(fd);
    rig_stop(&g);
}

/* It has all and says nothing: so long it is waited for, and no longer. */
static void who_does_not_close_is_closed(void **state)
{
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int fd = rig_connect(&g);
    rig_ask(&g, fd, false, "s1", "{}");
    assert_string_equal(rig_ack(&g, fd), "");
    int answer = rig_accept(&g);
    while (strcmp(rig_message(&g, answer, false), "\"sentinel\"") != 0)
        ;
    assert_true(open_still(&g, answer));
    g.skew_ns = INT64_C(11) * NS_PER_S;
    rig_turn(&g);
    assert_false(open_still(&g, answer));
    rig_settle(&g);
    close(answer);
    close(fd);
    rig_stop(&g);
}

/* Reads so much of a query's long answer every ten seconds, for so long. True: the stream stays. */
static bool stays_while_read(size_t portion, int seconds)
{
    size_t bytes =
        32 << 20; /* an eighth of it is more than a kernel's buffer, which swallows what dribbles */
    struct rig g;
    static char sink[1 << 16];
    rig_start(&g, &plain, AF_INET);
    assert_int_equal(setsockopt(g.listen_fd, SOL_SOCKET, SO_RCVBUF, &(int){2048}, sizeof(int)), 0);
    serve_long(&g, &bytes);
    int fd = rig_connect(&g);
    send_query(&g, fd);
    int answer = rig_accept(&g);
    for (int silent = 0; silent < 20; silent = rig_wait(&g) ? 0 : silent + 1)
        ; /* what the kernel has room for */
    for (int s = 0; s < seconds; s += 10) {
        g.skew_ns = (int64_t)s * NS_PER_S;
        for (size_t got = 0; got < portion && !dyn_plane_idle(g.plane);) {
            ssize_t n = recv(answer, sink, portion - got < sizeof sink ? portion - got : sizeof sink, 0);
            got += n > 0 ? (size_t)n : 0;
            rig_turn(&g);
        }
    }
    bool stays = !dyn_plane_idle(g.plane);
    close(answer);
    close(fd);
    rig_settle(&g);
    rig_stop(&g);
    return stays;
}

/* A byte now and then does not keep a stream whose answer has ended; an eighth of what is left, now and then, does. */
static void what_is_left_at_the_end_must_be_read(void **state)
{
    (void)state;
    assert_true(stays_while_read(4096, 60));
    assert_false(stays_while_read(4096, 80));
    assert_false(stays_while_read(512 << 10, 80));
    assert_true(stays_while_read(1 << 20, 200));
}

/* Nothing that a frontend may say but two words, in any pieces: garbage, lengths that lie, and chatter end its stream. */
static void a_frontend_that_talks_nonsense_loses_its_stream(void **state)
{
    static const char chatter[24 + 2] = "\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0{}";
    static const char lie[24] = "\0\0\0\0\0\0\x10\0\xff\xff\xff\xff\xff\xff\xff\xff";
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int fd = rig_connect(&g);
    for (int how = 0; how < 3; how++) {
        rig_ask(&g, fd, true, "s1",
                "{\"token_ids\":[104],\"stop_conditions\":{\"ignore_eos\":true,\"max_tokens\":4000}}");
        rig_ask(&g, fd, true, "s2", HI);
        for (int i = 0; i < 2; i++)
            assert_string_equal(rig_ack(&g, fd), "");
        int answer = rig_accept(&g), good = rig_accept(&g);
        if (how == 0)
            assert_int_equal(send(answer, "HTTP/1.1 400 Bad Request\r\n\r\n", 28, MSG_NOSIGNAL), 28);
        if (how == 1)
            assert_int_equal(send(answer, lie, sizeof lie, MSG_NOSIGNAL), sizeof lie);
        for (int i = 0; how == 2 && i < DYN_HEARD_MAX; i++)
            assert_int_equal(send(answer, chatter, sizeof chatter, MSG_NOSIGNAL), sizeof chatter);
        for (int i = 0; how == 2 && i < 4; i++) /* one read a turn */
            assert_true(open_still(&g, answer));
        if (how == 2)
            assert_int_equal(send(answer, chatter, sizeof chatter, MSG_NOSIGNAL), sizeof chatter);
        while (dyn_generate_count(g.generate) > 1)
            rig_wait(&g);
        rig_answer_is(&g, good, true, HI_ANSWER("s2"));
        rig_settle(&g);
        assert_int_equal(g.count.errors[DYN_ERROR_PUBLISH], how + 1);
        close(answer);
    }
    close(fd);
    rig_stop(&g);
}

/* It said "kill" before it read a byte; it hung up at once; it never listened on that socket again. */
static void a_stream_may_end_before_it_begins(void **state)
{
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int fd = rig_connect(&g);
    atomic_store(&g.engine->hold, 1);
    for (int how = 0; how < 2; how++) {
        rig_ask(&g, fd, true, "s1", HI);
        int answer = rig_accept(&g); /* the ack is not even read */
        if (how == 0)
            assert_int_equal(send(answer, kill_message, 30, MSG_NOSIGNAL), 30);
        else
            assert_int_equal(
                setsockopt(answer, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger)), 0);
        close(answer);
        while (dyn_generate_count(g.generate))
            rig_wait(&g);
    }
    atomic_store(&g.engine->hold, 0);
    rig_settle(&g);
    close(fd);
    rig_stop(&g);
}

/* Ids are the frontend's business: two requests of one name are two requests, and the end of one is not the other's. */
static void requests_of_one_id_are_two(void **state)
{
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int fd = rig_connect(&g);
    atomic_store(&g.engine->hold, 1);
    rig_ask(&g, fd, true, "same", HI);
    int first = rig_accept(&g);
    rig_ask(&g, fd, true, "same", HI);
    int second = rig_accept(&g);
    assert_int_equal(send(first, kill_message, 30, MSG_NOSIGNAL), 30);
    while (dyn_generate_count(g.generate) > 1)
        rig_wait(&g);
    atomic_store(&g.engine->hold, 0);
    rig_answer_is(&g, second, true, HI_ANSWER("same"));
    rig_settle(&g);
    close(first);
    close(fd);
    rig_stop(&g);
}

/* The address of the answer is the plane's own port: two of its sockets talk to each other, once. */
static void an_answer_to_ourselves_goes_nowhere(void **state)
{
    struct rig g;
    struct buf b = {0};
    char address[64];
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int fd = rig_connect(&g);
    snprintf(address, sizeof address, "127.0.0.1:%u", g.plane_port);
    rig_frame_to(&b, RIG_PATH, address, "tcp_server", "json", "s1", STR_LIT(HI));
    rig_send(&g, fd, &b);
    assert_string_equal(rig_ack(&g, fd), "");
    rig_settle(&g);
    assert_int_equal(g.count.requests, 1);
    buf_fini(&b);
    close(fd);
    rig_stop(&g);
}

/* Places are for streams that somebody answers for: the oldest that is finished and not closed goes, one at work does not. */
static void a_newcomer_finds_a_stream(void **state)
{
    enum { PLACES = 3 };
    const struct dyn_plane_options o = {.streams = {.streams_max = PLACES}};
    struct rig g;
    int answer[PLACES];
    (void)state;
    rig_start(&g, &o, AF_INET);
    int fd = rig_connect(&g);
    atomic_store(&g.engine->hold, 1);
    for (int i = 0; i < PLACES; i++) {
        rig_ask(&g, fd, true, "s1",
                i == 0 ? HI : "{}"); /* the first is at work, the others are refused with an item */
        assert_string_equal(rig_ack(&g, fd), "");
        answer[i] = rig_accept(&g);
    }
    for (int i = 1; i < PLACES; i++) {
        rig_ask(&g, fd, true, "s2", HI);
        assert_string_equal(rig_ack(&g, fd), "");
        assert_false(open_still(&g, answer[i]));
        close(answer[i]);
        answer[i] = rig_accept(&g);
    }
    rig_ask(&g, fd, true, "s3", HI);
    assert_string_equal(rig_ack(&g, fd), "Server overloaded: 3 response streams are open");
    atomic_store(&g.engine->hold, 0);
    for (int i = 0; i < PLACES; i++)
        rig_answer_is(&g, answer[i], true, i == 0 ? HI_ANSWER("s1") : HI_ANSWER("s2"));
    rig_settle(&g);
    close(fd);
    rig_stop(&g);
}

/* The end of an answer leaves with the turn; a newcomer of the same turn takes another one's place. */
static void an_answer_that_ends_is_sent_before_its_place_goes(void **state)
{
    const struct dyn_streams_options o = {
        .streams_max = 2, .bytes_max = 1 << 16, .output_max = 1 << 20, .connect_ms = 1000, .stall_ms = 1000};
    struct dyn_control control = {.id = "1", .subject = "s1"};
    struct dyn_streams *set = NULL;
    struct dyn_stream *ends, *silent, *newcomer, *too_many;
    struct err e = {0};
    uint16_t port;
    char sink[4096];
    size_t n_read = 0;
    ssize_t n;
    int home = rig_listen(AF_INET, &port), answer = -1;
    (void)state;
    snprintf(control.address, sizeof control.address, "127.0.0.1:%u", port);
    assert_int_equal(dyn_streams_create(&set, &o), ST_OK);
    assert_int_equal(dyn_stream_open(set, &control, &ends, &e), ST_OK);
    dyn_stream_start(ends, 1);
    while (answer < 0 ||
           recv(answer, sink, sizeof sink, MSG_PEEK) <= 0) { /* its handshake: it is connected */
        dyn_streams_run(set, 1);
        answer = answer < 0 ? accept4(home, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC) : answer;
    }
    assert_int_equal(dyn_stream_open(set, &control, &silent, &e), ST_OK);
    dyn_stream_start(silent, 1);
    dyn_stream_put(ends, STR_LIT("\x07"));
    dyn_stream_finish(ends);
    assert_int_equal(dyn_stream_open(set, &control, &newcomer, &e),
                     ST_OK); /* in the place of the silent one */
    dyn_stream_start(newcomer, 1);
    dyn_streams_run(set, 1);
    assert_int_equal(dyn_stream_open(set, &control, &too_many, &e), ST_OK); /* now the finished one goes */
    dyn_stream_discard(too_many);
    dyn_streams_run(set, 1);
    while ((n = recv(answer, sink + n_read, sizeof sink - n_read, 0)) > 0)
        n_read += (size_t)n;
    assert_int_equal(n, 0);
    assert_memory_equal(sink + n_read - 10, "\"sentinel\"", 10);
    dyn_streams_destroy(set);
    close(answer);
    close(home);
}

/* An address that takes no connection: a listening socket whose queue is full. */
static void connections_that_do_not_come_about_make_room(void **state)
{
    const struct dyn_plane_options o = {.streams = {.streams_max = 3}};
    struct rig g;
    uint16_t port, own;
    char address[64];
    (void)state;
    rig_start(&g, &o, AF_INET);
    int silent = rig_listen(AF_INET, &port);
    assert_int_equal(listen(silent, 0), 0);
    own = g.plane_port;
    g.plane_port = port;
    int full = rig_connect(&g);
    g.plane_port = own;
    int fd = rig_connect(&g);
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    atomic_store(&g.engine->hold, 1);
    for (int i = 0; i < 3; i++) {
        struct buf b = {0};
        rig_frame_to(&b, RIG_PATH, address, "tcp_server", "json", "s1", STR_LIT(HI));
        rig_send(&g, fd, &b);
        buf_fini(&b);
        assert_string_equal(rig_ack(&g, fd), "");
    }
    rig_ask(&g, fd, true, "s1", HI);
    assert_string_equal(rig_ack(&g, fd), "");
    atomic_store(&g.engine->hold, 0);
    rig_answer_is(&g, rig_accept(&g), true, HI_ANSWER("s1"));
    g.skew_ns = INT64_C(11) * NS_PER_S;
    rig_turn(&g);
    rig_settle(&g);
    close(full);
    close(silent);
    close(fd);
    rig_stop(&g);
}

/* What nobody reads is bounded over all streams: who makes most of it goes, the oldest among equals. */
static void unread_output_is_bounded_over_all_streams(void **state)
{
    const struct dyn_plane_options o = {.streams = {.output_max = 16 << 20}};
    size_t bytes = 6 << 20; /* takes 8 MiB */
    struct rig g;
    int answer[3];
    (void)state;
    rig_start(&g, &o, AF_INET);
    assert_int_equal(setsockopt(g.listen_fd, SOL_SOCKET, SO_RCVBUF, &(int){2048}, sizeof(int)), 0);
    serve_long(&g, &bytes);
    int fd = rig_connect(&g);
    for (int i = 0; i < 3; i++) {
        send_query(&g, fd);
        answer[i] = rig_accept(&g);
    }
    rig_ask(&g, fd, true, "s1", HI);
    assert_string_equal(rig_ack(&g, fd), "");
    rig_answer_is(&g, rig_accept(&g), true, HI_ANSWER("s1"));
    static char sink[1 << 16];
    size_t got = 0;
    for (ssize_t n = 1; n != 0 && got<bytes; got += n> 0 ? (size_t)n : 0) {
        rig_turn(&g);
        n = recv(answer[0], sink, sizeof sink, 0);
    }
    assert_true(got < bytes);           /* the rest of it went with its stream */
    g.skew_ns = INT64_C(61) * NS_PER_S; /* nobody read */
    rig_turn(&g);
    rig_settle(&g);
    for (int i = 0; i < 3; i++)
        close(answer[i]);
    close(fd);
    rig_stop(&g);
}

/* More than all streams together may hold is not even begun to be sent. */
static void an_answer_beyond_all_bounds_is_not_begun(void **state)
{
    const struct dyn_plane_options o = {.streams = {.output_max = 1 << 20}};
    size_t bytes = 2 << 20;
    struct rig g;
    (void)state;
    rig_start(&g, &o, AF_INET);
    serve_long(&g, &bytes);
    int fd = rig_connect(&g);
    send_query(&g, fd);
    rig_settle(&g);
    assert_true(accept4(g.listen_fd, NULL, NULL, SOCK_CLOEXEC) < 0 && errno == EAGAIN);
    rig_ask(&g, fd, true, "s1", HI);
    assert_string_equal(rig_ack(&g, fd), "");
    rig_answer_is(&g, rig_accept(&g), true, HI_ANSWER("s1"));
    close(fd);
    rig_settle(&g);
    rig_stop(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frontend_that_ends_a_stream_cancels_at_once),
        cmocka_unit_test(a_reader_that_is_too_slow_is_broken_off),
        cmocka_unit_test(a_frontend_that_cannot_be_reached_costs_nothing),
        cmocka_unit_test(who_does_not_close_is_closed),
        cmocka_unit_test(what_is_left_at_the_end_must_be_read),
        cmocka_unit_test(a_frontend_that_talks_nonsense_loses_its_stream),
        cmocka_unit_test(a_stream_may_end_before_it_begins),
        cmocka_unit_test(requests_of_one_id_are_two),
        cmocka_unit_test(an_answer_to_ourselves_goes_nowhere),
        cmocka_unit_test(a_newcomer_finds_a_stream),
        cmocka_unit_test(an_answer_that_ends_is_sent_before_its_place_goes),
        cmocka_unit_test(connections_that_do_not_come_about_make_room),
        cmocka_unit_test(unread_output_is_bounded_over_all_streams),
        cmocka_unit_test(an_answer_beyond_all_bounds_is_not_begun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
