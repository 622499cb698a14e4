/* Connections of frontends, hostile ones among them: who lies, stalls or floods is closed, and nobody else notices. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dyn_conns.h"
#include "plane_rig.h"

#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

/* Reads one byte; true: there is none, the other side closed. */
static bool rig_closed(struct rig *g, int fd)
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
    assert_true(rig_closed(&g, liar));
    rig_turn(&g);
    g.skew_ns = INT64_C(31) * NS_PER_S;
    assert_true(rig_closed(&g, slow)); /* its frame did not come to an end */
    rig_ask(&g, good, true, "s1", HI);
    assert_string_equal(rig_ack(&g, good), "");
    rig_answer_is(&g, rig_accept(&g), true, HI_ANSWER("s1"));
    rig_settle(&g);
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
        silent = rig_wait(&g) || n > 0 ? 0 : silent + 1;
    }
    rig_ask(&g, good, true, "s1", HI);
    assert_string_equal(rig_ack(&g, good), "");
    rig_answer_is(&g, rig_accept(&g), true, HI_ANSWER("s1"));
    g.skew_ns = INT64_C(31) * NS_PER_S;
    char sink[65536];
    ssize_t n;
    do
        rig_wait(&g);
    while ((n = recv(fd, sink, sizeof sink, 0)) > 0 || (n < 0 && errno == EAGAIN));
    rig_settle(&g);
    close(fd);
    close(good);
    buf_fini(&b);
    rig_stop(&g);
}

static void reset_on_close(int fd)
{
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger)), 0);
    close(fd);
}

/* Asks and reads everything: the frontend that must not notice. */
static void serve_well(struct rig *g, int fd)
{
    rig_ask(g, fd, true, "s1", HI);
    assert_string_equal(rig_ack(g, fd), "");
    rig_answer_is(g, rig_accept(g), true, HI_ANSWER("s1"));
}

