/* libmicrohttpd calls us with pieces of requests and we answer at once, or suspend the connection until the job has
 * something. All of it happens on the io thread, so a resume can never race with a suspend.
 *
 * A body that is refused is still read (and dropped) before the reply: closing a socket with unread input resets it, and the
 * reset would overtake the error text on its way to the client. */
#define _GNU_SOURCE
#include "http_call.h"

#include "api_reply.h"
#include "clock.h"
#include "http_route.h"
#include "log.h"
#include "mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

struct http_call;

struct http_conn {
    struct http_calls *h;
    struct http_conn *prev, *next;
    struct http_call *call; /* the request under way */
    int fd;
    bool gone, kicked;
    int64_t waiting_since_ns; /* no complete request since; 0 = busy */
};

struct http_call {
    struct http_calls *h;
    struct http_conn *conn;
    struct MHD_Connection *mhd;
    const struct http_route *route;
    struct str tail; /* of the path, behind a prefix route */
    struct buf body;
    size_t discarded;
    struct err refusal; /* status 0 = none so far */
    struct http_job *job;
    bool suspended, whole, head;
    unsigned code; /* of the reply; 0 = none yet */
    uint32_t retry_after_s; /* of a refusal that passes; 0 = soon */
    char path[256];
};

/* ---- replies ----------------------------------------------------------------------------------------------------- */

static void free_body(void *p)
{
    mem_free(p);
}

/* Takes the memory of `b`. */
static enum MHD_Result reply(struct http_call *c, unsigned code, const char *type, struct buf *b)
{
    struct MHD_Response *r = b->failed ? NULL
                                       : MHD_create_response_from_buffer_with_free_callback_cls(
                                             b->n, b->p ? b->p : (void *)"", b->p ? free_body : NULL, b->p);
    if (!r) {
        buf_fini(b);
        return MHD_NO;
    }
    *b = (struct buf){0};
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (code == 401)
        MHD_add_response_header(r, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
    if (code == 405)
        MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, c->route->post ? "POST" : "GET, HEAD");
    if (code == 429 || code == 503) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%u", c->retry_after_s ? c->retry_after_s : 1);
        MHD_add_response_header(r, MHD_HTTP_HEADER_RETRY_AFTER, seconds);
    }
    enum MHD_Result ok = MHD_queue_response(c->mhd, code, r);
    MHD_destroy_response(r);
    c->code = code;
    return ok;
}

/* Without memory for a text of its own: this one is always there. */
static enum MHD_Result reply_no_memory(struct http_call *c, struct buf *b)
{
    static const char text[] =
        "{\"error\":{\"message\":\"out of memory\",\"type\":\"server_error\",\"param\":null,\"code\":503}}";
    buf_fini(b);
    struct MHD_Response *r =
        MHD_create_response_from_buffer(sizeof text - 1, (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
    if (!r)
        return MHD_NO;
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
    enum MHD_Result ok = MHD_queue_response(c->mhd, 503, r);
    MHD_destroy_response(r);
    c->code = 503;
    return ok;
}

static enum MHD_Result reply_error(struct http_call *c, int status, const char *text)
{
    struct buf b = {0};
    api_put_error(&b, status, text);
    if (b.failed)
        return reply_no_memory(c, &b);
    return reply(c, (unsigned)status_http(status), "application/json", &b);
}

static ssize_t read_stream(void *cls, uint64_t pos, char *out, size_t max)
{
    struct http_call *c = cls;
    (void)pos;
    long n = c->job && !c->conn->gone ? http_job_read(c->job, out, max) : -2;
    if (n == 0) {
        /* returning 0 without suspending would make the daemon spin */
        MHD_suspend_connection(c->mhd);
        c->suspended = true;
    }
    return n >= 0 ? n : n == -1 ? MHD_CONTENT_READER_END_OF_STREAM : MHD_CONTENT_READER_END_WITH_ERROR;
}

static enum MHD_Result reply_stream(struct http_call *c)
{
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 8192, read_stream, c, NULL);
    if (!r)
        return MHD_NO;
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, "text/event-stream; charset=utf-8");
    MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
    MHD_add_response_header(r, "X-Accel-Buffering", "no");
    enum MHD_Result ok = MHD_queue_response(c->mhd, 200, r);
    MHD_destroy_response(r);
    c->code = 200;
    return ok;
}

/* ---- calls that need the engine ---------------------------------------------------------------------------------- */

static void resume(struct http_call *c)
{
    if (!c->suspended)
        return;
    c->suspended = false;
    MHD_resume_connection(c->mhd);
}

static void on_wake(void *ctx)
{
    struct http_call *c = ctx;
    if (http_job_broken(c->job))
        shutdown(c->conn->fd, SHUT_RDWR); /* the socket is full: nothing else would end this */
    resume(c);
}

static enum MHD_Result suspend(struct http_call *c)
{
    MHD_suspend_connection(c->mhd);
    c->suspended = true;
    return MHD_YES;
}

