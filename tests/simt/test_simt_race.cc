/* The race detector: this file is compiled for it. Every case runs with all barriers, silently, and with one rule broken. */
extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
}

#include "launch.h"
#include "simt_core.h"

#include <string.h>

enum { THREADS = 64, BLOCKS = 2 };

struct racing {
    void (*unused)(void); /* params may hold anything */
    const uint32_t *in;   /* [THREADS * 4] */
    uint32_t *out;        /* [BLOCKS * THREADS] */
    uint32_t *shared;     /* [BLOCKS * THREADS] */
    bool broken;
};

typedef void (*body)(const struct racing &p, unsigned char *smem, uint32_t tid);

template <body B> PTX_KERNEL(THREADS, 1) racing_kernel(PTX_PARAM(struct racing) p)
{
    PTX_SMEM(smem);
    if (!p.broken)
        ptx_pdl_wait();
    B(p, smem, threadIdx.x);
    ptx_pdl_wait();
}

static uint32_t &word(unsigned char *smem, uint32_t i)
{
    return ((uint32_t *)smem)[i];
}

static uint32_t &result(const struct racing &p)
{
    return p.out[blockIdx.x * THREADS + threadIdx.x];
}

/* A broken case waits for the launch in front of it itself, unless that is the case. */
static void across_warps(const struct racing &p, unsigned char *smem, uint32_t tid)
{
    ptx_pdl_wait();
    word(smem, tid) = tid;
    if (p.broken)
        ptx_syncwarp();
    else
        ptx_syncthreads();
    result(p) = word(smem, tid ^ 32);
}

static void across_lanes(const struct racing &p, unsigned char *smem, uint32_t tid)
{
    ptx_pdl_wait();
    word(smem, tid) = tid;
    if (!p.broken)
        ptx_syncwarp();
    uint32_t v = ptx_shfl_xor(tid, 1); /* orders nothing */
    result(p) = word(smem, v);
}

static void write_after_read(const struct racing &p, unsigned char *smem, uint32_t tid)
{
    ptx_pdl_wait();
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 3; i++) {
        word(smem, tid) = i;
        ptx_syncthreads();
        sum += word(smem, tid ^ 33);
        if (!p.broken)
            ptx_syncthreads();
    }
    result(p) = sum;
}

static void write_write(const struct racing &p, unsigned char *smem, uint32_t tid)
{
    ptx_pdl_wait();
    if (p.broken || tid == 7)
        word(smem, 0) = tid;
    result(p) = tid;
}

static void named_barrier(const struct racing &p, unsigned char *smem, uint32_t tid)
{
    ptx_pdl_wait();
    word(smem, tid) = tid;
    ptx_bar(1 + (p.broken ? (int)(tid / 32) : 0), p.broken ? 32 : 64);
    result(p) = word(smem, THREADS - 1 - tid);
}

static void copy_without_barrier(const struct racing &p, unsigned char *smem, uint32_t tid)
{
    ptx_pdl_wait();
    ptx_cp16(smem + tid * 16, p.in + tid * 4, 16);
    ptx_cp_commit();
    ptx_cp_wait<0>();
    if (!p.broken)
        ptx_syncthreads();
    result(p) = word(smem, (tid ^ 1) * 4);
}

static void copy_without_wait(const struct racing &p, unsigned char *smem, uint32_t tid)
{
    ptx_pdl_wait();
    ptx_cp16(smem + tid * 16, p.in + tid * 4, 16);
    ptx_cp_commit();
    if (!p.broken)
        ptx_cp_wait<0>();
    ptx_syncthreads();
    result(p) = word(smem, tid * 4);
}

static void copy_over_readers(const struct racing &p, unsigned char *smem, uint32_t tid)
{
    ptx_pdl_wait();
    word(smem, tid * 4) = tid;
    ptx_syncthreads();
    uint32_t v = word(smem, (tid ^ 32) * 4);
    if (!p.broken)
        ptx_syncthreads();
    ptx_cp16(smem + tid * 16, p.in + tid * 4, 16);
    result(p) = v;
}

static void matrix_rows(const struct racing &p, unsigned char *smem, uint32_t tid)
{
    uint32_t r[4];
    ptx_pdl_wait();
    unsigned char *mine = smem + tid / 32 * 512;
    for (uint32_t i = 0; i < 4; i++)
        word(mine, tid % 32 + 32 * i) = tid;
    if (!p.broken)
        ptx_syncwarp();
    ptx_ldmatrix_x4(r, mine + tid % 32 * 16);
    result(p) = r[0] + r[3];
}

static void atomics(const struct racing &p, unsigned char *smem, uint32_t tid)
{
    ptx_pdl_wait();
    if (tid == 0)
        word(smem, 0) = 0;
    ptx_syncthreads();
    ptx_atomic_add(&word(smem, 0), 1u);
    if (!p.broken)
        ptx_syncthreads();
    result(p) = word(smem, 0);
}

static void two_blocks_write(const struct racing &p, unsigned char *, uint32_t tid)
{
    ptx_pdl_wait();
    p.shared[p.broken ? tid : blockIdx.x * THREADS + tid] = 1 + blockIdx.x;
}

