/* The index changes on one thread; another tells the world. Between them is a bounded ring, and the one thing that must not
 * happen is that the engine waits for it. So the ring may be full, and then what?
 *
 * Each node has a record: its names, which tiers have it (`has`), and which of that the other side was told (`told`). While the
 * two agree, a change is an event and that is all. When an event finds the ring full, nothing of what was told counts any more:
 * CLEARED is sent as soon as there is room, and a scan over the records tells what there is, a piece per flush, each block after
 * its ancestors. Changes go on meanwhile: what is not told yet needs no event to be taken back, and what comes is told at once
 * if its parent was; if not, the scan makes another round. The other side never sees any of this: it sees events whose order
 * always makes sense, and once in a rare while a CLEARED.
 *
 * The names are computed here, not by the listener: two hashes of some ns each, against sending every block's tokens; and only
 * so can they be told again, for the index does not keep tokens. They are 64 bits of a quick hash, so they are names for
 * strangers and nothing in here trusts them: inside, identities count (kv_hash.h).
 *
 * Rejected: waiting for room (a slow listener would stop the model); a list of changed nodes without order (children before
 * parents); a lock around the index for a listener that reads it (an eviction under the step's critical path would wait). */
#include "kv_event.h"

#include "hash64.h"
#include "kv_pool.h"
#include "mem.h"
#include "ring.h"

#include <assert.h>
#include <stdatomic.h>
#include <string.h>

enum { FLUSH_MAX = 1024 };

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "tokens and names are hashed as they stand in memory");

struct record {
    uint64_t content, name, parent_name;
    uint32_t parent; /* with a block: its parent's node, or KV_NONE */
    uint32_t below;  /* scratch of tell_path */
    bool first;
};

struct kv_events {
    struct ring *ring;
    struct record *records; /* [n_nodes] */
    uint8_t *has, *told;    /* [n_nodes] a bit per tier */
    uint32_t n_nodes;
    uint64_t seed, capacity, pushed, announced;
    bool clear_due; /* CLEARED waits for room, and until then nothing is told */
    bool again;     /* the scan passed by something that it has to tell */
    uint32_t scan;
    _Atomic bool behind;
    _Atomic uint64_t popped;
};

int kv_events_create(struct kv_events **out, uint32_t n_nodes, const struct kv_event_options *o,
                     struct err *e)
{
    struct kv_events *v = mem_zalloc(1, sizeof *v);
    if (v) {
        v->n_nodes = n_nodes;
        v->seed = o->seed;
        for (v->capacity = 2; v->capacity < o->capacity;)
            v->capacity *= 2;
        v->records = mem_zalloc(n_nodes, sizeof *v->records);
        v->has = mem_zalloc(n_nodes, 1);
        v->told = mem_zalloc(n_nodes, 1);
        if (v->records && v->has && v->told &&
            ring_create(&v->ring, (uint32_t)v->capacity, sizeof(struct kv_event)) == ST_OK) {
            *out = v;
            return ST_OK;
        }
    }
    kv_events_destroy(v);
    return err_set(e, ST_ENOMEM, "KV events: no memory for %u blocks and %u events", n_nodes, o->capacity);
}

void kv_events_destroy(struct kv_events *v)
{
    if (!v)
        return;
    ring_destroy(v->ring);
    mem_free(v->records);
    mem_free(v->has);
    mem_free(v->told);
    mem_free(v);
}

uint32_t kv_events_nodes(const struct kv_events *v)
{
    return v->n_nodes;
}

/* ---- engine thread: in step --------------------------------------------------------------------------------------------- */

static bool push(struct kv_events *v, const struct kv_event *ev)
{
    if (ring_push_quiet(v->ring, ev) != ST_OK)
        return false;
    v->pushed++;
    return true;
}

static void fall_behind(struct kv_events *v)
{
    memset(v->told, 0, v->n_nodes);
    v->clear_due = true;
    atomic_store(&v->behind, true);
}

static bool push_stored(struct kv_events *v, uint32_t node, enum kv_tier tier)
{
    const struct record *r = &v->records[node];
    const struct kv_event ev = {.type = KV_STORED,
                                .tier = (uint8_t)tier,
                                .first = r->first,
                                .node = node,
                                .parent = tier == KV_TIER_DEVICE ? r->parent : KV_NONE,
                                .content = r->content,
                                .name = r->name,
                                .parent_name = r->parent_name};
    if (!push(v, &ev))
        return false;
    v->told[node] |= (uint8_t)(1u << tier);
    return true;
}

static bool knows_block(const struct kv_events *v, uint32_t node)
{
    return v->told[node] >> KV_TIER_DEVICE & 1;
}

