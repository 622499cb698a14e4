/* The plan of attention: each (row, kv head, split) exactly once, nothing beyond the bounds, no block with much more than its
 * share; what is shared is in the same blocks. */
extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
}
#include "cu_attn_share.h"

#include <algorithm>
#include <set>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

static uint32_t div_up(uint32_t n, uint32_t by)
{
    return (n + by - 1) / by;
}

struct arrays {
    struct cu_attn_plan plan;
    std::vector<cu_attn_item> items[2];
    std::vector<uint32_t> begin, members;
    std::vector<cu_attn_peer> peers;
};

static void bounds(struct arrays *a, const struct cu_attn_shape *s, uint32_t max_rows, uint32_t max_spans, uint32_t max_context)
{
    cu_attn_bounds(s, max_rows, max_spans, max_context, &a->plan);
    for (int j = 0; j < 2; j++) {
        a->items[j].resize(a->plan.max_items[j]);
        a->plan.items[j] = a->items[j].data();
    }
    a->begin.assign(s->ctas + 1, 0xdeadbeef);
    a->members.assign(a->plan.max_members, 0xdeadbeef);
    a->peers.resize(a->plan.max_peers);
    a->plan.begin = a->begin.data();
    a->plan.members = a->members.data();
    a->plan.peers = a->peers.data();
}

static void make(struct arrays *a, const struct cu_attn_shape *s, const std::vector<cu_attn_span> &spans, uint32_t max_rows,
                 uint32_t max_spans, uint32_t max_context, const uint32_t *tables = NULL)
{
    bounds(a, s, max_rows, max_spans, max_context);
    assert_int_equal(cu_attn_make_plan(s, spans.data(), (uint32_t)spans.size(), tables, &a->plan), ST_OK);
    assert_true(a->plan.n_members <= a->plan.max_members);
    assert_true(a->plan.n_items[0] <= a->plan.max_items[0] && a->plan.n_items[1] <= a->plan.max_items[1]);
    assert_true(a->plan.n_partials <= a->plan.max_partials && a->plan.n_counters <= a->plan.max_counters);
}

/* Splits that the row at a position sees. */
static uint32_t row_splits(uint32_t pos)
{
    return pos / cu_attn_split(pos) + 1;
}

static const cu_attn_span &span_of(const std::vector<cu_attn_span> &spans, const cu_attn_item &item)
{
    for (const cu_attn_span &s : spans)
        if (item.token0 >= s.row0 && item.token0 < s.row0 + s.n_rows)
            return s;
    fail_msg("an item of no span");
    abort();
}

/* The j-th member of a shared item: an item with that run's rows and the shared splits, which it has in the same blocks. */
static cu_attn_item member(const struct cu_attn_shape *s, const uint32_t *tables, const struct arrays *a,
                           const cu_attn_item &item, uint32_t j)
{
    assert_true(item.member0 + j < a->plan.n_members && a->members[item.member0 + j] < a->plan.n_items[0]);
    cu_attn_item run = a->items[0][a->members[item.member0 + j]];
    assert_true(run.kv_head == item.kv_head && run.n_rows == item.member_rows && run.split_tokens == item.split_tokens);
    assert_true(run.partial != CU_NO_SLOT && run.merged == item.merged && run.member_rows == 0 && run.pos0 >= item.pos0);
    assert_true(run.split0 >= item.split1 && (item.split0 == 0 ? item.split1 == item.merged : item.split0 >= item.merged));
    const uint32_t from = item.split0 * item.split_tokens / s->block_tokens;
    const uint32_t to = div_up(item.split1 * item.split_tokens, s->block_tokens);
    assert_memory_equal(tables + run.table + from, tables + item.table + from, (to - from) * 4);
    run.split0 = item.split0;
    run.split1 = item.split1;
    return run;
}

