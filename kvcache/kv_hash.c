/* A chain, not a hash of the whole prefix: block i's id takes 16 tokens and its parent's id, so the ids of a prompt cost one
 * pass, a grown sequence adds one hash per block, and two sequences with equal ids at i are equal up to i.
 *
 * The hash is wide because ids come from clients' tokens: with 64 bits a collision could be searched for, and a collision is
 * another tenant's KV. Lengths stand in front of the fingerprint and the salt, so no shift of bytes between the two makes
 * equal roots; the two kinds of input start with different words, so no block is ever a root. */
#include "kv_hash.h"

#include "hash.h"

#include <string.h>

static void put_u32(struct hash *h, uint32_t v)
{
    const uint8_t le[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    hash_update(h, le, sizeof le);
}

void kv_id_root(struct kv_id *out, const void *fingerprint, size_t n, const void *salt, size_t salt_n)
{
    struct hash h;
    hash_init(&h);
    hash_update(&h, "root", 4);
    put_u32(&h, (uint32_t)n);
    hash_update(&h, fingerprint, n);
    put_u32(&h, (uint32_t)salt_n);
    hash_update(&h, salt, salt_n);
    hash_final(&h, out->b);
}

void kv_id_next(struct kv_id *out, const struct kv_id *parent, const int32_t *tokens, uint32_t n)
{
    struct hash h;
    uint8_t le[64 * 4];
    hash_init(&h);
    hash_update(&h, "next", 4);
    hash_update(&h, parent->b, KV_ID_BYTES);
    for (uint32_t i = 0; i < n;) {
        uint32_t k = 0;
        for (; k < 64 && i < n; k++, i++) {
            uint32_t v = (uint32_t)tokens[i];
            le[4 * k] = (uint8_t)v;
            le[4 * k + 1] = (uint8_t)(v >> 8);
            le[4 * k + 2] = (uint8_t)(v >> 16);
            le[4 * k + 3] = (uint8_t)(v >> 24);
        }
        hash_update(&h, le, (size_t)4 * k);
    }
    hash_final(&h, out->b);
}

bool kv_id_eq(const struct kv_id *a, const struct kv_id *b)
{
    return memcmp(a->b, b->b, KV_ID_BYTES) == 0;
}
