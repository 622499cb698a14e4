/* Row operations: against naive doubles, and every instruction set against plain C, bit for bit. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "rows_isa.h"

#include "mem.h"

static const uint32_t lengths[] = {1, 2, 15, 16, 17, 31, 48, 63, 576, 577, 1536, 2050};
enum { N_LENGTHS = sizeof lengths / sizeof *lengths };

static void fill(float *x, uint32_t n, float scale, uint64_t *s)
{
    for (uint32_t i = 0; i < n; i++)
        x[i] = rows_normal(s) * scale;
}

static void norm_matches_double_and_c(void **state)
{
    (void)state;
    uint64_t s = rows_seed("norm");
    const struct cpu_row_kernels *isa[3];
    uint32_t n_isa = rows_isas(isa);
    for (uint32_t t = 0; t < N_LENGTHS; t++) {
        uint32_t d = lengths[t];
        struct rows_guarded x = rows_guard(d * 4), g = rows_guard(d * 4), out = rows_guard(d * 4);
        float *c = mem_alloc(d * 4), *xp = x.p, *gp = g.p, *op = out.p;
        fill(xp, d, 3, &s);
        fill(gp, d, 1, &s);
        double sum = 0;
        for (uint32_t i = 0; i < d; i++)
            sum += (double)xp[i] * xp[i];
        double inv = 1 / sqrt(sum / d + 1e-5);
        cpu_rows_c.norm(c, xp, gp, d, 1e-5f);
        for (uint32_t i = 0; i < d; i++)
            assert_true(fabs(c[i] - xp[i] * inv * gp[i]) <= 2e-6 * (1 + fabs(xp[i] * inv * gp[i])));
        for (uint32_t k = 0; k < n_isa; k++) {
            isa[k]->norm(op, xp, gp, d, 1e-5f);
            assert_memory_equal(op, c, d * 4);
        }
        isa[n_isa - 1]->norm(xp, xp, gp, d, 1e-5f); /* in place */
        assert_memory_equal(xp, c, d * 4);
        mem_free(c);
        rows_unguard(x);
        rows_unguard(g);
        rows_unguard(out);
    }
}

static void silu_mul_matches_double_and_c(void **state)
{
    (void)state;
    uint64_t s = rows_seed("silu");
    const struct cpu_row_kernels *isa[3];
    uint32_t n_isa = rows_isas(isa);
    for (uint32_t t = 0; t < N_LENGTHS; t++) {
        uint32_t n = lengths[t];
        struct rows_guarded g = rows_guard(n * 4), u = rows_guard(n * 4), out = rows_guard(n * 4);
        float *c = mem_alloc(n * 4), *gp = g.p, *up = u.p, *op = out.p;
        fill(gp, n, t % 3 == 0 ? 60.0f : 4.0f, &s);
        fill(up, n, 2, &s);
        if (n > 31) {
            gp[3] = 1e30f;
            gp[4] = -1e30f;
            gp[5] = INFINITY;
            gp[6] = 0;
        }
        cpu_rows_c.silu_mul(c, gp, up, n);
        for (uint32_t i = 0; i < n; i++) {
            double want = gp[i] / (1 + exp(-(double)gp[i])) * up[i];
            if (isinf(want))
                assert_true(isinf(c[i]) && (c[i] > 0) == (want > 0));
            else
                assert_true(fabs(c[i] - want) <= 1e-6 * fabs(want) + 1e-30);
        }
        for (uint32_t k = 0; k < n_isa; k++) {
            isa[k]->silu_mul(op, gp, up, n);
            assert_memory_equal(op, c, n * 4);
        }
        mem_free(c);
        rows_unguard(g);
        rows_unguard(u);
        rows_unguard(out);
    }
    float nan_in = NAN, one = 1, r;
    for (uint32_t k = 0; k < n_isa; k++) {
        isa[k]->silu_mul(&r, &nan_in, &one, 1);
        assert_true(isnan(r));
    }
}

