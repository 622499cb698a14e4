/* batch: the arrays of one step, built from a plan. One for each step that may be under way.
 *
 * Owns     its arrays. Spans borrow the sequences' block tables, sample rows borrow the slots.
 * Units    rows = tokens; spans = sequences.
 * States   batch_reset -> batch_add* -> read by the step until end_step, drawn filled by wait_step -> batch_reset.
 * Threads  the engine's thread.
 * Errors   ST_ENOMEM at create.
 * Bounds   max_rows rows, max_spans spans; exceeding them is a bug (assert).
 * Source   struct be_batch in kernels/backend.h.
 */
#ifndef STATOR_BATCH_H
#define STATOR_BATCH_H

#include "backend.h"

struct batch {
    struct be_batch be;           /* views into the arrays below */
    struct be_sample_row *sample; /* [max_spans], be.n_logits of them */
    struct be_sample_out *drawn;  /* [max_spans] */
    int32_t *tokens;              /* [max_rows] */
    uint32_t *positions;          /* [max_rows] */
    uint32_t *kv_slots;           /* [max_rows] */
    struct be_span *spans;        /* [max_spans] */
    uint32_t *logit_rows;         /* [max_spans] */
    uint32_t max_rows, max_spans, block_tokens;
};

int batch_create(struct batch **out, uint32_t max_rows, uint32_t max_spans, uint32_t block_tokens,
                 struct err *e);
void batch_destroy(struct batch *b); /* NULL ok */

void batch_reset(struct batch *b);
/* Tokens start .. start+n-1 of a sequence whose tokens and block table are given. Returns the logits row of the last one,
 * or -1 when no logits are wanted. */
int32_t batch_add(struct batch *b, const int32_t *tokens, const uint32_t *table, uint32_t start, uint32_t n,
                  bool want_logits);

#endif
