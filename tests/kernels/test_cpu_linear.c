/* The matrix kernels: every instruction set that this machine has gives the bits of plain C, for every type, every number
 * of rows and odd shapes, and reads nothing outside of its operands; plain C agrees with the arithmetic in double. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "cpu_be.h"
#include "kernels/ref_weight.h"
#include "mem.h"

#include <immintrin.h>
#include <math.h>
#include <sys/mman.h>

static const char *const isas[] = {"c", "avx2", "avxvnni", "avx512", "amx"};
enum { N_ISA = 5 };

static uint64_t seed = 20261122;

/* `bytes` that end right before an unreadable page; *base and *size for munmap. */
static uint8_t *guarded(size_t bytes, void **base, size_t *size)
{
    size_t page = 4096, body = (bytes + 63 + page - 1) / page * page;
    uint8_t *p = mmap(NULL, body + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    assert_int_equal(mprotect(p + page, body, PROT_READ | PROT_WRITE), 0);
    *base = p;
    *size = body + 2 * page;
    return p + page + body - bytes;
}

static struct be *backend(const char *isa, uint32_t threads, bool exact)
{
    struct be *be = NULL;
    struct err e = {0};
    struct be_options o = {.device = "cpu", .threads = threads, .cpu_isa = isa, .cpu_exact = exact};
    int s = be_create(&be, &o, &e);
    if (s == ST_EUNSUP)
        return NULL;
    assert_int_equal(s, ST_OK);
    return be;
}

static struct be_weight *weight(struct be *be, enum be_type t, uint32_t rows, uint32_t k, const uint8_t *data)
{
    struct be_weight_desc d = {.use = BE_USE_LINEAR,
                               .k = k,
                               .n_parts = 1,
                               .parts = {{.type = t, .rows = rows, .data = data}},
                               .name = "w"};
    struct be_weight *w = NULL;
    struct err e = {0};
    int s = be->ops->weight_create(be, &d, &w, &e);
    if (s)
        print_message("%s\n", e.text);
    assert_int_equal(s, ST_OK);
    return w;
}

/* y[rows][tiles * 16] of one kernel over guarded copies of the packed weight and of the panels. */
static void gemm(const struct cpu_be *b, const struct be_weight *w, const float *x, uint32_t rows, float *y)
{
    void *wb, *pb;
    size_t ws, ps, panel = cpu_linear_panel_bytes(w->cls, w->k);
    const struct cpu_part *p = &w->parts[0];
    uint8_t *data = guarded(p->tiles * p->tile_bytes, &wb, &ws);
    uint8_t *act = guarded((rows + 15) / 16 * panel, &pb, &ps);
    memcpy(data, p->data, p->tiles * p->tile_bytes);
    for (uint32_t r = 0; r < rows; r++)
        b->pick.linear.store[w->cls](x + (size_t)r * w->k, 0, w->k, act + r / 16 * panel, r % 16);
    const struct cpu_gemm g = {.w = data,
                               .tile_bytes = p->tile_bytes,
                               .n_tiles = p->tiles,
                               .k = w->k_pad,
                               .act = act,
                               .panel_bytes = panel,
                               .n_rows = rows,
                               .out = y,
                               .ld = p->tiles * 16};
    b->pick.linear.gemm[p->type](&g);
    munmap(wb, ws);
    munmap(pb, ps);
}

static void random_rows(float *x, uint32_t rows, uint32_t k)
{
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t i = 0; i < k; i++) {
            float v = ref_unit(&seed);
            x[(size_t)r * k + i] = r % 7 == 5 ? v * 1e-36f : r % 7 == 6 && i / 32 % 2 ? 0 : v;
        }
}

static void check_shape(enum be_type t, uint32_t n, uint32_t k, bool exact)
{
    enum { ROWS = 35 };
    uint8_t *file = ref_weight_random(t, n, k, &seed);
    float *x = malloc((size_t)ROWS * k * sizeof *x);
    uint32_t ld = (n + 15) / 16 * 16;
    float *want = malloc((size_t)ROWS * ld * sizeof *want), *got = malloc((size_t)ROWS * ld * sizeof *got);
    random_rows(x, ROWS, k);
    for (int i = 0; i < N_ISA; i++) {
        struct be *be = backend(isas[i], 1, exact);
        if (!be)
            continue;
        struct be_weight *w = weight(be, t, n, k, file);
        be->ops->begin_step(be, NULL);
        if (i == 0)
            gemm((struct cpu_be *)be, w, x, ROWS, want);
        for (uint32_t rows = 1; rows <= ROWS; rows += rows < 18 ? 1 : 17) {
            gemm((struct cpu_be *)be, w, x, rows, got);
            if (memcmp(got, want, (size_t)rows * ld * sizeof *got)) {
                for (size_t j = 0; j < (size_t)rows * ld; j++)
                    if (cpu_bits_f32(got[j]) != cpu_bits_f32(want[j]))
                        fail_msg("%s %s n %u k %u rows %u: row %zu col %zu is %a, not %a", isas[i],
                                 be_type_name(t), n, k, rows, j / ld, j % ld, got[j], want[j]);
            }
        }
        be->ops->end_step(be, NULL);
        be->ops->weight_destroy(be, w);
        be_destroy(be);
    }
    free(file);
    free(x);
    free(want);
    free(got);
}