/* All that it sent was taken and only its acks lie there: that is no reason to keep it. */
static void acks_that_are_never_read_end_the_connection(void **state)
{
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(g.plane_port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(setsockopt(g.plane_fd, SOL_SOCKET, SO_SNDBUF, &(int){2048}, sizeof(int)), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){2048}, sizeof(int)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    /* One by one: nothing else waits when the first ack finds no room. There may be some again when the kernel has heard that
     * what was sent has arrived, which takes it up to 40 ms. */
    for (int i = 0, owed = 0; owed < 100; i++) {
        assert_true(i < 100000);
        if (!owed)
            assert_int_equal(send(fd, "\0\1x\0\0\0\0\0\0", 9, MSG_NOSIGNAL), 9);
        while (rig_wait(&g))
            ;
        owed = dyn_plane_run(g.plane, clock_now_ns()) >= 0 ? owed + 1 : 0;
    }
    assert_int_equal(dyn_plane_conns(g.plane), 1);
    g.skew_ns = INT64_C(31) * NS_PER_S;
    rig_turn(&g);
    assert_int_equal(dyn_plane_conns(g.plane), 0);
    close(fd);
    rig_stop(&g);
}

/* A turn takes so many frames of a connection and no more, however many came. */
static void a_flood_is_taken_in_small_portions(void **state)
{
    enum { FRAMES = 1000 };
    struct rig g;
    struct buf b = {0};
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int flood = rig_connect(&g);
    rig_turn(&g);
    for (int i = 0; i < FRAMES; i++)
        buf_put(&b, "\0\1x\0\0\0\0\0\0", 9);
    assert_int_equal(send(flood, b.p, b.n, MSG_NOSIGNAL), b.n);
    int good = rig_connect(&g);
    struct buf one = {0};
    rig_frame(&g, &one, true, "s1", HI);
    assert_int_equal(send(good, one.p, one.n, MSG_NOSIGNAL), one.n);
    static const char refusal[] = "Server unavailable: unknown endpoint x";
    char acks[8192], ok[4];
    size_t n = 0, turns = 0;
    do {
        rig_turn(&g);
        turns++;
    } while (recv(good, ok, 4, 0) != 4); /* served when it was heard, if a turn's time sufficed */
    assert_memory_equal(ok, "\0\0\0\0", 4);
    for (ssize_t k; (k = recv(flood, acks + n, sizeof acks - n, 0)) > 0;)
        n += (size_t)k;
    assert_true(n > 0 && n <= turns * DYN_FRAMES_PER_TURN * (4 + sizeof refusal - 1));
    rig_answer_is(&g, rig_accept(&g), true, HI_ANSWER("s1"));
    for (int i = (int)(n / (4 + sizeof refusal - 1)); i < FRAMES; i++) /* and nothing is lost */
        assert_string_equal(rig_ack(&g, flood), refusal);
    rig_settle(&g);
    close(flood);
    close(good);
    buf_fini(&b);
    buf_fini(&one);
    rig_stop(&g);
}

/* Sends, and waits until it lies at the plane's: from then on turns can be counted. */
static void send_there(int fd, const struct buf *b)
{
    int on_the_way = 1;
    assert_int_equal(send(fd, b->p, b->n, MSG_NOSIGNAL), b->n);
    while (on_the_way) {
        poll(NULL, 0, 1);
        assert_int_equal(ioctl(fd, SIOCOUTQ, &on_the_way), 0);
    }
}

static void wait_for_conns(struct rig *g, uint32_t n)
{
    while (dyn_plane_conns(g->plane) < n)
        rig_wait(g);
}

static void count_call(void *ctx, const uint8_t *body, size_t n, struct buf *reply)
{
    (void)body;
    (void)n;
    *(int *)ctx += 1;
    dyn_msgpack_put_nil(reply);
}

static void a_query_is_a_connection_s_turn(void **state)
{
    struct rig g;
    struct buf b = {0};
    int calls = 0;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    assert_int_equal(
        dyn_plane_serve(g.plane, &(struct dyn_endpoint){.path = "ab/q", .answer = count_call, .ctx = &calls}),
        ST_OK);
    int fd = rig_connect(&g);
    wait_for_conns(&g, 1);
    for (int i = 0; i < 20; i++)
        rig_frame_to(&b, "ab/q", "127.0.0.1:1", "tcp_server", "json", "s", STR_LIT("{}"));
    send_there(fd, &b);
    for (int i = 1; i <= 20; i++) {
        rig_turn(&g);
        assert_int_equal(calls, i);
    }
    rig_settle(&g);
    close(fd);
    buf_fini(&b);
    rig_stop(&g);
}

struct costly {
    int calls;
    char who[32]; /* [calls] */
};

/* Refuses, after more time than a turn may take. */
static enum dyn_answer cost_a_turn(void *ctx, const struct dyn_call *call, struct err *why)
{
    struct costly *c = ctx;
    struct dyn_msgpack m = dyn_msgpack_of(call->body, call->n_body);
    struct dyn_value v;
    assert_int_equal(dyn_msgpack_read(&m, &v), ST_OK);
    c->who[c->calls++] = (char)v.u;
    for (int64_t end = clock_now_ns() + (int64_t)DYN_TURN_MS * NS_PER_MS; clock_now_ns() < end;)
        ;
    err_set(why, ST_EBUSY, "costly");
    return DYN_OVERLOADED;
}

/* Each sends what takes four turns: a turn ends with the first frame, and they take turns in order. None is thought
 * to be slow because it had to wait. */
static void a_turn_ends_when_it_has_lasted_and_the_next_goes_on_with_who_waited(void **state)
{
    enum { PEERS = 3, FRAMES = 4 };
    struct rig g;
    struct costly c = {0};
    int fd[PEERS];
    (void)state;
    rig_start(&g, &plain, AF_INET);
    assert_int_equal(
        dyn_plane_serve(g.plane, &(struct dyn_endpoint){.path = "ab/c", .call = cost_a_turn, .ctx = &c}),
        ST_OK);
    for (int i = 0; i < PEERS; i++)
        fd[i] = rig_connect(&g);
    wait_for_conns(&g, PEERS);
    for (char i = 0; i < PEERS; i++) {
        struct buf b = {0};
        for (int k = 0; k < FRAMES; k++)
            rig_frame_to(&b, "ab/c", "127.0.0.1:1", "tcp_server", "msgpack", "s", (struct str){&i, 1});
        send_there(fd[(int)i], &b);
        buf_fini(&b);
    }
    for (int i = 0; i < PEERS * FRAMES; i++) {
        if (i == PEERS)
            g.skew_ns = INT64_C(31) * NS_PER_S;
        rig_turn(&g);
        assert_int_equal(c.calls, i + 1);
        assert_int_equal(c.who[i], c.who[i % PEERS]);
        assert_int_equal(dyn_plane_conns(g.plane), PEERS);
    }
    assert_true(c.who[0] != c.who[1] && c.who[1] != c.who[2] && c.who[2] != c.who[0]);
    rig_turn(&g);
    assert_int_equal(c.calls, PEERS * FRAMES);
    rig_settle(&g);
    for (int i = 0; i < PEERS; i++)
        close(fd[i]);
    rig_stop(&g);
}

/* Who never had a request taken goes first, whatever he sent; then who has not had one for longest. */
static void a_newcomer_finds_a_place(void **state)
{
    enum { PLACES = 8 };
    const struct dyn_plane_options o = {.conns_max = PLACES};
    struct rig g;
    int fd[PLACES + 2];
    (void)state;
    rig_start(&g, &o, AF_INET);
    for (int i = 0; i < PLACES; i++) {
        fd[i] = rig_connect(&g);
        rig_turn(&g);
        if (i != 3 && i != 5)
            serve_well(&g, fd[i]);
    }
    struct buf b = {0}; /* the 4th asks for nothing that there is, the 6th for nothing */
    rig_frame_to(&b, "no/such/path", "127.0.0.1:1", "tcp_server", "json", "s", STR_LIT("{}"));
    rig_send(&g, fd[3], &b);
    buf_fini(&b);
    assert_memory_equal(rig_ack(&g, fd[3]), "Server unavailable: ", 20);
    serve_well(&g, fd[0]);
    static const int leaves[] = {3, 5, 1, 2};
    for (int i = 0; i < 4; i++) {
        int newcomer = rig_connect(&g);
        serve_well(&g, newcomer);
        assert_int_equal(dyn_plane_conns(g.plane), PLACES);
        assert_true(rig_closed(&g, fd[leaves[i]]));
        close(fd[leaves[i]]);
        fd[leaves[i]] = newcomer;
    }
    serve_well(&g, fd[0]);
    for (int i = 0; i < PLACES; i++)
        close(fd[i]);
    rig_settle(&g);
    rig_stop(&g);
}

static void a_crowd_of_connections_keeps_nobody_out(void **state)
{
    const struct dyn_plane_options o = {.conns_max = 16};
    struct rig g;
    (void)state;
    rig_start(&g, &o, AF_INET);
    int good = rig_connect(&g);
    serve_well(&g, good);
    for (int i = 0; i < 10000; i++) {
        int fd = rig_connect(&g);
        if (i % 3 == 0)
            assert_int_equal(send(fd, "\0\1x\0\0\0\0\0\0", 1 + i % 9, MSG_NOSIGNAL), 1 + i % 9);
        if (i % 64 == 0)
            rig_turn(&g);
        if (i % 2)
            reset_on_close(fd);
        else
            close(fd);
    }
    serve_well(&g, good);
    close(good);
    rig_settle(&g);
    rig_stop(&g);
}

/* Frames that never come whole share a bound; who holds most of it goes, not the one who found it full. */
static void who_holds_most_unfinished_input_goes(void **state)
{
    enum { HOARDERS = 5, HOARD = 200 << 10 }; /* each takes a quarter of a MiB */
    const struct dyn_plane_options o = {.input_max = 1 << 20};
    static char zeros[HOARD];
    struct rig g;
    struct buf one = {0}, head = {0};
    int hoarder[HOARDERS];
    (void)state;
    rig_start(&g, &o, AF_INET);
    int good = rig_connect(&g);
    put_be(&head, 1, 2);
    buf_puts(&head, "x");
    put_be(&head, 0, 2);
    put_be(&head, DYN_FRAME_MAX, 4);
    buf_put(&head, zeros, sizeof zeros);
    rig_frame(&g, &one, true, "s1", HI);
    assert_int_equal(send(good, one.p, 20, MSG_NOSIGNAL), 20); /* its own is not whole yet either */
    for (int i = 0; i < HOARDERS; i++) {
        hoarder[i] = rig_connect(&g);
        rig_send(&g, hoarder[i], &head);
        for (int turn = 0; turn < 8; turn++)
            rig_turn(&g);
    }
    assert_int_equal(dyn_plane_conns(g.plane), HOARDERS - 2 + 1);
    assert_true(rig_closed(&g, hoarder[0]) && rig_closed(&g, hoarder[1]));
    assert_int_equal(send(good, one.p + 20, one.n - 20, MSG_NOSIGNAL), one.n - 20);
    assert_string_equal(rig_ack(&g, good), "");
    rig_answer_is(&g, rig_accept(&g), true, HI_ANSWER("s1"));
    for (int i = 0; i < HOARDERS; i++)
        close(hoarder[i]);
    close(good);
    rig_settle(&g);
    buf_fini(&one);
    buf_fini(&head);
    rig_stop(&g);
}

/* The sender leaves at every byte of a frame, in both ways there are. */
static void a_connection_may_end_at_every_byte(void **state)
{
    struct rig g;
    struct buf b = {0};
    (void)state;
    rig_start(&g, &plain, AF_INET);
    rig_frame(&g, &b, true, "s1", HI);
    for (size_t cut = 0; cut < b.n; cut++) {
        int fd = rig_connect(&g);
        assert_int_equal(send(fd, b.p, cut, MSG_NOSIGNAL), cut);
        if (cut & 1) {
            reset_on_close(fd);
        } else {
            shutdown(fd, SHUT_WR);
            assert_true(rig_closed(&g, fd));
            close(fd);
        }
        do
            rig_wait(&g);
        while (dyn_plane_conns(g.plane));
    }
    assert_int_equal(g.count.requests, 0);
    int fd = rig_connect(&g); /* after the last byte it is a request, though its sender hears no ack */
    assert_int_equal(send(fd, b.p, b.n, MSG_NOSIGNAL), b.n);
    reset_on_close(fd);
    buf_fini(&b);
    rig_settle(&g);
    rig_stop(&g);
}

/* Lengths that no frame may have end the connection at once, before anything is kept for them. */
static void lengths_that_lie_are_not_waited_for(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
    } lies[] = {{"\x04\x01", 2},
                {"\xff\xff", 2},
                {"\0\1x\x40\x01", 5},
                {"\0\1x\0\0\x02\0\0\x01", 9},
                {"\0\1x\0\0\xff\xff\xff\xff", 9}};
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        int fd = rig_connect(&g);
        assert_int_equal(send(fd, lies[i].bytes, lies[i].n, MSG_NOSIGNAL), lies[i].n);
        assert_true(rig_closed(&g, fd));
        close(fd);
    }
    rig_stop(&g);
}

