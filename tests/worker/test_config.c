#define _GNU_SOURCE
/* Goal: every setting is reachable as flag and as variable, bounds hold, errors name flag and value, README agrees.
 * Method: tables of argument vectors; the README table is compared with what the program would print. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static int load(struct config *c, struct err *e, const char *const *args, const char *const *env)
{
    char *argv[16] = {(char *)"stator"};
    int n = 1;
    for (; args && args[n - 1]; n++)
        argv[n] = (char *)args[n - 1];
    return config_load(c, n, argv, (char **)env, e);
}

static void defaults_hold_without_arguments(void **state)
{
    (void)state;
    struct config c;
    struct err e = {0};
    assert_int_equal(load(&c, &e, NULL, NULL), ST_OK);
    assert_int_equal(c.port, 8099);
    assert_string_equal(c.host, "127.0.0.1");
    assert_int_equal(c.max_body_bytes, 16 << 20);
    assert_null(c.model);
    assert_false(c.enable_priority_scheduling);
    assert_true(c.priority_classes[0] == 0 && c.priority_classes[1] == 5 && c.priority_classes[2] == 10);
    assert_true(c.aging_ms_per_point == 30000 && c.priority_clamp == 100 && c.batch_wait_ms == 50);
    assert_true(c.max_step_ms == 0 && c.slo_ttft_ms == 0 && c.slo_itl_ms == 0 && c.host_kv_bytes == 0);
}

static void classes_are_three_ascending_thresholds(void **state)
{
    (void)state;
    struct config c;
    struct err e = {0};
    const char *args[] = {"--priority-classes=1,2,1000", "--enable-priority-scheduling", NULL};
    assert_int_equal(load(&c, &e, args, NULL), ST_OK);
    assert_true(c.enable_priority_scheduling);
    assert_true(c.priority_classes[0] == 1 && c.priority_classes[1] == 2 && c.priority_classes[2] == 1000);
}

static void flags_win_over_variables_and_variables_over_defaults(void **state)
{
    (void)state;
    struct config c;
    struct err e = {0};
    const char *env[] = {"STATOR_PORT=1", "STATOR_MAX_QUEUE=7", "STATOR_ALLOW_PUBLIC=yes", "OTHER=1", NULL};
    const char *args[] = {"--port", "2", "--kv-bytes=3G", NULL};
    assert_int_equal(load(&c, &e, args, env), ST_OK);
    assert_int_equal(c.port, 2);
    assert_int_equal(c.max_queue, 7);
    assert_true(c.allow_public);
    assert_int_equal(c.kv_bytes, UINT64_C(3) << 30);
}

static void a_variable_whose_flag_is_given_cannot_be_wrong(void **state)
{
    (void)state;
    struct config c;
    struct err e = {0};
    const char *env[] = {"STATOR_MAX_QUEUE=many", "DYN_REQUEST_PLANE=nats", "HOME=/h", NULL};
    const char *args[] = {"--max-queue=3", "--dynamo", "--dyn-request-plane=tcp", NULL},
               *help[] = {"-h", NULL};
    assert_int_equal(load(&c, &e, args, env), ST_OK);
    assert_int_equal(c.max_queue, 3);
    assert_int_equal(load(&c, &e, NULL, env), ST_EINVAL);
    assert_string_equal(e.text, "STATOR_MAX_QUEUE: 'many' is not a whole number");
    assert_int_equal(load(&c, &e, help, env), ST_OK);
}

static void what_a_platform_sets_does_not_stop_a_worker(void **state)
{
    (void)state;
    struct config c;
    struct err e = {0};
    const char *env[] = {"STATOR_PORT=tcp://10.96.0.12:8099",
                         "STATOR_PORT_8099_TCP=tcp://10.96.0.12:8099",
                         "STATOR_SERVICE_HOST=10.96.0.12",
                         "STATOR_VERSION=0.1.0",
                         "STATOR_HELP=https://example.com",
                         "STATOR_HELP_MARKDOWN=1",
                         "DYN_SYSTEM_PORT=udp://10.96.0.13:9",
                         "HOME=/h",
                         NULL};
    const char *joined[] = {"--dynamo", NULL}, *given[] = {"--port=5", NULL},
               *bare[] = {"STATOR_PORT=tcp:8099", NULL};
    assert_int_equal(load(&c, &e, joined, env), ST_OK);
    assert_int_equal(c.port, 8099);
    assert_int_equal(c.dyn_system_port, -1);
    assert_false(c.version || c.help || c.help_markdown);
    assert_int_equal(load(&c, &e, given, env), ST_OK);
    assert_int_equal(c.port, 5);
    assert_int_equal(load(&c, &e, NULL, bare), ST_EINVAL); /* nobody's but the operator's */
}

