/* Two ways to the same result. A word of English has a handful of symbols: scan for the lowest rank, merge,
 * look up the two pairs that changed; everything stays in a few cache lines. A hostile "word" has a million
 * symbols: there the same scan would be quadratic, so a linked list keeps the neighbours and a binary heap
 * the candidate pairs. An entry of the heap that no longer describes its place (its left or right symbol was
 * merged away meanwhile) is dropped when popped. */
#include "tok_bpe.h"

#include "mem.h"
#include "status.h"

#include <string.h>

enum { SCAN_MAX = 48 };
#define NO_RANK UINT32_MAX

static void merge_by_scan(const struct tok_merges *m, int32_t *ids, size_t *n_io)
{
    uint32_t rank[SCAN_MAX];
    int32_t to[SCAN_MAX];
    size_t n = *n_io;
    for (size_t i = 0; i + 1 < n; i++) {
        const struct tok_merge *e = tok_merges_find(m, ids[i], ids[i + 1]);
        rank[i] = e ? e->rank : NO_RANK;
        to[i] = e ? e->id : -1;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == NO_RANK)
            break;
        ids[best] = to[best];
        memmove(ids + best + 1, ids + best + 2, (n - best - 2) * sizeof *ids);
        memmove(rank + best, rank + best + 1, (n - best - 2) * sizeof *rank);
        memmove(to + best, to + best + 1, (n - best - 2) * sizeof *to);
        n--;
        size_t first = best ? best - 1 : 0;
        for (size_t i = first; i <= best && i + 1 < n; i++) {
            const struct tok_merge *e = tok_merges_find(m, ids[i], ids[i + 1]);
            rank[i] = e ? e->rank : NO_RANK;
            to[i] = e ? e->id : -1;
        }
    }
    *n_io = n;
}

static void sift_down(struct tok_bpe_entry *h, size_t n, size_t i)
{
    struct tok_bpe_entry e = h[i];
    for (size_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && h[c + 1].order < h[c].order)
            c++;
        if (h[c].order >= e.order)
            break;
        h[i] = h[c];
    }
    h[i] = e;
}

static void heap_push(struct tok_bpe *b, struct tok_bpe_entry e)
{
    size_t i = b->n_heap++;
    while (i && b->heap[(i - 1) / 2].order > e.order) {
        b->heap[i] = b->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    b->heap[i] = e;
}

static struct tok_bpe_entry heap_pop(struct tok_bpe *b)
{
    struct tok_bpe_entry e = b->heap[0];
    b->heap[0] = b->heap[--b->n_heap];
    if (b->n_heap)
        sift_down(b->heap, b->n_heap, 0);
    return e;
}

static bool candidate(const struct tok_merges *m, const int32_t *ids, uint32_t at, uint32_t right,
                      struct tok_bpe_entry *e)
{
    const struct tok_merge *g = tok_merges_find(m, ids[at], ids[right]);
    if (g)
        *e = (struct tok_bpe_entry){(uint64_t)g->rank << 32 | at, ids[at], ids[right], g->id};
    return g != NULL;
}

static int reserve(struct tok_bpe *b, size_t n)
{
    if (n <= b->cap)
        return ST_OK;
    tok_bpe_fini(b);
    size_t cap = n + n / 2;
    b->prev = mem_alloc(cap * sizeof *b->prev);
    b->next = mem_alloc(cap * sizeof *b->next);
    /* every merge takes one entry out and puts at most two in */
    b->heap = mem_alloc(2 * cap * sizeof *b->heap);
    if (!b->prev || !b->next || !b->heap) {
        tok_bpe_fini(b);
        return ST_ENOMEM;
    }
    b->cap = cap;
    return ST_OK;
}

static int merge_by_heap(struct tok_bpe *b, const struct tok_merges *m, int32_t *ids, size_t *n_io)
{
    size_t n = *n_io;
    int st = reserve(b, n);
    if (st)
        return st;
    struct tok_bpe_entry e;
    b->n_heap = 0;
    for (uint32_t i = 0; i < n; i++) {
        b->prev[i] = i - 1; /* of the first: never followed */
        b->next[i] = i + 1;
        if (i + 1 < n && candidate(m, ids, i, i + 1, &e))
            b->heap[b->n_heap++] = e;
    }
    for (size_t i = b->n_heap / 2; i-- > 0;)
        sift_down(b->heap, b->n_heap, i);
    while (b->n_heap) {
        e = heap_pop(b);
        uint32_t at = (uint32_t)e.order, right = b->next[at];
        if (ids[at] != e.left || right >= n || ids[right] != e.right)
            continue;
        ids[at] = e.id;
        ids[right] = -1;
        uint32_t after = b->next[at] = b->next[right];
        if (after < n) {
            b->prev[after] = at;
            if (candidate(m, ids, at, after, &e))
                heap_push(b, e);
        }
        if (at > 0 && candidate(m, ids, b->prev[at], at, &e))
            heap_push(b, e);
    }
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= 0)
            ids[kept++] = ids[i];
    *n_io = kept;
    return ST_OK;
}

int tok_bpe_merge(struct tok_bpe *b, const struct tok_merges *m, int32_t *ids, size_t *n)
{
    if (*n < 2 || m->n == 0)
        return ST_OK;
    if (*n > SCAN_MAX)
        return merge_by_heap(b, m, ids, n);
    merge_by_scan(m, ids, n);
    return ST_OK;
}

void tok_bpe_fini(struct tok_bpe *b)
{
    mem_free(b->prev);
    mem_free(b->next);
    mem_free(b->heap);
    memset(b, 0, sizeof *b);
}
