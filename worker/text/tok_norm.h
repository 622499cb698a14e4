/* tok_norm: the normaliser: rewrites a text before it is cut.
 *
 * Owns     a tok_norm owns its strings and patterns.
 * Units    bytes.
 * States   zeroed -> add* -> read only -> fini.
 * Threads  any number of readers after the last add.
 * Errors   add: ST_EFORMAT, ST_EUNSUP, ST_ENOMEM. run: ST_ENOMEM, ST_ETOOBIG.
 * Bounds   TOK_NORMS_MAX steps; a result of at most TOK_NORM_MAX bytes.
 * Source   Hugging Face tokenizers, normalizers::{prepend, replace, unicode}.
 */
#ifndef STATOR_TOK_NORM_H
#define STATOR_TOK_NORM_H

#include "buf.h"
#include "status.h"
#include "tok_split.h"

enum { TOK_NORMS_MAX = 16, TOK_NORM_MAX = 1 << 30 };

enum tok_norm_kind { TOK_NORM_PREPEND, TOK_NORM_REPLACE, TOK_NORM_MATCH, TOK_NORM_NFC };

struct tok_norm_step {
    enum tok_norm_kind kind;
    char *what, *with; /* PREPEND uses `with` */
    size_t n_what, n_with;
    pcre2_code *code; /* MATCH */
};

struct tok_norm {
    struct tok_norm_step step[TOK_NORMS_MAX];
    size_t n;
};

int tok_norm_prepend(struct tok_norm *t, struct str with, struct err *e);
int tok_norm_replace(struct tok_norm *t, struct str what, struct str with,
                     struct err *e); /* `what` not empty */
int tok_norm_match(struct tok_norm *t, const struct tok_split *s, struct str pattern, struct str with,
                   struct err *e);
int tok_norm_nfc(struct tok_norm *t, struct err *e);
void tok_norm_fini(struct tok_norm *t);

/* The result lies in `a` (or is `text` itself); `a` and `b` are the caller's scratch, `md` fits any pattern.
 * `head` off: a stretch behind invalid bytes, which gets no prefix. */
int tok_norm_run(const struct tok_norm *t, const struct tok_split *s, pcre2_match_data *md, struct str text,
                 bool head, struct buf *a, struct buf *b, struct str *out);

#endif
