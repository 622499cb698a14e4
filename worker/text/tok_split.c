/* A pre-tokeniser is a short list of steps; each step takes a piece and hands smaller pieces to the next.
 * Recursion over the list does that without storing pieces anywhere, and costs one call per step and piece.
 *
 * PCRE2 with its JIT runs the patterns. What Oniguruma, for which they were written, means differently is
 * brought over in the pattern's text before it is compiled: \s is without U+180E, \w and \b count marks and
 * connectors, \h is a hexadecimal digit, ^ and $ stand at every line. Class intersection (&&) does not exist
 * here, so it is refused instead of silently meaning something else. */
#include "tok_split.h"

#include "mem.h"

#include <string.h>

#define SPACES                                                                                               \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{" \
    "3000}"
#define WORDS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define EDGE "(?:(?<=[" WORDS "])(?![" WORDS "])|(?<![" WORDS "])(?=[" WORDS "]))"

static void *heap_alloc(size_t size, void *arg)
{
    (void)arg;
    return mem_alloc(size);
}

static void heap_free(void *p, void *arg)
{
    (void)arg;
    mem_free(p);
}

int tok_split_init(struct tok_split *s, struct err *e)
{
    memset(s, 0, sizeof *s);
    s->heap = pcre2_general_context_create(heap_alloc, heap_free, NULL);
    s->limits = s->heap ? pcre2_match_context_create(s->heap) : NULL;
    if (!s->limits)
        return err_set(e, ST_ENOMEM, "tokenizer: no memory for patterns");
    pcre2_set_match_limit(s->limits, TOK_MATCH_LIMIT);
    pcre2_set_heap_limit(s->limits, TOK_MATCH_HEAP_KIB);
    return ST_OK;
}

void tok_split_fini(struct tok_split *s)
{
    for (size_t i = 0; i < s->n; i++)
        pcre2_code_free(s->step[i].code);
    pcre2_match_context_free(s->limits);
    pcre2_general_context_free(s->heap);
    memset(s, 0, sizeof *s);
}

/* One escape at p[0] = '\\'; returns how many bytes of the pattern were taken. */
static size_t put_escape(struct buf *b, const char *p, size_t n, bool in_class)
{
    if (n < 2) {
        buf_put(b, p, n);
        return n;
    }
    static const char *const sets[] = {SPACES, WORDS, "0-9a-fA-F"};
    static const char letters[] = "swhSWH";
    const char *at = memchr(letters, p[1], 6);
    const char *set = at ? sets[(at - letters) % 3] : NULL;
    bool negated = p[1] < 'a';
    if (p[1] == 'b' && !in_class) {
        buf_puts(b, EDGE);
        return 2;
    }
    if (!set || (negated && in_class)) {
        buf_put(b, p, 2);
        return 2;
    }
    if (!in_class)
        buf_puts(b, negated ? "[^" : "[");
    buf_puts(b, set);
    if (!in_class)
        buf_putc(b, ']');
    return 2;
}

static int rewrite(struct buf *b, struct str p, struct err *e)
{
    size_t class_at = 0; /* offset of the open class's '[' + 1; 0 = outside */
    for (size_t i = 0; i < p.n;) {
        char c = p.p[i];
        if (c == '\\') {
            i += put_escape(b, p.p + i, p.n - i, class_at != 0);
            continue;
        }
        if (!class_at && c == '[') {
            class_at = i + 1;
        } else if (class_at && c == '[' && i + 1 < p.n && p.p[i + 1] == ':') {
            /* a POSIX class such as [:alpha:] within a class: copy through its own bracket */
            do
                buf_putc(b, p.p[i++]);
            while (i < p.n && p.p[i] != ']');
            if (i < p.n)
                buf_putc(b, p.p[i++]);
            continue;
        } else if (class_at && c == ']') {
            bool leading = i == class_at || (i == class_at + 1 && p.p[class_at] == '^');
            if (!leading)
                class_at = 0;
        } else if (class_at && c == '&' && i + 1 < p.n && p.p[i + 1] == '&') {
            return err_set(e, ST_EUNSUP, "pattern: class intersection (&&) at offset %zu", i);
        }
        buf_putc(b, c);
        i++;
    }
    return b->failed ? err_set(e, b->failed, "tokenizer: no memory for patterns") : ST_OK;
}