static void every_isa_equals_plain_c_bit_for_bit(void **state)
{
    (void)state;
    static const struct {
        enum be_type t;
        uint32_t n, k;
    } shapes[] = {{BE_Q4_0, 48, 96},  {BE_Q4_0, 17, 576}, {BE_Q4_1, 48, 32},  {BE_Q4_1, 33, 1536},
                  {BE_Q8_0, 16, 64},  {BE_Q8_0, 31, 576}, {BE_Q4_K, 32, 256}, {BE_Q4_K, 5, 1024},
                  {BE_Q6_K, 32, 256}, {BE_Q6_K, 40, 768}, {BE_F16, 16, 1},    {BE_F16, 21, 77},
                  {BE_BF16, 16, 2},   {BE_BF16, 19, 77},  {BE_BF16, 64, 512}, {BE_F32, 1, 1},
                  {BE_F32, 37, 101}};
    print_message("seed %llu\n", (unsigned long long)seed);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check_shape(shapes[i].t, shapes[i].n, shapes[i].k, false);
    check_shape(BE_Q4_1, 33, 96, true);
    check_shape(BE_Q6_K, 16, 256, true);
    check_shape(BE_BF16, 16, 45, true);
}

/* Class INT8 is compared with the exact product over the rounded activations, so the tolerance is f32's alone. */
static void plain_c_agrees_with_double(void **state)
{
    (void)state;
    enum { N = 20, K = 768, ROWS = 3 };
    for (int exact = 0; exact < 2; exact++)
        for (int t = 0; t <= BE_Q6_K; t++) {
            struct be *be = backend("c", 1, exact);
            uint8_t *file = ref_weight_random((enum be_type)t, N, K, &seed);
            struct be_weight *w = weight(be, (enum be_type)t, N, K, file);
            float x[ROWS * K], y[ROWS * 32];
            for (int i = 0; i < ROWS * K; i++)
                x[i] = ref_unit(&seed);
            gemm((struct cpu_be *)be, w, x, ROWS, y);
            for (int r = 0; r < ROWS; r++) {
                float *xr = x + r * K;
                for (int g = 0; w->cls == CPU_INT8 && g < K; g += 32) {
                    float amax = 0;
                    for (int i = 0; i < 32; i++)
                        amax = fabsf(xr[g + i]) > amax ? fabsf(xr[g + i]) : amax;
                    for (int i = 0; i < 32; i++)
                        xr[g + i] = (float)nearbyint((double)(xr[g + i] * (127.0f / amax))) * (amax / 127.0f);
                }
                for (int i = 0; w->cls == CPU_BF16 && i < K; i++)
                    xr[i] = cpu_bf16_f32(cpu_f32_bf16(xr[i]));
                uint64_t row_bytes;
                be_type_row_bytes((enum be_type)t, K, &row_bytes);
                for (int n = 0; n < N; n++) {
                    double want = 0, size = 0;
                    for (uint32_t i = 0; i < K; i++) {
                        double v =
                            ref_weight_at((enum be_type)t, file + (size_t)n * row_bytes, i) * (double)xr[i];
                        want += v;
                        size += fabs(v);
                    }
                    if (fabs(want - (double)y[r * 32 + n]) > size * 2e-6 + 1e-7)
                        fail_msg("%s: %g, not %g", be_type_name((enum be_type)t), (double)y[r * 32 + n],
                                 want);
                }
                for (int n = N; n < 32; n++)
                    assert_true(y[r * 32 + n] == 0);
            }
            free(file);
            be->ops->weight_destroy(be, w);
            be_destroy(be);
        }
}

static void unpacked_rows_are_the_file_rows(void **state)
{
    (void)state;
    enum { N = 19, K = 512 };
    struct be *be = backend("auto", 2, false);
    for (int t = 0; t <= BE_Q6_K; t++) {
        uint8_t *file = ref_weight_random((enum be_type)t, N, K, &seed);
        struct be_weight *w = weight(be, (enum be_type)t, N, K, file);
        uint64_t row_bytes;
        be_type_row_bytes((enum be_type)t, K, &row_bytes);
        for (uint32_t n = 0; n < N; n++) {
            float v[K];
            cpu_unpack_row(&w->parts[0], n, K, v);
            for (uint32_t i = 0; i < K; i++) {
                double want = ref_weight_at((enum be_type)t, file + n * row_bytes, i);
                if (fabs(want - (double)v[i]) > fabs(want) * 1e-6 + 1e-8)
                    fail_msg("%s row %u k %u: %g, not %g", be_type_name((enum be_type)t), n, i, (double)v[i],
                             want);
            }
        }
        free(file);
        be->ops->weight_destroy(be, w);
    }
    be_destroy(be);
}

