/* Which texts a schema lets through, which schemas are refused and with what words; and of random runs: what they write is JSON,
 * and there is always a way on. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "grammar_case.h"

static uint64_t only_seed;

static bool accepts(const char *schema, const char *text)
{
    struct grammar *g = NULL;
    struct err e = {0};
    if (case_grammar(&g, schema, NULL, &e))
        fail_msg("%s: %s", schema, e.text);
    struct grammar_state s;
    grammar_begin(&s, g);
    bool ok = grammar_push_text(&s, str_from(text)) && grammar_can_end(&s);
    grammar_put(g);
    return ok;
}

struct row {
    const char *schema;
    const char *good[8], *bad[10];
};

static const struct row rows[] = {
    {"{}",
     {"1", "\"\"", "{\"a\": [1,2.5e3,null]}", "[]", "{}"},
     {"", "{", "[1,]", "01", "nul", "{1:2}", " 1"}},
    {"{\"type\":\"object\"}", {"{}", "{\"a\":{\"b\": []}}"}, {"[]", "1", "{\"a\"}", "{\"a\":1,}"}},
    {"{\"type\":\"string\"}",
     {"\"\"", "\"a\\n\\u00e9 \xC3\xA9\"", "\"\\ud83d\\ude00\"", "\"\xF0\x9F\x98\x80\"",
      "\"\\u0001\\u0010\\u0a00\\u1000\""},
     {"\"", "\"\\u0000\"", "\"\x80\"", "\"\\x\"", "\"\\ud83d\"", "\"\\ude00\"", "\"\n\"", "\"\xC3\"",
      "\"\xED\xA0\x80\""}},
    {"{\"type\":\"string\",\"minLength\":1,\"maxLength\":2}",
     {"\"a\"", "\"\xC3\xA9\\n\""},
     {"\"\"", "\"abc\"", "\"\xC3\""}},
    {"{\"type\":\"string\",\"minLength\":2}", {"\"ab\"", "\"abcdef\""}, {"\"\"", "\"a\""}},
    {"{\"type\":\"integer\"}",
     {"0", "-12", "123456789012345678"},
     {"1.0", "01", "-", "1e3", "1234567890123456789"}},
    {"{\"type\":\"number\"}", {"0", "-1.50", "2e-3", "1E+300"}, {".5", "1.", "1e", "+1", "1e1234"}},
    {"{\"type\":\"integer\",\"minimum\":-3,\"maximum\":120}",
     {"-3", "0", "9", "10", "99", "100", "120"},
     {"-4", "121", "130", "200", "-0", "00", "1000"}},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":0}", {"1", "10", "999999999999999999"}, {"0", "-1"}},
    {"{\"type\":\"integer\",\"minimum\":-20,\"exclusiveMaximum\":-4.5}",
     {"-20", "-5", "-13"},
     {"-4", "0", "-21"}},
    {"{\"type\":\"number\",\"minimum\":0,\"maximum\":1}",
     {"0", "0.25", "1", "1.0"},
     {"1.1", "2", "-0.1", "1e3"}},
    {"{\"type\":\"number\",\"exclusiveMinimum\":0,\"exclusiveMaximum\":3}",
     {"0.01", "1", "2.99"},
     {"0", "0.0", "0.", "3", "3.0"}},
    {"{\"type\":[\"boolean\",\"null\"]}", {"true", "false", "null"}, {"1", "tru"}},
    {"{\"enum\":[\"a\",\"ab\",3,null,{\"x\":[1]}]}",
     {"\"a\"", "\"ab\"", "3", "null", "{\"x\":[1]}"},
     {"\"b\"", "33"}},
    {"{\"const\":\"q\\\"\"}", {"\"q\\\"\""}, {"\"q\""}},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"string\",\"title\":"
     "\"B\"},"
     "\"c\":{\"type\":\"null\"}},\"required\":[\"b\"]}",
     {"{\"b\":\"\"}", "{\"a\": 1, \"b\": \"x\", \"c\": null}", "{\"a\":1,\"b\":\"x\"}",
      "{\"b\":\"\",\"c\":null}"},
     {"{}", "{\"a\":1}", "{\"b\":\"\",\"a\":1}", "{\"b\":\"\",}", "{,\"b\":\"\"}", "{\"b\":\"\",\"d\":1}",
      "{\"b\": 1}", "{\"b\":  \"\"}"}},
    {"{\"properties\":{\"a\":{},\"b\":{}}}",
     {"{}", "{\"a\":1}", "{\"b\":1}", "{\"a\":1, \"b\":{}}"},
     {"{\"b\":1,\"a\":1}"}},
    {"{\"properties\":{\"ab\":{\"const\":1}},\"additionalProperties\":{\"type\":\"integer\"}}",
     {"{}", "{\"ab\":1}", "{\"ab\":1,\"a\":7,\"abc\":8}", "{\"\":5}", "{\"x\xC3\xA9\":5}"},
     {"{\"ab\":2}", "{\"ab\":1,\"ab\":2}", "{\"a\":1,\"ab\":1}", "{\"c\":null}", "{\"a\\u0062\":2}"}},
    {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"boolean\"}}",
     {"{}", "{\"k\": true}", "{\"k\":true,\"l\":false}"},
     {"{\"k\":1}"}},
    {"{\"additionalProperties\":{\"const\":5},\"required\":[\"z\",\"y\"]}",
     {"{\"z\":5,\"y\":5}", "{\"z\":5,\"y\":5,\"x\":5}"},
     {"{\"z\":5}", "{\"z\":5,\"y\":6}", "{\"z\":5,\"y\":5,\"x\":6}"}},
    {"{\"type\":\"object\",\"required\":[\"z\"]}", {"{\"z\":[1]}", "{\"z\":1,\"y\":2}"}, {"{}", "{\"y\":1}"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}",
     {"[]", "[1]", "[1, 2,3]"},
     {"[1,]", "[\"a\"]", "[,1]"}},
    {"{\"items\":{\"enum\":[0]},\"minItems\":2,\"maxItems\":3}",
     {"[0,0]", "[0,0,0]"},
     {"[]", "[0]", "[0,0,0,0]"}},
    {"{\"type\":\"array\",\"minItems\":1}", {"[1]", "[{},2]"}, {"[]"}},
    {"{\"type\":\"array\",\"minItems\":3,\"items\":{\"const\":1}}", {"[1,1,1]", "[1,1,1,1,1]"}, {"[1,1]"}},
    {"{\"prefixItems\":[{\"const\":1},{\"const\":2}],\"items\":{\"const\":3}}",
     {"[]", "[1]", "[1,2]", "[1,2,3,3]"},
     {"[2]", "[1,3]", "[1,2,2]"}},
    {"{\"prefixItems\":[{\"const\":1},{\"const\":2}],\"items\":false,\"minItems\":2}",
     {"[1,2]"},
     {"[1]", "[1,2,3]"}},
    {"{\"maxItems\":0}", {"[]"}, {"[1]"}},
    {"{\"type\":\"object\",\"anyOf\":[{\"properties\":{\"n\":{\"enum\":[\"f\"]},\"p\":{\"type\":\"null\"}},"
     "\"required\":[\"n\","
     "\"p\"]},{\"properties\":{\"n\":{\"enum\":[\"fg\"]},\"p\":{\"const\":1}},\"required\":[\"n\",\"p\"]}]}",
     {"{\"n\": \"f\", \"p\": null}", "{\"n\": \"fg\", \"p\": 1}"},
     {"{\"n\": \"f\", \"p\": 1}", "{\"n\": \"fg\", \"p\": null}", "{}"}},
    {"{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"null\"}],\"title\":\"X\",\"default\":null}",
     {"1", "null"},
     {"true"}},
    {"{\"allOf\":[{\"$ref\":\"#/$defs/a~1b\"}],\"$defs\":{\"a/b\":{\"type\":\"boolean\"}}}", {"true"}, {"1"}},
    {"{\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"integer\"},\"next\":{"
     "\"anyOf\":[{\"$ref\":"
     "\"#/$defs/n\"},{\"type\":\"null\"}]}},\"required\":[\"v\",\"next\"]}},\"$ref\":\"#/$defs/n\"}",
     {"{\"v\":1,\"next\":null}", "{\"v\":1,\"next\":{\"v\":2,\"next\":{\"v\":3,\"next\":null}}}"},
     {"null", "{\"v\":1}", "{\"v\":1,\"next\":{}}"}},
    {"{\"uniqueItems\":false,\"type\":\"string\",\"format\":\"date\",\"x-note\":1}", {"\"\""}, {"1"}},
    {"[\"yes\",\"no\",\"yes, sir\"]", {"yes", "no", "yes, sir"}, {"", "y", "\"yes\"", "yes,", "nope"}},
};

static void a_schema_lets_through_what_it_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (size_t k = 0; k < 8 && rows[i].good[k]; k++)
            if (!accepts(rows[i].schema, rows[i].good[k]))
                fail_msg("%s refuses %s", rows[i].schema, rows[i].good[k]);
        for (size_t k = 0; k < 10 && rows[i].bad[k]; k++)
            if (accepts(rows[i].schema, rows[i].bad[k]))
                fail_msg("%s lets %s through", rows[i].schema, rows[i].bad[k]);
    }
}

static void integers_are_bounded_exactly(void **state)
{
    (void)state;
    for (int i = 0; i < 300; i++) {
        int lo = (int)rnd(400) - 200, hi = lo + (int)rnd(300);
        char schema[96], text[16];
        snprintf(schema, sizeof schema, "{\"type\":\"integer\",\"minimum\":%d,\"maximum\":%d}", lo, hi);
        for (int k = -420; k <= 620; k += 1 + (int)rnd(5)) {
            snprintf(text, sizeof text, "%d", k);
            if (accepts(schema, text) != (k >= lo && k <= hi))
                fail_msg("%s: %s", schema, text);
        }
    }
}

static void a_schema_that_cannot_be_kept_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *schema, *says;
    } bad[] = {
        {"{\"properties\":{\"city\":{\"type\":\"string\",\"pattern\":\"a*\"}}}", "properties.city.pattern: "},
        {"{\"items\":{\"multipleOf\":3}}", "items.multipleOf: "},
        {"{\"not\":{}}", "not: "},
        {"{\"uniqueItems\":true}", "uniqueItems: "},
        {"{\"type\":\"float\"}", "type: "},
        {"{\"type\":[]}", "type: "},
        {"{\"enum\":[]}", "enum: "},
        {"{\"anyOf\":[]}", "anyOf: "},
        {"{\"anyOf\":[{\"type\":\"null\"}],\"properties\":{}}", "properties: "},
        {"{\"allOf\":[{},{}]}", "allOf: "},
        {"{\"$ref\":\"#/nowhere\"}", "$ref: "},
        {"{\"$ref\":\"http://x\"}", "$ref: "},
        {"{\"$ref\":\"#\"}", "no text"},
        {"{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", "$ref: "},
        {"{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", "no text"},
        {"{\"minLength\":-1}", "minLength: "},
        {"{\"minLength\":5,\"maxLength\":4}", "maxLength: "},
        {"{\"minItems\":100000}", "minItems: "},
        {"{\"minItems\":5,\"maxItems\":4}", "minItems: "},
        {"{\"minimum\":5,\"maximum\":4}", "minimum: "},
        {"{\"type\":\"number\",\"minimum\":-0.5}", "minimum: "},
        {"{\"type\":\"number\",\"maximum\":4}", "maximum: "},
        {"{\"properties\":{},\"required\":[\"a\"],\"additionalProperties\":false}", "required: "},
        {"{\"properties\":1}", "properties: "},
        {"{\"type\":\"object\",\"anyOf\":[{\"type\":\"null\"}]}", "anyOf.0.type: "},
        {"{\"properties\":{\"a\":3}}", "properties.a: expected an object"},
        {"[]", "expected at least one string"},
        {"[3]", "expected strings that are not empty"},
        {"[\"\"]", "expected strings that are not empty"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct grammar *g = NULL;
        struct err e = {0};
        if (case_grammar(&g, bad[i].schema, NULL, &e) == ST_OK)
            fail_msg("%s was taken", bad[i].schema);
        if (!strstr(e.text, bad[i].says))
            fail_msg("%s: \"%s\" does not say \"%s\"", bad[i].schema, e.text, bad[i].says);
    }
}

static int guided(const char *text, struct err *e)
{
    struct grammar *g = NULL;
    cJSON *j = NULL;
    assert_int_equal(json_parse(&j, str_from(text), e), ST_OK);
    int st = grammar_from_guided(&g, j, NULL, e);
    json_free(j);
    grammar_put(g);
    return st;
}

static void guided_decoding_is_a_schema_or_a_choice(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(guided("{\"json\":{\"type\":\"object\"},\"regex\":null,\"choice\":null}", &e), ST_OK);
    assert_int_equal(guided("{\"choice\":[\"a\",\"b\"]}", &e), ST_OK);
    assert_int_equal(guided("{\"regex\":\"a*\"}", &e), ST_EUNSUP);
    assert_string_equal(e.text, "regex: not supported");
    assert_int_equal(guided("{\"json\":{},\"choice\":[\"a\"]}", &e), ST_EINVAL);
    assert_int_equal(guided("{}", &e), ST_EINVAL);
    static const char *const bad[][2] = {
        {"{\"choice\":[]}", "choice: expected at least one string"},
        {"{\"choice\":{\"a\":1}}", "choice: expected an array of strings"},
        {"{\"choice\":[\"a\",3]}", "choice: expected strings that are not empty"},
        {"{\"json\":3}", "json: expected an object"},
        {"{\"json\":{\"properties\":{\"a\":3}}}", "json: properties.a: expected an object"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(guided(bad[i][0], &e), ST_EINVAL);
        assert_string_equal(e.text, bad[i][1]);
    }
}

static void a_random_run_writes_json_and_is_never_stuck(void **state)
{
    (void)state;
    rng = only_seed ? only_seed : (uint64_t)time(NULL);
    printf("seed %llu\n", (unsigned long long)rng);
    for (int round = 0; round < 20; round++)
        for (size_t i = 0; i + 1 < sizeof rows / sizeof *rows; i++) {
            struct grammar *g = NULL;
            struct err e = {0};
            struct grammar_state s;
            char text[4096];
            size_t n = 0;
            assert_int_equal(case_grammar(&g, rows[i].schema, NULL, &e), ST_OK);
            grammar_begin(&s, g);
            while (n < sizeof text && !(grammar_can_end(&s) && rnd(2)) && !grammar_must_end(&s))
                if (!case_step(&s, (uint8_t *)&text[n++]))
                    fail_msg("%s: stuck behind %.*s", rows[i].schema, (int)n, text);
            cJSON *j = NULL;
            if (n < sizeof text && json_parse(&j, (struct str){text, n}, &e))
                fail_msg("%s: %.*s is no JSON: %s", rows[i].schema, (int)n, text, e.text);
            json_free(j);
            grammar_put(g);
        }
}

static void nesting_stops_where_it_can_still_be_closed(void **state)
{
    (void)state;
    struct grammar *g = NULL;
    struct err e = {0};
    struct grammar_state s;
    uint32_t n = 0;
    assert_int_equal(case_grammar(&g, "{}", NULL, &e), ST_OK);
    grammar_begin(&s, g);
    while (grammar_push(&s, '['))
        n++;
    assert_int_equal(n, GRAMMAR_DEPTH_MAX);
    for (; n > 0; n--)
        assert_true(grammar_push(&s, ']'));
    assert_true(grammar_must_end(&s));
    grammar_put(g);
}

static uint8_t least_height(const struct grammar_net *g, const uint8_t *height, const struct grammar_node *v)
{
    uint32_t best = v->final ? 0 : 255;
    for (uint32_t i = 0; i < (uint32_t)v->n_bytes + v->n_calls; i++) {
        const struct grammar_edge *e = &g->edges[v->first + i];
        uint32_t h = height[e->to];
        if (i >= v->n_bytes && height[e->call] >= h)
            h = height[e->call] + 1u;
        best = h < best && h <= GRAMMAR_DEPTH_MAX ? h : best;
    }
    return (uint8_t)best;
}

/* The twin passes over all nodes until nothing changes. */
static void heights_are_as_trying_finds_them(const struct grammar_net *g)
{
    uint8_t *height = mem_alloc(g->n_nodes);
    memset(height, 255, g->n_nodes);
    for (bool changed = true; changed;) {
        changed = false;
        for (uint32_t i = 0; i < g->n_nodes; i++) {
            uint8_t h = least_height(g, height, &g->nodes[i]);
            changed |= h != height[i];
            height[i] = h;
        }
    }
    for (uint32_t i = 0; i < g->n_nodes; i++)
        assert_int_equal(g->nodes[i].height, height[i]);
    mem_free(height);
}

