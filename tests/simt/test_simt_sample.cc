/* The device sampler against the one of the CPU backend: the same tokens, the same edited logits to the bit, log-probabilities
 * within 1e-5 (the order of one sum differs). With 1024 threads as launched, and with 128, which must not change a token. */
extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "cpu_rows.h"
#include "cpu_sample_row.h"
}
#include <algorithm>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <vector>
#include <xmmintrin.h>

#include "sample.cuh"
#include "simt.h"

#define CPU_VEC 0
#include "cpu_vec.h"

static struct gpu *gpu;
static struct gpu_stream *stream;

/* ---- random numbers ----------------------------------------------------------------------------------------------------- */

static uint64_t seed_of(const char *test)
{
    const char *set = getenv("STATOR_TEST_SEED");
    uint64_t seed = set ? strtoull(set, NULL, 0) : (uint64_t)time(NULL);
    printf("%s: STATOR_TEST_SEED=%llu\n", test, (unsigned long long)seed);
    simt_seed(seed);
    return seed;
}

static uint64_t mix(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint32_t below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(mix(state) % n);
}

static double unit(uint64_t *state)
{
    return ((double)(mix(state) >> 12) + 0.5) * 0x1p-52;
}

static float normal(uint64_t *state)
{
    return (float)(sqrt(-2 * log(unit(state))) * cos(6.283185307179586 * unit(state)));
}

/* ---- rows ----------------------------------------------------------------------------------------------------------------- */

/* A request's row with lists of its own; `cpu` is what the CPU is told: the token of the step before is in its list. */
struct row {
    struct cu_sample_row gpu;
    std::vector<be_bias> bias;
    std::vector<be_seen> seen, seen_with_prev;
    std::vector<int32_t> banned;
    std::vector<uint32_t> allowed; /* empty: all are */
    int32_t prev;                  /* -1: none */
};

static struct row plain_row(void)
{
    struct row r;
    memset(&r.gpu, 0, sizeof r.gpu);
    r.gpu.temperature = r.gpu.top_p = r.gpu.repetition = 1;
    r.gpu.n_logprobs = -1;
    r.prev = -1;
    return r;
}

/* A step: rows, their logits, what both samplers said. */
struct step {
    uint32_t vocab, ld, m;
    std::vector<row> rows;
    std::vector<float> logits; /* [m][ld]; what is past the vocabulary is NaN */
};

struct result {
    std::vector<float> logits;
    std::vector<be_sample_out> out;
    std::vector<int32_t> drawn;
};

static const int32_t UNTOUCHED = 0x5a5a5a5a;

static struct step make_step(uint32_t m, uint32_t vocab, uint32_t ld)
{
    struct step s = {vocab, ld, m, std::vector<row>(m, plain_row()), std::vector<float>((size_t)m * ld, NAN)};
    for (uint32_t i = 0; i < m; i++)
        s.rows[i].gpu.logits_row = m - 1 - i;
    return s;
}

static float *logits_of(struct step &s, uint32_t i)
{
    return &s.logits[(size_t)s.rows[i].gpu.logits_row * s.ld];
}

template <class T> static T *device(const std::vector<T> &v)
{
    T *p = (T *)gpu_alloc(gpu, v.size() * sizeof(T) + 1);
    assert_non_null(p);
    if (!v.empty())
        memcpy(p, v.data(), v.size() * sizeof(T));
    return p;
}

/* A mask's words behind what the blob has; where they begin. */
static uint32_t add_mask(std::vector<uint8_t> &blob, const std::vector<uint32_t> &words)
{
    uint32_t at = (uint32_t)blob.size();
    blob.resize((at + words.size() * 4 + 15) / 16 * 16, 0xa5);
    memcpy(&blob[at], words.data(), words.size() * 4);
    return at;
}

