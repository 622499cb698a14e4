/* Who goes next, when anyone may leave or change rank meanwhile? An array in heap order, and beside it where each id stands,
 * so that removal and update need no search.
 *
 *   at[0..size-1] = { key, tie, id }          pos[id] = index in `at`, or HEAP_NONE
 *
 * Four children instead of two: half the levels on the way up, which is the way that ever later keys go (one comparison and
 * done), and the four keys of one family lie in two cache lines on the way down.
 *
 * Keys are copied in, not looked up through a callback: comparisons are the whole cost, and a key that changed behind the
 * heap's back would break it silently. Rejected: a balanced tree, which also gives the order of all; nobody asks for that. */
#include "heap.h"

#include "mem.h"

#include <assert.h>

enum { ARITY = 4 };

struct heap_entry {
    int64_t key;
    uint64_t tie;
    uint32_t id;
};

struct heap {
    uint32_t n, size;
    struct heap_entry *at; /* [n], `size` of them in heap order */
    uint32_t *pos;         /* [n] */
};

int heap_create(struct heap **out, uint32_t n, struct err *e)
{
    assert(n < HEAP_NONE);
    struct heap *h = mem_zalloc(1, sizeof *h);
    if (!h)
        return err_set(e, ST_ENOMEM, "heap: no memory");
    h->n = n;
    h->at = mem_zalloc(n, sizeof *h->at);
    h->pos = mem_zalloc(n, sizeof *h->pos);
    if (!h->at || !h->pos) {
        heap_destroy(h);
        return err_set(e, ST_ENOMEM, "heap: no memory for %u entries", n);
    }
    for (uint32_t i = 0; i < n; i++)
        h->pos[i] = HEAP_NONE;
    *out = h;
    return ST_OK;
}

void heap_destroy(struct heap *h)
{
    if (!h)
        return;
    mem_free(h->at);
    mem_free(h->pos);
    mem_free(h);
}

static bool less(const struct heap_entry *a, const struct heap_entry *b)
{
    return a->key < b->key || (a->key == b->key && a->tie < b->tie);
}

static void put(struct heap *h, uint32_t i, struct heap_entry e)
{
    h->at[i] = e;
    h->pos[e.id] = i;
}

/* Place i is a hole that `e` is to fill: parents that it precedes move down into the hole. */
static uint32_t rise(struct heap *h, uint32_t i, struct heap_entry e)
{
    while (i > 0) {
        uint32_t up = (i - 1) / ARITY;
        if (!less(&e, &h->at[up]))
            break;
        put(h, i, h->at[up]);
        i = up;
    }
    return i;
}

/* Likewise, the other way: the least child moves up into the hole while it precedes `e`. */
static uint32_t sink(struct heap *h, uint32_t i, struct heap_entry e)
{
    for (;;) {
        uint64_t first = (uint64_t)i * ARITY + 1;
        if (first >= h->size)
            return i;
        uint32_t best = (uint32_t)first;
        for (uint64_t c = first + 1; c < first + ARITY && c < h->size; c++)
            if (less(&h->at[c], &h->at[best]))
                best = (uint32_t)c;
        if (!less(&h->at[best], &e))
            return i;
        put(h, i, h->at[best]);
        i = best;
    }
}

static void settle(struct heap *h, uint32_t hole, struct heap_entry e)
{
    uint32_t i = rise(h, hole, e);
    if (i == hole)
        i = sink(h, hole, e);
    put(h, i, e);
}

void heap_push(struct heap *h, uint32_t id, int64_t key, uint64_t tie)
{
    assert(id < h->n && h->pos[id] == HEAP_NONE);
    struct heap_entry e = {.key = key, .tie = tie, .id = id};
    put(h, rise(h, h->size++, e), e);
}

uint32_t heap_peek(const struct heap *h)
{
    return h->size ? h->at[0].id : HEAP_NONE;
}

uint32_t heap_pop(struct heap *h)
{
    uint32_t id = heap_peek(h);
    if (id != HEAP_NONE)
        heap_remove(h, id);
    return id;
}

void heap_remove(struct heap *h, uint32_t id)
{
    assert(heap_contains(h, id));
    uint32_t hole = h->pos[id];
    struct heap_entry last = h->at[--h->size];
    h->pos[id] = HEAP_NONE;
    if (hole != h->size)
        settle(h, hole, last);
}

void heap_update(struct heap *h, uint32_t id, int64_t key, uint64_t tie)
{
    assert(heap_contains(h, id));
    settle(h, h->pos[id], (struct heap_entry){.key = key, .tie = tie, .id = id});
}

bool heap_contains(const struct heap *h, uint32_t id)
{
    assert(id < h->n);
    return h->pos[id] != HEAP_NONE;
}

uint32_t heap_size(const struct heap *h)
{
    return h->size;
}

int64_t heap_key(const struct heap *h, uint32_t id)
{
    assert(heap_contains(h, id));
    return h->at[h->pos[id]].key;
}

uint64_t heap_tie(const struct heap *h, uint32_t id)
{
    assert(heap_contains(h, id));
    return h->at[h->pos[id]].tie;
}

bool heap_check(const struct heap *h)
{
    uint32_t in = 0;
    for (uint32_t id = 0; id < h->n; id++) {
        uint32_t i = h->pos[id];
        if (i == HEAP_NONE)
            continue;
        if (i >= h->size || h->at[i].id != id || (i > 0 && less(&h->at[i], &h->at[(i - 1) / ARITY])))
            return false;
        in++;
    }
    return in == h->size;
}
