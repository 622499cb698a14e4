/* kv_twin: what kvcache should hold and do, the naive way: identities as whole token prefixes in a flat array, each with its
 * rank, its holders and the copies that it should have. What goes is found by scanning for the least. `compare` holds the real
 * thing to it, contents included.
 *
 * Owns     nothing but the world's own arrays. Operations change both sides; they are test_kv_seq.c's.
 * Bounds   TWIN_MAX identities: no more can have a copy.
 */
#ifndef STATOR_TEST_KV_TWIN_H
#define STATOR_TEST_KV_TWIN_H

#include "kv_seq.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum {
    BT = 16,
    CAP = 10,
    N_SEQ = 6,
    N_BLOCKS = 24,
    MAX_HOST = 40,
    TWIN_MAX = N_BLOCKS + MAX_HOST,
    N_COPIES = 5
};

enum twin_host { ABSENT, LANDING, COPY };

struct twin_entry { /* an identity that has a copy somewhere */
    bool dev;
    enum twin_host host;
    uint32_t n; /* blocks */
    int32_t tokens[CAP * BT];
    struct kv_id id;
    uint64_t hash;
    uint32_t holders, host_pins; /* of its block, of its slot */
    int64_t expiry, used;
    uint64_t stamp;
};

struct twin_seq {
    bool live, apart;
    uint32_t n_entries, n_blocks; /* leading blocks that are entries; blocks held */
};

struct save {
    bool live;
    struct twin_entry *of;
    uint32_t block, slot;
};

struct load {
    bool live, cancelled;
    uint32_t seq, n, blocks[CAP], slots[CAP];
    struct twin_entry *of[CAP];
};

struct lone { /* a private slot */
    bool live;
    uint32_t slot;
    uint64_t tag;
};

struct world {
    struct kv_prefix *x;
    uint32_t n_host;
    int hints; /* 0: one expiry for all; 1: the time of use; 2: hints of all kinds */
    struct kv_seq s[N_SEQ];
    int32_t tokens[N_SEQ][CAP * BT];
    uint32_t table[N_SEQ][CAP];
    struct kv_id ids[N_SEQ][CAP];
    uint32_t n_tokens[N_SEQ]; /* committed */
    struct load *loading[N_SEQ];
    uint64_t content[N_BLOCKS], host[MAX_HOST];
    struct twin_entry twin[TWIN_MAX];
    struct twin_seq t[N_SEQ];
    struct save saves[N_COPIES];
    struct load loads[N_COPIES];
    struct lone lone[N_COPIES];
    int64_t now, residence;
    uint64_t stamp, n_evicted;
};

static uint64_t prefix_hash(const int32_t *t, uint32_t n)
{
    uint64_t h = 1469598103934665603u;
    for (uint32_t i = 0; i < n; i++)
        h = (h ^ (uint64_t)(uint32_t)t[i]) * 1099511628211u;
    return h;
}

static bool used(const struct twin_entry *e)
{
    return e->dev || e->host != ABSENT;
}

static bool starts_with(const struct twin_entry *e, const int32_t *tokens, uint32_t n)
{
    return e->n >= n && memcmp(e->tokens, tokens, (size_t)n * BT * sizeof *tokens) == 0;
}

static struct twin_entry *twin_find(struct world *w, const int32_t *tokens, uint32_t n)
{
    for (int i = 0; i < TWIN_MAX; i++)
        if (used(&w->twin[i]) && w->twin[i].n == n && starts_with(&w->twin[i], tokens, n))
            return &w->twin[i];
    return NULL;
}

static struct twin_entry *twin_find_dev(struct world *w, const int32_t *tokens, uint32_t n)
{
    struct twin_entry *e = twin_find(w, tokens, n);
    return e && e->dev ? e : NULL;
}

static void twin_add(struct world *w, uint32_t seq, uint32_t n)
{
    struct twin_entry *e = twin_find(w, w->tokens[seq], n);
    for (int i = 0; i < TWIN_MAX && !e; i++)
        if (!used(&w->twin[i])) {
            e = &w->twin[i];
            *e = (struct twin_entry){
                .n = n, .expiry = INT64_MIN, .stamp = ++w->stamp, .id = w->ids[seq][n - 1]};
            memcpy(e->tokens, w->tokens[seq], (size_t)n * BT * sizeof *e->tokens);
            e->hash = prefix_hash(e->tokens, n * BT);
        }
    assert_non_null(e);
    e->dev = true;
    e->holders = 1;
}

static bool precedes(const struct twin_entry *a, const struct twin_entry *b)
{
    return a->expiry < b->expiry || (a->expiry == b->expiry && a->stamp < b->stamp);
}

static bool is_leaf(const struct world *w, const struct twin_entry *e)
{
    for (int i = 0; i < TWIN_MAX; i++)
        if (w->twin[i].dev && w->twin[i].n > e->n && starts_with(&w->twin[i], e->tokens, e->n))
            return false;
    return true;
}

