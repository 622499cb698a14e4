/* A flat table from identity to block, not a tree of tokens: the chain id already says "this block after that path", so one
 * look-up per block walks a prompt, and nothing is split or merged. Beside it, per block: its id, its parent and how many
 * indexed children it has.
 *
 *   table[h] -> block        node[block] = { id, parent, children }
 *
 * Linear probing; deletion shifts followers back instead of leaving tombstones, so the table never needs a rebuild however
 * long it runs. The id is a cryptographic hash: its first eight bytes are the table hash.
 *
 * Children counts are not needed to choose a victim (kv_pool.c says why the oldest block is a leaf). They are what proves
 * it: a broken order of unpins stops here instead of leaving children that no prompt can reach. */
#include "kv_prefix.h"

#include "mem.h"

#include <assert.h>
#include <string.h>

struct kv_node {
    struct kv_id id;
    uint32_t parent;   /* KV_NONE: first block */
    uint32_t children; /* indexed blocks whose parent this is */
};

struct kv_prefix {
    struct kv_pool *pool;
    struct kv_node *nodes; /* [n_blocks], meaningful while the block is indexed */
    uint32_t *table;       /* [mask + 1] block or KV_NONE */
    uint64_t mask;
    uint32_t n_indexed;
};

int kv_prefix_create(struct kv_prefix **out, uint32_t n_blocks, struct err *e)
{
    struct kv_prefix *x = mem_zalloc(1, sizeof *x);
    if (!x)
        return err_set(e, ST_ENOMEM, "KV index: no memory");
    int rc = kv_pool_create(&x->pool, n_blocks, e);
    if (rc != ST_OK) {
        kv_prefix_destroy(x);
        return rc;
    }
    uint64_t n = 2;
    while (n < 2 * (uint64_t)n_blocks)
        n *= 2;
    x->mask = n - 1;
    x->nodes = mem_zalloc(n_blocks, sizeof *x->nodes);
    x->table = mem_zalloc((size_t)n, sizeof *x->table);
    if (!x->nodes || !x->table) {
        kv_prefix_destroy(x);
        return err_set(e, ST_ENOMEM, "KV index: no memory for %u blocks", n_blocks);
    }
    for (uint64_t i = 0; i < n; i++)
        x->table[i] = KV_NONE;
    *out = x;
    return ST_OK;
}

void kv_prefix_destroy(struct kv_prefix *x)
{
    if (!x)
        return;
    kv_pool_destroy(x->pool);
    mem_free(x->nodes);
    mem_free(x->table);
    mem_free(x);
}

struct kv_pool *kv_prefix_pool(struct kv_prefix *x)
{
    return x->pool;
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

uint32_t kv_prefix_find(const struct kv_prefix *x, const struct kv_id *id)
{
    return x->table[place_of(x, id)];
}

void kv_prefix_insert(struct kv_prefix *x, const struct kv_id *id, uint32_t parent, uint32_t block)
{
    uint64_t i = place_of(x, id);
    assert(x->table[i] == KV_NONE);
    kv_pool_mark_indexed(x->pool, block);
    x->table[i] = block;
    x->nodes[block] = (struct kv_node){.id = *id, .parent = parent};
    if (parent != KV_NONE) {
        enum kv_state s = kv_pool_state(x->pool, parent);
        assert(s == KV_PINNED_INDEXED || s == KV_CACHED);
        x->nodes[parent].children++;
    }
    x->n_indexed++;
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

uint32_t kv_prefix_evict(struct kv_prefix *x, uint32_t n)
{
    uint32_t done = 0;
    for (; done < n; done++) {
        uint32_t b = kv_pool_oldest(x->pool);
        if (b == KV_NONE)
            break;
        struct kv_node *node = &x->nodes[b];
        assert(node->children == 0);
        table_remove(x, place_of(x, &node->id));
        if (node->parent != KV_NONE)
            x->nodes[node->parent].children--;
        x->n_indexed--;
        kv_pool_drop_cached(x->pool, b);
    }
    return done;
}

uint32_t kv_prefix_available(const struct kv_prefix *x)
{
    return kv_pool_free(x->pool) + kv_pool_cached(x->pool);
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

static bool check_nodes(const struct kv_prefix *x, uint32_t *children, const char **why)
{
    uint32_t n = kv_pool_total(x->pool), seen = 0;
    for (uint32_t b = 0; b < n; b++) {
        enum kv_state s = kv_pool_state(x->pool, b);
        if (s != KV_PINNED_INDEXED && s != KV_CACHED)
            continue;
        seen++;
        *why = "an indexed block is not found under its id";
        if (kv_prefix_find(x, &x->nodes[b].id) != b)
            return false;
        uint32_t parent = x->nodes[b].parent;
        if (parent == KV_NONE)
            continue;
        *why = "an indexed block's parent is not indexed";
        enum kv_state ps = parent < n ? kv_pool_state(x->pool, parent) : KV_FREE;
        if (ps != KV_PINNED_INDEXED && ps != KV_CACHED)
            return false;
        *why = "a pinned block's parent is not pinned";
        if (s == KV_PINNED_INDEXED && ps == KV_CACHED)
            return false;
        children[parent]++;
    }
    uint32_t in_table = 0;
    for (uint64_t i = 0; i <= x->mask; i++)
        in_table += x->table[i] != KV_NONE;
    *why = "the table and the states disagree";
    return seen == x->n_indexed && in_table == seen;
}

bool kv_prefix_check(const struct kv_prefix *x, const char **why)
{
    if (!kv_pool_check(x->pool, why))
        return false;
    uint32_t n = kv_pool_total(x->pool);
    uint32_t *children = mem_zalloc(n, sizeof *children);
    *why = "no memory for the check";
    if (!children)
        return false;
    bool ok = check_nodes(x, children, why);
    for (uint32_t b = 0; ok && b < n; b++) {
        enum kv_state s = kv_pool_state(x->pool, b);
        if (s != KV_PINNED_INDEXED && s != KV_CACHED)
            continue;
        *why = "a children count is wrong";
        ok = x->nodes[b].children == children[b];
    }
    mem_free(children);
    return ok;
}
