/* Requests go straight into the engine and their events are stamped by it, so a figure holds what the engine costs and nothing
 * of a network. Events are kept as they come and looked at afterwards: the loop that takes them must never be what is slow. */
#include "hosted.h"

#include "clock.h"
#include "cu_backend.h"
#include "engine.h"
#include "mem.h"
#include "model.h"

#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_TOKENS = 16, SLOTS = 2 * HOSTED_SEQS };
#define RESERVE ((uint64_t)2560 << 20) /* activations, logits, plans of a step */

static const struct hparams llama8 = {.arch = "llama",
                                      .name = "llama-3.1-8b",
                                      .n_layers = 32,
                                      .d = 4096,
                                      .n_heads = 32,
                                      .n_kv_heads = 8,
                                      .head_dim = 128,
                                      .ffn = 14336,
                                      .vocab = 128256,
                                      .context_max = 131072,
                                      .rot_dim = 128,
                                      .rms_eps = 1e-5,
                                      .rope_theta = 500000,
                                      .scaling = HPARAMS_SCALING_LLAMA3,
                                      .rope_factor = 8,
                                      .rope_low = 1,
                                      .rope_high = 4,
                                      .rope_original = 8192,
                                      .bos = 128000};

/* ---- life -------------------------------------------------------------------------------------------------------- */

static void count_work(struct hosted *h, bool fp8)
{
    const struct hparams *m = &llama8;
    double q = (double)m->n_heads * m->head_dim, kv = (double)m->n_kv_heads * m->head_dim;
    double layer = m->d * (q + 2 * kv) + q * m->d + 3.0 * m->d * m->ffn, head = (double)m->d * m->vocab;
    h->weight_bytes = m->n_layers * layer * (fp8 ? 1 : 2) + head * 2;
    h->kv_token_bytes = m->n_layers * 2.0 * m->n_kv_heads * (m->head_dim * (fp8 ? 1 : 2) + (fp8 ? 1 : 0));
    h->row_flop = 2 * m->n_layers * layer;
    h->attention_flop = 4 * m->n_layers * q;
}

/* As many KV blocks as the largest case wants and the device has room for. */
static int size_kv(struct hosted *h, enum be_type kv, struct err *e)
{
    struct be_kv_shape shape;
    uint64_t room = 0, total = 0, most = 38ull * HOSTED_CONTEXT / BLOCK_TOKENS;
    int rc = h->be->ops->memory(h->be, &room, &total);
    model_kv_shape(h->model, BLOCK_TOKENS, 1, kv, &shape);
    uint64_t block = h->be->ops->kv_block_bytes(h->be, &shape), used = total - room + RESERVE;
    uint64_t n = rc == ST_OK && block > 0 && total * 0.94 > used ? (uint64_t)(total * 0.94 - used) / block : 0;
    h->n_blocks = (uint32_t)(n < most ? n : most);
    return n > HOSTED_SEQS ? ST_OK : err_set(e, ST_ENOMEM, "no room for KV: %.1f GB free", (double)room / 1e9);
}

int hosted_open(struct hosted *h, bool fp8, struct err *e)
{
    *h = (struct hosted){0};
    enum be_type kv = fp8 ? BE_E4M3 : BE_BF16;
    struct be_options bo = {.device = "cuda", .dtype = "bfloat16", .quantization = fp8 ? "fp8" : "none"};
    struct model_load_options lo = {.max_context = HOSTED_CONTEXT, .max_rows = HOSTED_ROWS};
    struct engine_options o = {.max_num_seqs = HOSTED_SEQS,
                               .max_num_batched_tokens = HOSTED_ROWS,
                               .max_queue = SLOTS - HOSTED_SEQS,
                               .block_tokens = BLOCK_TOKENS,
                               .context_length = HOSTED_CONTEXT,
                               .kv_type = kv};
    count_work(h, fp8);
    int rc = cuda_backend_create(&h->be, &bo, e);
    if (rc == ST_OK)
        rc = model_open_hparams(&h->model, &llama8, e);
    int64_t t0 = clock_now_ns();
    if (rc == ST_OK)
        rc = model_load(h->model, h->be, &lo, e);
    h->load_s = (double)(clock_now_ns() - t0) / NS_PER_S;
    if (rc == ST_OK)
        rc = size_kv(h, kv, e);
    o.be = h->be;
    o.model = h->model;
    o.n_blocks = h->n_blocks;
    if (rc == ST_OK)
        rc = engine_create(&h->engine, &o, e);
    if (rc == ST_OK)
        rc = engine_start(h->engine, e);
    if (rc != ST_OK)
        hosted_close(h);
    return rc;
}

