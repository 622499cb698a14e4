/* offload: carries out the scheduler's moves: blocks between the pool and the slab of the host tier.
 *
 * Owns     the slab (backend memory that copies are fast from), the moves not yet done, in order, each way by itself.
 * Units    blocks.
 * States   a move: put -> begun (with others, as one copy) -> done, which the scheduler is told.
 * Threads  the engine's thread.
 * Errors   ST_ENOMEM at create, naming the flag. A copy that fails is told to the scheduler; an urgent one ends the engine.
 * Bounds   one copy under way each way, of at most OFFLOAD_BATCH blocks or OFFLOAD_BYTES. No allocation after create.
 * Source   kernels/backend.h, "copies of whole blocks".
 */
#ifndef STATOR_OFFLOAD_H
#define STATOR_OFFLOAD_H

#include "backend.h"
#include "scheduler.h"

enum { OFFLOAD_BATCH = 256, OFFLOAD_BYTES = 16 << 20 };

struct offload;

/* `max_moves`: that can wait at once, each way. */
int offload_create(struct offload **out, struct be *be, struct be_kv *kv, const struct be_kv_shape *shape,
                   uint32_t n_host, uint32_t max_moves, struct err *e);
void offload_destroy(struct offload *o); /* NULL ok; nothing is left to be done */
/* Takes the moves of a plan. Urgent ones are done when this returns. */
int offload_put(struct offload *o, struct sched *s, const struct sched_plan *plan, int64_t now_ns,
                struct err *e);
/* Tells the scheduler what is done, and begins more. */
void offload_poll(struct offload *o, struct sched *s, int64_t now_ns);
/* Waits for what was begun, forgets the rest: every move is told as failed. */
void offload_abandon(struct offload *o, struct sched *s, int64_t now_ns);

#endif
