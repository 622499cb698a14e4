/* Goal: the simulated backend keeps backend.h's promises in virtual time, and a wrong block draws a wrong token. */
#include "sim_case.h"

enum { BT = 16, BLOCKS = 8, VOCAB = 128256, TOKENS = 48, TEXT = 77 };

struct rig {
    struct be *be;
    struct be_kv *kv;
    char *host;
    size_t block_bytes;
    int32_t tokens[TOKENS]; /* of the one request: a prompt of 40, then its output */
    uint64_t digests[TOKENS];
    struct sim_expect expect;
};

static void rig_init(struct rig *r, const char *gpu)
{
    struct sim_case c = sim_case_empty();
    struct sim_be_options o = {.gpu = sim_gpu_find(gpu), .vocab = VOCAB, .expect = &r->expect, .n_expect = 1};
    const struct model_info *m = c.o.model;
    struct be_kv_shape shape = {.n_layers = m->n_layers,
                                .n_kv_heads = m->n_kv_heads,
                                .head_dim = m->head_dim,
                                .block_tokens = BT,
                                .n_blocks = BLOCKS,
                                .type = BE_BF16};
    struct be_step_limits l = {.max_rows = 64, .max_spans = 4, .max_logits = 4};
    sim_model_from(&o.model, m);
    *r = (struct rig){.expect = {.text = TEXT, .n_prompt = 40, .digests = r->digests}};
    for (uint32_t p = 0; p < TOKENS; p++) {
        r->tokens[p] = p < 40 ? (int32_t)(p * 31) : sim_token(TEXT, p - 40, VOCAB);
        r->digests[p] = sim_be_digest(p ? r->digests[p - 1] : 0, r->tokens[p], p);
    }
    assert_int_equal(sim_be_create(&r->be, &o, NULL), ST_OK);
    assert_int_equal(r->be->ops->kv_create(r->be, &shape, &r->kv, NULL), ST_OK);
    assert_int_equal(r->be->ops->step_limits(r->be, &l, NULL), ST_OK);
    r->block_bytes = r->be->ops->kv_block_bytes(r->be, &shape);
    assert_int_equal(r->block_bytes, 131072 * BT);
    r->host = r->be->ops->host_alloc(r->be, r->block_bytes * 4);
    assert_non_null(r->host);
    sim_case_fini(&c);
}

static void rig_fini(struct rig *r)
{
    r->be->ops->host_free(r->be, r->host);
    r->be->ops->kv_destroy(r->be, r->kv);
    be_destroy(r->be);
}

static int64_t now(const struct rig *r)
{
    return sim_be_now_ns(r->be);
}

/* Launches rows [start, start + n) of the request in `table`; `first` replaces their first token unless it is 0. */
static void launch(struct rig *r, const uint32_t *table, uint32_t start, uint32_t n, int32_t first,
                   struct be_sample_out *out)
{
    int32_t tokens[TOKENS];
    uint32_t positions[TOKENS], slots[TOKENS], logit_rows[1] = {n - 1};
    for (uint32_t i = 0; i < n; i++) {
        tokens[i] = i == 0 && first ? first : r->tokens[start + i];
        positions[i] = start + i;
        slots[i] = table[(start + i) / BT] * BT + (start + i) % BT;
    }
    struct be_span span = {.n_rows = n, .pos0 = start, .n_blocks = (start + n + BT - 1) / BT, .table = table};
    struct be_batch b = {.n_rows = n,
                         .n_spans = 1,
                         .n_logits = out != NULL,
                         .tokens = tokens,
                         .positions = positions,
                         .kv_slots = slots,
                         .spans = &span,
                         .logit_rows = logit_rows};
    struct be_sample_row row = {.seed = 0, .position = start + n};
    struct op_sample sample = {.n_rows = 1, .vocab = VOCAB, .rows = &row, .out = out};
    assert_int_equal(r->be->ops->begin_step(r->be, &b), ST_OK);
    if (out)
        assert_int_equal(r->be->ops->sample(r->be, &sample), ST_OK);
    assert_int_equal(r->be->ops->end_step(r->be, NULL), ST_OK);
}

static void wait_step(struct rig *r)
{
    assert_int_equal(r->be->ops->wait_step(r->be, NULL), ST_OK);
}

static uint64_t store(struct rig *r, uint32_t block, uint32_t slot)
{
    struct be_block_copy c = {.block = block, .host = r->host + slot * r->block_bytes};
    uint64_t ticket;
    assert_int_equal(r->be->ops->kv_store(r->be, r->kv, &c, 1, &ticket), ST_OK);
    return ticket;
}

static uint64_t bring(struct rig *r, uint32_t block, uint32_t slot)
{
    struct be_block_copy c = {.block = block, .host = r->host + slot * r->block_bytes};
    uint64_t ticket;
    assert_int_equal(r->be->ops->kv_load(r->be, r->kv, &c, 1, &ticket), ST_OK);
    return ticket;
}

static bool done(struct rig *r, uint64_t ticket)
{
    return r->be->ops->copy_poll(r->be, ticket) == 1;
}

static void steps_run_one_after_the_other_and_time_passes_in_wait(void **state)
{
    static const uint32_t table[3] = {5, 2, 7};
    struct rig r;
    struct be_sample_out out[2] = {{.token = -7}, {.token = -7}};
    (void)state;
    rig_init(&r, "h100");
    launch(&r, table, 0, 40, 0, &out[0]);
    launch(&r, table, 40, 1, BE_TOKEN_PREV(0), &out[1]);
    assert_true(now(&r) == SIM_BE_START_NS && out[0].token == -7);
    wait_step(&r);
    int64_t first = now(&r) - SIM_BE_START_NS;
    assert_int_equal(out[0].token, r.tokens[40]);
    wait_step(&r);
    int64_t second = now(&r) - SIM_BE_START_NS - first;
    assert_int_equal(out[1].token, r.tokens[41]);
    assert_true(first > 5 * NS_PER_MS && first < 7 * NS_PER_MS && second > 5 * NS_PER_MS);
    rig_fini(&r);
}

