/* Tool calls and reasoning in replies and streams: the engine echoes the prompt, so a message is the answer that it gets. Each
 * case is asked for whole and as a stream, and both must say the same. */
#define _GNU_SOURCE
#include "server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { CHOICES_MAX = 2 };

static struct server S;
static struct grammar_vocab *vocab;

static struct str vocab_bytes(const void *ctx, uint32_t token)
{
    (void)ctx;
    return token < 256 ? (struct str){&fake_bytes[token], 1} : (struct str){0};
}

static void start(size_t stream_bytes_max)
{
    server_options(&S);
    S.o.stream_bytes_max = stream_bytes_max;
    assert_int_equal(grammar_vocab_create(&vocab, FAKE_VOCAB, vocab_bytes, NULL), ST_OK);
    S.o.model.vocab = vocab;
    fake_form = (struct answer_form){.calls = ANSWER_HERMES};
    server_start(&S);
}

static int up(void **state)
{
    (void)state;
    start(0);
    return 0;
}

static int up_small(void **state)
{
    (void)state;
    start(1000);
    return 0;
}

static int down(void **state)
{
    (void)state;
    int st = server_end(&S);
    grammar_vocab_destroy(vocab);
    return st;
}

/* ---- what a client understands ----------------------------------------------------------------------------------- */

struct choice {
    struct buf content, reasoning, calls; /* calls: |name|arguments each */
    char finish[16];
    char ids[8][32];
    int n_calls, n_logs, n_roles;
};

/* A message or a delta. */
static void add(struct choice *c, const cJSON *choice, const cJSON *m)
{
    const cJSON *calls = json_get(m, "tool_calls"), *finish = json_get(choice, "finish_reason");
    const cJSON *content = json_get(m, "content"), *reasoning = json_get(m, "reasoning_content");
    assert_int_equal(c->finish[0], 0); /* nothing comes behind it */
    c->n_roles += json_get(m, "role") != NULL;
    assert_true(c->n_roles == 1); /* and the role comes first */
    if (cJSON_IsString(content))
        buf_puts(&c->content, content->valuestring);
    if (cJSON_IsString(reasoning))
        buf_puts(&c->reasoning, reasoning->valuestring);
    assert_true(!calls || calls->child);
    for (const cJSON *t = calls ? calls->child : NULL; t; t = t->next) {
        const cJSON *f = json_get(t, "function"), *index = json_get(t, "index");
        assert_true(!index || index->valueint == c->n_calls);
        assert_string_equal(json_get(t, "type")->valuestring, "function");
        assert_int_equal(strlen(json_get(t, "id")->valuestring), 9);
        snprintf(c->ids[c->n_calls++], sizeof c->ids[0], "%s", json_get(t, "id")->valuestring);
        buf_printf(&c->calls, "|%s|%s", json_get(f, "name")->valuestring,
                   json_get(f, "arguments")->valuestring);
    }
    for (const cJSON *l = json_get(json_get(choice, "logprobs"), "content"); l; l = NULL)
        c->n_logs += cJSON_GetArraySize(l);
    if (cJSON_IsString(finish))
        snprintf(c->finish, sizeof c->finish, "%s", finish->valuestring);
}

static void understand(struct str json, struct choice *choices)
{
    cJSON *j = NULL;
    assert_int_equal(json_parse(&j, json, NULL), ST_OK);
    const cJSON *list = json_get(j, "choices");
    for (const cJSON *c = list ? list->child : NULL; c; c = c->next) {
        const cJSON *message = json_get(c, "message");
        add(&choices[json_get(c, "index")->valueint], c, message ? message : json_get(c, "delta"));
    }
    json_free(j);
}

static void ask(const char *answer, const char *more, bool stream, struct choice *choices)
{
    static const char tools[] =
        "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\"}}},"
        "{\"type\":\"function\",\"function\":{\"name\":\"g\"}}]";
    struct buf body = {0};
    memset(choices, 0, CHOICES_MAX * sizeof *choices);
    buf_puts(&body, "{\"messages\":[{\"role\":\"user\",\"content\":");
    buf_put_json(&body, str_from(answer));
    buf_printf(&body, "}],\"tools\":%s,\"stream\":%s%s}", tools, stream ? "true" : "false", more);
    struct buf b = post(&S, "/v1/chat/completions", body.p);
    assert_non_null(strstr(b.p, " 200 "));
    const char *p = strstr(b.p, "\r\n\r\n") + 4;
    if (!stream)
        understand((struct str){p, strlen(p)}, choices);
    for (p = stream ? p : NULL; p && (p = strstr(p, "data: {")); p++) {
        const char *end = strstr(p, "\n\n");
        understand((struct str){p + 6, (size_t)(end - p - 6)}, choices);
    }
    buf_fini(&b);
    buf_fini(&body);
}

