/* What a request may say, and the exact words with which the rest is refused. */
#include "api_parse.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct api_context CTX = {
    .vocab_size = 1000,
    .defaults = {.n = 1, .temperature = 0.75, .top_p = 0.9, .top_k = 40, .repetition_penalty = 1.0},
};

static int parse(struct api_request *r, enum api_endpoint endpoint, const char *body, struct err *e)
{
    *e = (struct err){0};
    return api_parse(r, endpoint, str_from(body), &CTX, e);
}

struct refusal {
    const char *body, *text; /* text NULL: any */
    int status;
};

static void expect_refusals(enum api_endpoint endpoint, const struct refusal *list, size_t n)
{
    uint64_t live = mem_live();
    for (size_t i = 0; i < n; i++) {
        struct api_request r;
        struct err e;
        int st = parse(&r, endpoint, list[i].body, &e);
        if (st != (list[i].status ? list[i].status : ST_EINVAL) ||
            (list[i].text && strcmp(e.text, list[i].text) != 0))
            fail_msg("%s gave %d \"%s\"", list[i].body, st, e.text);
        api_request_fini(&r);
    }
    assert_int_equal(mem_live(), live);
}

#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define M(inner) "{\"messages\":[" inner "]}"

static const struct refusal chat_refusals[] = {
    {"", "JSON: the text is empty", 0},
    {"{", "JSON: syntax error at offset 0", 0},
    {"[]", "request: expected a JSON object", 0},
    {"{} x", "JSON: unexpected text at offset 3", 0},
    {"{}", "messages: missing", 0},
    {"{\"messages\":\"a\\u0000b\"}", "JSON: \\u0000 in a string is not supported", 0},
    {"{\"messages\":\"a\\\\u0000b\"}", "messages: expected an array", 0},
    {"{\"messages\":3}", "messages: expected an array", 0},
    {"{\"messages\":[]}", "messages: the array is empty", 0},
    {M("3"), "messages[0]: expected an object with role and content", 0},
    {M("{}"), "messages[0].role: missing", 0},
    {M("{\"role\":7}"), "messages[0].role: expected a string", 0},
    {M("{\"role\":\"god\",\"content\":\"\"}"),
     "messages[0].role: unknown role; expected system, developer, user, assistant or tool", 0},
    {M("{\"role\":\"user\"}"), "messages[0].content: missing", 0},
    {M("{\"role\":\"user\",\"content\":null}"), "messages[0].content: may be null only beside tool_calls", 0},
    {M("{\"role\":\"user\",\"content\":{}}"),
     "messages[0].content: expected a string or an array of text parts", 0},
    {M("{\"role\":\"user\",\"content\":[]}"), "messages[0].content: the array is empty", 0},
    {M("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}"),
     "messages[0].content[0].type: only \"text\" parts are supported", ST_EUNSUP},
    {M("{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}"), "messages[0].content[0].text: missing", 0},
    {M("{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\",\"content\":1}"),
     "messages[1].content: expected a string or an array of text parts", 0},
    {M("{\"role\":\"user\",\"content\":\"\",\"name\":1}"), "messages[0].name: expected a string", 0},
    {M("{\"role\":\"user\",\"content\":\"\",\"tool_calls\":[]}"),
     "messages[0].tool_calls: only an assistant message may have them", 0},
    {M("{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"[\"}}]}"),
     "messages[0].tool_calls[0].function.arguments: expected the JSON text of an object", 0},
    {"{" HI ",\"model\":1}", "model: expected a string", 0},
    {"{" HI ",\"temperature\":\"hot\"}", "temperature: expected a number", 0},
    {"{" HI ",\"temperature\":-1}", "temperature: -1 is outside 0..2", 0},
    {"{" HI ",\"temperature\":1e999}", "temperature: expected a number", 0},
    {"{" HI ",\"temperature\":NaN}", NULL, 0},
    {"{" HI ",\"top_p\":1.5}", "top_p: 1.5 is outside 0..1", 0},
    {"{" HI ",\"top_k\":-2}", "top_k: -2 is outside -1..1000000", 0},
    {"{" HI ",\"top_k\":1e12}", "top_k: 1000000000000 is outside -1..1000000", 0},
    {"{" HI ",\"n\":0}", "n: 0 is outside 1..128", 0},
    {"{" HI ",\"n\":1000000}", "n: 1000000 is outside 1..128", 0},
    {"{" HI ",\"max_tokens\":-5}", "max_tokens: -5 is outside 1..1000000000", 0},
    {"{" HI ",\"max_tokens\":1.5}", "max_tokens: expected an integer", 0},
    {"{" HI ",\"max_completion_tokens\":1e30}", NULL, 0},
    {"{" HI ",\"seed\":\"x\"}", "seed: expected an integer", 0},
    {"{" HI ",\"stop\":1}", "stop: expected a string or an array of strings", 0},
    {"{" HI ",\"stop\":[\"a\",2]}", "stop[1]: expected a string", 0},
    {"{" HI ",\"stop\":\"\"}", "stop: the string is empty", 0},
    {"{" HI ",\"logit_bias\":[]}", "logit_bias: expected an object from token ids to numbers", 0},
    {"{" HI ",\"logit_bias\":{\"x\":1}}", "logit_bias: key \"x\" is not a token id", 0},
    {"{" HI ",\"logit_bias\":{\"\":1}}", "logit_bias: key \"\" is not a token id", 0},
    {"{" HI ",\"logit_bias\":{\"1000\":1}}", "logit_bias: token 1000 is outside the vocabulary of 1000", 0},
    {"{" HI ",\"logit_bias\":{\"5\":101}}", "logit_bias.5: 101 is outside -100..100", 0},
    {"{" HI ",\"logit_bias\":{\"5\":1,\"05\":1}}", "logit_bias: token 5 is named twice", 0},
    {"{" HI ",\"stop_token_ids\":[-1]}", "stop_token_ids[0]: token -1 is outside the vocabulary of 1000", 0},
    {"{" HI ",\"logprobs\":5}", "logprobs: expected true or false", 0},
    {"{" HI ",\"top_logprobs\":2}", "top_logprobs: needs logprobs to be true", 0},
    {"{" HI ",\"logprobs\":true,\"top_logprobs\":21}", "top_logprobs: 21 is outside 0..20", 0},
    {"{" HI ",\"stream\":1}", "stream: expected true or false", 0},
    {"{" HI ",\"stream_options\":{}}", "stream_options: needs stream to be true", 0},
    {"{" HI ",\"stream\":true,\"stream_options\":{\"include_usage\":1}}",
     "stream_options.include_usage: expected true or false", 0},
    {"{" HI ",\"response_format\":{\"type\":\"grammar\"}}",
     "response_format.type: only text, json_object and json_schema are supported", ST_EUNSUP},
    {"{" HI ",\"response_format\":{}}", "response_format.type: expected a string", 0},
    {"{" HI ",\"response_format\":{\"type\":\"json_schema\"}}",
     "response_format.json_schema: expected an object with a schema", 0},
    {"{" HI ",\"response_format\":{\"type\":\"json_object\"},\"guided_choice\":[\"a\"]}",
     "guided_choice: response_format is there already; only one of them can hold", 0},
    {"{" HI ",\"tool_choice\":\"required\"}", "tool_choice: there are no tools", 0},
    {"{" HI ",\"tool_choice\":\"any\"}", "tool_choice: expected auto, none, required or a function", 0},
    {"{" HI ",\"tool_choice\":{\"type\":\"function\"}}",
     "tool_choice: expected a string, or an object with function.name", 0},
    {"{" HI ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
     "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}}",
     "tool_choice: no tool of that name", 0},
    {"{" HI ",\"stop_token_ids\":[1,2,3,\"x\"]}", "stop_token_ids[3]: expected a token id", 0},
    {"{" HI ",\"guided_json\":\"{\"}", "guided_json: expected a JSON schema", 0},
    {"{" HI ",\"guided_regex\":\"x\"}", "guided_regex: not supported", ST_EUNSUP},
    {"{" HI ",\"tools\":{}}", "tools: expected an array", 0},
    {"{" HI ",\"tools\":[{\"type\":\"function\"}]}", "tools[0].function: expected an object", 0},
    {"{" HI ",\"chat_template_kwargs\":[]}", "chat_template_kwargs: expected an object", 0},
    {"{" HI ",\"nvext\":1}", "nvext: expected an object", 0},
    {"{" HI ",\"nvext\":{\"agent_hints\":{\"osl\":\"x\"}}}", "nvext.agent_hints.osl: expected an integer", 0},
    {"{" HI ",\"nvext\":{\"guided_regex\":\"x\"}}", "nvext.guided_regex: not supported", ST_EUNSUP},
    {"{" HI ",\"min_tokens\":5}", "min_tokens: supported only beside ignore_eos", ST_EUNSUP},
    {"{" HI ",\"best_of\":2}", "best_of: only the value of n is supported", ST_EUNSUP},
};

static void chat_refusals_name_the_field(void **state)
{
    (void)state;
    expect_refusals(API_CHAT, chat_refusals, sizeof chat_refusals / sizeof chat_refusals[0]);
}

static void completions_refusals_name_the_field(void **state)
{
    (void)state;
    static const struct refusal list[] = {
        {"{}", "prompt: missing", 0},
        {"{\"prompt\":{}}", "prompt: expected a string, an array of strings, or token ids", 0},
        {"{\"prompt\":7}", "prompt: expected a string, an array of strings, or token ids", 0},
        {"{\"prompt\":[]}", "prompt: the array is empty", 0},
        {"{\"prompt\":[[]]}", "prompt[0]: the array is empty", 0},
        {"{\"prompt\":[1,\"a\"]}", "prompt: expected a token id", 0},
        {"{\"prompt\":[\"a\",1]}", "prompt[1]: expected a string, as the first prompt is one", 0},
        {"{\"prompt\":[[1],2]}", "prompt[1]: expected an array of token ids, as the first prompt is one", 0},
        {"{\"prompt\":[1.5]}", "prompt: expected a token id", 0},
        {"{\"prompt\":[-1]}", "prompt: token -1 is outside the vocabulary of 4294967295", 0},
        {"{\"prompt\":[\"a\",\"b\"],\"n\":128}", "n: 2 prompts x 128 is more than 128 choices", 0},
        {"{\"prompt\":\"a\",\"logprobs\":true}", "logprobs: expected an integer", 0},
        {"{\"prompt\":\"a\",\"echo\":true}", "echo: true is not supported yet", ST_EUNSUP},
        {"{\"prompt\":\"a\",\"suffix\":\"b\"}", "suffix: this field is not supported yet", ST_EUNSUP},
    };
    expect_refusals(API_COMPLETIONS, list, sizeof list / sizeof list[0]);
}

static void everything_given_arrives(void **state)
{
    (void)state;
    struct api_request r;
    struct err e;
    int st =
        parse(&r, API_CHAT,
              "{" HI ",\"model\":\"m\",\"max_tokens\":9,\"temperature\":0.5,\"top_p\":0.25,\"top_k\":-1,"
              "\"min_p\":0.125,\"seed\":-3,\"n\":2,\"stop\":[\"a\",\"bc\"],\"frequency_penalty\":1,"
              "\"presence_penalty\":-1,\"repetition_penalty\":1.5,\"logit_bias\":{\"7\":-100,\"8\":1.5},"
              "\"ignore_eos\":true,\"logprobs\":true,\"top_logprobs\":3,\"stream\":true,"
              "\"stream_options\":{\"include_usage\":true},\"user\":\"u\",\"stop_token_ids\":[3],"
              "\"chat_template_kwargs\":{\"x\":1},\"cache_salt\":\"s\",\"what_is_this\":[{}],"
              "\"response_format\":{\"type\":\"text\"},\"tool_choice\":\"auto\",\"max_completion_tokens\":11,"
              "\"nvext\":{\"agent_hints\":{\"priority\":5,\"osl\":512,\"iat\":250,"
              "\"latency_sensitivity\":7.5,\"prefix_id\":\"p\",\"strict_priority\":1}}}",
              &e);
    assert_string_equal(e.text, "");
    assert_int_equal(st, ST_OK);
    const struct api_sampling *s = &r.sampling;
    assert_true(str_eqz(r.model, "m") && str_eqz(r.user, "u"));
    assert_int_equal(s->max_tokens, 11);
    assert_int_equal(s->n, 2);
    assert_int_equal(s->top_k, 0);
    assert_int_equal(s->seed, -3);
    assert_true(s->has_seed && s->ignore_eos && r.stream && r.include_usage);
    assert_true(s->temperature == 0.5 && s->top_p == 0.25 && s->min_p == 0.125);
    assert_true(s->frequency_penalty == 1 && s->presence_penalty == -1 && s->repetition_penalty == 1.5);
    assert_int_equal(r.n_stop, 2);
    assert_true(str_eqz(r.stop[1], "bc"));
    assert_int_equal(r.n_bias, 2);
    assert_true(r.bias[0].token == 7 && r.bias[0].add == -100 && r.bias[1].add == 1.5f);
    assert_int_equal(r.logprobs, 3);
    assert_int_equal(r.n_stop_tokens, 1);
    assert_non_null(r.template_kwargs);
    assert_true(r.hints.priority == 5 && r.hints.osl == 512 && r.hints.iat_ms == 250);
    assert_true(r.hints.latency_sensitivity == 1 && r.hints.strict_priority == 1);
    assert_true(str_eqz(r.hints.prefix_id, "p"));
    uint8_t salt[HASH_BYTES];
    hash_once("s", 1, salt);
    assert_memory_equal(salt, r.cache_salt, sizeof salt);
    api_request_fini(&r);
}

static void absent_fields_take_the_defaults(void **state)
{
    (void)state;
    struct api_request r;
    struct err e;
    assert_int_equal(
        parse(&r, API_CHAT, "{" HI ",\"temperature\":null,\"stop\":null,\"logit_bias\":null}", &e), ST_OK);
    assert_true(r.sampling.temperature == 0.75 && r.sampling.top_p == 0.9 && r.sampling.top_k == 40);
    assert_int_equal(r.sampling.n, 1);
    assert_int_equal(r.sampling.max_tokens, 0);
    assert_int_equal(r.logprobs, -1);
    assert_true(r.model.n == 0 && !r.stream && !r.sampling.has_seed && r.add_generation_prompt);
    api_request_fini(&r);
}

static void expect_messages(const struct api_context *ctx, const char *body, const char *want)
{
    struct api_request r;
    struct err e = {0};
    assert_int_equal(api_parse(&r, API_CHAT, str_from(body), ctx, &e), ST_OK);
    char *text = cJSON_PrintUnformatted(r.messages);
    assert_string_equal(text, want);
    cJSON_free(text);
    api_request_fini(&r);
}

#define CALL(arguments) \
    "\"tool_calls\":[{\"id\":\"1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":" arguments "}}]"