/* The step on the device; only the first n_rows rows are real. */
static struct result run_gpu(const struct step &s, bool narrow, uint32_t n_rows)
{
    std::vector<cu_sample_row> rows;
    std::vector<be_bias> bias(3);
    std::vector<be_seen> seen(5);
    std::vector<int32_t> banned(7, 0), prev(1, UNTOUCHED);
    std::vector<uint8_t> blob(48, 0xa5);
    for (const struct row &r : s.rows) {
        struct cu_sample_row g = r.gpu;
        g.bias0 = (uint32_t)bias.size(), g.n_bias = (uint32_t)r.bias.size();
        g.seen0 = (uint32_t)seen.size(), g.n_seen = (uint32_t)r.seen.size();
        g.banned0 = (uint32_t)banned.size(), g.n_banned = (uint32_t)r.banned.size();
        bias.insert(bias.end(), r.bias.begin(), r.bias.end());
        seen.insert(seen.end(), r.seen.begin(), r.seen.end());
        banned.insert(banned.end(), r.banned.begin(), r.banned.end());
        if (g.prev) {
            prev.push_back(r.prev);
            g.prev = (uint32_t)prev.size();
        }
        if (!r.allowed.empty())
            g.allowed = add_mask(blob, r.allowed);
        rows.push_back(g);
    }
    struct cu_sample p = {};
    p.logits = device(s.logits);
    p.rows = device(rows);
    uint32_t *real = device(std::vector<uint32_t>(1, n_rows));
    p.n_rows = n_rows < s.m ? real : NULL;
    p.bias = device(bias);
    p.seen = device(seen);
    p.banned = device(banned);
    uint32_t parity = 4 + s.vocab % 2; /* a count that rises would do too */
    p.parity = device(std::vector<uint32_t>(1, parity));
    p.blob[parity % 2] = device(blob);
    p.blob[1 - parity % 2] = device(std::vector<uint8_t>(blob.size(), 0x5a)); /* of the step before */
    p.prev_drawn = device(prev);
    p.drawn = device(std::vector<int32_t>(s.m, UNTOUCHED));
    p.out = (struct be_sample_out *)gpu_host_alloc(gpu, s.m * sizeof *p.out);
    memset(p.out, 0x5a, s.m * sizeof *p.out);
    p.m = s.m, p.vocab = s.vocab, p.ld = s.ld;
    assert_int_equal(narrow ? sample_launch<128>(stream, &p) : cu_sample_launch(stream, &p), ST_OK);
    assert_int_equal(gpu_stream_sync(stream), ST_OK);
    struct result got = {std::vector<float>(p.logits, p.logits + s.logits.size()),
                         std::vector<be_sample_out>(p.out, p.out + s.m), std::vector<int32_t>(p.drawn, p.drawn + s.m)};
    const void *all[] = {p.logits, p.rows,  real,     p.bias,    p.seen,   p.banned,
                         p.prev_drawn, p.drawn, p.parity, p.blob[0], p.blob[1]};
    for (const void *a : all)
        gpu_free(gpu, (void *)a);
    gpu_host_free(gpu, p.out);
    return got;
}

static std::vector<be_seen> with_prev(const struct row &r)
{
    std::vector<be_seen> seen = r.seen;
    bool found = false;
    for (struct be_seen &s : seen)
        if (r.gpu.prev && s.token == r.prev) {
            s.n_out++;
            found = true;
        }
    if (r.gpu.prev && r.prev >= 0 && !found)
        seen.push_back({r.prev, 1});
    return seen;
}

