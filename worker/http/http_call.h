/* http_call: HTTP requests as libmicrohttpd hands them over: routes, bodies, authorisation, replies, disconnects.
 *
 * Owns     one struct per connection and one per request; libmicrohttpd ends both through the callbacks here.
 * Units    bytes, ns.
 * States   request: head -> body* -> answered | job (suspended) -> answered -> completed.
 * Threads  the io thread only.
 * Errors   every refusal is a JSON error reply; when even that has no memory the connection is closed.
 * Bounds   a body of body_max bytes; what is beyond is read and dropped up to HTTP_DISCARD_MAX, then the connection closes.
 * Source   libmicrohttpd 0.9.75. Suspended connections are not polled by it: the half-close of each connection is watched
 *          in our own epoll for as long as it lives, so a client that goes away is noticed in any state.
 */
#ifndef STATOR_HTTP_CALL_H
#define STATOR_HTTP_CALL_H

#include "http.h"
#include "http_count.h"
#include "http_job.h"

#include <microhttpd.h>

enum { HTTP_DISCARD_MAX = 256 << 20 };

struct http_conn;

struct http_calls {
    const struct http_options *o;
    struct http_jobs *jobs;
    struct http_count count;
    int epoll_fd;
    int64_t started_s;
    bool draining, failed;
    uint8_t (*key_hashes)[HASH_BYTES]; /* [o->n_api_keys] */
    struct http_conn *conns;           /* all connections */
    uint32_t n_conns;
};

/* Callbacks for MHD_start_daemon, cls = struct http_calls. */
enum MHD_Result http_call_on_request(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                                     const char *version, const char *data, size_t *n, void **req);
void http_call_on_completed(void *cls, struct MHD_Connection *c, void **req,
                            enum MHD_RequestTerminationCode why);
void http_call_on_connection(void *cls, struct MHD_Connection *c, void **socket_context,
                             enum MHD_ConnectionNotificationCode what);

void http_call_on_hangup(struct http_conn *conn);           /* our epoll saw the client leave */
void http_calls_tick(struct http_calls *h, int64_t now_ns); /* closes connections that take too long */
void http_calls_close_all(struct http_calls *h);            /* resumes and shuts every connection */

#endif