static void messages_take_their_normal_form(void **state)
{
    (void)state;
    expect_messages(&CTX,
                    M("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
                      "{\"type\":\"text\",\"text\":\"b\"}]},"
                      "{\"role\":\"assistant\",\"content\":\"\"," CALL("\"{\\\"x\\\":1}\"") "},"
                      "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"ok\"}"),
                    "[{\"role\":\"user\",\"content\":\"a\\nb\"},"
                    "{\"role\":\"assistant\",\"content\":\"\"," CALL("{\"x\":1}") "},"
                    "{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"ok\"}]");
}

static void messages_are_put_in_words_that_the_template_knows(void **state)
{
    (void)state;
    struct api_context knows = CTX;
    knows.knows = (struct api_template){.developer = true, .tool_calls = true};
    expect_messages(&CTX, M("{\"role\":\"developer\",\"content\":\"d\"}"), "[{\"role\":\"system\",\"content\":\"d\"}]");
    expect_messages(&knows, M("{\"role\":\"developer\",\"content\":\"d\"}"), "[{\"role\":\"developer\",\"content\":\"d\"}]");
    static const char *const none = M("{\"role\":\"assistant\"," CALL("{}") "}"),
                             *const null = M("{\"role\":\"assistant\",\"content\":null," CALL("{}") "}");
    expect_messages(&CTX, none, "[{\"role\":\"assistant\"," CALL("{}") ",\"content\":\"\"}]");
    expect_messages(&CTX, null, "[{\"role\":\"assistant\",\"content\":\"\"," CALL("{}") "}]");
    expect_messages(&knows, none, "[{\"role\":\"assistant\"," CALL("{}") "}]");
    expect_messages(&knows, null, "[{\"role\":\"assistant\",\"content\":null," CALL("{}") "}]");
}

