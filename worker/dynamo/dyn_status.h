/* dyn_status: the status server that Dynamo's deployments ask: /health, /live, /metrics, /metadata, and the model's files.
 *
 * Owns     its socket, its libmicrohttpd daemon, its epoll fd. Borrows what it tells of.
 * Units    blocks, seconds on the page.
 * States   create (listens already) -> run, each turn of the io loop -> destroy.
 * Threads  the io thread; create before it runs.
 * Errors   create: ST_EIO.
 * Bounds   DYN_STATUS_CONNECTIONS connections: the oldest leaves for a newcomer; 10 s of silence; 32 KiB of a request.
 *          GET only, nobody is asked who they are: nothing of a request or its text is shown.
 * Source   NVIDIA Dynamo 1.6.1: system status server, component metrics; Prometheus text format 0.0.4.
 */
#ifndef STATOR_DYN_STATUS_H
#define STATOR_DYN_STATUS_H

#include "buf.h"
#include "dyn_count.h"
#include "dyn_files.h"
#include "dyn_record.h"
#include "engine.h"

enum { DYN_STATUS_CONNECTIONS = 64 };

struct dyn_status_options {
    int listen_fd; /* bound, listening; taken, also when create fails */
    const struct dyn_self *self;
    const struct dyn_count *count;
    const struct engine *engine;
    const struct dyn_store *store;
    const struct dyn_files *files; /* served at /v1/stator/model/<name>; NULL = none are */
    const char *model;             /* its name */
    int64_t started_ns;
    double model_load_s;
};

struct dyn_status;

int dyn_status_create(struct dyn_status **out, const struct dyn_status_options *o, struct err *e);
void dyn_status_destroy(struct dyn_status *s); /* NULL ok */
int dyn_status_fd(const struct dyn_status *s); /* readable when run has something to do */
int dyn_status_run(struct dyn_status *s);      /* ms until the next run at the latest, -1: when the fd says */

/* The page of /metrics. */
void dyn_status_page(struct buf *out, const struct dyn_status_options *o, int64_t now_ns);

#endif
