/* dyn_frame: the bytes between a frontend and a worker: request frames and acks, the two-part messages of a response stream.
 *
 * Owns     nothing: parsed frames borrow from the bytes.
 * Units    bytes; all integers on the wire are big-endian.
 * States   A parser is called with all bytes that have come and says how many belong to the first frame, or that there are not
 *          enough yet; it keeps nothing between calls.
 * Threads  any.
 * Errors   ST_AGAIN: more bytes are needed. ST_EFORMAT: no bytes that follow can make this a frame: close the connection.
 *          Of a control message: ST_EFORMAT or ST_EUNSUP with a text.
 * Bounds   DYN_FRAME_MAX, DYN_PATH_MAX, DYN_HEADER_MAX, DYN_HEARD_BYTES_MAX, the arrays of struct dyn_control. A parser looks at
 *          lengths only: O(1) however often it is called.
 * Source   NVIDIA Dynamo 1.6.1, observed; its tcp codec and two-part codec.
 */
#ifndef STATOR_DYN_FRAME_H
#define STATOR_DYN_FRAME_H

#include "buf.h"
#include "status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    DYN_FRAME_MAX = 32 << 20, /* payload of a request frame */
    DYN_PATH_MAX = 1024,
    DYN_HEADER_MAX = 16384,      /* of a request frame, and a control message */
    DYN_HEARD_BYTES_MAX = 256, /* what a frontend may say on a response stream in one message */
    DYN_ID_MAX = 128,
    DYN_ADDRESS_MAX = 128,
    DYN_PART_BYTES = 24 /* the lengths before a two-part message */
};

/* u16 path length, path, u16 header length, header, u32 payload length, payload */
struct dyn_frame {
    struct str path, header; /* header: JSON, of no meaning here */
    struct str payload;      /* a two-part message: control, body */
    size_t bytes;            /* of the whole frame */
};
int dyn_frame_parse(struct dyn_frame *out, const char *p, size_t n);
/* u32 length, text. Empty: accepted. */
void dyn_frame_put_ack(struct buf *b, struct str text);

/* u64 header length, u64 data length, u64 checksum (never looked at: the reference writes 0), header, data */
struct dyn_parts {
    struct str header, data;
    size_t bytes;
};
int dyn_parts_parse(struct dyn_parts *out, const char *p, size_t n, size_t header_max, size_t data_max);

enum dyn_codec { DYN_CODEC_JSON, DYN_CODEC_MSGPACK };

/* The control message of a request: where and how the answer is wanted. */
struct dyn_control {
    char id[DYN_ID_MAX], subject[DYN_ID_MAX];
    char address[DYN_ADDRESS_MAX]; /* "10.0.0.7:40123", "[::1]:40123" */
    enum dyn_codec codec;          /* of the body and of the items */
};
int dyn_control_parse(struct dyn_control *out, struct str json, struct err *e);

/* What a worker writes on a response stream, in this order. */
void dyn_frame_put_handshake(struct buf *b, const char *subject);
void dyn_frame_put_prologue(struct buf *b);
/* `item` is MessagePack: the value of "data". */
int dyn_frame_put_item(struct buf *b, enum dyn_codec codec, struct str item);
void dyn_frame_put_final(struct buf *b, enum dyn_codec codec); /* nothing more will come, and the sentinel */

/* What a frontend says on a response stream. Anything else is ignored. */
bool dyn_frame_ends(struct str header); /* "stop" or "kill" */

#endif