static void tool_choice_none_hides_the_tools(void **state)
{
    (void)state;
    static const char *const with =
        "{" HI ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}";
    static const char *const without =
        "{" HI ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"none\"}";
    struct api_request r;
    struct err e;
    assert_int_equal(parse(&r, API_CHAT, with, &e), ST_OK);
    assert_non_null(r.tools);
    api_request_fini(&r);
    assert_int_equal(parse(&r, API_CHAT, without, &e), ST_OK);
    assert_null(r.tools);
    api_request_fini(&r);
}

static void check_guide(const char *body, enum api_guide_kind kind, const char *field, const char *value, bool calls)
{
    struct api_request r;
    struct err e = {0};
    if (parse(&r, API_CHAT, body, &e))
        fail_msg("%s: %s", body, e.text);
    assert_int_equal(r.guide.kind, kind);
    assert_int_equal(r.guide.calls, calls);
    if (kind != API_GUIDE_NONE) {
        char *text = cJSON_PrintUnformatted(r.guide.value);
        assert_string_equal(r.guide.field, field);
        assert_string_equal(text, value);
        cJSON_free(text);
    }
    api_request_fini(&r);
}

static void the_form_of_the_answer_is_asked_for_in_many_ways(void **state)
{
    (void)state;
#define TOOLS ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":" \
              "\"null\"}}},{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]"
#define CALL_F "{\"properties\":{\"name\":{\"enum\":[\"f\"]},\"parameters\":{\"type\":\"null\"}}," \
               "\"required\":[\"name\",\"parameters\"]}"
#define CALL_G "{\"properties\":{\"name\":{\"enum\":[\"g\"]},\"parameters\":{\"type\":\"object\"}}," \
               "\"required\":[\"name\",\"parameters\"]}"
    check_guide("{" HI ",\"response_format\":{\"type\":\"text\"}}", API_GUIDE_NONE, NULL, NULL, false);
    check_guide("{" HI TOOLS ",\"tool_choice\":\"auto\"}", API_GUIDE_NONE, NULL, NULL, false);
    check_guide("{" HI ",\"response_format\":{\"type\":\"json_object\"}}", API_GUIDE_SCHEMA, "response_format",
                "{\"type\":\"object\"}", false);
    check_guide("{" HI ",\"response_format\":{\"type\":\"json_schema\","
                "\"json_schema\":{\"name\":\"a\",\"schema\":{\"type\":1}}}}",
                API_GUIDE_SCHEMA, "response_format.json_schema.schema", "{\"type\":1}", false);
    check_guide("{" HI ",\"guided_json\":{\"a\":1}}", API_GUIDE_SCHEMA, "guided_json", "{\"a\":1}", false);
    check_guide("{" HI ",\"guided_json\":\"{\\\"a\\\":1}\"}", API_GUIDE_SCHEMA, "guided_json", "{\"a\":1}", false);
    check_guide("{" HI ",\"nvext\":{\"guided_choice\":[\"a\"]}}", API_GUIDE_CHOICE, "nvext.guided_choice", "[\"a\"]", false);
    check_guide("{" HI TOOLS ",\"tool_choice\":\"required\"}", API_GUIDE_SCHEMA, "tools",
                "{\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"object\",\"anyOf\":[" CALL_F "," CALL_G "]}}", true);
    check_guide("{" HI TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}}",
                API_GUIDE_SCHEMA, "tools",
                "{\"type\":\"array\",\"minItems\":1,\"maxItems\":1,\"items\":{\"type\":\"object\",\"anyOf\":[" CALL_G "]}}",
                true);
}

