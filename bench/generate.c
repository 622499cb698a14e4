/* generate: the forward alone, without engine, text and HTTP: greedy tokens and milliseconds per token.
 * bench_generate MODEL [--threads N] [--isa ISA] [--exact] [--gen N] [--batch B] [--chunk N] [--prompt N]
 * [id ...]  Token ids come as arguments, or --prompt N makes N arbitrary ones. B copies of the sequence
 * run side by side. The first copy's tokens are printed; all copies must agree, or the program says so and
 * fails. */
#include "backend.h"
#include "clock.h"
#include "mem.h"
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 16, BATCH_MAX = 64, PROMPT_MAX = 8192 };

struct options {
    const char *path;
    struct be_options be;
    uint32_t gen, batch, chunk, n;
    int32_t prompt[PROMPT_MAX];
};

struct run {
    struct be *be;
    struct model *model;
    struct be_kv *kv;
    float *logits;
    uint32_t context, blocks, rows;
    uint32_t *tables; /* [batch][blocks] */
    int32_t *tokens;  /* [rows] and so on: the step's arrays */
    uint32_t *positions, *slots, *logit_rows;
    struct be_span *spans;
};

static int parse(struct options *o, int argc, char **argv)
{
    *o = (struct options){.be = {.device = "cpu", .cpu_isa = "auto"}, .gen = 64, .batch = 1, .chunk = 512};
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        uint32_t v = i + 1 < argc ? (uint32_t)strtoul(argv[i + 1], NULL, 10) : 0;
        if (strcmp(a, "--exact") == 0) {
            o->be.cpu_exact = true;
        } else if (a[0] != '-' && o->path == NULL) {
            o->path = a;
        } else if (a[0] != '-' && o->n < PROMPT_MAX) {
            o->prompt[o->n++] = (int32_t)strtol(a, NULL, 10);
        } else if (i + 1 == argc) {
            return -1;
        } else if (strcmp(a, "--isa") == 0) {
            o->be.cpu_isa = argv[++i];
        } else if (strcmp(a, "--threads") == 0) {
            o->be.threads = v, i++;
        } else if (strcmp(a, "--gen") == 0) {
            o->gen = v, i++;
        } else if (strcmp(a, "--batch") == 0 && v >= 1 && v <= BATCH_MAX) {
            o->batch = v, i++;
        } else if (strcmp(a, "--chunk") == 0 && v >= 1) {
            o->chunk = v, i++;
        } else if (strcmp(a, "--prompt") == 0 && v <= PROMPT_MAX) {
            for (i++; o->n < v; o->n++)
                o->prompt[o->n] = (int32_t)(o->n * 7919 % 1000);
        } else {
            return -1;
        }
    }
    return o->path != NULL && o->n > 0 && o->gen > 0 ? 0 : -1;
}

static int create(struct run *r, const struct options *o, struct err *e)
{
    r->context = o->n + o->gen;
    r->blocks = (r->context + BLOCK - 1) / BLOCK;
    r->rows = o->chunk > o->batch ? o->chunk : o->batch;
    struct model_load_options load = {.max_context = r->context, .max_rows = r->rows};
    struct be_kv_shape shape;
    int64_t t0 = clock_now_ns();
    int rc = be_create(&r->be, &o->be, e);
    if (rc == ST_OK)
        rc = model_open(&r->model, o->path, e);
    int64_t t1 = clock_now_ns();
    if (rc == ST_OK)
        rc = model_load(r->model, r->be, &load, e);
    if (rc != ST_OK)
        return rc;
    const struct model_info *i = model_info(r->model);
    fprintf(stderr, "%s: %s, %s, %.1f M parameters, %.1f MB packed; open %.1f ms, load %.1f ms; %s\n",
            i->file, i->arch, i->quant, (double)i->n_params / 1e6, (double)model_weight_bytes(r->model) / 1e6,
            (double)(t1 - t0) / 1e6, (double)(clock_now_ns() - t1) / 1e6, be_describe(r->be));
    model_kv_shape(r->model, BLOCK, r->blocks * o->batch, BE_F16, &shape);
    rc = r->be->ops->kv_create(r->be, &shape, &r->kv, e);
    r->logits = r->be->ops->buffer_create(r->be, sizeof(float) * o->batch * i->vocab);
    r->tables = mem_zalloc((size_t)r->blocks * o->batch, sizeof *r->tables);
    r->tokens = mem_zalloc(r->rows, sizeof *r->tokens);
    r->positions = mem_zalloc(r->rows, sizeof *r->positions);
    r->slots = mem_zalloc(r->rows, sizeof *r->slots);
    r->logit_rows = mem_zalloc(r->rows, sizeof *r->logit_rows);
    r->spans = mem_zalloc(r->rows, sizeof *r->spans);
    if (rc == ST_OK && (r->logits == NULL || r->tables == NULL || r->tokens == NULL || r->positions == NULL ||
                        r->slots == NULL || r->logit_rows == NULL || r->spans == NULL))
        rc = err_set(e, ST_ENOMEM, "out of memory");
    for (uint32_t b = 0; rc == ST_OK && b < r->blocks * o->batch; b++)
        r->tables[b] = b;
    return rc;
}

/* Puts n tokens of sequence `seq` at pos0 behind what the batch holds; the last of them wants logits if
 * `wanted`. */
