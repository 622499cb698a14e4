/* The row-wise kernels against references by definition: class R in its own order, bit for bit, and doubles with a tolerance. */
#include "rows_ref.h"

#include "cu_rows.h"

extern "C" {
#include "cpu_rows.h"
}

static const int types[] = {CU_BF16, CU_F16};
static const uint32_t widths[] = {1, 5, 7, 8, 9, 16, 100, 577, 2048, 2050, 4096, 4097, 8191, 8192, 8200, 12291};
enum { N_WIDTHS = sizeof widths / sizeof *widths };

/* ---- norm --------------------------------------------------------------------------------------------------------------- */

/* The sum of squares in the order of class R. */
static float class_r_sum(const float *x, uint32_t d)
{
    float lane[256] = {}, tree[32], sum = 0;
    for (uint32_t i = 0; i < d; i++)
        lane[i / 8 % 256] = fmaf(x[i], x[i], lane[i / 8 % 256]);
    for (uint32_t w = 0; w < 8; w++) {
        memcpy(tree, lane + 32 * w, sizeof tree);
        for (uint32_t n = 16; n > 0; n /= 2)
            for (uint32_t i = 0; i < n; i++)
                tree[i] += tree[i + n];
        sum = w ? sum + tree[0] : tree[0];
    }
    return sum;
}

/* One row of a norm, rounded to `type`. */
static void norm_ref(uint16_t *y, const float *x, const float *gain, uint32_t d, float eps, int type)
{
    float r = 1.0f / sqrtf(class_r_sum(x, d) / (float)d + eps);
    for (uint32_t i = 0; i < d; i++)
        y[i] = ref_to16(x[i] * r * gain[i], type);
}

/* A row to e4m3: codes and scale. */
static float quant_ref(uint8_t *q, const uint16_t *x, uint32_t k, int type)
{
    float max = 0;
    bool finite = true;
    for (uint32_t i = 0; i < k; i++) {
        float v = fabsf(ref_from16(x[i], type));
        finite = finite && isfinite(v);
        max = v > max ? v : max;
    }
    float scale = fmaxf(max / 448.0f, 0x1p-18f / 448.0f), inverse = 1.0f / scale;
    for (uint32_t i = 0; i < k; i++)
        q[i] = finite ? ref_e4m3(ref_from16(x[i], type) * inverse) : 0;
    return scale;
}

struct norm_data {
    float *x, *gain;
    uint32_t m, d, ldy;
};

static struct norm_data norm_make(uint32_t m, uint32_t d)
{
    struct norm_data n = {ref_alloc<float>((size_t)m * d), ref_alloc<float>(d), m, d, cu_round_up(d, 64) + 64 * ref_below(2)};
    float scale = ldexpf(1, (int)ref_below(20) - 10);
    for (size_t i = 0; i < (size_t)m * d; i++)
        n.x[i] = ref_normal() * scale;
    for (uint32_t i = 0; i < d; i++)
        n.gain[i] = 1 + ref_normal();
    return n;
}

static void norm_free(struct norm_data n)
{
    ref_free(n.x);
    ref_free(n.gain);
}

static void norm_run(const struct norm_data *n, void *y, float *y_scale, const uint32_t *rows, uint32_t m, int type)
{
    struct cu_norm p = {n->x, rows, n->gain, y, y_scale, m, n->d, n->ldy, 1e-5f, (uint8_t)type};
    assert_int_equal(cu_rows_norm(ref_stream, &p), ST_OK);
    ref_sync();
}

