/* The last yards: engine -> table -> socket, once per turn of the io loop, and the load beside it.
 *
 * Events are taken first and published after, so that a prompt whose blocks were committed in one step is one event with one
 * chain, not a hundred. Blocks in use are a gauge that only the engine knows: it is looked at often while requests run, and told
 * when it has changed, or after a second in any case, which is how a router tells an idle worker from one that is gone. */
#include "dyn_feed.h"

#include "clock.h"
#include "dyn_events.h"
#include "dyn_msgpack.h"
#include "dyn_pub.h"
#include "dyn_recovery.h"
#include "engine_kv.h"
#include "mem.h"

#include <stdio.h>
#include <string.h>

enum { EVENTS_PER_RUN = 8192, MESSAGE_CHANGES = 1024, BUSY_MS = 50, IDLE_MS = 1000 };

static const char topic_events[] = "kv-events", topic_load[] = "kv_metrics";

struct dyn_feed {
    struct engine *engine;
    struct dyn_events *events;
    struct dyn_pub *pub;
    uint64_t worker, publisher;
    uint64_t sent_id;           /* events up to here were published */
    uint64_t n_events, n_load;  /* messages of the two topics */
    uint32_t used;              /* as told last */
    int64_t looked_ns, told_ns; /* at the load; of it */
    char address[DYN_PUB_ADDRESS_MAX + 16], endpoint[64];
    struct buf path, payload;
};

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 || strcmp(host, "[::1]") == 0;
}

int dyn_feed_create(struct dyn_feed **out, const struct dyn_feed_options *o, struct err *e)
{
    struct dyn_feed *f = mem_zalloc(1, sizeof *f);
    /* ZeroMQ resolves no name to bind to, and to a router the name may be ::1 first. */
    const char *host = strcmp(o->host, "localhost") == 0 ? "127.0.0.1" : o->host;
    if (!f)
        return err_set(e, ST_ENOMEM, "KV events: no memory");
    f->engine = o->engine;
    f->worker = o->worker;
    f->publisher =
        dyn_store_random_instance() >> 10; /* JSON readers that think in doubles shall not round it */
    f->publisher += f->publisher == 0;
    f->used = UINT32_MAX;
    snprintf(f->endpoint, sizeof f->endpoint, "worker_kv_query_source_%llx",
             (unsigned long long)f->publisher);
    int rc = dyn_events_create(&f->events, o->worker, engine_kv_nodes(o->engine), e);
    /* What is reached over loopback is offered there only; otherwise the name may be one that this machine does not know. */
    if (rc == ST_OK)
        rc = dyn_pub_create(&f->pub, is_loopback(host) ? host : NULL, f->publisher, e);
    if (rc != ST_OK) {
        dyn_feed_destroy(f);
        return rc;
    }
    bool bare_v6 = strchr(host, ':') && host[0] != '[';
    snprintf(f->address, sizeof f->address, bare_v6 ? "tcp://[%s]:%u" : "tcp://%s:%u", host,
             dyn_pub_port(f->pub));
    *out = f;
    return ST_OK;
}

void dyn_feed_destroy(struct dyn_feed *f)
{
    if (!f)
        return;
    dyn_pub_destroy(f->pub);
    dyn_events_destroy(f->events);
    buf_fini(&f->path);
    buf_fini(&f->payload);
    mem_free(f);
}

