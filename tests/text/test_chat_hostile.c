/* Templates that mean harm: what does not end runs out of budget, what nests without end is refused. */
#include "chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void a_template_that_does_not_end_runs_out_of_budget(void **state)
{
    (void)state;
    static const char *const hostile[] = {
        "{% for i in range(10**9) %}{{ i }}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor "
        "%}",
        "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor "
        "%}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
        "{{ 'x' * 10 ** 12 }}",
        "{{ [1] * 10 ** 12 }}",
        "{{ [[1] * 10 ** 6] * 10 ** 6 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{% macro n(i) %}{% if i %}{{ n(i-1) }}{{ n(i-1) }}{% "
        "endif %}"
        "{% endmacro %}{{ n(150) }}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
        "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l "
        "}}",
        "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] %}{% endfor %}"
        "{{ ns.l | tojson }}",
        "{% set ns = namespace(a=[],b=[]) %}{% for i in range(9999) %}{% set ns.a = [ns.a] %}{% set ns.b = "
        "[ns.b] %}"
        "{% endfor %}{{ ns.a == ns.b }}",
        "{{ '%99999999d' % 1 }}",
        "{{ '{:99999999}'.format(1) }}",
        "{{ 'x'.ljust(10 ** 15) }}",
        "{{ ('x' * 10 ** 6).replace('', 'y' * 10 ** 6) }}",
        "{% set s = 'x' * 10 ** 7 %}{% for i in range(99999) %}{{ s == s ~ '' }}{% endfor %}",
        "{% set s = 'ab' * 10 ** 6 %}{% for i in range(99999) %}{% if 'zz' in s %}{% endif %}{% endfor %}",
        "{% set s = 'a' * 10 ** 6 %}{% for i in range(99999) %}{% if s.rfind('a' * 10 ** 5 + 'b') %}{% endif "
        "%}"
        "{% endfor %}",
        "{% set s = 'é' * 10 ** 6 %}{% for i in range(99999) %}{% if s[-1] %}{% endif %}{% endfor %}",
        "{% set s = ' ' * 10 ** 6 %}{% for i in range(99999) %}{% if s.strip() %}{% endif %}{% endfor %}",
        "{{ [1] | tojson(indent=10 ** 12) }}",
    };
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        struct err e = {0};
        struct chat *c = NULL;
        struct buf out = {0};
        assert_int_equal(chat_create(&c, str_from(hostile[i]), &e), ST_OK);
        int st = chat_render(c, &(struct chat_input){.now_s = 0}, &out, &e);
        chat_destroy(c);
        buf_fini(&out);
        if (st != ST_ETOOBIG)
            fail_msg("%s: %s, %s", hostile[i], status_name(st), e.text);
    }
}

static void deep_nesting_is_refused_when_compiled(void **state)
{
    (void)state;
    static const char *const units[] = {
        "(",    "[",  "{1:", "-",   "not ", "{% if 1 %}", "{% for i in 1 %}", "x if y else ", "x.",
        "x|e|", "f(", "1+",  "1**", "~",    "x[",         "x is x is "};
    for (size_t k = 0; k < sizeof units / sizeof *units; k++) {
        struct buf b = {0};
        struct err e = {0};
        struct chat *c = NULL;
        bool statement = units[k][1] == '%';
        buf_puts(&b, statement ? "" : "{{ ");
        for (int i = 0; i < 100000; i++)
            buf_puts(&b, units[k]);
        buf_puts(&b, statement ? "" : "x }}");
        assert_int_not_equal(chat_create(&c, buf_str(&b), &e), ST_OK);
        assert_true(strlen(e.text) > 0);
        buf_fini(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_template_that_does_not_end_runs_out_of_budget),
        cmocka_unit_test(deep_nesting_is_refused_when_compiled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
