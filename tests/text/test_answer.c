/* Answers of each form, cut at every byte and at random ones: content and calls do not depend on the cuts, and what is no call is
 * content byte for byte. */
#include "answer_case.h"

/* ---- forms ------------------------------------------------------------------------------------------------------- */

static void hermes_calls_are_told(void **state)
{
    (void)state;
    expect(ANSWER_HERMES, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"n\": 1}}\n</tool_call>",
           "|f|{\"n\": 1}");
    expect(ANSWER_HERMES, "Let me see.\n<tool_call>{\"arguments\": {}, \"name\": \"f\"}</tool_call>",
           "Let me see.\n|f|{}");
    expect(ANSWER_HERMES,
           "\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n"
           "<tool_call>\n{\"name\": \"caf\\u00e9-2\", \"parameters\": {}}\n</tool_call>\n",
           "|f|{}|caf\xc3\xa9-2|{}");
    expect(ANSWER_HERMES, "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call> and more",
           " and more|f|{}");
    expect(ANSWER_HERMES, "<tool_call>{\"name\": \"f\", \"arguments\": {}}",
           "|f|{}"); /* the mark is not waited for */
    expect(ANSWER_HERMES, "a<<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>", "a<|f|{}");
    expect(ANSWER_HERMES,
           "<tool_call>[{\"name\":\"f\",\"arguments\":{}}, {\"name\":\"f\",\"arguments\":{}}]</tool_call>",
           "|f|{}|f|{}");
}

static void arguments_are_as_they_were_written(void **state)
{
    (void)state;
    expect(ANSWER_HERMES,
           "<tool_call>{\"name\":\"f\",\"arguments\":{\"n\": 123456789012345678901,  \"text\":\"</tool_call> "
           "\\\"}{\"}}",
           "|f|{\"n\": 123456789012345678901,  \"text\":\"</tool_call> \\\"}{\"}");
    expect(ANSWER_HERMES, "<tool_call>{\"name\":\"f\",\"arguments\":{\"text\":\"a\n\tb\"}}",
           "|f|{\"text\":\"a\\u000a\\u0009b\"}");
    expect(ANSWER_HERMES, "<tool_call>{\"name\":\"f\",\"arguments\":{\"x\":[true,false,null,-0.5e+3,[],{}]}}",
           "|f|{\"x\":[true,false,null,-0.5e+3,[],{}]}");
}

static void what_is_no_call_is_content(void **state)
{
    (void)state;
    static const char *const hermes[] = {
        "",
        " \n ",
        "plain text",
        "a < b and <tool_calls>",
        "<tool_call>",
        "<tool_call",
        "<tool_call></tool_call>",
        "<tool_call>not JSON</tool_call>",
        "</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": 1",       /* cut off */
        "<tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>", /* was not offered */
        "<tool_call>{\"name\": \"f\"}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": 1}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": \"{}\"}</tool_call>",
        "<tool_call>{\"name\": 1, \"arguments\": {}}</tool_call>",
        "<tool_call>{\"arguments\": {}}</tool_call>",
        "<tool_call>{'name': 'f', 'arguments': {}}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": 01}}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": 1.}}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": +1}}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": 1,}}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": truE}}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\" 1}}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"\\x\": 1}}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": {\"\\u12g4\": 1}}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": {]}</tool_call>",
        "<tool_call>{\"name\": \"g\", \"name\": \"f\", \"name\": \"g\", \"arguments\": {}}</tool_call>",
        "<tool_call>[]</tool_call>",
        "<tool_call>[[{\"name\": \"f\", \"arguments\": {}}]]</tool_call>",
    };
    for (size_t i = 0; i < sizeof hermes / sizeof *hermes; i++)
        same(ANSWER_HERMES, hermes[i]);
    same(ANSWER_CALLS_UNKNOWN, "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>");
    same(ANSWER_HARMONY, "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>");
    same(ANSWER_MISTRAL, "[TOOL_CALLS] is what I write\nthen {}");
    same(ANSWER_MISTRAL, "[TOOL_CALLS]f[ID]{}");
    same(ANSWER_MISTRAL, "[TOOL_CALLS]f[CALL_ID]x{}");
    same(ANSWER_MISTRAL, "[TOOL_CALLS]g{}");
    same(ANSWER_LLAMA3_JSON, "{\"name\": \"g\", \"parameters\": {}}");
    same(ANSWER_LLAMA3_JSON, "An object: {\"name\": \"f\", \"parameters\": {}}");
    same(ANSWER_QWEN3_CODER, "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>");
    same(ANSWER_QWEN3_CODER, "<function=g></function>");
    same(ANSWER_QWEN3_CODER, "<function=f>what</function>");
    same(ANSWER_QWEN3_CODER, "<function=f><parameter=x</function>");
    same(ANSWER_QWEN3_CODER, "<tool_call>\n<function=f>\n<parameter=text>\ncut o");
    same(ANSWER_QWEN3_CODER, "<tool_call>\n<funk");
}

