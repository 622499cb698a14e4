/* dyn_generate: the generate endpoint of the request plane: a frontend's request -> the engine -> items of its stream.
 *
 * Owns     its jobs, one for each open request. Borrows the ledger, the counters and the limits' lists.
 * Units    tokens, ns.
 * States   create -> call* -> stop -> destroy. A job lives from its call to the end of its last choice, or until its frontend
 *          ends the stream or a choice fails: then what is open in the engine is cancelled at once.
 * Threads  the io thread.
 * Errors   a request's own errors are items of its stream, more choices than its class has places among them; pressure and the
 *          worker's end are refusals in the ack.
 * Bounds   as many jobs as the engine has slots; memory per job: its choices. The stream's bound holds its output.
 * Source   NVIDIA Dynamo 1.6.1: the generate endpoint of a backend worker.
 */
#ifndef STATOR_DYN_GENERATE_H
#define STATOR_DYN_GENERATE_H

#include "dyn_count.h"
#include "dyn_plane.h"
#include "dyn_request.h"
#include "ledger.h"

struct dyn_generate;

struct dyn_generate_options {
    struct ledger *ledger;
    struct dyn_request_limits limits;
    struct dyn_count *count;
};

int dyn_generate_create(struct dyn_generate **out, const struct dyn_generate_options *o);
/* NULL ok. The plane and its streams must be gone. */
void dyn_generate_destroy(struct dyn_generate *g);
/* For struct dyn_endpoint. */
enum dyn_answer dyn_generate_call(void *g, const struct dyn_call *call, struct err *why);
/* Ends what is open with an error that lets frontends go on elsewhere. */
void dyn_generate_stop(struct dyn_generate *g);
uint32_t dyn_generate_count(const struct dyn_generate *g); /* open jobs */

#endif
