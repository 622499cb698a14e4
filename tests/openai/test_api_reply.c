/* Replies byte for byte: clients parse them, so the shape is the contract. */
#include "api_reply.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct api_head CHAT = {
    .endpoint = API_CHAT, .id = {"chatcmpl-1", 10}, .model = {"m", 1}, .created = 7};
static const struct api_head TEXT = {
    .endpoint = API_COMPLETIONS, .id = {"cmpl-1", 6}, .model = {"m", 1}, .created = 7, .usage_null = true};

#define HEAD                                                                                                 \
    "data: "                                                                                                 \
    "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"m\",\"choices\":" \
    "["

static void expect(struct buf *b, const char *want)
{
    assert_int_equal(b->failed, 0);
    assert_string_equal(b->p ? b->p : "", want);
    cJSON *j = NULL;
    struct str s = buf_str(b);
    if (s.n > 6 && memcmp(s.p, "data: ", 6) == 0)
        s = (struct str){s.p + 6, s.n - 6};
    if (s.n && s.p[0] == '{')
        assert_int_equal(json_parse(&j, s, NULL), ST_OK);
    json_free(j);
    buf_reset(b);
}

static void whole_replies(void **state)
{
    (void)state;
    struct buf b = {0};
    struct api_choice c = {.text = STR_LIT("he said \"hi\"\n"), .finish = "stop"};
    api_put_reply_begin(&b, &CHAT);
    api_put_reply_choice(&b, &CHAT, &c, false);
    api_put_reply_end(&b, &(struct api_usage){.prompt = 5, .cached = 4, .completion = 2});
    expect(&b,
           "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":7,\"model\":\"m\",\"choices\":["
           "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"he said \\\"hi\\\"\\n\"},"
           "\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":5,"
           "\"completion_tokens\":2,\"total_tokens\":7,\"prompt_tokens_details\":{\"cached_tokens\":4}}}");
    c = (struct api_choice){.text = STR_LIT("a"), .finish = "length"};
    api_put_reply_begin(&b, &TEXT);
    api_put_reply_choice(&b, &TEXT, &c, false);
    c.index = 1;
    api_put_reply_choice(&b, &TEXT, &c, true);
    api_put_reply_end(&b, &(struct api_usage){0});
    expect(&b, "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":7,\"model\":\"m\",\"choices\":["
               "{\"index\":0,\"text\":\"a\",\"logprobs\":null,\"finish_reason\":\"length\"},"
               "{\"index\":1,\"text\":\"a\",\"logprobs\":null,\"finish_reason\":\"length\"}],"
               "\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0,"
               "\"prompt_tokens_details\":{\"cached_tokens\":0}}}");
    buf_fini(&b);
}

