/* The table is the documentation: a setting that is not in it does not exist, and one that is has a flag, a variable, bounds
 * and a line of help. */
#include "config.h"

#include "log.h"
#include "setting.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>

#define AT(field) offsetof(struct config, field)
static const struct setting table[] = {
    {"model", SETTING_STRING, AT(model), NULL, 0, 0, "PATH", "GGUF file or Hugging Face folder to serve"},
    {"served-model-name", SETTING_STRING, AT(served_model_name), NULL, 0, 0, "NAME",
     "name that clients use; default: the file's or folder's name"},
    {"chat-template", SETTING_STRING, AT(chat_template), NULL, 0, 0, "PATH",
     "Jinja file that replaces the model's own template"},
    {"host", SETTING_STRING, AT(host), "127.0.0.1", 0, 0, "ADDRESS", "address to listen on (IPv4 or IPv6)"},
    {"port", SETTING_NUMBER, AT(port), "8099", 0, 65535, "N", "TCP port; 0 takes a free one"},
    {"allow-public", SETTING_FLAG, AT(allow_public), NULL, 0, 0, "",
     "listen on other than loopback without an API key"},
    {"api-key", SETTING_SECRET, AT(api_key), NULL, 0, 0, "KEY",
     "Bearer key that requests must carry; health stays open"},
    {"api-key-file", SETTING_STRING, AT(api_key_file), NULL, 0, 0, "PATH", "file with one accepted key per line"},
    {"context-length", SETTING_SIZE, AT(context_length), "0", 0, 16 << 20, "tokens",
     "prompt + output of one request; 0: what model and memory allow"},
    {"max-num-seqs", SETTING_NUMBER, AT(max_num_seqs), "0", 0, 1024, "N",
     "sequences that run at once; 0: 32 on a CPU, 256 on a GPU"},
    {"max-num-batched-tokens", SETTING_SIZE, AT(max_num_batched_tokens), "0", 0, 65536, "tokens",
     "token budget of one step, 16 at least; 0: 512 on a CPU, 2048 on a GPU"},
    {"max-queue", SETTING_NUMBER, AT(max_queue), "1024", 0, 65536, "N", "requests that may wait; more get 429"},
    {"enable-priority-scheduling", SETTING_FLAG, AT(enable_priority_scheduling), NULL, 0, 0, "",
     "let requests' hints order the queue, and higher ones take the place of lower ones"},
    {"priority-classes", SETTING_STEPS, AT(priority_classes), "0,5,10", 0, 1000, "N,N,N",
     "lowest priority of the classes normal, elevated and high; what is below is background"},
    {"priority-clamp", SETTING_NUMBER, AT(priority_clamp), "100", 1, 1000, "N",
     "priorities count up to this, and down to its negative"},
    {"aging-ms-per-point", SETTING_NUMBER, AT(aging_ms_per_point), "30000", 1, 86400000, "ms",
     "waiting that weighs as much as one point of priority"},
    {"max-step-ms", SETTING_NUMBER, AT(max_step_ms), "0", 0, 60000, "ms",
     "a step with prompts aims to end within this; 0: with priorities 250 on a CPU and 15 on a GPU, without "
     "none and 50"},
    {"batch-wait-ms", SETTING_NUMBER, AT(batch_wait_ms), "50", 0, 10000, "ms",
     "a request of latency_sensitivity 0 may wait this long for company; 0: it does not"},
    {"slo-ttft-ms", SETTING_NUMBER, AT(slo_ttft_ms), "0", 0, 86400000, "ms",
     "target for the first token, for the metrics of goodput; 0: none"},
    {"slo-itl-ms", SETTING_NUMBER, AT(slo_itl_ms), "0", 0, 86400000, "ms",
     "target for 95 % of the gaps between tokens of a request; 0: none"},
    {"block-size", SETTING_NUMBER, AT(block_size), "16", 16, 1024, "tokens",
     "positions of a KV block, a multiple of 16"},
    {"kv-bytes", SETTING_SIZE, AT(kv_bytes), "0", 0, UINT64_C(1) << 50, "bytes",
     "KV cache; 0: half of the memory that is free, at most 4G; on a GPU all that is left of its share"},
    {"host-kv-bytes", SETTING_SIZE, AT(host_kv_bytes), "0", 0, UINT64_C(1) << 50, "bytes",
     "host memory that keeps KV blocks which the KV cache has no room for; 0: none"},
    {"kv-dtype", SETTING_CHOICE, AT(kv_dtype), "auto", 0, 0, "auto|f16|bf16|f32|fp8",
     "element type of the KV cache; auto: f16 on a CPU, the type of --dtype on a GPU; f32: CPU, fp8: GPU"},
    {"no-prefix-caching", SETTING_FLAG, AT(no_prefix_caching), NULL, 0, 0, "",
     "do not reuse KV blocks across requests"},
    {"load-format", SETTING_CHOICE, AT(load_format), "auto", 0, 0, "auto|dummy",
     "dummy: random weights from a folder's config.json alone, for benchmarks"},
    {"device", SETTING_CHOICE, AT(device), "auto", 0, 0, "auto|cpu|cuda", "where the model runs"},
    {"dtype", SETTING_CHOICE, AT(dtype), "auto", 0, 0, "auto|bfloat16|float16",
     "GPU: type of activations and unquantised weights; auto: bfloat16"},
    {"quantization", SETTING_CHOICE, AT(quantization), "none", 0, 0, "none|fp8",
     "GPU: fp8: weights of the layers to e4m3 at load"},
    {"gpu-memory-utilization", SETTING_FRACTION, AT(gpu_memory_utilization), "0.9", 10, 99, "0.1..0.99",
     "GPU: share of its memory that weights, KV cache and workspace may take"},
    {"deterministic", SETTING_FLAG, AT(deterministic), NULL, 0, 0, "",
     "GPU: tokens that do not depend on the batch in prompts either (a CPU always does); slower prompts"},
    {"no-cuda-graphs", SETTING_FLAG, AT(no_cuda_graphs), NULL, 0, 0, "",
     "GPU: launch each kernel by itself, to find a fault"},
    {"threads", SETTING_NUMBER, AT(threads), "0", 0, 256, "N",
     "CPU compute threads; 0: one per physical core allowed"},
    {"cpu-isa", SETTING_CHOICE, AT(cpu_isa), "auto", 0, 0, "auto|c|avx2|avxvnni|avx512|amx",
     "highest instruction set to use"},
    {"cpu-math", SETTING_CHOICE, AT(cpu_math), "fast", 0, 0, "fast|exact",
     "exact: f32 activations and dequantised weights"},
    {"cache-dir", SETTING_STRING, AT(cache_dir), NULL, 0, 0, "PATH",
     "folder that keeps the measured choices of kernels (GPU) and files made of a GGUF (--dynamo: "
     "$XDG_CACHE_HOME/stator by default)"},
    {"max-body-bytes", SETTING_SIZE, AT(max_body_bytes), "16M", 1024, UINT64_C(1) << 30, "bytes",
     "largest request body"},
    {"max-connections", SETTING_NUMBER, AT(max_connections), "1024", 1, 65536, "N", "client connections"},
    {"client-timeout", SETTING_NUMBER, AT(client_timeout_s), "30", 1, 3600, "s",
     "for a client that stalls while sending a request"},
    {"sse-keepalive-ms", SETTING_NUMBER, AT(sse_keepalive_ms), "8000", 10, 3600000, "ms",
     "silence after which a stream gets a comment frame"},
    {"drain-timeout", SETTING_NUMBER, AT(drain_timeout_s), "30", 0, 86400, "s",
     "after SIGTERM running requests have this long"},
    {"dynamo", SETTING_FLAG, AT(dynamo), NULL, 0, 0, "", "join an NVIDIA Dynamo deployment as a backend worker"},
    {"dynamo-serve-files", SETTING_FLAG, AT(dynamo_serve_files), NULL, 0, 0, "",
     "Dynamo: frontends share no disk with this worker: they fetch its files from the status server"},
    {"dyn-namespace", SETTING_STRING, AT(dyn_namespace), "dynamo", 0, 0, "NAME", "Dynamo: namespace to join"},
    {"dyn-component", SETTING_STRING, AT(dyn_component), "backend", 0, 0, "NAME", "Dynamo: component to be"},
    {"dyn-endpoint", SETTING_STRING, AT(dyn_endpoint), "generate", 0, 0, "NAME", "Dynamo: name of the endpoint"},
    {"dyn-discovery-backend", SETTING_CHOICE, AT(dyn_discovery_backend), "file", 0, 0, "file|etcd",
     "Dynamo: the store through which frontends find workers"},
    {"dyn-file-kv", SETTING_STRING, AT(dyn_file_kv), NULL, 0, 0, "PATH",
     "Dynamo: folder of the file store; default: dynamo_store_kv in $TMPDIR"},
    {"etcd-endpoints", SETTING_STRING, AT(etcd_endpoints), "http://localhost:2379", 0, 0, "URL,URL",
     "Dynamo: etcd's servers"},
    {"etcd-auth-username", SETTING_STRING, AT(etcd_auth_username), NULL, 0, 0, "NAME", "Dynamo: user of etcd"},
    {"etcd-auth-password", SETTING_SECRET, AT(etcd_auth_password), NULL, 0, 0, "WORD",
     "Dynamo: password of etcd's user"},
    {"etcd-auth-ca", SETTING_STRING, AT(etcd_auth_ca), NULL, 0, 0, "PEM",
     "Dynamo: certificate that etcd's must be signed by, a file or the text; default: the system's"},
    {"etcd-auth-client-cert", SETTING_STRING, AT(etcd_auth_client_cert), NULL, 0, 0, "PEM",
     "Dynamo: our certificate for etcd, a file or the text"},
    {"etcd-auth-client-key", SETTING_SECRET, AT(etcd_auth_client_key), NULL, 0, 0, "PEM",
     "Dynamo: its key, a file or the text"},
    {"dyn-request-plane", SETTING_CHOICE, AT(dyn_request_plane), "tcp", 0, 0, "tcp", "Dynamo: how requests come"},
    {"dyn-tcp-rpc-host", SETTING_STRING, AT(dyn_tcp_rpc_host), "127.0.0.1", 0, 0, "ADDRESS",
     "Dynamo: address to take requests on, as frontends reach it; whoever reaches it can use the model"},
    {"dyn-tcp-rpc-port", SETTING_NUMBER, AT(dyn_tcp_rpc_port), "0", 0, 65535, "N",
     "Dynamo: port for requests; 0 takes a free one"},
    {"dyn-event-plane", SETTING_CHOICE, AT(dyn_event_plane), "zmq", 0, 0, "zmq",
     "Dynamo: how KV events and load go out"},
    {"dyn-event-plane-host", SETTING_STRING, AT(dyn_event_plane_host), NULL, 0, 0, "ADDRESS",
     "Dynamo: address to publish events on; default: that of requests"},
    {"dyn-system-host", SETTING_STRING, AT(dyn_system_host), NULL, 0, 0, "ADDRESS",
     "Dynamo: address of the status server; default: 127.0.0.1, with --dynamo-serve-files that of requests"},
    {"dyn-system-port", SETTING_PORT, AT(dyn_system_port), "-1", 0, 65535, "N",
     "Dynamo: port of the status server (health, metrics, files); 0 takes a free one, as --dynamo-serve-files does; -1: "
     "none"},
    {"migration-limit", SETTING_NUMBER, AT(migration_limit), "0", 0, 1000, "N",
     "Dynamo: how often a request may move to another worker when one dies, as the model card tells "
     "frontends"},
    {"log-level", SETTING_CHOICE, AT(log_level), "info", 0, 0, "error|warn|info|debug", "how much to log"},
    {"help", SETTING_FLAG, AT(help), NULL, 0, 0, "", "print this and exit"},
    {"version", SETTING_FLAG, AT(version), NULL, 0, 0, "", "print the version and exit"},
    {"help-markdown", SETTING_FLAG, AT(help_markdown), NULL, 0, 0, "", "print the table of the README and exit"},
};
enum { N_SETTINGS = sizeof table / sizeof *table };