static void serve_is_the_word_for_what_happens_without_one(void **state)
{
    (void)state;
    struct config c;
    struct err e = {0};
    const char *args[] = {"serve", "--port=5", NULL}, *late[] = {"--port=5", "serve", NULL},
               *twice[] = {"serve", "serve", NULL};
    assert_int_equal(load(&c, &e, args, NULL), ST_OK);
    assert_int_equal(c.port, 5);
    assert_int_equal(load(&c, &e, late, NULL), ST_EINVAL);
    assert_int_equal(load(&c, &e, twice, NULL), ST_EINVAL);
}

static void flags_of_a_gpu_are_listed_when_they_are_set(void **state)
{
    (void)state;
    static const struct {
        const char *args[6], *text;
    } cases[] = {
        {{NULL}, ""},
        {{"--threads=1", "--dtype=auto"}, ""},
        {{"--dtype=float16"}, "--dtype"},
        {{"--no-cuda-graphs", "--deterministic", "--gpu-memory-utilization=0.5", "--quantization=fp8",
          "--dtype=bfloat16"},
         "--dtype, --quantization, --gpu-memory-utilization, --deterministic, --no-cuda-graphs"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config c;
        struct err e = {0};
        struct buf list = {0};
        assert_int_equal(load(&c, &e, cases[i].args, NULL), ST_OK);
        config_put_gpu_flags(&c, &list);
        assert_int_equal(list.n, strlen(cases[i].text));
        assert_memory_equal(list.n ? list.p : "", cases[i].text, list.n);
        buf_fini(&list);
    }
}

static void dynamo_variables_count_with_dynamo_only(void **state)
{
    (void)state;
    struct config c;
    struct err e = {0};
    const char *env[] = {"DYN_NAMESPACE=prod", "DYN_REQUEST_PLANE=nats", "DYN_SYSTEM_PORT=9090", "STATOR_DYN_NAMESPACE=no", NULL};
    const char *plain[] = {"--port=1", NULL}, *joined[] = {"--dynamo", NULL},
               *flags[] = {"--dynamo", "--dyn-request-plane=tcp", "--dyn-system-port=-1", NULL};
    assert_int_equal(load(&c, &e, plain, env), ST_OK);
    assert_string_equal(c.dyn_namespace, "dynamo");
    assert_int_equal(c.dyn_system_port, -1);
    assert_int_equal(load(&c, &e, joined, env), ST_EINVAL);
    assert_string_equal(e.text, "DYN_REQUEST_PLANE: 'nats' is none of tcp");
    env[0] = "DYN_NAMESPACE=prod";
    const char *good[] = {"DYN_NAMESPACE=prod", "DYN_SYSTEM_PORT=9090", "HOME=/h", "TMPDIR=/t", "DYN_TCP_RPC_HOST=::1", NULL};
    assert_int_equal(load(&c, &e, joined, good), ST_OK);
    assert_string_equal(c.dyn_namespace, "prod");
    assert_int_equal(c.dyn_system_port, 9090);
    assert_string_equal(c.dyn_file_kv, "/t/dynamo_store_kv");
    assert_string_equal(c.cache_dir, "/h/.cache/stator");
    assert_string_equal(c.dyn_event_plane_host, "::1");
    assert_int_equal(load(&c, &e, flags, good), ST_OK);
    assert_int_equal(c.dyn_system_port, -1);
}

static void dynamo_flags_without_dynamo_are_a_mistake(void **state)
{
    (void)state;
    struct config c;
    struct err e = {0};
    const char *none[] = {NULL}, *asked[] = {"STATOR_DYNAMO=1", "HOME=/h", NULL};
    static const char *const flags[] = {"--dyn-namespace=a", "--etcd-endpoints=http://a:1", "--dynamo-serve-files"};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        const char *args[] = {flags[i], NULL}, *help[] = {flags[i], "--help", NULL};
        assert_int_equal(load(&c, &e, args, none), ST_EINVAL);
        assert_non_null(strstr(e.text, ": counts with --dynamo only"));
        assert_memory_equal(e.text, flags[i], strcspn(flags[i], "="));
        assert_int_equal(load(&c, &e, help, none), ST_OK);
        assert_int_equal(load(&c, &e, args, asked), ST_OK);
    }
}

