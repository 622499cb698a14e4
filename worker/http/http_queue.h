/* http_queue: the view of what waits and what runs, for an operator's eye: GET /v1/stator/queue.
 *
 * Owns     nothing.
 * Units    ms, tokens, blocks.
 * States   -
 * Threads  the io thread: it owns the ledger. What the engine says of a request may be a step old.
 * Errors   stick in the buffer.
 * Bounds   HTTP_QUEUE_MAX requests are listed, the first submitted first; the counts are of all.
 * Source   docs/OPERATIONS.md, "Queue view".
 */
#ifndef STATOR_HTTP_QUEUE_H
#define STATOR_HTTP_QUEUE_H

#include "buf.h"
#include "ledger.h"

enum { HTTP_QUEUE_MAX = 1000 };

void http_queue_put(const struct ledger *l, int64_t now_ns, struct buf *out);

#endif
