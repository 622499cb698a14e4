/* A flat table from identity to node, not a tree of tokens: the chain id already says "this block after that path", so one
 * look-up per block walks a prompt, and nothing is split or merged. A node is an identity that somebody has a copy of; beside
 * its copies it knows its parent, how many children have blocks, and its rank: until when it is wanted, and when it was let go.
 *
 * Linear probing; deletion shifts followers back instead of leaving tombstones, so the table never needs a rebuild however
 * long it runs. The id is a cryptographic hash: its first eight bytes are the table hash.
 *
 * Who goes first? The leaf that expires first. A sequence lets go leaf first and hands each block's expiry up the path, so a
 * parent never ranks before its child, and "leaves only" costs no quality: the least of all cached blocks is a leaf. With one
 * expiry for all, or with the time of use for it, the order is least recently used. A block under a pinned one is pinned, so
 * every cached block has a cached leaf below it, and free + cached is what can be had, to the block.
 *
 * Rejected: an LRU list per class of expiry (hints are times, not classes); scores that decay (the order among blocks at rest
 * would change by itself; a time of expiry ranks them once and for all, O(log n) when it is set and nothing after). */
#include "kv_prefix_state.h"

#include "mem.h"

#include <assert.h>
#include <string.h>

enum { RESIDENCE_WINDOW = 64 };
#define RESIDENCE_AT_FIRST_NS (60 * INT64_C(1000000000))

_Static_assert(HEAP_NONE == KV_NONE, "an empty heap gives no block");

static int create_parts(struct kv_prefix *x, uint32_t n_blocks, uint32_t n_host, struct err *e)
{
    if (n_host >= KV_NONE - n_blocks)
        return err_set(e, ST_EINVAL, "KV index: %u blocks and %u host slots are too many", n_blocks, n_host);
    int rc = kv_pool_create(&x->pool, n_blocks, e);
    if (rc == ST_OK)
        rc = heap_create(&x->leaves, n_blocks, e);
    if (rc == ST_OK)
        rc = heap_create(&x->unsaved, n_host ? n_blocks : 0, e);
    if (rc == ST_OK)
        rc = kv_prefix_host_init(x, n_host, e);
    if (rc != ST_OK)
        return rc;
    uint64_t n = 2;
    x->n_nodes = n_blocks + n_host;
    while (n < 2 * (uint64_t)x->n_nodes)
        n *= 2;
    x->mask = n - 1;
    x->nodes = mem_zalloc(x->n_nodes, sizeof *x->nodes);
    x->block_node = mem_zalloc(n_blocks, sizeof *x->block_node);
    x->table = mem_zalloc((size_t)n, sizeof *x->table);
    if (!x->nodes || !x->block_node || !x->table)
        return err_set(e, ST_ENOMEM, "KV index: no memory for %u blocks", x->n_nodes);
    for (uint64_t i = 0; i < n; i++)
        x->table[i] = KV_NONE;
    for (uint32_t i = 0; i < n_blocks; i++)
        x->block_node[i] = KV_NONE;
    for (uint32_t i = 0; i < x->n_nodes; i++)
        x->nodes[i].parent = i + 1 < x->n_nodes ? i + 1 : KV_NONE;
    return ST_OK;
}

int kv_prefix_create(struct kv_prefix **out, uint32_t n_blocks, uint32_t n_host, struct err *e)
{
    struct kv_prefix *x = mem_zalloc(1, sizeof *x);
    if (!x)
        return err_set(e, ST_ENOMEM, "KV index: no memory");
    x->residence_ns = RESIDENCE_AT_FIRST_NS;
    int rc = create_parts(x, n_blocks, n_host, e);
    if (rc == ST_OK)
        *out = x;
    else
        kv_prefix_destroy(x);
    return rc;
}

void kv_prefix_destroy(struct kv_prefix *x)
{
    if (!x)
        return;
    kv_pool_destroy(x->pool);
    kv_prefix_host_fini(x);
    heap_destroy(x->leaves);
    heap_destroy(x->unsaved);
    mem_free(x->nodes);
    mem_free(x->block_node);
    mem_free(x->table);
    mem_free(x);
}

