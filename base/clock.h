/* clock: the one source of time.
 *
 * Owns     nothing.
 * Units    int64 nanoseconds, monotonic, from an arbitrary start; wall time in whole seconds or ms since the epoch.
 * States   -
 * Threads  any.
 * Errors   none.
 * Bounds   about 25 ns a call.
 */
#ifndef STATOR_CLOCK_H
#define STATOR_CLOCK_H

#include <stdint.h>

enum { NS_PER_MS = 1000000, NS_PER_S = 1000000000 };

int64_t clock_now_ns(void);
int64_t clock_wall_s(void);
int64_t clock_wall_ms(void);

#endif