int tok_split_compile(const struct tok_split *s, pcre2_code **out, struct str pattern, struct err *e)
{
    struct buf b = {0};
    /* DeepSeek's "blanks at the end of a line", quadratic on a long run of blanks in the middle of one: a match can
     * only begin where the run does, and saying so makes it linear. */
    if (str_eqz(pattern, "\\s+$"))
        buf_puts(&b, "(?<![" SPACES "])");
    int st = rewrite(&b, pattern, e);
    if (st) {
        buf_fini(&b);
        return st;
    }
    pcre2_compile_context *ctx = pcre2_compile_context_create(s->heap);
    if (!ctx) {
        buf_fini(&b);
        return err_set(e, ST_ENOMEM, "tokenizer: no memory for patterns");
    }
    pcre2_set_newline(ctx, PCRE2_NEWLINE_LF);
    int fault = 0;
    PCRE2_SIZE at = 0;
    struct str text = buf_str(&b);
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)(text.p ? text.p : ""), text.n,
                      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &fault, &at, ctx);
    pcre2_compile_context_free(ctx);
    buf_fini(&b);
    if (!code && fault == PCRE2_ERROR_HEAP_FAILED)
        return err_set(e, ST_ENOMEM, "tokenizer: no memory for patterns");
    if (!code) {
        PCRE2_UCHAR why[100] = "";
        pcre2_get_error_message(fault, why, sizeof why);
        return err_set(e, ST_EFORMAT, "pattern: %s (near offset %zu)", (const char *)why, (size_t)at);
    }
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* without the JIT it is slower, not different */
    *out = code;
    return ST_OK;
}

static int new_step(struct tok_split *s, struct tok_step step, struct err *e)
{
    if (s->n == TOK_STEPS_MAX) {
        pcre2_code_free(step.code);
        return err_set(e, ST_EUNSUP, "pre_tokenizer: more than %d steps", TOK_STEPS_MAX);
    }
    s->step[s->n++] = step;
    return ST_OK;
}

int tok_split_match(struct tok_split *s, struct str pattern, enum tok_behaviour b, bool invert, struct err *e)
{
    struct tok_step step = {.kind = TOK_STEP_MATCH, .behaviour = b, .invert = invert};
    int st = tok_split_compile(s, &step.code, pattern, e);
    return st ? st : new_step(s, step, e);
}

int tok_split_literal(struct tok_split *s, struct str text, enum tok_behaviour b, bool invert, struct err *e)
{
    struct buf p = {0};
    for (size_t i = 0; i < text.n; i++) {
        if (strchr("\\^$.[]|()?*+{}", text.p[i]))
            buf_putc(&p, '\\');
        buf_putc(&p, text.p[i]);
    }
    int st = p.failed ? err_set(e, p.failed, "tokenizer: no memory for patterns")
                      : tok_split_match(s, buf_str(&p), b, invert, e);
    buf_fini(&p);
    return st;
}

int tok_split_space(struct tok_split *s, struct err *e)
{
    return new_step(s, (struct tok_step){.kind = TOK_STEP_SPACE}, e);
}

int tok_split_meta(struct tok_split *s, struct str mark, enum tok_prepend p, bool cut, struct err *e)
{
    struct tok_step step = {.kind = TOK_STEP_META, .prepend = p, .cut = cut, .n_mark = mark.n};
    if (mark.n == 0 || mark.n > sizeof step.mark)
        return err_set(e, ST_EFORMAT, "pre_tokenizer.replacement: must be one character");
    memcpy(step.mark, mark.p, mark.n);
    return new_step(s, step, e);
}