static struct result run_cpu(const struct step &s)
{
    struct result want = {s.logits, std::vector<be_sample_out>(s.m), std::vector<int32_t>(s.m)};
    std::vector<char> scratch(cpu_sample_scratch_bytes(s.vocab) + 64);
    uint32_t csr = _mm_getcsr();
    _mm_setcsr(csr | 0x8040u); /* denormals are flushed there */
    for (uint32_t i = 0; i < s.m; i++) {
        const struct row &r = s.rows[i];
        std::vector<be_seen> seen = with_prev(r);
        struct be_sample_row p = {};
        p.temperature = r.gpu.temperature, p.top_k = r.gpu.top_k, p.top_p = r.gpu.top_p, p.min_p = r.gpu.min_p;
        p.repetition = r.gpu.repetition, p.frequency = r.gpu.frequency, p.presence = r.gpu.presence;
        p.seed = r.gpu.seed, p.position = r.gpu.position, p.n_logprobs = r.gpu.n_logprobs;
        p.bias = r.bias.data(), p.n_bias = (uint32_t)r.bias.size();
        p.seen = seen.data(), p.n_seen = (uint32_t)seen.size();
        p.banned = r.banned.data(), p.n_banned = (uint32_t)r.banned.size();
        p.allowed = r.allowed.empty() ? NULL : r.allowed.data();
        void *aligned = (void *)(((size_t)scratch.data() + 63) / 64 * 64);
        cpu_rows_c.sample(&want.logits[(size_t)r.gpu.logits_row * s.ld], s.vocab, &p, &want.out[i], aligned);
        want.drawn[i] = want.out[i].token;
    }
    _mm_setcsr(csr);
    return want;
}

static bool close_enough(float a, float b)
{
    return fabsf(a - b) <= 1e-5f * fmaxf(1.0f, fabsf(a) / 16);
}

static void assert_same_top(const struct be_sample_out &got, const struct be_sample_out &want)
{
    assert_int_equal(got.n_top, want.n_top);
    for (uint32_t i = 0; i < want.n_top; i++) {
        assert_int_equal(got.top[i].token, want.top[i].token);
        assert_true(close_enough(got.top[i].logprob, want.top[i].logprob));
    }
    for (uint32_t i = want.n_top; i < BE_LOGPROBS_MAX; i++)
        assert_int_equal(got.top[i].token, UNTOUCHED);
}

static void describe(const struct step &s, uint32_t i, const struct be_sample_out &got, const struct be_sample_out &want)
{
    const struct cu_sample_row &g = s.rows[i].gpu;
    print_error("row %u of vocabulary %u: token %d, CPU %d; temperature %g, top_k %u, top_p %.9g, min_p %g, %d logprobs\n", i,
                s.vocab, got.token, want.token, g.temperature, g.top_k, g.top_p, g.min_p, g.n_logprobs);
}

/* Runs the step both ways and compares; returns what the CPU said. */
static struct result check(const struct step &s, bool narrow)
{
    struct result want = run_cpu(s), got = run_gpu(s, narrow, s.m);
    for (uint32_t i = 0; i < s.m; i++) {
        const struct be_sample_out &g = got.out[i], &w = want.out[i];
        if (g.token != w.token || g.n_top != w.n_top || !close_enough(g.logprob, w.logprob))
            describe(s, i, g, w);
        assert_int_equal(g.token, w.token);
        assert_int_equal(got.drawn[i], w.token);
        assert_true(close_enough(g.logprob, w.logprob));
        assert_same_top(g, w);
    }
    assert_memory_equal(got.logits.data(), want.logits.data(), want.logits.size() * sizeof(float));
    return want;
}

/* ---- random steps ---------------------------------------------------------------------------------------------------------- */

static void fill(float *z, uint32_t vocab, uint32_t kind, uint64_t *state)
{
    float offset = kind % 3 == 2 ? normal(state) * 40 : 0;
    for (uint32_t i = 0; i < vocab; i++)
        switch (kind) {
        case 0: case 1: case 2: z[i] = normal(state) * 3 + offset; break;                       /* as models make them */
        case 3: case 5: z[i] = normal(state) * 0.2f + offset; break;                            /* flat */
        case 4: z[i] = roundf(normal(state) * 8) / 4; break;                                    /* many ties */
        case 6: z[i] = below(state, 2) ? 0.0f : -0.0f; break;                                   /* nothing but a tie */
        case 7: z[i] = i % 3 ? -INFINITY : normal(state); break;
        case 8: z[i] = -INFINITY; break;
        default: z[i] = normal(state) - (float)(16 * log(1 + unit(state) * (double)vocab)); break; /* a steep head */
        }
    if (kind == 8)
        for (uint32_t n = 1 + below(state, 3); n > 0; n--)
            z[below(state, vocab)] = normal(state);
}

