/* jobs: a lane is one background thread that runs jobs first in, first out.
 *
 * Owns     its thread and a bounded queue.
 * Units    jobs.
 * States   running -> jobs_destroy: queued jobs still run, then the thread ends.
 * Threads  jobs_push: any thread. The job function runs on the lane and reports back by itself (through a ring).
 * Errors   push: ST_AGAIN when the queue is full.
 * Bounds   no allocation after create.
 */
#ifndef STATOR_JOBS_H
#define STATOR_JOBS_H

#include "status.h"

#include <stdint.h>

struct jobs;
typedef void jobs_fn(void *ctx, uint64_t arg);

int jobs_create(struct jobs **out, uint32_t capacity, const char *thread_name);
void jobs_destroy(struct jobs *j); /* NULL ok; waits for all queued jobs */
int jobs_push(struct jobs *j, jobs_fn *fn, void *ctx, uint64_t arg);

#endif
