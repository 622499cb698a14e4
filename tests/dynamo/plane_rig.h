/* A plane with a generate endpoint over the fake engine, driven by the test itself: a turn is a call. The test is the frontend as
 * well: it sends frames, listens for response streams and reads them. Nothing sleeps: what has not come yet is polled for. */
#ifndef TESTS_PLANE_RIG_H
#define TESTS_PLANE_RIG_H

#include "dynamo/request_frame.h"
#include "http/fake_engine.h"

#include "dyn_generate.h"
#include "dyn_json.h"
#include "dyn_plane.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define RIG_PATH "ab/dynamo/backend/generate"

struct rig {
    struct engine *engine;
    struct ledger *ledger;
    struct dyn_count count;
    struct dyn_generate *generate;
    struct dyn_plane *plane;
    int listen_fd; /* of the frontend, for responses */
    int plane_fd;  /* the plane's listening socket: it is the plane's */
    uint16_t port, plane_port;
    int family;
    int64_t skew_ns; /* added to the plane's clock: deadlines without waiting */
    uint32_t n_files;
};

/* Descriptors that this process has: what was opened must be closed again. */
static uint32_t rig_files(void)
{
    uint32_t n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static int rig_listen(int family, uint16_t *port)
{
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr *at = family == AF_INET6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4;
    socklen_t n = family == AF_INET6 ? sizeof v6 : sizeof v4;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, at, n), 0);
    assert_int_equal(listen(fd, 1024), 0);
    assert_int_equal(getsockname(fd, at, &n), 0);
    *port = ntohs(family == AF_INET6 ? v6.sin6_port : v4.sin_port);
    return fd;
}

static void rig_start(struct rig *g, const struct dyn_plane_options *with, int family)
{
    static const int32_t eog[] = {299};
    struct err e = {0};
    struct dyn_plane_options o = *with;
    uint32_t n_files = rig_files();
    *g = (struct rig){.engine = fake_engine_create(), .family = family, .n_files = n_files};
    assert_int_equal(ledger_create(&g->ledger, g->engine, &(struct timing_slo){0}), ST_OK);
    const struct dyn_generate_options generate = {.ledger = g->ledger,
                                                  .limits = {.context_length = 4096,
                                                             .vocab_size = FAKE_VOCAB,
                                                             .priority_max = 100,
                                                             .eog = eog,
                                                             .n_eog = 1},
                                                  .count = &g->count};
    assert_int_equal(dyn_generate_create(&g->generate, &generate), ST_OK);
    o.listen_fd = g->plane_fd = rig_listen(family, &g->plane_port);
    assert_int_equal(dyn_plane_create(&g->plane, &o, &e), ST_OK);
    assert_int_equal(dyn_plane_serve(g->plane, &(struct dyn_endpoint){.path = RIG_PATH,
                                                                      .call = dyn_generate_call,
                                                                      .ctx = g->generate}),
                     ST_OK);
    g->listen_fd = rig_listen(family, &g->port);
}

static void rig_stop(struct rig *g)
{
    dyn_plane_destroy(g->plane);
    dyn_generate_destroy(g->generate);
    ledger_destroy(g->ledger);
    fake_engine_destroy(g->engine);
    close(g->listen_fd);
    assert_int_equal(mem_live(), 0);
    assert_int_equal(rig_files(), g->n_files);
}

static void rig_turn(struct rig *g)
{
    ledger_poll(g->ledger);
    dyn_plane_run(g->plane, clock_now_ns() + g->skew_ns);
}

/* A turn, then a breath for the engine's thread and the kernel. False: the plane had nothing to do in it. */
static bool rig_wait(struct rig *g)
{
    struct pollfd p = {.fd = dyn_plane_fd(g->plane), .events = POLLIN};
    rig_turn(g);
    return poll(&p, 1, 1) > 0;
}

static int rig_connect(const struct rig *g)
{
    struct sockaddr_in6 v6 = {
        .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT, .sin6_port = htons(g->plane_port)};
    struct sockaddr_in v4 = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(g->plane_port)};
    int fd = socket(g->family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, g->family == AF_INET6 ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4,
                             g->family == AF_INET6 ? sizeof v6 : sizeof v4),
                     0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* ---- frames ------------------------------------------------------------------------------------------------------ */

