/* Feature snippets against Jinja2's golden results, and what goldens cannot show: failing allocations, errors, sharing one
 * program. */
#include "text/chat_golden.h"

#include <pthread.h>
#include <time.h>

static void every_feature_renders_as_jinja2_does(void **state)
{
    (void)state;
    golden_file(STATOR_SOURCE_DIR "/tests/golden/chat/features.json", false);
}

/* Compiles and renders over no messages. Returns the status; *out (may be NULL) gets the text. */
static int render(const char *source, struct buf *out, struct err *e)
{
    struct chat *c = NULL;
    struct buf own = {0};
    struct chat_input in = {.now_s = 0};
    int st = chat_create(&c, str_from(source), e);
    if (!st)
        st = chat_render(c, &in, out ? out : &own, e);
    chat_destroy(c);
    buf_fini(&own);
    return st;
}

static void the_words_of_raise_exception_reach_the_caller(void **state)
{
    (void)state;
    struct err e = {0};
    struct buf out = {0};
    buf_puts(&out, "before");
    assert_int_equal(render("a{{ raise_exception('Only user and assistant roles') }}", &out, &e), ST_EINVAL);
    assert_string_equal(e.text, "Only user and assistant roles");
    assert_string_equal(out.p, "before");
    buf_fini(&out);
}

static void errors_name_the_line(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(render("a\nb\n{{ x.y }}", NULL, &e), ST_EINVAL);
    assert_non_null(strstr(e.text, "line 3"));
    assert_non_null(strstr(e.text, "'x' is undefined"));
    assert_int_equal(render("a\n{% if %}", NULL, &e), ST_EFORMAT);
    assert_non_null(strstr(e.text, "line 2"));
    assert_int_equal(render("{% include 'x' %}", NULL, &e), ST_EUNSUP);
    assert_int_equal(render("\xff", NULL, &e), ST_EFORMAT);
}

static const char *const chat_source =
    "{% set ns = namespace(n=0) %}{% macro turn(m) %}<|{{ m.role }}|>\n{{ m.content | trim }}<|end|>\n{% "
    "endmacro %}"
    "{% for m in messages %}{% if m.role == 'assistant' and m.content is string %}{% set ns.n = ns.n + 1 "
    "%}{% endif %}"
    "{{ turn(m) }}{% endfor %}{{ ns.n }}{% for t in tools or [] %}{{ t | tojson(indent=2) }}{% endfor %}"
    "{{ messages | map(attribute='role') | unique | sort | join(',') }}{{ '%s-%d' % ('a', 3) }}{{ [1, (2,), "
    "{'a': 1}] }}";

static cJSON *conversation(int n)
{
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < n; i++) {
        cJSON *m = cJSON_CreateObject();
        cJSON_AddStringToObject(m, "role", i % 2 ? "assistant" : "user");
        cJSON_AddStringToObject(m, "content",
                                " Some text of a usual length, as people write it to a machine. ");
        cJSON_AddItemToArray(list, m);
    }
    return list;
}

static void every_failing_allocation_is_an_error_and_leaks_nothing(void **state)
{
    (void)state;
    cJSON *messages = conversation(40);
    struct chat_input in = {.messages = messages, .tools = messages};
    uint64_t live = mem_live();
    int failed = 0;
    for (uint64_t n = 1; n < 1000; n++) {
        struct chat *c = NULL;
        struct buf out = {0};
        struct err e = {0};
        mem_fail_after(n);
        int st = chat_create(&c, str_from(chat_source), &e);
        if (!st)
            st = chat_render(c, &in, &out, &e);
        mem_fail_after(0);
        chat_destroy(c);
        buf_fini(&out);
        assert_int_equal(mem_live(), live);
        if (!st)
            break;
        assert_int_equal(st, ST_ENOMEM);
        failed++;
    }
    assert_true(failed > 3 && failed < 999);
    cJSON_Delete(messages);
}

struct shared {
    const struct chat *c;
    const struct chat_input *in;
    struct str want;
    int bad;
};

static void *render_many(void *arg)
{
    struct shared *s = arg;
    for (int i = 0; i < 50; i++) {
        struct buf out = {0};
        struct err e;
        if (chat_render(s->c, s->in, &out, &e) || !str_eq(buf_str(&out), s->want))
            s->bad++;
        buf_fini(&out);
    }
    return NULL;
}

static void one_program_serves_many_threads(void **state)
{
    (void)state;
    cJSON *messages = conversation(6);
    struct chat_input in = {.messages = messages, .tools = messages};
    struct chat *c = NULL;
    struct buf want = {0};
    struct err e;
    assert_int_equal(chat_create(&c, str_from(chat_source), &e), ST_OK);
    assert_int_equal(chat_render(c, &in, &want, &e), ST_OK);
    struct shared s[4];
    pthread_t t[4];
    for (int i = 0; i < 4; i++) {
        s[i] = (struct shared){c, &in, buf_str(&want), 0};
        assert_int_equal(pthread_create(&t[i], NULL, render_many, &s[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(s[i].bad, 0);
    }
    chat_destroy(c);
    buf_fini(&want);
    cJSON_Delete(messages);
}

enum { RENDERS = 200 };

/* Prints the speed; asserts nothing about it. */
static void twenty_messages(void **state)
{
    (void)state;
    cJSON *messages = conversation(20);
    struct chat_input in = {.messages = messages, .add_generation_prompt = true};
    struct chat *c = NULL;
    struct err e;
    struct buf out = {0};
    struct timespec a, b;
    assert_int_equal(chat_create(&c, str_from(chat_source), &e), ST_OK);
    timespec_get(&a, TIME_UTC);
    for (int i = 0; i < RENDERS; i++) {
        buf_reset(&out);
        assert_int_equal(chat_render(c, &in, &out, &e), ST_OK);
    }
    timespec_get(&b, TIME_UTC);
    double us = ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / (1e3 * RENDERS);
    printf("20 messages: %.1f us, %zu bytes\n", us, out.n);
    chat_destroy(c);
    buf_fini(&out);
    cJSON_Delete(messages);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_feature_renders_as_jinja2_does),
        cmocka_unit_test(the_words_of_raise_exception_reach_the_caller),
        cmocka_unit_test(errors_name_the_line),
        cmocka_unit_test(every_failing_allocation_is_an_error_and_leaks_nothing),
        cmocka_unit_test(one_program_serves_many_threads),
        cmocka_unit_test(twenty_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