/* There is nothing that waits for a moment that has passed: who owes nothing stays, however far the clock goes. */
static void a_clock_that_jumps_ends_only_what_is_overdue(void **state)
{
    struct rig g;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int idle = rig_connect(&g), late = rig_connect(&g);
    serve_well(&g, idle);
    rig_settle(&g);
    assert_int_equal(send(late, "\0\1x", 3, MSG_NOSIGNAL), 3);
    rig_turn(&g);
    g.skew_ns = INT64_C(1000000) * NS_PER_S;
    rig_turn(&g);
    assert_true(rig_closed(&g, late));
    serve_well(&g, idle);
    g.skew_ns = 0; /* and back */
    serve_well(&g, idle);
    close(idle);
    close(late);
    rig_settle(&g);
    rig_stop(&g);
}

/* Without descriptors newcomers wait in the kernel, those who are there are served, and the newcomers after them. */
static void newcomers_wait_for_descriptors(void **state)
{
    struct rig g;
    struct rlimit before, none;
    (void)state;
    rig_start(&g, &plain, AF_INET);
    int good = rig_connect(&g);
    rig_ask(&g, good, true, "s1", "{}");
    assert_string_equal(rig_ack(&g, good), "");
    mem_free(rig_response(&g, rig_accept(&g), true));
    rig_settle(&g);
    int late = rig_connect(&g);
    int next = dup(late);
    close(next); /* the lowest number that is free */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){.rlim_cur = (rlim_t)next, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    rig_turn(&g);
    assert_int_equal(dyn_plane_conns(g.plane), 1);
    rig_ask(&g, good, true, "s2",
            HI); /* its answer finds no descriptor either: the request ends, the connection stays */
    assert_string_equal(rig_ack(&g, good), "");
    rig_settle(&g);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    g.skew_ns = NS_PER_S;
    rig_turn(&g); /* looks again */
    serve_well(&g, late);
    serve_well(&g, good);
    close(late);
    close(good);
    rig_settle(&g);
    rig_stop(&g);
}

