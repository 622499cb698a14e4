/* Goal: a router that follows the stream, loses some of it, or comes late, holds the worker's index. Method: random use of a
 * small cache with a host tier (kv_play.h); what would go over the wire goes to routers that check each rule (dyn_router.h):
 * one that hears all, one that misses messages and asks, fresh ones that ask for the tree. A seed as argument, or in
 * STATOR_TEST_SEED, replays. */
#include <stdlib.h>

#include "dyn_router.h"
#include "kvcache/kv_play.h"

#include "dyn_pub.h"
#include "dyn_recovery.h"
#include "mem.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static uint64_t seed_given;
static struct router live, lossy, fresh;

/* The picture and the index are the same, block by block, tier by tier. */
static void router_compare(struct router *r, struct play *w)
{
    uint32_t n[KV_TIERS] = {0};
    for (uint32_t i = 0; i < kv_prefix_nodes(w->x); i++) {
        bool has[KV_TIERS] = {0};
        const struct kv_node *node = play_node(w, i, &has[KV_TIER_DEVICE], &has[KV_TIER_HOST]);
        for (int tier = 0; node && tier < KV_TIERS; tier++) {
            if (!has[tier])
                continue;
            const struct play_name *want = play_find(w, &node->id);
            assert_non_null(want);
            const struct router_block *b = router_find(r, tier, want->name);
            assert_non_null(b);
            assert_true(b->content == want->content && b->first == want->first &&
                        b->parent == want->parent_name);
            n[tier]++;
        }
    }
    assert_int_equal(n[0], r->n[0]);
    assert_int_equal(n[1], r->n[1]);
}

/* ---- asking --------------------------------------------------------------------------------------------------------- */

static struct dyn_msgpack ask(struct dyn_events *d, int64_t start, int64_t end, struct buf *reply)
{
    struct buf q = {0};
    dyn_msgpack_put_map(&q, 4);
    dyn_msgpack_put_key(&q, "worker_id");
    dyn_msgpack_put_uint(&q, ROUTER_WORKER);
    dyn_msgpack_put_key(&q, "start_event_id");
    if (start < 0)
        dyn_msgpack_put_nil(&q);
    else
        dyn_msgpack_put_uint(&q, (uint64_t)start);
    dyn_msgpack_put_key(&q, "end_event_id");
    if (end < 0)
        dyn_msgpack_put_nil(&q);
    else
        dyn_msgpack_put_uint(&q, (uint64_t)end);
    dyn_msgpack_put_key(&q, "kind");
    dyn_msgpack_put_key(&q, "recovery");
    buf_reset(reply);
    dyn_recovery_answer(d, (const uint8_t *)q.p, q.n, reply);
    buf_fini(&q);
    assert_int_equal(reply->failed, ST_OK);
    struct dyn_msgpack m = dyn_msgpack_of(reply->p, reply->n), end_of = m;
    assert_int_equal(dyn_msgpack_skip(&end_of), ST_OK);
    assert_true(dyn_msgpack_end(&end_of));
    return m;
}

static bool is(const struct dyn_msgpack *answer, const char *what)
{
    struct dyn_msgpack at;
    return dyn_msgpack_get(answer, what, &at);
}

static void take_tree(struct router *r, const struct dyn_msgpack *answer)
{
    struct dyn_msgpack dump = router_get(answer, "TreeDump"), events = router_get(&dump, "events");
    assert_true(str_eqz(router_value(&dump, "reset_scope").s, "all"));
    *r = (struct router){.cursor = router_uint(&dump, "last_event_id")};
    router_hear(r, &events, 0);
}

/* As a router does it: from behind what it knows; and takes what comes. */
static void recover(struct router *r, struct dyn_events *d)
{
    struct buf reply = {0};
    struct dyn_msgpack m = ask(d, (int64_t)r->cursor + 1, -1, &reply);
    if (is(&m, "TreeDump")) {
        take_tree(r, &m);
    } else if (is(&m, "Events")) {
        struct dyn_msgpack events = router_get(&m, "Events"), list = router_get(&events, "events");
        r->cursor += router_hear(r, &list, r->cursor + 1);
        assert_true(r->cursor == router_uint(&events, "last_event_id"));
    } else {
        assert_true(is(&m, "TooNew"));
    }
    buf_fini(&reply);
}

/* ---- the random test -------------------------------------------------------------------------------------------------- */

