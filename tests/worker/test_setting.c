/* A value reads back as what it was set to; what nobody changed is not shown; a secret never is. */
#include "setting.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define AT(field) offsetof(struct config, field)
static const struct setting settings[] = {
    {"host", SETTING_STRING, AT(host), "127.0.0.1", 0, 0, "", ""},
    {"model", SETTING_STRING, AT(model), NULL, 0, 0, "", ""},
    {"api-key", SETTING_SECRET, AT(api_key), NULL, 0, 0, "", ""},
    {"max-queue", SETTING_NUMBER, AT(max_queue), "1024", 0, 65536, "", ""},
    {"kv-bytes", SETTING_SIZE, AT(kv_bytes), "16M", 0, UINT64_C(1) << 50, "", ""},
    {"share", SETTING_FRACTION, AT(gpu_memory_utilization), "0.9", 10, 99, "0.1..0.99", ""},
    {"dynamo", SETTING_FLAG, AT(dynamo), NULL, 0, 0, "", ""},
    {"device", SETTING_CHOICE, AT(device), "auto", 0, 0, "auto|cpu|cuda", ""},
    {"classes", SETTING_STEPS, AT(priority_classes), "0,5,10", 0, 1000, "", ""},
    {"port", SETTING_PORT, AT(dyn_system_port), "-1", 0, 65535, "", ""},
};
enum { N = sizeof settings / sizeof *settings };

static void start(struct config *c)
{
    *c = (struct config){0};
    for (int i = 0; i < N; i++)
        if (settings[i].initial)
            assert_int_equal(setting_set(c, &settings[i], "", settings[i].initial, NULL), ST_OK);
}

static void what_is_as_it_was_is_not_shown(void **state)
{
    (void)state;
    struct config c;
    char text[SETTING_TEXT_MAX];
    start(&c);
    for (int i = 0; i < N; i++)
        assert_false(setting_show(&settings[i], &c, text));
    assert_int_equal(setting_set(&c, &settings[4], "", "16384k", NULL), ST_OK);
    assert_false(setting_show(&settings[4], &c, text)); /* the same in other words */
}

static void what_was_set_is_shown_as_it_counts(void **state)
{
    (void)state;
    static const char *const set[N] = {"::1", "m.gguf", "secret", "0",        "1k",
                                       "0.5", "yes",    "cpu",    "1,2,1000", "0"};
    static const char *const shown[N] = {"::1", "m.gguf", "(hidden)", "0",        "1024",
                                         "0.5", "true",   "cpu",      "1,2,1000", "0"};
    for (int i = 0; i < N; i++) {
        struct config c;
        char text[SETTING_TEXT_MAX];
        start(&c);
        assert_int_equal(setting_set(&c, &settings[i], "", set[i], NULL), ST_OK);
        assert_true(setting_show(&settings[i], &c, text));
        assert_string_equal(text, shown[i]);
    }
}

static void a_long_text_is_cut(void **state)
{
    (void)state;
    static char longest[2 * SETTING_TEXT_MAX];
    struct config c;
    char text[SETTING_TEXT_MAX];
    start(&c);
    memset(longest, 'a', sizeof longest - 1);
    assert_int_equal(setting_set(&c, &settings[1], "", longest, NULL), ST_OK);
    assert_true(setting_show(&settings[1], &c, text));
    assert_int_equal(strlen(text), SETTING_TEXT_MAX - 1);
}

static void a_refused_value_names_the_setting_as_it_was_written(void **state)
{
    (void)state;
    static const char *const bad[N] = {"", "", "", "65537", "1x", "1.0", "maybe", "gpu", "5,5,6", "65536"};
    for (int i = 0; i < N; i++) {
        struct config c;
        struct err e = {0};
        start(&c);
        assert_int_equal(setting_set(&c, &settings[i], "STATOR_X", bad[i], &e), ST_EINVAL);
        assert_int_equal(strncmp(e.text, "STATOR_X: ", 10), 0);
        assert_non_null(strstr(e.text, *bad[i] ? bad[i] : "empty"));
    }
}

/* Any text: it is taken and within bounds, or refused with a reason; never something else. */
static void random_texts_are_taken_within_bounds_or_refused(void **state)
{
    (void)state;
    static const char alphabet[] = "0123456789,.-kKmMgGtT aeu|x";
    unsigned seed = 20261122;
    printf("seed %u\n", seed);
    srand(seed);
    for (int round = 0; round < 100000; round++) {
        char value[12] = {0};
        struct config c = {0};
        struct err e = {0};
        for (int i = 0, n = rand() % 11; i < n; i++)
            value[i] = alphabet[(size_t)rand() % (sizeof alphabet - 1)];
        const struct setting *s = &settings[3 + rand() % (N - 3)];
        int st = setting_set(&c, s, "x", value, &e);
        assert_int_equal(st == ST_OK, e.text[0] == 0);
        assert_true(c.max_queue <= 65536 && c.kv_bytes <= UINT64_C(1) << 50);
        assert_true(c.gpu_memory_utilization == 0 ||
                    (c.gpu_memory_utilization >= 0.1 && c.gpu_memory_utilization <= 0.99));
        assert_true(c.dyn_system_port >= -1 && c.dyn_system_port <= 65535);
        if (!st && s->type == SETTING_STEPS)
            assert_true(c.priority_classes[0] < c.priority_classes[1] &&
                        c.priority_classes[1] < c.priority_classes[2] && c.priority_classes[2] <= 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_as_it_was_is_not_shown),
        cmocka_unit_test(what_was_set_is_shown_as_it_counts),
        cmocka_unit_test(a_long_text_is_cut),
        cmocka_unit_test(a_refused_value_names_the_setting_as_it_was_written),
        cmocka_unit_test(random_texts_are_taken_within_bounds_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
