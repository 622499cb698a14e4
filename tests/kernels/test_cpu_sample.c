/* Sampling: known Philox vectors, every filter against a naive twin in doubles, the distribution of draws,
 * bad rows; every instruction set draws the same token with the same log-probability, bit for bit. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "rows_isa.h"

#include "mem.h"

static const struct be_sample_row plain = {.temperature = 1, .top_p = 1, .repetition = 1, .n_logprobs = -1};

struct row {
    float *z, *copy;
    struct rows_guarded guard, scratch;
    uint32_t vocab;
};

static struct row row_open(uint32_t vocab)
{
    struct row r = {.vocab = vocab, .guard = rows_guard(vocab * 4)};
    r.z = r.guard.p;
    r.copy = mem_alloc(vocab * 4);
    r.scratch = rows_guard((cpu_sample_scratch_bytes(vocab) + 63) / 64 * 64);
    return r;
}

static void row_close(struct row *r)
{
    mem_free(r->copy);
    rows_unguard(r->guard);
    rows_unguard(r->scratch);
}

static void row_fill(struct row *r, float scale, uint64_t *s)
{
    for (uint32_t i = 0; i < r->vocab; i++)
        r->z[i] = rows_normal(s) * scale;
}

/* Samples a copy on every instruction set; they must agree to the bit, in logits and result. */
static struct be_sample_out draw(const struct row *r, const struct be_sample_row *p)
{
    const struct cpu_row_kernels *isa[3];
    uint32_t n = rows_isas(isa);
    struct be_sample_out want = {0}, got;
    struct rows_guarded g = rows_guard(r->vocab * 4);
    for (uint32_t i = 0; i < n; i++) {
        memcpy(g.p, r->z, r->vocab * 4);
        memset(&got, 0, sizeof got);
        isa[i]->sample(g.p, r->vocab, p, &got, r->scratch.p);
        if (i == 0) {
            want = got;
            memcpy(r->copy, g.p, r->vocab * 4);
        }
        assert_memory_equal(&got, &want, sizeof got);
        assert_memory_equal(g.p, r->copy, r->vocab * 4);
    }
    rows_unguard(g);
    return want;
}

static void philox_gives_the_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } t[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        uint32_t out[4];
        cpu_sample_philox(out, t[i].counter, t[i].key);
        assert_memory_equal(out, t[i].want, sizeof out);
    }
}

static void greedy_takes_the_lowest_id_of_the_maxima(void **state)
{
    (void)state;
    uint64_t s = rows_seed("greedy");
    for (int round = 0; round < 60; round++) {
        struct row r = row_open(1 + rows_below(&s, 3000));
        row_fill(&r, 3, &s);
        if (round % 2)
            for (uint32_t i = 0; i < r.vocab; i++)
                r.z[i] = (float)(int)r.z[i];
        if (round % 5 == 0)
            for (uint32_t i = 0; i < r.vocab; i++)
                r.z[i] = r.z[i] < 0 ? -0.0f : 0.0f;
        uint32_t best = 0;
        for (uint32_t i = 1; i < r.vocab; i++)
            if (r.z[i] > r.z[best])
                best = i;
        struct be_sample_row p = plain;
        p.temperature = 0;
        struct be_sample_out o = draw(&r, &p);
        assert_int_equal(o.token, best);
        assert_int_equal(o.n_top, 0);
        assert_memory_equal(r.copy, r.z, r.vocab * 4);
        /* whatever the temperature: one token survives top_k = 1, and top_p = 0 */
        p.temperature = 1.5f;
        p.top_k = 1;
        assert_int_equal(draw(&r, &p).token, best);
        p.top_k = 0;
        p.top_p = 0;
        assert_int_equal(draw(&r, &p).token, best);
        p.top_p = 1;
        p.temperature = 0.00002f;
        r.z[best] += 1; /* 50,000 noise units ahead */
        assert_int_equal(draw(&r, &p).token, best);
        row_close(&r);
    }
}

