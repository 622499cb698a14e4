/* calls: streaming completions in flight, each on a connection of its own.
 *
 * Owns     sockets, requests and replies of the calls in flight, until calls_destroy.
 * Units    nanoseconds of clock_now_ns.
 * States   a call: (calls_begin) in flight -> done or failed, told by on_done once; or (calls_abort) gone without a word.
 *          on_text comes before on_done, once per read that carried text.
 * Threads  the caller's; one thread, one epoll.
 * Errors   ST_ENOMEM from calls_create; a call that fails says why in on_done, also for what calls_begin could not do.
 * Bounds   `cap` calls at once; calls_begin asserts it.
 */
#ifndef BENCH_PRIORITY_CALLS_H
#define BENCH_PRIORITY_CALLS_H

#include "buf.h"
#include "load.h"
#include "reply.h"
#include "status.h"

#include <stdint.h>

struct calls;

struct calls_hooks {
    void *ctx;
    /* `tag` as given to calls_begin. r->events counts the text events so far. */
    void (*on_text)(void *ctx, uint32_t tag, const struct reply *r, int64_t now_ns);
    /* error is NULL when the reply came whole and with status 200. May begin the next call. */
    void (*on_done)(void *ctx, uint32_t tag, const struct reply *r, const char *error, int64_t now_ns);
};

int calls_create(struct calls **out, uint32_t cap, const struct load_target *target,
                 const struct calls_hooks *hooks, struct err *e);
void calls_destroy(struct calls *c); /* NULL ok */

void calls_begin(struct calls *c, uint32_t tag, struct str body);
void calls_abort(struct calls *c,
                 uint32_t tag); /* the connection closes, which the server takes for a cancel */
/* Waits for readiness, at most so long, and serves what is ready. */
void calls_poll(struct calls *c, int timeout_ms);

#endif
