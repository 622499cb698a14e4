/* The question is a range of event ids, each end of which may be open. What is asked for without a beginning, or from further
 * back than we remember, is answered with the tree: it is all that those events would have added up to. last_event_id tells
 * the router where the live events go on, so what was numbered and not sent yet is in the tree and will be passed over when it
 * comes. */
#include "dyn_recovery.h"

#include "dyn_msgpack.h"

struct question {
    bool has_start, has_end;
    uint64_t start, end;
};

/* Absent and nil: open. */
static bool read_id(const struct dyn_msgpack *body, const char *key, bool *has, uint64_t *id)
{
    struct dyn_msgpack at;
    struct dyn_value v;
    *has = false;
    if (!dyn_msgpack_get(body, key, &at))
        return true;
    if (dyn_msgpack_read(&at, &v) != ST_OK || (v.type != DYN_UINT && v.type != DYN_NIL))
        return false;
    *has = v.type == DYN_UINT;
    *id = *has ? v.u : 0;
    return true;
}

static bool read_question(const uint8_t *body, size_t n, struct question *q)
{
    struct dyn_msgpack m = dyn_msgpack_of(body, n), whole = m;
    struct dyn_value v;
    return dyn_msgpack_read(&whole, &v) == ST_OK && v.type == DYN_MAP &&
           read_id(&m, "start_event_id", &q->has_start, &q->start) &&
           read_id(&m, "end_event_id", &q->has_end, &q->end);
}

static void put_answer(struct buf *out, const char *what, uint32_t n_fields)
{
    dyn_msgpack_put_map(out, 1);
    dyn_msgpack_put_key(out, what);
    dyn_msgpack_put_map(out, n_fields);
}

static void put_number(struct buf *out, const char *key, uint64_t v)
{
    dyn_msgpack_put_key(out, key);
    dyn_msgpack_put_uint(out, v);
}

static void put_tree(struct dyn_events *d, uint64_t last, struct buf *out)
{
    put_answer(out, "TreeDump", 3);
    dyn_msgpack_put_key(out, "events");
    dyn_events_put_tree(d, out);
    put_number(out, "last_event_id", last);
    dyn_msgpack_put_key(out, "reset_scope");
    dyn_msgpack_put_str(out, STR_LIT("all"));
}

void dyn_recovery_answer(void *events, const uint8_t *body, size_t n_body, struct buf *reply)
{
    struct dyn_events *d = events;
    struct dyn_events_range have = dyn_events_range(d);
    struct question q = {0};
    if (!read_question(body, n_body, &q)) {
        dyn_msgpack_put_map(reply, 1);
        dyn_msgpack_put_key(reply, "Error");
        dyn_msgpack_put_str(reply, STR_LIT("expected a map with start_event_id and end_event_id"));
        return;
    }
    if (q.has_start && q.has_end && q.end < q.start) {
        put_answer(reply, "InvalidRange", 2);
        put_number(reply, "start_id", q.start);
        put_number(reply, "end_id", q.end);
    } else if (!q.has_start || q.start < have.first || have.last == 0) {
        put_tree(d, have.last, reply);
    } else if (q.start > have.last) {
        put_answer(reply, "TooNew", 3);
        put_number(reply, "requested_start", q.start);
        put_number(reply, "requested_end", q.has_end ? q.end : q.start);
        put_number(reply, "newest_available", have.last);
    } else {
        put_answer(reply, "Events", 2);
        dyn_msgpack_put_key(reply, "events");
        uint64_t last = q.has_end && q.end < have.last ? q.end : have.last;
        dyn_events_put(d, q.start, last, reply);
        put_number(reply, "last_event_id", last);
    }
}
