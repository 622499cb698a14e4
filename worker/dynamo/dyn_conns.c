/* A frontend keeps a pool of connections to each worker and sends frames down them, one behind the other; what it reads back
 * are acks, in the same order. So a connection is a buffer that is cut into frames; each frame is answered before the next one
 * is looked at, and order needs no bookkeeping.
 *
 * Peers are not trusted, and whoever takes more than his share is the one who goes: not the newcomer who finds no place, nor the
 * one whose bytes happened to be the last that fitted. Work is shared out as well: connections stand in a line, have some frames
 * taken when they come to its head, and go behind the others with what they sent beyond that. One frame may cost a thousand times
 * what another does, so the loop's turn ends by the clock too, and the line stays as it is until the next one. A flood slows down
 * nobody but itself, and whatever else the loop does comes soon.
 *
 * Connections that end are marked and freed at the end of the turn: until then stale pointers in its events are harmless. */
#define _GNU_SOURCE
#include "dyn_conns.h"

#include "clock.h"
#include "log.h"
#include "mem.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 128, TICK_MS = 500, READ_BYTES = 65536, READS_PER_TURN = 16 };

struct conn {
    struct conn *prev, *next, *next_dead, *behind; /* behind: in the line */
    int fd;
    bool dead, in_line;
    bool blocked;      /* acks are not read */
    bool useful;       /* a request of it was taken */
    struct buf in;     /* an unfinished frame, and what waits; without memory while there is nothing */
    struct buf out;    /* acks that were not read yet */
    size_t held;       /* what `in` takes, counted in the set's */
    int64_t since_ns;  /* that it owes us the rest of a frame, or the reading of acks; 0 = it does not */
};

struct dyn_conns {
    struct dyn_conns_options o;
    int epoll_fd;
    bool listening; /* the listening socket is watched: not after we ran out of descriptors */
    struct conn *line, *line_end;     /* of who is to be served */
    struct conn *first, *last, *dead; /* first: the newest, or the one that had a request taken last */
    uint32_t count;
    size_t held;
    char *input; /* [READ_BYTES] scratch of the connection being read */
    int64_t now_ns, next_tick_ns, turn_ends_ns;
};

/* ---- the set ----------------------------------------------------------------------------------------------------- */

static int watch(struct dyn_conns *set, int op, int fd, uint32_t events, void *mark)
{
    struct epoll_event ev = {.events = events, .data.ptr = mark};
    return epoll_ctl(set->epoll_fd, op, fd, &ev) ? ST_EIO : ST_OK;
}

int dyn_conns_create(struct dyn_conns **out, const struct dyn_conns_options *o)
{
    struct dyn_conns *set = mem_zalloc(1, sizeof *set);
    if (!set)
        return ST_ENOMEM;
    set->o = *o;
    set->o.listen_fd = -1; /* until all is well */
    set->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    set->input = mem_alloc(READ_BYTES);
    int st = set->input ? ST_OK : ST_ENOMEM;
    if (!st && (set->epoll_fd < 0 || watch(set, EPOLL_CTL_ADD, o->listen_fd, EPOLLIN, set)))
        st = ST_EIO;
    if (st) {
        dyn_conns_destroy(set);
        return st;
    }
    set->o.listen_fd = o->listen_fd;
    set->listening = true;
    *out = set;
    return ST_OK;
}

static void link_first(struct dyn_conns *set, struct conn *c)
{
    c->prev = NULL;
    c->next = set->first;
    *(set->first ? &set->first->prev : &set->last) = c;
    set->first = c;
}

static void unlink_conn(struct dyn_conns *set, struct conn *c)
{
    *(c->prev ? &c->prev->next : &set->first) = c->next;
    *(c->next ? &c->next->prev : &set->last) = c->prev;
}

static void conn_free(struct dyn_conns *set, struct conn *c)
{
    unlink_conn(set, c);
    close(c->fd);
    buf_fini(&c->in);
    buf_fini(&c->out);
    mem_free(c);
}

void dyn_conns_destroy(struct dyn_conns *set)
{
    if (!set)
        return;
    while (set->first)
        conn_free(set, set->first);
    if (set->o.listen_fd >= 0)
        close(set->o.listen_fd);
    if (set->epoll_fd >= 0)
        close(set->epoll_fd);
    mem_free(set->input);
    mem_free(set);
}

int dyn_conns_fd(const struct dyn_conns *set)
{
    return set->epoll_fd;
}

uint32_t dyn_conns_count(const struct dyn_conns *set)
{
    return set->count;
}

/* ---- what a connection holds ------------------------------------------------------------------------------------- */

