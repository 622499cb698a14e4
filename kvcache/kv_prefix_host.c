/* The host tier: which slot holds a copy of which identity. It is a second place for what the device may lose, so it hangs on
 * the same nodes, ranks by the same expiry, and never decides what the device evicts.
 *
 *   save_begin: FREE -> LANDING          save_end: LANDING -> COPY, or FREE when the copy failed
 *   pinned (a load reads it): stays      not pinned: in `order`, whose least goes when a slot is wanted
 *
 * It need not be prefix-closed. A copy whose parents are in neither tier cannot be matched, but is found again when they have
 * been computed again; nobody has to hunt for it, it expires. Leaves still go first, as their rank says so.
 *
 * A save holds its block and the path to it by ordinary pins. So no rule has an exception for copies: what is being read is
 * pinned, a pinned block's parent is pinned, and what is not pinned can be had.
 *
 * A save of a cached block must not push out what is wanted longer. Without that, a tier smaller than the cached blocks would
 * drop one block's copy for another's, find the first unsaved again, and never come to rest; with it, every save replaces a
 * copy by one that is wanted longer, and there are finitely many. Blocks in use have no such rank to compare: they are saved
 * because their owner may be preempted, and who asks for that has decided. */
#include "kv_prefix_state.h"

#include "mem.h"

#include <assert.h>

int kv_prefix_host_init(struct kv_prefix *x, uint32_t n_host, struct err *e)
{
    struct kv_host *h = &x->host;
    int rc = heap_create(&h->order, n_host, e);
    if (rc != ST_OK)
        return rc;
    h->slots = mem_zalloc(n_host, sizeof *h->slots);
    if (!h->slots)
        return err_set(e, ST_ENOMEM, "host tier: no memory for %u slots", n_host);
    h->n = h->n_free = n_host;
    for (uint32_t i = 0; i < n_host; i++)
        h->slots[i].node = i + 1 < n_host ? i + 1 : KV_NONE;
    return ST_OK;
}

void kv_prefix_host_fini(struct kv_prefix *x)
{
    struct kv_host *h = &x->host;
    assert(h->n_free + h->n_copies == h->n && (!h->order || heap_size(h->order) == h->n_copies));
    heap_destroy(h->order);
    mem_free(h->slots);
}

void kv_prefix_host_rank(struct kv_prefix *x, const struct kv_node *node)
{
    if (node->slot != KV_NONE && heap_contains(x->host.order, node->slot))
        heap_update(x->host.order, node->slot, node->expiry_ns, node->order);
}

/* In `order` again, once it is a copy that nobody reads. */
static void rest(struct kv_prefix *x, uint32_t slot)
{
    const struct kv_node *n = &x->nodes[x->host.slots[slot].node];
    heap_push(x->host.order, slot, n->expiry_ns, n->order);
}

static void free_slot(struct kv_prefix *x, uint32_t slot)
{
    struct kv_host *h = &x->host;
    assert(h->slots[slot].pins == 0);
    h->slots[slot].state = KV_SLOT_FREE;
    h->slots[slot].node = h->free_head;
    h->free_head = slot;
    h->n_free++;
}

/* The node loses its slot, complete or landing. */
static void free_copy(struct kv_prefix *x, uint32_t slot)
{
    uint32_t node = x->host.slots[slot].node;
    if (x->events)
        kv_events_lost(x->events, node, KV_TIER_HOST);
    x->nodes[node].slot = KV_NONE;
    free_slot(x, slot);
    kv_prefix_settle(x, node);
}

/* For `cached`, if given, only what precedes it in rank has to go. */
static uint32_t take_slot(struct kv_prefix *x, const struct kv_node *cached)
{
    struct kv_host *h = &x->host;
    if (h->n_free == 0) {
        uint32_t old = heap_peek(h->order);
        if (old == KV_NONE)
            return KV_NONE;
        const struct kv_node *n = &x->nodes[h->slots[old].node];
        if (cached && (n->expiry_ns > cached->expiry_ns ||
                       (n->expiry_ns == cached->expiry_ns && n->order > cached->order)))
            return KV_NONE;
        heap_remove(h->order, old);
        h->n_copies--;
        free_copy(x, old);
    }
    uint32_t slot = h->free_head;
    h->free_head = h->slots[slot].node;
    h->n_free--;
    return slot;
}

uint32_t kv_prefix_find_host(const struct kv_prefix *x, const struct kv_id *id)
{
    uint32_t node = kv_prefix_node(x, id);
    uint32_t slot = node == KV_NONE ? KV_NONE : x->nodes[node].slot;
    return slot == KV_NONE || x->host.slots[slot].state != KV_SLOT_COPY ? KV_NONE : slot;
}

bool kv_prefix_save_begin(struct kv_prefix *x, uint32_t block, uint32_t *slot_out)
{
    uint32_t node = x->block_node[block];
    assert(node != KV_NONE && x->nodes[node].slot == KV_NONE);
    bool cached = kv_pool_state(x->pool, block) == KV_CACHED;
    uint32_t slot = take_slot(x, cached ? &x->nodes[node] : NULL);
    if (slot == KV_NONE)
        return false;
    for (uint32_t n = node; n != KV_NONE; n = x->nodes[n].parent)
        kv_prefix_pin(x, x->nodes[n].block);
    x->nodes[node].slot = slot;
    x->host.slots[slot] = (struct kv_slot){.node = node, .state = KV_SLOT_LANDING};
    *slot_out = slot;
    return true;
}

