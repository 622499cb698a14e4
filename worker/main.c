/* main: start order, signals, stop order.
 *
 *   config -> backend -> model (headers) -> sizes -> weights | tokenizer -> engine -> http [-> Dynamo] -> ready
 *
 * On a device the sizes come after the weights, when its free memory is known.
 *
 * Weights are packed by the backend's threads while the tokenizer's tables are built on a thread of their own: together they
 * are nearly all of the time from exec to ready. The io thread runs the endpoint; this thread waits for signals. Everything is
 * undone in reverse order by `stop`, whatever was reached. */
#define _GNU_SOURCE
#include "bundle.h"
#include "card.h"
#include "clock.h"
#include "config.h"
#include "dyn_events.h"
#include "dyn_feed.h"
#include "engine.h"
#include "http.h"
#include "join.h"
#include "log.h"
#include "mem.h"
#include "model.h"
#include "sim_main.h"
#include "sizing.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

_Static_assert((int)CONFIG_STEPS == (int)ENGINE_CLASSES - 1, "one threshold for each class above the lowest");

enum { API_KEYS_MAX = 1024, NAMES_MAX = 2 };

struct worker {
    struct config config;
    struct be *be;
    struct model *model;
    struct bundle bundle;
    struct sizing sizing;
    uint32_t n_host_blocks;
    uint32_t max_num_seqs, max_num_batched_tokens; /* as configured, or the device's default */
    struct engine *engine;
    struct ledger *ledger;
    struct http *http;
    struct dyn_worker *dynamo; /* NULL without --dynamo */
    struct card card;          /* zeroed without */
    int64_t started_ns;
    struct buf key_text; /* --api-key-file, cut into keys in place */
    struct str keys[API_KEYS_MAX], names[NAMES_MAX];
    int32_t eog[ENGINE_STOP_TOKENS_MAX];
    uint32_t n_keys, n_names, n_eog;
};

/* ---- parts of the start ------------------------------------------------------------------------------------------ */

static int load_keys(struct worker *w, struct err *e)
{
    const struct config *c = &w->config;
    if (c->api_key)
        w->keys[w->n_keys++] = str_from(c->api_key);
    if (!c->api_key_file)
        return ST_OK;
    FILE *f = fopen(c->api_key_file, "re");
    if (!f)
        return err_set(e, ST_EIO, "--api-key-file: %s: %s", c->api_key_file, strerror(errno));
    char chunk[4096];
    w->key_text.limit = 1 << 20;
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0;)
        buf_put(&w->key_text, chunk, n);
    int bad = ferror(f) || w->key_text.failed;
    fclose(f);
    if (bad)
        return err_set(e, ST_EIO, "--api-key-file: %s cannot be read, or is larger than 1 MiB",
                       c->api_key_file);
    for (char *at = w->key_text.p, *line; (line = strsep(&at, "\r\n"));) {
        if (*line == 0)
            continue;
        if (w->n_keys == API_KEYS_MAX)
            return err_set(e, ST_EINVAL, "--api-key-file: more than %d keys", API_KEYS_MAX);
        w->keys[w->n_keys++] = str_from(line);
    }
    return w->n_keys ? ST_OK : err_set(e, ST_EINVAL, "--api-key-file: %s holds no key", c->api_key_file);
}

/* Whoever can reach the port can use the machine: other than loopback must be meant. */
static int check_address(const struct worker *w, struct err *e)
{
    const struct config *c = &w->config;
    if (http_host_is_loopback(c->host) || w->n_keys || c->allow_public)
        return ST_OK;
    return err_set(e, ST_EINVAL,
                   "--host: %s is reachable from other machines: add --api-key(-file) or --allow-public",
                   c->host);
}

static bool on_device(const struct worker *w)
{
    return w->be->ops->memory != NULL;
}

static enum be_type kv_type(const struct worker *w)
{
    static const struct {
        const char *name;
        enum be_type type;
    } types[] = {{"f16", BE_F16}, {"bf16", BE_BF16}, {"f32", BE_F32}, {"fp8", BE_E4M3}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(w->config.kv_dtype, types[i].name) == 0)
            return types[i].type;
    return on_device(w) && strcmp(w->config.dtype, "float16") != 0 ? BE_BF16 : BE_F16;
}

