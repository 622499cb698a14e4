/* Order is all there is to know here. What can be called must stand before anybody is told of it, so the records come last and go
 * first; after they went frontends need a moment to hear of it, so requests are taken for a grace longer, and a deployment that
 * replaces its workers fails none. The parts do not know each other: each has a descriptor, and one epoll set holds them. */
#define _GNU_SOURCE
#include "dyn_worker.h"

#include "clock.h"
#include "dyn_feed.h"
#include "dyn_generate.h"
#include "dyn_plane.h"
#include "log.h"
#include "mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { GRACE_MS = 1000, SETTLE_MS = 10000, WITHDRAW_MS = 3000 };

struct dyn_worker {
    struct dyn_worker_options o;
    struct dyn_self self;
    struct dyn_count count;
    struct dyn_generate *generate;
    struct dyn_plane *plane;
    struct dyn_feed *feed;
    struct dyn_store *store;
    struct dyn_status *status; /* NULL: none */
    struct buf address, path; /* address, path of the endpoint: borrowed by self and by the plane */
    int epoll_fd;
};

static int open_plane(struct dyn_worker *w, struct err *e)
{
    const struct dyn_worker_options *o = &w->o;
    const struct dyn_plane_options plane = {.listen_fd = o->listen_fd, .drain_grace_ms = GRACE_MS};
    const struct dyn_generate_options generate = {.ledger = o->ledger, .limits = o->limits, .count = &w->count};
    int st = dyn_plane_create(&w->plane, &plane, e);
    if (!st && dyn_generate_create(&w->generate, &generate))
        st = err_set(e, ST_ENOMEM, "dynamo: out of memory");
    if (!st)
        st = dyn_plane_serve(w->plane, &(struct dyn_endpoint){
                                           .path = w->path.p, .call = dyn_generate_call, .ctx = w->generate});
    return st;
}

static int open_feed(struct dyn_worker *w, struct err *e)
{
    const struct dyn_feed_options feed = {
        .engine = ledger_engine(w->o.ledger), .worker = w->self.instance, .host = w->o.event_host};
    int st = dyn_feed_create(&w->feed, &feed, e);
    return st ? st : dyn_feed_join(w->feed, &w->self, w->plane, w->store, e);
}

static int open_status(struct dyn_worker *w, struct err *e)
{
    if (!w->o.status)
        return ST_OK;
    struct dyn_status_options o = *w->o.status;
    o.self = &w->self;
    o.count = &w->count;
    o.engine = ledger_engine(w->o.ledger);
    o.store = w->store;
    w->o.status = NULL; /* its socket is the server's from here on */
    return dyn_status_create(&w->status, &o, e);
}

static int watch(struct dyn_worker *w, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN};
    return fd < 0 || epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &ev) == 0 ? ST_OK : ST_EIO;
}

static int open_all(struct dyn_worker *w, struct err *e)
{
    bool v6 = strchr(w->o.host, ':') != NULL;
    buf_printf(&w->address, "%s%s%s:%u", v6 ? "[" : "", w->o.host, v6 ? "]" : "", w->o.port);
    w->self = (struct dyn_self){.name_space = w->o.name_space,
                                .component = w->o.component,
                                .endpoint = w->o.endpoint,
                                .instance = dyn_store_random_instance(),
                                .address = w->address.p,
                                .device = w->o.device};
    w->o.store.instance = w->self.instance;
    dyn_record_path(&w->path, &w->self, NULL);
    int st = open_plane(w, e); /* first, as it takes the socket */
    if (!st && (w->address.failed || w->path.failed))
        st = err_set(e, ST_ENOMEM, "dynamo: out of memory");
    if (!st)
        st = dyn_store_open(&w->store, &w->o.store, e);
    if (!st)
        st = open_feed(w, e);
    if (!st)
        st = open_status(w, e);
    w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!st && (w->epoll_fd < 0 || watch(w, dyn_plane_fd(w->plane)) || watch(w, dyn_feed_fd(w->feed)) ||
                (w->status && watch(w, dyn_status_fd(w->status)))))
        st = err_set(e, ST_EIO, "dynamo: %s", strerror(errno));
    return st;
}

int dyn_worker_create(struct dyn_worker **out, const struct dyn_worker_options *o, struct err *e)
{
    struct dyn_worker *w = mem_zalloc(1, sizeof *w);
    if (!w) {
        close(o->listen_fd);
        return err_set(e, ST_ENOMEM, "dynamo: out of memory");
    }
    w->o = *o;
    w->epoll_fd = -1;
    int st = open_all(w, e);
    if (st) {
        dyn_worker_destroy(w);
        return st;
    }
    *out = w;
    return ST_OK;
}

void dyn_worker_destroy(struct dyn_worker *w)
{
    if (!w)
        return;
    if (w->o.status) /* never came to be */
        close(w->o.status->listen_fd);
    dyn_status_destroy(w->status);
    dyn_store_close(w->store);
    dyn_plane_destroy(w->plane);
    dyn_generate_destroy(w->generate);
    dyn_feed_destroy(w->feed);
    if (w->epoll_fd >= 0)
        close(w->epoll_fd);
    buf_fini(&w->address);
    buf_fini(&w->path);
    mem_free(w);
}

const struct dyn_self *dyn_worker_self(const struct dyn_worker *w)
{
    return &w->self;
}

const struct dyn_count *dyn_worker_count(const struct dyn_worker *w)
{
    return &w->count;
}

int dyn_worker_publish(struct dyn_worker *w, struct dyn_record *card, struct err *e)
{
    struct dyn_record instance = {0};
    dyn_record_instance(&instance, &w->self, NULL);
    int st = dyn_store_publish(w->store, &instance);
    int st_card = dyn_store_publish(w->store, card);
    if (st || st_card)
        return err_set(e, st ? st : st_card, "dynamo: the worker's records: %s",
                       status_text(st ? st : st_card));
    struct err why = {0};
    st = dyn_store_settle(w->store, SETTLE_MS, &why);
    if (st)
        err_set(e, st, "discovery (%s): not registered within %d s: %.180s", w->o.store.backend, SETTLE_MS / 1000, why.text);
    else
        log_info("dynamo", "joined as %s at %s", w->path.p, w->address.p);
    return st;
}

void dyn_worker_withdraw(struct dyn_worker *w)
{
    dyn_store_withdraw(w->store, WITHDRAW_MS);
}

/* ---- in the io loop ---------------------------------------------------------------------------------------------- */

int dyn_worker_fd(const struct dyn_worker *w)
{
    return w->epoll_fd;
}

static int sooner(int a, int b)
{
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

int dyn_worker_run(void *ctx, int64_t now_ns)
{
    struct dyn_worker *w = ctx;
    int ms = sooner(dyn_plane_run(w->plane, now_ns), dyn_feed_run(w->feed, now_ns));
    return w->status ? sooner(ms, dyn_status_run(w->status)) : ms;
}

void dyn_worker_drain(void *ctx, int64_t now_ns)
{
    struct dyn_worker *w = ctx;
    dyn_plane_drain(w->plane, now_ns);
}

void dyn_worker_stop(void *ctx)
{
    struct dyn_worker *w = ctx;
    dyn_generate_stop(w->generate);
}

bool dyn_worker_idle(void *ctx)
{
    struct dyn_worker *w = ctx;
    return dyn_plane_idle(w->plane);
}
