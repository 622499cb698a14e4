/* One allocation holds a grammar: a request's end frees it with one call, on whichever thread it happens. */
#include "grammar_own.h"

#include "mem.h"

struct grammar *grammar_get(struct grammar *g)
{
    atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
    return g;
}

void grammar_put(struct grammar *g)
{
    if (g && atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) == 1)
        mem_free(g);
}

const struct grammar_net *grammar_net(const struct grammar *g)
{
    return &g->net;
}

const struct grammar_vocab *grammar_words(const struct grammar *g)
{
    return g->vocab;
}
