/* Counting is a few additions per request; what they are called on a page is the page's matter. */
#include "dyn_count.h"

#include "clock.h"

const int64_t dyn_count_bounds_ms[DYN_COUNT_BUCKETS] = {5,    10,   25,   50,    100,   250,   500,
                                                        1000, 2500, 5000, 10000, 30000, 60000, 300000};

void dyn_count_begin(struct dyn_count *c, uint64_t request_bytes)
{
    c->requests++;
    c->inflight++;
    c->request_bytes += request_bytes;
}

void dyn_count_end(struct dyn_count *c, int64_t duration_ns)
{
    uint32_t bucket = 0;
    while (bucket < DYN_COUNT_BUCKETS && duration_ns > dyn_count_bounds_ms[bucket] * NS_PER_MS)
        bucket++;
    c->durations[bucket]++;
    c->duration_ns += (uint64_t)duration_ns;
    c->inflight--;
}
