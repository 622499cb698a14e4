/* One epoll, one slot per request in flight, connections kept alive from request to request. A slot's request and
 * reply are driven by readiness; the clock is read once per read(2), so a token's time is when its bytes came out of
 * the socket.
 *
 * Open loop: arrivals are drawn ahead of time and latencies count from the moment a request was due, not from the
 * moment a slot was free for it; a server that stalls cannot slow the clock that measures it.
 *
 * Rejected: a thread per connection (the scheduler's noise on two shared cores is what we want to measure least). */
#define _GNU_SOURCE
#include "load.h"

#include "clock.h"
#include "mem.h"
#include "reply.h"

#include <errno.h>
#include <math.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

enum slot_state { IDLE, CONNECTING, SENDING, RECEIVING };

struct slot {
    enum slot_state state;
    int fd; /* -1 = closed */
    bool reused, decoding;
    struct buf out;
    size_t sent;
    struct reply reply;
    struct record *record; /* of the request in flight */
    int64_t deadline_ns;
};

struct run {
    const struct load_spec *s;
    struct load_result *r;
    struct slot *slots; /* [concurrency] */
    int epoll;
    int64_t started, finished, running, decoding;
    uint64_t arrivals;  /* random state */
    int64_t due_ns;     /* next arrival in open loop */
    int64_t full_since; /* 0 = not all streams decode */
    int64_t next_tick_ns;
    struct buf body;
    bool tty;
};

int load_resolve(struct load_target *t, const char *url, struct err *e)
{
    const char *host = strncmp(url, "http://", 7) == 0 ? url + 7 : NULL;
    const char *colon = host ? strrchr(host, ':') : NULL;
    if (!host || !colon || colon == host || (size_t)(colon - host) >= sizeof t->host)
        return err_set(e, ST_EINVAL, "--url: %.120s is not http://HOST:PORT", url);
    char name[sizeof t->host], port[16];
    snprintf(name, sizeof name, "%.*s", (int)(colon - host), host);
    snprintf(port, sizeof port, "%.*s", (int)strcspn(colon + 1, "/"), colon + 1);
    snprintf(t->host, sizeof t->host, "%.200s:%s", name, port);
    struct addrinfo want = {.ai_socktype = SOCK_STREAM}, *found;
    int rc = getaddrinfo(name, port, &want, &found);
    if (rc != 0)
        return err_set(e, ST_EINVAL, "--url: %.120s: %s", name, gai_strerror(rc));
    memcpy(&t->addr, found->ai_addr, found->ai_addrlen);
    t->addr_bytes = found->ai_addrlen;
    freeaddrinfo(found);
    return ST_OK;
}

static void close_slot(struct slot *slot)
{
    if (slot->fd >= 0)
        close(slot->fd);
    slot->fd = -1;
}

static void set_decoding(struct run *run, struct slot *slot, bool on, int64_t now)
{
    if (slot->decoding == on)
        return;
    slot->decoding = on;
    run->decoding += on ? 1 : -1;
    bool full = run->decoding == run->s->concurrency;
    if (full && !run->full_since)
        run->full_since = now;
    if (!full && run->full_since) {
        run->r->full_ns += now - run->full_since;
        run->full_since = 0;
    }
}

static void keep_gaps(struct load_result *r, const struct reply *reply)
{
    uint64_t n = reply->events > 1 ? reply->events - 1 : 0;
    uint64_t room = LOAD_GAPS_MAX - r->gaps;
    uint64_t take = n < room ? n : room;
    uint32_t *grown = take ? mem_realloc(r->gap_us, (r->gaps + take) * sizeof *grown) : NULL;
    if (grown) {
        r->gap_us = grown;
        memcpy(r->gap_us + r->gaps, reply->gap_us, take * sizeof *grown);
        r->gaps += take;
    }
    r->gaps_dropped += n - (grown ? take : 0);
}

