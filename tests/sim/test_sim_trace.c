/* Goal: traces say what they mean: prompts share what the file says they share, refusals name line and field, and equal
 * seeds make equal workloads. */
#include "sim_case.h"

enum { VOCAB = 1000, LONGEST = 8192 };

static void load(struct sim_trace *t, const char *text, uint64_t seed)
{
    struct err e = {0};
    *t = (struct sim_trace){.seed = seed};
    if (sim_trace_parse(t, str_from(text), UINT32_MAX, &e) != ST_OK)
        fail_msg("%s", e.text);
}

static void load_mooncake(struct sim_trace *t, uint64_t seed, uint32_t max)
{
    struct err e = {0};
    *t = (struct sim_trace){.seed = seed};
    if (sim_trace_load(t, STATOR_SOURCE_DIR "/tests/golden/sim/mooncake.jsonl", max, &e) != ST_OK)
        fail_msg("%s", e.text);
}

/* How far two prompts are equal. */
static uint32_t common(const struct sim_trace *t, uint32_t a, uint32_t b)
{
    static int32_t x[LONGEST], y[LONGEST];
    uint32_t n = 0;
    assert_true(t->requests[a].n_prompt <= LONGEST && t->requests[b].n_prompt <= LONGEST);
    sim_trace_prompt(t, a, VOCAB, x);
    sim_trace_prompt(t, b, VOCAB, y);
    while (n < t->requests[a].n_prompt && n < t->requests[b].n_prompt && x[n] == y[n])
        n++;
    return n;
}

static void mooncake_gives_lengths_and_shared_prefixes(void **state)
{
    static const uint32_t prompts[5] = {1300, 1024, 1700, 400, 1300}, outputs[5] = {40, 7, 52, 18, 3};
    struct sim_trace t;
    (void)state;
    load_mooncake(&t, 1, UINT32_MAX);
    assert_int_equal(t.n, 5);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(t.requests[i].n_prompt, prompts[i]);
        assert_int_equal(t.requests[i].n_output, outputs[i]);
    }
    assert_in_range(common(&t, 0, 1), 512, 515); /* a token may be equal by chance */
    assert_in_range(common(&t, 0, 2), 1024, 1027);
    assert_int_equal(common(&t, 0, 4), 1300);
    assert_in_range(common(&t, 0, 3), 0, 3);
    sim_trace_fini(&t);
    load_mooncake(&t, 1, 2);
    assert_int_equal(t.n, 2);
    sim_trace_fini(&t);
}

static void mooncake_arrivals_are_spread_over_their_cell(void **state)
{
    static const int64_t cell_ms[6] = {0, 0, 3000, 3000, 5999, 8998}, next[5] = {2, 2, 4, 4, 5};
    struct sim_trace a, b, other;
    bool differs = false;
    (void)state;
    load_mooncake(&a, 1, UINT32_MAX);
    load_mooncake(&b, 1, UINT32_MAX);
    load_mooncake(&other, 2, UINT32_MAX);
    for (uint32_t i = 0; i < a.n; i++) {
        int64_t at = a.requests[i].at_ns;
        assert_true(at >= cell_ms[i] * NS_PER_MS && at < cell_ms[next[i]] * NS_PER_MS);
        assert_true(at == b.requests[i].at_ns);
        differs |= at != other.requests[i].at_ns;
    }
    assert_true(differs && a.requests[0].at_ns != a.requests[1].at_ns);
    sim_trace_fini(&a);
    sim_trace_fini(&b);
    sim_trace_fini(&other);
}

static void own_form_carries_the_hints(void **state)
{
    struct sim_trace t;
    (void)state;
    load(&t,
         "{\"t_ms\": 5, \"prompt_tokens\": 10, \"output_tokens\": 3}\r\n\n"
         "{\"t_ms\": 7, \"prompt_tokens\": 11, \"output_tokens\": 4, \"priority\": -3, \"strict\": 1, "
         "\"osl\": 9, "
         "\"iat\": 250, \"l\": 0.25, \"share\": [[7, 6], [8, 2]]}\n"
         "{\"t_ms\": 8, \"prompt_tokens\": 20, \"output_tokens\": 4, \"share\": [[7, 6]]}",
         1);
    assert_int_equal(t.n, 3);
    const struct sim_request *r = &t.requests[1];
    assert_true(r->at_ns == 7 * NS_PER_MS && r->sensitivity == 0.25f && r->iat_ms == 250);
    assert_true(r->priority == -3 && r->strict == 1 && r->osl == 9 && r->parent == SIM_NONE);
    assert_true(t.requests[0].sensitivity == 0.5f && t.requests[0].n_after == 0);
    assert_in_range(common(&t, 1, 2), 6, 8);
    sim_trace_fini(&t);
}

