/* What a server on a network meets: each case gets a clear refusal or a closed connection, and the next client is served. */
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
    S.o.stream_bytes_max = 65536;
    server_start(&S);
    return 0;
}

static int up_impatient(void **state)
{
    (void)state;
    server_options(&S);
    S.o.client_timeout_ms = 1000;
    server_start(&S);
    return 0;
}

static int down(void **state)
{
    (void)state;
    struct buf b = post(&S, "/v1/completions", "{\"prompt\":\"still here\"}");
    int alive = b.p && strstr(b.p, "\"text\":\"still here\"");
    buf_fini(&b);
    int st = server_end(&S);
    return alive ? st : 1;
}

static void refused(const char *path, const char *body, const char *code, const char *text)
{
    struct buf b = post(&S, path, body);
    char line[64];
    snprintf(line, sizeof line, "HTTP/1.1 %s ", code);
    if (!b.p || !strstr(b.p, line) || !strstr(b.p, text) || !strstr(b.p, "{\"error\":{\"message\":"))
        fail_msg("%.200s\ngave: %s\nwant: %s %s", body, b.p ? b.p : "", code, text);
    buf_fini(&b);
}

#define USER(content) "{\"messages\":[{\"role\":\"user\",\"content\":" content "}]}"

static void bad_bodies_are_400(void **state)
{
    (void)state;
    const char *chat = "/v1/chat/completions", *text = "/v1/completions";
    refused(chat, "{", "400", "JSON: syntax error");
    refused(chat, "nonsense", "400", "JSON: syntax error");
    refused(chat, "", "400", "JSON: the text is empty");
    refused(chat, "{\"messages\":[]}", "400", "messages: the array is empty");
    refused(chat, USER("\"\xff\xfe\""), "400", "not valid UTF-8");
    refused(chat, USER("7"), "400", "\"param\":\"messages[0].content\"");
    refused(chat, USER("\"raise\""), "400", "Chat template: the template raised");
    refused(chat, USER("\"loop\""), "400", "Chat template: too large");
    refused(chat, USER("\"\""), "400", "messages: no tokens to complete");
    refused(chat, "{\"model\":\"gpt-4\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", "404",
            "The model `gpt-4` does not exist; this server serves: fake, org/fake");
    refused(text, "{\"model\":\"gpt-4\",\"prompt\":\"a\"}", "404", "\"param\":\"model\"");
    refused(text, "{\"prompt\":\"a\",\"temperature\":NaN}", "400", "JSON: syntax error");
    refused(text, "{\"prompt\":\"a\",\"temperature\":1e400}", "400", "temperature: expected a number");
    refused(text, "{\"prompt\":\"a\",\"max_tokens\":-1}", "400", "max_tokens: -1 is outside");
    refused(text, "{\"prompt\":\"a\",\"max_tokens\":1e300}", "400", "max_tokens: ");
    refused(text, "{\"prompt\":\"a\",\"n\":99999}", "400", "n: 99999 is outside 1..128");
    refused(text, "{\"prompt\":\"a\",\"top_k\":-9}", "400", "top_k: -9 is outside");
    refused(
        text, "{\"prompt\":\"abc\",\"max_tokens\":40000}", "400",
        "This model's maximum context length is 40000 tokens. However, you requested 40003 tokens (3 in the "
        "prompt, 40000 in the completion).");
    refused(text, "{\"prompt\":\"abc\",\"max_tokens\":40000}", "400", "\"param\":\"max_tokens\"");
    refused(text, "{\"prompt\":\"abc\",\"max_tokens\":1,\"max_completion_tokens\":40000}", "400",
            "\"param\":\"max_completion_tokens\"");
    refused(text, "{\"prompt\":\"abc\",\"stop_token_ids\":[1,2,\"x\"]}", "400",
            "\"param\":\"stop_token_ids[2]\"");
    refused(text, "{\"prompt\":\"a\",\"stop_token_ids\":[1],\"ignore_eos\":true}", "400", "stop_token_ids: ");
}

