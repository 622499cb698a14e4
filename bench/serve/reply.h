/* reply: one HTTP/1.1 reply of an OpenAI server, read as its bytes come; no I/O of its own.
 *
 * Owns     its line, text and gap buffers until reply_fini; reply_reset keeps the memory.
 * Units    times in nanoseconds of clock_now_ns; gaps between text events in microseconds; tokens as `usage` says.
 * States   HEAD -> BODY (plain, by length, or chunked) -> DONE. `done` is set once the last byte was taken.
 * Threads  one owner.
 * Errors   ST_EFORMAT for bytes that are no HTTP/1.1 or no SSE; an HTTP status other than 200 is no error here:
 *          see `status` and `text`.
 * Bounds   LINE_LIMIT bytes per header, chunk-size or SSE line, TEXT_LIMIT bytes of a body that is no stream.
 * Source   RFC 9112 sections 4, 6 and 7; WHATWG HTML 9.2 (event streams).
 */
#ifndef BENCH_SERVE_REPLY_H
#define BENCH_SERVE_REPLY_H

#include "buf.h"
#include "status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { REPLY_LINE_LIMIT = 1 << 20, REPLY_TEXT_LIMIT = 1 << 20 };

enum reply_state {
    REPLY_STATUS_LINE,
    REPLY_HEADER,
    REPLY_BODY_LENGTH,
    REPLY_BODY_TO_END,
    REPLY_CHUNK_SIZE,
    REPLY_CHUNK_DATA,
    REPLY_CHUNK_END,
    REPLY_TRAILER,
    REPLY_DONE,
};

struct reply {
    enum reply_state state;
    struct buf line;     /* header, chunk-size line */
    struct buf sse_line; /* the SSE line in the making */
    struct buf text;     /* body when it is no event stream */
    uint64_t left;       /* bytes of the body or chunk still to come */
    int status;          /* HTTP status, 0 before the first line */
    bool chunked, event_stream, has_length, closes;
    bool done;     /* the reply is complete */
    bool end_mark; /* "[DONE]" was seen */
    bool has_usage;
    int64_t prompt_tokens, output_tokens, cached_tokens; /* from usage */
    int64_t first_ns, last_ns; /* first and last event that carried text; 0 = none */
    uint32_t events;           /* events that carried text */
    uint32_t *gap_us;          /* [gap_cap] between text events, events - 1 filled */
    uint32_t gap_cap;
};

void reply_reset(struct reply *r); /* ready for the next reply; a zeroed reply is ready too */
void reply_fini(struct reply *r);
/* Takes n bytes that were read at `now_ns`. */
int reply_feed(struct reply *r, const char *p, size_t n, int64_t now_ns, struct err *e);
/* The peer closed: completes a body that ends with the connection; otherwise ST_EFORMAT ("cut short"). */
int reply_eof(struct reply *r, struct err *e);
/* The server's own words for a refusal (error.message), or the first bytes of the body. */
void reply_error_text(const struct reply *r, char *out, size_t out_bytes);

#endif
