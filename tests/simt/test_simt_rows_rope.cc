/* Rotary embedding and the KV append: q and the whole pool, byte for byte, against a plain loop over dims. */
#include <initializer_list>

#include "rows_ref.h"

#include "cu_rows.h"

extern "C" {
#include "cpu_rows.h"
}

enum { LAYERS = 2, BLOCKS = 9, BLOCK_TOKENS = 16 };

struct rope_case {
    struct cu_rope p;
    uint16_t *qkv, *q, *want_q;
    float *rope;
    uint32_t *positions, *slots, n_positions, heads;
    uint8_t *pool, *want_pool;
    size_t pool_bytes;
};

/* One (token, head) into the reference pool; x: head_dim floats before any rounding. */
static void kv_ref(struct rope_case *c, uint32_t slot, uint32_t plane, const float *x)
{
    const struct cu_kv *kv = &c->p.kv;
    uint8_t *block = c->want_pool + slot / BLOCK_TOKENS * kv->block_stride;
    size_t at = ((size_t)c->p.layer * 2 * kv->n_kv_heads + plane) * BLOCK_TOKENS + slot % BLOCK_TOKENS;
    int e = -15; /* the smallest that every value fits; none does for NaN */
    for (uint32_t i = 0; i < kv->head_dim; i++)
        while (e < 7 && !(fabs(ref_from16(ref_to16(x[i], c->p.xt), c->p.xt)) <= ldexp(448, e)))
            e++;
    for (uint32_t i = 0; i < kv->head_dim; i++) {
        size_t dim = at * kv->head_dim + i;
        float rounded = ref_from16(ref_to16(x[i], c->p.xt), c->p.xt);
        if (kv->type == CU_E4M3) {
            block[dim] = ref_e4m3(ldexpf(rounded, -e));
            continue;
        }
        uint16_t h = ref_to16(x[i], kv->type);
        memcpy(block + 2 * dim, &h, 2);
    }
    if (kv->type == CU_E4M3)
        block[kv->scale_offset + at] = (uint8_t)(e + 127);
}

/* The turn of one head in floats; checked against doubles. */
static void rotate_ref(const struct rope_case *c, float *out, const uint16_t *head, uint32_t position)
{
    uint32_t rot = c->p.rot_dim;
    for (uint32_t i = 0; i < c->p.kv.head_dim; i++)
        out[i] = ref_from16(head[i], c->p.xt);
    for (uint32_t pair = 0; pair < rot / 2; pair++) {
        uint32_t a = c->p.interleaved ? 2 * pair : pair, b = c->p.interleaved ? a + 1 : pair + rot / 2;
        const float *turn = c->rope + (size_t)position * rot + 2 * pair;
        float x = out[a], y = out[b], cos = turn[0], sin = turn[1];
        out[a] = x * cos - y * sin;
        out[b] = y * cos + x * sin;
        double bound = (fabs((double)x) + fabs((double)y)) * 0x1p-22 + 1e-37;
        assert_true(!(fabs(out[a] - ((double)x * cos - (double)y * sin)) > bound));
        assert_true(!(fabs(out[b] - ((double)y * cos + (double)x * sin)) > bound));
    }
}

static void rope_ref(struct rope_case *c)
{
    uint32_t dim = c->p.kv.head_dim, n_kv = c->p.kv.n_kv_heads;
    float x[256];
    for (uint32_t row = 0; row < c->p.m; row++)
        for (uint32_t head = 0; head < c->heads; head++) {
            const uint16_t *src = c->qkv + (size_t)row * c->p.ldqkv + head * dim;
            if (head < c->p.n_heads + n_kv)
                rotate_ref(c, x, src, c->positions[row]);
            else
                for (uint32_t i = 0; i < dim; i++)
                    x[i] = ref_from16(src[i], c->p.xt);
            if (head < c->p.n_heads)
                for (uint32_t i = 0; i < dim; i++)
                    c->want_q[((size_t)row * c->p.n_heads + head) * dim + i] = ref_to16(x[i], c->p.xt);
            else if (c->slots[row] != CU_NO_SLOT)
                kv_ref(c, c->slots[row], head - c->p.n_heads, x);
        }
}

