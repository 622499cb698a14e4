/* sched_state: the scheduler's parts and what each does: scheduler.c (the plan), sched_queue.c (who waits, in which order),
 * sched_admit.c (how one who waits comes to run), sched_take.c (who gives way, and what becomes of his blocks).
 *
 * Owns     struct sched.
 * Units    see scheduler.h.
 * States   see scheduler.h.
 * Threads  the engine's thread.
 * Errors   -
 * Bounds   -
 * Source   -
 */
#ifndef STATOR_SCHED_STATE_H
#define STATOR_SCHED_STATE_H

#include "heap.h"
#include "scheduler.h"

enum { SCHED_ASIDE_MAX = 64, SCHED_ADMIT_MAX = 32 /* per plan */, SCHED_FAST = SCHED_LATENCY_MAX * 4 / 5 };

struct sched_chain { /* waiting requests of one rank that never ran, in order of arrival */
    uint32_t head, tail;
};

/* Pins of a block that a set of victims would drop; valid while `stamp` is the set's. */
struct sched_scratch {
    uint32_t stamp, pins;
};

struct sched {
    struct sched_options o;
    struct kv_prefix *kv;
    struct sched_seq *seqs; /* [n_slots] */
    uint32_t *
        epoch; /* [n_slots] rises when the slot is removed. Not in the record: that is the submitter's between two
                        requests, while a stale row of the first may still be under way */
    uint32_t *lease; /* [n_slots] rises when it lets its blocks go */
    bool *here;      /* [n_slots] submitted and not removed: only then the record is ours to read */

    /* waiting */
    struct sched_chain *chains; /* [n_chains] by rank and fast track */
    uint64_t *chain_bits;       /* which are not empty */
    uint32_t n_chains, n_waiting;
    struct heap *heap; /* heads of chains and those who wait alone */
    uint32_t *held;    /* [n_slots] n_held of those who wait with blocks */
    uint32_t n_held;

    uint32_t
        *loading; /* [n_slots] n_loading slots whose blocks are under way from the host tier, in no order */
    uint32_t n_loading;

    uint32_t *run; /* [max_num_seqs] n_run slots by rank */
    uint32_t n_run;

    /* one plan */
    struct sched_plan plan;
    struct sched_row *rows;             /* [max_num_seqs] */
    uint32_t *admitted;                 /* [n_slots + SCHED_ADMIT_MAX] */
    struct sched_preemption *preempted; /* [n_slots + SCHED_ADMIT_MAX] */
    struct sched_move *moves;           /* [cap_moves] */
    uint32_t cap_moves;
    uint32_t *grant;     /* [n_slots] tokens */
    uint64_t *settled;   /* [n_slots] number of the plan in which it got its blocks */
    uint64_t *wanted_by; /* [n_slots] number of the plan in which a waiting one wants what it computes */
    uint32_t aside[SCHED_ASIDE_MAX], n_aside;
    uint32_t *victims; /* [n_slots] */
    bool drop_parts;   /* those who let go now do not park */
    uint32_t n_victims;
    uint32_t *chosen;              /* [n_slots] the set that it is in */
    struct sched_scratch *scratch; /* [n_blocks] */
    uint32_t *hosts;               /* [n_blocks] host slots of one match */
    uint32_t stamp;
    uint32_t budget_left;
    uint64_t wanted; /* tokens that the settled ones could use */

    struct steptime model;
    struct steptime_load load; /* of what was given so far, and of all decoding ones */
    double cap_ns, max_ns;     /* of this step; 0: none. max: for a prompt that is late */
    int64_t high_ns, low_ns;   /* leads of the first and the last who decode; nobody: above and below all */
    uint64_t yielded;          /* number of the plan in which decoding rows yielded to a prompt last */
    int64_t yield_ns;          /* then: those of this lead or less */

    int64_t now_ns;
    uint64_t n_plans, next_order, rng;
    uint32_t n_disturbed; /* random preemptions so far */
    uint32_t n_moving;
    struct sched_counters counters;
};

/* ---- sched_queue.c ------------------------------------------------------------------------------------------------- */

