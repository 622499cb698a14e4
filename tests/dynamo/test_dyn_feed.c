#define _GNU_SOURCE
/* Goal: events leave from an address that routers can reach, whatever form the configuration gives it.
 * Method: the real library of ZeroMQ (skipped where it is not there); engine, plane and store are stood in for by this file. */
#include "dyn_feed.h"
#include "dyn_plane.h"
#include "engine_kv.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

uint32_t engine_kv_nodes(const struct engine *g)
{
    (void)g;
    return 16;
}

bool engine_kv_pop(struct engine *g, struct kv_event *out)
{
    (void)g;
    (void)out;
    return false;
}

int engine_kv_fd(const struct engine *g)
{
    (void)g;
    return -1;
}

bool engine_kv_sleep(struct engine *g)
{
    (void)g;
    return true;
}

void engine_kv_drain_fd(struct engine *g)
{
    (void)g;
}

void engine_stats(const struct engine *g, struct engine_stats *out)
{
    (void)g;
    *out = (struct engine_stats){0};
}

int dyn_plane_serve(struct dyn_plane *p, const struct dyn_endpoint *endpoint)
{
    (void)p;
    (void)endpoint;
    return ST_OK;
}

uint64_t dyn_store_random_instance(void)
{
    return 1 << 20;
}

static char channel[1024]; /* the record of an event channel, published last */

int dyn_store_publish(struct dyn_store *s, struct dyn_record *r)
{
    (void)s;
    if (r->bucket == DYN_EVENT_CHANNELS)
        snprintf(channel, sizeof channel, "%.*s", (int)r->value.n, r->value.p);
    buf_fini(&r->key);
    buf_fini(&r->value);
    return ST_OK;
}

/* The address that routers are told of a feed whose host is `host`. */
static struct dyn_feed *open_feed(const char *host, char *told, size_t cap)
{
    static const struct dyn_self self = {.name_space = "dynamo",
                                         .component = "backend",
                                         .endpoint = "generate",
                                         .instance = 7,
                                         .address = "127.0.0.1:1",
                                         .device = "cpu"};
    const struct dyn_feed_options o = {.worker = 7, .host = host};
    struct dyn_feed *f = NULL;
    struct err e = {0};
    int st = dyn_feed_create(&f, &o, &e);
    if (st == ST_EUNSUP) {
        print_message("%s\n", e.text);
        skip();
    }
    if (st)
        fail_msg("%s: %s", host, e.text);
    assert_int_equal(dyn_feed_join(f, &self, NULL, NULL, &e), ST_OK);
    const char *at = strstr(channel, "tcp://");
    assert_non_null(at);
    snprintf(told, cap, "%.*s", (int)strcspn(at, "\""), at);
    return f;
}

static bool answers(uint16_t port)
{
    const struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool well = connect(fd, (const struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return well;
}

/* ZeroMQ resolves no name to bind to; and where localhost is ::1 first, a router would find nobody there. */
static void localhost_is_127_0_0_1(void **state)
{
    (void)state;
    static const char *const hosts[] = {"localhost", "127.0.0.1"};
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        char told[64];
        struct dyn_feed *f = open_feed(hosts[i], told, sizeof told);
        assert_memory_equal(told, "tcp://127.0.0.1:", 16);
        assert_true(answers((uint16_t)strtoul(told + 16, NULL, 10)));
        dyn_feed_destroy(f);
    }
    assert_int_equal(mem_live(), 0);
}

static void a_name_is_told_as_it_is(void **state)
{
    (void)state;
    char told[64];
    struct dyn_feed *f = open_feed("worker-3.example", told, sizeof told);
    assert_memory_equal(told, "tcp://worker-3.example:", 23);
    assert_true(answers((uint16_t)strtoul(told + 23, NULL, 10)));
    dyn_feed_destroy(f);
    assert_int_equal(mem_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(localhost_is_127_0_0_1),
        cmocka_unit_test(a_name_is_told_as_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
