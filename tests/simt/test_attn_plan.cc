/* The plan of attention: each (row, kv head, split) exactly once, nothing beyond the bounds, no block with much more than its share. */
extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
}
#include "cu_attn.h"

#include <algorithm>
#include <set>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

struct arrays {
    struct cu_attn_plan plan;
    std::vector<cu_attn_item> items[2];
    std::vector<uint32_t> begin;
};

static void make(struct arrays *a, const struct cu_attn_shape *s, const std::vector<cu_attn_span> &spans, uint32_t max_rows,
                 uint32_t max_spans, uint32_t max_context)
{
    cu_attn_bounds(s, max_rows, max_spans, max_context, &a->plan);
    for (int j = 0; j < 2; j++) {
        a->items[j].resize(a->plan.max_items[j]);
        a->plan.items[j] = a->items[j].data();
    }
    a->begin.assign(s->ctas + 1, 0xdeadbeef);
    a->plan.begin = a->begin.data();
    assert_int_equal(cu_attn_make_plan(s, spans.data(), (uint32_t)spans.size(), &a->plan), ST_OK);
    assert_true(a->plan.n_items[0] <= a->plan.max_items[0] && a->plan.n_items[1] <= a->plan.max_items[1]);
    assert_true(a->plan.n_partials <= a->plan.max_partials && a->plan.n_counters <= a->plan.max_counters);
}

static uint32_t div_up(uint32_t n, uint32_t by)
{
    return (n + by - 1) / by;
}

static const cu_attn_span &span_of(const std::vector<cu_attn_span> &spans, const cu_attn_item &item)
{
    for (const cu_attn_span &s : spans)
        if (s.row0 == item.token0)
            return s;
    fail_msg("an item of no span");
    abort();
}

/* Every run (span, row group, head) has all its splits, in parts that follow each other; runs cover all packed rows. */
static void check_cover(const struct cu_attn_shape *s, const std::vector<cu_attn_span> &spans, const struct arrays *a)
{
    const uint32_t group = s->n_heads / s->n_kv_heads;
    std::vector<std::vector<uint8_t>> seen(spans.size()); /* [packed row][head][split] */
    std::vector<uint32_t> splits(spans.size());
    for (size_t i = 0; i < spans.size(); i++) {
        splits[i] = div_up(spans[i].pos0 + spans[i].n_rows, CU_SPLIT);
        seen[i].assign((size_t)spans[i].n_rows * group * s->n_kv_heads * splits[i], 0);
    }
    for (int list = 0; list < 2; list++)
        for (uint32_t i = 0; i < a->plan.n_items[list]; i++) {
            const cu_attn_item &item = a->items[list][i];
            const cu_attn_span &span = span_of(spans, item);
            const size_t at = &span - spans.data();
            assert_true(item.pos0 == span.pos0 && item.table == span.table && item.kv_head < s->n_kv_heads);
            assert_true(item.n_rows > 0 && item.n_rows <= (list ? 128 : 16) && item.row0 + item.n_rows <= span.n_rows * group);
            assert_true(list == (span.n_rows * group > 16) && item.split0 < item.split1);
            assert_true(item.split1 <= div_up(span.pos0 + (item.row0 + item.n_rows - 1) / group + 1, CU_SPLIT));
            for (uint32_t row = item.row0; row < item.row0 + item.n_rows; row++)
                for (uint32_t split = item.split0; split < item.split1; split++)
                    assert_int_equal(seen[at][((size_t)row * s->n_kv_heads + item.kv_head) * splits[at] + split]++, 0);
        }
    for (size_t i = 0; i < spans.size(); i++)
        for (uint32_t row = 0; row < spans[i].n_rows * group; row++)
            for (uint32_t head = 0; head < s->n_kv_heads; head++)
                for (uint32_t split = 0; split <= (spans[i].pos0 + row / group) / CU_SPLIT; split++)
                    assert_int_equal(seen[i][((size_t)row * s->n_kv_heads + head) * splits[i] + split], 1);
}

