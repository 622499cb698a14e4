/* GET /v1/stator/queue on a server: what is open, by class, state and group; guarded. test_queue_list.c has its bounds. */
#define _GNU_SOURCE
#include "server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct server S;

static int up(void **state)
{
    (void)state;
    server_options(&S);
    server_start(&S);
    atomic_store(&S.engine->hold, 1);
    return 0;
}

static int down(void **state)
{
    (void)state;
    atomic_store(&S.engine->hold, 0);
    return server_end(&S);
}

static cJSON *queue(const struct server *s)
{
    struct buf b = exchange(s, "GET", "/v1/stator/queue", "", (struct str){0});
    cJSON *j = NULL;
    const char *body = b.p ? strstr(b.p, "\r\n\r\n") : NULL;
    assert_non_null(body);
    assert_non_null(strstr(b.p, "HTTP/1.1 200 OK"));
    assert_non_null(strstr(b.p, "Content-Type: application/json"));
    assert_int_equal(json_parse(&j, str_from(body + 4), NULL), ST_OK);
    buf_fini(&b);
    return j;
}

static double number(const cJSON *o, const char *name)
{
    const cJSON *v = json_get(o, name);
    if (!cJSON_IsNumber(v))
        fail_msg("%s is no number", name);
    return v->valuedouble;
}

static void text_is(const cJSON *o, const char *name, const char *want)
{
    const cJSON *v = json_get(o, name);
    assert_true(cJSON_IsString(v));
    assert_string_equal(v->valuestring, want);
}

static int ask(const char *hints, const char *more, uint32_t choices)
{
    uint64_t submits = atomic_load(&S.engine->submits);
    int fd = client_open(&S);
    char body[512];
    snprintf(body, sizeof body, "{\"prompt\":\"abc\",\"nvext\":{\"agent_hints\":%s}%s}", hints, more);
    client_post(fd, "/v1/completions", body, "");
    assert_true(wait_for(&S.engine->submits, submits + choices));
    return fd;
}

static void an_idle_server_shows_empty_lists(void **state)
{
    (void)state;
    cJSON *j = queue(&S);
    assert_int_equal(cJSON_GetArraySize(json_get(j, "requests")), 0);
    assert_int_equal(cJSON_GetArraySize(json_get(j, "groups")), 0);
    assert_true(cJSON_IsFalse(json_get(j, "truncated")));
    const cJSON *classes = json_get(j, "classes");
    assert_int_equal(cJSON_GetArraySize(classes), ENGINE_CLASSES);
    assert_true(number(json_get(classes, "background"), "queued") == 0);
    assert_true(number(json_get(classes, "high"), "preempted") == 0);
    json_free(j);
}

static void a_request_shows_its_hints_and_its_state(void **state)
{
    (void)state;
    int fd = ask("{\"priority\":7,\"strict_priority\":9,\"osl\":512,\"latency_sensitivity\":0.25,\"iat\":0,"
                 "\"prefix_id\":\"a \\\"quoted\\\" \\n id\"}",
                 "", 1);
    cJSON *j = queue(&S);
    const cJSON *r = cJSON_GetArrayItem(json_get(j, "requests"), 0);
    assert_true(cJSON_IsString(json_get(r, "id")) && strncmp(json_get(r, "id")->valuestring, "cmpl-", 5) == 0);
    text_is(r, "class", "high");
    text_is(r, "via", "http");
    text_is(r, "state", "queued");
    text_is(r, "prefix_id", "a \"quoted\" \n id");
    assert_true(number(r, "choice") == 0 && number(r, "priority") == 7 && number(r, "strict_priority") == 3);
    assert_true(number(r, "osl") == 512 && number(r, "latency_sensitivity") == 0.25 && number(r, "iat") == 1);
    assert_true(number(r, "n_prompt") == 3 && number(r, "n_output") == 0 && number(r, "n_computed") == 0);
    assert_true(number(r, "n_blocks") == 1 && number(r, "n_preempted") == 2 && number(r, "waited_ms") >= 0);
    assert_true(number(json_get(json_get(j, "classes"), "high"), "queued") == 1);
    json_free(j);
    close(fd);
}

static void unknown_hints_are_null(void **state)
{
    (void)state;
    int fd = ask("{}", "", 1);
    cJSON *j = queue(&S);
    const cJSON *r = cJSON_GetArrayItem(json_get(j, "requests"), 0);
    assert_true(cJSON_IsNull(json_get(r, "osl")) && cJSON_IsNull(json_get(r, "iat")) && cJSON_IsNull(json_get(r, "prefix_id")));
    assert_true(number(r, "latency_sensitivity") == 0.5);
    text_is(r, "class", "normal");
    json_free(j);
    close(fd);
}

