/* Requests: every member honoured, passed over or refused; both codecs alike. */
#include "api_hints.h"
#include "api_limits.h"
#include "dyn_json.h"
#include "dyn_request.h"
#include "hash.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const int32_t eog[] = {2, 0};
static const struct dyn_request_limits limits = {
    .context_length = 64, .vocab_size = 1000, .priority_max = 100, .eog = eog, .n_eog = 2};
static struct dyn_request r;
static struct err e;
static struct buf packed; /* what views of `r` borrow from */

static int parse(const char *json)
{
    dyn_request_fini(&r);
    buf_reset(&packed);
    e = (struct err){0};
    assert_int_equal(dyn_json_to_msgpack(str_from(json), &packed), ST_OK);
    int st = dyn_request_parse(&r, (const uint8_t *)packed.p, packed.n, &limits, &e);
    assert_true(!st || e.text[0]);
    return st;
}

static int parse_with(const char *section, const char *members)
{
    char json[2048];
    snprintf(json, sizeof json, "{\"token_ids\":[1,2,3],\"%s\":{%s}}", section, members);
    return parse(json);
}

#define CAPTURED                                                                                             \
    "{\"model\":\"smol\",\"token_ids\":[1,969,198],\"stop_conditions\":{\"max_tokens\":4,\"stop\":[\"ZZZ\"]" \
    ",\"stop_token_ids\":"                                                                                   \
    "null,\"stop_token_ids_visible\":null,\"stop_token_ids_hidden\":[2],\"min_tokens\":null,\"ignore_eos\":" \
    "null,"                                                                                                  \
    "\"max_thinking_tokens\":null},\"sampling_options\":{\"n\":null,\"best_of\":null,\"presence_penalty\":"  \
    "null,"                                                                                                  \
    "\"frequency_penalty\":null,\"repetition_penalty\":null,\"temperature\":0.5,\"top_p\":0.875,\"top_k\":"  \
    "null,\"min_p\":null,"                                                                                   \
    "\"use_beam_search\":null,\"length_penalty\":null,\"seed\":7,\"include_stop_str_in_output\":null,"       \
    "\"guided_decoding\":null},"                                                                             \
    "\"output_options\":{\"logprobs\":null,\"prompt_logprobs\":null,\"skip_special_tokens\":null,"           \
    "\"formatted_prompt\":null,"                                                                             \
    "\"return_tokens_as_token_ids\":null},\"eos_token_ids\":[2],\"mdc_sum\":\"096c\",\"annotations\":[],"    \
    "\"routing\":"                                                                                           \
    "{\"dp_rank\":0,\"expected_output_tokens\":4,\"priority_jump\":5.0,\"priority\":5},\"router_config_"     \
    "override\":null}"

static void a_captured_request_is_understood(void **state)
{
    (void)state;
    assert_int_equal(parse(CAPTURED), ST_OK);
    assert_int_equal(r.engine.n_prompt, 3);
    assert_int_equal(r.engine.prompt[1], 969);
    assert_int_equal(r.engine.max_tokens, 4);
    assert_true(r.engine.temperature == 0.5f && r.engine.top_p == 0.875f && r.engine.repetition == 1);
    assert_int_equal(r.engine.seed, 7);
    assert_true(r.has_seed);
    assert_int_equal(r.n, 1);
    assert_int_equal(r.engine.n_logprobs, -1);
    assert_int_equal(r.engine.n_stop_tokens, 2); /* 2 by three lists, 0 by the model */
    assert_int_equal(r.engine.stop_tokens[0], 2);
    assert_int_equal(r.engine.priority, 5);
    assert_int_equal(r.engine.expected_output_tokens, 4);
    assert_int_equal(r.n_last, 0);
}

static void absent_members_have_defaults(void **state)
{
    (void)state;
    assert_int_equal(parse("{\"token_ids\":[5]}"), ST_OK);
    assert_int_equal(r.engine.max_tokens, 63); /* what the context leaves */
    assert_true(r.engine.temperature == 1 && r.engine.top_p == 1 && r.engine.min_p == 0 &&
                r.engine.latency_sensitivity == 0.5f);
    assert_false(r.has_seed);
    assert_int_equal(r.engine.n_stop_tokens, 2);
}

