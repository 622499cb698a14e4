/* engine_state: the engine's two halves and what each owns: engine.c (the loop) and engine_front.c (the other side of the rings).
 *
 * Owns     as marked in struct engine.
 * Units    slots, tokens; times are clock_now_ns values.
 * States   see engine.h.
 * Threads  fields are the engine thread's or the submitting thread's as marked; what both touch is a ring or atomic.
 * Errors   -
 * Bounds   -
 * Source   docs/ARCHITECTURE.md section 3 "Threads".
 */
#ifndef STATOR_ENGINE_STATE_H
#define STATOR_ENGINE_STATE_H

#include "batch.h"
#include "engine_core.h"
#include "grammar_mask.h"
#include "hash.h"
#include "learn.h"
#include "offload.h"
#include "req.h"
#include "ring.h"
#include "scheduler.h"

#include <pthread.h>
#include <stdatomic.h>

enum message_type { MSG_SUBMIT = 1, MSG_CANCEL };

struct message {
    uint32_t type, slot, gen;
};

/* What other threads may see of a request: written by the submitting thread before it is sent and after its END was popped,
 * by the engine's in between. `state` 0: there is none. */
struct slot_view {
    _Atomic uint32_t state, gen, n_computed, n_output, n_blocks, n_preempted;
    _Atomic uint8_t cls;
};

struct class_counters {
    _Atomic uint32_t waiting, running, preempted, loading;
    _Atomic uint64_t preemptions[ENGINE_CLASSES][ENGINE_RESOURCES], resumed, recomputed, aged_ahead, held;
};

struct counters {
    struct class_counters cls[ENGINE_CLASSES];
    _Atomic uint32_t retry_s[ENGINE_CLASSES];
    _Atomic uint32_t running, waiting, blocks_free, blocks_cached, host_free, host_cached;
    _Atomic uint64_t saved, loaded, evicted;
    _Atomic uint64_t prefix_query_tokens, prefix_hit_tokens, prompt_tokens, output_tokens;
    _Atomic uint64_t steps, preemptions, cancelled, step_rows, step_ns, device_ns;
    _Atomic bool failed;
};

/* A row may name a token of the step launched just before its own (BE_TOKEN_PREV), no older one: when a third step is launched
 * the host must know the tokens of the first. */
enum { ENGINE_DEPTH_MAX = 2 };

/* A step that was launched, until its results were taken. */
struct step {
    struct batch *batch;    /* its `drawn` is the backend's meanwhile */
    struct sched_row *rows; /* [max_num_seqs] n_rows of them, copied from the plan */
    uint32_t n_rows, n_tokens;
    struct steptime_load load;
    int64_t drained_ns, begun_ns; /* before its plan; before its begin_step */
};

struct engine {
    struct engine_options o;
    struct engine_core core;
    struct req_limits limits;
    uint8_t fingerprint[HASH_BYTES];
    struct req_table *reqs;
    struct ring *inbox, *events;
    pthread_t thread;
    bool ready, started;
    _Atomic bool stopping;

    /* submitting thread */
    uint32_t *free_slots; /* [n_slots] */
    uint32_t n_free_slots;

    /* engine thread */
    struct kv_prefix *kv;
    struct kv_events *kv_events;         /* NULL: nobody listens */
    struct sched *sched;
    struct offload *offload;             /* NULL: no host tier */
    struct step steps[ENGINE_DEPTH_MAX]; /* step i stands at i % depth */
    uint32_t depth;                      /* steps under way at once, at most */
    uint64_t n_launched, n_completed;    /* steps; the difference is under way */
    struct be_kv *be_kv;
    struct grammar_walk *walk;
    uint32_t *allowed; /* [max_num_seqs][mask_words] of the step being built */
    uint32_t mask_words;
    float *logits;     /* backend buffer [max_num_seqs][vocab]; steps use it one after the other */
    uint32_t *live;    /* [n_slots] slots with an unfinished request, for the day when all must end */
    uint32_t *live_at; /* [n_slots] place in live */
    uint32_t n_live;
    uint64_t pushed, announced; /* events in all, and those that the consumer was woken for */
    uint64_t event_capacity;
    struct learn learn;
    int64_t now_ns, viewed_ns;        /* viewed: when all that others see was written */
    int64_t completed_ns, emitted_ns; /* of the step before: up to where device_ns and step_ns have counted */
    uint64_t test_rng;
    int failed_status;

    _Atomic uint64_t popped;
    _Atomic bool want_room;
    struct slot_view *views; /* [n_slots] */
    struct counters stats;
};

/* While all that there is to do is to wait for copies. */
enum { COPY_POLL_MS = 1 };

void engine_publish(struct engine *g, bool all); /* engine_view.c */
/* Places of the queue that a class leaves to those above it. */
uint32_t engine_reserved_for_higher(const struct engine *g, uint32_t cls);

void *engine_loop(void *engine);       /* the thread */
void engine_wind_up(struct engine *g); /* the end of it: everything cancelled, nothing under way */

#endif