static struct rope_case rope_make(int xt, int pool, bool interleaved, uint32_t dim, uint32_t rot, uint32_t m,
                                  uint32_t n_positions)
{
    struct rope_case c = {};
    uint32_t n_kv = 1 + ref_below(4), n_heads = n_kv * (1 + ref_below(4));
    c.heads = n_heads + 2 * n_kv;
    c.n_positions = n_positions;
    uint32_t planes = LAYERS * 2 * n_kv * BLOCK_TOKENS, body = planes * dim * cu_type_bytes((enum cu_type)pool);
    uint64_t stride = cu_round_up(body + (pool == CU_E4M3 ? planes : 0), 4096);
    c.pool_bytes = stride * BLOCKS;
    c.p.m = m, c.p.ldqkv = c.heads * dim + 8 * ref_below(3), c.p.layer = ref_below(LAYERS), c.p.n_heads = n_heads;
    c.p.rot_dim = rot, c.p.xt = (uint8_t)xt, c.p.interleaved = interleaved;
    c.p.qkv = c.qkv = ref_alloc<uint16_t>((size_t)m * c.p.ldqkv);
    c.p.rope = c.rope = ref_alloc<float>((size_t)n_positions * rot + 1);
    c.p.positions = c.positions = ref_alloc<uint32_t>(m);
    c.p.slots = c.slots = ref_alloc<uint32_t>(m);
    c.p.q = c.q = ref_alloc<uint16_t>((size_t)m * n_heads * dim);
    c.pool = ref_alloc<uint8_t>(c.pool_bytes);
    c.p.kv = {c.pool, stride, body, BLOCKS, LAYERS, n_kv, dim, BLOCK_TOKENS, (uint8_t)pool};
    c.want_q = (uint16_t *)malloc((size_t)m * n_heads * dim * 2);
    c.want_pool = (uint8_t *)malloc(c.pool_bytes);
    memset(c.want_pool, 0xa5, c.pool_bytes);
    for (uint32_t row = 0; row < m; row++)
        for (uint32_t i = 0; i < c.p.ldqkv; i++) /* heads of all sizes: their e4m3 scales differ */
            c.qkv[(size_t)row * c.p.ldqkv + i] = ref_to16(ldexpf(ref_normal(), (int)((row + i / dim) % 13) - 6), xt);
    for (uint32_t row = 0; row < m; row++) { /* distinct slots while they last, some rows padded */
        bool padded = row >= BLOCKS * BLOCK_TOKENS || (m > 1 && ref_below(4) == 0);
        c.slots[row] = padded ? CU_NO_SLOT : (row * 7 + 5) % (BLOCKS * BLOCK_TOKENS);
        uint32_t position = c.positions[row] = row ? ref_below(n_positions) : n_positions - 1;
        for (uint32_t pair = 0; pair < rot / 2; pair++) {
            double angle = position * pow(10000, -2.0 * pair / rot);
            c.rope[(size_t)position * rot + 2 * pair] = (float)cos(angle);
            c.rope[(size_t)position * rot + 2 * pair + 1] = (float)sin(angle);
        }
    }
    return c;
}

static void rope_check(struct rope_case *c)
{
    rope_ref(c);
    assert_int_equal(cu_rows_rope(ref_stream, &c->p), ST_OK);
    ref_sync();
    assert_memory_equal(c->q, c->want_q, (size_t)c->p.m * c->p.n_heads * c->p.kv.head_dim * 2);
    assert_memory_equal(c->pool, c->want_pool, c->pool_bytes);
}

static void rope_free(struct rope_case *c)
{
    ref_free(c->qkv);
    ref_free(c->rope);
    ref_free(c->positions);
    ref_free(c->slots);
    ref_free(c->q);
    ref_free(c->pool);
    free(c->want_q);
    free(c->want_pool);
}

/* Every pair of types, both pairings, rotations of whole, half and odd parts of a head. */
static void every_shape_matches(void **state)
{
    (void)state;
    ref_seed("every_shape_matches");
    static const struct {
        uint32_t dim, rot;
    } shapes[] = {{16, 16}, {48, 48}, {64, 64}, {80, 80}, {96, 32}, {128, 128}, {256, 64}, {128, 20}, {64, 6}, {32, 0}, {80, 42}};
    for (auto shape : shapes)
        for (int xt = CU_BF16; xt <= CU_F16; xt++)
            for (int pool : {xt, (int)CU_E4M3})
                for (int interleaved = 0; interleaved < 2; interleaved++) {
                    struct rope_case c = rope_make(xt, pool, interleaved, shape.dim, shape.rot, 1 + ref_below(6), 50);
                    rope_check(&c);
                    rope_free(&c);
                }
}

static void many_rows_and_far_positions(void **state)
{
    (void)state;
    ref_seed("many_rows_and_far_positions");
    for (int interleaved = 0; interleaved < 2; interleaved++) {
        struct rope_case c = rope_make(CU_BF16, CU_BF16, interleaved, 64, 64, 300, 131072);
        rope_check(&c);
        rope_free(&c);
    }
}

