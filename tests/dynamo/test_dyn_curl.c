#define _GNU_SOURCE
/* Goal: a server that lies, floods or says nothing costs a call its time and no more, and each is told in words.
 * Method: a thread on loopback that answers every connection with the same bytes, whatever was asked. */
#include "dyn_curl.h"

#include "dyn_etcd.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { PIECE = 65536 };

static struct {
    pthread_t thread;
    pthread_mutex_t lock; /* of the answer: a client may be gone while its connection is still being served */
    int fd;
    char url[64];
    struct buf answer; /* to every connection; empty: none comes until the client leaves */
    _Atomic int connections;
} server = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void serve_one(int fd)
{
    char sink[PIECE];
    if (recv(fd, sink, sizeof sink, 0) <= 0)
        return;
    for (size_t at = 0; at < server.answer.n;) {
        size_t left = server.answer.n - at;
        ssize_t n = send(fd, server.answer.p + at, left < PIECE ? left : PIECE, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        at += (size_t)n;
    }
    while (server.answer.n == 0 && recv(fd, sink, sizeof sink, 0) > 0)
        ;
}

static void *serve(void *arg)
{
    (void)arg;
    for (int fd; (fd = accept(server.fd, NULL, NULL)) >= 0; close(fd)) {
        atomic_fetch_add(&server.connections, 1);
        pthread_mutex_lock(&server.lock);
        serve_one(fd);
        pthread_mutex_unlock(&server.lock);
    }
    return NULL;
}

static int start_server(void **state)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    (void)state;
    server.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(server.fd, (struct sockaddr *)&a, n) || listen(server.fd, 16) ||
        getsockname(server.fd, (struct sockaddr *)&a, &n))
        return -1;
    snprintf(server.url, sizeof server.url, "http://127.0.0.1:%u", ntohs(a.sin_port));
    return pthread_create(&server.thread, NULL, serve, NULL);
}

static int stop_server(void **state)
{
    (void)state;
    shutdown(server.fd, SHUT_RDWR);
    pthread_join(server.thread, NULL);
    close(server.fd);
    buf_fini(&server.answer);
    return mem_live() != 0;
}

/* One call to it: its status, and what etcd's reader makes of the reply. */
static int call(int *read_status, struct err *e)
{
    static const struct dyn_curl_tls no_tls = {0};
    struct dyn_curl *c = NULL;
    struct buf reply = {0};
    int64_t code;
    long http = 0;
    assert_int_equal(dyn_curl_open(&c, &no_tls, e), ST_OK);
    int st = dyn_curl_post(c, server.url, NULL, STR_LIT("{}"), server.answer.n ? 3000 : 50, &reply, &http, e);
    assert_true(reply.n <= DYN_CURL_REPLY_MAX);
    *read_status = st ? st : dyn_etcd_check(buf_str(&reply), http, &code, e);
    dyn_curl_close(c);
    buf_fini(&reply);
    return st;
}

static void answer_with(const char *head, const char *unit, size_t bytes)
{
    pthread_mutex_lock(&server.lock);
    buf_reset(&server.answer);
    buf_puts(&server.answer, head);
    while (server.answer.n < bytes)
        buf_puts(&server.answer, unit);
    pthread_mutex_unlock(&server.lock);
}

static void who_says_nothing_costs_a_call_its_time(void **state)
{
    struct err e = {0};
    int read_status;
    (void)state;
    answer_with("", "", 0);
    assert_int_equal(call(&read_status, &e), ST_EIO);
    assert_non_null(strstr(e.text, server.url));
}

static void a_reply_without_end_is_broken_off(void **state)
{
    struct err e = {0};
    int read_status;
    (void)state;
    answer_with("HTTP/1.1 200 OK\r\n\r\n{\"a\":[", "0,0,0,0,0,0,0,0,0,0,", 10 << 20);
    assert_int_equal(call(&read_status, &e), ST_ETOOBIG);
    answer_with("HTTP/1.1 200 OK\r\n", "X-And-So: on\r\n", 10 << 20); /* headers alone */
    assert_int_equal(call(&read_status, &e), ST_EIO);
}

static void what_is_no_http_or_no_json_is_said_to_be_so(void **state)
{
    static const struct {
        const char *answer;
        int called, read;
    } cases[] = {
        {"\x16\x03\x01 this is no HTTP", ST_EIO, ST_EIO},
        {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", ST_EIO, ST_EIO},
        {"HTTP/1.1 200 OK\r\n\r\n<html>hello</html>", ST_OK, ST_EFORMAT},
        {"HTTP/1.1 200 OK\r\n\r\n", ST_OK, ST_EFORMAT},
        {"HTTP/1.1 500 Internal Server Error\r\n\r\n{}", ST_OK, ST_EIO},
        {"HTTP/1.1 503 Service Unavailable\r\n\r\nupstream connect error", ST_OK, ST_EFORMAT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e = {0};
        int read_status;
        answer_with(cases[i].answer, "", 0);
        assert_int_equal(call(&read_status, &e), cases[i].called);
        assert_int_equal(read_status, cases[i].read);
        assert_true(e.text[0]);
    }
}

/* Whom we ask is the configuration's to say, not the answer's. */
static void nobody_sends_us_elsewhere(void **state)
{
    struct err e = {0};
    int read_status;
    char answer[160];
    (void)state;
    snprintf(answer, sizeof answer, "HTTP/1.1 307 Temporary Redirect\r\nLocation: %s/other\r\n\r\n{}",
             server.url);
    answer_with(answer, "", 0);
    int before = atomic_load(&server.connections);
    assert_int_equal(call(&read_status, &e), ST_OK);
    assert_int_equal(read_status, ST_EIO);
    assert_int_equal(atomic_load(&server.connections), before + 1);
}

static void files_for_tls_are_looked_for_at_the_start(void **state)
{
    static const struct dyn_curl_tls wrong[] = {
        {.ca = "/no/such/ca.pem"},
        {.cert = "/no/such/cert.pem", .key = "/no/such/key.pem"},
        {.cert = "-----BEGIN CERTIFICATE-----\n"},
        {.key = "-----BEGIN PRIVATE KEY-----\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct dyn_curl *c = NULL;
        struct err e = {0};
        assert_int_equal(dyn_curl_open(&c, &wrong[i], &e), ST_EINVAL);
        assert_non_null(strstr(e.text, i < 2 ? "/no/such/c" : "key"));
    }
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_says_nothing_costs_a_call_its_time),
        cmocka_unit_test(a_reply_without_end_is_broken_off),
        cmocka_unit_test(what_is_no_http_or_no_json_is_said_to_be_so),
        cmocka_unit_test(nobody_sends_us_elsewhere),
        cmocka_unit_test(files_for_tls_are_looked_for_at_the_start),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