/* ---- the naive twin ---------------------------------------- */

struct entry {
    float z;
    uint32_t id;
    double y;
};

static int by_rank(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->z != y->z)
        return x->z > y->z ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static double noise(const struct be_sample_row *p, uint32_t id)
{
    uint32_t w[4], counter[4] = {p->position, id / 4, 0, 0};
    uint32_t key[2] = {(uint32_t)p->seed, (uint32_t)(p->seed >> 32)};
    cpu_sample_philox(w, counter, key);
    double v = fmin(((double)w[id % 4] + 0.5) / 4294967296.0, 1 - 0x1p-24);
    return -log(-log1p(-v));
}

/* The token that doubles draw, or -2 when a filter's edge or the winner is too close to call in f32. */
static int twin(const float *z, uint32_t vocab, const struct be_sample_row *p)
{
    struct entry *e = mem_alloc(vocab * sizeof *e);
    uint32_t n = 0;
    for (uint32_t i = 0; i < vocab; i++)
        if (z[i] > -INFINITY)
            e[n++] = (struct entry){z[i], i, 0};
    qsort(e, n, sizeof *e, by_rank);
    double total = 0, sum = 0, second = -1e300, best = -1e300;
    int token = -1, unsure = 0;
    if (p->top_k > 0 && p->top_k < n)
        n = p->top_k;
    for (uint32_t i = 0; i < n; i++) {
        e[i].y = ((double)e[i].z - e[0].z) / p->temperature;
        total += exp(e[i].y);
    }
    uint32_t kept = n;
    for (uint32_t i = 0; p->top_p < 1 && i < n; i++) {
        sum += exp(e[i].y);
        if (fabs(sum - p->top_p * total) < 1e-4 * total)
            unsure = 1;
        if (sum >= p->top_p * total) {
            kept = i + 1;
            break;
        }
    }
    for (uint32_t i = 0; i < kept; i++) {
        if (p->min_p > 0 && fabs(e[i].y - log(p->min_p)) < 1e-5)
            unsure = 1;
        if (p->min_p > 0 && e[i].y < log(p->min_p))
            continue;
        double score = e[i].y + noise(p, e[i].id);
        if (score > best) {
            second = best;
            best = score;
            token = (int)e[i].id;
        } else if (score > second) {
            second = score;
        }
    }
    mem_free(e);
    return unsure || best - second < 1e-4 ? -2 : token;
}

static void filters_and_draws_match_the_naive_twin(void **state)
{
    (void)state;
    uint64_t s = rows_seed("twin");
    uint32_t sure = 0, rounds = 400;
    for (uint32_t round = 0; round < rounds; round++) {
        struct row r = row_open(round % 4 ? 1 + rows_below(&s, 2000) : 4000 + rows_below(&s, 9000));
        row_fill(&r, round % 3 ? 3 : 0.3f, &s);
        if (round % 7 == 0)
            for (uint32_t i = 0; i < r.vocab; i++)
                r.z[i] = roundf(r.z[i] * 4) / 4; /* many ties */
        if (round % 11 == 0)
            for (uint32_t i = 1; i < r.vocab; i += 2)
                r.z[i] = -INFINITY;
        struct be_sample_row p = plain;
        p.temperature = (float)(0.1 + 2 * rows_unit(&s));
        p.seed = (uint64_t)rows_rand(&s) << 32 | rows_rand(&s);
        p.position = rows_below(&s, 5000);
        if (rows_below(&s, 2))
            p.top_k = 1 + rows_below(&s, rows_below(&s, 2) ? 60 : 3000);
        if (rows_below(&s, 2))
            p.top_p = (float)rows_unit(&s);
        if (rows_below(&s, 3) == 0)
            p.min_p = (float)(rows_unit(&s) * 0.3);
        int want = twin(r.z, r.vocab, &p), got = draw(&r, &p).token;
        if (want != -2) {
            sure++;
            assert_int_equal(got, want);
        }
        row_close(&r);
    }
    printf("twin: %u of %u rows were clear\n", (unsigned)sure, (unsigned)rounds);
    assert_true(sure > rounds / 2);
}