static void finish(struct run *run, struct slot *slot, const char *error, int64_t now)
{
    struct record *record = slot->record;
    const struct reply *reply = &slot->reply;
    set_decoding(run, slot, false, now);
    record->done_ns = now;
    record->first_ns = reply->first_ns;
    record->last_ns = reply->last_ns;
    record->prompt_tokens = reply->prompt_tokens;
    record->cached_tokens = reply->cached_tokens;
    record->has_usage = reply->has_usage;
    record->output_tokens = reply->has_usage ? reply->output_tokens : reply->events;
    record->events = reply->events;
    record->status = reply->status;
    if (!error && reply->status == 200)
        keep_gaps(run->r, reply);
    if (error || reply->status != 200) {
        record->failed = true;
        run->r->failed++;
        char text[256] = "";
        if (!error)
            reply_error_text(reply, text, sizeof text);
        if (!run->r->first_error[0])
            snprintf(run->r->first_error, sizeof run->r->first_error, "%s%s (HTTP %d)", error ? error : "",
                     text, reply->status);
    }
    if (error || reply->closes)
        close_slot(slot);
    slot->state = IDLE;
    slot->record = NULL;
    run->running--;
    run->finished++;
}

static int watch(struct run *run, struct slot *slot, int op, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = slot};
    return epoll_ctl(run->epoll, op, slot->fd, &ev);
}

static int open_slot(struct run *run, struct slot *slot)
{
    const struct load_target *t = run->s->target;
    slot->fd = socket(t->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (slot->fd < 0)
        return -1;
    int one = 1;
    setsockopt(slot->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(slot->fd, (const struct sockaddr *)&t->addr, t->addr_bytes) != 0 && errno != EINPROGRESS)
        return -1;
    slot->state = CONNECTING;
    return watch(run, slot, EPOLL_CTL_ADD, EPOLLOUT);
}

static void put_request(struct buf *out, const struct load_spec *s, struct str body)
{
    bool chat = strcmp(s->o->endpoint, "chat") == 0;
    buf_reset(out);
    buf_printf(out, "POST /v1/%s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n",
               chat ? "chat/completions" : "completions", s->target->host);
    if (s->o->api_key)
        buf_printf(out, "Authorization: Bearer %s\r\n", s->o->api_key);
    buf_printf(out, "Content-Length: %zu\r\n\r\n", body.n);
    buf_put(out, body.p, body.n);
}

static void pump_out(struct run *run, struct slot *slot, int64_t now)
{
    while (slot->sent < slot->out.n) {
        ssize_t n = send(slot->fd, slot->out.p + slot->sent, slot->out.n - slot->sent, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            slot->state = SENDING;
            watch(run, slot, EPOLL_CTL_MOD, EPOLLOUT);
            return;
        }
        if (n < 0 && slot->reused) { /* the server dropped an idle connection: once more on a fresh one */
            close_slot(slot);
            slot->reused = false;
            slot->sent = 0;
            if (open_slot(run, slot) == 0)
                return;
        }
        if (n < 0) {
            finish(run, slot, strerror(errno), now);
            return;
        }
        slot->sent += (size_t)n;
    }
    slot->state = RECEIVING;
    watch(run, slot, EPOLL_CTL_MOD, EPOLLIN);
}

static void begin(struct run *run, struct slot *slot, int64_t start_ns, int64_t now)
{
    const struct load_spec *s = run->s;
    uint64_t index = s->first_index + (uint64_t)run->started;
    buf_reset(&run->body);
    prompt_body(&run->body, s->o, s->model, (uint64_t)s->o->seed, index, s->words, s->shared_words,
                s->max_tokens);
    put_request(&slot->out, s, buf_str(&run->body));
    slot->record = &run->r->records[run->started++];
    slot->record->start_ns = start_ns;
    slot->deadline_ns = now + (int64_t)(s->o->timeout_s * 1e9);
    slot->sent = 0;
    slot->reused = slot->fd >= 0;
    reply_reset(&slot->reply);
    run->running++;
    if (slot->out.failed || run->body.failed)
        finish(run, slot, "out of memory", now);
    else if (slot->reused)
        pump_out(run, slot, now);
    else if (open_slot(run, slot) != 0)
        finish(run, slot, strerror(errno), now);
}

static void pump_in(struct run *run, struct slot *slot)
{
    char bytes[64 << 10];
    struct err e = {0};
    ssize_t n = recv(slot->fd, bytes, sizeof bytes, 0);
    int64_t now = clock_now_ns();
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 && slot->reused && slot->reply.status == 0) {
        close_slot(slot);
        slot->reused = false;
        slot->sent = 0;
        if (open_slot(run, slot) != 0)
            finish(run, slot, strerror(errno), now);
        return;
    }
    if (n < 0) {
        finish(run, slot, strerror(errno), now);
        return;
    }
    uint32_t before = slot->reply.events;
    int rc = n ? reply_feed(&slot->reply, bytes, (size_t)n, now, &e) : reply_eof(&slot->reply, &e);
    if (run->full_since)
        run->r->full_events += slot->reply.events - before;
    if (rc != ST_OK) {
        finish(run, slot, e.text[0] ? e.text : status_text(rc), now);
    } else if (slot->reply.done) {
        if (n == 0)
            slot->reply.closes = true;
        finish(run, slot, NULL, now);
    } else if (slot->reply.events) {
        set_decoding(run, slot, true, now);
    }
}

