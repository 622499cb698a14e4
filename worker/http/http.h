/* http: the OpenAI-compatible endpoint: a listening socket, its connections, and the loop of the io thread.
 *
 * Owns     socket, libmicrohttpd daemon, jobs. Borrows ledger, tokenizer, template and all strings of the options.
 * Units    ms, bytes, tokens.
 * States   create (listens) -> run -> (drain | stop) -> run returns -> destroy.
 * Threads  create, run, destroy: one thread, the io thread; it also hands out the engine's events. drain, stop: any thread
 *          and signal handlers, before destroy begins. port: any.
 * Errors   create: ST_EIO / ST_EINVAL with the address ("port 8099 is in use"), ST_ENOMEM.
 * Bounds   max_connections, max_body_bytes, stream_bytes_max per stream; idle = asleep, no timer runs.
 * Source   OpenAI API reference; RFC 9110, 9112; libmicrohttpd 0.9.75 in external epoll mode.
 */
#ifndef STATOR_HTTP_H
#define STATOR_HTTP_H

#include "http_prompt.h"
#include "ledger.h"

struct http;

struct http_options {
    const char *host;
    uint16_t port; /* 0 = any free one; see http_port */
    struct ledger *ledger; /* of the engine; shared with what is attached */
    struct http_model model;    /* names, tokenizer, template, limits and defaults */
    struct str model_root;      /* what `root` of the model list says; empty = the name */
    const struct str *api_keys; /* [n_api_keys]; none = no authorisation */
    uint32_t n_api_keys;
    struct str version;
    uint32_t max_connections;   /* 0 = 1000 */
    size_t max_body_bytes;      /* 0 = 16 MiB */
    size_t stream_bytes_max;    /* unread output of one stream, beside a frame of each choice; 0 = 1 MiB */
    uint32_t sse_keepalive_ms;  /* 0 = 8000 */
    uint32_t client_timeout_ms; /* for a whole request to arrive, and for a client to read on; 0 = 60000 */
    uint32_t drain_timeout_ms;  /* running requests may take this long after http_drain */
    void (*on_failed)(void *ctx); /* NULL ok. Once, from the io thread, when the engine failed for good; http_run returns later */
    void *on_failed_ctx;
};

/* Something else that lives on the io thread, in the same loop. Nothing in it may block. */
struct http_side {
    void *ctx;
    int fd; /* readable when run has something to do */
    /* Each turn, after the engine's events were handed out; ms until the next one at the latest, -1: when the fd says. */
    int (*run)(void *ctx, int64_t now_ns);
    void (*drain)(void *ctx, int64_t now_ns); /* take nothing new, after a grace */
    void (*stop)(void *ctx);                  /* break off what is left */
    bool (*idle)(void *ctx);                  /* nothing is open, and no grace runs */
};

int http_create(struct http **out, const struct http_options *o, struct err *e);
/* Before http_run; the side must outlive it. */
int http_attach(struct http *h, const struct http_side *side, struct err *e);
uint16_t http_port(const struct http *h);
/* ST_OK after a drain or stop; ST_EDEVICE when the engine failed for good: that is a drain, in which new calls hear of it. */
int http_run(struct http *h, struct err *e);
void http_drain(struct http *h);   /* new calls are refused with 503; run returns when the others are done */
void http_stop(struct http *h);    /* running calls are cancelled */
void http_destroy(struct http *h); /* NULL ok */

bool http_host_is_known(const char *host);    /* an address, or a name that the resolver has one for */
bool http_host_is_loopback(const char *host); /* "localhost", 127.0.0.0/8, ::1 */
bool http_host_is_wildcard(const char *host); /* "0.0.0.0", "::" and what the resolver takes for them */

#endif
