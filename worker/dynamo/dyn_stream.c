/* A stream is a buffer with a socket behind it. Whoever answers appends to the buffer, whatever state the socket is in; the
 * set sends once a turn, so the items of one engine step leave in one system call per stream. What is not read piles up to a
 * bound and no further: beyond it the stream is broken off, as waiting for one frontend would hold up all others. All streams
 * share one more bound, and the places: where these end, it is not the newcomer who pays but the one who takes most, or who has
 * been waited for longest.
 *
 * Streams that end are marked and put on a list of their own, and freed at the end of the turn: until then stale pointers in
 * the events of that turn are harmless, and owners are told from one place only. */
#define _GNU_SOURCE
#include "dyn_stream.h"

#include "clock.h"
#include "log.h"
#include "mem.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, TICK_MS = 500, SENT_PER_TURN = 1 << 20 };

struct dyn_stream {
    struct dyn_stream *prev, *next; /* all of the set */
    struct dyn_stream *next_dirty, *next_dead;
    struct dyn_streams *set;
    struct sockaddr_storage address;
    socklen_t address_bytes;
    int fd;
    bool connected, dirty, dead, waits_writable;
    bool finished;
    enum dyn_ending how;
    enum dyn_codec codec;
    char id[DYN_ID_MAX];
    struct buf out; /* unsent from `sent` on */
    size_t sent;
    size_t held; /* what `out` takes, counted in the set's */
    size_t share,
        goal; /* of what is left at the end: so much must be read in `stall_ms`; what shall be left then */
    char heard[DYN_PART_BYTES + 2 * DYN_HEARD_BYTES_MAX];
    size_t n_heard;
    uint32_t n_messages; /* heard in all */
    int64_t deadline_ns; /* of what it waits for; 0 = none */
    void (*ended)(void *ctx, enum dyn_ending how);
    void *ended_ctx;
};

struct dyn_streams {
    struct dyn_streams_options o;
    int epoll_fd;
    uint32_t count, n_dead; /* count: with the dead */
    size_t held;
    struct dyn_stream *first, *last, *dirty, *dead; /* first: the newest */
    int64_t next_tick_ns;
};

/* ---- the set ----------------------------------------------------------------------------------------------------- */

int dyn_streams_create(struct dyn_streams **out, const struct dyn_streams_options *o)
{
    struct dyn_streams *set = mem_zalloc(1, sizeof *set);
    if (!set)
        return ST_ENOMEM;
    set->o = *o;
    set->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (set->epoll_fd < 0) {
        mem_free(set);
        return ST_EIO;
    }
    *out = set;
    return ST_OK;
}

static void drop_output(struct dyn_stream *s)
{
    s->set->held -= s->held;
    s->held = 0;
    buf_fini(&s->out);
    s->sent = 0;
}

static void stream_free(struct dyn_stream *s)
{
    struct dyn_streams *set = s->set;
    *(s->prev ? &s->prev->next : &set->first) = s->next;
    *(s->next ? &s->next->prev : &set->last) = s->prev;
    if (s->fd >= 0)
        close(s->fd);
    drop_output(s);
    set->count--;
    mem_free(s);
}

void dyn_streams_destroy(struct dyn_streams *set)
{
    if (!set)
        return;
    while (set->first)
        stream_free(set->first);
    close(set->epoll_fd);
    mem_free(set);
}

int dyn_streams_fd(const struct dyn_streams *set)
{
    return set->epoll_fd;
}

uint32_t dyn_streams_count(const struct dyn_streams *set)
{
    return set->count;
}

/* ---- a stream's states ------------------------------------------------------------------------------------------- */

static void bury(struct dyn_stream *s, enum dyn_ending how)
{
    if (s->dead)
        return;
    s->dead = true;
    s->how = how;
    s->next_dead = s->set->dead;
    s->set->dead = s;
    s->set->n_dead++;
    drop_output(s); /* its share is free at once */
}