struct stage {
    struct play w;
    struct dyn_events *d;
    uint64_t sent;
};

static void take_some(struct stage *s, uint32_t n)
{
    struct kv_event ev;
    while (n-- > 0 && kv_events_pop(s->w.v, &ev))
        dyn_events_take(s->d, &ev);
}

static void publish(struct stage *s)
{
    uint64_t last = dyn_events_range(s->d).last;
    struct buf b = {0};
    while (s->sent < last) {
        uint64_t n = dyn_events_fit(s->d, s->sent + 1, last, 1 + play_rnd(&s->w, 40));
        assert_true(n >= 1 && s->sent + n <= last);
        buf_reset(&b);
        dyn_events_put(s->d, s->sent + 1, s->sent + n, &b);
        assert_int_equal(b.failed, ST_OK);
        router_live(&live, buf_str(&b));
        if (lossy.cursor == s->sent && play_rnd(&s->w, 8) != 0)
            router_live(&lossy, buf_str(&b)); /* otherwise it sees a gap, and asks later */
        s->sent += n;
    }
    buf_fini(&b);
}

static void compare(struct stage *s)
{
    struct buf reply = {0};
    do {
        kv_events_flush(s->w.v);
        take_some(s, UINT32_MAX);
    } while (kv_events_behind(s->w.v));
    if (play_rnd(&s->w, 2))
        publish(s);
    /* What has a number and was not sent is in the tree. */
    struct dyn_msgpack m = ask(s->d, -1, -1, &reply);
    take_tree(&fresh, &m);
    router_compare(&fresh, &s->w);
    publish(s);
    router_compare(&live, &s->w);
    assert_true(live.cursor == s->sent);
    if (lossy.cursor < s->sent)
        recover(&lossy, s->d);
    router_compare(&lossy, &s->w);
    assert_int_equal(dyn_events_blocks(s->d, KV_TIER_DEVICE), live.n[KV_TIER_DEVICE]);
    assert_int_equal(dyn_events_blocks(s->d, KV_TIER_HOST), live.n[KV_TIER_HOST]);
    buf_fini(&reply);
}

static void run(uint64_t seed, uint32_t capacity)
{
    struct stage s = {0};
    live = lossy = (struct router){0};
    play_begin(&s.w, seed, 40, 24, capacity);
    assert_int_equal(dyn_events_create(&s.d, ROUTER_WORKER, kv_prefix_nodes(s.w.x), NULL), ST_OK);
    for (int step = 0; step < 10000; step++) {
        play_step(&s.w);
        if (play_rnd(&s.w, 3) == 0)
            kv_events_flush(s.w.v);
        if (play_rnd(&s.w, 3) == 0)
            take_some(&s, play_rnd(&s.w, 30));
        if (play_rnd(&s.w, 5) == 0)
            publish(&s);
        if (play_rnd(&s.w, 100) == 0)
            compare(&s);
    }
    compare(&s);
    print_message("seed %llu, ring %u: %u events, cleared %u times, %u and %u blocks at the end\n",
                  (unsigned long long)seed, capacity, live.n_events, live.n_cleared, live.n[0], live.n[1]);
    assert_true(capacity == 8 ? live.n_cleared > 0 : live.n_cleared == 0);
    dyn_events_destroy(s.d);
    play_end(&s.w);
}

static void every_router_holds_the_index(void **state)
{
    (void)state;
    uint64_t now = mem_live();
    for (uint64_t i = 0; i < 6; i++)
        run(seed_given ? seed_given : i < 4 ? i : (uint64_t)time(NULL) * 100 + i, i % 2 ? 8 : 1 << 16);
    assert_int_equal(mem_live(), now);
}

/* ---- single rules ------------------------------------------------------------------------------------------------------- */

static struct kv_event stored(uint32_t node, uint32_t parent, enum kv_tier tier)
{
    return (struct kv_event){.type = KV_STORED,
                             .tier = (uint8_t)tier,
                             .first = parent == KV_NONE,
                             .node = node,
                             .parent = parent,
                             .content = 1000 + node,
                             .name = node + 1,
                             .parent_name = parent == KV_NONE ? 0 : parent + 1};
}

