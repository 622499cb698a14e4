/* timing: when the tokens of one engine request came, and what the metrics learn from it.
 *
 * Owns     nothing.
 * Units    ns, as clock_now_ns.
 * States   init -> token* -> end.
 * Threads  the io thread only.
 * Errors   none.
 * Bounds   fixed size: a gap is judged when it is seen.
 * Source   goodput as AIPerf counts it: requests that met all targets.
 */
#ifndef STATOR_TIMING_H
#define STATOR_TIMING_H

#include "engine.h"
#include "metrics.h"

#include <stdbool.h>
#include <stdint.h>

/* Targets; 0 = none, which is always met. */
struct timing_slo {
    int64_t ttft_ns;
    int64_t itl_ns; /* for 95 % of a request's gaps */
};

struct timing {
    int64_t arrival_ns, first_ns, last_ns; /* 0 = no token yet */
    uint64_t n_gaps, n_late;               /* between tokens; of which above the target */
    uint8_t cls;                           /* of priority */
};

void timing_init(struct timing *t, uint32_t cls, int64_t arrival_ns);
void timing_token(struct timing *t, const struct timing_slo *slo, struct metrics *m, int64_t now_ns);
/* `good`: the request ended as it should. */
void timing_end(const struct timing *t, const struct timing_slo *slo, struct metrics *m, const struct engine_event *end,
                     bool good);

#endif