static void tell_stored(struct kv_events *v, uint32_t node, enum kv_tier tier)
{
    uint32_t parent = v->records[node].parent;
    v->has[node] |= (uint8_t)(1u << tier);
    if (v->clear_due)
        return;
    if (tier == KV_TIER_DEVICE && parent != KV_NONE && !knows_block(v, parent))
        v->again = true;
    else if (!push_stored(v, node, tier))
        fall_behind(v);
}

static void name(const struct kv_events *v, struct record *r, uint32_t parent, uint64_t content)
{
    *r = (struct record){.content = content, .name = content, .first = parent == KV_NONE};
    if (r->first)
        return;
    r->parent_name = v->records[parent].name;
    const uint64_t link[2] = {r->parent_name, content};
    r->name = hash64(link, sizeof link, v->seed);
}

void kv_events_indexed(struct kv_events *v, uint32_t node, uint32_t parent, const int32_t *tokens, uint32_t n,
                       uint64_t salt_tag)
{
    struct record *r = &v->records[node];
    assert(!(v->has[node] >> KV_TIER_DEVICE & 1));
    if (!v->has[node])
        name(v, r, parent, hash64(tokens, (size_t)n * sizeof *tokens, v->seed + salt_tag));
    r->parent = parent;
    tell_stored(v, node, KV_TIER_DEVICE);
}

void kv_events_copied(struct kv_events *v, uint32_t node)
{
    assert(v->has[node] >> KV_TIER_DEVICE & 1);
    tell_stored(v, node, KV_TIER_HOST);
}

void kv_events_lost(struct kv_events *v, uint32_t node, enum kv_tier tier)
{
    uint8_t bit = (uint8_t)(1u << tier);
    v->has[node] &= (uint8_t)~bit;
    if (!(v->told[node] & bit))
        return;
    v->told[node] &= (uint8_t)~bit;
    if (!push(v,
              &(struct kv_event){.type = KV_REMOVED, .tier = (uint8_t)tier, .node = node, .parent = KV_NONE}))
        fall_behind(v);
}

/* ---- engine thread: behind ---------------------------------------------------------------------------------------------- */

/* Half of the ring is left to changes: one that found it full would start all this over. */
static bool room(const struct kv_events *v)
{
    return v->pushed - atomic_load(&v->popped) <= v->capacity / 2;
}

/* The block of `node` with all ancestors' that were not told, from the top; false: no room. */
static bool tell_path(struct kv_events *v, uint32_t node)
{
    uint32_t top = node;
    v->records[node].below = KV_NONE;
    for (uint32_t up = v->records[top].parent; up != KV_NONE && !knows_block(v, up);
         up = v->records[top].parent) {
        v->records[up].below = top;
        top = up;
    }
    for (; top != KV_NONE; top = v->records[top].below)
        if (!room(v) || !push_stored(v, top, KV_TIER_DEVICE))
            return false;
    return true;
}

static bool tell_node(struct kv_events *v, uint32_t node)
{
    uint8_t missing = v->has[node] & (uint8_t)~v->told[node];
    if (missing >> KV_TIER_DEVICE & 1 && !tell_path(v, node))
        return false;
    return !(missing >> KV_TIER_HOST & 1) || push_stored(v, node, KV_TIER_HOST);
}

static void catch_up(struct kv_events *v)
{
    if (v->clear_due) {
        if (!room(v) || !push(v, &(struct kv_event){.type = KV_CLEARED, .node = KV_NONE, .parent = KV_NONE}))
            return;
        v->clear_due = v->again = false;
        v->scan = 0;
    }
    uint64_t end = v->pushed + FLUSH_MAX;
    while (v->scan < v->n_nodes) {
        if (!room(v) || v->pushed >= end || !tell_node(v, v->scan))
            return;
        if (++v->scan == v->n_nodes && v->again) {
            v->again = false;
            v->scan = 0;
        }
    }
    atomic_store(&v->behind, false);
}

void kv_events_flush(struct kv_events *v)
{
    if (atomic_load(&v->behind))
        catch_up(v);
    if (v->announced != v->pushed)
        ring_wake(v->ring);
    v->announced = v->pushed;
}

/* ---- the other thread --------------------------------------------------------------------------------------------------- */

bool kv_events_pop(struct kv_events *v, struct kv_event *out)
{
    if (!ring_pop(v->ring, out))
        return false;
    atomic_fetch_add(&v->popped, 1);
    return true;
}

bool kv_events_behind(const struct kv_events *v)
{
    return atomic_load(&v->behind);
}

int kv_events_fd(const struct kv_events *v)
{
    return ring_fd(v->ring);
}

bool kv_events_sleep(struct kv_events *v)
{
    return ring_sleep(v->ring);
}

void kv_events_drain_fd(struct kv_events *v)
{
    ring_drain_fd(v->ring);
}
