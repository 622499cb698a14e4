/* dyn_count: what the status server says of the requests that came over the plane.
 *
 * Owns     nothing; a struct dyn_count lives in its owner's memory, zeroed.
 * Units    requests, bytes, ns; DYN_COUNT_BUCKETS upper bounds of durations, in seconds on the page.
 * States   -
 * Threads  the io thread counts and reads.
 * Errors   none.
 * Bounds   O(1); the page is O(names).
 * Source   NVIDIA Dynamo 1.6.1: names of the component metrics.
 */
#ifndef STATOR_DYN_COUNT_H
#define STATOR_DYN_COUNT_H

#include <stdint.h>

enum { DYN_COUNT_BUCKETS = 14 };

enum dyn_error {
    DYN_ERROR_DESERIALIZATION,
    DYN_ERROR_INVALID,
    DYN_ERROR_STREAM,
    DYN_ERROR_GENERATE,
    DYN_ERROR_PUBLISH,
    DYN_ERRORS
};

struct dyn_count {
    uint64_t requests, request_bytes, response_bytes, cancellations, errors[DYN_ERRORS];
    uint64_t inflight;
    uint64_t durations[DYN_COUNT_BUCKETS + 1]; /* not cumulative; the last: longer than all bounds */
    uint64_t duration_ns;
};

void dyn_count_begin(struct dyn_count *c, uint64_t request_bytes);
void dyn_count_end(struct dyn_count *c, int64_t duration_ns); /* of what began, however it ended */

extern const int64_t dyn_count_bounds_ms[DYN_COUNT_BUCKETS]; /* ascending */

#endif
