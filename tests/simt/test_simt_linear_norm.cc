/* lin_stream_norm against the two kernels that it stands for: cu_rows_norm and cu_lin_stream. Every byte of y must be the same:
 * outputs, and what lies beyond them. */
#include "lin_case.h"

/* A linear, and the norm whose rows are its x. */
struct normed {
    struct lin_case c;
    struct cu_norm norm;
    float *rows; /* residual rows: as many as the norm may pick from */
    uint32_t n_rows;
};

static void normed_make(struct normed *t, const struct shape *s, uint32_t d, bool list, uint64_t seed)
{
    uint64_t r = seed ^ 0x5eed;
    case_make(&t->c, s, seed);
    struct cu_lin *p = &t->c.p;
    t->n_rows = s->m + (list ? 5 : 0);
    t->rows = (float *)filled(&t->c, (size_t)(t->n_rows + 1) * d * sizeof *t->rows, 0xff);
    const float size = ldexpf(1, (int)below(&r, 20) - 10);
    for (size_t i = 0; i < (size_t)t->n_rows * d; i++)
        t->rows[i] = size * uniform(&r);
    uint32_t *rows = NULL;
    if (list) {
        rows = (uint32_t *)filled(&t->c, s->m * sizeof *rows, 0xff);
        for (uint32_t i = 0; i < s->m; i++)
            rows[i] = below(&r, t->n_rows);
    }
    float *scales = NULL;
    if (s->wt == CU_E4M3) {
        scales = (float *)filled(&t->c, s->m * sizeof *scales, 0xff);
        p->x_scale = scales;
    }
    t->norm = {t->rows, rows, floats(&t->c, d, &r, 1.0f, 0.8f), (void *)p->x, scales, s->m, d, p->ldx, 1e-5f, s->wt};
}

/* Runs both ways and compares. The linear under test gets no x, and the norm no place to write to. */
static void normed_check(struct normed *t)
{
    const struct cu_lin *p = &t->c.p;
    void *want = malloc(t->c.y_bytes);
    assert_int_equal(cu_rows_norm(stream, &t->norm), ST_OK);
    run(cu_lin_stream, p);
    memcpy(want, p->y, t->c.y_bytes);
    assert_memory_not_equal(want, t->c.before, t->c.y_bytes);
    memcpy(p->y, t->c.before, t->c.y_bytes);

    struct cu_lin lin = *p;
    struct cu_norm norm = t->norm;
    lin.x = NULL;
    lin.ldx = 0;
    if (lin.wt == CU_E4M3)
        lin.x_scale = NULL;
    norm.y = NULL;
    norm.y_scale = NULL;
    norm.ldy = 0;
    assert_int_equal(cu_lin_stream_norm(stream, &lin, &norm), ST_OK);
    assert_int_equal(gpu_stream_sync(stream), ST_OK);
    if (memcmp(p->y, want, t->c.y_bytes))
        fail_msg("seed %llu: types %d -> %d, epilogue %d, m %u n %u k %u d %u, %s: other bits than norm and linear",
                 (unsigned long long)t->c.seed, p->wt, p->yt, p->epilogue, p->m, p->n, p->k, norm.d,
                 norm.rows ? "a list of rows" : "all rows");
    free(want);
}

static void try_shape(const struct shape *s, uint32_t d, bool list, uint64_t seed)
{
    struct normed t;
    normed_make(&t, s, d, list, seed);
    normed_check(&t);
    case_free(&t.c);
}

/* ---- the tests -------------------------------------------------------------------------------------------------------- */

static void test_bits_of_norm_and_linear(void **)
{
    static const uint32_t ns[] = {16, 48, 80};
    uint64_t seed = 1;
    for (uint32_t t = 0; t < COUNT(types); t++)
        for (uint32_t o = 0; o < COUNT(outputs); o++)
            for (uint32_t m = 1; m <= CU_LIN_NORM_ROWS; m++, seed++) {
                const uint32_t k = ks[(t + 3 * o + m) % COUNT(ks)];
                const struct shape s = {types[t], outputs[o].yt, outputs[o].epilogue, m, ns[seed % COUNT(ns)], k};
                try_shape(&s, k - (seed % 3 ? 0 : 1 + seed % 40), seed % 4 == 1, seed);
            }
}

static void test_random_shapes(void **)
{
    for (uint64_t seed = 6000; seed < 6060; seed++) {
        uint64_t r = seed;
        const uint32_t t = below(&r, COUNT(types)), o = below(&r, COUNT(outputs)), m = 1 + below(&r, CU_LIN_NORM_ROWS);
        const uint32_t n = 16 * (1 + below(&r, 20)), k = 64 * (1 + below(&r, 24));
        const struct shape s = {types[t], outputs[o].yt, outputs[o].epilogue, m, n, k};
        try_shape(&s, below(&r, 2) ? k : 1 + below(&r, k), below(&r, 2), seed);
    }
}

/* Rows as long as a thread keeps, and longer ones, of which the rest is read again. */
static void test_long_rows(void **)
{
    static const struct {
        uint8_t wt;
        uint32_t m, k, d;
    } rows[] = {{CU_BF16, 4, 4096, 4096}, {CU_E4M3, 3, 4096, 4095}, {CU_F16, 2, 8192, 8188}, {CU_E4M3, 4, 8256, 8255}};
    for (uint32_t i = 0; i < COUNT(rows); i++) {
        const struct shape s = {rows[i].wt, CU_F32, (uint8_t)(i % 2 ? CU_ADD : CU_STORE), rows[i].m, 32, rows[i].k};
        try_shape(&s, rows[i].d, i % 2, 7000 + i);
    }
}

