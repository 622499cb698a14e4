/* A second small HTTP server in the same io loop: what it tells changes on this thread only, so nothing needs to be copied or
 * locked. Paths and names are Dynamo's, so that probes and dashboards made for its own workers find what they look for.
 *
 * A probe that finds no place says that the worker is dead, and somebody restarts it. So there is always one: nobody has
 * business here for long, and where all places are taken whoever has been here for longest leaves, be it busy sending a byte
 * now and then. */
#define _GNU_SOURCE
#include "dyn_status.h"

#include "clock.h"
#include "mem.h"

#include <fcntl.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PLACES = 2 * DYN_STATUS_CONNECTIONS }; /* those that were sent away need a moment to go */

struct conn {
    bool taken, leaving;
    int fd;
    uint64_t number; /* the lowest came first */
};

struct dyn_status {
    struct dyn_status_options o;
    struct MHD_Daemon *daemon;
    int fd;
    struct conn conns[PLACES];
    uint32_t n_staying;
    uint64_t number;
};

/* ---- the page --------------------------------------------------------------------------------------------------------- */

struct page {
    struct buf *out;
    const char *labels; /* without braces */
};

static void put(struct page *p, const char *name, const char *type, const char *help, double value)
{
    buf_printf(p->out, "# HELP dynamo_component_%s %s\n# TYPE dynamo_component_%s %s\n", name, help, name,
               type);
    buf_printf(p->out, "dynamo_component_%s{%s} %.17g\n", name, p->labels, value);
}

static void put_errors(struct page *p, const struct dyn_count *c)
{
    static const char *const types[DYN_ERRORS] = {
        [DYN_ERROR_DESERIALIZATION] = "deserialization", [DYN_ERROR_INVALID] = "invalid_message",
        [DYN_ERROR_STREAM] = "response_stream",          [DYN_ERROR_GENERATE] = "generate",
        [DYN_ERROR_PUBLISH] = "publish_response",
    };
    buf_puts(p->out, "# HELP dynamo_component_errors_total Requests that failed, by what failed.\n"
                     "# TYPE dynamo_component_errors_total counter\n");
    for (int i = 0; i < DYN_ERRORS; i++)
        buf_printf(p->out, "dynamo_component_errors_total{%s,error_type=\"%s\"} %" PRIu64 "\n", p->labels,
                   types[i], c->errors[i]);
}

static void put_durations(struct page *p, const struct dyn_count *c)
{
    uint64_t n = 0;
    buf_puts(p->out,
             "# HELP dynamo_component_request_duration_seconds From a request's arrival to its last item.\n"
             "# TYPE dynamo_component_request_duration_seconds histogram\n");
    for (int i = 0; i < DYN_COUNT_BUCKETS; i++) {
        n += c->durations[i];
        buf_printf(p->out, "dynamo_component_request_duration_seconds_bucket{%s,le=\"%g\"} %" PRIu64 "\n",
                   p->labels, (double)dyn_count_bounds_ms[i] / 1000, n);
    }
    n += c->durations[DYN_COUNT_BUCKETS];
    buf_printf(p->out, "dynamo_component_request_duration_seconds_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n",
               p->labels, n);
    buf_printf(p->out, "dynamo_component_request_duration_seconds_sum{%s} %.9g\n", p->labels,
               (double)c->duration_ns / 1e9);
    buf_printf(p->out, "dynamo_component_request_duration_seconds_count{%s} %" PRIu64 "\n", p->labels, n);
}

