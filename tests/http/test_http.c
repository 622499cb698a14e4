/* The server end to end, in this process, against an engine that echoes. */
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
    return 0;
}

static int down(void **state)
{
    (void)state;
    return server_end(&S);
}

static void expect(const char *method, const char *path, const char *extra, const char *body,
                   const char *code, const char *text)
{
    struct buf b = exchange(&S, method, path, extra, str_from(body));
    char line[64];
    snprintf(line, sizeof line, "HTTP/1.1 %s ", code);
    assert_has(b, line);
    assert_has(b, text);
    buf_fini(&b);
}

static void get_routes_answer(void **state)
{
    (void)state;
    expect("GET", "/v1/models", "", "", "200", "\"id\":\"org/fake\",\"object\":\"model\"");
    expect("GET", "/v1/models", "", "", "200", "\"max_model_len\":40000");
    expect("GET", "/v1/models/org/fake", "", "", "200", "{\"id\":\"org/fake\"");
    expect("GET", "/v1/models/gone", "", "", "404", "this server serves: fake, org/fake");
    expect("GET", "/health", "", "", "200", "{\"status\":\"ok\"}");
    expect("GET", "/v1/health/live", "", "", "200", "ok");
    expect("GET", "/v1/health/ready", "", "", "200", "ok");
    expect("GET", "/version", "", "", "200", "{\"version\":\"0.0.1\"}");
    expect("GET", "/metrics", "", "", "200",
           "stator_kv_cache_usage_perc{model_name=\"fake\",tier=\"device\"} 0.1\n");
    expect("GET", "/v1/metrics", "", "", "200",
           "stator_request_success_total{model_name=\"fake\",class=\"normal\",finished_reason=");
    expect("GET", "/", "", "", "200", "POST  /v1/chat/completions");
    expect("HEAD", "/health", "", "", "200", "application/json");
    expect("GET", "/nothing", "", "", "404", "No such path: /nothing");
    expect("GET", "/v1/completions", "", "", "405", "Allow: POST");
    expect("POST", "/health", "", "", "405", "Allow: GET, HEAD");
    expect("DELETE", "/v1/models", "", "", "405", "\"code\":405");
}

static void a_chat_is_answered(void **state)
{
    (void)state;
    struct buf b =
        post(&S, "/v1/chat/completions",
             "{\"model\":\"fake\",\"messages\":[{\"role\":\"user\",\"content\":\"h\xc3\xa9llo\"}]}");
    assert_has(b, "HTTP/1.1 200 OK");
    assert_has(b, "Content-Type: application/json");
    assert_has(b, "\"object\":\"chat.completion\"");
    assert_has(b, "\"message\":{\"role\":\"assistant\",\"content\":\"h\xc3\xa9llo\"},\"logprobs\":null,"
                  "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":6,\"completion_tokens\":6,"
                  "\"total_tokens\":12,\"prompt_tokens_details\":{\"cached_tokens\":0}}}");
    buf_fini(&b);
}