int sched_queue_init(struct sched *s, struct err *e);
void sched_queue_fini(struct sched *s);
void sched_queue_submit(struct sched *s, uint32_t slot);
void sched_queue_alone(struct sched *s, uint32_t slot); /* with the since_ns that it has */
/* `left`: it goes on (admitted, set aside); otherwise it gave up and the one behind it inherits its age. */
void sched_queue_remove(struct sched *s, uint32_t slot, bool left);
uint32_t sched_queue_head(const struct sched *s);
bool sched_queue_higher(const struct sched *s,
                        int32_t rank); /* does one of higher rank that never ran wait? */
bool sched_queue_check(const struct sched *s, const char **why);
/* Of a waiting or running sequence, now. */
int64_t sched_lead(const struct sched *s, uint32_t slot);
bool sched_before(const struct sched *s, uint32_t a, uint32_t b); /* by lead, then by arrival */
bool sched_may_take(const struct sched *s, uint32_t x, uint32_t v);

/* ---- sched_admit.c --------------------------------------------------------------------------------------------------- */

enum sched_admission { SCHED_ADMITTED, SCHED_SET_ASIDE, SCHED_REFUSED };
/* Of the head. */
enum sched_admission sched_admit(struct sched *s, uint32_t slot);

/* One row feeds its last token. */
static inline bool sched_decodes(const struct sched_seq *q)
{
    return q->n_tokens > q->n_prompt && q->n_tokens - q->n_computed == 1;
}

/* Its last token is pending, and it ends with it, or must know it first: there is nothing to feed. */
static inline bool sched_awaits(const struct sched_seq *q)
{
    return q->n_tokens == q->n_max || (q->needs_tokens && q->n_pending > 0);
}

/* ---- sched_cap.c ------------------------------------------------------------------------------------------------------ */

/* How long this step may take, from those who decode in it. */
void sched_cap_begin(struct sched *s);
/* The first prompt by rank gets about n tokens: do those that rank far below it decode beside it? */
void sched_cap_yield(struct sched *s, uint32_t slot, uint32_t n);
/* Of `n` tokens of a prompt, behind `have` that it was given: how many fit; at least `least`. */
uint32_t sched_cap_fit(const struct sched *s, const struct sched_seq *q, uint32_t have, uint32_t n,
                       uint32_t least);
void sched_cap_add(struct sched *s, const struct sched_seq *q, uint32_t have, uint32_t n);

/* ---- sched_take.c ---------------------------------------------------------------------------------------------------- */

void sched_run_insert(struct sched *s, uint32_t slot);
void sched_run_remove(struct sched *s, uint32_t slot);
/* On, or off, the list of those who wait with blocks, if it has any. */
void sched_hold(struct sched *s, uint32_t slot);
void sched_unhold(struct sched *s, uint32_t slot);
/* RUNNING -> WAITING, blocks and all. */
void sched_preempt(struct sched *s, uint32_t victim, uint32_t taker, enum sched_resource why);
/* A waiting one lets its blocks go; what it computed stays in the tiers as long as there is room. */
void sched_release(struct sched *s, uint32_t slot);
/* Of what it let go, or not any more. */
void sched_claim(struct sched *s, uint32_t slot, bool on);
/* Whom x may take blocks from, or KV_NONE: nobody that was not chosen already. */
uint32_t sched_pick_any(const struct sched *s, uint32_t x);
uint32_t sched_pick_runner(const struct sched *s, uint32_t x);
uint64_t sched_promised(struct sched *s, uint32_t x);
/* Blocks for all tokens of a running one; false: it gave way itself, or has to wait for copies. */
bool sched_grow(struct sched *s, uint32_t slot);
/* The same, where there is room. */
void sched_extend(struct sched *s, uint32_t slot);
/* For the waiting x: `need` blocks free, `reserve` of them or to come not promised to others, and a place to run if
 * `place`: all, or nothing has changed. */
bool sched_obtain(struct sched *s, uint32_t x, uint32_t need, uint32_t reserve, bool place);
/* Its blocks behind the first n_full come from these host slots, pinned for it, and from its parked one if `parked`. */
void sched_load(struct sched *s, uint32_t slot, const uint32_t *hosts, uint32_t n, bool parked);
/* It has them, or is removed. */
void sched_load_end(struct sched *s, uint32_t slot);
/* Copies a few blocks that nobody needs yet, so that they are there when somebody does. */
void sched_save_some(struct sched *s);

#endif