void dyn_status_page(struct buf *out, const struct dyn_status_options *o, int64_t now_ns)
{
    const struct dyn_self *self = o->self;
    const struct dyn_count *c = o->count;
    struct engine_stats s;
    struct buf labels = {0};
    engine_stats(o->engine, &s);
    buf_printf(&labels,
               "dynamo_namespace=\"%s\",dynamo_component=\"%s\",dynamo_endpoint=\"%s\",worker_id=\"%" PRIx64
               "\",model=",
               self->name_space, self->component, self->endpoint, self->instance);
    buf_put_json(&labels, str_from(o->model)); /* a label is quoted as a JSON string is */
    if (labels.failed) {
        out->failed = labels.failed;
        return;
    }
    struct page p = {.out = out, .labels = labels.p};
    uint32_t used = s.blocks_total - s.blocks_free;
    put(&p, "requests_total", "counter", "Requests that came over the plane.", (double)c->requests);
    put(&p, "request_bytes_total", "counter", "Bytes of them.", (double)c->request_bytes);
    put(&p, "response_bytes_total", "counter", "Bytes that went back.", (double)c->response_bytes);
    put(&p, "inflight_requests", "gauge", "Requests under way.", (double)c->inflight);
    put(&p, "cancellation_total", "counter", "Requests that their frontend broke off.",
        (double)c->cancellations);
    put_durations(&p, c);
    put_errors(&p, c);
    put(&p, "uptime_seconds", "gauge", "Since the worker started.", (double)(now_ns - o->started_ns) / 1e9);
    put(&p, "total_blocks", "gauge", "KV blocks of the device.", s.blocks_total);
    put(&p, "gpu_cache_usage_percent", "gauge", "Share of them that holds something, 0 to 1.",
        s.blocks_total ? (double)used / s.blocks_total : 0);
    put(&p, "model_load_time_seconds", "gauge", "From the start to the model loaded.", o->model_load_s);
    buf_fini(&labels);
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

static enum MHD_Result reply(struct MHD_Connection *conn, unsigned code, const char *type, struct buf *body)
{
    struct MHD_Response *r =
        body->failed ? NULL : MHD_create_response_from_buffer(body->n, body->p, MHD_RESPMEM_MUST_COPY);
    buf_fini(body);
    if (!r)
        return MHD_NO; /* closes the connection */
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    enum MHD_Result result = MHD_queue_response(conn, code, r);
    MHD_destroy_response(r);
    return result;
}

/* Ready is who can be found and has an engine: before the records stand, and once they were taken out, a probe shall not count on
 * us. */
static enum MHD_Result reply_health(struct dyn_status *s, struct MHD_Connection *conn, bool live)
{
    struct buf body = {0};
    int64_t up_ns = clock_now_ns() - s->o.started_ns;
    struct engine_stats engine;
    engine_stats(s->o.engine, &engine);
    bool ready = dyn_store_registered(s->o.store) && !engine.failed;
    const char *word = ready ? "ready" : "notready";
    buf_printf(&body,
               "{\"status\":\"%s\",\"uptime\":{\"secs\":%lld,\"nanos\":%lld},\"endpoints\":{\"%s\":\"%s\"}}",
               live ? "ready" : word, (long long)(up_ns / NS_PER_S), (long long)(up_ns % NS_PER_S),
               s->o.self->endpoint, word);
    return reply(conn, ready || live ? 200 : 503, "application/json", &body);
}

static enum MHD_Result reply_metadata(struct dyn_status *s, struct MHD_Connection *conn)
{
    struct buf body = {0};
    buf_puts(&body, "{\"model\":");
    buf_put_json(&body, str_from(s->o.model));
    buf_printf(&body,
               ",\"instance_id\":%" PRIu64
               ",\"namespace\":\"%s\",\"component\":\"%s\",\"endpoint\":\"%s\",\"device\":\"%s\"}",
               s->o.self->instance, s->o.self->name_space, s->o.self->component, s->o.self->endpoint,
               s->o.self->device);
    return reply(conn, 200, "application/json", &body);
}

/* Of the card's files alone: a name is compared, never opened. */
static enum MHD_Result reply_file(struct dyn_status *s, struct MHD_Connection *conn, const char *name)
{
    struct buf body = {0};
    for (int i = 0; s->o.files && i < DYN_FILES; i++) {
        const struct dyn_file *f = &s->o.files->f[i];
        if (!f->path || strcmp(name, dyn_file_names[i]) != 0)
            continue;
        int fd = open(f->path, O_RDONLY | O_CLOEXEC);
        struct MHD_Response *r = fd < 0 ? NULL : MHD_create_response_from_fd64(f->size, fd);
        if (!r)
            break;
        enum MHD_Result result = MHD_queue_response(conn, 200, r);
        MHD_destroy_response(r); /* closes the file */
        return result;
    }
    buf_puts(&body, "{\"error\":\"not found\"}");
    return reply(conn, 404, "application/json", &body);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *conn, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *n_upload, void **state)
{
    static const char folder[] = "/v1/stator/model/";
    struct dyn_status *s = cls;
    struct buf body = {0};
    (void)version, (void)upload;
    if (!*state) { /* the headers; the answer is due at the second call */
        *state = s;
        return MHD_YES;
    }
    *n_upload = 0;
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
        buf_puts(&body, "{\"error\":\"GET only\"}");
        return reply(conn, 405, "application/json", &body);
    }
    if (strcmp(url, "/health") == 0 || strcmp(url, "/live") == 0)
        return reply_health(s, conn, url[1] == 'l');
    if (strcmp(url, "/metadata") == 0)
        return reply_metadata(s, conn);
    if (strcmp(url, "/metrics") == 0) {
        dyn_status_page(&body, &s->o, clock_now_ns());
        return reply(conn, 200, "text/plain; version=0.0.4", &body);
    }
    return reply_file(s, conn, strncmp(url, folder, sizeof folder - 1) == 0 ? url + sizeof folder - 1 : "");
}