/* Parts of a run agree on its records and its counter, and nobody else has them. */
static void check_parts(const struct arrays *a)
{
    std::vector<const cu_attn_item *> of(a->plan.n_counters, nullptr);
    std::vector<std::set<uint32_t>> parts(a->plan.n_counters);
    std::vector<uint32_t> splits(a->plan.n_counters);
    for (int list = 0; list < 2; list++)
        for (uint32_t i = 0; i < a->plan.n_items[list]; i++) {
            const cu_attn_item &item = a->items[list][i];
            if (item.n_parts == 1) {
                assert_true(item.part == 0 && item.split0 == 0 && item.partial == CU_NO_SLOT);
                continue;
            }
            assert_true(item.counter < a->plan.n_counters && item.part < item.n_parts);
            const cu_attn_item *&first = of[item.counter];
            first = first ? first : &item;
            assert_true(item.token0 == first->token0 && item.row0 == first->row0 && item.n_rows == first->n_rows &&
                        item.kv_head == first->kv_head && item.partial == first->partial && item.n_parts == first->n_parts);
            assert_true(parts[item.counter].insert(item.part).second);
            splits[item.counter] = std::max<uint32_t>(splits[item.counter], item.split1);
        }
    std::vector<std::pair<uint32_t, uint32_t>> records;
    for (uint32_t i = 0; i < a->plan.n_counters; i++) {
        assert_non_null(of[i]);
        assert_int_equal(parts[i].size(), of[i]->n_parts);
        records.push_back({of[i]->partial, splits[i] * of[i]->n_rows});
    }
    std::sort(records.begin(), records.end());
    uint32_t end = 0;
    for (const std::pair<uint32_t, uint32_t> &r : records) {
        assert_true(r.first >= end);
        end = r.first + r.second;
    }
    assert_true(end <= a->plan.n_partials);
}

/* List 0: tokens of each block, at most 256 more than a fair share, counting 64 per item begun. List 1: longest first, and no
 * item longer than one and a half fair shares of an SM. Unless the records have run out. */
static void check_balance(const struct cu_attn_shape *s, const std::vector<cu_attn_span> &spans, const struct arrays *a)
{
    assert_int_equal(a->begin[0], 0);
    assert_int_equal(a->begin[s->ctas], a->plan.n_items[0]);
    uint64_t total = 0, most = 0;
    for (uint32_t cta = 0; cta < s->ctas; cta++) {
        assert_true(a->begin[cta] <= a->begin[cta + 1]);
        uint64_t tokens = 0;
        for (uint32_t i = a->begin[cta]; i < a->begin[cta + 1]; i++) {
            const cu_attn_item &item = a->items[0][i];
            tokens += std::min<uint32_t>(item.split1 * CU_SPLIT, item.pos0 + span_of(spans, item).n_rows) - item.split0 * CU_SPLIT;
        }
        total += tokens;
        most = std::max(most, tokens);
    }
    uint64_t runs = 0, large = 0;
    for (const cu_attn_span &span : spans)
        runs += span.n_rows * (s->n_heads / s->n_kv_heads) <= 16 ? s->n_kv_heads : 0;
    const uint32_t left = a->plan.max_partials - a->plan.n_partials;
    assert_true(most <= (total + runs * 64) / s->ctas + 256 || left < 16 * 36);
    for (uint32_t i = 0; i < a->plan.n_items[1]; i++)
        large += a->items[1][i].split1 - a->items[1][i].split0;
    for (uint32_t i = 0; i < a->plan.n_items[1]; i++) {
        const cu_attn_item &item = a->items[1][i];
        const uint64_t fair = div_up((uint32_t)large, div_up(s->ctas, 2));
        assert_true((uint64_t)(item.split1 - item.split0) <= fair + fair / 2 || left < item.n_rows * (uint32_t)item.split1);
        assert_true(i == 0 || item.split1 - item.split0 <= a->items[1][i - 1].split1 - a->items[1][i - 1].split0);
    }
}

static uint64_t state;

static uint32_t below(uint32_t n)
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) % n);
}

static void random_batches(void **unused)
{
    (void)unused;
    const char *from = getenv("ATTN_SEED"), *count = getenv("ATTN_COUNT");
    uint64_t seed = from ? strtoull(from, NULL, 0) : 1;
    printf("seeds from %llu\n", (unsigned long long)seed);
    for (uint32_t n = count ? (uint32_t)atoi(count) : 1000; n > 0; n--, seed++) {
        state = seed;
        const uint32_t kv_heads = 1 + below(9), group = 1 + below(below(4) ? 8 : 40), max_context = 1 + below(below(2) ? 1000 : 9000);
        const struct cu_attn_shape s = {kv_heads * group, kv_heads, 128, 16, 1 + below(below(2) ? 20 : 300)};
        std::vector<cu_attn_span> spans;
        uint32_t rows = 0, table = 0;
        for (uint32_t i = 0, n_spans = below(12); i < n_spans; i++) {
            const uint32_t n_rows = std::min(max_context, below(3) ? 1 + below(3) : 1 + below(300));
            const uint32_t pos0 = below(max_context - n_rows + 1);
            spans.push_back({rows, n_rows, pos0, table});
            rows += n_rows;
            table += div_up(pos0 + n_rows, 16);
        }
        struct arrays a;
        make(&a, &s, spans, rows + below(5), (uint32_t)spans.size() + below(5), max_context);
        check_cover(&s, spans, &a);
        check_parts(&a);
        check_balance(&s, spans, &a);
    }
}

