/* dyn_card: the model card, by which frontends know what this worker serves and how to speak for it.
 *
 * Owns     nothing.
 * Units    tokens, blocks.
 * States   -
 * Threads  any.
 * Errors   as dyn_record.
 * Bounds   O(length).
 * Source   NVIDIA Dynamo 1.6.1: model deployment cards.
 */
#ifndef STATOR_DYN_CARD_H
#define STATOR_DYN_CARD_H

#include "dyn_files.h"
#include "dyn_record.h"

#include <stdbool.h>

struct dyn_card {
    const char *name; /* what clients ask for */
    const struct dyn_files *files;
    const char *
        base_url; /* NULL: frontends read the files where they lie; else from here, "http://10.0.0.1:8099/v1/stator/model" */
    bool chat; /* has a template */
    uint32_t context_max, context_length, block_tokens, n_blocks, max_num_seqs, max_num_batched_tokens,
        migration_limit;
    bool kv_events;
    const char *tool_parser, *reasoning_parser; /* names that frontends know, NULL = none */
};

void dyn_card_record(struct dyn_record *out, const struct dyn_self *self, const struct dyn_card *card);

/* Lower case; what is not of [a-z0-9_-] becomes '-'. */
void dyn_card_slug(struct buf *out, const char *name);

#endif