/* A client sends a call back with its next request: what a request may not say is no call. */
static void what_cannot_be_sent_back_is_no_call(void **state)
{
    (void)state;
    static const char *const strings[] = {
        "\\u0000",          "a\\u0000b",      "\\ud800",          "\\uDBFFx",       "\\ud800\\n",
        "\\ud800\\\\udc00", "\\ud800\\ud800", "\\udc00",          "\\uDFFF\\ud800", "\\ud83d\\ude00\\ude00",
        "\\ud83d\\u0041",   "\\ud83d\\u0000", "\\ud83d\\n\\ude00"};
    char text[128];
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) {
        snprintf(text, sizeof text, "<tool_call>{\"name\":\"f\",\"arguments\":{\"x\":\"%s\"}}</tool_call>",
                 strings[i]);
        same(ANSWER_HERMES, text);
        snprintf(text, sizeof text, "[TOOL_CALLS]f[ARGS]{\"%s\":[]}", strings[i]);
        same(ANSWER_MISTRAL, text);
        snprintf(text, sizeof text, "[{\"name\":\"f\",\"parameters\":{\"x\":[\"%s\"]}}]", strings[i]);
        same(ANSWER_ARRAY, text);
    }
    expect(ANSWER_HERMES,
           "<tool_call>{\"name\":\"f\",\"arguments\":{\"x\":\"\\ud83D\\uDe00\\u0001\\\\u0000\"}}",
           "|f|{\"x\":\"\\ud83D\\uDe00\\u0001\\\\u0000\"}");
    struct buf out = {0};
    static const char nul[] = "<tool_call>{\"name\":\"f\",\"arguments\":{\"x\":\"\0\"}}";
    assert_int_equal(take_apart(ANSWER_HERMES, STR_LIT(nul), NULL, 0, &out), 0);
    assert_true(str_eq(buf_str(&out), STR_LIT(nul)));
    buf_fini(&out);
}

static void a_broken_call_does_not_hide_the_next(void **state)
{
    (void)state;
    expect(ANSWER_HERMES, "<tool_call>{\"name\": <tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
           "<tool_call>{\"name\": |f|{}");
    expect(ANSWER_HERMES, "<tool_call><tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
           "<tool_call>|f|{}");
    expect(ANSWER_HERMES,
           "<tool_call>{\"name\":\"g\",\"arguments\":{}}</"
           "tool_call>\n<tool_call>{\"name\":\"f\",\"arguments\":{}}"
           "</tool_call>",
           "<tool_call>{\"name\":\"g\",\"arguments\":{}}</tool_call>\n|f|{}");
    expect(ANSWER_HERMES, "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>{\"na",
           "\n<tool_call>{\"na|f|{}");
}

static void mistral_calls_come_in_three_spellings(void **state)
{
    (void)state;
    expect(ANSWER_MISTRAL,
           "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"f\", \"arguments\": {\"n\":1}}]",
           "|f|{}|f|{\"n\":1}");
    expect(ANSWER_MISTRAL, "ok[TOOL_CALLS]f[ARGS]{\"n\": 1}[TOOL_CALLS]f[ARGS]{}", "ok|f|{\"n\": 1}|f|{}");
    expect(ANSWER_MISTRAL, "[TOOL_CALLS]f[CALL_ID]a1b2c3d4e[ARGS]{}", "|f|{}");
    expect(ANSWER_MISTRAL, "[TOOL_CALLS]f{\"n\": 1}", "|f|{\"n\": 1}");
    expect(ANSWER_MISTRAL, "[TOOL_CALLS]{\"name\": \"f\", \"arguments\": {}}[/TOOL_CALLS]", "|f|{}");
    expect(ANSWER_MISTRAL,
           "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\", \"arguments\": {}}]",
           ", {\"name\": \"g\", \"arguments\": {}}]|f|{}");
}

static void llama_calls_are_whole_answers(void **state)
{
    (void)state;
    expect(ANSWER_LLAMA3_JSON, "{\"name\": \"f\", \"parameters\": {\"n\": 1}}", "|f|{\"n\": 1}");
    expect(ANSWER_LLAMA3_JSON, "<|python_tag|>{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}",
           "|f|{}");
    expect(ANSWER_LLAMA3_JSON, "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"f\", \"parameters\": {}}",
           "|f|{}|f|{}");
    expect(ANSWER_LLAMA3_JSON, "{\"name\": \"f\", \"parameters\": {}} {}", " {}|f|{}");
}