void hosted_close(struct hosted *h)
{
    engine_destroy(h->engine);
    model_destroy(h->model);
    be_destroy(h->be);
    *h = (struct hosted){0};
}

/* ---- driving ----------------------------------------------------------------------------------------------------- */

struct token {
    int64_t t_ns;
    float itl_ms; /* since the token before it of the same request; negative: its first */
    uint32_t context;
};

struct drive {
    struct hosted *h;
    const struct hosted_load *l;
    struct token *tokens; /* [HOSTED_TOKENS] */
    float *ttft_ms;       /* [l->total] */
    uint32_t n_tokens, n_ttft, sent, ended, gens[SLOTS];
    int64_t begin_ns, last_ns[SLOTS], end_ns;
    uint32_t contexts[SLOTS];
    bool live[SLOTS], failed, cut;
    uint32_t steady0, steady1; /* tokens of the steady part; steady1 0: it has not ended */
    uint32_t mark;             /* the token at which the load's mark is called; 0: not, or not any more */
};

static int submit(struct drive *d, struct err *e)
{
    static int32_t prompt[HOSTED_CONTEXT];
    static uint32_t seed = 1;
    uint32_t slot, gen;
    for (uint32_t i = 0; i < d->l->n_prompt; i++) {
        seed = seed * 1664525u + 1013904223u;
        prompt[i] = (int32_t)((uint64_t)seed * llama8.vocab >> 32);
    }
    struct engine_request r = {.prompt = prompt,
                               .n_prompt = d->l->n_prompt,
                               .max_tokens = d->l->n_tokens,
                               .top_p = 1,
                               .repetition = 1,
                               .n_logprobs = -1,
                               .arrival_ns = clock_now_ns()};
    int rc = engine_submit(d->h->engine, &r, &slot, &gen, e);
    if (rc != ST_OK)
        return rc;
    d->gens[slot] = gen;
    d->live[slot] = true;
    d->last_ns[slot] = 0;
    d->contexts[slot] = d->l->n_prompt;
    d->sent++;
    return ST_OK;
}

static void on_token(struct drive *d, const struct engine_event *ev)
{
    if (d->n_tokens == HOSTED_TOKENS)
        return;
    struct token *t = &d->tokens[d->n_tokens++];
    int64_t last = d->last_ns[ev->slot];
    *t = (struct token){ev->t_ns, last != 0 ? (float)(ev->t_ns - last) / NS_PER_MS : -1, ++d->contexts[ev->slot]};
    d->last_ns[ev->slot] = ev->t_ns;
    d->end_ns = ev->t_ns;
    if (last != 0)
        return;
    if (++d->n_ttft == d->l->concurrency) {
        d->steady0 = d->n_tokens + d->l->concurrency; /* the last prompt's step is behind us then */
        d->mark = d->l->mark != NULL ? d->steady0 + d->l->concurrency * d->l->mark_steps : 0;
    }
}