/* Items with shared ones taken apart. */
static std::vector<cu_attn_item> all_items(const struct cu_attn_shape *s, const uint32_t *tables, const struct arrays *a,
                                           int list)
{
    std::vector<cu_attn_item> all;
    for (uint32_t i = 0; i < a->plan.n_items[list]; i++) {
        const cu_attn_item &item = a->items[list][i];
        if (item.member_rows == 0) {
            all.push_back(item);
            continue;
        }
        assert_true(list == 1 && item.n_parts == 0 && item.row0 == 0 && item.partial != CU_NO_SLOT);
        assert_true(item.n_rows <= 128 && item.n_rows % item.member_rows == 0);
        for (uint32_t j = 0; j < item.n_rows / item.member_rows; j++)
            all.push_back(member(s, tables, a, item, j));
    }
    return all;
}

/* Every packed row meets each of its splits once. */
static void check_cover(const struct cu_attn_shape *s, const std::vector<cu_attn_span> &spans, const struct arrays *a,
                        const uint32_t *tables = NULL)
{
    const uint32_t group = s->n_heads / s->n_kv_heads;
    std::vector<std::vector<uint8_t>> seen(spans.size()); /* [packed row][head][split] */
    for (size_t i = 0; i < spans.size(); i++)
        seen[i].assign((size_t)spans[i].n_rows * group * s->n_kv_heads * CU_ATTN_SPLITS, 0);
    for (int list = 0; list < 2; list++)
        for (const cu_attn_item &item : all_items(s, tables, a, list)) {
            const cu_attn_span &span = span_of(spans, item);
            const size_t at = &span - spans.data();
            const uint32_t skip = item.token0 - span.row0, last = item.pos0 + (item.row0 + item.n_rows - 1) / group;
            assert_true(item.pos0 == span.pos0 + skip && item.table == span.table && item.kv_head < s->n_kv_heads);
            assert_true(item.n_rows > 0 && item.n_rows <= (list ? 128 : 16) && last < span.pos0 + span.n_rows);
            assert_true(list == 1 || item.row0 == 0);
            assert_true(item.split0 < item.split1 && item.split1 <= row_splits(last));
            assert_int_equal(item.split_tokens, cu_attn_split(item.pos0 + item.row0 / group));
            assert_int_equal(item.split_tokens, cu_attn_split(last));
            for (uint32_t row = skip * group + item.row0; row < skip * group + item.row0 + item.n_rows; row++)
                for (uint32_t split = item.split0; split < item.split1; split++)
                    assert_int_equal(seen[at][((size_t)row * s->n_kv_heads + item.kv_head) * CU_ATTN_SPLITS + split]++, 0);
        }
    for (size_t i = 0; i < spans.size(); i++)
        for (uint32_t row = 0; row < spans[i].n_rows * group; row++)
            for (uint32_t head = 0; head < s->n_kv_heads; head++)
                for (uint32_t split = 0; split < row_splits(spans[i].pos0 + row / group); split++)
                    assert_int_equal(seen[i][((size_t)row * s->n_kv_heads + head) * CU_ATTN_SPLITS + split], 1);
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
            if (item.member_rows > 0)
                continue;
            if (item.partial == CU_NO_SLOT) {
                assert_true(item.part == 0 && item.n_parts == 1 && item.split0 == 0);
                continue;
            }
            assert_true(item.counter < a->plan.n_counters && item.part < item.n_parts);
            const cu_attn_item *&first = of[item.counter];
            first = first ? first : &item;
            assert_true(item.token0 == first->token0 && item.row0 == first->row0 && item.n_rows == first->n_rows &&
                        item.kv_head == first->kv_head && item.partial == first->partial && item.n_parts == first->n_parts &&
                        item.merged == first->merged && item.merged > 0);
            assert_true(parts[item.counter].insert(item.part).second);
            splits[item.counter] = std::max<uint32_t>(splits[item.counter], item.split1);
        }
    std::vector<std::pair<uint32_t, uint32_t>> records;
    for (uint32_t i = 0; i < a->plan.n_counters; i++) {
        assert_non_null(of[i]);
        assert_int_equal(parts[i].size(), of[i]->n_parts);
        records.push_back({of[i]->partial, (splits[i] + 1 - of[i]->merged) * of[i]->n_rows});
    }
    std::sort(records.begin(), records.end());
    uint32_t end = 0;
    for (const std::pair<uint32_t, uint32_t> &r : records) {
        assert_true(r.first >= end);
        end = r.first + r.second;
    }
    assert_true(end <= a->plan.n_partials);
}

