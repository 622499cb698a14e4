/* How a server ends: what runs may finish, within a time; nothing new begins; whichever door it came through. */
#define _GNU_SOURCE
#include "server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/eventfd.h>

#include <cmocka.h>

static void a_drain_finishes_what_runs(void **state)
{
    (void)state;
    struct server d;
    server_options(&d);
    server_start(&d);
    atomic_store(&d.engine->hold, 1);
    int fd = client_open(&d), idle = client_open(&d);
    client_post(fd, "/v1/completions", "{\"prompt\":\"ab\"}", "");
    assert_true(wait_for(&d.engine->submits, 1));
    http_drain(d.http);
    struct buf b = {0};
    for (int i = 0; i < 200 && !(b.p && strstr(b.p, "503"));
         i++) { /* the loop sees the wish in its next turn */
        buf_fini(&b);
        b = exchange(&d, "GET", "/v1/health/ready", "", (struct str){0});
    }
    assert_has(b, "{\"status\":\"draining\"}");
    buf_fini(&b);
    b = exchange(&d, "GET", "/v1/health/live", "", (struct str){0});
    assert_has(b, "HTTP/1.1 200 OK");
    buf_fini(&b);
    client_post(idle, "/v1/completions", "{\"prompt\":\"ab\"}", "");
    client_read(idle, &b, "}}");
    assert_has(b, "HTTP/1.1 503 ");
    buf_fini(&b);
    atomic_store(&d.engine->hold, 0);
    client_read(fd, &b, "}}}");
    assert_has(b, "\"text\":\"ab\"");
    buf_fini(&b);
    server_join(&d);
    assert_int_equal(d.run_status, ST_OK);
    close(fd);
    close(idle);
}

static void a_drain_ends_what_does_not_finish(void **state)
{
    (void)state;
    struct server d;
    server_options(&d);
    d.o.drain_timeout_ms = 30;
    server_start(&d);
    atomic_store(&d.engine->hold, 1);
    int fd = client_open(&d), fd2 = client_open(&d);
    client_post(fd, "/v1/completions", "{\"prompt\":\"ab\"}", "");
    client_post(fd2, "/v1/completions", "{\"prompt\":\"ab\",\"stream\":true}", "");
    assert_true(wait_for(&d.engine->submits, 2));
    http_drain(d.http);
    struct buf b = {0};
    client_read(fd, &b, "}}");
    assert_has(b, "HTTP/1.1 503 ");
    buf_fini(&b);
    client_read(fd2, &b, "[DONE]");
    assert_has(b, "data: {\"error\":{\"message\":\"The server is shutting down\"");
    buf_fini(&b);
    server_join(&d);
    assert_int_equal(d.run_status, ST_OK);
    close(fd);
    close(fd2);
}

static void a_stop_ends_what_runs_at_once(void **state)
{
    (void)state;
    struct server d;
    server_options(&d);
    server_start(&d);
    atomic_store(&d.engine->hold, 1);
    int fd = client_open(&d);
    client_post(fd, "/v1/completions", "{\"prompt\":\"ab\",\"stream\":true}", "");
    assert_true(wait_for(&d.engine->submits, 1));
    server_stop(&d);
    assert_int_equal(d.run_status, ST_OK);
    struct buf b = {0};
    client_read(fd, &b, "[DONE]");
    assert_has(b, "data: {\"error\":{\"message\":\"The server is shutting down\"");
    buf_fini(&b);
    close(fd);
}

static void a_failed_engine_ends_the_server(void **state)
{
    (void)state;
    struct server d;
    server_options(&d);
    server_start(&d);
    atomic_store(&d.engine->device_failed, true);
    int fd = client_open(&d); /* any event turns the loop */
    server_join(&d);
    assert_int_equal(d.run_status, ST_EDEVICE);
    close(fd);
}

static void count(void *ctx)
{
    atomic_fetch_add((_Atomic uint64_t *)ctx, 1);
}