void dyn_stream_break(struct dyn_stream *s)
{
    if (!s->dead)
        log_warn_limited("dynamo", "no memory for an answer id=%s", s->id);
    bury(s, DYN_LOST);
}

/* After every change of its output. */
static void count_output(struct dyn_stream *s)
{
    struct dyn_streams *set = s->set;
    if (s->out.failed) {
        dyn_stream_break(s);
        return;
    }
    set->held += s->out.cap - s->held;
    s->held = s->out.cap;
    while (set->held > set->o.output_max) {
        struct dyn_stream *most = s;
        for (struct dyn_stream *other = set->first; other; other = other->next) /* the oldest of equals */
            if (other->held >= most->held)
                most = other;
        log_warn_limited("dynamo", "too much unread output, and most of it is for id=%s: %zu bytes", most->id,
                         most->held);
        bury(most, DYN_SLOW);
    }
}

/* Not connected, or finished and not closed. What was put in this turn has not been offered to anybody yet. */
static bool nobody_answers(const struct dyn_stream *s)
{
    return !s->connected || (s->finished && !s->dirty);
}

static bool find_place(struct dyn_streams *set)
{
    if (set->count - set->n_dead < set->o.streams_max)
        return true;
    for (struct dyn_stream *s = set->last; s; s = s->prev)
        if (!s->dead && nobody_answers(s)) {
            log_warn_limited("dynamo", "all response streams are taken, and id=%s does nothing with its own",
                             s->id);
            bury(s, DYN_LOST);
            return true;
        }
    return false;
}

static void mark(struct dyn_stream *s)
{
    if (s->dirty)
        return;
    s->dirty = true;
    s->next_dirty = s->set->dirty;
    s->set->dirty = s;
}

static void wait_for(struct dyn_stream *s, int64_t now, uint32_t ms)
{
    s->deadline_ns = now + (int64_t)ms * NS_PER_MS;
}

/* "1.2.3.4:80" or "[::1]:80": names are not resolved, that could block. */
static bool parse_address(struct dyn_stream *s, const char *text)
{
    char host[DYN_ADDRESS_MAX];
    const char *colon = strrchr(text, ':');
    bool bracket = text[0] == '[';
    size_t n = colon ? (size_t)(colon - text) : 0;
    if (n == 0 || n >= sizeof host || (bracket && text[n - 1] != ']'))
        return false;
    memcpy(host, text + bracket, n);
    host[bracket ? n - 2 : n] = 0;
    char *end;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || *end || port == 0 || port > UINT16_MAX)
        return false;
    struct sockaddr_in *v4 = (struct sockaddr_in *)&s->address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&s->address;
    if (bracket) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        s->address_bytes = sizeof *v6;
        return inet_pton(AF_INET6, host, &v6->sin6_addr) == 1;
    }
    v4->sin_family = AF_INET;
    v4->sin_port = htons((uint16_t)port);
    s->address_bytes = sizeof *v4;
    return inet_pton(AF_INET, host, &v4->sin_addr) == 1;
}

int dyn_stream_open(struct dyn_streams *set, const struct dyn_control *control, struct dyn_stream **out,
                    struct err *e)
{
    if (!find_place(set))
        return err_set(e, ST_EBUSY, "%u response streams are open", set->count);
    struct dyn_stream *s = mem_zalloc(1, sizeof *s);
    if (!s)
        return err_set(e, ST_ENOMEM, "out of memory");
    s->set = set;
    s->fd = -1;
    s->codec = control->codec;
    memcpy(s->id, control->id, sizeof s->id);
    s->next = set->first;
    *(set->first ? &set->first->prev : &set->last) = s;
    set->first = s;
    set->count++;
    int st = parse_address(s, control->address)
                 ? ST_OK
                 : err_set(e, ST_EUNSUP, "response address %s", control->address);
    if (!st) {
        dyn_frame_put_handshake(&s->out, control->subject);
        dyn_frame_put_prologue(&s->out);
        st = s->out.failed;
    }
    if (st) {
        stream_free(s);
        return st;
    }
    *out = s;
    return ST_OK;
}

