/* hosted: Llama-3.1-8B's shapes with random weights under the engine, driven without HTTP and text.
 *
 * Owns     backend, model and engine, until close.
 * Units    tokens; nanoseconds of clock_now_ns; seconds and microseconds where the name says so.
 * States   open -> drive* -> close.
 * Threads  one; the engine's runs beside it.
 * Errors   those of backend, model and engine, with their text; ST_EINTERNAL when a request failed.
 * Bounds   HOSTED_SEQS sequences at once, HOSTED_CONTEXT positions each; HOSTED_TOKENS tokens in one drive.
 */
#ifndef STATOR_HOSTED_H
#define STATOR_HOSTED_H

#include "backend.h"

enum { HOSTED_SEQS = 256, HOSTED_CONTEXT = 22016, HOSTED_ROWS = 2048, HOSTED_TOKENS = 1 << 20 };

struct hosted {
    struct be *be;
    struct model *model;
    struct engine *engine;
    uint32_t n_blocks;
    double load_s;        /* weights onto the device */
    double weight_bytes;  /* that a decode step reads: all but the embedding */
    double kv_token_bytes;
    double row_flop, attention_flop; /* of a row's products; of a row per position that it attends to */
};

/* `concurrency` requests at all times until `total` were sent or limit_s is over; random prompts, greedy. */
struct hosted_load {
    uint32_t concurrency, total, n_prompt, n_tokens;
    double limit_s;
    uint32_t mark_steps;
    void (*mark)(void); /* NULL, or called once, mark_steps steps into the steady part */
};

struct hosted_outcome {
    uint32_t ended;
    bool cut;            /* by limit_s */
    double seconds;      /* from the first submission to the last event */
    uint64_t tokens;     /* in that time */
    double ttft_ms;      /* median */
    double itl_ms, itl_p99_ms;
    /* The steady part: from when the first `concurrency` requests all decode until one of them ends. */
    double steady_s, steady_context; /* mean positions of a row */
    uint64_t steady_tokens;
    double steady_itl_ms, steady_itl_p99_ms;
};

int hosted_open(struct hosted *h, bool fp8, struct err *e);
void hosted_close(struct hosted *h);
int hosted_drive(struct hosted *h, const struct hosted_load *l, struct hosted_outcome *out, struct err *e);

#endif