static void draws_follow_the_distribution(void **state)
{
    (void)state;
    enum { V = 40, DRAWS = 20000 };
    uint64_t s = rows_seed("chi-square");
    struct row r = row_open(V);
    row_fill(&r, 1, &s);
    struct be_sample_row p = plain;
    p.temperature = 0.8f;
    p.seed = (uint64_t)rows_rand(&s) << 32 | rows_rand(&s);
    uint32_t count[V] = {0};
    double total = 0, chi = 0;
    const struct cpu_row_kernels *isa[3];
    uint32_t n_isa = rows_isas(isa);
    for (int i = 0; i < V; i++)
        total += exp(r.z[i] / 0.8);
    for (int i = 0; i < DRAWS; i++) {
        struct be_sample_out o;
        p.position = (uint32_t)i;
        memcpy(r.copy, r.z, V * 4);
        isa[n_isa - 1]->sample(r.copy, V, &p, &o, r.scratch.p);
        assert_in_range(o.token, 0, V - 1);
        count[o.token]++;
    }
    for (int i = 0; i < V; i++) {
        double want = DRAWS * exp(r.z[i] / 0.8) / total;
        chi += (count[i] - want) * (count[i] - want) / want;
    }
    printf("chi-square %.1f with %d degrees of freedom\n", chi, V - 1);
    assert_true(chi < 90); /* 39 expected; above 90 once in 10^5 seeds */
    row_close(&r);
}

static void a_mask_is_a_ban_of_all_others(void **state)
{
    (void)state;
    for (uint32_t n = 1; n < 70; n++) {
        struct row r = row_open(n);
        uint32_t allowed[3] = {0x80000003u, 0xFFFFFFFFu, 0x15u};
        int32_t banned[70];
        struct be_sample_row p = plain, q = plain;
        for (uint32_t i = 0; i < n; i++)
            r.z[i] = (float)((i * 7919) % 64) / 8;
        p.allowed = allowed;
        q.banned = banned;
        for (uint32_t i = 0; i < n; i++)
            if (!(allowed[i / 32] >> i % 32 & 1))
                banned[q.n_banned++] = (int32_t)i;
        p.seed = q.seed = n;
        p.n_logprobs = q.n_logprobs = 5;
        struct be_sample_out a = draw(&r, &p), b = draw(&r, &q);
        assert_int_equal(a.token, b.token);
        assert_true(a.logprob == b.logprob);
        assert_true(allowed[a.token / 32] >> a.token % 32 & 1);
        row_close(&r);
    }
}

static void edits_come_in_their_order(void **state)
{
    (void)state;
    struct row r = row_open(20);
    for (uint32_t i = 0; i < 20; i++)
        r.z[i] = i < 10 ? 1.0f : -1.0f;
    struct be_bias bias[] = {{0, 2.0f}, {1, -3.0f}, {99, 5.0f}};
    struct be_seen seen[] = {{0, 0}, {1, 2}, {2, 3}, {12, 0}, {-1, 1}};
    int32_t banned[] = {3, 4, 1000};
    struct be_sample_row p = plain;
    p.temperature = 0;
    p.bias = bias, p.n_bias = 3;
    p.seen = seen, p.n_seen = 5;
    p.banned = banned, p.n_banned = 3;
    p.repetition = 2, p.frequency = 0.25f, p.presence = 0.5f;
    p.n_logprobs = 3;
    struct be_sample_out o = draw(&r, &p);
    float want[20];
    memcpy(want, r.z, sizeof want);
    want[0] = (1 + 2) / 2.0f;
    want[1] = (1 - 3) * 2.0f - 0.25f * 2 - 0.5f;
    want[2] = 1 / 2.0f - 0.25f * 3 - 0.5f;
    want[3] = want[4] = -INFINITY;
    want[12] = -1 * 2.0f;
    for (int i = 0; i < 20; i++)
        assert_true(r.copy[i] == want[i]);
    assert_int_equal(o.token, 0);
    double sum = 0;
    for (int i = 0; i < 20; i++)
        sum += exp(want[i]);
    assert_true(fabs(o.logprob - (1.5 - log(sum))) < 1e-6);
    assert_int_equal(o.n_top, 3);
    static const int ids[] = {0, 5, 6};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(o.top[i].token, ids[i]);
        assert_true(fabs(o.top[i].logprob - (want[ids[i]] - log(sum))) < 1e-6);
    }
    row_close(&r);
}

