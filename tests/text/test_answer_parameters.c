/* Calls whose parameters are plain text between marks: where they end, what they become, and what is no call. */
#include "answer_case.h"

static void calls(const char *answer, const char *want)
{
    expect(ANSWER_QWEN3_CODER, answer, want);
}

/* ---- where a value ends ------------------------------------------------------------------------------------------ */

static void a_value_may_hold_the_marks(void **state)
{
    (void)state;
    calls("<function=f><parameter=text>print('</function>')</parameter></function>",
          "|f|{\"text\":\"print('</function>')\"}");
    calls("<function=f><parameter=text>use <parameter=n> in it</parameter></function>",
          "|f|{\"text\":\"use <parameter=n> in it\"}");
    calls("<tool_call>\n<function=f>\n<parameter=text>\n<tool_call>\n<function=f>\n "
          "</function>\n\t<parameter=n>\n"
          "</tool_call>\n</parameter>\n</function>\n</tool_call>",
          "|f|{\"text\":\"<tool_call>\\n<function=f>\\n </function>\\n\\t<parameter=n>\\n</tool_call>\"}");
    calls("<function=f><parameter=text></func</functio></parameter></function>",
          "|f|{\"text\":\"</func</functio>\"}");
    calls("<function=f><parameter=text>a\n</par\n</functio\n<parameter\n<<parameter=</parameter></function>",
          "|f|{\"text\":\"a\\n</par\\n</functio\\n<parameter\\n<<parameter=\"}");
    calls("<function=f><parameter=text>\n<</function></parameter></function>",
          "|f|{\"text\":\"<</function>\"}");
    calls("<function=f><parameter=text><parameter=n></parameter></function>",
          "|f|{\"text\":\"<parameter=n>\"}");
    calls("<function=f><parameter=text></function></parameter></function>", "|f|{\"text\":\"</function>\"}");
}

static void a_forgotten_mark_is_made_up_for_by_the_next_line(void **state)
{
    (void)state;
    calls("<function=f>\n<parameter=text>\na\n<parameter=n>\n1\n</function>", "|f|{\"text\":\"a\",\"n\":1}");
    calls("<function=f><parameter=text>\n\na\n\n</function>", "|f|{\"text\":\"\\na\\n\"}");
    calls("<function=f><parameter=text>\n<parameter=n>\n</function>", "|f|{\"text\":\"\",\"n\":\"\"}");
    calls("<function=f><parameter=text>a\n</function></parameter></function>",
          "</parameter></function>|f|{\"text\":\"a\"}"); /* cannot be told from a forgotten one */
    same(ANSWER_QWEN3_CODER, "<function=f><parameter=text>a</function>");
    same(ANSWER_QWEN3_CODER, "<function=f><parameter=text>a\n </function>");
}

static void between_parameters_is_nothing_but_white_space(void **state)
{
    (void)state;
    calls("<function=f> \t\r\n<parameter=text>a</parameter> \n\n</function>", "|f|{\"text\":\"a\"}");
    same(ANSWER_QWEN3_CODER, "<function=f>x<parameter=text>a</parameter></function>");
    same(ANSWER_QWEN3_CODER, "<function=f><parameter=text>a</parameter>x</function>");
    same(ANSWER_QWEN3_CODER, "<function=f><parameter=text>a</parameter>');</parameter></function>");
    same(ANSWER_QWEN3_CODER, "<function=f></parameter></function>");
    same(ANSWER_QWEN3_CODER, "<function=f><parameter=te\nxt>a</parameter></function>");
    same(ANSWER_QWEN3_CODER, "<function=f><parameter=text</parameter></function>");
}