static int create_backend(struct worker *w, struct err *e)
{
    const struct config *c = &w->config;
    const struct be_options o = {.device = c->device,
                                 .dtype = c->dtype,
                                 .quantization = c->quantization,
                                 .cache_dir = c->cache_dir,
                                 .deterministic = c->deterministic,
                                 .no_graphs = c->no_cuda_graphs,
                                 .threads = (uint32_t)c->threads,
                                 .cpu_isa = c->cpu_isa,
                                 .cpu_exact = strcmp(c->cpu_math, "exact") == 0};
    int st = be_create(&w->be, &o, e);
    if (st)
        return st;
    bool device = on_device(w);
    if (!device && strcmp(c->quantization, "none") != 0)
        log_warn("main", "--quantization %s: counts on a GPU only; here the weights stay as the file has them", c->quantization);
    w->max_num_seqs = c->max_num_seqs ? (uint32_t)c->max_num_seqs : device ? 256 : 32;
    w->max_num_batched_tokens = c->max_num_batched_tokens ? (uint32_t)c->max_num_batched_tokens : device ? 2048 : 512;
    if (w->max_num_batched_tokens < w->max_num_seqs)
        return err_set(e, ST_EINVAL, "--max-num-batched-tokens: %u is less than --max-num-seqs, %u", w->max_num_batched_tokens,
                       w->max_num_seqs);
    return ST_OK;
}

/* What the device still has for the cache: its share, less what is taken, less what the engine allocates after the cache. */
static int device_memory(struct worker *w, uint64_t *out, struct err *e)
{
    const uint64_t workspace = 512 << 20; /* activations, partial results, blobs, graphs of an 8B model: about 400 MiB */
    uint64_t free_bytes, total, share, reserve;
    int st = w->be->ops->memory(w->be, &free_bytes, &total);
    if (st)
        return err_set(e, st, "the device does not tell its free memory");
    share = (uint64_t)(w->config.gpu_memory_utilization * (double)total);
    reserve = (uint64_t)w->max_num_seqs * model_info(w->model)->vocab * sizeof(float) + workspace + (total - free_bytes);
    *out = share > reserve ? share - reserve : 0;
    return ST_OK;
}

static int choose_sizes(struct worker *w, struct err *e)
{
    const struct config *c = &w->config;
    const struct model_info *info = model_info(w->model);
    struct be_kv_shape shape;
    model_kv_shape(w->model, (uint32_t)c->block_size, 0, kv_type(w), &shape);
    struct sizing_input in = {.context_asked = c->context_length,
                              .kv_bytes_asked = c->kv_bytes,
                              .context_max = info->context_max,
                              .block_tokens = c->block_size,
                              .block_bytes = w->be->ops->kv_block_bytes(w->be, &shape),
                              .max_num_seqs = w->max_num_seqs,
                              .device = on_device(w)};
    if (in.block_bytes == 0)
        return err_set(e, ST_EUNSUP, "%s: the %s backend has no KV layout for %u heads of %u in %s (--kv-dtype %s)", info->file,
                       w->be->ops->name, info->n_kv_heads, info->head_dim, be_type_name(kv_type(w)), c->kv_dtype);
    uint64_t host = sizing_memory_available();
    int st = sizing_host_blocks(&w->n_host_blocks, c->host_kv_bytes, in.block_bytes, host, e);
    if (st)
        return st;
    if (!in.device) {
        in.memory_available = host - c->host_kv_bytes;
        in.weight_bytes = info->tensor_bytes;
    } else {
        st = device_memory(w, &in.memory_available, e);
        if (st)
            return st;
    }
    return sizing_choose(&w->sizing, &in, e);
}

static int open_model(struct worker *w, struct err *e)
{
    const struct config *c = &w->config;
    int st = create_backend(w, e);
    if (!st)
        st = strcmp(c->load_format, "dummy") == 0 ? model_open_dummy(&w->model, c->model, e)
                                                   : model_open(&w->model, c->model, e);
    if (!st && !on_device(w))
        st = choose_sizes(w, e);
    if (st)
        return st;
    const struct model_info *info = model_info(w->model);
    if (c->context_length > info->context_max)
        return err_set(e, ST_EINVAL, "--context-length: %llu is above the model's %u", (unsigned long long)c->context_length,
                       info->context_max);
    log_info("main", "%s: %s %s, %.1f M parameters; %s", info->file, info->arch, info->quant, (double)info->n_params / 1e6,
             be_describe(w->be));
    return ST_OK;
}

/* A bar on a terminal, a line per tenth elsewhere; nothing for models that load at once. */
struct progress {
    int64_t started_ns, shown_ns;
    int tenth;
};

