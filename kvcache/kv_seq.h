/* kv_seq: one sequence's block table: match a prefix, grow, commit what a step filled, let go.
 *
 * Owns     one pin on each block of its table, between match/extend and release. The arrays are the caller's.
 * Units    tokens and blocks; the index and all block ids are of one kv_prefix.
 * States   empty -> match -> (extend -> commit)* -> release -> empty. ids survive release, so that a preempted sequence
 *          can match what it computed.
 * Threads  kv_seq_hash: any one thread that owns the struct. The rest: the engine's thread.
 * Errors   ST_NOSPACE from kv_seq_extend; the table is then as before.
 * Bounds   cap_blocks; each call is linear in the blocks that it touches.
 * Source   README.md.
 */
#ifndef STATOR_KV_SEQ_H
#define STATOR_KV_SEQ_H

#include "kv_prefix.h"

struct kv_seq {
    uint32_t *table;       /* [cap_blocks] block ids, n_blocks of them held */
    struct kv_id *ids;     /* [cap_blocks] identities, n_ids of them known; NULL: never index, never match */
    const int32_t *tokens; /* the sequence's tokens, at least as many as were hashed or committed */
    struct kv_id root;     /* parent of block 0 */
    uint64_t salt_tag;     /* what the salt of `root` is in the names that events use */
    uint32_t block_tokens, cap_blocks;
    uint32_t n_blocks;  /* held */
    uint32_t n_full;    /* leading blocks that are full and complete */
    uint32_t n_indexed; /* leading blocks of the table that are the index's own */
    uint32_t n_ids;
    bool apart; /* another block already held an identity of ours: no more indexing before release */
};

/* Computes the ids of all full blocks among the first n_tokens tokens that are not yet known. */
void kv_seq_hash(struct kv_seq *s, uint32_t n_tokens);
/* For an empty sequence: pins the longest indexed prefix of at most `max_tokens` tokens; returns its length in tokens. */
uint32_t kv_seq_match(struct kv_seq *s, struct kv_prefix *x, uint32_t max_tokens);
/* Makes the table cover n_tokens positions. */
int kv_seq_extend(struct kv_seq *s, struct kv_prefix *x, uint32_t n_tokens);
/* The step that filled positions below n_tokens has completed: full blocks become immutable and are indexed. */
void kv_seq_commit(struct kv_seq *s, struct kv_prefix *x, uint32_t n_tokens);
/* Lets go of every block; what is full and indexed stays cached, wanted at least until `expiry_ns`. Steps may be under way in the
 * blocks: no step launched from now on is for this table, and what those fill behind the last commit is never indexed. */
void kv_seq_release(struct kv_seq *s, struct kv_prefix *x, int64_t now_ns, int64_t expiry_ns);

/* After match: how many of the full blocks that come next, within `max_tokens` and `cap`, the host tier holds, without a gap.
 * Their slots, not pinned, go to slots_out. */
uint32_t kv_seq_host_run(const struct kv_seq *s, const struct kv_prefix *x, uint32_t max_tokens,
                         uint32_t *slots_out, uint32_t cap);

uint32_t kv_seq_blocks_for(uint32_t n_tokens, uint32_t block_tokens);

#endif
