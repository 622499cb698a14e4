/* What is told of a model's habits by its chat template. */
#include "answer_form.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define DEEPSEEK                    \
    "<\xef\xbd\x9ctool\xe2\x96\x81" \
    "calls\xe2\x96\x81"             \
    "begin\xef\xbd\x9c>"

static const char *calls_of(const char *template)
{
    return answer_form_call_parser(answer_form_find(str_from(template)).calls);
}

static const char *reasoning_of(const char *template)
{
    return answer_form_reasoning_parser(answer_form_find(str_from(template)).reasoning);
}

static void calls_follow_the_template(void **state)
{
    (void)state;
    assert_string_equal(calls_of("x <tool_call>\\n{\"name\""), "hermes");
    assert_string_equal(calls_of("<tool_call><function=f>"), "qwen3_coder");
    assert_string_equal(calls_of("[TOOL_CALLS]"), "mistral");
    assert_string_equal(calls_of("\nEnvironment: ipython\n"), "llama3_json");
    assert_string_equal(calls_of(DEEPSEEK "```json"), "deepseek_v3");
    assert_string_equal(calls_of(DEEPSEEK), "deepseek_v3_1");
    assert_string_equal(calls_of("<tool_call>f<arg_key>"), "glm47");
    assert_string_equal(calls_of("]<]minimax[>[<tool_call>"), "minimax_m3");
    assert_string_equal(calls_of("<tool_call> <tool_calls>[ </tool_calls>"), "jamba");
    assert_null(calls_of("Environment: ipython <function="));
    assert_string_equal(calls_of("<|start|>assistant<|channel|>x"), "harmony");
    assert_null(calls_of("<|im_start|>user"));
    assert_null(calls_of(""));
    assert_null(answer_form_call_parser(answer_form_find((struct str){0}).calls));
    assert_null(answer_form_call_parser(ANSWER_ARRAY));
}

static void reasoning_follows_the_template(void **state)
{
    (void)state;
    assert_null(reasoning_of("think"));
    assert_string_equal(reasoning_of("split('</think>')"), "qwen3");
    assert_string_equal(reasoning_of("<\xef\xbd\x9c"
                                     "Assistant\xef\xbd\x9c><think>\n</think>"),
                        "deepseek_r1");
    assert_string_equal(reasoning_of("[THINK]</think>"), "mistral");
}

static void prompts_may_open_reasoning(void **state)
{
    (void)state;
    assert_true(answer_form_opened(ANSWER_QWEN3, STR_LIT("assistant\n<think>\n\n")));
    assert_true(answer_form_opened(ANSWER_DEEPSEEK_R1, STR_LIT("<think>")));
    assert_true(answer_form_opened(ANSWER_MISTRAL_THINK, STR_LIT("[THINK]")));
    assert_false(answer_form_opened(ANSWER_QWEN3, STR_LIT("<think>\n\n</think>\n\n")));
    assert_false(answer_form_opened(ANSWER_QWEN3, STR_LIT("think>")));
    assert_false(answer_form_opened(ANSWER_QWEN3, (struct str){0}));
    assert_false(answer_form_opened(ANSWER_REASONING_UNKNOWN, STR_LIT("<think>")));
    assert_false(answer_form_opened(ANSWER_REASONING_UNKNOWN, STR_LIT("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_follow_the_template),
        cmocka_unit_test(reasoning_follows_the_template),
        cmocka_unit_test(prompts_may_open_reasoning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
