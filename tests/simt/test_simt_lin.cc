/* lin_stream and lin_tile: values against sums in double, bits against each other (class L), and what they must not touch. */
#include "lin_case.h"

/* ---- the reference ---------------------------------------------------------------------------------------------------- */

struct value {
    double v, err; /* err: what class L may be off by, on any GPU (KERNELS design, 14.3) */
};

static struct value ref_sum(const struct lin_case *c, uint32_t token, uint32_t n)
{
    const struct cu_lin *p = &c->p;
    const double *w = c->w + (size_t)n * p->k, *x = c->x + (size_t)token * p->k;
    double sum = 0, size = 0;
    for (uint32_t i = 0; i < p->k; i++) {
        sum += w[i] * x[i];
        size += fabs(w[i] * x[i]);
    }
    const float scale = (p->w_scale ? p->w_scale[n] : 1.0f) * (p->x_scale ? p->x_scale[token] : 1.0f);
    const double v = sum * scale + (p->bias ? p->bias[n] : 0.0f);
    return {v, 0x1p-20 * size * (p->k / 16 + 8) * scale + 0x1p-23 * (fabs(sum * scale) + fabs(v))};
}

static struct value ref_output(const struct lin_case *c, uint32_t token, uint32_t column)
{
    const struct cu_lin *p = &c->p;
    if (p->epilogue == CU_SWIGLU) {
        const uint32_t n = column / CU_GATE_GROUP * 2 * CU_GATE_GROUP + column % CU_GATE_GROUP;
        const struct value g = ref_sum(c, token, n), u = ref_sum(c, token, n + CU_GATE_GROUP);
        const double silu = g.v / (1 + exp(-g.v));
        return {silu * u.v, 1.1 * g.err * (fabs(u.v) + u.err) + fabs(silu) * u.err + 0x1p-20 * fabs(silu * u.v)};
    }
    struct value o = ref_sum(c, token, column);
    if (p->epilogue == CU_ADD) {
        o.v += ((const float *)c->before)[(size_t)token * p->ldy + column];
        o.err += 0x1p-24 * fabs(o.v);
    }
    return o;
}

static double half_ulp(uint8_t type, double v)
{
    return type == CU_BF16 ? 0x1p-8 * fabs(v) : type == CU_F16 ? 0x1p-11 * fabs(v) + 0x1p-24 : 0x1p-23 * fabs(v);
}

static void check(const struct lin_case *c, const char *name)
{
    const struct cu_lin *p = &c->p;
    const size_t bytes = cu_type_bytes((enum cu_type)p->yt);
    for (size_t i = 0; i < c->y_bytes / bytes; i++) {
        const uint32_t token = (uint32_t)(i / p->ldy), column = (uint32_t)(i % p->ldy);
        bool good;
        struct value want = {0, 0};
        if (token < p->m && column < p->n_out) {
            want = ref_output(c, token, column);
            good = fabs(get(p->y, p->yt, i) - want.v) <= want.err + half_ulp(p->yt, want.v);
        } else {
            good = memcmp((unsigned char *)p->y + i * bytes, c->before + i * bytes, bytes) == 0;
        }
        if (!good)
            fail_msg("%s seed %llu: types %d -> %d, epilogue %d, m %u n %u (%u) k %u: token %u column %u is %.9g, "
                     "want %.9g +- %.3g",
                     name, (unsigned long long)c->seed, p->wt, p->yt, p->epilogue, p->m, p->n, p->n_out, p->k, token, column,
                     get(p->y, p->yt, i), want.v, want.err);
    }
}

/* ---- the tests -------------------------------------------------------------------------------------------------------- */

static void check_all(lin_fn *fn, const char *name, const uint32_t *ms, uint32_t n_ms, const uint32_t *ns, uint32_t n_ns)
{
    uint64_t seed = 1;
    for (uint32_t t = 0; t < COUNT(types); t++)
        for (uint32_t o = 0; o < COUNT(outputs); o++)
            for (uint32_t i = 0; i < n_ms; i++) {
                const uint32_t at = t + 5 * o + 3 * i; /* every m meets every type and output; n and k turn */
                const struct shape s = {types[t], outputs[o].yt, outputs[o].epilogue, ms[i], ns[at % n_ns], ks[at % COUNT(ks)]};
                struct lin_case c;
                case_make(&c, &s, seed++);
                run(fn, &c.p);
                check(&c, name);
                case_free(&c);
            }
}

static void test_stream_values(void **)
{
    static const uint32_t ms[] = {1, 2, 3, 5, 7, 8, 9, 11, 13, 15, 16}, ns[] = {16, 32, 48, 80, 112};
    check_all(cu_lin_stream, "lin_stream", ms, COUNT(ms), ns, COUNT(ns));
}

