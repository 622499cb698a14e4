/* The forward against what transformers computed (tests/golden/model/make_tiny_llama.py), and against
 * itself: however a sequence is cut into steps and whatever else is in them, each row's logits keep their
 * bits. */
#define _GNU_SOURCE
#include "model_harness.h"
#include "mem.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define FOLDER STATOR_SOURCE_DIR "/tests/golden/model/"

/* Largest error of a row: |got - want| / |want| by norm, and the worst logit against the largest. `exact`
 * is the f32 reference arithmetic, whose own rounding is all that remains. The default arithmetic takes
 * F32 and F16 files the same way, rounds activations to bf16 beside BF16 weights and to 8-bit groups
 * beside quantised ones; models as small as these average little of that noise away. */
static const struct fixture {
    const char *name, *path;
    double exact, fast;
} fixtures[] = {
    {"tied", "tied", 2e-5, 2e-5},
    {"bias_headdim", "bias_headdim", 2e-5, 2e-5},
    {"llama3_rope", "llama3_rope", 2e-5, 2e-5},
    {"linear_rope", "linear_rope", 2e-5, 2e-5},
    {"mistral_window", "mistral_window", 2e-5, 2e-5},
    {"bf16_shards", "bf16_shards", 2e-5, 2e-2},
    {"gguf_f32", "gguf_f32/model.gguf", 2e-5, 2e-5},
    {"gguf_partial", "gguf_partial/model.gguf", 2e-5, 2e-5},
    {"gguf_f16", "gguf_f16/model.gguf", 2e-5, 2e-5},
    {"gguf_bf16", "gguf_bf16/model.gguf", 2e-5, 2e-2},
    {"gguf_q8_0", "gguf_q8_0/model.gguf", 2e-5, 6e-2},
    {"gguf_q4_0", "gguf_q4_0/model.gguf", 2e-5, 6e-2},
    {"gguf_q4_1", "gguf_q4_1/model.gguf", 2e-5, 6e-2},
    {"gguf_q4_k_m", "gguf_q4_k_m/model.gguf", 2e-5, 6e-2},
};

enum { FIXTURES = sizeof fixtures / sizeof *fixtures };

static void open_fixture(struct harness *h, struct golden *g, const struct fixture *f, bool exact,
                         uint32_t threads)
{
    char path[512];
    snprintf(path, sizeof path, FOLDER "%s", f->path);
    assert_int_equal(harness_open(h, path, exact, threads), ST_OK);
    snprintf(path, sizeof path, FOLDER "%s/golden.bin", f->name);
    assert_int_equal(golden_read(g, path), ST_OK);
    assert_int_equal(g->vocab, model_info(h->model)->vocab);
}

/* Largest errors over all rows of all sequences: of the norm, and of one logit against the row's largest. */
static void worst_errors(struct harness *h, const struct golden *g, double *norm, double *max)
{
    *norm = *max = 0;
    for (uint32_t s = 0; s < g->n_seqs; s++) {
        struct harness_span span = {s % HARNESS_SEQS, 0, g->seqs[s].n, g->seqs[s].tokens};
        assert_int_equal(harness_step(h, &span, 1), ST_OK);
        for (uint32_t r = 0; r < g->seqs[s].n; r++) {
            const float *got = h->logits + (size_t)r * g->vocab,
                        *want = g->seqs[s].logits + (size_t)r * g->vocab;
            double diff = 0, size = 0, worst = 0, largest = 0;
            for (uint32_t i = 0; i < g->vocab; i++) {
                double d = (double)got[i] - want[i];
                diff += d * d;
                size += (double)want[i] * want[i];
                worst = fmax(worst, fabs(d));
                largest = fmax(largest, fabs(want[i]));
            }
            assert_true(isfinite(diff));
            *norm = fmax(*norm, sqrt(diff / size));
            *max = fmax(*max, worst / largest);
        }
    }
}

static void check_golden(bool exact)
{
    for (int i = 0; i < FIXTURES; i++) {
        struct harness h;
        struct golden g;
        double norm, max, limit = exact ? fixtures[i].exact : fixtures[i].fast;
        open_fixture(&h, &g, &fixtures[i], exact, 1);
        worst_errors(&h, &g, &norm, &max);
        print_message("%-16s %-5s norm %.2e  max %.2e  limit %.0e  (%s)\n", fixtures[i].name,
                      exact ? "exact" : "fast", norm, max, limit, model_info(h.model)->quant);
        assert_true(norm <= limit && max <= limit);
        golden_free(&g);
        harness_close(&h);
    }
    assert_int_equal(mem_live(), 0);
}

static void logits_equal_transformers_in_exact_mode(void **state)
{
    (void)state;
    check_golden(true);
}

static void logits_are_near_transformers_in_default_mode(void **state)
{
    (void)state;
    check_golden(false);
}

