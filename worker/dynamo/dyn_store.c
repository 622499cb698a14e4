/* What should stand in the store is a list; the store's thread makes it so and keeps it so. Every few seconds it keeps alive what
 * stands there, looks which records do, and writes those that do not: that is one rule for the first publication, for a record
 * that was replaced here, deleted or overwritten there, for a store that was restarted empty and for one that was away. Nobody
 * waits for a store but main, at start and stop.
 *
 * Keeping alive goes before all else. It is due a third of the time to live after it was last asked for, in the midst of a round
 * too: a call may take DYN_STORE_CALL_MS, so from one keeping to the next less than the time to live passes, however slow the
 * store is.
 *
 * Rejected: a callback when the store has lost us. The one thing to do then is to come back, and it is done here. */
#define _GNU_SOURCE
#include "dyn_store.h"
#include "dyn_store_state.h"

#include "clock.h"
#include "log.h"
#include "mem.h"
#include "ring.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { REPLIES = 16 };

static const int64_t TTL_NS = (int64_t)DYN_STORE_TTL_S * NS_PER_S, RETRY_NS = NS_PER_S;
static const int64_t REFRESH_NS = (int64_t)DYN_STORE_TTL_S * NS_PER_S / 3;

const char *const dyn_store_buckets[DYN_BUCKETS] = {
    [DYN_INSTANCES] = "v1/instances",
    [DYN_CARDS] = "v1/mdc",
    [DYN_EVENT_CHANNELS] = "v1/event_channels",
    [DYN_EVENT_SOURCES] = "v1/event_sources",
};

/* A record to publish, or, without one, the word to withdraw. */
struct command {
    struct dyn_record record;
    bool withdraw;
    uint64_t number;
};

struct dyn_store {
    const struct dyn_store_kind *kind;
    void *ctx;
    struct ring *commands;
    struct ring *replies;            /* struct err: how a round went; wakes who waits, and tells him why */
    _Atomic uint64_t asked;          /* number of the command given last */
    _Atomic uint64_t settled;        /* all up to this one stands there or, after the end, is gone */
    _Atomic int64_t stands_until_ns; /* all records do, if nobody keeps them from now on; 0: not all do */
    _Atomic bool parting;            /* the word to withdraw was sent */
    bool started, parted;            /* main's: the thread runs; withdraw was said */
    pthread_t thread;

    struct dyn_record records[DYN_RECORDS_MAX]; /* from here on the thread's */
    uint32_t n;
    int64_t kept_ns; /* when the store was last asked to keep them */
    uint64_t number; /* of the last command taken */
    int last_status;
};

static void record_fini(struct dyn_record *r)
{
    buf_fini(&r->key);
    buf_fini(&r->value);
}

/* ---- the thread ------------------------------------------------------------------------------------------------------- */

static void take(struct dyn_store *s, struct dyn_record *r)
{
    uint32_t i = 0;
    while (i < s->n &&
           !(s->records[i].bucket == r->bucket && str_eq(buf_str(&s->records[i].key), buf_str(&r->key))))
        i++;
    if (i == DYN_RECORDS_MAX) {
        log_error("dynamo", "more than %d records", DYN_RECORDS_MAX);
        record_fini(r);
        return;
    }
    if (i < s->n)
        record_fini(&s->records[i]);
    else
        s->n++;
    s->records[i] = *r;
}

static void say(struct dyn_store *s, const struct err *e)
{
    ring_push(s->replies, e); /* full: nobody waits, or he is awake and has these to read first */
}

/* `alive`: what stood there before still does. */
static int keep(struct dyn_store *s, bool *alive, struct err *e)
{
    s->kept_ns = clock_now_ns(); /* before the call: who knows when the store begins to count */
    int st = s->kind->keep(s->ctx, alive, e);
    if (!*alive)
        atomic_store(&s->stands_until_ns, 0);
    else if (!st && dyn_store_registered(s))
        atomic_store(&s->stands_until_ns, s->kept_ns + TTL_NS);
    if (st || *alive)
        return st;
    if (atomic_load(&s->parting))
        return ST_ECANCEL;
    s->kept_ns = clock_now_ns();
    return s->kind->renew(s->ctx, e);
}

