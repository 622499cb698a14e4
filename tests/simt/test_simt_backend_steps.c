/* Two steps under way: generation whose tokens the host has not seen yet equals generation step by step; and blocks travel to
 * host memory and back while steps run. */
#include "backend_net.h"

#include "cu_backend.h"
#include "simt_c.h"

static const struct shape shape = {2, 64, 4, 2, 16, 96, 80, 16, BE_BF16, BE_BF16, false, true};

static struct be *open_cuda(bool no_graphs)
{
    struct be_options o = {.device = "cuda", .deterministic = true, .no_graphs = no_graphs};
    struct be *be = NULL;
    struct err e = {0};
    sim_library(false);
    if (cuda_backend_create(&be, &o, &e))
        fail_msg("%s", e.text);
    return be;
}

static void open_net(struct net *n, const struct source *m, bool no_graphs)
{
    struct err e = {0};
    if (net_init(n, m, open_cuda(no_graphs), BE_BF16, 160, &e))
        fail_msg("%s", e.text);
}

/* ---- generation ---------------------------------------------------------------------------------------------------- */

enum { GEN_SEQS = 3, PROMPT = 7, GEN_LEN = NET_LEN };

/* A sequence's tokens; those that the host has not seen are -1. */
struct generation {
    struct net *n;
    int32_t tokens[GEN_SEQS][GEN_LEN];
    uint32_t len[GEN_SEQS]; /* with the token that is being drawn */
    struct {
        struct be_sample_out out[GEN_SEQS];
        uint32_t seqs[GEN_SEQS], at[GEN_SEQS], n;
    } step[2];
    uint32_t launched, waited;
};

static void add_row(struct generation *g, struct feed *f, uint32_t q, uint32_t prev_row)
{
    uint32_t pos = g->len[q] - 1;
    feed_add(f, q, pos, pos + 1, g->n->m->s.vocab);
    f->tokens[f->b.n_rows - 1] = g->tokens[q][pos] >= 0 ? g->tokens[q][pos] : BE_TOKEN_PREV(prev_row);
}

/* What sequence 2 may draw at a position: now all, now a few tokens, by the position alone. The last word has bits beyond the
 * vocabulary. */
enum { MASK_WORDS = (80 + 31) / 32 };

static const uint32_t *mask_at(uint32_t q, uint32_t position, uint32_t mask[MASK_WORDS])
{
    if (q != 2 || position % 3 == 0)
        return NULL;
    for (uint32_t w = 0; w < MASK_WORDS; w++)
        mask[w] = 0x00010001u << position % 16;
    return mask;
}

/* The tokens that the sampler shall count: those of the output that the host has seen. */
static uint32_t seen_of(const struct generation *g, uint32_t q, struct be_seen *seen)
{
    uint32_t n = 0;
    for (uint32_t i = PROMPT; i < g->len[q]; i++) {
        uint32_t j = 0;
        if (g->tokens[q][i] < 0)
            continue;
        while (j < n && seen[j].token != g->tokens[q][i])
            j++;
        if (j == n)
            seen[n++] = (struct be_seen){g->tokens[q][i], 0};
        seen[j].n_out++;
    }
    return n;
}

