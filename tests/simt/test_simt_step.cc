/* Unpacking a step's blob: every section to its place and not a byte more, tokens resolved, blobs taken in turn. */
#include "rows_ref.h"

#include "backend.h"
#include "cu_step.h"

struct step_case {
    uint8_t *blob[CU_BLOBS];
    uint32_t *parity;
    int32_t *tokens, *drawn, *prev;
    uint32_t n_prev;
};

enum { N_PREV = 77, TOKENS_MAX = 600, BLOB_MAX = 1 << 20 };

static struct step_case step_make(void)
{
    struct step_case c = {};
    for (int i = 0; i < CU_BLOBS; i++)
        c.blob[i] = ref_alloc<uint8_t>(BLOB_MAX);
    c.parity = ref_alloc<uint32_t>(1);
    *c.parity = 0;
    c.tokens = ref_alloc<int32_t>(TOKENS_MAX);
    c.drawn = ref_alloc<int32_t>(N_PREV);
    c.prev = ref_alloc<int32_t>(N_PREV);
    c.n_prev = N_PREV;
    return c;
}

static void step_free(struct step_case *c)
{
    for (int i = 0; i < CU_BLOBS; i++)
        ref_free(c->blob[i]);
    ref_free(c->parity);
    ref_free(c->tokens);
    ref_free(c->drawn);
    ref_free(c->prev);
}

/* Fills the blob with n sections of given sizes and random bytes; section 0 holds tokens of all kinds. */
static void blob_fill(struct step_case *c, uint8_t *blob, uint32_t n, const uint32_t *bytes, uint8_t **dst, uint32_t n_tokens)
{
    struct cu_blob h = {};
    uint32_t offset = cu_round_up(sizeof h, 16);
    for (size_t i = 0; i < BLOB_MAX; i++)
        blob[i] = (uint8_t)ref_rand();
    h.n_sections = n;
    h.n_tokens = n_tokens;
    for (uint32_t s = 0; s < n; s++) {
        dst[s] = s ? ref_alloc<uint8_t>(bytes[s] ? bytes[s] : 1) : (uint8_t *)c->tokens;
        h.section[s].dst = (uint64_t)(uintptr_t)dst[s];
        h.section[s].offset = offset;
        h.section[s].bytes = bytes[s];
        offset += cu_round_up(bytes[s], 16);
    }
    assert_true(offset <= BLOB_MAX);
    memcpy(blob, &h, sizeof h);
    for (uint32_t i = 0; n && i < n_tokens; i++) {
        int32_t t = ref_below(2) ? (int32_t)ref_below(128256) : BE_TOKEN_PREV(ref_below(N_PREV));
        memcpy(blob + h.section[0].offset + 4 * i, &t, 4);
    }
}

static void step_check(struct step_case *c, const uint8_t *blob, uint32_t n, uint8_t **dst)
{
    const struct cu_blob *h = (const struct cu_blob *)blob;
    for (uint32_t s = 0; s < n; s++) {
        const uint8_t *src = blob + h->section[s].offset;
        for (uint32_t i = 0; s == 0 && i < h->n_tokens; i++) {
            int32_t t, want;
            memcpy(&t, src + 4 * i, 4);
            want = t;
            if (t < 0)
                want = c->drawn[-1 - t] < 0 ? 0 : c->drawn[-1 - t];
            assert_int_equal(c->tokens[i], want);
        }
        uint32_t resolved = s == 0 ? 4 * h->n_tokens : 0;
        assert_memory_equal(dst[s] + resolved, src + resolved, h->section[s].bytes - resolved);
    }
    assert_memory_equal(c->prev, c->drawn, N_PREV * 4);
}

