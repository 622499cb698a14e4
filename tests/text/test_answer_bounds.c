/* What an answer costs while it arrives: how little is held back, how much is taken, and what no memory means. */
#include "answer_case.h"

static void nothing_but_a_beginning_is_held_back(void **state)
{
    (void)state;
    struct answer a = begin(ANSWER_HERMES);
    struct buf out = {0};
    assert_int_equal(answer_push(&a, STR_LIT("Hello <tool"), &out, &thought), ST_OK);
    assert_string_equal(out.p, "Hello ");
    assert_int_equal(answer_push(&a, STR_LIT("s>"), &out, &thought), ST_OK);
    assert_string_equal(out.p, "Hello <tools>");
    assert_int_equal(
        answer_push(&a, STR_LIT("<tool_call>{\"name\": \"f\", \"arguments\": {}"), &out, &thought), ST_OK);
    assert_int_equal(a.n_calls, 0);
    assert_int_equal(answer_push(&a, STR_LIT("}"), &out, &thought), ST_OK);
    assert_int_equal(a.n_calls, 1);
    assert_int_equal(answer_push(&a, STR_LIT("</tool_call>\n\n"), &out, &thought), ST_OK);
    finish(&a, &out);
    assert_string_equal(out.p, "Hello <tools>|f|{}");
    buf_fini(&out);
}

static void one_call_ends_the_answer(void **state)
{
    (void)state;
    struct answer a;
    struct buf out = {0};
    answer_init(
        &a, &(struct answer_options){.calls = ANSWER_HERMES, .tools = tools, .one = true, .limit = LIMIT});
    assert_int_equal(
        answer_push(&a,
                    STR_LIT("x<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>y<tool_call>{\"name\":"
                            "\"f\",\"arguments\":{}}</tool_call>"),
                    &out, &thought),
        ST_OK);
    assert_true(a.over);
    finish(&a, &out);
    assert_string_equal(out.p, "x|f|{}");
    buf_fini(&out);
}

static void calls_are_counted(void **state)
{
    (void)state;
    struct answer a = begin(ANSWER_HERMES);
    struct buf out = {0};
    for (int i = 0; i <= ANSWER_CALLS_MAX; i++)
        assert_int_equal(answer_push(&a, STR_LIT("<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>"),
                                     &out, &thought),
                         ST_OK);
    assert_int_equal(answer_end(&a, &out, &thought), ST_OK);
    assert_int_equal(a.n_calls, ANSWER_CALLS_MAX);
    assert_string_equal(out.p, "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>");
    answer_fini(&a);
    buf_fini(&out);
}

static void depth_and_bytes_are_bounded(void **state)
{
    (void)state;
    struct buf text = {0}, out = {0};
    for (int deep = 0; deep < 2; deep++) {
        buf_reset(&text);
        buf_puts(&text, "<tool_call>{\"name\":\"f\",\"arguments\":{\"x\":");
        for (int i = 0; i < ANSWER_JSON_DEPTH - 2 + deep; i++)
            buf_putc(&text, '[');
        for (int i = 0; i < ANSWER_JSON_DEPTH - 2 + deep; i++)
            buf_putc(&text, ']');
        buf_puts(&text, "}}");
        struct answer a = begin(ANSWER_HERMES);
        buf_reset(&out);
        assert_int_equal(answer_push(&a, buf_str(&text), &out, &thought), ST_OK);
        assert_int_equal(answer_end(&a, &out, &thought), ST_OK);
        assert_int_equal(a.n_calls, !deep);
        assert_int_equal(out.n, deep ? text.n : 0);
        answer_fini(&a);
    }
    struct answer a = begin(ANSWER_HERMES);
    int st = answer_push(&a, STR_LIT("<tool_call>{\"name\":\""), &out, &thought);
    for (int i = 0; i < LIMIT && !st; i++)
        st = answer_push(&a, STR_LIT("xxxx"), &out, &thought);
    assert_int_equal(st, ST_ETOOBIG);
    assert_int_equal(answer_end(&a, &out, &thought), ST_ETOOBIG);
    answer_fini(&a);
    buf_fini(&text);
    buf_fini(&out);
}

static void each_lost_allocation_is_told(void **state)
{
    (void)state;
    static const char *const answers[] = {
        "x<tool_call>{\"name\":\"f\",\"arguments\":{\"n\":1}}</tool_call><tool_call>{\"na",
        "x<function=f><parameter=text>a</parameter></function><function="};
    uint64_t live = mem_live();
    for (int i = 0; i < 2; i++) {
        bool lost = true;
        for (uint64_t n = 1; lost; n++) {
            struct answer a = begin(i ? ANSWER_QWEN3_CODER : ANSWER_HERMES);
            struct buf out = {0};
            mem_fail_after(n);
            int st = answer_push(&a, str_from(answers[i]), &out, &thought);
            if (!st)
                st = answer_end(&a, &out, &thought);
            mem_fail_after(0);
            lost = st == ST_ENOMEM;
            assert_true(lost || (st == ST_OK && a.n_calls == 1 && out.n > 1));
            answer_fini(&a);
            buf_fini(&out);
        }
    }
    assert_int_equal(mem_live(), live);
}

static void marks_are_known_by_name(void **state)
{
    (void)state;
    static const struct {
        enum answer_calls calls;
        const char *name;
        bool is;
    } marks[] = {{ANSWER_HERMES, "<tool_call>", true},   {ANSWER_HERMES, "</tool_call>", true},
                 {ANSWER_MISTRAL, "[ARGS]", true},       {ANSWER_LLAMA3_JSON, "<|python_tag|>", true},
                 {ANSWER_HERMES, "<|im_end|>", false},   {ANSWER_HERMES, "[ARGS]", false},
                 {ANSWER_HERMES, "<think>", false},      {ANSWER_CALLS_UNKNOWN, "<tool_call>", false},
                 {ANSWER_HARMONY, "<tool_call>", false}, {ANSWER_CALLS_UNKNOWN, "", false}};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        struct answer a = begin(marks[i].calls);
        assert_int_equal(answer_is_mark(&a, str_from(marks[i].name)), marks[i].is);
    }
    reasoning = ANSWER_MISTRAL_THINK;
    struct answer a = begin(ANSWER_CALLS_UNKNOWN);
    assert_true(answer_is_mark(&a, STR_LIT("[THINK]")) && answer_is_mark(&a, STR_LIT("[/THINK]")));
    assert_false(answer_is_mark(&a, STR_LIT("<think>")) || answer_is_mark(&a, STR_LIT("")));
    reasoning = ANSWER_REASONING_UNKNOWN;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_but_a_beginning_is_held_back),
        cmocka_unit_test(one_call_ends_the_answer),
        cmocka_unit_test(calls_are_counted),
        cmocka_unit_test(depth_and_bytes_are_bounded),
        cmocka_unit_test(each_lost_allocation_is_told),
        cmocka_unit_test(marks_are_known_by_name),
    };
    return cmocka_run_group_tests(tests, answer_up, answer_down);
}
