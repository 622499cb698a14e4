/* attn_rows16 and attn_rows128 over plans: values against sums in double, bits against each other (class A). All of the pool that
 * is no token of a sequence is NaN, and so are records before they are written. */
extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
}
#include "attn_case.h"

static struct gpu *gpu;
static struct gpu_stream *stream;

enum { WHOLE = 1, FINE = 64 }; /* blocks of a plan: one takes everything; more than splits: one each */

static const struct attn_model PLAIN = {8, 2, 128, 16, 0, CU_BF16, CU_BF16, 2.0f};

static struct attn_case begin(const struct attn_model *m, std::vector<uint32_t> tokens, uint64_t seed)
{
    struct attn_case c;
    attn_case_begin(&c, gpu, stream, m, tokens.data(), (uint32_t)tokens.size(), seed);
    return c;
}

/* One token, the end of each kind of tile and split, and a batch of all of them; whole and cut. */
static void decodes(void **state)
{
    (void)state;
    struct attn_case c = begin(&PLAIN, {1, 15, 16, 17, 255, 256, 257, 600}, 1);
    std::vector<attn_rows> all;
    for (uint32_t i = 0; i < c.n_seqs; i++)
        all.push_back({i, c.seqs[i].tokens - 1, 1});
    attn_result whole = attn_run(&c, all, WHOLE), fine = attn_run(&c, all, FINE), some = attn_run(&c, all, 7);
    assert_int_equal(whole.n_items[0], 16);
    assert_int_equal(whole.n_partials, 0);
    assert_int_equal(fine.n_items[0], 2 * 10); /* 1, 1, 1, 1, 1, 1, 1, 3 splits: 257 tokens are not worth a cut */
    assert_true(fine.n_partials >= some.n_partials && some.n_partials > 0);
    attn_check_values(&c, whole, 1);
    attn_check_values(&c, fine, 1);
    assert_int_equal(attn_check_bits(&c, whole, fine), all.size());
    assert_int_equal(attn_check_bits(&c, whole, some), all.size());
    for (uint32_t i = 0; i < c.n_seqs; i++) /* alone: as in the batch */
        assert_int_equal(attn_check_bits(&c, whole, attn_run(&c, {all[i]}, 3)), 1);
    attn_case_end(&c);
}

/* The rows of a prompt: at once, in chunks, one by one. */
static void chunks(void **state)
{
    (void)state;
    struct attn_case c = begin(&PLAIN, {300, 77}, 2);
    attn_result whole = attn_run(&c, {{0, 0, 300}, {1, 0, 77}}, WHOLE);
    assert_int_equal(whole.n_items[0], 0);
    attn_check_values(&c, whole, 7);
    attn_result fine = attn_run(&c, {{0, 0, 300}, {1, 0, 77}}, 200);
    assert_true(fine.n_items[1] > whole.n_items[1]);
    assert_int_equal(attn_check_bits(&c, whole, fine), 377);
    attn_result cut = attn_run(
        &c, {{0, 0, 1}, {0, 1, 31}, {0, 32, 4}, {0, 36, 220}, {0, 256, 3}, {0, 259, 41}, {1, 0, 70}, {1, 70, 7}}, 9);
    assert_true(cut.n_items[0] > 0 && cut.n_items[1] > 0);
    assert_int_equal(attn_check_bits(&c, whole, cut), 377);
    for (uint32_t pos : {0, 1, 15, 16, 63, 64, 127, 255, 256, 299})
        assert_int_equal(attn_check_bits(&c, whole, attn_run(&c, {{0, pos, 1}}, pos % 5 + 1)), 1);
    attn_case_end(&c);
}

/* A window hides tokens from both kernels exactly, wherever it begins; splits behind it may be anyone's items. */
static void windows(void **state)
{
    (void)state;
    for (uint32_t window : {1u, 16u, 63u, 64u, 100u, 256u, 259u, 300u, 5000u, 0xffffffffu}) {
        struct attn_model m = PLAIN;
        m.window = window;
        m.xt = m.kvt = CU_F16;
        struct attn_case c = begin(&m, {600}, window);
        attn_result chunk = attn_run(&c, {{0, 520, 80}}, WHOLE), one = attn_run(&c, {{0, 599, 1}}, WHOLE);
        attn_result chunk_fine = attn_run(&c, {{0, 520, 80}}, FINE), one_fine = attn_run(&c, {{0, 599, 1}}, FINE);
        attn_result few = attn_run(&c, {{0, 577, 4}}, 4);
        assert_true(one_fine.n_items[0] > one.n_items[0] && chunk_fine.n_items[1] > chunk.n_items[1]);
        attn_check_values(&c, chunk, 11);
        assert_int_equal(attn_check_bits(&c, chunk, chunk_fine), 80);
        assert_int_equal(attn_check_bits(&c, chunk, one), 1);
        assert_int_equal(attn_check_bits(&c, chunk, one_fine), 1);
        assert_int_equal(attn_check_bits(&c, chunk, few), 4);
        attn_case_end(&c);
    }
}

