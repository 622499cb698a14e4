/* loaded: a model on its backend, sized to the machine, with the texts that belong to it.
 *
 * Owns     backend, model, bundle. Borrows the configuration.
 * Units    tokens, blocks, sequences.
 * States   zeroed -> open -> close; a failed open is safe to close.
 * Threads  main opens and closes. Weights are packed by the backend's threads, the tokenizer's tables built on one more.
 * Errors   those of the parts, naming file or flag.
 * Bounds   what sizing chose.
 * Source   -
 */
#ifndef STATOR_LOADED_H
#define STATOR_LOADED_H

#include "backend.h"
#include "bundle.h"
#include "config.h"
#include "model.h"
#include "sizing.h"

struct loaded {
    const struct config *config;
    struct be *be;
    struct model *model;
    struct bundle bundle;
    struct sizing sizing;
    enum be_type kv_type;
    uint32_t n_host_blocks;
    uint32_t max_num_seqs, max_num_batched_tokens; /* as configured, or the device's default */
};

int loaded_open(struct loaded *l, const struct config *c, struct err *e);
void loaded_close(struct loaded *l);
bool loaded_on_device(const struct loaded *l); /* not the host's processors */

#endif