/* ---- connections ------------------------------------------------------------------------------------------------------ */

static void send_oldest_away(struct dyn_status *s)
{
    struct conn *oldest = NULL;
    for (struct conn *c = s->conns; c < s->conns + PLACES; c++)
        if (c->taken && !c->leaving && (!oldest || c->number < oldest->number))
            oldest = c;
    oldest->leaving = true;
    s->n_staying--;
    shutdown(oldest->fd, SHUT_RDWR); /* the library hears of it in its next turn */
}

static void on_connection(void *cls, struct MHD_Connection *conn, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct dyn_status *s = cls;
    struct conn *c = *context;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
        s->n_staying -= !c->leaving;
        c->taken = false;
        return;
    }
    if (s->n_staying == DYN_STATUS_CONNECTIONS)
        send_oldest_away(s);
    for (c = s->conns; c->taken;
         c++) /* there is one: the library has no more connections than we have places */
        ;
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(conn, MHD_CONNECTION_INFO_CONNECTION_FD);
    *c = (struct conn){.taken = true, .fd = info->connect_fd, .number = s->number++};
    s->n_staying++;
    *context = c;
}

/* ---- life ------------------------------------------------------------------------------------------------------------- */

int dyn_status_create(struct dyn_status **out, const struct dyn_status_options *o, struct err *e)
{
    struct dyn_status *s = mem_zalloc(1, sizeof *s);
    if (!s) {
        close(o->listen_fd);
        return err_set(e, ST_ENOMEM, "status server: no memory");
    }
    s->o = *o;
    s->daemon =
        MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, on_request, s, MHD_OPTION_LISTEN_SOCKET, o->listen_fd,
                         MHD_OPTION_CONNECTION_LIMIT, (unsigned)PLACES, MHD_OPTION_NOTIFY_CONNECTION,
                         on_connection, s, MHD_OPTION_CONNECTION_TIMEOUT, 10u, MHD_OPTION_END);
    const union MHD_DaemonInfo *info =
        s->daemon ? MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!info) {
        if (!s->daemon)
            close(o->listen_fd);
        dyn_status_destroy(s);
        return err_set(e, ST_EIO, "the status server does not start");
    }
    s->fd = info->epoll_fd;
    *out = s;
    return ST_OK;
}

void dyn_status_destroy(struct dyn_status *s)
{
    if (s && s->daemon)
        MHD_stop_daemon(s->daemon); /* closes the socket */
    mem_free(s);
}

int dyn_status_fd(const struct dyn_status *s)
{
    return s->fd;
}

int dyn_status_run(struct dyn_status *s)
{
    MHD_UNSIGNED_LONG_LONG ms = 0;
    MHD_run(s->daemon);
    if (MHD_get_timeout(s->daemon, &ms) != MHD_YES)
        return -1;
    return ms > 10000 ? 10000 : (int)ms;
}
