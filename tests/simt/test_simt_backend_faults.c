/* The CUDA backend when things fail: every call of the device in turn, host memory, device memory. Whatever fails, there is a
 * text, later calls say ST_EDEVICE, and nothing is left when all is destroyed. And what the loader makes of files' rows. */
#include "backend_net.h"

#include "cu_backend.h"
#include "mem.h"
#include "simt_c.h"

static const struct shape shape = {1, 64, 2, 1, 16, 64, 33, 16, BE_Q4_0, BE_BF16, false, true};

/* Everything that a backend does, once: load, decode, sample, store and load blocks. The first failure's status and text. */
static int life(struct net *n, const struct source *m, const char *quantization, struct err *e)
{
    struct be_options o = {.device = "cuda", .quantization = quantization};
    struct be *be = NULL;
    *n = (struct net){0};
    int st = cuda_backend_create(&be, &o, e);
    if (st)
        return st;
    st = net_init(n, m, be, BE_BF16, 24, e);
    if (st)
        return st;
    const struct be_ops *ops = be->ops;
    struct be_kv_shape ks = {m->s.layers, m->s.kv_heads, m->s.hd, NET_BLOCK, NET_BLOCKS, BE_BF16};
    struct be_block_copy block = {0, ops->host_alloc(be, ops->kv_block_bytes(be, &ks))};
    struct feed *f = malloc(sizeof *f);
    if (!block.host)
        st = err_set(e, ST_ENOMEM, "no pinned memory");
    for (uint32_t pos = 0; pos < 3 && st == ST_OK; pos++) {
        struct be_sample_out out;
        struct be_sample_row row = {.top_p = 1, .repetition = 1, .n_logprobs = -1};
        struct op_sample sample = {1, m->s.vocab, n->logits, &row, &out};
        uint64_t ticket;
        feed_begin(f);
        feed_add(f, 0, pos, pos + 1, m->s.vocab);
        st = ops->begin_step(be, &f->b);
        st = st ? st : net_forward(n, &f->b);
        st = st ? st : ops->sample(be, &sample);
        int end = ops->end_step(be, e);
        st = st ? st : end;
        st = st ? st : ops->wait_step(be, e);
        if (st == ST_OK)
            st = ops->kv_store(be, n->kv, &block, 1, &ticket);
        while (st == ST_OK && (st = ops->copy_poll(be, ticket)) == 0)
            ;
        if (st == 1)
            st = ops->kv_load(be, n->kv, &block, 1, &ticket);
        if (st && !e->text[0] && ops->end_step(be, e) == ST_OK) /* a copy has no text of its own */
            fail_msg("a failed device ends a step");
    }
    free(f);
    ops->host_free(be, block.host);
    return st;
}

static void end(struct net *n)
{
    if (n->be)
        net_fini(n);
    assert_int_equal(sim_live(), 0);
    assert_int_equal(mem_live(), 0);
}

static void any_call_of_the_device_may_fail(void **state)
{
    (void)state;
    struct source m;
    struct net n;
    source_init(&m, &shape);
    sim_library(false);
    uint32_t calls = 0, device = 0;
    for (;; calls++) {
        struct err e = {0};
        sim_fail_after(calls + 1);
        int st = life(&n, &m, calls % 2 ? "fp8" : NULL, &e);
        sim_fail_after(0);
        if (st == ST_OK) {
            end(&n);
            break;
        }
        if (!e.text[0])
            fail_msg("call %u failed without a text", calls + 1);
        if (st != ST_EDEVICE && st != ST_ENOMEM && st != ST_EUNSUP)
            fail_msg("call %u: status %d: %s", calls + 1, st, e.text);
        device += st == ST_EDEVICE;
        if (st == ST_EDEVICE && n.be) { /* and it stays so */
            struct err later = {0};
            assert_int_equal(n.be->ops->begin_step(n.be, NULL), ST_EDEVICE);
            assert_int_equal(n.be->ops->end_step(n.be, &later), ST_EDEVICE);
            assert_int_equal(n.be->ops->wait_step(n.be, &later), ST_EDEVICE);
            assert_non_null(strstr(later.text, "cuda: "));
            assert_null(n.be->ops->buffer_create(n.be, 64));
        }
        end(&n);
    }
    print_message("%u calls, %u of them made the device fail\n", calls, device);
    assert_true(calls > 100 && device > 50);
    source_fini(&m);
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    struct source m;
    struct net n;
    source_init(&m, &shape);
    for (uint64_t i = 1;; i++) {
        struct err e = {0};
        mem_fail_after(i);
        int st = life(&n, &m, "fp8", &e);
        mem_fail_after(0);
        if (st != ST_OK) {
            assert_true(st == ST_ENOMEM);
            assert_true(e.text[0] != 0);
        }
        end(&n);
        if (st == ST_OK)
            break;
    }
    source_fini(&m);
}

