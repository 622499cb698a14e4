/* Attention: against naive doubles; the same bits on every instruction set, in every batch and under every
 * chunking. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "rows_isa.h"

#include "mem.h"

enum { MAX_SEQS = 4, LAYERS = 2 };

struct model {
    enum be_type type;
    uint32_t heads, kv_heads, dim, block_tokens, window;
};

/* Sequences with their q, k, v, and a pool where their blocks lie in random order. */
struct world {
    struct model m;
    uint32_t n_seqs, len[MAX_SEQS], blocks_per_seq;
    float *q[MAX_SEQS], *k[MAX_SEQS], *v[MAX_SEQS]; /* [len][heads or kv_heads][dim] */
    uint32_t *table[MAX_SEQS];
    struct cpu_kv_view kv;
    struct rows_guarded pool;
};

static float *random_rows(size_t n, float scale, uint64_t *s)
{
    float *x = mem_alloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = rows_normal(s) * scale;
    return x;
}

static uint32_t world_slot(const struct world *w, uint32_t seq, uint32_t pos)
{
    uint32_t bt = w->m.block_tokens;
    return w->table[seq][pos / bt] * bt + pos % bt;
}

static void world_open(struct world *w, const struct model *m, uint32_t n_seqs, uint32_t max_len, uint64_t *s)
{
    memset(w, 0, sizeof *w);
    w->m = *m;
    w->n_seqs = n_seqs;
    w->blocks_per_seq = (max_len + m->block_tokens - 1) / m->block_tokens;
    uint32_t n_blocks = n_seqs * w->blocks_per_seq, *order = mem_alloc(n_blocks * sizeof *order);
    for (uint32_t i = 0; i < n_blocks; i++) {
        uint32_t j = rows_below(s, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    struct be_kv_shape shape = {LAYERS, m->kv_heads, m->dim, m->block_tokens, n_blocks, m->type};
    assert_int_equal(cpu_kv_layout_init(&w->kv.l, &shape, NULL), ST_OK);
    w->pool = rows_guard(w->kv.l.total_bytes);
    w->kv.base = w->pool.p;
    memset(w->kv.base, 0xff, w->kv.l.total_bytes); /* NaN wherever nothing was written */
    for (uint32_t i = 0; i < n_seqs; i++) {
        w->len[i] = i == 0 ? max_len : 1 + rows_below(s, max_len);
        w->q[i] = random_rows((size_t)w->len[i] * m->heads * m->dim, 1.5f, s);
        w->k[i] = random_rows((size_t)w->len[i] * m->kv_heads * m->dim, 1.5f, s);
        w->v[i] = random_rows((size_t)w->len[i] * m->kv_heads * m->dim, 1, s);
        w->table[i] = mem_alloc(w->blocks_per_seq * sizeof *order);
        memcpy(w->table[i], order + i * w->blocks_per_seq, w->blocks_per_seq * sizeof *order);
    }
    mem_free(order);
}

static void world_close(struct world *w)
{
    for (uint32_t i = 0; i < w->n_seqs; i++) {
        mem_free(w->q[i]);
        mem_free(w->k[i]);
        mem_free(w->v[i]);
        mem_free(w->table[i]);
    }
    rows_unguard(w->pool);
}

static void append(struct world *w, const struct cpu_row_kernels *isa, uint32_t seq, uint32_t from,
                   uint32_t to)
{
    uint32_t d = w->m.dim, n = w->m.kv_heads;
    for (uint32_t pos = from; pos < to; pos++)
        for (uint32_t h = 0; h < n; h++)
            isa->kv_append(&w->kv, 1, h, world_slot(w, seq, pos), w->k[seq] + ((size_t)pos * n + h) * d,
                           w->v[seq] + ((size_t)pos * n + h) * d);
}

/* One step: spans (seq, from, to), appended and attended; the results go to out[seq] at their positions. */
struct piece {
    uint32_t seq, from, to;
};

static void step(struct world *w, const struct cpu_row_kernels *isa, const struct piece *p, uint32_t n,
                 uint32_t threads, float *const *out)
{
    struct be_span spans[MAX_SEQS];
    uint32_t rows = 0, per_row = w->m.heads * w->m.dim;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t blocks = (p[i].to + w->m.block_tokens - 1) / w->m.block_tokens;
        spans[i] = (struct be_span){rows, p[i].to - p[i].from, p[i].from, blocks, w->table[p[i].seq]};
        rows += p[i].to - p[i].from;
        append(w, isa, p[i].seq, p[i].from, p[i].to);
    }
    struct rows_guarded q = rows_guard((size_t)rows * per_row * 4),
                        o = rows_guard((size_t)rows * per_row * 4);
    for (uint32_t i = 0; i < n; i++)
        memcpy((float *)q.p + (size_t)spans[i].row0 * per_row, w->q[p[i].seq] + (size_t)p[i].from * per_row,
               (size_t)spans[i].n_rows * per_row * 4);
    struct be_batch batch = {.n_rows = rows, .n_spans = n, .spans = spans};
    struct cpu_attn a = {.batch = &batch,
                         .kv = &w->kv,
                         .q = q.p,
                         .out = o.p,
                         .layer = 1,
                         .n_heads = w->m.heads,
                         .window = w->m.window,
                         .scale = 1 / sqrtf((float)w->m.dim)};
    cpu_attn_plan(&a, threads);
    size_t bytes = (cpu_attn_scratch_bytes(w->m.dim) + 63) / 64 * 64;
    struct rows_guarded scratch = rows_guard(bytes);
    memset(scratch.p, 0xff, bytes);
    for (uint32_t i = a.n_items; i-- > 0;)
        isa->attn_item(&a, i, scratch.p);
    for (uint32_t i = 0; i < n; i++)
        memcpy(out[p[i].seq] + (size_t)p[i].from * per_row, (float *)o.p + (size_t)spans[i].row0 * per_row,
               (size_t)spans[i].n_rows * per_row * 4);
    rows_unguard(scratch);
    rows_unguard(q);
    rows_unguard(o);
}

static void new_outputs(const struct world *w, float *out[MAX_SEQS])
{
    for (uint32_t i = 0; i < w->n_seqs; i++)
        out[i] = mem_zalloc((size_t)w->len[i] * w->m.heads * w->m.dim, 4);
}

static void free_outputs(const struct world *w, float *out[MAX_SEQS])
{
    for (uint32_t i = 0; i < w->n_seqs; i++)
        mem_free(out[i]);
}

static void check_double(const struct world *w, uint32_t seq, const float *out)
{
    const struct model *m = &w->m;
    double tol = m->type == BE_F32 ? 2e-5 : m->type == BE_F16 ? 8e-3 : 6e-2;
    double *p = mem_alloc(w->len[seq] * sizeof *p);
    for (uint32_t pos = 0; pos < w->len[seq]; pos += pos < 70 ? 1 : 17)
        for (uint32_t h = 0; h < m->heads; h++) {
            uint32_t g = h / (m->heads / m->kv_heads);
            uint32_t lo = m->window && pos + 1 > m->window ? pos + 1 - m->window : 0;
            const float *q = w->q[seq] + ((size_t)pos * m->heads + h) * m->dim;
            double max = -1e300, sum = 0;
            for (uint32_t t = lo; t <= pos; t++) {
                const float *k = w->k[seq] + ((size_t)t * m->kv_heads + g) * m->dim;
                p[t] = 0;
                for (uint32_t i = 0; i < m->dim; i++)
                    p[t] += (double)q[i] * k[i];
                p[t] /= sqrt(m->dim);
                max = fmax(max, p[t]);
            }
            for (uint32_t t = lo; t <= pos; t++)
                sum += p[t] = exp(p[t] - max);
            for (uint32_t i = 0; i < m->dim; i++) {
                double want = 0;
                for (uint32_t t = lo; t <= pos; t++)
                    want += p[t] / sum * w->v[seq][((size_t)t * m->kv_heads + g) * m->dim + i];
                double got = out[((size_t)pos * m->heads + h) * m->dim + i];
                assert_true(fabs(got - want) <= tol);
            }
        }
    mem_free(p);
}

static const struct model models[] = {
    {BE_F16, 9, 3, 64, 16, 0},   {BE_F32, 9, 3, 64, 32, 0},   {BE_BF16, 9, 3, 64, 16, 0},
    {BE_F16, 8, 2, 128, 48, 0},  {BE_F16, 4, 4, 80, 16, 0},   {BE_F32, 16, 1, 96, 16, 40},
    {BE_F16, 6, 6, 64, 16, 100}, {BE_BF16, 7, 1, 256, 64, 0}, {BE_F16, 50, 1, 16, 16, 0},
    {BE_F32, 5, 1, 48, 16, 1},
};
enum { N_MODELS = sizeof models / sizeof *models };

/* The plain C answer: each sequence alone, one token per step. */
static void reference(struct world *w, float *out[MAX_SEQS])
{
    new_outputs(w, out);
    for (uint32_t i = 0; i < w->n_seqs; i++)
        for (uint32_t pos = 0; pos < w->len[i]; pos++)
            step(w, &cpu_rows_c, &(struct piece){i, pos, pos + 1}, 1, 1, out);
    memset(w->kv.base, 0xff, w->kv.l.total_bytes);
}

static void any_schedule_gives_the_bits_of_one_token_at_a_time(void **state)
{
    (void)state;
    uint64_t s = rows_seed("schedule");
    const struct cpu_row_kernels *isa[3];
    uint32_t n_isa = rows_isas(isa);
    for (uint32_t i = 0; i < N_MODELS; i++) {
        struct world w;
        float *want[MAX_SEQS], *got[MAX_SEQS];
        world_open(&w, &models[i], 3, i == 0 ? 150 : 70 + rows_below(&s, 12), &s);
        reference(&w, want);
        for (uint32_t j = 0; j < w.n_seqs; j++)
            check_double(&w, j, want[j]);
        for (uint32_t round = 0; round < 3 * n_isa; round++) {
            if (round > 0 && round % n_isa == 0)
                continue; /* plain C is slow: one round of it */
            uint32_t done[MAX_SEQS] = {0}, left = w.n_seqs;
            new_outputs(&w, got);
            while (left > 0) {
                struct piece p[MAX_SEQS];
                uint32_t n = 0;
                for (uint32_t j = 0; j < w.n_seqs; j++) {
                    uint32_t rest = w.len[j] - done[j];
                    if (rest == 0 || rows_below(&s, 4) == 0)
                        continue;
                    uint32_t take = round < n_isa ? rest : 1 + rows_below(&s, rest < 60 ? rest : 60);
                    p[n++] = (struct piece){j, done[j], done[j] + take};
                    done[j] += take;
                    left -= done[j] == w.len[j];
                }
                if (n > 0)
                    step(&w, isa[round % n_isa], p, n, 1 + rows_below(&s, 20), got);
            }
            for (uint32_t j = 0; j < w.n_seqs; j++)
                assert_memory_equal(got[j], want[j], (size_t)w.len[j] * w.m.heads * w.m.dim * 4);
            free_outputs(&w, got);
            memset(w.kv.base, 0xff, w.kv.l.total_bytes);
        }
        free_outputs(&w, want);
        world_close(&w);
    }
}

static void plan_covers_every_row_and_head_once(void **state)
{
    (void)state;
    uint64_t s = rows_seed("plan");
    for (int round = 0; round < 300; round++) {
        uint32_t n_kv = 1 + rows_below(&s, 4), group = 1 + rows_below(&s, round % 10 == 0 ? 300 : 20),
                 rows = 0;
        struct be_span spans[5];
        uint32_t n_spans = 1 + rows_below(&s, 5);
        for (uint32_t i = 0; i < n_spans; i++) {
            spans[i] = (struct be_span){.row0 = rows, .n_rows = 1 + rows_below(&s, 200)};
            rows += spans[i].n_rows;
        }
        struct cpu_kv_view kv = {.l = {.n_kv_heads = n_kv, .head_dim = 64}};
        struct be_batch b = {.n_rows = rows, .n_spans = n_spans, .spans = spans};
        struct cpu_attn a = {.batch = &b, .kv = &kv, .n_heads = n_kv * group};
        cpu_attn_plan(&a, 1 + rows_below(&s, 32));
        uint8_t *seen = mem_zalloc(rows, a.n_heads);
        for (uint32_t i = 0; i < a.n_items; i++) {
            struct cpu_attn_range r;
            cpu_attn_range(&a, i, &r);
            assert_true(r.n_rows > 0 && r.n_heads > 0 && r.n_rows * r.n_heads <= 96);
            assert_true(r.row0 >= spans[r.span].row0);
            assert_true(r.row0 + r.n_rows <= spans[r.span].row0 + spans[r.span].n_rows);
            for (uint32_t row = r.row0; row < r.row0 + r.n_rows; row++)
                for (uint32_t h = r.head0; h < r.head0 + r.n_heads; h++) {
                    assert_int_equal(h / group, r.kv_head);
                    seen[(size_t)row * a.n_heads + h]++;
                }
        }
        for (size_t i = 0; i < (size_t)rows * a.n_heads; i++)
            assert_int_equal(seen[i], 1);
        mem_free(seen);
    }
}

static void extreme_scores_stay_finite(void **state)
{
    (void)state;
    uint64_t s = rows_seed("extreme");
    const struct cpu_row_kernels *isa[3];
    uint32_t n_isa = rows_isas(isa);
    struct model m = {BE_F32, 2, 1, 64, 16, 0};
    struct world w;
    float *want[MAX_SEQS], *got[MAX_SEQS];
    world_open(&w, &m, 1, 80, &s);
    for (uint32_t i = 0; i < 80 * 64; i++)
        w.k[0][i] *= i / 64 % 7 == 0 ? 1e6f : 1e-30f;
    reference(&w, want);
    for (uint32_t i = 0; i < 80 * 2 * 64; i++)
        assert_true(isfinite(want[0][i]));
    for (uint32_t k = 0; k < n_isa; k++) {
        new_outputs(&w, got);
        step(&w, isa[k], &(struct piece){0, 0, 80}, 1, 1, got);
        assert_memory_equal(got[0], want[0], 80 * 2 * 64 * 4);
        free_outputs(&w, got);
    }
    free_outputs(&w, want);
    world_close(&w);
}

int main(void)
{
    rows_ftz();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_schedule_gives_the_bits_of_one_token_at_a_time),
        cmocka_unit_test(plan_covers_every_row_and_head_once),
        cmocka_unit_test(extreme_scores_stay_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
