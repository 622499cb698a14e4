/* Every call opens a connection and closes it: on loopback that costs some 0.1 ms, the same for every server compared, and
 * there is no idle connection whose end could be mistaken for a failure. The clock is read once per read(2), so a token's
 * time is when its bytes came out of the socket.
 *
 * Rejected: serve/load.c's loop. It keeps N like requests in flight; here streams of unlike requests run side by side and
 * a reply that ends may be what others wait for. What reads HTTP and events (serve/reply.c) is the same. */
#define _GNU_SOURCE
#include "calls.h"

#include "clock.h"
#include "mem.h"

#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { READY_MAX = 64 };

struct call {
    int fd; /* -1: not in flight */
    uint32_t tag;
    struct buf out;
    size_t sent;
    struct reply reply;
};

struct calls {
    const struct load_target *target;
    struct calls_hooks hooks;
    int epoll;
    uint32_t cap;
    struct call call[]; /* [cap] */
};

int calls_create(struct calls **out, uint32_t cap, const struct load_target *target,
                 const struct calls_hooks *hooks, struct err *e)
{
    struct calls *c = mem_zalloc(1, sizeof *c + cap * sizeof *c->call);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!c || epoll < 0) {
        mem_free(c);
        if (epoll >= 0)
            close(epoll);
        return err_set(e, ST_ENOMEM, "no memory for %u calls", cap);
    }
    *c = (struct calls){.target = target, .hooks = *hooks, .epoll = epoll, .cap = cap};
    for (uint32_t i = 0; i < cap; i++)
        c->call[i].fd = -1;
    *out = c;
    return ST_OK;
}

static void shut(struct call *call)
{
    if (call->fd >= 0)
        close(call->fd);
    call->fd = -1;
}

void calls_destroy(struct calls *c)
{
    if (!c)
        return;
    for (uint32_t i = 0; i < c->cap; i++) {
        shut(&c->call[i]);
        reply_fini(&c->call[i].reply);
        buf_fini(&c->call[i].out);
    }
    close(c->epoll);
    mem_free(c);
}

/* The reply stays readable while the hook runs, for no other call can take its place before. */
static void finish(struct calls *c, struct call *call, const char *error, int64_t now)
{
    char text[256];
    if (!error && call->reply.status != 200) {
        char why[200];
        reply_error_text(&call->reply, why, sizeof why);
        snprintf(text, sizeof text, "HTTP %d: %s", call->reply.status, why);
        error = text;
    }
    if (call->fd >= 0)
        epoll_ctl(c->epoll, EPOLL_CTL_DEL, call->fd, NULL);
    c->hooks.on_done(c->hooks.ctx, call->tag, &call->reply, error, now);
    shut(call);
}

static int connect_call(struct calls *c, struct call *call)
{
    call->fd = socket(c->target->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (call->fd < 0)
        return -1;
    int one = 1;
    setsockopt(call->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(call->fd, (const struct sockaddr *)&c->target->addr, c->target->addr_bytes) != 0 &&
        errno != EINPROGRESS)
        return -1;
    struct epoll_event ev = {.events = EPOLLOUT, .data.ptr = call};
    return epoll_ctl(c->epoll, EPOLL_CTL_ADD, call->fd, &ev);
}

void calls_begin(struct calls *c, uint32_t tag, struct str body)
{
    struct call *call = c->call;
    while (call < c->call + c->cap && call->fd >= 0)
        call++;
    assert(call < c->call + c->cap);
    call->tag = tag;
    call->sent = 0;
    reply_reset(&call->reply);
    buf_reset(&call->out);
    buf_printf(&call->out,
               "POST /v1/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: "
               "application/json\r\nContent-Length: %zu\r\n"
               "Connection: close\r\n\r\n",
               c->target->host, body.n);
    buf_put(&call->out, body.p, body.n);
    if (call->out.failed)
        finish(c, call, "no memory", clock_now_ns());
    else if (connect_call(c, call) != 0)
        finish(c, call, strerror(errno), clock_now_ns());
}

void calls_abort(struct calls *c, uint32_t tag)
{
    for (uint32_t i = 0; i < c->cap; i++)
        if (c->call[i].fd >= 0 && c->call[i].tag == tag)
            shut(&c->call[i]);
}

static void pump_out(struct calls *c, struct call *call)
{
    while (call->sent < call->out.n) {
        ssize_t n = send(call->fd, call->out.p + call->sent, call->out.n - call->sent, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0) {
            finish(c, call, strerror(errno), clock_now_ns());
            return;
        }
        call->sent += (size_t)n;
    }
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = call};
    epoll_ctl(c->epoll, EPOLL_CTL_MOD, call->fd, &ev);
}

static void pump_in(struct calls *c, struct call *call)
{
    char bytes[64 << 10];
    struct err e = {0};
    ssize_t n = recv(call->fd, bytes, sizeof bytes, 0);
    int64_t now = clock_now_ns();
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0) {
        finish(c, call, strerror(errno), now);
        return;
    }
    uint32_t before = call->reply.events;
    int rc = n ? reply_feed(&call->reply, bytes, (size_t)n, now, &e) : reply_eof(&call->reply, &e);
    if (call->reply.events > before)
        c->hooks.on_text(c->hooks.ctx, call->tag, &call->reply, now);
    if (rc != ST_OK)
        finish(c, call, e.text[0] ? e.text : status_text(rc), now);
    else if (call->reply.done)
        finish(c, call, NULL, now);
}

void calls_poll(struct calls *c, int timeout_ms)
{
    struct epoll_event ready[READY_MAX];
    int n = epoll_wait(c->epoll, ready, READY_MAX, timeout_ms);
    for (int i = 0; i < n; i++) {
        struct call *call = ready[i].data.ptr;
        if (call->fd < 0)
            continue; /* aborted by a hook of this round */
        if (call->sent < call->out.n)
            pump_out(c, call);
        else
            pump_in(c, call);
    }
}
