/* gpu.h over the emulation: everything is as late as the contract allows, and what the contract forbids is reported. */
extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
}

#include "launch.h"

#include <string.h>

enum { SEEDS = 60, WORDS = 64, BYTES = 4 * WORDS };

/* A gpu with two streams, an event, device and pinned memory. */
struct rig {
    struct gpu *g;
    struct gpu_stream *a, *b;
    struct gpu_event *event;
    uint32_t *dev, *dev2, *host, *host2;
};

static int rig_open(struct rig *r)
{
    memset(r, 0, sizeof *r);
    if (gpu_open(&r->g, NULL))
        return ST_EDEVICE;
    int rc = gpu_stream_create(r->g, &r->a);
    rc = rc ? rc : gpu_stream_create(r->g, &r->b);
    rc = rc ? rc : gpu_event_create(r->g, true, &r->event);
    r->dev = (uint32_t *)gpu_alloc(r->g, BYTES);
    r->dev2 = (uint32_t *)gpu_alloc(r->g, BYTES);
    r->host = (uint32_t *)gpu_host_alloc(r->g, BYTES);
    r->host2 = (uint32_t *)gpu_host_alloc(r->g, BYTES);
    return rc ? rc : r->dev && r->dev2 && r->host && r->host2 ? ST_OK : ST_ENOMEM;
}

static void rig_close(struct rig *r)
{
    if (!r->g)
        return;
    gpu_stream_destroy(r->a);
    gpu_stream_destroy(r->b);
    gpu_event_destroy(r->event);
    gpu_free(r->g, r->dev);
    gpu_free(r->g, r->dev2);
    gpu_host_free(r->g, r->host);
    gpu_host_free(r->g, r->host2);
    gpu_close(r->g);
}

struct adding {
    uint32_t *x;
    uint32_t by;
};

PTX_KERNEL(WORDS, 1) adding_kernel(PTX_PARAM(struct adding) p)
{
    ptx_pdl_wait();
    p.x[threadIdx.x] += p.by;
}

static int add(struct gpu_stream *s, uint32_t *x, uint32_t by)
{
    struct adding p = {x, by};
    return gpu_launch(s, "adding", adding_kernel, dim3(1), WORDS, 0, true, p);
}

static void fill(uint32_t *p, uint32_t v)
{
    for (int i = 0; i < WORDS; i++)
        p[i] = v;
}

static void a_copy_reads_its_source_late(void **)
{
    int old = 0, changed = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct rig r;
        simt_seed(seed);
        assert_int_equal(rig_open(&r), ST_OK);
        fill(r.host, 1);
        assert_int_equal(gpu_copy(r.a, r.dev, r.host, BYTES), ST_OK);
        fill(r.host, 2); /* too early */
        assert_int_equal(gpu_copy(r.a, r.host2, r.dev, BYTES), ST_OK);
        assert_int_equal(gpu_stream_sync(r.a), ST_OK);
        old += r.host2[0] == 1;
        changed += r.host2[0] == 2;
        rig_close(&r);
    }
    assert_int_equal(old + changed, SEEDS);
    assert_true(old > 0 && changed > SEEDS / 4);
}

static void only_events_order_streams(void **)
{
    int wrong = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        for (int ordered = 0; ordered < 2; ordered++) {
            struct rig r;
            simt_seed(seed);
            assert_int_equal(rig_open(&r), ST_OK);
            assert_int_equal(gpu_event_poll(r.event), 1); /* nothing was recorded */
            assert_int_equal(add(r.a, r.dev, 3), ST_OK);
            assert_int_equal(gpu_event_record(r.event, r.a), ST_OK);
            if (ordered)
                assert_int_equal(gpu_stream_wait(r.b, r.event), ST_OK);
            assert_int_equal(gpu_copy(r.b, r.host, r.dev, BYTES), ST_OK);
            assert_int_equal(gpu_stream_sync(r.b), ST_OK);
            if (ordered)
                assert_int_equal(gpu_event_poll(r.event), 1);
            assert_true(r.host[WORDS - 1] == 3 || (!ordered && r.host[WORDS - 1] == 0));
            wrong += r.host[0] != 3;
            int polls = 0;
            while (gpu_event_poll(r.event) == 0)
                assert_true(++polls < 1000);
            rig_close(&r);
        }
    assert_true(wrong > SEEDS / 10);
}

