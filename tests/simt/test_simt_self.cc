/* The emulation itself: it computes what the PTX ISA says, and it reports every broken rule that it promises to report. */
extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
}

#include "launch.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static struct gpu *g;
static struct gpu_stream *stream;

static int open_gpu(void **)
{
    simt_seed(7);
    assert_int_equal(gpu_open(&g, NULL), ST_OK);
    assert_int_equal(gpu_stream_create(g, &stream), ST_OK);
    return 0;
}

static int close_gpu(void **)
{
    gpu_stream_destroy(stream);
    gpu_close(g);
    assert_int_equal(gpu_sim_live(), 0);
    return 0;
}

/* ---- arithmetic ------------------------------------------------------------------------------------------------------- */

struct product {
    const uint16_t *a, *b; /* [16][16], [8][16] */
    float *c;              /* [16][8] */
};

/* The address recipes of the real kernels: ldmatrix of a row-major A, of B as [n][k]. */
template <class T> PTX_KERNEL(32, 1) product_kernel(PTX_PARAM(struct product) p)
{
    PTX_SMEM(smem);
    uint32_t lane = threadIdx.x, g4 = lane >> 2, t = lane & 3;
    ptx_cp16(smem + ptx_swizzle128(lane / 2, lane % 2), p.a + lane * 8, 16);
    ptx_cp_commit();
    if (lane < 16)
        ptx_cp16(smem + 2048 + ptx_swizzle128(lane / 2, lane % 2), p.b + lane * 8, 16);
    ptx_cp_commit();
    ptx_cp_wait<0>();
    ptx_syncthreads();
    uint32_t a[4], b[2];
    ptx_ldmatrix_x4(a, smem + ptx_swizzle128(lane & 15, lane >> 4));
    ptx_ldmatrix_x2(b, smem + 2048 + ptx_swizzle128(lane & 7, lane >> 3 & 1));
    float c[4] = {0, 0, 0, 0};
    T::mma(c, a, b[0], b[1]);
    p.c[g4 * 8 + 2 * t] = c[0];
    p.c[g4 * 8 + 2 * t + 1] = c[1];
    p.c[(g4 + 8) * 8 + 2 * t] = c[2];
    p.c[(g4 + 8) * 8 + 2 * t + 1] = c[3];
}

template <class T> static void check_product(void)
{
    struct product p;
    uint16_t *a = (uint16_t *)gpu_alloc(g, 512), *b = (uint16_t *)gpu_alloc(g, 256);
    p.a = a, p.b = b, p.c = (float *)gpu_alloc(g, 512);
    for (int i = 0; i < 256; i++)
        a[i] = (uint16_t)T::pack((float)(rand() % 2001 - 1000) / 256, 0);
    for (int i = 0; i < 128; i++)
        b[i] = (uint16_t)T::pack((float)(rand() % 2001 - 1000) / 256, 0);
    assert_int_equal(gpu_launch(stream, "product", product_kernel<T>, dim3(1), 32, 3072, false, p), ST_OK);
    assert_int_equal(gpu_stream_sync(stream), ST_OK);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            double sum = 0;
            for (int k = 0; k < 16; k++)
                sum += (double)T::lo(a[i * 16 + k]) * (double)T::lo(b[j * 16 + k]);
            assert_true(p.c[i * 8 + j] == (float)sum);
        }
    gpu_free(g, a), gpu_free(g, b), gpu_free(g, p.c);
}

static void fragments_give_the_product(void **)
{
    check_product<ptx_bf16>();
    check_product<ptx_f16>();
}

static float e4m3_value(uint32_t v)
{
    int e = (int)(v >> 3 & 15), m = (int)(v & 7);
    return e ? ldexpf((float)(8 + m), e - 10) : ldexpf((float)m, -9);
}

/* The nearest code by search; ties to the even one. */
static uint32_t e4m3_nearest(float f)
{
    uint32_t sign = ptx_bits(f) >> 24 & 0x80, lo = 0, hi = 0x7e;
    float a = fabsf(f);
    if (a != a)
        return 0x7f;
    if (a >= 448)
        return sign | 0x7e;
    while (hi - lo > 1) {
        uint32_t mid = (lo + hi) / 2;
        (e4m3_value(mid) <= a ? lo : hi) = mid;
    }
    double below = (double)a - (double)e4m3_value(lo), above = (double)e4m3_value(hi) - (double)a;
    return sign | (below < above || (below == above && lo % 2 == 0) ? lo : hi);
}