/* Launches one step of the sequences in `mask`; their order turns with the step, so that previous rows differ. */
static void launch(struct generation *g, uint32_t mask)
{
    const struct be_ops *ops = g->n->be->ops;
    uint32_t s = g->launched % 2, last = (g->launched + 1) % 2;
    struct feed *f = malloc(sizeof *f);
    struct be_seen seen[GEN_SEQS][GEN_LEN];
    struct be_sample_row rows[GEN_SEQS];
    uint32_t masks[GEN_SEQS][MASK_WORDS];
    struct err e = {0};
    feed_begin(f);
    g->step[s].n = 0;
    for (uint32_t i = 0; i < GEN_SEQS; i++) {
        uint32_t q = (i + g->launched) % GEN_SEQS, r = g->step[s].n, prev = 0;
        if (!(mask >> q & 1) || g->len[q] == GEN_LEN)
            continue;
        bool unseen = g->tokens[q][g->len[q] - 1] < 0;
        while (unseen && g->step[last].seqs[prev] != q)
            prev++;
        add_row(g, f, q, prev);
        rows[r] = (struct be_sample_row){.logits_row = r,
                                         .temperature = q == 0 ? 0 : 1.0f,
                                         .top_p = 1,
                                         .repetition = 1.1f,
                                         .frequency = 0.5f,
                                         .presence = 0.2f,
                                         .seed = 1000 + q,
                                         .position = g->len[q],
                                         .n_logprobs = q == 1 ? 2 : -1,
                                         .n_seen = seen_of(g, q, seen[r]),
                                         .seen = seen[r],
                                         .allowed = mask_at(q, g->len[q], masks[r]),
                                         .prev = unseen ? 1 + prev : 0};
        g->step[s].seqs[r] = q;
        g->step[s].at[r] = g->len[q];
        g->tokens[q][g->len[q]++] = -1;
        g->step[s].n++;
    }
    struct op_sample sample = {g->step[s].n, g->n->m->s.vocab, g->n->logits, rows, g->step[s].out};
    assert_int_equal(ops->begin_step(g->n->be, &f->b), ST_OK);
    assert_int_equal(net_forward(g->n, &f->b), ST_OK);
    assert_int_equal(ops->sample(g->n->be, &sample), ST_OK);
    if (ops->end_step(g->n->be, &e))
        fail_msg("%s", e.text);
    memset(f, 0xee, sizeof *f); /* after end_step the backend must not look here */
    memset(rows, 0xee, sizeof rows);
    memset(seen, 0xee, sizeof seen);
    memset(masks, 0xee, sizeof masks);
    memset(g->step[s].out, 0xee, sizeof g->step[s].out);
    free(f);
    g->launched++;
}

static void take(struct generation *g)
{
    uint32_t s = g->waited++ % 2;
    assert_int_equal(g->n->be->ops->wait_step(g->n->be, NULL), ST_OK);
    for (uint32_t i = 0; i < g->step[s].n; i++) {
        const struct be_sample_out *o = &g->step[s].out[i];
        assert_in_range(o->token, 0, shape.vocab - 1);
        uint32_t words[MASK_WORDS];
        const uint32_t *mask = mask_at(g->step[s].seqs[i], g->step[s].at[i], words);
        if (mask)
            assert_true(mask[o->token / 32] >> o->token % 32 & 1);
        if (g->step[s].seqs[i] == 1)
            assert_int_equal(o->n_top, 2);
        g->tokens[g->step[s].seqs[i]][g->step[s].at[i]] = o->token;
    }
}

/* All prompts, then steps of random sequences, `depth` of them under way. A sequence that sat out one step knows its token. */
static void generate(struct net *n, uint32_t depth, uint64_t seed, struct generation *g)
{
    struct err e = {0};
    struct feed *f = malloc(sizeof *f);
    *g = (struct generation){.n = n};
    feed_begin(f);
    for (uint32_t q = 0; q < GEN_SEQS; q++) {
        for (uint32_t i = 0; i <= PROMPT; i++)
            g->tokens[q][i] = net_token(q, i, shape.vocab);
        feed_add(f, q, 0, PROMPT, shape.vocab);
        g->len[q] = PROMPT + 1;
    }
    if (net_step(n, &f->b, &e))
        fail_msg("%s", e.text);
    free(f);
    while (g->len[0] + g->len[1] + g->len[2] < 3 * GEN_LEN) {
        uint32_t mask = depth == 1 ? 7 : ref_next(&seed) & 7, known = 0;
        for (uint32_t q = 0; q < GEN_SEQS; q++)
            known |= (uint32_t)(g->len[q] < GEN_LEN) << q;
        if (!(mask & known))
            continue;
        launch(g, mask);
        if (g->launched - g->waited == depth)
            take(g);
    }
    while (g->waited < g->launched)
        take(g);
}

static void tokens_that_the_host_has_not_seen_are_the_same(void **state)
{
    (void)state;
    struct source m;
    struct net n;
    struct generation *want = malloc(sizeof *want), *got = malloc(sizeof *got);
    source_init(&m, &shape);
    open_net(&n, &m, true);
    generate(&n, 1, 0, want);
    net_fini(&n);
    for (uint64_t seed = 1; seed <= 3; seed++) {
        sim_seed(seed);
        open_net(&n, &m, seed == 1);
        generate(&n, 2, seed, got);
        if (memcmp(got->tokens, want->tokens, sizeof got->tokens) != 0)
            fail_msg("seed %llu: other tokens", (unsigned long long)seed);
        net_fini(&n);
    }
    free(want);
    free(got);
    source_fini(&m);
    assert_int_equal(sim_live(), 0);
}

