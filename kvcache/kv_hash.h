/* kv_hash: the identity of a block: what was computed, by which model, for whom.
 *
 * Owns     nothing.
 * Units    an id is 32 bytes; tokens are int32 and enter the hash as little-endian words.
 * States   root (model fingerprint, salt) -> id of block 0 -> id of block 1 -> ...
 * Threads  any.
 * Errors   none.
 * Bounds   one hash over 32 + 4 n bytes per block, below a microsecond for 16 tokens.
 * Source   docs/ARCHITECTURE.md, section 3 "Block".
 */
#ifndef STATOR_KV_HASH_H
#define STATOR_KV_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KV_ID_BYTES = 32 };

struct kv_id {
    uint8_t b[KV_ID_BYTES];
};

/* The parent of every first block. Two salts, or two fingerprints, never share a block. */
void kv_id_root(struct kv_id *out, const void *fingerprint, size_t n, const void *salt, size_t salt_n);
/* `out` may be `parent`. */
void kv_id_next(struct kv_id *out, const struct kv_id *parent, const int32_t *tokens, uint32_t n);
bool kv_id_eq(const struct kv_id *a, const struct kv_id *b);

#endif
