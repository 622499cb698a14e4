/* The reference computes in f32 from the same stored weights, so a difference is what the GPU rounds: activations, keys and
 * values to 16 or 8 bits, sums in another order. With u the largest relative error of one rounding (2^-8 bf16, 2^-11 f16, 2^-4
 * e4m3), a value that is rounded once is off by 0.4 u in root mean square. Tolerances count the roundings on the way:
 *   embed      0: the same bits
 *   logits     1 u: the normed row
 *   ffn        1.5 u: the normed row, gate and up where the library stores them, their product
 *   attention  2 u: the normed row, q, k, v, rotated q and k, weights of the softmax, output
 * and no single value may be off by more than ten times that. Sampled tokens are equal: from equal logits the two backends draw
 * the same ones. */
#include "parity.h"

#include "cpu_backend.h"
#include "cu_backend.h"
#include "mem.h"
#include "side.h"

#include <math.h>
#include <string.h>

enum { STEPS = 4, SEQUENCES = 24, MASK_WORDS = 4096 / 32 /* of the largest vocabulary */ };

static const struct side_dims small_dims[] = {
    {"mha 4x64", 4, 4, 64, 256, 352, 515, 0, false, true},
    {"gqa 9:3x64", 9, 3, 64, 576, 1536, 1000, 0, false, false},
    {"gqa 8:1x128 bias", 8, 1, 128, 640, 1000, 777, 0, true, false},
    {"gqa 4:2x80 window", 4, 2, 80, 320, 512, 333, 50, false, false},
};
static const struct side_dims large_dims = {"gqa 32:8x128", 32, 8, 128, 4096, 14336, 4096, 0, false, false};

/* A step's inputs, with the memory of what each sequence has. */
struct plan {
    struct be_batch batch;
    struct be_span spans[SIDE_SPANS];
    int32_t tokens[SIDE_ROWS];
    uint32_t positions[SIDE_ROWS], slots[SIDE_ROWS], logit_rows[SIDE_ROWS];
    uint32_t tables[SIDE_SPANS][SIDE_CONTEXT / SIDE_BLOCK];
    uint32_t done[SIDE_SPANS];
};

struct run {
    struct rig *r;
    const struct side_dims *dims;
    const struct side_form *form;
    struct side cpu, gpu;
    struct side_result want, got;
    struct plan plan;
    uint32_t checks, failures;
};

/* ---- steps ------------------------------------------------------------------------------------------------------- */

/* Blocks of all sequences, mixed: no sequence has two neighbours. */
static void begin_plan(struct plan *p)
{
    for (uint32_t s = 0; s < SIDE_SPANS; s++)
        for (uint32_t i = 0; i < SIDE_CONTEXT / SIDE_BLOCK; i++)
            p->tables[s][i] = i * SIDE_SPANS + (s * 37 + i * 11) % SIDE_SPANS;
    memset(p->done, 0, sizeof p->done);
}

/* Prompts around the edges of tiles and splits; decode of all; decode beside a chunk; decode of few. */
static uint32_t tokens_of(uint32_t step, uint32_t sequence)
{
    static const uint32_t prompts[] = {1, 15, 16, 17, 33, 64, 2, 255, 257, 3, 320, 5};
    if (step == 0)
        return sequence < sizeof prompts / sizeof *prompts ? prompts[sequence] : 2;
    return step == 2 && sequence == 1 ? 150 : 1;
}

