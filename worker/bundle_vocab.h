/* bundle_vocab: what a GGUF says about its vocabulary, as the tokenizer takes it.
 *
 * Owns     the arrays; the strings in them are the GGUF's.
 * Units    token ids.
 * States   open -> read -> close, while the GGUF is open.
 * Threads  plain data.
 * Errors   ST_EFORMAT, ST_EUNSUP with file and key, ST_ENOMEM.
 * Bounds   as many entries as the file holds.
 * Source   GGUF keys tokenizer.ggml.*.
 */
#ifndef STATOR_BUNDLE_VOCAB_H
#define STATOR_BUNDLE_VOCAB_H

#include "gguf.h"
#include "tok.h"

struct bundle_vocab {
    struct tok_spec spec;
    struct str *tokens, *merges; /* what spec borrows */
    float *scores;
    int32_t *types;
};

int bundle_vocab_open(struct bundle_vocab *v, const struct gguf *g, struct err *e);
void bundle_vocab_close(struct bundle_vocab *v); /* a zeroed one is fine */

#endif