static void rig_frame_to(struct buf *b, const char *path, const char *address, const char *transport,
                         const char *codec, const char *subject, struct str body)
{
    struct buf control = {0};
    buf_printf(&control,
               "{\"id\":\"%s\",\"payload_codec\":\"%s\",\"connection_info\":{\"transport\":\"%s\",\"info\":"
               "\"{\\\"address\\\":"
               "\\\"%s\\\",\\\"subject\\\":\\\"%s\\\",\\\"context\\\":\\\"x\\\",\\\"stream_type\\\":"
               "\\\"response\\\"}\"}}",
               subject, codec, transport, address, subject);
    put_request_frame(b, path, "{}", buf_str(&control), body);
    buf_fini(&control);
}

/* `json` is sent as it is, or as MessagePack. */
static void rig_frame(struct rig *g, struct buf *b, bool msgpack, const char *subject, const char *json)
{
    char address[64];
    struct buf body = {0};
    snprintf(address, sizeof address, g->family == AF_INET6 ? "[::1]:%u" : "127.0.0.1:%u", g->port);
    if (msgpack)
        assert_int_equal(dyn_json_to_msgpack(str_from(json), &body), ST_OK);
    else
        buf_puts(&body, json);
    rig_frame_to(b, RIG_PATH, address, "tcp_server", msgpack ? "msgpack" : "json", subject, buf_str(&body));
    buf_fini(&body);
}

static void rig_send(struct rig *g, int fd, const struct buf *b)
{
    for (size_t at = 0; at < b->n;) {
        ssize_t n = send(fd, b->p + at, b->n - at, MSG_NOSIGNAL);
        assert_true(n > 0 || errno == EAGAIN);
        at += n > 0 ? (size_t)n : 0;
        rig_turn(g);
    }
}

/* Exactly `n` bytes; false: the other side closed before. */
static bool rig_read(struct rig *g, int fd, char *out, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t k = recv(fd, out + at, n - at, 0);
        if (k == 0 || (k < 0 && errno != EAGAIN))
            return false;
        at += k > 0 ? (size_t)k : 0;
        if (k < 0)
            rig_wait(g);
    }
    return true;
}

static uint64_t rig_number(const char *p, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++)
        v = v << 8 | (unsigned char)p[i];
    return v;
}

/* The next ack's text. */
static const char *rig_ack(struct rig *g, int fd)
{
    static char text[2048];
    char length[4];
    assert_true(rig_read(g, fd, length, 4));
    size_t n = rig_number(length, 4);
    assert_true(n < sizeof text && rig_read(g, fd, text, n));
    text[n] = 0;
    return text;
}

static int rig_accept(struct rig *g)
{
    for (;;) {
        int fd = accept4(g->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
            return fd;
        rig_wait(g);
    }
}

/* The next message of a stream, as JSON text: its header, or its data. NULL: closed. */
static const char *rig_message(struct rig *g, int fd, bool msgpack)
{
    static char text[1 << 16];
    char head[24];
    if (!rig_read(g, fd, head, 24))
        return NULL;
    size_t h = rig_number(head, 8), d = rig_number(head + 8, 8);
    assert_true(!h != !d && rig_number(head + 16, 8) == 0 && h + d < sizeof text);
    assert_true(rig_read(g, fd, text, h + d));
    text[h + d] = 0;
    if (d && msgpack) {
        struct buf json = {0};
        struct dyn_msgpack m = dyn_msgpack_of(text, d);
        assert_int_equal(dyn_json_from_msgpack(&m, &json), ST_OK);
        assert_true(dyn_msgpack_end(&m) && json.n < sizeof text);
        memcpy(text, json.p, json.n + 1);
        buf_fini(&json);
    }
    return text;
}

/* A response to its end, one message per line, closed as a frontend does. */
static char *rig_response(struct rig *g, int fd, bool msgpack)
{
    struct buf all = {0};
    for (;;) {
        const char *m = rig_message(g, fd, msgpack);
        assert_non_null(m);
        buf_puts(&all, m);
        buf_putc(&all, '\n');
        if (strcmp(m, "\"sentinel\"") == 0)
            break;
    }
    close(fd);
    return all.p;
}

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

static void rig_ask(struct rig *g, int fd, bool msgpack, const char *subject, const char *json)
{
    struct buf b = {0};
    rig_frame(g, &b, msgpack, subject, json);
    rig_send(g, fd, &b);
    buf_fini(&b);
}

static void rig_settle(struct rig *g)
{
    while (atomic_load(&g->engine->submits) != atomic_load(&g->engine->releases) ||
           dyn_generate_count(g->generate) || !dyn_plane_idle(g->plane))
        rig_wait(g);
    assert_int_equal(g->count.inflight, 0);
}

static void rig_answer_is(struct rig *g, int fd, bool msgpack, const char *expected)
{
    char *all = rig_response(g, fd, msgpack);
    assert_string_equal(all, expected);
    mem_free(all);
}

#endif
