/* fake_transfers: copies of blocks between a fake pool and host memory, as late as backend.h lets them be.
 *
 * A store's target is poison until it is done, and what it stores is read then. A load happens when the first step launched after
 * it runs, not before, and again when it is done: who changes the source too early has wrong tokens. Nothing is done before the
 * steps launched earlier have run, and then it takes one to three polls more. Asserted: no step launched meanwhile writes a block
 * of a copy; no block and no host memory is in two copies, unless both only read it.
 *
 * Owns     lists of the copies under way.
 * Errors   ST_EINVAL; ST_AGAIN beyond FAKE_TRANSFERS at once.
 */
#ifndef STATOR_TEST_FAKE_TRANSFERS_H
#define STATOR_TEST_FAKE_TRANSFERS_H

#include "backend.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { FAKE_TRANSFERS = 4, FAKE_POLLS_MAX = 3 };

struct fake_transfer {
    struct be_block_copy *list; /* [n], ours */
    uint32_t n, polls;          /* polls: that it takes yet */
    bool store;
    uint64_t ticket, after; /* steps launched before it */
};

struct fake_transfers {
    struct fake_transfer t[FAKE_TRANSFERS]; /* in order of their tickets */
    uint32_t n;
    uint64_t issued, stored, loaded; /* copies begun; blocks done */
};

/* A pool for them to work on. */
struct fake_pool {
    unsigned char *base;
    size_t block_bytes;
    uint32_t n_blocks;
};

static inline bool fake_transfers_clash(const struct fake_transfers *x, const struct be_block_copy *c,
                                        bool store)
{
    for (uint32_t i = 0; i < x->n; i++)
        for (uint32_t j = 0; j < x->t[i].n; j++) {
            const struct be_block_copy *o = &x->t[i].list[j];
            if (o->block == c->block && !(store && x->t[i].store))
                return true;
            if (o->host == c->host && (store || x->t[i].store))
                return true;
        }
    return false;
}

static inline int fake_transfers_begin(struct fake_transfers *x, const struct fake_pool *p,
                                       const struct be_block_copy *list, uint32_t n, bool store,
                                       uint64_t launched, uint64_t *ticket)
{
    if (n == 0)
        return ST_EINVAL;
    for (uint32_t i = 0; i < n; i++)
        if (list[i].block >= p->n_blocks || !list[i].host)
            return ST_EINVAL;
    if (x->n == FAKE_TRANSFERS)
        return ST_AGAIN;
    for (uint32_t i = 0; i < n; i++) {
        assert(!fake_transfers_clash(x, &list[i], store));
        for (uint32_t j = 0; j < i; j++)
            assert((!store || list[j].host != list[i].host) && list[j].block != list[i].block);
        if (store)
            memset(list[i].host, 0xa5, p->block_bytes);
    }
    struct fake_transfer *t = &x->t[x->n++];
    *t = (struct fake_transfer){
        .list = malloc(n * sizeof *list), .n = n, .store = store, .ticket = x->issued++, .after = launched};
    assert(t->list);
    memcpy(t->list, list, n * sizeof *list);
    t->polls = (uint32_t)((t->ticket * 0x9e3779b97f4a7c15u) >> 40) % FAKE_POLLS_MAX;
    *ticket = t->ticket;
    return ST_OK;
}

static inline void fake_transfers_move(const struct fake_transfer *t, const struct fake_pool *p)
{
    for (uint32_t i = 0; i < t->n; i++) {
        unsigned char *block = p->base + t->list[i].block * p->block_bytes;
        memcpy(t->store ? t->list[i].host : block, t->store ? block : t->list[i].host, p->block_bytes);
    }
}

/* The step launched after `launched` others is about to run. */
static inline void fake_transfers_before_step(struct fake_transfers *x, const struct fake_pool *p,
                                              uint64_t launched)
{
    for (uint32_t i = 0; i < x->n; i++)
        if (!x->t[i].store && x->t[i].after <= launched)
            fake_transfers_move(&x->t[i], p);
}

/* A step that is being launched writes this block. */
static inline void fake_transfers_check_write(const struct fake_transfers *x, uint32_t block)
{
    for (uint32_t i = 0; i < x->n; i++)
        for (uint32_t j = 0; j < x->t[i].n; j++)
            assert(x->t[i].list[j].block != block);
}

static inline void fake_transfers_drop(struct fake_transfers *x, uint32_t i)
{
    free(x->t[i].list);
    memmove(&x->t[i], &x->t[i + 1], (--x->n - i) * sizeof *x->t);
}

/* `ran`: steps that have. */
static inline int fake_transfers_poll(struct fake_transfers *x, const struct fake_pool *p, uint64_t ran,
                                      uint64_t ticket)
{
    if (ticket >= x->issued)
        return ST_EINVAL;
    uint32_t i = 0;
    while (i < x->n && x->t[i].ticket != ticket)
        i++;
    if (i == x->n)
        return 1;
    struct fake_transfer *t = &x->t[i];
    if (ran < t->after || t->polls-- > 0)
        return 0;
    fake_transfers_move(t, p);
    *(t->store ? &x->stored : &x->loaded) += t->n;
    fake_transfers_drop(x, i);
    return 1;
}

/* The device has failed: nothing is under way any more. */
static inline void fake_transfers_fail(struct fake_transfers *x)
{
    while (x->n > 0)
        fake_transfers_drop(x, x->n - 1);
}

#endif