static void a_wrong_block_draws_another_token(void **state)
{
    static const uint32_t table[3] = {0, 1, 2}, wrong[3] = {3, 1, 2};
    struct rig r;
    struct be_sample_out out;
    struct sim_be_totals totals;
    (void)state;
    rig_init(&r, "h100");
    launch(&r, table, 0, 32, 0, NULL);
    launch(&r, wrong, 32, 8, 0,
           &out); /* the row's own way is right: only the look back can see it, sooner or later */
    wait_step(&r);
    wait_step(&r);
    for (uint32_t p = 40; p < TOKENS; p++) {
        launch(&r, wrong, p, 1, 0, &out);
        wait_step(&r);
    }
    sim_be_totals(r.be, &totals);
    assert_true(totals.n_wrong > 0);
    launch(&r, table, 0, 40, 0, &out);
    wait_step(&r);
    assert_int_equal(out.token, r.tokens[40]); /* writing what was there changes nothing */
    launch(&r, table, 0, 1, 9999, NULL);       /* another token at position 0 */
    wait_step(&r);
    launch(&r, table, 1, 39, 0, &out);
    wait_step(&r);
    assert_int_not_equal(out.token, r.tokens[40]);
    rig_fini(&r);
}

static void blocks_come_back_from_the_host(void **state)
{
    static const uint32_t table[3] = {0, 1, 2}, moved[3] = {4, 5, 2};
    struct rig r;
    struct be_sample_out out;
    (void)state;
    rig_init(&r, "h100");
    launch(&r, table, 0, 40, 0, &out);
    uint64_t a = store(&r, 0, 3), b = store(&r, 1, 1);
    assert_false(done(&r, a)); /* not before the step that fills them has run */
    wait_step(&r);
    assert_false(done(&r, a));
    int64_t copied = 12000 + (int64_t)(2097152 / 50e9 * 1e9);
    assert_in_range(sim_be_next_copy_ns(r.be) - now(&r), copied - 3000, copied); /* asking took time */
    sim_be_advance(r.be, sim_be_next_copy_ns(r.be));
    assert_true(done(&r, a) && !done(&r, b));
    sim_be_advance(r.be, sim_be_next_copy_ns(r.be));
    assert_true(done(&r, b) && sim_be_next_copy_ns(r.be) == INT64_MAX);
    a = bring(&r, 4, 3);
    b = bring(&r, 5, 1);
    launch(&r, moved, 40, 1, 0, &out); /* begins when they have come, and sees them */
    assert_false(done(&r, b));
    int64_t launched = now(&r);
    wait_step(&r);
    assert_true(done(&r, a) && done(&r, b) && now(&r) > launched + 2 * copied + 5 * NS_PER_MS);
    assert_int_equal(out.token, r.tokens[41]);
    rig_fini(&r);
}

static void what_a_copy_takes_or_gives_too_early_is_rubbish(void **state)
{
    static const uint32_t table[3] = {0, 1, 2}, moved[3] = {4, 5, 2}, other[3] = {0, 1, 6};
    struct rig r;
    struct be_sample_out out;
    (void)state;
    rig_init(&r, "h100");
    launch(&r, table, 0, 40, 0, &out);
    store(&r, 0, 0);
    uint64_t ticket = store(&r, 1, 1);
    launch(&r, other, 0, 16, 4444, NULL); /* writes to block 0 while it is being stored */
    wait_step(&r);
    wait_step(&r);
    assert_true(done(&r, ticket));
    bring(&r, 4, 0);
    bring(&r, 5, 1);
    uint32_t wrong = 0;
    for (uint32_t p = 40; p < TOKENS; p++) {
        launch(&r, moved, p, 1, 0, &out);
        wait_step(&r);
        wrong += p + 1 < TOKENS && out.token != r.tokens[p + 1];
    }
    assert_true(wrong > 0);
    rig_fini(&r);
}

static void two_directions_share_the_link(void **state)
{
    struct rig r;
    (void)state;
    rig_init(&r, "h100");
    store(&r, 0, 0);
    uint64_t load = bring(&r, 1, 1);
    int64_t alone = (int64_t)(2097152 / 50e9 * 1e9) + 12000, both = (int64_t)(2097152 / 41.5e9 * 1e9) + 12000;
    sim_be_advance(r.be, SIM_BE_START_NS + alone);
    assert_false(done(&r, load));
    sim_be_advance(r.be, SIM_BE_START_NS + both);
    assert_true(done(&r, load));
    rig_fini(&r);
}

static void a_cpu_has_one_step_under_way(void **state)
{
    struct rig r;
    (void)state;
    rig_init(&r, "cpu2");
    assert_int_equal(r.be->ops->depth, 1);
    rig_fini(&r);
    rig_init(&r, "a100");
    assert_int_equal(r.be->ops->depth, 2);
    rig_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_run_one_after_the_other_and_time_passes_in_wait),
        cmocka_unit_test(a_wrong_block_draws_another_token),
        cmocka_unit_test(blocks_come_back_from_the_host),
        cmocka_unit_test(what_a_copy_takes_or_gives_too_early_is_rubbish),
        cmocka_unit_test(two_directions_share_the_link),
        cmocka_unit_test(a_cpu_has_one_step_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
