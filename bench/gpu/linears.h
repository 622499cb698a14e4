/* linears: the matrix products of three models by path and row count, and the probe of their numeric classes.
 *
 * Owns     its buffers, freed before it returns.
 * Units    microseconds, GB/s, TFLOP/s.
 * States   after rig_ceilings.
 * Threads  one.
 * Errors   ST_ENOMEM, ST_EDEVICE; a path that does not take a shape has no row.
 * Bounds   LINEARS_POOL bytes of weights.
 */
#ifndef STATOR_LINEARS_H
#define STATOR_LINEARS_H

#include "rig.h"

int linears_bench(struct rig *r);
/* Bits of one row at many row counts through each path, against lin_stream at one row. */
int linears_probe(struct rig *r);

#endif
