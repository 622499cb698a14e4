/* steptime: how long a step will take, learned from the steps that ran. The planner sizes prompt chunks by it.
 *
 * Owns     nothing: a plain struct, no memory, no clock. Same seed and same updates, same predictions, bit for bit.
 * Units    ns; rows = tokens of a step; positions for attention and context.
 * States   init -> (predict, fit)* and update after each step, in any order.
 * Threads  one at a time (the engine's).
 * Errors   none. A measurement <= 0 is ignored.
 * Bounds   predict: about 10 ns; fit: log2(want) of them; update: less than a microsecond.
 * Source   shared/design/SCHEDULING.md 2.4.
 */
#ifndef STATOR_STEPTIME_H
#define STATOR_STEPTIME_H

#include <stdint.h>

enum { STEPTIME_BUCKETS = 22, STEPTIME_PARTS = STEPTIME_BUCKETS + 2 };

/* A guess of the machine, all layers together, each > 0 but step_ns, which may be 0. Wrong by a factor of 20 it is forgotten
 * within 200 steps; meanwhile chunks are too small or too large, nothing worse. */
struct steptime_seed {
    double step_ns;      /* of a step without rows: launches, reading the weights */
    double row_ns;       /* of one row more in a large step */
    double attention_ns; /* of one row of a prompt looking at one position */
    double context_ns;   /* of a decoding row's read of one position */
};

/* What a step has to do. */
struct steptime_load {
    uint32_t n_rows;    /* 0 counts as 1 */
    uint64_t attention; /* sum over prompt chunks of n * (start + n / 2) */
    uint64_t context;   /* sum over decoding rows of their positions */
};

/* All of it is the model's own; sigma and the counts may be read. */
struct steptime {
    double part_ns[STEPTIME_PARTS]; /* a step with a bucket's rows; per attention; per context: predictions */
    double unit_ns[STEPTIME_PARTS];             /* the same by the seed */
    double times[STEPTIME_PARTS];               /* what was learned, in multiples of it */
    double cov[STEPTIME_PARTS][STEPTIME_PARTS]; /* how unsure `times` is */
    double sigma;                               /* moving mean of |measured - predicted| / predicted */
    uint32_t strikes;                           /* doubted ones in a row */
    uint64_t n_updates, n_doubted;
};

void steptime_init(struct steptime *m, const struct steptime_seed *seed);

/* Expected time, times 1 + z * sigma: z = 0 for expectations, 1.5 for bounds. Rises with each member of the load. */
double steptime_predict_ns(const struct steptime *m, const struct steptime_load *load, double z);

/* A step of this load took so long. One far off is doubted and counted (a page fault, a busy host); five in a row are
 * believed. */
void steptime_update(struct steptime *m, const struct steptime_load *load, int64_t measured_ns);

/* `base` plus the n tokens of a prompt that stand at start, start + 1, ... */
struct steptime_load steptime_with_chunk(const struct steptime_load *base, uint32_t start, uint32_t n);
/* The largest n <= want for which that takes at most cap_ns; 0 if not even one token does. */
uint32_t steptime_fit(const struct steptime *m, const struct steptime_load *base, uint32_t start,
                      uint32_t want, double cap_ns, double z);

#endif
