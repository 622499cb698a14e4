/* Counts and a free list: last in, first out, so that the block used last, whose bytes may still be in a cache, is used next.
 *
 * The pool knows nothing of prefixes, nor of which CACHED block goes first: that depends on what each is a prefix of and on how
 * long it is wanted, which is the index's to know. */
#include "kv_pool.h"

#include "mem.h"

#include <assert.h>

struct kv_meta {
    uint32_t pins;
    uint32_t next; /* in the free list */
    uint8_t state; /* enum kv_state */
};

struct kv_pool {
    uint32_t n_blocks, n_free, n_cached;
    uint32_t free_head;
    struct kv_meta *meta; /* [n_blocks] */
};

int kv_pool_create(struct kv_pool **out, uint32_t n_blocks, struct err *e)
{
    if (n_blocks == 0 || n_blocks >= KV_NONE)
        return err_set(e, ST_EINVAL, "KV pool: %u blocks, at least 1 is needed", n_blocks);
    struct kv_pool *p = mem_zalloc(1, sizeof *p);
    if (!p)
        return err_set(e, ST_ENOMEM, "KV pool: no memory");
    p->meta = mem_zalloc(n_blocks, sizeof *p->meta);
    if (!p->meta) {
        mem_free(p);
        return err_set(e, ST_ENOMEM, "KV pool: no memory for %u blocks", n_blocks);
    }
    p->n_blocks = p->n_free = n_blocks;
    for (uint32_t i = 0; i < n_blocks; i++)
        p->meta[i].next = i + 1 < n_blocks ? i + 1 : KV_NONE;
    *out = p;
    return ST_OK;
}

void kv_pool_destroy(struct kv_pool *p)
{
    if (!p)
        return;
    assert(p->n_free + p->n_cached == p->n_blocks);
    mem_free(p->meta);
    mem_free(p);
}

static void free_push(struct kv_pool *p, uint32_t b)
{
    struct kv_meta *m = &p->meta[b];
    m->state = KV_FREE;
    m->next = p->free_head;
    p->free_head = b;
    p->n_free++;
}

int kv_pool_take(struct kv_pool *p, uint32_t *block_out)
{
    uint32_t b = p->free_head;
    if (p->n_free == 0)
        return ST_NOSPACE;
    p->free_head = p->meta[b].next;
    p->n_free--;
    p->meta[b].state = KV_PINNED;
    p->meta[b].pins = 1;
    *block_out = b;
    return ST_OK;
}

void kv_pool_pin(struct kv_pool *p, uint32_t block)
{
    assert(block < p->n_blocks);
    struct kv_meta *m = &p->meta[block];
    assert(m->state != KV_FREE && m->pins < UINT32_MAX);
    if (m->state == KV_CACHED) {
        m->state = KV_PINNED_INDEXED;
        p->n_cached--;
    }
    m->pins++;
}

void kv_pool_unpin(struct kv_pool *p, uint32_t block)
{
    assert(block < p->n_blocks);
    struct kv_meta *m = &p->meta[block];
    assert(m->pins > 0);
    if (--m->pins > 0)
        return;
    if (m->state == KV_PINNED_INDEXED) {
        m->state = KV_CACHED;
        p->n_cached++;
    } else {
        free_push(p, block);
    }
}

void kv_pool_mark_indexed(struct kv_pool *p, uint32_t block)
{
    assert(block < p->n_blocks && p->meta[block].state == KV_PINNED);
    p->meta[block].state = KV_PINNED_INDEXED;
}

void kv_pool_drop_cached(struct kv_pool *p, uint32_t block)
{
    assert(block < p->n_blocks && p->meta[block].state == KV_CACHED);
    p->n_cached--;
    free_push(p, block);
}

enum kv_state kv_pool_state(const struct kv_pool *p, uint32_t block)
{
    assert(block < p->n_blocks);
    return (enum kv_state)p->meta[block].state;
}

uint32_t kv_pool_pins(const struct kv_pool *p, uint32_t block)
{
    assert(block < p->n_blocks);
    return p->meta[block].pins;
}

uint32_t kv_pool_total(const struct kv_pool *p)
{
    return p->n_blocks;
}

uint32_t kv_pool_free(const struct kv_pool *p)
{
    return p->n_free;
}

uint32_t kv_pool_cached(const struct kv_pool *p)
{
    return p->n_cached;
}

bool kv_pool_check(const struct kv_pool *p, const char **why)
{
    uint32_t count[4] = {0}, n = 0;
    for (uint32_t i = 0; i < p->n_blocks; i++) {
        const struct kv_meta *m = &p->meta[i];
        bool pinned = m->state == KV_PINNED || m->state == KV_PINNED_INDEXED;
        *why = "a block's pins disagree with its state";
        if (m->state > KV_CACHED || pinned != (m->pins > 0))
            return false;
        count[m->state]++;
    }
    *why = "the counters disagree with the states";
    if (count[KV_FREE] != p->n_free || count[KV_CACHED] != p->n_cached)
        return false;
    *why = "the free list is broken";
    for (uint32_t b = p->free_head; n < p->n_free; b = p->meta[b].next, n++)
        if (b >= p->n_blocks || p->meta[b].state != KV_FREE)
            return false;
    return true;
}
