/* kv_event: what the index gains and loses, told to one other thread, by names that other programs compute from tokens alone.
 *
 * Owns     a ring of events and a record per node of the index.
 * Units    a node is the number of an identity while either tier has a copy of it: below kv_events_nodes, then given to another.
 * States   in step: each change is an event. The ring was full: behind. Then CLEARED takes all back, and what there is is told
 *          anew, as fast as the other thread makes room, between changes; after that in step again.
 * Threads  pop, fd, sleep, drain_fd, behind: the other thread. The rest: the engine's.
 * Errors   create: ST_ENOMEM. Nothing else fails, and nothing waits.
 * Bounds   `capacity` events. A change costs two short hashes and a push; being behind, a flush tells FLUSH_MAX blocks at most.
 *          No allocation after create.
 * Source   The names are those of NVIDIA Dynamo's router: content = XXH3-64 of the block's tokens as little-endian words, with
 *          seed + the sequence's salt_tag; name = content for a first block, else XXH3-64(parent's name, content) with seed.
 */
#ifndef STATOR_KV_EVENT_H
#define STATOR_KV_EVENT_H

#include "status.h"

#include <stdbool.h>
#include <stdint.h>

struct kv_events;

enum kv_tier { KV_TIER_DEVICE, KV_TIER_HOST, KV_TIERS };
enum kv_event_type { KV_STORED = 1, KV_REMOVED, KV_CLEARED };

/* On the device a block is STORED after its parent and, in step, REMOVED before it; in the host tier in any order. Never stored
 * twice in one tier without a REMOVED or CLEARED between, never removed without being there. CLEARED is of all tiers. */
struct kv_event {
    uint8_t type, tier; /* enum kv_event_type, enum kv_tier */
    bool first;         /* STORED: has no parent */
    uint32_t node;
    uint32_t parent; /* STORED on the device: the parent's node; KV_NONE for a first block */
    uint64_t content, name, parent_name; /* STORED; parent_name 0 for a first block */
};

struct kv_event_options {
    uint32_t capacity; /* events; 0: nobody listens */
    uint64_t seed;
};

int kv_events_create(struct kv_events **out, uint32_t n_nodes, const struct kv_event_options *o,
                     struct err *e);
void kv_events_destroy(struct kv_events *v); /* NULL ok */
uint32_t kv_events_nodes(const struct kv_events *v);

/* The node has a block now, of `n` tokens, behind the block of `parent` (KV_NONE: none). */
void kv_events_indexed(struct kv_events *v, uint32_t node, uint32_t parent, const int32_t *tokens, uint32_t n,
                       uint64_t salt_tag);
/* A node that was indexed before has a host copy. */
void kv_events_copied(struct kv_events *v, uint32_t node);
/* The node lost its copy in this tier; one that was on its way is no loss. */
void kv_events_lost(struct kv_events *v, uint32_t node, enum kv_tier tier);
/* Wakes the other thread if there is anything new; goes on telling anew. Once per turn of the engine. */
void kv_events_flush(struct kv_events *v);

bool kv_events_pop(struct kv_events *v, struct kv_event *out);
bool kv_events_behind(const struct kv_events *v); /* the next flush, once there is room, has more */
int kv_events_fd(const struct kv_events *v);      /* with sleep and drain_fd as in ring.h */
bool kv_events_sleep(struct kv_events *v);
void kv_events_drain_fd(struct kv_events *v);

#endif
