/* tok_rules: the behaviour part of tokenizer.json: normalizer, pre_tokenizer, post_processor, decoder.
 *
 * Owns     nothing; fills a tok whose names are known.
 * Units    -
 * States   -
 * Threads  the loading thread.
 * Errors   ST_EFORMAT for what is malformed, ST_EUNSUP for a known kind that is not supported; both name the field.
 * Bounds   lists are walked once; nesting of Sequence is at most TOK_NEST_MAX.
 * Source   Hugging Face tokenizers, serialised form of the same names.
 */
#ifndef STATOR_TOK_RULES_H
#define STATOR_TOK_RULES_H

#include "json.h"
#include "tok_core.h"

enum { TOK_NEST_MAX = 8 };

int tok_rules_normalizer(struct tok *t, const cJSON *j, struct err *e);
int tok_rules_splitter(struct tok *t, const cJSON *j, struct err *e); /* pre_tokenizer; sets byte_level */
int tok_rules_post(struct tok *t, const cJSON *j, struct err *e);
int tok_rules_decoder(struct tok *t, const cJSON *j, struct err *e);

#endif