static void lengths_beyond_the_context_say_both_numbers(void **state)
{
    char json[1024] = "{\"token_ids\":[1";
    (void)state;
    for (int i = 0; i < 63; i++)
        strcat(json, ",1");
    strcat(json, "]}");
    assert_int_equal(parse(json), ST_ETOOBIG);
    assert_int_equal(r.limit, 64);
    assert_int_equal(r.actual, 64);
    assert_int_equal(parse_with("stop_conditions", "\"max_tokens\":62"), ST_ETOOBIG);
    assert_int_equal(r.actual, 65);
    assert_int_equal(parse_with("stop_conditions", "\"max_tokens\":61"), ST_OK);
    assert_int_equal(parse_with("stop_conditions", "\"max_tokens\":0"), ST_EINVAL);
    assert_int_equal(parse_with("stop_conditions", "\"max_tokens\":5,\"min_tokens\":6"), ST_EINVAL);
    assert_int_equal(parse_with("stop_conditions", "\"max_tokens\":5,\"min_tokens\":5"), ST_OK);
    assert_int_equal(r.engine.min_tokens, 5);
}

static void stop_tokens_go_where_they_work(void **state)
{
    (void)state;
    assert_int_equal(
        parse_with("stop_conditions",
                   "\"stop_token_ids\":[7],\"stop_token_ids_hidden\":[8,7],\"stop_token_ids_visible\":[9,8]"),
        ST_OK);
    assert_int_equal(r.engine.n_stop_tokens, 3); /* 7, and the model's 2 and 0 */
    assert_int_equal(r.n_last, 2);
    assert_int_equal(r.last[0].token, 8);
    assert_true(r.last[0].visible && r.last[1].visible);
    assert_int_equal(parse_with("stop_conditions", "\"ignore_eos\":true,\"stop_token_ids\":[7]"), ST_OK);
    assert_true(r.engine.ignore_eos);
    assert_int_equal(r.engine.n_stop_tokens, 2);
    assert_int_equal(r.engine.stop_tokens[0], 2);
    assert_int_equal(r.n_last, 1);
    assert_false(r.last[0].visible);
    assert_int_equal(parse_with("stop_conditions", "\"stop_token_ids\":[1000]"), ST_EINVAL);
    assert_int_equal(
        parse_with("stop_conditions", "\"stop_token_ids\":[1,3,4,5,6,7,8,9,10,11,12,13,14,15,16]"),
        ST_EINVAL);
}

static void numbers_out_of_range_name_their_member(void **state)
{
    static const struct {
        const char *section, *member, *value;
    } bad[] = {{"sampling_options", "temperature", "2.1"},
               {"sampling_options", "temperature", "-1"},
               {"sampling_options", "temperature", "\"hot\""},
               {"sampling_options", "top_p", "1.5"},
               {"sampling_options", "n", "0"},
               {"sampling_options", "n", "1.5"},
               {"sampling_options", "n", "129"},
               {"sampling_options", "seed", "0.5"},
               {"sampling_options", "top_k", "-2"},
               {"sampling_options", "length_penalty", "0.5"},
               {"output_options", "logprobs", "21"},
               {"stop_conditions", "max_tokens", "\"4\""},
               {"stop_conditions", "ignore_eos", "1"},
               {"routing", "priority", "\"high\""},
               {"routing", "dp_rank", "1"},
               {"routing", "cache_salt", "5"}};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char member[64];
        snprintf(member, sizeof member, "\"%s\":%s", bad[i].member, bad[i].value);
        assert_int_equal(parse_with(bad[i].section, member), ST_EINVAL);
        assert_int_equal(strncmp(e.text, bad[i].member, strlen(bad[i].member)), 0);
    }
    assert_int_equal(parse("{\"token_ids\":[]}"), ST_EINVAL);
    assert_int_equal(parse("{}"), ST_EINVAL);
    assert_int_equal(parse("{\"token_ids\":[1,-1]}"), ST_EINVAL);
    assert_non_null(strstr(e.text, "token_ids[1]"));
    assert_int_equal(parse("{\"token_ids\":[1000]}"), ST_EINVAL);
    assert_int_equal(parse("{\"token_ids\":[1],\"token_ids\":[2]}"), ST_EINVAL);
    assert_int_equal(parse("{\"token_ids\":[1],\"routing\":[]}"), ST_EINVAL);
    assert_int_equal(parse("[1]"), ST_EFORMAT);
}

