/* req: request slots in fixed memory: what was asked, the tokens so far, what the sampler needs.
 *
 * Owns     one mapping that holds every slot's arrays.
 * Units    tokens, blocks.
 * States   a slot is the submitting thread's until it was pushed to the engine, the engine's until its END event was pushed,
 *          then the submitting thread's again. Both rings are the hand-over; no field needs to be atomic.
 * Threads  as above: one owner at a time.
 * Errors   ST_EINVAL with both numbers for what can never run; ST_ENOMEM at create.
 * Bounds   context_length tokens, ENGINE_BIAS_MAX biases. Pages that no request touched cost nothing.
 * Source   docs/ARCHITECTURE.md section 3 "Memory".
 */
#ifndef STATOR_REQ_H
#define STATOR_REQ_H

#include "engine.h"
#include "grammar_machine.h"
#include "kv_seq.h"

struct req {
    uint32_t gen;
    uint32_t n_prompt, max_tokens, min_tokens, n_output, n_cached;
    bool used;       /* submitting side: given out and not released */
    bool ended;      /* submitting side: END was popped */
    bool cancelling; /* submitting side: a cancel was sent */
    bool penalties;
    float temperature, top_p, min_p, repetition, frequency, presence;
    uint32_t top_k;
    uint64_t seed;
    int32_t stop[ENGINE_STOP_TOKENS_MAX];
    uint32_t n_stop;
    bool ignore_eos;
    uint32_t n_bias;
    int32_t n_logprobs;
    int32_t expected_output; /* announced; 0 = unknown */
    int64_t iat_ms;          /* 0 = unknown */
    int64_t arrival_ns, scheduled_ns, first_token_ns;
    int32_t *tokens;      /* [context_length]; a pending one is a BE_TOKEN_PREV */
    uint32_t *table;      /* [blocks of context_length] */
    struct kv_id *ids;    /* [blocks of context_length] */
    struct be_bias *bias; /* [ENGINE_BIAS_MAX] */
    struct be_seen *seen; /* [context_length] distinct tokens; only with penalties */
    uint32_t *seen_index; /* [seen_cap] position in seen + 1, 0 = empty */
    uint32_t n_seen, seen_cap;
    struct grammar *grammar;     /* a reference, until the slot is released; NULL: none */
    struct grammar_state *guide; /* with the drawn tokens behind it; only with a grammar */
};

struct req_limits {
    uint32_t n_slots, context_length, block_tokens, n_blocks, vocab;
};

struct req_table;

int req_table_create(struct req_table **out, const struct req_limits *l, struct err *e);
void req_table_destroy(struct req_table *t); /* NULL ok */
struct req *req_at(struct req_table *t, uint32_t slot);

/* Every field of `r` against the limits. */
int req_validate(const struct req_limits *l, const struct engine_request *r, struct err *e);
/* Copies a valid request into the slot. */
void req_fill(struct req *q, const struct engine_request *r);
void req_release(struct req *q); /* what the slot held for its request */
/* Appends a drawn token; there is room while n_output < max_tokens. */
void req_append(struct req *q, int32_t token);
bool req_is_stop(const struct req *q, int32_t token);
/* What the sampler needs to draw the token of `position`; points into the slot. */
void req_sample_row(const struct req *q, uint32_t position, uint32_t logits_row, struct be_sample_row *out);

#endif
