/* main: start order, signals, stop order.
 *
 *   config -> keys -> backend with its model (loaded.c) -> engine -> ledger -> http [-> Dynamo] -> ready
 *
 * The io thread runs the endpoint; this thread waits for signals. Everything is undone in reverse order by `stop`, whatever was
 * reached. */
#define _GNU_SOURCE
#include "card.h"
#include "clock.h"
#include "config.h"
#include "dyn_events.h"
#include "dyn_feed.h"
#include "engine.h"
#include "http.h"
#include "join.h"
#include "keys.h"
#include "loaded.h"
#include "log.h"
#include "sim_main.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

extern char **environ;

_Static_assert((int)CONFIG_STEPS == (int)ENGINE_CLASSES - 1, "one threshold for each class above the lowest");

enum { NAMES_MAX = 2 };

struct worker {
    struct config config;
    struct keys keys;
    struct loaded loaded;
    struct engine *engine;
    struct ledger *ledger;
    struct http *http;
    struct dyn_worker *dynamo; /* NULL without --dynamo */
    struct card card;          /* zeroed without */
    pthread_t main;
    _Atomic bool io_ended; /* the endpoint, by itself or after a drain */
    int64_t started_ns;
    struct str names[NAMES_MAX];
    int32_t eog[ENGINE_STOP_TOKENS_MAX];
    uint32_t n_names, n_eog;
};

/* ---- parts of the start ------------------------------------------------------------------------------------------ */

/* Whoever can reach the port can use the machine: other than loopback must be meant. */
static int check_address(const struct worker *w, struct err *e)
{
    const struct config *c = &w->config;
    if (!http_host_is_known(c->host))
        return err_set(e, ST_EINVAL, "--host: '%.100s' is no address, and no name of one", c->host);
    if (http_host_is_loopback(c->host) || w->keys.n || c->allow_public)
        return ST_OK;
    return err_set(e, ST_EINVAL,
                   "--host: %s is reachable from other machines: add --api-key(-file) or --allow-public",
                   c->host);
}

static void add_eog(struct worker *w, int32_t id)
{
    for (uint32_t i = 0; i < w->n_eog; i++)
        if (w->eog[i] == id)
            return;
    if (w->n_eog < ENGINE_STOP_TOKENS_MAX && id >= 0 && (uint32_t)id < model_info(w->loaded.model)->vocab)
        w->eog[w->n_eog++] = id;
}

/* Without priorities a step is long enough to keep a GPU busy, and no aim cuts a CPU's prompts; with them a request of a
 * higher class waits for the end of one step at most. */
static uint32_t max_step_ms(const struct worker *w)
{
    const struct config *c = &w->config;
    if (c->max_step_ms)
        return (uint32_t)c->max_step_ms;
    if (loaded_on_device(&w->loaded))
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
    const struct engine_options o = {.be = w->loaded.be,
                                     .model = w->loaded.model,
                                     .max_num_seqs = w->loaded.max_num_seqs,
                                     .max_num_batched_tokens = w->loaded.max_num_batched_tokens,
                                     .max_queue = (uint32_t)c->max_queue,
                                     .block_tokens = (uint32_t)c->block_size,
                                     .n_blocks = w->loaded.sizing.n_blocks,
                                     .context_length = w->loaded.sizing.context_length,
                                     .kv_type = w->loaded.kv_type,
                                     .prefix_caching = !c->no_prefix_caching,
                                     .n_host_blocks = w->loaded.n_host_blocks,
                                     .policy = policy(w),
                                     .kv_event_capacity = c->dynamo ? DYN_FEED_CAPACITY : 0,
                                     .kv_event_seed = DYN_EVENTS_SEED};
    int st = engine_create(&w->engine, &o, e);
    return st ? st : engine_start(w->engine, e);
}

static int start_ledger(struct worker *w, struct err *e)
{
    const struct timing_slo slo = {.ttft_ns = (int64_t)w->config.slo_ttft_ms * NS_PER_MS,
                                   .itl_ns = (int64_t)w->config.slo_itl_ms * NS_PER_MS};
    int st = ledger_create(&w->ledger, w->engine, &slo);
    return st ? err_set(e, st, "no memory for the book of requests") : ST_OK;
}

static void wake_main(void *ctx)
{
    struct worker *w = ctx;
    pthread_kill(w->main, SIGUSR1);
}

