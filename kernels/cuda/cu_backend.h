/* cu_backend: the op table on one NVIDIA GPU.
 *
 * Owns     the device's context and everything that is made through it.
 * Units    see backend.h.
 * States   see backend.h; step_limits comes after the weights and the KV pool, whose shapes it needs.
 * Threads  see backend.h; loading fills its staging buffers with threads of its own.
 * Errors   ST_EUNSUP (no GPU, no driver: the text says which), ST_ENOMEM, ST_EDEVICE (sticky).
 * Bounds   see backend.h.
 * Source   KERNELS design, sections 0, 7 and 8.
 */
#ifndef STATOR_CU_BACKEND_H
#define STATOR_CU_BACKEND_H

#include "backend.h"

int cuda_backend_create(struct be **out, const struct be_options *o, struct err *e);

#endif