static void forget(struct choice *choices)
{
    for (int i = 0; i < CHOICES_MAX; i++) {
        buf_fini(&choices[i].content);
        buf_fini(&choices[i].reasoning);
        buf_fini(&choices[i].calls);
    }
}

/* `more`: further members of the request, each with a comma in front. */
static void expect(const char *answer, const char *more, const char *content, const char *calls,
                   const char *finish)
{
    for (int stream = 0; stream < 2; stream++) {
        struct choice c[CHOICES_MAX];
        ask(answer, more, stream, c);
        assert_string_equal(buf_str(&c[0].content).p, content);
        assert_string_equal(buf_str(&c[0].calls).p, calls);
        assert_string_equal(c[0].finish, finish);
        forget(c);
    }
}

#define CALL(name, arguments) "<tool_call>{\"name\": \"" name "\", \"arguments\": " arguments "}</tool_call>"

/* ---- rules ------------------------------------------------------------------------------------------------------- */

static void calls_are_told(void **state)
{
    (void)state;
    expect(CALL("f", "{\"x\": \"\xc3\xa9\\n\"}"), "", "", "|f|{\"x\": \"\xc3\xa9\\n\"}", "tool_calls");
    expect("So: " CALL("f", "{}") "\n" CALL("g", "{\"a\":1}") "\n", ",\"tool_choice\":\"auto\"",
           "So: ", "|f|{}|g|{\"a\":1}", "tool_calls");
    expect("No call < here", "", "No call < here", "", "stop");
    expect(CALL("h", "{}"), "", CALL("h", "{}"), "", "stop"); /* was not offered */
    expect("I see <tool", "", "I see <tool", "", "stop");
    expect(CALL("f", "{}"), ",\"tool_choice\":\"none\"", CALL("f", "{}"), "", "stop");
}

static void other_forms_follow_the_template(void **state)
{
    (void)state;
    fake_form.calls = ANSWER_QWEN3_CODER;
    expect("<tool_call>\n<function=f>\n<parameter=x>\n1\n</parameter>\n</function>\n</tool_call>", "", "",
           "|f|{\"x\":\"1\"}", "tool_calls");
    fake_form.calls = ANSWER_CALLS_UNKNOWN;
    expect(CALL("f", "{}"), "", CALL("f", "{}"), "", "stop");
}

/* A mark that the tokenizer has as a control token is not shown, but seen. */
static void hidden_marks_are_seen(void **state)
{
    (void)state;
    expect("a\x01{\"name\": \"f\", \"arguments\": {}}", "", "a", "|f|{}", "tool_calls");
    expect("a\x01{\"name\": \"f\", \"arguments\": {}}", ",\"tool_choice\":\"none\"",
           "a{\"name\": \"f\", \"arguments\": {}}", "", "stop");
}

static void a_call_that_is_cut_off_is_content(void **state)
{
    (void)state;
    expect(CALL("f", "{\"x\": 1}"), ",\"max_tokens\":30", "<tool_call>{\"name\": \"f\", \"argu", "",
           "length");
    expect(CALL("f", "{}") CALL("f", "{}"), ",\"max_tokens\":60", "<tool_c", "|f|{}", "length");
}

static void stop_strings_come_before_calls(void **state)
{
    (void)state;
    expect("a" CALL("f", "{}"), ",\"stop\":\"arg\"", "a<tool_call>{\"name\": \"f\", \"", "", "stop");
    expect("a" CALL("f", "{}") "bcd", ",\"stop\":[\"cd\",\"zz\"]", "ab", "|f|{}", "tool_calls");
    expect("a" CALL("f", "{}"), ",\"stop\":\"</tool_call>\"", "a", "|f|{}", "tool_calls");
}

static void one_call_ends_the_answer(void **state)
{
    (void)state;
    uint64_t tokens = atomic_load(&S.engine->tokens), cancels = atomic_load(&S.engine->cancels);
    expect("a" CALL("f", "{}") CALL("g", "{}") "and so on and on", ",\"parallel_tool_calls\":false", "a",
           "|f|{}", "tool_calls");
    assert_int_equal(atomic_load(&S.engine->cancels) - cancels, 2);
    tokens = atomic_load(&S.engine->tokens) - tokens;
    assert_true(tokens >= 2 * 40);
    expect("a" CALL("f", "{}") CALL("g", "{}"), ",\"parallel_tool_calls\":true", "a", "|f|{}|g|{}",
           "tool_calls");
    struct buf b = post(&S, "/v1/chat/completions",
                        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"parallel_tool_calls\":1}");
    assert_non_null(strstr(b.p, "parallel_tool_calls: expected true or false"));
    buf_fini(&b);
}