static void test_tile_values(void **)
{
    static const uint32_t ms[] = {1, 17, 33, 63, 67, 129}, ns[] = {16, 528, 144, 400, 272};
    check_all(cu_lin_tile, "lin_tile", ms, COUNT(ms), ns, COUNT(ns));
}

static void test_random_shapes(void **)
{
    for (uint64_t seed = 5000; seed < 5120; seed++) {
        uint64_t r = seed;
        const bool streams = below(&r, 2);
        const uint32_t t = below(&r, COUNT(types)), o = below(&r, COUNT(outputs));
        const uint32_t m = 1 + below(&r, streams ? 16 : 150), n = 16 * (1 + below(&r, 35)), k = 64 * (1 + below(&r, 20));
        const struct shape s = {types[t], outputs[o].yt, outputs[o].epilogue, m, n, k};
        struct lin_case c;
        case_make(&c, &s, seed);
        run(streams ? cu_lin_stream : cu_lin_tile, &c.p);
        check(&c, streams ? "lin_stream" : "lin_tile");
        case_free(&c);
    }
}

/* Rows first .. first + m - 1 of the case as a linear of their own; the result's first m rows must be those of `want`. */
static void same_rows(struct lin_case *c, lin_fn *fn, const char *name, const unsigned char *want, uint32_t first, uint32_t m)
{
    const size_t pitch = c->p.ldy * cu_type_bytes((enum cu_type)c->p.yt);
    struct cu_lin p = c->p;
    p.m = m;
    p.x = (const unsigned char *)p.x + (size_t)first * p.ldx * cu_type_bytes((enum cu_type)p.wt);
    p.x_scale = p.x_scale ? p.x_scale + first : NULL;
    unsigned char *y = (unsigned char *)gpu_host_alloc(gpu, m * pitch);
    assert_non_null(y);
    memcpy(y, c->before + first * pitch, m * pitch);
    p.y = y;
    run(fn, &p);
    for (uint32_t i = 0; i < m; i++)
        if (memcmp(y + i * pitch, want + (first + i) * pitch, pitch))
            fail_msg("seed %llu, type %d, epilogue %d, n %u k %u: row %u of %u from %s has other bits",
                     (unsigned long long)c->seed, p.wt, p.epilogue, p.n, p.k, first + i, m, name);
    gpu_host_free(gpu, y);
}

static void test_same_bits_whatever_the_batch(void **)
{
    enum { M = 133, N = 400 }; /* as many tiles of rows as the emulated GPU has SMs: then m alone picks the tokens of a tile */
    uint64_t seed = 1000;
    for (uint32_t t = 0; t < COUNT(types); t++)
        for (uint32_t i = 0; i < COUNT(ks); i++, seed++) {
            const uint32_t o = (uint32_t)(seed % COUNT(outputs));
            const struct shape s = {types[t], outputs[o].yt, outputs[o].epilogue, M, N, ks[i]};
            struct lin_case c;
            case_make(&c, &s, seed);
            const size_t row = (size_t)c.p.ldx * cu_type_bytes((enum cu_type)s.wt);
            memset((unsigned char *)c.p.x + 3 * row, 0xff, 2); /* a NaN */
            run(cu_lin_tile, &c.p);
            const unsigned char *want = (const unsigned char *)c.p.y;
            for (uint32_t token = 0; token < M; token++)
                for (uint32_t n = 0; n < c.p.n_out; n++)
                    assert_int_equal(isnan(get(want, c.p.yt, (size_t)token * c.p.ldy + n)) != 0, token == 3);
            uint64_t r = seed;
            same_rows(&c, cu_lin_tile, "lin_tile", want, below(&r, 64), 65 + below(&r, 5)); /* other columns of tiles of 128 */
            same_rows(&c, cu_lin_tile, "lin_tile", want, 2, 33 + below(&r, 32));
            same_rows(&c, cu_lin_tile, "lin_tile", want, 0, 1 + below(&r, 32));
            same_rows(&c, cu_lin_stream, "lin_stream", want, 0, 9 + below(&r, 8));
            same_rows(&c, cu_lin_stream, "lin_stream", want, 117, 16);
            same_rows(&c, cu_lin_stream, "lin_stream", want, 2, 2 + below(&r, 7));
            same_rows(&c, cu_lin_stream, "lin_stream", want, below(&r, 128), 1);
            case_free(&c);
        }
}