static uint64_t item_tokens(const struct cu_attn_shape *s, const cu_attn_item &item)
{
    const uint32_t hi = item.pos0 + (item.row0 + item.n_rows - 1) / (s->n_heads / s->n_kv_heads) + 1;
    return std::min(item.split1 * item.split_tokens, hi) - item.split0 * item.split_tokens;
}

/* List 0: tokens of each block, at most a split more than a fair share, counting 64 per item begun. List 1: longest first, and no
 * item longer than one and a half fair shares of an SM, or a split. Unless the records have run out. */
static void check_balance(const struct cu_attn_shape *s, const struct arrays *a)
{
    assert_int_equal(a->begin[0], 0);
    assert_int_equal(a->begin[s->ctas], a->plan.n_items[0]);
    const uint32_t left = a->plan.max_partials - a->plan.n_partials;
    uint64_t total = 0, most = 0, runs = 0, large = 0, split = CU_SPLIT;
    for (uint32_t cta = 0; cta < s->ctas; cta++) {
        assert_true(a->begin[cta] <= a->begin[cta + 1]);
        uint64_t tokens = 0;
        for (uint32_t i = a->begin[cta]; i < a->begin[cta + 1]; i++) {
            tokens += item_tokens(s, a->items[0][i]);
            runs += a->items[0][i].part == 0;
            split = std::max<uint64_t>(split, a->items[0][i].split_tokens);
        }
        total += tokens;
        most = std::max(most, tokens);
    }
    assert_true(most <= (total + runs * 64) / s->ctas + split || left < 16 * CU_ATTN_SPLITS);
    for (uint32_t i = 0; i < a->plan.n_items[1]; i++)
        large += a->items[1][i].member_rows ? 0 : item_tokens(s, a->items[1][i]);
    for (uint32_t i = 0; i < a->plan.n_items[1]; i++) {
        const cu_attn_item &item = a->items[1][i], &before = a->items[1][i ? i - 1 : 0];
        const uint64_t fair = large / s->sms;
        assert_true(item.member_rows || item_tokens(s, item) <= std::max<uint64_t>(fair + fair / 2, item.split_tokens) ||
                    left < item.n_rows * (uint32_t)item.split1);
        assert_true((item.split1 - item.split0) * item.split_tokens <= (before.split1 - before.split0) * before.split_tokens);
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
        const uint32_t kv_heads = 1 + below(9), group = 1 + below(below(4) ? 8 : 40);
        const uint32_t max_context = 1 + below(below(2) ? 1000 : below(2) ? 9000 : 70000);
        const uint32_t ctas = 1 + below(below(2) ? 20 : 300);
        const struct cu_attn_shape s = {kv_heads * group, kv_heads, 128, 16, ctas, div_up(ctas, 2)};
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
        check_balance(&s, &a);
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
    const struct cu_attn_shape s = {32, 8, 128, 16, 264, 132};
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
    const struct cu_attn_shape s = {32, 8, 128, 16, 264, 132};
    const std::vector<cu_attn_span> spans = {{0, 1, 99999, 0}, {1, 20, 99979, 7000}, {21, 1, 99999, 14000}};
    struct arrays a;
    bounds(&a, &s, 22, 3, 100000);
    const uint32_t run = row_splits(99999) * 4; /* of the first and the last; the chunk's are of 80 rows */
    assert_true(row_splits(99999) == 49 && cu_attn_split(99999) == 2048);
    for (uint32_t room : {0u, run - 1, run, 5 * run}) {
        a.plan.max_partials = room;
        assert_int_equal(cu_attn_make_plan(&s, spans.data(), 3, NULL, &a.plan), ST_OK);
        assert_true(a.plan.n_partials <= room && (room < run) == (a.plan.n_partials == 0));
        assert_int_equal(a.plan.n_counters, room / run);
        check_cover(&s, spans, &a);
        check_parts(&a);
    }
}

/* ---- shared blocks ------------------------------------------------------------------------------------------------- */

/* Sequences and their tables, whose blocks are all different until they are shared. */
struct world {
    std::vector<cu_attn_span> spans;
    std::vector<uint32_t> tables;
    uint32_t rows, block_tokens;
};

static void add(struct world *w, uint32_t pos0, uint32_t n_rows)
{
    w->spans.push_back({w->rows, n_rows, pos0, (uint32_t)w->tables.size()});
    w->rows += n_rows;
    for (uint32_t i = 0; i < div_up(pos0 + n_rows, w->block_tokens); i++)
        w->tables.push_back((uint32_t)w->tables.size());
}

static uint32_t n_blocks(const struct world *w, uint32_t seq)
{
    return div_up(w->spans[seq].pos0 + w->spans[seq].n_rows, w->block_tokens);
}

static void share(struct world *w, uint32_t seq, uint32_t with, uint32_t tokens)
{
    const uint32_t *from = &w->tables[w->spans[with].table];
    std::copy(from, from + tokens / w->block_tokens, &w->tables[w->spans[seq].table]);
}

static uint32_t shared_items(const struct arrays *a)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < a->plan.n_items[1]; i++)
        n += a->items[1][i].member_rows > 0;
    return n;
}