static void a_graph_runs_what_was_recorded(void **)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct rig r;
        struct gpu_graph *h;
        double us;
        simt_seed(seed);
        assert_int_equal(rig_open(&r), ST_OK);
        assert_int_equal(gpu_capture_begin(r.a), ST_OK);
        assert_int_equal(gpu_copy(r.a, r.dev, r.host, BYTES), ST_OK);
        assert_int_equal(add(r.a, r.dev, 5), ST_OK);
        assert_int_equal(gpu_zero(r.a, r.host, 4), ST_OK);
        assert_int_equal(gpu_copy(r.a, r.host2, r.dev, BYTES), ST_OK);
        assert_int_equal(gpu_capture_end(r.a, &h), ST_OK);
        assert_int_equal(gpu_graph_nodes(h), 4);
        assert_int_equal(gpu_stream_sync(r.a), ST_OK);
        assert_int_equal(r.host2[0], 0xffffffffu);
        for (uint32_t i = 0; i < 3; i++) {
            struct gpu_event *begin;
            fill(r.host, i);
            assert_int_equal(gpu_event_create(r.g, true, &begin), ST_OK);
            assert_int_equal(gpu_event_record(begin, r.b), ST_OK);
            assert_int_equal(gpu_event_wait(begin), ST_OK);
            assert_int_equal(gpu_graph_launch(h, i % 2 ? r.a : r.b), ST_OK);
            assert_int_equal(gpu_event_record(r.event, i % 2 ? r.a : r.b), ST_OK);
            assert_int_equal(gpu_event_wait(r.event), ST_OK);
            assert_int_equal(r.host2[7], i + 5);
            assert_int_equal(r.host[0], 0);
            assert_int_equal(gpu_event_us(begin, r.event, &us), ST_OK);
            assert_true(us > 0);
            gpu_event_destroy(begin);
        }
        gpu_graph_destroy(h);
        rig_close(&r);
    }
    assert_int_equal(gpu_sim_live(), 0);
}

/* What CUDA answers with an error: the gpu is sticky and says which call. */
static void refused_calls_are_sticky(void **)
{
    for (int what = 0; what < 5; what++) {
        struct rig r;
        struct gpu_graph *h = NULL;
        struct adding p = {};
        double us;
        assert_int_equal(rig_open(&r), ST_OK);
        p.x = r.dev;
        const char *say = "";
        if (what == 0) {
            say = "adding: too much shared memory";
            assert_int_equal(gpu_launch(r.a, "adding", adding_kernel, dim3(1), WORDS, 300 * 1024, true, p), ST_EDEVICE);
        } else if (what == 1) {
            say = "adding: invalid configuration";
            assert_int_equal(gpu_launch(r.a, "adding", adding_kernel, dim3(0), WORDS, 0, true, p), ST_EDEVICE);
        } else if (what == 2) {
            say = "gpu_stream_sync: operation not permitted";
            assert_int_equal(gpu_capture_begin(r.a), ST_OK);
            assert_int_equal(gpu_stream_sync(r.a), ST_EDEVICE);
            assert_int_equal(gpu_capture_end(r.a, &h), ST_EDEVICE);
        } else if (what == 3) {
            say = "gpu_event_us";
            assert_int_equal(gpu_event_us(r.event, r.event, &us), ST_EDEVICE);
        } else {
            say = "lin: broken";
            assert_int_equal(gpu_fail(r.g, "lin", "broken"), ST_EDEVICE);
            assert_int_equal(gpu_fail(r.g, "later", "too"), ST_EDEVICE);
        }
        assert_null(h);
        assert_non_null(strstr(gpu_failure(r.g), say));
        assert_int_equal(gpu_stream_sync(r.a), ST_EDEVICE);
        assert_int_equal(gpu_event_poll(r.event), ST_EDEVICE);
        rig_close(&r);
    }
}