/* More tiles than blocks: the ring goes on from tile to tile, x and its scales stay. */
static void test_blocks_walk_over_tiles(void **)
{
    const uint32_t sms = gpu_info(gpu)->sms;
    const struct shape shapes[] = {
        {CU_BF16, CU_F32, CU_STORE, 3, 16 * (2 * sms + 3) * 2, 64},
        {CU_F16, CU_F16, CU_SWIGLU, 4, 16 * (6 * sms + 1), 192},
        {CU_E4M3, CU_F32, CU_ADD, 2, 16 * (4 * sms + 1), 1088},
        {CU_BF16, CU_BF16, CU_STORE, 1, 32 * sms * 2 + 16, 576},
    };
    for (uint32_t i = 0; i < COUNT(shapes); i++)
        try_shape(&shapes[i], shapes[i].k, i % 2, 8000 + i);
}

static uint32_t rows_with_nan(const struct cu_lin *p)
{
    uint32_t found = 0;
    for (uint32_t token = 0; token < p->m; token++) {
        uint32_t nans = 0;
        for (uint32_t n = 0; n < p->n_out; n++)
            nans += isnan(get(p->y, p->yt, (size_t)token * p->ldy + n)) != 0;
        assert_true(nans == 0 || nans == p->n_out);
        found |= (uint32_t)(nans != 0) << token;
    }
    return found;
}

/* A row of NaN, or of infinities that a gain of 0 makes NaN, is its own affair. */
static void test_nan_stays_in_its_row(void **)
{
    for (uint32_t t = 0; t < COUNT(types); t++)
        for (uint32_t bad = 0; bad < 4; bad++) {
            const struct shape s = {types[t], CU_F32, CU_STORE, 4, 48, 576};
            struct normed c;
            normed_make(&c, &s, 576, false, 9000 + 4 * t + bad);
            c.rows[bad * 576 + 100 + bad] = bad % 2 ? NAN : INFINITY;
            normed_check(&c);
            assert_int_equal(rows_with_nan(&c.c.p), 1u << bad);
            case_free(&c.c);
        }
}

static void refuse(const struct cu_lin *p, const struct cu_norm *norm)
{
    assert_int_equal(cu_lin_stream_norm(stream, p, norm), ST_EINVAL);
}

static void test_refusals(void **)
{
    const struct shape s = {CU_BF16, CU_F32, CU_ADD, 4, 32, 64};
    struct normed t;
    normed_make(&t, &s, 64, false, 3000);
    struct cu_lin lins[6];
    struct cu_norm norms[8];
    for (struct cu_lin &p : lins)
        p = t.c.p;
    for (struct cu_norm &p : norms)
        p = t.norm;
    lins[0].n = 24;
    lins[1].k = 96;
    lins[2].w = NULL;
    lins[3].y = NULL;
    lins[4].wt = CU_F32;
    lins[5].y = t.rows; /* other blocks read them */
    norms[0].m = 3;
    norms[1].d = 65;
    norms[2].d = 0;
    norms[3].yt = CU_F16;
    norms[4].x = NULL;
    norms[5].gain = NULL;
    norms[6].m = 5;
    norms[7].yt = CU_E4M3;
    for (const struct cu_lin &p : lins)
        refuse(&p, &t.norm);
    for (const struct cu_norm &p : norms)
        refuse(&t.c.p, &p);
    struct cu_lin five = t.c.p;
    five.m = norms[0].m = 5;
    refuse(&five, &norms[0]);
    assert_int_equal(gpu_stream_sync(stream), ST_OK);
    assert_memory_equal(t.c.p.y, t.c.before, t.c.y_bytes);
    case_free(&t.c);
}

/* The longest rows that fit, as cu_lin.h states them, and one stage more. */
static void check_limit(uint32_t m, uint32_t bytes)
{
    const struct shape s = {CU_E4M3, CU_F32, CU_STORE, m, 16, bytes};
    struct normed t;
    normed_make(&t, &s, bytes, false, 4000 + m);
    normed_check(&t);
    t.c.p.k += 128;
    refuse(&t.c.p, &t.norm);
    case_free(&t.c);
}

static void test_limits_h100(void **)
{
    check_limit(4, 30720);
    check_limit(1, 122880);
}

static void test_limits_a100(void **)
{
    check_limit(4, 14336);
    check_limit(1, 57344);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits_of_norm_and_linear), cmocka_unit_test(test_random_shapes),
        cmocka_unit_test(test_long_rows),               cmocka_unit_test(test_blocks_walk_over_tiles),
        cmocka_unit_test(test_nan_stays_in_its_row),    cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_limits_h100),
    };
    const struct CMUnitTest a100[] = {
        cmocka_unit_test(test_limits_a100),
        cmocka_unit_test(test_blocks_walk_over_tiles),
    };
    return cmocka_run_group_tests(tests, setup, teardown) + cmocka_run_group_tests(a100, setup_a100, teardown);
}