static void add(struct run *r, struct be_batch *b, uint32_t seq, uint32_t pos0, uint32_t n,
                const int32_t *tokens, bool wanted)
{
    const uint32_t *table = r->tables + (size_t)seq * r->blocks;
    r->spans[b->n_spans++] = (struct be_span){b->n_rows, n, pos0, (pos0 + n + BLOCK - 1) / BLOCK, table};
    for (uint32_t i = 0; i < n; i++, b->n_rows++) {
        r->tokens[b->n_rows] = tokens[i];
        r->positions[b->n_rows] = pos0 + i;
        r->slots[b->n_rows] = table[(pos0 + i) / BLOCK] * BLOCK + (pos0 + i) % BLOCK;
    }
    if (wanted)
        r->logit_rows[b->n_logits++] = b->n_rows - 1;
}

/* One step; greedy tokens of the logit rows to out[n_logits]. */
static int step(struct run *r, const struct be_batch *b, int32_t *out, struct err *e)
{
    const struct be_ops *ops = r->be->ops;
    struct be_sample_row rows[BATCH_MAX];
    struct be_sample_out samples[BATCH_MAX];
    for (uint32_t i = 0; i < b->n_logits; i++)
        rows[i] = (struct be_sample_row){.logits_row = i, .top_p = 1, .repetition = 1, .n_logprobs = -1};
    struct op_sample sample = {b->n_logits, model_info(r->model)->vocab, r->logits, rows, samples};
    int rc = ops->begin_step(r->be, b);
    if (rc == ST_OK)
        rc = model_forward(r->model, b, r->kv, r->logits);
    if (rc == ST_OK && b->n_logits > 0)
        rc = ops->sample(r->be, &sample);
    if (rc == ST_OK)
        rc = ops->end_step(r->be, e);
    if (rc == ST_OK)
        rc = ops->wait_step(r->be, e);
    for (uint32_t i = 0; i < b->n_logits && rc == ST_OK; i++)
        out[i] = samples[i].token;
    return rc;
}

static struct be_batch empty(const struct run *r)
{
    return (struct be_batch){.tokens = r->tokens,
                             .positions = r->positions,
                             .kv_slots = r->slots,
                             .spans = r->spans,
                             .logit_rows = r->logit_rows};
}

static int generate(struct run *r, const struct options *o, struct err *e)
{
    int32_t last[BATCH_MAX];
    int64_t t0 = clock_now_ns();
    int rc = ST_OK;
    for (uint32_t s = 0; s < o->batch; s++) {
        for (uint32_t at = 0, n; at < o->n && rc == ST_OK; at += n) {
            struct be_batch b = empty(r);
            n = o->n - at < o->chunk ? o->n - at : o->chunk;
            add(r, &b, s, at, n, o->prompt + at, at + n == o->n);
            rc = step(r, &b, &last[s], e);
        }
    }
    double prefill = (double)(clock_now_ns() - t0) / 1e6;
    t0 = clock_now_ns();
    for (uint32_t g = 0; g < o->gen && rc == ST_OK; g++) {
        printf("%d%s", last[0], g + 1 == o->gen ? "\n" : " ");
        for (uint32_t s = 1; s < o->batch; s++)
            if (last[s] != last[0])
                return err_set(e, ST_EINTERNAL, "copy %u drew %d, the first %d, at token %u", s, last[s],
                               last[0], g);
        struct be_batch b = empty(r);
        for (uint32_t s = 0; s < o->batch; s++)
            add(r, &b, s, o->n + g, 1, &last[s], true);
        if (g + 1 < o->gen)
            rc = step(r, &b, last, e);
    }
    double decode = (double)(clock_now_ns() - t0) / 1e6, steps = o->gen > 1 ? o->gen - 1 : 1;
    uint32_t n = o->n * o->batch;
    fprintf(
        stderr,
        "prefill %u tokens: %.1f ms, %.1f tokens/s; decode %u x %.0f steps: %.3f ms a step, %.1f tokens/s\n",
        n, prefill, n / prefill * 1e3, o->batch, steps, decode / steps, o->batch * steps / decode * 1e3);
    return rc;
}

int main(int argc, char **argv)
{
    static struct options o;
    struct run r = {0};
    struct err e = {0};
    if (parse(&o, argc, argv) != 0) {
        fprintf(stderr,
                "usage: %s MODEL [--threads N] [--isa ISA] [--exact] [--gen N] [--batch B] [--chunk N]"
                " [--prompt N] [id ...]\n",
                argv[0]);
        return 2;
    }
    int rc = create(&r, &o, &e);
    if (rc == ST_OK)
        rc = generate(&r, &o, &e);
    if (rc != ST_OK)
        fprintf(stderr, "%s: %s\n", status_name(rc), e.text);
    void *arrays[] = {r.tables, r.tokens, r.positions, r.slots, r.logit_rows, r.spans};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        mem_free(arrays[i]);
    if (r.logits != NULL)
        r.be->ops->buffer_destroy(r.be, r.logits);
    if (r.kv != NULL)
        r.be->ops->kv_destroy(r.be, r.kv);
    model_destroy(r.model);
    be_destroy(r.be);
    return rc == ST_OK ? 0 : 1;
}
