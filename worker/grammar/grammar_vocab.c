/* Sorted by their bytes, tokens are met in the order of a walk through their tree, so the tree is written down from left to right
 * and needs no links but "where does it go on if nothing below here is wanted". Walking it is then one loop over an array.
 *
 * It is made when the first grammar is: most servers never see one. */
#include "grammar_vocab.h"

#include "grammar_mask.h"
#include "mem.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct grammar_vocab {
    grammar_token_bytes *bytes;
    const void *ctx;
    uint32_t n;
    _Atomic(struct grammar_trie *) trie; /* NULL: not made yet */
};

struct word {
    struct str s;
    uint64_t head; /* its first bytes, as a number that sorts like them: nearly all comparisons end here */
    uint32_t token;
};

static void trie_destroy(struct grammar_trie *t)
{
    if (!t)
        return;
    mem_free(t->nodes);
    mem_free(t->tokens);
    mem_free(t->inside);
    mem_free(t->leaves);
    mem_free(t);
}

int grammar_vocab_create(struct grammar_vocab **out, uint32_t n_tokens, grammar_token_bytes *bytes,
                         const void *ctx)
{
    struct grammar_vocab *v = mem_zalloc(1, sizeof *v);
    if (!v)
        return ST_ENOMEM;
    v->bytes = bytes;
    v->ctx = ctx;
    v->n = n_tokens;
    *out = v;
    return ST_OK;
}

void grammar_vocab_destroy(struct grammar_vocab *v)
{
    if (!v)
        return;
    trie_destroy(atomic_load(&v->trie));
    mem_free(v);
}

struct str grammar_vocab_bytes(const struct grammar_vocab *v, uint32_t token)
{
    return token < v->n ? v->bytes(v->ctx, token) : (struct str){0};
}

const struct grammar_trie *grammar_vocab_trie(const struct grammar_vocab *v)
{
    return atomic_load(&v->trie);
}

static int compare(const void *a, const void *b)
{
    const struct word *x = a, *y = b;
    if (x->head != y->head)
        return x->head < y->head ? -1 : 1;
    int order = memcmp(x->s.p, y->s.p, x->s.n < y->s.n ? x->s.n : y->s.n);
    if (order == 0)
        order = (x->s.n > y->s.n) - (x->s.n < y->s.n);
    return order ? order : (x->token > y->token) - (x->token < y->token);
}

static size_t shared(struct str a, struct str b)
{
    size_t n = 0;
    while (n < a.n && n < b.n && a.p[n] == b.p[n])
        n++;
    return n;
}

/* `words` are sorted; the arrays have room. */
static void plant(struct grammar_trie *t, const struct word *words, uint32_t n)
{
    uint32_t open[GRAMMAR_TOKEN_BYTES_MAX + 1] = {0}, depth = 0,
                                            at = 0; /* open: the nodes down to the last one */
    t->nodes[at++] = (struct grammar_trie_node){.first = 0};
    for (uint32_t i = 0; i < n; i++) {
        struct str s = words[i].s;
        uint32_t keep = i ? (uint32_t)shared(words[i - 1].s, s) : 0;
        for (; depth > keep; depth--)
            t->nodes[open[depth]].skip = at;
        while (depth < s.n) {
            uint8_t byte = (uint8_t)s.p[depth++];
            t->nodes[at] = (struct grammar_trie_node){.first = i, .depth = (uint16_t)depth, .byte = byte};
            open[depth] = at++;
        }
        t->tokens[i] = words[i].token;
    }
    for (; depth > 0; depth--)
        t->nodes[open[depth]].skip = at;
    t->nodes[0].skip = at;
    t->nodes[at] = (struct grammar_trie_node){.skip = at, .first = n};
    t->n_nodes = at;
}

static uint64_t head_of(struct str s)
{
    uint64_t head = 0;
    for (size_t i = 0; i < 8; i++)
        head = head << 8 | (i < s.n ? (uint8_t)s.p[i] : 0);
    return head;
}

static uint32_t read_words(const struct grammar_vocab *v, struct word *words, size_t *n_bytes)
{
    uint32_t n = 0;
    *n_bytes = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        struct str s = v->bytes(v->ctx, i);
        if (s.n == 0 || s.n > GRAMMAR_TOKEN_BYTES_MAX)
            continue;
        words[n++] = (struct word){s, head_of(s), i};
        *n_bytes += s.n;
    }
    return n;
}

static int trie_create(struct grammar_trie **out, const struct grammar_vocab *v)
{
    struct grammar_trie *t = mem_zalloc(1, sizeof *t);
    struct word *words = mem_zalloc(v->n, sizeof *words);
    size_t n_bytes = 0;
    uint32_t n = t && words ? read_words(v, words, &n_bytes) : 0;
    int st = t && words ? ST_OK : ST_ENOMEM;
    if (!st) {
        qsort(words, n, sizeof *words, compare);
        t->n_tokens = v->n;
        t->nodes = mem_zalloc(n_bytes + 2, sizeof *t->nodes);
        t->tokens = mem_zalloc(n, sizeof *t->tokens);
        st = t->nodes && t->tokens ? ST_OK : ST_ENOMEM;
    }
    if (!st) {
        plant(t, words, n);
        void *tight = mem_realloc(t->nodes, (t->n_nodes + 1) * sizeof *t->nodes);
        t->nodes = tight ? tight : t->nodes;
        st = grammar_mask_inside(t);
    }
    mem_free(words);
    if (st)
        trie_destroy(t);
    else
        *out = t;
    return st;
}

int grammar_vocab_ready(const struct grammar_vocab *v, struct err *e)
{
    struct grammar_vocab *mine =
        (struct grammar_vocab *)(uintptr_t)v; /* a cache: nobody sees the difference */
    struct grammar_trie *t = NULL, *none = NULL;
    if (atomic_load(&mine->trie))
        return ST_OK;
    if (trie_create(&t, v))
        return err_set(e, ST_ENOMEM, "out of memory for the tree of tokens");
    if (!atomic_compare_exchange_strong(&mine->trie, &none, t))
        trie_destroy(t);
    return ST_OK;
}
