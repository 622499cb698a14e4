/* A server on its own thread against the fake engine, and a plain client: bytes out, bytes in. */
#ifndef TESTS_SERVER_H
#define TESTS_SERVER_H

#include "fake_engine.h"
#include "fake_text.h"
#include "http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct server {
    struct engine *engine;
    struct ledger *ledger;
    struct http_options o;
    struct http *http;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t up;
    bool listening, leave;
    int run_status;
    void (*attach)(struct http *h); /* NULL: nothing is */
};

static const struct str server_names[] = {STR_LIT("fake"), STR_LIT("org/fake")};

static void *server_thread(void *arg)
{
    struct server *s = arg;
    struct err e = {0};
    struct http *h = NULL;
    int st = http_create(&h, &s->o, &e);
    if (st)
        fprintf(stderr, "http_create: %s\n", e.text);
    else if (s->attach)
        s->attach(h);
    pthread_mutex_lock(&s->lock);
    s->http = h;
    s->listening = true;
    pthread_cond_signal(&s->up);
    pthread_mutex_unlock(&s->lock);
    s->run_status = st ? st : http_run(h, &e);
    /* whoever asked for the stop is still inside http_stop, perhaps */
    pthread_mutex_lock(&s->lock);
    while (!s->leave)
        pthread_cond_wait(&s->up, &s->lock);
    pthread_mutex_unlock(&s->lock);
    http_destroy(h);
    return NULL;
}

static void server_options(struct server *s)
{
    for (int i = 0; i < 256; i++)
        fake_bytes[i] = (char)i;
    *s = (struct server){.engine = fake_engine_create()};
    assert(ledger_create(&s->ledger, s->engine, &(struct timing_slo){0}) == ST_OK);
    s->o = (struct http_options){
        .host = "127.0.0.1",
        .ledger = s->ledger,
        .model = {.chat = (const struct chat *)fake_bytes,
                  .tok = (const struct tok *)fake_bytes,
                  .names = server_names,
                  .n_names = 2,
                  .context_length = 40000,
                  .api = {.vocab_size = FAKE_VOCAB,
                          .defaults = {.n = 1, .temperature = 1, .top_p = 1, .repetition_penalty = 1}}},
        .version = STR_LIT("0.0.1"),
        .max_body_bytes = 1 << 20,
        .drain_timeout_ms = 2000};
}

static void server_start(struct server *s)
{
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->up, NULL);
    pthread_create(&s->thread, NULL, server_thread, s);
    pthread_mutex_lock(&s->lock);
    while (!s->listening)
        pthread_cond_wait(&s->up, &s->lock);
    pthread_mutex_unlock(&s->lock);
    assert(s->http);
}

static void server_join(struct server *s)
{
    pthread_mutex_lock(&s->lock);
    s->leave = true;
    pthread_cond_signal(&s->up);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    ledger_destroy(s->ledger);
    fake_engine_destroy(s->engine);
}

static void server_stop(struct server *s)
{
    http_stop(s->http);
    server_join(s);
}

static int client_open(const struct server *s)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(http_port(s->http)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
        perror("connect");
        abort();
    }
    return fd;
}

static void client_send(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k <= 0)
            return;
        p += k;
        n -= (size_t)k;
    }
}

/* Reads until `until` is seen, the peer closes, or 10 s pass. */
static void client_read(int fd, struct buf *out, const char *until)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        char chunk[4096];
        if (poll(&p, 1, 10000) <= 0)
            return;
        ssize_t k = recv(fd, chunk, sizeof chunk, 0);
        if (k <= 0)
            return;
        buf_put(out, chunk, (size_t)k);
        if (until && out->p && strstr(out->p, until))
            return;
    }
}

static void client_post(int fd, const char *path, const char *body, const char *extra)
{
    struct buf b = {0};
    buf_printf(&b, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n%s\r\n", path, strlen(body), extra);
    buf_puts(&b, body);
    client_send(fd, b.p, b.n);
    buf_fini(&b);
}

/* One request on a connection of its own; the whole answer. */
static struct buf exchange(const struct server *s, const char *method, const char *path, const char *extra,
                           struct str body)
{
    struct buf b = {0}, out = {0};
    int fd = client_open(s);
    buf_printf(&b, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s", method, path, extra);
    if (body.n)
        buf_printf(&b, "Content-Length: %zu\r\n", body.n);
    buf_puts(&b, "\r\n");
    buf_put(&b, body.p, body.n);
    client_send(fd, b.p, b.n);
    client_read(fd, &out, NULL);
    close(fd);
    buf_fini(&b);
    return out;
}

static struct buf post(const struct server *s, const char *path, const char *body)
{
    return exchange(s, "POST", path, "", str_from(body));
}

static bool wait_for(_Atomic uint64_t *v, uint64_t least)
{
    for (int i = 0; i < 5000; i++) {
        if (atomic_load(v) >= least)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return false;
}

/* For a group's teardown: 0 when every slot came back and it ended well. */
static inline int server_end(struct server *s)
{
    bool empty = wait_for(&s->engine->releases, atomic_load(&s->engine->submits));
    server_stop(s);
    return empty ? s->run_status : 1;
}

#define assert_has(b, text)                                                 \
    do {                                                                    \
        if (!(b).p || !strstr((b).p, text))                                 \
            fail_msg("no <%s> in:\n%s", text, (b).p ? (b).p : "(nothing)"); \
    } while (0)

#endif
