/* dyn_record: the records by which frontends find a worker, and their keys: instance, event channel, event source.
 *
 * Owns     the buffers of a record belong to the caller until dyn_store_publish.
 * Units    -
 * States   -
 * Threads  any.
 * Errors   an allocation that failed shows in key.failed or value.failed; dyn_store_publish refuses such a record.
 * Bounds   O(length).
 * Source   NVIDIA Dynamo 1.6.1: discovery records.
 */
#ifndef STATOR_DYN_RECORD_H
#define STATOR_DYN_RECORD_H

#include "buf.h"
#include "dyn_store.h"

#include <stdint.h>

/* Who this worker is. Strings are borrowed. */
struct dyn_self {
    const char *name_space, *component; /* "dynamo", "backend" */
    const char *endpoint;               /* "generate" */
    uint64_t instance;
    const char *address; /* of the request plane, as frontends reach it: "10.0.0.1:4000", "[::1]:4000" */
    const char *device;  /* "cpu" or "cuda" */
};

/* "<instance hex>/namespace/component/endpoint": the path of an endpoint in request frames. endpoint NULL: the worker's own. */
void dyn_record_path(struct buf *out, const struct dyn_self *self, const char *endpoint);
/* "namespace/component/endpoint/<instance hex>": the key of instances and cards. */
void dyn_record_key(struct buf *out, const struct dyn_self *self, const char *endpoint);
/* bucket v1/instances. endpoint NULL: the worker's own; otherwise a further one, as that of the recovery of events. */
void dyn_record_instance(struct dyn_record *out, const struct dyn_self *self, const char *endpoint);
/* bucket v1/event_channels: where to subscribe to `topic`; `zmq_address` as "tcp://10.0.0.1:4001". */
void dyn_record_event_channel(struct dyn_record *out, const struct dyn_self *self, const char *topic,
                              uint64_t publisher, const char *zmq_address);
/* bucket v1/event_sources: whose events they are; `recovery_endpoint` is asked for those that were missed, NULL: none. */
void dyn_record_event_source(struct dyn_record *out, const struct dyn_self *self, const char *topic,
                             uint64_t publisher, const char *recovery_endpoint);

#endif
