/* http_seq: one choice of a reply: tokens of one engine request -> text, log-probabilities, finish reason.
 *
 * Owns     its buffers. Borrows tokenizer, stop set and tools.
 * Units    tokens, bytes.
 * States   init -> token* -> end -> fini. After a stop string, or the only call that was asked for (`scan.hit`), further tokens
 *          are ignored.
 * Threads  the io thread only.
 * Errors   ST_ENOMEM, ST_ETOOBIG; the call then fails.
 * Bounds   text up to HTTP_SEQ_TEXT_MAX bytes.
 * Source   -
 */
#ifndef STATOR_HTTP_SEQ_H
#define STATOR_HTTP_SEQ_H

#include "answer.h"
#include "api_reply.h"
#include "engine.h"
#include "stop.h"
#include "tok.h"

enum { HTTP_SEQ_TEXT_MAX = 64 << 20 };

struct http_seq {
    uint32_t slot, gen;
    bool open;  /* the engine still owes an END event */
    bool began; /* a frame was written */
    struct tok_stream detok;
    struct stop_scan scan;
    struct answer answer;
    struct buf piece, plain;  /* of the token: as text, and less what may begin a stop string */
    struct buf text;          /* content: not yet framed (streams), or all of it */
    struct buf reasoning;     /* likewise */
    uint32_t n_told;          /* calls that were framed */
    struct api_logprob *logs; /* [n_logs] as text */
    size_t n_logs, cap_logs;
    uint64_t log_offset; /* bytes of tokens whose log-probabilities were framed */
    uint64_t n_tokens, n_prompt, n_cached;
    const char *finish; /* NULL until END */
};

/* `answer` less its limit, which is set here. */
void http_seq_init(struct http_seq *s, uint32_t slot, uint32_t gen, const struct answer_options *answer);
int http_seq_token(struct http_seq *s, const struct tok *tok, const struct stop_set *stops,
                   const struct be_sample_out *sample, bool keep_logprobs);
int http_seq_end(struct http_seq *s, const struct stop_set *stops, bool length);
/* What a reply or frame says of this choice; `logs` is filled when log-probabilities were asked for. */
struct api_choice http_seq_choice(const struct http_seq *s, uint32_t index, const struct tok *tok,
                                  struct api_logprobs *logs);
/* Stream: appends what is new as frames; false when there is nothing to say yet. */
bool http_seq_frame(struct http_seq *s, uint32_t index, const struct tok *tok, const struct api_head *head,
                    struct buf *out);
void http_seq_fini(struct http_seq *s);

#endif
