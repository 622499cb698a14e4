/* sim_synth: made-up workloads, each the hard case of one promise.
 *
 *   low_flood   a flood of LOW at once (1k in, 500 out), HIGH (1k, 10) at 2/s beside it
 *   triage      pipelines: HIGH classifies -> 4 x LOW research -> MED drafts -> HIGH reviews
 *   agents      sessions of many turns over a growing context, pauses between them
 *   longdoc     every 10 s a document of 128k tokens over a chat that wants its tokens in time
 *   thrash      LOW fills a pool of 1.05 x its need, HIGH keeps coming
 *   diurnal     a day of load from 0.2 to 1.4 of capacity, four classes
 *
 * Owns     nothing.
 * Units    as sim_trace.h.
 * States   -
 * Threads  any.
 * Errors   ST_EINVAL for a name that is none of these; ST_ENOMEM.
 * Bounds   SIM_TRACE_REQUESTS_MAX requests.
 * Source   shared/design/SCHEDULING.md 10.5. Rates suit one H100 with an 8B model; sim_trace_scale does the rest.
 */
#ifndef STATOR_SIM_SYNTH_H
#define STATOR_SIM_SYNTH_H

#include "sim_trace.h"

enum { SIM_PRIORITY_LOW = 0, SIM_PRIORITY_MED = 5, SIM_PRIORITY_HIGH = 10 };

bool sim_synth_known(const char *name);
const char *sim_synth_names(void);
/* `n`: LOW requests, pipelines, sessions, chats or requests, as the workload counts; 0: its own number. t->seed is set before. */
int sim_synth(struct sim_trace *t, const char *name, uint32_t n, struct err *e);

#endif