static struct arrays plan_of(const struct cu_attn_shape *s, const struct world *w, bool shared = true)
{
    struct arrays a;
    uint32_t context = 1;
    for (const cu_attn_span &span : w->spans)
        context = std::max(context, span.pos0 + span.n_rows);
    make(&a, s, w->spans, w->rows, (uint32_t)w->spans.size(), context, shared ? w->tables.data() : NULL);
    check_cover(s, w->spans, &a, w->tables.data());
    check_parts(&a);
    assert_true(shared_items(&a) <= cu_attn_share_items(s, a.plan.n_peers * s->n_kv_heads));
    return a;
}

/* Tokens of KV that all items read. */
static uint64_t tokens_read(const struct cu_attn_shape *s, const struct arrays *a)
{
    uint64_t n = 0;
    for (int list = 0; list < 2; list++)
        for (uint32_t i = 0; i < a->plan.n_items[list]; i++)
            n += item_tokens(s, a->items[list][i]);
    return n;
}

static void random_trees(void **unused)
{
    (void)unused;
    const char *from = getenv("ATTN_SEED"), *count = getenv("ATTN_COUNT");
    uint64_t seed = from ? strtoull(from, NULL, 0) : 1, saved = 0;
    uint32_t shared = 0, many = count ? (uint32_t)atoi(count) : 1000;
    printf("seeds from %llu\n", (unsigned long long)seed);
    for (uint32_t n = many; n > 0; n--, seed++) {
        state = seed;
        const uint32_t kv_heads = 1 + below(9), group = 1 + below(16), ctas = 1 + below(300);
        struct world w = {{}, {}, 0, 16 * (1 + below(3))};
        const struct cu_attn_shape s = {kv_heads * group, kv_heads, 128, w.block_tokens, ctas, div_up(ctas, 2)};
        const uint32_t most = below(3) ? 3000 : 40000;
        for (uint32_t i = 0, n_spans = 3 + below(below(3) ? 10 : 80); i < n_spans; i++) {
            add(&w, below(8) ? 1024 + below(most) : below(most), below(9) ? 1 + below(8) / 6 : 1 + below(300));
            const uint32_t with = below(i + 1), same = std::min(w.spans[i].pos0, w.spans[with].pos0);
            if (below(20) == 0) /* even what no two sequences have in common */
                share(&w, i, with, std::min(n_blocks(&w, i), n_blocks(&w, with)) * w.block_tokens);
            else if (below(4))
                share(&w, i, with, below(3) ? same : below(same + 1));
        }
        struct arrays a = plan_of(&s, &w), plain = plan_of(&s, &w, false);
        check_balance(&s, &a);
        assert_int_equal(shared_items(&plain), 0);
        assert_true(tokens_read(&s, &a) <= tokens_read(&s, &plain));
        shared += shared_items(&a) > 0;
        saved += tokens_read(&s, &plain) - tokens_read(&s, &a);
    }
    printf("%u of %u share\n", shared, many);
    assert_true(many < 100 || (shared > many / 4 && saved > 0));
}