static void prompts_come_in_four_shapes(void **state)
{
    (void)state;
    struct api_request r;
    struct err e;
    assert_int_equal(parse(&r, API_COMPLETIONS, "{\"prompt\":\"one\"}", &e), ST_OK);
    assert_true(r.n_prompts == 1 && str_eqz(r.prompts[0].text, "one"));
    api_request_fini(&r);
    assert_int_equal(parse(&r, API_COMPLETIONS, "{\"prompt\":[\"one\",\"two\"]}", &e), ST_OK);
    assert_true(r.n_prompts == 2 && str_eqz(r.prompts[1].text, "two"));
    api_request_fini(&r);
    assert_int_equal(parse(&r, API_COMPLETIONS, "{\"prompt\":[1,2,3]}", &e), ST_OK);
    assert_true(r.n_prompts == 1 && r.prompts[0].n_ids == 3 && r.prompts[0].ids[2] == 3);
    api_request_fini(&r);
    assert_int_equal(parse(&r, API_COMPLETIONS, "{\"prompt\":[[1,2],[3]],\"logprobs\":0}", &e), ST_OK);
    assert_true(r.n_prompts == 2 && r.prompts[0].n_ids == 2 && r.prompts[1].ids[0] == 3);
    assert_int_equal(r.logprobs, 0);
    api_request_fini(&r);
}

