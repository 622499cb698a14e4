/* dyn_store_state: (internal) what dyn_store.c needs of a kind of store. */
#ifndef STATOR_DYN_STORE_STATE_H
#define STATOR_DYN_STORE_STATE_H

#include "dyn_store.h"

/* Called on the store's thread only, but for open and close. Every call ends within DYN_STORE_CALL_MS per server. */
struct dyn_store_kind {
    int (*open)(void **ctx, const struct dyn_store_options *o, struct err *e);
    /* Once per round, before the records: makes sure that what ensure writes will live for DYN_STORE_TTL_S from now on. */
    int (*begin)(void *ctx, struct err *e);
    /* After ST_OK the record stands in the store. `written`: it did once before. */
    int (*ensure)(void *ctx, const struct dyn_record *r, bool written, struct err *e);
    /* Takes all of them out, the last one first. */
    int (*withdraw)(void *ctx, const struct dyn_record *r, uint32_t n, struct err *e);
    void (*close)(void *ctx);
};

extern const struct dyn_store_kind dyn_store_file, dyn_store_etcd;

extern const char *const dyn_store_buckets[DYN_BUCKETS]; /* "v1/instances", ... */

#endif
