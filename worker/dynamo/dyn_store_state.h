/* dyn_store_state: (internal) what dyn_store.c needs of a kind of store. */
#ifndef STATOR_DYN_STORE_STATE_H
#define STATOR_DYN_STORE_STATE_H

#include "dyn_store.h"

/* Called on the store's thread only, but for open and close. Each asks the store for DYN_STORE_CALL_MS at most. */
struct dyn_store_kind {
    int (*open)(void **ctx, const struct dyn_store_options *o, struct err *e);
    /* What stands there lives for DYN_STORE_TTL_S from now on, if find sees it as well. `alive`, also where that fails: something
     * may stand there. */
    int (*keep)(void *ctx, bool *alive, struct err *e);
    /* Where keep went well and nothing does: what is written from now on lives. NULL: that never is. */
    int (*renew)(void *ctx, struct err *e);
    /* `stands`, of each record: it is there as it is here, and is ours. */
    int (*find)(void *ctx, const struct dyn_record *r, uint32_t n, bool *stands, struct err *e);
    /* Right after find, the same records: those that do not stand there do so after ST_OK. */
    int (*write)(void *ctx, const struct dyn_record *r, uint32_t n, const bool *stands, struct err *e);
    /* Takes all of them out, the last one first. */
    int (*withdraw)(void *ctx, const struct dyn_record *r, uint32_t n, struct err *e);
    void (*close)(void *ctx);
};

extern const struct dyn_store_kind dyn_store_file, dyn_store_etcd;

extern const char *const dyn_store_buckets[DYN_BUCKETS]; /* "v1/instances", ... */

#endif
