/* From a GGUF vocabulary. Byte-level vocabularies bring merges. SentencePiece ones bring scores instead: any
 * two neighbours whose concatenation is a token may merge, best score first. Turned into a merge table once
 * at load (every way to cut a token into two known parts, ranked by the token's score), they need no string
 * work while encoding and share the merge loop. A character that is no token itself but occurs in tokens
 * gets a symbol beyond the vocabulary, so that the table is complete. */
#include "tok_core.h"

#include "mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_MAX = 512 }; /* longer tokens are matched as added tokens only */

static enum tok_type type_of(const struct tok_spec *s, size_t i)
{
    return s->types ? (enum tok_type)s->types[i] : TOK_NORMAL;
}

static int by_code(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static int by_score(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x > y ? -1 : x < y;
}

/* Appends to `grown` (an array of T) what is at hand; a failed growth is remembered by `failed`. */
struct list {
    char *p;
    size_t n, cap, size;
    bool failed;
};

static void list_put(struct list *l, const void *item)
{
    if (l->failed)
        return;
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 1024;
        char *p = mem_realloc(l->p, cap * l->size);
        if (!p) {
            l->failed = true;
            return;
        }
        l->p = p;
        l->cap = cap;
    }
    memcpy(l->p + l->n++ * l->size, item, l->size);
}

static bool mergeable(const struct tok_spec *s, size_t i)
{
    return type_of(s, i) == TOK_NORMAL && s->tokens[i].n > 1 && s->tokens[i].n <= PIECE_MAX &&
           utf8_valid(s->tokens[i]);
}

/* Characters of mergeable tokens that are no tokens: `codes` sorted, without doubles. */
static void missing_chars(const struct tok *t, const struct tok_spec *s, struct list *codes)
{
    for (size_t i = 0; i < s->n_tokens; i++) {
        struct str w = s->tokens[i];
        for (size_t k = 0; mergeable(s, i) && k < w.n;) {
            uint32_t cp;
            int len = utf8_decode(w.p + k, w.n - k, &cp);
            if (len <= 0)
                break;
            if (tok_names_find(&t->names, (struct str){w.p + k, (size_t)len}) < 0)
                list_put(codes, &cp);
            k += (size_t)len;
        }
    }
    uint32_t *c = (uint32_t *)(void *)codes->p;
    size_t kept = 0;
    if (codes->n)
        qsort(c, codes->n, sizeof *c, by_code);
    for (size_t i = 0; i < codes->n; i++)
        if (i == 0 || c[i] != c[i - 1])
            c[kept++] = c[i];
    codes->n = kept;
}

static int add_missing(struct tok *t, const struct tok_spec *s)
{
    struct list codes = {.size = sizeof(uint32_t)};
    missing_chars(t, s, &codes);
    int st = codes.failed ? ST_ENOMEM : ST_OK;
    size_t n = s->n_tokens + codes.n;
    if (!st && codes.n) {
        struct str *all = mem_alloc(n * sizeof *all);
        char *text = mem_alloc(codes.n * 4);
        st = all && text ? ST_OK : ST_ENOMEM;
        if (!st)
            memcpy(all, s->tokens, s->n_tokens * sizeof *all);
        for (size_t i = 0; !st && i < codes.n; i++) {
            int len = utf8_encode(((uint32_t *)(void *)codes.p)[i], text + i * 4);
            all[s->n_tokens + i] = (struct str){text + i * 4, (size_t)len};
        }
        if (!st) {
            tok_names_fini(&t->names);
            st = tok_names_init(&t->names, all, n, true);
        }
        mem_free(all);
        mem_free(text);
    }
    mem_free(codes.p);
    return st;
}

/* Every cut of token `id` into two known parts. */
static void put_cuts(const struct tok *t, struct str w, int32_t id, uint32_t rank, struct list *merges)
{
    for (size_t k = 1; k < w.n; k++) {
        if (((unsigned char)w.p[k] & 0xC0) == 0x80)
            continue;
        int32_t l = tok_names_find(&t->names, (struct str){w.p, k});
        int32_t r = l < 0 ? -1 : tok_names_find(&t->names, (struct str){w.p + k, w.n - k});
        if (r < 0)
            continue;
        struct tok_merge m = {(uint64_t)(uint32_t)l << 32 | (uint32_t)r, rank, id};
        list_put(merges, &m);
    }
}

static uint32_t rank_of(const float *sorted, size_t n, float score)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (sorted[mid] > score)
            lo = mid + 1;
        else
            hi = mid;
    }
    return (uint32_t)lo; /* equal scores share a rank: then the leftmost goes first */
}

static int build_scored(struct tok *t, const struct tok_spec *s, struct err *e)
{
    int st = add_missing(t, s);
    float *sorted = mem_zalloc(s->n_tokens + 1, sizeof *sorted);
    struct list merges = {.size = sizeof(struct tok_merge)};
    if (!sorted)
        st = ST_ENOMEM;
    for (size_t i = 0; !st && s->scores && i < s->n_tokens; i++) {
        sorted[i] = s->scores[i];
        if (isnan(sorted[i]))
            st = err_set(e, ST_EFORMAT, "tokenizer.ggml.scores[%zu]: not a number", i);
    }
    if (!st)
        qsort(sorted, s->n_tokens, sizeof *sorted, by_score);
    for (size_t i = 0; !st && i < s->n_tokens; i++)
        if (mergeable(s, i))
            put_cuts(t, s->tokens[i], (int32_t)i, rank_of(sorted, s->n_tokens, s->scores ? s->scores[i] : 0),
                     &merges);
    if (!st)
        st = merges.failed ? ST_ENOMEM : tok_merges_init(&t->merges, merges.n);
    const struct tok_merge *m = (const struct tok_merge *)(const void *)merges.p;
    for (size_t i = 0; !st && i < merges.n; i++)
        tok_merges_put(&t->merges, (int32_t)(m[i].key >> 32), (int32_t)(uint32_t)m[i].key, m[i].rank, m[i].id,
                       false);
    mem_free(merges.p);
    mem_free(sorted);
    return st == ST_ENOMEM || st == ST_ETOOBIG ? err_set(e, st, "tokenizer: no room for the merges") : st;
}