static void rope_rotates_adjacent_pairs_and_only_rot_dim(void **state)
{
    (void)state;
    uint64_t s = rows_seed("rope");
    const struct cpu_row_kernels *isa[3];
    uint32_t n_isa = rows_isas(isa);
    for (uint32_t rot = 2; rot <= 128; rot += 2) {
        struct rows_guarded t = rows_guard(rot * 4);
        float x[144], c[144], r[144], *cs = t.p;
        fill(x, 144, 1, &s);
        for (uint32_t i = 0; i < rot; i += 2) {
            double a = rows_unit(&s) * 100;
            cs[i] = (float)cos(a);
            cs[i + 1] = (float)sin(a);
        }
        memcpy(c, x, sizeof c);
        cpu_rows_c.rope(c, cs, rot);
        for (uint32_t i = 0; i < rot; i += 2) {
            double x0 = x[i], x1 = x[i + 1], co = cs[i], si = cs[i + 1];
            assert_true(fabs(c[i] - (x0 * co - x1 * si)) < 1e-6);
            assert_true(fabs(c[i + 1] - (x0 * si + x1 * co)) < 1e-6);
        }
        assert_memory_equal(c + rot, x + rot, (144 - rot) * 4);
        for (uint32_t k = 0; k < n_isa; k++) {
            memcpy(r, x, sizeof r);
            isa[k]->rope(r, cs, rot);
            assert_memory_equal(r, c, sizeof r);
        }
        rows_unguard(t);
    }
}

static struct cpu_kv_view make_kv(enum be_type type, uint32_t block_tokens)
{
    struct be_kv_shape shape = {2, 3, 32, block_tokens, 4, type};
    struct cpu_kv_view kv;
    struct err e;
    assert_int_equal(cpu_kv_layout_init(&kv.l, &shape, &e), ST_OK);
    kv.base = mem_zalloc(1, kv.l.total_bytes);
    assert_non_null(kv.base);
    return kv;
}

/* Reads one stored value as a float; written from the layout's description alone. */
static float kv_get(const struct cpu_kv_view *kv, uint32_t layer, uint32_t head, uint32_t slot, uint32_t dim,
                    int v)
{
    const struct cpu_kv_layout *l = &kv->l;
    uint32_t block = slot / l->block_tokens, off = slot % l->block_tokens, d = l->head_dim;
    size_t sub =
        (((size_t)block * l->n_layers + layer) * l->n_kv_heads + head) * (l->block_tokens / 16) + off / 16;
    size_t at = sub * 32 * d + (v ? 16 * d + off % 16 * d + dim : dim * 16 + off % 16);
    if (l->type == BE_F32)
        return ((const float *)(const void *)kv->base)[at];
    uint16_t h = ((const uint16_t *)(const void *)kv->base)[at];
    if (l->type == BE_BF16) {
        uint32_t b = (uint32_t)h << 16;
        float f;
        memcpy(&f, &b, 4);
        return f;
    }
    double m = h & 0x3ff, e = h >> 10 & 31;
    double f = e == 31 ? (m != 0 ? NAN : INFINITY) : e == 0 ? m * 0x1p-24 : (1 + m / 1024) * pow(2, e - 15);
    return (float)(h & 0x8000 ? -f : f);
}

/* Nearest value with `bits` mantissa bits, ties to even. */
static float round_to(float x, int bits, int min_exp)
{
    if (x == 0 || !isfinite(x))
        return x;
    int e;
    frexp(x, &e);
    if (e < min_exp)
        e = min_exp;
    double ulp = ldexp(1, e - bits);
    return (float)(nearbyint(x / ulp) * ulp);
}

static void kv_append_stores_and_rounds(void **state)
{
    (void)state;
    uint64_t s = rows_seed("kv_append");
    const struct cpu_row_kernels *isa[3];
    uint32_t n_isa = rows_isas(isa);
    static const enum be_type types[] = {BE_F32, BE_F16, BE_BF16};
    for (int ty = 0; ty < 3; ty++)
        for (uint32_t bt = 16; bt <= 48; bt += 16) {
            struct cpu_kv_view ref = make_kv(types[ty], bt), kv = make_kv(types[ty], bt);
            for (uint32_t k = 0; k < n_isa; k++) {
                uint64_t again = s;
                struct cpu_kv_view *to = k == 0 ? &ref : &kv;
                for (uint32_t slot = 0; slot < 4 * bt; slot++)
                    for (uint32_t lh = 0; lh < 6; lh++) {
                        float kk[32], vv[32];
                        uint32_t over = 0;
                        for (int i = 0; i < 32; i++) {
                            float scale = ldexpf(1, (int)rows_below(&again, 46) - 28);
                            kk[i] = rows_normal(&again) * scale;
                            vv[i] = rows_normal(&again) * scale;
                            over += fabsf(kk[i]) > 65504;
                            over += fabsf(vv[i]) > 65504;
                        }
                        uint32_t n = isa[k]->kv_append(to, lh / 3, lh % 3, slot, kk, vv);
                        assert_int_equal(n, types[ty] == BE_F16 ? over : 0);
                        for (uint32_t i = 0; k == 0 && i < 32; i++)
                            for (int v = 0; v < 2; v++) {
                                float x = v ? vv[i] : kk[i], want = x;
                                if (types[ty] == BE_F16)
                                    want = round_to(fminf(fmaxf(x, -65504), 65504), 11, -13);
                                if (types[ty] == BE_BF16)
                                    want = round_to(x, 8, -125);
                                assert_true(kv_get(to, lh / 3, lh % 3, slot, i, v) == want);
                            }
                    }
                if (k > 0)
                    assert_memory_equal(kv.base, ref.base, kv.l.total_bytes);
                memset(kv.base, 0, kv.l.total_bytes);
            }
            rows_rand(&s);
            mem_free(ref.base);
            mem_free(kv.base);
        }
}

