/* dyn_stream: the connections on which answers go back: one to the frontend for each accepted request.
 *
 * Owns     the set owns its streams, their sockets and buffers.
 * Units    bytes; times are clock_now_ns values.
 * States   stream: open (items may be put, nothing is sent yet) -> start (connects; sends) -> finish -> closed by the frontend.
 *          Or discarded instead of started. Or ended early, by the frontend or its silence: then the owner is told.
 *          After dyn_stream_finish, dyn_stream_discard, or `ended`, the stream is not the owner's any more.
 * Threads  the io thread.
 * Errors   open: ST_EUNSUP for an address that is not ip:port, ST_EBUSY, ST_ENOMEM. Later ones end the stream early.
 * Bounds   `streams_max`: when all places are taken, the oldest that nobody answers for (not connected, or finished and not
 *          closed) goes for the newcomer. Unread output: of a stream `bytes_max` plus one item, and what a finished one has
 *          left; of all together `output_max`: beyond it, the one with most goes. Of what is left at the end an eighth
 *          must be read each `stall_ms`. A frontend may say DYN_HEARD_MAX things. A put never blocks and never calls back:
 *          `ended` comes from dyn_streams_run only.
 * Source   NVIDIA Dynamo 1.6.1: call-home response streams.
 */
#ifndef STATOR_DYN_STREAM_H
#define STATOR_DYN_STREAM_H

#include "dyn_frame.h"

enum { DYN_HEARD_MAX = 64 }; /* it has two to say, each of which ends the stream */

struct dyn_stream;
struct dyn_streams;

enum dyn_ending {
    DYN_KILLED, /* the frontend said so: its client is gone, or has what it wanted */
    DYN_LOST,   /* the connection failed or was closed */
    DYN_SLOW    /* more unread than bytes_max, or nothing read for too long */
};

struct dyn_streams_options {
    uint32_t streams_max;
    size_t bytes_max, output_max;
    uint32_t
        connect_ms;    /* for the connection to come about, and for the frontend to close it after the end */
    uint32_t stall_ms; /* unread output must shrink at least so often */
};

int dyn_streams_create(struct dyn_streams **out, const struct dyn_streams_options *o);
void dyn_streams_destroy(struct dyn_streams *set); /* NULL ok; owners are not told */
int dyn_streams_fd(const struct dyn_streams *set); /* an epoll set */
/* Sends what was put, hears what came; ms until it must be called again, -1 = when the fd says. */
int dyn_streams_run(struct dyn_streams *set, int64_t now_ns);
uint32_t dyn_streams_count(const struct dyn_streams *set); /* not yet closed */

int dyn_stream_open(struct dyn_streams *set, const struct dyn_control *control, struct dyn_stream **out,
                    struct err *e);
void dyn_stream_discard(struct dyn_stream *s);
void dyn_stream_start(struct dyn_stream *s, int64_t now_ns);
void dyn_stream_own(struct dyn_stream *s, void (*ended)(void *ctx, enum dyn_ending how), void *ctx);
void dyn_stream_put(struct dyn_stream *s, struct str item); /* MessagePack: the value of "data" */
void dyn_stream_break(struct dyn_stream *s);                /* an item could not be made: it ends early */
void dyn_stream_finish(struct dyn_stream *s);

#endif
