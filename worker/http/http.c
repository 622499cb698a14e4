/* One epoll set carries everything that the io thread waits for: libmicrohttpd's own epoll fd, the engine's events, the
 * lane's results, control, the half-closes of clients, and what is attached. libmicrohttpd has no thread of its own. A turn of
 * the loop is: what the engine said -> jobs -> resumed connections -> libmicrohttpd -> the side -> sleep. Timers exist only
 * while there are connections: an idle server makes no system call. */
#define _GNU_SOURCE
#include "http.h"

#include "clock.h"
#include "http_call.h"
#include "http_job.h"
#include "http_listen.h"
#include "log.h"
#include "mem.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { GO, DRAIN, STOP };
enum { EVENTS = 64, CANCEL_GRACE_MS = 2000 };

struct http {
    struct http_options o;
    struct http_calls calls;
    struct http_jobs *jobs;
    struct http_side side; /* zero: none */
    struct MHD_Daemon *daemon;
    int listen_fd, epoll_fd, control_fd, mhd_fd;
    uint16_t port;
    _Atomic int wish; /* GO, DRAIN or STOP */
    int side_ms; /* what its run said last */
    int64_t next_tick_ns;
    int64_t deadline_ns; /* of the current phase of ending; 0 = running */
    bool cancelled;
};

/* data.ptr of the epoll set: addresses of these members, or a struct http_conn */
static int watch(struct http *h, int fd, void *mark)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = mark};
    return fd >= 0 && epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0 ? ST_OK : ST_EIO;
}

static void mhd_log(void *cls, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void mhd_log(void *cls, const char *fmt, va_list ap)
{
    char text[256];
    (void)cls;
    vsnprintf(text, sizeof text, fmt, ap);
    size_t n = strcspn(text, "\n");
    text[n] = 0;
    log_debug("http", "library says: %s", text);
}

static int start_daemon(struct http *h)
{
    h->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, http_call_on_request,
        &h->calls, MHD_OPTION_EXTERNAL_LOGGER, mhd_log, NULL, MHD_OPTION_LISTEN_SOCKET, h->listen_fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)h->o.max_connections, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)((h->o.client_timeout_ms + 999) / 1000), MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)(32 << 10), MHD_OPTION_NOTIFY_COMPLETED, http_call_on_completed, &h->calls,
        MHD_OPTION_NOTIFY_CONNECTION, http_call_on_connection, &h->calls, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        h->daemon ? MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info)
        return ST_EIO;
    h->mhd_fd = info->epoll_fd;
    return ST_OK;
}

static void set_defaults(struct http_options *o)
{
    o->max_connections = o->max_connections ? o->max_connections : 1000;
    o->max_body_bytes = o->max_body_bytes ? o->max_body_bytes : 16 << 20;
    o->stream_bytes_max = o->stream_bytes_max ? o->stream_bytes_max : 1 << 20;
    o->sse_keepalive_ms = o->sse_keepalive_ms ? o->sse_keepalive_ms : 8000;
    o->client_timeout_ms = o->client_timeout_ms ? o->client_timeout_ms : 60000;
}

static int open_all(struct http *h, struct err *e)
{
    const struct http_options *o = &h->o;
    h->calls = (struct http_calls){.o = o, .started_s = clock_wall_s()};
    h->calls.key_hashes = mem_zalloc(o->n_api_keys ? o->n_api_keys : 1, sizeof *h->calls.key_hashes);
    if (!h->calls.key_hashes)
        return err_set(e, ST_ENOMEM, "http: out of memory");
    for (uint32_t i = 0; i < o->n_api_keys; i++)
        hash_once(o->api_keys[i].p, o->api_keys[i].n, h->calls.key_hashes[i]);
    const struct http_jobs_options jobs = {.ledger = o->ledger,
                                           .model = &o->model,
                                           .keepalive_ms = o->sse_keepalive_ms,
                                           .stream_bytes_max = o->stream_bytes_max};
    int st = http_jobs_create(&h->jobs, &jobs);
    if (st)
        return err_set(e, st, "http: cannot create the job table");
    h->calls.jobs = h->jobs;
    st = http_listen(o->host, o->port, &h->listen_fd, &h->port, e);
    if (st)
        return st;
    h->epoll_fd = h->calls.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    h->control_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (h->epoll_fd < 0 || h->control_fd < 0 || start_daemon(h) || watch(h, h->mhd_fd, &h->mhd_fd) ||
        watch(h, h->control_fd, &h->control_fd) || watch(h, http_jobs_fd(h->jobs), &h->jobs) ||
        watch(h, engine_event_fd(ledger_engine(o->ledger)), &h->o.ledger))
        return err_set(e, ST_EIO, "http: cannot start the server: %s", strerror(errno));
    return ST_OK;
}

int http_create(struct http **out, const struct http_options *o, struct err *e)
{
    struct http *h = mem_zalloc(1, sizeof *h);
    if (!h)
        return err_set(e, ST_ENOMEM, "http: out of memory");
    h->o = *o;
    h->listen_fd = h->epoll_fd = h->control_fd = -1;
    set_defaults(&h->o);
    int st = open_all(h, e);
    if (st) {
        http_destroy(h);
        return st;
    }
    *out = h;
    return ST_OK;
}

void http_destroy(struct http *h)
{
    if (!h)
        return;
    if (h->daemon) {
        /* a daemon must not be stopped with suspended connections */
        http_calls_close_all(&h->calls);
        for (int i = 0; i < 4; i++)
            MHD_run(h->daemon);
        MHD_stop_daemon(h->daemon); /* closes the listening socket */
    } else if (h->listen_fd >= 0) {
        close(h->listen_fd);
    }
    http_jobs_destroy(h->jobs);
    if (h->control_fd >= 0)
        close(h->control_fd);
    if (h->epoll_fd >= 0)
        close(h->epoll_fd);
    mem_free(h->calls.key_hashes);
    mem_free(h);
}

