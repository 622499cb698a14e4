/* A router's picture of one worker, kept by the rules that were found by experiment and strict about each: ids without a gap,
 * parents first, nothing stored twice or removed in vain. Fed with what goes over the wire. */
#ifndef STATOR_TEST_DYN_ROUTER_H
#define STATOR_TEST_DYN_ROUTER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "dyn_events.h"
#include "dyn_msgpack.h"

enum { ROUTER_BLOCKS = 4096, ROUTER_WORKER = 77 };

struct router_block {
    uint64_t name, content, parent;
    bool first;
};

struct router {
    struct router_block blocks[KV_TIERS][ROUTER_BLOCKS];
    uint32_t n[KV_TIERS];
    uint64_t cursor; /* the last id */
    uint32_t n_events, n_cleared;
};

static struct router_block *router_find(struct router *r, int tier, uint64_t name)
{
    for (uint32_t i = 0; i < r->n[tier]; i++)
        if (r->blocks[tier][i].name == name)
            return &r->blocks[tier][i];
    return NULL;
}

static struct dyn_msgpack router_get(const struct dyn_msgpack *m, const char *key)
{
    struct dyn_msgpack at;
    assert_true(dyn_msgpack_get(m, key, &at));
    return at;
}

static struct dyn_value router_value(const struct dyn_msgpack *m, const char *key)
{
    struct dyn_msgpack at = router_get(m, key);
    struct dyn_value v;
    assert_int_equal(dyn_msgpack_read(&at, &v), ST_OK);
    return v;
}

static uint64_t router_uint(const struct dyn_msgpack *m, const char *key)
{
    struct dyn_value v = router_value(m, key);
    assert_int_equal(v.type, DYN_UINT);
    return v.u;
}

static void router_stored(struct router *r, int tier, const struct dyn_msgpack *data)
{
    struct dyn_value parent = router_value(data, "parent_hash"), v;
    struct dyn_msgpack blocks = router_get(data, "blocks");
    assert_int_equal(router_value(data, "start_position").type, DYN_NIL);
    assert_int_equal(dyn_msgpack_read(&blocks, &v), ST_OK);
    assert_true(v.type == DYN_ARRAY && v.count > 0 && v.count <= DYN_EVENTS_JOINED);
    bool first = parent.type == DYN_NIL;
    uint64_t before = first ? 0 : parent.u;
    if (!first && tier == KV_TIER_DEVICE)
        assert_non_null(router_find(r, tier, before));
    for (uint32_t i = 0; i < v.count; i++) {
        uint64_t name = router_uint(&blocks, "block_hash");
        assert_int_equal(router_value(&blocks, "mm_extra_info").type, DYN_NIL);
        assert_null(router_find(r, tier, name));
        assert_true(r->n[tier] < ROUTER_BLOCKS);
        r->blocks[tier][r->n[tier]++] = (struct router_block){
            .name = name, .content = router_uint(&blocks, "tokens_hash"), .parent = before, .first = first};
        before = name;
        first = false;
        assert_int_equal(dyn_msgpack_skip(&blocks), ST_OK);
    }
}

static void router_removed(struct router *r, int tier, const struct dyn_msgpack *data)
{
    struct dyn_msgpack names = router_get(data, "block_hashes");
    struct dyn_value v;
    assert_int_equal(dyn_msgpack_read(&names, &v), ST_OK);
    assert_true(v.type == DYN_ARRAY && v.count > 0);
    for (uint32_t n = v.count; n > 0; n--) {
        assert_int_equal(dyn_msgpack_read(&names, &v), ST_OK);
        struct router_block *b = router_find(r, tier, v.u);
        assert_non_null(b);
        *b = r->blocks[tier][--r->n[tier]];
    }
}

static void router_event(struct router *r, const struct dyn_msgpack *m, uint64_t id)
{
    struct dyn_msgpack event = router_get(m, "event"), data = router_get(&event, "data"), inner;
    struct str tier_name = router_value(m, "storage_tier").s;
    int tier = str_eqz(tier_name, "host_pinned") ? KV_TIER_HOST : KV_TIER_DEVICE;
    assert_true(tier == KV_TIER_HOST || str_eqz(tier_name, "device"));
    assert_true(str_eqz(router_value(m, "residency_domain").s, "worker"));
    assert_true(router_uint(m, "worker_id") == ROUTER_WORKER && router_uint(&event, "dp_rank") == 0);
    assert_true(router_uint(&event, "event_id") == id);
    r->n_events++;
    if (dyn_msgpack_get(&data, "stored", &inner)) {
        router_stored(r, tier, &inner);
    } else if (dyn_msgpack_get(&data, "removed", &inner)) {
        router_removed(r, tier, &inner);
    } else {
        assert_true(str_eqz(router_value(&event, "data").s, "cleared"));
        r->n[0] = r->n[1] = 0;
        r->n_cleared++;
    }
}

/* An array of events that starts with id `first`; how many there were. */
static uint32_t router_hear(struct router *r, const struct dyn_msgpack *array, uint64_t first)
{
    struct dyn_msgpack m = *array;
    struct dyn_value v;
    assert_int_equal(dyn_msgpack_read(&m, &v), ST_OK);
    assert_int_equal(v.type, DYN_ARRAY);
    for (uint32_t i = 0; i < v.count; i++) {
        router_event(r, &m, first + i);
        assert_int_equal(dyn_msgpack_skip(&m), ST_OK);
    }
    return v.count;
}

static void router_live(struct router *r, struct str payload)
{
    struct dyn_msgpack m = dyn_msgpack_of(payload.p, payload.n);
    r->cursor += router_hear(r, &m, r->cursor + 1);
}

#endif
