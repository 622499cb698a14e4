/* keys: the API keys that clients may carry: --api-key and the lines of --api-key-file.
 *
 * Owns     the file's text, of which the keys are parts. Borrows the flag's.
 * Units    bytes.
 * States   zeroed -> load -> fini; a failed load is safe to fini.
 * Threads  main loads, any thread reads.
 * Errors   ST_EIO, ST_EINVAL (no key, or too many), naming flag and file.
 * Bounds   KEYS_MAX keys, a file of 1 MiB.
 * Source   -
 */
#ifndef STATOR_KEYS_H
#define STATOR_KEYS_H

#include "buf.h"
#include "status.h"

#include <stdint.h>

enum { KEYS_MAX = 1024 };

struct keys {
    struct buf text;
    struct str list[KEYS_MAX]; /* [n] */
    uint32_t n;
};

/* Either may be NULL. */
int keys_load(struct keys *k, const char *key, const char *file, struct err *e);
void keys_fini(struct keys *k);

#endif
