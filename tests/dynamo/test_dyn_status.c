#define _GNU_SOURCE
/* Goal: probes get what Dynamo's own workers answer, metrics add up and are well formed, and of the disk only the card's
 *       files can be read.
 * Method: the server on loopback, run by hand from the client's thread; engine and store are stood in for by this file. */
#include "clock.h"
#include "dyn_status.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

static bool registered, engine_failed;

bool dyn_store_registered(const struct dyn_store *s)
{
    (void)s;
    return registered;
}

void engine_stats(const struct engine *g, struct engine_stats *out)
{
    (void)g;
    *out = (struct engine_stats){.blocks_total = 100, .blocks_free = 75, .failed = engine_failed};
}

static const struct dyn_self self = {.name_space = "ns",
                                     .component = "c",
                                     .endpoint = "generate",
                                     .instance = 0xabc,
                                     .address = "x",
                                     .device = "cpu"};
static struct dyn_count count;
static struct dyn_files files;
static struct sockaddr_in address;

static struct dyn_status *start(void)
{
    socklen_t n = sizeof address;
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_true(bind(fd, (struct sockaddr *)&address, n) == 0 && listen(fd, 8) == 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    const struct dyn_status_options o = {
        .listen_fd = fd, .self = &self, .count = &count, .files = &files, .model = "m\"x"};
    struct dyn_status *s = NULL;
    struct err e = {0};
    assert_int_equal(dyn_status_create(&s, &o, &e), ST_OK);
    return s;
}

static void ask(struct dyn_status *s, const char *line, char *reply, size_t cap)
{
    struct buf request = {0};
    size_t n = 0;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    buf_printf(&request, "%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", line);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(send(fd, request.p, request.n, 0), request.n);
    for (ssize_t got = 1; got != 0;) {
        dyn_status_run(s);
        got = recv(fd, reply + n, cap - 1 - n, MSG_DONTWAIT);
        n += got > 0 ? (size_t)got : 0;
    }
    reply[n] = 0;
    close(fd);
    buf_fini(&request);
}

static void assert_reply(struct dyn_status *s, const char *line, const char *status, const char *part)
{
    static char reply[1 << 16];
    ask(s, line, reply, sizeof reply);
    if (strncmp(reply, status, strlen(status)) != 0 || !strstr(reply, part))
        fail_msg("%s: %s", line, reply);
}

static void probes_follow_the_store(void **state)
{
    (void)state;
    struct dyn_status *s = start();
    registered = false;
    assert_reply(s, "GET /health", "HTTP/1.1 503", "\"status\":\"notready\"");
    assert_reply(s, "GET /live", "HTTP/1.1 200", "\"status\":\"ready\"");
    registered = engine_failed = true;
    assert_reply(s, "GET /health", "HTTP/1.1 503", "\"status\":\"notready\"");
    engine_failed = false;
    assert_reply(s, "GET /health", "HTTP/1.1 200", "\"endpoints\":{\"generate\":\"ready\"}}");
    assert_reply(s, "GET /metadata", "HTTP/1.1 200", "\"model\":\"m\\\"x\",\"instance_id\":2748");
    assert_reply(s, "POST /health", "HTTP/1.1 405", "GET only");
    dyn_status_destroy(s);
    assert_int_equal(mem_live(), 0);
}

static void only_the_cards_files_are_served(void **state)
{
    (void)state;
    char path[] = "/tmp/stator_card_XXXXXX";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, "{\"a\":1}", 7), 7);
    close(fd);
    files.f[DYN_FILE_CONFIG] = (struct dyn_file){.path = path, .size = 7};
    struct dyn_status *s = start();
    assert_reply(s, "GET /v1/stator/model/config.json", "HTTP/1.1 200", "\r\n\r\n{\"a\":1}");
    static const char *const no[] = {"GET /v1/stator/model/tokenizer.json",
                                     "GET /v1/stator/model/../../../etc/passwd",
                                     "GET /",
                                     "GET /v1/stator/model/",
                                     "GET /v1/stator/model//etc/passwd",
                                     "GET /config.json"};
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        assert_reply(s, no[i], "HTTP/1.1 404", "not found");
    dyn_status_destroy(s);
    unlink(path);
    assert_int_equal(mem_live(), 0);
}