static struct dyn_events *chain(uint32_t n_nodes, uint32_t n)
{
    struct dyn_events *d;
    assert_int_equal(dyn_events_create(&d, ROUTER_WORKER, n_nodes, NULL), ST_OK);
    for (uint32_t i = 0; i < n; i++) {
        struct kv_event ev = stored(i, i ? i - 1 : KV_NONE, KV_TIER_DEVICE);
        dyn_events_take(d, &ev);
    }
    return d;
}

static void a_chain_is_one_event_until_somebody_has_seen_it(void **state)
{
    (void)state;
    struct dyn_events *d = chain(1000, 3);
    struct kv_event ev = stored(3, 2, KV_TIER_DEVICE), host = stored(0, KV_NONE, KV_TIER_HOST),
                    other = stored(9, 1, KV_TIER_DEVICE);
    assert_int_equal(dyn_events_range(d).last, 1);
    dyn_events_take(d, &ev); /* goes on where it stopped, but event 1 was shown */
    dyn_events_take(d, &other);
    dyn_events_take(d, &host);
    assert_int_equal(dyn_events_range(d).last, 4);
    dyn_events_destroy(d);
    d = chain(1000, 2 * DYN_EVENTS_JOINED + 1);
    assert_int_equal(dyn_events_range(d).last, 3);
    struct buf reply = {0};
    struct dyn_msgpack m = ask(d, -1, -1, &reply);
    take_tree(&fresh, &m);
    assert_int_equal(fresh.n[0], 2 * DYN_EVENTS_JOINED + 1);
    assert_int_equal(fresh.n_events, 3);
    assert_int_equal(dyn_events_fit(d, 1, 3, 10), 1);
    assert_int_equal(dyn_events_fit(d, 1, 3, DYN_EVENTS_JOINED), 1);
    assert_int_equal(dyn_events_fit(d, 1, 3, 2 * DYN_EVENTS_JOINED), 2);
    assert_int_equal(dyn_events_fit(d, 1, 3, 2 * DYN_EVENTS_JOINED + 1), 3);
    assert_int_equal(dyn_events_fit(d, 3, 2, 9), 0);
    buf_fini(&reply);
    dyn_events_destroy(d);
}

static void questions_have_the_answers_that_routers_know(void **state)
{
    (void)state;
    struct buf reply = {0};
    struct dyn_events *d = chain(8, 0);
    struct dyn_msgpack m = ask(d, 5, -1, &reply), inner;
    assert_int_equal(router_uint((inner = router_get(&m, "TreeDump"), &inner), "last_event_id"), 0);
    dyn_events_destroy(d);
    d = chain(8, 3);
    m = ask(d, 2, -1, &reply);
    inner = router_get(&m, "TooNew");
    assert_int_equal(router_uint(&inner, "requested_start"), 2);
    assert_int_equal(router_uint(&inner, "newest_available"), 1);
    m = ask(d, 7, 3, &reply);
    inner = router_get(&m, "InvalidRange");
    assert_int_equal(router_uint(&inner, "start_id"), 7);
    assert_int_equal(router_uint(&inner, "end_id"), 3);
    m = ask(d, 1, 1, &reply);
    inner = router_get(&m, "Events");
    assert_int_equal(router_uint(&inner, "last_event_id"), 1);
    m = ask(d, 0, -1, &reply);
    assert_true(is(&m, "TreeDump"));
    static const char *const bad[] = {"", "\xc0", "\x81",
                                      "\x81\xae"
                                      "start_event_id\xa1"
                                      "1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        buf_reset(&reply);
        dyn_recovery_answer(d, (const uint8_t *)bad[i], strlen(bad[i]), &reply);
        m = dyn_msgpack_of(reply.p, reply.n);
        assert_true(is(&m, "Error"));
    }
    buf_fini(&reply);
    dyn_events_destroy(d);
}

