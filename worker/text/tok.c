/* Encoding is a pipeline that never stores the whole text twice unless a normaliser rewrites it:
 *
 *   text -> added tokens cut out -> normalised -> added tokens again -> pieces -> symbols -> merged -> ids
 *
 * Everything below "pieces" works on ids: a byte-level vocabulary starts from one symbol per byte, a
 * SentencePiece-style one from one symbol per character, and both merge by the same table (left id, right
 * id) -> id, so there is one merge loop. Strings are compared only where a character outside ASCII is looked
 * up.
 *
 * Invalid UTF-8 is cut out before the normaliser and the patterns see it; its bytes become the
 * vocabulary's byte tokens (or unknown tokens), so that no input can fail. */
#include "tok_core.h"

#include "mem.h"
#include "tok_bpe.h"

#include <assert.h>
#include <string.h>

struct enc {
    const struct tok *t;
    unsigned flags;
    tok_t *out; /* [cap] */
    size_t cap, n;
    struct tok_split_run run;
    struct tok_bpe bpe;
    struct buf a, b; /* normaliser */
    tok_t *sym;      /* [sym_cap] symbols of the current piece */
    size_t sym_cap, n_sym;
};

uint32_t tok_vocab_size(const struct tok *t)
{
    return t->n;
}

tok_t tok_bos(const struct tok *t)
{
    return t->bos;
}

tok_t tok_eos(const struct tok *t)
{
    return t->eos;
}

tok_t tok_find(const struct tok *t, struct str name)
{
    tok_t id = tok_names_find(&t->names, name);
    return id >= 0 && (uint32_t)id < t->n ? id : -1;
}

bool tok_is_special(const struct tok *t, tok_t id)
{
    return id >= 0 && (uint32_t)id < t->n && (t->flags[id] & TOK_IS_SPECIAL);
}

size_t tok_eog(const struct tok *t, tok_t *out, size_t cap)
{
    static const char *const names[] = {
        "</s>",
        "<|im_end|>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<|end|>",
        "<|eot|>",
        "<end_of_turn>",
        "<turn|>",
        "<|return|>",
        "<|call|>",
        "<EOT>",
        "_<EOT>",
        "<|end_of_turn|>",
        "<|endofturn|>",
        "<|end_of_role|>",
        "<|user|>",
        "<end_of_utterance>",
        "<eos>",
        "<|END_OF_TURN_TOKEN|>",
        "<\xEF\xBD\x9C"
        "end" TOK_MARK "of" TOK_MARK "sentence\xEF\xBD\x9C>",
    };
    size_t n = 0;
    if (t->eos >= 0 && cap)
        out[n++] = t->eos;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        tok_t id = tok_find(t, str_from(names[i]));
        if (id < 0 || id == t->eos || !(t->flags[id] & TOK_IS_SPECIAL))
            continue;
        if (n < cap)
            out[n++] = id;
    }
    return n;
}

void tok_destroy(struct tok *t)
{
    if (!t)
        return;
    tok_names_fini(&t->names);
    tok_names_fini(&t->words);
    mem_free(t->flags);
    tok_merges_fini(&t->merges);
    tok_norm_fini(&t->norm);
    tok_split_fini(&t->split);
    tok_added_fini(&t->raw);
    tok_added_fini(&t->cooked);
    mem_free(t);
}

static int emit(struct enc *c, tok_t id)
{
    if (c->n == c->cap)
        return ST_NOSPACE;
    c->out[c->n++] = id;
    return ST_OK;
}

static int sym_reserve(struct enc *c, size_t n)
{
    if (n <= c->sym_cap)
        return ST_OK;
    size_t cap = n + n / 2 + 256;
    mem_free(c->sym);
    c->sym = mem_alloc(cap * sizeof *c->sym);
    c->sym_cap = c->sym ? cap : 0;
    return c->sym ? ST_OK : ST_ENOMEM;
}

static void sym_unknown(struct enc *c)
{
    tok_t unk = c->t->unk;
    if (unk < 0 || (c->t->fuse_unk && c->n_sym && c->sym[c->n_sym - 1] == unk))
        return;
    c->sym[c->n_sym++] = unk;
}

/* A character that is no token: its bytes if every one has a token, else one unknown token. */
static void sym_bytes(struct enc *c, const char *p, size_t n)
{
    bool all = c->t->byte_fallback;
    for (size_t i = 0; all && i < n; i++)
        all = c->t->byte_id[(unsigned char)p[i]] >= 0;
    if (!all) {
        sym_unknown(c);
        return;
    }
    for (size_t i = 0; i < n; i++)
        c->sym[c->n_sym++] = c->t->byte_id[(unsigned char)p[i]];
}

static void sym_chars(struct enc *c, struct str s)
{
    const struct tok *t = c->t;
    for (size_t i = 0; i < s.n;) {
        unsigned char b = (unsigned char)s.p[i];
        if (b < 128 && t->ascii_id[b] >= 0) {
            c->sym[c->n_sym++] = t->ascii_id[b];
            i++;
            continue;
        }
        uint32_t cp;
        int n = utf8_decode(s.p + i, s.n - i, &cp);
        size_t len = n > 0 ? (size_t)n : 1;
        tok_t id = n > 0 ? tok_names_find(&t->names, (struct str){s.p + i, len}) : -1;
        if (id >= 0)
            c->sym[c->n_sym++] = id;
        else
            sym_bytes(c, s.p + i, len);
        i += len;
    }
}

