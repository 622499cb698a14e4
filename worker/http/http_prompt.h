/* http_prompt: the body of a call -> checked request and token ids, ready for the engine.
 *
 * Owns     a prompt owns its request and its token arrays. Borrows the model view and the body.
 * Units    tokens, bytes.
 * States   zeroed -> make -> fini; a failed make leaves it safe to fini.
 * Threads  make: any thread (short bodies on the io thread, long ones on a lane); the model view is immutable.
 * Errors   ST_EINVAL / ST_EUNSUP (field named), ST_ENOENT (unknown model, names the served ones), ST_ENOMEM.
 * Bounds   at most 4 bytes per body byte for ids; template budgets in chat.h.
 * Source   -
 */
#ifndef STATOR_HTTP_PROMPT_H
#define STATOR_HTTP_PROMPT_H

#include "answer.h"
#include "api_parse.h"
#include "chat.h"
#include "engine.h"
#include "grammar_vocab.h"
#include "tok.h"

/* What a call is checked and rendered against. All borrowed. */
struct http_model {
    const struct tok *tok;
    const struct chat *chat; /* NULL: no chat template */
    struct str why_no_chat;
    const struct str *names; /* [n_names], the first is the one in replies */
    uint32_t n_names;
    uint32_t context_length;
    struct str bos, eos, unk, pad; /* as templates see them */
    const int32_t *eog;            /* [n_eog] end-of-generation tokens */
    uint32_t n_eog;
    const struct grammar_vocab *vocab; /* NULL: no structured output */
    struct api_context api;
};

struct http_tokens {
    const int32_t *ids; /* [n] */
    int32_t *owned;     /* backing of ids, or NULL when the request holds them */
    uint32_t n, max_tokens;
};

struct http_prompt {
    struct api_request request;
    struct http_tokens *list; /* [n] */
    uint32_t n;
    struct grammar *grammar; /* NULL: none was asked for */
    bool opened;             /* it ends inside of reasoning */
};

int http_prompt_make(struct http_prompt *p, const struct http_model *m, enum api_endpoint endpoint,
                     struct str body, struct err *e);
/* The engine request of choice `index` (prompt-major), less bias and arrival; `seed` counts when the client sent none. */
void http_prompt_fill(const struct http_prompt *p, const struct http_model *m, uint32_t index, uint64_t seed,
                      struct engine_request *r);
/* How the answers are to be read; borrows from the request. `limit` is the caller's. */
struct answer_options http_prompt_answer(const struct http_prompt *p, const struct http_model *m);
void http_prompt_fini(struct http_prompt *p);
bool http_model_serves(const struct http_model *m, struct str name);
int http_model_unknown(const struct http_model *m, struct str name,
                       struct err *e); /* ST_ENOENT with the names */

#endif