static void a_broken_call_does_not_hide_the_next(void **state)
{
    (void)state;
    calls("<function=f>\n<function=f></function>", "<function=f>\n|f|{}");
    calls("<function=f>\n<parameter=text>a</parameter>\n</<function=f></function>",
          "<function=f>\n<parameter=text>a</parameter>\n</|f|{}");
    calls("<function=f><parameter=text>a</parameter>\n</tool_call>\n<tool_call>\n<function=f></function>",
          "<function=f><parameter=text>a</parameter>\n</tool_call>\n|f|{}");
    calls("<tool_call>\n<tool_call>\n<function=f></function>", "<tool_call>\n|f|{}");
    calls("<function=f><parameter=x</function><function=f></function>",
          "<function=f><parameter=x</function>|f|{}");
}

/* ---- what it becomes --------------------------------------------------------------------------------------------- */

static void values_take_their_types_from_the_tool(void **state)
{
    (void)state;
    calls("<tool_call>\n<function=f>\n<parameter=text>\n12\n</parameter>\n<parameter=n>\n12\n</parameter>\n"
          "<parameter=list>\n[1, \"a\"]\n</parameter>\n</function>\n</tool_call>",
          "|f|{\"text\":\"12\",\"n\":12,\"list\":[1, \"a\"]}");
    calls("<function=f></function>", "|f|{}");
    calls("Now.\n<tool_call><function=caf\xc3\xa9-2><parameter=x>1</parameter></function></tool_call>",
          "Now.\n|caf\xc3\xa9-2|{\"x\":\"1\"}"); /* no schema: text */
    calls("<function=f><parameter=text>\n\n a \"b\"\n</parameter><parameter=n>x</parameter>"
          "<parameter=flag>True</parameter></function>",
          "|f|{\"text\":\"\\n a \\\"b\\\"\",\"n\":\"x\",\"flag\":true}");
    calls("<function=f><parameter=maybe>None</parameter><parameter=text>null</parameter></function>",
          "|f|{\"maybe\":null,\"text\":\"null\"}");
    calls("<function=f><parameter=ref>{\"a\": 1}</parameter><parameter=maybe>1</parameter></function>",
          "|f|{\"ref\":{\"a\": 1},\"maybe\":\"1\"}");
    calls("<function=f><parameter=ref>7</parameter><parameter=list>[1,]</parameter></function>",
          "|f|{\"ref\":\"7\",\"list\":\"[1,]\"}");
    calls("<function=f></function><function=f></function></tool_call>x", "x|f|{}|f|{}");
}