static void make_plan(struct plan *p, uint32_t step, uint32_t sequences, uint32_t vocab)
{
    uint32_t row = 0, n_spans = step == 3 ? 3 : sequences;
    for (uint32_t s = 0; s < n_spans; s++) {
        uint32_t n = tokens_of(step, s), end = p->done[s] + n;
        p->spans[s] = (struct be_span){row, n, p->done[s], (end + SIDE_BLOCK - 1) / SIDE_BLOCK, p->tables[s]};
        for (uint32_t pos = p->done[s]; pos < end; pos++, row++) {
            p->tokens[row] = (int32_t)((row * 7919u + step * 31u) % vocab);
            p->positions[row] = pos;
            p->slots[row] = p->tables[s][pos / SIDE_BLOCK] * SIDE_BLOCK + pos % SIDE_BLOCK;
            p->logit_rows[row] = row;
        }
        p->done[s] = end;
    }
    p->batch = (struct be_batch){row, n_spans, row, p->tokens, p->positions, p->slots, p->spans, p->logit_rows};
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static double rounding(enum be_type t)
{
    return t == BE_E4M3 ? 1.0 / 16 : t == BE_BF16 ? 1.0 / 256 : 1.0 / 2048;
}

static void verdict(struct run *t, const char *what, uint32_t step, size_t n, double rms, double worst, double tolerance)
{
    const struct side_form *f = t->form;
    bool ok = rms <= tolerance && worst <= 10 * tolerance; /* false for NaN */
    t->checks++;
    t->failures += !ok;
    rig_row(t->r, "%s,%s,%s,%s,%s,%u,%s,%zu,%.2e,%.2e,%.1e,%s", be_type_name(f->half), be_type_name(f->weights),
            be_type_name(f->kv), f->deterministic ? "deterministic" : "default", t->dims->name, step, what, n, rms, worst,
            tolerance, ok ? "ok" : "FAILED");
}

/* Differences relative to the reference's root mean square, of the parts that came on top of `base` (NULL: of all). */
static void compare(struct run *t, const char *what, uint32_t step, const float *want, const float *got, const float *base,
                    size_t n, double tolerance)
{
    double ref = 0, diff = 0, worst = 0;
    for (size_t i = 0; i < n; i++) {
        double w = want[i] - (base != NULL ? base[i] : 0), d = (double)got[i] - want[i];
        ref += w * w;
        diff += d * d;
        worst = fabs(d) > worst || d != d ? fabs(d) : worst;
    }
    double scale = sqrt(ref / (double)n);
    verdict(t, what, step, n, sqrt(diff / (double)n) / scale, worst / scale, tolerance);
}

static int one_step(struct run *t, uint32_t step, uint32_t sequences, struct err *e)
{
    struct plan *p = &t->plan;
    make_plan(p, step, sequences, t->dims->vocab);
    int rc = side_step(&t->cpu, &p->batch, &t->want, e);
    if (rc == ST_OK)
        rc = side_step(&t->gpu, &p->batch, &t->got, e);
    if (rc != ST_OK)
        return rc;
    size_t n = (size_t)p->batch.n_rows * t->dims->d;
    double half = rounding(t->form->half), layer = rounding(t->form->weights);
    double kv = t->form->kv == BE_E4M3 ? rounding(BE_E4M3) : layer;
    compare(t, "embed", step, t->want.x, t->got.x, NULL, n, 0);
    compare(t, "attention", step, t->want.attn, t->got.attn, t->want.x, n, 2 * (kv > layer ? kv : layer));
    compare(t, "ffn", step, t->want.ffn, t->got.ffn, t->want.x, n, 1.5 * layer);
    compare(t, "logits", step, t->want.logits, t->got.logits, NULL, (size_t)p->batch.n_logits * t->dims->vocab, half);
    return ST_OK;
}

/* ---- sampling ---------------------------------------------------------------------------------------------------- */

struct lists {
    struct be_bias bias[SEQUENCES][2];
    struct be_seen seen[SEQUENCES][3];
    int32_t banned[SEQUENCES][2];
    uint32_t allowed[SEQUENCES][MASK_WORDS];
};

/* Every other token; all but one of 32; one of 160; one. */
static void make_mask(uint32_t *words, uint32_t row, uint32_t vocab)
{
    uint32_t by = row / 3 % 4;
    for (uint32_t i = 0; i < MASK_WORDS; i++)
        words[i] = by == 0 ? 0x55555555u : by == 1 ? ~(1u << (i + row) % 32) : by == 2 && i % 5 == 0 ? 1u << row % 32 : 0;
    uint32_t one = row * 41 % vocab;
    words[one / 32] |= 1u << one % 32;
}

static void make_sample_rows(struct be_sample_row *rows, struct lists *l, uint32_t vocab)
{
    static const float temperatures[] = {0, 0.7f, 1, 1.5f}, top_p[] = {1, 0.9f, 0.5f}, min_p[] = {0, 0, 0.05f};
    static const uint32_t top_k[] = {0, 1, 40};
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        for (uint32_t j = 0; j < 3; j++)
            l->seen[i][j] = (struct be_seen){(int32_t)((i * 17 + j * 101) % vocab), j};
        for (uint32_t j = 0; j < 2; j++) {
            l->bias[i][j] = (struct be_bias){(int32_t)((i * 29 + j * 53) % vocab), j ? 2.5f : -1.0f};
            l->banned[i][j] = (int32_t)((i * 13 + j * 7) % vocab);
        }
        make_mask(l->allowed[i], i, vocab);
        rows[i] = (struct be_sample_row){.logits_row = i,
                                         .temperature = temperatures[i % 4],
                                         .top_k = top_k[i / 4 % 3],
                                         .top_p = top_p[i / 2 % 3],
                                         .min_p = min_p[i % 3],
                                         .repetition = i % 5 == 1 ? 1.2f : 1,
                                         .frequency = i % 5 == 2 ? 0.3f : 0,
                                         .presence = i % 5 == 3 ? 0.5f : 0,
                                         .seed = i * 77,
                                         .position = i,
                                         .n_bias = i % 3 == 1 ? 2 : 0,
                                         .n_seen = 3,
                                         .bias = l->bias[i],
                                         .seen = l->seen[i],
                                         .banned = l->banned[i],
                                         .n_banned = i % 3 == 2 ? 2 : 0,
                                         .allowed = i % 3 == 0 ? l->allowed[i] : NULL,
                                         .n_logprobs = i % 2 ? 5 : -1};
    }
}