void dyn_stream_discard(struct dyn_stream *s)
{
    assert(s->fd < 0 && !s->dirty && !s->dead); /* so no list but that of all has it */
    stream_free(s);
}

/* A connection that cannot even be begun ends the stream in the next turn, as one that fails later. */
void dyn_stream_start(struct dyn_stream *s, int64_t now_ns)
{
    int one = 1;
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT, .data.ptr = s};
    if (s->dead) /* its answer was too much for the set */
        return;
    wait_for(s, now_ns, s->set->o.connect_ms);
    s->waits_writable = true;
    s->fd = socket(s->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0 || setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) ||
        (connect(s->fd, (struct sockaddr *)&s->address, s->address_bytes) && errno != EINPROGRESS) ||
        epoll_ctl(s->set->epoll_fd, EPOLL_CTL_ADD, s->fd, &ev)) {
        log_warn_limited("dynamo", "no connection to the frontend for its response id=%s: %s", s->id,
                         strerror(errno));
        bury(s, DYN_LOST);
    }
}

void dyn_stream_own(struct dyn_stream *s, void (*ended)(void *ctx, enum dyn_ending how), void *ctx)
{
    s->ended = ended;
    s->ended_ctx = ctx;
}

void dyn_stream_put(struct dyn_stream *s, struct str item)
{
    if (s->dead)
        return;
    dyn_frame_put_item(&s->out, s->codec, item);
    mark(s);
    count_output(s);
}

void dyn_stream_finish(struct dyn_stream *s)
{
    s->ended = NULL;
    s->finished = true;
    if (s->dead)
        return;
    dyn_frame_put_final(&s->out, s->codec);
    mark(s);
    count_output(s);
}

/* ---- sending and hearing ----------------------------------------------------------------------------------------- */

static void watch(struct dyn_stream *s, bool writable)
{
    if (s->waits_writable == writable)
        return;
    struct epoll_event ev = {.events = EPOLLIN | (writable ? EPOLLOUT : 0), .data.ptr = s};
    s->waits_writable = writable;
    if (epoll_ctl(s->set->epoll_fd, EPOLL_CTL_MOD, s->fd, &ev))
        bury(s, DYN_LOST);
}

/* What was sent is let go of when it is half of all, so that no byte is moved twice on average. */
static void compact(struct dyn_stream *s)
{
    size_t left = s->out.n - s->sent;
    if (left == 0 && s->finished) {
        drop_output(s);
    } else if (s->sent >= left) {
        memmove(s->out.p, s->out.p + s->sent, left);
        s->out.n = left;
        s->sent = 0;
    }
}

/* While there is more to come, each byte that is read buys time: what is unread has a bound. At the end it has not, and time is
 * bought by the eighth of all that is left; then the frontend has a time to close. */
static void set_deadline(struct dyn_stream *s, int64_t now, bool progress)
{
    size_t left = s->out.n - s->sent;
    bool in_time = progress || !s->deadline_ns;
    if (left && s->finished) {
        in_time = !s->share || left <= s->goal;
        s->share = s->share ? s->share : left / 8 + 1;
        if (in_time)
            s->goal = left > s->share ? left - s->share : 0;
    }
    if (!left && s->finished)
        wait_for(s, now, s->set->o.connect_ms);
    else if (!left)
        s->deadline_ns = 0;
    else if (in_time)
        wait_for(s, now, s->set->o.stall_ms);
}

static void send_out(struct dyn_stream *s, int64_t now)
{
    size_t sent = 0;
    if (s->dead || !s->connected)
        return;
    while (s->sent < s->out.n && sent < SENT_PER_TURN) {
        ssize_t n = send(s->fd, s->out.p + s->sent, s->out.n - s->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            bury(s, DYN_LOST);
            return;
        }
        if (n < 0)
            break;
        s->sent += (size_t)n;
        sent += (size_t)n;
    }
    compact(s);
    watch(s, s->sent < s->out.n);
    set_deadline(s, now, sent > 0);
}

