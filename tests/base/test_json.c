/* Goal: hostile JSON is refused with a reason before it costs stack or memory; getters name the field.
 * Method: tables of texts and expected errors. */
#include "json.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static void refuse(struct str text, const char *why)
{
    cJSON *j = NULL;
    struct err e = {0};
    assert_int_equal(json_parse(&j, text, &e), ST_EINVAL);
    assert_null(j);
    assert_string_equal(e.text, why);
}

static void bad_texts_are_refused_with_a_reason(void **state)
{
    (void)state;
    refuse(STR_LIT(""), "JSON: the text is empty");
    refuse(STR_LIT("{\"a\":}"), "JSON: syntax error at offset 5");
    refuse(STR_LIT("{} x"), "JSON: unexpected text at offset 3");
    refuse(STR_LIT("{\"a\":1}\0"), "JSON: NUL byte at offset 7");
    refuse(STR_LIT("\"\xff\""), "JSON: text is not valid UTF-8");
    refuse(STR_LIT("[1, NaN]"), "JSON: syntax error at offset 4");
    refuse(STR_LIT("[1,]"), "JSON: syntax error at offset 3");
    struct buf b = {0};
    for (int i = 0; i < 100000; i++)
        buf_putc(&b, '[');
    refuse(buf_str(&b), "JSON: nested deeper than 128 levels");
    buf_fini(&b);
}

static void getters_name_the_field(void **state)
{
    (void)state;
    cJSON *j = NULL;
    struct err e = {0};
    int64_t i = 5;
    double d = 1;
    bool flag = false;
    struct str s = {0};
    assert_int_equal(
        json_parse(&j, STR_LIT("{\"a\":1.5,\"b\":\"x\",\"c\":1e300,\"n\":null,\"t\":true,\"i\":-3}"), &e),
        ST_OK);
    assert_int_equal(json_opt_int(j, "none", 0, 9, &i, &e), ST_OK);
    assert_int_equal(json_opt_int(j, "n", 0, 9, &i, &e), ST_OK);
    assert_int_equal(i, 5);
    assert_int_equal(json_opt_int(j, "a", 0, 9, &i, &e), ST_EINVAL);
    assert_string_equal(e.text, "a: expected an integer");
    assert_int_equal(json_opt_int(j, "c", 0, 9, &i, &e), ST_EINVAL);
    assert_string_equal(e.text, "c: 1.0000000000000001e+300 is outside 0..9");
    assert_int_equal(json_opt_int(j, "i", -5, 9, &i, &e), ST_OK);
    assert_int_equal(i, -3);
    assert_int_equal(json_opt_num(j, "b", 0, 9, &d, &e), ST_EINVAL);
    assert_string_equal(e.text, "b: expected a number");
    assert_int_equal(json_opt_bool(j, "t", &flag, &e), ST_OK);
    assert_true(flag);
    assert_int_equal(json_opt_str(j, "t", &s, &e), ST_EINVAL);
    assert_string_equal(e.text, "t: expected a string");
    assert_int_equal(json_need_int(j, "zz", 0, 9, &i, &e), ST_EINVAL);
    assert_string_equal(e.text, "zz: missing");
    json_free(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_texts_are_refused_with_a_reason),
        cmocka_unit_test(getters_name_the_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
