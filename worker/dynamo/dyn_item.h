/* dyn_item: what a frontend is told of a request, item by item, as MessagePack.
 *
 * Owns     nothing.
 * Units    tokens.
 * States   of a request: tokens* -> one end for each choice, or one error.
 * Threads  any.
 * Errors   those of the buffer.
 * Bounds   -
 * Source   NVIDIA Dynamo 1.6.1: Annotated items of LLMEngineOutput; its error types and what they become over HTTP.
 */
#ifndef STATOR_DYN_ITEM_H
#define STATOR_DYN_ITEM_H

#include "buf.h"
#include "engine.h"

void dyn_item_put_token(struct buf *b, uint32_t index, const struct be_sample_out *sample, bool logprobs);

struct dyn_usage {
    uint64_t prompt, completion, cached;
};
/* `usage`: NULL where other choices are still open. */
void dyn_item_put_end(struct buf *b, uint32_t index, bool by_length, const struct dyn_usage *usage);

/* The text is shown to the client. ST_ETOOBIG tells by `limit` and `actual` instead. */
void dyn_item_put_error(struct buf *b, const struct err *e, uint64_t limit, uint64_t actual);

#endif