static void what_does_not_fit_its_type_is_text(void **state)
{
    (void)state;
    static const struct {
        const char *schema, *value, *want;
    } rows[] = {
        {"{\"type\":\"integer\"}", "-12", "-12"},
        {"{\"type\":\"integer\"}", "123456789012345678901", "123456789012345678901"},
        {"{\"type\":\"integer\"}", "1.5", "\"1.5\""},
        {"{\"type\":\"integer\"}", "012", "\"012\""},
        {"{\"type\":\"integer\"}", "[1,2]", "\"[1,2]\""},
        {"{\"type\":\"integer\"}", "None", "\"None\""},
        {"{\"type\":\"integer\"}", "True", "\"True\""},
        {"{\"type\":\"integer\"}", "'1'", "\"'1'\""},
        {"{\"type\":\"integer\"}", "", "\"\""},
        {"{\"type\":\"number\"}", " 1e-3 ", "1e-3"},
        {"{\"type\":\"number\"}", "7", "7"},
        {"{\"type\":\"number\"}", "7 kg", "\"7 kg\""},
        {"{\"type\":\"boolean\"}", "False", "false"},
        {"{\"type\":\"boolean\"}", "true", "true"},
        {"{\"type\":\"boolean\"}", "1", "\"1\""},
        {"{\"type\":\"null\"}", "None", "null"},
        {"{\"type\":\"array\"}", "[1, {}]", "[1, {}]"},
        {"{\"type\":\"array\"}", "{}", "\"{}\""},
        {"{\"type\":\"array\"}", "[1", "\"[1\""},
        {"{\"type\":\"array\"}", "['a']", "\"['a']\""},
        {"{\"type\":\"object\"}", "{\"a\": [1]}", "{\"a\": [1]}"},
        {"{\"type\":\"object\"}", "[]", "\"[]\""},
        {"{\"type\":\"object\"}", "\"a\"", "\"\\\"a\\\"\""},
        {"{\"type\":\"string\"}", "[1]", "\"[1]\""},
        {"{\"type\":[\"string\",\"integer\"]}", "1", "\"1\""},
        {"{\"type\":[\"string\",\"null\"]}", "null", "null"},
        {"{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"array\"}]}", "[]", "[]"},
        {"{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"array\"}]}", "{}", "\"{}\""},
        {"{\"anyOf\":[{\"$ref\":\"#/x\"},{\"type\":\"null\"}]}", "{\"a\":1}", "{\"a\":1}"},
        {"{\"anyOf\":[{\"$ref\":\"#/x\"},{\"type\":\"null\"}]}", "None", "null"},
        {"{\"anyOf\":[{\"$ref\":\"#/x\"},{\"type\":\"null\"}]}", "red", "\"red\""},
        {"{\"properties\":{}}", "{}", "{}"}, /* no type: structure at best */
        {"{}", "1", "\"1\""},
        {"{\"type\":\"float\"}", "1.5", "1.5"}, /* somebody's own: any JSON */
        {"{\"type\":\"array\"}", "[\"\\u0000\"]",
         "\"[\\\"\\\\u0000\\\"]\""}, /* what no request may say is no JSON */
        {"{\"type\":\"array\"}", "[\"\\ud800\"]", "\"[\\\"\\\\ud800\\\"]\""},
    };
    cJSON *usual = tools;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[256], want[256];
        snprintf(text, sizeof text,
                 "[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"x\":%s}}}}]",
                 rows[i].schema);
        assert_int_equal(json_parse(&tools, str_from(text), NULL), ST_OK);
        snprintf(text, sizeof text, "<function=f><parameter=x>%s</parameter></function>", rows[i].value);
        snprintf(want, sizeof want, "|f|{\"x\":%s}", rows[i].want);
        calls(text, want);
        json_free(tools);
    }
    tools = usual;
}

static void of_a_parameter_without_a_schema_all_is_text(void **state)
{
    (void)state;
    calls("<function=f><parameter=x>{\"a\":1}</parameter></function>", "|f|{\"x\":\"{\\\"a\\\":1}\"}");
    calls("<function=caf\xc3\xa9-2><parameter=x>None</parameter></function>",
          "|caf\xc3\xa9-2|{\"x\":\"None\"}");
}

static void of_a_repeated_parameter_the_last_counts(void **state)
{
    (void)state;
    calls("<function=f><parameter=n>[1,2]</parameter><parameter=text>a</parameter><parameter=n>2</parameter>"
          "<parameter=text>b</parameter></function>",
          "|f|{\"n\":2,\"text\":\"b\"}");
}

/* ---- bounds ------------------------------------------------------------------------------------------------------ */

/* `n` parameters of `names` different names; the tool knows a number of the last of them. */
static uint32_t told(uint32_t n, uint32_t names, struct buf *out)
{
    struct buf text = {0};
    cJSON *usual = tools;
    buf_puts(&text, "[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{");
    for (uint32_t i = 0; i < 3000; i++)
        buf_printf(&text, "\"no%u\":{},", i);
    buf_printf(&text, "\"p%u\":{\"type\":\"integer\"}}}}}]", names - 1);
    assert_int_equal(json_parse(&tools, buf_str(&text), NULL), ST_OK);
    buf_reset(&text);
    buf_puts(&text, "<function=f>");
    for (uint32_t i = 0; i < n; i++)
        buf_printf(&text, "<parameter=p%u>%u</parameter>", i % names, i);
    buf_puts(&text, "</function>");
    uint32_t calls = take_apart(ANSWER_QWEN3_CODER, buf_str(&text), NULL, 0, out);
    assert_true(calls || str_eq(buf_str(out), buf_str(&text)));
    json_free(tools);
    tools = usual;
    buf_fini(&text);
    return calls;
}