/* 64 sequences with 32 splits in common read these twice (256 rows are two items), in as many parts as there are SMs. */
static void prefix_is_read_once(void **unused)
{
    (void)unused;
    const struct cu_attn_shape s = {32, 8, 128, 16, 264, 132};
    struct world w = {{}, {}, 0, 16};
    for (uint32_t i = 0; i < 64; i++) {
        add(&w, 8192 + 500, 1);
        share(&w, i, 0, 8192);
    }
    struct arrays a = plan_of(&s, &w), plain = plan_of(&s, &w, false);
    assert_int_equal(tokens_read(&s, &plain), 64 * 8 * (8192 + 501));
    assert_int_equal(tokens_read(&s, &a), 2 * 8 * 8192 + 64 * 8 * 501);
    assert_int_equal(shared_items(&a), 128);
    /* each run: the first part's splits in one record, one for each later split */
    assert_true(a.plan.n_partials == 64 * 8 * 4 * (1 + 34 - 4) && a.plan.n_counters >= 64 * 8);
}

/* Too few sequences, too few splits, a block that differs where no border looks, other splits: nothing is shared. */
static void not_worth_it(void **unused)
{
    (void)unused;
    const struct cu_attn_shape s = {8, 2, 128, 16, 20, 10};
    for (int what = 0; what < 6; what++) {
        struct world w = {{}, {}, 0, 16};
        for (uint32_t i = 0; i < 3; i++) {
            add(&w, what == 4 ? 17000 - 1000 * i : 1500 + i, what == 5 ? 1 + i : 1);
            share(&w, i, 0, what == 1 && i == 2 ? 0 : what == 2 ? 1008 : what == 4 ? 14848 : 1024);
            w.tables[w.spans[i].table + 30] += what == 3 ? 10000 * i : 0;
        }
        struct arrays a = plan_of(&s, &w);
        assert_int_equal(shared_items(&a) > 0, what == 0);
        assert_int_equal(a.plan.n_members > 0, what == 0);
    }
}

/* Sequences that have less in common with others than these have do not lessen what these share, unless they are many. */
static void deep_groups_stay_deep(void **unused)
{
    (void)unused;
    const struct cu_attn_shape s = {8, 1, 128, 16, 20, 10};
    for (uint32_t shallow : {1u, 2u, 6u, 11u})
        for (uint32_t deep_first = 0; deep_first < 2; deep_first++)
            for (uint32_t depth : {2048u, 1280u}) {
                const uint32_t n = 3 + shallow, deep = deep_first ? 0 : shallow; /* the first of three */
                struct world w = {{}, {}, 0, 16};
                for (uint32_t i = 0; i < n; i++)
                    add(&w, 5000, 1);
                for (uint32_t i = 0; i < n; i++) /* the blocks' numbers decide how they are sorted */
                    share(&w, i, deep, 1024);
                for (uint32_t i = deep; i < deep + 3; i++)
                    share(&w, i, deep, depth);
                struct arrays a = plan_of(&s, &w), plain = plan_of(&s, &w, false);
                const uint64_t saved = tokens_read(&s, &plain) - tokens_read(&s, &a), all = (n - 1) * 1024;
                const uint64_t apart = 2 * depth + (shallow < 3 ? 0 : shallow - 1) * 1024;
                assert_int_equal(saved, std::max(apart, all));
            }
}

