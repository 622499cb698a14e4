/* A path is kept as long as it can consume a byte, or is at the end of the root; calls and returns are followed at once. No rule
 * matches the empty text and none calls itself before it consumed something (grammar_build.c), so following ends, and as it stops
 * when the set is full it ends soon. Stacks lie in the paths: a cache line each, copied as a whole, which costs less than
 * sharing them would. */
#include "grammar_machine.h"

#include <string.h>

static bool same(const struct grammar_path *a, const struct grammar_path *b)
{
    return a->node == b->node && a->depth == b->depth &&
           memcmp(a->stack, b->stack, a->depth * sizeof *a->stack) == 0;
}

static void keep(struct grammar_paths *s, const struct grammar_path *p)
{
    for (uint32_t i = 0; i < s->n; i++)
        if (same(&s->at[i], p))
            return;
    if (s->n < s->cap)
        s->at[s->n++] = *p;
}

static bool fits(struct grammar_paths *s, uint32_t depth, const struct grammar_node *v)
{
    uint32_t need = depth + v->height;
    s->reach = need > s->reach ? need : s->reach;
    return need <= GRAMMAR_DEPTH_MAX;
}

void grammar_paths_add(struct grammar_paths *s, const struct grammar_net *g, const struct grammar_path *p)
{
    const struct grammar_node *v = &g->nodes[p->node];
    if (s->n == s->cap || !fits(s, p->depth, v))
        return;
    if (v->n_bytes || (v->final && p->depth == 0))
        keep(s, p);
    if (v->final && p->depth > 0) {
        struct grammar_path back = *p;
        back.node = back.stack[--back.depth];
        grammar_paths_add(s, g, &back);
    }
    const struct grammar_edge *calls = g->edges + v->first + v->n_bytes;
    for (uint32_t i = 0; i < v->n_calls; i++) {
        struct grammar_path in = *p;
        if (!fits(s, p->depth, &g->nodes[calls[i].to]) || !fits(s, p->depth + 1u, &g->nodes[calls[i].call]))
            continue;
        in.stack[in.depth++] = calls[i].to;
        in.node = calls[i].call;
        grammar_paths_add(s, g, &in);
    }
}

void grammar_paths_step(struct grammar_paths *out, const struct grammar_net *g,
                        const struct grammar_path *from, uint32_t n, uint8_t byte)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct grammar_node *v = &g->nodes[from[i].node];
        const struct grammar_edge *e = g->edges + v->first, *end = e + v->n_bytes;
        for (; e < end; e++) {
            if (byte < e->lo || byte > e->hi)
                continue;
            struct grammar_path p = from[i];
            p.node = e->to;
            grammar_paths_add(out, g, &p);
        }
    }
}

void grammar_begin(struct grammar_state *s, const struct grammar *g)
{
    const struct grammar_net *net = grammar_net(g);
    struct grammar_paths set = {.at = s->paths, .cap = GRAMMAR_PATHS_MAX};
    struct grammar_path root = {.node = net->start};
    s->grammar = g;
    grammar_paths_add(&set, net, &root);
    s->n = set.n;
}

bool grammar_push(struct grammar_state *s, uint8_t byte)
{
    struct grammar_path next[GRAMMAR_PATHS_MAX];
    struct grammar_paths set = {.at = next, .cap = GRAMMAR_PATHS_MAX};
    grammar_paths_step(&set, grammar_net(s->grammar), s->paths, s->n, byte);
    if (set.n == 0)
        return false;
    memcpy(s->paths, next, set.n * sizeof *next);
    s->n = set.n;
    return true;
}

bool grammar_push_text(struct grammar_state *s, struct str text)
{
    struct grammar_state before;
    before.n = s->n;
    memcpy(before.paths, s->paths, s->n * sizeof *s->paths);
    for (size_t i = 0; i < text.n; i++)
        if (!grammar_push(s, (uint8_t)text.p[i])) {
            s->n = before.n;
            memcpy(s->paths, before.paths, before.n * sizeof *s->paths);
            return false;
        }
    return true;
}

bool grammar_can_end(const struct grammar_state *s)
{
    const struct grammar_net *g = grammar_net(s->grammar);
    for (uint32_t i = 0; i < s->n; i++)
        if (s->paths[i].depth == 0 && g->nodes[s->paths[i].node].final)
            return true;
    return false;
}

bool grammar_must_end(const struct grammar_state *s)
{
    const struct grammar_net *g = grammar_net(s->grammar);
    for (uint32_t i = 0; i < s->n; i++)
        if (g->nodes[s->paths[i].node].n_bytes)
            return false;
    return s->n > 0;
}
