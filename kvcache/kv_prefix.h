/* kv_prefix: the index: block identity -> its copies, on the device and in the host tier; what goes when room is needed.
 *
 * Owns     the pool, the book of host slots and the index over both. Bytes, and the moving of them, belong to the caller.
 * Units    blocks and host slots, each of one block's size; expiries in ns of whatever clock the caller uses throughout.
 * States   an identity has a device copy (a block), a host copy (a slot), both, or is unknown. The device side is prefix-closed:
 *          an indexed block's parent is indexed. A host slot: FREE -> LANDING -> COPY -> FREE, or FREE -> PRIVATE -> FREE.
 * Threads  the engine's thread only.
 * Errors   ST_NOSPACE from kv_prefix_alloc: fewer than n blocks are free or cached; nothing was taken. ST_NOSPACE from
 *          kv_prefix_host_take: every slot is in use.
 * Bounds   find, insert: O(1) expected (open addressing at load <= 1/2). pin, unpin, each block evicted, all of the host
 *          tier: O(log n). save_begin and save_end: O(depth of the block) pins. No allocation after create.
 * Source   README.md rules 3 to 15.
 */
#ifndef STATOR_KV_PREFIX_H
#define STATOR_KV_PREFIX_H

#include "kv_hash.h"
#include "kv_pool.h"

struct kv_prefix;
struct kv_events;

int kv_prefix_create(struct kv_prefix **out, uint32_t n_blocks, uint32_t n_host,
                     struct err *e);         /* n_host may be 0 */
void kv_prefix_destroy(struct kv_prefix *x); /* NULL ok; asserts that no block and no slot is in use */
struct kv_pool *kv_prefix_pool(struct kv_prefix *x);

/* For an empty index: changes become events from now on. `v` is borrowed, with kv_prefix_nodes nodes. NULL: none do. */
void kv_prefix_tell(struct kv_prefix *x, struct kv_events *v);
uint32_t kv_prefix_nodes(const struct kv_prefix *x); /* identities at most */

/* The time that evictions are counted at: once per plan. */
void kv_prefix_set_time(struct kv_prefix *x, int64_t now_ns);

/* The block that holds this identity, or KV_NONE. */
uint32_t kv_prefix_find(const struct kv_prefix *x, const struct kv_id *id);
/* `block` is pinned, full and complete; `parent` is the pinned indexed block before it, KV_NONE for a first block; no block has
 * `id`. A host copy may: the block is then saved. */
void kv_prefix_insert(struct kv_prefix *x, const struct kv_id *id, uint32_t parent, uint32_t block);
/* After an insert: what the block holds, for who listens to kv_prefix_tell's events; salt_tag as in kv_event.h. */
void kv_prefix_announce(struct kv_prefix *x, uint32_t block, const int32_t *tokens, uint32_t n, uint64_t salt_tag);
/* Pins of any block that is not FREE. Who pins an indexed block pins the indexed path to it. */
void kv_prefix_pin(struct kv_prefix *x, uint32_t block);
void kv_prefix_unpin(struct kv_prefix *x, uint32_t block);
/* An indexed block, pinned still, is let go by one who used it: used now, wanted until the later of `expiry_ns` and what it was
 * wanted until before, which is returned: the parent is to be let go next, with that. */
int64_t kv_prefix_let_go(struct kv_prefix *x, uint32_t block, int64_t now_ns, int64_t expiry_ns);

/* A claim: a sequence that let an indexed block go means to come back for it. The next match ends it; a save does not. It
 * changes no order: it tells who evicts that a copy is worth more than usual. */
void kv_prefix_claim(struct kv_prefix *x, uint32_t block, bool claimed);
bool kv_prefix_claimed(const struct kv_prefix *x, uint32_t block);

/* Takes `n` blocks, each with one pin, evicting cached ones as needed. All or nothing. */
int kv_prefix_alloc(struct kv_prefix *x, uint32_t n, uint32_t *blocks_out);
/* Frees up to `n` cached blocks, the leaf that expires first first, of equal ones the one let go first; returns how many. */
uint32_t kv_prefix_evict(struct kv_prefix *x, uint32_t n);
uint32_t kv_prefix_oldest(const struct kv_prefix *x); /* the one that goes next, or KV_NONE */
/* Blocks that kv_prefix_alloc can give now: free + cached. */
uint32_t kv_prefix_available(const struct kv_prefix *x);
uint64_t kv_prefix_evictions(const struct kv_prefix *x);
/* How long an evicted block had lain unused: a moving mean over the last 64 or so; 60 s before the first. */
int64_t kv_prefix_residence_ns(const struct kv_prefix *x);

/* --- the host tier --- */

/* The slot of a complete host copy of this identity, or KV_NONE. */
uint32_t kv_prefix_find_host(const struct kv_prefix *x, const struct kv_id *id);

/* A copy of an indexed block that has none is begun: takes a slot (it may evict the host copy that expires first; for a cached
 * block only one that expires before it) and pins the block with its path. false: no slot. */
bool kv_prefix_save_begin(struct kv_prefix *x, uint32_t block, uint32_t *slot_out);
/* It is done, and the pins go. ok: the identity now has a host copy; otherwise the slot is free again. */
void kv_prefix_save_end(struct kv_prefix *x, uint32_t block, uint32_t slot, bool ok);
/* Has the indexed block a host copy, or one on its way? */
bool kv_prefix_saved(const struct kv_prefix *x, uint32_t block);
/* The CACHED block neither saved nor being saved that expires first, or KV_NONE. */
uint32_t kv_prefix_next_unsaved(const struct kv_prefix *x);
/* The parent of an indexed block, if it is of that kind too, or KV_NONE. */
uint32_t kv_prefix_unsaved_parent(const struct kv_prefix *x, uint32_t block);
/* CACHED blocks with a host copy: they can go at no loss. */
uint32_t kv_prefix_clean(const struct kv_prefix *x);

/* Pins of a slot in COPY or PRIVATE: somebody reads or writes it. */
void kv_prefix_host_pin(struct kv_prefix *x, uint32_t slot);
void kv_prefix_host_unpin(struct kv_prefix *x, uint32_t slot);
/* FREE -> PRIVATE, evicting the host copy that expires first if need be, and back. */
int kv_prefix_host_take(struct kv_prefix *x, uint32_t *slot_out);
void kv_prefix_host_give(struct kv_prefix *x, uint32_t slot);

uint32_t kv_prefix_host_total(const struct kv_prefix *x);
uint32_t kv_prefix_host_free(const struct kv_prefix *x);
uint32_t kv_prefix_host_cached(const struct kv_prefix *x); /* slots in COPY */

/* Recounts everything, as kv_pool_check does: maps, prefix closure, children, heaps, slots. For tests and debug builds. */
bool kv_prefix_check(const struct kv_prefix *x, const char **why);

#endif