/* Sequences that are one and the same: each row has a split of its own. */
static void forks(void **unused)
{
    (void)unused;
    const struct cu_attn_shape s = {8, 1, 128, 16, 20, 10};
    for (uint32_t pos : {1279u, 1280u, 1535u}) {
        struct world w = {{}, {}, 0, 16};
        for (uint32_t i = 0; i < 5; i++) {
            add(&w, pos, 1);
            share(&w, i, 0, n_blocks(&w, i) * 16);
        }
        struct arrays a = plan_of(&s, &w);
        assert_int_equal(tokens_read(&s, &a), pos / 256 * 256 + 5 * (pos % 256 + 1));
    }
}

/* Where records are few a group is cut less, then it is none. */
static void shared_records_run_out(void **unused)
{
    (void)unused;
    const struct cu_attn_shape s = {8, 2, 128, 16, 40, 20};
    struct world w = {{}, {}, 0, 16};
    for (uint32_t i = 0; i < 10; i++) {
        add(&w, 3000 + 5 * i, 1);
        share(&w, i, 0, 2560);
    }
    struct arrays a;
    bounds(&a, &s, 10, 10, 4000);
    uint32_t last = 0;
    for (uint32_t room : {0u, 239u, 240u, 640u, 2000u}) { /* 80 rows: 1 + 2 splits of their own at least */
        a.plan.max_partials = room;
        assert_int_equal(cu_attn_make_plan(&s, w.spans.data(), 10, w.tables.data(), &a.plan), ST_OK);
        assert_true(a.plan.n_partials <= room && (shared_items(&a) > 0) == (room >= 240));
        assert_true(shared_items(&a) >= last);
        last = shared_items(&a);
        check_cover(&s, w.spans, &a, w.tables.data());
        check_parts(&a);
    }
    assert_true(last > 2);
    a.plan.max_counters = 19;
    assert_int_equal(cu_attn_make_plan(&s, w.spans.data(), 10, w.tables.data(), &a.plan), ST_OK);
    assert_int_equal(shared_items(&a), 0);
}

static void refuses(void **unused)
{
    (void)unused;
    const struct cu_attn_shape good = {8, 2, 128, 16, 4, 2};
    struct cu_attn_shape bad[6] = {good, good, good, good, good, good};
    bad[0].n_heads = 9;
    bad[1].n_kv_heads = 0;
    bad[2].n_heads = 0;
    bad[3].ctas = 0;
    bad[4].sms = 0;
    bad[5].block_tokens = 0;
    const std::vector<cu_attn_span> spans = {{0, 3, 700, 0}};
    struct arrays a;
    make(&a, &good, spans, 3, 1, 703);
    for (const struct cu_attn_shape &s : bad)
        assert_int_equal(cu_attn_make_plan(&s, spans.data(), 1, NULL, &a.plan), ST_EINVAL);
    const std::vector<cu_attn_span> empty = {{0, 0, 700, 0}}, endless = {{0, 0xffffffffu, 700, 0}};
    assert_int_equal(cu_attn_make_plan(&good, empty.data(), 1, NULL, &a.plan), ST_EINVAL);
    assert_int_equal(cu_attn_make_plan(&good, endless.data(), 1, NULL, &a.plan), ST_EINVAL);
    a.plan.max_items[0] = 1;
    assert_int_equal(cu_attn_make_plan(&good, spans.data(), 1, NULL, &a.plan), ST_NOSPACE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_batches),
        cmocka_unit_test(batches),
        cmocka_unit_test(records_run_out),
        cmocka_unit_test(random_trees),
        cmocka_unit_test(prefix_is_read_once),
        cmocka_unit_test(not_worth_it),
        cmocka_unit_test(deep_groups_stay_deep),
        cmocka_unit_test(forks),
        cmocka_unit_test(shared_records_run_out),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
