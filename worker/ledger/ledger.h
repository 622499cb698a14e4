/* ledger: the open requests of this worker, through whichever door they came: who is told of their events, what an observer
 * sees of them, and what the metrics learn when they end.
 *
 * Owns     the book of open requests and the metrics. Borrows the engine, of whose events it is the one consumer.
 * Units    tokens, ns.
 * States   create -> (submit, finish, cancel, drop, visit, poll)* -> destroy. A request is open from submit to its END; a stale
 *          (slot, gen) is ignored.
 * Threads  the io thread; create before it runs.
 * Errors   submit: those of engine_submit.
 * Bounds   one record per engine slot, no allocation after create; a poll handles LEDGER_BATCH events.
 * Source   -
 */
#ifndef STATOR_LEDGER_H
#define STATOR_LEDGER_H

#include "buf.h"
#include "engine.h"
#include "metrics.h"
#include "timing.h"

enum { LEDGER_BATCH = 1024 };

struct ledger;

enum ledger_door { LEDGER_HTTP, LEDGER_DYNAMO };

/* What an observer calls a request by. Texts are borrowed until its END or its drop. */
struct ledger_name {
    enum ledger_door door;
    const char *id;                   /* of the call */
    uint32_t choice;                  /* of the call's reply */
    struct str prefix_id, session_id; /* empty: none */
};

/* With END the slot was released already: (slot, gen) mean nothing any more. */
struct ledger_owner {
    void (*event)(void *ctx, uint32_t tag, const struct engine_event *ev);
    void *ctx;
    uint32_t tag;
};

/* An open request, for the visit only. */
struct ledger_request {
    const struct ledger_name *name;
    const struct timing *timing;
    uint32_t slot, gen, n_prompt;
    int32_t priority, strict_priority, expected_output_tokens; /* the hints, as the engine was told */
    float latency_sensitivity;
    int64_t iat_ms;
};

int ledger_create(struct ledger **out, struct engine *g, const struct timing_slo *slo);
void ledger_destroy(struct ledger *l); /* NULL ok */
struct engine *ledger_engine(const struct ledger *l);
struct metrics *ledger_metrics(struct ledger *l);

int ledger_submit(struct ledger *l, const struct engine_request *r, const struct ledger_name *name,
                  const struct ledger_owner *owner, uint32_t *slot_out, uint32_t *gen_out, struct err *e);
/* Three ways to end one early. The answer is whole: what the engine still draws is nobody's, and the request counts as one
 * that stopped by itself. */
void ledger_finish(struct ledger *l, uint32_t slot, uint32_t gen);
/* The answer is not wanted, but its END is. */
void ledger_cancel(struct ledger *l, uint32_t slot, uint32_t gen);
/* Nor is its END: the owner is told nothing more and may go, and no visit finds it. */
void ledger_drop(struct ledger *l, uint32_t slot, uint32_t gen);

/* All open requests that were not dropped, the first submitted first. */
void ledger_visit(const struct ledger *l, void (*visit)(void *ctx, const struct ledger_request *r), void *ctx);
uint32_t ledger_open(const struct ledger *l); /* without END, the dropped ones too */

/* Hands out what the engine reported; true when more may be waiting. */
bool ledger_poll(struct ledger *l);

#endif