static bool all_stand(const bool *stands, uint32_t n)
{
    uint32_t i = 0;
    while (i < n && stands[i])
        i++;
    return i == n;
}

/* Who waits for the end waits for one call, not for a slow store's whole round: ST_ECANCEL. */
static int round_of_all(struct dyn_store *s, struct err *e)
{
    bool stands[DYN_RECORDS_MAX], alive;
    int st = keep(s, &alive, e);
    if (!st && atomic_load(&s->parting))
        st = ST_ECANCEL;
    st = st ? st : s->kind->find(s->ctx, s->records, s->n, stands, e);
    if (st || all_stand(stands, s->n))
        return st;
    atomic_store(&s->stands_until_ns, 0);
    if (clock_now_ns() >= s->kept_ns + REFRESH_NS) {
        st = keep(s, &alive, e);
        if (!st && !alive)
            st = err_set(e, ST_EIO, "discovery: the store lost the records while it was asked for them");
    }
    if (!st && atomic_load(&s->parting))
        st = ST_ECANCEL;
    return st ? st : s->kind->write(s->ctx, s->records, s->n, stands, e);
}

/* Returns when the next round is due. */
static int64_t refresh(struct dyn_store *s)
{
    struct err e = {0};
    int st = round_of_all(s, &e);
    int64_t due_ns = s->kept_ns + REFRESH_NS, retry_ns = clock_now_ns() + RETRY_NS;
    if (st == ST_ECANCEL)
        return 0;
    if (st && st != s->last_status)
        log_warn("dynamo", "%s; trying again each second", e.text[0] ? e.text : status_text(st));
    else if (!st && s->last_status)
        log_info("dynamo", "discovery: registered again");
    s->last_status = st;
    e.status = st;
    if (!st) {
        atomic_store(&s->stands_until_ns, s->kept_ns + TTL_NS);
        atomic_store(&s->settled, s->number);
    }
    say(s, &e);
    return st && retry_ns < due_ns ? retry_ns : due_ns;
}

static void wait_for_command(struct dyn_store *s, int64_t until_ns)
{
    int64_t left = until_ns - clock_now_ns();
    if (left <= 0 || !ring_sleep(s->commands))
        return;
    struct pollfd p = {.fd = ring_fd(s->commands), .events = POLLIN};
    if (poll(&p, 1, (int)(left / NS_PER_MS) + 1) > 0)
        ring_drain_fd(s->commands);
}

static void *run(void *arg)
{
    struct dyn_store *s = arg;
    int64_t next_ns = INT64_MAX;
    for (;;) {
        struct command c;
        bool withdraw = false;
        while (ring_pop(s->commands, &c)) {
            s->number = c.number;
            withdraw = withdraw || c.withdraw;
            if (!c.withdraw)
                take(s, &c.record);
            next_ns = 0;
        }
        if (withdraw)
            break;
        if (clock_now_ns() >= next_ns)
            next_ns = refresh(s);
        wait_for_command(s, next_ns < clock_now_ns() + NS_PER_S ? next_ns : clock_now_ns() + NS_PER_S);
    }
    struct err e = {0};
    atomic_store(&s->stands_until_ns, 0);
    e.status = s->kind->withdraw(s->ctx, s->records, s->n, &e);
    if (e.status)
        log_warn("dynamo", "%s; the records run out by themselves within %d s",
                 e.text[0] ? e.text : status_text(e.status), DYN_STORE_TTL_S);
    atomic_store(&s->settled, s->number);
    say(s, &e);
    return NULL;
}

/* ---- the others ------------------------------------------------------------------------------------------------------- */