static void giant_bodies_are_refused(void **state)
{
    (void)state;
    struct buf b = {0};
    for (int i = 0; i < 100000; i++)
        buf_puts(&b, "[");
    refused("/v1/chat/completions", b.p, "400", "nested deeper than 128 levels");
    buf_reset(&b);
    buf_puts(&b, "{\"prompt\":\"a\",\"stop\":[\"x\"");
    for (int i = 0; i < 5000; i++)
        buf_printf(&b, ",\"s%d\"", i);
    buf_puts(&b, "]}");
    refused("/v1/completions", b.p, "400", "stop: more than 32 strings");
    buf_reset(&b);
    buf_puts(&b, "{\"prompt\":\"");
    for (int i = 0; i < 50000; i++)
        buf_putc(&b, 'a');
    buf_puts(&b, "\"}");
    refused("/v1/completions", b.p, "400",
            "maximum context length is 40000 tokens. However, your prompt has 50000 tokens");
    refused("/v1/completions", b.p, "400", "\"param\":\"prompt\"");
    for (int i = 0; i < 2000000; i++)
        buf_putc(&b, ' ');
    refused("/v1/completions", b.p, "413", "The request body is larger than 1048576 bytes");

    /* chunked: no length is announced */
    int fd = client_open(&S);
    struct buf out = {0};
    const char *head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    client_send(fd, head, strlen(head));
    for (int i = 0; i < 20; i++) {
        client_send(fd, "20000\r\n", 7);
        client_send(fd, b.p, 0x20000);
        client_send(fd, "\r\n", 2);
    }
    client_send(fd, "0\r\n\r\n", 5);
    client_read(fd, &out, "}}");
    assert_true(out.p && strstr(out.p, "HTTP/1.1 413 "));
    close(fd);
    buf_fini(&out);

    /* a client that asks first is told before it sends */
    fd = client_open(&S);
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\nExpect: "
           "100-continue\r\n\r\n";
    client_send(fd, head, strlen(head));
    client_read(fd, &out, "}}");
    assert_true(out.p && strstr(out.p, "HTTP/1.1 413 ") && !strstr(out.p, "100 Continue"));
    close(fd);
    buf_fini(&out);
    /* and one that lies about terabytes is not waited for */
    fd = client_open(&S);
    head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n";
    client_send(fd, head, strlen(head));
    client_read(fd, &out, "}}");
    assert_true(out.p && strstr(out.p, "HTTP/1.1 413 "));
    close(fd);
    buf_fini(&out);
    buf_fini(&b);
}

static void closed_within(const char *bytes, int64_t limit_ms)
{
    int fd = client_open(&S);
    struct buf out = {0};
    client_send(fd, bytes, strlen(bytes));
    int64_t begin = clock_now_ns();
    client_read(fd, &out, NULL); /* until the server closes */
    assert_in_range((clock_now_ns() - begin) / NS_PER_MS, 0, limit_ms);
    buf_fini(&out);
    close(fd);
}

static void slow_clients_are_let_go(void **state)
{
    (void)state;
    closed_within("", 8000);
    closed_within("GET /health HT", 8000);
    closed_within("GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ", 8000);
    closed_within("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"prompt\"", 8000);
    /* one byte at a time does not buy more time */
    int fd = client_open(&S), sent = 0;
    client_send(fd, "GET /", 5);
    for (; sent < 100; sent++) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        client_send(fd, "a", 1);
        if (poll(&p, 1, 100) > 0)
            break;
    }
    assert_true(sent < 60);
    close(fd);
}

