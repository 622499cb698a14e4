/* Goal: after thousands of random requests through an engine that evicts, saves to a host tier and preempts, a router's
 * picture is what the worker would tell a new one. Method: the engine over the fake backend with its own thread, this thread
 * as the io thread; requests that share prefixes, of three tenants. With a file name as argument, all is written there for the
 * same check with the real router's library (tests/e2e/e2e_dynamo_events.py): `request SALT TOKEN...`, `events HEX`, `tree
 * HEX`. */
#define _GNU_SOURCE
#include <stdlib.h>

#include "dyn_router.h"

#include "dyn_recovery.h"
#include "engine/fake_be.h"
#include "engine_kv.h"
#include "hash64.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

enum { REQUESTS = 10000, PROMPT_MAX = 150, OUTPUT_MAX = 40, BLOCK = 16, SLOTS = 24 };

static const char *const salts[] = {"", "tenantA", "tenant B with a longer name"};
static FILE *record;
static struct router live, fresh;

struct job {
    bool live;
    uint32_t gen, n, salt;
    int32_t tokens[PROMPT_MAX + OUTPUT_MAX];
};

struct traffic {
    struct engine *g;
    struct dyn_events *d;
    struct job jobs[SLOTS];
    uint64_t rng, sent;
    uint32_t n_begun, n_ended, n_ok;
};

static uint32_t rnd(struct traffic *t, uint32_t n)
{
    t->rng = t->rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(t->rng >> 33) % n;
}

static void write_hex(const char *what, const struct buf *b)
{
    if (!record)
        return;
    fprintf(record, "%s ", what);
    for (size_t i = 0; i < b->n; i++)
        fprintf(record, "%02x", (uint8_t)b->p[i]);
    fputc('\n', record);
}

/* One of a few conversations, cut anywhere: much is shared. */
static void begin(struct traffic *t)
{
    struct job j = {.live = true, .n = 1 + rnd(t, PROMPT_MAX), .salt = rnd(t, 3)};
    uint32_t kind = rnd(t, 12), slot, turn = rnd(t, 3);
    for (uint32_t i = 0; i < j.n; i++)
        j.tokens[i] =
            (int32_t)(fake_mix(kind + (i / 48 == turn ? 100 * (uint64_t)rnd(t, 2) : 0), i) % FAKE_VOCAB);
    const struct engine_request r = {.prompt = j.tokens,
                                     .n_prompt = j.n,
                                     .max_tokens = 1 + rnd(t, OUTPUT_MAX),
                                     .top_p = 1,
                                     .repetition = 1,
                                     .temperature = 1,
                                     .seed = rnd(t, 3),
                                     .n_logprobs = -1,
                                     .priority = (int32_t)rnd(t, 8),
                                     .cache_salt = {(uint8_t)j.salt},
                                     .salt_tag = hash64_salt(salts[j.salt], strlen(salts[j.salt]))};
    if (engine_submit(t->g, &r, &slot, &j.gen, NULL) != ST_OK)
        return;
    t->n_begun++;
    t->jobs[slot] = j;
    if (rnd(t, 16) == 0)
        engine_cancel(t->g, slot, j.gen);
}

static void take_engine(struct traffic *t)
{
    struct engine_event ev;
    while (engine_pop_event(t->g, &ev)) {
        struct job *j = &t->jobs[ev.slot];
        assert_true(j->live && j->gen == ev.gen);
        if (ev.type == ENGINE_TOKEN) {
            j->tokens[j->n++] = ev.sample.token;
            continue;
        }
        t->n_ok += ev.finish == ENGINE_FINISH_LENGTH;
        if (record) {
            fprintf(record, "request %u", j->salt);
            for (uint32_t i = 0; i < j->n; i++)
                fprintf(record, " %d", j->tokens[i]);
            fputc('\n', record);
        }
        j->live = false;
        engine_release(t->g, ev.slot, ev.gen);
        t->n_ended++;
    }
}

static void take_cache(struct traffic *t)
{
    struct kv_event ev;
    struct buf b = {0};
    while (engine_kv_pop(t->g, &ev))
        dyn_events_take(t->d, &ev);
    uint64_t last = dyn_events_range(t->d).last;
    if (t->sent < last) {
        dyn_events_put(t->d, t->sent + 1, last, &b);
        router_live(&live, buf_str(&b));
        write_hex("events", &b);
        t->sent = last;
    }
    buf_fini(&b);
}

static void wait_for_either(struct traffic *t)
{
    bool quiet = engine_event_sleep(t->g);
    quiet &= engine_kv_sleep(t->g);
    struct pollfd p[2] = {{.fd = engine_event_fd(t->g), .events = POLLIN},
                          {.fd = engine_kv_fd(t->g), .events = POLLIN}};
    if (quiet)
        poll(p, 2, 10000);
    engine_event_drain_fd(t->g);
    engine_kv_drain_fd(t->g);
}