/* Tokens that differ, and the largest difference of a log-probability. */
static int one_sampling(struct run *t, struct err *e)
{
    static struct lists lists;
    static struct be_sample_row rows[SEQUENCES];
    static struct be_sample_out want[SEQUENCES], got[SEQUENCES];
    uint32_t vocab = t->dims->vocab, seed = 5, wrong = 0;
    size_t n = (size_t)SEQUENCES * vocab;
    double worst = 0;
    float *logits = mem_alloc(n * sizeof *logits);
    if (logits == NULL)
        return err_set(e, ST_ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        logits[i] = (float)((int32_t)seed >> 12) / 65536.0f; /* many equal ones: ties are decided too */
    }
    make_sample_rows(rows, &lists, vocab);
    make_plan(&t->plan, 1, SEQUENCES, vocab);
    int rc = side_sample(&t->cpu, &t->plan.batch, logits, rows, SEQUENCES, want, e);
    if (rc == ST_OK)
        rc = side_sample(&t->gpu, &t->plan.batch, logits, rows, SEQUENCES, got, e);
    for (uint32_t i = 0; i < SEQUENCES && rc == ST_OK; i++) {
        wrong += want[i].token != got[i].token || want[i].n_top != got[i].n_top;
        worst = fmax(worst, fabs((double)want[i].logprob - got[i].logprob));
        for (uint32_t j = 0; j < want[i].n_top && want[i].n_top == got[i].n_top; j++) {
            wrong += want[i].top[j].token != got[i].top[j].token;
            worst = fmax(worst, fabs((double)want[i].top[j].logprob - got[i].top[j].logprob));
        }
    }
    mem_free(logits);
    if (rc == ST_OK)
        verdict(t, "sample", 1, SEQUENCES, wrong, worst, 1e-5);
    return rc;
}

/* ---- cases ------------------------------------------------------------------------------------------------------- */

