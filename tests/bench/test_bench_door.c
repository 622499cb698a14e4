/* Goal: a worker that answers wrongly costs the client the request or the run, and never the time until --timeout.
 * Method: a worker of one thread speaks by a script. What the client must have seen is known by what it sent after it; and a
 * stream that was written to before another connects is read before that other one. */
#define _GNU_SOURCE
#include "plane/door.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buf.h"
#include "dynamo/request_frame.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <unistd.h>

struct peer {
    int listen_fd, fd;
    struct sockaddr_in address, client; /* of the requests; of the answers, when a frame has told it */
    struct buf heard;
    void (*script)(struct peer *p);
};

/* Reads until the frame of this request is there; a client that has gone leaves what follows without effect. */
static void await(struct peer *p, const char *request)
{
    char want[64], bytes[4096];
    snprintf(want, sizeof want, "\"id\":\"%s\"", request);
    while (!p->heard.p || !memmem(p->heard.p, p->heard.n, want, strlen(want))) {
        ssize_t n = recv(p->fd, bytes, sizeof bytes, 0);
        if (n <= 0)
            return;
        buf_put(&p->heard, bytes, (size_t)n);
    }
    const char *port = memmem(p->heard.p, p->heard.n, "127.0.0.1:", 10);
    p->client = p->address;
    p->client.sin_port = port ? htons((uint16_t)strtoul(port + 10, NULL, 10)) : 0;
}

static void put(int fd, const void *bytes, size_t n)
{
    send(fd, bytes, n, MSG_NOSIGNAL);
}

static void put_ack(struct peer *p, const char *text)
{
    struct buf b = {0};
    put_be(&b, strlen(text), 4);
    buf_puts(&b, text);
    put(p->fd, b.p, b.n);
    buf_fini(&b);
}

static void put_header(int fd, const char *header)
{
    struct buf b = {0};
    put_be(&b, strlen(header), 8);
    put_be(&b, 0, 8);
    put_be(&b, 0, 8);
    buf_puts(&b, header);
    put(fd, b.p, b.n);
    buf_fini(&b);
}

static int call_home(const struct peer *p)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (const struct sockaddr *)&p->client, sizeof p->client) == 0)
        return fd;
    close(fd);
    return -1;
}

/* A stream whose handshake names this request. */
static int answer(const struct peer *p, const char *request)
{
    char header[64];
    int fd = call_home(p);
    snprintf(header, sizeof header, "{\"subject\":\"%s\"}", request);
    put_header(fd, header);
    return fd;
}

static void *serve(void *arg)
{
    struct peer *p = arg;
    char byte;
    p->fd = accept4(p->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    p->script(p);
    while (recv(p->fd, &byte, 1, 0) > 0)
        ;
    close(p->fd);
    return NULL;
}

/* Runs so many requests, two at a time, against a worker of this script. */
static int run(struct load_result *r, void (*script)(struct peer *p), int64_t requests, struct err *e)
{
    const struct options o = {.isl = 1, .osl = 1, .token_ids = 10, .seed = 1, .timeout_s = 600};
    struct peer p = {.script = script};
    struct load_target target = {.host = "127.0.0.1"};
    struct sockaddr_in *at = (struct sockaddr_in *)&target.addr;
    pthread_t thread;
    at->sin_family = AF_INET;
    at->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    target.addr_bytes = sizeof *at;
    p.listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(p.listen_fd, (struct sockaddr *)at, sizeof *at), 0);
    assert_int_equal(listen(p.listen_fd, 1), 0);
    assert_int_equal(getsockname(p.listen_fd, (struct sockaddr *)at, &target.addr_bytes), 0);
    p.address = *at;
    assert_int_equal(pthread_create(&thread, NULL, serve, &p), 0);
    int rc = door_run(r,
                      &(struct door_spec){.o = &o,
                                          .target = &target,
                                          .path = "p",
                                          .model = "m",
                                          .num_requests = requests,
                                          .concurrency = 2},
                      e);
    pthread_join(thread, NULL);
    close(p.listen_fd);
    buf_fini(&p.heard);
    return rc;
}

static void acks_nonsense(struct peer *p)
{
    await(p, "0-0");
    put(p->fd, "\xff\xff\xff\xff", 4);
}

static void answers_nonsense(struct peer *p)
{
    static const char ones[24] = {[0 ... 23] = '\xff'};
    await(p, "0-0");
    int fd = call_home(p);
    put(fd, ones, sizeof ones);
    close(fd);
}

static void answers_without_handshake(struct peer *p)
{
    await(p, "0-0");
    int fd = call_home(p);
    put_header(fd, "\"sentinel\"");
    close(fd);
}

static void nonsense_ends_the_run(void **state)
{
    (void)state;
    static const struct {
        void (*script)(struct peer *p);
        const char *text;
    } cases[] = {
        {acks_nonsense, "what the worker sent is no ack of the request plane"},
        {answers_nonsense, "what came is no message of the request plane"},
        {answers_without_handshake, "what came is no message of the request plane"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct load_result r;
        struct err e = {0};
        assert_int_equal(run(&r, cases[i].script, 1, &e), ST_EIO);
        assert_string_equal(e.text, cases[i].text);
        load_result_fini(&r);
    }
}

/* The stream of the refused request ends while its slot holds another one. */
static void refuses_what_it_has_begun_to_answer(struct peer *p)
{
    await(p, "1-1");
    int begun = answer(p, "1-1");
    put_ack(p, "");
    int other = answer(p, "0-0");
    put_header(other, "\"sentinel\"");
    await(p, "0-2");
    put_ack(p, "no room");
    await(p, "1-3");
    close(begun);
    put_ack(p, "");
    put_ack(p, "");
    int third = answer(p, "0-2"), fourth = answer(p, "1-3");
    put_header(third, "\"sentinel\"");
    put_header(fourth, "\"sentinel\"");
    close(other);
    close(third);
    close(fourth);
}

static void a_refusal_ends_a_request_whose_answer_has_begun(void **state)
{
    (void)state;
    struct load_result r;
    struct err e = {0};
    assert_int_equal(run(&r, refuses_what_it_has_begun_to_answer, 4, &e), ST_OK);
    assert_int_equal(r.failed, 1);
    assert_true(r.records[1].failed);
    assert_string_equal(r.first_error, "no room");
    load_result_fini(&r);
}

/* The first stream ends while its slot holds another request. */
static void answers_twice(struct peer *p)
{
    await(p, "1-1");
    put_ack(p, "");
    put_ack(p, "");
    int first = answer(p, "0-0"), second = answer(p, "0-0");
    put_header(second, "\"sentinel\"");
    await(p, "0-2");
    close(first);
    put_ack(p, "");
    int third = answer(p, "0-2"), fourth = answer(p, "1-1");
    put_header(third, "\"sentinel\"");
    put_header(fourth, "\"sentinel\"");
    close(second);
    close(third);
    close(fourth);
}

static void a_second_stream_of_a_request_counts_for_nothing(void **state)
{
    (void)state;
    struct load_result r;
    struct err e = {0};
    assert_int_equal(run(&r, answers_twice, 3, &e), ST_OK);
    assert_int_equal(r.failed, 0);
    load_result_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nonsense_ends_the_run),
        cmocka_unit_test(a_refusal_ends_a_request_whose_answer_has_begun),
        cmocka_unit_test(a_second_stream_of_a_request_counts_for_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