/* More tiles than blocks: rings and sums go on from tile to tile, also with parts that are empty or of one stage. */
static void test_blocks_walk_over_tiles(void **)
{
    const uint32_t sms = gpu_info(gpu)->sms;
    const struct shape shapes[] = {
        {CU_BF16, CU_F32, CU_STORE, 3, 16 * (2 * sms + 3) * 2, 64},    {CU_F16, CU_F16, CU_SWIGLU, 12, 32 * sms * 3 + 16, 192},
        {CU_E4M3, CU_F32, CU_ADD, 8, 16 * (2 * sms + 1), 1088},        {CU_BF16, CU_BF16, CU_STORE, 16, 32 * sms + 16, 576},
    };
    for (uint32_t i = 0; i < COUNT(shapes); i++) {
        struct lin_case c;
        case_make(&c, &shapes[i], 2000 + i);
        run(cu_lin_stream, &c.p);
        check(&c, "lin_stream");
        case_free(&c);
    }
    const struct shape tiles[] = {
        {CU_BF16, CU_F32, CU_STORE, 20, 128 * (2 * sms + 1), 64},
        {CU_E4M3, CU_BF16, CU_STORE, 128 * 9 + 5, 144, 192}, /* two bands of token tiles */
    };
    for (uint32_t i = 0; i < COUNT(tiles); i++) {
        struct lin_case c;
        case_make(&c, &tiles[i], 2100 + i);
        run(cu_lin_tile, &c.p);
        check(&c, "lin_tile");
        case_free(&c);
    }
}

/* ---- tiles cut along k -------------------------------------------------------------------------------------------------- */

static uint32_t parts_of(const struct cu_lin *p)
{
    const uint32_t stages = (p->k * cu_type_bytes((enum cu_type)p->wt) + 127) / 128, per_part = (stages + 7) / 8;
    return (stages + per_part - 1) / per_part;
}

/* Few enough tiles for the emulated GPU's 4 SMs: fewer than 4 of 32 tokens, or of 64. */
static struct shape narrow_shape(uint32_t t, uint32_t o, uint64_t *r, uint32_t *tiles)
{
    const uint32_t token_tiles = 1 + below(r, 3), row_tiles = 1 + below(r, 3 / token_tiles), k = 64 * (1 + below(r, 24));
    const uint32_t m = token_tiles == 1 ? 1 + below(r, 64) : 64 * (token_tiles - 1) + 1 + below(r, 64);
    *tiles = token_tiles * row_tiles;
    return {types[t], outputs[o].yt, outputs[o].epilogue, m, 128 * row_tiles - 16 * below(r, 8), k};
}

/* The same bits from a cut tile, a whole one and lin_stream, and again from the workspace that others have used. */
static void test_cut_tiles(void **)
{
    const uint32_t room = 4 * (gpu_info(gpu)->cc >= 90 ? 2 : 1);
    void *slabs = gpu_alloc(gpu, cu_lin_slab_bytes(gpu_info(gpu)));
    assert_non_null(slabs);
    for (uint64_t seed = 7000; seed < 7000 + 2 * COUNT(types) * COUNT(outputs); seed++) {
        uint64_t r = seed;
        uint32_t tiles;
        const uint32_t i = (uint32_t)(seed - 7000);
        const struct shape s = narrow_shape(i % COUNT(types), i / COUNT(types) % COUNT(outputs), &r, &tiles);
        struct lin_case c;
        case_make(&c, &s, seed);
        run(cu_lin_tile, &c.p);
        c.p.slabs = slabs;
        const unsigned char *want = (const unsigned char *)c.p.y;
        const uint32_t units = tiles * parts_of(&c.p), blocks = s.m > 32 ? 4 : room;
        same_rows(&c, cu_lin_tile, "lin_tile, cut", want, 0, s.m);
        assert_int_equal(gridDim.x, units < blocks ? units : blocks);
        same_rows(&c, cu_lin_tile, "lin_tile, cut", want, below(&r, s.m), 1);
        same_rows(&c, cu_lin_stream, "lin_stream", want, 0, s.m < 16 ? s.m : 16);
        case_free(&c);
    }
    gpu_free(gpu, slabs);
}

/* As many tiles as SMs, of 32 tokens or of 64, are not cut. */
static void test_enough_tiles(void **)
{
    static const struct shape shapes[] = {{CU_BF16, CU_F32, CU_STORE, 32, 512, 1024},
                                          {CU_F16, CU_F16, CU_SWIGLU, 128, 256, 1024}};
    void *slabs = gpu_alloc(gpu, cu_lin_slab_bytes(gpu_info(gpu)));
    assert_non_null(slabs);
    for (uint32_t i = 0; i < COUNT(shapes); i++) {
        struct lin_case c;
        case_make(&c, &shapes[i], 7500 + i);
        c.p.slabs = slabs;
        run(cu_lin_tile, &c.p);
        assert_int_equal(gridDim.x, 4);
        check(&c, "lin_tile");
        case_free(&c);
    }
    gpu_free(gpu, slabs);
}