static void a_turn_goes_on_where_the_one_before_it_ended(void **state)
{
    static int32_t first[LONGEST], second[LONGEST], third[LONGEST];
    struct sim_trace t;
    (void)state;
    load(&t,
         "{\"t_ms\": 0, \"prompt_tokens\": 50, \"output_tokens\": 9, \"conv\": 4, \"share\": [[1, 20]]}\n"
         "{\"t_ms\": 0, \"prompt_tokens\": 30, \"output_tokens\": 9, \"conv\": 5}\n"
         "{\"t_ms\": 1, \"prompt_tokens\": 90, \"output_tokens\": 5, \"conv\": 4}\n"
         "{\"t_ms\": 2, \"prompt_tokens\": 70, \"output_tokens\": 5, \"conv\": 4}\n"
         "{\"t_ms\": 2, \"prompt_tokens\": 80, \"output_tokens\": 5, \"conv\": 4}\n",
         1);
    assert_int_equal(t.requests[2].parent, 0);
    assert_int_equal(t.requests[2].after, 0);
    assert_int_equal(t.requests[2].n_after, 1);
    assert_int_equal(t.requests[1].parent, SIM_NONE);
    sim_trace_prompt(&t, 0, VOCAB, first);
    sim_trace_prompt(&t, 2, VOCAB, second);
    assert_memory_equal(first, second, 50 * sizeof *first);
    for (uint32_t i = 0; i < 9; i++)
        assert_int_equal(second[50 + i], sim_token(sim_trace_output(&t, 0), i, VOCAB));
    /* Cut to 70 of what was said; the next one goes on from there, with that one's answer. */
    assert_in_range(common(&t, 2, 3), 70, 70);
    sim_trace_prompt(&t, 4, VOCAB, third);
    assert_memory_equal(second, third, 70 * sizeof *first);
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(third[70 + i], sim_token(sim_trace_output(&t, 3), i, VOCAB));
    sim_trace_fini(&t);
}