static void norm_check(const struct norm_data *n, const uint16_t *y, int type)
{
    uint16_t *want = (uint16_t *)malloc(n->d * 2);
    float *cpu = (float *)malloc(n->d * 4);
    for (uint32_t row = 0; row < n->m; row++) {
        const float *x = n->x + (size_t)row * n->d;
        const uint16_t *got = y + (size_t)row * n->ldy;
        norm_ref(want, x, n->gain, n->d, 1e-5f, type);
        assert_memory_equal(got, want, n->d * 2);
        cpu_rows_c.norm(cpu, x, n->gain, n->d, 1e-5f);
        double sum = 0;
        for (uint32_t i = 0; i < n->d; i++)
            sum += (double)x[i] * x[i];
        for (uint32_t i = 0; i < n->d; i++) {
            double exact = x[i] / sqrt(sum / n->d + 1e-5f) * n->gain[i], v = ref_from16(got[i], type);
            double tolerance = fabs(exact) * (ref_half_ulp(type) + 0x1p-18) + 0x1p-25;
            assert_true(fabs(v - exact) <= tolerance);
            assert_true(fabs(v - cpu[i]) <= tolerance);
        }
        for (uint32_t i = n->d; i < n->ldy; i++)
            assert_int_equal(got[i], 0);
    }
    free(want);
    free(cpu);
}

static void norm_is_class_r(void **state)
{
    (void)state;
    ref_seed("norm_is_class_r");
    for (uint32_t t = 0; t < N_WIDTHS; t++) {
        struct norm_data n = norm_make(1 + ref_below(3), widths[t]);
        uint16_t *y = ref_alloc<uint16_t>((size_t)n.m * n.ldy);
        for (int type : types) {
            norm_run(&n, y, NULL, NULL, n.m, type);
            norm_check(&n, y, type);
        }
        ref_free(y);
        norm_free(n);
    }
}

/* A row alone, in a list, beside a NaN and an infinite row: the same bits. */
static void norm_rows_are_their_own(void **state)
{
    (void)state;
    ref_seed("norm_rows_are_their_own");
    struct norm_data n = norm_make(300, 576);
    uint16_t *all = ref_alloc<uint16_t>((size_t)n.m * n.ldy), *y = ref_alloc<uint16_t>((size_t)n.m * n.ldy);
    uint32_t *rows = ref_alloc<uint32_t>(40);
    norm_run(&n, all, NULL, NULL, n.m, CU_BF16);
    norm_check(&n, all, CU_BF16);
    for (uint32_t i = 0; i < 40; i++)
        rows[i] = ref_below(n.m);
    norm_run(&n, y, NULL, rows, 40, CU_BF16);
    for (uint32_t i = 0; i < 40; i++)
        assert_memory_equal(y + (size_t)i * n.ldy, all + (size_t)rows[i] * n.ldy, n.ldy * 2);
    norm_run(&n, y, NULL, rows, 1, CU_BF16);
    assert_memory_equal(y, all + (size_t)rows[0] * n.ldy, n.ldy * 2);

    n.x[3 * n.d + 17] = NAN;
    n.x[7 * n.d + 100] = -INFINITY;
    norm_run(&n, y, NULL, NULL, n.m, CU_BF16);
    for (uint32_t row = 0; row < n.m; row++) {
        const uint16_t *got = y + (size_t)row * n.ldy;
        if (row != 3 && row != 7)
            assert_memory_equal(got, all + (size_t)row * n.ldy, n.ldy * 2);
        assert_true(row != 3 || got[0] == 0x7fff);
        assert_true(row != 7 || got[100] == 0x7fff); /* inf * 0 */
        for (uint32_t i = n.d; i < n.ldy; i++)
            assert_int_equal(got[i], 0);
    }
    ref_free(rows);
    ref_free(y);
    ref_free(all);
    norm_free(n);
}

/* ---- e4m3 rows ---------------------------------------------------------------------------------------------------------- */

