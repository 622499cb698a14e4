/* The CPU backend as a whole, by way of one small transformer layer: a row's bits are its own, whatever the batch, the
 * chunks of its prompt, the threads and the instruction set; and the f32 class agrees with the same layer in double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "kernels/ref_weight.h"

#include <math.h>
#include <xmmintrin.h>

enum { LEN = 37, BLOCK = 16, BLOCKS = 8, SEQS = 2, ROWS_MAX = 80 };

struct shape {
    uint32_t d, heads, kv_heads, hd, ff, vocab, rot;
    enum be_type main, v, kv; /* v and down may be of another type, as mixed files have it */
    bool exact, interleaved, bias;
};

static uint64_t seed = 4711;

/* The file side: random weights, shared by all backends of a test. */
struct source {
    struct shape s;
    uint8_t *embed, *q, *k, *v, *o, *gate, *up, *down;
    float *gain, *bias, *rope;
};

static float *random_floats(uint32_t n, float base, float spread)
{
    float *p = malloc(n * sizeof *p);
    for (uint32_t i = 0; i < n; i++)
        p[i] = base + spread * ref_unit(&seed);
    return p;
}

static void source_init(struct source *m, const struct shape *s)
{
    m->s = *s;
    m->embed = ref_weight_random(s->main, s->vocab, s->d, &seed);
    m->q = ref_weight_random(s->main, s->heads * s->hd, s->d, &seed);
    m->k = ref_weight_random(s->main, s->kv_heads * s->hd, s->d, &seed);
    m->v = ref_weight_random(s->v, s->kv_heads * s->hd, s->d, &seed);
    m->o = ref_weight_random(s->main, s->d, s->heads * s->hd, &seed);
    m->gate = ref_weight_random(s->main, s->ff, s->d, &seed);
    m->up = ref_weight_random(s->main, s->ff, s->d, &seed);
    m->down = ref_weight_random(s->v, s->d, s->ff, &seed);
    m->gain = random_floats(s->d, 1, 0.1f);
    m->bias = random_floats((s->heads + 2 * s->kv_heads) * s->hd, 0, 0.3f);
    m->rope = malloc((size_t)LEN * s->rot * sizeof(float));
    for (uint32_t p = 0; p < LEN; p++)
        for (uint32_t i = 0; i < s->rot / 2; i++) {
            double a = p * pow(1000, -2.0 * i / s->rot);
            m->rope[p * s->rot + 2 * i] = (float)cos(a);
            m->rope[p * s->rot + 2 * i + 1] = (float)sin(a);
        }
}