static std::vector<int32_t> distinct_tokens(uint32_t n, uint32_t vocab, uint64_t *state)
{
    std::vector<int32_t> ids;
    uint32_t at = below(state, vocab), by = 1 + below(state, 7);
    for (uint32_t i = 0; i < n && i * by < vocab; i++)
        ids.push_back((int32_t)((at + i * by) % vocab));
    if (below(state, 4) == 0)
        ids.push_back((int32_t)vocab + 3); /* is passed over */
    return ids;
}

static void random_edits(struct row &r, uint32_t vocab, uint64_t *state)
{
    static const float repetitions[] = {1, 1.1f, 0.7f, 3};
    r.gpu.repetition = repetitions[below(state, 4)];
    r.gpu.frequency = below(state, 2) ? normal(state) : 0;
    r.gpu.presence = below(state, 2) ? normal(state) : 0;
    if (below(state, 2))
        for (int32_t t : distinct_tokens(below(state, 300), vocab, state))
            r.seen.push_back({t, below(state, 4)});
    if (below(state, 2))
        for (int32_t t : distinct_tokens(below(state, 30), vocab, state))
            r.bias.push_back({t, below(state, 9) ? normal(state) * 4 : 100.0f});
    for (uint32_t n = below(state, 2) * below(state, 6); n > 0; n--)
        r.banned.push_back((int32_t)below(state, vocab));
    if (below(state, 2)) {
        r.gpu.prev = 1;
        r.prev = r.seen.empty() || below(state, 2) ? (int32_t)below(state, vocab + 1) - 1 : r.seen[0].token;
    }
}

static bool may(const std::vector<uint32_t> &mask, uint32_t id)
{
    return mask[id / 32] >> id % 32 & 1;
}

/* Bits past the vocabulary are as they come: they say nothing. */
static std::vector<uint32_t> random_mask(uint32_t vocab, uint64_t *state)
{
    std::vector<uint32_t> mask((vocab + 31) / 32, 0);
    uint32_t kind = below(state, 8), one = below(state, vocab);
    uint32_t edge = below(state, vocab) / 32 * 32, from = edge + below(state, 3) - (edge > 0), to = from + below(state, 70);
    for (uint32_t id = 0; id < 32 * mask.size(); id++) {
        bool bit = id == one; /* kind 0: nothing else */
        switch (kind) {
        case 1: bit = id != one; break;
        case 2: bit |= below(state, 2) == 0; break;
        case 3: bit |= below(state, 64) == 0; break;
        case 4: bit |= id >= from && id < to; break; /* around the edge of a word */
        case 5: bit |= id < from || id >= to; break;
        case 6: bit = true; break;
        case 7: bit |= id / 32 % 3 == 0; break; /* whole words */
        default: bit |= id >= vocab && below(state, 2); break;
        }
        mask[id / 32] |= (uint32_t)bit << id % 32;
    }
    return mask;
}

static void random_filters(struct cu_sample_row &g, uint32_t vocab, uint64_t *state)
{
    static const float temperatures[] = {0, 1e-6f, 2e-5f, 0.01f, 0.3f, 0.7f, 1, 1, 1.5f, 5};
    static const float shares[] = {0, 1e-9f, 0.999999f, 0x1.fffffep-1f};
    g.temperature = below(state, 2) ? temperatures[below(state, 10)] : (float)(5 * unit(state));
    if (below(state, 2))
        g.top_k = 1 + below(state, below(state, 3) ? 60 : 2 * vocab);
    if (below(state, 2))
        g.top_p = below(state, 8) ? (float)unit(state) : shares[below(state, 4)];
    if (below(state, 3) == 0)
        g.min_p = below(state, 5) ? (float)(0.3 * unit(state)) : 1.0f;
    g.seed = mix(state);
    g.position = below(state, 100000);
    g.n_logprobs = (int32_t)below(state, 22) - 1;
    if (below(state, 2))
        g.n_logprobs = -1;
}