/* A norm to e4m3 is the bf16 norm quantised by cu_rows_quant, and both are the reference. */
static void norm_e4m3_is_norm_then_quant(void **state)
{
    (void)state;
    ref_seed("norm_e4m3_is_norm_then_quant");
    for (uint32_t t = 0; t < N_WIDTHS; t++) {
        struct norm_data n = norm_make(1 + ref_below(3), widths[t]);
        size_t values = (size_t)n.m * n.ldy;
        uint16_t *y = ref_alloc<uint16_t>(values);
        uint8_t *q[2] = {ref_alloc<uint8_t>(values), ref_alloc<uint8_t>(values)}, *want = (uint8_t *)calloc(n.ldy, 1);
        float *scale[2] = {ref_alloc<float>(n.m), ref_alloc<float>(n.m)};
        if (n.m > 1) /* a row of zeros */
            memset(n.x + n.d, 0, n.d * 4);
        norm_run(&n, y, NULL, NULL, n.m, CU_BF16);
        norm_run(&n, q[0], scale[0], NULL, n.m, CU_E4M3);
        struct cu_quant p = {y, q[1], scale[1], n.m, n.d, n.ldy, n.ldy, CU_BF16};
        assert_int_equal(cu_rows_quant(ref_stream, &p), ST_OK);
        ref_sync();
        assert_memory_equal(q[0], q[1], values);
        assert_memory_equal(scale[0], scale[1], n.m * 4);
        for (uint32_t row = 0; row < n.m; row++) {
            float s = quant_ref(want, y + (size_t)row * n.ldy, n.d, CU_BF16);
            assert_memory_equal(&scale[0][row], &s, 4);
            assert_memory_equal(q[0] + (size_t)row * n.ldy, want, n.ldy);
        }
        ref_free(y);
        for (int i = 0; i < 2; i++) {
            ref_free(q[i]);
            ref_free(scale[i]);
        }
        free(want);
        norm_free(n);
    }
}

/* Rows across the whole range of the type: largest, subnormal, zero, NaN, infinite. */
static void quant_takes_every_row(void **state)
{
    (void)state;
    ref_seed("quant_takes_every_row");
    static const uint32_t ks[] = {1, 3, 64, 1000, 14336, 16384, 20001};
    for (uint32_t k : ks)
        for (int type : types) {
            uint32_t m = 9, ldx = cu_round_up(k, 8), ldq = cu_round_up(k, 64);
            uint16_t *x = ref_alloc<uint16_t>((size_t)m * ldx), inf = type == CU_BF16 ? 0x7f80 : 0x7c00;
            uint8_t *q = ref_alloc<uint8_t>((size_t)m * ldq), *want = (uint8_t *)calloc(ldq, 1);
            float *scale = ref_alloc<float>(m);
            for (uint32_t row = 0; row < m; row++)
                for (uint32_t i = 0; i < k; i++)
                    x[(size_t)row * ldx + i] = ref_to16(ldexpf(ref_normal(), (int)row * 4 - 16), type);
            for (uint32_t i = 0; i < k; i++) {
                x[i] = (uint16_t)(ref_below(4) | ref_below(2) << 15); /* subnormal, and below the smallest scale */
                x[ldx + i] = ref_below(2) ? 0x8000 : 0;
            }
            x[2 * ldx + k / 2] = (uint16_t)(inf - 1);
            x[3 * ldx + k / 2] = (uint16_t)(inf + 1);
            x[4 * ldx + k / 2] = (uint16_t)(inf | 0x8000);
            struct cu_quant p = {x, q, scale, m, k, ldx, ldq, (uint8_t)type};
            assert_int_equal(cu_rows_quant(ref_stream, &p), ST_OK);
            ref_sync();
            for (uint32_t row = 0; row < m; row++) {
                float s = quant_ref(want, x + (size_t)row * ldx, k, type);
                if (row == 3)
                    assert_true(scale[row] != scale[row]);
                else
                    assert_memory_equal(&scale[row], &s, 4);
                assert_memory_equal(q + (size_t)row * ldq, want, ldq);
            }
            assert_true(scale[0] > 0 && scale[1] == 0x1p-18f / 448.0f && isinf(scale[4]));
            ref_free(x);
            ref_free(q);
            ref_free(scale);
            free(want);
        }
}

/* ---- embedding ---------------------------------------------------------------------------------------------------------- */

