/* Hints are advice: any number is taken and moved into its range, only a wrong type is refused, by its full name. */
#include "api_parse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static int parse(struct api_request *r, const char *hints, uint32_t priority_max, struct err *e)
{
    const struct api_context ctx = {
        .vocab_size = 10, .priority_max = priority_max, .defaults = {.n = 1, .temperature = 1, .top_p = 1}};
    char body[1024];
    snprintf(body, sizeof body, "{\"prompt\":\"x\",\"nvext\":{\"agent_hints\":%s}}", hints);
    *e = (struct err){0};
    return api_parse(r, API_COMPLETIONS, str_from(body), &ctx, e);
}

static void without_hints_the_defaults_hold(void **state)
{
    (void)state;
    static const char *const none[] = {"{}", "null",
                                       "{\"priority\":null,\"iat\":null,\"osl\":null,\"prefix_id\":null}",
                                       "{\"total_requests\":9}"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        struct api_request r;
        struct err e;
        assert_int_equal(parse(&r, none[i], 0, &e), ST_OK);
        const struct api_hints *h = &r.hints;
        assert_true(h->priority == 0 && h->strict_priority == 0 && h->osl == 0 && h->iat_ms == 0);
        assert_true(h->latency_sensitivity == 0.5 && !h->speculative_prefill && h->prefix_id.n == 0 && h->clamped == 0);
        api_request_fini(&r);
    }
}

static void what_is_in_range_arrives_as_sent(void **state)
{
    (void)state;
    struct api_request r;
    struct err e;
    assert_int_equal(parse(&r,
                           "{\"priority\":-7,\"strict_priority\":3,\"osl\":512,\"latency_sensitivity\":0.25,"
                           "\"iat\":250,\"prefix_id\":\"p\",\"speculative_prefill\":true}",
                           0, &e),
                     ST_OK);
    const struct api_hints *h = &r.hints;
    assert_true(h->priority == -7 && h->strict_priority == 3 && h->osl == 512 && h->iat_ms == 250);
    assert_true(h->latency_sensitivity == 0.25 && h->speculative_prefill && str_eqz(h->prefix_id, "p"));
    assert_int_equal(h->clamped, 0);
    api_request_fini(&r);
}

/* A call that follows at once is the opposite of one that nothing is known of. */
static void an_iat_of_zero_is_now_and_not_unknown(void **state)
{
    (void)state;
    struct api_request r;
    struct err e;
    assert_int_equal(parse(&r, "{\"iat\":0}", 0, &e), ST_OK);
    assert_true(r.hints.iat_ms == 1 && r.hints.clamped == 0);
    api_request_fini(&r);
}