static void broken_http_does_no_harm(void **state)
{
    (void)state;
    static const char *const heads[] = {
        "\r\n\r\n\r\n",
        "GARBAGE\r\n\r\n",
        "GET\r\n\r\n",
        "GET /health HTTP/9.9\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff0\r\n",
        "GET /%00%ff/../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++)
        closed_within(heads[i], 8000);
    struct buf big = {0};
    buf_puts(&big, "GET /health HTTP/1.1\r\nHost: x\r\nX-Big: ");
    for (int i = 0; i < 200000; i++)
        buf_putc(&big, 'a');
    buf_puts(&big, "\r\n\r\n");
    closed_within(big.p, 8000);
    buf_reset(&big);
    buf_puts(&big, "GET /");
    for (int i = 0; i < 8000; i++)
        buf_putc(&big, 'p');
    buf_puts(&big, " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    int fd = client_open(&S);
    struct buf out = {0};
    client_send(fd, big.p, big.n);
    client_read(fd, &out, NULL);
    assert_true(out.p && strstr(out.p, "HTTP/1.1 404 "));
    close(fd);
    buf_fini(&out);
    buf_fini(&big);
}

static void random_bytes_do_no_harm(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    const char *junk_head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n";
    for (int i = 0; i < 200; i++) {
        char junk[300];
        size_t n = (size_t)rand() % sizeof junk;
        for (size_t k = 0; k < n; k++)
            junk[k] = (char)(rand() % 3 ? rand() % 96 + 32 : rand());
        int fd = client_open(&S);
        if (i & 1)
            client_send(fd, junk_head, strlen(junk_head));
        client_send(fd, junk, n);
        close(fd);
    }
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    int fd = client_open(&S);
    struct buf out = {0};
    client_post(fd, "/v1/completions", "{\"prompt\":\"first\"}", "");
    client_post(fd, "/v1/completions", "{\"prompt\":\"second\",\"stream\":true}", "");
    client_post(fd, "/v1/completions", "{\"prompt\":\"third\"}", "Connection: close\r\n");
    client_read(fd, &out, NULL);
    char *a = strstr(out.p, "\"text\":\"first\""), *b = strstr(out.p, "[DONE]"),
         *c = strstr(out.p, "\"text\":\"third\"");
    assert_true(a && b && c && a < b && b < c);
    buf_fini(&out);
    close(fd);
}

static void a_stream_that_nobody_reads_is_broken_off(void **state)
{
    (void)state;
    atomic_store(&S.engine->step_us, 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), small = 2048;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(http_port(S.http)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    client_post(fd, "/v1/completions",
                "{\"prompt\":\"ab\",\"max_tokens\":39000,\"ignore_eos\":true,\"stream\":true,\"n\":8}", "");
    for (int i = 0; i < 20 && atomic_load(&S.engine->cancels) < 8; i++)
        wait_for(&S.engine->cancels, 8);
    assert_int_equal(atomic_load(&S.engine->cancels), 8);
    assert_true(wait_for(&S.engine->releases, 8));
    assert_in_range(atomic_load(&S.engine->tokens), 1, 8 * 38999);
    close(fd);
}

static void clients_come_and_go_at_random(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    int fds[12];
    for (size_t i = 0; i < 12; i++)
        fds[i] = -1;
    for (int round = 0; round < 400; round++) {
        int *fd = &fds[rand() % 12];
        if (*fd < 0) {
            *fd = client_open(&S);
            client_post(*fd, "/v1/completions",
                        rand() & 1
                            ? "{\"prompt\":\"ab\",\"max_tokens\":200,\"ignore_eos\":true,\"stream\":true}"
                            : "{\"prompt\":\"ab\",\"max_tokens\":50,\"ignore_eos\":true,\"stop\":\"bb\"}",
                        "");
        } else {
            char some[64];
            if (rand() & 1)
                (void)!recv(*fd, some, sizeof some, MSG_DONTWAIT);
            close(*fd);
            *fd = -1;
        }
        nanosleep(&(struct timespec){.tv_nsec = rand() % 1000000}, NULL);
    }
    for (size_t i = 0; i < 12; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
}

/* The client's side allocates nothing here: every failure hits the server. */
static void failed_allocations_are_survived(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"prompt\":\"abc\",\"stop\":[\"x\",\"y\"],\"logit_bias\":{\"1\":1},\"logprobs\":1}",
        "{\"prompt\":[\"abc\",\"de\"],\"n\":2,\"stream\":true,\"logprobs\":1}"};
    int answered = 0;
    for (uint64_t n = 1; n <= 60; n++) {
        char request[512], answer[4096];
        const char *body = bodies[n & 1];
        int len = snprintf(
            request, sizeof request,
            "POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
            strlen(body), body);
        int fd = client_open(&S);
        mem_fail_after(n);
        client_send(fd, request, (size_t)len);
        struct pollfd p = {.fd = fd, .events = POLLIN};
        while (poll(&p, 1, 300) > 0) {
            ssize_t k = recv(fd, answer, sizeof answer, 0);
            if (k <= 0)
                break;
            answered += k >= 13 && memcmp(answer, "HTTP/1.1 503 ", 13) == 0;
        }
        mem_fail_after(0);
        close(fd);
    }
    assert_in_range(answered, 5, 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bad_bodies_are_400, up, down),
        cmocka_unit_test_setup_teardown(giant_bodies_are_refused, up, down),
        cmocka_unit_test_setup_teardown(slow_clients_are_let_go, up_impatient, down),
        cmocka_unit_test_setup_teardown(broken_http_does_no_harm, up_impatient, down),
        cmocka_unit_test_setup_teardown(random_bytes_do_no_harm, up, down),
        cmocka_unit_test_setup_teardown(pipelined_requests_are_answered_in_order, up, down),
        cmocka_unit_test_setup_teardown(a_stream_that_nobody_reads_is_broken_off, up, down),
        cmocka_unit_test_setup_teardown(clients_come_and_go_at_random, up, down),
        cmocka_unit_test_setup_teardown(failed_allocations_are_survived, up, down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
