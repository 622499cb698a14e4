/* The table is the documentation: a setting that is not in it does not exist, and one that is has a flag, a variable, bounds
 * and a line of help. Values are parsed strictly ("8k" is 8,192; "8x", "-1" and "" are refused), because a mistyped limit
 * that silently became 0 is found much later and by somebody else. */
#include "config.h"

#include "log.h"

#include <ctype.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum type { STRING, SECRET, NUMBER, SIZE, FRACTION, FLAG, CHOICE, STEPS, PORT }; /* PORT: -1 is none */

struct setting {
    const char *name; /* without dashes */
    enum type type;
    size_t offset;
    const char *initial; /* default, as text; NULL = unset */
    uint64_t min, max; /* of a FRACTION in hundredths */
    const char *unit; /* or the choices, separated by '|' */
    const char *help;
};

#define AT(field) offsetof(struct config, field)
static const struct setting table[] = {
    {"model", STRING, AT(model), NULL, 0, 0, "PATH", "GGUF file or Hugging Face folder to serve"},
    {"served-model-name", STRING, AT(served_model_name), NULL, 0, 0, "NAME",
     "name that clients use; default: the file's or folder's name"},
    {"chat-template", STRING, AT(chat_template), NULL, 0, 0, "PATH",
     "Jinja file that replaces the model's own template"},
    {"host", STRING, AT(host), "127.0.0.1", 0, 0, "ADDRESS", "address to listen on (IPv4 or IPv6)"},
    {"port", NUMBER, AT(port), "8099", 0, 65535, "", "TCP port; 0 takes a free one"},
    {"allow-public", FLAG, AT(allow_public), NULL, 0, 0, "",
     "listen on other than loopback without an API key"},
    {"api-key", SECRET, AT(api_key), NULL, 0, 0, "KEY",
     "Bearer key that requests must carry; health stays open"},
    {"api-key-file", STRING, AT(api_key_file), NULL, 0, 0, "PATH", "file with one accepted key per line"},
    {"context-length", SIZE, AT(context_length), "0", 0, 16 << 20, "tokens",
     "prompt + output of one request; 0: what model and memory allow"},
    {"max-num-seqs", NUMBER, AT(max_num_seqs), "0", 0, 1024, "",
     "sequences that run at once; 0: 32 on a CPU, 256 on a GPU"},
    {"max-num-batched-tokens", SIZE, AT(max_num_batched_tokens), "0", 0, 65536, "tokens",
     "token budget of one step, 16 at least; 0: 512 on a CPU, 2048 on a GPU"},
    {"max-queue", NUMBER, AT(max_queue), "1024", 0, 65536, "", "requests that may wait; more get 429"},
    {"enable-priority-scheduling", FLAG, AT(enable_priority_scheduling), NULL, 0, 0, "",
     "let requests' hints order the queue, and higher ones take the place of lower ones"},
    {"priority-classes", STEPS, AT(priority_classes), "0,5,10", 0, 1000, "N,N,N",
     "lowest priority of the classes normal, elevated and high; what is below is background"},
    {"priority-clamp", NUMBER, AT(priority_clamp), "100", 1, 1000, "",
     "priorities count up to this, and down to its negative"},
    {"aging-ms-per-point", NUMBER, AT(aging_ms_per_point), "30000", 1, 86400000, "ms",
     "waiting that weighs as much as one point of priority"},
    {"max-step-ms", NUMBER, AT(max_step_ms), "0", 0, 60000, "ms",
     "a step with prompts aims to end within this; 0: with priorities 250 on a CPU and 15 on a GPU, without "
     "none and 50"},
    {"batch-wait-ms", NUMBER, AT(batch_wait_ms), "50", 0, 10000, "ms",
     "a request of latency_sensitivity 0 may wait this long for company; 0: it does not"},
    {"slo-ttft-ms", NUMBER, AT(slo_ttft_ms), "0", 0, 86400000, "ms",
     "target for the first token, for the metrics of goodput; 0: none"},
    {"slo-itl-ms", NUMBER, AT(slo_itl_ms), "0", 0, 86400000, "ms",
     "target for 95 % of the gaps between tokens of a request; 0: none"},
    {"block-size", NUMBER, AT(block_size), "16", 16, 1024, "tokens",
     "positions of a KV block, a multiple of 16"},
    {"kv-bytes", SIZE, AT(kv_bytes), "0", 0, UINT64_C(1) << 50, "bytes",
     "KV cache; 0: half of the memory that is free, at most 4G; on a GPU all that is left of its share"},
    {"host-kv-bytes", SIZE, AT(host_kv_bytes), "0", 0, UINT64_C(1) << 50, "bytes",
     "host memory that keeps KV blocks which the KV cache has no room for; 0: none"},
    {"kv-dtype", CHOICE, AT(kv_dtype), "auto", 0, 0, "auto|f16|bf16|f32|fp8",
     "element type of the KV cache; auto: f16 on a CPU, the type of --dtype on a GPU; f32: CPU, fp8: GPU"},
    {"no-prefix-caching", FLAG, AT(no_prefix_caching), NULL, 0, 0, "",
     "do not reuse KV blocks across requests"},
    {"load-format", CHOICE, AT(load_format), "auto", 0, 0, "auto|dummy",
     "dummy: random weights from a folder's config.json alone, for benchmarks"},
    {"device", CHOICE, AT(device), "auto", 0, 0, "auto|cpu|cuda", "where the model runs"},
    {"dtype", CHOICE, AT(dtype), "auto", 0, 0, "auto|bfloat16|float16",
     "GPU: type of activations and unquantised weights; auto: bfloat16"},
    {"quantization", CHOICE, AT(quantization), "none", 0, 0, "none|fp8",
     "GPU: fp8: weights of the layers to e4m3 at load"},
    {"gpu-memory-utilization", FRACTION, AT(gpu_memory_utilization), "0.9", 10, 99, "0.1..0.99",
     "share of the GPU's memory that weights, KV cache and workspace may take"},
    {"deterministic", FLAG, AT(deterministic), NULL, 0, 0, "",
     "GPU: tokens that do not depend on the batch in prompts either (a CPU always does); slower prompts"},
    {"no-cuda-graphs", FLAG, AT(no_cuda_graphs), NULL, 0, 0, "",
     "GPU: launch each kernel by itself, to find a fault"},
    {"threads", NUMBER, AT(threads), "0", 0, 1024, "",
     "CPU compute threads; 0: one per physical core allowed"},
    {"cpu-isa", CHOICE, AT(cpu_isa), "auto", 0, 0, "auto|c|avx2|avxvnni|avx512|amx",
     "highest instruction set to use"},
    {"cpu-math", CHOICE, AT(cpu_math), "fast", 0, 0, "fast|exact",
     "exact: f32 activations and dequantised weights"},
    {"cache-dir", STRING, AT(cache_dir), NULL, 0, 0, "PATH",
     "folder that keeps the measured choices of kernels (GPU) and files made of a GGUF (--dynamo: "
     "$XDG_CACHE_HOME/stator by default)"},
    {"max-body-bytes", SIZE, AT(max_body_bytes), "16M", 1024, UINT64_C(1) << 30, "bytes",
     "largest request body"},
    {"max-connections", NUMBER, AT(max_connections), "1024", 1, 65536, "", "client connections"},
    {"client-timeout", NUMBER, AT(client_timeout_s), "30", 1, 3600, "s",
     "for a client that stalls while sending a request"},
    {"sse-keepalive-ms", NUMBER, AT(sse_keepalive_ms), "8000", 10, 3600000, "ms",
     "silence after which a stream gets a comment frame"},
    {"drain-timeout", NUMBER, AT(drain_timeout_s), "30", 0, 86400, "s",
     "after SIGTERM running requests have this long"},
    {"dynamo", FLAG, AT(dynamo), NULL, 0, 0, "", "join an NVIDIA Dynamo deployment as a backend worker"},
    {"dynamo-serve-files", FLAG, AT(dynamo_serve_files), NULL, 0, 0, "",
     "Dynamo: frontends share no disk with this worker: they fetch its files from the status server"},
    {"dyn-namespace", STRING, AT(dyn_namespace), "dynamo", 0, 0, "NAME", "Dynamo: namespace to join"},
    {"dyn-component", STRING, AT(dyn_component), "backend", 0, 0, "NAME", "Dynamo: component to be"},
    {"dyn-endpoint", STRING, AT(dyn_endpoint), "generate", 0, 0, "NAME", "Dynamo: name of the endpoint"},
    {"dyn-discovery-backend", CHOICE, AT(dyn_discovery_backend), "file", 0, 0, "file|etcd",
     "Dynamo: the store through which frontends find workers"},
    {"dyn-file-kv", STRING, AT(dyn_file_kv), NULL, 0, 0, "PATH",
     "Dynamo: folder of the file store; default: dynamo_store_kv in $TMPDIR"},
    {"etcd-endpoints", STRING, AT(etcd_endpoints), "http://localhost:2379", 0, 0, "URL,URL",
     "Dynamo: etcd's servers"},
    {"etcd-auth-username", STRING, AT(etcd_auth_username), NULL, 0, 0, "NAME", "Dynamo: user of etcd"},
    {"etcd-auth-password", SECRET, AT(etcd_auth_password), NULL, 0, 0, "WORD",
     "Dynamo: password of etcd's user"},
    {"etcd-auth-ca", STRING, AT(etcd_auth_ca), NULL, 0, 0, "PEM",
     "Dynamo: certificate that etcd's must be signed by, a file or the text; default: the system's"},
    {"etcd-auth-client-cert", STRING, AT(etcd_auth_client_cert), NULL, 0, 0, "PEM",
     "Dynamo: our certificate for etcd, a file or the text"},
    {"etcd-auth-client-key", SECRET, AT(etcd_auth_client_key), NULL, 0, 0, "PEM",
     "Dynamo: its key, a file or the text"},
    {"dyn-request-plane", CHOICE, AT(dyn_request_plane), "tcp", 0, 0, "tcp", "Dynamo: how requests come"},
    {"dyn-tcp-rpc-host", STRING, AT(dyn_tcp_rpc_host), "127.0.0.1", 0, 0, "ADDRESS",
     "Dynamo: address to take requests on, as frontends reach it; whoever reaches it can use the model"},
    {"dyn-tcp-rpc-port", NUMBER, AT(dyn_tcp_rpc_port), "0", 0, 65535, "",
     "Dynamo: port for requests; 0 takes a free one"},
    {"dyn-event-plane", CHOICE, AT(dyn_event_plane), "zmq", 0, 0, "zmq",
     "Dynamo: how KV events and load go out"},
    {"dyn-event-plane-host", STRING, AT(dyn_event_plane_host), NULL, 0, 0, "ADDRESS",
     "Dynamo: address to publish events on; default: that of requests"},
    {"dyn-system-host", STRING, AT(dyn_system_host), "127.0.0.1", 0, 0, "ADDRESS",
     "Dynamo: address of the status server"},
    {"dyn-system-port", PORT, AT(dyn_system_port), "-1", 0, 65535, "",
     "Dynamo: port of the status server (health, metrics); 0 takes a free one, -1: none"},
    {"migration-limit", NUMBER, AT(migration_limit), "0", 0, 1000, "",
     "Dynamo: how often a request may move to another worker when one dies, as the model card tells "
     "frontends"},
    {"log-level", CHOICE, AT(log_level), "info", 0, 0, "error|warn|info|debug", "how much to log"},
    {"help", FLAG, AT(help), NULL, 0, 0, "", "print this and exit"},
    {"version", FLAG, AT(version), NULL, 0, 0, "", "print the version and exit"},
    {"help-markdown", FLAG, AT(help_markdown), NULL, 0, 0, "", "print the table of the README and exit"},
};
enum { N_SETTINGS = sizeof table / sizeof *table };

