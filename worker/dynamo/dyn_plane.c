/* A frontend keeps a pool of connections to each worker and sends frames down them, one behind the other; what it reads back
 * are acks, in the same order. So a connection is a buffer that is cut into frames; each frame is answered before the next one
 * is looked at, and order needs no bookkeeping. The answer itself goes back on a stream of its own (dyn_stream).
 *
 * An ack says that the request will be answered, so a handler decides at once. What it may say otherwise is fixed by the other
 * side: a text with any other beginning than the two known ones leaves a client waiting for ever, so those two are written in
 * one place, here. A control message that cannot be read names nobody to answer to: it is refused in the ack as well.
 *
 * Peers are not trusted. A frame that has begun must be there in `frame_ms`; connections share a budget for large frames; who
 * does not read its acks is not read from; when all places are taken, the oldest connection that never sent a frame goes. */
#define _GNU_SOURCE
#include "dyn_plane.h"

#include "clock.h"
#include "dyn_json.h"
#include "log.h"
#include "mem.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    EVENTS = 128,
    TICK_MS = 500,
    READ_BYTES = 65536,
    READS_PER_TURN = 16,
    ACKS_MAX = 65536,
    REPLY_MAX = 256 << 20
};

struct conn {
    struct conn *prev, *next, *next_dead;
    int fd;
    bool dead, blocked; /* blocked: acks are not read */
    uint64_t n_frames;
    struct buf in;    /* an unfinished frame; without memory while there is none */
    struct buf out;   /* acks that were not taken yet */
    size_t budget;    /* what `in` takes, counted in the plane's */
    int64_t began_ns; /* of the frame that is not whole; 0 = none */
};

struct dyn_plane {
    struct dyn_plane_options o;
    struct dyn_endpoint endpoints[DYN_ENDPOINTS_MAX];
    uint32_t n_endpoints;
    int listen_fd, epoll_fd;
    bool listening; /* the listening socket is watched: not after it ran out of descriptors */
    struct dyn_streams *streams;
    struct conn *first, *last, *dead; /* first: the newest */
    uint32_t n_conns;
    size_t budget;
    struct buf body, reply;                  /* scratch of the frame being handled */
    char *input;                             /* [READ_BYTES] scratch of the connection being read */
    int64_t now_ns, next_tick_ns, refuse_ns; /* refuse_ns: 0 = not draining */
};

/* ---- life -------------------------------------------------------------------------------------------------------- */

static int watch(struct dyn_plane *p, int op, int fd, uint32_t events, void *mark)
{
    struct epoll_event ev = {.events = events, .data.ptr = mark};
    return epoll_ctl(p->epoll_fd, op, fd, &ev) ? ST_EIO : ST_OK;
}

static void set_defaults(struct dyn_plane_options *o)
{
    struct dyn_streams_options *s = &o->streams;
    o->frame_ms = o->frame_ms ? o->frame_ms : 30000;
    s->streams_max = s->streams_max ? s->streams_max : 8192;
    s->bytes_max = s->bytes_max ? s->bytes_max : 1 << 20;
    s->connect_ms = s->connect_ms ? s->connect_ms : 10000;
    s->stall_ms = s->stall_ms ? s->stall_ms : 60000;
}

int dyn_plane_create(struct dyn_plane **out, const struct dyn_plane_options *o, struct err *e)
{
    struct dyn_plane *p = mem_zalloc(1, sizeof *p);
    if (!p) {
        close(o->listen_fd);
        return err_set(e, ST_ENOMEM, "dynamo: out of memory");
    }
    p->o = *o;
    p->listen_fd = o->listen_fd;
    p->epoll_fd = -1;
    set_defaults(&p->o);
    p->input = mem_alloc(READ_BYTES);
    int st = p->input ? dyn_streams_create(&p->streams, &p->o.streams) : ST_ENOMEM;
    if (st)
        err_set(e, st, "dynamo: %s", status_text(st));
    if (!st) {
        p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        p->listening = true;
        if (p->epoll_fd < 0 || watch(p, EPOLL_CTL_ADD, p->listen_fd, EPOLLIN, &p->listen_fd) ||
            watch(p, EPOLL_CTL_ADD, dyn_streams_fd(p->streams), EPOLLIN, &p->streams))
            st = err_set(e, ST_EIO, "dynamo: cannot start the request plane: %s", strerror(errno));
    }
    if (st) {
        dyn_plane_destroy(p);
        return st;
    }
    *out = p;
    return ST_OK;
}

