/* Plain scalar BLAKE3: chunks of 1,024 bytes are hashed block by block, finished chunks are merged in a binary tree whose
 * open right edge is kept as a stack. SIMD would pay only for long inputs; ours are block identities of about 100 bytes. */
#include "hash.h"

#include <stdbool.h>
#include <string.h>

enum { CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8, CHUNK_BYTES = 1024, BLOCK_BYTES = 64 };

static const uint32_t iv[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                               0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

/* The message schedule of round r+1 is this permutation of round r's. */
static const uint8_t permute[16] = {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8};

static uint32_t rotr(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static void mix(uint32_t *s, int a, int b, int c, int d, uint32_t x, uint32_t y)
{
    s[a] += s[b] + x;
    s[d] = rotr(s[d] ^ s[a], 16);
    s[c] += s[d];
    s[b] = rotr(s[b] ^ s[c], 12);
    s[a] += s[b] + y;
    s[d] = rotr(s[d] ^ s[a], 8);
    s[c] += s[d];
    s[b] = rotr(s[b] ^ s[c], 7);
}

static void compress(const uint32_t cv[8], const uint8_t block[64], uint32_t len, uint64_t counter,
                     uint32_t flags, uint32_t out[8])
{
    uint32_t m[16], t[16];
    memcpy(m, block, 64); /* little-endian hosts only, as everywhere in this project */
    uint32_t s[16] = {cv[0],
                      cv[1],
                      cv[2],
                      cv[3],
                      cv[4],
                      cv[5],
                      cv[6],
                      cv[7],
                      iv[0],
                      iv[1],
                      iv[2],
                      iv[3],
                      (uint32_t)counter,
                      (uint32_t)(counter >> 32),
                      len,
                      flags};
    for (int round = 0; round < 7; round++) {
        for (int i = 0; i < 4; i++)
            mix(s, i, 4 + i, 8 + i, 12 + i, m[2 * i], m[2 * i + 1]);
        for (int i = 0; i < 4; i++)
            mix(s, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4, m[8 + 2 * i], m[9 + 2 * i]);
        for (int i = 0; i < 16; i++)
            t[i] = m[permute[i]];
        memcpy(m, t, sizeof m);
    }
    for (int i = 0; i < 8; i++)
        out[i] = s[i] ^ s[i + 8];
}

static void start_chunk(struct hash *h)
{
    memcpy(h->cv, iv, sizeof iv);
    memset(h->block, 0, sizeof h->block);
    h->block_len = 0;
    h->blocks = 0;
}

void hash_init(struct hash *h)
{
    h->chunk = 0;
    h->depth = 0;
    start_chunk(h);
}

static uint32_t chunk_flags(const struct hash *h)
{
    return h->blocks == 0 ? CHUNK_START : 0;
}

static void parent(const uint32_t left[8], const uint32_t right[8], uint32_t flags, uint32_t out[8])
{
    uint8_t block[64];
    memcpy(block, left, 32);
    memcpy(block + 32, right, 32);
    compress(iv, block, BLOCK_BYTES, 0, PARENT | flags, out);
}

/* A finished chunk merges with as many left neighbours as its index has trailing ones. */
static void push_chunk(struct hash *h)
{
    uint32_t cv[8];
    compress(h->cv, h->block, h->block_len, h->chunk, chunk_flags(h) | CHUNK_END, cv);
    h->chunk++;
    for (uint64_t n = h->chunk; (n & 1) == 0; n >>= 1)
        parent(h->stack[--h->depth], cv, 0, cv);
    memcpy(h->stack[h->depth++], cv, sizeof cv);
    start_chunk(h);
}

void hash_update(struct hash *h, const void *p, size_t n)
{
    const uint8_t *u = p;
    while (n > 0) {
        /* A full block is only compressed when more input follows: the last one carries the end flags. */
        if (h->block_len == BLOCK_BYTES) {
            if (h->blocks == CHUNK_BYTES / BLOCK_BYTES - 1) {
                push_chunk(h);
            } else {
                compress(h->cv, h->block, BLOCK_BYTES, h->chunk, chunk_flags(h), h->cv);
                h->blocks++;
                h->block_len = 0;
                memset(h->block, 0, sizeof h->block);
            }
        }
        size_t take = BLOCK_BYTES - h->block_len;
        if (take > n)
            take = n;
        memcpy(h->block + h->block_len, u, take);
        h->block_len = (uint8_t)(h->block_len + take);
        u += take;
        n -= take;
    }
}

void hash_final(const struct hash *h, uint8_t out[HASH_BYTES])
{
    uint32_t cv[8];
    uint32_t root = h->depth == 0 ? ROOT : 0;
    compress(h->cv, h->block, h->block_len, h->chunk, chunk_flags(h) | CHUNK_END | root, cv);
    for (int i = h->depth - 1; i >= 0; i--)
        parent(h->stack[i], cv, i == 0 ? ROOT : 0, cv);
    memcpy(out, cv, HASH_BYTES);
}

void hash_once(const void *p, size_t n, uint8_t out[HASH_BYTES])
{
    struct hash h;
    hash_init(&h);
    hash_update(&h, p, n);
    hash_final(&h, out);
}