static void a_completion_has_its_defaults_and_limits(void **state)
{
    (void)state;
    struct buf b = post(&S, "/v1/completions", "{\"prompt\":\"abcdefghijklmnopqrstuvwxyz\"}");
    assert_has(b, "\"text\":\"abcdefghijklmnop\",\"logprobs\":null,\"finish_reason\":\"length\"");
    assert_has(b, "\"completion_tokens\":16,");
    buf_fini(&b);
    b = post(&S, "/v1/completions", "{\"prompt\":[\"ab\",\"cd\"],\"n\":2,\"max_tokens\":2}");
    assert_has(b, "{\"index\":0,\"text\":\"ab\"");
    assert_has(b, "{\"index\":1,\"text\":\"ab\"");
    assert_has(b, "{\"index\":2,\"text\":\"cd\"");
    assert_has(b, "{\"index\":3,\"text\":\"cd\"");
    assert_has(b, "\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":8,");
    buf_fini(&b);
    b = post(&S, "/v1/completions", "{\"prompt\":[104,105],\"logprobs\":1}");
    assert_has(b,
               "\"text\":\"hi\",\"logprobs\":{\"tokens\":[\"h\",\"i\"],\"token_logprobs\":[-0.5,-0.5],"
               "\"top_logprobs\":[{\"a\":-1},{\"a\":-1}],\"text_offset\":[0,1]},\"finish_reason\":\"stop\"");
    buf_fini(&b);
    b = post(&S, "/v1/completions", "{\"prompt\":[104,299999]}");
    assert_has(b, "HTTP/1.1 400 ");
    assert_has(b, "token 299999 is outside the vocabulary");
    buf_fini(&b);
}

static void requests_reach_the_engine_whole(void **state)
{
    (void)state;
    struct buf b = post(&S, "/v1/completions",
                        "{\"prompt\":\"x\",\"temperature\":0.5,\"top_p\":0.25,\"top_k\":7,\"min_p\":0.125,"
                        "\"seed\":42,\"frequency_penalty\":0.5,\"presence_penalty\":-0.5,"
                        "\"repetition_penalty\":1.25,\"max_tokens\":3,\"cache_salt\":\"s\","
                        "\"nvext\":{\"agent_hints\":{\"priority\":9,\"osl\":5,\"strict_priority\":2,"
                        "\"latency_sensitivity\":0.25,\"iat\":70}}}");
    assert_has(b, "HTTP/1.1 200 OK");
    buf_fini(&b);
    const struct engine_request *r = &S.engine->last;
    assert_true(r->temperature == 0.5f && r->top_p == 0.25f && r->top_k == 7 && r->min_p == 0.125f);
    assert_true(r->seed == 42 && r->frequency == 0.5f && r->presence == -0.5f && r->repetition == 1.25f);
    assert_true(r->max_tokens == 3 && r->priority == 9 && r->expected_output_tokens == 5 &&
                r->n_logprobs == -1);
    assert_true(r->strict_priority == 2 && r->latency_sensitivity == 0.25f && r->iat_ms == 70);
    uint8_t salt[ENGINE_SALT_BYTES];
    hash_once("s", 1, salt);
    assert_memory_equal(salt, r->cache_salt, sizeof salt);
}

static void stop_strings_end_the_text(void **state)
{
    (void)state;
    struct buf b = post(&S, "/v1/completions",
                        "{\"prompt\":\"one two three\",\"stop\":[\"xx\",\"o t\"],\"max_tokens\":99}");
    assert_has(b, "\"text\":\"one tw\",");
    buf_fini(&b);
    b = post(&S, "/v1/completions", "{\"prompt\":\"one two three\",\"stop\":\"o th\",\"max_tokens\":99}");
    assert_has(b, "\"text\":\"one tw\",\"logprobs\":null,\"finish_reason\":\"stop\"");
    buf_fini(&b);
    /* what only began a stop string comes out at the end */
    b = post(&S, "/v1/completions", "{\"prompt\":\"one two\",\"stop\":\"two!\",\"max_tokens\":99}");
    assert_has(b, "\"text\":\"one two\",\"logprobs\":null,\"finish_reason\":\"stop\"");
    buf_fini(&b);
}

/* The joined text of all deltas, found the way a client finds it. */
static void joined(const struct buf *b, const char *key, struct buf *text)
{
    for (const char *p = b->p; p && (p = strstr(p, "data: {")); p++) {
        const char *end = strstr(p, "\n\n");
        cJSON *j = NULL;
        if (!end || json_parse(&j, (struct str){p + 6, (size_t)(end - p - 6)}, NULL))
            continue;
        const cJSON *c = cJSON_GetArrayItem(json_get(j, "choices"), 0);
        const cJSON *d = json_get(c, "delta");
        const cJSON *v = json_get(d ? d : c, key);
        if (cJSON_IsString(v))
            buf_puts(text, v->valuestring);
        json_free(j);
    }
}

static void a_stream_is_a_sequence_of_frames(void **state)
{
    (void)state;
    struct buf text = {0};
    /* HTTP/1.0: no chunk marks between the frames */
    int fd = client_open(&S);
    const char *body = "{\"messages\":[{\"role\":\"user\",\"content\":\"h\xc3\xa9!\"}],\"stream\":true,"
                       "\"stream_options\":{\"include_usage\":true}}";
    char head[128];
    snprintf(head, sizeof head, "POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %zu\r\n\r\n",
             strlen(body));
    client_send(fd, head, strlen(head));
    client_send(fd, body, strlen(body));
    struct buf b = {0};
    client_read(fd, &b, NULL);
    close(fd);
    assert_has(b, "Content-Type: text/event-stream");
    assert_has(
        b, "\"delta\":{\"role\":\"assistant\",\"content\":\"h\"},\"logprobs\":null,\"finish_reason\":null}],"
           "\"usage\":null}\n\n");
    assert_has(b, "\"delta\":{\"content\":\"\xc3\xa9\"}");
    assert_has(b, "\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":null}\n\n");
    assert_has(b, "\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":4,\"total_tokens\":8,"
                  "\"prompt_tokens_details\":{\"cached_tokens\":0}}}\n\ndata: [DONE]\n\n");
    joined(&b, "content", &text);
    assert_string_equal(text.p, "h\xc3\xa9!");
    buf_fini(&b);
    buf_reset(&text);

    b = post(&S, "/v1/completions",
             "{\"prompt\":\"one two three\",\"stop\":\"o th\",\"max_tokens\":99,\"stream\":true}");
    assert_has(b, "Transfer-Encoding: chunked");
    assert_has(b, "data: [DONE]\n\n");
    joined(&b, "text", &text);
    assert_string_equal(text.p, "one tw");
    assert_null(strstr(b.p, "usage"));
    buf_fini(&b);
    buf_fini(&text);
}

static void frames_do_not_wait_for_each_other(void **state)
{
    (void)state;
    atomic_store(&S.engine->hold, 1);
    int fd = client_open(&S);
    struct buf b = {0};
    client_post(fd, "/v1/completions", "{\"prompt\":\"abcdefghijkl\",\"stream\":true,\"logprobs\":0}", "");
    client_read(fd, &b,
                "\r\n\r\n"); /* the head comes before any token, and before a comment would push it out */
    assert_has(b, "HTTP/1.1 200 OK");
    assert_null(strstr(b.p, "keep-alive\n"));
    atomic_store(&S.engine->step_us, 20000);
    atomic_store(&S.engine->hold, 0);
    client_read(fd, &b, "data: ");
    assert_in_range(atomic_load(&S.engine->tokens), 1, 6);
    client_read(fd, &b, "[DONE]");
    assert_has(
        b, "\"text\":\"l\",\"logprobs\":{\"tokens\":[\"l\"],\"token_logprobs\":[-0.5],\"top_logprobs\":[{}],"
           "\"text_offset\":[11]},\"finish_reason\":null");
    assert_has(b, "\"text\":\"\",\"logprobs\":null,\"finish_reason\":\"stop\"");
    buf_fini(&b);
    close(fd);
}

static void silence_is_filled_with_comments(void **state)
{
    (void)state;
    struct server quick;
    server_options(&quick);
    quick.o.sse_keepalive_ms = 20;
    server_start(&quick);
    atomic_store(&quick.engine->hold, 1);
    int fd = client_open(&quick);
    struct buf b = {0};
    client_post(fd, "/v1/completions", "{\"prompt\":\"ab\",\"stream\":true}", "");
    client_read(fd, &b, ": keep-alive\n\n");
    assert_has(b, ": keep-alive\n\n");
    atomic_store(&quick.engine->hold, 0);
    client_read(fd, &b, "[DONE]");
    assert_has(b, "data: [DONE]\n\n");
    buf_fini(&b);
    close(fd);
    server_stop(&quick);
}

static void a_connection_serves_many_requests(void **state)
{
    (void)state;
    int fd = client_open(&S);
    for (int i = 0; i < 20; i++) {
        struct buf b = {0};
        bool stream = i & 1;
        client_post(fd, "/v1/completions",
                    stream ? "{\"prompt\":\"ab\",\"stream\":true}" : "{\"prompt\":\"ab\"}", "");
        client_read(fd, &b, stream ? "\r\n0\r\n\r\n" : "}}}");
        assert_has(b, "HTTP/1.1 200 OK");
        assert_has(b, stream ? "[DONE]" : "\"text\":\"ab\"");
        buf_fini(&b);
    }
    client_post(fd, "/v1/completions", "{", "");
    struct buf b = {0};
    client_read(fd, &b, "}}");
    assert_has(b, "HTTP/1.1 400");
    buf_fini(&b);
    close(fd);
}

static void a_vanished_client_is_cancelled(void **state)
{
    (void)state;
    const char *const bodies[] = {
        "{\"prompt\":\"ab\",\"max_tokens\":30000,\"ignore_eos\":true,\"stream\":true}",
        "{\"prompt\":\"ab\",\"max_tokens\":30000,\"ignore_eos\":true}",
        "{\"prompt\":\"ab\",\"max_tokens\":30000,\"ignore_eos\":true,\"n\":3}",
    };
    for (int i = 0; i < 3; i++) {
        uint64_t cancels = atomic_load(&S.engine->cancels), submits = atomic_load(&S.engine->submits);
        uint64_t more = i == 2 ? 3 : 1;
        int fd = client_open(&S);
        struct buf b = {0};
        client_post(fd, "/v1/completions", bodies[i], "");
        if (i == 0)
            client_read(fd, &b, "data: ");
        assert_true(wait_for(&S.engine->submits, submits + more));
        close(fd);
        assert_true(wait_for(&S.engine->cancels, cancels + more));
        assert_true(wait_for(&S.engine->releases, submits + more));
        buf_fini(&b);
    }
    struct buf b = exchange(&S, "GET", "/metrics", "", (struct str){0});
    assert_has(b, "stator_request_success_total{model_name=\"fake\",class=\"normal\",finished_reason=\"abort\"} 5\n");
    assert_has(b, "stator_http_requests_total{path=\"/v1/completions\",code=\"499\"} 3\n");
    buf_fini(&b);
}

static void a_held_stream_is_cancelled_too(void **state)
{
    (void)state;
    uint64_t cancels = atomic_load(&S.engine->cancels), submits = atomic_load(&S.engine->submits);
    atomic_store(&S.engine->hold, 1); /* no token ever comes: nothing is written, only the close can tell */
    int fd = client_open(&S);
    client_post(fd, "/v1/chat/completions",
                "{\"messages\":[{\"role\":\"user\",\"content\":\"ab\"}],\"stream\":true}", "");
    assert_true(wait_for(&S.engine->submits, submits + 1));
    close(fd);
    assert_true(wait_for(&S.engine->cancels, cancels + 1));
    atomic_store(&S.engine->hold, 0);
}

static void long_prompts_take_the_lane(void **state)
{
    (void)state;
    struct buf body = {0};
    buf_puts(&body, "{\"prompt\":\"");
    for (int i = 0; i < 20000; i++)
        buf_putc(&body, 'a');
    buf_puts(&body, "\",\"max_tokens\":3}");
    struct buf b = post(&S, "/v1/completions", body.p);
    assert_has(b, "\"text\":\"aaa\"");
    assert_has(b, "\"prompt_tokens\":20000,");
    assert_has(b, "\"cached_tokens\":20000");
    buf_fini(&b);
    /* and the client may leave while the lane works */
    for (int i = 0; i < 20; i++) {
        int fd = client_open(&S);
        client_post(fd, "/v1/completions", body.p, "");
        close(fd);
    }
    b = post(&S, "/v1/completions", "{\"prompt\":\"ab\"}");
    assert_has(b, "\"text\":\"ab\"");
    buf_fini(&b);
    buf_fini(&body);
}

static void a_full_engine_is_429(void **state)
{
    (void)state;
    uint64_t submits = atomic_load(&S.engine->submits);
    atomic_store(&S.engine->hold, 1);
    int fd = client_open(&S);
    client_post(fd, "/v1/completions", "{\"prompt\":\"ab\",\"n\":7}", "");
    assert_true(wait_for(&S.engine->submits, submits + 7));
    /* when to come back depends on the class, and the engine says why */
    static const struct {
        const char *hints, *retry;
    } cases[] = {{"{}", "Retry-After: 15\r\n"},
                 {"{\"priority\":-1}", "Retry-After: 22\r\n"},
                 {"{\"priority\":7}", "Retry-After: 8\r\n"},
                 {"{\"strict_priority\":1}", "Retry-After: 1\r\n"}};
    struct buf b = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[128];
        snprintf(body, sizeof body, "{\"prompt\":\"ab\",\"n\":2,\"stream\":true,\"nvext\":{\"agent_hints\":%s}}",
                 cases[i].hints);
        b = post(&S, "/v1/completions", body);
        assert_has(b, "HTTP/1.1 429 ");
        assert_has(b, cases[i].retry);
        assert_has(b, "{\"error\":{\"message\":\"The server is busy: 8 of 8\",\"type\":\"rate_limit_error\"");
        buf_fini(&b);
    }
    atomic_store(&S.engine->hold, 0);
    b = (struct buf){0};
    client_read(fd, &b, "}}}");
    assert_has(b, "{\"index\":6,\"text\":\"ab\"");
    buf_fini(&b);
    close(fd);
}