static void conn_free(struct dyn_plane *p, struct conn *c)
{
    *(c->prev ? &c->prev->next : &p->first) = c->next;
    *(c->next ? &c->next->prev : &p->last) = c->prev;
    p->budget -= c->budget;
    p->n_conns--;
    close(c->fd);
    buf_fini(&c->in);
    buf_fini(&c->out);
    mem_free(c);
}

void dyn_plane_destroy(struct dyn_plane *p)
{
    if (!p)
        return;
    while (p->first)
        conn_free(p, p->first);
    dyn_streams_destroy(p->streams);
    close(p->listen_fd);
    if (p->epoll_fd >= 0)
        close(p->epoll_fd);
    buf_fini(&p->body);
    buf_fini(&p->reply);
    mem_free(p->input);
    mem_free(p);
}

int dyn_plane_fd(const struct dyn_plane *p)
{
    return p->epoll_fd;
}

int dyn_plane_serve(struct dyn_plane *p, const struct dyn_endpoint *endpoint)
{
    assert(!endpoint->call != !endpoint->answer);
    if (p->n_endpoints == DYN_ENDPOINTS_MAX)
        return ST_NOSPACE;
    p->endpoints[p->n_endpoints++] = *endpoint;
    return ST_OK;
}

void dyn_plane_drain(struct dyn_plane *p, int64_t now_ns)
{
    if (!p->refuse_ns)
        p->refuse_ns = now_ns + (int64_t)p->o.drain_grace_ms * NS_PER_MS;
    p->now_ns = now_ns;
}

bool dyn_plane_idle(const struct dyn_plane *p)
{
    return dyn_streams_count(p->streams) == 0 && (!p->refuse_ns || p->now_ns >= p->refuse_ns);
}

/* ---- one request ------------------------------------------------------------------------------------------------- */

/* Plain ASCII, whatever a peer wrote that is repeated here. */
static void ack(struct conn *c, enum dyn_answer answer, const char *why)
{
    static const char *const words[] = {
        [DYN_OVERLOADED] = "Server overloaded: ", [DYN_UNAVAILABLE] = "Server unavailable: "};
    char text[DYN_PATH_MAX + 320] = "";
    if (answer != DYN_ACCEPT)
        snprintf(text, sizeof text, "%s%s", words[answer], why);
    for (char *at = text; *at; at++)
        if (*at < ' ' || *at > '~')
            *at = '?';
    dyn_frame_put_ack(&c->out, str_from(text));
}

static const struct dyn_endpoint *find_endpoint(const struct dyn_plane *p, struct str path)
{
    for (uint32_t i = 0; i < p->n_endpoints; i++)
        if (str_eqz(path, p->endpoints[i].path))
            return &p->endpoints[i];
    return NULL;
}

/* The body as MessagePack: as it came, or rewritten. */
static int unify(struct dyn_plane *p, const struct dyn_control *control, struct str *body)
{
    if (control->codec == DYN_CODEC_MSGPACK)
        return ST_OK;
    buf_reset(&p->body);
    int st = dyn_json_to_msgpack(*body, &p->body);
    *body = buf_str(&p->body);
    return st;
}

static enum dyn_answer query(struct dyn_plane *p, const struct dyn_endpoint *at, const struct dyn_call *call)
{
    buf_reset(&p->reply);
    p->reply.limit = REPLY_MAX;
    at->answer(at->ctx, call->body, call->n_body, &p->reply);
    if (p->reply.failed)
        return DYN_OVERLOADED;
    dyn_stream_put(call->stream, buf_str(&p->reply));
    dyn_stream_finish(call->stream);
    buf_fini(&p->reply); /* a tree may be large, and seldom asked for */
    return DYN_ACCEPT;
}

static enum dyn_answer dispatch(struct dyn_plane *p, const struct dyn_endpoint *at, struct str payload,
                                struct err *why)
{
    struct dyn_parts parts;
    struct dyn_control control;
    struct dyn_stream *stream = NULL;
    if (dyn_parts_parse(&parts, payload.p, payload.n, DYN_HEADER_MAX, DYN_FRAME_MAX) ||
        parts.bytes != payload.n) {
        err_set(why, ST_EFORMAT, "payload is no two-part message");
        return DYN_UNAVAILABLE;
    }
    if (dyn_control_parse(&control, parts.header, why) || dyn_stream_open(p->streams, &control, &stream, why))
        return why->status == ST_EBUSY || why->status == ST_ENOMEM ? DYN_OVERLOADED : DYN_UNAVAILABLE;
    struct str body = parts.data;
    int st = unify(p, &control, &body);
    struct dyn_call call = {&control, (const uint8_t *)body.p, st == ST_EFORMAT ? 0 : body.n, stream};
    enum dyn_answer answer;
    if (st == ST_ENOMEM) {
        err_set(why, st, "out of memory");
        answer = DYN_OVERLOADED;
    } else {
        answer = at->call ? at->call(at->ctx, &call, why) : query(p, at, &call);
    }
    if (answer == DYN_ACCEPT)
        dyn_stream_start(stream, p->now_ns);
    else
        dyn_stream_discard(stream);
    return answer;
}

