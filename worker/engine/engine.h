/* engine: requests in, tokens out: continuous batching over the model, the KV cache and the backend. Knows no JSON, no
 * HTTP and no text.
 *
 * Owns     its thread, the request slots, the KV pool and its index, the step's arrays. Borrows be and model.
 * Units    tokens; times are clock_now_ns values.
 * States   create -> start -> (submit, cancel, events)* -> drain -> stop -> destroy.
 *          A slot: FREE -> (engine_submit) QUEUED -> PREFILL -> DECODE -> ended -> FREE once its END event was popped and
 *          engine_release called. A generation number is added at each release; a stale (slot, gen) is ignored everywhere.
 * Threads  submit, cancel, release, pop_event: one thread, the io thread (a bench or test may be it). stats: any thread.
 *          Everything else runs on the engine's own thread.
 * Errors   submit: ST_EBUSY (no free slot for its class: answer 429), ST_EDRAIN, ST_EINVAL (prompt empty, too long, a token
 *          id outside the vocabulary; the text names both numbers), ST_EUNSUP (a grammar, and the backend
 *          cannot mask), ST_EDEVICE after a device error, which ends every
 *          request with ENGINE_FINISH_ERROR and shows in stats.failed.
 * Bounds   no allocation after start. One TOKEN event per generated token, one END event per request, always, and last.
 * Source   docs/ARCHITECTURE.md, "one request through the system".
 */
#ifndef STATOR_ENGINE_H
#define STATOR_ENGINE_H

#include "backend.h"
#include "status.h"

#include <stdbool.h>
#include <stdint.h>

struct engine;
struct grammar;
struct model;

enum { ENGINE_STOP_TOKENS_MAX = 16, ENGINE_BIAS_MAX = 1024, ENGINE_SALT_BYTES = 32 };

/* Priority classes, for labels and queue bounds: background (priority < 0), normal, elevated, high. */
enum { ENGINE_CLASSES = 4 };
/* What was scarce when a request had to give way. */
enum engine_resource { ENGINE_SLOTS, ENGINE_BLOCKS, ENGINE_GROWTH, ENGINE_RESOURCES };

/* How requests are ordered. All zero: first come, first served, hints ignored. docs/HINTS.md. */
struct engine_policy {
    bool priorities;
    uint32_t aging_ms;       /* waiting that is worth one point of priority */
    uint32_t priority_clamp; /* |priority| counts up to this */
    uint32_t classes[ENGINE_CLASSES - 1]; /* lowest priority of normal, elevated, high: 0, 5, 10 */
    uint32_t max_step_ms;    /* a step with prompts in it aims to end within this; 0: no aim */
    uint32_t slo_ttft_ms, slo_itl_ms; /* 0: none */
    uint32_t batch_wait_ms;  /* how long a request of latency_sensitivity 0 may wait for company */
};

struct engine_options {
    struct be *be;
    struct model *model;
    uint32_t max_num_seqs;           /* rows that decode at once */
    uint32_t max_num_batched_tokens; /* token budget of a step */
    uint32_t max_queue;              /* requests waiting beyond those running */
    uint32_t block_tokens;           /* multiple of 16 */
    uint32_t n_blocks;               /* KV pool size */
    uint32_t context_length;         /* prompt + output of one request, at most */
    enum be_type kv_type;
    bool prefix_caching;
    uint32_t n_host_blocks; /* blocks of the host tier; 0: none */
    uint32_t kv_event_capacity; /* engine_kv.h: events that may wait; 0: nobody listens */
    uint64_t kv_event_seed;
    struct engine_policy policy;
    uint64_t
        test_seed; /* not 0: random chunk sizes, admissions, preemptions, evictions, waits (tests of invariance) */
};

/* What a client asked, in plain C. Pointers are borrowed for the call of engine_submit only. */
struct engine_request {
    const int32_t *prompt; /* [n_prompt] token ids */
    uint32_t n_prompt;
    uint32_t max_tokens; /* >= 1; prompt + max_tokens <= context_length */
    uint32_t min_tokens; /* no stop token is drawn before so many */
    float temperature, top_p, min_p, repetition, frequency, presence;
    uint32_t top_k;
    uint64_t seed;
    int32_t stop_tokens[ENGINE_STOP_TOKENS_MAX]; /* end of generation; the token itself is not emitted */
    uint32_t n_stop_tokens;
    bool ignore_eos;            /* stop_tokens are banned from being drawn instead */
    const struct be_bias *bias; /* [n_bias], distinct tokens */
    uint32_t n_bias;
    int32_t n_logprobs;                    /* -1 = none */
    uint8_t cache_salt[ENGINE_SALT_BYTES]; /* equal salts may share blocks */
    /* What the output must look like, or NULL. The engine takes a reference of its own until the slot is released. The request
     * ends (STOP) when nothing may follow; stop tokens may be drawn where the text may end. */
    struct grammar *grammar;
    uint64_t salt_tag; /* of the same salt: hash64_salt. Only events know it */
    /* Hints: they decide when, never what. docs/HINTS.md */
    int32_t priority, strict_priority;
    int32_t expected_output_tokens; /* 0 = unknown */
    float latency_sensitivity;      /* 0 .. 1 */
    int64_t iat_ms;                 /* expected until the next call of this conversation; 0 = unknown */
    int64_t arrival_ns;
};

