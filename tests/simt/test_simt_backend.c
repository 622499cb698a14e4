/* The CUDA backend through its op table, on the emulated GPU: a small transformer agrees with the CPU backend's exact arithmetic
 * in every type of weights, activations and KV; a graph's launches give the bits of single launches; under `deterministic` a
 * row's bits are its own however its sequence was cut; ops refuse what does not fit. */
#include "backend_net.h"

#include "cu_backend.h"
#include "simt_c.h"

static const struct shape shapes[] = {
    {2, 64, 4, 2, 16, 96, 80, 16, BE_BF16, BE_BF16, false, false},
    {2, 128, 4, 1, 32, 160, 96, 32, BE_F32, BE_F32, true, true},
    {1, 96, 3, 3, 64, 72, 50, 32, BE_F16, BE_F16, false, true},
    {1, 256, 2, 1, 128, 256, 70, 128, BE_Q4_K, BE_Q6_K, true, false},
    {1, 96, 6, 2, 16, 64, 33, 16, BE_Q4_0, BE_Q8_0, true, true},
    {1, 64, 4, 2, 48, 96, 49, 48, BE_Q4_1, BE_Q4_1, true, false},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

struct setting {
    const char *dtype, *quantization;
    enum be_type kv;
    bool deterministic, no_graphs, library;
    double limit; /* of the relative error */
};

static struct be *open_cuda(const struct setting *s)
{
    struct be_options o = {.device = "cuda",
                           .dtype = s->dtype,
                           .quantization = s->quantization,
                           .deterministic = s->deterministic,
                           .no_graphs = s->no_graphs};
    struct be *be = NULL;
    struct err e = {0};
    sim_library(s->library);
    if (cuda_backend_create(&be, &o, &e))
        fail_msg("%s", e.text);
    return be;
}

static void open_net(struct net *n, const struct source *m, const struct setting *s)
{
    struct err e = {0};
    if (net_init(n, m, open_cuda(s), s->kv, 160, &e))
        fail_msg("%s", e.text);
}

static double relative_error(const float *got, const float *want, size_t n)
{
    double error = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - want[i];
        error += d * d;
        size += (double)want[i] * want[i];
    }
    return sqrt(error / size);
}

/* bf16 rounds activations and KV to 8 bits, f16 to 11; e4m3 KV to 4, and e4m3 weights and activations to 4 each. */
static void the_net_agrees_with_the_cpu(void **state)
{
    (void)state;
    static const struct setting settings[] = {
        {"bfloat16", NULL, BE_BF16, false, false, false, 3e-2},
        {"float16", "none", BE_F16, false, false, true, 4e-3},
        {"auto", NULL, BE_E4M3, false, false, true, 1.5e-1},
        {"float16", NULL, BE_E4M3, true, false, false, 1.5e-1},
        {"bfloat16", "fp8", BE_BF16, false, false, false, 2e-1},
        {"float16", "fp8", BE_E4M3, false, false, true, 2e-1},
    };
    enum { SEQS = 3, LEN = 37 };
    for (int i = 0; i < N_SHAPES; i++) {
        struct source m;
        struct net cpu, gpu;
        struct err e = {0};
        struct be *be = NULL;
        struct be_options o = {.device = "cpu", .threads = 1, .cpu_isa = "auto", .cpu_exact = true};
        source_init(&m, &shapes[i]);
        size_t count = (size_t)NET_SEQS * NET_LEN * m.s.vocab;
        float *want = calloc(count, sizeof *want), *got = calloc(count, sizeof *got);
        assert_int_equal(be_create(&be, &o, &e), ST_OK);
        assert_int_equal(net_init(&cpu, &m, be, BE_F32, 160, &e), ST_OK);
        net_run(&cpu, CHUNKS, SEQS, LEN, want);
        net_fini(&cpu);
        for (size_t j = 0; j < sizeof settings / sizeof *settings; j++) {
            if (i > 0 && (i + j) % 3 != 0)
                continue;
            open_net(&gpu, &m, &settings[j]);
            memset(got, 0, count * sizeof *got);
            net_run(&gpu, CHUNKS, SEQS, LEN, got);
            double error = relative_error(got, want, count);
            print_message("shape %d (%s), %s %s, kv %s: relative error %.2g, limit %.2g\n", i,
                          be_type_name(m.s.main), settings[j].dtype,
                          settings[j].quantization ? settings[j].quantization : "-",
                          be_type_name(settings[j].kv), error, settings[j].limit);
            assert_true(error < settings[j].limit);
            net_fini(&gpu);
        }
        free(want);
        free(got);
        source_fini(&m);
    }
    assert_int_equal(sim_live(), 0);
}

static void same_bits(const float *a, const float *b, size_t n, const char *what, int shape)
{
    if (memcmp(a, b, n * sizeof *a) != 0)
        fail_msg("shape %d: %s: other bits", shape, what);
}

static void a_row_has_its_own_bits_when_deterministic(void **state)
{
    (void)state;
    static const struct setting settings[] = {{"bfloat16", NULL, BE_BF16, true, false, true, 0},
                                              {"float16", "fp8", BE_E4M3, true, false, true, 0}};
    enum { SEQS = 3, LEN = 21 };
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 2; j++) {
            static const char *const names[] = {"whole", "alone", "token by token", "chunks"};
            struct source m;
            struct net n;
            source_init(&m, &shapes[i]);
            size_t count = (size_t)SEQS * NET_LEN * m.s.vocab;
            float *want = calloc(count, sizeof *want), *got = calloc(count, sizeof *got);
            open_net(&n, &m, &settings[j]);
            for (int how = 0; how < SCHEDULES; how++) {
                sim_seed(100 + (uint64_t)how);
                net_run(&n, (enum schedule)how, SEQS, LEN, how ? got : want);
                if (how)
                    same_bits(got, want, count, names[how], i);
            }
            assert_int_equal(sim_library_runs(), 0);
            net_fini(&n);
            free(want);
            free(got);
            source_fini(&m);
        }
}