/* One piece to ids. */
static int put_piece(struct enc *c, struct str s)
{
    const struct tok *t = c->t;
    if (t->ignore_merges) {
        tok_t id = tok_names_find(t->byte_level ? &t->words : &t->names, s);
        if (id >= 0 && (uint32_t)id < t->n)
            return emit(c, id);
    }
    int st = sym_reserve(c, s.n);
    if (st)
        return st;
    c->n_sym = 0;
    if (t->byte_level) {
        for (size_t i = 0; i < s.n; i++) {
            tok_t id = t->byte_id[(unsigned char)s.p[i]];
            if (id >= 0)
                c->sym[c->n_sym++] = id;
            else
                sym_unknown(c);
        }
    } else {
        sym_chars(c, s);
    }
    st = tok_bpe_merge(&c->bpe, &t->merges, c->sym, &c->n_sym);
    for (size_t i = 0; !st && i < c->n_sym; i++) {
        tok_t id = c->sym[i];
        if ((uint32_t)id < t->n) {
            st = emit(c, id);
            continue;
        }
        struct str name = tok_names_get(&t->names, (uint32_t)id); /* a character without a token */
        for (size_t k = 0; !st && k < name.n; k++) {
            tok_t b = t->byte_id[(unsigned char)name.p[k]];
            if (b >= 0)
                st = emit(c, b);
            else if (t->unk >= 0 && k == 0)
                st = emit(c, t->unk);
        }
    }
    return st;
}

static int sink(void *arg, struct str piece)
{
    struct enc *c = arg;
    if (!c->t->cut_at_mark)
        return put_piece(c, piece);
    /* No merge reaches over the front of a run of marks: cutting there changes nothing but the time. */
    size_t start = 0;
    const char *p = piece.p, *end = piece.p + piece.n;
    int st = ST_OK;
    while (!st && (p = memchr(p, '\xE2', (size_t)(end - p))) != NULL) {
        size_t at = (size_t)(p - piece.p);
        bool mark = end - p >= 3 && memcmp(p, TOK_MARK, 3) == 0;
        bool run_on = at >= 3 && memcmp(p - 3, TOK_MARK, 3) == 0;
        if (mark && !run_on && at > start) {
            st = put_piece(c, (struct str){piece.p + start, at - start});
            start = at;
        }
        p += mark ? 3 : 1;
    }
    return st ? st : put_piece(c, (struct str){piece.p + start, piece.n - start});
}

/* Text without added tokens, already normalised. */
static int put_plain(struct enc *c, struct str s, bool first)
{
    return s.n ? tok_split_text(&c->run, s, first) : ST_OK;
}

static int put_normal(struct enc *c, struct str s, bool head, bool first)
{
    const struct tok *t = c->t;
    int st = ST_OK;
    if (t->norm.n)
        st = tok_norm_run(&t->norm, &t->split, c->run.match, s, head, &c->a, &c->b, &s);
    struct tok_added_hit hit;
    size_t at = 0;
    while (!st && tok_added_find(&t->cooked, s, at, c->flags & TOK_PARSE_SPECIAL, &hit)) {
        st = put_plain(c, (struct str){s.p + at, hit.start - at}, first && at == 0);
        if (!st)
            st = emit(c, hit.id);
        at = hit.end;
    }
    return st ? st : put_plain(c, (struct str){s.p + at, s.n - at}, first && at == 0);
}

/* Text between two added tokens: valid stretches take the long way, invalid bytes become byte tokens. */
static int put_segment(struct enc *c, struct str s, bool first)
{
    int st = ST_OK;
    size_t start = 0, i = 0;
    uint32_t cp;
    while (!st && i < s.n) {
        int n = (unsigned char)s.p[i] < 128 ? 1 : utf8_decode(s.p + i, s.n - i, &cp);
        if (n > 0) {
            i += (size_t)n;
            continue;
        }
        if (i > start)
            st = put_normal(c, (struct str){s.p + start, i - start}, start == 0, first && start == 0);
        for (start = i; i < s.n && utf8_decode(s.p + i, s.n - i, &cp) < 0;)
            i++;
        if (!st)
            st = put_piece(c, (struct str){s.p + start, i - start});
        start = i;
    }
    if (!st && start < s.n)
        st = put_normal(c, (struct str){s.p + start, s.n - start}, start == 0, first && start == 0);
    return st;
}

static int put_text(struct enc *c, struct str s)
{
    int st = ST_OK;
    struct tok_added_hit hit;
    size_t at = 0;
    while (!st && tok_added_find(&c->t->raw, s, at, c->flags & TOK_PARSE_SPECIAL, &hit)) {
        st = put_segment(c, (struct str){s.p + at, hit.start - at}, at == 0);
        if (!st)
            st = emit(c, hit.id);
        at = hit.end;
    }
    return st ? st : put_segment(c, (struct str){s.p + at, s.n - at}, at == 0);
}

int tok_encode(const struct tok *t, struct str text, unsigned flags, tok_t *ids_out, size_t cap,
               size_t *n_out)
{
    *n_out = 0;
    if (text.n > TOK_NORM_MAX)
        return ST_EINVAL;
    struct enc c = {.t = t, .flags = flags, .out = ids_out, .cap = cap};
    int st = tok_split_begin(&c.run, &t->split, sink, &c);
    bool add = flags & TOK_ADD_SPECIAL;
    for (size_t i = 0; !st && add && i < t->n_before; i++)
        st = emit(&c, t->before[i]);
    if (!st && text.n)
        st = put_text(&c, text);
    for (size_t i = 0; !st && add && i < t->n_behind; i++)
        st = emit(&c, t->behind[i]);
    tok_split_end(&c.run);
    tok_bpe_fini(&c.bpe);
    buf_fini(&c.a);
    buf_fini(&c.b);
    mem_free(c.sym);
    *n_out = st ? 0 : c.n;
    return st;
}