static void what_is_too_old_to_be_remembered_is_answered_with_the_tree(void **state)
{
    (void)state;
    struct dyn_events *d = chain(8, 1);
    struct kv_event ev = stored(1, 0, KV_TIER_DEVICE), gone = {.type = KV_REMOVED, .node = 1};
    assert_int_equal(dyn_events_range(d).last, 1);
    for (int i = 0; i < DYN_EVENTS_KEPT; i++) {
        dyn_events_take(d, i % 2 ? &gone : &ev);
        assert_true(dyn_events_range(d).last == 2 + (uint64_t)i);
    }
    struct dyn_events_range have = dyn_events_range(d);
    assert_true(have.first == 2 && have.last == DYN_EVENTS_KEPT + 1);
    struct buf reply = {0};
    struct dyn_msgpack m = ask(d, 1, -1, &reply);
    assert_true(is(&m, "TreeDump"));
    m = ask(d, 2, -1, &reply);
    struct dyn_msgpack events = router_get(&m, "Events"), list = router_get(&events, "events");
    fresh = (struct router){0};
    fresh.blocks[0][fresh.n[0]++] = (struct router_block){.name = 1};
    assert_int_equal(router_hear(&fresh, &list, 2), DYN_EVENTS_KEPT);
    buf_fini(&reply);
    dyn_events_destroy(d);
}

/* Written down by hand from the documented form of a message. */
static void a_message_has_the_bytes_of_the_wire(void **state)
{
    (void)state;
    struct dyn_events *d = chain(8, 1);
    struct buf payload = {0}, scratch = {0};
    struct str parts[4];
    dyn_events_put(d, 1, 1, &payload);
    static const char want[] = "\x91\x84\xa9worker_id\x4d\xacstorage_tier\xa6"
                               "device\xb0residency_domain\xa6worker\xa5"
                               "event\x83\xa8"
                               "event_id\x01\xa4"
                               "data\x81\xa6stored\x83\xabparent_hash\xc0\xaestart_position\xc0\xa6"
                               "blocks\x91\x83\xaa"
                               "block_hash\x01\xabtokens_hash\xcd\x03\xe8\xadmm_extra_info\xc0\xa7"
                               "dp_rank\x00";
    assert_int_equal(payload.n, sizeof want - 1);
    assert_memory_equal(payload.p, want, payload.n);
    assert_int_equal(dyn_pub_parts(&scratch, "kv-events", 0x1bb5b6fd564680, 5, 0x1a200aca5e7,
                                   (struct str){"abc", 3}, parts),
                     ST_OK);
    static const char envelope[] =
        "\x01\x00\x00\x00\x54\x85\xacpublisher_id\xcf\x00\x1b\xb5\xb6\xfd\x56\x46\x80\xa8sequence\x05"
        "\xacpublished_at\xcf\x00\x00\x01\xa2\x00\xac\xa5\xe7\xa5topic\xa9kv-events\xa7payload\xc4\x03"
        "abc";
    assert_true(str_eqz(parts[0], "kv-events"));
    assert_memory_equal(parts[1].p, "\x00\x1b\xb5\xb6\xfd\x56\x46\x80", 8);
    assert_memory_equal(parts[2].p, "\0\0\0\0\0\0\0\5", 8);
    assert_int_equal(parts[1].n, 8);
    assert_int_equal(parts[2].n, 8);
    assert_int_equal(parts[3].n, sizeof envelope - 1);
    assert_memory_equal(parts[3].p, envelope, parts[3].n);
    buf_fini(&payload);
    buf_fini(&scratch);
    dyn_events_destroy(d);
}

static void a_lack_of_memory_is_an_error(void **state)
{
    (void)state;
    uint64_t now = mem_live();
    struct err e;
    for (uint64_t k = 1; k <= 3; k++) {
        struct dyn_events *d;
        mem_fail_after(k);
        assert_int_equal(dyn_events_create(&d, 1, 8, &e), ST_ENOMEM);
        mem_fail_after(0);
    }
    struct dyn_events *d = chain(8, 5);
    struct buf out = {0};
    mem_fail_after(1);
    dyn_events_put_tree(d, &out);
    mem_fail_after(0);
    assert_int_equal(out.failed, ST_ENOMEM);
    buf_fini(&out);
    dyn_events_destroy(d);
    assert_int_equal(mem_live(), now);
}

int main(int argc, char **argv)
{
    const char *given = argc > 1 ? argv[1] : getenv("STATOR_TEST_SEED");
    seed_given = given ? strtoull(given, NULL, 10) : 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_is_one_event_until_somebody_has_seen_it),
        cmocka_unit_test(questions_have_the_answers_that_routers_know),
        cmocka_unit_test(what_is_too_old_to_be_remembered_is_answered_with_the_tree),
        cmocka_unit_test(a_message_has_the_bytes_of_the_wire),
        cmocka_unit_test(a_lack_of_memory_is_an_error),
        cmocka_unit_test(every_router_holds_the_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
