/* bundle: what stands beside the weights at --model's path: vocabulary, chat template, names of special tokens.
 *
 * Owns     its tokenizer, chat template and strings; nothing is borrowed from the files after open.
 * Units    token ids.
 * States   immutable after open.
 * Threads  any number of readers.
 * Errors   ST_ENOENT, ST_EFORMAT, ST_EUNSUP with file and field named. A folder or GGUF without a chat template is no error:
 *          `chat` is NULL and `why_no_chat` says why.
 * Bounds   JSON files up to BUNDLE_JSON_MAX bytes, templates up to BUNDLE_TEMPLATE_MAX.
 * Source   GGUF keys tokenizer.*; tokenizer.json, tokenizer_config.json, chat_template.jinja of Hugging Face folders.
 */
#ifndef STATOR_BUNDLE_H
#define STATOR_BUNDLE_H

#include "chat.h"
#include "gguf.h"
#include "grammar_vocab.h"
#include "tok.h"

enum { BUNDLE_JSON_MAX = 128 << 20, BUNDLE_TEMPLATE_MAX = 4 << 20, BUNDLE_EOG_MAX = 16 };

struct bundle {
    struct tok *tok;
    struct grammar_vocab *vocab; /* its tokens, as grammars see them; borrows from this struct, which must stay where it is */
    struct chat *chat;    /* may be NULL */
    bool knows_developer, knows_tool_calls; /* the template speaks of that role, of that member of a message */
    char why_no_chat[200];
    char *name;      /* default served name: the file's name without ".gguf", or the folder's */
    char *bos, *eos; /* as the template sees them; "" when there is none */
    tok_t eog[BUNDLE_EOG_MAX];
    uint32_t n_eog;
};

/* `g` is the file's metadata when `path` is a GGUF file (only read during the call), NULL when it is a folder.
 * `template_path` (may be NULL) replaces the model's own chat template. `dummy_vocab`: 0, or a folder may lack its tokenizer:
 * then one of so many tokens takes its place, bytes first. */
int bundle_open(struct bundle *b, const char *path, const struct gguf *g, const char *template_path, uint32_t dummy_vocab,
                struct err *e);
/* A tokenizer for random weights: token i < 256 is byte i, the others read " <i>". */
int bundle_byte_tok(struct tok **out, uint32_t vocab, struct err *e);
void bundle_close(struct bundle *b); /* a zeroed bundle is fine */

#endif