static void bury(struct dyn_conns *set, struct conn *c, const char *why)
{
    if (c->dead)
        return;
    if (why)
        log_warn_limited("dynamo", "connection of a frontend closed: %s", why);
    set->held -= c->held;
    c->held = 0;
    buf_fini(&c->in); /* its share is free at once */
    c->dead = true;
    c->next_dead = set->dead;
    set->dead = c;
    set->count--;
}

static void count_input(struct dyn_conns *set, struct conn *c)
{
    if (c->in.failed) {
        bury(set, c, "out of memory");
        return;
    }
    set->held += c->in.cap - c->held;
    c->held = c->in.cap;
    while (set->held > set->o.input_max) {
        struct conn *most = c;
        for (struct conn *other = set->first; other; other = other->next) /* the oldest of equals */
            if (other->held >= most->held)
                most = other;
        bury(set, most, "too much unfinished input, and this is who holds most of it");
    }
}

/* Who was of no use goes first, and among equals who has been so for longest. */
static bool find_place(struct dyn_conns *set)
{
    struct conn *victim = NULL;
    if (set->count < set->o.conns_max)
        return true;
    for (struct conn *c = set->last; c && (!victim || victim->useful); c = c->prev)
        if (!c->dead && (!victim || !c->useful))
            victim = c;
    if (victim)
        bury(set, victim, "all places are taken, and a newcomer needs one");
    return victim;
}

/* ---- frames and acks --------------------------------------------------------------------------------------------- */

/* An ack that is not read keeps further requests out: nothing is lost, as they wait in the socket. */
static void send_acks(struct dyn_conns *set, struct conn *c)
{
    size_t sent = 0;
    while (!c->dead && sent < c->out.n) {
        ssize_t n = send(c->fd, c->out.p + sent, c->out.n - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0)
            bury(set, c, NULL);
        else
            sent += (size_t)n;
    }
    c->out.n -= sent;
    if (sent)
        memmove(c->out.p, c->out.p + sent, c->out.n);
    if (c->out.failed)
        bury(set, c, "out of memory");
    bool blocked = c->out.n > 0;
    if (!c->dead && blocked != c->blocked) {
        c->blocked = blocked;
        if (watch(set, EPOLL_CTL_MOD, c->fd, blocked ? EPOLLOUT : EPOLLIN, c))
            bury(set, c, NULL);
    }
}

static bool late(const struct dyn_conns *set)
{
    return clock_now_ns() >= set->turn_ends_ns;
}

/* Cuts bytes into frames and returns how many it used; `left`: frames that may still be taken in this turn. */
static size_t cut(struct dyn_conns *set, struct conn *c, const char *bytes, size_t n, uint32_t *left)
{
    size_t at = 0;
    struct dyn_frame f;
    int st = ST_AGAIN;
    while (at < n && *left && (st = dyn_frame_parse(&f, bytes + at, n - at)) == ST_OK) {
        enum dyn_fate fate = set->o.frame(set->o.ctx, &f, &c->out);
        at += f.bytes;
        *left = fate == DYN_FRAME_LARGE || late(set) ? 0 : *left - 1;
        c->since_ns = 0;
        if (fate != DYN_FRAME_REFUSED) {
            c->useful = true;
            unlink_conn(set, c);
            link_first(set, c);
        }
    }
    if (st == ST_EFORMAT)
        bury(set, c, "it sent what is no request frame");
    return at;
}

/* Frames that wait in the connection's own buffer. */
static void cut_own(struct dyn_conns *set, struct conn *c, uint32_t *left)
{
    size_t used = cut(set, c, c->in.p, c->in.n, left);
    if (c->dead || !used)
        return;
    c->in.n -= used;
    memmove(c->in.p, c->in.p + used, c->in.n);
    if (c->in.n == 0) {
        buf_fini(&c->in);
        count_input(set, c);
    }
}

/* Most frames come whole: they are read from the set's scratch, and a connection has a buffer only for the rest of one. */
static void take_in(struct dyn_conns *set, struct conn *c, size_t n, uint32_t *left)
{
    bool behind_others = c->in.n > 0;
    size_t used = behind_others ? 0 : cut(set, c, set->input, n, left);
    if (c->dead || used == n)
        return;
    buf_put(&c->in, set->input + used, n - used);
    count_input(set, c);
    if (!c->dead && behind_others)
        cut_own(set, c, left);
}

static void line_up(struct dyn_conns *set, struct conn *c)
{
    if (c->in_line)
        return;
    c->in_line = true;
    c->behind = NULL;
    *(set->line ? &set->line_end->behind : &set->line) = c;
    set->line_end = c;
}