struct kv_pool *kv_prefix_pool(struct kv_prefix *x)
{
    return x->pool;
}

void kv_prefix_tell(struct kv_prefix *x, struct kv_events *v)
{
    assert(x->n_used == 0 && (!v || kv_events_nodes(v) == x->n_nodes));
    x->events = v;
}

uint32_t kv_prefix_nodes(const struct kv_prefix *x)
{
    return x->n_nodes;
}

void kv_prefix_set_time(struct kv_prefix *x, int64_t now_ns)
{
    x->now_ns = now_ns;
}

static uint64_t home_of(const struct kv_prefix *x, const struct kv_id *id)
{
    uint64_t h;
    memcpy(&h, id->b, sizeof h);
    return h & x->mask;
}

/* Place of `id`, or the empty place where it would go. Load <= 1/2: there is always an empty one. */
static uint64_t place_of(const struct kv_prefix *x, const struct kv_id *id)
{
    uint64_t i = home_of(x, id);
    while (x->table[i] != KV_NONE && !kv_id_eq(&x->nodes[x->table[i]].id, id))
        i = (i + 1) & x->mask;
    return i;
}

uint32_t kv_prefix_node(const struct kv_prefix *x, const struct kv_id *id)
{
    return x->table[place_of(x, id)];
}

uint32_t kv_prefix_find(const struct kv_prefix *x, const struct kv_id *id)
{
    uint32_t node = kv_prefix_node(x, id);
    return node == KV_NONE ? KV_NONE : x->nodes[node].block;
}

static uint32_t node_of(struct kv_prefix *x, const struct kv_id *id)
{
    uint64_t i = place_of(x, id);
    if (x->table[i] == KV_NONE) {
        uint32_t n = x->free_node;
        assert(n != KV_NONE);
        x->free_node = x->nodes[n].parent;
        x->nodes[n] = (struct kv_node){.id = *id,
                                       .block = KV_NONE,
                                       .slot = KV_NONE,
                                       .parent = KV_NONE,
                                       .expiry_ns = INT64_MIN,
                                       .order = ++x->order};
        x->n_used++;
        x->table[i] = n;
    }
    return x->table[i];
}

static void table_remove(struct kv_prefix *x, uint64_t hole)
{
    for (uint64_t i = (hole + 1) & x->mask; x->table[i] != KV_NONE; i = (i + 1) & x->mask) {
        uint64_t home = home_of(x, &x->nodes[x->table[i]].id);
        /* Move i into the hole unless its home lies behind the hole, cyclically. */
        if (((i - home) & x->mask) >= ((i - hole) & x->mask)) {
            x->table[hole] = x->table[i];
            hole = i;
        }
    }
    x->table[hole] = KV_NONE;
}

/* A cached block that nothing copies down any more is one that somebody may want to save. */
void kv_prefix_settle(struct kv_prefix *x, uint32_t node)
{
    struct kv_node *n = &x->nodes[node];
    if (n->block != KV_NONE) {
        if (x->host.n && n->slot == KV_NONE && kv_pool_state(x->pool, n->block) == KV_CACHED)
            heap_push(x->unsaved, n->block, n->expiry_ns, n->order);
    } else if (n->slot == KV_NONE) {
        table_remove(x, place_of(x, &n->id));
        n->parent = x->free_node;
        x->free_node = node;
        x->n_used--;
    }
}

void kv_prefix_insert(struct kv_prefix *x, const struct kv_id *id, uint32_t parent, uint32_t block)
{
    uint32_t node = node_of(x, id);
    struct kv_node *n = &x->nodes[node];
    assert(n->block == KV_NONE);
    kv_pool_mark_indexed(x->pool, block);
    n->block = block;
    n->parent = KV_NONE;
    x->block_node[block] = node;
    if (parent != KV_NONE) {
        assert(kv_pool_state(x->pool, parent) == KV_PINNED_INDEXED);
        n->parent = x->block_node[parent];
        x->nodes[n->parent].children++;
    }
}

