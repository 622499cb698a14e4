/* tok_split: the pre-tokeniser: cuts a text into the pieces within which symbols may merge.
 *
 * Owns     a tok_split owns its compiled patterns. A tok_split_run owns scratch for one caller.
 * Units    pieces are byte views, valid until the sink returns.
 * States   zeroed -> init -> add* -> read only -> fini.
 * Threads  one tok_split, any number of runs at once.
 * Errors   add: ST_EFORMAT / ST_EUNSUP with the pattern's fault. run: only ST_ENOMEM or what the sink returns; a
 *          pattern that runs into its match limit leaves the rest of the piece whole.
 * Bounds   TOK_STEPS_MAX steps; a match takes at most TOK_MATCH_LIMIT internal calls and TOK_MATCH_HEAP_KIB.
 * Source   Hugging Face tokenizers, pre_tokenizers::{split, digits, byte_level, metaspace}.
 */
#ifndef STATOR_TOK_SPLIT_H
#define STATOR_TOK_SPLIT_H

#include "buf.h"
#include "status.h"

#include <stdbool.h>
#include <stdint.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { TOK_STEPS_MAX = 16, TOK_MATCH_LIMIT = 20000000, TOK_MATCH_HEAP_KIB = 65536 };

enum tok_behaviour { TOK_REMOVED, TOK_ISOLATED, TOK_MERGED_PREVIOUS, TOK_MERGED_NEXT, TOK_CONTIGUOUS };
enum tok_prepend { TOK_PREPEND_NEVER, TOK_PREPEND_FIRST, TOK_PREPEND_ALWAYS };
enum tok_step_kind { TOK_STEP_MATCH, TOK_STEP_SPACE, TOK_STEP_META };

struct tok_step {
    enum tok_step_kind kind;
    enum tok_behaviour behaviour; /* MATCH */
    bool invert, cut;             /* MATCH: gaps count as matches; META: also cut before each mark */
    enum tok_prepend prepend;     /* META */
    pcre2_code *code;             /* MATCH */
    char mark[8];                 /* META: what stands for a space */
    size_t n_mark;
};

struct tok_split {
    struct tok_step step[TOK_STEPS_MAX];
    size_t n;
    pcre2_general_context *heap; /* base/mem for all of PCRE2 */
    pcre2_match_context *limits;
};

int tok_split_init(struct tok_split *s, struct err *e);
void tok_split_fini(struct tok_split *s); /* zeroed ok */

/* A pattern in Oniguruma's spelling, its character classes brought to what Oniguruma means by them. */
int tok_split_compile(const struct tok_split *s, pcre2_code **out, struct str pattern, struct err *e);
int tok_split_match(struct tok_split *s, struct str pattern, enum tok_behaviour b, bool invert,
                    struct err *e);
int tok_split_literal(struct tok_split *s, struct str text, enum tok_behaviour b, bool invert, struct err *e);
int tok_split_space(struct tok_split *s, struct err *e); /* put a space before a piece that has none */
int tok_split_meta(struct tok_split *s, struct str mark, enum tok_prepend p, bool cut, struct err *e);

typedef int tok_piece_fn(void *arg, struct str piece);
struct tok_split_run {
    const struct tok_split *split;
    pcre2_match_data *match;
    tok_piece_fn *sink;
    void *arg;
};
int tok_split_begin(struct tok_split_run *r, const struct tok_split *s, tok_piece_fn *sink, void *arg);
int tok_split_text(struct tok_split_run *r, struct str text,
                   bool first); /* valid UTF-8; `first`: text begins here */
void tok_split_end(struct tok_split_run *r);

/* Next match at or behind `from`: ST_ENOENT when there is none (a match that hits its limits counts as none). */
int tok_split_next(const struct tok_split *s, const pcre2_code *code, pcre2_match_data *md, struct str text,
                   size_t from, size_t *start_out, size_t *end_out);

/* The code points that a pattern of the form x+ matches, as sorted ranges {from, to}; the caller frees *out. */
int tok_split_class(const struct tok_split *s, struct str pattern, uint32_t (**out)[2], size_t *n_out,
                    struct err *e);

#endif