static void show_progress(void *user, size_t done, size_t total)
{
    struct progress *p = user;
    int64_t now = clock_now_ns();
    int percent = total ? (int)(100.0 * (double)done / (double)total) : 100;
    if (now - p->started_ns < NS_PER_S / 2)
        return;
    if (isatty(STDERR_FILENO)) {
        if (now - p->shown_ns < NS_PER_S / 10 && percent < 100)
            return;
        p->shown_ns = now;
        char bar[41];
        memset(bar, ' ', 40);
        memset(bar, '#', (size_t)percent * 40 / 100);
        bar[40] = 0;
        fprintf(stderr, "\rloading [%s] %3d %%%s", bar, percent, percent >= 100 ? "\n" : "");
    } else if (percent / 10 > p->tenth) {
        p->tenth = percent / 10;
        log_info("main", "loading: %d %%", percent);
    }
}

struct bundle_job {
    struct worker *w;
    struct err err;
    int status;
};

static void *open_bundle(void *arg)
{
    struct bundle_job *j = arg;
    struct worker *w = j->w;
    j->status =
        bundle_open(&w->bundle, w->config.model, model_gguf(w->model), w->config.chat_template,
                    strcmp(w->config.load_format, "dummy") == 0 ? model_info(w->model)->vocab : 0, &j->err);
    return NULL;
}

static int load_model(struct worker *w, struct err *e)
{
    struct progress progress = {.started_ns = clock_now_ns()};
    const struct model_load_options o = {.max_context = on_device(w) ? (uint32_t)w->config.context_length
                                                                    : w->sizing.context_length,
                                         .max_rows = w->max_num_batched_tokens,
                                         .progress = show_progress,
                                         .user = &progress};
    struct bundle_job job = {.w = w};
    pthread_t thread;
    bool threaded = pthread_create(&thread, NULL, open_bundle, &job) == 0;
    int st = model_load(w->model, w->be, &o, e);
    if (threaded)
        pthread_join(thread, NULL);
    else
        open_bundle(&job);
    if (!st && job.status) {
        st = job.status;
        if (e)
            *e = job.err;
    }
    return st || !on_device(w) ? st : choose_sizes(w, e);
}

static void add_eog(struct worker *w, int32_t id)
{
    for (uint32_t i = 0; i < w->n_eog; i++)
        if (w->eog[i] == id)
            return;
    if (w->n_eog < ENGINE_STOP_TOKENS_MAX && id >= 0 && (uint32_t)id < model_info(w->model)->vocab)
        w->eog[w->n_eog++] = id;
}

/* Without priorities a step is long enough to keep a GPU busy, and no aim cuts a CPU's prompts; with them a request of a
 * higher class waits for the end of one step at most. */
static uint32_t max_step_ms(const struct worker *w)
{
    const struct config *c = &w->config;
    if (c->max_step_ms)
        return (uint32_t)c->max_step_ms;
    if (on_device(w))
        return c->enable_priority_scheduling ? 15 : 50;
    return c->enable_priority_scheduling ? 250 : 0;
}

static struct engine_policy policy(const struct worker *w)
{
    const struct config *c = &w->config;
    struct engine_policy p = {.priorities = c->enable_priority_scheduling,
                              .aging_ms = (uint32_t)c->aging_ms_per_point,
                              .priority_clamp = (uint32_t)c->priority_clamp,
                              .max_step_ms = max_step_ms(w),
                              .slo_ttft_ms = (uint32_t)c->slo_ttft_ms,
                              .slo_itl_ms = (uint32_t)c->slo_itl_ms,
                              .batch_wait_ms = (uint32_t)c->batch_wait_ms};
    memcpy(p.classes, c->priority_classes, sizeof p.classes);
    return p;
}

static int start_engine(struct worker *w, struct err *e)
{
    const struct config *c = &w->config;
    const struct engine_options o = {.be = w->be,
                                     .model = w->model,
                                     .max_num_seqs = w->max_num_seqs,
                                     .max_num_batched_tokens = w->max_num_batched_tokens,
                                     .max_queue = (uint32_t)c->max_queue,
                                     .block_tokens = (uint32_t)c->block_size,
                                     .n_blocks = w->sizing.n_blocks,
                                     .context_length = w->sizing.context_length,
                                     .kv_type = kv_type(w),
                                     .prefix_caching = !c->no_prefix_caching,
                                     .n_host_blocks = w->n_host_blocks,
                                     .policy = policy(w),
                                     .kv_event_capacity = c->dynamo ? DYN_FEED_CAPACITY : 0,
                                     .kv_event_seed = DYN_EVENTS_SEED};
    if (w->n_host_blocks)
        log_info("main", "host tier: %u KV blocks in %llu MiB", w->n_host_blocks, (unsigned long long)c->host_kv_bytes >> 20);
    const struct timing_slo slo = {.ttft_ns = (int64_t)c->slo_ttft_ms * NS_PER_MS, .itl_ns = (int64_t)c->slo_itl_ms * NS_PER_MS};
    int st = engine_create(&w->engine, &o, e);
    if (!st && ledger_create(&w->ledger, w->engine, &slo))
        st = err_set(e, ST_ENOMEM, "no memory for the book of requests");
    return st ? st : engine_start(w->engine, e);
}

