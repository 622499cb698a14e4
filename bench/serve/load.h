/* load: sends requests to one server, closed loop or open loop, and keeps one record per request.
 *
 * Owns     sockets and replies while load_run lasts; struct load_result until load_result_fini.
 * Units    nanoseconds of clock_now_ns; gaps in microseconds; tokens.
 * States   -
 * Threads  the caller's; one thread, one epoll.
 * Errors   ST_EIO / ST_EINVAL when the server cannot be reached at all. A request that fails is a record with
 *          `failed` set; the first such text is kept.
 * Bounds   concurrency connections; GAPS_MAX inter-token gaps are kept, later ones are counted only.
 */
#ifndef BENCH_SERVE_LOAD_H
#define BENCH_SERVE_LOAD_H

#include "options.h"
#include "prompt.h"
#include "status.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

enum { LOAD_GAPS_MAX = 16 << 20 };

struct load_target {
    struct sockaddr_storage addr;
    socklen_t addr_bytes;
    char host[256]; /* for the Host header */
};

struct load_spec {
    const struct options *o;
    const struct load_target *target;
    const char *model;
    const char *phase;    /* shown with the progress */
    uint64_t first_index; /* of the prompts: no two phases may share one */
    int64_t num_requests, concurrency;
    double rate; /* 0 = closed loop */
    int64_t words, shared_words, max_tokens;
    bool progress;
};

struct record {
    int64_t start_ns; /* closed loop: when it was sent; open loop: when it was due */
    int64_t first_ns, last_ns, done_ns;
    int64_t prompt_tokens, output_tokens, cached_tokens;
    uint32_t events;
    int status; /* HTTP */
    bool failed, has_usage;
};

struct load_result {
    struct record *records; /* [num_requests] */
    int64_t num_requests, failed;
    uint32_t *gap_us; /* [gaps], at most LOAD_GAPS_MAX */
    uint64_t gaps, gaps_dropped;
    int64_t begin_ns, end_ns;
    int64_t full_ns;      /* time during which all `concurrency` streams were decoding */
    uint64_t full_events; /* text events that came in that time */
    double cpu_s;         /* of this process, user + system */
    char first_error[320];
};

int load_resolve(struct load_target *t, const char *url, struct err *e);
int load_run(struct load_result *out, const struct load_spec *s, struct err *e);
void load_result_fini(struct load_result *r);
/* One plain GET on a fresh connection; the body goes to `body`. */
int load_get(const struct load_target *t, const char *api_key, const char *path, struct buf *body,
             struct err *e);

#endif
