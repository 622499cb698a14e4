/* Routers hold a tree of every worker's blocks and choose by it; their picture is only as good as this stream. Its rules, found
 * by experiment: ids without a gap (or the router drops all it knew of us), a parent before its child (or the child is skipped).
 * kv_event.h gives the order; the numbers are made here.
 *
 * Two things are kept. The changes of late, for routers that lost some: a ring of single blocks, each with the id of the event it
 * belongs to, so that events of any length take no memory of their own and are written from there, the first time as the tenth.
 * And the table: what there is now, by the cache's node numbers, for routers that know nothing yet. The cache itself could not
 * tell: it belongs to the engine's thread.
 *
 * The tree is written from its leaves: from each one up to what was written already, then down again as one chain. So a parent
 * always comes first, a chain is one event, and it takes two bits and a link per node, no sorting. The host tier has no tree to
 * keep: a block there is an edge behind its parent's name, whether or not the parent is there. */
#include "dyn_events.h"

#include "dyn_msgpack.h"
#include "kv_pool.h"
#include "mem.h"

#include <assert.h>
#include <string.h>

struct node {
    uint64_t name, content, parent_name;
    uint32_t parent;            /* with a block on the device: its parent's node, or KV_NONE */
    uint32_t below;             /* scratch: the way back down */
    uint8_t tiers;              /* a bit each */
    bool first, inner, written; /* inner, written: scratch */
};

struct change {
    uint64_t id, name, content, parent_name;
    uint8_t type, tier; /* as of kv_event */
    bool first;
};

struct dyn_events {
    uint64_t worker;
    struct node *nodes;     /* [n_nodes] */
    struct change *changes; /* [DYN_EVENTS_KEPT] change i stands at i % DYN_EVENTS_KEPT */
    uint32_t n_nodes, n_blocks[KV_TIERS];
    uint64_t n_changes, last_id,
        first_whole;   /* first_whole: the oldest id of which no change is overwritten */
    uint32_t n_joined; /* changes of the last event */
    bool open;         /* nobody has seen the last event */
};

int dyn_events_create(struct dyn_events **out, uint64_t worker, uint32_t n_nodes, struct err *e)
{
    struct dyn_events *d = mem_zalloc(1, sizeof *d);
    if (d) {
        d->worker = worker;
        d->n_nodes = n_nodes;
        d->first_whole = 1;
        d->nodes = mem_zalloc(n_nodes, sizeof *d->nodes);
        d->changes = mem_zalloc(DYN_EVENTS_KEPT, sizeof *d->changes);
        if (d->nodes && d->changes) {
            *out = d;
            return ST_OK;
        }
    }
    dyn_events_destroy(d);
    return err_set(e, ST_ENOMEM, "KV events: no memory for %u blocks", n_nodes);
}

void dyn_events_destroy(struct dyn_events *d)
{
    if (!d)
        return;
    mem_free(d->nodes);
    mem_free(d->changes);
    mem_free(d);
}

/* ---- in ------------------------------------------------------------------------------------------------------------ */

static struct change *change_at(const struct dyn_events *d, uint64_t i)
{
    return &d->changes[i % DYN_EVENTS_KEPT];
}

static bool joins(const struct dyn_events *d, const struct change *c)
{
    if (!d->open || d->n_joined == DYN_EVENTS_JOINED || c->type == KV_CLEARED)
        return false;
    const struct change *before = change_at(d, d->n_changes - 1);
    if (before->type != c->type || before->tier != c->tier)
        return false;
    return c->type == KV_REMOVED || (!c->first && c->parent_name == before->name);
}

static void keep(struct dyn_events *d, struct change c)
{
    if (joins(d, &c)) {
        d->n_joined++;
    } else {
        d->last_id++;
        d->n_joined = 1;
        d->open = true;
    }
    c.id = d->last_id;
    struct change *place = change_at(d, d->n_changes);
    if (d->n_changes >= DYN_EVENTS_KEPT)
        d->first_whole = place->id + 1;
    *place = c;
    d->n_changes++;
}

static void take_stored(struct dyn_events *d, const struct kv_event *ev)
{
    struct node *n = &d->nodes[ev->node];
    n->name = ev->name;
    n->content = ev->content;
    n->parent_name = ev->parent_name;
    n->first = ev->first;
    if (ev->tier == KV_TIER_DEVICE)
        n->parent = ev->parent;
    n->tiers |= (uint8_t)(1u << ev->tier);
    d->n_blocks[ev->tier]++;
    keep(d, (struct change){.type = KV_STORED,
                            .tier = ev->tier,
                            .first = ev->first,
                            .name = ev->name,
                            .content = ev->content,
                            .parent_name = ev->parent_name});
}