static void kv_append_keeps_nan_and_saturates_infinity(void **state)
{
    (void)state;
    const struct cpu_row_kernels *isa[3];
    uint32_t n_isa = rows_isas(isa);
    static const enum be_type types[] = {BE_F16, BE_BF16};
    for (uint32_t k = 0; k < n_isa; k++)
        for (int ty = 0; ty < 2; ty++) {
            struct cpu_kv_view kv = make_kv(types[ty], 16);
            float x[32] = {0};
            uint32_t all_ones = 0xffffffffu;
            x[0] = NAN;
            x[1] = INFINITY;
            x[2] = -INFINITY;
            memcpy(&x[3], &all_ones, 4);
            uint32_t over = isa[k]->kv_append(&kv, 0, 0, 5, x, x);
            float inf = types[ty] == BE_F16 ? 65504 : INFINITY;
            assert_int_equal(over, types[ty] == BE_F16 ? 4 : 0);
            for (int v = 0; v < 2; v++) {
                assert_true(isnan(kv_get(&kv, 0, 0, 5, 0, v)));
                assert_true(kv_get(&kv, 0, 0, 5, 1, v) == inf);
                assert_true(kv_get(&kv, 0, 0, 5, 2, v) == -inf);
                assert_true(isnan(kv_get(&kv, 0, 0, 5, 3, v)));
            }
            mem_free(kv.base);
        }
}

static void kv_layout_refuses_what_it_cannot_hold(void **state)
{
    (void)state;
    struct cpu_kv_layout l;
    struct err e;
    struct be_kv_shape ok = {30, 3, 64, 16, 100, BE_F16}, bad;
    assert_int_equal(cpu_kv_layout_init(&l, &ok, &e), ST_OK);
    assert_int_equal(l.block_bytes, 368640);
    assert_int_equal(l.total_bytes, 36864000);
    bad = ok, bad.head_dim = 72;
    assert_int_equal(cpu_kv_layout_init(&l, &bad, &e), ST_EINVAL);
    assert_non_null(strstr(e.text, "head_dim"));
    bad = ok, bad.head_dim = 272;
    assert_int_equal(cpu_kv_layout_init(&l, &bad, &e), ST_EINVAL);
    bad = ok, bad.block_tokens = 24;
    assert_int_equal(cpu_kv_layout_init(&l, &bad, &e), ST_EINVAL);
    assert_non_null(strstr(e.text, "block_tokens"));
    bad = ok, bad.type = BE_Q8_0;
    assert_int_equal(cpu_kv_layout_init(&l, &bad, &e), ST_EINVAL);
    bad = ok, bad.n_blocks = 1u << 31;
    assert_int_equal(cpu_kv_layout_init(&l, &bad, &e), ST_EINVAL);
    bad = ok, bad.n_layers = 1u << 31, bad.n_kv_heads = 1u << 31;
    assert_int_equal(cpu_kv_layout_init(&l, &bad, &e), ST_EINVAL);
    bad = ok, bad.n_layers = 0;
    assert_int_equal(cpu_kv_layout_init(&l, &bad, &e), ST_EINVAL);
}

int main(void)
{
    rows_ftz();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm_matches_double_and_c),
        cmocka_unit_test(silu_mul_matches_double_and_c),
        cmocka_unit_test(rope_rotates_adjacent_pairs_and_only_rot_dim),
        cmocka_unit_test(kv_append_stores_and_rounds),
        cmocka_unit_test(kv_append_keeps_nan_and_saturates_infinity),
        cmocka_unit_test(kv_layout_refuses_what_it_cannot_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