static void a_failure_is_told_before_the_last_client_left(void **state)
{
    (void)state;
    struct server d;
    _Atomic uint64_t told = 0;
    server_options(&d);
    d.o.on_failed = count;
    d.o.on_failed_ctx = &told;
    server_start(&d);
    atomic_store(&d.engine->hold, 1);
    int fd = client_open(&d);
    client_post(fd, "/v1/completions", "{\"prompt\":\"ab\",\"stream\":true}", "");
    assert_true(wait_for(&d.engine->submits, 1));
    atomic_store(&d.engine->device_failed, true);
    struct buf b = exchange(&d, "GET", "/v1/health/live", "", (struct str){0}); /* turns the loop, and again */
    buf_fini(&b);
    b = exchange(&d, "GET", "/v1/health/live", "", (struct str){0});
    assert_has(b, "HTTP/1.1 503 ");
    assert_has(b, "{\"status\":\"failed\"}");
    buf_fini(&b);
    assert_int_equal(atomic_load(&told), 1);
    atomic_store(&d.engine->hold, 0);
    client_read(fd, &b, "[DONE]");
    buf_fini(&b);
    server_join(&d);
    assert_int_equal(d.run_status, ST_EDEVICE);
    assert_int_equal(atomic_load(&told), 1);
    close(fd);
}

/* What is attached to the loop uses the ledger beside us, and has nothing of its own to wait for. */
static struct side {
    struct ledger *ledger;
    bool asked;
    _Atomic uint32_t ends;
    int fd;
} side;

static void on_event(void *ctx, uint32_t tag, const struct engine_event *ev)
{
    struct side *x = ctx;
    (void)tag;
    atomic_fetch_add(&x->ends, ev->type == ENGINE_END);
}

static int run(void *ctx, int64_t now_ns)
{
    struct side *x = ctx;
    const int32_t prompt[] = {'a', 'b'};
    const struct engine_request r = {
        .prompt = prompt, .n_prompt = 2, .max_tokens = 5, .n_logprobs = -1, .arrival_ns = now_ns};
    const struct ledger_name name = {.door = LEDGER_DYNAMO, .id = "other"};
    uint32_t slot, gen;
    if (!x->asked)
        assert_int_equal(
            ledger_submit(x->ledger, &r, &name, &(struct ledger_owner){on_event, x, 0}, &slot, &gen, NULL),
            ST_OK);
    x->asked = true;
    return -1;
}

static void nothing(void *ctx)
{
    (void)ctx;
}

static void nothing_at(void *ctx, int64_t now_ns)
{
    (void)ctx;
    (void)now_ns;
}

static bool idle(void *ctx)
{
    (void)ctx;
    return true;
}

static void attach(struct http *h)
{
    assert_int_equal(
        http_attach(h, &(struct http_side){&side, side.fd, run, nothing_at, nothing, idle}, NULL), ST_OK);
}

static void a_drain_waits_for_the_other_door(void **state)
{
    (void)state;
    struct server d;
    server_options(&d);
    side = (struct side){.ledger = d.ledger, .fd = eventfd(0, EFD_CLOEXEC)};
    d.attach = attach;
    atomic_store(&d.engine->hold, 1);
    server_start(&d);
    assert_true(wait_for(&d.engine->submits, 1));
    http_drain(d.http);
    struct buf b = {0};
    for (int i = 0; i < 200 && !(b.p && strstr(b.p, "503")); i++) {
        buf_fini(&b);
        b = exchange(&d, "GET", "/v1/health/ready", "", (struct str){0});
    }
    assert_has(b, "{\"status\":\"draining\"}");
    buf_fini(&b);
    b = exchange(&d, "GET", "/v1/stator/queue", "", (struct str){0});
    assert_has(b, "\"id\":\"other\",\"choice\":0,\"via\":\"dynamo\"");
    buf_fini(&b);
    b = post(&d, "/v1/completions", "{\"prompt\":\"ab\"}");
    assert_has(b, "HTTP/1.1 503 ");
    buf_fini(&b);
    assert_int_equal(atomic_load(&side.ends), 0);
    atomic_store(&d.engine->hold, 0);
    server_join(&d);
    assert_int_equal(d.run_status, ST_OK);
    assert_int_equal(atomic_load(&side.ends), 1);
    close(side.fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_drain_finishes_what_runs),
        cmocka_unit_test(a_drain_ends_what_does_not_finish),
        cmocka_unit_test(a_stop_ends_what_runs_at_once),
        cmocka_unit_test(a_drain_waits_for_the_other_door),
        cmocka_unit_test(a_failed_engine_ends_the_server),
        cmocka_unit_test(a_failure_is_told_before_the_last_client_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