/* More seen tokens than a blob has room for: they come in turns, and the tokens are those of the CPU. One row has a mask. */
static void any_number_of_seen_tokens_is_taken(void **state)
{
    (void)state;
    enum { V = 300000, ROWS = 3, SEEN = 200000 };
    struct be_options o = {.device = "cpu", .threads = 1, .cpu_isa = "auto"};
    struct be_sample_out out[2][ROWS];
    struct be_seen *seen = malloc(sizeof *seen * SEEN);
    float *logits = malloc(sizeof *logits * ROWS * V);
    uint32_t *mask = malloc((V + 31) / 32 * sizeof *mask);
    memset(mask, 0x0f, (V + 31) / 32 * sizeof *mask);
    for (uint32_t i = 0; i < SEEN; i++)
        seen[i] = (struct be_seen){(int32_t)(V - 1 - i), i % 3};
    for (uint32_t i = 0; i < ROWS * V; i++)
        logits[i] = ref_unit(&net_seed);
    for (uint32_t r = 0; r < ROWS; r++) { /* among the seen, so that penalties decide */
        logits[r * V + V - 10 - r] = 9;
        logits[r * V + V - 20 - r] = 8.5f;
        logits[r * V + 5 + r] = 7;
    }
    for (int gpu = 0; gpu < 2; gpu++) {
        struct be *be = NULL;
        struct err e = {0};
        struct be_step_limits l = {8, 8, ROWS, 8, 8, V};
        if (gpu)
            be = open_cuda(false);
        else
            assert_int_equal(be_create(&be, &o, &e), ST_OK);
        struct be_sample_row rows[ROWS];
        for (uint32_t r = 0; r < ROWS; r++)
            rows[r] = (struct be_sample_row){.logits_row = ROWS - 1 - r,
                                             .top_p = 1,
                                             .repetition = 1.2f,
                                             .presence = r == 2 ? 3.0f : 0.1f,
                                             .n_seen = SEEN - r,
                                             .seen = seen + r,
                                             .allowed = r == 1 ? mask : NULL,
                                             .n_logprobs = 0};
        float *z = be->ops->buffer_create(be, sizeof *z * ROWS * V);
        struct op_sample p = {ROWS, V, z, rows, out[gpu]};
        assert_int_equal(be->ops->upload(be, z, logits, sizeof *z * ROWS * V), ST_OK);
        assert_int_equal(be->ops->step_limits(be, &l, &e), ST_OK);
        assert_int_equal(be->ops->begin_step(be, NULL), ST_OK);
        assert_int_equal(be->ops->sample(be, &p), ST_OK);
        assert_int_equal(be->ops->end_step(be, &e), ST_OK);
        assert_int_equal(be->ops->wait_step(be, &e), ST_OK);
        be->ops->buffer_destroy(be, z);
        be_destroy(be);
    }
    for (uint32_t r = 0; r < ROWS; r++) {
        assert_int_equal(out[1][r].token, out[0][r].token);
        assert_float_equal(out[1][r].logprob, out[0][r].logprob, 1e-4);
    }
    assert_true(mask[out[1][1].token / 32] >> out[1][1].token % 32 & 1);
    free(seen);
    free(logits);
    free(mask);
}

/* ---- blocks --------------------------------------------------------------------------------------------------------- */

/* Sequence 0 is fed, its blocks stored, the pool's copies overwritten by another sequence in the same blocks, and loaded back
 * beside running steps: it goes on with the bits of the undisturbed run. */
