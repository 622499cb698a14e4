/* dyn_feed: tells routers what this worker's cache holds and how full it is, and answers those that missed something.
 *
 * Owns     the table of blocks, the PUB socket and the publisher's id. Borrows the engine; the plane and the store in join only.
 * Units    blocks; ns.
 * States   create (binds) -> join -> run, each turn of the io loop -> destroy, after the plane.
 * Threads  the io thread; create and join before it runs.
 * Errors   create: as dyn_pub. join: as dyn_plane_serve and dyn_store_publish.
 * Bounds   a turn takes EVENTS_PER_RUN of the engine's events; a message holds about MESSAGE_CHANGES blocks. Nothing blocks.
 * Source   NVIDIA Dynamo 1.6.1, observed: topics kv-events and kv_metrics, the recovery endpoint.
 */
#ifndef STATOR_DYN_FEED_H
#define STATOR_DYN_FEED_H

#include "dyn_plane.h"
#include "dyn_record.h"
#include "dyn_store.h"
#include "status.h"

#include <stdint.h>

/* engine_options.kv_event_capacity of a worker with a feed. */
enum { DYN_FEED_CAPACITY = 1 << 16 };

struct dyn_feed;
struct engine;

struct dyn_feed_options {
    struct engine *engine; /* with engine_options.kv_event_capacity, and DYN_EVENTS_SEED */
    uint64_t worker;       /* the instance's id */
    const char *host;      /* of this machine, as routers reach it */
};

int dyn_feed_create(struct dyn_feed **out, const struct dyn_feed_options *o, struct err *e);
void dyn_feed_destroy(struct dyn_feed *f); /* NULL ok */
/* Serves the recovery endpoint on the plane and publishes the records by which routers find all this. */
int dyn_feed_join(struct dyn_feed *f, const struct dyn_self *self, struct dyn_plane *p, struct dyn_store *s,
                  struct err *e);

int dyn_feed_fd(
    const struct dyn_feed *f); /* readable when the engine has events; -1: it was told not to have any */
/* Publishes what there is; ms until it must be called again even if the fd stays silent. */
int dyn_feed_run(struct dyn_feed *f, int64_t now_ns);

#endif