static struct step random_step(uint32_t m, uint32_t vocab, uint64_t *state)
{
    uint32_t ld = below(state, 2) ? (vocab + 3) / 4 * 4 : vocab + below(state, 9);
    struct step s = make_step(m, vocab, ld);
    for (uint32_t i = 0; i < m; i++) {
        fill(logits_of(s, i), vocab, below(state, 10), state);
        random_filters(s.rows[i].gpu, vocab, state);
        if (below(state, 2))
            random_edits(s.rows[i], vocab, state);
        if (below(state, 3) == 0)
            s.rows[i].allowed = random_mask(vocab, state);
    }
    return s;
}

/* ---- tests ---------------------------------------------------------------------------------------------------------------- */

static void philox_gives_the_known_answers(void **)
{
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } t[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (const auto &k : t) {
        uint32_t out[4];
        philox(out, k.counter, k.key);
        assert_memory_equal(out, k.want, sizeof out);
    }
}

static void exp_and_log_are_those_of_the_cpu_to_the_bit(void **)
{
    uint64_t state = seed_of("exp and log");
    for (int i = 0; i < 300000; i++) {
        float x = (float)(-90 * unit(&state) * unit(&state)), y = (float)exp(200 * unit(&state) - 85);
        if (i % 3 == 0)
            y = (float)(0.5 + unit(&state));
        float e = v16_exp(v16_set1(x)).l[0], l = v16_log(v16_set1(y)).l[0];
        assert_int_equal(ptx_bits(sample_exp(x)), ptx_bits(e));
        assert_int_equal(ptx_bits(sample_log(y)), ptx_bits(l));
    }
    assert_true(sample_exp(-INFINITY) == 0);
}

static void targets_and_order_are_those_of_the_cpu(void **)
{
    uint64_t state = seed_of("targets");
    for (int i = 0; i < 100000; i++) {
        uint64_t total = mix(&state) >> (8 + below(&state, 56));
        float share = i % 3 ? (float)unit(&state) : (float)below(&state, 9) / 8;
        assert_true(sample_target(share, total) == cpu_sample_target(share, total));
        float a = normal(&state), b = i % 2 ? a : i % 5 ? normal(&state) : -a;
        uint32_t m = below(&state, 1 << 24), n = below(&state, 1 << 24);
        assert_true((sample_key(a, m) < sample_key(b, n)) == (cpu_sample_key(a, m) < cpu_sample_key(b, n)));
        assert_true(sample_key_value(sample_key(a, m)) == a && sample_key_id(sample_key(a, m)) == m);
    }
}

/* The draw passes over tokens by this bound. */
static void no_noise_is_above_its_bound(void **)
{
    uint64_t state = seed_of("bound");
    for (int i = 0; i < 300000; i++) {
        uint32_t word = (uint32_t)mix(&state) >> below(&state, 32);
        float v = sample_uniform(i % 2 ? word : ~word), g = sample_gumbel(v);
        double exact = -log(-log1p(-(double)v));
        assert_true(fabs(g - exact) < 1e-6 + 1e-6 * fabs(exact));
        assert_true(g <= SAMPLE_NOISE_MAX && g <= sample_score_bound(0, v));
    }
}

static void tokens_are_those_of_the_cpu(void **)
{
    uint64_t state = seed_of("tokens");
    for (int round = 0; round < 150; round++) {
        uint32_t vocab = round % 3 == 0 ? 1 + below(&state, 100) : 64 + below(&state, 5000);
        check(random_step(8, vocab, &state), round % 6 != 0);
    }
}

