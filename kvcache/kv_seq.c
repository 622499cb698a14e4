/* Two sequences may compute the same block at the same time. The second to commit finds the identity taken. It keeps its own
 * copy in its table (a later step may already name it) and stays apart: from there on it indexes nothing while it runs. At
 * release, when no step to come names its blocks, its table is led over to the index's blocks, its own copies fall free and its
 * later blocks are indexed behind them. A step still under way may read and write what falls free: README.md, rule 1.
 *
 * This is what keeps one simple invariant true: who holds an indexed block holds the indexed path to it. So a cached block
 * never has a pinned descendant, free + cached is exactly what can be had, and no block outlives its parent.
 *
 * Rejected: indexing the later blocks at once behind the other sequence's block. Its owner may end and the block then is
 * cached, yet cannot be evicted while we run: a lone sequence that fits the pool by arithmetic would not fit in truth. */
#include "kv_seq.h"

#include <assert.h>

uint32_t kv_seq_blocks_for(uint32_t n_tokens, uint32_t block_tokens)
{
    return n_tokens / block_tokens + (n_tokens % block_tokens != 0);
}

void kv_seq_hash(struct kv_seq *s, uint32_t n_tokens)
{
    if (!s->ids)
        return;
    uint32_t bt = s->block_tokens;
    assert(n_tokens / bt <= s->cap_blocks);
    for (; s->n_ids < n_tokens / bt; s->n_ids++) {
        const struct kv_id *parent = s->n_ids ? &s->ids[s->n_ids - 1] : &s->root;
        kv_id_next(&s->ids[s->n_ids], parent, s->tokens + (size_t)s->n_ids * bt, bt);
    }
}

static void insert(struct kv_seq *s, struct kv_prefix *x, uint32_t i)
{
    kv_prefix_insert(x, &s->ids[i], i ? s->table[i - 1] : KV_NONE, s->table[i]);
    kv_prefix_announce(x, s->table[i], s->tokens + (size_t)i * s->block_tokens, s->block_tokens, s->salt_tag);
}

uint32_t kv_seq_match(struct kv_seq *s, struct kv_prefix *x, uint32_t max_tokens)
{
    assert(s->n_blocks == 0);
    if (!s->ids)
        return 0;
    uint32_t n_max = max_tokens / s->block_tokens;
    if (n_max > s->n_ids)
        n_max = s->n_ids;
    uint32_t n = 0;
    for (; n < n_max; n++) {
        uint32_t b = kv_prefix_find(x, &s->ids[n]);
        if (b == KV_NONE)
            break;
        kv_prefix_pin(x, b);
        kv_prefix_claim(x, b, false);
        s->table[n] = b;
    }
    s->n_blocks = s->n_full = s->n_indexed = n;
    return n * s->block_tokens;
}

int kv_seq_extend(struct kv_seq *s, struct kv_prefix *x, uint32_t n_tokens)
{
    uint32_t want = kv_seq_blocks_for(n_tokens, s->block_tokens);
    if (want <= s->n_blocks)
        return ST_OK;
    assert(want <= s->cap_blocks);
    int rc = kv_prefix_alloc(x, want - s->n_blocks, s->table + s->n_blocks);
    if (rc == ST_OK)
        s->n_blocks = want;
    return rc;
}

void kv_seq_commit(struct kv_seq *s, struct kv_prefix *x, uint32_t n_tokens)
{
    uint32_t n = n_tokens / s->block_tokens;
    assert(n <= s->n_blocks);
    if (n <= s->n_full)
        return;
    uint32_t i = s->n_full;
    s->n_full = n;
    if (!s->ids)
        return;
    kv_seq_hash(s, n_tokens);
    for (; i < n && !s->apart; i++) {
        if (kv_prefix_find(x, &s->ids[i]) != KV_NONE) {
            s->apart = true;
            break;
        }
        insert(s, x, i);
        s->n_indexed = i + 1;
    }
}

void kv_seq_release(struct kv_seq *s, struct kv_prefix *x, int64_t now_ns, int64_t expiry_ns)
{
    if (s->ids) {
        for (; s->n_indexed < s->n_full; s->n_indexed++) {
            uint32_t i = s->n_indexed, b = kv_prefix_find(x, &s->ids[i]);
            if (b == KV_NONE) {
                insert(s, x, i);
            } else {
                kv_prefix_pin(x, b);
                kv_prefix_unpin(x, s->table[i]);
                s->table[i] = b;
            }
        }
    }
    /* Leaf first, and what a block is wanted for its parent is, too: so a parent never ranks before its child. */
    for (uint32_t i = s->n_blocks; i > s->n_indexed; i--)
        kv_prefix_unpin(x, s->table[i - 1]);
    for (uint32_t i = s->n_indexed; i > 0; i--)
        expiry_ns = kv_prefix_let_go(x, s->table[i - 1], now_ns, expiry_ns);
    s->n_blocks = s->n_full = s->n_indexed = 0;
    s->apart = false;
}

uint32_t kv_seq_host_run(const struct kv_seq *s, const struct kv_prefix *x, uint32_t max_tokens,
                         uint32_t *slots_out, uint32_t cap)
{
    uint32_t n_max = max_tokens / s->block_tokens, n = 0;
    if (n_max > s->n_ids)
        n_max = s->n_ids;
    for (; n < cap && s->n_blocks + n < n_max; n++) {
        slots_out[n] = kv_prefix_find_host(x, &s->ids[s->n_blocks + n]);
        if (slots_out[n] == KV_NONE)
            break;
    }
    return n;
}
