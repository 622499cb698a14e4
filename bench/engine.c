/* Throughput of the engine in one process, without HTTP and text: prefill, single-stream decode, N-way decode, and what the
 * engine itself costs per step beside the device.
 *
 *   bench_engine MODEL [--threads N] [--isa NAME] [--ways N] [--prompt N] [--tokens N] [--rows N]
 *
 * Prompts are random token ids, each request its own, so no prefix is shared. Each figure is the best of three rounds;
 * decode is timed from the moment when every stream has its first token until the first stream ends. */
#define _GNU_SOURCE
#include "clock.h"
#include "engine.h"
#include "model.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WAYS_MAX = 256, ROUNDS = 3 };

struct settings {
    const char *path, *isa;
    uint32_t threads, ways, prompt, tokens, rows;
};

struct figures {
    double prefill, decode;            /* tokens per second */
    double engine_us, device_us, rows; /* per step */
};

static uint64_t rng = 1;

static int32_t random_token(uint32_t vocab)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (int32_t)((rng >> 33) % vocab);
}

static int submit(struct engine *g, uint32_t vocab, uint32_t n_prompt, uint32_t n_tokens, struct err *e)
{
    static int32_t prompt[65536];
    uint32_t slot, gen;
    for (uint32_t i = 0; i < n_prompt; i++)
        prompt[i] = random_token(vocab);
    struct engine_request r = {.prompt = prompt,
                               .n_prompt = n_prompt,
                               .max_tokens = n_tokens,
                               .top_p = 1,
                               .repetition = 1,
                               .n_logprobs = -1,
                               .arrival_ns = clock_now_ns()};
    return engine_submit(g, &r, &slot, &gen, e);
}

static void next_event(struct engine *g, struct engine_event *ev)
{
    while (!engine_pop_event(g, ev)) {
        if (!engine_event_sleep(g))
            continue;
        struct pollfd p = {.fd = engine_event_fd(g), .events = POLLIN};
        poll(&p, 1, -1);
        engine_event_drain_fd(g);
    }
}

/* `ways` requests at once; false when one of them fails. */
static bool run_round(struct engine *g, uint32_t vocab, uint32_t ways, uint32_t n_prompt, uint32_t n_tokens,
                      struct figures *out)
{
    struct engine_stats before = {0}, after;
    struct err e = {0};
    uint32_t first = 0, ended = 0, counted = 0;
    int64_t t_sched = 0, t_all = 0, t_end = 0;
    bool seen[WAYS_MAX * 2] = {false}, ok = true;
    for (uint32_t i = 0; i < ways; i++)
        if (submit(g, vocab, n_prompt, n_tokens, &e) != ST_OK) {
            fprintf(stderr, "%s\n", e.text);
            return false;
        }
    while (ended < ways) {
        struct engine_event ev;
        next_event(g, &ev);
        if (ev.type == ENGINE_END) {
            if (!t_end)
                t_end = ev.t_ns;
            if (!t_sched || ev.scheduled_ns < t_sched)
                t_sched = ev.scheduled_ns;
            ok &= ev.finish == ENGINE_FINISH_LENGTH;
            ended++;
            engine_release(g, ev.slot, ev.gen);
        } else if (first < ways) {
            first += !seen[ev.slot];
            seen[ev.slot] = true;
            if (first == ways)
                t_all = ev.t_ns;
        } else if (!t_end && ev.t_ns > t_all) {
            if (counted++ == ways) /* the last prompt's step is surely in the numbers by now */
                engine_stats(g, &before);
        }
    }
    engine_stats(g, &after);
    out->prefill = (double)n_prompt * ways * 1e9 / (double)(t_all - t_sched);
    out->decode = counted ? (double)counted * 1e9 / (double)(t_end - t_all) : 0;
    double steps = (double)(after.steps - before.steps);
    if (steps > 0) {
        out->device_us = (double)(after.device_ns - before.device_ns) / steps / 1e3;
        out->engine_us = (double)(after.step_ns - before.step_ns) / steps / 1e3 - out->device_us;
        out->rows = (double)(after.step_rows - before.step_rows) / steps;
    }
    return ok;
}