static void numbers_out_of_range_are_moved_into_it_and_marked(void **state)
{
    (void)state;
    static const struct {
        const char *hints;
        enum api_hint hint;
        double want;
    } cases[] = {
        {"{\"priority\":3000000000}", API_HINT_PRIORITY, INT32_MAX},
        {"{\"priority\":-1e30}", API_HINT_PRIORITY, INT32_MIN},
        {"{\"strict_priority\":-1}", API_HINT_STRICT_PRIORITY, 0},
        {"{\"strict_priority\":4}", API_HINT_STRICT_PRIORITY, 3},
        {"{\"osl\":0}", API_HINT_OSL, 1},
        {"{\"osl\":1e300}", API_HINT_OSL, INT32_MAX},
        {"{\"latency_sensitivity\":-0.5}", API_HINT_LATENCY_SENSITIVITY, 0},
        {"{\"latency_sensitivity\":1e300}", API_HINT_LATENCY_SENSITIVITY, 1},
        {"{\"iat\":-1}", API_HINT_IAT, 1},
        {"{\"iat\":600001}", API_HINT_IAT, 600000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct api_request r;
        struct err e;
        assert_int_equal(parse(&r, cases[i].hints, 0, &e), ST_OK);
        const struct api_hints *h = &r.hints;
        const double got[API_HINTS] = {[API_HINT_PRIORITY] = h->priority,
                                       [API_HINT_STRICT_PRIORITY] = h->strict_priority,
                                       [API_HINT_OSL] = h->osl,
                                       [API_HINT_LATENCY_SENSITIVITY] = h->latency_sensitivity,
                                       [API_HINT_IAT] = (double)h->iat_ms};
        if (got[cases[i].hint] != cases[i].want || h->clamped != 1u << cases[i].hint)
            fail_msg("%s gave %g, clamped %x", cases[i].hints, got[cases[i].hint], h->clamped);
        api_request_fini(&r);
    }
}

static void the_operators_clamp_holds_on_both_sides(void **state)
{
    (void)state;
    static const struct {
        const char *hints;
        int32_t want;
        uint32_t clamped;
    } cases[] = {{"{\"priority\":5}", 5, 0},
                 {"{\"priority\":-5}", -5, 0},
                 {"{\"priority\":6}", 5, 1u << API_HINT_PRIORITY},
                 {"{\"priority\":-2e9}", -5, 1u << API_HINT_PRIORITY}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct api_request r;
        struct err e;
        assert_int_equal(parse(&r, cases[i].hints, 5, &e), ST_OK);
        assert_int_equal(r.hints.priority, cases[i].want);
        assert_int_equal(r.hints.clamped, cases[i].clamped);
        api_request_fini(&r);
    }
}

static void a_long_prefix_id_is_cut_between_characters(void **state)
{
    (void)state;
    char hints[400];
    int n = snprintf(hints, sizeof hints, "{\"prefix_id\":\"");
    for (int i = 0; i < 127; i++)
        hints[n++] = 'a';
    snprintf(hints + n, sizeof hints - (size_t)n, "\xc3\xa9zz\"}"); /* bytes 128 and 129 are one character */
    struct api_request r;
    struct err e;
    assert_int_equal(parse(&r, hints, 0, &e), ST_OK);
    assert_int_equal(r.hints.prefix_id.n, 127);
    assert_int_equal(r.hints.clamped, 1u << API_HINT_PREFIX_ID);
    api_request_fini(&r);
}

static void wrong_types_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const whole[] = {"priority", "strict_priority", "osl", "iat"};
    static const char *const bad[] = {"\"5\"", "true", "[]", "{}", "1.5", "1e999"};
    char hints[128], want[128];
    struct api_request r;
    struct err e;
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 6; k++) {
            snprintf(hints, sizeof hints, "{\"%s\":%s}", whole[i], bad[k]);
            snprintf(want, sizeof want, "nvext.agent_hints.%s: expected an integer", whole[i]);
            assert_int_equal(parse(&r, hints, 0, &e), ST_EINVAL);
            assert_string_equal(e.text, want);
            api_request_fini(&r);
        }
    static const struct {
        const char *hints, *text;
    } cases[] = {
        {"7", "nvext.agent_hints: expected an object"},
        {"{\"latency_sensitivity\":\"high\"}", "nvext.agent_hints.latency_sensitivity: expected a number"},
        {"{\"latency_sensitivity\":-1e999}", "nvext.agent_hints.latency_sensitivity: expected a number"},
        {"{\"prefix_id\":1}", "nvext.agent_hints.prefix_id: expected a string"},
        {"{\"speculative_prefill\":1}", "nvext.agent_hints.speculative_prefill: expected true or false"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(parse(&r, cases[i].hints, 0, &e), ST_EINVAL);
        assert_string_equal(e.text, cases[i].text);
        api_request_fini(&r);
    }
    assert_int_equal(parse(&r, "{\"priority\":NaN}", 0, &e), ST_EINVAL);
    api_request_fini(&r);
}

/* vLLM's field of this name counts the other way round: to take it silently would turn its users' order upside down. */
static void a_priority_outside_the_hints_is_no_hint(void **state)
{
    (void)state;
    const struct api_context ctx = {.vocab_size = 10, .defaults = {.n = 1, .temperature = 1, .top_p = 1}};
    struct api_request r;
    struct err e = {0};
    assert_int_equal(api_parse(&r, API_COMPLETIONS, STR_LIT("{\"prompt\":\"x\",\"priority\":-9}"), &ctx, &e), ST_OK);
    assert_int_equal(r.hints.priority, 0);
    api_request_fini(&r);
}

static void every_hint_has_the_name_of_the_request(void **state)
{
    (void)state;
    static const char *const names[API_HINTS] = {"priority",            "strict_priority", "osl",
                                                 "latency_sensitivity", "iat",             "prefix_id"};
    for (int i = 0; i < API_HINTS; i++)
        assert_string_equal(api_hint_name((enum api_hint)i), names[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_hints_the_defaults_hold),
        cmocka_unit_test(what_is_in_range_arrives_as_sent),
        cmocka_unit_test(an_iat_of_zero_is_now_and_not_unknown),
        cmocka_unit_test(numbers_out_of_range_are_moved_into_it_and_marked),
        cmocka_unit_test(the_operators_clamp_holds_on_both_sides),
        cmocka_unit_test(a_long_prefix_id_is_cut_between_characters),
        cmocka_unit_test(wrong_types_are_refused_by_name),
        cmocka_unit_test(a_priority_outside_the_hints_is_no_hint),
        cmocka_unit_test(every_hint_has_the_name_of_the_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
