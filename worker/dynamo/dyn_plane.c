/* What a frame asks for, and what its ack says. The bytes are dyn_conns' matter, the answer goes back on a stream of its own
 * (dyn_stream).
 *
 * An ack says that the request will be answered, so a handler decides at once. What it may say otherwise is fixed by the other
 * side: a text with any other beginning than the two known ones leaves a client waiting for ever, so those two are written in
 * one place, here. A control message that cannot be read names nobody to answer to: it is refused in the ack as well.
 *
 * Whoever reaches the port chooses the address that the answer goes to; that is the protocol. So connections that go out are
 * bounded as those that come in (dyn_stream.h), and what is written to them begins with bytes that no other protocol takes. */
#define _GNU_SOURCE
#include "dyn_plane.h"

#include "clock.h"
#include "dyn_conns.h"
#include "dyn_json.h"
#include "log.h"
#include "mem.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

enum { REPLY_MAX = 256 << 20, LARGE_BYTES = 1 << 20, JSON_MAX = 8 << 20 };

struct dyn_plane {
    struct dyn_plane_options o;
    struct dyn_endpoint endpoints[DYN_ENDPOINTS_MAX];
    uint32_t n_endpoints;
    int epoll_fd; /* of the two sets */
    struct dyn_conns *conns;
    struct dyn_streams *streams;
    struct buf body, reply;    /* scratch of the frame being handled */
    int64_t now_ns, refuse_ns; /* refuse_ns: 0 = not draining */
};

/* ---- life -------------------------------------------------------------------------------------------------------- */

static enum dyn_fate on_frame(void *ctx, const struct dyn_frame *f, struct buf *out);

static uint32_t least(uint64_t a, uint64_t b)
{
    return (uint32_t)(a < b ? a : b);
}

/* The rest of the program needs descriptors too: what comes over the plane shall not take all that the process may have. */
static void set_defaults(struct dyn_plane_options *o)
{
    struct dyn_streams_options *s = &o->streams;
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files))
        files.rlim_cur = 1024;
    o->conns_max = o->conns_max ? o->conns_max : least(DYN_CONNS_MAX, files.rlim_cur / 8 + 1);
    o->frame_ms = o->frame_ms ? o->frame_ms : 30000;
    o->input_max = o->input_max ? o->input_max : DYN_INPUT_MAX;
    s->streams_max = s->streams_max ? s->streams_max : least(DYN_STREAMS_MAX, files.rlim_cur / 2 + 1);
    s->bytes_max = s->bytes_max ? s->bytes_max : 1 << 20;
    s->output_max = s->output_max ? s->output_max : DYN_OUTPUT_MAX;
    s->connect_ms = s->connect_ms ? s->connect_ms : 10000;
    s->stall_ms = s->stall_ms ? s->stall_ms : 60000;
}

static int watch(struct dyn_plane *p, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN};
    return epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, fd, &ev) ? ST_EIO : ST_OK;
}

static int open_sets(struct dyn_plane *p)
{
    const struct dyn_conns_options conns = {.listen_fd = p->o.listen_fd,
                                            .conns_max = p->o.conns_max,
                                            .frame_ms = p->o.frame_ms,
                                            .input_max = p->o.input_max,
                                            .frame = on_frame,
                                            .ctx = p};
    int st = dyn_conns_create(&p->conns, &conns);
    if (st)
        close(p->o.listen_fd);
    st = st ? st : dyn_streams_create(&p->streams, &p->o.streams);
    p->epoll_fd = st ? -1 : epoll_create1(EPOLL_CLOEXEC);
    if (!st && (p->epoll_fd < 0 || watch(p, dyn_conns_fd(p->conns)) || watch(p, dyn_streams_fd(p->streams))))
        st = ST_EIO;
    return st;
}

int dyn_plane_create(struct dyn_plane **out, const struct dyn_plane_options *o, struct err *e)
{
    struct dyn_plane *p = mem_zalloc(1, sizeof *p);
    if (!p) {
        close(o->listen_fd);
        return err_set(e, ST_ENOMEM, "dynamo: out of memory");
    }
    p->o = *o;
    set_defaults(&p->o);
    int st = open_sets(p);
    if (st) {
        err_set(e, st, "dynamo: cannot start the request plane: %s",
                st == ST_EIO ? strerror(errno) : status_text(st));
        dyn_plane_destroy(p);
        return st;
    }
    *out = p;
    return ST_OK;
}