static void an_engine_error_is_told(void **state)
{
    (void)state;
    atomic_store(&S.engine->fail_next, 2);
    struct buf b = post(&S, "/v1/completions", "{\"prompt\":\"abc\"}");
    assert_has(b, "HTTP/1.1 500 ");
    assert_has(b, "The request failed in the engine");
    buf_fini(&b);
    atomic_store(&S.engine->fail_next, 2);
    b = post(&S, "/v1/completions", "{\"prompt\":\"abc\",\"stream\":true}");
    assert_has(b, "HTTP/1.1 200 OK");
    assert_has(b, "data: {\"error\":{\"message\":\"The request failed in the engine\"");
    assert_has(b, "data: [DONE]");
    buf_fini(&b);
}

static void keys_are_asked_for(void **state)
{
    (void)state;
    static const struct str keys[] = {STR_LIT("sk-one"), STR_LIT("sk-two")};
    struct server locked;
    server_options(&locked);
    locked.o.api_keys = keys;
    locked.o.n_api_keys = 2;
    server_start(&locked);
    struct {
        const char *header, *code;
    } cases[] = {{"", "401"},
                 {"Authorization: Bearer sk-on\r\n", "401"},
                 {"Authorization: Bearer sk-onee\r\n", "401"},
                 {"Authorization: Basic sk-one\r\n", "401"},
                 {"Authorization: Bearer\r\n", "401"},
                 {"Authorization: Bearer sk-one\r\n", "200"},
                 {"Authorization: bearer sk-two\r\n", "200"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf b =
            exchange(&locked, "POST", "/v1/completions", cases[i].header, STR_LIT("{\"prompt\":\"a\"}"));
        assert_has(b, cases[i].code);
        if (cases[i].code[0] == '4') {
            assert_has(b, "WWW-Authenticate: Bearer");
            assert_has(b, "\"type\":\"authentication_error\"");
        }
        buf_fini(&b);
    }
    static const char *const open[] = {"/health", "/v1/health/live", "/v1/health/ready", "/version"};
    for (int i = 0; i < 4; i++) {
        struct buf b = exchange(&locked, "GET", open[i], "", (struct str){0});
        assert_has(b, "HTTP/1.1 200 OK");
        buf_fini(&b);
    }
    struct buf b = exchange(&locked, "GET", "/metrics", "", (struct str){0});
    assert_has(b, "HTTP/1.1 401");
    buf_fini(&b);
    server_stop(&locked);
}

static void addresses_are_judged(void **state)
{
    (void)state;
    assert_true(http_host_is_loopback("127.0.0.1") && http_host_is_loopback("localhost"));
    assert_true(http_host_is_loopback("::1") && http_host_is_loopback("127.1"));
    assert_false(http_host_is_loopback("0.0.0.0") || http_host_is_loopback("10.0.0.1"));
    assert_true(http_host_is_wildcard("0.0.0.0") && http_host_is_wildcard("::") &&
                http_host_is_wildcard("0"));
    assert_false(http_host_is_wildcard("127.0.0.1"));
    assert_true(http_host_is_known("localhost") && http_host_is_known("10.0.0.1") &&
                http_host_is_known("::"));
    assert_false(http_host_is_known("no.such.host.invalid"));
    struct http_options o = S.o;
    struct http *h = NULL;
    struct err e = {0};
    char want[64];
    o.port = http_port(S.http);
    assert_int_equal(http_create(&h, &o, &e), ST_EIO);
    snprintf(want, sizeof want, "127.0.0.1:%u: the port is in use by another program", o.port);
    assert_string_equal(e.text, want);
    o.host = "no.such.host.invalid";
    assert_int_equal(http_create(&h, &o, &e), ST_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(get_routes_answer, up, down),
        cmocka_unit_test_setup_teardown(a_chat_is_answered, up, down),
        cmocka_unit_test_setup_teardown(a_completion_has_its_defaults_and_limits, up, down),
        cmocka_unit_test_setup_teardown(requests_reach_the_engine_whole, up, down),
        cmocka_unit_test_setup_teardown(stop_strings_end_the_text, up, down),
        cmocka_unit_test_setup_teardown(a_stream_is_a_sequence_of_frames, up, down),
        cmocka_unit_test_setup_teardown(frames_do_not_wait_for_each_other, up, down),
        cmocka_unit_test(silence_is_filled_with_comments),
        cmocka_unit_test_setup_teardown(a_connection_serves_many_requests, up, down),
        cmocka_unit_test_setup_teardown(a_vanished_client_is_cancelled, up, down),
        cmocka_unit_test_setup_teardown(a_held_stream_is_cancelled_too, up, down),
        cmocka_unit_test_setup_teardown(long_prompts_take_the_lane, up, down),
        cmocka_unit_test_setup_teardown(a_full_engine_is_429, up, down),
        cmocka_unit_test_setup_teardown(an_engine_error_is_told, up, down),
        cmocka_unit_test(keys_are_asked_for),
        cmocka_unit_test_setup_teardown(addresses_are_judged, up, down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
