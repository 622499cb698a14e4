/* scheduler: which sequences run in the next step, how many of their tokens, and who gives way for whom: state in, plan out.
 *
 * A step may be planned while the one before it is under way. sched_launch takes a row's results for granted: its positions
 * count as computed, and what it samples stands behind the sequence as a *pending* token, whose value nobody knows yet. The
 * next plan may feed that token. sched_commit and sched_append follow when the step has completed.
 *
 * Rank. A request's *lead* is its effective priority, in ns of waiting: points of priority (strict_priority in tiers above
 * them, latency sensitivity up to half a point) times aging_ns, plus the time it has waited. It grows while the request waits
 * and stands still while it runs. Greater leads go first, then the earlier arrival. Requests of one priority wait in a chain of
 * which only the head ages: a long backlog does not outgrow a fresh request of higher priority. Without priorities all leads
 * are 0: first come, first served.
 *
 * Owns     the order of waiting and running sequences and, through kv_seq, their blocks. No I/O, no clock, no randomness but
 *          the seed given at create.
 * Units    tokens and blocks; times are ns of one clock that the caller reads.
 * States   IDLE -> (sched_submit) WAITING -> (plan) LOADING -> (sched_move_done) WAITING -> (plan) RUNNING -> (plan) WAITING ..;
 *          sched_remove -> IDLE. Who gave way for a slot waits with its blocks; who gave way for blocks waits without them.
 *          A row: planned -> launched -> committed (-> appended), or stale as soon as its sequence was removed.
 *          A move (a block's copy between tiers): planned -> sched_move_done. It pins what it reads and writes meanwhile.
 * Threads  the engine's thread. A record that is IDLE belongs to whoever fills it for the next submit.
 * Errors   none after create: pressure shows as a smaller plan.
 * Bounds   a plan is O(running + admitted * (log waiting + blocks of their prompts)). No allocation after create.
 * Source   docs/ARCHITECTURE.md section 3; docs/HINTS.md.
 *
 * Promises, which the tests check:
 * - Within max_num_batched_tokens everybody gets the least that he can use, by rank; what is left goes to prompts, by rank.
 *   Where decoding rows cost nearly as much beside a prompt as alone they yield to one far above them, never twice in a row.
 * - Nobody overtakes the head of the queue, unless it waits for a running prompt that computes its next blocks, or for company.
 * - A waiting request x takes a slot or blocks from a running v if its priority is higher and its lead by half a point, or if
 *   its lead is greater by two points. Equals run to their end.
 * - Nobody waits for ever. The head of a chain at rank P is admitted within (P_max - P + 3.25) aging_ns and the time for the work
 *   of the heads of chains and of those who run or gave way at that time; the n-th of a chain within n times that.
 * - Victims are chosen before anything is taken: enough, or nobody.
 * - Whoever gives way loses no token that was drawn, and keeps what he computed as long as there is room for it in any tier.
 * - Who needs its tokens is never planned while one is pending.
 * - The first of the running sequences is in every plan, unless its last token is pending or copies under way hold the block that
 *   it needs; it gives way to a waiting one only.
 */
#ifndef STATOR_SCHEDULER_H
#define STATOR_SCHEDULER_H

#include "kv_seq.h"
#include "steptime.h"

enum sched_state { SCHED_IDLE, SCHED_WAITING, SCHED_LOADING, SCHED_RUNNING };
enum { SCHED_CLASSES = 4, SCHED_LATENCY_MAX = 100, SCHED_STRICT_MAX = 3, SCHED_CLAMP_MAX = 1000 };

/* What was scarce when somebody had to give way. */
enum sched_resource { SCHED_SLOTS, SCHED_BLOCKS, SCHED_GROWTH, SCHED_RESOURCES };

struct sched_seq {
    struct kv_seq kv;
    /* Set by the caller before sched_submit, with n_tokens = n_prompt; all else 0. */
    uint32_t n_prompt;
    uint32_t n_max;    /* tokens at which it ends: the last one is drawn, but never fed */
    uint32_t n_expect; /* output tokens to reserve blocks for; 0: one block at a time */
    int64_t arrival_ns;
    int64_t expiry_ns; /* until sched_remove: what it leaves in the cache ranks as if used then; 0: now */
    int32_t priority;
    uint32_t strict;
    uint8_t latency; /* sensitivity in hundredths */
    uint8_t cls;     /* < SCHED_CLASSES: for the counters */
    bool
        needs_tokens; /* its next token cannot be drawn while the last one is pending: what may follow depends on it */
    /* The scheduler's; the caller may read them. */
    uint8_t state;      /* enum sched_state */
    bool alone;         /* waits outside of the chains: it ran, loaded or was set aside before */
    bool holds;         /* waits with its blocks */
    uint64_t order;     /* arrival number */
    int32_t rank;       /* priority and strict_priority in one number */
    int64_t lead_ns;    /* while RUNNING */
    int64_t since_ns;   /* while it waits and ages: lead = now - since */
    uint32_t n_tokens;  /* prompt and output, with the pending ones */
    uint32_t n_pending; /* of which the last so many are drawn by launched steps */
    uint32_t
        n_computed; /* positions whose KV is valid once the launched steps have run; without blocks: that were */
    uint32_t n_matched; /* of which the tiers gave at the last admission */
    uint32_t n_preempted;
    uint32_t refused_at; /* blocks that its last match gave when it did not fit, or KV_NONE */
    uint32_t n_had;      /* n_computed when it let its blocks go */
    uint32_t n_saved;    /* leading blocks that were looked at for saving */
    uint32_t parked;     /* host slot of its part-filled block, or KV_NONE */
    bool parking;        /* that copy is not done yet */
    bool load_failed;
    uint32_t n_loading;                                 /* moves that it waits for */
    uint32_t load_end;                                  /* positions that are valid once they have arrived */
    uint64_t started_plan;                              /* number of the plan that let it run */
    uint32_t prev, next;                                /* chain */
    uint32_t held_at;                                   /* place among those who wait with blocks */
    uint32_t producer, producer_epoch, producer_blocks; /* whom it was set aside for, until when */
    uint8_t producer_state;                             /* while that one runs, or loads */
};