static void names_are_counted(void **state)
{
    (void)state;
    struct buf out = {0};
    assert_int_equal(told(ANSWER_PARAMETERS_MAX, ANSWER_PARAMETERS_MAX, &out), 1);
    assert_non_null(strstr(buf_str(&out).p, "{\"p0\":\"0\",\"p1\":\"1\","));
    assert_non_null(strstr(buf_str(&out).p, ",\"p126\":\"126\",\"p127\":127}"));
    assert_int_equal(told(ANSWER_PARAMETERS_MAX + 1, ANSWER_PARAMETERS_MAX + 1, &out), 0);
    assert_int_equal(told(2000, 2, &out), 1);
    assert_string_equal(buf_str(&out).p, "|f|{\"p0\":\"1998\",\"p1\":1999}");
    buf_fini(&out);
}

/* `finish` parses the arguments as a request's are. */
static void the_deepest_value_can_be_sent_back(void **state)
{
    (void)state;
    struct buf text = {0}, out = {0};
    for (int more = 0; more < 2; more++) {
        buf_reset(&text);
        buf_puts(&text, "<function=f><parameter=list>");
        for (int i = 0; i < ANSWER_JSON_DEPTH + more; i++)
            buf_putc(&text, '[');
        for (int i = 0; i < ANSWER_JSON_DEPTH + more; i++)
            buf_putc(&text, ']');
        buf_puts(&text, "</parameter></function>");
        assert_int_equal(take_apart(ANSWER_QWEN3_CODER, buf_str(&text), NULL, 0, &out), 1);
        assert_true((strstr(buf_str(&out).p, ":\"[[") != NULL) == more);
    }
    buf_fini(&text);
    buf_fini(&out);
}

static void a_nul_is_no_call(void **state)
{
    (void)state;
    static const struct str answers[] = {STR_LIT("<function=f><parameter=text>\0</parameter></function>"),
                                         STR_LIT("<function=f><parameter=a\0>x</parameter></function>"),
                                         STR_LIT("<function=f>\0</function>")};
    struct buf out = {0};
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        assert_int_equal(take_apart(ANSWER_QWEN3_CODER, answers[i], NULL, 0, &out), 0);
        assert_true(str_eq(buf_str(&out), answers[i]));
    }
    buf_fini(&out);
}

/* ---- random ------------------------------------------------------------------------------------------------------ */

static const char *first_of(const char *a, const char *b)
{
    return !a || (b && b < a) ? b : a;
}

static const char *behind_line(const char *text, const char *mark)
{
    const char *at = strstr(text, mark);
    return at ? at + 1 : NULL;
}

/* What the rule says, searched for in the whole text. Of each name its value; NULL: it is no call, else what is behind it. */
static const char *naive(const char *at, struct str *values, uint32_t *order)
{
    for (uint32_t n = 0;;) {
        at += strspn(at, " \n");
        if (strncmp(at, "</function>", 11) == 0)
            return at + 11;
        if (strncmp(at, "<parameter=", 11) != 0)
            return NULL;
        const char *name = at + 11, *from = name + strcspn(name, "<\n>") + 1;
        if (from[-1] != '>')
            return NULL;
        at = first_of(strstr(from, "</parameter>"),
                      first_of(behind_line(from, "\n<parameter="), behind_line(from, "\n</function>")));
        if (!at)
            return NULL;
        uint32_t which = (uint32_t)(name[0] - 'a');
        assert_true(from == name + 2 && which < 3);
        if (!values[which].p)
            order[n++] = which;
        values[which] = (struct str){from, (size_t)(at - from)};
        at += strncmp(at, "</parameter>", 12) == 0 ? 12 : 0;
    }
}