static void repeat(struct buf *b, const char *text, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        buf_printf(b, "%s%s", i ? "," : "", text);
}

static void heights_are_exact(void **state)
{
    (void)state;
    struct buf row = {0};
    buf_puts(&row, "{\"minItems\":50,\"prefixItems\":[");
    repeat(&row, "{\"minLength\":1,\"maxLength\":1}", 50);
    buf_puts(&row, "]}");
    for (size_t i = 0; i <= sizeof rows / sizeof *rows; i++) {
        const char *schema = i < sizeof rows / sizeof *rows ? rows[i].schema : row.p;
        struct grammar *g = NULL;
        struct err e = {0};
        assert_int_equal(case_grammar(&g, schema, NULL, &e), ST_OK);
        heights_are_as_trying_finds_them(grammar_net(g));
        grammar_put(g);
    }
    buf_fini(&row);
}

static void put_members(struct buf *b, const char *prefix, uint32_t n, const char *value)
{
    for (uint32_t i = 0; i < n; i++)
        buf_printf(b, "%s\"%s%u\":%s", i ? "," : "", prefix, i, value);
}

/* Compiles and empties it; what was said, NULL: nothing. */
static const char *said_of(struct buf *schema)
{
    static struct err e;
    struct grammar *g = NULL;
    int st = case_grammar(&g, schema->p, NULL, &e);
    grammar_put(g);
    buf_reset(schema);
    return st ? e.text : NULL;
}

