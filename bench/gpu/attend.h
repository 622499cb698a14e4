/* attend: attention over block tables: a grid of decode steps, and prompt chunks.
 *
 * Owns     its buffers, freed before it returns.
 * Units    GB/s of KV read (decode), TFLOP/s of the causal products (prompts).
 * States   after rig_ceilings.
 * Threads  one.
 * Errors   ST_ENOMEM, ST_EDEVICE; a shape whose KV does not fit says so in its row.
 * Bounds   ATTEND_POOL bytes of KV.
 */
#ifndef STATOR_ATTEND_H
#define STATOR_ATTEND_H

#include "rig.h"

int attend_bench(struct rig *r);

#endif