/* Settings that Dynamo's own workers have too keep their variables: --dyn-namespace is DYN_NAMESPACE. */
static bool is_dynamos(const struct setting *s)
{
    return strncmp(s->name, "dyn-", 4) == 0 || strncmp(s->name, "etcd-", 5) == 0;
}

static void env_name(const struct setting *s, char out[64])
{
    int n = snprintf(out, 64, "%s%s", is_dynamos(s) ? "" : "STATOR_", s->name);
    for (int i = 0; i < n; i++)
        out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
}

static const struct setting *find(const char *name, size_t n)
{
    for (int i = 0; i < N_SETTINGS; i++)
        if (strlen(table[i].name) == n && memcmp(table[i].name, name, n) == 0)
            return &table[i];
    return NULL;
}

/* Of all of Kubernetes' variables for a Service named `stator`, STATOR_PORT=tcp://10.96.0.12:8099 is the one that looks like a
 * setting. It is in every pod beside the Service, whoever asked for it. */
static bool is_service_link(const char *name, const char *value)
{
    static const char *const schemes[] = {"tcp://", "udp://", "sctp://"};
    size_t n = strlen(name);
    if (n < 5 || strcmp(name + n - 5, "_PORT") != 0)
        return false;
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (strncmp(value, schemes[i], strlen(schemes[i])) == 0)
            return true;
    return false;
}

