/* The request plane is one more listening socket, and the rest of the worker's Dynamo side hangs on the io loop beside the
 * endpoint: this file knows the flags and hands them to those who do the work. */
#include "join.h"

#include "http_listen.h"

#include <stdio.h>

static int listen_for_frontends(const struct config *c, struct dyn_worker_options *o, struct err *e)
{
    struct err why = {0};
    int st = http_listen(c->dyn_tcp_rpc_host, (uint16_t)c->dyn_tcp_rpc_port, &o->listen_fd, &o->port, &why);
    return st ? err_set(e, st, "--dyn-tcp-rpc-host: %s", why.text) : ST_OK;
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
                  .password = c->etcd_auth_password},
        .limits = in->limits,
        .mux = http_mux(in->http),
    };
    int st = listen_for_frontends(c, &o, e);
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
