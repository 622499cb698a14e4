/* engine_mux: one consumer of an engine's events for several modules: each open request has an owner who is told.
 *
 * Owns     the table of owners. Borrows the engine.
 * Units    -
 * States   create -> submit, own, poll* -> destroy. A slot's owner lasts from submit to the END event.
 * Threads  the io thread.
 * Errors   submit: those of engine_submit.
 * Bounds   one owner per engine slot, no allocation after create; a poll handles ENGINE_MUX_BATCH events.
 * Source   -
 */
#ifndef STATOR_ENGINE_MUX_H
#define STATOR_ENGINE_MUX_H

#include "engine.h"

enum { ENGINE_MUX_BATCH = 1024 };

struct engine_mux;

/* With END the slot was released already: (slot, gen) mean nothing any more. */
struct engine_owner {
    void (*event)(void *ctx, uint32_t tag, const struct engine_event *ev); /* NULL: nobody is told */
    void *ctx;
    uint32_t tag;
};

int engine_mux_create(struct engine_mux **out, struct engine *g);
void engine_mux_destroy(struct engine_mux *m); /* NULL ok */
struct engine *engine_mux_engine(const struct engine_mux *m);

int engine_mux_submit(struct engine_mux *m, const struct engine_request *r, const struct engine_owner *owner,
                      uint32_t *slot_out, uint32_t *gen_out, struct err *e);
/* From now on this one is told of an open request's events; one that lost interest gives NULL or somebody who counts. */
void engine_mux_own(struct engine_mux *m, uint32_t slot, uint32_t gen, const struct engine_owner *owner);
/* Hands out what the engine reported; true when more may be waiting. */
bool engine_mux_poll(struct engine_mux *m);

#endif