static void *field(struct config *c, const struct setting *s)
{
    return (char *)c + s->offset;
}

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

static const char *const suffixes = "kmgt";

static bool parse_number(const char *text, bool size, uint64_t *out)
{
    if (!isdigit((unsigned char)*text))
        return false;
    uint64_t v = 0;
    for (; isdigit((unsigned char)*text); text++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*text - '0'), &v))
            return false;
    const char *suffix = *text ? strchr(suffixes, tolower((unsigned char)*text)) : NULL;
    if (size && suffix && text[1] == 0) {
        int shift = 10 * (int)(suffix - suffixes + 1);
        if (v > UINT64_MAX >> shift)
            return false;
        v <<= shift;
        text++;
    }
    *out = v;
    return *text == 0;
}

/* Whole numbers, each above the one before it, separated by commas. */
static bool parse_steps(const char *text, const struct setting *s, uint32_t out[CONFIG_STEPS])
{
    uint64_t least = s->min;
    for (int i = 0; i < CONFIG_STEPS; i++) {
        char one[16];
        size_t n = strcspn(text, ",");
        uint64_t v;
        if (n >= sizeof one || (text[n] == ',') != (i + 1 < CONFIG_STEPS))
            return false;
        memcpy(one, text, n);
        one[n] = 0;
        if (!parse_number(one, false, &v) || v < least || v > s->max)
            return false;
        out[i] = (uint32_t)v;
        least = v + 1;
        text += n + 1;
    }
    return true;
}

