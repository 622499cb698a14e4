/* rowops: the row-wise kernels and the sampler.
 *
 * Owns     its buffers, freed before it returns.
 * Units    microseconds; GB/s of what is read and written.
 * States   after rig_ceilings.
 * Threads  one.
 * Errors   ST_ENOMEM, ST_EDEVICE.
 * Bounds   2048 rows; 256 for the sampler.
 */
#ifndef STATOR_ROWOPS_H
#define STATOR_ROWOPS_H

#include "rig.h"

int rowops_bench(struct rig *r);

#endif