void dyn_events_take(struct dyn_events *d, const struct kv_event *ev)
{
    if (ev->type == KV_CLEARED) {
        for (uint32_t i = 0; i < d->n_nodes; i++)
            d->nodes[i].tiers = 0;
        memset(d->n_blocks, 0, sizeof d->n_blocks);
        keep(d, (struct change){.type = KV_CLEARED, .tier = KV_TIER_DEVICE});
        return;
    }
    assert(ev->node < d->n_nodes && ev->tier < KV_TIERS);
    struct node *n = &d->nodes[ev->node];
    bool there = n->tiers >> ev->tier & 1;
    assert(there == (ev->type == KV_REMOVED));
    if (ev->type == KV_STORED) {
        take_stored(d, ev);
        return;
    }
    n->tiers &= (uint8_t) ~(1u << ev->tier);
    d->n_blocks[ev->tier]--;
    keep(d, (struct change){.type = KV_REMOVED, .tier = ev->tier, .name = n->name});
}

struct dyn_events_range dyn_events_range(struct dyn_events *d)
{
    d->open = false;
    return (struct dyn_events_range){d->first_whole, d->last_id};
}

uint32_t dyn_events_blocks(const struct dyn_events *d, enum kv_tier tier)
{
    return d->n_blocks[tier];
}

/* ---- out ----------------------------------------------------------------------------------------------------------- */

static const char *const tier_name[KV_TIERS] = {[KV_TIER_DEVICE] = "device", [KV_TIER_HOST] = "host_pinned"};

static void put_zstr(struct buf *out, const char *z)
{
    dyn_msgpack_put_str(out, str_from(z));
}

/* Up to the value of "data". */
static void put_head(const struct dyn_events *d, uint64_t id, uint8_t tier, struct buf *out)
{
    dyn_msgpack_put_map(out, 4);
    dyn_msgpack_put_key(out, "worker_id");
    dyn_msgpack_put_uint(out, d->worker);
    dyn_msgpack_put_key(out, "storage_tier");
    put_zstr(out, tier_name[tier]);
    dyn_msgpack_put_key(out, "residency_domain");
    put_zstr(out, "worker");
    dyn_msgpack_put_key(out, "event");
    dyn_msgpack_put_map(out, 3);
    dyn_msgpack_put_key(out, "event_id");
    dyn_msgpack_put_uint(out, id);
    dyn_msgpack_put_key(out, "data");
}

static void put_tail(struct buf *out)
{
    dyn_msgpack_put_key(out, "dp_rank");
    dyn_msgpack_put_uint(out, 0);
}

static void put_stored_head(bool first, uint64_t parent_name, uint32_t n, struct buf *out)
{
    dyn_msgpack_put_map(out, 1);
    dyn_msgpack_put_key(out, "stored");
    dyn_msgpack_put_map(out, 3);
    dyn_msgpack_put_key(out, "parent_hash");
    if (first)
        dyn_msgpack_put_nil(out);
    else
        dyn_msgpack_put_uint(out, parent_name);
    dyn_msgpack_put_key(out, "start_position");
    dyn_msgpack_put_nil(out);
    dyn_msgpack_put_key(out, "blocks");
    dyn_msgpack_put_array(out, n);
}

static void put_block(uint64_t name, uint64_t content, struct buf *out)
{
    dyn_msgpack_put_map(out, 3);
    dyn_msgpack_put_key(out, "block_hash");
    dyn_msgpack_put_uint(out, name);
    dyn_msgpack_put_key(out, "tokens_hash");
    dyn_msgpack_put_uint(out, content);
    dyn_msgpack_put_key(out, "mm_extra_info");
    dyn_msgpack_put_nil(out);
}

static void put_event(const struct dyn_events *d, uint64_t at, uint32_t n, struct buf *out)
{
    const struct change *c = change_at(d, at);
    put_head(d, c->id, c->tier, out);
    if (c->type == KV_STORED) {
        put_stored_head(c->first, c->parent_name, n, out);
        for (uint32_t i = 0; i < n; i++)
            put_block(change_at(d, at + i)->name, change_at(d, at + i)->content, out);
    } else if (c->type == KV_REMOVED) {
        dyn_msgpack_put_map(out, 1);
        dyn_msgpack_put_key(out, "removed");
        dyn_msgpack_put_map(out, 1);
        dyn_msgpack_put_key(out, "block_hashes");
        dyn_msgpack_put_array(out, n);
        for (uint32_t i = 0; i < n; i++)
            dyn_msgpack_put_uint(out, change_at(d, at + i)->name);
    } else {
        put_zstr(out, "cleared");
    }
    put_tail(out);
}