int tok_split_next(const struct tok_split *s, const pcre2_code *code, pcre2_match_data *md, struct str text,
                   size_t from, size_t *start_out, size_t *end_out)
{
    PCRE2_SPTR p = (PCRE2_SPTR)text.p;
    int rc = pcre2_match(code, p, text.n, from, PCRE2_NO_UTF_CHECK, md, s->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter keeps its stack on the heap */
        rc = pcre2_match(code, p, text.n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, md, s->limits);
    if (rc == PCRE2_ERROR_NOMEMORY)
        return ST_ENOMEM;
    if (rc < 0)
        return ST_ENOENT;
    const PCRE2_SIZE *o = pcre2_get_ovector_pointer(md);
    if (o[0] < from || o[1] < o[0]) /* \K inside a lookaround can produce these */
        return ST_ENOENT;
    *start_out = o[0];
    *end_out = o[1];
    return ST_OK;
}

int tok_split_class(const struct tok_split *s, struct str pattern, uint32_t (**out)[2], size_t *n_out,
                    struct err *e)
{
    enum { RANGES_MAX = 4096 };
    pcre2_code *code = NULL;
    pcre2_match_data *md = pcre2_match_data_create(1, s->heap);
    uint32_t(*r)[2] = mem_alloc(RANGES_MAX * sizeof *r);
    size_t n = 0, a, b;
    int st =
        md && r ? tok_split_compile(s, &code, pattern, e) : err_set(e, ST_ENOMEM, "tokenizer: no memory");
    struct buf all = {0}; /* every character once, in order: a run of matches is a range */
    for (uint32_t cp = 0; !st && cp < 0x110000; cp += cp == 0xD7FF ? 0x801 : 1) {
        char c[4];
        buf_put(&all, c, (size_t)utf8_encode(cp, c));
    }
    if (!st && all.failed)
        st = err_set(e, all.failed, "tokenizer: no memory for patterns");
    for (b = 0; !st && n < RANGES_MAX; n++) {
        int found = tok_split_next(s, code, md, buf_str(&all), b, &a, &b);
        if (found == ST_ENOMEM)
            st = err_set(e, found, "tokenizer: no memory for patterns");
        if (found || a == b)
            break;
        size_t last = b - 1;
        while (((unsigned char)all.p[last] & 0xC0) == 0x80)
            last--;
        utf8_decode(all.p + a, b - a, &r[n][0]);
        utf8_decode(all.p + last, b - last, &r[n][1]);
    }
    buf_fini(&all);
    pcre2_code_free(code);
    pcre2_match_data_free(md);
    if (st) {
        mem_free(r);
        return st;
    }
    *out = r;
    *n_out = n;
    return ST_OK;
}

static int run_from(struct tok_split_run *r, size_t i, struct str piece, bool first);

/* Joins matches and gaps to pieces as the behaviour says, with one piece held back. */
struct joiner {
    struct tok_split_run *r;
    size_t next_step;
    enum tok_behaviour how;
    const char *base;
    size_t start, end; /* the held piece */
    bool held, held_match, last_match, first;
};

static int join_flush(struct joiner *j)
{
    if (!j->held)
        return ST_OK;
    j->held = false;
    return run_from(j->r, j->next_step, (struct str){j->base + j->start, j->end - j->start},
                    j->first && j->start == 0);
}

static int join_put(struct joiner *j, size_t start, size_t end, bool match)
{
    if (start == end)
        return ST_OK;
    bool extend = false;
    switch (j->how) {
    case TOK_REMOVED:
        if (match)
            return ST_OK;
        break;
    case TOK_ISOLATED:
        break;
    case TOK_MERGED_PREVIOUS:
        extend = match && !j->last_match;
        break;
    case TOK_MERGED_NEXT:
        extend = !match && j->held_match;
        break;
    case TOK_CONTIGUOUS:
        extend = match == j->last_match;
        break;
    }
    j->last_match = match;
    if (extend && j->held) {
        j->end = end;
        j->held_match = match;
        return ST_OK;
    }
    int st = join_flush(j);
    j->start = start;
    j->end = end;
    j->held = true;
    j->held_match = match;
    return st;
}

static int run_match(struct tok_split_run *r, size_t i, struct str t, bool first)
{
    const struct tok_step *step = &r->split->step[i];
    struct joiner j = {.r = r, .next_step = i + 1, .how = step->behaviour, .base = t.p, .first = first};
    size_t done = 0, from = 0, a, b;
    int st = ST_OK;
    while (from <= t.n) {
        st = tok_split_next(r->split, step->code, r->match, t, from, &a, &b);
        if (st)
            break;
        st = join_put(&j, done, a, step->invert);
        if (!st)
            st = join_put(&j, a, b, !step->invert);
        if (st)
            break;
        done = from = b;
        if (a == b) { /* an empty match still separates; look for the next one a character on */
            st = j.how == TOK_CONTIGUOUS ? ST_OK : join_flush(&j);
            if (st)
                break;
            from++;
            while (from < t.n && ((unsigned char)t.p[from] & 0xC0) == 0x80)
                from++;
        }
    }
    if (st && st != ST_ENOENT)
        return st;
    st = join_put(&j, done, t.n, step->invert);
    return st ? st : join_flush(&j);
}

static int run_space(struct tok_split_run *r, size_t i, struct str t, bool first)
{
    if (t.n && t.p[0] == ' ')
        return run_from(r, i + 1, t, first);
    struct buf b = {0};
    buf_putc(&b, ' ');
    buf_put(&b, t.p, t.n);
    int st = b.failed ? b.failed : run_from(r, i + 1, buf_str(&b), first);
    buf_fini(&b);
    return st;
}

static int run_meta(struct tok_split_run *r, size_t i, struct str t, bool first)
{
    const struct tok_step *m = &r->split->step[i];
    bool marked = t.n && (t.p[0] == ' ' || (t.n >= m->n_mark && memcmp(t.p, m->mark, m->n_mark) == 0));
    struct buf b = {0};
    if (!marked && (m->prepend == TOK_PREPEND_ALWAYS || (m->prepend == TOK_PREPEND_FIRST && first)))
        buf_put(&b, m->mark, m->n_mark);
    for (size_t k = 0; k < t.n; k++) {
        if (t.p[k] == ' ')
            buf_put(&b, m->mark, m->n_mark);
        else
            buf_putc(&b, t.p[k]);
    }
    int st = b.failed;
    size_t start = 0;
    for (size_t k = 1; m->cut && !st && k + m->n_mark <= b.n; k++) {
        if (memcmp(b.p + k, m->mark, m->n_mark) == 0) {
            st = run_from(r, i + 1, (struct str){b.p + start, k - start}, first && start == 0);
            start = k;
        }
    }
    if (!st)
        st = run_from(r, i + 1, (struct str){b.p + start, b.n - start}, first && start == 0);
    buf_fini(&b);
    return st;
}

static int run_from(struct tok_split_run *r, size_t i, struct str piece, bool first)
{
    if (piece.n == 0)
        return ST_OK;
    if (i == r->split->n)
        return r->sink(r->arg, piece);
    switch (r->split->step[i].kind) {
    case TOK_STEP_SPACE:
        return run_space(r, i, piece, first);
    case TOK_STEP_META:
        return run_meta(r, i, piece, first);
    case TOK_STEP_MATCH:
        break;
    }
    return run_match(r, i, piece, first);
}

int tok_split_begin(struct tok_split_run *r, const struct tok_split *s, tok_piece_fn *sink, void *arg)
{
    *r = (struct tok_split_run){.split = s, .sink = sink, .arg = arg};
    r->match = pcre2_match_data_create(1, s->heap);
    return r->match ? ST_OK : ST_ENOMEM;
}

int tok_split_text(struct tok_split_run *r, struct str text, bool first)
{
    return run_from(r, 0, text, first);
}

void tok_split_end(struct tok_split_run *r)
{
    pcre2_match_data_free(r->match);
    r->match = NULL;
}