/* Each search through all that a schema has is one too many if there is one for all that it has. */
static void what_costs_more_than_its_length_is_refused(void **state)
{
    struct buf b = {0};
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        if (kind == 0) { /* names among properties */
            buf_puts(&b, "{\"properties\":{");
            put_members(&b, "p", 1000, "{\"type\":\"null\"}");
            buf_puts(&b, "},\"required\":[");
            repeat(&b, "\"p999\"", 60000);
            buf_puts(&b, "]}");
        } else if (kind == 1) { /* members on the way of a reference */
            buf_puts(&b, "{\"$defs\":{");
            put_members(&b, "d", 10000, "{\"type\":\"null\"}");
            buf_puts(&b, "},\"prefixItems\":[");
            repeat(&b, "{\"$ref\":\"#/$defs/d9999\"}", 200);
            buf_puts(&b, "]}");
        } else if (kind == 2) { /* the same of a list */
            buf_puts(&b, "{\"$defs\":[");
            repeat(&b, "{}", 10000);
            buf_puts(&b, "],\"prefixItems\":[");
            repeat(&b, "{\"$ref\":\"#/$defs/9999\"}", 200);
            buf_puts(&b, "]}");
        } else { /* alternatives that share a beginning whose next byte was drawn last */
            buf_puts(&b, "{\"enum\":[");
            for (int i = 0; i < 4000; i++) {
                buf_printf(&b, "%s\"", i ? "," : "");
                for (int k = 0; k < i / 80; k++)
                    buf_putc(&b, '~');
                buf_printf(&b, "%c\"", i % 80 == '\\' - '#' ? '}' : '#' + i % 80);
            }
            buf_puts(&b, "]}");
        }
        const char *said = said_of(&b);
        if (!said || !strstr(said, "steps"))
            fail_msg("of kind %d: %s", kind, said ? said : "taken");
    }
    buf_fini(&b);
}