void kv_prefix_save_end(struct kv_prefix *x, uint32_t block, uint32_t slot, bool ok)
{
    struct kv_slot *s = &x->host.slots[slot];
    uint32_t node = x->block_node[block];
    assert(s->state == KV_SLOT_LANDING && s->node == node);
    if (ok) {
        s->state = KV_SLOT_COPY;
        x->host.n_copies++;
        rest(x, slot);
        if (x->events)
            kv_events_copied(x->events, node);
    } else {
        free_copy(x, slot);
    }
    for (uint32_t n = node; n != KV_NONE; n = x->nodes[n].parent)
        kv_prefix_unpin(x, x->nodes[n].block);
}

bool kv_prefix_saved(const struct kv_prefix *x, uint32_t block)
{
    assert(x->block_node[block] != KV_NONE);
    return x->nodes[x->block_node[block]].slot != KV_NONE;
}

uint32_t kv_prefix_next_unsaved(const struct kv_prefix *x)
{
    return heap_peek(x->unsaved);
}

uint32_t kv_prefix_unsaved_parent(const struct kv_prefix *x, uint32_t block)
{
    uint32_t parent = x->nodes[x->block_node[block]].parent;
    uint32_t b = parent == KV_NONE ? KV_NONE : x->nodes[parent].block;
    return b != KV_NONE && heap_contains(x->unsaved, b) ? b : KV_NONE;
}

uint32_t kv_prefix_clean(const struct kv_prefix *x)
{
    return x->host.n ? kv_pool_cached(x->pool) - heap_size(x->unsaved) : 0;
}

void kv_prefix_host_pin(struct kv_prefix *x, uint32_t slot)
{
    struct kv_slot *s = &x->host.slots[slot];
    assert(s->state == KV_SLOT_COPY || s->state == KV_SLOT_PRIVATE);
    if (s->pins++ == 0 && s->state == KV_SLOT_COPY)
        heap_remove(x->host.order, slot);
}

void kv_prefix_host_unpin(struct kv_prefix *x, uint32_t slot)
{
    struct kv_slot *s = &x->host.slots[slot];
    assert(s->pins > 0);
    if (--s->pins == 0 && s->state == KV_SLOT_COPY)
        rest(x, slot);
}

int kv_prefix_host_take(struct kv_prefix *x, uint32_t *slot_out)
{
    uint32_t slot = take_slot(x, NULL);
    if (slot == KV_NONE)
        return ST_NOSPACE;
    x->host.slots[slot] = (struct kv_slot){.node = KV_NONE, .state = KV_SLOT_PRIVATE};
    *slot_out = slot;
    return ST_OK;
}

void kv_prefix_host_give(struct kv_prefix *x, uint32_t slot)
{
    assert(x->host.slots[slot].state == KV_SLOT_PRIVATE);
    free_slot(x, slot);
}

uint32_t kv_prefix_host_total(const struct kv_prefix *x)
{
    return x->host.n;
}

uint32_t kv_prefix_host_free(const struct kv_prefix *x)
{
    return x->host.n_free;
}

uint32_t kv_prefix_host_cached(const struct kv_prefix *x)
{
    return x->host.n_copies;
}

static bool check_slot(const struct kv_prefix *x, uint32_t i, const char **why)
{
    const struct kv_slot *s = &x->host.slots[i];
    bool resting = s->state == KV_SLOT_COPY && s->pins == 0;
    *why = "a host copy is not where copies are evicted from, or another slot is";
    if (heap_contains(x->host.order, i) != resting)
        return false;
    *why = "a free or landing host slot has pins";
    if (s->pins > 0 && (s->state == KV_SLOT_FREE || s->state == KV_SLOT_LANDING))
        return false;
    if (s->state != KV_SLOT_COPY && s->state != KV_SLOT_LANDING)
        return true;
    const struct kv_node *n = &x->nodes[s->node];
    *why = "a host copy is not found under its id";
    if (s->node >= x->n_nodes || n->slot != i || kv_prefix_node(x, &n->id) != s->node)
        return false;
    *why = "a block that is being saved is not pinned";
    if (s->state == KV_SLOT_LANDING &&
        (n->block == KV_NONE || kv_pool_state(x->pool, n->block) != KV_PINNED_INDEXED))
        return false;
    *why = "a host copy ranks by another expiry than its node's";
    return !resting || (heap_key(x->host.order, i) == n->expiry_ns && heap_tie(x->host.order, i) == n->order);
}

bool kv_prefix_host_check(const struct kv_prefix *x, const char **why)
{
    const struct kv_host *h = &x->host;
    uint32_t count[4] = {0}, taken = 0, n_free = 0;
    for (uint32_t i = 0; i < h->n; i++) {
        if (!check_slot(x, i, why))
            return false;
        count[h->slots[i].state]++;
    }
    for (uint32_t i = 0; i < x->n_nodes; i++)
        taken += x->nodes[i].slot != KV_NONE && kv_prefix_node(x, &x->nodes[i].id) == i;
    *why = "the nodes and the host slots disagree";
    if (taken != count[KV_SLOT_LANDING] + count[KV_SLOT_COPY])
        return false;
    *why = "the host tier's counters disagree with its slots";
    if (count[KV_SLOT_FREE] != h->n_free || count[KV_SLOT_COPY] != h->n_copies)
        return false;
    *why = "the host tier's free list is broken";
    for (uint32_t i = h->free_head; n_free < h->n_free; i = h->slots[i].node, n_free++)
        if (i >= h->n || h->slots[i].state != KV_SLOT_FREE)
            return false;
    return true;
}