/* Tokens start .. start+n-1 of a sequence. `sample`: they reach its last token, so a new one is to be drawn. */
struct sched_row {
    uint32_t slot, start, n;
    uint32_t epoch; /* of the slot when the row was planned: another request has another */
    uint32_t lease; /* of its blocks: if it differs they were let go meanwhile */
    bool sample;
};

enum sched_move_kind { SCHED_SAVE, SCHED_PARK, SCHED_LOAD };

/* One block to be copied. SAVE, PARK: pool -> host slab; LOAD: host slab -> pool. */
struct sched_move {
    uint8_t kind; /* enum sched_move_kind */
    bool urgent;  /* SAVE: must be done before the step of this plan is launched; a failure is fatal */
    bool own;     /* LOAD: of a parked block */
    uint32_t block, host;        /* in the pool; in the slab */
    uint32_t slot, epoch, lease; /* whose; PARK and LOAD */
};

struct sched_preemption {
    uint32_t victim, taker; /* slots; the same one when nobody else could give way */
    uint8_t resource;       /* enum sched_resource */
};

/* Valid until the next sched_plan. */
struct sched_plan {
    const struct sched_row *rows; /* [n_rows], decode rows first */
    uint32_t n_rows, n_tokens;
    struct steptime_load load; /* of the rows */
    const uint32_t *admitted;  /* [n_admitted] slots that run from now on */
    uint32_t n_admitted;
    const struct sched_preemption *preempted; /* [n_preempted] */
    uint32_t n_preempted;
    const struct sched_move *moves; /* [n_moves]; the urgent ones are to be done before others begin */
    uint32_t n_moves;
};

struct sched_options {
    uint32_t n_slots;
    uint32_t max_num_seqs;           /* 1 .. max_num_batched_tokens */
    uint32_t max_num_batched_tokens; /* per step */
    bool priorities;
    int64_t aging_ns;        /* waiting that is worth a point */
    uint32_t priority_clamp; /* to SCHED_CLAMP_MAX */
    int64_t batch_wait_ns;   /* how long a request of latency 0 may wait for company */
    int64_t max_step_ns; /* what a step with prompts in it aims at; 0: prompts take what tokens are left */
    int64_t slo_ttft_ns, slo_itl_ns; /* 0: none */
    struct steptime_seed seed;       /* a first guess of the machine; all 0: none */
    uint32_t save_batch;             /* blocks saved in the background per plan, at most */
    uint64_t test_seed;              /* not 0: random chunks, admissions, preemptions, evictions */
};

/* Since create, by class of the request that it happened to. */
struct sched_counters {
    uint64_t preemptions[SCHED_CLASSES][SCHED_CLASSES][SCHED_RESOURCES]; /* [victim][taker] */
    uint64_t resumed[SCHED_CLASSES],
        recomputed[SCHED_CLASSES];      /* tokens of preempted ones: found again; to be computed again */
    uint64_t aged_ahead[SCHED_CLASSES]; /* admitted while a higher priority waited */
    uint64_t held[SCHED_CLASSES];       /* set aside because somebody computes or loads its blocks */
    uint64_t saved, loaded;             /* blocks */
};

struct sched;

int sched_create(struct sched **out, const struct sched_options *o, struct kv_prefix *kv, struct err *e);
void sched_destroy(struct sched *s); /* NULL ok */

struct sched_seq *sched_seq(struct sched *s, uint32_t slot);
void sched_submit(struct sched *s, uint32_t slot, int64_t now_ns);
/* Leaves whatever it was in and gives every block back; IDLE is fine. */
void sched_remove(struct sched *s, uint32_t slot, int64_t now_ns);

const struct sched_plan *sched_plan(struct sched *s, int64_t now_ns);
/* The step of this row, of the latest plan, is on its way. */
void sched_launch(struct sched *s, const struct sched_row *row);
/* Is the request still the one that the row was planned for? Otherwise the slot may be somebody else's by now. */
bool sched_row_live(const struct sched *s, const struct sched_row *row);
/* The step of this live row has completed; steps complete in the order of their launch. */
void sched_commit(struct sched *s, const struct sched_row *row);
/* A step of this load took so long. */
void sched_step_took(struct sched *s, const struct steptime_load *load, int64_t took_ns);
/* The oldest pending token is known, and kv.tokens has it. */
void sched_append(struct sched *s, uint32_t slot);
/* A move is done, or failed. */
void sched_move_done(struct sched *s, const struct sched_move *m, bool ok, int64_t now_ns);

uint32_t sched_waiting(const struct sched *s); /* LOADING ones among them */
uint32_t sched_running(const struct sched *s);
uint32_t sched_moving(const struct sched *s);                   /* moves planned and not done */
uint32_t sched_running_slot(const struct sched *s, uint32_t i); /* i < sched_running, by rank */
uint32_t sched_waiting_head(const struct sched *s);             /* KV_NONE when nobody waits for a place */
const struct sched_counters *sched_counters(const struct sched *s);

/* For tests: lists, order and blocks of all waiting and running sequences. */
bool sched_check(const struct sched *s, const char **why);

#endif