static void refusals_name_line_and_field(void **state)
{
    static const struct {
        const char *text, *want;
    } cases[] = {
        {"{}", "line 1: neither timestamp nor t_ms"},
        {"{\"t_ms\": 1, \"prompt_tokens\": 1, \"output_tokens\": 1}\n\nnot json", "line 3:"},
        {"{\"t_ms\": 1, \"prompt_tokens\": 0, \"output_tokens\": 1}", "line 1: prompt_tokens"},
        {"{\"t_ms\": 1, \"prompt_tokens\": 5000000, \"output_tokens\": 1}", "line 1: prompt_tokens"},
        {"{\"t_ms\": -1, \"prompt_tokens\": 5, \"output_tokens\": 1}", "line 1: t_ms"},
        {"{\"t_ms\": 1, \"prompt_tokens\": 5}", "line 1: output_tokens"},
        {"{\"t_ms\": 1, \"prompt_tokens\": 5, \"output_tokens\": 1, \"l\": 2}", "line 1: l"},
        {"{\"t_ms\": 1, \"prompt_tokens\": 5, \"output_tokens\": 1, \"priority\": 1e10}", "line 1: priority"},
        {"{\"t_ms\": 1, \"prompt_tokens\": 5, \"output_tokens\": 1, \"priority\": 1.5}", "line 1: priority"},
        {"{\"t_ms\": 1, \"prompt_tokens\": 5, \"output_tokens\": 1, \"share\": 3}",
         "line 1: share: expected"},
        {"{\"t_ms\": 1, \"prompt_tokens\": 5, \"output_tokens\": 1, \"share\": [[1, 2], [3]]}",
         "line 1: share[1]"},
        {"{\"t_ms\": 1, \"prompt_tokens\": 5, \"output_tokens\": 1, \"share\": [[1, 0]]}",
         "line 1: share[0]: 0"},
        {"{\"timestamp\": 1, \"input_length\": 600, \"output_length\": 1}", "line 1: hash_ids"},
        {"{\"timestamp\": 1, \"input_length\": 600, \"output_length\": 1, \"hash_ids\": [1]}",
         "line 1: hash_ids: 1"},
        {"{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 1, \"hash_ids\": [1, 2]}",
         "line 1: hash_ids: more"},
        {"{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 1, \"hash_ids\": [-1]}",
         "line 1: hash_ids: expected"},
        {"{\"timestamp\": \"x\", \"input_length\": 5, \"output_length\": 1, \"hash_ids\": [1]}",
         "line 1: timestamp"},
        {"{\"timestamp\": 1, \"input_length\": 5, \"output_length\": 1, \"hash_ids\": [1]}\n"
         "{\"t_ms\": 1, \"prompt_tokens\": 5, \"output_tokens\": 1}",
         "lines of both forms"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sim_trace t = {.seed = 1};
        struct err e = {0};
        assert_int_equal(sim_trace_parse(&t, str_from(cases[i].text), UINT32_MAX, &e), ST_EINVAL);
        if (!strstr(e.text, cases[i].want))
            fail_msg("'%s' says '%s', '%s' expected", cases[i].text, e.text, cases[i].want);
        sim_trace_fini(&t);
    }
    struct sim_trace t = {.seed = 1};
    assert_int_equal(sim_trace_parse(&t, str_from("\n\n"), UINT32_MAX, NULL), ST_OK);
    assert_int_equal(t.n, 0);
    assert_int_equal(sim_trace_load(&t, "/nonexistent/trace", 1, NULL), ST_ENOENT);
}

static void many_conversations_are_kept_apart(void **state)
{
    enum { CONVS = 300, TURNS = 4 };
    struct buf b = {0};
    struct sim_trace t;
    (void)state;
    for (int k = 0; k < TURNS; k++)
        for (int i = 0; i < CONVS; i++)
            buf_printf(&b, "{\"t_ms\": %d, \"prompt_tokens\": %d, \"output_tokens\": 5, \"conv\": %d}\n", k,
                       20 + 30 * k, i);
    load(&t, b.p, 1);
    for (uint32_t i = 0; i < CONVS * TURNS; i++)
        assert_int_equal(t.requests[i].parent, i < CONVS ? SIM_NONE : i - CONVS);
    sim_trace_fini(&t);
    buf_fini(&b);
}

static void equal_seeds_make_equal_workloads(void **state)
{
    static const char *const names[] = {"low_flood", "triage", "agents", "longdoc", "thrash", "diurnal"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct sim_trace a = {.seed = 3}, b = {.seed = 3}, other = {.seed = 4};
        assert_true(sim_synth_known(names[i]) && strstr(sim_synth_names(), names[i]));
        assert_int_equal(sim_synth(&a, names[i], 30, NULL), ST_OK);
        assert_int_equal(sim_synth(&b, names[i], 30, NULL), ST_OK);
        assert_int_equal(sim_synth(&other, names[i], 30, NULL), ST_OK);
        assert_int_equal(a.n, b.n);
        for (uint32_t k = 0; k < a.n; k++) {
            const struct sim_request *x = &a.requests[k], *y = &b.requests[k];
            assert_true(x->at_ns == y->at_ns && x->n_prompt == y->n_prompt && x->n_output == y->n_output);
            assert_true(x->parent == SIM_NONE || x->parent < k);
            assert_true(x->n_after == 0 || x->after + x->n_after <= k);
        }
        assert_true(a.n != other.n || a.requests[0].n_prompt != other.requests[0].n_prompt ||
                    a.requests[a.n - 1].at_ns != other.requests[a.n - 1].at_ns);
        sim_trace_fini(&a);
        sim_trace_fini(&b);
        sim_trace_fini(&other);
    }
    struct sim_trace t = {.seed = 1};
    assert_int_equal(sim_synth(&t, "low_tide", 1, NULL), ST_EINVAL);
}

static void parsing_survives_any_failed_allocation(void **state)
{
    static const char text[] =
        "{\"t_ms\": 0, \"prompt_tokens\": 50, \"output_tokens\": 9, \"conv\": 4, \"share\": [[1, 20]]}\n"
        "{\"t_ms\": 1, \"prompt_tokens\": 90, \"output_tokens\": 5, \"conv\": 4}\n";
    uint64_t before = mem_live();
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct sim_trace t = {.seed = 1};
        mem_fail_after(n);
        int rc = sim_trace_parse(&t, str_from(text), UINT32_MAX, NULL);
        mem_fail_after(0);
        sim_trace_fini(&t);
        assert_true(mem_live() == before);
        if (rc == ST_OK)
            break;
        assert_int_equal(rc, ST_ENOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mooncake_gives_lengths_and_shared_prefixes),
        cmocka_unit_test(mooncake_arrivals_are_spread_over_their_cell),
        cmocka_unit_test(own_form_carries_the_hints),
        cmocka_unit_test(a_turn_goes_on_where_the_one_before_it_ended),
        cmocka_unit_test(refusals_name_line_and_field),
        cmocka_unit_test(many_conversations_are_kept_apart),
        cmocka_unit_test(equal_seeds_make_equal_workloads),
        cmocka_unit_test(parsing_survives_any_failed_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