static void draw_next_arrival(struct run *run)
{
    double u = ((double)(prompt_random(&run->arrivals) >> 11) + 1) / 9007199254740993.0;
    run->due_ns += (int64_t)(-log(u) / run->s->rate * 1e9);
}

static void start_due(struct run *run, int64_t now)
{
    for (int64_t i = 0; i < run->s->concurrency && run->started < run->s->num_requests; i++) {
        struct slot *slot = &run->slots[i];
        if (slot->state != IDLE)
            continue;
        if (run->s->rate > 0) {
            if (run->due_ns > now)
                return;
            begin(run, slot, run->due_ns, now);
            draw_next_arrival(run);
        } else {
            begin(run, slot, now, now);
        }
    }
}

static void show_progress(struct run *run, int64_t now, bool last)
{
    if (!run->s->progress || (now < run->next_tick_ns && !last))
        return;
    run->next_tick_ns = now + (run->tty ? 200 : 5000) * (int64_t)NS_PER_MS;
    double done = (double)run->finished / (double)run->s->num_requests;
    double passed = (double)(now - run->r->begin_ns) / 1e9;
    if (run->tty) {
        char bar[31];
        for (int i = 0; i < 30; i++)
            bar[i] = i < (int)(done * 30) ? '#' : '.';
        bar[30] = 0;
        fprintf(stderr, "\r%-8s [%s] %lld/%lld requests, %.0f s%s", run->s->phase, bar,
                (long long)run->finished, (long long)run->s->num_requests, passed, last ? "\n" : "");
    } else {
        fprintf(stderr, "%s: %lld/%lld requests, %.0f s\n", run->s->phase, (long long)run->finished,
                (long long)run->s->num_requests, passed);
    }
}

static int wait_ms(const struct run *run, int64_t now)
{
    int64_t wait = 200;
    if (run->s->rate > 0 && run->started < run->s->num_requests && run->running < run->s->concurrency) {
        int64_t due = (run->due_ns - now + NS_PER_MS - 1) / NS_PER_MS;
        wait = due < 0 ? 0 : due < wait ? due : wait;
    }
    return (int)wait;
}

static void expire(struct run *run, int64_t now)
{
    for (int64_t i = 0; i < run->s->concurrency; i++)
        if (run->slots[i].state != IDLE && now > run->slots[i].deadline_ns)
            finish(run, &run->slots[i], "timed out (--timeout)", now);
}