static int start_http(struct worker *w, struct err *e)
{
    const struct config *c = &w->config;
    const struct model_info *info = model_info(w->loaded.model);
    const struct bundle *b = &w->loaded.bundle;
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
                  .context_length = w->loaded.sizing.context_length,
                  .bos = str_from(b->bos),
                  .eos = str_from(b->eos),
                  .eog = w->eog,
                  .n_eog = w->n_eog,
                  .api = {.vocab_size = info->vocab,
                          .knows = {.developer = b->knows_developer, .tool_calls = b->knows_tool_calls},
                          .priority_max = (uint32_t)c->priority_clamp,
                          .defaults = {.n = 1, .temperature = 1, .top_p = 1, .repetition_penalty = 1}}},
        .model_root = str_from(b->name),
        .api_keys = w->keys.list,
        .n_api_keys = w->keys.n,
        .version = str_from(STATOR_VERSION),
        .max_connections = (uint32_t)c->max_connections,
        .max_body_bytes = c->max_body_bytes,
        .sse_keepalive_ms = (uint32_t)c->sse_keepalive_ms,
        .client_timeout_ms = (uint32_t)c->client_timeout_s * 1000,
        .drain_timeout_ms = (uint32_t)c->drain_timeout_s * 1000,
        .on_failed = wake_main,
        .on_failed_ctx = w,
    };
    return http_create(&w->http, &o, e);
}

static int start_dynamo(struct worker *w, struct err *e)
{
    const struct join_input in = {.config = &w->config,
                                  .http = w->http,
                                  .ledger = w->ledger,
                                  .device = loaded_on_device(&w->loaded) ? "cuda" : "cpu",
                                  .limits = {.context_length = w->loaded.sizing.context_length,
                                             .vocab_size = model_info(w->loaded.model)->vocab,
                                             .priority_max = (uint32_t)w->config.priority_clamp,
                                             .eog = w->eog,
                                             .n_eog = w->n_eog,
                                             .vocab = w->loaded.bundle.vocab},
                                  .card = &w->card,
                                  .started_ns = w->started_ns};
    const struct card_input card = {.config = &w->config,
                                    .model = w->loaded.model,
                                    .bundle = &w->loaded.bundle,
                                    .name = w->names[0].p,
                                    .eog = w->eog,
                                    .n_eog = w->n_eog,
                                    .context_length = w->loaded.sizing.context_length,
                                    .n_blocks = w->loaded.sizing.n_blocks,
                                    .max_num_seqs = w->loaded.max_num_seqs,
                                    .max_num_batched_tokens = w->loaded.max_num_batched_tokens};
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
    loaded_close(&w->loaded);
    keys_fini(&w->keys);
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

struct io {
    struct worker *worker;
    struct err err;
    int status;
};

static void *run_io(void *arg)
{
    struct io *io = arg;
    io->status = http_run(io->worker->http, &io->err);
    atomic_store(&io->worker->io_ended, true);
    wake_main(io->worker);
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
    bool chat = w->loaded.bundle.chat != NULL;
    printf("curl -s %s/v1/%scompletions -H 'Content-Type: application/json' %s\\\n"
           "  -d '{%s, \"temperature\": 0, \"max_tokens\": 40}'\n",
           url, chat ? "chat/" : "", w->keys.n ? "-H \"Authorization: Bearer $KEY\" " : "",
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

/* Waits for signals, for the engine to fail, and for the endpoint to end. Nobody is to find us while we end. */
static void wait_for_end(struct worker *w, const sigset_t *signals)
{
    for (bool draining = false; !atomic_load(&w->io_ended);) {
        int sig = SIGUSR1;
        sigwait(signals, &sig);
        bool asked = sig != SIGUSR1;
        if (asked && draining) {
            log_warn("main", "second signal: ending now");
            _exit(130);
        }
        if (asked)
            log_info("main", "%s: draining, at most %llu s; again to end at once", sig == SIGINT ? "SIGINT" : "SIGTERM",
                     (unsigned long long)w->config.drain_timeout_s);
        if (w->dynamo)
            dyn_worker_withdraw(w->dynamo);
        if (asked)
            http_drain(w->http);
        draining = draining || asked;
    }
}

/* The signals are blocked in every thread and taken here, one at a time. */
static int serve(struct worker *w, const sigset_t *signals, int64_t started_ns, struct err *e)
{
    struct io io = {.worker = w};
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

/* Each client is a descriptor, and each request of a frontend is one more. The soft limit that services start with is for
 * programs that use select. */
static void take_descriptors(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
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
    w->main = pthread_self();
    take_descriptors();
    int st = keys_load(&w->keys, w->config.api_key, w->config.api_key_file, e);
    st = st ? st : check_address(w, e);
    st = st ? st : loaded_open(&w->loaded, &w->config, e);
    st = st ? st : start_engine(w, e);
    st = st ? st : start_ledger(w, e);
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
