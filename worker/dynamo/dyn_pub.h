/* dyn_pub: one ZeroMQ PUB socket on which a few topics are published.
 *
 * Owns     the socket and ZeroMQ's own threads; libzmq is loaded at create, so that a worker without routers does not carry it.
 * Units    bytes.
 * States   -
 * Threads  one owner at a time; create may be elsewhere.
 * Errors   create: ST_EUNSUP without libzmq, ST_EIO with the address that could not be bound. A message that a subscriber has
 *          no room for is lost for it: it sees a gap in the numbers and asks (dyn_recovery.h).
 * Bounds   DYN_PUB_QUEUED messages per subscriber; what one says to us: DYN_PUB_HEARD_MAX bytes a message, or it is cut off.
 *          A send never waits. How many subscribe, and to how many topics, is in ZeroMQ's hands and has no bound: the port is
 *          for routers, and for a network in which nobody else is.
 * Source   NVIDIA Dynamo 1.6.1, observed: its event plane over ZeroMQ: topic, publisher id, sequence number, envelope.
 */
#ifndef STATOR_DYN_PUB_H
#define STATOR_DYN_PUB_H

#include "buf.h"
#include "status.h"

#include <stdint.h>

enum { DYN_PUB_QUEUED = 8192, DYN_PUB_HEARD_MAX = 256, DYN_PUB_ADDRESS_MAX = 256 };

struct dyn_pub;

/* host: an address of this machine, or NULL for all. publisher: below 2^53. */
int dyn_pub_create(struct dyn_pub **out, const char *host, uint64_t publisher, struct err *e);
void dyn_pub_destroy(struct dyn_pub *p); /* NULL ok */
uint16_t dyn_pub_port(const struct dyn_pub *p);

/* `payload` is MessagePack. `sequence`: of the topic, counting from 0. */
void dyn_pub_send(struct dyn_pub *p, const char *topic, uint64_t sequence, struct str payload);

/* The parts of a message: [4] views into `scratch`, which is reset. For dyn_pub_send and tests. */
int dyn_pub_parts(struct buf *scratch, const char *topic, uint64_t publisher, uint64_t sequence,
                  int64_t wall_ms, struct str payload, struct str parts[4]);

#endif