static void many_of_anything_is_refused(void **state)
{
    (void)state;
    struct api_request r;
    struct err e;
    struct buf b = {0};
    buf_puts(&b, "{" HI ",\"stop\":[\"x\"");
    for (int i = 0; i < 5000; i++)
        buf_puts(&b, ",\"x\"");
    buf_puts(&b, "]}");
    assert_int_equal(parse(&r, API_CHAT, b.p, &e), ST_EINVAL);
    assert_string_equal(e.text, "stop: more than 32 strings");
    api_request_fini(&r);

    buf_reset(&b);
    for (int i = 0; i < 100000; i++)
        buf_putc(&b, '[');
    assert_int_equal(parse(&r, API_CHAT, b.p, &e), ST_EINVAL);
    assert_string_equal(e.text, "JSON: nested deeper than 128 levels");
    api_request_fini(&r);

    buf_reset(&b);
    buf_puts(&b, "{\"f0\":1");
    for (int i = 0; i < 600; i++)
        buf_printf(&b, ",\"g%d\":1", i);
    buf_putc(&b, '}');
    assert_int_equal(parse(&r, API_CHAT, b.p, &e), ST_EINVAL);
    assert_string_equal(e.text, "request: more than 512 fields");
    api_request_fini(&r);

    assert_int_equal(parse(&r, API_CHAT, M("{\"role\":\"user\",\"content\":\"\xff\"}"), &e), ST_EINVAL);
    assert_string_equal(e.text, "JSON: text is not valid UTF-8");
    api_request_fini(&r);
    buf_fini(&b);
}