void kv_prefix_announce(struct kv_prefix *x, uint32_t block, const int32_t *tokens, uint32_t n, uint64_t salt_tag)
{
    if (!x->events)
        return;
    uint32_t node = x->block_node[block];
    kv_events_indexed(x->events, node, x->nodes[node].parent, tokens, n, salt_tag);
}

void kv_prefix_pin(struct kv_prefix *x, uint32_t block)
{
    if (kv_pool_state(x->pool, block) == KV_CACHED) {
        if (heap_contains(x->leaves, block))
            heap_remove(x->leaves, block);
        if (x->host.n && heap_contains(x->unsaved, block))
            heap_remove(x->unsaved, block);
    }
    kv_pool_pin(x->pool, block);
}

void kv_prefix_claim(struct kv_prefix *x, uint32_t block, bool claimed)
{
    assert(x->block_node[block] != KV_NONE);
    x->nodes[x->block_node[block]].claimed = claimed;
}

bool kv_prefix_claimed(const struct kv_prefix *x, uint32_t block)
{
    return x->block_node[block] != KV_NONE && x->nodes[x->block_node[block]].claimed;
}

void kv_prefix_unpin(struct kv_prefix *x, uint32_t block)
{
    kv_pool_unpin(x->pool, block);
    if (kv_pool_state(x->pool, block) != KV_CACHED)
        return;
    const struct kv_node *n = &x->nodes[x->block_node[block]];
    if (n->children == 0)
        heap_push(x->leaves, block, n->expiry_ns, n->order);
    kv_prefix_settle(x, x->block_node[block]);
}

int64_t kv_prefix_let_go(struct kv_prefix *x, uint32_t block, int64_t now_ns, int64_t expiry_ns)
{
    assert(kv_pool_state(x->pool, block) == KV_PINNED_INDEXED);
    struct kv_node *n = &x->nodes[x->block_node[block]];
    n->used_ns = now_ns;
    n->order = ++x->order;
    if (n->expiry_ns < expiry_ns)
        n->expiry_ns = expiry_ns;
    kv_prefix_host_rank(x, n);
    kv_prefix_unpin(x, block);
    return n->expiry_ns;
}

static void count_eviction(struct kv_prefix *x, int64_t used_ns)
{
    int64_t lay = x->now_ns > used_ns ? x->now_ns - used_ns : 0;
    x->n_evicted++;
    int64_t window = x->n_evicted < RESIDENCE_WINDOW ? (int64_t)x->n_evicted : RESIDENCE_WINDOW;
    x->residence_ns += (lay - x->residence_ns) / window;
}

uint32_t kv_prefix_evict(struct kv_prefix *x, uint32_t n)
{
    uint32_t done = 0;
    for (; done < n; done++) {
        uint32_t block = heap_pop(x->leaves);
        if (block == KV_NONE)
            break;
        uint32_t node = x->block_node[block];
        struct kv_node *leaf = &x->nodes[node];
        assert(leaf->children == 0);
        if (leaf->parent != KV_NONE) {
            struct kv_node *up = &x->nodes[leaf->parent];
            if (--up->children == 0 && kv_pool_state(x->pool, up->block) == KV_CACHED)
                heap_push(x->leaves, up->block, up->expiry_ns, up->order);
        }
        if (x->host.n && leaf->slot == KV_NONE)
            heap_remove(x->unsaved, block);
        count_eviction(x, leaf->used_ns);
        kv_pool_drop_cached(x->pool, block);
        if (x->events)
            kv_events_lost(x->events, node, KV_TIER_DEVICE);
        x->block_node[block] = leaf->block = leaf->parent = KV_NONE;
        leaf->claimed = false;
        kv_prefix_settle(x, node);
    }
    return done;
}

uint32_t kv_prefix_oldest(const struct kv_prefix *x)
{
    return heap_peek(x->leaves);
}

uint32_t kv_prefix_available(const struct kv_prefix *x)
{
    return kv_pool_free(x->pool) + kv_pool_cached(x->pool);
}

uint64_t kv_prefix_evictions(const struct kv_prefix *x)
{
    return x->n_evicted;
}

int64_t kv_prefix_residence_ns(const struct kv_prefix *x)
{
    return x->residence_ns;
}

