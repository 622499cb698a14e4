/* wire: the request plane as a frontend speaks it: request frames out, the messages of a response stream in. Written apart from
 * the worker's own, as a client must not share code with what it measures.
 *
 * Owns     nothing: messages borrow from the bytes.
 * Units    bytes, tokens; integers on the wire are big-endian.
 * States   wire_next is called with all bytes that have come and keeps nothing between calls.
 * Threads  any.
 * Errors   ST_AGAIN: more bytes are needed. ST_EFORMAT: no message of this plane.
 * Bounds   WIRE_PART_MAX bytes of a message, WIRE_NESTING levels of a value.
 * Source   NVIDIA Dynamo 1.6.1, observed.
 */
#ifndef BENCH_PLANE_WIRE_H
#define BENCH_PLANE_WIRE_H

#include "buf.h"
#include "status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WIRE_PART_MAX = 1 << 20, WIRE_NESTING = 16, WIRE_SUBJECT_MAX = 64 };

struct wire_request {
    const char *path;    /* of the worker's endpoint, as its instance record says */
    const char *subject; /* names the response stream */
    uint16_t port;       /* on loopback: where the response is waited for */
    const char *model;
    const uint32_t *tokens; /* [n_tokens] */
    uint32_t n_tokens, max_tokens;
    bool ignore_eos;
};
void wire_put_request(struct buf *b, const struct wire_request *r);

/* An ack at the beginning of p[0..n): its text, empty when the request was accepted. */
int wire_ack(struct str *text, const char *p, size_t n, size_t *used);

struct wire_message {
    bool sentinel, error;           /* nothing follows; the request failed */
    char subject[WIRE_SUBJECT_MAX]; /* of a handshake; otherwise empty */
    uint32_t n_tokens;              /* that this message carries */
    int64_t prompt, output, cached; /* of its usage; -1: none in here */
};
int wire_next(struct wire_message *out, const char *p, size_t n, size_t *used);

#endif