static void two_blocks_read(const struct racing &p, unsigned char *, uint32_t tid)
{
    ptx_pdl_wait();
    uint32_t i = blockIdx.x * THREADS + tid;
    p.shared[i] = 1;
    result(p) = p.broken ? p.shared[i ^ THREADS] : ptx_ld_cg(&p.shared[i ^ THREADS]);
}

static void threads_share_global(const struct racing &p, unsigned char *, uint32_t tid)
{
    ptx_pdl_wait();
    uint32_t i = blockIdx.x * THREADS + tid;
    p.shared[i] = 1;
    if (!p.broken)
        ptx_syncthreads();
    result(p) = p.shared[i ^ 1];
}

static void reads_outside(const struct racing &p, unsigned char *, uint32_t tid)
{
    ptx_pdl_wait();
    result(p) = p.in[tid == 63 ? THREADS * 4 - !p.broken : tid];
}

static void early_read(const struct racing &p, unsigned char *, uint32_t)
{
    uint32_t v = result(p) + p.in[0]; /* `in` no kernel has written */
    ptx_pdl_wait();
    result(p) = v;
}

static void early_write(const struct racing &p, unsigned char *, uint32_t tid)
{
    result(p) = tid;
}

/* Nothing wrong in any of these. */
static void allowed(const struct racing &p, unsigned char *smem, uint32_t tid)
{
    static const uint32_t table[4] = {1, 2, 3, 4};
    ptx_pdl_wait();
    ((volatile uint16_t *)smem)[tid] = (uint16_t)tid; /* halves of one word */
    ((volatile unsigned char *)smem)[256 + tid] = 1;
    ptx_syncthreads();
    uint32_t v = ((volatile uint16_t *)smem)[tid ^ 63] + table[tid % 4];
    ptx_syncthreads();
    uint16_t half = ((volatile uint16_t *)smem)[tid]; /* halves of one word, each its own thread's */
    ((volatile uint16_t *)smem)[tid] = half;
    ptx_syncthreads();
    word(smem, tid % 32 == 0 ? tid : 128 + tid) = v;
    ptx_syncwarp();
    result(p) = word(smem, tid & 32);
    word(smem, 200) = 7; /* all write the same */
    p.shared[0] = 7;
}

static struct racing p;

/* The report, or NULL; the launch follows one that wrote `out`. */
template <body B> static const char *run(bool broken, uint64_t seed)
{
    struct gpu *g;
    struct gpu_stream *s;
    simt_seed(seed);
    assert_int_equal(gpu_open(&g, NULL), ST_OK);
    assert_int_equal(gpu_stream_create(g, &s), ST_OK);
    uint32_t *in = (uint32_t *)gpu_alloc(g, 16 * THREADS);
    p.in = in;
    p.out = (uint32_t *)gpu_alloc(g, 4 * BLOCKS * THREADS);
    p.shared = (uint32_t *)gpu_alloc(g, 4 * BLOCKS * THREADS);
    simt_catch();
    p.broken = false;
    gpu_launch(s, "before", racing_kernel<allowed>, dim3(BLOCKS), THREADS, 1024, true, p);
    p.broken = broken;
    gpu_launch(s, "racing", racing_kernel<B>, dim3(BLOCKS), THREADS, 1024, true, p);
    gpu_stream_sync(s);
    const char *text = simt_caught();
    gpu_free(g, in), gpu_free(g, p.out), gpu_free(g, p.shared);
    gpu_stream_destroy(s);
    gpu_close(g);
    return text;
}

template <body B> static void check(const char *first, const char *second)
{
    for (uint64_t seed = 1; seed <= 10; seed++) {
        const char *text = run<B>(false, seed);
        if (text)
            fail_msg("correct, but: %s", text);
        text = run<B>(true, seed);
        if (!text || !strstr(text, first) || !strstr(text, second))
            fail_msg("seed %d: %s", (int)seed, text ? text : "not reported");
    }
}

static void unordered_shared_memory_is_reported(void **)
{
    check<across_warps>("shared memory", "thread");
    check<across_lanes>("shared memory", "thread");
    check<write_after_read>("shared memory", "thread");
    check<write_write>("writes", "writes");
    check<named_barrier>("shared memory", "thread");
    check<matrix_rows>("shared memory", "test_simt_race.cc:");
    check<atomics>("shared memory", "thread");
}

static void copies_need_wait_and_barrier(void **)
{
    check<copy_without_barrier>("shared memory", "thread");
    check<copy_without_wait>("shared memory", "not waited for");
    check<copy_over_readers>("shared memory", "thread");
}

static void unordered_global_memory_is_reported(void **)
{
    check<two_blocks_write>("writes", "of another block writes");
    check<two_blocks_read>("global memory", "of another block");
    check<threads_share_global>("global memory", "thread");
    check<reads_outside>("read of 4 bytes", "outside");
}

static void what_is_early_is_reported(void **)
{
    check<early_read>("before ptx_pdl_wait", "written at test_simt_race.cc:");
    check<early_write>("writes at", "before ptx_pdl_wait");
}

int main(void)
{
    if (!simt_race_on)
        return 77; /* compiled without -fsanitize=thread: this preset has another sanitizer */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unordered_shared_memory_is_reported),
        cmocka_unit_test(copies_need_wait_and_barrier),
        cmocka_unit_test(unordered_global_memory_is_reported),
        cmocka_unit_test(what_is_early_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