int kv_prefix_alloc(struct kv_prefix *x, uint32_t n, uint32_t *blocks_out)
{
    if (n > kv_prefix_available(x))
        return ST_NOSPACE;
    uint32_t n_free = kv_pool_free(x->pool);
    if (n > n_free)
        kv_prefix_evict(x, n - n_free);
    for (uint32_t i = 0; i < n; i++) {
        int rc = kv_pool_take(x->pool, &blocks_out[i]);
        assert(rc == ST_OK);
        (void)rc;
    }
    return ST_OK;
}

static bool precedes(const struct kv_node *a, const struct kv_node *b)
{
    return a->expiry_ns < b->expiry_ns || (a->expiry_ns == b->expiry_ns && a->order < b->order);
}

static bool in_heap(const struct heap *h, uint32_t block, const struct kv_node *n, bool should)
{
    if (heap_contains(h, block) != should)
        return false;
    return !should || (heap_key(h, block) == n->expiry_ns && heap_tie(h, block) == n->order);
}

static bool check_block(const struct kv_prefix *x, uint32_t b, uint32_t *children, const char **why)
{
    enum kv_state s = kv_pool_state(x->pool, b);
    bool indexed = s == KV_PINNED_INDEXED || s == KV_CACHED, cached = s == KV_CACHED;
    uint32_t node = x->block_node[b];
    *why = "a block's state and the index disagree";
    if (indexed != (node != KV_NONE))
        return false;
    const struct kv_node *n = indexed ? &x->nodes[node] : NULL;
    *why = "a leaf is not where leaves are evicted from, or another block is";
    if (!in_heap(x->leaves, b, n, cached && n->children == 0))
        return false;
    *why = "an unsaved block does not wait to be saved, or another one does";
    if (x->host.n && !in_heap(x->unsaved, b, n, cached && n->slot == KV_NONE))
        return false;
    if (!indexed)
        return true;
    *why = "an indexed block is not found under its id";
    if (n->block != b || kv_prefix_find(x, &n->id) != b)
        return false;
    if (n->parent == KV_NONE)
        return true;
    *why = "an indexed block's parent is not indexed";
    const struct kv_node *up = &x->nodes[n->parent];
    if (up->block == KV_NONE || x->block_node[up->block] != n->parent)
        return false;
    children[n->parent]++;
    *why = "a pinned block's parent is not pinned";
    bool up_cached = kv_pool_state(x->pool, up->block) == KV_CACHED;
    if (!cached && up_cached)
        return false;
    *why = "a cached parent goes before its child";
    return !up_cached || precedes(n, up);
}

static bool check_nodes(const struct kv_prefix *x, uint32_t *children, const char **why)
{
    for (uint32_t b = 0; b < kv_pool_total(x->pool); b++)
        if (!check_block(x, b, children, why))
            return false;
    uint32_t in_table = 0, n_free = 0;
    for (uint64_t i = 0; i <= x->mask; i++) {
        if (x->table[i] == KV_NONE)
            continue;
        in_table++;
        const struct kv_node *n = &x->nodes[x->table[i]];
        *why = "a node has no copy, or one that is not its own";
        if (n->block == KV_NONE ? n->slot == KV_NONE : x->block_node[n->block] != x->table[i])
            return false;
        *why = "a children count is wrong";
        if (n->children != children[x->table[i]])
            return false;
    }
    for (uint32_t i = x->free_node; i != KV_NONE && n_free <= x->n_nodes; i = x->nodes[i].parent)
        n_free++;
    *why = "a node is lost";
    return in_table == x->n_used && in_table + n_free == x->n_nodes;
}

bool kv_prefix_check(const struct kv_prefix *x, const char **why)
{
    if (!kv_pool_check(x->pool, why))
        return false;
    *why = "a heap is out of order";
    if (!heap_check(x->leaves) || !heap_check(x->unsaved) || !heap_check(x->host.order))
        return false;
    uint32_t *children = mem_zalloc(x->n_nodes, sizeof *children);
    *why = "no memory for the check";
    if (!children)
        return false;
    bool ok = check_nodes(x, children, why) && kv_prefix_host_check(x, why);
    mem_free(children);
    return ok;
}
