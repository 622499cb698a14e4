/* cache_path: where ./test and ./run keep what they fetched (data.sh, run).
 *
 * Owns     nothing.
 * Units    -
 * States   -
 * Threads  any.
 * Errors   a path that does not fit is cut; then there is no such file.
 * Bounds   -
 * Source   -
 */
#ifndef STATOR_TEST_CACHE_PATH_H
#define STATOR_TEST_CACHE_PATH_H

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

/* `file` is relative to the cache's folder; "" is the folder itself. Returns `out`. */
static inline const char *cache_path(char *out, size_t n, const char *file)
{
    const char *cache = getenv("STATOR_CACHE"), *home = getenv("HOME"), *slash = *file ? "/" : "";
    if (cache)
        snprintf(out, n, "%s%s%s", cache, slash, file);
    else
        snprintf(out, n, "%s/.cache/stator%s%s", home ? home : "/root", slash, file);
    return out;
}

#endif
