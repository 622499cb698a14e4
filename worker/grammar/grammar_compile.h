/* grammar_compile: the translation of one schema, as its parts share it: grammar_schema.c (what kind of value), grammar_keyword.c
 * (what a schema says, and what it must not), grammar_object.c (objects and arrays), grammar_number.c (bounds of numbers).
 *
 * Owns     the draft and the list of rules.
 * Units    nodes of the draft.
 * States   -
 * Threads  one owner.
 * Errors   the first one sticks in `status`; everything after it does nothing of consequence.
 * Bounds   GRAMMAR_RULES_MAX rules.
 * Source   -
 */
#ifndef STATOR_GRAMMAR_COMPILE_H
#define STATOR_GRAMMAR_COMPILE_H

#include "grammar_build.h"
#include "json.h"

enum { GRAMMAR_RULES_MAX = 1024, GRAMMAR_PATH_BYTES = 120 };

enum grammar_type {
    GRAMMAR_NULL = 1,
    GRAMMAR_BOOLEAN = 2,
    GRAMMAR_INTEGER_TYPE = 4,
    GRAMMAR_NUMBER_TYPE = 8,
    GRAMMAR_STRING_TYPE = 16,
    GRAMMAR_ARRAY_TYPE = 32,
    GRAMMAR_OBJECT_TYPE = 64,
    GRAMMAR_ANY_TYPE = 127
};

struct grammar_rule {
    const cJSON *schema;
    uint16_t start;
};

struct grammar_compiler {
    struct grammar_draft d;
    struct grammar_basics basics;
    const cJSON *root;
    struct grammar_rule *rules; /* [n_rules], the first n_drawn are drawn */
    uint32_t n_rules, n_drawn, cap_rules;
    int char_rule;                 /* its start, or -1 */
    char path[GRAMMAR_PATH_BYTES]; /* where in the schema: "properties.city." */
    struct err *e;
    int status;
};

/* The keyword that decides, or NULL: then type and what goes with it do. */
const cJSON *grammar_compile_keywords(struct grammar_compiler *c, const cJSON *schema);
/* The types that `type` allows; without it those that the other keywords speak of, unless one of them `decided`. */
unsigned grammar_compile_types(struct grammar_compiler *c, const cJSON *schema, bool decided);

/* Draws a value that satisfies the schema and is of one of these types; returns the node behind it. */
uint16_t grammar_compile(struct grammar_compiler *c, const cJSON *schema, unsigned types, uint16_t from);
/* The rule of a schema; drawn once, later. */
uint16_t grammar_compile_rule(struct grammar_compiler *c, const cJSON *schema);
uint16_t grammar_compile_object(struct grammar_compiler *c, const cJSON *schema, uint16_t from);
uint16_t grammar_compile_array(struct grammar_compiler *c, const cJSON *schema, uint16_t from);
/* `fractions`: a number, otherwise an integer. */
uint16_t grammar_compile_number(struct grammar_compiler *c, const cJSON *schema, bool fractions,
                                uint16_t from);

bool grammar_compile_ok(const struct grammar_compiler *c);
/* `keyword`: of the schema that the path leads to; empty: that schema itself. */
void grammar_compile_fail(struct grammar_compiler *c, int status, const char *keyword, const char *why);
/* A count; false when it is absent. */
bool grammar_compile_count(struct grammar_compiler *c, const cJSON *schema, const char *keyword,
                           uint32_t *out);
/* Extends the path while a part is compiled; give the length back afterwards. */
size_t grammar_compile_enter(struct grammar_compiler *c, const char *keyword, const char *name);
void grammar_compile_leave(struct grammar_compiler *c, size_t length);

#endif