static void what_is_not_built_is_refused_when_asked_for(void **state)
{
    static const char *const unbuilt[][2] = {{"stop_conditions", "\"max_thinking_tokens\":5"},
                                             {"sampling_options", "\"best_of\":2"},
                                             {"sampling_options", "\"use_beam_search\":true"},
                                             {"output_options", "\"prompt_logprobs\":1"}};
    (void)state;
    for (size_t i = 0; i < sizeof unbuilt / sizeof *unbuilt; i++)
        assert_int_equal(parse_with(unbuilt[i][0], unbuilt[i][1]), ST_EUNSUP);
    assert_int_equal(parse("{\"token_ids\":[1],\"multi_modal_data\":{\"image\":[\"x\"]}}"), ST_EUNSUP);
    assert_int_equal(parse("{\"token_ids\":[1],\"prefill_result\":{\"a\":1}}"), ST_EUNSUP);
    assert_int_equal(parse_with("routing", "\"lora_name\":\"poet\""), ST_ENOENT);
    assert_int_equal(parse("{\"token_ids\":[1],\"multi_modal_data\":null,\"prompt_embeds\":null,\"a_later_"
                           "member\":{\"b\":[1]}}"),
                     ST_OK);
    assert_int_equal(parse_with("sampling_options", "\"use_beam_search\":false,\"length_penalty\":1.0"),
                     ST_OK);
}

static void guided_decoding_is_kept_as_text(void **state)
{
    (void)state;
    assert_int_equal(parse_with("sampling_options", "\"guided_decoding\":{\"json\":{\"type\":\"object\"}}"),
                     ST_OK);
    assert_string_equal(r.guided.p, "{\"json\":{\"type\":\"object\"}}");
}

/* What costs time or memory by its mere number is refused before it is looked at. */
static void maps_lists_and_texts_have_bounds(void **state)
{
    (void)state;
    struct buf json = {0};
    buf_puts(&json, "{\"token_ids\":[1],\"eos_token_ids\":[5");
    for (int i = 0; i < 64; i++)
        buf_puts(&json, ",5"); /* the same one */
    buf_puts(&json, "]}");
    assert_int_equal(parse(json.p), ST_EINVAL);
    assert_string_equal(e.text, "eos_token_ids: more than 64 stop tokens in all");
    buf_reset(&json);
    buf_puts(&json, "{\"token_ids\":[1],\"routing\":{\"0\":0");
    for (int i = 0; i < API_FIELDS_MAX; i++)
        buf_puts(&json, ",\"x\":0");
    buf_puts(&json, "}}");
    assert_int_equal(parse(json.p), ST_EINVAL);
    assert_string_equal(e.text, "routing: more than 512 members");
    buf_reset(&json);
    buf_puts(&json, "{\"token_ids\":[1],\"sampling_options\":{\"guided_decoding\":{\"choice\":[null");
    while (json.n < DYN_GUIDED_MAX + 100)
        buf_puts(&json, ",null,null,null,null");
    buf_puts(&json, "]}}}");
    assert_int_equal(parse(json.p), ST_EINVAL); /* not ST_ETOOBIG: that speaks of the context */
    assert_string_equal(e.text, "guided_decoding: longer than 1048576 bytes");
    buf_fini(&json);
}

static void hints_are_moved_into_their_range(void **state)
{
    (void)state;
    assert_int_equal(
        parse_with("routing", "\"priority\":1e9,\"strict_priority\":99,\"expected_output_tokens\":0"), ST_OK);
    assert_int_equal(r.engine.priority, 100);
    assert_int_equal(r.engine.strict_priority, API_STRICT_MAX);
    assert_int_equal(r.engine.expected_output_tokens, 1);
    assert_int_equal(r.clamped, 1u << API_HINT_PRIORITY | 1u << API_HINT_STRICT_PRIORITY | 1u << API_HINT_OSL);
    assert_int_equal(parse_with("routing", "\"priority\":-500,\"priority_jump\":0.0"), ST_OK);
    assert_int_equal(r.engine.priority, -100);
    assert_int_equal(r.clamped, 1u << API_HINT_PRIORITY);
    assert_int_equal(parse_with("routing", "\"priority\":-100,\"strict_priority\":3,\"expected_output_tokens\":1"), ST_OK);
    assert_int_equal(r.clamped, 0);
    assert_true(r.engine.latency_sensitivity == 0.5f);
}

static void a_jump_speaks_for_an_absent_priority(void **state)
{
    (void)state;
    assert_int_equal(parse_with("routing", "\"priority_jump\":0.25"), ST_OK);
    assert_true(r.engine.latency_sensitivity == 0.25f && r.engine.priority == 0);
    assert_int_equal(parse_with("routing", "\"priority_jump\":7.9"), ST_OK);
    assert_true(r.engine.latency_sensitivity == 0.5f && r.engine.priority == 7);
    assert_int_equal(parse_with("routing", "\"priority_jump\":7.9,\"priority\":3"), ST_OK);
    assert_int_equal(r.engine.priority, 3);
}

