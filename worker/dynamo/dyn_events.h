/* dyn_events: the cache as routers know it: events of blocks in, numbered router events out, and the tree that they add up to.
 *
 * Owns     the table of blocks and the latest changes.
 * Units    blocks; event ids count from 1, without a gap.
 * States   A change gets an id when it is taken. Changes in a row that go together (a prompt's chain, blocks evicted at once)
 *          share one, until somebody has asked for ids: what was shown is never added to.
 * Threads  one owner at a time: the io thread.
 * Errors   create: ST_ENOMEM. Writers: as the buffer says.
 * Bounds   `nodes` blocks; DYN_EVENTS_KEPT changes; DYN_EVENTS_JOINED blocks an event. After create only buffers
 *          are allocated.
 * Source   NVIDIA Dynamo 1.6.1, observed: RouterEvent. Each tier is a claim of its own: what moves to the host tier is stored
 *          there and removed from the device; what is in both was stored twice. "cleared" is of all tiers.
 */
#ifndef STATOR_DYN_EVENTS_H
#define STATOR_DYN_EVENTS_H

#include "buf.h"
#include "kv_event.h"
#include "status.h"

enum { DYN_EVENTS_KEPT = 1 << 16, DYN_EVENTS_JOINED = 256 };
/* engine_options.kv_event_seed: makes the names those of Dynamo's routers. */
enum { DYN_EVENTS_SEED = 1337 };

struct dyn_events;

int dyn_events_create(struct dyn_events **out, uint64_t worker, uint32_t n_nodes, struct err *e);
void dyn_events_destroy(struct dyn_events *d); /* NULL ok */

void dyn_events_take(struct dyn_events *d, const struct kv_event *ev);

/* Ids there are; what is taken from now on has later ones. first: the oldest that is still whole. None: first = last + 1. */
struct dyn_events_range {
    uint64_t first, last;
};
struct dyn_events_range dyn_events_range(struct dyn_events *d);
/* How many events from id `from` on, up to `last`, have no more than `n_changes` changes; at least one if there is one. */
uint64_t dyn_events_fit(const struct dyn_events *d, uint64_t from, uint64_t last, uint32_t n_changes);
/* Appends an array of the router events from..last, as MessagePack. All of them are in the range. */
void dyn_events_put(const struct dyn_events *d, uint64_t from, uint64_t last, struct buf *out);
/* Appends an array of router events, numbered from 0, that build the tree of now: parents first. */
void dyn_events_put_tree(struct dyn_events *d, struct buf *out);

/* For tests and pages. */
uint32_t dyn_events_blocks(const struct dyn_events *d, enum kv_tier tier);

#endif
