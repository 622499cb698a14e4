/* join: from the configuration to a worker of a Dynamo deployment.
 *
 * Owns     nothing of its own.
 * Units    -
 * States   join_create once the endpoint stands -> the io loop runs -> join_publish.
 * Threads  main.
 * Errors   those of dyn_worker.h, and an address that cannot be listened on.
 * Bounds   -
 * Source   -
 */
#ifndef STATOR_JOIN_H
#define STATOR_JOIN_H

#include "card.h"
#include "config.h"
#include "dyn_worker.h"
#include "http.h"

struct join_input {
    const struct config *config;
    struct http *http; /* the worker is attached to its loop */
    struct ledger *ledger;
    const char *device;
    struct dyn_request_limits limits;
    struct card *card; /* told where its files are served */
    int64_t started_ns;
};

int join_create(struct dyn_worker **out, const struct join_input *in, struct err *e);

#endif