static int start(struct dyn_store *s, const struct dyn_store_options *o, struct err *e)
{
    int st = ring_create(&s->commands, 2 * DYN_RECORDS_MAX, sizeof(struct command));
    st = st ? st : ring_create(&s->replies, REPLIES, sizeof(struct err));
    if (st)
        return err_set(e, st, "discovery: no memory");
    st = s->kind->open(&s->ctx, o, e);
    if (st)
        return st;
    s->started = pthread_create(&s->thread, NULL, run, s) == 0;
    if (!s->started)
        return err_set(e, ST_ENOMEM, "discovery: its thread could not be started");
    pthread_setname_np(s->thread, "discovery");
    return ST_OK;
}

int dyn_store_open(struct dyn_store **out, const struct dyn_store_options *o, struct err *e)
{
    struct dyn_store *s = mem_zalloc(1, sizeof *s);
    if (!s)
        return err_set(e, ST_ENOMEM, "discovery: no memory");
    s->kind = strcmp(o->backend, "etcd") == 0 ? &dyn_store_etcd : &dyn_store_file;
    int st = start(s, o, e);
    if (st)
        dyn_store_close(s);
    else
        *out = s;
    return st;
}

static int send(struct dyn_store *s, struct command *c)
{
    c->number = atomic_fetch_add(&s->asked, 1) + 1;
    return ring_push(s->commands, c);
}

int dyn_store_publish(struct dyn_store *s, struct dyn_record *r)
{
    struct command c = {.record = *r};
    int st = r->key.failed ? r->key.failed : r->value.failed;
    *r = (struct dyn_record){0};
    st = st ? st : send(s, &c);
    if (st)
        record_fini(&c.record);
    return st;
}

/* Until a round that knew of everything asked so far went well, or, after withdraw, ended. */
static int await(struct dyn_store *s, uint64_t number, uint32_t timeout_ms, struct err *e)
{
    int64_t until_ns = clock_now_ns() + (int64_t)timeout_ms * NS_PER_MS;
    struct err last = {0};
    while (atomic_load(&s->settled) < number) {
        if (ring_pop(s->replies, &last))
            continue;
        int64_t left = until_ns - clock_now_ns();
        if (left <= 0)
            return err_set(e, ST_ETIMEOUT, "%s",
                           last.text[0] ? last.text : "discovery: the store does not answer");
        if (!ring_sleep(s->replies))
            continue;
        struct pollfd p = {.fd = ring_fd(s->replies), .events = POLLIN};
        if (poll(&p, 1, (int)(left / NS_PER_MS) + 1) > 0)
            ring_drain_fd(s->replies);
    }
    return ST_OK;
}

int dyn_store_settle(struct dyn_store *s, uint32_t timeout_ms, struct err *e)
{
    return await(s, atomic_load(&s->asked), timeout_ms, e);
}

void dyn_store_withdraw(struct dyn_store *s, uint32_t timeout_ms)
{
    struct command c = {.withdraw = true};
    if (!s->started || s->parted)
        return;
    atomic_store(&s->parting, true);
    while (send(s, &c)) /* as many are waiting as records are allowed: the thread is in a call, which ends */
        poll(NULL, 0, 1);
    s->parted = true;
    await(s, c.number, timeout_ms, NULL);
}

bool dyn_store_registered(const struct dyn_store *s)
{
    return clock_now_ns() < atomic_load(&s->stands_until_ns);
}

void dyn_store_close(struct dyn_store *s)
{
    if (!s)
        return;
    struct command c;
    dyn_store_withdraw(s, DYN_STORE_CALL_MS);
    if (s->started)
        pthread_join(s->thread, NULL);
    while (s->commands && ring_pop(s->commands, &c)) /* came after the last word */
        record_fini(&c.record);
    for (uint32_t i = 0; i < s->n; i++)
        record_fini(&s->records[i]);
    if (s->ctx)
        s->kind->close(s->ctx);
    ring_destroy(s->commands);
    ring_destroy(s->replies);
    mem_free(s);
}

uint64_t dyn_store_random_instance(void)
{
    uint64_t v = 0;
    while (getrandom(&v, sizeof v, 0) != sizeof v || (v >>= 1) == 0)
        ;
    return v;
}