/* Vocabularies around the edges of words and quads, every row with a mask. */
static void masked_rows_are_those_of_the_cpu(void **)
{
    uint64_t state = seed_of("masks");
    for (int round = 0; round < 120; round++) {
        uint32_t vocab = round % 2 ? 32 * (1 + below(&state, 40)) + below(&state, 9) - 4 : 1 + below(&state, 1500);
        struct step s = random_step(8, vocab, &state);
        for (struct row &r : s.rows)
            r.allowed = random_mask(vocab, &state);
        struct result want = check(s, round % 6 != 0);
        for (uint32_t i = 0; i < s.m; i++) {
            const struct be_sample_out &o = want.out[i];
            assert_true(o.token < 0 || may(s.rows[i].allowed, (uint32_t)o.token));
            for (uint32_t k = 0; k < o.n_top; k++)
                assert_true(may(s.rows[i].allowed, (uint32_t)o.top[k].token));
        }
    }
}

/* A penalty that would be infinite is none: its token is banned before. */
static void masks_come_before_penalties(void **)
{
    struct step s = make_step(2, 70, 72);
    for (uint32_t i = 0; i < s.m; i++) {
        struct row &r = s.rows[i];
        std::fill_n(logits_of(s, i), s.vocab, 1.0f);
        logits_of(s, i)[33] = 3e38f;
        r.gpu.repetition = 0.5f;
        r.gpu.n_logprobs = 3;
        r.allowed = {~0u, ~2u, ~0u};
        if (i == 0)
            r.seen.push_back({33, 1});
        else
            r.gpu.prev = 1, r.prev = 33;
    }
    for (int32_t token : check(s, true).drawn)
        assert_true(token >= 0 && token != 33);
}

/* More tokens stay than the list holds: the search goes on over the row, to the id when logits are equal. */
static void long_rows_need_no_list(void **)
{
    uint64_t state = seed_of("long rows");
    static const uint32_t kinds[] = {0, 3, 6, 4, 9};
    struct step s = make_step(25, 33333, 33336);
    for (uint32_t i = 0; i < s.m; i++) {
        struct cu_sample_row &g = s.rows[i].gpu;
        fill(logits_of(s, i), s.vocab, kinds[i % 5], &state);
        g.seed = mix(&state);
        g.temperature = 1.3f;
        g.n_logprobs = (int32_t)(i % 21);
        if (i / 5 % 2)
            g.top_k = 5000 + below(&state, 20000);
        if (i / 5 != 1)
            g.top_p = (float)(0.25 + 0.749 * unit(&state));
    }
    check(s, true);
}

/* Nearly all of the mass lies in every fourth token: whoever weighs the row by fours must see each of the four. */
static void every_column_of_a_walk_has_its_mass(void **)
{
    uint64_t state = seed_of("columns");
    struct step s = make_step(8, 33333, 33336);
    for (uint32_t i = 0; i < s.m; i++) {
        struct cu_sample_row &g = s.rows[i].gpu;
        float *z = logits_of(s, i);
        for (uint32_t id = 0; id < s.vocab; id++)
            z[id] = normal(&state) * 0.2f + (id % 4 == i % 4 ? 6.0f : 0.0f);
        g.seed = mix(&state);
        g.top_k = 20000;
        g.top_p = 0.9f;
    }
    check(s, true);
}

static void a_row_as_long_as_that_of_a_model(void **)
{
    uint64_t state = seed_of("model row");
    struct step s = make_step(3, 128257, 128260);
    for (uint32_t i = 0; i < s.m; i++) {
        struct cu_sample_row &g = s.rows[i].gpu;
        fill(logits_of(s, i), s.vocab, i, &state);
        g.seed = mix(&state);
        g.temperature = i == 0 ? 0 : 0.8f;
        g.top_p = i == 1 ? 0.95f : 1;
        g.n_logprobs = 5;
        if (i == 2)
            s.rows[i].allowed = random_mask(s.vocab, &state);
    }
    check(s, false);
}