/* Every type and head_dim, groups that fill a row group in all ways, blocks of several sizes. */
static void shapes(void **state)
{
    (void)state;
    static const uint32_t dims[] = {16, 32, 64, 80, 96, 112, 128}, groups[] = {1, 3, 4, 8, 16, 20};
    static const uint8_t types[][2] = {{CU_BF16, CU_BF16}, {CU_F16, CU_F16}, {CU_BF16, CU_E4M3}, {CU_F16, CU_E4M3}};
    uint64_t seed = 100;
    for (uint32_t i = 0; i < 28; i++, seed++) {
        const uint32_t group = groups[i % 6], kv_heads = 1 + i % 3;
        const struct attn_model m = {group * kv_heads, kv_heads,    dims[i % 7], 16 * (1 + i % 4), i % 5 == 0 ? 90u : 0,
                                     types[i % 4][0],  types[i % 4][1], 1.5f};
        struct attn_case c = begin(&m, {200, 330}, seed);
        attn_result chunk = attn_run(&c, {{0, 150, 50}, {1, 329, 1}}, WHOLE);
        attn_check_values(&c, chunk, 9);
        attn_result other = attn_run(&c, {{1, 329, 1}, {0, 150, 2}, {0, 160, 40}, {0, 157, 1}}, 7);
        assert_int_equal(attn_check_bits(&c, chunk, other), 44);
        attn_case_end(&c);
    }
}

/* Large and small logits; a value that is not a number stays in the rows that see it. */
static void extremes(void **state)
{
    (void)state;
    for (float size : {0.0f, 40.0f, 3000.0f}) {
        struct attn_model m = PLAIN;
        m.xt = m.kvt = CU_F16;
        m.q_size = size;
        struct attn_case c = begin(&m, {400}, 7);
        attn_result chunk = attn_run(&c, {{0, 360, 40}}, WHOLE);
        if (size < 1000.0f) /* beyond, P is a matter of the last bit of a logit */
            attn_check_values(&c, chunk, 5);
        assert_int_equal(attn_check_bits(&c, chunk, attn_run(&c, {{0, 399, 1}}, FINE)), 1);
        attn_case_end(&c);
    }
    struct attn_case c = begin(&PLAIN, {400}, 8);
    attn_result before = attn_run(&c, {{0, 399, 1}, {0, 100, 200}}, 6);
    size_t block, row = attn_row(&c, &c.seqs[0], 1, 0, 350, &block);
    ((uint16_t *)(c.kv.pool + block))[row * c.kv.head_dim + 5] = 0x7fc0;
    attn_result after = attn_run(&c, {{0, 399, 1}, {0, 100, 200}}, 6);
    assert_memory_equal(&before.y[before.ldy], &after.y[after.ldy], 200 * (size_t)after.ldy * 2);
    for (uint32_t head = 0; head < 8; head++)
        for (uint32_t d = 0; d < 128; d++)
            assert_int_equal(isnan(attn_from16(CU_BF16, after.y[head * 128 + d])), head < 4 && d == 5);
    attn_case_end(&c);
}

/* Splits of rows from position 16384 on are twice as long: a chunk and a few rows across that border. */
static void long_context(void **state)
{
    (void)state;
    const struct attn_model m = {2, 1, 64, 16, 0, CU_F16, CU_F16, 2.0f};
    struct attn_case c = begin(&m, {16420}, 11);
    attn_result chunk = attn_run(&c, {{0, 16350, 70}}, WHOLE), fine = attn_run(&c, {{0, 16350, 70}}, 100);
    attn_result few = attn_run(&c, {{0, 16380, 8}, {0, 16419, 1}}, WHOLE);
    attn_result few_fine = attn_run(&c, {{0, 16380, 8}, {0, 16419, 1}}, 20);
    assert_int_equal(chunk.n_items[1], 2);
    assert_int_equal(few.n_items[0], 3);
    assert_true(fine.n_items[1] > 60 && few_fine.n_items[0] > 20);
    attn_check_values(&c, chunk, 10);
    assert_int_equal(attn_check_bits(&c, chunk, fine), 70);
    assert_int_equal(attn_check_bits(&c, chunk, few), 9);
    assert_int_equal(attn_check_bits(&c, chunk, few_fine), 9);
    attn_case_end(&c);
}