static void calls_of_tools_stand_beside_content(void **state)
{
    (void)state;
    struct buf b = {0};
    static const struct answer_call calls[] = {{STR_LIT("f"), STR_LIT("{\"x\":\"\\\"\"}")},
                                               {STR_LIT("g"), STR_LIT("{}")}};
    struct api_choice c = {.calls = calls, .n_calls = 1, .finish = "tool_calls"};
    api_put_reply_choice(&b, &CHAT, &c, false);
    expect(&b, "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"ous0py6no\","
               "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":\\\"\\\\\\\"\\\"}\"}}]},"
               "\"logprobs\":null,\"finish_reason\":\"tool_calls\"}");
    c.text = STR_LIT("Well.");
    api_put_reply_choice(&b, &CHAT, &c, false);
    assert_non_null(strstr(b.p, "\"content\":\"Well.\",\"tool_calls\":[{"));
    buf_reset(&b);
    api_put_reply_choice(&b, &CHAT, &(struct api_choice){.reasoning = STR_LIT("Hm")}, false);
    expect(&b, "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":null,\"reasoning_content\":\"Hm\"},"
               "\"logprobs\":null,\"finish_reason\":null}");
    api_put_frame(&b, &CHAT, &(struct api_choice){.reasoning = STR_LIT("Hm"), .text = STR_LIT("x")});
    expect(&b, HEAD "{\"index\":0,\"delta\":{\"content\":\"x\",\"reasoning_content\":\"Hm\"},\"logprobs\":null,"
                    "\"finish_reason\":null}]}\n\n");
    c = (struct api_choice){.calls = calls, .call = 1, .n_calls = 2};
    api_put_frame(&b, &CHAT, &c);
    expect(&b, HEAD "{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"77s65jtkk\",\"type\":\"function\","
                    "\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    buf_fini(&b);
}

static void frames(void **state)
{
    (void)state;
    struct buf b = {0};
    api_put_frame(&b, &CHAT, &(struct api_choice){.first = true});
    expect(&b, HEAD "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
                    "\"finish_reason\":null}]}\n\n");
    api_put_frame(&b, &CHAT, &(struct api_choice){.text = STR_LIT("x"), .index = 3});
    expect(&b,
           HEAD "{\"index\":3,\"delta\":{\"content\":\"x\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
    api_put_frame(&b, &CHAT, &(struct api_choice){.finish = "stop"});
    expect(&b, HEAD "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n");
    api_put_usage_frame(&b, &CHAT, &(struct api_usage){.prompt = 1, .completion = 2});
    expect(&b, HEAD "],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3,"
                    "\"prompt_tokens_details\":{\"cached_tokens\":0}}}\n\n");
    api_put_frame(&b, &TEXT, &(struct api_choice){.text = STR_LIT("x")});
    expect(
        &b,
        "data: {\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":7,\"model\":\"m\",\"choices\":["
        "{\"index\":0,\"text\":\"x\",\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n");
    api_put_done_frame(&b);
    expect(&b, "data: [DONE]\n\n");
    api_put_error_frame(&b, ST_EDEVICE, "the device failed");
    expect(&b, "data: {\"error\":{\"message\":\"the device failed\",\"type\":\"server_error\",\"param\":null,"
               "\"code\":500}}\n\n");
    buf_fini(&b);
}

static struct str bytes_of(const void *ctx, int32_t token)
{
    (void)token;
    return *(const struct str *)ctx;
}

static void logprobs_in_both_shapes(void **state)
{
    (void)state;
    struct buf b = {0};
    struct str half = {"\xc3", 1};
    struct api_logprob e[2] = {{.token = 1, .logprob = -0.5f, .n_top = 1},
                               {.token = 2, .logprob = -INFINITY}};
    e[0].top[0].logprob = -0.25f;
    struct api_logprobs l = {.entries = e, .n = 2, .text_offset = 4, .bytes = bytes_of, .ctx = &half};
    api_put_reply_choice(&b, &CHAT, &(struct api_choice){.logprobs = &l}, false);
    expect(&b,
           "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":{\"content\":["
           "{\"token\":\"\xef\xbf\xbd\",\"logprob\":-0.5,\"bytes\":[195],\"top_logprobs\":["
           "{\"token\":\"\xef\xbf\xbd\",\"logprob\":-0.25,\"bytes\":[195]}]},"
           "{\"token\":\"\xef\xbf\xbd\",\"logprob\":-9999,\"bytes\":[195],\"top_logprobs\":[]}]},"
           "\"finish_reason\":null}");
    api_put_reply_choice(&b, &TEXT, &(struct api_choice){.logprobs = &l}, false);
    expect(&b, "{\"index\":0,\"text\":\"\",\"logprobs\":{\"tokens\":[\"\xef\xbf\xbd\",\"\xef\xbf\xbd\"],"
               "\"token_logprobs\":[-0.5,-9999],\"top_logprobs\":[{\"\xef\xbf\xbd\":-0.25},{}],"
               "\"text_offset\":[4,5]},\"finish_reason\":null}");
    buf_fini(&b);
}

static void errors_and_models(void **state)
{
    (void)state;
    struct buf b = {0};
    api_put_error(&b, ST_EINVAL, "messages[2].content: expected a string");
    expect(&b, "{\"error\":{\"message\":\"messages[2].content: expected a string\",\"type\":"
               "\"invalid_request_error\",\"param\":\"messages[2].content\",\"code\":400}}");
    api_put_error(&b, ST_EINVAL, "JSON: syntax error at offset 0");
    expect(&b,
           "{\"error\":{\"message\":\"JSON: syntax error at offset 0\",\"type\":\"invalid_request_error\","
           "\"param\":null,\"code\":400}}");
    api_put_error(&b, ST_EBUSY, "queue: full");
    expect(&b, "{\"error\":{\"message\":\"queue: "
               "full\",\"type\":\"rate_limit_error\",\"param\":null,\"code\":429}}");
    api_put_error(&b, ST_EINVAL, "");
    expect(&b,
           "{\"error\":{\"message\":\"\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":400}}");
    struct api_model m = {.id = STR_LIT("a"), .root = STR_LIT("a"), .created = 9, .max_model_len = 2048};
    api_put_models(&b, &m, 1);
    expect(&b, "{\"object\":\"list\",\"data\":[{\"id\":\"a\",\"object\":\"model\",\"created\":9,\"owned_by\":"
               "\"stator\","
               "\"root\":\"a\",\"parent\":null,\"max_model_len\":2048}]}");
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_replies),
        cmocka_unit_test(calls_of_tools_stand_beside_content), cmocka_unit_test(frames),
        cmocka_unit_test(logprobs_in_both_shapes),
        cmocka_unit_test(errors_and_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