/* The interleaved turn is the CPU backend's, up to one rounding of q. */
static void agrees_with_the_cpu(void **state)
{
    (void)state;
    ref_seed("agrees_with_the_cpu");
    struct rope_case c = rope_make(CU_BF16, CU_BF16, true, 64, 64, 5, 4000);
    rope_check(&c);
    for (uint32_t row = 0; row < c.p.m; row++)
        for (uint32_t head = 0; head < c.p.n_heads; head++) {
            float x[64];
            for (uint32_t i = 0; i < 64; i++)
                x[i] = ref_from16(c.qkv[row * c.p.ldqkv + head * 64 + i], CU_BF16);
            cpu_rows_c.rope(x, c.rope + (size_t)c.positions[row] * 64, 64);
            for (uint32_t i = 0; i < 64; i++) {
                float got = ref_from16(c.q[(row * c.p.n_heads + head) * 64 + i], CU_BF16);
                assert_true(fabsf(got - x[i]) <= fabsf(x[i]) * (float)ref_half_ulp(CU_BF16) + 0x1p-14f);
            }
        }
    rope_free(&c);
}

/* Heads whose largest value lies at, just above and far from where a scale turns; zeros; both clamps. */
static void e4m3_scales(void **state)
{
    (void)state;
    ref_seed("e4m3_scales");
    static const float max[] = {0,     448,           450,    447,       224, 226, 448 * 128.0f, 450 * 128.0f,
                                1e30f, 448 * 0x1p-15f, 1e-30f, 0x1p-133f, 256};
    enum { N = sizeof max / sizeof *max };
    struct rope_case c = rope_make(CU_BF16, CU_E4M3, false, 64, 0, N, 4);
    for (uint32_t row = 0; row < N; row++) {
        c.slots[row] = row;
        for (uint32_t i = 0; i < c.p.ldqkv; i++)
            c.qkv[row * c.p.ldqkv + i] = ref_to16(max[row] * (i % 64 == 40 ? -1.0f : ref_below(1000) / 1001.0f), CU_BF16);
    }
    rope_check(&c);
    static const int8_t exponent[] = {-15, 0, 1, 0, -1, 0, 7, 7, 7, -15, -15, -15, 0};
    size_t plane = (size_t)c.p.layer * 2 * c.p.kv.n_kv_heads * BLOCK_TOKENS;
    for (uint32_t row = 0; row < N; row++)
        assert_int_equal(c.pool[c.p.kv.scale_offset + plane + row], 127 + exponent[row]);
    rope_free(&c);
}

/* NaN and infinity stay in their head. */
static void odd_values_stay_in_their_head(void **state)
{
    (void)state;
    ref_seed("odd_values_stay_in_their_head");
    for (int pool : {CU_BF16, CU_E4M3}) {
        struct rope_case c = rope_make(CU_BF16, pool, false, 64, 32, 6, 20);
        uint32_t k = c.p.n_heads * 64, v = k + c.p.kv.n_kv_heads * 64;
        for (uint32_t row = 0; row < 6; row++)
            c.slots[row] = row * 3;
        c.qkv[1 * c.p.ldqkv + k + 60] = 0x7fff;
        c.qkv[2 * c.p.ldqkv + v + 3] = ref_to16(-1e30f, CU_BF16);
        c.qkv[3 * c.p.ldqkv + k + 50] = 0x7f80;
        rope_check(&c);
        rope_free(&c);
    }
}

static void wrong_shapes_are_refused(void **state)
{
    (void)state;
    ref_seed("wrong_shapes_are_refused");
    struct rope_case c = rope_make(CU_BF16, CU_E4M3, false, 64, 64, 1, 1);
    struct cu_rope bad[11];
    for (struct cu_rope &p : bad)
        p = c.p;
    bad[0].m = 0;
    bad[1].kv.head_dim = 72;
    bad[2].rot_dim = 66;
    bad[3].rot_dim = 7;
    bad[4].ldqkv = c.heads * 64 - 8;
    bad[5].ldqkv += 4;
    bad[6].layer = LAYERS;
    bad[7].kv.scale_offset -= 1;
    bad[8].kv.type = CU_F32;
    bad[9].kv.block_stride = 4096;
    bad[10].kv.type = CU_F16;
    for (struct cu_rope &p : bad)
        assert_int_equal(cu_rows_rope(ref_stream, &p), ST_EINVAL);
    ref_sync();
    assert_memory_equal(c.pool, c.want_pool, c.pool_bytes);
    rope_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        REF_TEST(every_shape_matches),
        REF_TEST(many_rows_and_far_positions),
        REF_TEST(agrees_with_the_cpu),
        REF_TEST(e4m3_scales),
        REF_TEST(odd_values_stay_in_their_head),
        REF_TEST(wrong_shapes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
