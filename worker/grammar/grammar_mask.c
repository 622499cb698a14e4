/* The tree of tokens is walked with the run: at each node the paths that its byte leads to, from those of the node above; where
 * there are none all tokens below are out. Most states of JSON go along with few bytes, so the walk is short. The inside of a
 * string goes along with nearly all of them: but what it allows is the same for every string, up to the quote that ends it. So
 * those tokens are found once, together with the places in the tree where the string ends and the token goes on; from there
 * the walk starts with what stands behind this string.
 *
 * Rejected: masks kept for each state that was met. They save the same time, but they must be bounded, evicted and
 * shared between requests, and what a request gets should not depend on a cache. */
#include "grammar_mask.h"

#include "grammar_build.h"
#include "mem.h"

#include <string.h>

enum { WALK_PATHS = 16384 };

struct grammar_walk {
    uint32_t from[GRAMMAR_TOKEN_BYTES_MAX + 3]; /* the paths of level i are at[from[i]] .. at[from[i + 1]) */
    uint32_t *leaves; /* [n_leaves] of at most as many nodes as the tree has; NULL: not asked for */
    uint32_t n_leaves;
    struct grammar_path at[WALK_PATHS];
};

int grammar_walk_create(struct grammar_walk **out)
{
    *out = mem_alloc(sizeof **out); /* pages that no walk needs are never there */
    if (!*out)
        return ST_ENOMEM;
    (*out)->leaves = NULL;
    return ST_OK;
}

void grammar_walk_destroy(struct grammar_walk *w)
{
    mem_free(w);
}

static void set_tokens(const struct grammar_trie *t, uint32_t node, uint32_t *bits, uint32_t n_bits)
{
    for (uint32_t i = t->nodes[node].first; i < t->nodes[node + 1].first; i++)
        if (t->tokens[i] < n_bits)
            bits[t->tokens[i] / 32] |= 1u << t->tokens[i] % 32;
}

static bool has_end(const struct grammar_net *g, const struct grammar_path *p, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (p[i].depth == 0 && g->nodes[p[i].node].final)
            return true;
    return false;
}

/* All nodes below `top`, with the paths of level 0 standing there. */
static void walk(struct grammar_walk *w, const struct grammar_net *g, const struct grammar_trie *t,
                 uint32_t top, uint32_t *bits, uint32_t n_bits)
{
    uint32_t end = t->nodes[top].skip, base = t->nodes[top].depth;
    for (uint32_t i = top + 1; i < end;) {
        uint32_t level = t->nodes[i].depth - base, here = w->from[level], above = w->from[level - 1];
        struct grammar_paths set = {.at = w->at + here, .cap = WALK_PATHS - here};
        if (set.cap > GRAMMAR_PATHS_MAX)
            set.cap = GRAMMAR_PATHS_MAX;
        grammar_paths_step(&set, g, w->at + above, here - above, t->nodes[i].byte);
        w->from[level + 1] = here + set.n;
        if (set.n == 0) {
            i = t->nodes[i].skip;
            continue;
        }
        set_tokens(t, i, bits, n_bits);
        if (w->leaves && t->nodes[i].skip > i + 1 && has_end(g, set.at, set.n))
            w->leaves[w->n_leaves++] = i;
        i++;
    }
}

static void start(struct grammar_walk *w, uint32_t n)
{
    w->from[0] = 0;
    w->from[1] = n;
}

/* What stands behind this string, at each place where a token ends it and goes on. */
static void walk_behind(struct grammar_walk *w, const struct grammar_net *g, const struct grammar_trie *t,
                        const struct grammar_path *p, uint32_t *bits, uint32_t n_bits)
{
    struct grammar_paths set = {.at = w->at, .cap = GRAMMAR_PATHS_MAX};
    struct grammar_path back = *p;
    back.node = back.stack[--back.depth];
    grammar_paths_add(&set, g, &back);
    start(w, set.n);
    for (uint32_t i = 0; i < t->n_leaves; i++)
        walk(w, g, t, t->leaves[i], bits, n_bits);
}

void grammar_mask(const struct grammar_state *s, struct grammar_walk *w, uint32_t *bits, uint32_t n_bits)
{
    const struct grammar_net *g = grammar_net(s->grammar);
    const struct grammar_trie *t = grammar_vocab_trie(grammar_words(s->grammar));
    uint32_t words = (n_bits + 31) / 32, known = t->n_tokens / 32 + 1, n = 0;
    memset(bits, 0, words * sizeof *bits);
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->paths[i].node != GRAMMAR_STRING_BODY)
            continue;
        for (uint32_t k = 0; k < (words < known ? words : known); k++)
            bits[k] |= t->inside[k];
        walk_behind(w, g, t, &s->paths[i], bits, n_bits);
    }
    for (uint32_t i = 0; i < s->n; i++)
        if (s->paths[i].node != GRAMMAR_STRING_BODY)
            w->at[n++] = s->paths[i];
    start(w, n);
    if (n > 0)
        walk(w, g, t, 0, bits, n_bits);
}

bool grammar_push_token(struct grammar_state *s, uint32_t token)
{
    struct str text = grammar_vocab_bytes(grammar_words(s->grammar), token);
    return text.n > 0 && grammar_push_text(s, text);
}

int grammar_mask_inside(struct grammar_trie *t)
{
    struct grammar_draft d;
    struct grammar_basics b;
    struct grammar *g = NULL;
    struct grammar_walk *w = NULL;
    grammar_draft_init(&d, &b);
    int st = grammar_draft_end(&d, b.string, NULL, &g, NULL);
    if (!st)
        st = grammar_walk_create(&w);
    t->inside = mem_zalloc(t->n_tokens / 32 + 1, sizeof *t->inside);
    t->leaves = mem_zalloc(t->n_nodes, sizeof *t->leaves);
    if (!st && t->inside && t->leaves) {
        w->leaves = t->leaves;
        w->n_leaves = 0;
        w->at[0] = (struct grammar_path){.node = GRAMMAR_STRING_BODY};
        start(w, 1);
        walk(w, grammar_net(g), t, 0, t->inside, t->n_tokens);
        t->n_leaves = w->n_leaves;
        void *tight = mem_realloc(t->leaves, (t->n_leaves + 1) * sizeof *t->leaves);
        t->leaves = tight ? tight : t->leaves;
    }
    bool ok = !st && t->inside && t->leaves;
    grammar_walk_destroy(w);
    grammar_put(g);
    return ok ? ST_OK : ST_ENOMEM;
}