static bool best_round(struct engine *g, uint32_t vocab, uint32_t ways, uint32_t n_prompt, uint32_t n_tokens,
                       struct figures *out)
{
    *out = (struct figures){0};
    for (int i = 0; i < ROUNDS; i++) {
        struct figures f = {0};
        if (!run_round(g, vocab, ways, n_prompt, n_tokens, &f))
            return false;
        if (f.prefill > out->prefill)
            out->prefill = f.prefill;
        if (f.decode > out->decode || (f.decode == 0 && n_tokens == 1)) {
            double prefill = out->prefill;
            *out = f;
            out->prefill = prefill;
        }
    }
    return true;
}

static int measure(struct engine *g, const struct settings *s, uint32_t vocab)
{
    struct figures f;
    if (!best_round(g, vocab, 1, s->prompt, 1, &f))
        return 1;
    printf("prefill            %9.1f tok/s  (%u tokens)\n", f.prefill, s->prompt);
    if (!best_round(g, vocab, 1, 16, s->tokens, &f))
        return 1;
    printf("decode, 1 stream   %9.1f tok/s  (engine %.1f us, device %.1f us a step)\n", f.decode, f.engine_us,
           f.device_us);
    if (!best_round(g, vocab, s->ways, 16, s->tokens, &f))
        return 1;
    printf("decode, %2u streams %9.1f tok/s  (engine %.1f us, device %.1f us a step of %.1f rows)\n", s->ways,
           f.decode, f.engine_us, f.device_us, f.rows);
    return 0;
}

static int run(const struct settings *s, struct err *e)
{
    struct be *be = NULL;
    struct model *m = NULL;
    struct engine *g = NULL;
    struct be_options bo = {.device = "cpu", .threads = s->threads, .cpu_isa = s->isa};
    uint32_t context = (s->prompt > 16 ? s->prompt : 16) + s->tokens;
    struct model_load_options lo = {.max_context = context, .max_rows = s->rows};
    struct engine_options o = {.max_num_seqs = s->ways,
                               .max_num_batched_tokens = s->rows,
                               .max_queue = s->ways,
                               .block_tokens = 16,
                               .n_blocks = (context / 16 + 1) * s->ways,
                               .context_length = context,
                               .kv_type = BE_F16,
                               .prefix_caching = true};
    int rc = be_create(&be, &bo, e);
    if (rc == ST_OK)
        rc = model_open(&m, s->path, e);
    if (rc == ST_OK)
        rc = model_load(m, be, &lo, e);
    o.be = be;
    o.model = m;
    if (rc == ST_OK)
        rc = engine_create(&g, &o, e);
    if (rc == ST_OK)
        rc = engine_start(g, e);
    if (rc == ST_OK) {
        printf("%s, %s, %s\n", model_info(m)->file, model_info(m)->quant, be_describe(be));
        rc = measure(g, s, model_info(m)->vocab) ? err_set(e, ST_EINTERNAL, "a request failed") : ST_OK;
    }
    engine_destroy(g);
    model_destroy(m);
    be_destroy(be);
    return rc;
}

static bool number(const char *text, uint32_t min, uint32_t max, uint32_t *out)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);
    *out = (uint32_t)v;
    return *text && !*end && v >= min && v <= max;
}

int main(int argc, char **argv)
{
    struct settings s = {.isa = "auto", .ways = 16, .prompt = 512, .tokens = 128, .rows = 512};
    bool ok = true;
    for (int i = 1; i < argc && ok; i++) {
        if (argv[i][0] != '-') {
            s.path = argv[i];
            continue;
        }
        const char *v = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(argv[i], "--threads"))
            ok = number(v, 0, 1024, &s.threads);
        else if (!strcmp(argv[i], "--ways"))
            ok = number(v, 1, WAYS_MAX, &s.ways);
        else if (!strcmp(argv[i], "--prompt"))
            ok = number(v, 1, 65536, &s.prompt);
        else if (!strcmp(argv[i], "--tokens"))
            ok = number(v, 2, 65536, &s.tokens);
        else if (!strcmp(argv[i], "--rows"))
            ok = number(v, WAYS_MAX, 65536, &s.rows);
        else if (!strcmp(argv[i], "--isa"))
            s.isa = v;
        else
            ok = false;
        i++;
    }
    if (!ok || !s.path) {
        fprintf(stderr,
                "usage: %s MODEL [--threads N] [--isa NAME] [--ways N] [--prompt N] [--tokens N] "
                "[--rows N]\n",
                argv[0]);
        return 2;
    }
    struct err e = {0};
    if (run(&s, &e) != ST_OK) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    return 0;
}