/* Two linears of one graph share a workspace; each replay finds its counters at zero. */
static void test_cut_tiles_in_a_graph(void **)
{
    static const struct shape shapes[] = {{CU_BF16, CU_F32, CU_STORE, 20, 384, 640},
                                          {CU_E4M3, CU_BF16, CU_SWIGLU, 40, 128, 1600}};
    void *slabs = gpu_alloc(gpu, cu_lin_slab_bytes(gpu_info(gpu)));
    struct gpu_graph *graph;
    struct lin_case c[2];
    assert_non_null(slabs);
    assert_int_equal(gpu_capture_begin(stream), ST_OK);
    for (uint32_t i = 0; i < 2; i++) {
        case_make(&c[i], &shapes[i], 7600 + i);
        c[i].p.slabs = slabs;
        assert_int_equal(cu_lin_tile(stream, &c[i].p), ST_OK);
    }
    assert_int_equal(gpu_capture_end(stream, &graph), ST_OK);
    for (int turn = 0; turn < 3; turn++) {
        for (uint32_t i = 0; i < 2; i++)
            memcpy(c[i].p.y, c[i].before, c[i].y_bytes);
        assert_int_equal(gpu_graph_launch(graph, stream), ST_OK);
        assert_int_equal(gpu_stream_sync(stream), ST_OK);
        for (uint32_t i = 0; i < 2; i++)
            check(&c[i], "lin_tile in a graph");
    }
    for (uint32_t i = 0; i < 2; i++)
        case_free(&c[i]);
    gpu_graph_destroy(graph);
    gpu_free(gpu, slabs);
}

static void test_refusals(void **)
{
    const struct shape s = {CU_BF16, CU_F32, CU_STORE, 16, 32, 64};
    struct lin_case c;
    case_make(&c, &s, 3000);
    struct cu_lin bad[20];
    for (int i = 0; i < 20; i++)
        bad[i] = c.p;
    bad[0].m = 0;
    bad[1].n = 0;
    bad[2].k = 0;
    bad[3].n = 24;
    bad[4].k = 96;
    bad[5].wt = CU_F32;
    bad[6].yt = CU_E4M3;
    bad[7].epilogue = CU_SWIGLU + 1;
    bad[8].epilogue = CU_ADD, bad[8].yt = CU_BF16;
    bad[9].ldx = 48;
    bad[10].ldx = 68;
    bad[11].n_out = 33, bad[11].ldy = 64;
    bad[12].epilogue = CU_SWIGLU, bad[12].n_out = 17;
    bad[13].ldy = bad[13].n_out - 1;
    bad[14].w = NULL;
    bad[15].x = NULL;
    bad[16].y = NULL;
    bad[17].w = (const unsigned char *)c.p.w + 8;
    bad[18].x = (const unsigned char *)c.p.x + 2;
    bad[19].m = 17;
    for (int i = 0; i < 20; i++) {
        if (i < 19)
            assert_int_equal(cu_lin_tile(stream, &bad[i]), ST_EINVAL);
        assert_int_equal(cu_lin_stream(stream, &bad[i]), ST_EINVAL);
    }
    assert_int_equal(gpu_stream_sync(stream), ST_OK);
    assert_memory_equal(c.p.y, c.before, c.y_bytes);
    case_free(&c);
}

/* Every variant fits into the shared memory of an A100. */
static void test_a100(void **)
{
    static const uint32_t ms[] = {8, 16}, ns[] = {48}, tile_ms[] = {32, 64, 128}, tile_ns[] = {400};
    check_all(cu_lin_stream, "lin_stream", ms, COUNT(ms), ns, COUNT(ns));
    check_all(cu_lin_tile, "lin_tile", tile_ms, COUNT(tile_ms), tile_ns, COUNT(tile_ns));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream_values),
        cmocka_unit_test(test_tile_values),
        cmocka_unit_test(test_random_shapes),
        cmocka_unit_test(test_same_bits_whatever_the_batch),
        cmocka_unit_test(test_blocks_walk_over_tiles),
        cmocka_unit_test(test_cut_tiles),
        cmocka_unit_test(test_enough_tiles),
        cmocka_unit_test(test_cut_tiles_in_a_graph),
        cmocka_unit_test(test_refusals),
    };
    const struct CMUnitTest a100[] = {
        cmocka_unit_test(test_a100),
        cmocka_unit_test(test_cut_tiles),
    };
    return cmocka_run_group_tests(tests, setup, teardown) + cmocka_run_group_tests(a100, setup_a100, teardown);
}
