/* tok_write: tokenizer.json of a vocabulary that came without one.
 *
 * Owns     nothing.
 * Units    bytes.
 * States   -
 * Threads  any.
 * Errors   ST_EUNSUP for what the form cannot express, by name; ST_EFORMAT as tok_create_spec; ST_ENOMEM.
 * Bounds   about 60 bytes per token and per merge. The text depends on the vocabulary alone, to the byte.
 * Source   Hugging Face tokenizers, serialised form, 0.20 and later (merges as pairs).
 */
#ifndef STATOR_TOK_WRITE_H
#define STATOR_TOK_WRITE_H

#include "tok.h"

int tok_write_json(struct buf *out, const struct tok_spec *spec, struct err *e);

#endif
