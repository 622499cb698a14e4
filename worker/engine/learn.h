/* learn: what the engine learns from the requests that pass: how much they write, whether their conversations come back, how
 * fast places become free; and what it expects of the next one.
 *
 * Owns     nothing: a plain struct, all zero at first.
 * Units    tokens; ns; work is in tokens drawn (a prompt token counts LEARN_PROMPT_SHARE of one).
 * States   per request: arrived -> started -> ended.
 * Threads  the engine's.
 * Errors   none.
 * Bounds   LEARN_TAILS conversations are remembered; each call is O(that) at most.
 * Source   estimate.h; docs/HINTS.md.
 */
#ifndef STATOR_LEARN_H
#define STATOR_LEARN_H

#include "estimate.h"
#include "kv_seq.h"
#include "req.h"
#include "scheduler.h"

enum { LEARN_TAILS = 256, LEARN_PROMPT_SHARE = 8 };

/* The end of a call that announced another. */
struct learn_tail {
    struct kv_id id; /* of the last full block of its prompt */
    uint32_t depth;  /* blocks up to it; 0: unused */
    int64_t end_ns, iat_ms;
    uint8_t cls;
};

struct learn {
    struct output_estimate outputs;
    struct return_estimate returns[ENGINE_CLASSES];
    struct service_estimate service;
    struct learn_tail tails[LEARN_TAILS];
    uint32_t next_tail;
    double waiting_work; /* of requests that never ran */
};

/* It waits from now on: sets what the scheduler is to reserve for it (with priorities), and sees whether a conversation
 * came back. */
void learn_arrived(struct learn *l, struct sched_seq *s, const struct req *q, bool priorities,
                   int64_t now_ns);
/* It runs for the first time, or will never run. */
void learn_started(struct learn *l, const struct sched_seq *s, const struct req *q);
/* It ended by itself: sets until when its blocks are worth keeping. */
void learn_ended(struct learn *l, struct sched_seq *s, const struct req *q, int64_t residence_ns,
                 int64_t now_ns);
/* A step drew so many tokens and computed so many of prompts. */
void learn_step(struct learn *l, uint32_t n_drawn, uint32_t n_prompt, int64_t busy_ns);

#endif
