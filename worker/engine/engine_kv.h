/* engine_kv: what the engine's KV cache gains and loses, for one thread that tells others of it.
 *
 * Owns     nothing.
 * Units    nodes and names as in kv_event.h; salt_tag and options.kv_event_seed are what they are made with.
 * States   on if engine_options.kv_event_capacity is not 0. Off, nothing ever comes and the fd is -1.
 * Threads  one thread, the same for all calls.
 * Errors   none.
 * Bounds   the engine never waits for this thread: see kv_event.h for what comes of it.
 * Source   kvcache/kv_event.h.
 */
#ifndef STATOR_ENGINE_KV_H
#define STATOR_ENGINE_KV_H

#include "engine.h"
#include "kv_event.h"

uint32_t engine_kv_nodes(const struct engine *g); /* event.node is below */
bool engine_kv_pop(struct engine *g, struct kv_event *out);
int engine_kv_fd(
    const struct engine *g); /* readable when events may be there; with the sleep protocol of ring.h */
bool engine_kv_sleep(struct engine *g);
void engine_kv_drain_fd(struct engine *g);

#endif
