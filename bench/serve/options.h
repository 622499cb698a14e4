/* options: the flags of the load generator, one table.
 *
 * Owns     nothing; strings point into argv.
 * Units    tokens, seconds, requests per second.
 * States   -
 * Threads  main only.
 * Errors   ST_EINVAL names the flag; ST_ECANCEL when --help was asked for and printed.
 * Bounds   every number is checked against the table's range.
 */
#ifndef BENCH_SERVE_OPTIONS_H
#define BENCH_SERVE_OPTIONS_H

#include "status.h"

#include <stdbool.h>
#include <stdint.h>

struct options {
    const char *url;      /* http://host:port */
    const char *endpoint; /* "chat" or "completions" */
    const char *model;    /* NULL: the first of /v1/models */
    const char *api_key;  /* may be NULL */
    const char *json;     /* report file, may be NULL */
    const char *label;    /* copied into the report */
    int64_t concurrency;  /* closed loop; in open loop the most requests at once */
    double rate;          /* requests per second; 0 = closed loop */
    int64_t num_requests, warmup;
    int64_t isl, osl, shared_prefix;
    int64_t token_ids; /* 0: text prompts; else random ids below this number (completions only) */
    int64_t seed;
    double timeout_s;
    bool stop_at_eos; /* default: ignore_eos, every reply has osl tokens */
    bool quiet;
};

int options_parse(struct options *o, int argc, char **argv, struct err *e);

#endif
