/* The request plane is one more listening socket, and the rest of the worker's Dynamo side hangs on the io loop beside the
 * endpoint: this file knows the flags and hands them to those who do the work. */
#include "join.h"

#include "clock.h"
#include "http_listen.h"
#include "log.h"

#include <stdio.h>
#include <unistd.h>

static int listen_for_frontends(const struct config *c, struct dyn_worker_options *o, struct err *e)
{
    struct err why = {0};
    int st = http_listen(c->dyn_tcp_rpc_host, (uint16_t)c->dyn_tcp_rpc_port, &o->listen_fd, &o->port, &why);
    return st ? err_set(e, st, "--dyn-tcp-rpc-host: %s", why.text) : ST_OK;
}

/* Also lets the card's files be fetched from there, when no disk is shared. */
static int listen_for_status(const struct join_input *in, struct dyn_status_options *o, struct err *e)
{
    const struct config *c = in->config;
    struct err why = {0};
    uint16_t port;
    if (http_listen(c->dyn_system_host, (uint16_t)c->dyn_system_port, &o->listen_fd, &port, &why))
        return err_set(e, ST_EIO, "--dyn-system-host: %s", why.text);
    log_info("dynamo", "status server at %s port %u", c->dyn_system_host, port);
    if (!c->dynamo_serve_files)
        return ST_OK;
    o->files = &in->card->files;
    return card_serve(in->card, http_host_is_wildcard(c->dyn_system_host) ? c->dyn_tcp_rpc_host : c->dyn_system_host, port, e);
}

int join_create(struct dyn_worker **out, const struct join_input *in, struct err *e)
{
    const struct config *c = in->config;
    struct dyn_worker_options o = {
        .name_space = c->dyn_namespace,
        .component = c->dyn_component,
        .endpoint = c->dyn_endpoint,
        .device = in->device,
        .host = c->dyn_tcp_rpc_host,
        .event_host = c->dyn_event_plane_host,
        .store = {.backend = c->dyn_discovery_backend,
                  .folder = c->dyn_file_kv,
                  .endpoints = c->etcd_endpoints,
                  .user = c->etcd_auth_username,
                  .password = c->etcd_auth_password,
                  .tls = {c->etcd_auth_ca, c->etcd_auth_client_cert, c->etcd_auth_client_key}},
        .limits = in->limits,
        .ledger = in->ledger,
    };
    struct dyn_status_options status = {.listen_fd = -1,
                                        .model = in->card->card.name,
                                        .started_ns = in->started_ns,
                                        .model_load_s = (double)(clock_now_ns() - in->started_ns) / NS_PER_S};
    int st = c->dyn_system_port >= 0 ? listen_for_status(in, &status, e) : ST_OK;
    o.status = status.listen_fd >= 0 ? &status : NULL;
    if (!st && (st = listen_for_frontends(c, &o, e)) && o.status)
        close(status.listen_fd);
    struct dyn_worker *w = NULL;
    if (!st)
        st = dyn_worker_create(&w, &o, e);
    if (st)
        return st;
    const struct http_side side = {.ctx = w,
                                   .fd = dyn_worker_fd(w),
                                   .run = dyn_worker_run,
                                   .drain = dyn_worker_drain,
                                   .stop = dyn_worker_stop,
                                   .idle = dyn_worker_idle};
    st = http_attach(in->http, &side, e);
    if (st)
        dyn_worker_destroy(w);
    else
        *out = w;
    return st;
}