static void logprobs_are_those_of_the_edited_row_at_temperature_1(void **state)
{
    (void)state;
    uint64_t s = rows_seed("logprobs");
    for (int round = 0; round < 40; round++) {
        struct row r = row_open(round < 4 ? 1 + (uint32_t)round * 3 : 1 + rows_below(&s, 50000));
        row_fill(&r, round % 3 ? 4 : 0.1f, &s);
        struct be_sample_row p = plain;
        p.temperature = round % 2 ? 0.7f : 0;
        p.n_logprobs = (int32_t)rows_below(&s, 21);
        struct be_sample_out o = draw(&r, &p);
        double sum = 0, max = -1e300;
        for (uint32_t i = 0; i < r.vocab; i++)
            max = fmax(max, r.z[i]);
        for (uint32_t i = 0; i < r.vocab; i++)
            sum += exp(r.z[i] - max);
        double log_z = max + log(sum);
        assert_true(fabs(o.logprob - (r.z[o.token] - log_z)) < 2e-5);
        uint32_t n = (uint32_t)p.n_logprobs < r.vocab ? (uint32_t)p.n_logprobs : r.vocab;
        assert_int_equal(o.n_top, n);
        struct entry *e = mem_alloc(r.vocab * sizeof *e);
        for (uint32_t i = 0; i < r.vocab; i++)
            e[i] = (struct entry){r.z[i], i, 0};
        qsort(e, r.vocab, sizeof *e, by_rank);
        for (uint32_t i = 0; i < n; i++) {
            assert_int_equal(o.top[i].token, e[i].id);
            assert_true(fabs(o.top[i].logprob - (e[i].z - log_z)) < 2e-5);
        }
        mem_free(e);
        row_close(&r);
    }
}

static void bad_rows_give_no_token(void **state)
{
    (void)state;
    uint64_t s = rows_seed("bad");
    for (int round = 0; round < 30; round++) {
        struct row r = row_open(1 + rows_below(&s, 300));
        row_fill(&r, 1, &s);
        struct be_sample_row p = plain;
        p.temperature = (float)(round % 3);
        p.n_logprobs = 2;
        int32_t banned = (int32_t)rows_below(&s, r.vocab);
        if (round % 4 == 3)
            p.banned = &banned, p.n_banned = 1; /* banning must not hide a NaN */
        r.z[banned] = round % 2 ? NAN : INFINITY;
        assert_int_equal(draw(&r, &p).token, -1);
        for (uint32_t i = 0; i < r.vocab; i++)
            r.z[i] = -INFINITY;
        p.n_banned = 0;
        assert_int_equal(draw(&r, &p).token, -1);
        r.z[banned] = -FLT_MAX;
        assert_int_equal(draw(&r, &p).token, banned);
        p.banned = &banned, p.n_banned = 1;
        assert_int_equal(draw(&r, &p).token, -1);
        row_close(&r);
    }
}

int main(void)
{
    rows_ftz();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_known_answers),
        cmocka_unit_test(a_mask_is_a_ban_of_all_others),
        cmocka_unit_test(greedy_takes_the_lowest_id_of_the_maxima),
        cmocka_unit_test(filters_and_draws_match_the_naive_twin),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(edits_come_in_their_order),
        cmocka_unit_test(logprobs_are_those_of_the_edited_row_at_temperature_1),
        cmocka_unit_test(bad_rows_give_no_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