static void blocks_return_as_they_left(void **state)
{
    (void)state;
    enum { HALF = 32, BLOCKS = 2 };
    struct source m;
    struct net n;
    struct err e = {0};
    source_init(&m, &shape);
    uint32_t vocab = m.s.vocab;
    size_t count = (size_t)NET_SEQS * NET_LEN * vocab;
    float *want = calloc(count, sizeof *want), *got = calloc(count, sizeof *got);
    struct feed *f = malloc(sizeof *f);
    const uint32_t seqs[] = {0};
    open_net(&n, &m, false);
    net_run(&n, ALONE, 1, NET_LEN, want);
    for (uint64_t seed = 1; seed <= 4; seed++) {
        const struct be_ops *ops = n.be->ops;
        struct be_kv_shape ks = {m.s.layers, m.s.kv_heads, m.s.hd, NET_BLOCK, NET_BLOCKS, BE_BF16};
        size_t bytes = ops->kv_block_bytes(n.be, &ks);
        uint8_t *host = ops->host_alloc(n.be, BLOCKS * bytes);
        uint64_t stored, loaded;
        sim_seed(seed);
        memset(host, 0xff, BLOCKS * bytes);
        feed_begin(f);
        feed_add(f, 0, 0, HALF, vocab);
        struct be_block_copy list[BLOCKS] = {{f->tables[0][0], host}, {f->tables[0][1], host + bytes}};
        assert_int_equal(ops->begin_step(n.be, &f->b), ST_OK);
        assert_int_equal(net_forward(&n, &f->b), ST_OK);
        assert_int_equal(ops->end_step(n.be, &e), ST_OK);
        assert_int_equal(ops->kv_store(n.be, n.kv, list, BLOCKS, &stored), ST_OK); /* the step still runs */
        while (ops->copy_poll(n.be, stored) == 0)
            ;
        assert_int_equal(ops->copy_poll(n.be, stored), 1);
        assert_int_equal(ops->wait_step(n.be, &e), ST_OK);
        feed_begin(f); /* other contents in these blocks */
        feed_add(f, 0, 0, HALF, vocab);
        for (uint32_t i = 0; i < HALF; i++)
            f->tokens[i] = (int32_t)i;
        assert_int_equal(ops->begin_step(n.be, &f->b), ST_OK);
        assert_int_equal(net_forward(&n, &f->b), ST_OK);
        assert_int_equal(ops->end_step(n.be, &e), ST_OK);
        assert_int_equal(ops->kv_load(n.be, n.kv, list, BLOCKS, &loaded),
                         ST_OK); /* and is overwritten after it */
        assert_true(loaded > stored);
        feed_begin(f);
        feed_add(f, 0, HALF, NET_LEN, vocab);
        assert_int_equal(ops->begin_step(n.be, &f->b), ST_OK);
        assert_int_equal(net_forward(&n, &f->b), ST_OK);
        assert_int_equal(ops->end_step(n.be, &e), ST_OK);
        assert_int_equal(ops->wait_step(n.be, &e), ST_OK);
        assert_int_equal(ops->wait_step(n.be, &e), ST_OK);
        assert_int_equal(ops->copy_poll(n.be, loaded), 1);
        feed_run(&n, f, seqs, got);
        if (memcmp(got + (size_t)HALF * vocab, want + (size_t)HALF * vocab,
                   sizeof *got * (NET_LEN - HALF) * vocab) != 0)
            fail_msg("seed %llu: other bits", (unsigned long long)seed);
        ops->host_free(n.be, host);
    }
    net_fini(&n);
    free(want);
    free(got);
    free(f);
    source_fini(&m);
    assert_int_equal(sim_live(), 0);
}

static void tickets_are_bounded_and_rise(void **state)
{
    (void)state;
    struct source m;
    struct net n;
    source_init(&m, &shape);
    open_net(&n, &m, false);
    const struct be_ops *ops = n.be->ops;
    struct be_kv_shape ks = {m.s.layers, m.s.kv_heads, m.s.hd, NET_BLOCK, NET_BLOCKS, BE_BF16};
    struct be_block_copy one = {3, ops->host_alloc(n.be, ops->kv_block_bytes(n.be, &ks))};
    uint64_t ticket = 0, last = 0;
    uint32_t refused = 0;
    for (int i = 0; i < 300; i++) {
        int st =
            i % 2 ? ops->kv_store(n.be, n.kv, &one, 1, &ticket) : ops->kv_load(n.be, n.kv, &one, 1, &ticket);
        refused += st == ST_AGAIN;
        if (st == ST_AGAIN)
            continue;
        assert_int_equal(st, ST_OK);
        assert_true(i == 0 || ticket == last + 1);
        last = ticket;
    }
    print_message("%u of 300 copies had to wait\n", refused);
    for (uint64_t t = 0; t <= last; t++)
        while (ops->copy_poll(n.be, t) == 0)
            ;
    assert_int_equal(ops->copy_poll(n.be, 0), 1);
    assert_int_equal(ops->copy_poll(n.be, last + 1), ST_EINVAL);
    one.block = NET_BLOCKS;
    assert_int_equal(ops->kv_store(n.be, n.kv, &one, 1, &ticket), ST_EINVAL);
    ops->host_free(n.be, one.host);
    net_fini(&n);
    source_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_that_the_host_has_not_seen_are_the_same),
        cmocka_unit_test(any_number_of_seen_tokens_is_taken),
        cmocka_unit_test(blocks_return_as_they_left),
        cmocka_unit_test(tickets_are_bounded_and_rise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