static void copies_outside_are_reported(void **)
{
    uint32_t mine[WORDS];
    for (int what = 0; what < 5; what++) {
        struct rig r;
        assert_int_equal(rig_open(&r), ST_OK);
        simt_catch();
        if (what == 0)
            gpu_copy(r.a, r.dev + 1, r.host, BYTES);
        else if (what == 1)
            gpu_copy(r.a, r.dev, mine, BYTES); /* not pinned */
        else if (what == 2)
            gpu_zero(r.a, r.dev, BYTES + 1);
        else if (what == 3)
            gpu_free(r.g, r.host);
        else
            gpu_free(r.g, mine);
        assert_non_null(simt_caught());
        rig_close(&r);
    }
    simt_catch(); /* freed before the stream has passed it */
    struct rig r;
    simt_seed(3);
    assert_int_equal(rig_open(&r), ST_OK);
    for (int i = 0; i < 20; i++)
        gpu_copy(r.a, r.dev, r.host, BYTES);
    gpu_free(r.g, r.dev);
    r.dev = NULL;
    assert_int_equal(gpu_stream_sync(r.a), ST_EDEVICE);
    assert_non_null(simt_caught());
    rig_close(&r);
}

/* Every call may fail; the program that gives up then leaks nothing. */
static void every_call_can_fail(void **)
{
    uint32_t n = 1;
    for (bool whole = false; !whole && n < 100; n++) {
        struct rig r;
        gpu_sim_fail_after(n);
        int rc = rig_open(&r);
        if (rc == ST_OK) {
            fill(r.host, 1);
            uint64_t total, left;
            int polled = 0;
            rc = gpu_memory(r.g, &left, &total);
            rc = rc ? rc : gpu_copy(r.a, r.dev, r.host, BYTES);
            rc = rc ? rc : add(r.a, r.dev, 1);
            rc = rc ? rc : gpu_event_record(r.event, r.a);
            while (rc == ST_OK && (polled = gpu_event_poll(r.event)) == 0)
                ;
            rc = rc ? rc : polled < 0 ? polled : gpu_stream_sync(r.a);
            whole = rc == ST_OK;
            assert_true(whole || (rc == ST_EDEVICE && strstr(gpu_failure(r.g), "injected")));
        }
        rig_close(&r);
        assert_int_equal(gpu_sim_live(), 0);
    }
    gpu_sim_fail_after(0);
    assert_in_range(n, 12, 99);
}

static void memory_ends(void **)
{
    struct gpu *g;
    struct err e;
    uint64_t left, total;
    gpu_sim_memory(1000);
    assert_int_equal(gpu_open(&g, NULL), ST_OK);
    void *p = gpu_alloc(g, 900);
    assert_non_null(p);
    assert_null(gpu_alloc(g, 101));
    assert_null(gpu_failure(g));
    assert_int_equal(gpu_memory(g, &left, &total), ST_OK);
    assert_int_equal(left, 100);
    gpu_free(g, p);
    gpu_free(g, NULL);
    gpu_close(g);
    gpu_sim_memory(8ull << 30);
    gpu_sim_device(0);
    assert_int_equal(gpu_open(&g, &e), ST_EUNSUP);
    gpu_sim_device(80);
    assert_int_equal(gpu_open(&g, NULL), ST_OK);
    assert_int_equal(gpu_info(g)->cc, 80);
    gpu_close(g);
    gpu_sim_device(90);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_reads_its_source_late),   cmocka_unit_test(only_events_order_streams),
        cmocka_unit_test(a_graph_runs_what_was_recorded), cmocka_unit_test(refused_calls_are_sticky),
        cmocka_unit_test(copies_outside_are_reported),    cmocka_unit_test(every_call_can_fail),
        cmocka_unit_test(memory_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