static void a_full_device_names_what_to_lower(void **state)
{
    (void)state;
    struct source m;
    struct net n;
    uint32_t named[3] = {0, 0, 0};
    source_init(&m, &shape);
    for (uint64_t kib = 16;; kib += kib / 8) {
        struct err e = {0};
        sim_memory(kib << 10);
        int st = life(&n, &m, NULL, &e);
        sim_memory(UINT64_MAX);
        end(&n);
        if (st == ST_OK)
            break;
        assert_int_equal(st, ST_ENOMEM);
        named[0] += strstr(e.text, "--quantization") != NULL;
        named[1] += strstr(e.text, "--kv-bytes") != NULL;
        named[2] += strstr(e.text, "--max-num-seqs") != NULL;
        assert_true(strstr(e.text, "are free") || strstr(e.text, "no buffers") ||
                    strstr(e.text, "no activations"));
    }
    assert_true(named[0] && named[1] && named[2]);
    source_fini(&m);
}

/* ---- loading --------------------------------------------------------------------------------------------------------- */

static struct be *open_cuda(const char *quantization, const char *dtype)
{
    struct be_options o = {.device = "cuda", .quantization = quantization, .dtype = dtype};
    struct be *be = NULL;
    struct err e = {0};
    if (cuda_backend_create(&be, &o, &e))
        fail_msg("%s", e.text);
    return be;
}

static void weights_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct be *be = open_cuda("fp8", NULL);
    float w[2 * 64] = {0}, nan[64] = {0};
    struct be_weight *out;
    struct err e = {0};
    nan[63] = NAN;
    const struct {
        struct be_weight_desc d;
        int status;
        const char *text;
    } cases[] = {
        {{.use = BE_USE_LINEAR, .k = 64, .n_parts = 1, .parts = {{BE_F32, 1, nan, NULL}}, .name = "a"},
         ST_EFORMAT,
         "a: a row holds NaN or infinity and cannot be quantised"},
        {{.use = BE_USE_GATED,
          .k = 64,
          .n_parts = 2,
          .parts = {{BE_F32, 1, w, NULL}, {BE_F32, 2, w, NULL}},
          .name = "b"},
         ST_EINVAL,
         "b: gate and up differ in rows"},
        {{.use = BE_USE_LINEAR, .k = 33, .n_parts = 1, .parts = {{BE_Q8_0, 1, w, NULL}}, .name = "c"},
         ST_EINVAL,
         "c: Q8_0 [1, 33] needs rows in multiples of 32"},
        {{.use = BE_USE_VECTOR, .k = 64, .n_parts = 1, .parts = {{BE_Q8_0, 1, w, NULL}}, .name = "d"},
         ST_EUNSUP,
         "d: a vector of Q8_0"},
        {{.use = BE_USE_QKV,
          .k = 4,
          .n_parts = 3,
          .parts = {{BE_F32, 24, w, NULL}, {BE_F32, 24, w, NULL}, {BE_F32, 24, w, NULL}},
          .head_dim = 24,
          .name = "e"},
         ST_EUNSUP,
         "e: head_dim 24 is no multiple of 16 up to 128"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(be->ops->weight_create(be, &cases[i].d, &out, &e), cases[i].status);
        assert_string_equal(e.text, cases[i].text);
    }
    be_destroy(be);
    assert_int_equal(sim_live(), 0);
}

/* e4m3 parts with row scales, as a checkpoint has them, are what `fp8` makes of their values: the same logits, bit for bit. */
static uint8_t nearest_e4m3(float f)
{
    uint8_t best = 0;
    float distance = INFINITY;
    for (uint32_t q = 0; q < 0x7f; q++) {
        int e = (int)(q >> 3), m = (int)(q & 7u);
        float v = e ? ldexpf(1 + (float)m / 8, e - 7) : ldexpf((float)m, -9), d = fabsf(fabsf(f) - v);
        if (d < distance || (d == distance && q % 2 == 0)) {
            best = (uint8_t)q;
            distance = d;
        }
    }
    return (uint8_t)(best | (f < 0 ? 0x80 : 0));
}

static struct be_part quantise(const float *w, uint32_t rows, uint32_t k)
{
    uint8_t *q = malloc((size_t)rows * k);
    float *scale = malloc(rows * sizeof *scale);
    for (uint32_t r = 0; r < rows; r++) {
        float max = 0;
        for (uint32_t i = 0; i < k; i++)
            max = fmaxf(max, fabsf(w[(size_t)r * k + i]));
        scale[r] = max / 448;
        for (uint32_t i = 0; i < k; i++)
            q[(size_t)r * k + i] = nearest_e4m3(w[(size_t)r * k + i] / scale[r]);
    }
    return (struct be_part){BE_E4M3, rows, q, scale};
}

