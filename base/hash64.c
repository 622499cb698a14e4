/* For names that others compute as well. What must not be forged is named by hash.h. */
#include "hash64.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t hash64(const void *p, size_t n, uint64_t seed)
{
    return XXH3_64bits_withSeed(p, n, seed);
}

uint64_t hash64_salt(const void *salt, size_t n)
{
    return n ? hash64(salt, n, 1) : 0;
}
