/* hash64: XXH3 with 64 bits and a seed: quick, agreed upon with other programs, and no protection against who wants a collision.
 *
 * Owns     nothing.
 * Units    bytes.
 * States   -
 * Threads  any.
 * Errors   none.
 * Bounds   any length; some ns for what is shorter than 128 bytes.
 * Source   XXH3 of xxHash 0.8 (libxxhash-dev, used as a header).
 */
#ifndef STATOR_HASH64_H
#define STATOR_HASH64_H

#include <stddef.h>
#include <stdint.h>

uint64_t hash64(const void *p, size_t n, uint64_t seed);
/* What a cache salt adds to the names of its blocks (kvcache/kv_event.h): 0 without one. The seed is NVIDIA Dynamo's. */
uint64_t hash64_salt(const void *salt, size_t n);

#endif
