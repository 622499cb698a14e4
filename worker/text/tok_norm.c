/* Each step copies the text from one buffer to the other, so a list of steps costs one pass each and two
 * buffers in all. Nothing here knows about token boundaries: the caller hands in the stretches between added
 * tokens. */
#include "tok_norm.h"

#include "mem.h"
#include "tok_nfc.h"

#include <string.h>

static int new_step(struct tok_norm *t, enum tok_norm_kind kind, struct str what, struct str with,
                    pcre2_code *code, struct err *e)
{
    if (t->n == TOK_NORMS_MAX) {
        pcre2_code_free(code);
        return err_set(e, ST_EUNSUP, "normalizer: more than %d steps", TOK_NORMS_MAX);
    }
    struct tok_norm_step *s = &t->step[t->n++]; /* counted first: fini frees a half-built step too */
    *s = (struct tok_norm_step){.kind = kind, .n_what = what.n, .n_with = with.n, .code = code};
    s->what = mem_dup(what.p ? what.p : "", what.n);
    s->with = mem_dup(with.p ? with.p : "", with.n);
    if (!s->what || !s->with)
        return err_set(e, ST_ENOMEM, "normalizer: no memory");
    return ST_OK;
}

int tok_norm_prepend(struct tok_norm *t, struct str with, struct err *e)
{
    return new_step(t, TOK_NORM_PREPEND, (struct str){0}, with, NULL, e);
}

int tok_norm_replace(struct tok_norm *t, struct str what, struct str with, struct err *e)
{
    if (what.n == 0)
        return err_set(e, ST_EFORMAT, "normalizer.pattern: empty");
    return new_step(t, TOK_NORM_REPLACE, what, with, NULL, e);
}

int tok_norm_match(struct tok_norm *t, const struct tok_split *s, struct str pattern, struct str with,
                   struct err *e)
{
    pcre2_code *code = NULL;
    int st = tok_split_compile(s, &code, pattern, e);
    return st ? st : new_step(t, TOK_NORM_MATCH, (struct str){0}, with, code, e);
}

int tok_norm_nfc(struct tok_norm *t, struct err *e)
{
    return new_step(t, TOK_NORM_NFC, (struct str){0}, (struct str){0}, NULL, e);
}

void tok_norm_fini(struct tok_norm *t)
{
    for (size_t i = 0; i < t->n; i++) {
        mem_free(t->step[i].what);
        mem_free(t->step[i].with);
        pcre2_code_free(t->step[i].code);
    }
    memset(t, 0, sizeof *t);
}

static void replace_literal(const struct tok_norm_step *s, struct str in, struct buf *out)
{
    const char *p = in.p, *end = in.p + in.n;
    while (p < end) {
        const char *hit = memchr(p, s->what[0], (size_t)(end - p));
        if (!hit || (size_t)(end - hit) < s->n_what)
            break;
        if (memcmp(hit, s->what, s->n_what) == 0) {
            buf_put(out, p, (size_t)(hit - p));
            buf_put(out, s->with, s->n_with);
            p = hit + s->n_what;
        } else {
            buf_put(out, p, (size_t)(hit + 1 - p));
            p = hit + 1;
        }
    }
    buf_put(out, p, (size_t)(end - p));
}

static int replace_matches(const struct tok_norm_step *s, const struct tok_split *split, pcre2_match_data *md,
                           struct str in, struct buf *out)
{
    size_t done = 0, a, b;
    int st = ST_OK;
    while (done < in.n && !(st = tok_split_next(split, s->code, md, in, done, &a, &b))) {
        buf_put(out, in.p + done, a - done);
        buf_put(out, s->with, s->n_with);
        if (a == b) { /* an empty match: what is inserted stands before the next character */
            size_t next = b + 1;
            while (next < in.n && ((unsigned char)in.p[next] & 0xC0) == 0x80)
                next++;
            b = next < in.n ? next : in.n;
            buf_put(out, in.p + a, b - a);
        }
        done = b;
    }
    buf_put(out, in.p + done, in.n - done);
    return st == ST_ENOENT ? ST_OK : st;
}

int tok_norm_run(const struct tok_norm *t, const struct tok_split *s, pcre2_match_data *md, struct str text,
                 bool head, struct buf *a, struct buf *b, struct str *out)
{
    int st = ST_OK;
    for (size_t i = 0; i < t->n; i++) {
        const struct tok_norm_step *step = &t->step[i];
        if (step->kind == TOK_NORM_PREPEND && !head)
            continue;
        if (step->kind == TOK_NORM_NFC && tok_nfc_quick(text))
            continue;
        if (text.n == 0)
            break;
        struct buf swap = *a;
        *a = *b;
        *b = swap; /* the text so far is in b now, or still the caller's */
        buf_reset(a);
        a->limit = TOK_NORM_MAX;
        switch (step->kind) {
        case TOK_NORM_PREPEND:
            buf_put(a, step->with, step->n_with);
            buf_put(a, text.p, text.n);
            break;
        case TOK_NORM_REPLACE:
            replace_literal(step, text, a);
            break;
        case TOK_NORM_MATCH:
            st = replace_matches(step, s, md, text, a);
            break;
        case TOK_NORM_NFC:
            tok_nfc_put(text, a);
            break;
        }
        if (st || a->failed)
            return st ? st : a->failed;
        text = buf_str(a);
    }
    *out = text;
    return ST_OK;
}
