/* kv_pool: a fixed set of KV blocks: which are free, which are held and how often, which are merely kept.
 *
 * Owns     block metadata only. The bytes belong to the backend.
 * Units    blocks; ids are 0..n_blocks-1; KV_NONE is no block.
 * States   FREE -> PINNED -> (full) PINNED+INDEXED -> CACHED -> PINNED+INDEXED | FREE; PINNED -> FREE. See README.md.
 * Threads  the engine's thread only; no locks.
 * Errors   ST_NOSPACE from kv_pool_take when no block is free: normal, the index evicts or the scheduler preempts.
 * Bounds   every call but kv_pool_check is O(1). No allocation after create.
 * Source   paged KV as in vLLM (SOSP'23, section 4); README.md rules 1 to 7.
 */
#ifndef STATOR_KV_POOL_H
#define STATOR_KV_POOL_H

#include "status.h"

#include <stdbool.h>
#include <stdint.h>

#define KV_NONE UINT32_MAX

enum kv_state { KV_FREE, KV_PINNED, KV_PINNED_INDEXED, KV_CACHED };

struct kv_pool;

int kv_pool_create(struct kv_pool **out, uint32_t n_blocks, struct err *e);
void kv_pool_destroy(struct kv_pool *p); /* NULL ok; asserts that no block is pinned */

/* FREE -> PINNED with one pin. */
int kv_pool_take(struct kv_pool *p, uint32_t *block_out);
/* One more pin on a PINNED, PINNED+INDEXED or CACHED block. */
void kv_pool_pin(struct kv_pool *p, uint32_t block);
/* One pin less. The last one makes an indexed block CACHED, any other FREE. */
void kv_pool_unpin(struct kv_pool *p, uint32_t block);

/* For the index, which pins and unpins what it has indexed itself: kv_prefix_pin. PINNED -> PINNED+INDEXED; CACHED -> FREE. */
void kv_pool_mark_indexed(struct kv_pool *p, uint32_t block);
void kv_pool_drop_cached(struct kv_pool *p, uint32_t block);

enum kv_state kv_pool_state(const struct kv_pool *p, uint32_t block);
uint32_t kv_pool_pins(const struct kv_pool *p, uint32_t block);
uint32_t kv_pool_total(const struct kv_pool *p);
uint32_t kv_pool_free(const struct kv_pool *p);
uint32_t kv_pool_cached(const struct kv_pool *p);

/* Recounts everything; false, with the reason in *why, when an invariant is broken. For tests and debug builds. */
bool kv_pool_check(const struct kv_pool *p, const char **why);

#endif