static void naive_answer(const char *text, struct buf *out)
{
    static const char begin_mark[] = "<function=f>";
    struct str values[3] = {0};
    uint32_t order[4] = {9, 9, 9, 9};
    const char *rest = naive(text + sizeof begin_mark - 1, values, order);
    buf_reset(out);
    if (!rest) {
        buf_puts(out, text);
        return;
    }
    if (rest[strspn(rest, " \n")])
        buf_puts(out, rest);
    buf_puts(out, "|f|{");
    for (int i = 0; order[i] != 9; i++) {
        struct str v = values[order[i]];
        if (v.n && v.p[0] == '\n')
            v = (struct str){v.p + 1, v.n - 1};
        if (v.n && v.p[v.n - 1] == '\n')
            v.n--;
        buf_printf(out, "%s\"%c\":", i ? "," : "", 'a' + (int)order[i]);
        buf_put_json(out, v);
    }
    buf_putc(out, '}');
}

static void random_bodies_are_cut_as_the_rule_says(void **state)
{
    (void)state;
    static const char *const pieces[] = {"</parameter>",
                                         "</parameter>",
                                         "<parameter=a>",
                                         "<parameter=b>",
                                         "<parameter=c>",
                                         "</function>",
                                         "\n",
                                         "\n",
                                         "\n",
                                         "x",
                                         "<",
                                         "</",
                                         "</func",
                                         "<parameter",
                                         " ",
                                         "</param",
                                         ">",
                                         "\"",
                                         "</function",
                                         "<parameter=<",
                                         "\\"};
    struct buf text = {0}, want = {0}, out = {0};
    uint32_t n_calls = 0, n_marks = 0;
    for (uint64_t seed = 1; seed <= 60000; seed++) {
        uint64_t s = seed;
        buf_reset(&text);
        buf_puts(&text, "<function=f>");
        for (uint32_t n = rnd(&s, 4); n; n--) {
            buf_printf(&text, "<parameter=%c>", 'a' + (int)rnd(&s, 3));
            for (uint32_t k = rnd(&s, 6); k; k--)
                buf_puts(&text, pieces[rnd(&s, 21)]);
            buf_puts(&text, pieces[rnd(&s, 8)]);
        }
        buf_puts(&text, rnd(&s, 4) ? "</function>" : "\n</function> x");
        naive_answer(buf_str(&text).p, &want);
        size_t cuts[256], n_cuts = 0;
        for (size_t i = 0; i < text.n && n_cuts < 256; i++)
            if (rnd(&s, 3) == 0)
                cuts[n_cuts++] = i;
        uint32_t told = take_apart(ANSWER_QWEN3_CODER, buf_str(&text), cuts, n_cuts, &out);
        if (!str_eq(buf_str(&want), buf_str(&out)))
            fail_msg("seed %llu: %s -> %s, not %s", (unsigned long long)seed, text.p, out.p, want.p);
        n_calls += told;
        n_marks += told && (strstr(out.p, "<parameter=") || strstr(out.p, "</function>"));
    }
    assert_true(n_calls >= 10000 && n_calls <= 50000 && n_marks >= 1000);
    buf_fini(&text);
    buf_fini(&want);
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_may_hold_the_marks),
        cmocka_unit_test(a_forgotten_mark_is_made_up_for_by_the_next_line),
        cmocka_unit_test(between_parameters_is_nothing_but_white_space),
        cmocka_unit_test(a_broken_call_does_not_hide_the_next),
        cmocka_unit_test(values_take_their_types_from_the_tool),
        cmocka_unit_test(what_does_not_fit_its_type_is_text),
        cmocka_unit_test(of_a_parameter_without_a_schema_all_is_text),
        cmocka_unit_test(of_a_repeated_parameter_the_last_counts),
        cmocka_unit_test(names_are_counted),
        cmocka_unit_test(the_deepest_value_can_be_sent_back),
        cmocka_unit_test(a_nul_is_no_call),
        cmocka_unit_test(random_bodies_are_cut_as_the_rule_says),
    };
    return cmocka_run_group_tests(tests, answer_up, answer_down);
}