/* These ask for a text instead of a worker; STATOR_VERSION is also what an image may call its version. */
static bool has_variable(const struct setting *s)
{
    return s->offset != AT(help) && s->offset != AT(version) && s->offset != AT(help_markdown);
}

/* What a flag has set already is not looked at: no variable can be wrong then. */
static int load_environment(struct config *c, const bool given[N_SETTINGS], bool dynamos, char **env, struct err *e)
{
    for (int i = 0; i < N_SETTINGS; i++) {
        const struct setting *s = &table[i];
        if (given[i] || dynamos != is_dynamos(s) || !has_variable(s))
            continue;
        char name[64];
        env_name(s, name);
        size_t n = strlen(name);
        for (char **v = env; v && *v; v++) {
            if (strncmp(*v, name, n) != 0 || (*v)[n] != '=')
                continue;
            const char *value = *v + n + 1;
            if (is_service_link(name, value)) {
                log_warn("config", "%s=%s is what Kubernetes sets for a Service of that name: ignored", name, value);
                continue;
            }
            int st = setting_set(c, s, name, value, e);
            if (st)
                return st;
        }
    }
    return ST_OK;
}

/* A flag that would change nothing is a mistake; a variable may be there for others. */
static int check_flags_count(const struct config *c, const bool given[N_SETTINGS], struct err *e)
{
    for (int i = 0; i < N_SETTINGS && !c->dynamo; i++)
        if (given[i] && (is_dynamos(&table[i]) || table[i].offset == AT(dynamo_serve_files)))
            return err_set(e, ST_EINVAL, "--%s: counts with --dynamo only", table[i].name);
    return ST_OK;
}