static void check_bound(struct dyn_stream *s)
{
    size_t unread = s->out.n - s->sent;
    if (s->dead || s->finished || unread <= s->set->o.bytes_max)
        return;
    log_warn_limited("dynamo", "frontend reads too slowly id=%s unread_bytes=%zu", s->id, unread);
    bury(s, DYN_SLOW);
}

static void flush_dirty(struct dyn_streams *set, int64_t now)
{
    for (struct dyn_stream *s = set->dirty, *next; s; s = next) {
        next = s->next_dirty;
        s->dirty = false;
        send_out(s, now);
        check_bound(s);
    }
    set->dirty = NULL;
}

static void on_message(struct dyn_stream *s, struct str header)
{
    if (dyn_frame_ends(header)) {
        bury(s, DYN_KILLED);
    } else if (++s->n_messages > DYN_HEARD_MAX) {
        log_warn_limited("dynamo", "the frontend has too much to say id=%s", s->id);
        bury(s, DYN_LOST);
    }
}

/* Messages of the frontend: each may come in pieces, and end what it likes. One read a turn: there may always be more. */
static void hear(struct dyn_stream *s)
{
    ssize_t n = recv(s->fd, s->heard + s->n_heard, sizeof s->heard - s->n_heard, 0);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) {
        bury(s, DYN_LOST);
        return;
    }
    s->n_heard += (size_t)n;
    size_t at = 0;
    struct dyn_parts parts;
    int st = ST_OK;
    while (!s->dead && (st = dyn_parts_parse(&parts, s->heard + at, s->n_heard - at, DYN_HEARD_BYTES_MAX,
                                             DYN_HEARD_BYTES_MAX)) == ST_OK) {
        on_message(s, parts.header);
        at += parts.bytes;
    }
    s->n_heard -= at;
    memmove(s->heard, s->heard + at, s->n_heard);
    if (st == ST_EFORMAT) {
        log_warn_limited("dynamo", "the frontend sent what is no message id=%s", s->id);
        bury(s, DYN_LOST);
    }
}

static void on_ready(struct dyn_stream *s, uint32_t events, int64_t now)
{
    if (s->dead)
        return;
    if (!s->connected) {
        int failure = 0;
        socklen_t n = sizeof failure;
        if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &failure, &n) || failure) {
            log_warn_limited("dynamo", "no connection to the frontend for its response id=%s: %s", s->id,
                             strerror(failure));
            bury(s, DYN_LOST);
            return;
        }
        s->connected = true;
        s->deadline_ns = 0;
    }
    if (events & EPOLLOUT)
        send_out(s, now);
    if (!s->dead && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        hear(s);
}

static void tick(struct dyn_streams *set, int64_t now)
{
    if (now < set->next_tick_ns)
        return;
    set->next_tick_ns = now + (int64_t)TICK_MS * NS_PER_MS;
    for (struct dyn_stream *s = set->first; s; s = s->next)
        if (s->deadline_ns && now >= s->deadline_ns)
            bury(s, s->connected ? DYN_SLOW : DYN_LOST);
}

static void tell_and_free(struct dyn_streams *set)
{
    while (set->dead) {
        struct dyn_stream *s = set->dead;
        set->dead = s->next_dead;
        set->n_dead--;
        if (s->ended && !s->finished)
            s->ended(s->ended_ctx, s->how);
        stream_free(s);
    }
}

int dyn_streams_run(struct dyn_streams *set, int64_t now_ns)
{
    struct epoll_event events[EVENTS];
    flush_dirty(set, now_ns);
    int n = epoll_wait(set->epoll_fd, events, EVENTS, 0);
    for (int i = 0; i < n; i++)
        on_ready(events[i].data.ptr, events[i].events, now_ns);
    tick(set, now_ns);
    tell_and_free(set);
    if (set->count == 0)
        return -1;
    return n == EVENTS ? 0 : (int)((set->next_tick_ns - now_ns) / NS_PER_MS) + 1;
}
