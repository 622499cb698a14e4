/* config: one table of settings yields flags, environment names, --help, the start-up dump and the README table.
 *
 * Owns     struct config owns nothing: strings point into argv, the environment, or static storage.
 * Units    in the table: bytes, tokens, ms, s; sizes take a suffix K, M, G or T (powers of 1024).
 * States   config_load once at start; read-only afterwards.
 * Threads  main loads, any thread reads.
 * Errors   ST_EINVAL naming the flag (or environment variable), the value and what was expected.
 * Bounds   every number has a minimum and a maximum in the table.
 * Source   docs/ARCHITECTURE.md section 3: no getenv elsewhere.
 */
#ifndef STATOR_CONFIG_H
#define STATOR_CONFIG_H

#include "status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum { CONFIG_STEPS = 3 }; /* numbers of a setting that is a list of thresholds */

struct config {
    const char *model, *served_model_name, *chat_template;
    const char *host, *api_key, *api_key_file;
    const char *device, *dtype, *quantization, *load_format, *cache_dir, *cpu_isa, *cpu_math, *kv_dtype, *log_level;
    uint64_t port, context_length, max_num_seqs, max_num_batched_tokens, max_queue, block_size, kv_bytes,
        host_kv_bytes, threads;
    uint64_t priority_clamp, aging_ms_per_point, max_step_ms, batch_wait_ms, slo_ttft_ms, slo_itl_ms;
    uint32_t priority_classes[CONFIG_STEPS];
    uint64_t max_body_bytes, max_connections, sse_keepalive_ms, client_timeout_s, drain_timeout_s;
    double gpu_memory_utilization;
    bool allow_public, no_prefix_caching, deterministic, no_cuda_graphs, enable_priority_scheduling, help, version, help_markdown;
};

/* Flags win over STATOR_* variables, which win over defaults. */
int config_load(struct config *c, int argc, char **argv, char **environ_, struct err *e);
void config_print_help(FILE *out);
void config_print_markdown(FILE *out);   /* the README's table */
void config_log(const struct config *c); /* every setting that differs from its default; secrets hidden */

#endif
