/* tok_tables: the two read-only hash tables of a tokenizer: byte string -> id, and (left id, right id) -> merge.
 *
 * Owns     both own their memory; strings are copied.
 * Units    ids are dense from 0; offsets in bytes.
 * States   zeroed -> init (and, for merges, put*) -> read only -> fini.
 * Threads  any number of readers after the last write.
 * Errors   ST_ENOMEM, ST_ETOOBIG; fini is safe on a zeroed or half-built table.
 * Bounds   string bytes below 4 GiB, TOK_IDS_MAX strings, TOK_MERGES_MAX merges; lookups O(1) expected.
 */
#ifndef STATOR_TOK_TABLES_H
#define STATOR_TOK_TABLES_H

#include "buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TOK_IDS_MAX = 1 << 22, TOK_MERGES_MAX = 1 << 24 };

struct tok_names {
    char *bytes;   /* all strings, back to back */
    uint32_t *at;  /* [n + 1] where each begins */
    uint64_t *map; /* [mask + 1] upper half hash, lower half id + 1; NULL when built without an index */
    uint32_t n, mask, longest;
};

/* Empty strings are holes: they have an id and are never found. Of equal strings the first is found. */
int tok_names_init(struct tok_names *t, const struct str *src, size_t n, bool index);
void tok_names_fini(struct tok_names *t);
struct str tok_names_get(const struct tok_names *t, uint32_t id); /* valid as long as the table */
int32_t tok_names_find(const struct tok_names *t, struct str s);  /* -1 = none */

struct tok_merge {
    uint64_t key;  /* left << 32 | right */
    uint32_t rank; /* lower goes first */
    int32_t id;    /* what the two become; -1 marks a free slot */
};

struct tok_merges {
    struct tok_merge *slot; /* [mask + 1], at most half full */
    uint32_t mask, n;
};

int tok_merges_init(struct tok_merges *m, size_t count);
void tok_merges_fini(struct tok_merges *m);
/* At most `count` different pairs. `replace`: the last merge of a pair counts, otherwise the first. */
void tok_merges_put(struct tok_merges *m, int32_t left, int32_t right, uint32_t rank, int32_t id,
                    bool replace);

static inline uint32_t tok_merges_hash(uint64_t key)
{
    key *= 0x9E3779B97F4A7C15u;
    return (uint32_t)((key ^ key >> 29) >> 16);
}

static inline const struct tok_merge *tok_merges_find(const struct tok_merges *m, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    for (uint32_t i = tok_merges_hash(key) & m->mask;; i = (i + 1) & m->mask) {
        const struct tok_merge *s = &m->slot[i];
        if (s->id < 0)
            return NULL;
        if (s->key == key)
            return s;
    }
}

#endif