static void twin_evict(struct world *w)
{
    struct twin_entry *go = NULL, *oldest = NULL;
    for (int i = 0; i < TWIN_MAX; i++) {
        struct twin_entry *e = &w->twin[i];
        if (!e->dev || e->holders)
            continue;
        if (is_leaf(w, e) && (!go || precedes(e, go)))
            go = e;
        if (!oldest || e->stamp < oldest->stamp)
            oldest = e;
    }
    assert_non_null(go);
    assert_true(w->hints == 2 || go == oldest); /* flat: least recently used */
    go->dev = false;
    w->n_evicted++;
    w->residence += (w->now - go->used - w->residence) / (int64_t)(w->n_evicted < 64 ? w->n_evicted : 64);
}

static struct twin_entry *twin_host_least(struct world *w)
{
    struct twin_entry *go = NULL;
    for (int i = 0; i < TWIN_MAX; i++)
        if (w->twin[i].host == COPY && !w->twin[i].host_pins && (!go || precedes(&w->twin[i], go)))
            go = &w->twin[i];
    return go;
}

static struct twin_entry *twin_next_unsaved(struct world *w)
{
    struct twin_entry *next = NULL;
    for (int i = 0; i < TWIN_MAX && w->n_host; i++) {
        struct twin_entry *e = &w->twin[i];
        if (e->dev && !e->holders && e->host == ABSENT && (!next || precedes(e, next)))
            next = e;
    }
    return next;
}

struct counts {
    uint32_t pinned, cached, clean, copies, host_free;
};

static struct counts twin_counts(const struct world *w)
{
    struct counts c = {.host_free = w->n_host};
    for (int i = 0; i < TWIN_MAX; i++) {
        const struct twin_entry *e = &w->twin[i];
        c.pinned += e->dev && e->holders;
        c.cached += e->dev && !e->holders;
        c.clean += e->dev && !e->holders && e->host == COPY;
        c.copies += e->host == COPY;
        c.host_free -= e->host != ABSENT;
    }
    for (int i = 0; i < N_SEQ; i++)
        if (w->t[i].live)
            c.pinned += w->t[i].n_blocks - w->t[i].n_entries;
    for (int i = 0; i < N_COPIES; i++) {
        c.host_free -= w->lone[i].live;
        if (w->loads[i].live && w->loads[i].cancelled)
            c.pinned += w->loads[i].n;
    }
    return c;
}

static void compare_copies(struct world *w)
{
    for (int i = 0; i < TWIN_MAX; i++) {
        const struct twin_entry *e = &w->twin[i];
        if (e->n == 0)
            continue;
        bool again =
            !used(e) && twin_find(w, e->tokens, e->n); /* forgotten here, but known in another place */
        uint32_t block = kv_prefix_find(w->x, &e->id), slot = kv_prefix_find_host(w->x, &e->id);
        if (again)
            continue;
        assert_int_equal(block != KV_NONE, e->dev);
        assert_int_equal(slot != KV_NONE, e->host == COPY);
        if (e->dev) {
            assert_int_equal(w->content[block], e->hash);
            assert_int_equal(kv_prefix_saved(w->x, block), e->host != ABSENT);
        }
        if (e->host == COPY)
            assert_int_equal(w->host[slot], e->hash);
    }
    for (int i = 0; i < N_COPIES; i++)
        if (w->lone[i].live)
            assert_int_equal(w->host[w->lone[i].slot], w->lone[i].tag);
}

static void compare(struct world *w)
{
    const char *why = "";
    if (!kv_prefix_check(w->x, &why))
        fail_msg("%s", why);
    struct counts c = twin_counts(w);
    assert_int_equal(kv_pool_cached(kv_prefix_pool(w->x)), c.cached);
    assert_int_equal(kv_pool_free(kv_prefix_pool(w->x)), N_BLOCKS - c.pinned - c.cached);
    assert_int_equal(kv_prefix_available(w->x), N_BLOCKS - c.pinned);
    assert_int_equal(kv_prefix_clean(w->x), c.clean);
    assert_int_equal(kv_prefix_host_cached(w->x), c.copies);
    assert_int_equal(kv_prefix_host_free(w->x), c.host_free);
    assert_int_equal(kv_prefix_evictions(w->x), w->n_evicted);
    assert_int_equal(kv_prefix_residence_ns(w->x), w->residence);
    const struct twin_entry *next = twin_next_unsaved(w);
    assert_int_equal(kv_prefix_next_unsaved(w->x), next ? kv_prefix_find(w->x, &next->id) : KV_NONE);
    compare_copies(w);
    for (int i = 0; i < N_SEQ; i++) {
        if (!w->t[i].live)
            continue;
        assert_int_equal(w->s[i].n_blocks, w->t[i].n_blocks);
        assert_int_equal(w->s[i].n_indexed, w->t[i].n_entries);
        for (uint32_t b = 0; b < w->n_tokens[i] / BT; b++)
            assert_int_equal(w->content[w->s[i].table[b]], prefix_hash(w->tokens[i], (b + 1) * BT));
    }
}

#endif