static void what_a_program_may_well_ask_is_far_from_that(void **state)
{
    struct buf b = {0};
    (void)state;
    buf_puts(&b, "{\"$defs\":{");
    put_members(&b, "d", 300, "{\"type\":\"null\"}");
    buf_puts(&b, "},\"prefixItems\":[");
    repeat(&b, "{\"$ref\":\"#/$defs/d299\"}", 2000);
    buf_puts(&b, "]}");
    assert_null(said_of(&b));
    buf_puts(&b, "{\"properties\":{");
    put_members(&b, "p", 1000, "{\"type\":\"null\"}");
    buf_puts(&b, "},\"required\":[");
    for (int i = 1000; i > 0; i--)
        buf_printf(&b, "\"p%d\"%s", i - 1, i > 1 ? "," : "]}");
    assert_null(said_of(&b));
    buf_printf(&b, "{\"properties\":{\"%03000d\":{}},\"additionalProperties\":true}", 1); /* one long name */
    assert_null(said_of(&b));
    buf_puts(&b, "{\"enum\":[");
    for (uint32_t i = 0; i < GRAMMAR_CHOICES_MAX; i++)
        buf_printf(&b, "%s\"%x\"", i ? "," : "", i * 7919);
    buf_puts(&b, "]}");
    assert_null(said_of(&b));
    buf_fini(&b);
}

