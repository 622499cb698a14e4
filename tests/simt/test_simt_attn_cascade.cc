/* Sequences with the same blocks: what shared items and the members' own items make of them together has the bits of the plan
 * that shares nothing, and the values of sums in double. */
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

static struct attn_case begin(const struct attn_model *m, const std::vector<uint32_t> &tokens, uint64_t seed)
{
    struct attn_case c;
    attn_case_begin(&c, gpu, stream, m, tokens.data(), (uint32_t)tokens.size(), seed);
    return c;
}

/* Both plans of a step, with several numbers of blocks: same bits; returns how many items were shared. */
static uint32_t check(struct attn_case *c, const std::vector<attn_rows> &step, uint32_t ctas, uint32_t stride)
{
    attn_result plain = attn_run(c, step, ctas, false), shared = attn_run(c, step, ctas);
    assert_int_equal(plain.n_shared, 0);
    assert_memory_equal(plain.y.data(), shared.y.data(), plain.y.size() * 2);
    attn_check_values(c, shared, stride);
    return shared.n_shared;
}

/* The last token of each sequence. */
static std::vector<attn_rows> last_rows(const struct attn_case *c)
{
    std::vector<attn_rows> step;
    for (uint32_t i = 0; i < c->n_seqs; i++)
        step.push_back({i, c->seqs[i].tokens - 1, 1});
    return step;
}

/* Groups of 1, 4 and 8 query heads, so that 128, 32 and 16 runs make an item; every type and both widths of rows. */
static void every_type(void **state)
{
    (void)state;
    static const uint32_t groups[] = {4, 1, 8, 4}, dims[] = {128, 64, 64, 96};
    static const uint8_t types[][2] = {{CU_BF16, CU_BF16}, {CU_F16, CU_F16}, {CU_BF16, CU_E4M3}, {CU_F16, CU_E4M3}};
    for (uint32_t i = 0; i < 8; i++) {
        const uint32_t kv_heads = 1 + i % 2, group = groups[(i + i / 4) % 4];
        const struct attn_model m = {group * kv_heads, kv_heads, dims[i % 4], 16, 0, types[i % 4][0], types[i % 4][1], 2.0f};
        std::vector<uint32_t> tokens;
        for (uint32_t j = 0; j < 5; j++)
            tokens.push_back(1281 + 77 * j + (j > 2 ? 200 : 0));
        struct attn_case c = begin(&m, tokens, 300 + i);
        for (uint32_t j = 1; j < 5; j++)
            attn_share(&c, j, 0, 1280);
        assert_int_equal(check(&c, last_rows(&c), 2, 1), kv_heads); /* one SM: nothing is cut */
        assert_int_equal(check(&c, last_rows(&c), 40, 1), kv_heads * 5);
        attn_case_end(&c);
    }
}

/* More rows than an item has, beside a prompt's chunk and sequences of their own. */
static void full_items(void **state)
{
    (void)state;
    const struct attn_model m = {8, 1, 64, 16, 0, CU_F16, CU_F16, 2.0f};
    std::vector<uint32_t> tokens(35, 1100);
    for (uint32_t i = 0; i < 35; i++)
        tokens[i] += 5 * i;
    struct attn_case c = begin(&m, tokens, 17);
    for (uint32_t i = 1; i < 33; i++)
        attn_share(&c, i, 0, i % 2 ? 1024 : 1088);
    std::vector<attn_rows> step = last_rows(&c);
    step[33] = {33, 1000, 60};
    assert_int_equal(check(&c, step, 3, 5), 3); /* 33 runs of 8 rows */
    assert_true(check(&c, step, 30, 5) > 3);
    attn_case_end(&c);
}

/* Windows end before, inside and behind what is shared, otherwise for each member. */
static void windows(void **state)
{
    (void)state;
    for (uint32_t window : {1u, 100u, 300u, 500u, 700u, 1024u, 1300u, 1500u, 9000u}) {
        const struct attn_model m = {4, 2, 64, 16, window, CU_BF16, CU_BF16, 2.0f};
        struct attn_case c = begin(&m, {1100, 1281, 1420, 1600}, window);
        for (uint32_t i = 1; i < 4; i++)
            attn_share(&c, i, 0, 1040);
        assert_int_equal(check(&c, last_rows(&c), 2, 1), 2);
        assert_int_equal(check(&c, last_rows(&c), 40, 1), 8);
        attn_case_end(&c);
    }
}

