/* report: what a run measured, as a table and as JSON.
 *
 * Owns     nothing; sorts the result's gap array in place.
 * Units    milliseconds and tokens per second in the output.
 * States   -
 * Threads  main only.
 * Errors   ST_EIO with the path when the JSON file cannot be written; ST_ENOMEM.
 * Bounds   O(n log n) in requests and gaps.
 *
 * TTFT      from the start of a request (open loop: from when it was due) to its first text.
 * ITL       between two text events of a stream, all streams together.
 * TPOT      (last text - first text) / (output tokens - 1), one figure per request.
 * user tok/s  1 / TPOT.
 * prefill tok/s  prompt tokens / TTFT, one figure per request; at concurrency 1 the model's prefill speed.
 * full-load tok/s  text events per second while every one of the `concurrency` streams was decoding.
 */
#ifndef BENCH_SERVE_REPORT_H
#define BENCH_SERVE_REPORT_H

#include "load.h"

int report_write(const struct options *o, const char *model, struct load_result *r, struct err *e);

#endif