static void a_row_of_inf_or_nan_spoils_only_itself(void **state)
{
    (void)state;
    enum { N = 32, K = 256, ROWS = 9 };
    for (int t = 0; t <= BE_Q6_K; t++)
        for (int i = 0; i < N_ISA; i++) {
            struct be *be = backend(isas[i], 1, false);
            if (!be)
                continue;
            uint8_t *file = ref_weight_random((enum be_type)t, N, K, &seed);
            struct be_weight *w = weight(be, (enum be_type)t, N, K, file);
            static float x[ROWS * K], a[ROWS * N], b[ROWS * N];
            random_rows(x, ROWS, K);
            gemm((struct cpu_be *)be, w, x, ROWS, a);
            x[3 * K + 7] = INFINITY;
            x[4 * K + 100] = NAN;
            gemm((struct cpu_be *)be, w, x, ROWS, b);
            for (int r = 0; r < ROWS; r++) {
                if (r == 3 || r == 4)
                    assert_false(r == 3 && isfinite(b[r * N]));
                else
                    assert_memory_equal(a + r * N, b + r * N, N * sizeof *a);
            }
            free(file);
            be->ops->weight_destroy(be, w);
            be_destroy(be);
        }
}

static void a_shape_that_cannot_be_packed_is_refused_by_name(void **state)
{
    (void)state;
    struct be *be = backend("c", 1, false);
    static const uint8_t zeros[4096];
    struct be_weight *w = NULL;
    struct err e = {0};
    struct be_weight_desc d = {.use = BE_USE_LINEAR,
                               .k = 40,
                               .n_parts = 1,
                               .parts = {{.type = BE_Q4_1, .rows = 3, .data = zeros}},
                               .name = "blk.0.ffn_up.weight"};
    assert_int_equal(be->ops->weight_create(be, &d, &w, &e), ST_EINVAL);
    assert_non_null(strstr(e.text, "blk.0.ffn_up.weight"));
    assert_non_null(strstr(e.text, "[3, 40]"));
    d.k = 32;
    d.use = BE_USE_GATED;
    assert_int_equal(be->ops->weight_create(be, &d, &w, &e), ST_EINVAL);
    d.use = BE_USE_QKV;
    d.n_parts = 3;
    d.head_dim = 24;
    d.parts[1] = d.parts[2] = d.parts[0];
    assert_int_equal(be->ops->weight_create(be, &d, &w, &e), ST_EUNSUP);
    d.use = BE_USE_LINEAR;
    d.n_parts = 9;
    assert_int_equal(be->ops->weight_create(be, &d, &w, &e), ST_EINVAL);
    be_destroy(be);
}

static void an_unknown_isa_is_refused(void **state)
{
    (void)state;
    struct be *be = NULL;
    struct err e = {0};
    struct be_options o = {.device = "cpu", .threads = 1, .cpu_isa = "altivec"};
    assert_int_equal(be_create(&be, &o, &e), ST_EINVAL);
    assert_non_null(strstr(e.text, "altivec"));
}

static void failing_memory_is_reported_and_nothing_leaks(void **state)
{
    (void)state;
    uint64_t live = mem_live();
    uint8_t *file = ref_weight_random(BE_Q4_1, 64, 64, &seed);
    int failures = 0;
    for (uint64_t n = 1;; n++) {
        struct be *be = NULL;
        struct be_weight *w = NULL;
        struct err e = {0};
        struct be_options o = {.device = "cpu", .threads = 2};
        struct be_weight_desc d = {.use = BE_USE_EMBED,
                                   .k = 64,
                                   .n_parts = 1,
                                   .parts = {{.type = BE_Q4_1, .rows = 64, .data = file}}};
        mem_fail_after(n);
        int s = be_create(&be, &o, &e);
        if (s == ST_OK)
            s = be->ops->weight_create(be, &d, &w, &e);
        mem_fail_after(0);
        if (s == ST_OK)
            be->ops->weight_destroy(be, w);
        be_destroy(be);
        assert_int_equal(mem_live(), live);
        if (s == ST_OK)
            break;
        assert_int_equal(s, ST_ENOMEM);
        failures++;
    }
    assert_true(failures >= 5);
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_isa_equals_plain_c_bit_for_bit),
        cmocka_unit_test(plain_c_agrees_with_double),
        cmocka_unit_test(unpacked_rows_are_the_file_rows),
        cmocka_unit_test(a_row_of_inf_or_nan_spoils_only_itself),
        cmocka_unit_test(a_shape_that_cannot_be_packed_is_refused_by_name),
        cmocka_unit_test(an_unknown_isa_is_refused),
        cmocka_unit_test(failing_memory_is_reported_and_nothing_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