static int load_flags(struct config *c, bool given[N_SETTINGS], int argc, char **argv, struct err *e)
{
    bool word = argc > 1 && strcmp(argv[1], "serve") == 0;
    for (int i = 1 + word; i < argc; i++) {
        const char *arg = argv[i], *name = arg + 2;
        if (strcmp(arg, "-h") == 0)
            name = "help";
        else if (strncmp(arg, "--", 2) != 0)
            return err_set(e, ST_EINVAL, "'%s' is not a flag; see --help", arg);
        size_t n = strcspn(name, "=");
        const struct setting *s = find(name, n);
        if (!s)
            return err_set(e, ST_EINVAL, "unknown flag '%s'; see --help", arg);
        const char *value;
        if (name[n] == '=')
            value = name + n + 1;
        else if (s->type == SETTING_FLAG)
            value = "true";
        else if (i + 1 < argc)
            value = argv[++i];
        else
            return err_set(e, ST_EINVAL, "--%s needs a value", s->name);
        char from[72];
        snprintf(from, sizeof from, "--%s", s->name);
        int st = setting_set(c, s, from, value, e);
        if (st)
            return st;
        given[s - table] = true;
    }
    return ST_OK;
}

static const char *variable(char **env, const char *name)
{
    size_t n = strlen(name);
    for (char **v = env; v && *v; v++)
        if (strncmp(*v, name, n) == 0 && (*v)[n] == '=' && (*v)[n + 1])
            return *v + n + 1;
    return NULL;
}

/* What depends on where this user's files are, and on other settings. */
static void dynamo_defaults(struct config *c, char **env)
{
    static char store[4096], cache[4096];
    const char *tmp = variable(env, "TMPDIR"), *xdg = variable(env, "XDG_CACHE_HOME"),
               *home = variable(env, "HOME");
    if (!c->dyn_file_kv) {
        snprintf(store, sizeof store, "%s/dynamo_store_kv", tmp ? tmp : "/tmp");
        c->dyn_file_kv = store;
    }
    if (!c->cache_dir && (xdg || home)) {
        snprintf(cache, sizeof cache, "%s%s", xdg ? xdg : home, xdg ? "/stator" : "/.cache/stator");
        c->cache_dir = cache;
    }
    if (!c->dyn_event_plane_host)
        c->dyn_event_plane_host = c->dyn_tcp_rpc_host;
    if (!c->dyn_system_host)
        c->dyn_system_host = c->dynamo_serve_files ? c->dyn_tcp_rpc_host : "127.0.0.1";
    if (c->dynamo_serve_files && c->dyn_system_port < 0)
        c->dyn_system_port = 0; /* frontends are told which it is */
}

