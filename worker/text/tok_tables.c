/* A vocabulary is written once and read millions of times, so both tables are flat arrays with linear
 * probing at most half full: one cache line for most lookups, no pointers to chase, and loading 280,000
 * merges is one pass. A trie of the vocabulary was considered for the names; it costs a miss per byte where
 * the hash costs one per word. */
#include "tok_tables.h"

#include "mem.h"
#include "status.h"

#include <string.h>

static uint32_t hash_bytes(const char *p, size_t n)
{
    uint64_t h = 0x517CC1B7u ^ n;
    while (n >= 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        h = (h ^ w) * 0x9E3779B97F4A7C15u;
        h ^= h >> 32;
        p += 8;
        n -= 8;
    }
    uint64_t w = 0;
    memcpy(&w, p, n);
    h = (h ^ w) * 0x9E3779B97F4A7C15u;
    h ^= h >> 29;
    h *= 0xBF58476D1CE4E5B9u;
    return (uint32_t)(h >> 32);
}

static uint32_t slots_for(size_t n)
{
    uint32_t slots = 16;
    while (slots < n * 2)
        slots *= 2;
    return slots;
}

struct str tok_names_get(const struct tok_names *t, uint32_t id)
{
    return (struct str){t->bytes + t->at[id], t->at[id + 1] - t->at[id]};
}

int32_t tok_names_find(const struct tok_names *t, struct str s)
{
    if (!t->map || s.n == 0 || s.n > t->longest)
        return -1;
    uint32_t h = hash_bytes(s.p, s.n);
    for (uint32_t i = h & t->mask; t->map[i]; i = (i + 1) & t->mask) {
        if ((uint32_t)(t->map[i] >> 32) != h)
            continue;
        uint32_t id = (uint32_t)t->map[i] - 1;
        if (t->at[id + 1] - t->at[id] == s.n && memcmp(t->bytes + t->at[id], s.p, s.n) == 0)
            return (int32_t)id;
    }
    return -1;
}

static int build_index(struct tok_names *t)
{
    uint32_t slots = slots_for(t->n);
    t->map = mem_zalloc(slots, sizeof *t->map);
    if (!t->map)
        return ST_ENOMEM;
    t->mask = slots - 1;
    for (uint32_t id = 0; id < t->n; id++) {
        struct str s = tok_names_get(t, id);
        if (s.n == 0 || tok_names_find(t, s) >= 0)
            continue;
        uint32_t h = hash_bytes(s.p, s.n), i = h & t->mask;
        while (t->map[i])
            i = (i + 1) & t->mask;
        t->map[i] = (uint64_t)h << 32 | (id + 1);
    }
    return ST_OK;
}

int tok_names_init(struct tok_names *t, const struct str *src, size_t n, bool index)
{
    uint64_t total = 0;
    if (n > TOK_IDS_MAX)
        return ST_ETOOBIG;
    for (size_t i = 0; i < n; i++)
        total += src[i].n;
    if (total > UINT32_MAX)
        return ST_ETOOBIG;
    memset(t, 0, sizeof *t);
    t->n = (uint32_t)n;
    t->bytes = mem_alloc((size_t)total + 8);
    t->at = mem_alloc((n + 1) * sizeof *t->at);
    if (!t->bytes || !t->at)
        return ST_ENOMEM;
    uint32_t at = 0;
    for (size_t i = 0; i < n; i++) {
        t->at[i] = at;
        if (src[i].n)
            memcpy(t->bytes + at, src[i].p, src[i].n);
        at += (uint32_t)src[i].n;
        if (src[i].n > t->longest)
            t->longest = (uint32_t)src[i].n;
    }
    t->at[n] = at;
    return index ? build_index(t) : ST_OK;
}

void tok_names_fini(struct tok_names *t)
{
    mem_free(t->bytes);
    mem_free(t->at);
    mem_free(t->map);
    memset(t, 0, sizeof *t);
}

int tok_merges_init(struct tok_merges *m, size_t count)
{
    memset(m, 0, sizeof *m);
    if (count > TOK_MERGES_MAX)
        return ST_ETOOBIG;
    uint32_t slots = slots_for(count);
    m->slot = mem_alloc(slots * sizeof *m->slot);
    if (!m->slot)
        return ST_ENOMEM;
    memset(m->slot, 0xFF, slots * sizeof *m->slot);
    m->mask = slots - 1;
    return ST_OK;
}

void tok_merges_fini(struct tok_merges *m)
{
    mem_free(m->slot);
    memset(m, 0, sizeof *m);
}

void tok_merges_put(struct tok_merges *m, int32_t left, int32_t right, uint32_t rank, int32_t id,
                    bool replace)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint32_t i = tok_merges_hash(key) & m->mask;
    while (m->slot[i].id >= 0 && m->slot[i].key != key)
        i = (i + 1) & m->mask;
    if (m->slot[i].id >= 0 && !replace)
        return;
    m->n += m->slot[i].id < 0;
    m->slot[i] = (struct tok_merge){key, rank, id};
}
