/* http_reply: what a client reads of a call: the frames of a stream as they come, or one JSON object.
 *
 * Owns     its bytes. Borrows tokenizer, head texts and choices.
 * Units    bytes, ns.
 * States   zeroed -> begin -> frame*, keep_alive*, end | whole -> fini.
 * Threads  the io thread only.
 * Errors   those of the buffer, in `out.failed`.
 * Bounds   the caller's: http_reply_unread says what the client left lying.
 * Source   -
 */
#ifndef STATOR_HTTP_REPLY_H
#define STATOR_HTTP_REPLY_H

#include "api_reply.h"
#include "http_seq.h"

#include <stdbool.h>
#include <stddef.h>

struct http_reply {
    const struct tok *tok;
    struct api_head head;
    struct buf
        out; /* a stream's frames, of which those from `read` on were not read yet; or the whole reply */
    size_t read;
    bool ended;      /* a stream has its last frame */
    int64_t last_ns; /* when a stream had its last one */
};

void http_reply_begin(struct http_reply *r, const struct api_head *head, const struct tok *tok);
void http_reply_fini(struct http_reply *r);

/* The whole reply; the caller takes the memory of `out`. */
void http_reply_whole(struct http_reply *r, const struct http_seq *seqs, uint32_t n, bool logprobs,
                      const struct api_usage *usage);

/* False: the choice has nothing to say yet. */
bool http_reply_frame(struct http_reply *r, struct http_seq *s, uint32_t index);
void http_reply_keep_alive(struct http_reply *r, int64_t now_ns);
/* The last frames: an error, or the usage if it is given. */
void http_reply_end(struct http_reply *r, int status, const char *text, const struct api_usage *usage);
/* Bytes copied, 0 = nothing yet, -1 = end of stream. */
long http_reply_read(struct http_reply *r, char *out, size_t max);
size_t http_reply_unread(const struct http_reply *r);

#endif
