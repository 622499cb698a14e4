/* grammar_schema: JSON Schema, or a list of texts -> grammar.
 *
 * Honoured: type (also lists of them), properties, required, additionalProperties, items, prefixItems, minItems, maxItems, enum,
 * const, anyOf, oneOf (as anyOf), allOf of one, $ref into the document, minLength, maxLength, bounds of integers, bounds of
 * numbers where they are whole and not negative. Notes to people (title, description, default, format, ...) are ignored, as are
 * names that JSON Schema does not know. Any other constraint is refused by name: what is asked for is kept, or not promised.
 *
 * The text is narrower than the schema: members come in the order of `properties`; one space may follow a comma and a colon,
 * no other white space stands between tokens; without additionalProperties an object with `properties` has no others; members
 * beyond the named ones have names without escapes. A schema without a type takes the one that its keywords speak of.
 *
 * Owns     nothing; the schema is only read during the call.
 * Units    bytes; lengths of strings are in characters.
 * States   -
 * Threads  any.
 * Errors   ST_EINVAL (not a schema, too large, unsatisfiable), ST_EUNSUP (the text names keyword and place), ST_ENOMEM.
 * Bounds   grammar.h; GRAMMAR_REPEAT_MAX for counts.
 * Source   JSON Schema 2020-12; RFC 8259; RFC 6901 (pointers in $ref).
 */
#ifndef STATOR_GRAMMAR_SCHEMA_H
#define STATOR_GRAMMAR_SCHEMA_H

#include "grammar.h"
#include "json.h"
#include "status.h"

enum { GRAMMAR_REPEAT_MAX = 10000, GRAMMAR_CHOICES_MAX = 4096 };

/* `vocab` is what grammar_mask.h needs; NULL: the grammar is for bytes only. It must outlive the grammar. */
int grammar_from_schema(struct grammar **out, const cJSON *schema, const struct grammar_vocab *vocab,
                        struct err *e);
/* One of these strings, as it stands. */
int grammar_from_choice(struct grammar **out, const cJSON *list, const struct grammar_vocab *vocab,
                        struct err *e);
/* guided_decoding, as Dynamo and vLLM say it: {"json": a schema} or {"choice": [...]}; what else it may hold is null. */
int grammar_from_guided(struct grammar **out, const cJSON *guided, const struct grammar_vocab *vocab, struct err *e);

#endif
