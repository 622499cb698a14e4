/* sim_trace: who asks what, and when: read from a file or made up (sim_synth).
 *
 * A prompt is the whole text of an earlier request of its conversation, if it has one, and then pieces of texts; equal pieces at
 * equal places are equal tokens, so prefixes are shared as the trace says. A file is JSON lines, of two forms:
 *   {"timestamp": ms, "input_length": n, "output_length": n, "hash_ids": [one per 512 tokens]}      as Mooncake publishes
 *   {"t_ms": t, "prompt_tokens": n, "output_tokens": n, "priority": p, "strict": s, "osl": n, "iat": ms, "l": 0..1,
 *    "conv": id, "share": [[text id, tokens], ...]}                                                  all but three optional
 * Of requests with one conv each goes on where the one before it ended, and not before it ended.
 *
 * Owns     the arrays; sim_trace_fini frees them.
 * Units    tokens, ns from the start of the trace.
 * States   zeroed -> add* or parse -> scale -> read.
 * Threads  one owner.
 * Errors   ST_EINVAL naming line and field; ST_ENOENT, ST_EIO; ST_ENOMEM.
 * Bounds   SIM_TRACE_*, and one table of limits for the fields.
 * Source   shared/design/SCHEDULING.md 10.5.
 */
#ifndef STATOR_SIM_TRACE_H
#define STATOR_SIM_TRACE_H

#include "buf.h"
#include "status.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    SIM_TRACE_REQUESTS_MAX = 1 << 20,
    SIM_TRACE_TOKENS_MAX = 1 << 22, /* prompt or output of one request */
    SIM_TRACE_SHARES_MAX = 64,
    SIM_TRACE_LINE_MAX = 1 << 18,
    SIM_TRACE_FILE_MAX = 1 << 30
};

#define SIM_NONE UINT32_MAX

struct sim_text {
    uint64_t id;
    uint32_t n;
};

struct sim_request {
    int64_t at_ns, delay_ns; /* arrives at at_ns, and not before delay_ns after the last of `after` ended */
    uint32_t after, n_after; /* requests after .. after + n_after - 1, all before this one; n_after 0: none */
    uint32_t n_prompt, n_output;
    uint32_t parent;        /* the prompt begins with the prompt and the output of this one; SIM_NONE */
    uint32_t text, n_texts; /* then these of texts[]; the last one fills up to n_prompt */
    int32_t priority, strict;
    uint32_t osl;
    int64_t iat_ms;
    float sensitivity;
    uint32_t flow; /* requests of one pipeline have one number; SIM_NONE */
};

struct sim_trace {
    struct sim_request *requests; /* [n] */
    struct sim_text *texts;       /* [n_texts] */
    uint32_t n, cap, n_texts, cap_texts;
    uint64_t seed;
    uint64_t kv_tokens; /* the workload is about a KV pool of this size; 0: about none */
};

/* The text of request i's output. */
uint64_t sim_trace_output(const struct sim_trace *t, uint32_t i);
/* Request i's prompt, into out[n_prompt]. */
void sim_trace_prompt(const struct sim_trace *t, uint32_t i, uint32_t vocab, int32_t *out);

/* Appends; `r`'s text and n_texts are set here. */
int sim_trace_add(struct sim_trace *t, const struct sim_request *r, const struct sim_text *texts,
                  uint32_t n_texts, struct err *e);
/* The first `max` requests of a file; t->seed is set before. */
int sim_trace_parse(struct sim_trace *t, struct str text, uint32_t max, struct err *e);
int sim_trace_load(struct sim_trace *t, const char *path, uint32_t max, struct err *e);
/* Arrivals `scale` times as dense. */
void sim_trace_scale(struct sim_trace *t, double scale);
void sim_trace_fini(struct sim_trace *t);

#endif