/* Decode of 1 to 20 sequences, so that padded buckets of the streaming and of the tile kernel run. */
static void a_graph_gives_the_bits_of_single_launches(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        for (uint32_t seqs = 1; seqs <= NET_SEQS; seqs = seqs * 2 + 3) {
            struct setting s = {"bfloat16", i ? "fp8" : "none", BE_BF16, false, true, false, 0};
            struct source m;
            struct net n;
            source_init(&m, &shapes[i]);
            size_t count = (size_t)NET_SEQS * NET_LEN * m.s.vocab;
            float *want = calloc(count, sizeof *want), *got = calloc(count, sizeof *got);
            open_net(&n, &m, &s);
            net_run(&n, TOKENS, seqs, 5, want);
            uint32_t things = sim_live();
            net_fini(&n);
            s.no_graphs = false;
            open_net(&n, &m, &s);
            net_run(&n, TOKENS, seqs, 5, got);
            assert_int_equal(sim_live(), things + 1); /* there is a graph, and one only */
            net_fini(&n);
            same_bits(got, want, count, "graph", i);
            free(want);
            free(got);
            source_fini(&m);
        }
}

static void the_library_takes_what_it_can(void **state)
{
    (void)state;
    struct setting s = {"bfloat16", NULL, BE_BF16, false, false, true, 0};
    struct source m;
    struct net n;
    source_init(&m, &shapes[0]);
    float *out = calloc((size_t)NET_SEQS * NET_LEN * m.s.vocab, sizeof *out);
    open_net(&n, &m, &s);
    net_run(&n, TOKENS, 3, 2, out);
    assert_int_equal(sim_library_runs(), 0); /* few rows stream */
    net_run(&n, ALONE, 1, 20, out);
    assert_int_equal(sim_library_runs(),
                     4 * shapes[0].layers + 1); /* qkv, o, gated without its end, down; logits */
    net_fini(&n);
    free(out);
    source_fini(&m);
}

static void an_op_refuses_what_does_not_fit(void **state)
{
    (void)state;
    struct setting s = {"auto", NULL, BE_BF16, false, false, false, 0};
    struct source m;
    struct net n;
    struct err e = {0};
    struct feed f;
    source_init(&m, &shapes[0]);
    open_net(&n, &m, &s);
    const struct be_ops *ops = n.be->ops;
    for (int t = 0; t < BE_TYPE_COUNT;
         t++) { /* bf16 activations: KV of their type or e4m3, a scale plane behind it */
        struct be_kv_shape ks = {3, 2, 48, 32, 10, (enum be_type)t};
        size_t want = t == BE_BF16   ? 36864
                      : t == BE_E4M3 ? 20480
                                     : 0; /* 2 x 3 x 2 x 32 rows of 48, whole pages */
        assert_int_equal(ops->kv_block_bytes(n.be, &ks), want);
        ks.head_dim = 40;
        assert_int_equal(ops->kv_block_bytes(n.be, &ks), 0);
    }
    feed_begin(&f);
    feed_add(&f, 0, 0, 3, m.s.vocab);
    struct op_norm norm = {3, NULL, m.s.d, n.x, n.gain, 1e-5f, n.down, n.a}; /* down takes ff values, not d */
    assert_int_equal(ops->begin_step(n.be, &f.b), ST_OK);
    assert_int_equal(ops->norm(n.be, &norm), ST_EINVAL);
    norm.next = n.qkv;
    assert_int_equal(ops->norm(n.be, &norm), ST_EINVAL); /* the step is lost */
    assert_int_equal(ops->end_step(n.be, &e), ST_EINVAL);
    assert_string_equal(e.text,
                        "cuda: norm: 3 rows of 64 values for a weight of 96 inputs, in room for 160 of 128");
    f.tokens[1] = (int32_t)m.s.vocab;
    assert_int_equal(net_step(&n, &f.b, &e), ST_EINVAL);
    f.tokens[1] = 1;
    f.tables[0][0] = NET_BLOCKS;
    assert_int_equal(net_step(&n, &f.b, &e), ST_EINVAL);
    f.tables[0][0] = 0;
    f.slots[2] = NET_BLOCK * NET_BLOCKS;
    assert_int_equal(net_step(&n, &f.b, &e), ST_EINVAL);
    assert_string_equal(e.text, "cuda: step: row 2 has KV slot 1024 of 1024");
    f.slots[2] = 2;
    assert_int_equal(net_step(&n, &f.b, &e), ST_OK); /* and a refused step leaves nothing behind */
    net_fini(&n);
    source_fini(&m);
    assert_int_equal(sim_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_net_agrees_with_the_cpu),
        cmocka_unit_test(a_row_has_its_own_bits_when_deterministic),
        cmocka_unit_test(a_graph_gives_the_bits_of_single_launches),
        cmocka_unit_test(the_library_takes_what_it_can),
        cmocka_unit_test(an_op_refuses_what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