/* Every float whose low 12 bits are at an edge (all of them with --long): what rounds is above them. */
static void e4m3_rounds_to_nearest(void **)
{
    static const uint32_t edges[] = {0, 1, 0x7ff, 0x800, 0x801, 0xfff};
    const char *env = getenv("STATOR_TEST_LONG");
    uint32_t all = env && strcmp(env, "yes") == 0, n = all ? 4096 : 6;
    for (uint64_t high = 0; high < 1u << 20; high++)
        for (uint32_t i = 0; i < n; i++) {
            uint32_t bits = (uint32_t)(high << 12) | (all ? i : edges[i]);
            uint32_t got = ptx_e4m3x2(ptx_float(bits), 1.0f), want = e4m3_nearest(ptx_float(bits)) | 0x38 << 8;
            if (got != want)
                fail_msg("%08x: %04x, not %04x", bits, got, want);
        }
    for (uint32_t v = 0; v < 0x7f; v++) {
        assert_true(ptx_f16_f32(ptx_e4m3x2_f16x2(v)) == e4m3_value(v));
        assert_true(ptx_f16_f32(ptx_e4m3x2_f16x2(v << 8 | 0x8000) >> 16) == -e4m3_value(v));
    }
}

static void halves_round_to_nearest(void **)
{
    for (uint32_t h = 0; h < 0x7c00; h++) { /* neighbours, the middle between them, and a little off it */
        float a = ptx_f16_f32(h), b = h == 0x7bff ? 65536.0f : ptx_f16_f32(h + 1), mid = a / 2 + b / 2;
        assert_int_equal(ptx_f16x2(a, -a), h | (h | 0x8000u) << 16);
        assert_int_equal(ptx_f16x2(mid, 0), h + (h & 1));
        assert_int_equal(ptx_f16x2(nextafterf(mid, 0), 0), h);
        assert_int_equal(ptx_f16x2(nextafterf(mid, INFINITY), 0), h + 1);
    }
    assert_int_equal(ptx_f16x2(INFINITY, -NAN), 0x7fff7c00u);
    assert_true(isinf(ptx_f16_f32(0xfc00)) && isnan(ptx_f16_f32(0x7e00)));
    for (uint32_t h = 0; h < 0x7f80; h++) {
        uint32_t mid = h << 16 | 0x8000;
        assert_int_equal(ptx_bf16x2(ptx_float(h << 16), ptx_float(h << 16 | 0x80000000u)), h | (h | 0x8000u) << 16);
        assert_int_equal(ptx_bf16x2(ptx_float(mid), ptx_float(mid - 1)), (h + (h & 1)) | h << 16);
        assert_int_equal(ptx_bf16x2(ptx_float(mid + 1), 0), h + 1);
    }
    assert_int_equal(ptx_bf16x2(NAN, -NAN), 0x7fff7fffu);
    assert_int_equal(ptx_f16x2_mul(ptx_f16x2(3, 0x1p-24f), ptx_f16x2(-5, 0.5f)), ptx_f16x2(-15, 0));
}

static void small_functions(void **)
{
    assert_int_equal(ptx_prmt(0x33221100u, 0x77665544u, 0x7401), 0x77440011u);
    assert_int_equal(ptx_prmt(0x80, 0, 0x8880), 0xffffff80u);
    assert_int_equal(ptx_clz(0), 32);
    assert_true(ptx_exp2(-INFINITY) == 0 && ptx_exp2(-126.5f) == 0 && ptx_exp2(3) == 8);
}

/* ---- collectives ------------------------------------------------------------------------------------------------------ */

struct sums {
    uint32_t *out; /* [blocks][threads] */
    uint32_t *total;
    uint32_t rounds;
};

/* Shuffles, a ballot, shared memory, named barriers and an atomic; the result is one closed form per thread. */
PTX_KERNEL(128, 1) sums_kernel(PTX_PARAM(struct sums) p)
{
    PTX_SMEM(smem);
    uint32_t *warp_sum = (uint32_t *)smem;
    ptx_pdl_wait();
    uint32_t tid = threadIdx.x, lane = tid % 32, warp = tid / 32, v = tid + blockIdx.x;
    for (uint32_t r = 0; r < p.rounds; r++) {
        uint32_t s = v;
        for (int m = 16; m; m /= 2)
            s += ptx_shfl_xor(s, m);
        if (lane == 0)
            warp_sum[warp] = s;
        ptx_bar(1 + (int)warp / 2, 64);
        s = warp_sum[warp] + warp_sum[warp ^ 1];
        ptx_syncthreads();
        uint32_t odd = ptx_ballot(lane & 1), below = ptx_shfl_up(lane, 3), last = ptx_shfl(lane, 31);
        if (lane == 0 && odd == 0xaaaaaaaau && last == 31)
            ptx_atomic_add(p.total, 1u);
        p.out[blockIdx.x * blockDim.x + tid] = s + below;
    }
}

