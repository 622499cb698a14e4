/* dyn_store: keeps this worker's records in the store that frontends watch: a folder of files, or etcd.
 *
 * Owns     its thread, the connection to the store, and copies of the records.
 * Units    ms.
 * States   open -> publish* -> settle -> ... -> withdraw -> close. What was published is kept there: refreshed within the store's
 *          time to live, and written again when the store lost it or was away.
 * Threads  open, settle, withdraw and close: main; the last three wait. publish and registered: any thread, they do not.
 * Errors   open: ST_EINVAL, ST_EIO with the folder or address. publish: ST_AGAIN when DYN_RECORDS_MAX are waiting, ST_ENOMEM.
 *          settle: ST_ETIMEOUT with what the store said last; it goes on trying. A store that fails later is logged and tried
 *          again, for ever.
 * Bounds   DYN_RECORDS_MAX records; one call to the store takes DYN_STORE_CALL_MS at most.
 * Source   NVIDIA Dynamo 1.6.1: discovery over KV stores.
 */
#ifndef STATOR_DYN_STORE_H
#define STATOR_DYN_STORE_H

#include "buf.h"
#include "dyn_curl.h"
#include "status.h"

#include <stdbool.h>
#include <stdint.h>

enum { DYN_RECORDS_MAX = 32, DYN_STORE_CALL_MS = 3000, DYN_STORE_TTL_S = 10 };

enum dyn_bucket { DYN_INSTANCES, DYN_CARDS, DYN_EVENT_CHANNELS, DYN_EVENT_SOURCES, DYN_BUCKETS };

/* A record: JSON under a key. dyn_record.h makes them. */
struct dyn_record {
    enum dyn_bucket bucket;
    struct buf key, value;
};

struct dyn_store_options {
    const char *backend;         /* "file" or "etcd" */
    const char *folder;          /* file */
    const char *endpoints;       /* etcd: "http://host:2379,http://other:2379" */
    const char *user, *password; /* etcd; NULL: none */
    struct dyn_curl_tls tls;     /* etcd */
    uint64_t instance;           /* not 0; also the number of etcd's lease */
};

struct dyn_store;

int dyn_store_open(struct dyn_store **out, const struct dyn_store_options *o, struct err *e);
/* Withdraws and waits as dyn_store_withdraw. NULL ok. */
void dyn_store_close(struct dyn_store *s);

/* The store takes key and value over, whatever the result; a record of the same bucket and key is replaced. */
int dyn_store_publish(struct dyn_store *s, struct dyn_record *r);
/* Waits until all that was published stands in the store. */
int dyn_store_settle(struct dyn_store *s, uint32_t timeout_ms, struct err *e);
/* Takes everything out, last published first, and publishes nothing any more. */
void dyn_store_withdraw(struct dyn_store *s, uint32_t timeout_ms);
/* All records stand there as far as we know: none was found missing, and their time to live has not run out since. */
bool dyn_store_registered(const struct dyn_store *s);

uint64_t dyn_store_random_instance(void); /* within 1..2^63-1 */

#endif
