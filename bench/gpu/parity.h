/* parity: every op on the GPU against the CPU backend's exact mode, per type and class of shapes.
 *
 * Owns     nothing after it returns.
 * Units    root mean square of the difference over that of the reference.
 * States   -
 * Threads  one.
 * Errors   ST_EINTERNAL when a row is outside its tolerance; those of the backends.
 * Bounds   side.h's.
 */
#ifndef STATOR_PARITY_H
#define STATOR_PARITY_H

#include "rig.h"

/* `small`: a few small shapes, as a memory checker can bear. */
int parity_bench(struct rig *r, bool small);

#endif