/* A connection's turn: acks leave first, then what waits is cut, then what came is read. */
static void serve(struct dyn_conns *set, struct conn *c)
{
    uint32_t left = DYN_FRAMES_PER_TURN;
    ssize_t n = READ_BYTES;
    if (c->dead)
        return;
    send_acks(set, c);
    if (!c->dead && !c->blocked && c->in.n)
        cut_own(set, c, &left);
    send_acks(set, c);
    for (int i = 0; i < READS_PER_TURN && n == READ_BYTES && left && !c->dead && !c->blocked; i++) {
        n = recv(c->fd, set->input, READ_BYTES, 0);
        if (n > 0) {
            take_in(set, c, (size_t)n, &left);
            send_acks(set, c);
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            bury(set, c, NULL);
        }
    }
    if (!c->dead && !c->blocked && !left && c->in.n)
        line_up(set, c); /* whole frames may wait there */
    if (!c->in.n && !c->out.n)
        c->since_ns = 0;
    else if (!c->since_ns)
        c->since_ns = set->now_ns;
}

/* All that stand in the line now, once, as long as there is time. */
static void serve_line(struct dyn_conns *set)
{
    struct conn *end = set->line_end, *c = NULL;
    set->turn_ends_ns = clock_now_ns() + (int64_t)DYN_TURN_MS * NS_PER_MS;
    while (set->line && c != end && (!c || !late(set))) {
        c = set->line;
        set->line = c->behind;
        c->in_line = false;
        serve(set, c);
    }
}

/* ---- coming and going -------------------------------------------------------------------------------------------- */

static void add_conn(struct dyn_conns *set, int fd)
{
    int one = 1;
    struct conn *c = find_place(set) ? mem_zalloc(1, sizeof *c) : NULL;
    if (!c || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) ||
        watch(set, EPOLL_CTL_ADD, fd, EPOLLIN, c)) {
        log_warn_limited("dynamo", "connection not taken: %u are open", set->count);
        mem_free(c);
        close(fd);
        return;
    }
    c->fd = fd;
    link_first(set, c);
    set->count++;
}

static void accept_all(struct dyn_conns *set)
{
    for (int i = 0; i < EVENTS; i++) {
        int fd = accept4(set->o.listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            add_conn(set, fd);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            log_warn_limited("dynamo", "connections wait: %s", strerror(errno));
            set->listening =
                watch(set, EPOLL_CTL_MOD, set->o.listen_fd, 0, set) != ST_OK; /* until the next tick */
            return;
        } else if (errno == EAGAIN) {
            return;
        }
    }
}

static void tick(struct dyn_conns *set)
{
    if (set->now_ns < set->next_tick_ns)
        return;
    set->next_tick_ns = set->now_ns + (int64_t)TICK_MS * NS_PER_MS;
    if (!set->listening)
        set->listening = watch(set, EPOLL_CTL_MOD, set->o.listen_fd, EPOLLIN, set) == ST_OK;
    for (struct conn *c = set->first; c; c = c->next)
        if (c->since_ns && !c->in_line && set->now_ns - c->since_ns > (int64_t)set->o.frame_ms * NS_PER_MS)
            bury(set, c, c->blocked ? "it does not read" : "a frame that does not come to its end");
}

static void leave_line(struct dyn_conns *set)
{
    struct conn **at = &set->line;
    for (struct conn *c = set->line; c; c = c->behind)
        if (!c->dead) {
            *at = set->line_end = c;
            at = &c->behind;
        }
    *at = NULL;
}

/* Frees the dead; whether anybody of the others owes us something. */
static bool end_turn(struct dyn_conns *set)
{
    bool owed = false;
    for (struct conn *c = set->first; c; c = c->next)
        owed |= c->since_ns && !c->dead;
    if (set->dead)
        leave_line(set);
    while (set->dead) {
        struct conn *c = set->dead;
        set->dead = c->next_dead;
        conn_free(set, c);
    }
    return owed;
}

int dyn_conns_run(struct dyn_conns *set, int64_t now_ns)
{
    struct epoll_event events[EVENTS];
    set->now_ns = now_ns;
    int n = epoll_wait(set->epoll_fd, events, EVENTS, 0);
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr == set)
            accept_all(set);
        else
            line_up(set, events[i].data.ptr);
    }
    serve_line(set);
    tick(set);
    bool owed = end_turn(set);
    if (set->line || n == EVENTS)
        return 0;
    return owed || !set->listening ? (int)((set->next_tick_ns - now_ns) / NS_PER_MS) + 1 : -1;
}