static void on_end(struct drive *d, const struct engine_event *ev)
{
    if (d->steady1 == 0)
        d->steady1 = d->n_tokens;
    if (ev->first_token_ns > 0 && d->ended < d->l->total)
        d->ttft_ms[d->ended] = (float)(ev->first_token_ns - ev->arrival_ns) / NS_PER_MS;
    d->failed |= ev->finish == ENGINE_FINISH_ERROR;
    d->ended += ev->finish == ENGINE_FINISH_LENGTH;
    d->live[ev->slot] = false;
    engine_release(d->h->engine, ev->slot, ev->gen);
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

static void cut(struct drive *d)
{
    d->cut = true;
    for (uint32_t s = 0; s < SLOTS; s++)
        if (d->live[s])
            engine_cancel(d->h->engine, s, d->gens[s]);
}

static int run(struct drive *d, struct err *e)
{
    uint32_t open = 0;
    int rc = ST_OK;
    d->begin_ns = clock_now_ns();
    for (; open < d->l->concurrency && rc == ST_OK; open++)
        rc = submit(d, e);
    while (open > 0) { /* also after a failed submission: every request ends */
        struct engine_event ev;
        next_event(d->h->engine, &ev);
        if (ev.type == ENGINE_TOKEN) {
            on_token(d, &ev);
            if (d->mark != 0 && d->n_tokens >= d->mark) {
                d->mark = 0;
                d->l->mark();
            }
        } else {
            on_end(d, &ev);
            open--;
            if (rc == ST_OK && !d->cut && !d->failed && d->sent < d->l->total) {
                rc = submit(d, e);
                open += rc == ST_OK;
            }
        }
        if (!d->cut && (double)(clock_now_ns() - d->begin_ns) > d->l->limit_s * NS_PER_S)
            cut(d);
    }
    return rc == ST_OK && d->failed ? err_set(e, ST_EINTERNAL, "a request failed") : rc;
}

/* ---- what came of it --------------------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void quantiles(float *v, uint32_t n, double *median, double *p99)
{
    *median = *p99 = NAN;
    if (n == 0)
        return;
    qsort(v, n, sizeof *v, ascending);
    *median = v[n / 2];
    *p99 = v[(uint64_t)n * 99 / 100];
}

static void itl(const struct drive *d, uint32_t from, uint32_t to, float *room, double *median, double *p99)
{
    uint32_t n = 0;
    for (uint32_t i = from; i < to; i++)
        if (d->tokens[i].itl_ms >= 0)
            room[n++] = d->tokens[i].itl_ms;
    quantiles(room, n, median, p99);
}

static void summarise(struct drive *d, float *room, struct hosted_outcome *out)
{
    uint32_t from = d->steady0, to = d->steady1 < d->n_tokens ? d->steady1 : d->n_tokens;
    double unused, context = 0;
    *out = (struct hosted_outcome){.ended = d->ended, .cut = d->cut, .tokens = d->n_tokens};
    out->seconds = (double)(d->end_ns - d->begin_ns) / NS_PER_S;
    quantiles(d->ttft_ms, d->ended < d->l->total ? d->ended : d->l->total, &out->ttft_ms, &unused);
    itl(d, 0, d->n_tokens, room, &out->itl_ms, &out->itl_p99_ms);
    if (from == 0 || to <= from + 1)
        return;
    for (uint32_t i = from; i < to; i++)
        context += d->tokens[i].context;
    out->steady_tokens = to - from - 1;
    out->steady_s = (double)(d->tokens[to - 1].t_ns - d->tokens[from].t_ns) / NS_PER_S;
    out->steady_context = context / (to - from);
    itl(d, from, to, room, &out->steady_itl_ms, &out->steady_itl_p99_ms);
}

int hosted_drive(struct hosted *h, const struct hosted_load *l, struct hosted_outcome *out, struct err *e)
{
    struct drive *d = mem_zalloc(1, sizeof *d);
    float *room = mem_alloc(HOSTED_TOKENS * sizeof *room);
    int rc = d != NULL && room != NULL ? ST_OK : ST_ENOMEM;
    if (rc == ST_OK) {
        d->h = h;
        d->l = l;
        d->tokens = mem_alloc(HOSTED_TOKENS * sizeof *d->tokens);
        d->ttft_ms = mem_alloc(l->total * sizeof *d->ttft_ms);
        rc = d->tokens != NULL && d->ttft_ms != NULL ? run(d, e) : ST_ENOMEM;
        if (rc == ST_OK)
            summarise(d, room, out);
        mem_free(d->tokens);
        mem_free(d->ttft_ms);
    }
    mem_free(d);
    mem_free(room);
    return rc == ST_ENOMEM ? err_set(e, rc, "out of memory") : rc;
}