/* One flag is enough: frontends on other hosts reach the files where they reach the worker. */
static void files_are_served_on_the_address_of_requests(void **state)
{
    (void)state;
    static const struct {
        const char *more[3], *host;
        int64_t port;
    } cases[] = {
        {{NULL}, "127.0.0.1", -1},
        {{"--dyn-system-port=7"}, "127.0.0.1", 7},
        {{"--dynamo-serve-files"}, "10.1.2.3", 0},
        {{"--dynamo-serve-files", "--dyn-system-port=7"}, "10.1.2.3", 7},
        {{"--dynamo-serve-files", "--dyn-system-host=0.0.0.0"}, "0.0.0.0", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config c;
        struct err e = {0};
        const char *args[] = {"--dynamo",       "--cache-dir=/c", "--dyn-tcp-rpc-host=10.1.2.3", cases[i].more[0],
                              cases[i].more[1], NULL};
        assert_int_equal(load(&c, &e, args, NULL), ST_OK);
        assert_string_equal(c.dyn_system_host, cases[i].host);
        assert_int_equal(c.dyn_system_port, cases[i].port);
    }
}

static void dynamo_names_and_addresses_must_be_usable(void **state)
{
    (void)state;
    static const char *const bad[] = {"--dyn-namespace=a/b", "--dyn-endpoint=a b", "--dyn-tcp-rpc-host=0.0.0.0",
                                      "--dyn-event-plane-host=::", "--dyn-system-port=-2",
                                      "--dyn-discovery-backend=mem"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct config c;
        struct err e = {0};
        const char *args[] = {"--dynamo", "--cache-dir=/c", bad[i], NULL};
        assert_int_equal(load(&c, &e, args, NULL), ST_EINVAL);
        assert_memory_equal(e.text, bad[i], strcspn(bad[i], "="));
    }
    struct config c;
    struct err e = {0};
    const char *homeless[] = {"--dynamo", NULL};
    assert_int_equal(load(&c, &e, homeless, NULL), ST_EINVAL);
}

static void bad_values_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *args[3], *text;
    } cases[] = {
        {{"--port", "70000"}, "--port: 70000 is outside 0..65535"},
        {{"--port", "-1"}, "--port: '-1' is not a whole number"},
        {{"--port", ""}, "--port: '' is not a whole number"},
        {{"--port", "8k"}, "--port: '8k' is not a whole number"},
        {{"--kv-bytes", "99999999999999999999"},
         "--kv-bytes: '99999999999999999999' is not a whole number (with K, M, G or T if you like)"},
        {{"--kv-bytes", "99999999999T"},
         "--kv-bytes: '99999999999T' is not a whole number (with K, M, G or T if you like)"},
        {{"--device", "tpu"}, "--device: 'tpu' is none of auto|cpu|cuda"},
        {{"--device", "auto|cpu"}, "--device: 'auto|cpu' is none of auto|cpu|cuda"},
        {{"--block-size", "24"}, "--block-size: 24 is not a multiple of 16"},
        {{"--model"}, "--model needs a value"},
        {{"--modle", "x"}, "unknown flag '--modle'; see --help"},
        {{"x"}, "'x' is not a flag; see --help"},
        {{"--priority-classes", "0,5"},
         "--priority-classes: '0,5' is not 3 ascending whole numbers within 0..1000, as 0,5,10"},
        {{"--priority-classes", "0,5,10,15"},
         "--priority-classes: '0,5,10,15' is not 3 ascending whole numbers within 0..1000, as 0,5,10"},
        {{"--priority-classes", "0,5,5"},
         "--priority-classes: '0,5,5' is not 3 ascending whole numbers within 0..1000, as 0,5,10"},
        {{"--priority-classes", "-1,5,10"},
         "--priority-classes: '-1,5,10' is not 3 ascending whole numbers within 0..1000, as 0,5,10"},
        {{"--priority-classes", "0, 5,10"},
         "--priority-classes: '0, 5,10' is not 3 ascending whole numbers within 0..1000, as 0,5,10"},
        {{"--priority-classes", "0,5,00000000000000000000010"},
         "--priority-classes: '0,5,00000000000000000000010' is not 3 ascending whole numbers within 0..1000, as 0,5,10"},
        {{"--priority-classes", "0,5,1001"},
         "--priority-classes: '0,5,1001' is not 3 ascending whole numbers within 0..1000, as 0,5,10"},
        {{"--priority-clamp", "0"}, "--priority-clamp: 0 is outside 1..1000"},
        {{"--aging-ms-per-point", "0"}, "--aging-ms-per-point: 0 is outside 1..86400000"},
        {{"--host-kv-bytes=1G", "--no-prefix-caching"},
         "--host-kv-bytes: keeps what is reused, and --no-prefix-caching reuses nothing"},
        {{"--allow-public=perhaps"}, "--allow-public: 'perhaps' is neither true nor false"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config c;
        struct err e = {0};
        assert_int_equal(load(&c, &e, cases[i].args, NULL), ST_EINVAL);
        assert_string_equal(e.text, cases[i].text);
    }
    const char *env[] = {"STATOR_PORT=no", NULL};
    struct config c;
    struct err e = {0};
    assert_int_equal(load(&c, &e, NULL, env), ST_EINVAL);
    assert_string_equal(e.text, "STATOR_PORT: 'no' is not a whole number");
}