/* Names become parts of paths, keys and topics; addresses are told to others. */
static int check_dynamo(const struct config *c, struct err *e)
{
    const char *const names[][2] = {{"dyn-namespace", c->dyn_namespace},
                                    {"dyn-component", c->dyn_component},
                                    {"dyn-endpoint", c->dyn_endpoint}};
    const char *const hosts[][2] = {{"dyn-tcp-rpc-host", c->dyn_tcp_rpc_host},
                                    {"dyn-event-plane-host", c->dyn_event_plane_host}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t n = strlen(names[i][1]);
        if (n > CONFIG_NAME_MAX ||
            strspn(names[i][1], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != n)
            return err_set(e, ST_EINVAL,
                           "--%s: '%.80s' may hold letters, digits, '-', '_' and '.', %d of them at most",
                           names[i][0], names[i][1], CONFIG_NAME_MAX);
    }
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++)
        if (strcmp(hosts[i][1], "0.0.0.0") == 0 || strcmp(hosts[i][1], "::") == 0)
            return err_set(e, ST_EINVAL,
                           "--%s: frontends are told this address: '%s' is none that they could reach",
                           hosts[i][0], hosts[i][1]);
    if (!c->cache_dir)
        return err_set(e, ST_EINVAL,
                       "--dynamo: needs --cache-dir where neither XDG_CACHE_HOME nor HOME is set");
    return ST_OK;
}

int config_load(struct config *c, int argc, char **argv, char **environ_, struct err *e)
{
    memset(c, 0, sizeof *c);
    for (int i = 0; i < N_SETTINGS; i++)
        if (table[i].initial) {
            int st = setting_set(c, &table[i], table[i].name, table[i].initial, e);
            if (st)
                return st;
        }
    bool given[N_SETTINGS] = {false};
    int st = load_flags(c, given, argc, argv, e);
    if (!st && (c->help || c->version || c->help_markdown))
        return ST_OK;
    st = st ? st : load_environment(c, given, false, environ_, e);
    st = st ? st : check_flags_count(c, given, e);
    if (!st && c->dynamo) { /* known only now */
        st = load_environment(c, given, true, environ_, e);
        dynamo_defaults(c, environ_);
        st = st ? st : check_dynamo(c, e);
    }
    if (!st && c->max_num_batched_tokens > 0 && c->max_num_batched_tokens < 16)
        st = err_set(e, ST_EINVAL, "--max-num-batched-tokens: %llu is less than 16",
                     (unsigned long long)c->max_num_batched_tokens);
    if (!st && c->block_size % 16)
        st = err_set(e, ST_EINVAL, "--block-size: %llu is not a multiple of 16",
                     (unsigned long long)c->block_size);
    if (!st && c->host_kv_bytes && c->no_prefix_caching)
        st = err_set(e, ST_EINVAL, "--host-kv-bytes: keeps what is reused, and --no-prefix-caching reuses nothing");
    return st;
}

void config_print_help(FILE *out)
{
    fprintf(out, "stator: an LLM inference worker with an OpenAI-compatible endpoint\n\n"
                 "usage: stator [serve] --model PATH [flags]\n"
                 "       stator simulate [flags]    the scheduler on a machine that is computed; its flags: --help\n\n");
    for (int i = 0; i < N_SETTINGS; i++) {
        const struct setting *s = &table[i];
        char left[96];
        snprintf(left, sizeof left, "--%s %s", s->name, s->unit);
        if (s->initial)
            fprintf(out, "  %-44s %s [%s]\n", left, s->help, s->initial);
        else
            fprintf(out, "  %-44s %s\n", left, s->help);
    }
    fprintf(
        out,
        "\nEach setting is also an environment variable: --max-queue 8 is STATOR_MAX_QUEUE=8. Flags win.\n"
        "Those of --dyn-* and --etcd-* are Dynamo's own, DYN_* and ETCD_*, and count with --dynamo only.\n");
}

void config_print_markdown(FILE *out)
{
    fprintf(out, "| flag | value | default | what it does |\n|---|---|---|---|\n");
    for (int i = 0; i < N_SETTINGS; i++) {
        const struct setting *s = &table[i];
        if (strcmp(s->name, "help-markdown") == 0)
            continue;
        fprintf(out, "| `--%s` | ", s->name);
        for (const char *u = s->unit; *u; u++)
            fputs(*u == '|' ? ", " : (char[]){*u, 0}, out);
        fprintf(out, " | %s | %s |\n", s->initial ? s->initial : "", s->help);
    }
}

void config_put_gpu_flags(const struct config *c, struct buf *out)
{
    for (int i = 0; i < N_SETTINGS; i++) {
        char value[SETTING_TEXT_MAX];
        if (strncmp(table[i].help, "GPU: ", 5) == 0 && setting_show(&table[i], c, value))
            buf_printf(out, "%s--%s", out->n ? ", " : "", table[i].name);
    }
}

void config_log(const struct config *c)
{
    for (int i = 0; i < N_SETTINGS; i++) {
        char value[SETTING_TEXT_MAX];
        if (setting_show(&table[i], c, value))
            log_info("config", "%s=%s", table[i].name, value);
    }
}