/* Steps one after the other, blobs in turn: the graph of a step is always the same two launches. */
static void steps_run(struct step_case *c, uint32_t steps, uint32_t n, const uint32_t *bytes, uint32_t n_tokens)
{
    struct cu_unpack unpack = {{c->blob[0], c->blob[1]}, c->parity, c->tokens, c->drawn, c->prev, c->n_prev};
    struct cu_finish finish = {c->parity};
    for (uint32_t step = 0; step < steps; step++) {
        uint8_t *dst[CU_SECTIONS];
        uint32_t was = *c->parity;
        memset(c->tokens, 0xa5, TOKENS_MAX * 4);
        for (uint32_t i = 0; i < N_PREV; i++)
            c->drawn[i] = ref_below(4) ? (int32_t)ref_below(128256) : -1;
        blob_fill(c, c->blob[was], n, bytes, dst, n_tokens);
        assert_int_equal(cu_step_unpack(ref_stream, &unpack), ST_OK);
        ref_sync();
        assert_int_equal(*c->parity, was);
        assert_int_equal(cu_step_finish(ref_stream, &finish), ST_OK);
        ref_sync();
        assert_int_equal(*c->parity, 1 - was);
        step_check(c, c->blob[was], n, dst);
        assert_true(n == 0 || bytes[0] >= TOKENS_MAX * 4 || c->tokens[(bytes[0] + 3) / 4] == (int32_t)0xa5a5a5a5);
        for (uint32_t s = 1; s < n; s++)
            ref_free(dst[s]); /* its guards are looked at here */
    }
}

static void sections_of_every_size(void **state)
{
    (void)state;
    ref_seed("sections_of_every_size");
    struct step_case c = step_make();
    uint32_t bytes[CU_SECTIONS];
    for (uint32_t s = 0; s < CU_SECTIONS; s++)
        bytes[s] = 16 * ref_below(40) + s % 16 + (s == 0 ? 16 : 0);
    steps_run(&c, 4, CU_SECTIONS, bytes, bytes[0] / 4);
    step_free(&c);
}

static void few_and_empty_sections(void **state)
{
    (void)state;
    ref_seed("few_and_empty_sections");
    struct step_case c = step_make();
    static const uint32_t empty[] = {0, 0, 48, 0, 0, 16, 0}, one[] = {16};
    steps_run(&c, 2, 0, empty, 0);
    steps_run(&c, 2, 7, empty, 0);
    steps_run(&c, 1, 1, one, 1);
    steps_run(&c, 1, 1, one, 3); /* what stands behind the last token is copied as it is */
    step_free(&c);
}

/* More pieces than the grid has threads. */
static void a_blob_of_many_pieces(void **state)
{
    (void)state;
    ref_seed("a_blob_of_many_pieces");
    struct step_case c = step_make();
    static const uint32_t bytes[] = {TOKENS_MAX * 4, 300000, 16, 400016, 160};
    steps_run(&c, 2, 5, bytes, TOKENS_MAX);
    step_free(&c);
}

/* A row that the previous step cannot have drawn is token 0, and no memory is read for it. */
static void rows_never_drawn_are_zero(void **state)
{
    (void)state;
    ref_seed("rows_never_drawn_are_zero");
    struct step_case c = step_make();
    uint32_t bytes = 32;
    uint8_t *dst[1];
    blob_fill(&c, c.blob[0], 1, &bytes, dst, 8);
    const int32_t t[8] = {BE_TOKEN_PREV(0),      BE_TOKEN_PREV(3), BE_TOKEN_PREV(4), INT32_MIN,
                          BE_TOKEN_PREV(N_PREV), 0,                9,                BE_TOKEN_PREV(2)};
    memcpy(c.blob[0] + ((struct cu_blob *)c.blob[0])->section[0].offset, t, sizeof t);
    for (int i = 0; i < N_PREV; i++)
        c.drawn[i] = 100 + i;
    c.drawn[2] = -1;
    struct cu_unpack p = {{c.blob[0], c.blob[1]}, c.parity, c.tokens, c.drawn, c.prev, 4};
    assert_int_equal(cu_step_unpack(ref_stream, &p), ST_OK);
    ref_sync();
    static const int32_t want[8] = {100, 103, 0, 0, 0, 0, 9, 0};
    assert_memory_equal(c.tokens, want, sizeof want);
    assert_memory_equal(c.prev, c.drawn, 16);
    assert_int_equal(c.prev[4], (int32_t)0xa5a5a5a5);
    p.parity = NULL;
    assert_int_equal(cu_step_unpack(ref_stream, &p), ST_EINVAL);
    step_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        REF_TEST(sections_of_every_size),
        REF_TEST(few_and_empty_sections),
        REF_TEST(a_blob_of_many_pieces),
        REF_TEST(rows_never_drawn_are_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
