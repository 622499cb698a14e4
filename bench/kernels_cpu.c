/* kernels_cpu: speed of the CPU backend's parts, one line each: the matrix kernels by type, rows and instruction set, then
 * the row operations. Both threads of the pool work, weights come from a working set larger than the caches (--mb).
 *
 *   bench_kernels_cpu [--threads N] [--isa ISA] [--mb N] [--n N] [--k N]
 *
 * Gop/s counts a multiply and an add as two; GB/s counts packed weight bytes. Median of the repetitions. */
#include "backend.h"
#include "clock.h"
#include "cpu_be.h"
#include "mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPS = 9, ROWS_MAX = 512, WEIGHTS_MAX = 256 };

struct setup {
    struct be *be;
    uint32_t n, k, mb, threads;
};

static uint64_t now_ns(void)
{
    return (uint64_t)clock_now_ns();
}

static int by_time(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Bytes whose scales, wherever they stand in a block, are small normal numbers: denormals and NaN would spoil the timing. */
static void fill(uint8_t *p, size_t n, enum be_type t, uint32_t *seed)
{
    static const uint16_t scale = 0x1e00, wide_scale = 0x3c00; /* f16 0.0059; the top half of an f32 0.0078 */
    uint32_t block = be_type_block_bytes(t);
    for (size_t i = 0; i < n; i++) {
        *seed = *seed * 1664525u + 1013904223u;
        p[i] = (uint8_t)(*seed >> 24);
    }
    for (size_t i = 0; i + block <= n; i += block) {
        if (t == BE_F32 || t == BE_BF16)
            memcpy(p + i + block - 2, &wide_scale, 2);
        else
            memcpy(p + i + (t == BE_Q6_K ? 208 : 0), &scale, 2);
        if (t == BE_Q4_1 || t == BE_Q4_K)
            memcpy(p + i + 2, &scale, 2);
    }
}

static int matrix(const struct setup *s, enum be_type t)
{
    uint64_t row_bytes;
    if (!be_type_row_bytes(t, s->k, &row_bytes))
        return 0;
    uint32_t n_weights = (uint32_t)(((uint64_t)s->mb << 20) / (row_bytes * s->n)) + 1;
    n_weights = n_weights > WEIGHTS_MAX ? WEIGHTS_MAX : n_weights;
    struct be_weight *w[WEIGHTS_MAX] = {0}, *gain = NULL;
    uint8_t *file = mem_alloc(row_bytes * s->n);
    float *ones = mem_zalloc(s->k, sizeof *ones);
    struct be_act *act = NULL;
    const struct be_ops *ops = s->be->ops;
    float *x = ops->buffer_create(s->be, (size_t)ROWS_MAX * (s->k > s->n ? s->k : s->n) * sizeof *x);
    struct err e = {0};
    if (!file || !ones || !x || ops->act_create(s->be, ROWS_MAX, s->k, &act))
        return 1;
    uint32_t seed = 1;
    fill(file, row_bytes * s->n, t, &seed);
    for (uint32_t i = 0; i < s->k; i++)
        ones[i] = 1;
    struct be_weight_desc d = {.use = BE_USE_LINEAR, .k = s->k, .n_parts = 1, .parts = {{t, s->n, file, NULL}}};
    struct be_weight_desc v = {.use = BE_USE_VECTOR, .k = s->k, .n_parts = 1, .parts = {{BE_F32, 1, ones, NULL}}};
    int st = ops->weight_create(s->be, &v, &gain, &e);
    for (uint32_t i = 0; i < n_weights && st == ST_OK; i++)
        st = ops->weight_create(s->be, &d, &w[i], &e);
    static const uint32_t rows[] = {1, 2, 4, 8, 12, 16, 32, 64, 512};
    for (size_t m = 0; m < sizeof rows / sizeof *rows && st == ST_OK; m++) {
        double best[REPS];
        uint32_t calls = rows[m] >= 64 ? 4 : n_weights;
        calls = calls > n_weights ? n_weights : calls;
        for (int rep = 0; rep < REPS; rep++) {
            for (size_t i = 0; i < (size_t)rows[m] * s->k; i++)
                x[i] = (float)((int)(i * 7919 % 2001) - 1000) / 700.0f;
            ops->begin_step(s->be, NULL);
            struct op_norm norm = {rows[m], NULL, s->k, x, gain, 1e-5f, w[0], act};
            st = ops->norm(s->be, &norm);
            uint64_t t0 = now_ns();
            for (uint32_t i = 0; i < calls && st == ST_OK; i++) {
                struct op_logits p = {rows[m], act, w[i], x};
                st = ops->logits(s->be, &p);
            }
            best[rep] = (double)(now_ns() - t0) / calls;
            ops->end_step(s->be, &e);
        }
        qsort(best, REPS, sizeof *best, by_time);
        double ns = best[REPS / 2];
        printf("%-5s M %3u  %9.1f us  %7.1f Gop/s  %6.1f GB/s\n", be_type_name(t), rows[m], ns / 1e3,
               2.0 * s->n * s->k * rows[m] / ns, (double)ops->weight_bytes(w[0]) / ns);
    }
    if (st)
        fprintf(stderr, "%s: %s\n", be_type_name(t), e.text);
    for (uint32_t i = 0; i < n_weights; i++)
        ops->weight_destroy(s->be, w[i]);
    ops->weight_destroy(s->be, gain);
    ops->act_destroy(s->be, act);
    ops->buffer_destroy(s->be, x);
    mem_free(file);
    mem_free(ones);
    return st != ST_OK;
}

/* ns per call of the small things: norm and rounding of a row, silu, rotation, sampling. */
static void rows_ops(const struct setup *s)
{
    enum { D = 576, FF = 1536, VOCAB = 49152, CALLS = 2000 };
    const struct cpu_be *b = (const struct cpu_be *)s->be;
    static float x[VOCAB], y[VOCAB], gain[FF];
    static _Alignas(64) uint8_t panel[FF / 32 * sizeof(struct cpu_act_group)];
    for (int i = 0; i < VOCAB; i++)
        x[i] = (float)(i * 7919 % 2001 - 1000) / 100.0f;
    for (int i = 0; i < FF; i++)
        gain[i] = 1;
    s->be->ops->begin_step(s->be, NULL);
    uint64_t t0 = now_ns();
    for (int i = 0; i < CALLS; i++)
        b->pick.rows->norm(y, x, gain, D, 1e-5f);
    uint64_t t1 = now_ns();
    for (int i = 0; i < CALLS; i++)
        b->pick.linear.store[CPU_INT8](x, 0, FF, panel, 0);
    uint64_t t2 = now_ns();
    for (int i = 0; i < CALLS; i++)
        b->pick.rows->silu_mul(y, x, x + FF, FF);
    uint64_t t3 = now_ns();
    struct be_sample_row row = {.temperature = 0.7f, .top_p = 0.9f, .repetition = 1, .n_logprobs = -1};
    struct be_sample_out out;
    void *scratch = mem_map(cpu_sample_scratch_bytes(VOCAB));
    for (int i = 0; scratch && i < CALLS / 10; i++) {
        memcpy(y, x, sizeof y);
        row.position = (uint32_t)i;
        b->pick.rows->sample(y, VOCAB, &row, &out, scratch);
    }
    uint64_t t4 = now_ns();
    s->be->ops->end_step(s->be, NULL);
    mem_unmap(scratch, cpu_sample_scratch_bytes(VOCAB));
    printf("norm %d: %.0f ns; round %d: %.0f ns; silu*up %d: %.0f ns; sample top-p %d: %.1f us\n", D,
           (double)(t1 - t0) / CALLS, FF, (double)(t2 - t1) / CALLS, FF, (double)(t3 - t2) / CALLS, VOCAB,
           (double)(t4 - t3) / (CALLS / 10) / 1e3);
}

int main(int argc, char **argv)
{
    struct setup s = {.n = 1536, .k = 576, .mb = 96, .threads = 2};
    const char *isa = "auto", *type = NULL;
    for (int i = 1; i + 1 < argc; i += 2) {
        uint32_t v = (uint32_t)strtoul(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--threads") == 0)
            s.threads = v;
        else if (strcmp(argv[i], "--mb") == 0)
            s.mb = v;
        else if (strcmp(argv[i], "--n") == 0)
            s.n = v;
        else if (strcmp(argv[i], "--k") == 0)
            s.k = v;
        else if (strcmp(argv[i], "--isa") == 0)
            isa = argv[i + 1];
        else if (strcmp(argv[i], "--type") == 0)
            type = argv[i + 1];
    }
    struct be_options o = {.device = "cpu", .threads = s.threads, .cpu_isa = isa};
    struct err e = {0};
    if (s.n == 0 || s.k == 0 || be_create(&s.be, &o, &e)) {
        fprintf(stderr, "%s\n", e.text);
        return 1;
    }
    printf("%s; n %u, k %u, %u MB of weights\n", be_describe(s.be), s.n, s.k, s.mb);
    rows_ops(&s);
    int bad = 0;
    for (int t = 0; t <= BE_Q6_K; t++)
        if (!type || strcmp(type, be_type_name((enum be_type)t)) == 0)
            bad |= matrix(&s, (enum be_type)t);
    be_destroy(s.be);
    return bad;
}