static struct arrays decode(const struct cu_attn_shape *s, uint32_t n, uint32_t tokens)
{
    std::vector<cu_attn_span> spans;
    for (uint32_t i = 0; i < n; i++)
        spans.push_back({i, 1, tokens - 1, i * div_up(tokens, 16)});
    struct arrays a;
    make(&a, s, spans, n, n, tokens);
    return a;
}

/* What it is for: one sequence over all blocks, and many sequences with next to no records. */
static void batches(void **unused)
{
    (void)unused;
    const struct cu_attn_shape s = {32, 8, 128, 16, 264};
    struct arrays one = decode(&s, 1, 500), longest = decode(&s, 1, 131072), many = decode(&s, 200, 500);
    assert_int_equal(one.plan.n_items[0], 16); /* 8 heads, 2 splits */
    for (uint32_t cta = 0; cta < 264; cta++) {
        assert_true(one.begin[cta + 1] - one.begin[cta] <= 1);
        assert_true(longest.begin[cta + 1] > longest.begin[cta]);
    }
    assert_true(many.plan.n_items[0] <= 1600 + 263 && many.plan.n_partials <= 263 * 2 * 4);
}

/* Where records do not fit, runs stay whole. */
static void records_run_out(void **unused)
{
    (void)unused;
    const struct cu_attn_shape s = {32, 8, 128, 16, 264};
    const std::vector<cu_attn_span> spans = {{0, 1, 99999, 0}, {1, 64, 50000, 7000}, {65, 1, 99999, 11000}};
    struct arrays a;
    cu_attn_bounds(&s, 66, 3, 100000, &a.plan);
    for (int j = 0; j < 2; j++) {
        a.items[j].resize(a.plan.max_items[j]);
        a.plan.items[j] = a.items[j].data();
    }
    a.begin.resize(265);
    a.plan.begin = a.begin.data();
    const uint32_t run = div_up(100000, CU_SPLIT) * 4;
    for (uint32_t room : {0u, run - 1, run, 5 * run}) {
        a.plan.max_partials = room;
        assert_int_equal(cu_attn_make_plan(&s, spans.data(), 3, &a.plan), ST_OK);
        assert_true(a.plan.n_partials <= room && (room < run) == (a.plan.n_partials == 0));
        assert_int_equal(a.plan.n_counters, room / run);
        check_cover(&s, spans, &a);
        check_parts(&a);
    }
}

static void refuses(void **unused)
{
    (void)unused;
    const struct cu_attn_shape good = {8, 2, 128, 16, 4};
    struct cu_attn_shape bad[4] = {good, good, good, good};
    bad[0].n_heads = 9;
    bad[1].n_kv_heads = 0;
    bad[2].n_heads = 0;
    bad[3].ctas = 0;
    const std::vector<cu_attn_span> spans = {{0, 3, 700, 0}};
    struct arrays a;
    make(&a, &good, spans, 3, 1, 703);
    for (const struct cu_attn_shape &s : bad)
        assert_int_equal(cu_attn_make_plan(&s, spans.data(), 1, &a.plan), ST_EINVAL);
    const std::vector<cu_attn_span> empty = {{0, 0, 700, 0}}, endless = {{0, 1, 65535u * CU_SPLIT, 0}};
    assert_int_equal(cu_attn_make_plan(&good, empty.data(), 1, &a.plan), ST_EINVAL);
    assert_int_equal(cu_attn_make_plan(&good, endless.data(), 1, &a.plan), ST_EINVAL);
    a.plan.max_items[0] = 1;
    assert_int_equal(cu_attn_make_plan(&good, spans.data(), 1, &a.plan), ST_NOSPACE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_batches),
        cmocka_unit_test(batches),
        cmocka_unit_test(records_run_out),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
