/* kv_prefix: the index: block identity -> block, and eviction, leaf first.
 *
 * Owns     the pool and the index over it.
 * Units    blocks.
 * States   an id is absent or indexed by exactly one block. The index is prefix-closed: an indexed block's parent is indexed.
 * Threads  the engine's thread only.
 * Errors   ST_NOSPACE from kv_prefix_alloc: fewer than n blocks are free or cached; nothing was taken.
 * Bounds   open addressing at load <= 1/2: find, insert and evict are O(1) expected. No allocation after create.
 * Source   README.md rules 3 to 7.
 */
#ifndef STATOR_KV_PREFIX_H
#define STATOR_KV_PREFIX_H

#include "kv_hash.h"
#include "kv_pool.h"

struct kv_prefix;

int kv_prefix_create(struct kv_prefix **out, uint32_t n_blocks, struct err *e);
void kv_prefix_destroy(struct kv_prefix *x); /* NULL ok; asserts that no block is pinned */
struct kv_pool *kv_prefix_pool(struct kv_prefix *x);

/* The block that holds this identity, or KV_NONE. */
uint32_t kv_prefix_find(const struct kv_prefix *x, const struct kv_id *id);
/* `block` is pinned, full and complete; `parent` is the indexed block before it, KV_NONE for a first block; `id` is absent. */
void kv_prefix_insert(struct kv_prefix *x, const struct kv_id *id, uint32_t parent, uint32_t block);
/* Takes `n` blocks, each with one pin, evicting the least recently used cached ones as needed. All or nothing. */
int kv_prefix_alloc(struct kv_prefix *x, uint32_t n, uint32_t *blocks_out);
/* Frees up to `n` cached blocks, oldest first; returns how many. */
uint32_t kv_prefix_evict(struct kv_prefix *x, uint32_t n);
/* Blocks that kv_prefix_alloc can give now: free + cached. */
uint32_t kv_prefix_available(const struct kv_prefix *x);

/* For tests and debug builds: kv_pool_check, the bijection, prefix closure, children counts. */
bool kv_prefix_check(const struct kv_prefix *x, const char **why);

#endif