static void the_number_of_threads_changes_no_token(void **)
{
    uint64_t state = seed_of("threads");
    for (int round = 0; round < 6; round++) {
        struct step s = random_step(6, 1 + below(&state, 4000), &state);
        struct result a = run_gpu(s, true, s.m), b = run_gpu(s, false, s.m);
        assert_memory_equal(a.drawn.data(), b.drawn.data(), s.m * sizeof(int32_t));
    }
}

static void bad_rows_give_no_token(void **)
{
    uint64_t state = seed_of("bad");
    for (int round = 0; round < 12; round++) {
        struct step s = make_step(10, 1 + below(&state, 600), 604);
        for (uint32_t i = 0; i < s.m; i++) {
            float *z = logits_of(s, i), *at = &z[below(&state, s.vocab)];
            struct row &r = s.rows[i];
            fill(z, s.vocab, 1, &state);
            random_filters(r.gpu, s.vocab, &state);
            if (i == 0)
                *at = NAN;
            if (i == 1)
                *at = INFINITY;
            if (i == 2) /* banning must not hide it */
                *at = -NAN, r.banned.push_back((int32_t)(at - z));
            for (uint32_t j = 0; i >= 3 && i < 6 && j < s.vocab; j++)
                z[j] = -INFINITY;
            if (i == 4 || i == 5)
                *at = -FLT_MAX;
            if (i == 5)
                r.banned.push_back((int32_t)(at - z));
            if (i >= 6) /* all are banned but one; in rows 6 and 7 not even that */
                r.allowed.assign((s.vocab + 31) / 32, 0);
            if (i >= 8)
                r.allowed[(size_t)(at - z) / 32] |= 1u << (at - z) % 32;
            if (i == 6)
                *at = INFINITY;
            if (i == 8) /* nor may a mask hide it */
                z[(size_t)(at - z + 1) % s.vocab] = -NAN;
        }
        struct result want = check(s, true);
        for (uint32_t i = 0; i < s.m; i++)
            assert_int_equal(want.drawn[i] >= 0, i == 4 || i == 9);
    }
}

/* The token of the step before as the device knows it, and as the host would list it: the same bits. */
static void prev_is_as_if_it_were_listed(void **)
{
    uint64_t state = seed_of("prev");
    for (int round = 0; round < 20; round++) {
        struct step s = random_step(6, 50 + below(&state, 500), &state);
        for (struct row &r : s.rows) {
            r.gpu.prev = 1;
            r.prev = below(&state, 2) && !r.seen.empty() ? r.seen.back().token : (int32_t)below(&state, s.vocab);
        }
        struct step listed = s;
        for (struct row &r : listed.rows) {
            r.seen = with_prev(r);
            r.gpu.prev = 0;
        }
        struct result a = run_gpu(s, true, s.m), b = run_gpu(listed, true, s.m);
        assert_memory_equal(a.logits.data(), b.logits.data(), a.logits.size() * sizeof(float));
        assert_memory_equal(a.out.data(), b.out.data(), s.m * sizeof a.out[0]);
    }
}

static void padded_rows_are_left_alone(void **)
{
    uint64_t state = seed_of("padded");
    struct step s = random_step(7, 300, &state);
    struct result all = run_gpu(s, true, s.m), some = run_gpu(s, true, 4);
    for (uint32_t i = 0; i < s.m; i++) {
        size_t at = (size_t)s.rows[i].gpu.logits_row * s.ld;
        const std::vector<float> &want = i < 4 ? all.logits : s.logits;
        assert_memory_equal(&some.logits[at], &want[at], s.ld * sizeof(float));
        assert_int_equal(some.drawn[i], i < 4 ? all.drawn[i] : UNTOUCHED);
        assert_int_equal(some.out[i].token, i < 4 ? all.drawn[i] : UNTOUCHED);
    }
}