static int build_listed(struct tok *t, const struct tok_spec *s, struct err *e)
{
    int st = tok_merges_init(&t->merges, s->n_merges);
    struct buf joined = {0};
    if (st)
        return err_set(e, st, "tokenizer.ggml.merges: too many");
    for (size_t i = 0; !st && i < s->n_merges; i++) {
        struct str m = s->merges[i];
        const char *gap = m.n > 1 ? memchr(m.p + 1, ' ', m.n - 1) : NULL;
        if (!gap) {
            st = err_set(e, ST_EFORMAT, "tokenizer.ggml.merges[%zu]: expected two parts", i);
            break;
        }
        struct str l = {m.p, (size_t)(gap - m.p)}, r = {gap + 1, m.n - l.n - 1};
        buf_reset(&joined);
        buf_put(&joined, l.p, l.n);
        buf_put(&joined, r.p, r.n);
        if (joined.failed) {
            st = err_set(e, joined.failed, "tokenizer: no memory for merges");
            break;
        }
        int32_t lid = tok_names_find(&t->names, l), rid = tok_names_find(&t->names, r);
        int32_t id = tok_names_find(&t->names, buf_str(&joined));
        if (lid >= 0 && rid >= 0 && id >= 0) /* a merge whose parts are no tokens can never apply */
            tok_merges_put(&t->merges, lid, rid, (uint32_t)i, id, false);
    }
    buf_fini(&joined);
    return st;
}

static int add_named(struct tok *t, const struct tok_spec *s, struct err *e)
{
    for (size_t i = 0; i < s->n_tokens; i++) {
        enum tok_type type = type_of(s, i);
        bool special = type == TOK_CONTROL || type == TOK_UNKNOWN;
        if (!special && type != TOK_USER)
            continue;
        t->flags[i] = (uint8_t)(TOK_IS_ADDED | (special ? TOK_IS_SPECIAL : 0));
        struct tok_added_one one = {.text = s->tokens[i], .id = (int32_t)i, .special = special};
        int st = tok_added_add(&t->raw, one);
        if (st)
            return err_set(e, st, "tokenizer: no memory for added tokens");
    }
    return ST_OK;
}

static int check(const struct tok_spec *s, struct err *e)
{
    const int64_t ids[] = {s->bos, s->eos, s->unk};
    static const char *const names[] = {"bos", "eos", "unknown"};
    if (s->n_tokens == 0 || s->n_tokens > TOK_IDS_MAX - 0x110000)
        return err_set(e, ST_EFORMAT, "tokenizer.ggml.tokens: %zu tokens", s->n_tokens);
    for (int i = 0; i < 3; i++)
        if (ids[i] >= 0 && (uint64_t)ids[i] >= s->n_tokens)
            return err_set(e, ST_EFORMAT, "tokenizer.ggml.%s_token_id: %lld is not in the vocabulary",
                           names[i], (long long)ids[i]);
    return ST_OK;
}

static int build(struct tok *t, const struct tok_spec *s, struct err *e)
{
    int st = tok_begin(t, (uint32_t)s->n_tokens, e);
    if (st)
        return st;
    if (tok_names_init(&t->names, s->tokens, s->n_tokens, true))
        return err_set(e, ST_ENOMEM, "tokenizer: no memory for the vocabulary");
    t->bos = s->bos < 0 ? -1 : (tok_t)s->bos;
    t->eos = s->eos < 0 ? -1 : (tok_t)s->eos;
    if (s->add_bos && t->bos >= 0)
        t->before[t->n_before++] = t->bos;
    if (s->add_eos && t->eos >= 0)
        t->behind[t->n_behind++] = t->eos;
    st = add_named(t, s, e);
    if (st)
        return st;
    if (s->kind == TOK_BPE_SPM) {
        t->unk = s->unk < 0 ? -1 : (tok_t)s->unk;
        t->byte_fallback = t->byte_decode = t->meta_decode = t->fuse_unk = true;
        t->strip_start = s->add_space_prefix;
        if (s->add_space_prefix)
            st = tok_norm_prepend(&t->norm, STR_LIT(TOK_MARK), e);
        if (!st)
            st = tok_norm_replace(&t->norm, STR_LIT(" "), STR_LIT(TOK_MARK), e);
        if (!st)
            st = build_scored(t, s, e);
    } else {
        t->byte_level = true;
        t->ignore_merges = s->ignore_merges;
        st = tok_pre_add(t, s->pre, e);
        if (!st)
            st = build_listed(t, s, e);
    }
    return st ? st : tok_finish(t, e);
}

int tok_create_spec(struct tok **out, const struct tok_spec *spec, struct err *e)
{
    int st = check(spec, e);
    if (st)
        return st;
    struct tok *t = mem_zalloc(1, sizeof *t);
    if (!t)
        return err_set(e, ST_ENOMEM, "tokenizer: no memory");
    st = build(t, spec, e);
    if (st) {
        tok_destroy(t);
        return st;
    }
    *out = t;
    return ST_OK;
}
