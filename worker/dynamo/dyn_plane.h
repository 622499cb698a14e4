/* dyn_plane: the request plane: a TCP server for frontends' request frames, and one response connection per accepted request.
 *
 * Owns     its sockets, connections, streams and epoll set. Borrows the endpoints.
 * Units    bytes, ns.
 * States   create -> serve* -> run, each turn of the io loop -> drain -> destroy.
 * Threads  the io thread; create and serve before it runs.
 * Errors   create: ST_ENOMEM, ST_EIO. A peer's errors end its connection and are logged, limited.
 * Bounds   DYN_ENDPOINTS_MAX endpoints; frames of DYN_FRAME_MAX bytes; those of dyn_conns.h and dyn_stream.h. Where the process
 *          may have few descriptors, an eighth of them are connections at most, and half are streams. Nothing blocks.
 * Source   NVIDIA Dynamo 1.6.1 on the wire: request frames, acks, call-home streams.
 */
#ifndef STATOR_DYN_PLANE_H
#define STATOR_DYN_PLANE_H

#include "buf.h"
#include "dyn_frame.h"
#include "dyn_stream.h"
#include "status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    DYN_CONNS_MAX = 1024,
    DYN_STREAMS_MAX = 8192,
    DYN_ENDPOINTS_MAX = 8,
    DYN_INPUT_MAX = 256 << 20, /* of all connections together */
    DYN_OUTPUT_MAX = 512 << 20 /* of all streams together */
};

struct dyn_plane;

struct dyn_plane_options {
    int listen_fd; /* bound, listening, non-blocking; taken, also when create fails */
    uint32_t
        drain_grace_ms; /* after dyn_plane_drain requests are still taken for so long: frontends need to hear of it */
    uint32_t frame_ms;  /* a frame that has begun must be there within, and acks must be read; 0 = 30000 */
    uint32_t conns_max; /* 0 = DYN_CONNS_MAX */
    size_t input_max;   /* 0 = DYN_INPUT_MAX */
    struct dyn_streams_options streams; /* zeros: DYN_STREAMS_MAX, 1 MiB, DYN_OUTPUT_MAX, 10 s, 60 s */
};

/* One request, for the call only. `body` is MessagePack whatever the frontend spoke. */
struct dyn_call {
    const struct dyn_control *control;
    const uint8_t *body; /* [n_body] */
    size_t n_body;
    struct dyn_stream *stream; /* the response; a handler that refuses must not touch it */
};

/* What a handler says: accepted (it will answer through the stream, or has), or one of the two refusals that frontends know. */
enum dyn_answer { DYN_ACCEPT, DYN_OVERLOADED, DYN_UNAVAILABLE };

struct dyn_endpoint {
    const char *path; /* as in request frames: "<instance hex>/namespace/component/endpoint" */
    /* One of the two. `call`: `why` is that of a refusal, without the leading words. */
    enum dyn_answer (*call)(void *ctx, const struct dyn_call *call, struct err *why);
    /* A query with one answer: appends one MessagePack value, which becomes the data of the one item. */
    void (*answer)(void *ctx, const uint8_t *body, size_t n_body, struct buf *reply);
    void *ctx;
};

int dyn_plane_create(struct dyn_plane **out, const struct dyn_plane_options *o, struct err *e);
void dyn_plane_destroy(struct dyn_plane *p); /* NULL ok */

/* Strings are borrowed until destroy. ST_NOSPACE: DYN_ENDPOINTS_MAX. */
int dyn_plane_serve(struct dyn_plane *p, const struct dyn_endpoint *endpoint);

int dyn_plane_fd(const struct dyn_plane *p); /* an epoll set; readable when run has something to do */
/* Does all that is ready; ms until it must be called again even if the fd stays silent, -1 = never. */
int dyn_plane_run(struct dyn_plane *p, int64_t now_ns);
void dyn_plane_drain(struct dyn_plane *p, int64_t now_ns); /* after the grace new requests are refused */
bool dyn_plane_idle(const struct dyn_plane *p);            /* no stream is open, and no grace runs */
uint32_t dyn_plane_conns(const struct dyn_plane *p);       /* connections of frontends */

#endif
