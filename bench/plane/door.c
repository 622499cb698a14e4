/* A frontend without a router: request frames go down one connection, acks come back on it in order, and each answer calls home
 * on a connection of its own. What is measured is the worker's side of that; so a token is counted where its message came out of
 * the socket, and nothing is made of it.
 *
 * A slot is a request in flight. Its subject is its index and the request's number, so an answer finds it without a table; an
 * answer of a request that has ended already finds nobody, and its connection is closed. */
#define _GNU_SOURCE
#include "door.h"

#include "clock.h"
#include "mem.h"
#include "wire.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

enum { READ_BYTES = 64 << 10, READY_MAX = 64 };

struct slot {
    int64_t number; /* of the request in flight; -1: none */
    struct record *record;
};

struct answer {
    int fd;            /* -1: this place is free */
    struct slot
        *slot; /* NULL until the handshake; its request is `number` no longer when that ended elsewhere */
    int64_t number;
    struct buf in; /* a message that is not whole */
};

struct run {
    const struct door_spec *s;
    struct load_result *r;
    struct slot *slots;     /* [concurrency] */
    struct answer *answers; /* [concurrency] */
    uint32_t *unacked;      /* [concurrency] slots, a ring from `first_unacked` on */
    uint32_t first_unacked, n_unacked;
    uint32_t *tokens; /* [isl] scratch */
    int epoll, requests_fd, listen_fd;
    uint16_t port;
    struct buf out, acks;
    bool waits_writable;
    int64_t started, finished;
    uint64_t gaps_cap;
    char *bytes; /* [READ_BYTES] scratch */
};

static int watch(struct run *run, int op, int fd, uint32_t events, void *mark)
{
    struct epoll_event ev = {.events = events, .data.ptr = mark};
    return epoll_ctl(run->epoll, op, fd, &ev);
}

/* ---- a request's end --------------------------------------------------------------------------------------------- */

static void finish(struct run *run, struct slot *slot, const char *error)
{
    struct record *record = slot->record;
    record->done_ns = clock_now_ns();
    record->status = error ? 0 : 200;
    if (!record->has_usage)
        record->output_tokens = record->events;
    record->failed = error != NULL;
    run->r->failed += record->failed;
    if (error && !run->r->first_error[0])
        snprintf(run->r->first_error, sizeof run->r->first_error, "%.200s", error);
    slot->number = -1;
    slot->record = NULL;
    run->finished++;
}

/* The record of an answer's request while that is in flight: an ack may have ended it, or another stream of its subject. */
static struct record *record_of(const struct answer *a)
{
    return a->slot && a->slot->number == a->number ? a->slot->record : NULL;
}

static void drop(struct answer *a, struct run *run, const char *error)
{
    if (record_of(a))
        finish(run, a->slot, error);
    close(a->fd);
    buf_fini(&a->in);
    *a = (struct answer){.fd = -1};
}

