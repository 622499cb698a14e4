/* tok_bpe: merging a word's symbols, lowest rank first, leftmost first among equals.
 *
 * Owns     a tok_bpe owns its growing scratch memory.
 * Units    symbols are token ids.
 * States   zeroed -> merge* -> fini.
 * Threads  one owner at a time; the merge table is shared and read only.
 * Errors   ST_ENOMEM.
 * Bounds   O(n log n) for n symbols; 40 bytes of scratch per symbol of the longest word.
 */
#ifndef STATOR_TOK_BPE_H
#define STATOR_TOK_BPE_H

#include "tok_tables.h"

struct tok_bpe_entry {
    uint64_t order; /* rank << 32 | position */
    int32_t left, right, id;
};

struct tok_bpe {
    uint32_t *prev, *next;      /* [cap] */
    struct tok_bpe_entry *heap; /* [2 * cap] */
    size_t cap, n_heap;
};

/* In place; returns the new count through *n. */
int tok_bpe_merge(struct tok_bpe *b, const struct tok_merges *m, int32_t *ids, size_t *n);
void tok_bpe_fini(struct tok_bpe *b);

#endif
