/* cpu_backend: the op table on CPU threads; the embedded default and the numeric reference.
 *
 * Owns     its thread pool, packed weights, KV pools, buffers.
 * Units    see backend.h.
 * States   see backend.h.
 * Threads  see backend.h; the calling thread is thread 0 of the pool.
 * Errors   ST_EUNSUP when cpu_isa names an instruction set that this machine lacks; ST_ENOMEM.
 * Bounds   see backend.h.
 * Source   docs/CPU.md.
 */
#ifndef STATOR_CPU_BACKEND_H
#define STATOR_CPU_BACKEND_H

#include "backend.h"

int cpu_backend_create(struct be **out, const struct be_options *o, struct err *e);

#endif
