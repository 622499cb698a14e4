/* gap: how long the GPU idles between two decode steps: events around every launch of a graph, put there by the linker.
 *
 * Owns     its events.
 * Units    microseconds.
 * States   open -> (start -> stop)* -> close. Links with --wrap=gpu_graph_launch.
 * Threads  start and stop: any one; launches: the engine's. stop comes after the last launch.
 * Errors   those of gpu.h; without events nothing is measured.
 * Bounds   the first GAP_LAUNCHES launches after start.
 */
#ifndef STATOR_GAP_H
#define STATOR_GAP_H

#include "gpu.h"

enum { GAP_LAUNCHES = 128 };

struct gap {
    uint32_t n; /* gaps seen; 0: no figures */
    double median_us, p99_us;
    double floor_us; /* between two events with nothing between them: a gap of zero reads so */
};

int gap_open(struct gpu *g);
void gap_close(void);
void gap_start(void);
int gap_stop(struct gpu_stream *s, struct gap *out); /* s: any idle stream */

#endif