static void ask_for_the_tree(struct traffic *t)
{
    struct buf q = {0}, reply = {0};
    dyn_msgpack_put_map(&q, 0);
    dyn_recovery_answer(t->d, (const uint8_t *)q.p, q.n, &reply);
    struct dyn_msgpack m = dyn_msgpack_of(reply.p, reply.n), dump = router_get(&m, "TreeDump"),
                       events = router_get(&dump, "events");
    fresh = (struct router){0};
    router_hear(&fresh, &events, 0);
    write_hex("tree", &reply);
    buf_fini(&q);
    buf_fini(&reply);
}

static void same_pictures(void)
{
    for (int tier = 0; tier < KV_TIERS; tier++) {
        assert_int_equal(live.n[tier], fresh.n[tier]);
        for (uint32_t i = 0; i < live.n[tier]; i++) {
            const struct router_block *a = &live.blocks[tier][i], *b = router_find(&fresh, tier, a->name);
            assert_non_null(b);
            assert_true(a->content == b->content && a->parent == b->parent && a->first == b->first);
        }
    }
}

static void run(uint64_t seed, uint32_t capacity, uint32_t n_requests)
{
    struct fake_be f = {0};
    struct traffic *t = mem_zalloc(1, sizeof *t);
    struct engine_options o = {
        .max_num_seqs = 8,
        .max_num_batched_tokens = 64,
        .max_queue = SLOTS - 8,
        .block_tokens = BLOCK,
        .n_blocks = 40,
        .n_host_blocks = 30,
        .context_length = PROMPT_MAX + OUTPUT_MAX,
        .kv_type = BE_F16,
        .prefix_caching = true,
        .kv_event_capacity = capacity,
        .kv_event_seed = DYN_EVENTS_SEED,
        .policy = {.priorities = true, .aging_ms = 1000, .priority_clamp = 100, .classes = {0, 3, 6}}};
    assert_non_null(t);
    t->rng = seed;
    live = (struct router){0};
    struct err e = {0};
    if (fake_engine_create(&t->g, &f, &o, &e) != ST_OK || engine_start(t->g, &e) != ST_OK)
        fail_msg("%s", e.text);
    assert_int_equal(dyn_events_create(&t->d, ROUTER_WORKER, engine_kv_nodes(t->g), NULL), ST_OK);
    while (t->n_ended < n_requests) {
        for (uint32_t n = rnd(t, 4); n > 0 && t->n_begun < n_requests; n--)
            begin(t);
        take_engine(t);
        take_cache(t);
        if (t->n_begun - t->n_ended > 12 || t->n_begun == n_requests)
            wait_for_either(t);
    }
    /* The last copies to the host tier end by themselves; when nothing comes any more both sides are at rest. */
    for (uint64_t before = UINT64_MAX; before != t->sent;) {
        before = t->sent;
        struct pollfd p = {.fd = engine_kv_fd(t->g), .events = POLLIN};
        take_cache(t);
        if (engine_kv_sleep(t->g))
            poll(&p, 1, 100);
        engine_kv_drain_fd(t->g);
        take_cache(t);
    }
    struct engine_stats st;
    engine_stats(t->g, &st);
    ask_for_the_tree(t);
    same_pictures();
    assert_int_equal(st.blocks_cached, live.n[KV_TIER_DEVICE]); /* nobody runs: what is indexed is cached */
    assert_int_equal(st.host_blocks_cached, live.n[KV_TIER_HOST]);
    print_message("seed %llu, ring %u: %u of %u requests to their end, %u events, cleared %u times, %llu "
                  "evicted, %llu saved, "
                  "%u and %u blocks at the end\n",
                  (unsigned long long)seed, capacity, t->n_ok, n_requests, live.n_events, live.n_cleared,
                  (unsigned long long)st.blocks_evicted, (unsigned long long)st.blocks_saved, live.n[0],
                  live.n[1]);
    assert_true(st.blocks_evicted > n_requests / 2 && (capacity == 16 || live.n_cleared == 0));
    engine_destroy(t->g);
    dyn_events_destroy(t->d);
    mem_free(t);
}

static void a_router_that_follows_knows_what_a_new_one_is_told(void **state)
{
    (void)state;
    uint64_t now = mem_live();
    run(1, 1 << 16, REQUESTS);
    if (!record)
        run(2, 16, REQUESTS / 5);
    assert_int_equal(mem_live(), now);
}

int main(int argc, char **argv)
{
    if (argc > 1 && !(record = fopen(argv[1], "w")))
        return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_router_that_follows_knows_what_a_new_one_is_told)};
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    if (record)
        fclose(record);
    return rc;
}