static const char *find_choice(const char *choices, const char *value, size_t n)
{
    for (const char *at = choices; *at;) {
        size_t len = strcspn(at, "|");
        if (len == n && memcmp(at, value, n) == 0)
            return at;
        at += len + (at[len] == '|');
    }
    return NULL;
}

static bool parse_flag(const char *value, bool *out)
{
    static const char *const yes[] = {"1", "true", "yes", "on"}, *const no[] = {"0", "false", "no", "off",
                                                                                ""};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
        if (strcmp(value, yes[i]) == 0)
            return *out = true;
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        if (strcmp(value, no[i]) == 0) {
            *out = false;
            return true;
        }
    return false;
}

/* `from` is how the user wrote the name: "--port" or "STATOR_PORT". */
static int set(struct config *c, const struct setting *s, const char *from, const char *value, struct err *e)
{
    switch (s->type) {
    case STRING:
    case SECRET:
        if (*value == 0)
            return err_set(e, ST_EINVAL, "%s: empty value", from);
        *(const char **)field(c, s) = value;
        return ST_OK;
    case FLAG:
        if (!parse_flag(value, field(c, s)))
            return err_set(e, ST_EINVAL, "%s: '%s' is neither true nor false", from, value);
        return ST_OK;
    case CHOICE:
        if (!find_choice(s->unit, value, strlen(value)))
            return err_set(e, ST_EINVAL, "%s: '%s' is none of %s", from, value, s->unit);
        *(const char **)field(c, s) = value;
        return ST_OK;
    case PORT: {
        uint64_t v;
        bool none = strcmp(value, "-1") == 0;
        if (!none && (!parse_number(value, false, &v) || v > s->max))
            return err_set(e, ST_EINVAL, "%s: '%s' is neither a port nor -1", from, value);
        *(int64_t *)field(c, s) = none ? -1 : (int64_t)v;
        return ST_OK;
    }
    case FRACTION: {
        char *end;
        double v = strtod(value, &end);
        if (end == value || *end || !(v >= (double)s->min / 100 && v <= (double)s->max / 100))
            return err_set(e, ST_EINVAL, "%s: '%s' is no number within %s", from, value, s->unit);
        *(double *)field(c, s) = v;
        return ST_OK;
    }
    case STEPS:
        if (!parse_steps(value, s, field(c, s)))
            return err_set(e, ST_EINVAL, "%s: '%s' is not %d ascending whole numbers within %llu..%llu, as %s", from, value,
                           CONFIG_STEPS, (unsigned long long)s->min, (unsigned long long)s->max, s->initial);
        return ST_OK;
    case NUMBER:
    case SIZE: {
        uint64_t v;
        if (!parse_number(value, s->type == SIZE, &v))
            return err_set(e, ST_EINVAL, "%s: '%s' is not a whole number%s", from, value,
                           s->type == SIZE ? " (with K, M, G or T if you like)" : "");
        if (v < s->min || v > s->max)
            return err_set(e, ST_EINVAL, "%s: %s is outside %llu..%llu", from, value,
                           (unsigned long long)s->min, (unsigned long long)s->max);
        *(uint64_t *)field(c, s) = v;
        return ST_OK;
    }
    }
    return ST_EINTERNAL;
}