static void keep_gap(struct run *run, int64_t ns)
{
    struct load_result *r = run->r;
    if (r->gaps == run->gaps_cap && run->gaps_cap < LOAD_GAPS_MAX) {
        uint64_t cap = run->gaps_cap ? 2 * run->gaps_cap : 4096;
        uint32_t *grown = mem_realloc(r->gap_us, cap * sizeof *grown);
        r->gap_us = grown ? grown : r->gap_us;
        run->gaps_cap = grown ? cap : run->gaps_cap;
    }
    if (r->gaps < run->gaps_cap)
        r->gap_us[r->gaps++] = (uint32_t)(ns / 1000);
    else
        r->gaps_dropped++;
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

static struct slot *find_slot(const struct run *run, const char *subject)
{
    char *end;
    unsigned long index = strtoul(subject, &end, 10);
    long long number = *end == '-' ? strtoll(end + 1, NULL, 10) : -1;
    bool ours =
        index < (unsigned long)run->s->concurrency && number >= 0 && run->slots[index].number == number;
    return ours ? &run->slots[index] : NULL;
}

/* False: the stream is over, well or not. */
static bool take_message(struct run *run, struct answer *a, const struct wire_message *m, int64_t now)
{
    if (m->subject[0] && (a->slot = find_slot(run, m->subject)))
        a->number = a->slot->number;
    struct record *record = record_of(a);
    if (!record || m->error || m->sentinel) {
        drop(a, run, record && m->error ? "an error item" : NULL);
        return false;
    }
    if (m->n_tokens) {
        if (record->events++ == 0)
            record->first_ns = now;
        else
            keep_gap(run, now - record->last_ns);
        record->last_ns = now;
    }
    if (m->prompt >= 0) {
        record->has_usage = true;
        record->prompt_tokens = m->prompt;
        record->output_tokens = m->output < 0 ? 0 : m->output;
        record->cached_tokens = m->cached < 0 ? 0 : m->cached;
    }
    return true;
}

/* What begins with no handshake is of no request that could fail by it: the run does. */
static int hear(struct run *run, struct answer *a, struct err *e)
{
    static const char nonsense[] = "what came is no message of the request plane";
    struct wire_message m;
    size_t at = 0, used;
    ssize_t n = recv(a->fd, run->bytes, READ_BYTES, 0);
    int64_t now = clock_now_ns();
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return ST_OK;
    if (n <= 0) {
        drop(a, run, "the worker closed a response stream");
        return ST_OK;
    }
    bool whole = a->in.n == 0;
    if (!whole)
        buf_put(&a->in, run->bytes, (size_t)n);
    struct str in = whole ? (struct str){run->bytes, (size_t)n} : buf_str(&a->in);
    int rc;
    while ((rc = wire_next(&m, in.p + at, in.n - at, &used)) == ST_OK) {
        at += used;
        if (!a->slot && !m.subject[0])
            break;
        if (!take_message(run, a, &m, now))
            return ST_OK;
    }
    if (rc != ST_AGAIN && !a->slot)
        return err_set(e, ST_EIO, "%s", nonsense);
    if (whole) {
        buf_put(&a->in, in.p + at, in.n - at);
    } else {
        a->in.n -= at;
        memmove(a->in.p, a->in.p + at, a->in.n);
    }
    if (rc == ST_EFORMAT || a->in.failed)
        drop(a, run, nonsense);
    return ST_OK;
}

static void accept_answer(struct run *run)
{
    int fd = accept4(run->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct answer *a = NULL;
    for (int64_t i = 0; fd >= 0 && i < run->s->concurrency && !a; i++)
        if (run->answers[i].fd < 0)
            a = &run->answers[i];
    if (a && watch(run, EPOLL_CTL_ADD, fd, EPOLLIN, a) == 0)
        a->fd = fd;
    else if (fd >= 0)
        close(fd);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static void send_out(struct run *run)
{
    ssize_t n = run->out.n ? send(run->requests_fd, run->out.p, run->out.n, MSG_NOSIGNAL) : 0;
    if (n > 0) {
        run->out.n -= (size_t)n;
        memmove(run->out.p, run->out.p + n, run->out.n);
    }
    bool wait = run->out.n > 0;
    if (wait != run->waits_writable)
        watch(run, EPOLL_CTL_MOD, run->requests_fd, EPOLLIN | (wait ? EPOLLOUT : 0), &run->requests_fd);
    run->waits_writable = wait;
}

static void begin(struct run *run, uint32_t index)
{
    const struct options *o = run->s->o;
    struct slot *slot = &run->slots[index];
    char subject[WIRE_SUBJECT_MAX];
    uint64_t own = (uint64_t)o->seed;
    own = prompt_random(&own) ^ (run->s->first_index + (uint64_t)run->started + 1) * 0xd1342543de82ef95u;
    uint64_t low = o->token_ids > 2000 ? 1000 : 0; /* control tokens come first */
    for (int64_t i = 0; i < o->isl; i++)
        run->tokens[i] = (uint32_t)(low + prompt_random(&own) % ((uint64_t)o->token_ids - low));
    slot->number = run->started;
    slot->record = &run->r->records[run->started++];
    slot->record->start_ns = clock_now_ns();
    snprintf(subject, sizeof subject, "%u-%lld", index, (long long)slot->number);
    wire_put_request(&run->out, &(struct wire_request){.path = run->s->path,
                                                       .subject = subject,
                                                       .port = run->port,
                                                       .model = run->s->model,
                                                       .tokens = run->tokens,
                                                       .n_tokens = (uint32_t)o->isl,
                                                       .max_tokens = (uint32_t)o->osl,
                                                       .ignore_eos = !o->stop_at_eos});
    run->unacked[(run->first_unacked + run->n_unacked++) % run->s->concurrency] = index;
}

/* Finished slots are taken up again only when their ack is there, so each stands in the ring once. */
static bool acked(const struct run *run, uint32_t index)
{
    for (uint32_t i = 0; i < run->n_unacked; i++)
        if (run->unacked[(run->first_unacked + i) % run->s->concurrency] == index)
            return false;
    return true;
}

static void start_all(struct run *run)
{
    for (uint32_t i = 0; i < run->s->concurrency && run->started < run->s->num_requests; i++)
        if (run->slots[i].number < 0 && acked(run, i))
            begin(run, i);
    send_out(run);
}

static int take_acks(struct run *run, struct err *e)
{
    struct str text;
    size_t used;
    ssize_t n = recv(run->requests_fd, run->bytes, READ_BYTES, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return ST_OK;
    if (n <= 0)
        return err_set(e, ST_EIO, "the worker closed the connection for requests");
    buf_put(&run->acks, run->bytes, (size_t)n);
    int rc = run->acks.failed ? ST_ENOMEM : ST_AGAIN;
    while (run->n_unacked && (rc = wire_ack(&text, run->acks.p, run->acks.n, &used)) == ST_OK) {
        struct slot *slot = &run->slots[run->unacked[run->first_unacked]];
        char why[200];
        snprintf(why, sizeof why, "%.*s", (int)text.n, text.p);
        run->first_unacked = (run->first_unacked + 1) % (uint32_t)run->s->concurrency;
        run->n_unacked--;
        if (text.n && slot->number >= 0)
            finish(run, slot, why);
        run->acks.n -= used;
        memmove(run->acks.p, run->acks.p + used, run->acks.n);
    }
    if (rc == ST_EFORMAT)
        return err_set(e, ST_EIO, "what the worker sent is no ack of the request plane");
    return run->acks.failed ? err_set(e, ST_ENOMEM, "no memory for acks") : ST_OK;
}

/* ---- the run ----------------------------------------------------------------------------------------------------- */

static int loop(struct run *run, struct err *e)
{
    struct epoll_event ready[READY_MAX];
    int rc = ST_OK;
    int64_t deadline_ns = clock_now_ns() + (int64_t)(run->s->o->timeout_s * 1e9);
    run->r->begin_ns = clock_now_ns();
    while (rc == ST_OK && run->finished < run->s->num_requests) {
        start_all(run);
        int n = epoll_wait(run->epoll, ready, READY_MAX, 200);
        for (int i = 0; i < n && rc == ST_OK; i++) {
            void *mark = ready[i].data.ptr;
            if (mark == &run->listen_fd)
                accept_answer(run);
            else if (mark != &run->requests_fd)
                rc = hear(run, mark, e);
            else if (ready[i].events & ~(uint32_t)EPOLLOUT)
                rc = take_acks(run, e);
        }
        if (rc == ST_OK && clock_now_ns() > deadline_ns)
            rc = err_set(e, ST_EIO, "timed out (--timeout)");
    }
    run->r->end_ns = clock_now_ns();
    return rc;
}

static int open_sockets(struct run *run, struct err *e)
{
    const struct load_target *t = run->s->target;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof here;
    int one = 1;
    run->epoll = epoll_create1(EPOLL_CLOEXEC);
    run->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    run->requests_fd = socket(t->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (run->epoll < 0 || run->listen_fd < 0 || bind(run->listen_fd, (struct sockaddr *)&here, n) ||
        listen(run->listen_fd, 4096) || getsockname(run->listen_fd, (struct sockaddr *)&here, &n) ||
        watch(run, EPOLL_CTL_ADD, run->listen_fd, EPOLLIN, &run->listen_fd))
        return err_set(e, ST_EIO, "no socket for the answers: %s", strerror(errno));
    run->port = ntohs(here.sin_port);
    if (run->requests_fd < 0 || connect(run->requests_fd, (const struct sockaddr *)&t->addr, t->addr_bytes) ||
        setsockopt(run->requests_fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) ||
        watch(run, EPOLL_CTL_ADD, run->requests_fd, EPOLLIN, &run->requests_fd))
        return err_set(e, ST_EIO, "%s: %s", t->host, strerror(errno));
    return ST_OK;
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int prepare(struct run *run, struct err *e)
{
    const struct door_spec *s = run->s;
    size_t n = (size_t)s->concurrency;
    run->r->records = mem_zalloc((size_t)s->num_requests, sizeof *run->r->records);
    run->slots = mem_zalloc(n, sizeof *run->slots);
    run->answers = mem_zalloc(n, sizeof *run->answers);
    run->unacked = mem_zalloc(n, sizeof *run->unacked);
    run->tokens = mem_zalloc((size_t)s->o->isl, sizeof *run->tokens);
    run->bytes = mem_alloc(READ_BYTES);
    if (!run->r->records || !run->slots || !run->answers || !run->unacked || !run->tokens || !run->bytes)
        return err_set(e, ST_ENOMEM, "no memory for %lld requests", (long long)s->num_requests);
    for (size_t i = 0; i < n; i++) {
        run->slots[i].number = -1;
        run->answers[i].fd = -1;
    }
    return open_sockets(run, e);
}

int door_run(struct load_result *out, const struct door_spec *s, struct err *e)
{
    *out = (struct load_result){.num_requests = s->num_requests};
    struct run run = {.s = s, .r = out, .epoll = -1, .requests_fd = -1, .listen_fd = -1};
    int rc = prepare(&run, e);
    if (rc == ST_OK) {
        double before = cpu_seconds();
        rc = loop(&run, e);
        out->cpu_s = cpu_seconds() - before;
    }
    if (rc == ST_OK && out->failed == out->num_requests)
        rc = err_set(e, ST_EIO, "all %lld requests failed: %.200s", (long long)out->failed, out->first_error);
    for (int64_t i = 0; run.answers && i < s->concurrency; i++) {
        buf_fini(&run.answers[i].in);
        if (run.answers[i].fd > 0)
            close(run.answers[i].fd);
    }
    int *fds[] = {&run.epoll, &run.requests_fd, &run.listen_fd};
    for (int i = 0; i < 3; i++)
        if (*fds[i] >= 0)
            close(*fds[i]);
    void *memory[] = {run.slots, run.answers, run.unacked, run.tokens, run.bytes};
    for (int i = 0; i < 5; i++)
        mem_free(memory[i]);
    buf_fini(&run.out);
    buf_fini(&run.acks);
    return rc;
}
