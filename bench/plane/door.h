/* door: keeps so many requests in flight on one worker's request plane, and one record of each, as load.h does over HTTP.
 *
 * Owns     its sockets while door_run lasts; struct load_result until load_result_fini.
 * Units    as load.h.
 * States   -
 * Threads  the caller's; one thread, one epoll.
 * Errors   ST_EIO when the worker cannot be reached, or all requests fail. A request that fails is a record with `failed` set.
 * Bounds   `concurrency` streams, one connection for requests; messages as wire.h bounds them.
 */
#ifndef BENCH_PLANE_DOOR_H
#define BENCH_PLANE_DOOR_H

#include "load.h"

struct door_spec {
    const struct options *o;
    const struct load_target *target;
    const char *path, *model;
    uint64_t first_index; /* of the prompts: no two phases may share one */
    int64_t num_requests, concurrency;
};

int door_run(struct load_result *out, const struct door_spec *s, struct err *e);

#endif