uint16_t http_port(const struct http *h)
{
    return h->port;
}

static void wish(struct http *h, int what)
{
    uint64_t one = 1;
    int now = atomic_load(&h->wish);
    while (now < what && !atomic_compare_exchange_weak(&h->wish, &now, what))
        ;
    ssize_t n = write(h->control_fd, &one, sizeof one);
    (void)n;
}

void http_drain(struct http *h)
{
    wish(h, DRAIN);
}

void http_stop(struct http *h)
{
    wish(h, STOP);
}

static void on_fd(struct http *h, void *mark)
{
    uint64_t n;
    if (mark == &h->mhd_fd || mark == &h->side)
        return; /* MHD_run looks, and the side's run */
    if (mark == &h->o.ledger)
        engine_event_drain_fd(ledger_engine(h->o.ledger));
    else if (mark == &h->jobs)
        http_jobs_drain_fd(h->jobs);
    else if (mark == &h->control_fd)
        (void)!read(h->control_fd, &n, sizeof n);
    else
        http_call_on_hangup(mark);
}

int http_attach(struct http *h, const struct http_side *side, struct err *e)
{
    h->side = *side;
    if (watch(h, side->fd, &h->side))
        return err_set(e, ST_EIO, "http: cannot watch what is attached: %s", strerror(errno));
    return ST_OK;
}

static bool nothing_left(const struct http *h)
{
    return http_jobs_count(h->jobs) == 0 && ledger_open(h->o.ledger) == 0 && (!h->side.run || h->side.idle(h->side.ctx));
}

/* Phases of ending: drain (running calls go on) -> cancel (they end with an error) -> over. True: over. */
static bool ended(struct http *h, int64_t now)
{
    int wanted = atomic_load(&h->wish);
    if (wanted == GO)
        return false;
    if (!h->calls.draining) {
        h->calls.draining = true;
        h->deadline_ns = now + (int64_t)h->o.drain_timeout_ms * NS_PER_MS;
        log_info("http", "draining calls=%u", http_jobs_count(h->jobs));
        if (h->side.run)
            h->side.drain(h->side.ctx, now);
    }
    if (nothing_left(h))
        return true;
    if (!h->cancelled && (wanted == STOP || now >= h->deadline_ns)) {
        h->cancelled = true;
        h->deadline_ns = now + (int64_t)CANCEL_GRACE_MS * NS_PER_MS;
        http_jobs_fail_all(h->jobs, ST_EDRAIN, "The server is shutting down");
        if (h->side.run)
            h->side.stop(h->side.ctx);
    }
    return h->cancelled && now >= h->deadline_ns;
}

static int timeout_ms(const struct http *h, int64_t now)
{
    MHD_UNSIGNED_LONG_LONG mhd = 0;
    int64_t ms = -1;
    if (MHD_get_timeout(h->daemon, &mhd) == MHD_YES)
        ms = mhd < 3600000 ? (int64_t)mhd : 3600000;
    if (h->calls.n_conns || h->calls.draining) {
        int64_t tick = (h->next_tick_ns - now + NS_PER_MS - 1) / NS_PER_MS;
        tick = tick < 0 ? 0 : tick;
        ms = ms < 0 || tick < ms ? tick : ms;
    }
    if (h->side_ms >= 0 && (ms < 0 || h->side_ms < ms))
        ms = h->side_ms;
    return (int)ms;
}

static void tick(struct http *h, int64_t now)
{
    if (now < h->next_tick_ns)
        return;
    uint32_t every = h->o.sse_keepalive_ms / 2 < 500 ? h->o.sse_keepalive_ms / 2 + 1 : 500;
    h->next_tick_ns = now + (int64_t)(h->calls.draining ? 20 : every) * NS_PER_MS;
    http_jobs_tick(h->jobs, now);
    http_calls_tick(&h->calls, now);
}

/* In every turn: an engine fails while it works, so its last events wake us. What ran was told; who reads slowly may read on. */
static void look_at_engine(struct http *h)
{
    struct engine_stats s;
    engine_stats(ledger_engine(h->o.ledger), &s);
    if (!s.failed || h->calls.failed)
        return;
    h->calls.failed = true;
    wish(h, DRAIN);
    if (h->o.on_failed)
        h->o.on_failed(h->o.on_failed_ctx);
}

/* False: something came meanwhile. */
static bool asleep(const struct http *h)
{
    return http_jobs_sleep(h->jobs) && engine_event_sleep(ledger_engine(h->o.ledger));
}

int http_run(struct http *h, struct err *e)
{
    for (;;) {
        http_jobs_poll(h->jobs);
        bool more = ledger_poll(h->o.ledger);
        MHD_run(h->daemon);
        int64_t now = clock_now_ns();
        tick(h, now);
        h->side_ms = h->side.run ? h->side.run(h->side.ctx, now) : -1;
        look_at_engine(h);
        if (ended(h, now))
            break;
        int ms = more ? 0 : timeout_ms(h, now);
        if (ms && !asleep(h))
            ms = 0;
        struct epoll_event events[EVENTS];
        int n = epoll_wait(h->epoll_fd, events, EVENTS, ms);
        if (n < 0 && errno != EINTR)
            return err_set(e, ST_EIO, "http: cannot wait for events: %s", strerror(errno));
        for (int i = 0; i < n; i++)
            on_fd(h, events[i].data.ptr);
    }
    log_info("http", "drained");
    return h->calls.failed ? err_set(e, ST_EDEVICE, "http: the engine failed") : ST_OK;
}
