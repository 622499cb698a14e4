/* http_route: the table of paths, and the replies that need no engine request.
 *
 * Owns     nothing.
 * Units    -
 * States   -
 * Threads  the io thread.
 * Errors   http_route_answer: a status with its text in reply->error.
 * Bounds   -
 * Source   OpenAI API reference (models); Kubernetes probe habits (live, ready).
 */
#ifndef STATOR_HTTP_ROUTE_H
#define STATOR_HTTP_ROUTE_H

#include "http_call.h"

enum http_route_kind {
    HTTP_ROUTE_UNKNOWN,
    HTTP_ROUTE_COMPLETE,
    HTTP_ROUTE_MODELS,
    HTTP_ROUTE_MODEL,
    HTTP_ROUTE_LIVE,
    HTTP_ROUTE_READY,
    HTTP_ROUTE_VERSION,
    HTTP_ROUTE_METRICS,
    HTTP_ROUTE_QUEUE,
    HTTP_ROUTE_ABOUT
};

struct http_route {
    const char *path; /* ends in '/' and is a prefix when kind is MODEL */
    enum http_route_kind kind;
    bool post, open; /* open: no API key needed */
    enum api_endpoint endpoint;
};

struct http_route_reply {
    struct buf *body;
    const char *type;
    unsigned code; /* 0 = 200 */
    struct err error;
};

/* Never NULL: unknown paths have a route of kind UNKNOWN. `tail` is what follows a prefix. */
const struct http_route *http_route_find(const char *path, struct str *tail);
uint32_t http_route_index(const struct http_route *r); /* row in the metrics */
int http_route_answer(const struct http_calls *h, const struct http_route *r, struct str tail,
                      struct http_route_reply *reply);

#endif