/* Of the first change whose event has this id, or a later one. */
static uint64_t find(const struct dyn_events *d, uint64_t id)
{
    uint64_t low = d->n_changes > DYN_EVENTS_KEPT ? d->n_changes - DYN_EVENTS_KEPT : 0, high = d->n_changes;
    while (low < high) {
        uint64_t mid = low + (high - low) / 2;
        if (change_at(d, mid)->id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

uint64_t dyn_events_fit(const struct dyn_events *d, uint64_t from, uint64_t last, uint32_t n_changes)
{
    uint64_t begin = find(d, from), end = find(d, last + 1);
    if (begin == end)
        return 0;
    if (end - begin <= n_changes)
        return last - from + 1;
    uint64_t beyond = change_at(d, begin + n_changes)->id; /* the first event that does not fit whole */
    return beyond > from ? beyond - from : 1;
}

void dyn_events_put(const struct dyn_events *d, uint64_t from, uint64_t last, struct buf *out)
{
    uint64_t end = find(d, last + 1);
    dyn_msgpack_put_array(out, (uint32_t)(last + 1 - from));
    for (uint64_t at = find(d, from); at < end;) {
        uint32_t n = 1;
        while (at + n < end && change_at(d, at + n)->id == change_at(d, at)->id)
            n++;
        put_event(d, at, n, out);
        at += n;
    }
}

/* ---- the tree ------------------------------------------------------------------------------------------------------- */

struct tree {
    struct buf *out;
    uint32_t n_events;
};

/* The chain from `top` down by `below`, of `n` nodes. */
static uint32_t put_chain(const struct dyn_events *d, uint32_t top, uint32_t n, enum kv_tier tier,
                          struct tree *t)
{
    const struct node *head = &d->nodes[top];
    put_head(d, t->n_events++, (uint8_t)tier, t->out);
    put_stored_head(head->first, head->parent_name, n, t->out);
    for (; n > 0; n--) {
        put_block(d->nodes[top].name, d->nodes[top].content, t->out);
        top = d->nodes[top].below;
    }
    put_tail(t->out);
    return top;
}

static bool on_device(const struct node *n)
{
    return n->tiers >> KV_TIER_DEVICE & 1;
}

static void put_path(struct dyn_events *d, uint32_t leaf, struct tree *t)
{
    uint32_t top = KV_NONE, n = 0;
    for (uint32_t i = leaf; i != KV_NONE && !d->nodes[i].written; i = d->nodes[i].parent) {
        d->nodes[i].below = top;
        d->nodes[i].written = true;
        top = i;
        n++;
    }
    while (n > 0) {
        uint32_t k = n < DYN_EVENTS_JOINED ? n : DYN_EVENTS_JOINED;
        top = put_chain(d, top, k, KV_TIER_DEVICE, t);
        n -= k;
    }
}

static void put_device(struct dyn_events *d, struct tree *t)
{
    for (uint32_t i = 0; i < d->n_nodes; i++)
        d->nodes[i].inner = d->nodes[i].written = false;
    for (uint32_t i = 0; i < d->n_nodes; i++)
        if (on_device(&d->nodes[i]) && d->nodes[i].parent != KV_NONE)
            d->nodes[d->nodes[i].parent].inner = true;
    for (uint32_t i = 0; i < d->n_nodes; i++)
        if (on_device(&d->nodes[i]) && !d->nodes[i].inner)
            put_path(d, i, t);
}

void dyn_events_put_tree(struct dyn_events *d, struct buf *out)
{
    struct buf events = {0}; /* their number goes first, and is known last */
    struct tree t = {.out = &events};
    put_device(d, &t);
    for (uint32_t i = 0; i < d->n_nodes; i++)
        if (d->nodes[i].tiers >> KV_TIER_HOST & 1)
            put_chain(d, i, 1, KV_TIER_HOST, &t);
    dyn_msgpack_put_array(out, t.n_events);
    if (events.failed && !out->failed)
        out->failed = events.failed;
    buf_put(out, events.p, events.n);
    buf_fini(&events);
}
