/* config: one table of settings yields flags, environment names, --help, the start-up dump and the README table.
 *
 * Owns     struct config owns nothing: strings point into argv, the environment, or static storage (of the last config_load).
 * Units    in the table: bytes, tokens, ms, s; sizes take a suffix K, M, G or T (powers of 1024).
 * States   config_load once at start; read-only afterwards.
 * Threads  main loads, any thread reads.
 * Errors   ST_EINVAL naming the flag (or environment variable), the value and what was expected.
 * Bounds   every number has a minimum and a maximum in the table.
 * Source   docs/ARCHITECTURE.md section 3: no getenv elsewhere. The variables of the Dynamo flags are Dynamo's own.
 */
#ifndef STATOR_CONFIG_H
#define STATOR_CONFIG_H

#include "buf.h"
#include "status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum {
    CONFIG_STEPS = 3,
    CONFIG_NAME_MAX = 128
}; /* numbers of a setting that is a list of thresholds; length of Dynamo's names */

struct config {
    const char *model, *served_model_name, *chat_template;
    const char *host, *api_key, *api_key_file;
    const char *device, *dtype, *quantization, *load_format, *cache_dir, *cpu_isa, *cpu_math, *kv_dtype, *log_level;
    uint64_t port, context_length, max_num_seqs, max_num_batched_tokens, max_queue, block_size, kv_bytes,
        host_kv_bytes, threads;
    uint64_t priority_clamp, aging_ms_per_point, max_step_ms, batch_wait_ms, slo_ttft_ms, slo_itl_ms;
    uint32_t priority_classes[CONFIG_STEPS];
    uint64_t max_body_bytes, max_connections, sse_keepalive_ms, client_timeout_s, drain_timeout_s;
    const char *dyn_namespace, *dyn_component, *dyn_endpoint, *dyn_discovery_backend, *dyn_file_kv,
        *dyn_request_plane, *dyn_event_plane, *dyn_tcp_rpc_host, *dyn_event_plane_host, *dyn_system_host;
    const char *etcd_endpoints, *etcd_auth_username, *etcd_auth_password;
    const char *etcd_auth_ca, *etcd_auth_client_cert, *etcd_auth_client_key;
    int64_t dyn_system_port; /* -1: none */
    uint64_t dyn_tcp_rpc_port, migration_limit;
    double gpu_memory_utilization;
    bool allow_public, no_prefix_caching, deterministic, no_cuda_graphs, enable_priority_scheduling, dynamo,
        dynamo_serve_files, help, version, help_markdown;
};

/* Flags win over STATOR_* variables, which win over defaults; a variable whose flag is given is not looked at, and none is by
 * --help and its like. Dynamo's variables (DYN_*, ETCD_*) count with --dynamo only: they are there for others too, and must not
 * keep a worker from starting that has nothing to do with them. */
int config_load(struct config *c, int argc, char **argv, char **environ_, struct err *e);
/* "--dtype, --deterministic": those of a GPU alone that differ from their defaults. */
void config_put_gpu_flags(const struct config *c, struct buf *out);
void config_print_help(FILE *out);
void config_print_markdown(FILE *out);   /* the README's table */
void config_log(const struct config *c); /* every setting that differs from its default; secrets hidden */

#endif