static void requests_are_grouped_by_prefix_id_and_the_oldest_comes_first(void **state)
{
    (void)state;
    int fds[] = {ask("{\"prefix_id\":\"b\",\"priority\":1}", "", 1), ask("{\"prefix_id\":\"a\",\"priority\":-2}", ",\"n\":2", 2),
                 ask("{\"prefix_id\":\"b\",\"priority\":3}", "", 1), ask("{\"priority\":4}", "", 1)};
    cJSON *j = queue(&S);
    static const double order[] = {1, -2, -2, 3, 4};
    const cJSON *list = json_get(j, "requests"), *groups = json_get(j, "groups");
    assert_int_equal(cJSON_GetArraySize(list), 5);
    for (int i = 0; i < 5; i++)
        assert_true(number(cJSON_GetArrayItem(list, i), "priority") == order[i]);
    assert_true(number(cJSON_GetArrayItem(list, 2), "choice") == 1);
    assert_int_equal(cJSON_GetArraySize(groups), 2);
    for (int i = 0; i < 2; i++) {
        text_is(cJSON_GetArrayItem(groups, i), "prefix_id", i ? "b" : "a");
        assert_true(number(cJSON_GetArrayItem(groups, i), "requests") == 2);
    }
    const cJSON *classes = json_get(j, "classes");
    assert_true(number(json_get(classes, "background"), "queued") == 2 && number(json_get(classes, "normal"), "queued") == 3);
    json_free(j);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
}

static int ask_in_session(const char *header)
{
    uint64_t submits = atomic_load(&S.engine->submits);
    int fd = client_open(&S);
    client_post(fd, "/v1/completions", "{\"prompt\":\"abc\"}", header);
    assert_true(wait_for(&S.engine->submits, submits + 1));
    return fd;
}

/* By the headers that Dynamo's frontend knows too. */
static void requests_are_grouped_by_the_session_that_a_header_names(void **state)
{
    (void)state;
    char longest[200];
    snprintf(longest, sizeof longest, "X-Session-Id: %0150d\r\n", 7);
    int fds[] = {ask_in_session("x-dynamo-session-id: s-1\r\n"), ask_in_session("x-session-id: s-1\r\n"),
                 ask_in_session("x-session-id: s-2\r\nx-dynamo-session-id: s-3\r\n"), ask_in_session(longest),
                 ask_in_session("x-session-id: \r\n")};
    cJSON *j = queue(&S);
    const cJSON *list = json_get(j, "requests"), *groups = json_get(j, "groups");
    text_is(cJSON_GetArrayItem(list, 0), "session_id", "s-1");
    text_is(cJSON_GetArrayItem(list, 2), "session_id", "s-3");
    assert_int_equal(strlen(json_get(cJSON_GetArrayItem(list, 3), "session_id")->valuestring), 128);
    assert_true(cJSON_IsNull(json_get(cJSON_GetArrayItem(list, 4), "session_id")));
    assert_int_equal(cJSON_GetArraySize(groups), 3); /* 000..., s-1, s-3 */
    text_is(cJSON_GetArrayItem(groups, 1), "session_id", "s-1");
    assert_true(number(cJSON_GetArrayItem(groups, 1), "requests") == 2);
    json_free(j);
    for (int i = 0; i < 5; i++)
        close(fds[i]);
}

static void a_vanished_request_leaves_the_view(void **state)
{
    (void)state;
    uint64_t releases = atomic_load(&S.engine->releases);
    close(ask("{}", "", 1));
    assert_true(wait_for(&S.engine->releases, releases + 1));
    cJSON *j = queue(&S);
    assert_int_equal(cJSON_GetArraySize(json_get(j, "requests")), 0);
    json_free(j);
}

static void other_methods_are_refused_and_a_key_is_asked_for(void **state)
{
    (void)state;
    struct buf b = post(&S, "/v1/stator/queue", "{}");
    assert_non_null(strstr(b.p, "HTTP/1.1 405"));
    assert_non_null(strstr(b.p, "Allow: GET, HEAD"));
    buf_fini(&b);
    static const struct str keys[] = {STR_LIT("sk-one")};
    struct server locked;
    server_options(&locked);
    locked.o.api_keys = keys;
    locked.o.n_api_keys = 1;
    server_start(&locked);
    b = exchange(&locked, "GET", "/v1/stator/queue", "", (struct str){0});
    assert_non_null(strstr(b.p, "HTTP/1.1 401"));
    buf_fini(&b);
    b = exchange(&locked, "GET", "/v1/stator/queue", "Authorization: Bearer sk-one\r\n", (struct str){0});
    assert_non_null(strstr(b.p, "HTTP/1.1 200"));
    buf_fini(&b);
    server_stop(&locked);
}

static void clamped_hints_reach_the_metrics(void **state)
{
    (void)state;
    int fd = ask("{\"osl\":-5,\"strict_priority\":77}", "", 1);
    struct buf b = exchange(&S, "GET", "/metrics", "", (struct str){0});
    assert_non_null(strstr(b.p, "stator_hint_clamped_total{model_name=\"fake\",hint=\"osl\"} 1\n"));
    assert_non_null(strstr(b.p, "stator_hint_clamped_total{model_name=\"fake\",hint=\"strict_priority\"} 1\n"));
    buf_fini(&b);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_idle_server_shows_empty_lists, up, down),
        cmocka_unit_test_setup_teardown(a_request_shows_its_hints_and_its_state, up, down),
        cmocka_unit_test_setup_teardown(unknown_hints_are_null, up, down),
        cmocka_unit_test_setup_teardown(requests_are_grouped_by_prefix_id_and_the_oldest_comes_first, up, down),
        cmocka_unit_test_setup_teardown(requests_are_grouped_by_the_session_that_a_header_names, up, down),
        cmocka_unit_test_setup_teardown(a_vanished_request_leaves_the_view, up, down),
        cmocka_unit_test_setup_teardown(other_methods_are_refused_and_a_key_is_asked_for, up, down),
        cmocka_unit_test_setup_teardown(clamped_hints_reach_the_metrics, up, down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
