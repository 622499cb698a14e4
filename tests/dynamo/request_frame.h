/* request_frame: what a frontend sends down the request plane, written by hand as the wire has it.
 *
 * Owns     nothing.
 * Units    bytes; numbers are big-endian.
 * States   -
 * Threads  one writer per buffer.
 * Errors   stick in the buffer.
 * Bounds   none: tests lie about lengths.
 * Source   NVIDIA Dynamo 1.6.1 on the wire.
 */
#ifndef STATOR_TEST_REQUEST_FRAME_H
#define STATOR_TEST_REQUEST_FRAME_H

#include "buf.h"

#include <string.h>

static inline void put_be(struct buf *b, uint64_t v, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--)
        buf_putc(b, (char)(v >> 8 * i));
}

/* path, `headers` as JSON, then the two parts: control and body. */
static inline void put_request_frame(struct buf *b, const char *path, const char *headers, struct str control,
                                     struct str body)
{
    put_be(b, strlen(path), 2);
    buf_puts(b, path);
    put_be(b, strlen(headers), 2);
    buf_puts(b, headers);
    put_be(b, 24 + control.n + body.n, 4);
    put_be(b, control.n, 8);
    put_be(b, body.n, 8);
    put_be(b, 0, 8);
    buf_put(b, control.p, control.n);
    buf_put(b, body.p, body.n);
}

#endif