static void jamba_calls_are_a_marked_array(void **state)
{
    (void)state;
    expect(ANSWER_JAMBA,
           "Hm <tool_calls>[{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"f\", \"arguments\": "
           "{\"n\":1}}]</tool_calls>\n",
           "Hm |f|{}|f|{\"n\":1}");
    same(ANSWER_JAMBA, "<tool_calls>[]</tool_calls>");
}

static void forced_calls_are_an_array(void **state)
{
    (void)state;
    expect(ANSWER_ARRAY,
           "[{\"name\": \"f\", \"parameters\": {\"n\": 1}}, {\"name\": \"f\", \"parameters\": {}}]",
           "|f|{\"n\": 1}|f|{}");
    expect(ANSWER_ARRAY, "[{\"name\": \"f\", \"parameters\": {}}, {\"name\": \"f\", \"para",
           ", {\"name\": \"f\", \"para|f|{}");
    same(ANSWER_ARRAY, "[{\"name\": \"f\", \"para");
}

static void reasoning_is_set_apart(void **state)
{
    (void)state;
    same(ANSWER_HERMES, "<think>x</think>y"); /* a model that has no such marks */
    reasoning = ANSWER_QWEN3;
    expect(ANSWER_CALLS_UNKNOWN, "<think>\nLet me < see.\n</think>\n\nHello",
           "\n\nHello|think|\nLet me < see.\n");
    expect(ANSWER_CALLS_UNKNOWN, "\n<think></think>Hello", "Hello");
    expect(ANSWER_CALLS_UNKNOWN, "<think>cut o</thin", "|think|cut o</thin");
    expect(ANSWER_CALLS_UNKNOWN, "<think><</</think>", "|think|<</");
    expect(ANSWER_CALLS_UNKNOWN, "<think>a</think> <think>b</think>\n", "|think|ab");
    expect(ANSWER_HERMES,
           "<think>Or <tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>?</think>\n\n"
           "<tool_call>{\"name\":\"f\",\"arguments\":{\"n\":1}}</tool_call>\n<think>!</think>",
           "|think|Or <tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>?!|f|{\"n\":1}");
    expect(ANSWER_LLAMA3_JSON, "<think>a</think>{\"name\":\"f\",\"parameters\":{}}", "|think|a|f|{}");
    same(ANSWER_HERMES, "The marks are <think> and </think>.");
    same(ANSWER_HERMES, "plain");
    same(ANSWER_HERMES, " \n");
    same(ANSWER_HERMES, "</think>");
    opened = true;
    expect(ANSWER_CALLS_UNKNOWN, "So.</think>Hello </think>", "Hello </think>|think|So.");
    expect(ANSWER_CALLS_UNKNOWN, "So", "|think|So");
    opened = false;
    reasoning = ANSWER_MISTRAL_THINK;
    expect(ANSWER_MISTRAL, "[THINK]a[b][/THINK]c[TOOL_CALLS]f{}", "c|think|a[b]|f|{}");
    reasoning = ANSWER_REASONING_UNKNOWN;
    opened = true;
    same(ANSWER_HERMES, "x</think>"); /* which the prompt cannot have opened */
    opened = false;
}

/* ---- random ------------------------------------------------------------------------------------------------------ */