static void collectives_agree(void **)
{
    enum { BLOCKS = 7, THREADS = 128 };
    struct sums p = {(uint32_t *)gpu_alloc(g, 4 * BLOCKS * THREADS), (uint32_t *)gpu_alloc(g, 4), 2};
    assert_int_equal(gpu_launch(stream, "sums", sums_kernel, dim3(BLOCKS), THREADS, 16, true, p), ST_OK);
    assert_int_equal(gpu_stream_sync(stream), ST_OK);
    for (uint32_t b = 0; b < BLOCKS; b++)
        for (uint32_t i = 0; i < THREADS; i++) {
            uint32_t first = i & ~63u, lane = i % 32;
            assert_int_equal(p.out[b * THREADS + i], 64 * (first + b) + 63 * 32 + (lane < 3 ? lane : lane - 3));
        }
    assert_int_equal(*p.total, BLOCKS * THREADS / 32 * 2);
    gpu_free(g, p.out), gpu_free(g, p.total);
}

static void it_is_fast_enough(void **)
{
    struct sums p = {(uint32_t *)gpu_alloc(g, 4 * 256), (uint32_t *)gpu_alloc(g, 4), 2000};
    uint64_t before = simt_switches();
    clock_t t = clock();
    assert_int_equal(gpu_launch(stream, "sums", sums_kernel, dim3(2), 128, 16, true, p), ST_OK);
    assert_int_equal(gpu_stream_sync(stream), ST_OK);
    double s = (double)(clock() - t) / CLOCKS_PER_SEC, n = (double)(simt_switches() - before);
    print_message("%.1f M switches in %.3f s: %.1f M/s\n", n / 1e6, s, n / 1e6 / s);
    gpu_free(g, p.out), gpu_free(g, p.total);
}

/* ---- broken rules ----------------------------------------------------------------------------------------------------- */

enum wrong {
    NOTHING,
    TWO_SITES,
    LEFT_WARP,
    LEFT_BARRIER,
    HALF_BARRIER,
    BARRIER_COUNT,
    MISALIGNED_ROW,
    ROW_OUTSIDE,
    SHARED_BANKS,
    COPY_OUTSIDE,
    COPY_FROM_NOWHERE,
    WRITE_BEHIND,
    WRITE_EDGE,
    NULL_READ,
    NO_PDL_WAIT
};

struct breaking {
    enum wrong what;
    uint32_t *out;
};

PTX_KERNEL(64, 1) breaking_kernel(PTX_PARAM(struct breaking) p)
{
    PTX_SMEM(smem);
    uint32_t tid = threadIdx.x, r[4];
    if (p.what != NO_PDL_WAIT || tid != 33)
        ptx_pdl_wait();
    if (p.what == TWO_SITES && tid == 5)
        ptx_syncwarp();
    if ((p.what == LEFT_WARP && tid == 5) || (p.what == LEFT_BARRIER && tid >= 32))
        return;
    if (p.what == HALF_BARRIER && tid % 32 >= 16)
        ptx_bar(2, 32);
    if (p.what == LEFT_BARRIER || p.what == BARRIER_COUNT)
        ptx_bar(p.what == BARRIER_COUNT ? 1 : 0, p.what == LEFT_BARRIER || tid < 32 ? 64 : 32);
    ptx_syncwarp();
    if (p.what == MISALIGNED_ROW || p.what == ROW_OUTSIDE)
        ptx_ldmatrix_x4(r, smem + tid % 32 * 16 + (p.what == MISALIGNED_ROW ? 8 : 0) + (p.what == ROW_OUTSIDE ? 544 : 0));
    if (p.what == SHARED_BANKS)
        ptx_ldmatrix_x4(r, smem + tid % 32 * 32);
    if (p.what == COPY_OUTSIDE || p.what == COPY_FROM_NOWHERE)
        ptx_cp16(smem + (p.what == COPY_OUTSIDE ? 1040 : 0), p.what == COPY_OUTSIDE ? (void *)p.out : (void *)smem, 16);
    if (p.what == WRITE_BEHIND)
        ((volatile unsigned char *)smem)[1040] = 1;
    if (p.what == WRITE_EDGE)
        ((volatile uint32_t *)p.out)[64] = 1;
    p.out[tid] = *(p.what == NULL_READ ? (volatile uint32_t *)16 : p.out);
}