/* x += W act(x) for a few rows. */
static void linear_once(struct be *be, const struct be_weight_desc *d, uint32_t rows, float *x)
{
    enum { K = 96 };
    const struct be_ops *ops = be->ops;
    struct be_weight *w = NULL, *gain = NULL;
    struct be_act *a = NULL;
    struct err e = {0};
    float ones[K];
    for (int i = 0; i < K; i++)
        ones[i] = 1;
    struct be_weight_desc g = {
        .use = BE_USE_VECTOR, .k = K, .n_parts = 1, .parts = {{BE_F32, 1, ones, NULL}}};
    struct be_step_limits l = {8, 8, 8, 8, 8, 100};
    if (ops->weight_create(be, d, &w, &e) || ops->weight_create(be, &g, &gain, &e))
        fail_msg("%s", e.text);
    assert_int_equal(ops->step_limits(be, &l, &e), ST_OK);
    assert_int_equal(ops->act_create(be, 8, K, &a), ST_OK);
    float *dx = ops->buffer_create(be, sizeof(float) * 8 * K);
    assert_int_equal(ops->upload(be, dx, x, sizeof(float) * rows * K), ST_OK);
    struct op_norm norm = {rows, NULL, K, dx, gain, 1e-5f, w, a};
    struct op_linear_add add = {rows, a, w, NULL, dx};
    assert_int_equal(ops->begin_step(be, NULL), ST_OK);
    assert_int_equal(ops->norm(be, &norm), ST_OK);
    assert_int_equal(ops->linear_add(be, &add), ST_OK);
    if (ops->end_step(be, &e) || ops->wait_step(be, &e))
        fail_msg("%s", e.text);
    assert_int_equal(ops->download(be, x, dx, sizeof(float) * rows * K), ST_OK);
    ops->weight_destroy(be, w);
    ops->weight_destroy(be, gain);
    ops->act_destroy(be, a);
    ops->buffer_destroy(be, dx);
    be_destroy(be);
}

/* Places in a step's data have 32 bits: a masked row of this vocabulary alone takes 2 MB. */
static void a_step_of_too_much_data_is_refused(void **state)
{
    (void)state;
    struct be *be = open_cuda(NULL, NULL);
    struct be_step_limits l = {1 << 12, 1 << 12, 1 << 12, 1 << 12, 1 << 12, (1 << 24) - 1};
    struct err e = {0};
    assert_int_equal(be->ops->step_limits(be, &l, &e), ST_EINVAL);
    assert_non_null(strstr(e.text, "--max-num-seqs"));
    be_destroy(be);
    assert_int_equal(sim_live(), 0);
}

static void quantised_at_load_or_before_is_the_same(void **state)
{
    (void)state;
    enum { K = 96, ROWS = 5 };
    float *w = net_floats(K * K, 0, 0.1f), *x = net_floats(ROWS * K, 0, 1), y[ROWS * K], z[ROWS * K];
    for (int i = 0; i < K; i++)
        w[3 * K + i] = 0; /* a row without a maximum */
    struct be_weight_desc d = {
        .use = BE_USE_LINEAR, .k = K, .n_parts = 1, .parts = {{BE_F32, K, w, NULL}}};
    memcpy(y, x, sizeof y);
    linear_once(open_cuda("fp8", NULL), &d, ROWS, y);
    d.parts[0] = quantise(w, K, K);
    ((float *)(uintptr_t)d.parts[0].scale)[3] = 1;
    memcpy(z, x, sizeof z);
    linear_once(open_cuda(NULL, "float16"), &d, ROWS, z); /* the class follows from the file */
    assert_memory_equal(y, z, sizeof y);
    double error = 0, size = 0;
    for (int r = 0; r < ROWS; r++) {
        double square = 0;
        for (int i = 0; i < K; i++)
            square += (double)x[r * K + i] * x[r * K + i] / K;
        for (int n = 0; n < K; n++) {
            double sum = 0;
            for (int i = 0; i < K; i++)
                sum += (double)w[n * K + i] * x[r * K + i] / sqrt(square + 1e-5);
            error += pow(y[r * K + n] - x[r * K + n] - sum, 2);
            size += sum * sum;
        }
    }
    print_message("e4m3 weights and activations: relative error %.2g\n", sqrt(error / size));
    assert_true(error / size < 0.05 * 0.05);
    free((void *)(uintptr_t)d.parts[0].data);
    free((void *)(uintptr_t)d.parts[0].scale);
    free(w);
    free(x);
    assert_int_equal(sim_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_call_of_the_device_may_fail),
        cmocka_unit_test(any_allocation_may_fail),
        cmocka_unit_test(a_full_device_names_what_to_lower),
        cmocka_unit_test(a_step_of_too_much_data_is_refused),
        cmocka_unit_test(weights_that_cannot_be_are_refused),
        cmocka_unit_test(quantised_at_load_or_before_is_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
