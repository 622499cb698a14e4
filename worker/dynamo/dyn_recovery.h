/* dyn_recovery: answers a router that lost events, or that has only just started.
 *
 * Owns     nothing.
 * Units    event ids.
 * States   -
 * Threads  as dyn_events.
 * Errors   A question that cannot be read is answered with {"Error": text}: routers wait for an answer, whatever it says.
 * Bounds   the tree: about 60 bytes a block and tier; events: DYN_EVENTS_KEPT changes.
 * Source   NVIDIA Dynamo 1.6.1: the query endpoint of a KV event source.
 */
#ifndef STATOR_DYN_RECOVERY_H
#define STATOR_DYN_RECOVERY_H

#include "dyn_events.h"

#include <stddef.h>

/* `events` is a struct dyn_events; the form is that of dyn_endpoint.answer. `body` and what is appended are MessagePack. */
void dyn_recovery_answer(void *events, const uint8_t *body, size_t n_body, struct buf *reply);

#endif