void dyn_plane_destroy(struct dyn_plane *p)
{
    if (!p)
        return;
    dyn_conns_destroy(p->conns);
    dyn_streams_destroy(p->streams);
    if (p->epoll_fd >= 0)
        close(p->epoll_fd);
    buf_fini(&p->body);
    buf_fini(&p->reply);
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

static bool refusing(const struct dyn_plane *p)
{
    return p->refuse_ns && p->now_ns >= p->refuse_ns;
}

void dyn_plane_drain(struct dyn_plane *p, int64_t now_ns)
{
    if (!p->refuse_ns)
        p->refuse_ns = now_ns + (int64_t)p->o.drain_grace_ms * NS_PER_MS;
    p->now_ns = now_ns;
}

bool dyn_plane_idle(const struct dyn_plane *p)
{
    return dyn_streams_count(p->streams) == 0 && (!p->refuse_ns || refusing(p));
}

uint32_t dyn_plane_conns(const struct dyn_plane *p)
{
    return dyn_conns_count(p->conns);
}

static int sooner(int a, int b)
{
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

int dyn_plane_run(struct dyn_plane *p, int64_t now_ns)
{
    p->now_ns = now_ns;
    int ms = dyn_conns_run(p->conns, now_ns);
    ms = sooner(ms, dyn_streams_run(p->streams, now_ns));
    bool grace = p->refuse_ns && !refusing(p);
    return grace ? sooner(ms, (int)((p->refuse_ns - now_ns) / NS_PER_MS) + 1) : ms;
}

/* ---- one request ------------------------------------------------------------------------------------------------- */

/* Plain ASCII, whatever a peer wrote that is repeated here. */
static void put_ack(struct buf *out, enum dyn_answer answer, const char *why)
{
    static const char *const words[] = {
        [DYN_OVERLOADED] = "Server overloaded: ", [DYN_UNAVAILABLE] = "Server unavailable: "};
    char text[sizeof(struct err) + 32] = "";
    if (answer != DYN_ACCEPT)
        snprintf(text, sizeof text, "%s%s", words[answer], why);
    for (char *at = text; *at; at++)
        if (*at < ' ' || *at > '~')
            *at = '?';
    dyn_frame_put_ack(out, str_from(text));
}

static const struct dyn_endpoint *find_endpoint(const struct dyn_plane *p, struct str path)
{
    for (uint32_t i = 0; i < p->n_endpoints; i++)
        if (str_eqz(path, p->endpoints[i].path))
            return &p->endpoints[i];
    return NULL;
}

/* The body as MessagePack: as it came, or rewritten. Our records ask for MessagePack, which is read ten times as fast: JSON that
 * would hold up the loop for half a second is not taken for a request. */
static int unify(struct dyn_plane *p, const struct dyn_control *control, struct str *body)
{
    if (control->codec == DYN_CODEC_MSGPACK)
        return ST_OK;
    buf_reset(&p->body);
    int st = body->n > JSON_MAX ? ST_EFORMAT : dyn_json_to_msgpack(*body, &p->body);
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
    if (p->body.cap > LARGE_BYTES)
        buf_fini(&p->body);
    if (answer == DYN_ACCEPT)
        dyn_stream_start(stream, p->now_ns);
    else
        dyn_stream_discard(stream);
    return answer;
}

static enum dyn_fate on_frame(void *ctx, const struct dyn_frame *f, struct buf *out)
{
    struct dyn_plane *p = ctx;
    struct err why = {0};
    enum dyn_answer answer = DYN_UNAVAILABLE;
    const struct dyn_endpoint *at = find_endpoint(p, f->path);
    if (!at)
        err_set(&why, ST_ENOENT, "unknown endpoint %.*s", (int)f->path.n, f->path.p);
    else if (refusing(p))
        err_set(&why, ST_EDRAIN, "draining");
    else
        answer = dispatch(p, at, f->payload, &why);
    const char *text = why.text[0] ? why.text : status_text(why.status);
    put_ack(out, answer, text);
    if (answer != DYN_ACCEPT) {
        log_warn_limited("dynamo", "request refused path=%.*s: %s", (int)f->path.n, f->path.p, text);
        return DYN_FRAME_REFUSED;
    }
    return at->answer || f->bytes > LARGE_BYTES ? DYN_FRAME_LARGE : DYN_FRAME_TAKEN;
}
