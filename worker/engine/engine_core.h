/* engine_core: the engine over any forward function: what engine_create fills in from a model, and tests from a fake.
 *
 * Owns     nothing.
 * Units    tokens, positions.
 * States   -
 * Threads  forward is called on the engine's thread, between begin_step and end_step.
 * Errors   as engine.h.
 * Bounds   n_rows <= max_num_batched_tokens, n_logits <= max_num_seqs.
 * Source   docs/ARCHITECTURE.md section 1: the engine knows the model by one function.
 */
#ifndef STATOR_ENGINE_CORE_H
#define STATOR_ENGINE_CORE_H

#include "engine.h"

struct engine_core {
    int (*forward)(void *ctx, const struct be_batch *batch, struct be_kv *kv, float *logits);
    void *ctx;
    uint32_t vocab;
    struct be_kv_shape kv;   /* block_tokens, n_blocks and type are filled from the options */
    const void *fingerprint; /* [fingerprint_bytes]; read at create only */
    uint32_t fingerprint_bytes;
    int64_t (*now_ns)(void *ctx); /* NULL: clock_now_ns; a simulation has a time of its own */
};

int engine_core_create(struct engine **out, const struct engine_options *o, const struct engine_core *c,
                       struct err *e);

/* For a driver without a thread (a simulation): one turn of the loop on an engine that was not started; the driver submits
 * and pops events between turns, on the same thread. False: there is nothing to do before the next submit. */
bool engine_turn(struct engine *g);

#endif
