/* scheduler: which sequences run in the next step, and how many of their tokens: state in, plan out.
 *
 * A step may be planned while the one before it is under way. sched_launch takes a row's results for granted: its positions
 * count as computed, and what it samples stands behind the sequence as a *pending* token, whose value nobody knows yet. The
 * next plan may feed that token. sched_commit and sched_append follow when the step has completed.
 *
 * Owns     the order of waiting and running sequences and, through kv_seq, their blocks. No I/O, no clock, no randomness but
 *          the seed given at create.
 * Units    tokens and blocks. `order` is the arrival number: smaller goes first.
 * States   IDLE -> (sched_submit) WAITING -> (plan admits) RUNNING -> (plan preempts) WAITING; sched_remove -> IDLE.
 *          A row: planned -> launched -> committed (-> appended), or stale as soon as its sequence left RUNNING.
 * Threads  the engine's thread. A record that is IDLE belongs to whoever fills it for the next submit.
 * Errors   none after create: pressure shows as a smaller plan.
 * Bounds   a plan is O(running + admitted * blocks of their prompts). No allocation after create.
 * Source   docs/ARCHITECTURE.md section 3; first come, first served.
 *
 * Promises, which the tests check:
 * - Decode rows go first, then chunks of prompts in order of arrival, within max_num_batched_tokens.
 * - Nobody overtakes the head of the queue, and the oldest running sequence is in every plan, unless its last token is pending.
 * - A prompt whose next blocks a running prompt is computing waits for them at the head of the queue.
 * - The youngest running sequence gives way when an older one needs a block; it waits at its arrival position.
 * - A sequence that fits the pool alone ends: the oldest one is never preempted.
 */
#ifndef STATOR_SCHEDULER_H
#define STATOR_SCHEDULER_H

#include "kv_seq.h"

enum sched_state { SCHED_IDLE, SCHED_WAITING, SCHED_RUNNING };

struct sched_seq {
    struct kv_seq kv;
    uint64_t order;      /* set by sched_submit */
    uint32_t n_prompt;   /* set by the caller, as are n_tokens = n_prompt and n_max */
    uint32_t n_max;      /* tokens at which it ends: the last one is drawn, but never fed */
    uint32_t n_tokens;   /* prompt and output, with the pending ones */
    uint32_t n_pending;  /* of which the last so many are drawn by launched steps */
    uint32_t n_computed; /* positions whose KV is valid once the launched steps have run */
    uint32_t n_matched;  /* of which the index gave at the last admission */
    uint32_t n_preempted;
    uint32_t prev, next; /* waiting list */
    uint8_t state;       /* enum sched_state */
};

/* Tokens start .. start+n-1 of a sequence. `sample`: they reach its last token, so a new one is to be drawn. */
struct sched_row {
    uint32_t slot, start, n;
    uint32_t epoch; /* of the slot when the row was planned */
    bool sample;
};

/* Valid until the next sched_plan. */
struct sched_plan {
    const struct sched_row *rows; /* [n_rows], decode rows first */
    uint32_t n_rows, n_tokens;
    const uint32_t *admitted; /* [n_admitted] slots */
    uint32_t n_admitted, n_preempted;
};

struct sched_options {
    uint32_t n_slots;
    uint32_t max_num_seqs;           /* 1 .. max_num_batched_tokens */
    uint32_t max_num_batched_tokens; /* per step */
    uint64_t test_seed;              /* not 0: random chunks, admissions, preemptions, evictions */
};

struct sched;

int sched_create(struct sched **out, const struct sched_options *o, struct kv_prefix *kv, struct err *e);
void sched_destroy(struct sched *s); /* NULL ok */

struct sched_seq *sched_seq(struct sched *s, uint32_t slot);
void sched_submit(struct sched *s, uint32_t slot);
/* Leaves whatever it was in and gives every block back; IDLE is fine. */
void sched_remove(struct sched *s, uint32_t slot);

const struct sched_plan *sched_plan(struct sched *s);
/* The step of this row, of the latest plan, is on its way. */
void sched_launch(struct sched *s, const struct sched_row *row);
/* Does the sequence still run as it did when the row was planned? Otherwise the slot may be somebody else's by now. */
bool sched_row_live(const struct sched *s, const struct sched_row *row);
/* The step of this live row has completed; steps complete in the order of their launch. */
void sched_commit(struct sched *s, const struct sched_row *row);
/* The oldest pending token is known, and kv.tokens has it. */
void sched_append(struct sched *s, uint32_t slot);

uint32_t sched_waiting(const struct sched *s);
uint32_t sched_running(const struct sched *s);
uint32_t sched_running_slot(const struct sched *s, uint32_t i); /* i < sched_running, in order of arrival */
uint32_t sched_waiting_head(const struct sched *s);             /* KV_NONE when nobody waits */

/* For tests: lists, order and blocks of all waiting and running sequences. */
bool sched_check(const struct sched *s, const char **why);

#endif