/* The schema is drawn once for all names, and once for those that are not required. */
static void what_required_names_share_is_drawn_once(void **state)
{
    uint32_t n[2];
    (void)state;
    for (uint32_t more = 0; more < 2; more++) {
        struct buf b = {0};
        struct grammar *g = NULL;
        struct err e = {0};
        buf_puts(&b, "{\"additionalProperties\":{\"const\":\"some long text\"},\"required\":[\"aa\"");
        for (uint32_t i = 0; i < 10 * more; i++)
            buf_printf(&b, ",\"a%u\"", i);
        buf_puts(&b, "]}");
        assert_int_equal(case_grammar(&g, b.p, NULL, &e), ST_OK);
        n[more] = grammar_net(g)->n_nodes;
        grammar_put(g);
        buf_fini(&b);
    }
    assert_true(n[1] - n[0] < 10 * sizeof "\"a0\":\"some long text\"");
}

static void a_grammar_without_memory_leaves_nothing(void **state)
{
    (void)state;
    uint64_t live = mem_live();
    for (uint64_t n = 1;; n++) {
        struct grammar *g = NULL;
        struct err e = {0};
        cJSON *j = NULL;
        assert_int_equal(json_parse(&j, str_from(rows[32].schema), &e), ST_OK);
        mem_fail_after(n);
        int st = grammar_from_schema(&g, j, NULL, &e);
        mem_fail_after(0);
        json_free(j);
        if (st == ST_OK) {
            grammar_put(g);
            break;
        }
        assert_int_equal(st, ST_ENOMEM);
        assert_int_equal(mem_live(), live);
    }
    assert_int_equal(mem_live(), live);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_schema_lets_through_what_it_says),
                                       cmocka_unit_test(integers_are_bounded_exactly),
                                       cmocka_unit_test(a_schema_that_cannot_be_kept_is_refused_by_name),
                                       cmocka_unit_test(guided_decoding_is_a_schema_or_a_choice),
                                       cmocka_unit_test(a_random_run_writes_json_and_is_never_stuck),
                                       cmocka_unit_test(nesting_stops_where_it_can_still_be_closed),
                                       cmocka_unit_test(heights_are_exact),
                                       cmocka_unit_test(what_costs_more_than_its_length_is_refused),
                                       cmocka_unit_test(what_a_program_may_well_ask_is_far_from_that),
                                       cmocka_unit_test(what_required_names_share_is_drawn_once),
                                       cmocka_unit_test(a_grammar_without_memory_leaves_nothing)};
    if (argc > 1)
        only_seed = strtoull(argv[1], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