/* Random worlds and steps: every row right, and with the bits that it has in another step. */
static void random_steps(void **state)
{
    (void)state;
    const char *from = getenv("ATTN_SEED"), *count = getenv("ATTN_COUNT");
    uint64_t seed = from ? strtoull(from, NULL, 0) : 1000;
    for (uint32_t i = 0, n = count ? (uint32_t)atoi(count) : 12; i < n; i++, seed++) {
        uint64_t rnd = seed;
        const uint32_t kv_heads = 1 + attn_below(&rnd, 3), type = attn_below(&rnd, 4);
        const struct attn_model m = {kv_heads * (1 + attn_below(&rnd, 9)), kv_heads, 16 * (1 + attn_below(&rnd, 8)),
                                     16 * (1 + attn_below(&rnd, 3)), attn_below(&rnd, 3) ? 0 : 1 + attn_below(&rnd, 300),
                                     (uint8_t)(type % 2 ? CU_BF16 : CU_F16),
                                     (uint8_t)(type > 1 ? CU_E4M3 : type % 2 ? CU_BF16 : CU_F16), 2.0f};
        std::vector<uint32_t> tokens;
        std::vector<attn_rows> steps[2];
        for (uint32_t s = 0, n_seqs = 1 + attn_below(&rnd, 5); s < n_seqs; s++) {
            tokens.push_back(1 + attn_below(&rnd, attn_below(&rnd, 3) ? 150 : 900));
            for (int j = 0; j < 2; j++) {
                const uint32_t rows = attn_below(&rnd, 2) ? 1 : 1 + attn_below(&rnd, tokens[s] < 60 ? tokens[s] : 60);
                steps[j].insert(steps[j].begin() + attn_below(&rnd, s + 1), {s, tokens[s] - rows, rows});
            }
        }
        printf("seed %llu: %u heads, %u of KV, dim %u, block %u, window %u, types %u %u\n", (unsigned long long)seed, m.n_heads,
               m.n_kv_heads, m.head_dim, m.block_tokens, m.window, m.xt, m.kvt);
        struct attn_case c = begin(&m, tokens, seed);
        attn_result a = attn_run(&c, steps[0], 1 + attn_below(&rnd, 30)), b = attn_run(&c, steps[1], 1 + attn_below(&rnd, 30));
        attn_check_values(&c, a, 6);
        assert_true(attn_check_bits(&c, a, b) >= tokens.size());
        attn_case_end(&c);
    }
}

static void refuses(void **state)
{
    (void)state;
    struct attn_case c = begin(&PLAIN, {1}, 3);
    struct cu_attn good = {};
    good.kv = c.kv, good.n_heads = 8, good.ldy = 1024, good.layer = 2, good.ctas = 1, good.xt = CU_BF16;
    struct cu_attn bad[12];
    for (struct cu_attn &a : bad)
        a = good;
    bad[0].xt = CU_F16; /* KV is bf16 */
    bad[1].xt = CU_E4M3;
    bad[2].kv.type = CU_F32;
    bad[3].kv.head_dim = 136;
    bad[4].kv.head_dim = 144;
    bad[5].kv.head_dim = 0;
    bad[6].kv.block_tokens = 24;
    bad[7].kv.block_tokens = 0;
    bad[8].n_heads = 9;
    bad[9].ldy = 1022;
    bad[10].layer = 3;
    bad[11].ctas = 0;
    for (struct cu_attn &a : bad) {
        assert_int_equal(cu_attn_rows16(stream, &a), ST_EINVAL);
        assert_int_equal(cu_attn_rows128(stream, &a), ST_EINVAL);
    }
    attn_case_end(&c);
}

/* Two blocks or more per SM, within its shared memory. */
static void ctas_fit(void **state)
{
    (void)state;
    const struct gpu_info *info = gpu_info(gpu);
    assert_true(cu_attn_ctas(info, 128, CU_BF16) == 2 * info->sms);
    assert_true(cu_attn_ctas(info, 64, CU_BF16) >= 2 * info->sms);
    assert_true(cu_attn_ctas(info, 128, CU_E4M3) >= 2 * info->sms);
    assert_true(cu_attn_ctas(info, 16, CU_E4M3) >= 2 * info->sms);
}

static int open_gpu(void **state)
{
    (void)state;
    struct err e = {};
    return gpu_open(&gpu, &e) == ST_OK && gpu_stream_create(gpu, &stream) == ST_OK ? 0 : -1;
}

static int close_gpu(void **state)
{
    (void)state;
    gpu_stream_destroy(stream);
    gpu_close(gpu);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes), cmocka_unit_test(chunks),       cmocka_unit_test(windows), cmocka_unit_test(shapes),
        cmocka_unit_test(extremes), cmocka_unit_test(long_context), cmocka_unit_test(random_steps), cmocka_unit_test(refuses),
        cmocka_unit_test(ctas_fit),
    };
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
