/* hash: BLAKE3 with 256-bit output.
 *
 * Owns     nothing; struct hash lives in the caller's memory.
 * Units    bytes.
 * States   init -> update* -> final.
 * Threads  one owner per struct.
 * Errors   none.
 * Bounds   any input length; no allocation. About 1 GB/s.
 * Source   BLAKE3 specification, section 2 (hash mode only; Debian 12 packages no BLAKE3 library).
 */
#ifndef STATOR_HASH_H
#define STATOR_HASH_H

#include <stddef.h>
#include <stdint.h>

enum { HASH_BYTES = 32 };

struct hash {
    uint32_t stack[54][8]; /* chaining values of finished subtrees, one per set bit of `chunk` */
    uint32_t cv[8];        /* of the open chunk */
    uint64_t chunk;        /* index of the open chunk */
    uint8_t block[64];
    uint8_t block_len, blocks, depth;
};

void hash_init(struct hash *h);
void hash_update(struct hash *h, const void *p, size_t n);
void hash_final(const struct hash *h, uint8_t out[HASH_BYTES]);
void hash_once(const void *p, size_t n, uint8_t out[HASH_BYTES]);

#endif