static void on_frame(struct dyn_plane *p, struct conn *c, const struct dyn_frame *f)
{
    struct err why = {0};
    enum dyn_answer answer = DYN_UNAVAILABLE;
    const struct dyn_endpoint *at = find_endpoint(p, f->path);
    char text[DYN_PATH_MAX + 32];
    c->n_frames++;
    if (!at) {
        snprintf(text, sizeof text, "unknown endpoint %.*s", (int)f->path.n, f->path.p);
        ack(c, answer, text);
    } else if (p->refuse_ns && p->now_ns >= p->refuse_ns) {
        ack(c, answer, "draining");
    } else {
        answer = dispatch(p, at, f->payload, &why);
        ack(c, answer, why.text[0] ? why.text : status_text(why.status));
    }
    if (answer != DYN_ACCEPT)
        log_warn_limited("dynamo", "request refused path=%.*s: %s", (int)f->path.n, f->path.p,
                         !at           ? "unknown endpoint"
                         : why.text[0] ? why.text
                                       : "draining");
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

static void bury(struct dyn_plane *p, struct conn *c, const char *why)
{
    if (c->dead)
        return;
    if (why)
        log_warn_limited("dynamo", "connection of a frontend closed: %s", why);
    c->dead = true;
    c->next_dead = p->dead;
    p->dead = c;
}

/* An ack that is not read keeps further requests out: nothing is lost, as they wait in the socket. */
static void send_acks(struct dyn_plane *p, struct conn *c)
{
    size_t sent = 0;
    while (!c->dead && sent < c->out.n) {
        ssize_t n = send(c->fd, c->out.p + sent, c->out.n - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            bury(p, c, NULL);
        else
            sent += (size_t)n;
    }
    c->out.n -= sent;
    if (sent)
        memmove(c->out.p, c->out.p + sent, c->out.n);
    if (c->out.failed)
        bury(p, c, "out of memory");
    bool blocked = c->out.n > 0;
    if (!c->dead && blocked != c->blocked) {
        c->blocked = blocked;
        if (watch(p, EPOLL_CTL_MOD, c->fd, blocked ? EPOLLOUT : EPOLLIN, c))
            bury(p, c, NULL);
    }
}

/* Cuts bytes into frames and returns how many it used; it stops when too many acks wait. */
static size_t cut(struct dyn_plane *p, struct conn *c, const char *bytes, size_t n)
{
    size_t at = 0;
    struct dyn_frame f;
    int st = ST_AGAIN;
    while (at < n && c->out.n < ACKS_MAX && (st = dyn_frame_parse(&f, bytes + at, n - at)) == ST_OK) {
        on_frame(p, c, &f);
        at += f.bytes;
        c->began_ns = 0;
    }
    if (st == ST_EFORMAT)
        bury(p, c, "it sent what is no request frame");
    if (at < n && !c->began_ns)
        c->began_ns = p->now_ns;
    return at;
}

/* Frames that wait in the connection's own buffer. */
static void cut_own(struct dyn_plane *p, struct conn *c)
{
    size_t used = cut(p, c, c->in.p, c->in.n);
    c->in.n -= used;
    if (c->in.n == 0)
        buf_fini(&c->in);
    else if (used)
        memmove(c->in.p, c->in.p + used, c->in.n);
}

/* Most frames come whole: they are read from the plane's scratch, and a connection has a buffer only for the rest of one. */
static void take_in(struct dyn_plane *p, struct conn *c, size_t n)
{
    size_t used = c->in.n ? 0 : cut(p, c, p->input, n);
    if (used < n)
        buf_put(&c->in, p->input + used, n - used);
    p->budget += c->in.cap - c->budget;
    c->budget = c->in.cap;
    if (c->in.failed || p->budget > DYN_INPUT_MAX)
        bury(p, c, "too much unfinished input");
}

/* As long as acks leave, more frames may be cut. */
static void pump(struct dyn_plane *p, struct conn *c)
{
    send_acks(p, c);
    for (size_t before = 0; !c->dead && !c->blocked && c->in.n && c->in.n != before;) {
        before = c->in.n;
        cut_own(p, c);
        send_acks(p, c);
    }
}

static void read_in(struct dyn_plane *p, struct conn *c)
{
    ssize_t n = READ_BYTES;
    for (int i = 0; i < READS_PER_TURN && n == READ_BYTES && !c->dead && !c->blocked; i++) {
        n = recv(c->fd, p->input, READ_BYTES, 0);
        if (n > 0) {
            take_in(p, c, (size_t)n);
            pump(p, c);
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            bury(p, c, NULL);
        }
    }
}

static void on_ready(struct dyn_plane *p, struct conn *c, uint32_t events)
{
    if (c->dead)
        return;
    if (c->blocked)
        pump(p, c); /* frames waited for it */
    else if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        read_in(p, c);
}

/* All places are taken: somebody who never asked for anything goes first. */
static bool find_place(struct dyn_plane *p)
{
    if (p->n_conns < DYN_CONNS_MAX)
        return true;
    for (struct conn *c = p->last; c; c = c->prev)
        if (c->n_frames == 0 && !c->dead) {
            bury(p, c, "a place is needed, and it never sent a request");
            return true;
        }
    return false;
}

static void add_conn(struct dyn_plane *p, int fd)
{
    int one = 1;
    struct conn *c = find_place(p) ? mem_zalloc(1, sizeof *c) : NULL;
    if (!c || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) ||
        watch(p, EPOLL_CTL_ADD, fd, EPOLLIN, c)) {
        log_warn_limited("dynamo", "connection not taken: %u are open", p->n_conns);
        mem_free(c);
        close(fd);
        return;
    }
    c->fd = fd;
    c->next = p->first;
    *(p->first ? &p->first->prev : &p->last) = c;
    p->first = c;
    p->n_conns++;
}

static void accept_all(struct dyn_plane *p)
{
    for (int i = 0; i < EVENTS; i++) {
        int fd = accept4(p->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            add_conn(p, fd);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            log_warn_limited("dynamo", "connections wait: %s", strerror(errno));
            p->listening =
                watch(p, EPOLL_CTL_MOD, p->listen_fd, 0, &p->listen_fd) != ST_OK; /* until the next tick */
            return;
        } else if (errno == EAGAIN) {
            return;
        }
    }
}

static void tick(struct dyn_plane *p)
{
    if (p->now_ns < p->next_tick_ns)
        return;
    p->next_tick_ns = p->now_ns + (int64_t)TICK_MS * NS_PER_MS;
    if (!p->listening)
        p->listening = watch(p, EPOLL_CTL_MOD, p->listen_fd, EPOLLIN, &p->listen_fd) == ST_OK;
    for (struct conn *c = p->first; c; c = c->next)
        if (c->began_ns && p->now_ns - c->began_ns > (int64_t)p->o.frame_ms * NS_PER_MS)
            bury(p, c, c->blocked ? "it does not read" : "a frame that does not come to its end");
}

static bool needs_tick(const struct dyn_plane *p)
{
    if (!p->listening || (p->refuse_ns && p->now_ns < p->refuse_ns))
        return true;
    for (const struct conn *c = p->first; c; c = c->next)
        if (c->began_ns)
            return true;
    return false;
}

int dyn_plane_run(struct dyn_plane *p, int64_t now_ns)
{
    struct epoll_event events[EVENTS];
    p->now_ns = now_ns;
    int n = epoll_wait(p->epoll_fd, events, EVENTS, 0);
    for (int i = 0; i < n; i++) {
        void *mark = events[i].data.ptr;
        if (mark == &p->listen_fd)
            accept_all(p);
        else if (mark != &p->streams) /* they run below, told or not */
            on_ready(p, mark, events[i].events);
    }
    tick(p);
    while (p->dead) {
        struct conn *c = p->dead;
        p->dead = c->next_dead;
        conn_free(p, c);
    }
    int ms = dyn_streams_run(p->streams, now_ns);
    int own = n == EVENTS ? 0 : needs_tick(p) ? (int)((p->next_tick_ns - now_ns) / NS_PER_MS) + 1 : -1;
    return ms < 0 || (own >= 0 && own < ms) ? own : ms;
}