static void metrics_add_up(void **state)
{
    (void)state;
    count = (struct dyn_count){0};
    dyn_count_begin(&count, 100);
    dyn_count_begin(&count, 11);
    dyn_count_begin(&count, 0);
    dyn_count_end(&count, 5 * NS_PER_MS);
    dyn_count_end(&count, (int64_t)1000 * NS_PER_S);
    count.errors[DYN_ERROR_GENERATE] = 4;
    struct dyn_status *s = start();
#define LABELS                                                                                             \
    "dynamo_namespace=\"ns\",dynamo_component=\"c\",dynamo_endpoint=\"generate\",worker_id=\"abc\",model=" \
    "\"m\\\"x\""
    static const char *const lines[] = {
        "\ndynamo_component_requests_total{" LABELS "} 3\n",
        "\ndynamo_component_request_bytes_total{" LABELS "} 111\n",
        "\ndynamo_component_inflight_requests{" LABELS "} 1\n",
        "\ndynamo_component_request_duration_seconds_bucket{" LABELS ",le=\"0.005\"} 1\n",
        "\ndynamo_component_request_duration_seconds_bucket{" LABELS ",le=\"300\"} 1\n",
        "\ndynamo_component_request_duration_seconds_bucket{" LABELS ",le=\"+Inf\"} 2\n",
        "\ndynamo_component_request_duration_seconds_sum{" LABELS "} 1000.005\n",
        "\ndynamo_component_errors_total{" LABELS ",error_type=\"generate\"} 4\n",
        "\ndynamo_component_gpu_cache_usage_percent{" LABELS "} 0.25\n",
        "\ndynamo_component_total_blocks{" LABELS "} 100\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        assert_reply(s, "GET /metrics", "HTTP/1.1 200", lines[i]);
    dyn_status_destroy(s);
    assert_int_equal(mem_live(), 0);
}

/* Half of a request each, and no more: they are the ones who wait, not the probe. */
static void a_probe_always_finds_a_place(void **state)
{
    enum { CROWD = 3 * DYN_STATUS_CONNECTIONS };
    static int crowd[CROWD];
    (void)state;
    struct dyn_status *s = start();
    registered = true;
    for (int i = 0; i < CROWD; i++) {
        crowd[i] = socket(AF_INET, SOCK_STREAM, 0);
        assert_int_equal(connect(crowd[i], (struct sockaddr *)&address, sizeof address), 0);
        assert_int_equal(send(crowd[i], "GET /hea", 8, 0), 8);
        dyn_status_run(s);
        if (i % 16 == 0)
            assert_reply(s, "GET /health", "HTTP/1.1 200", "\"status\":\"ready\"");
    }
    assert_reply(s, "GET /live", "HTTP/1.1 200", "\"status\":\"ready\"");
    char c;
    int open = 0;
    for (int i = 0; i < CROWD; i++) {
        open += recv(crowd[i], &c, 1, MSG_DONTWAIT) < 0;
        close(crowd[i]);
    }
    assert_in_range(open, DYN_STATUS_CONNECTIONS / 2, DYN_STATUS_CONNECTIONS);
    dyn_status_destroy(s);
    assert_int_equal(mem_live(), 0);
}

/* It is told so, or just closed on; either way before it is through. */
static void a_line_without_end_is_not_kept(void **state)
{
    (void)state;
    static char line[4096], reply[512];
    struct dyn_status *s = start();
    memset(line, 'a', sizeof line);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    bool open = true;
    for (int i = 0; i < 100000 && open; i++) {
        ssize_t sent = send(fd, line, sizeof line, MSG_DONTWAIT | MSG_NOSIGNAL);
        open = sent >= 0 || errno == EAGAIN;
        dyn_status_run(s);
        ssize_t n = recv(fd, reply, sizeof reply, MSG_DONTWAIT);
        open = open && (n > 0 || (n < 0 && errno == EAGAIN));
    }
    assert_false(open);
    close(fd);
    dyn_status_destroy(s);
    assert_int_equal(mem_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probes_follow_the_store),
        cmocka_unit_test(a_probe_always_finds_a_place),
        cmocka_unit_test(a_line_without_end_is_not_kept),
        cmocka_unit_test(only_the_cards_files_are_served),
        cmocka_unit_test(metrics_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