static void each_choice_has_its_calls(void **state)
{
    (void)state;
    for (int stream = 0; stream < 2; stream++) {
        struct choice c[CHOICES_MAX];
        ask("a" CALL("f", "{}") CALL("g", "{}"), ",\"n\":2", stream, c);
        for (int i = 0; i < 2; i++) {
            assert_string_equal(c[i].content.p, "a");
            assert_string_equal(c[i].calls.p, "|f|{}|g|{}");
            assert_string_equal(c[i].finish, "tool_calls");
            assert_string_not_equal(c[i].ids[0], c[i].ids[1]);
            assert_string_not_equal(c[i].ids[0], c[1 - i].ids[1]);
        }
        assert_string_not_equal(c[0].ids[0], c[1].ids[0]);
        forget(c);
    }
}

static void no_log_probability_is_lost(void **state)
{
    (void)state;
    static const char answer[] = "ab" CALL("f", "{}") "\n" CALL("g", "{}");
    for (int stream = 0; stream < 2; stream++) {
        struct choice c[CHOICES_MAX];
        ask(answer, ",\"logprobs\":true", stream, c);
        assert_int_equal(c[0].n_logs, sizeof answer - 1);
        assert_int_equal(c[0].n_calls, 2);
        forget(c);
    }
}

/* Forced calls: a grammar makes them, which this engine does not follow, so that the answer may be anything. */
static void forced_calls_are_told_one_by_one(void **state)
{
    (void)state;
    static const char both[] =
        "[{\"name\": \"f\", \"parameters\": {\"x\": 1}}, {\"name\": \"g\", \"parameters\": {}}]";
    expect(both, ",\"tool_choice\":\"required\"", "", "|f|{\"x\": 1}|g|{}", "tool_calls");
    expect("[{\"name\": \"f\", \"parameters\": {}}]",
           ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}}", "", "|f|{}",
           "tool_calls");
    expect(both, ",\"tool_choice\":\"required\",\"max_tokens\":20", "[{\"name\": \"f\", \"para", "",
           "length");
    expect(both, ",\"tool_choice\":\"required\",\"max_tokens\":45", ", {\"nam", "|f|{\"x\": 1}", "length");
}

static void another_form_leaves_no_room_for_calls(void **state)
{
    (void)state;
    fake_form.calls = ANSWER_LLAMA3_JSON;
    expect("{\"name\": \"f\", \"parameters\": {}}", "", "", "|f|{}", "tool_calls");
    expect("{\"name\": \"f\", \"parameters\": {}}", ",\"response_format\":{\"type\":\"json_object\"}",
           "{\"name\": \"f\", \"parameters\": {}}", "", "stop");
}

/* A call leaves when it is whole: its frame is there while the answer goes on. */
static void a_stream_does_not_wait_with_a_call(void **state)
{
    (void)state;
    struct buf body = {0}, b = {0};
    buf_puts(&body, "{\"messages\":[{\"role\":\"user\",\"content\":");
    buf_put_json(&body, STR_LIT("a" CALL("f", "{}") "b"));
    buf_puts(&body,
             "}],\"stream\":true,\"ignore_eos\":true,\"max_tokens\":30000,\"tools\":[{\"type\":\"function\","
             "\"function\":{\"name\":\"f\"}}]}");
    int fd = client_open(&S);
    client_post(fd, "/v1/chat/completions", body.p, "");
    client_read(fd, &b, "tool_calls");
    assert_non_null(strstr(b.p, "\"delta\":{\"role\":\"assistant\",\"content\":\"a\"}"));
    assert_null(strstr(b.p, "[DONE]"));
    close(fd);
    buf_fini(&body);
    buf_fini(&b);
}

static void reasoning_is_told_apart(void **state)
{
    (void)state;
    static const struct {
        const char *answer, *more, *content, *reasoning, *calls;
    } cases[] = {
        {"<think>\nWell.\n</think>\n\nYes.", "", "\n\nYes.", "\nWell.\n", ""},
        {"<think>f?</think>" CALL("f", "{}"), "", "", "f?", "|f|{}"},
        {"No <think> here", "", "No <think> here", "", ""},
        {"<think>cut", "", "", "cut", ""},
        {"So.</think>Yes.<think>\n", "", "Yes.<think>\n", "So.", ""}, /* as a prompt it opens reasoning */
        {"<think>{}</think>", ",\"response_format\":{\"type\":\"json_object\"}", "<think>{}</think>", "", ""},
    };
    fake_form.reasoning = ANSWER_QWEN3;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int stream = 0; stream < 2; stream++) {
            struct choice c[CHOICES_MAX];
            ask(cases[i].answer, cases[i].more, stream, c);
            assert_string_equal(buf_str(&c[0].content).p, cases[i].content);
            assert_string_equal(buf_str(&c[0].reasoning).p, cases[i].reasoning);
            assert_string_equal(buf_str(&c[0].calls).p, cases[i].calls);
            assert_string_equal(c[0].finish, cases[i].calls[0] ? "tool_calls" : "stop");
            forget(c);
        }
}