int dyn_feed_join(struct dyn_feed *f, const struct dyn_self *self, struct dyn_plane *p, struct dyn_store *s,
                  struct err *e)
{
    struct dyn_record r[4] = {0};
    dyn_record_path(&f->path, self, f->endpoint);
    if (f->path.failed)
        return err_set(e, ST_ENOMEM, "KV events: no memory");
    int rc = dyn_plane_serve(
        p, &(struct dyn_endpoint){.path = f->path.p, .answer = dyn_recovery_answer, .ctx = f->events});
    if (rc != ST_OK)
        return err_set(e, rc, "KV events: the request plane has no place for one more endpoint");
    dyn_record_instance(&r[0], self, f->endpoint);
    dyn_record_event_channel(&r[1], self, topic_events, f->publisher, f->address);
    dyn_record_event_channel(&r[2], self, topic_load, f->publisher, f->address);
    dyn_record_event_source(&r[3], self, topic_events, f->publisher,
                            f->endpoint); /* last: it says that the rest is there */
    for (int i = 0; i < 4; i++) {
        int one = dyn_store_publish(s, &r[i]);
        rc = rc == ST_OK ? one : rc;
    }
    return rc == ST_OK ? rc
                       : err_set(e, rc, "KV events: the records could not be published: %s", status_text(rc));
}

int dyn_feed_fd(const struct dyn_feed *f)
{
    return engine_kv_fd(f->engine);
}

static bool take(struct dyn_feed *f)
{
    struct kv_event ev;
    for (int n = 0; n < EVENTS_PER_RUN; n++) {
        if (!engine_kv_pop(f->engine, &ev))
            return false;
        dyn_events_take(f->events, &ev);
    }
    return true;
}

static void publish(struct dyn_feed *f)
{
    uint64_t last = dyn_events_range(f->events).last;
    while (f->sent_id < last) {
        uint64_t n = dyn_events_fit(f->events, f->sent_id + 1, last, MESSAGE_CHANGES);
        buf_reset(&f->payload);
        dyn_events_put(f->events, f->sent_id + 1, f->sent_id + n, &f->payload);
        if (!f->payload.failed)
            dyn_pub_send(f->pub, topic_events, f->n_events++, buf_str(&f->payload));
        f->sent_id += n; /* without memory for it, it is lost on the way: routers ask */
    }
}

static void put_load(struct buf *b, uint64_t worker, uint32_t used)
{
    dyn_msgpack_put_map(b, 5);
    dyn_msgpack_put_key(b, "worker_id");
    dyn_msgpack_put_uint(b, worker);
    dyn_msgpack_put_key(b, "dp_rank");
    dyn_msgpack_put_uint(b, 0);
    dyn_msgpack_put_key(b, "active_decode_blocks"); /* routers count these two themselves */
    dyn_msgpack_put_nil(b);
    dyn_msgpack_put_key(b, "active_prefill_tokens");
    dyn_msgpack_put_nil(b);
    dyn_msgpack_put_key(b, "kv_used_blocks");
    dyn_msgpack_put_uint(b, used);
}

/* Blocks of running requests: what is merely cached gives way. */
static bool tell_load(struct dyn_feed *f, int64_t now_ns)
{
    struct engine_stats st;
    engine_stats(f->engine, &st);
    uint32_t idle = st.blocks_free + st.blocks_cached; /* two moments: may be more than all for once */
    uint32_t used = idle < st.blocks_total ? st.blocks_total - idle : 0;
    f->looked_ns = now_ns;
    if (used != f->used || now_ns - f->told_ns >= (int64_t)IDLE_MS * NS_PER_MS) {
        buf_reset(&f->payload);
        put_load(&f->payload, f->worker, used);
        if (!f->payload.failed)
            dyn_pub_send(f->pub, topic_load, f->n_load++, buf_str(&f->payload));
        f->used = used;
        f->told_ns = now_ns;
    }
    return st.running + st.waiting > 0;
}

int dyn_feed_run(struct dyn_feed *f, int64_t now_ns)
{
    engine_kv_drain_fd(f->engine);
    bool more = take(f);
    publish(f);
    bool busy = true;
    if (f->looked_ns == 0 || now_ns - f->looked_ns >= (int64_t)BUSY_MS * NS_PER_MS)
        busy = tell_load(f, now_ns);
    if (more || !engine_kv_sleep(f->engine))
        return 0;
    return busy ? BUSY_MS : IDLE_MS;
}
