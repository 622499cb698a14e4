/* random: numbers that differ from one call, and from one process, to the next: seeds and ids. Not for secrets.
 *
 * Owns     nothing.
 * Units    -
 * States   -
 * Threads  any.
 * Errors   none: where the system has no entropy yet, the clock stands in.
 * Bounds   one system call, which never blocks.
 */
#ifndef STATOR_RANDOM_H
#define STATOR_RANDOM_H

#include <stdint.h>

uint64_t random_u64(void);

#endif