static void embed_takes_rows_of_the_table(void **state)
{
    (void)state;
    ref_seed("embed_takes_rows_of_the_table");
    static const uint32_t ms[] = {1, 3, 300};
    for (uint32_t t = 0; t < N_WIDTHS; t++)
        for (int type : types) {
            uint32_t m = widths[t] > 600 ? 2 : ms[ref_below(3)], d = widths[t], ld = cu_round_up(d, 64), vocab = 11;
            float scale = ref_below(2) ? 1.0f : 11.3137f;
            uint16_t *table = ref_alloc<uint16_t>((size_t)vocab * ld);
            int32_t *tokens = ref_alloc<int32_t>(m);
            float *x = ref_alloc<float>((size_t)m * d);
            for (size_t i = 0; i < (size_t)vocab * ld; i++)
                table[i] = ref_to16(ref_normal(), type);
            for (uint32_t i = 0; i < m; i++)
                tokens[i] = (int32_t)ref_below(vocab);
            struct cu_embed p = {tokens, table, x, m, d, ld, scale, (uint8_t)type};
            assert_int_equal(cu_rows_embed(ref_stream, &p), ST_OK);
            ref_sync();
            for (uint32_t row = 0; row < m; row++)
                for (uint32_t i = 0; i < d; i++)
                    assert_true(x[(size_t)row * d + i] ==
                                ref_from16(table[(size_t)tokens[row] * ld + i], type) * scale);
            ref_free(table);
            ref_free(tokens);
            ref_free(x);
        }
}

/* ---- SwiGLU ------------------------------------------------------------------------------------------------------------- */

struct swiglu_data {
    uint16_t *gu, *y;
    struct cu_swiglu p;
};

static struct swiglu_data swiglu_make(uint32_t m, uint32_t width, int type, float spread)
{
    uint32_t ldgu = 2 * cu_round_up(width, 8), ldy = cu_round_up(width, 64);
    struct swiglu_data s = {ref_alloc<uint16_t>((size_t)m * ldgu), ref_alloc<uint16_t>((size_t)m * ldy), {}};
    s.p = {s.gu, s.y, m, width, ldgu, ldy, (uint8_t)type};
    for (size_t i = 0; i < (size_t)m * ldgu; i++)
        s.gu[i] = ref_to16(ref_normal() * (i / 8 % 2 ? 1 : spread), type);
    for (uint32_t row = 0; row < m; row++) /* what lies beside the last gates and ups is not looked at */
        for (uint32_t i = width; i < cu_round_up(width, 8); i++)
            s.gu[row * ldgu + i / 8 * 16 + i % 8] = 0x7fff;
    return s;
}

static void swiglu_run(struct swiglu_data *s)
{
    memset(s->y, 0xa5, (size_t)s->p.m * s->p.ldy * 2);
    assert_int_equal(cu_rows_swiglu(ref_stream, &s->p), ST_OK);
    ref_sync();
}

static void swiglu_free(struct swiglu_data s)
{
    ref_free(s.gu);
    ref_free(s.y);
}

static void swiglu_matches_double_and_cpu(void **state)
{
    (void)state;
    ref_seed("swiglu_matches_double_and_cpu");
    static const uint32_t ms[] = {1, 2, 20};
    for (uint32_t t = 0; t < N_WIDTHS; t++)
        for (int type : types) {
            struct swiglu_data s = swiglu_make(ms[t % 3], widths[t], type, 4);
            swiglu_run(&s);
            for (uint32_t row = 0; row < s.p.m; row++)
                for (uint32_t i = 0; i < s.p.ldy; i++) {
                    uint16_t got = s.y[(size_t)row * s.p.ldy + i];
                    if (i >= s.p.width) {
                        assert_int_equal(got, 0);
                        continue;
                    }
                    const uint16_t *group = s.gu + (size_t)row * s.p.ldgu + i / 8 * 16 + i % 8;
                    float g = ref_from16(group[0], type), u = ref_from16(group[8], type), cpu;
                    double exact = g / (1 + exp(-(double)g)) * u, v = ref_from16(got, type);
                    double tolerance = fabs(exact) * (ref_half_ulp(type) + 0x1p-18) + 0x1p-25;
                    cpu_rows_c.silu_mul(&cpu, &g, &u, 1);
                    assert_true(fabs(v - exact) <= tolerance);
                    assert_true(fabs(v - cpu) <= tolerance);
                }
            swiglu_free(s);
        }
}