static void same_bits(const float *a, const float *b, size_t n, const char *what)
{
    if (memcmp(a, b, n * sizeof *a) != 0)
        fail_msg("%s: logits differ", what);
}

static uint32_t random_below(uint64_t *state, uint32_t n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) % n;
}

/* Feeds the sequence in cuts of its own and three copies at random offsets of time beside it; each row as
 * in one piece. */
static void check_invariance(const struct fixture *f, bool exact, uint64_t seed)
{
    struct harness h;
    struct golden g;
    open_fixture(&h, &g, f, exact, 2);
    uint32_t last = g.n_seqs - 1, n = g.seqs[last].n, fed[HARNESS_SEQS] = {0};
    size_t row = g.vocab;
    float *whole = malloc(n * row * sizeof *whole);
    struct harness_span all = {0, 0, n, g.seqs[last].tokens};
    assert_int_equal(harness_step(&h, &all, 1), ST_OK);
    memcpy(whole, h.logits, n * row * sizeof *whole);
    for (uint32_t i = 0; i < n; i++) { /* token by token */
        struct harness_span one = {1, i, 1, g.seqs[last].tokens + i};
        assert_int_equal(harness_step(&h, &one, 1), ST_OK);
        same_bits(h.logits, whole + i * row, row, "token by token");
    }
    for (;;) { /* mixed batches */
        struct harness_span spans[HARNESS_SEQS];
        uint32_t n_spans = 0;
        for (uint32_t s = 0; s < HARNESS_SEQS; s++) {
            uint32_t left = n - fed[s], take = left > 0 ? random_below(&seed, left < 9 ? left + 1 : 9) : 0;
            if (take > 0)
                spans[n_spans++] = (struct harness_span){s, fed[s], take, g.seqs[last].tokens + fed[s]};
        }
        if (n_spans > 0)
            assert_int_equal(harness_step(&h, spans, n_spans), ST_OK);
        const float *at = h.logits;
        for (uint32_t i = 0; i < n_spans; i++) {
            same_bits(at, whole + spans[i].pos0 * row, spans[i].n * row, "mixed batch");
            at += spans[i].n * row;
            fed[spans[i].seq] += spans[i].n;
        }
        if (fed[0] == n && fed[1] == n && fed[2] == n && fed[3] == n)
            break;
    }
    free(whole);
    golden_free(&g);
    harness_close(&h);
}

static void a_row_never_depends_on_chunks_or_company(void **state)
{
    (void)state;
    const uint64_t seed = 20261122;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int i = 0; i < FIXTURES; i++) {
        check_invariance(&fixtures[i], false, seed + (uint64_t)i);
        check_invariance(&fixtures[i], true, seed + (uint64_t)i);
    }
}

static void only_wanted_rows_are_computed_and_equal(void **state)
{
    (void)state;
    struct harness h;
    struct golden g;
    open_fixture(&h, &g, &fixtures[0], false, 1);
    uint32_t n = g.seqs[1].n, last = n - 1;
    int32_t tokens[HARNESS_ROWS];
    uint32_t positions[HARNESS_ROWS], slots[HARNESS_ROWS];
    struct harness_span all = {0, 0, n, g.seqs[1].tokens};
    assert_int_equal(harness_step(&h, &all, 1), ST_OK);
    float *want = malloc(g.vocab * sizeof *want);
    memcpy(want, h.logits + (size_t)last * g.vocab, g.vocab * sizeof *want);
    for (uint32_t i = 0; i < n; i++) {
        tokens[i] = g.seqs[1].tokens[i];
        positions[i] = i;
        slots[i] = h.tables[2][i / HARNESS_BLOCK] * HARNESS_BLOCK + i % HARNESS_BLOCK;
    }
    struct be_span span = {0, n, 0, (n + HARNESS_BLOCK - 1) / HARNESS_BLOCK, h.tables[2]};
    struct be_batch b = {n, 1, 1, tokens, positions, slots, &span, &last};
    struct err e;
    assert_int_equal(h.be->ops->begin_step(h.be, &b), ST_OK);
    assert_int_equal(model_forward(h.model, &b, h.kv, h.logits), ST_OK);
    assert_int_equal(h.be->ops->end_step(h.be, &e), ST_OK);
    same_bits(h.logits, want, g.vocab, "last row alone");
    b.n_logits = 0; /* a chunk of a prefill in the middle wants none */
    assert_int_equal(h.be->ops->begin_step(h.be, &b), ST_OK);
    assert_int_equal(model_forward(h.model, &b, h.kv, NULL), ST_OK);
    assert_int_equal(h.be->ops->end_step(h.be, &e), ST_OK);
    free(want);
    golden_free(&g);
    harness_close(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_equal_transformers_in_exact_mode),
        cmocka_unit_test(logits_are_near_transformers_in_default_mode),
        cmocka_unit_test(a_row_never_depends_on_chunks_or_company),
        cmocka_unit_test(only_wanted_rows_are_computed_and_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
