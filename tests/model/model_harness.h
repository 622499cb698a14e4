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

int harness_open(struct harness *h, const char *path, bool exact, uint32_t threads);
/* All rows' logits, in the order of the spans: [sum of n][vocab], in h->logits. */
int harness_step(struct harness *h, const struct harness_span *spans, uint32_t n_spans);
void harness_close(struct harness *h);

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

int golden_read(struct golden *g, const char *path);
void golden_free(struct golden *g);

/* A whole file on the heap, NUL behind it; NULL when it cannot be read. */
char *file_bytes(const char *path, size_t *n_out);

#endif
