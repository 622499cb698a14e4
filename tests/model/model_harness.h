/* model_harness: runs a model the way the engine does, step by step, for tests.
 *
 * Owns     backend, model, KV pool and logits of one fixture, from harness_open to harness_close.
 * Units    tokens; one KV block is HARNESS_BLOCK tokens.
 * States   open -> step* -> close.
 * Threads  one.
 * Errors   a failed step fails the test.
 * Bounds   HARNESS_SEQS sequences of up to HARNESS_BLOCKS blocks each.
 */
#ifndef STATOR_MODEL_HARNESS_H
#define STATOR_MODEL_HARNESS_H

#include "backend.h"
#include "model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { HARNESS_BLOCK = 16, HARNESS_BLOCKS = 16, HARNESS_SEQS = 4, HARNESS_ROWS = 256 };

struct harness {
    struct be *be;
    struct model *model;
    struct be_kv *kv;
    float *logits; /* [HARNESS_ROWS][vocab] */
    uint32_t tables[HARNESS_SEQS][HARNESS_BLOCKS];
};

/* A run of tokens of one sequence in a step. */
struct harness_span {
    uint32_t seq, pos0, n;
    const int32_t *tokens; /* [n] */
};

/* The goldens of one fixture. */
struct golden {
    uint32_t n_seqs, vocab;
    struct {
        uint32_t n;
        const int32_t *tokens; /* [n] */
        const float *logits;   /* [n][vocab] */
    } seqs[8];
    char *bytes;
};

/* A whole file on the heap, NUL behind it; NULL when it cannot be read. */
static inline char *file_bytes(const char *path, size_t *n_out)
{
    FILE *f = fopen(path, "rb");
    char *p = NULL;
    long n = -1;
    if (f == NULL)
        return NULL;
    if (fseek(f, 0, SEEK_END) == 0 && (n = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0)
        p = malloc((size_t)n + 1);
    if (p != NULL && fread(p, 1, (size_t)n, f) != (size_t)n) {
        free(p);
        p = NULL;
    }
    fclose(f);
    if (p != NULL) {
        p[n] = 0;
        *n_out = (size_t)n;
    }
    return p;
}

static inline int golden_read(struct golden *g, const char *path)
{
    size_t n, at = 8;
    memset(g, 0, sizeof *g);
    g->bytes = file_bytes(path, &n);
    if (g->bytes == NULL || n < 8)
        return ST_EIO;
    memcpy(&g->n_seqs, g->bytes, 4);
    memcpy(&g->vocab, g->bytes + 4, 4);
    assert_true(g->n_seqs <= 8);
    for (uint32_t i = 0; i < g->n_seqs; i++) {
        uint32_t len;
        memcpy(&len, g->bytes + at, 4);
        g->seqs[i].n = len;
        g->seqs[i].tokens = (const int32_t *)(void *)(g->bytes + at + 4);
        g->seqs[i].logits = (const float *)(void *)(g->bytes + at + 4 + len * 4);
        at += 4 + (size_t)len * 4 + (size_t)len * g->vocab * 4;
        assert_true(at <= n);
    }
    return ST_OK;
}

static inline void golden_free(struct golden *g)
{
    free(g->bytes);
}

static inline int harness_open(struct harness *h, const char *path, bool exact, uint32_t threads)
{
    struct err e = {0};
    struct be_options o = {.device = "cpu", .threads = threads, .cpu_isa = "auto", .cpu_exact = exact};
    struct model_load_options load = {.max_context = HARNESS_BLOCK * HARNESS_BLOCKS,
                                      .max_rows = HARNESS_ROWS};
    struct be_kv_shape shape;
    memset(h, 0, sizeof *h);
    if (be_create(&h->be, &o, &e) != ST_OK || model_open(&h->model, path, &e) != ST_OK ||
        model_load(h->model, h->be, &load, &e) != ST_OK) {
        print_message("%s: %s\n", path, e.text);
        return e.status;
    }
    model_kv_shape(h->model, HARNESS_BLOCK, HARNESS_SEQS * HARNESS_BLOCKS, BE_F32, &shape);
    if (h->be->ops->kv_create(h->be, &shape, &h->kv, &e) != ST_OK) {
        print_message("kv_create: %s\n", e.text);
        return e.status;
    }
    h->logits = h->be->ops->buffer_create(h->be, sizeof(float) * HARNESS_ROWS * model_info(h->model)->vocab);
    /* Blocks of the sequences interleave, so that a table that is ignored is noticed. */
    for (uint32_t s = 0; s < HARNESS_SEQS; s++)
        for (uint32_t b = 0; b < HARNESS_BLOCKS; b++)
            h->tables[s][b] = (HARNESS_BLOCKS - 1 - b) * HARNESS_SEQS + s;
    return h->logits != NULL ? ST_OK : ST_ENOMEM;
}

/* All rows' logits, in the order of the spans: [sum of n][vocab], in h->logits. */
static inline int harness_step(struct harness *h, const struct harness_span *spans, uint32_t n_spans)
{
    int32_t tokens[HARNESS_ROWS];
    uint32_t positions[HARNESS_ROWS], slots[HARNESS_ROWS], rows[HARNESS_ROWS], n = 0;
    struct be_span out[HARNESS_ROWS];
    for (uint32_t i = 0; i < n_spans; i++) {
        const struct harness_span *s = &spans[i];
        const uint32_t *table = h->tables[s->seq];
        uint32_t blocks = (s->pos0 + s->n + HARNESS_BLOCK - 1) / HARNESS_BLOCK;
        assert_true(n + s->n <= HARNESS_ROWS && blocks <= HARNESS_BLOCKS);
        out[i] = (struct be_span){n, s->n, s->pos0, blocks, table};
        for (uint32_t j = 0; j < s->n; j++, n++) {
            uint32_t pos = s->pos0 + j;
            tokens[n] = s->tokens[j];
            positions[n] = pos;
            slots[n] = table[pos / HARNESS_BLOCK] * HARNESS_BLOCK + pos % HARNESS_BLOCK;
            rows[n] = n;
        }
    }
    struct be_batch b = {n, n_spans, n, tokens, positions, slots, out, rows};
    struct err e = {0};
    int rc = h->be->ops->begin_step(h->be, &b);
    if (rc == ST_OK)
        rc = model_forward(h->model, &b, h->kv, h->logits);
    if (rc == ST_OK)
        rc = h->be->ops->end_step(h->be, &e);
    if (rc == ST_OK)
        rc = h->be->ops->wait_step(h->be, &e);
    return rc;
}

static inline void harness_close(struct harness *h)
{
    if (h->logits != NULL)
        h->be->ops->buffer_destroy(h->be, h->logits);
    if (h->kv != NULL)
        h->be->ops->kv_destroy(h->be, h->kv);
    model_destroy(h->model);
    be_destroy(h->be);
}

#endif