/* As Dynamo's frontend takes it, so that a client names its session in one way to either. */
static struct str session_of(const struct http_call *c)
{
    const char *v = MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, "x-dynamo-session-id");
    if (!v)
        v = MHD_lookup_connection_value(c->mhd, MHD_HEADER_KIND, "x-session-id");
    return v ? str_from(v) : (struct str){0};
}

/* The whole body is there, or the job woke us. */
static enum MHD_Result advance(struct http_call *c)
{
    if (c->conn->gone)
        return MHD_NO;
    if (!c->job) {
        if (c->h->failed)
            return reply_error(c, ST_EDEVICE, "The engine failed; this server is going down");
        if (c->h->draining)
            return reply_error(c, ST_EDRAIN, "The server is shutting down");
        c->job = http_job_start(c->h->jobs, c->route->endpoint, &c->body, session_of(c), on_wake, c);
        if (!c->job)
            return reply_error(c, ST_ENOMEM, "out of memory");
    }
    if (http_job_state(c->job) != HTTP_JOB_PREPARING && http_job_streams(c->job))
        return reply_stream(c);
    if (http_job_state(c->job) != HTTP_JOB_DONE)
        return suspend(c);
    if (http_job_status(c->job) == ST_EBUSY)
        c->retry_after_s = http_job_retry_after_s(c->job);
    if (http_job_status(c->job))
        return reply_error(c, http_job_status(c->job), http_job_text(c->job));
    struct buf b = http_job_take_reply(c->job);
    return reply(c, 200, "application/json", &b);
}

/* ---- the head ---------------------------------------------------------------------------------------------------- */

/* All keys are compared, in full, whatever the first difference: the time tells nothing about a key. */
static bool authorised(const struct http_calls *h, struct MHD_Connection *mhd)
{
    if (h->o->n_api_keys == 0)
        return true;
    const char *v = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION);
    if (!v || strncasecmp(v, "Bearer ", 7) != 0)
        return false;
    v += 7;
    while (*v == ' ')
        v++;
    uint8_t hash[HASH_BYTES];
    hash_once(v, strlen(v), hash);
    unsigned found = 0;
    for (uint32_t k = 0; k < h->o->n_api_keys; k++) {
        unsigned different = 0;
        for (int i = 0; i < HASH_BYTES; i++)
            different |= hash[i] ^ h->key_hashes[k][i];
        found |= ((different - 1u) >> 8) & 1u;
    }
    return found;
}

static void judge_head(struct http_call *c, const char *method)
{
    struct http_calls *h = c->h;
    bool get = strcmp(method, "GET") == 0 || c->head, post = strcmp(method, "POST") == 0;
    if (!c->route->open && !authorised(h, c->mhd))
        err_set(&c->refusal, ST_EAUTH,
                "Missing or wrong API key: send the header \"Authorization: Bearer KEY\"");
    else if (c->route->kind == HTTP_ROUTE_UNKNOWN)
        err_set(&c->refusal, ST_ENOENT, "No such path: %.100s", c->path);
    else if (c->route->post ? !post : !get)
        err_set(&c->refusal, ST_EMETHOD, "%.16s is not allowed here; use %s", method,
                c->route->post ? "POST" : "GET");
    else if (c->route->post && h->draining)
        err_set(&c->refusal, ST_EDRAIN, "The server is shutting down");
}

static void refuse_body(struct http_call *c)
{
    err_set(&c->refusal, ST_ETOOBIG, "The request body is larger than %zu bytes", c->h->o->max_body_bytes);
    buf_fini(&c->body);
}

static enum MHD_Result begin(struct http_calls *h, struct MHD_Connection *mhd, const char *url,
                             const char *method, void **req)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct http_conn *conn = info ? info->socket_context : NULL;
    struct http_call *c = conn ? mem_zalloc(1, sizeof *c) : NULL;
    if (!c)
        return MHD_NO;
    *c = (struct http_call){.h = h, .conn = conn, .mhd = mhd, .head = strcmp(method, "HEAD") == 0};
    c->body.limit = h->o->max_body_bytes;
    size_t n = strnlen(url, sizeof c->path - 1);
    memcpy(c->path, url, n);
    c->route = http_route_find(c->path, &c->tail);
    conn->call = c;
    *req = c;
    judge_head(c, method);

    const char *length = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    const char *wait = MHD_lookup_connection_value(mhd, MHD_HEADER_KIND, MHD_HTTP_HEADER_EXPECT);
    unsigned long long bytes = length ? strtoull(length, NULL, 10) : 0;
    if (bytes > h->o->max_body_bytes && !c->refusal.status)
        refuse_body(c);
    /* the client has not sent its body yet, or it is more than anyone should read: answer now, the connection closes */
    if (c->refusal.status && (wait || bytes > HTTP_DISCARD_MAX))
        return reply_error(c, c->refusal.status, c->refusal.text);
    if (bytes && !c->refusal.status && buf_reserve(&c->body, bytes))
        err_set(&c->refusal, ST_ENOMEM, "out of memory for the request body");
    return MHD_YES;
}