/* Whichever allocation fails: that connection or that request is gone or refused, and nothing else is. */
static void without_memory_one_connection_ends(void **state)
{
    struct rig g;
    struct buf b = {0};
    (void)state;
    rig_start(&g, &plain, AF_INET);
    rig_frame(&g, &b, false, "s1", "{}");
    int good = rig_connect(&g);
    serve_well(&g, good);
    rig_settle(&g);
    bool whole = false;
    for (uint64_t n = 1; !whole; n++) {
        assert_true(n < 1000);
        int fd = rig_connect(&g);
        assert_int_equal(send(fd, b.p, b.n / 2, MSG_NOSIGNAL), b.n / 2);
        mem_fail_after(n);
        rig_turn(&g); /* taken in; half a frame is kept */
        rig_turn(&g);
        (void)!send(fd, b.p + b.n / 2, b.n - b.n / 2, MSG_NOSIGNAL);
        for (int i = 0; i < 8; i++)
            rig_turn(&g);
        mem_fail_after(0);
        char ack[4];
        whole = recv(fd, ack, 4, 0) == 4 && memcmp(ack, "\0\0\0\0", 4) == 0;
        for (int answer; (answer = accept4(g.listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0;)
            close(answer);
        close(fd);
        serve_well(&g, good);
        rig_settle(&g);
    }
    close(good);
    buf_fini(&b);
    rig_settle(&g);
    rig_stop(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_lies_is_closed_and_others_do_not_notice),
        cmocka_unit_test(who_does_not_read_acks_is_not_read),
        cmocka_unit_test(acks_that_are_never_read_end_the_connection),
        cmocka_unit_test(a_flood_is_taken_in_small_portions),
        cmocka_unit_test(a_query_is_a_connection_s_turn),
        cmocka_unit_test(a_turn_ends_when_it_has_lasted_and_the_next_goes_on_with_who_waited),
        cmocka_unit_test(a_newcomer_finds_a_place),
        cmocka_unit_test(a_crowd_of_connections_keeps_nobody_out),
        cmocka_unit_test(who_holds_most_unfinished_input_goes),
        cmocka_unit_test(a_connection_may_end_at_every_byte),
        cmocka_unit_test(lengths_that_lie_are_not_waited_for),
        cmocka_unit_test(a_clock_that_jumps_ends_only_what_is_overdue),
        cmocka_unit_test(newcomers_wait_for_descriptors),
        cmocka_unit_test(without_memory_one_connection_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
