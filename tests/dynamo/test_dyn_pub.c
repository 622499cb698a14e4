#define _GNU_SOURCE
/* Goal: subscribers that do not read, do not speak ZeroMQ or say too much cost a bounded amount, and the others hear everything.
 * Method: subscribers made of sockets (ZMTP 3.0, no security), against the real library; skipped where it is not installed. */
#include "dyn_pub.h"

#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static const char topic[] = "kv-events";

static struct dyn_pub *open_pub(void)
{
    struct dyn_pub *p = NULL;
    struct err e = {0};
    if (dyn_pub_create(&p, "127.0.0.1", 77, &e) == ST_EUNSUP) {
        print_message("%s\n", e.text);
        skip();
    }
    assert_non_null(p);
    return p;
}

static int reach(const struct dyn_pub *p)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(dyn_pub_port(p))};
    const struct timeval patience = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0);
    return fd;
}

/* False: the other side closed. */
static bool read_all(int fd, void *out, size_t n)
{
    return recv(fd, out, n, MSG_WAITALL) == (ssize_t)n;
}

/* The other side of it: a frame's flags and bytes. */
static int read_frame(int fd, uint8_t *flags, char *out, size_t cap)
{
    uint8_t head[9];
    if (!read_all(fd, head, 2))
        return -1;
    size_t n = head[1];
    if (head[0] & 2) { /* a long one */
        if (!read_all(fd, head + 2, 7))
            return -1;
        n = (size_t)head[6] << 16 | (size_t)head[7] << 8 | head[8];
    }
    assert_true(n <= cap);
    *flags = head[0];
    return read_all(fd, out, n) ? (int)n : -1;
}

/* Greetings and READY of both sides. */
static int subscriber(const struct dyn_pub *p)
{
    static const char ready[] = "\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB";
    char greeting[64] = {[0] = '\xff', [9] = '\x7f', [10] = 3, [12] = 'N', 'U', 'L', 'L'}, other[256];
    uint8_t flags;
    int fd = reach(p);
    assert_int_equal(send(fd, greeting, sizeof greeting, MSG_NOSIGNAL), sizeof greeting);
    assert_true(read_all(fd, other, 64));
    assert_int_equal(send(fd, ready, sizeof ready - 1, MSG_NOSIGNAL), sizeof ready - 1);
    assert_true(read_frame(fd, &flags, other, sizeof other) > 0 && (flags & 4));
    return fd;
}

static void subscribe(int fd, const char *what)
{
    char frame[64] = {0, (char)(1 + strlen(what)), 1};
    memcpy(frame + 3, what, strlen(what));
    assert_int_equal(send(fd, frame, 3 + strlen(what), MSG_NOSIGNAL), 3 + strlen(what));
}

/* Sends until the subscriber hears one: its subscription has arrived then. Returns the number of that message. */
static uint64_t send_until_heard(struct dyn_pub *p, int fd, uint64_t *next)
{
    char part[4096];
    uint8_t flags;
    while (recv(fd, part, 1, MSG_PEEK | MSG_DONTWAIT) != 1)
        dyn_pub_send(p, topic, (*next)++, STR_LIT("\x90"));
    int n = read_frame(fd, &flags, part, sizeof part);
    assert_true(n == sizeof topic - 1 && memcmp(part, topic, sizeof topic - 1) == 0);
    assert_int_equal(read_frame(fd, &flags, part, sizeof part), 8);
    assert_int_equal(read_frame(fd, &flags, part, sizeof part), 8);
    uint64_t number = 0;
    for (int i = 0; i < 8; i++)
        number = number << 8 | (uint8_t)part[i];
    assert_true(read_frame(fd, &flags, part, sizeof part) > 0 && !(flags & 1));
    return number;
}

/* 64 MiB for somebody who reads none of it: what he finds afterwards is the queue and what the kernel took. */
static void who_does_not_read_has_a_bounded_queue(void **state)
{
    enum { MESSAGES = 8 * DYN_PUB_QUEUED, BYTES = 1024 };
    (void)state;
    struct dyn_pub *p = open_pub();
    static char payload[BYTES];
    uint64_t next = 0, kept = 0;
    int silent = subscriber(p);
    subscribe(silent, topic);
    send_until_heard(p, silent, &next);
    for (int i = 0; i < MESSAGES; i++)
        dyn_pub_send(p, topic, next++, (struct str){payload, sizeof payload});
    int good = subscriber(p); /* comes late, and is served at once */
    subscribe(good, topic);
    uint64_t last = next;
    assert_true(send_until_heard(p, good, &next) >= last);
    while (send_until_heard(p, silent, &next) < last)
        kept++;
    assert_in_range(kept, DYN_PUB_QUEUED / 2, MESSAGES / 2); /* room is made by halves */
    close(good);
    close(silent);
    dyn_pub_destroy(p);
    assert_int_equal(mem_live(), 0);
}

static bool is_cut_off(int fd)
{
    char sink[4096];
    ssize_t n;
    while ((n = recv(fd, sink, sizeof sink, 0)) > 0)
        ;
    return n == 0 || errno == ECONNRESET;
}

/* A mechanism that there is not, a frame of 2^40 bytes, a topic of more than anybody has. */
static void who_says_what_no_subscriber_says_is_cut_off(void **state)
{
    (void)state;
    struct dyn_pub *p = open_pub();
    static char junk[1024];
    uint64_t next = 0;
    int good = subscriber(p), bad[3] = {reach(p), subscriber(p), subscriber(p)};
    memset(junk, 'x', sizeof junk);
    subscribe(good, topic);
    char greeting[64] = {[0] = '\xff', [9] = '\x7f', [10] = 3, [12] = 'W', 'H', 'A', 'T'};
    assert_int_equal(send(bad[0], greeting, sizeof greeting, MSG_NOSIGNAL), sizeof greeting);
    assert_int_equal(send(bad[1], "\2\0\0\1\0\0\0\0\0\1", 10, MSG_NOSIGNAL), 10);
    assert_int_equal(send(bad[2], "\2\0\0\0\0\0\0\2\0\1", 10, MSG_NOSIGNAL), 10);
    send(bad[2], junk, 511, MSG_NOSIGNAL);
    for (int i = 0; i < 3; i++) {
        assert_true(is_cut_off(bad[i]));
        close(bad[i]);
    }
    send_until_heard(p, good, &next);
    close(good);
    dyn_pub_destroy(p);
    assert_int_equal(mem_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_does_not_read_has_a_bounded_queue),
        cmocka_unit_test(who_says_what_no_subscriber_says_is_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
