/* api_reply: reply bodies and stream frames, written straight into a buffer.
 *
 * Owns     nothing.
 * Units    bytes; log-probabilities are natural.
 * States   -
 * Threads  any; one writer per buffer.
 * Errors   stick in the buffer (buf.h): check `failed` once behind the last call.
 * Bounds   output is linear in its input; the buffer's limit is the caller's.
 * Source   OpenAI API reference: chat.completion, chat.completion.chunk, text_completion, model list, error object;
 *          server-sent events (WHATWG HTML, section 9.2).
 */
#ifndef STATOR_API_REPLY_H
#define STATOR_API_REPLY_H

#include "answer.h"
#include "api_limits.h"
#include "api_parse.h"
#include "buf.h"
#include "status.h"

#include <stdint.h>

/* What all frames of one call share. */
struct api_head {
    enum api_endpoint endpoint;
    struct str id, model;
    int64_t created; /* seconds since the epoch */
    bool usage_null; /* frames carry "usage":null because a usage frame will follow */
};

struct api_usage {
    uint64_t prompt, cached, completion; /* tokens */
};

struct api_logprob {
    int32_t token;
    float logprob;
    uint32_t n_top;
    struct {
        int32_t token;
        float logprob;
    } top[API_TOP_LOGPROBS_MAX];
};

/* The bytes of a token; may be part of a character. */
typedef struct str api_token_bytes(const void *ctx, int32_t token);

struct api_logprobs {
    const struct api_logprob *entries; /* [n] */
    size_t n;
    uint64_t text_offset; /* of the first entry in the completion, in bytes */
    api_token_bytes *bytes;
    const void *ctx;
};

struct api_choice {
    uint32_t index;
    struct str text, reasoning;
    const struct api_logprobs *logprobs; /* NULL = null */
    const struct answer_call *calls;     /* [n_calls], told from [call] on */
    uint32_t call, n_calls;
    const char *finish; /* "stop", "length", "tool_calls"; NULL = null */
    bool first;                          /* first frame of a streamed chat choice: names the role */
};

void api_put_reply_begin(struct buf *b, const struct api_head *h);
void api_put_reply_choice(struct buf *b, const struct api_head *h, const struct api_choice *c, bool comma);
void api_put_reply_end(struct buf *b, const struct api_usage *u);

void api_put_frame(struct buf *b, const struct api_head *h, const struct api_choice *c);
void api_put_usage_frame(struct buf *b, const struct api_head *h, const struct api_usage *u);
void api_put_done_frame(struct buf *b);
void api_put_error_frame(struct buf *b, int status, const char *text);

/* `text` may begin with "field: "; the field then becomes `param`. */
void api_put_error(struct buf *b, int status, const char *text);

struct api_model {
    struct str id, root;
    int64_t created;
    uint32_t max_model_len;
};
void api_put_model(struct buf *b, const struct api_model *m);
void api_put_models(struct buf *b, const struct api_model *models, size_t n);

#endif
