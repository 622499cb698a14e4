/* dyn_request: the body of a generate request -> what the engine is asked.
 *
 * Owns     the token ids and the guided-decoding text until dyn_request_fini. Other views borrow from the body.
 * Units    tokens.
 * States   zeroed -> dyn_request_parse -> dyn_request_fini. A failed parse leaves the request safe to fini.
 * Threads  one owner at a time.
 * Errors   ST_EINVAL, ST_ENOENT (an adapter that is not here), ST_EUNSUP (a field whose effect is not built), each naming the
 *          field; ST_ETOOBIG: longer than the context, `limit` and `actual` say by how much; ST_EFORMAT: no request; ST_ENOMEM.
 *          Every field is honoured or refused; those that are the frontend's own business (stop strings, text options) and
 *          unknown ones are passed over. Hints out of range are moved into it, as over HTTP.
 * Bounds   api_limits.h; ENGINE_STOP_TOKENS_MAX stop tokens; DYN_GUIDED_MAX bytes of guided_decoding. Nothing larger than the
 *          context is allocated for tokens.
 * Source   NVIDIA Dynamo 1.6.1: PreprocessedRequest; docs/HINTS.md.
 */
#ifndef STATOR_DYN_REQUEST_H
#define STATOR_DYN_REQUEST_H

#include "buf.h"
#include "engine.h"
#include "status.h"

enum { DYN_GUIDED_MAX = 1 << 20 };

struct dyn_request_limits {
    uint32_t context_length, vocab_size, priority_max; /* priority_max: 0 = any */
    const int32_t *eog; /* [n_eog] what ends the model's answers, told or not */
    uint32_t n_eog;
    const struct grammar_vocab *vocab; /* NULL: no guided decoding */
};

/* A token that ends the answer but is not the engine's to end it at. */
struct dyn_last {
    int32_t token;
    bool visible; /* the client is to see it */
};

struct dyn_request {
    struct engine_request
        engine; /* of the first choice: the prompt is `tokens`; arrival_ns is the caller's */
    int32_t *tokens;
    uint32_t n;    /* choices; their seeds follow each other */
    bool has_seed; /* otherwise the caller draws one */
    struct dyn_last last[ENGINE_STOP_TOKENS_MAX];
    uint32_t n_last;
    uint32_t clamped;       /* bit 1 << enum api_hint: hints that were moved into their range */
    struct buf guided;      /* JSON of guided_decoding; empty: none */
    struct str salt;        /* cache_salt as it came; empty: none */
    struct str session;     /* agent_context.session_id; empty: none */
    uint64_t limit, actual; /* with ST_ETOOBIG */
};

int dyn_request_parse(struct dyn_request *r, const uint8_t *body, size_t n_body,
                      const struct dyn_request_limits *limits, struct err *e);
void dyn_request_fini(struct dyn_request *r);

#endif
