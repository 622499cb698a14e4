/* Tiny models of every file kind through worker/model's forward on the CUDA backend, against the logits of transformers
 * (tests/golden/model/make_tiny_llama.py). */
#include "model_harness.h"

#include "cu_backend.h"
#include "mem.h"
#include "simt_c.h"

#include <math.h>

#define FOLDER STATOR_SOURCE_DIR "/tests/golden/model/"

/* bf16 rounds weights, activations and KV to 8 bits, f16 to 11, and models as small as these average little of that away; what
 * quantised files lost before is in the goldens of the dequantised weights. */
static const struct fixture {
    const char *name, *path;
    double factor; /* of the limit: where attention is sharp, rounding shows more */
} fixtures[] = {
    {"tied", "tied", 1},
    {"bias_headdim", "bias_headdim", 1},
    {"llama3_rope", "llama3_rope", 3},
    {"linear_rope", "linear_rope", 1},
    {"mistral_window", "mistral_window", 1},
    {"bf16_shards", "bf16_shards", 1},
    {"gguf_f32", "gguf_f32/model.gguf", 1},
    {"gguf_partial", "gguf_partial/model.gguf", 1},
    {"gguf_f16", "gguf_f16/model.gguf", 1},
    {"gguf_bf16", "gguf_bf16/model.gguf", 1},
    {"gguf_q8_0", "gguf_q8_0/model.gguf", 1},
    {"gguf_q4_0", "gguf_q4_0/model.gguf", 1},
    {"gguf_q4_1", "gguf_q4_1/model.gguf", 1},
    {"gguf_q4_k_m", "gguf_q4_k_m/model.gguf", 1},
};

static void open_cuda(struct harness *h, const char *path, const char *dtype)
{
    struct err e = {0};
    struct be_options o = {.device = "cuda", .dtype = dtype};
    struct model_load_options load = {.max_context = HARNESS_BLOCK * HARNESS_BLOCKS,
                                      .max_rows = HARNESS_ROWS};
    struct be_kv_shape shape;
    memset(h, 0, sizeof *h);
    if (cuda_backend_create(&h->be, &o, &e) || model_open(&h->model, path, &e) ||
        model_load(h->model, h->be, &load, &e))
        fail_msg("%s: %s", path, e.text);
    enum be_type kv = strcmp(dtype, "float16") == 0 ? BE_F16 : BE_BF16;
    uint32_t vocab = model_info(h->model)->vocab;
    model_kv_shape(h->model, HARNESS_BLOCK, HARNESS_SEQS * HARNESS_BLOCKS, kv, &shape);
    struct be_step_limits l = {
        HARNESS_ROWS, HARNESS_SEQS, HARNESS_ROWS, load.max_context, HARNESS_SEQS * HARNESS_BLOCKS, vocab};
    if (h->be->ops->kv_create(h->be, &shape, &h->kv, &e) || h->be->ops->step_limits(h->be, &l, &e))
        fail_msg("%s: %s", path, e.text);
    h->logits = h->be->ops->buffer_create(h->be, sizeof(float) * HARNESS_ROWS * vocab);
    assert_non_null(h->logits);
    for (uint32_t s = 0; s < HARNESS_SEQS; s++)
        for (uint32_t i = 0; i < HARNESS_BLOCKS; i++)
            h->tables[s][i] = (HARNESS_BLOCKS - 1 - i) * HARNESS_SEQS + s;
}

/* The first half of each sequence in one step, then chunks of 1, 2, 3, ...: prompts, mixed steps and decode. */
static double worst_error(struct harness *h, const struct golden *g)
{
    double worst = 0;
    float *got = malloc(sizeof *got * HARNESS_ROWS * g->vocab);
    for (uint32_t s = 0; s < g->n_seqs; s++) {
        uint32_t n = g->seqs[s].n;
        for (uint32_t at = 0, take = n / 2, cut = 1; at < n;
             at += take, take = n - at < cut ? n - at : cut, cut++) {
            if (take == 0)
                take = 1;
            struct harness_span span = {s % HARNESS_SEQS, at, take, g->seqs[s].tokens + at};
            assert_int_equal(harness_step(h, &span, 1), ST_OK);
            assert_int_equal(h->be->ops->download(h->be, got, h->logits, sizeof *got * take * g->vocab),
                             ST_OK);
            for (uint32_t r = 0; r < take; r++) {
                const float *want = g->seqs[s].logits + (size_t)(at + r) * g->vocab;
                double diff = 0, size = 0;
                for (uint32_t i = 0; i < g->vocab; i++) {
                    double d = (double)got[(size_t)r * g->vocab + i] - want[i];
                    diff += d * d;
                    size += (double)want[i] * want[i];
                }
                worst = fmax(worst, isfinite(diff) ? sqrt(diff / size) : INFINITY);
            }
        }
    }
    free(got);
    return worst;
}

static void check(const char *dtype, double limit)
{
    for (size_t i = 0; i < sizeof fixtures / sizeof *fixtures; i++) {
        struct harness h;
        struct golden g;
        char path[512];
        snprintf(path, sizeof path, FOLDER "%s", fixtures[i].path);
        open_cuda(&h, path, dtype);
        snprintf(path, sizeof path, FOLDER "%s/golden.bin", fixtures[i].name);
        assert_int_equal(golden_read(&g, path), ST_OK);
        double worst = worst_error(&h, &g);
        print_message("%-16s %-8s worst row %.2e, limit %.1e\n", fixtures[i].name, dtype, worst,
                      limit * fixtures[i].factor);
        assert_true(worst <= limit * fixtures[i].factor);
        golden_free(&g);
        harness_close(&h);
    }
    assert_int_equal(sim_live(), 0);
    assert_int_equal(mem_live(), 0);
}

static void logits_are_near_transformers_in_bf16(void **state)
{
    (void)state;
    check("bfloat16", 6e-2);
}

static void logits_are_near_transformers_in_f16(void **state)
{
    (void)state;
    check("float16", 7e-3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_near_transformers_in_bf16),
        cmocka_unit_test(logits_are_near_transformers_in_f16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