static const struct setting *find(const char *name, size_t n)
{
    for (int i = 0; i < N_SETTINGS; i++)
        if (strlen(table[i].name) == n && memcmp(table[i].name, name, n) == 0)
            return &table[i];
    return NULL;
}

static int load_environment(struct config *c, bool dynamos, char **env, struct err *e)
{
    for (int i = 0; i < N_SETTINGS; i++) {
        if (dynamos != is_dynamos(&table[i]))
            continue;
        char name[64];
        env_name(&table[i], name);
        size_t n = strlen(name);
        for (char **v = env; v && *v; v++) {
            if (strncmp(*v, name, n) != 0 || (*v)[n] != '=')
                continue;
            int st = set(c, &table[i], name, *v + n + 1, e);
            if (st)
                return st;
        }
    }
    return ST_OK;
}

static int load_flags(struct config *c, int argc, char **argv, struct err *e)
{
    for (int i = 1; i < argc; i++) {
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
        else if (s->type == FLAG)
            value = "true";
        else if (i + 1 < argc)
            value = argv[++i];
        else
            return err_set(e, ST_EINVAL, "--%s needs a value", s->name);
        char from[72];
        snprintf(from, sizeof from, "--%s", s->name);
        int st = set(c, s, from, value, e);
        if (st)
            return st;
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
    if (c->dynamo_serve_files && c->dyn_system_port < 0)
        return err_set(e, ST_EINVAL, "--dynamo-serve-files: the status server does it: give --dyn-system-port");
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
            int st = set(c, &table[i], table[i].name, table[i].initial, e);
            if (st)
                return st;
        }
    int st = load_environment(c, false, environ_, e);
    if (!st)
        st = load_flags(c, argc, argv, e);
    if (!st && c->dynamo) { /* known only now; flags win over these variables too */
        st = load_environment(c, true, environ_, e);
        st = st ? st : load_flags(c, argc, argv, e);
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
                 "usage: stator --model PATH [flags]\n\n");
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
        "\nEach flag is also an environment variable: --max-queue 8 is STATOR_MAX_QUEUE=8. Flags win.\n"
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

/* Is the current value what the table says? */
static bool is_default(struct config *c, const struct setting *s)
{
    struct config d = {0};
    if (s->initial && set(&d, s, s->name, s->initial, NULL))
        return false;
    if (s->type == FLAG)
        return *(bool *)field(c, s) == *(bool *)field(&d, s);
    if (s->type == FRACTION)
        return *(double *)field(c, s) == *(double *)field(&d, s);
    if (s->type == NUMBER || s->type == SIZE || s->type == PORT)
        return *(uint64_t *)field(c, s) == *(uint64_t *)field(&d, s);
    if (s->type == STEPS)
        return memcmp(field(c, s), field(&d, s), sizeof c->priority_classes) == 0;
    const char *a = *(const char **)field(c, s), *b = *(const char **)field(&d, s);
    return a == b || (a && b && strcmp(a, b) == 0);
}

static void log_steps(const char *name, const uint32_t v[CONFIG_STEPS])
{
    log_info("config", "%s=%u,%u,%u", name, v[0], v[1], v[2]);
}

void config_log(const struct config *given)
{
    struct config c = *given;
    for (int i = 0; i < N_SETTINGS; i++) {
        const struct setting *s = &table[i];
        if (is_default(&c, s))
            continue;
        if (s->type == FLAG)
            log_info("config", "%s=true", s->name);
        else if (s->type == SECRET)
            log_info("config", "%s=(hidden)", s->name);
        else if (s->type == FRACTION)
            log_info("config", "%s=%g", s->name, *(double *)field(&c, s));
        else if (s->type == NUMBER || s->type == SIZE)
            log_info("config", "%s=%llu", s->name, (unsigned long long)*(uint64_t *)field(&c, s));
        else if (s->type == PORT)
            log_info("config", "%s=%lld", s->name, (long long)*(int64_t *)field(&c, s));
        else if (s->type == STEPS)
            log_steps(s->name, field(&c, s));
        else
            log_info("config", "%s=%s", s->name, *(const char **)field(&c, s));
    }
}
