/* api_parse: the body of a chat or completions call -> struct api_request.
 *
 * Owns     a request owns its JSON tree and arrays until api_request_fini; every str and cJSON pointer in it borrows from
 *          the tree.
 * Units    tokens, bytes.
 * States   zeroed -> api_parse -> api_request_fini. A failed api_parse leaves the request safe to fini.
 * Threads  one owner at a time; any thread (long bodies are parsed on a lane).
 * Errors   ST_EINVAL or ST_EUNSUP with the field named ("messages[2].content: expected ..."), ST_ENOMEM.
 *          Unknown fields are ignored; known fields of a wrong type, and known fields whose effect is not built, are refused.
 * Bounds   api_limits.h; the size of the body is the caller's limit.
 * Source   OpenAI API reference; vLLM's extra fields (top_k, min_p, repetition_penalty, ignore_eos, stop_token_ids,
 *          chat_template_kwargs, cache_salt); Dynamo's nvext.
 */
#ifndef STATOR_API_PARSE_H
#define STATOR_API_PARSE_H

#include "api_guide.h"
#include "api_hints.h"
#include "api_limits.h"
#include "api_messages.h"
#include "buf.h"
#include "hash.h"
#include "json.h"
#include "status.h"

#include <stdbool.h>
#include <stdint.h>

enum api_endpoint { API_CHAT, API_COMPLETIONS };

struct api_sampling {
    int64_t max_tokens; /* 0 = not asked for */
    int64_t n, top_k;   /* top_k: 0 = off */
    int64_t seed;       /* counts when has_seed */
    double temperature, top_p, min_p, frequency_penalty, presence_penalty, repetition_penalty;
    bool has_seed, ignore_eos;
};

struct api_bias {
    int32_t token;
    float add;
};

/* What the parser must know about the server. */
struct api_context {
    uint32_t vocab_size;          /* logit_bias and stop_token_ids are checked against it */
    struct api_template knows;    /* what the chat template speaks of */
    uint32_t priority_max;        /* hints: |priority| at most; 0 = any */
    struct api_sampling defaults; /* for fields that the request leaves out */
};

struct api_prompt {
    struct str text;    /* when ids is NULL */
    const int32_t *ids; /* [n_ids] or NULL */
    uint32_t n_ids;
};

struct api_request {
    enum api_endpoint endpoint;
    cJSON *root;
    struct str model, user;

    const cJSON *messages, *tools, *template_kwargs; /* chat; tools and kwargs may be NULL */
    bool add_generation_prompt, parallel_calls;
    struct api_prompt *prompts; /* [n_prompts], completions */
    uint32_t n_prompts;
    int32_t *ids; /* backing of all prompts[].ids */

    struct api_sampling sampling;
    const char *max_tokens_name; /* as the client calls it */
    int32_t logprobs; /* -1 = none, else the number of alternatives */
    struct str stop[API_STOP_MAX];
    uint32_t n_stop;
    int32_t stop_tokens[API_STOP_TOKENS_MAX];
    uint32_t n_stop_tokens;
    struct api_bias *bias; /* [n_bias], distinct tokens */
    uint32_t n_bias;
    bool stream, include_usage;
    uint8_t cache_salt[HASH_BYTES]; /* zero without a salt */
    uint64_t salt_tag;              /* hash64_salt of it */
    struct api_hints hints;
    struct api_guide guide;
};

int api_parse(struct api_request *r, enum api_endpoint endpoint, struct str body,
              const struct api_context *ctx, struct err *e);
void api_request_fini(struct api_request *r);

#endif