static bool result_alloc(struct side_result *o, const struct side_dims *m)
{
    size_t row = (size_t)SIDE_ROWS * m->d;
    *o = (struct side_result){mem_zalloc(row, 4), mem_zalloc(row, 4), mem_zalloc(row, 4),
                              mem_zalloc((size_t)SIDE_ROWS * m->vocab, 4)};
    return o->x && o->attn && o->ffn && o->logits;
}

static void result_free(struct side_result *o)
{
    mem_free(o->x);
    mem_free(o->attn);
    mem_free(o->ffn);
    mem_free(o->logits);
}

static int open_sides(struct run *t, struct err *e)
{
    struct be_options cpu = {.device = "cpu", .cpu_isa = "auto", .cpu_exact = true};
    struct be_options gpu = {.device = "cuda",
                             .dtype = t->form->half == BE_BF16 ? "bfloat16" : "float16",
                             .quantization = "none",
                             .deterministic = t->form->deterministic};
    struct side_form reference = *t->form;
    struct be *be = NULL;
    reference.kv = BE_F32;
    int rc = cpu_backend_create(&be, &cpu, e);
    if (rc == ST_OK)
        rc = side_open(&t->cpu, be, t->dims, &reference, true, e);
    if (rc == ST_OK)
        rc = cuda_backend_create(&be, &gpu, e);
    return rc == ST_OK ? side_open(&t->gpu, be, t->dims, t->form, false, e) : rc;
}

static int one_case(struct run *t, const struct side_dims *dims, const struct side_form *form, uint32_t sequences)
{
    struct err e = {0};
    t->dims = dims;
    t->form = form;
    begin_plan(&t->plan);
    int rc = open_sides(t, &e);
    if (rc == ST_OK && (!result_alloc(&t->want, dims) || !result_alloc(&t->got, dims)))
        rc = err_set(&e, ST_ENOMEM, "out of memory");
    for (uint32_t step = 0; step < STEPS && rc == ST_OK; step++)
        rc = one_step(t, step, sequences, &e);
    if (rc == ST_OK && sequences == SEQUENCES)
        rc = one_sampling(t, &e);
    result_free(&t->want);
    result_free(&t->got);
    side_close(&t->cpu);
    side_close(&t->gpu);
    t->want = t->got = (struct side_result){0};
    if (rc != ST_OK)
        fprintf(stderr, "parity: %s, weights %s, kv %s: %s\n", dims->name, be_type_name(form->weights), be_type_name(form->kv),
                e.text);
    return rc;
}

static int all_cases(struct run *t, bool small)
{
    static const enum be_type halves[] = {BE_BF16, BE_F16};
    int rc = ST_OK;
    for (uint32_t i = 0; i < 16; i++) {
        enum be_type half = halves[i & 1];
        struct side_form f = {half, i & 2 ? BE_E4M3 : half, i & 4 ? BE_E4M3 : half, (i & 8) != 0};
        bool few = small && i != 0 && i != 14; /* plain, and all that differs from it */
        for (uint32_t j = 0; j < (small ? 2 : 4) && !few && rc == ST_OK; j++)
            rc = one_case(t, &small_dims[j], &f, SEQUENCES);
        bool large = !small && (i == 0 || i == 6 || i == 8 || i == 14);
        if (large && rc == ST_OK)
            rc = one_case(t, &large_dims, &f, 7); /* fewer rows and forms: the reference is slow */
    }
    return rc;
}

int parity_bench(struct rig *r, bool small)
{
    struct run *t = mem_zalloc(1, sizeof *t);
    if (t == NULL)
        return ST_ENOMEM;
    t->r = r;
    rig_table(r, small ? "parity_small" : "parity", "dtype,weights,kv,mode,shape,step,op,values,rms,worst,tolerance,verdict");
    int rc = all_cases(t, small);
    rig_table_end(r);
    printf("parity: %u checks, %u failed\n", t->checks, t->failures);
    if (rc == ST_OK && t->failures > 0)
        rc = ST_EINTERNAL;
    mem_free(t);
    return rc;
}