static void loop(struct run *run)
{
    struct epoll_event ready[64];
    run->r->begin_ns = run->due_ns = clock_now_ns();
    run->next_tick_ns = run->r->begin_ns;
    if (run->s->rate > 0)
        draw_next_arrival(run);
    while (run->finished < run->s->num_requests) {
        int64_t now = clock_now_ns();
        start_due(run, now);
        show_progress(run, now, false);
        if (run->finished == run->s->num_requests)
            break;
        int n = epoll_wait(run->epoll, ready, 64, wait_ms(run, now));
        for (int i = 0; i < n; i++) {
            struct slot *slot = ready[i].data.ptr;
            if (slot->state == CONNECTING || slot->state == SENDING)
                pump_out(run, slot, clock_now_ns());
            else if (slot->state == RECEIVING)
                pump_in(run, slot);
            else
                close_slot(slot); /* the server closed an idle connection */
        }
        expire(run, clock_now_ns());
    }
    run->r->end_ns = clock_now_ns();
    show_progress(run, run->r->end_ns, true);
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

int load_run(struct load_result *out, const struct load_spec *s, struct err *e)
{
    *out = (struct load_result){.num_requests = s->num_requests};
    struct run run = {.s = s, .r = out, .arrivals = (uint64_t)s->o->seed ^ 0xa5a5, .tty = isatty(2) == 1};
    int rc = ST_OK;
    out->records = mem_zalloc((size_t)s->num_requests, sizeof *out->records);
    run.slots = mem_zalloc((size_t)s->concurrency, sizeof *run.slots);
    run.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!out->records || !run.slots || run.epoll < 0)
        rc = err_set(e, ST_ENOMEM, "no memory for %lld requests", (long long)s->num_requests);
    for (int64_t i = 0; run.slots && i < s->concurrency; i++)
        run.slots[i].fd = -1;
    if (rc == ST_OK) {
        double before = cpu_seconds();
        loop(&run);
        out->cpu_s = cpu_seconds() - before;
        if (out->failed == out->num_requests)
            rc = err_set(e, ST_EIO, "all %lld requests failed: %.200s", (long long)out->failed,
                         out->first_error);
    }
    for (int64_t i = 0; run.slots && i < s->concurrency; i++) {
        close_slot(&run.slots[i]);
        reply_fini(&run.slots[i].reply);
        buf_fini(&run.slots[i].out);
    }
    buf_fini(&run.body);
    mem_free(run.slots);
    if (run.epoll >= 0)
        close(run.epoll);
    return rc;
}

void load_result_fini(struct load_result *r)
{
    mem_free(r->records);
    mem_free(r->gap_us);
    *r = (struct load_result){0};
}

int load_get(const struct load_target *t, const char *api_key, const char *path, struct buf *body,
             struct err *e)
{
    struct reply reply = {0};
    struct buf request = {0};
    int fd = socket(t->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), rc = ST_OK;
    if (fd < 0 || connect(fd, (const struct sockaddr *)&t->addr, t->addr_bytes) != 0)
        rc = err_set(e, ST_EIO, "%s: %s", t->host, strerror(errno));
    buf_printf(&request, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n", path, t->host);
    if (api_key)
        buf_printf(&request, "Authorization: Bearer %s\r\n", api_key);
    buf_puts(&request, "\r\n");
    if (rc == ST_OK && send(fd, request.p, request.n, MSG_NOSIGNAL) != (ssize_t)request.n)
        rc = err_set(e, ST_EIO, "%s: %s", t->host, strerror(errno));
    while (rc == ST_OK && !reply.done) {
        char bytes[4096];
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        if (n < 0)
            rc = err_set(e, ST_EIO, "%s: %s", t->host, strerror(errno));
        else
            rc = n ? reply_feed(&reply, bytes, (size_t)n, 1, e) : reply_eof(&reply, e);
    }
    if (rc == ST_OK && reply.status != 200)
        rc = err_set(e, ST_EIO, "GET %s: HTTP %d: %.120s", path, reply.status,
                     reply.text.p ? reply.text.p : "");
    if (rc == ST_OK)
        rc = buf_put(body, reply.text.p, reply.text.n);
    reply_fini(&reply);
    buf_fini(&request);
    if (fd >= 0)
        close(fd);
    return rc;
}
