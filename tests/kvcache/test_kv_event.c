/* Goal: who only hears the events knows the index, whatever was lost on the way. Method: random use of a small cache (kv_play.h);
 * a listener that keeps a table by the header's rules and asserts each of them; now and then it hears all and is compared with
 * the index, node by node. Rings from tiny (always behind) to large. A seed as argument, or in STATOR_TEST_SEED, replays. */
#include <stdlib.h>

#include "kv_play.h"
#include "mem.h"

#include <stdio.h>
#include <time.h>

static uint64_t seed_given;

struct listener {
    uint8_t tiers;
    bool first;
    uint32_t parent;
    uint64_t content, name, parent_name;
};

enum { NODES = 64 };
static struct listener heard[NODES];
static uint32_t n_cleared, n_events;

static void hear(const struct kv_event *ev)
{
    n_events++;
    if (ev->type == KV_CLEARED) {
        n_cleared++;
        for (uint32_t i = 0; i < NODES; i++)
            heard[i] = (struct listener){0};
        return;
    }
    struct listener *n = &heard[ev->node];
    uint8_t bit = (uint8_t)(1u << ev->tier);
    if (ev->type == KV_REMOVED) {
        assert_true(n->tiers & bit);
        n->tiers &= (uint8_t)~bit;
        for (uint32_t i = 0; ev->tier == KV_TIER_DEVICE && i < NODES; i++)
            assert_false(heard[i].tiers & 1 && !heard[i].first &&
                         heard[i].parent == ev->node); /* leaves go first */
        return;
    }
    assert_int_equal(ev->type, KV_STORED);
    assert_false(n->tiers & bit);
    if (n->tiers)
        assert_true(n->name == ev->name && n->content == ev->content && n->parent_name == ev->parent_name);
    if (ev->tier == KV_TIER_DEVICE && !ev->first) {
        assert_true(heard[ev->parent].tiers & 1);
        assert_true(heard[ev->parent].name == ev->parent_name);
        n->parent = ev->parent;
    }
    n->tiers |= bit;
    n->first = ev->first;
    n->content = ev->content;
    n->name = ev->name;
    n->parent_name = ev->parent_name;
}

static void hear_some(struct play *w, uint32_t n)
{
    struct kv_event ev;
    while (n-- > 0 && kv_events_pop(w->v, &ev))
        hear(&ev);
}

static void hear_all(struct play *w)
{
    do {
        kv_events_flush(w->v);
        hear_some(w, UINT32_MAX);
    } while (kv_events_behind(w->v));
}

static void compare(struct play *w)
{
    hear_all(w);
    for (uint32_t i = 0; i < kv_prefix_nodes(w->x); i++) {
        bool block = false, copy = false;
        const struct kv_node *n = play_node(w, i, &block, &copy);
        assert_int_equal(heard[i].tiers, block | copy << 1);
        if (!heard[i].tiers)
            continue;
        const struct play_name *want = play_find(w, &n->id);
        assert_non_null(want);
        assert_true(heard[i].content == want->content && heard[i].name == want->name &&
                    heard[i].parent_name == want->parent_name && heard[i].first == want->first);
    }
}

static void run(uint64_t seed, uint32_t capacity)
{
    struct play w;
    play_begin(&w, seed, 40, seed % 3 ? 24 : 0, capacity);
    assert_true(kv_prefix_nodes(w.x) <= NODES);
    for (uint32_t i = 0; i < NODES; i++)
        heard[i] = (struct listener){0};
    n_cleared = n_events = 0;
    uint32_t eager = 1 + play_rnd(&w, 6);
    for (int step = 0; step < 10000; step++) {
        play_step(&w);
        if (play_rnd(&w, eager) == 0)
            kv_events_flush(w.v);
        if (play_rnd(&w, eager) == 0)
            hear_some(&w, play_rnd(&w, 8));
        if (play_rnd(&w, 100) == 0)
            compare(&w);
    }
    compare(&w);
    play_end(&w);
    print_message("seed %llu, ring %u: %u events, cleared %u times\n", (unsigned long long)seed, capacity,
                  n_events, n_cleared);
    if (capacity != 64)
        assert_true(capacity < 64 ? n_cleared > 0 : n_cleared == 0);
}

