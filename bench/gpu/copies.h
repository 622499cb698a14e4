/* copies: blocks between the GPU and pinned host memory, alone and beside steps that use the GPU's memory.
 *
 * Owns     its buffers, freed before it returns.
 * Units    GB/s; microseconds of a batch.
 * States   -
 * Threads  one.
 * Errors   ST_ENOMEM, ST_EDEVICE.
 * Bounds   blocks of 64 KiB to 2 MiB, batches of up to 64.
 */
#ifndef STATOR_COPIES_H
#define STATOR_COPIES_H

#include "rig.h"

int copies_bench(struct rig *r);

#endif