static int start_http(struct worker *w, struct err *e)
{
    const struct config *c = &w->config;
    const struct model_info *info = model_info(w->model);
    const struct bundle *b = &w->bundle;
    for (uint32_t i = 0; i < info->n_eos; i++)
        add_eog(w, info->eos[i]);
    for (uint32_t i = 0; i < b->n_eog; i++)
        add_eog(w, b->eog[i]);
    w->names[w->n_names++] = str_from(c->served_model_name ? c->served_model_name : b->name);
    if (c->served_model_name)
        w->names[w->n_names++] = str_from(b->name);
    const struct http_options o = {
        .host = c->host,
        .port = (uint16_t)c->port,
        .ledger = w->ledger,
        .model = {.tok = b->tok,
                  .vocab = b->vocab,
                  .chat = b->chat,
                  .why_no_chat = str_from(b->why_no_chat),
                  .names = w->names,
                  .n_names = w->n_names,
                  .context_length = w->sizing.context_length,
                  .bos = str_from(b->bos),
                  .eos = str_from(b->eos),
                  .eog = w->eog,
                  .n_eog = w->n_eog,
                  .api = {.vocab_size = info->vocab,
                          .knows = {.developer = b->knows_developer, .tool_calls = b->knows_tool_calls},
                          .priority_max = (uint32_t)c->priority_clamp,
                          .defaults = {.n = 1, .temperature = 1, .top_p = 1, .repetition_penalty = 1}}},
        .model_root = str_from(b->name),
        .api_keys = w->keys,
        .n_api_keys = w->n_keys,
        .version = str_from(STATOR_VERSION),
        .max_connections = (uint32_t)c->max_connections,
        .max_body_bytes = c->max_body_bytes,
        .sse_keepalive_ms = (uint32_t)c->sse_keepalive_ms,
        .client_timeout_ms = (uint32_t)c->client_timeout_s * 1000,
        .drain_timeout_ms = (uint32_t)c->drain_timeout_s * 1000,
    };
    return http_create(&w->http, &o, e);
}

static int start_dynamo(struct worker *w, struct err *e)
{
    const struct join_input in = {.config = &w->config,
                                  .http = w->http,
                                  .ledger = w->ledger,
                                  .device = on_device(w) ? "cuda" : "cpu",
                                  .limits = {.context_length = w->sizing.context_length,
                                             .vocab_size = model_info(w->model)->vocab,
                                             .priority_max = (uint32_t)w->config.priority_clamp,
                                             .eog = w->eog,
                                             .n_eog = w->n_eog,
                                             .vocab = w->bundle.vocab},
                                  .card = &w->card,
                                  .started_ns = w->started_ns};
    const struct card_input card = {.config = &w->config,
                                    .model = w->model,
                                    .bundle = &w->bundle,
                                    .name = w->names[0].p,
                                    .eog = w->eog,
                                    .n_eog = w->n_eog,
                                    .context_length = w->sizing.context_length,
                                    .n_blocks = w->sizing.n_blocks,
                                    .max_num_seqs = w->max_num_seqs,
                                    .max_num_batched_tokens = w->max_num_batched_tokens};
    if (!w->config.dynamo)
        return ST_OK;
    int st = card_open(&w->card, &card, e);
    return st ? st : join_create(&w->dynamo, &in, e);
}

