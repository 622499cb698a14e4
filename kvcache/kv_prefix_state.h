/* kv_prefix_state: (internal) the index as kv_prefix.c (identities, device) and kv_prefix_host.c (host tier) share it.
 *
 *   table[h] -> node = { id, block, slot, ... }      block_node[block] -> node      slots[slot].node -> node
 */
#ifndef STATOR_KV_PREFIX_STATE_H
#define STATOR_KV_PREFIX_STATE_H

#include "heap.h"
#include "kv_event.h"
#include "kv_prefix.h"

/* One identity, as long as either tier has a copy. (expiry, order) is its rank wherever somebody has to go. */
struct kv_node {
    struct kv_id id;
    uint32_t block;    /* KV_NONE: no device copy */
    uint32_t slot;     /* KV_NONE: no host copy, nor one on its way */
    uint32_t parent;   /* with a block: the node before it, KV_NONE: first block. Unused node: the next one */
    uint32_t children; /* nodes with blocks whose parent this is */
    int64_t expiry_ns; /* INT64_MIN: never let go */
    int64_t used_ns;   /* when let go last */
    uint64_t order;    /* running number of that, or of the node's beginning */
    bool claimed;
};

enum kv_slot_state { KV_SLOT_FREE, KV_SLOT_LANDING, KV_SLOT_COPY, KV_SLOT_PRIVATE };

struct kv_slot {
    uint32_t node; /* LANDING, COPY: whose; FREE: the next free slot */
    uint32_t pins;
    uint8_t state; /* enum kv_slot_state */
};

struct kv_host {
    struct kv_slot *slots; /* [n] */
    struct heap *order;    /* of slots: COPY, no pins */
    uint32_t n, n_free, n_copies, free_head;
};

struct kv_prefix {
    struct kv_pool *pool;
    struct kv_node *nodes; /* [n_nodes] = blocks + slots: enough if no identity has both */
    uint32_t n_nodes, n_used, free_node;
    uint32_t *table; /* [mask + 1] node or KV_NONE */
    uint64_t mask;
    uint32_t *block_node; /* [blocks], KV_NONE: not indexed */
    struct heap *leaves;  /* of blocks: CACHED, no children */
    struct heap *unsaved; /* of blocks: CACHED, no host copy; stays empty where there is no host tier */
    struct kv_host host;
    struct kv_events *events; /* NULL: nobody listens */
    uint64_t order; /* the last number given */
    int64_t now_ns, residence_ns;
    uint64_t n_evicted;
};

/* kv_prefix.c */
uint32_t kv_prefix_node(const struct kv_prefix *x, const struct kv_id *id); /* or KV_NONE */
void kv_prefix_settle(struct kv_prefix *x, uint32_t node); /* it lost a copy: it goes with the last one */

/* kv_prefix_host.c */
int kv_prefix_host_init(struct kv_prefix *x, uint32_t n_host, struct err *e);
void kv_prefix_host_fini(struct kv_prefix *x);
void kv_prefix_host_rank(struct kv_prefix *x, const struct kv_node *node); /* its rank changed */
bool kv_prefix_host_check(const struct kv_prefix *x, const char **why);

#endif