static void failed_allocations_are_clean(void **state)
{
    (void)state;
    static const char *const body = "{\"prompt\":[[1,2],[3]],\"logit_bias\":{\"1\":2},\"stop\":\"x\"}";
    for (uint64_t n = 1; n < 6; n++) {
        struct api_request r;
        struct err e;
        uint64_t live = mem_live();
        mem_fail_after(n);
        int st = parse(&r, API_COMPLETIONS, body, &e);
        mem_fail_after(0);
        assert_true(n <= 3 ? st == ST_ENOMEM : st == ST_OK);
        api_request_fini(&r);
        assert_int_equal(mem_live(), live);
    }
    struct api_request r;
    struct err e;
    mem_fail_after(1);
    int st =
        parse(&r, API_CHAT, M("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}"), &e);
    mem_fail_after(0);
    assert_int_equal(st, ST_ENOMEM);
    api_request_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat_refusals_name_the_field),
        cmocka_unit_test(completions_refusals_name_the_field),
        cmocka_unit_test(everything_given_arrives),
        cmocka_unit_test(absent_fields_take_the_defaults),
        cmocka_unit_test(messages_take_their_normal_form),
        cmocka_unit_test(messages_are_put_in_words_that_the_template_knows),
        cmocka_unit_test(tool_choice_none_hides_the_tools),
        cmocka_unit_test(the_form_of_the_answer_is_asked_for_in_many_ways),
        cmocka_unit_test(prompts_come_in_four_shapes),
        cmocka_unit_test(many_of_anything_is_refused),
        cmocka_unit_test(failed_allocations_are_clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