enum engine_event_type { ENGINE_TOKEN = 1, ENGINE_END };
enum engine_finish {
    ENGINE_FINISH_STOP = 1,
    ENGINE_FINISH_LENGTH,
    ENGINE_FINISH_CANCEL,
    ENGINE_FINISH_ERROR
};

struct engine_event {
    uint32_t slot, gen;
    uint8_t type, finish;                  /* enum engine_event_type; finish only with END */
    struct be_sample_out sample;           /* TOKEN: token, logprob, alternatives */
    int32_t status;                        /* END with FINISH_ERROR: the status */
    uint8_t cls;                           /* END: of the request, below ENGINE_CLASSES */
    uint32_t n_prompt, n_cached, n_output; /* END */
    uint32_t n_preempted;                  /* END: how often it gave way */
    int64_t arrival_ns, scheduled_ns, first_token_ns,
        t_ns; /* t_ns: when this event was made; others with END, 0 = never */
};

/* Of one class of priority. */
struct engine_class_stats {
    uint32_t waiting, running, preempted, loading;             /* now; preempted and loading are not in waiting */
    uint64_t preemptions[ENGINE_CLASSES][ENGINE_RESOURCES];    /* gave way to [class] for [resource] */
    uint64_t resumed_tokens, recomputed_tokens;                /* of preempted ones: found again; computed twice */
    uint64_t aged_ahead; /* admitted while a higher priority waited */
    uint64_t held;       /* set aside because somebody computed or loaded its blocks */
};

/* Where a request is, for the queue view. */
enum engine_slot_state {
    ENGINE_SLOT_QUEUED = 1,
    ENGINE_SLOT_LOADING,
    ENGINE_SLOT_PREFILL,
    ENGINE_SLOT_DECODE,
    ENGINE_SLOT_PREEMPTED
};
struct engine_slot_view {
    enum engine_slot_state state;
    uint8_t cls;
    uint32_t n_computed, n_output, n_blocks, n_preempted;
};

/* A consistent-enough picture: each field is read atomically. */
struct engine_stats {
    struct engine_class_stats cls[ENGINE_CLASSES];
    uint32_t host_blocks_total, host_blocks_free, host_blocks_cached;
    uint64_t blocks_saved, blocks_loaded, blocks_evicted; /* to the host tier; back from it; out of the pool */
    uint32_t running, waiting;
    uint32_t blocks_total, blocks_free, blocks_cached; /* pinned = total - free - cached */
    uint64_t prefix_query_tokens, prefix_hit_tokens;
    uint64_t prompt_tokens, output_tokens; /* computed prompt tokens incl. cached; generated */
    uint64_t steps, preemptions, cancelled;
    uint64_t step_rows;          /* rows over all steps */
    uint64_t step_ns, device_ns; /* time from plan to events; of which with a step under way */
    bool failed;                 /* sticky device error */
};

int engine_create(struct engine **out, const struct engine_options *o, struct err *e);
int engine_start(struct engine *g, struct err *e);
void engine_destroy(struct engine *g); /* NULL ok; cancels what is left, joins the thread */

int engine_submit(struct engine *g, const struct engine_request *r, uint32_t *slot_out, uint32_t *gen_out,
                  struct err *e);
void engine_cancel(struct engine *g, uint32_t slot, uint32_t gen);  /* the END event still comes */
void engine_release(struct engine *g, uint32_t slot, uint32_t gen); /* after the END event was popped */

int engine_event_fd(
    const struct engine *g); /* readable when events may be there; see ring.h for the sleep protocol */
bool engine_pop_event(struct engine *g, struct engine_event *out);
bool engine_event_sleep(struct engine *g); /* ring_sleep of the event ring */
void engine_event_drain_fd(struct engine *g);

uint32_t engine_slots(const struct engine *g); /* slot numbers are below this */
/* Requests that may be here when one of this class is submitted are fewer than this: some places are kept for higher ones. */
uint32_t engine_places(const struct engine *g, uint32_t cls);
void engine_stats(const struct engine *g, struct engine_stats *out);
/* The class that a priority falls into. */
uint32_t engine_class(const struct engine *g, int32_t priority, int32_t strict_priority);
const char *engine_class_name(uint32_t cls); /* for labels and texts; static storage */
/* False: no unfinished request has this slot and generation. Any thread. */
bool engine_slot_view(const struct engine *g, uint32_t slot, uint32_t gen, struct engine_slot_view *out);
/* When a request of this class that was just refused with ST_EBUSY may be worth another try: 1 to 120 s. */
uint32_t engine_retry_after_s(const struct engine *g, uint32_t cls);
/* Blocks that `n` tokens need, for messages and admission. */
uint32_t engine_blocks_for(const struct engine *g, uint32_t n_tokens);

#endif