static char *slurp(FILE *f)
{
    char *text = NULL;
    size_t n = 0;
    assert_true(getdelim(&text, &n, 0, f) > 0);
    fclose(f);
    return text;
}

/* A row without a value reads as a switch, and only a switch can stand alone. */
static void what_takes_a_value_has_a_word_for_it(void **state)
{
    (void)state;
    FILE *f = tmpfile();
    assert_non_null(f);
    config_print_markdown(f);
    rewind(f);
    char row[512], name[64], word[64];
    int switches = 0, others = 0;
    while (fgets(row, sizeof row, f)) {
        if (sscanf(row, "| `%63[a-z-]` | %63[^ ]", name, word) != 2)
            continue;
        struct config c;
        struct err e = {0};
        const char *args[] = {name, NULL};
        load(&c, &e, args, NULL);
        bool alone = !strstr(e.text, "needs a value");
        assert_int_equal(alone, word[0] == '|');
        switches += alone;
        others += !alone;
    }
    fclose(f);
    assert_true(switches > 5 && others > 40);
}

static void the_readme_carries_the_table(void **state)
{
    (void)state;
    FILE *f = tmpfile();
    assert_non_null(f);
    config_print_markdown(f);
    rewind(f);
    char *printed = slurp(f);
    f = fopen(STATOR_SOURCE_DIR "/README.md", "r");
    assert_non_null(f);
    char *readme = slurp(f);
    assert_non_null(strstr(readme, printed));
    free(printed);
    free(readme);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_hold_without_arguments),
        cmocka_unit_test(flags_win_over_variables_and_variables_over_defaults),
        cmocka_unit_test(a_variable_whose_flag_is_given_cannot_be_wrong),
        cmocka_unit_test(what_a_platform_sets_does_not_stop_a_worker),
        cmocka_unit_test(serve_is_the_word_for_what_happens_without_one),
        cmocka_unit_test(flags_of_a_gpu_are_listed_when_they_are_set),
        cmocka_unit_test(classes_are_three_ascending_thresholds),
        cmocka_unit_test(dynamo_variables_count_with_dynamo_only),
        cmocka_unit_test(dynamo_flags_without_dynamo_are_a_mistake),
        cmocka_unit_test(files_are_served_on_the_address_of_requests),
        cmocka_unit_test(dynamo_names_and_addresses_must_be_usable),
        cmocka_unit_test(bad_values_are_refused_by_name),
        cmocka_unit_test(what_takes_a_value_has_a_word_for_it),
        cmocka_unit_test(the_readme_carries_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