static void who_hears_the_events_knows_the_index(void **state)
{
    (void)state;
    static const uint32_t capacity[] = {2, 8, 64, 1 << 16};
    uint64_t live = mem_live();
    for (uint64_t i = 0; i < 12; i++)
        run(seed_given ? seed_given : i < 8 ? i : (uint64_t)time(NULL) * 100 + i, capacity[i % 4]);
    assert_int_equal(mem_live(), live);
}

/* The names are those that other programs compute: check values of the router's own library. */
static void names_are_those_of_the_router(void **state)
{
    (void)state;
    static const int32_t chain[32] = {1,    9690,  198,   2683, 359, 253, 5356,  5646, 11173, 3365, 3511,
                                      308,  34519, 28,    7018, 411, 407, 19712, 8182, 2,     198,  1,
                                      4093, 198,   26843, 665,  2,   198, 1,     520,  9531,  198};
    int32_t ones[16], counting[16];
    for (int i = 0; i < 16; i++) {
        ones[i] = 1;
        counting[i] = i + 1;
    }
    struct kv_events *v;
    const struct kv_event_options o = {.capacity = 16, .seed = 1337};
    assert_int_equal(kv_events_create(&v, 8, &o, NULL), ST_OK);
    kv_events_indexed(v, 0, KV_NONE, chain, 16, 0);
    kv_events_indexed(v, 1, 0, chain + 16, 16, 0);
    kv_events_indexed(v, 2, KV_NONE, ones, 16, 0);
    kv_events_indexed(v, 3, KV_NONE, counting, 16, 0);
    kv_events_indexed(v, 4, KV_NONE, counting, 16, hash64_salt("tenantA", 7));
    kv_events_indexed(v, 5, KV_NONE, counting, 16, hash64("ad", 2, 0));
    kv_events_indexed(v, 6, KV_NONE, counting, 16, hash64("ad", 2, 0) + hash64("tenantA", 7, 1));
    static const uint64_t content[] = {0x58b8f272da5a04ed, 0x2691a3382679b4c8, 0xbb9afac0e6fd46ef,
                                       0xea06fc71a5ee6e88, 0x873e8db37d0bd24d, 0x969ac44c1c7b8eb4,
                                       0x03e188cbe3f1848e};
    for (uint32_t i = 0; i < 7; i++) {
        struct kv_event ev;
        assert_true(kv_events_pop(v, &ev));
        assert_true(ev.content == content[i]);
        assert_true(ev.name == (i == 1 ? 0xf344bcc8c6901847 : content[i]));
    }
    kv_events_destroy(v);
}

static void a_lack_of_memory_is_an_error(void **state)
{
    (void)state;
    uint64_t live = mem_live();
    for (uint64_t k = 1; k <= 5; k++) {
        struct kv_events *v;
        struct err e;
        const struct kv_event_options o = {.capacity = 16};
        mem_fail_after(k);
        assert_int_equal(kv_events_create(&v, 8, &o, &e), ST_ENOMEM);
        mem_fail_after(0);
    }
    assert_int_equal(mem_live(), live);
}

int main(int argc, char **argv)
{
    const char *given = argc > 1 ? argv[1] : getenv("STATOR_TEST_SEED");
    seed_given = given ? strtoull(given, NULL, 10) : 0;
    const struct CMUnitTest tests[] = {cmocka_unit_test(names_are_those_of_the_router),
                                       cmocka_unit_test(a_lack_of_memory_is_an_error),
                                       cmocka_unit_test(who_hears_the_events_knows_the_index)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
