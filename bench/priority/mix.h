/* mix: the seed workload. A flood of LOW requests, HIGH requests on top of it, and triage pipelines
 *
 *     classify (HIGH) -> 4 x research (LOW) -> draft (MED) -> review (HIGH)
 *
 * whose stages wait for those before them. Each request carries its hints in nvext.agent_hints.
 *
 * Owns     its calls and records until mix_fini.
 * Units    nanoseconds of clock_now_ns; tokens.
 * States   flood and arrivals settle (settle_s) -> the window; lone HIGH requests and pipelines start with it
 *          -> arrivals stop, what is open ends -> the flood is cut off. Without `seconds` the window ends when all that was
 *          asked for has ended.
 * Threads  the caller's.
 * Errors   ST_EIO with the first failure's text: any failed request ends the run. ST_ENOMEM.
 * Bounds   options.low + options.high + 4 * options.pipelines calls at once. LOG_MAX step times.
 */
#ifndef BENCH_PRIORITY_MIX_H
#define BENCH_PRIORITY_MIX_H

#include "load.h"
#include "status.h"

#include <stdbool.h>
#include <stdint.h>

enum mix_stage { MIX_FLOOD, MIX_HIGH, MIX_CLASSIFY, MIX_RESEARCH, MIX_DRAFT, MIX_REVIEW, MIX_STAGES };
enum { MIX_RESEARCHERS = 4, MIX_LOG_MAX = 1 << 16 };

struct mix_options {
    const struct load_target *target;
    const char *model;
    int64_t low; /* of the flood, in flight at all times */
    int64_t low_isl, low_osl;
    int64_t high; /* HIGH requests, at most */
    int64_t high_isl, high_osl;
    double high_rate;     /* Poisson arrivals per second; 0: one at a time */
    int64_t pipelines;    /* all start with the window */
    int64_t pipeline_isl; /* of which the first half is common to a pipeline's stages */
    double settle_s, seconds, timeout_s;
    int64_t seed;
};

struct mix_record {
    uint8_t stage;     /* enum mix_stage */
    uint8_t n_high;    /* HIGH ones that waited for their first token when it came */
    bool done, window; /* ended well; was sent within the window */
    int32_t pipeline;  /* -1: none */
    uint32_t steps; /* of the flood that ended between its sending and its first token, its own among them */
    int64_t start_ns; /* when it was due */
    int64_t first_ns, done_ns;
    int64_t prompt_tokens, output_tokens, cached_tokens;
    uint32_t events;
    uint32_t *gap_us; /* [events - 1] between its tokens */
};

struct mix_result {
    struct mix_record *records; /* [n] in order of their sending */
    uint32_t n, cap;
    int64_t begin_ns, end_ns; /* of the window */
    uint64_t flood_events;    /* text events of the flood within it */
    int64_t *step_ns;         /* [n_steps] when a step's tokens began to come */
    uint32_t n_steps;
};

const char *mix_stage_name(enum mix_stage stage);
/* `window` is told twice: when the window begins and when it ends. */
int mix_run(struct mix_result *out, const struct mix_options *o, void (*window)(bool begins), struct err *e);
void mix_fini(struct mix_result *r);

#endif