static void source_fini(struct source *m)
{
    void *all[] = {m->embed, m->q, m->k, m->v, m->o, m->gate, m->up, m->down, m->gain, m->bias, m->rope};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

/* The backend side. */
struct net {
    const struct source *m;
    struct be *be;
    struct be_weight *embed, *qkv, *o, *gated, *down, *gain, *bias;
    struct be_kv *kv;
    struct be_act *a, *b;
    float *x, *q, *logits;
};

static struct be_weight *weight(struct net *n, struct be_weight_desc d)
{
    struct be_weight *w = NULL;
    struct err e = {0};
    if (n->be->ops->weight_create(n->be, &d, &w, &e))
        fail_msg("%s", e.text);
    assert_true(n->be->ops->weight_bytes(w) > 0);
    return w;
}

static bool net_init(struct net *n, const struct source *m, const char *isa, uint32_t threads)
{
    const struct shape *s = &m->s;
    *n = (struct net){.m = m};
    struct be_options o = {.device = "cpu", .threads = threads, .cpu_isa = isa, .cpu_exact = s->exact};
    struct err e = {0};
    int st = be_create(&n->be, &o, &e);
    if (st == ST_EUNSUP)
        return false;
    assert_int_equal(st, ST_OK);
    uint32_t qn = s->heads * s->hd, kn = s->kv_heads * s->hd;
    n->embed = weight(
        n, (struct be_weight_desc){
               .use = BE_USE_EMBED, .k = s->d, .n_parts = 1, .parts = {{s->main, s->vocab, m->embed, NULL}}});
    n->qkv = weight(
        n, (struct be_weight_desc){.use = BE_USE_QKV,
                                   .k = s->d,
                                   .n_parts = 3,
                                   .parts = {{s->main, qn, m->q, NULL}, {s->main, kn, m->k, NULL}, {s->v, kn, m->v, NULL}},
                                   .head_dim = s->hd,
                                   .rot_dim = s->rot,
                                   .rope_interleaved = s->interleaved});
    n->o = weight(n, (struct be_weight_desc){
                         .use = BE_USE_LINEAR, .k = qn, .n_parts = 1, .parts = {{s->main, s->d, m->o, NULL}}});
    n->gated =
        weight(n, (struct be_weight_desc){.use = BE_USE_GATED,
                                          .k = s->d,
                                          .n_parts = 2,
                                          .parts = {{s->main, s->ff, m->gate, NULL}, {s->main, s->ff, m->up, NULL}}});
    n->down =
        weight(n, (struct be_weight_desc){
                      .use = BE_USE_LINEAR, .k = s->ff, .n_parts = 1, .parts = {{s->v, s->d, m->down, NULL}}});
    n->gain = weight(n, (struct be_weight_desc){
                            .use = BE_USE_VECTOR, .k = s->d, .n_parts = 1, .parts = {{BE_F32, 1, m->gain, NULL}}});
    if (s->bias)
        n->bias = weight(n, (struct be_weight_desc){.use = BE_USE_VECTOR,
                                                    .k = 1,
                                                    .n_parts = 3,
                                                    .parts = {{BE_F32, qn, m->bias, NULL},
                                                              {BE_F32, kn, m->bias + qn, NULL},
                                                              {BE_F32, kn, m->bias + qn + kn, NULL}}});
    struct be_kv_shape ks = {1, s->kv_heads, s->hd, BLOCK, BLOCKS, s->kv};
    assert_int_equal(n->be->ops->kv_create(n->be, &ks, &n->kv, &e), ST_OK);
    assert_true(n->be->ops->kv_block_bytes(n->be, &ks) > 0);
    uint32_t wide = s->ff > qn ? s->ff : qn;
    wide = wide > s->d ? wide : s->d;
    assert_int_equal(n->be->ops->act_create(n->be, ROWS_MAX, wide, &n->a), ST_OK);
    assert_int_equal(n->be->ops->act_create(n->be, ROWS_MAX, wide, &n->b), ST_OK);
    n->x = n->be->ops->buffer_create(n->be, sizeof(float) * ROWS_MAX * s->d);
    n->q = n->be->ops->buffer_create(n->be, sizeof(float) * ROWS_MAX * qn);
    n->logits = n->be->ops->buffer_create(n->be, sizeof(float) * ROWS_MAX * s->vocab);
    return true;
}

static void net_fini(struct net *n)
{
    const struct be_ops *ops = n->be->ops;
    struct be_weight *all[] = {n->embed, n->qkv, n->o, n->gated, n->down, n->gain, n->bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        ops->weight_destroy(n->be, all[i]);
    ops->kv_destroy(n->be, n->kv);
    ops->act_destroy(n->be, n->a);
    ops->act_destroy(n->be, n->b);
    ops->buffer_destroy(n->be, n->x);
    ops->buffer_destroy(n->be, n->q);
    ops->buffer_destroy(n->be, n->logits);
    be_destroy(n->be);
}

/* One step: the layer, then logits of all rows into `out` [n_rows][vocab]. */
static void step(struct net *n, const struct be_batch *b, float *out)
{
    const struct shape *s = &n->m->s;
    const struct be_ops *ops = n->be->ops;
    struct be *be = n->be;
    uint32_t rows = b->n_rows;
    int bad = ops->begin_step(be, b);
    bad |= ops->embed(be, &(struct op_embed){b, n->embed, 1.0f, n->x});
    bad |= ops->norm(be, &(struct op_norm){rows, NULL, s->d, n->x, n->gain, 1e-5f, n->qkv, n->a});
    bad |= ops->qkv(be, &(struct op_qkv){b, n->a, n->qkv, n->bias, n->m->rope, s->rot, s->heads, s->kv_heads,
                                         s->hd, 0, n->kv, n->q});
    bad |= ops->attention(be, &(struct op_attention){b, n->q, n->kv, 0, s->heads, s->kv_heads, s->hd, 0,
                                                     1.0f / sqrtf((float)s->hd), n->o, n->b});
    bad |= ops->linear_add(be, &(struct op_linear_add){rows, n->b, n->o, NULL, n->x});
    bad |= ops->norm(be, &(struct op_norm){rows, NULL, s->d, n->x, n->gain, 1e-5f, n->gated, n->a});
    bad |= ops->gated(be, &(struct op_gated){rows, n->a, n->gated, NULL, n->down, n->b});
    bad |= ops->linear_add(be, &(struct op_linear_add){rows, n->b, n->down, NULL, n->x});
    bad |= ops->norm(be, &(struct op_norm){rows, NULL, s->d, n->x, n->gain, 1e-5f, n->embed, n->a});
    bad |= ops->logits(be, &(struct op_logits){rows, n->a, n->embed, n->logits});
    assert_int_equal(ops->end_step(be, NULL), ST_OK);
    assert_int_equal(bad, 0);
    assert_int_equal(ops->download(be, out, n->logits, sizeof(float) * rows * s->vocab), ST_OK);
}

static int32_t token_of(uint32_t seq, uint32_t pos, uint32_t vocab)
{
    return (int32_t)((seq * 31 + pos * 17 + pos * pos) % vocab);
}

/* Feed positions [from[i], to[i]) of each sequence in one step; logits go to out[seq][pos][vocab]. */
static void feed(struct net *n, const uint32_t from[SEQS], const uint32_t to[SEQS], float *out)
{
    static const uint32_t tables[SEQS][3] = {{5, 0, 3}, {2, 7, 1}};
    struct be_span spans[SEQS];
    int32_t tokens[ROWS_MAX];
    uint32_t positions[ROWS_MAX], slots[ROWS_MAX], vocab = n->m->s.vocab;
    struct be_batch b = {.tokens = tokens, .positions = positions, .kv_slots = slots, .spans = spans};
    for (uint32_t q = 0; q < SEQS; q++) {
        if (from[q] == to[q])
            continue;
        spans[b.n_spans++] =
            (struct be_span){b.n_rows, to[q] - from[q], from[q], (to[q] + BLOCK - 1) / BLOCK, tables[q]};
        for (uint32_t p = from[q]; p < to[q]; p++, b.n_rows++) {
            tokens[b.n_rows] = token_of(q, p, vocab);
            positions[b.n_rows] = p;
            slots[b.n_rows] = tables[q][p / BLOCK] * BLOCK + p % BLOCK;
        }
    }
    float *y = malloc(sizeof *y * ROWS_MAX * vocab);
    step(n, &b, y);
    for (uint32_t i = 0; i < b.n_spans; i++)
        memcpy(out + ((size_t)(spans[i].table == tables[1] ? LEN : 0) + spans[i].pos0) * vocab,
               y + (size_t)spans[i].row0 * vocab, sizeof *y * spans[i].n_rows * vocab);
    free(y);
}

enum schedule { WHOLE, ALONE, TOKENS, CHUNKS, SCHEDULES };

/* Both sequences through the layer, cut in the way of `how`. */
static void run(struct net *n, enum schedule how, float *out)
{
    uint32_t at[SEQS] = {0, 0}, to[SEQS];
    for (uint32_t i = 0; at[0] < LEN || at[1] < LEN; i++) {
        for (uint32_t q = 0; q < SEQS; q++) {
            static const uint32_t cuts[] = {1, 13, 3, 9, 2};
            uint32_t want = how == WHOLE    ? LEN
                            : how == ALONE  ? (i == q ? LEN : 0)
                            : how == TOKENS ? 1
                                            : cuts[(i + 2 * q) % 5];
            to[q] = at[q] + want < LEN ? at[q] + want : LEN;
        }
        feed(n, at, to, out);
        memcpy(at, to, sizeof at);
    }
}

/* Causal attention and everything else of row (seq, pos) of the layer, in double, on the file's weights. */
static void matvec(enum be_type t, const uint8_t *w, uint32_t rows, uint32_t k, const double *x, double *y)
{
    uint64_t row_bytes = 0;
    be_type_row_bytes(t, k, &row_bytes);
    for (uint32_t r = 0; r < rows; r++) {
        y[r] = 0;
        for (uint32_t i = 0; i < k; i++)
            y[r] += ref_weight_at(t, w + r * row_bytes, i) * x[i];
    }
}

static void ref_norm(const struct source *m, const double *x, double *y)
{
    double sum = 0;
    for (uint32_t i = 0; i < m->s.d; i++)
        sum += x[i] * x[i];
    for (uint32_t i = 0; i < m->s.d; i++)
        y[i] = x[i] / sqrt(sum / m->s.d + 1e-5) * (double)m->gain[i];
}

static void ref_rope(const struct source *m, double *h, uint32_t pos)
{
    uint32_t half = m->s.rot / 2;
    for (uint32_t i = 0; i < half; i++) {
        double *a = h + (m->s.interleaved ? 2 * i : i), *b = h + (m->s.interleaved ? 2 * i + 1 : i + half);
        double c = m->rope[pos * m->s.rot + 2 * i], s = m->rope[pos * m->s.rot + 2 * i + 1], x = *a, y = *b;
        *a = x * c - y * s;
        *b = x * s + y * c;
    }
}

static void ref_layer(const struct source *m, uint32_t seq, double *logits)
{
    enum { W = 512 };
    const struct shape *s = &m->s;
    uint32_t qn = s->heads * s->hd, kn = s->kv_heads * s->hd;
    static double keys[LEN][W], values[LEN][W];
    uint64_t row_bytes = 0;
    be_type_row_bytes(s->main, s->d, &row_bytes);
    for (uint32_t p = 0; p < LEN; p++) {
        double x[W], y[W], q[W], att[W], g[W], u[W];
        for (uint32_t i = 0; i < s->d; i++)
            x[i] = ref_weight_at(s->main, m->embed + (uint64_t)token_of(seq, p, s->vocab) * row_bytes, i);
        ref_norm(m, x, y);
        matvec(s->main, m->q, qn, s->d, y, q);
        matvec(s->main, m->k, kn, s->d, y, keys[p]);
        matvec(s->v, m->v, kn, s->d, y, values[p]);
        for (uint32_t i = 0; s->bias && i < qn; i++)
            q[i] += (double)m->bias[i];
        for (uint32_t i = 0; s->bias && i < kn; i++) {
            keys[p][i] += (double)m->bias[qn + i];
            values[p][i] += (double)m->bias[qn + kn + i];
        }
        for (uint32_t h = 0; h < s->heads; h++)
            ref_rope(m, q + h * s->hd, p);
        for (uint32_t h = 0; h < s->kv_heads; h++)
            ref_rope(m, keys[p] + h * s->hd, p);
        for (uint32_t h = 0; h < s->heads; h++) {
            uint32_t kh = h / (s->heads / s->kv_heads) * s->hd;
            double e[LEN], sum = 0;
            for (uint32_t t = 0; t <= p; t++) {
                double dot = 0;
                for (uint32_t i = 0; i < s->hd; i++)
                    dot += q[h * s->hd + i] * keys[t][kh + i];
                sum += e[t] = exp(dot / sqrt(s->hd));
            }
            for (uint32_t i = 0; i < s->hd; i++) {
                att[h * s->hd + i] = 0;
                for (uint32_t t = 0; t <= p; t++)
                    att[h * s->hd + i] += e[t] / sum * values[t][kh + i];
            }
        }
        matvec(s->main, m->o, s->d, qn, att, y);
        for (uint32_t i = 0; i < s->d; i++)
            x[i] += y[i];
        ref_norm(m, x, y);
        matvec(s->main, m->gate, s->ff, s->d, y, g);
        matvec(s->main, m->up, s->ff, s->d, y, u);
        for (uint32_t i = 0; i < s->ff; i++)
            g[i] = g[i] / (1 + exp(-g[i])) * u[i];
        matvec(s->v, m->down, s->d, s->ff, g, y);
        for (uint32_t i = 0; i < s->d; i++)
            x[i] += y[i];
        ref_norm(m, x, y);
        matvec(s->main, m->embed, s->vocab, s->d, y, logits + (size_t)p * s->vocab);
    }
}

static const struct shape shapes[] = {
    {64, 4, 2, 16, 96, 80, 16, BE_F32, BE_F32, BE_F32, false, true, true},
    {64, 4, 2, 16, 96, 80, 8, BE_F16, BE_F16, BE_F32, false, false, true},
    {60, 3, 1, 32, 90, 33, 32, BE_BF16, BE_BF16, BE_BF16, false, false, false},
    {96, 2, 2, 32, 64, 50, 32, BE_Q4_1, BE_Q8_0, BE_F16, false, true, false},
    {96, 6, 2, 16, 64, 50, 16, BE_Q4_0, BE_F16, BE_F16, false, true, false},
    {256, 4, 1, 64, 256, 70, 64, BE_Q4_K, BE_Q6_K, BE_F16, false, true, false},
    {64, 4, 2, 16, 96, 80, 16, BE_Q4_1, BE_Q4_1, BE_F32, true, false, true},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static void a_row_has_its_own_bits_in_any_batch_on_any_threads_and_isa(void **state)
{
    (void)state;
    static const char *const isas[] = {"c", "avx2", "avxvnni", "avx512", "amx"};
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int i = 0; i < N_SHAPES; i++) {
        struct source m;
        source_init(&m, &shapes[i]);
        size_t bytes = sizeof(float) * SEQS * LEN * shapes[i].vocab;
        float *want = malloc(bytes), *got = malloc(bytes);
        for (int k = 0; k < 5; k++)
            for (uint32_t threads = 1; threads <= (k ? 3 : 1); threads++) { /* plain C is slow */
                struct net n;
                if (!net_init(&n, &m, isas[k], threads))
                    break;
                for (int how = 0; how < SCHEDULES; how++) {
                    memset(got, 0, bytes);
                    run(&n, (enum schedule)how, got);
                    if (k == 0 && threads == 1 && how == 0)
                        memcpy(want, got, bytes);
                    if (memcmp(got, want, bytes))
                        fail_msg("shape %d, %s, %u threads, schedule %d: other bits", i, isas[k], threads,
                                 how);
                }
                net_fini(&n);
            }
        free(want);
        free(got);
        source_fini(&m);
    }
}

static void the_layer_agrees_with_double(void **state)
{
    (void)state;
    for (int i = 0; i < N_SHAPES; i++) {
        struct source m;
        struct net n;
        source_init(&m, &shapes[i]);
        uint32_t vocab = shapes[i].vocab;
        float *got = malloc(sizeof *got * SEQS * LEN * vocab);
        double *want = malloc(sizeof *want * LEN * vocab);
        assert_true(net_init(&n, &m, "auto", 2));
        run(&n, WHOLE, got);
        double error = 0, size = 0;
        for (uint32_t q = 0; q < SEQS; q++) {
            ref_layer(&m, q, want);
            for (size_t j = 0; j < (size_t)LEN * vocab; j++) {
                double e = (double)got[q * LEN * vocab + j] - want[j];
                error += e * e;
                size += want[j] * want[j];
            }
        }
        /* relative error: f32 rounding; bf16 rounds activations and KV to 8 bits; int8 rounds activations to 7 */
        double rel = sqrt(error / size);
        bool f32 = shapes[i].exact || shapes[i].main == BE_F32 || shapes[i].main == BE_F16;
        print_message("shape %d (%s): relative error %.2g\n", i, be_type_name(shapes[i].main), rel);
        assert_true(rel < (f32 ? 2e-5 : shapes[i].main == BE_BF16 ? 1e-2 : 3e-2));
        net_fini(&n);
        free(got);
        free(want);
        source_fini(&m);
    }
}

static void sampling_takes_the_largest_logit_and_the_step_restores_mxcsr(void **state)
{
    (void)state;
    struct source m;
    struct net n;
    source_init(&m, &shapes[3]);
    assert_true(net_init(&n, &m, "auto", 2));
    uint32_t vocab = m.s.vocab;
    for (uint32_t i = 0; i < 3 * vocab; i++)
        n.logits[i] = (float)(i % vocab == 7 + i / vocab) * 5;
    struct be_sample_row rows[3];
    struct be_sample_out out[3] = {{0}};
    for (uint32_t i = 0; i < 3; i++)
        rows[i] = (struct be_sample_row){.logits_row = i, .top_p = 1, .repetition = 1, .n_logprobs = -1};
    unsigned before = _mm_getcsr();
    assert_int_equal(n.be->ops->begin_step(n.be, NULL), ST_OK);
    assert_int_equal(_mm_getcsr() & 0x8040u, 0x8040u);
    assert_int_equal(n.be->ops->sample(n.be, &(struct op_sample){3, vocab, n.logits, rows, out}), ST_OK);
    assert_int_equal(n.be->ops->end_step(n.be, NULL), ST_OK);
    assert_int_equal(_mm_getcsr() & 0x8040u, before & 0x8040u);
    for (int i = 0; i < 3; i++)
        assert_int_equal(out[i].token, 7 + i);
    net_fini(&n);
    source_fini(&m);
}

static void an_op_refuses_what_does_not_fit(void **state)
{
    (void)state;
    struct source m;
    struct net n;
    source_init(&m, &shapes[3]);
    assert_true(net_init(&n, &m, "auto", 1));
    const struct be_ops *ops = n.be->ops;
    struct op_norm norm = {1, NULL, m.s.d, n.x, n.gain, 1e-5f, n.down, n.a};
    assert_int_equal(ops->norm(n.be, &norm), ST_EINVAL); /* down takes ff values, not d */
    norm.next = n.gain;
    assert_int_equal(ops->norm(n.be, &norm), ST_EINVAL);
    norm.next = n.qkv;
    norm.n_rows = ROWS_MAX + 1;
    assert_int_equal(ops->norm(n.be, &norm), ST_EINVAL);
    norm.n_rows = 1;
    assert_int_equal(ops->norm(n.be, &norm), ST_OK);
    assert_int_equal(ops->linear_add(n.be, &(struct op_linear_add){2, n.a, n.gated, NULL, n.x}), ST_EINVAL);
    assert_int_equal(ops->linear_add(n.be, &(struct op_linear_add){1, n.a, n.down, NULL, n.x}), ST_EINVAL);
    assert_int_equal(ops->gated(n.be, &(struct op_gated){1, n.a, n.gated, NULL, n.down, n.a}), ST_EINVAL);
    net_fini(&n);
    source_fini(&m);
}

/* Copies the pool's blocks, all of them, to or from `host`. */
static void copy_blocks(struct net *n, char *host, size_t block_bytes, bool store)
{
    const struct be_ops *ops = n->be->ops;
    struct be_block_copy list[BLOCKS];
    uint64_t ticket;
    for (uint32_t i = 0; i < BLOCKS; i++)
        list[i] = (struct be_block_copy){.block = i, .host = host + i * block_bytes};
    assert_int_equal((store ? ops->kv_store : ops->kv_load)(n->be, n->kv, list, BLOCKS, &ticket), ST_OK);
    assert_int_equal(ops->copy_poll(n->be, ticket), 1);
    assert_int_equal(ops->copy_poll(n->be, ticket + 1), ST_EINVAL);
}

static void blocks_come_back_from_host_memory_with_their_bits(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        struct source m;
        struct net n;
        source_init(&m, &shapes[k]);
        assert_true(net_init(&n, &m, "auto", 2));
        const struct be_ops *ops = n.be->ops;
        struct be_kv_shape ks = {1, m.s.kv_heads, m.s.hd, BLOCK, BLOCKS, m.s.kv};
        size_t block = ops->kv_block_bytes(n.be, &ks), row = m.s.vocab * sizeof(float);
        char *kept = ops->host_alloc(n.be, BLOCKS * block), *other = ops->host_alloc(n.be, BLOCKS * block);
        float *whole = malloc(SEQS * LEN * row), *last = malloc(SEQS * LEN * row);
        assert_true(kept && other && whole && last);
        run(&n, WHOLE, whole);
        copy_blocks(&n, kept, block, true);
        memset(other, 0x5a, BLOCKS * block);
        copy_blocks(&n, other, block, false);
        memset(other, 0, BLOCKS * block);
        copy_blocks(&n, other, block, true);
        for (size_t i = 0; i < BLOCKS * block; i++)
            assert_int_equal(other[i], 0x5a);
        copy_blocks(&n, kept, block, false);
        feed(&n, (uint32_t[]){LEN - 1, LEN - 1}, (uint32_t[]){LEN, LEN}, last);
        for (uint32_t q = 0; q < SEQS; q++) {
            size_t at = ((size_t)(q + 1) * LEN - 1) * m.s.vocab;
            assert_memory_equal(last + at, whole + at, row);
        }
        free(whole);
        free(last);
        ops->host_free(n.be, kept);
        ops->host_free(n.be, other);
        net_fini(&n);
        source_fini(&m);
    }
}

static void a_copy_refuses_what_does_not_fit(void **state)
{
    (void)state;
    struct source m;
    struct net n;
    source_init(&m, &shapes[0]);
    assert_true(net_init(&n, &m, "auto", 1));
    const struct be_ops *ops = n.be->ops;
    static char host[2][65536];
    struct be_block_copy list[2] = {{0, host[0]}, {BLOCKS, host[1]}};
    uint64_t ticket = 7;
    assert_int_equal(ops->kv_store(n.be, n.kv, list, 2, &ticket), ST_EINVAL);
    assert_int_equal(ops->kv_load(n.be, n.kv, list, 2, &ticket), ST_EINVAL);
    list[1] = (struct be_block_copy){1, NULL};
    assert_int_equal(ops->kv_store(n.be, n.kv, list, 2, &ticket), ST_EINVAL);
    assert_int_equal(ops->kv_store(n.be, n.kv, list, 0, &ticket), ST_EINVAL);
    assert_int_equal(ops->begin_step(n.be, NULL), ST_OK);
    assert_int_equal(ops->kv_store(n.be, n.kv, list, 1, &ticket), ST_EINVAL); /* not launched yet */
    assert_int_equal(ops->end_step(n.be, NULL), ST_OK);
    assert_int_equal(ticket, 7);
    assert_int_equal(ops->kv_store(n.be, n.kv, list, 1, &ticket), ST_OK);
    net_fini(&n);
    source_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_has_its_own_bits_in_any_batch_on_any_threads_and_isa),
        cmocka_unit_test(the_layer_agrees_with_double),
        cmocka_unit_test(sampling_takes_the_largest_logit_and_the_step_restores_mxcsr),
        cmocka_unit_test(an_op_refuses_what_does_not_fit),
        cmocka_unit_test(blocks_come_back_from_host_memory_with_their_bits),
        cmocka_unit_test(a_copy_refuses_what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