/* A call is held until it is whole, so it comes in one piece, and a client is not slow that had no time to read it. */
static void a_call_is_longer_than_a_slow_client_s_bound(void **state)
{
    (void)state;
    char answer[6000], calls[6000], text[5000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    snprintf(answer, sizeof answer, CALL("f", "{\"s\": \"%s\"}"), text);
    snprintf(calls, sizeof calls, "|f|{\"s\": \"%s\"}", text);
    for (int n = 1; n <= CHOICES_MAX; n++) {
        struct choice c[CHOICES_MAX];
        char more[16];
        snprintf(more, sizeof more, ",\"n\":%d", n);
        ask(answer, more, true, c);
        for (int i = 0; i < n; i++) {
            assert_string_equal(buf_str(&c[i].calls).p, calls);
            assert_string_equal(c[i].finish, "tool_calls");
        }
        forget(c);
    }
}

/* Whatever allocation is lost, the client hears of it or gets the whole answer. */
static void lost_memory_loses_no_part_of_an_answer(void **state)
{
    (void)state;
    static const char content[] = "<think>f?</think>So: " CALL("f", "{\"x\": 1}") CALL("g", "{}");
    struct buf body = {0}, request = {0};
    int whole = 0, told = 0;
    fake_form.reasoning = ANSWER_QWEN3;
    buf_puts(&body, "{\"messages\":[{\"role\":\"user\",\"content\":");
    buf_put_json(&body, str_from(content));
    buf_puts(&body,
             "}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}},{\"type\":\"function\","
             "\"function\":{\"name\":\"g\"}}]}");
    buf_printf(
        &request,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
        body.n, body.p);
    for (uint64_t n = 1; whole < 10 && n < 1000; n++) {
        char answer[4096];
        size_t got = 0;
        int fd = client_open(&S);
        mem_fail_after(n);
        client_send(fd, request.p, request.n);
        for (struct pollfd p = {.fd = fd, .events = POLLIN};
             got < sizeof answer - 1 && poll(&p, 1, 300) > 0;) {
            ssize_t k = recv(fd, answer + got, sizeof answer - 1 - got, 0);
            if (k <= 0)
                break;
            got += (size_t)k;
        }
        mem_fail_after(0);
        close(fd);
        answer[got] = 0;
        told += strstr(answer, "HTTP/1.1 503 ") != NULL;
        if (!strstr(answer, "HTTP/1.1 200 ")) {
            whole = 0; /* of the last ones */
            continue;
        }
        struct choice c[CHOICES_MAX] = {0};
        understand(str_from(strstr(answer, "\r\n\r\n") + 4), c);
        assert_string_equal(c[0].content.p, "So: ");
        assert_string_equal(c[0].reasoning.p, "f?");
        assert_string_equal(c[0].calls.p, "|f|{\"x\": 1}|g|{}");
        forget(c);
        whole++;
    }
    assert_true(whole == 10 && told > 10);
    buf_fini(&body);
    buf_fini(&request);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(calls_are_told, up, down),
        cmocka_unit_test_setup_teardown(other_forms_follow_the_template, up, down),
        cmocka_unit_test_setup_teardown(hidden_marks_are_seen, up, down),
        cmocka_unit_test_setup_teardown(a_call_that_is_cut_off_is_content, up, down),
        cmocka_unit_test_setup_teardown(stop_strings_come_before_calls, up, down),
        cmocka_unit_test_setup_teardown(one_call_ends_the_answer, up, down),
        cmocka_unit_test_setup_teardown(each_choice_has_its_calls, up, down),
        cmocka_unit_test_setup_teardown(no_log_probability_is_lost, up, down),
        cmocka_unit_test_setup_teardown(forced_calls_are_told_one_by_one, up, down),
        cmocka_unit_test_setup_teardown(another_form_leaves_no_room_for_calls, up, down),
        cmocka_unit_test_setup_teardown(reasoning_is_told_apart, up, down),
        cmocka_unit_test_setup_teardown(lost_memory_loses_no_part_of_an_answer, up, down),
        cmocka_unit_test_setup_teardown(a_call_is_longer_than_a_slow_client_s_bound, up_small, down),
        cmocka_unit_test_setup_teardown(a_stream_does_not_wait_with_a_call, up, down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