static void draws_follow_the_distribution(void **)
{
    enum { V = 40, ROWS = 200, STEPS = 50 };
    uint64_t state = 20240607; /* fixed: a bound on chance */
    std::vector<float> z(V);
    std::vector<uint32_t> count(V, 0);
    double total = 0, chi = 0;
    for (float &x : z) {
        x = normal(&state);
        total += exp(x / 0.8);
    }
    struct step s = make_step(ROWS, V, V);
    for (uint32_t i = 0; i < ROWS; i++) {
        memcpy(logits_of(s, i), z.data(), V * sizeof(float));
        s.rows[i].gpu.temperature = 0.8f;
        s.rows[i].gpu.seed = 12345;
    }
    for (uint32_t round = 0; round < STEPS; round++) {
        for (uint32_t i = 0; i < ROWS; i++)
            s.rows[i].gpu.position = round * ROWS + i;
        for (int32_t t : run_gpu(s, true, ROWS).drawn) {
            assert_in_range(t, 0, V - 1);
            count[(size_t)t]++;
        }
    }
    for (int i = 0; i < V; i++) {
        double want = ROWS * STEPS * exp(z[(size_t)i] / 0.8) / total;
        chi += (count[(size_t)i] - want) * (count[(size_t)i] - want) / want;
    }
    printf("chi-square %.1f with %d degrees of freedom\n", chi, V - 1);
    assert_true(chi < 70); /* above once in 600 seeds */
}

static void shapes_are_refused(void **)
{
    struct cu_sample_row row = plain_row().gpu;
    struct be_sample_out out;
    float z[4] = {0};
    int32_t drawn;
    struct cu_sample p = {};
    p.logits = z, p.rows = &row, p.out = &out, p.drawn = &drawn, p.m = 0, p.vocab = p.ld = 4;
    assert_int_equal(cu_sample_launch(stream, &p), ST_OK);
    p.m = 1, p.ld = 3;
    assert_int_equal(cu_sample_launch(stream, &p), ST_EINVAL);
    p.ld = p.vocab = 0;
    assert_int_equal(cu_sample_launch(stream, &p), ST_EINVAL);
    p.ld = p.vocab = (1 << 24) + 1;
    assert_int_equal(cu_sample_launch(stream, &p), ST_EINVAL);
    p.ld = p.vocab = 4, p.out = NULL;
    assert_int_equal(cu_sample_launch(stream, &p), ST_EINVAL);
}

static int group_setup(void **)
{
    struct err e;
    return gpu_open(&gpu, &e) || gpu_stream_create(gpu, &stream);
}

static int group_teardown(void **)
{
    gpu_stream_destroy(stream);
    gpu_close(gpu);
    return gpu_sim_live() != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_known_answers),
        cmocka_unit_test(exp_and_log_are_those_of_the_cpu_to_the_bit),
        cmocka_unit_test(targets_and_order_are_those_of_the_cpu),
        cmocka_unit_test(no_noise_is_above_its_bound),
        cmocka_unit_test(tokens_are_those_of_the_cpu),
        cmocka_unit_test(masked_rows_are_those_of_the_cpu),
        cmocka_unit_test(masks_come_before_penalties),
        cmocka_unit_test(long_rows_need_no_list),
        cmocka_unit_test(every_column_of_a_walk_has_its_mass),
        cmocka_unit_test(a_row_as_long_as_that_of_a_model),
        cmocka_unit_test(the_number_of_threads_changes_no_token),
        cmocka_unit_test(bad_rows_give_no_token),
        cmocka_unit_test(prev_is_as_if_it_were_listed),
        cmocka_unit_test(padded_rows_are_left_alone),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(shapes_are_refused),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