static void broken_rules_are_reported(void **)
{
    static const char *const texts[] = {NULL,
                                        "syncwarp, but lanes|syncwarp of line",
                                        "lanes 00000020 of the warp have left|lanes",
                                        "have left the kernel|the thread has left",
                                        "came to this barrier|wait",
                                        "but others wait for",
                                        "ldmatrix: byte",
                                        "ldmatrix: byte",
                                        "share banks",
                                        "copy to byte 1040 of 1040",
                                        "copy of 16 bytes from",
                                        "writes outside of its 1040 bytes",
                                        "edge of an allocation",
                                        "illegal memory access at",
                                        "left without ptx_pdl_wait"};
    for (int what = NOTHING; what <= NO_PDL_WAIT; what++)
        for (uint64_t seed = 1; seed <= 5; seed++) {
#ifdef __SANITIZE_ADDRESS__
            if (what >= WRITE_BEHIND && what <= NULL_READ)
                continue; /* it ends the program before we do */
#endif
            simt_seed(seed);
            struct gpu *g2;
            struct gpu_stream *s2;
            assert_int_equal(gpu_open(&g2, NULL), ST_OK);
            assert_int_equal(gpu_stream_create(g2, &s2), ST_OK);
            struct breaking p = {(enum wrong)what, (uint32_t *)gpu_alloc(g2, 256)};
            simt_catch();
            gpu_launch(s2, "breaking", breaking_kernel, dim3(3), 64, 1040, true, p);
            int rc = gpu_stream_sync(s2);
            const char *text = simt_caught();
            if (what == NOTHING) {
                assert_int_equal(rc, ST_OK);
                assert_null(text);
            } else {
                char want[80], *second;
                snprintf(want, sizeof want, "%s", texts[what]);
                if ((second = strchr(want, '|')) != NULL)
                    *second++ = 0;
                if (!text || (!strstr(text, want) && !(second && strstr(text, second))))
                    fail_msg("case %d, seed %d: reported %s", what, (int)seed, text ? text : "nothing");
                assert_true(rc == ST_EDEVICE || what == WRITE_EDGE);
            }
            gpu_free(g2, p.out);
            gpu_stream_destroy(s2);
            gpu_close(g2);
        }
}

/* ---- copies ----------------------------------------------------------------------------------------------------------- */

struct copying {
    const uint32_t *from;
    uint32_t *out; /* [4][32] */
};

PTX_KERNEL(32, 1) copying_kernel(PTX_PARAM(struct copying) p)
{
    PTX_SMEM(smem);
    uint32_t tid = threadIdx.x;
    const uint32_t *mine = (const uint32_t *)(smem + tid * 16);
    ptx_cp16(smem + tid * 16, p.from + tid * 4, 16);
    ptx_cp_commit();
    ptx_cp16(smem + 512 + tid * 16, p.from + tid * 4, 8);
    ptx_cp_commit();
    ptx_cp16(smem + 1024 + tid * 16, NULL, 0);
    p.out[tid] = mine[0]; /* poison: not waited for */
    ptx_cp_wait<1>();
    p.out[32 + tid] = mine[0];
    p.out[64 + tid] = mine[128];
    ptx_cp_commit();
    ptx_cp_wait<0>();
    p.out[96 + tid] = mine[129] + mine[130] + mine[256];
}

static void copies_land_when_waited_for(void **)
{
    uint32_t *from = (uint32_t *)gpu_alloc(g, 512);
    struct copying p = {from, (uint32_t *)gpu_alloc(g, 512)};
    for (uint32_t i = 0; i < 128; i++)
        from[i] = i + 1;
    assert_int_equal(gpu_launch(stream, "copying", copying_kernel, dim3(1), 32, 1536, false, p), ST_OK);
    assert_int_equal(gpu_stream_sync(stream), ST_OK);
    for (uint32_t i = 0; i < 32; i++) {
        assert_int_equal(p.out[i], 0xffffffffu);
        assert_int_equal(p.out[32 + i], 4 * i + 1);
        assert_int_equal(p.out[64 + i], 0xffffffffu);
        assert_int_equal(p.out[96 + i], 4 * i + 2);
    }
    gpu_free(g, from), gpu_free(g, p.out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fragments_give_the_product),  cmocka_unit_test(e4m3_rounds_to_nearest),
        cmocka_unit_test(halves_round_to_nearest),     cmocka_unit_test(small_functions),
        cmocka_unit_test(collectives_agree),           cmocka_unit_test(it_is_fast_enough),
        cmocka_unit_test(broken_rules_are_reported),   cmocka_unit_test(copies_land_when_waited_for),
    };
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
