/* sim_report: the result of a simulation as a table per class, and as one CSV line per request.
 *
 * Owns     nothing; appends to the caller's buffer.
 * Units    ms, tokens/s of virtual time, per cent.
 * States   -
 * Threads  any.
 * Errors   those of the buffer (buf.failed).
 * Bounds   percentiles of requests are exact; those of gaps between tokens within 1 %.
 * Source   shared/design/SCHEDULING.md 10.5.
 */
#ifndef STATOR_SIM_REPORT_H
#define STATOR_SIM_REPORT_H

#include "sim_run.h"

enum sim_time { SIM_TTFT, SIM_QUEUE, SIM_END_TO_END };
enum { SIM_ALL = ENGINE_CLASSES }; /* in place of a class */

/* Of the requests of a class that ended well, in ns; -1 without any. `p` in 0..1. */
int64_t sim_report_percentile(const struct sim_result *r, uint32_t cls, enum sim_time what, double p);
int64_t sim_report_gap(const struct sim_result *r, uint32_t cls, double p);
/* Likewise of whole flows, from the first arrival to the last end. */
int64_t sim_report_flow(const struct sim_result *r, const struct sim_trace *t, double p);

void sim_report_table(struct buf *out, const struct sim_result *r, const struct sim_trace *t,
                      const struct engine_policy *p);
void sim_report_csv(struct buf *out, const struct sim_result *r, const struct sim_trace *t,
                    const struct engine_policy *p);

#endif
