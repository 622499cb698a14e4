/* estimate: what requests are expected to do, learned from those that ended: how much they will write, when their conversation
 * comes back, how long blocks are worth keeping for it, when a full queue has a place again.
 *
 * Owns     nothing: plain structs. All zero is one that has learned nothing.
 * Units    tokens; ms and ns as named; work in any unit, the same everywhere.
 * States   none.
 * Threads  one at a time (the engine's).
 * Errors   none: announcements are clamped, whatever a client says.
 * Bounds   each call a few dozen operations. Expiries are orders of eviction: integers all the way.
 * Source   shared/design/SCHEDULING.md 4.4 (output), 4.5 (returns), 6.1 (expiry), 5.2 (Retry-After).
 */
#ifndef STATOR_ESTIMATE_H
#define STATOR_ESTIMATE_H

#include "engine.h"

/* ---- expected output, per class ------------------------------------------------------------------------------------ */

enum { ESTIMATE_LENGTHS = 24 };

struct output_estimate {
    struct {
        double log_ratio, weight; /* moving sum of ln(actual / announced), and of its weights */
        uint32_t n;
    } announced[ENGINE_CLASSES];
    struct {
        uint32_t count[ESTIMATE_LENGTHS]; /* ends with 2^i .. 2^(i+1)-1 tokens; halved now and then */
        uint32_t n, since_halved;
    } lengths[ENGINE_CLASSES + 1]; /* the last: of all classes */
};

/* Tokens that a request will write, at most `cap`, at least 16 of those. announced: by the client, 0 = it said nothing. */
uint32_t estimate_output(const struct output_estimate *s, uint32_t cls, uint32_t announced, uint32_t cap);
/* One has ended by itself (no cancel, no error). */
void estimate_note_output(struct output_estimate *s, uint32_t cls, uint32_t announced, uint32_t cap,
                          uint32_t actual);

/* ---- returns of conversations: one for each class ------------------------------------------------------------------- */

struct return_estimate {
    uint32_t n_returns, n_ends; /* gaps seen; conversations seen to come back or not */
    int64_t ratio, spread;      /* moving means of gap / announced and of how far that was off, in 1/65536 */
    int64_t returned;           /* share that came back, in 1/65536 */
};

/* Expected time until the next call, and how much later it may come. False: nothing was announced (<= 0), or such announcements
 * have proved empty. */
bool estimate_return(const struct return_estimate *s, int64_t announced_ms, int64_t *gap_ms,
                     int64_t *window_ms);
void estimate_note_return(struct return_estimate *s, int64_t announced_ms, int64_t gap_ms);
void estimate_note_no_return(struct return_estimate *s); /* its blocks are gone and nobody asked for them */

/* ---- until when blocks are worth keeping ---------------------------------------------------------------------------- */

struct retain_ask {
    int64_t now_ns;                                 /* end of the call */
    int64_t device_residence_ns, host_residence_ns; /* how long a block lasts unused in each tier */
    int64_t points;                                 /* priority, strict tiers included */
    int64_t iat_ms;                                 /* as announced; 0 = unknown */
};

/* Ranks of eviction: as if the block had been used at that moment. A block lasts about a residence beyond it. */
struct retain_until {
    int64_t device_ns, host_ns;
};

/* A priority of 8 doubles the residence, -8 halves it. A call back that is near keeps the blocks until then; one that is beyond
 * twice the residence lets them go first: another tier, where it is near, keeps its copy. */
struct retain_until estimate_expiry(const struct return_estimate *s, const struct retain_ask *ask);

/* ---- when a full queue has a place again ----------------------------------------------------------------------------- */

struct service_estimate {
    double retired, busy_s;          /* moving sums: work done, and the seconds that it took */
    double accepted[ENGINE_CLASSES]; /* moving sums of work that came */
    int64_t accepted_ns;             /* when the last came */
};

struct service_queue {
    uint32_t waiting; /* requests, of all classes */
    double work;      /* theirs */
    uint32_t places;  /* how many may wait for one of the refused class to join */
};

void estimate_note_retired(struct service_estimate *s, double work, int64_t busy_ns); /* after a step */
void estimate_note_accepted(struct service_estimate *s, uint32_t cls, double work, int64_t now_ns);
/* Seconds to tell a refused request, 1 to 120; a few more for some than for others, by its number, lest they return at once. */
uint32_t estimate_retry_after_s(const struct service_estimate *s, uint32_t cls, const struct service_queue *q,
                                int64_t now_ns, uint64_t request);

#endif