static void random_cuts_change_nothing(void **state)
{
    (void)state;
    static const char *const pieces[] = {"<tool_call>",
                                         "</tool_call>",
                                         "{\"name\":\"f\",\"arguments\":{}}",
                                         "{\"name\": \"f\", \"parameters\": {\"n\":[1,2]}}",
                                         "{\"name\":\"g\",\"arguments\":{}}",
                                         "<function=f>",
                                         "</function>",
                                         "<parameter=n>1</parameter>",
                                         "<think>",
                                         "</think>",
                                         "[TOOL_CALLS]",
                                         "f[ARGS]{}",
                                         "[{\"name\":\"f\",\"arguments\":{}}",
                                         "<|python_tag|>",
                                         " ",
                                         "\n",
                                         ";",
                                         ",",
                                         "]",
                                         "f",
                                         "{}",
                                         "{\"a\":",
                                         "[",
                                         "<",
                                         "text ",
                                         "\"",
                                         "\\",
                                         "}",
                                         "\xc3\xa9",
                                         "<tool_",
                                         "[TOOL",
                                         "<function=",
                                         "<parameter=n>",
                                         "[/TOOL_CALLS]"};
    static const enum answer_calls kinds[] = {ANSWER_HERMES, ANSWER_QWEN3_CODER, ANSWER_MISTRAL,
                                              ANSWER_LLAMA3_JSON, ANSWER_ARRAY};
    struct buf text = {0}, whole = {0}, cut = {0};
    uint32_t n_told[5] = {0}, n_thought = 0;
    for (uint64_t seed = 1; seed <= 50000; seed++) {
        uint64_t s = seed;
        uint32_t kind = rnd(&s, 5);
        reasoning = rnd(&s, 2) ? ANSWER_QWEN3 : ANSWER_REASONING_UNKNOWN;
        buf_reset(&text);
        for (uint32_t n = rnd(&s, 12); n; n--)
            buf_puts(&text, pieces[rnd(&s, rnd(&s, 2) ? 18 : 34)]);
        uint32_t n = take_apart(kinds[kind], buf_str(&text), NULL, 0, &whole);
        size_t cuts[256], n_cuts = 0;
        for (size_t i = 0; i < text.n && n_cuts < 256; i++)
            if (rnd(&s, 3) == 0)
                cuts[n_cuts++] = i;
        take_apart(kinds[kind], buf_str(&text), cuts, n_cuts, &cut);
        if (!str_eq(buf_str(&whole), buf_str(&cut)) ||
            (n == 0 && !reasoning && !str_eq(buf_str(&whole), buf_str(&text))))
            fail_msg("seed %llu: %s -> %s, cut: %s", (unsigned long long)seed, text.p, whole.p, cut.p);
        n_told[kind] += n;
        n_thought += thought.n > 0;
    }
    reasoning = ANSWER_REASONING_UNKNOWN;
    for (int i = 0; i < 5; i++)
        assert_true(n_told[i] >= 50);
    assert_true(n_thought >= 500);
    buf_fini(&text);
    buf_fini(&whole);
    buf_fini(&cut);
}

/* Text and calls in turn: the answer is known before it is written. */
static void random_answers_come_apart_as_they_were_made(void **state)
{
    (void)state;
    static const char *const texts[] = {"I see.",      "a < b",  "<tool_cal", "{\"n\":1}",
                                        "caf\xc3\xa9", "x\n\ny", "<<",        "]["};
    static const char *const args[] = {"{}", "{\"n\": 1}", "{\"text\": \"</tool_call>\\\\\"}",
                                       "{\"x\":{\"y\":[1e5,\"}\"]}}"};
    struct buf text = {0}, content = {0}, calls = {0}, out = {0};
    for (uint64_t seed = 1; seed <= 5000; seed++) {
        uint64_t s = seed;
        buf_reset(&text);
        buf_reset(&content);
        buf_reset(&calls);
        for (uint32_t n = rnd(&s, 6); n; n--) {
            if (rnd(&s, 2)) {
                const char *a = args[rnd(&s, 4)], *gap = rnd(&s, 2) ? "\n" : "";
                buf_printf(&text, "<tool_call>%s{\"name\": \"f\",%s\"arguments\": %s}%s</tool_call>", gap,
                           gap, a, gap);
                buf_printf(&calls, "|f|%s", a);
            } else {
                const char *t = texts[rnd(&s, 8)];
                buf_printf(&text, "%s.", t);
                buf_printf(&content, "%s.", t);
            }
        }
        buf_put(&content, calls.p, calls.n);
        size_t cut = rnd(&s, (uint32_t)text.n + 1);
        take_apart(ANSWER_HERMES, buf_str(&text), &cut, 1, &out);
        if (!str_eq(buf_str(&content), buf_str(&out)))
            fail_msg("seed %llu: %s -> %s, not %s", (unsigned long long)seed, text.p, out.p, content.p);
    }
    buf_fini(&text);
    buf_fini(&content);
    buf_fini(&calls);
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hermes_calls_are_told),
        cmocka_unit_test(arguments_are_as_they_were_written),
        cmocka_unit_test(what_is_no_call_is_content),
        cmocka_unit_test(what_cannot_be_sent_back_is_no_call),
        cmocka_unit_test(a_broken_call_does_not_hide_the_next),
        cmocka_unit_test(mistral_calls_come_in_three_spellings),
        cmocka_unit_test(llama_calls_are_whole_answers),
        cmocka_unit_test(jamba_calls_are_a_marked_array),
        cmocka_unit_test(forced_calls_are_an_array),
        cmocka_unit_test(reasoning_is_set_apart),
        cmocka_unit_test(random_cuts_change_nothing),
        cmocka_unit_test(random_answers_come_apart_as_they_were_made),
    };
    return cmocka_run_group_tests(tests, answer_up, answer_down);
}