static void stop(struct worker *w)
{
    dyn_worker_destroy(w->dynamo);
    http_destroy(w->http);
    card_close(&w->card);
    ledger_destroy(w->ledger);
    engine_destroy(w->engine);
    bundle_close(&w->bundle);
    model_destroy(w->model);
    be_destroy(w->be);
    buf_fini(&w->key_text);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

struct io {
    struct http *http;
    struct err err;
    int status;
    pthread_t main;
};

static void *run_io(void *arg)
{
    struct io *io = arg;
    io->status = http_run(io->http, &io->err);
    pthread_kill(io->main, SIGUSR1); /* ends main's wait when the endpoint ended by itself */
    return NULL;
}

static void print_ready(const struct worker *w, int64_t started_ns)
{
    const char *host = http_host_is_wildcard(w->config.host) ? "127.0.0.1" : w->config.host;
    bool v6 = strchr(host, ':') != NULL;
    char url[300];
    snprintf(url, sizeof url, "http://%s%s%s:%u", v6 ? "[" : "", host, v6 ? "]" : "", http_port(w->http));
    printf("ready: %.*s on %s, %.0f ms after start\n\n", (int)w->names[0].n, w->names[0].p, url,
           (double)(clock_now_ns() - started_ns) / NS_PER_MS);
    bool chat = w->bundle.chat != NULL;
    printf("curl -s %s/v1/%scompletions -H 'Content-Type: application/json' %s\\\n"
           "  -d '{%s, \"temperature\": 0, \"max_tokens\": 40}'\n",
           url, chat ? "chat/" : "", w->n_keys ? "-H \"Authorization: Bearer $KEY\" " : "",
           chat ? "\"messages\": [{\"role\": \"user\", \"content\": \"What is gravity?\"}]"
                : "\"prompt\": \"Gravity is\"");
    fflush(stdout);
}

/* Frontends send requests as soon as they know of us, so they are told once the loop runs. */
static int announce(struct worker *w, struct err *e)
{
    struct dyn_record card = {0};
    if (!w->dynamo)
        return ST_OK;
    dyn_card_record(&card, dyn_worker_self(w->dynamo), &w->card.card);
    return dyn_worker_publish(w->dynamo, &card, e);
}

/* Waits for signals, and for the endpoint to end by itself. Nobody is to find us while we end. */
static void wait_for_end(struct worker *w, const sigset_t *signals)
{
    for (bool draining = false;; draining = true) {
        int sig = 0;
        if (sigwait(signals, &sig) || sig == SIGUSR1)
            break;
        if (draining) {
            log_warn("main", "second signal: ending now");
            _exit(130);
        }
        log_info("main", "%s: draining, at most %llu s; again to end at once",
                 sig == SIGINT ? "SIGINT" : "SIGTERM", (unsigned long long)w->config.drain_timeout_s);
        if (w->dynamo)
            dyn_worker_withdraw(w->dynamo);
        http_drain(w->http);
    }
    if (w->dynamo)
        dyn_worker_withdraw(w->dynamo);
}

/* The signals are blocked in every thread and taken here, one at a time. */
static int serve(struct worker *w, const sigset_t *signals, int64_t started_ns, struct err *e)
{
    struct io io = {.http = w->http, .main = pthread_self()};
    pthread_t thread;
    if (pthread_create(&thread, NULL, run_io, &io))
        return err_set(e, ST_ENOMEM, "the io thread could not be started");
    pthread_setname_np(thread, "io");
    int st = announce(w, e);
    if (st) {
        http_stop(w->http);
    } else {
        print_ready(w, started_ns);
        wait_for_end(w, signals);
    }
    pthread_join(thread, NULL);
    if (!st && io.status && e)
        *e = io.err;
    return st ? st : io.status;
}

static int start_and_serve(struct worker *w, int64_t started_ns, struct err *e)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    int st = load_keys(w, e);
    st = st ? st : check_address(w, e);
    st = st ? st : open_model(w, e);
    if (st)
        return st;
    log_info("main", "%s", w->sizing.why);
    st = load_model(w, e);
    st = st ? st : start_engine(w, e);
    st = st ? st : start_http(w, e);
    st = st ? st : start_dynamo(w, e);
    return st ? st : serve(w, &signals, started_ns, e);
}

int main(int argc, char **argv)
{
    int64_t started_ns = clock_now_ns();
    static struct worker w;
    struct err e = {0};
    enum log_level level = LOG_INFO;
    if (argc > 1 && strcmp(argv[1], "simulate") == 0)
        return sim_main(argc - 1, argv + 1);
    if (config_load(&w.config, argc, argv, environ, &e)) {
        fprintf(stderr, "stator: %s\n", e.text);
        return 2;
    }
    const struct config *c = &w.config;
    if (c->help || c->version || c->help_markdown) {
        if (c->help)
            config_print_help(stdout);
        else if (c->version)
            printf("stator %s\n", STATOR_VERSION);
        else
            config_print_markdown(stdout);
        return 0;
    }
    w.started_ns = started_ns;
    log_level_from(c->log_level, &level);
    log_set_level(level);
    if (!c->model) {
        fprintf(stderr, "stator: --model PATH is needed: a GGUF file or a Hugging Face folder; see --help\n");
        return 2;
    }
    config_log(c);
    int st = start_and_serve(&w, started_ns, &e);
    if (st)
        fprintf(stderr, "stator: %s\n", e.text[0] ? e.text : status_text(st));
    else
        log_info("main", "stopped");
    stop(&w);
    return st ? 1 : 0;
}
