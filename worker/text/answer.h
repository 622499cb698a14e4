/* answer: what a model wrote, taken apart while it arrives: content, reasoning, and calls of the tools that were offered.
 *
 * Owns     what it holds back, and the calls. Borrows the tools.
 * Units    bytes.
 * States   init -> push* -> end -> fini. With `one`, `over` is set behind the first call: further text is dropped.
 * Threads  one owner.
 * Errors   ST_ENOMEM, ST_ETOOBIG; the answer is then lost.
 * Bounds   O(1) per byte, and O(bytes of the call + nodes of the tools) for the byte that ends a call or its name;
 *          `limit` bytes held, and of the arguments of each call; ANSWER_CALLS_MAX calls.
 * Source   what vLLM's parsers (hermes, qwen3_coder, mistral, llama3_json; qwen3, deepseek_r1) and NVIDIA Dynamo's accept. As
 *          they do, white space around calls is dropped; unlike them, what turns out to be no call is content, byte for byte,
 *          and reasoning begins where nothing was said yet: a mark in the middle of a sentence is part of it.
 */
#ifndef STATOR_ANSWER_H
#define STATOR_ANSWER_H

#include "answer_form.h"
#include "answer_json.h"
#include "answer_parameters.h"
#include "json.h"
#include "status.h"

enum { ANSWER_CALLS_MAX = 512, ANSWER_NAME_MAX = 256 };

struct answer_call {
    struct str name;      /* of the tool, borrowed from it */
    struct str arguments; /* an object as JSON text */
};

struct answer_options {
    enum answer_calls calls; /* how calls are written; where that is not known, all is content */
    const cJSON *tools;      /* [{"function": {"name", "parameters"}}], checked; NULL: none were offered */
    bool one;                /* the first call ends the answer */
    enum answer_reasoning reasoning;
    bool opened; /* the prompt ends inside of reasoning */
    size_t limit;
};

struct answer {
    struct answer_options o;
    uint8_t phase, place; /* answer.c */
    bool listed;          /* calls are elements of an array */
    bool over;
    uint8_t at; /* bytes of a mark that were matched */
    int failed;
    struct buf held;       /* what is not yet known to be content or a call */
    size_t blank;          /* bytes of white space that it begins with, before a mark */
    size_t body;           /* where in it the name or the value begins */
    const cJSON *function; /* that is called, where its name comes first */
    struct answer_json json;
    struct answer_parameters parameters;
    struct answer_call *calls; /* [n_calls] */
    uint32_t n_calls, cap_calls;
};

void answer_init(struct answer *a, const struct answer_options *o);
/* Appends what is now known to be content, or reasoning; `calls` grows by what is now whole. */
int answer_push(struct answer *a, struct str text, struct buf *content, struct buf *reasoning);
/* End of text: what was begun is content after all. */
int answer_end(struct answer *a, struct buf *content, struct buf *reasoning);
void answer_fini(struct answer *a);

/* A token of this name is a mark, even where the tokenizer has it as a control token that is not shown. */
bool answer_is_mark(const struct answer *a, struct str name);

#endif
