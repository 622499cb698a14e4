/* metrics: counters and histograms of requests, and the page that shows them beside the engine's counts.
 *
 * Owns     nothing beyond its own memory.
 * Units    seconds in histograms of time, tokens in histograms of length.
 * States   zeroed is valid.
 * Threads  the io thread only.
 * Errors   none; metrics_put: see buf.h.
 * Bounds   fixed size. Of the classes of priority the page names "normal" always and the others once they were seen.
 * Source   Prometheus text format 0.0.4; names and buckets as vLLM's, with the prefix stator_.
 */
#ifndef STATOR_METRICS_H
#define STATOR_METRICS_H

#include "api_hints.h"
#include "buf.h"
#include "engine.h"

#include <stdint.h>

enum metrics_histogram {
    METRICS_TTFT,
    METRICS_ITL,
    METRICS_E2E,
    METRICS_QUEUE,
    METRICS_PROMPT,
    METRICS_GENERATION,
    METRICS_HISTOGRAMS
};
enum metrics_finish { METRICS_STOP, METRICS_LENGTH, METRICS_ABORT, METRICS_ERROR, METRICS_FINISHES };
enum { METRICS_BUCKETS_MAX = 24 };

struct metrics {
    struct {
        uint64_t count[METRICS_BUCKETS_MAX + 1]; /* the last used one is +Inf */
        double sum;
    } histograms[METRICS_HISTOGRAMS][ENGINE_CLASSES];
    uint64_t finished[ENGINE_CLASSES][METRICS_FINISHES];
    uint64_t good[ENGINE_CLASSES], good_tokens[ENGINE_CLASSES]; /* met every target; what they generated */
    uint64_t hint_clamped[API_HINTS];
};

void metrics_observe(struct metrics *m, enum metrics_histogram h, uint32_t cls, double value);
void metrics_count_hints(struct metrics *m, uint32_t clamped); /* api_hints.clamped of one call */

void metrics_put(const struct metrics *m, const struct engine_stats *s, struct str model, struct buf *out);

#endif