static enum MHD_Result take_body(struct http_call *c, const char *data, size_t *n)
{
    if (!c->refusal.status && c->route->post && buf_put(&c->body, data, *n)) {
        if (c->body.failed == ST_ETOOBIG)
            refuse_body(c);
        else
            err_set(&c->refusal, ST_ENOMEM, "out of memory for the request body");
    }
    c->discarded += *n;
    *n = 0;
    return c->discarded > HTTP_DISCARD_MAX ? MHD_NO : MHD_YES;
}

static enum MHD_Result answer(struct http_call *c)
{
    if (c->route->post)
        return advance(c);
    struct buf b = {0};
    struct http_route_reply r = {.body = &b, .type = "application/json"};
    int st = http_route_answer(c->h, c->route, c->tail, &r);
    if (b.failed)
        return reply_no_memory(c, &b);
    if (st) {
        buf_fini(&b);
        return reply_error(c, st, r.error.text);
    }
    return reply(c, r.code ? r.code : 200, r.type, &b);
}

enum MHD_Result http_call_on_request(void *cls, struct MHD_Connection *mhd, const char *url,
                                     const char *method, const char *version, const char *data, size_t *n,
                                     void **req)
{
    (void)version;
    struct http_call *c = *req;
    if (!c)
        return begin(cls, mhd, url, method, req);
    if (*n)
        return take_body(c, data, n);
    c->whole = true;
    c->conn->waiting_since_ns = 0;
    return c->refusal.status ? reply_error(c, c->refusal.status, c->refusal.text) : answer(c);
}

void http_call_on_completed(void *cls, struct MHD_Connection *mhd, void **req,
                            enum MHD_RequestTerminationCode why)
{
    struct http_calls *h = cls;
    struct http_call *c = *req;
    (void)mhd;
    if (!c)
        return;
    bool cut = why != MHD_REQUEST_TERMINATED_COMPLETED_OK;
    http_count_add(&h->count, http_route_index(c->route), cut ? 499 : c->code);
    log_debug("http", "done path=%s code=%u cut=%d", c->path, c->code, cut);
    if (c->job)
        http_job_drop(c->job);
    c->conn->call = NULL;
    c->conn->waiting_since_ns = clock_now_ns();
    buf_fini(&c->body);
    mem_free(c);
    *req = NULL;
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

void http_call_on_connection(void *cls, struct MHD_Connection *mhd, void **socket_context,
                             enum MHD_ConnectionNotificationCode what)
{
    struct http_calls *h = cls;
    struct http_conn *conn = *socket_context;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
        conn = mem_zalloc(1, sizeof *conn);
        if (!conn || !info) {
            mem_free(conn);
            return; /* its requests are refused: no context */
        }
        *conn = (struct http_conn){
            .h = h, .fd = info->connect_fd, .next = h->conns, .waiting_since_ns = clock_now_ns()};
        if (h->conns)
            h->conns->prev = conn;
        h->conns = conn;
        h->n_conns++;
        struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = conn};
        if (epoll_ctl(h->epoll_fd, EPOLL_CTL_ADD, conn->fd, &ev))
            log_warn_limited("http", "cannot watch a connection fd=%d", conn->fd);
        *socket_context = conn;
    } else if (conn) {
        epoll_ctl(h->epoll_fd, EPOLL_CTL_DEL, conn->fd, NULL);
        if (conn->prev)
            conn->prev->next = conn->next;
        else
            h->conns = conn->next;
        if (conn->next)
            conn->next->prev = conn->prev;
        h->n_conns--;
        mem_free(conn);
        *socket_context = NULL;
    }
}

/* The job is dropped here and not in `completed`: the engine must know within this turn of the loop, and libmicrohttpd may
 * need several to look at the connection again. */
void http_call_on_hangup(struct http_conn *conn)
{
    conn->gone = true;
    struct http_call *c = conn->call;
    if (!c || !c->job)
        return;
    http_job_drop(c->job);
    c->job = NULL;
    resume(c);
}

void http_calls_tick(struct http_calls *h, int64_t now_ns)
{
    int64_t limit = (int64_t)h->o->client_timeout_ms * NS_PER_MS;
    for (struct http_conn *c = h->conns; c; c = c->next)
        if (c->waiting_since_ns && !c->kicked && now_ns - c->waiting_since_ns > limit) {
            c->kicked = true;
            shutdown(c->fd, SHUT_RDWR);
        }
}

void http_calls_close_all(struct http_calls *h)
{
    for (struct http_conn *c = h->conns; c; c = c->next) {
        http_call_on_hangup(c);
        shutdown(c->fd, SHUT_RDWR);
    }
}