/* Members of two tokens (drafts): their packed rows' positions do not rise along an item. */
static void several_tokens(void **state)
{
    (void)state;
    const struct attn_model m = {6, 2, 64, 16, 600, CU_F16, CU_F16, 2.0f};
    struct attn_case c = begin(&m, {1100, 1090, 1300, 1281, 1500}, 5);
    for (uint32_t i = 1; i < 5; i++)
        attn_share(&c, i, 0, 1072);
    assert_int_equal(check(&c, {{0, 1097, 3}, {1, 1087, 3}, {2, 1290, 3}, {3, 1278, 3}, {4, 1499, 1}}, 2, 1), 2);
    attn_case_end(&c);
}

/* Splits of 512 tokens, of which blocks of 48 are no divisor. */
static void long_context(void **state)
{
    (void)state;
    const struct attn_model m = {2, 1, 32, 48, 0, CU_F16, CU_F16, 2.0f};
    struct attn_case c = begin(&m, {16500, 16450, 16800, 16390}, 12);
    for (uint32_t i = 1; i < 4; i++)
        attn_share(&c, i, 0, 2160); /* 4 splits and a part */
    std::vector<attn_rows> step = last_rows(&c);
    step.push_back({0, 16380, 1}); /* of shorter splits */
    assert_int_equal(check(&c, step, 8, 1), 4);
    attn_case_end(&c);
}

/* Random trees of prefixes, windows, chunks beside them. */
static void random_trees(void **state)
{
    (void)state;
    const char *from = getenv("ATTN_SEED"), *count = getenv("ATTN_COUNT");
    uint64_t seed = from ? strtoull(from, NULL, 0) : 5000;
    uint32_t shared = 0;
    for (uint32_t i = 0, n = count ? (uint32_t)atoi(count) : 8; i < n; i++, seed++) {
        uint64_t rnd = seed;
        const uint32_t kv_heads = 1 + attn_below(&rnd, 2), type = attn_below(&rnd, 4), block = 16 * (1 + attn_below(&rnd, 3));
        const struct attn_model m = {kv_heads * (1 + attn_below(&rnd, 8)), kv_heads, 16 * (1 + attn_below(&rnd, 6)), block,
                                     attn_below(&rnd, 3) ? 0 : 1 + attn_below(&rnd, 1700),
                                     (uint8_t)(type % 2 ? CU_BF16 : CU_F16),
                                     (uint8_t)(type > 1 ? CU_E4M3 : type % 2 ? CU_BF16 : CU_F16), 2.0f};
        std::vector<uint32_t> tokens;
        for (uint32_t s = 0, n_seqs = 4 + attn_below(&rnd, 8); s < n_seqs; s++)
            tokens.push_back(attn_below(&rnd, 6) ? 1100 + attn_below(&rnd, 900) : 1 + attn_below(&rnd, 1100));
        printf("seed %llu: %u heads, %u of KV, dim %u, block %u, window %u, types %u %u\n", (unsigned long long)seed, m.n_heads,
               m.n_kv_heads, m.head_dim, m.block_tokens, m.window, m.xt, m.kvt);
        struct attn_case c = begin(&m, tokens, seed);
        std::vector<attn_rows> step;
        for (uint32_t s = 0; s < tokens.size(); s++) {
            const uint32_t rows = attn_below(&rnd, 8) ? 1 + attn_below(&rnd, 8) / 6 : 1 + attn_below(&rnd, 40);
            const uint32_t own = tokens[s] < rows ? tokens[s] : rows, with = s ? attn_below(&rnd, s) : 0;
            uint32_t same = tokens[s] - own < tokens[with] ? tokens[s] - own : tokens[with];
            if (attn_below(&rnd, 3) == 0)
                same = attn_below(&rnd, same + 1);
            if (s > 0)
                attn_share(&c, s, with, same / block * block);
            step.insert(step.begin() + attn_below(&rnd, s + 1), {s, tokens[s] - own, own});
        }
        shared += check(&c, step, 1 + attn_below(&rnd, 30), 6);
        attn_case_end(&c);
    }
    assert_true(count || shared > 0);
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
        cmocka_unit_test(every_type),     cmocka_unit_test(full_items),   cmocka_unit_test(windows),
        cmocka_unit_test(several_tokens), cmocka_unit_test(long_context), cmocka_unit_test(random_trees),
    };
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