static void a_jump_out_of_range_is_moved_into_it(void **state)
{
    static const char *const far[] = {"101", "1e10", "1e300"};
    (void)state;
    for (size_t i = 0; i < sizeof far / sizeof *far; i++) {
        char member[64];
        snprintf(member, sizeof member, "\"priority_jump\":%s", far[i]);
        assert_int_equal(parse_with("routing", member), ST_OK);
        assert_true(r.engine.priority == 100 && r.engine.latency_sensitivity == 0.5f);
        assert_int_equal(r.clamped, 1u << API_HINT_PRIORITY);
    }
    assert_int_equal(parse_with("routing", "\"priority_jump\":-1e10"), ST_OK);
    assert_true(r.engine.priority == 0 && r.engine.latency_sensitivity == 0);
    assert_int_equal(r.clamped, 1u << API_HINT_LATENCY_SENSITIVITY);
    assert_int_equal(parse_with("routing", "\"priority_jump\":1e10,\"priority\":3"), ST_OK);
    assert_true(r.engine.priority == 3 && r.clamped == 0); /* nobody asked the jump */
    assert_int_equal(parse_with("routing", "\"priority_jump\":\"far\""), ST_EINVAL);
}

static void salts_are_those_of_the_endpoint(void **state)
{
    uint8_t expected[HASH_BYTES];
    (void)state;
    hash_once("tenantA", 7, expected);
    assert_int_equal(parse_with("routing", "\"cache_salt\":\"tenantA\""), ST_OK);
    assert_memory_equal(r.engine.cache_salt, expected, sizeof expected);
    assert_int_equal(parse_with("extra_args", "\"nvext\":{\"cache_salt\":\"tenantA\"}"), ST_OK);
    assert_memory_equal(r.engine.cache_salt, expected, sizeof expected);
    assert_int_equal(parse_with("agent_context", "\"session_id\":\"s1\""), ST_OK);
    assert_true(str_eqz(r.session, "s1"));
}

static void seeds_keep_their_64_bits(void **state)
{
    (void)state;
    assert_int_equal(parse_with("sampling_options", "\"seed\":9007199254740993"), ST_OK);
    assert_true(r.engine.seed == UINT64_C(9007199254740993));
    assert_int_equal(parse_with("sampling_options", "\"seed\":-1"), ST_OK);
    assert_true(r.engine.seed == UINT64_MAX);
}

static void every_cut_of_a_request_is_refused(void **state)
{
    (void)state;
    assert_int_equal(parse(CAPTURED), ST_OK);
    for (size_t n = 0; n < packed.n; n++) {
        struct dyn_request cut = {0};
        uint8_t *exact = (uint8_t *)mem_dup(packed.p, n);
        int st = dyn_request_parse(&cut, exact, n, &limits, &e);
        assert_true(st == ST_EFORMAT || st == ST_EINVAL);
        dyn_request_fini(&cut);
        mem_free(exact);
    }
}

static void failed_allocations_leave_nothing(void **state)
{
    (void)state;
    assert_int_equal(parse_with("sampling_options", "\"guided_decoding\":{\"choice\":[\"a\"]}"), ST_OK);
    dyn_request_fini(&r);
    uint64_t before = mem_live();
    for (uint64_t n = 1;; n++) {
        struct dyn_request q = {0};
        mem_fail_after(n);
        int st = dyn_request_parse(&q, (const uint8_t *)packed.p, packed.n, &limits, &e);
        mem_fail_after(0);
        dyn_request_fini(&q);
        assert_int_equal(mem_live(), before);
        if (!st)
            break;
        assert_int_equal(st, ST_ENOMEM);
    }
}

static int end(void **state)
{
    (void)state;
    dyn_request_fini(&r);
    buf_fini(&packed);
    return mem_live() != 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_captured_request_is_understood),
        cmocka_unit_test(absent_members_have_defaults),
        cmocka_unit_test(lengths_beyond_the_context_say_both_numbers),
        cmocka_unit_test(stop_tokens_go_where_they_work),
        cmocka_unit_test(numbers_out_of_range_name_their_member),
        cmocka_unit_test(what_is_not_built_is_refused_when_asked_for),
        cmocka_unit_test(guided_decoding_is_kept_as_text),
        cmocka_unit_test(maps_lists_and_texts_have_bounds),
        cmocka_unit_test(hints_are_moved_into_their_range),
        cmocka_unit_test(a_jump_speaks_for_an_absent_priority),
        cmocka_unit_test(a_jump_out_of_range_is_moved_into_it),
        cmocka_unit_test(salts_are_those_of_the_endpoint),
        cmocka_unit_test(seeds_keep_their_64_bits),
        cmocka_unit_test(every_cut_of_a_request_is_refused),
        cmocka_unit_test(failed_allocations_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