/* Gates far out, and values that are no numbers. */
static void swiglu_at_the_ends(void **state)
{
    (void)state;
    struct swiglu_data s = swiglu_make(1, 8, CU_BF16, 1);
    static const float gate[8] = {-200, 200, -1e30f, 1e30f, 0, NAN, INFINITY, 1}, up[8] = {3, 3, 1, 1, 5, 1, 1, NAN};
    for (int i = 0; i < 8; i++) {
        s.gu[i] = ref_to16(gate[i], CU_BF16);
        s.gu[8 + i] = ref_to16(up[i], CU_BF16);
    }
    swiglu_run(&s);
    float y[8];
    for (int i = 0; i < 8; i++)
        y[i] = ref_from16(s.y[i], CU_BF16);
    assert_true(y[0] == 0 && y[1] == 600 && y[2] == 0 && y[3] == ref_from16(s.gu[3], CU_BF16) && y[4] == 0);
    assert_true(y[5] != y[5] && y[6] == INFINITY && y[7] != y[7]);
    swiglu_free(s);
}

/* ---- shapes ------------------------------------------------------------------------------------------------------------- */

static void wrong_shapes_are_refused(void **state)
{
    (void)state;
    float x[1] = {};
    uint64_t before = simt_switches();
    struct cu_norm norm[] = {{x, NULL, x, x, x, 0, 8, 64, 0, CU_BF16},
                             {x, NULL, x, x, x, 1, 0, 64, 0, CU_BF16},
                             {x, NULL, x, x, x, 1, 65, 64, 0, CU_BF16},
                             {x, NULL, x, x, x, 1, 8, 12, 0, CU_BF16},
                             {x, NULL, x, x, x, 1, 8, 64, 0, CU_F32}};
    for (struct cu_norm &p : norm)
        assert_int_equal(cu_rows_norm(ref_stream, &p), ST_EINVAL);
    struct cu_quant quant[] = {{x, x, x, 0, 8, 8, 64, CU_BF16},
                               {x, x, x, 1, 9, 8, 64, CU_BF16},
                               {x, x, x, 1, 9, 16, 8, CU_BF16},
                               {x, x, x, 1, 9, 12, 64, CU_BF16},
                               {x, x, x, 1, 8, 8, 64, CU_E4M3}};
    for (struct cu_quant &p : quant)
        assert_int_equal(cu_rows_quant(ref_stream, &p), ST_EINVAL);
    struct cu_embed embed[] = {{NULL, x, x, 0, 8, 64, 1, CU_BF16},
                               {NULL, x, x, 1, 8, 4, 1, CU_BF16},
                               {NULL, x, x, 1, 8, 12, 1, CU_BF16},
                               {NULL, x, x, 1, 8, 64, 1, CU_E4M3}};
    for (struct cu_embed &p : embed)
        assert_int_equal(cu_rows_embed(ref_stream, &p), ST_EINVAL);
    struct cu_swiglu swiglu[] = {{x, x, 0, 8, 16, 64, CU_BF16},
                                 {x, x, 1, 9, 24, 64, CU_BF16},
                                 {x, x, 1, 9, 32, 8, CU_BF16},
                                 {x, x, 1, 8, 16, 64, CU_F32}};
    for (struct cu_swiglu &p : swiglu)
        assert_int_equal(cu_rows_swiglu(ref_stream, &p), ST_EINVAL);
    ref_sync();
    assert_true(simt_switches() == before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        REF_TEST(norm_is_class_r),
        REF_TEST(norm_rows_are_their_own),
        REF_TEST(norm_e4m3_is_norm_then_quant),
        REF_TEST(quant_takes_every_row),
        REF_TEST(embed_takes_rows_of_the_table),
        REF_TEST(swiglu_matches_double_and_cpu),
        REF_TEST(swiglu_at_the_ends),
        REF_TEST(wrong_shapes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
