/* dyn_worker: this process as a backend worker of an NVIDIA Dynamo deployment: the request plane, the feed of cache events and
 * the records by which frontends find both, put together.
 *
 * Owns     plane, endpoint, feed, store. Borrows the ledger and its engine, and all strings of the options.
 * Units    ns, ms.
 * States   create (nobody knows of us yet) -> run, each turn of the io loop -> publish -> withdraw -> drain -> stop -> destroy.
 *          Publish only once the loop runs: frontends call at once.
 * Threads  run, drain, stop, idle: the io thread. The others: main; create before the loop runs, destroy after it ended.
 * Errors   create, publish: with a text that names what could not be had.
 * Bounds   those of its parts.
 * Source   NVIDIA Dynamo 1.6.1.
 */
#ifndef STATOR_DYN_WORKER_H
#define STATOR_DYN_WORKER_H

#include "dyn_count.h"
#include "dyn_record.h"
#include "dyn_request.h"
#include "dyn_status.h"
#include "dyn_store.h"
#include "ledger.h"

#include <stdbool.h>

struct dyn_worker;

struct dyn_worker_options {
    const char *name_space, *component, *endpoint; /* "dynamo", "backend", "generate" */
    const char *device;                            /* "cpu" or "cuda" */
    int listen_fd;    /* of the request plane: bound, listening; taken, also when create fails */
    const char *host; /* that frontends reach it by, and its port */
    uint16_t port;
    const char *event_host;         /* that routers reach the events by */
    struct dyn_store_options store; /* instance: set here */
    struct dyn_request_limits limits;
    struct ledger *ledger; /* of an engine that tells its cache's events (dyn_feed.h) */
    const struct dyn_status_options *status; /* NULL: no status server. What of it this module knows is set here */
};

int dyn_worker_create(struct dyn_worker **out, const struct dyn_worker_options *o, struct err *e);
void dyn_worker_destroy(struct dyn_worker *w); /* NULL ok; withdraws */
const struct dyn_self *dyn_worker_self(const struct dyn_worker *w);
const struct dyn_count *dyn_worker_count(const struct dyn_worker *w); /* the io thread's */
/* The instance, and the model's card (taken, whatever the result): from now on requests come. Waits for the store. */
int dyn_worker_publish(struct dyn_worker *w, struct dyn_record *card, struct err *e);
void dyn_worker_withdraw(struct dyn_worker *w); /* nobody finds us any more; waits for the store */

/* For struct http_side. */
int dyn_worker_fd(const struct dyn_worker *w);
int dyn_worker_run(void *w, int64_t now_ns);
void dyn_worker_drain(void *w, int64_t now_ns);
void dyn_worker_stop(void *w);
bool dyn_worker_idle(void *w);

#endif
