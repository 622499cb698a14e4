/* One row per path; what is not in the table is the last row. "live" asks whether the process turns its loop (answering is
 * the proof), "ready" whether it takes new work. */
#include "http_route.h"

#include "api_reply.h"
#include "clock.h"
#include "http_queue.h"

#include <string.h>

static const struct http_route routes[] = {
    {"/v1/chat/completions", HTTP_ROUTE_COMPLETE, true, false, API_CHAT},
    {"/v1/completions", HTTP_ROUTE_COMPLETE, true, false, API_COMPLETIONS},
    {"/v1/models", HTTP_ROUTE_MODELS, false, false, API_CHAT},
    {"/v1/models/", HTTP_ROUTE_MODEL, false, false, API_CHAT},
    {"/v1/health/live", HTTP_ROUTE_LIVE, false, true, API_CHAT},
    {"/v1/health/ready", HTTP_ROUTE_READY, false, true, API_CHAT},
    {"/health", HTTP_ROUTE_READY, false, true, API_CHAT},
    {"/version", HTTP_ROUTE_VERSION, false, true, API_CHAT},
    {"/metrics", HTTP_ROUTE_METRICS, false, false, API_CHAT},
    {"/v1/metrics", HTTP_ROUTE_METRICS, false, false, API_CHAT},
    {"/v1/stator/queue", HTTP_ROUTE_QUEUE, false, false, API_CHAT},
    {"/", HTTP_ROUTE_ABOUT, false, true, API_CHAT},
    {"other", HTTP_ROUTE_UNKNOWN, false, false, API_CHAT},
};
enum { ROUTES = sizeof routes / sizeof routes[0] };
_Static_assert((int)ROUTES <= (int)HTTP_COUNT_PATHS, "a row of counts for each route");

const struct http_route *http_route_find(const char *path, struct str *tail)
{
    *tail = (struct str){0};
    for (uint32_t i = 0; i + 1 < ROUTES; i++) {
        size_t n = strlen(routes[i].path);
        if (strcmp(path, routes[i].path) == 0 && routes[i].kind != HTTP_ROUTE_MODEL)
            return &routes[i];
        if (routes[i].kind == HTTP_ROUTE_MODEL && strncmp(path, routes[i].path, n) == 0 && path[n]) {
            *tail = str_from(path + n);
            return &routes[i];
        }
    }
    return &routes[ROUTES - 1];
}

uint32_t http_route_index(const struct http_route *r)
{
    return (uint32_t)(r - routes);
}

static struct api_model model_of(const struct http_calls *h, struct str name)
{
    struct str root = h->o->model_root.n ? h->o->model_root : h->o->model.names[0];
    return (struct api_model){
        .id = name, .root = root, .created = h->started_s, .max_model_len = h->o->model.context_length};
}

static void put_models(const struct http_calls *h, struct buf *b)
{
    struct api_model list[16];
    uint32_t n = h->o->model.n_names < 16 ? h->o->model.n_names : 16;
    for (uint32_t i = 0; i < n; i++)
        list[i] = model_of(h, h->o->model.names[i]);
    api_put_models(b, list, n);
}

static void put_metrics(const struct http_calls *h, struct buf *b)
{
    const char *paths[ROUTES];
    for (uint32_t i = 0; i < ROUTES; i++)
        paths[i] = routes[i].path;
    struct engine_stats s;
    engine_stats(ledger_engine(h->o->ledger), &s);
    metrics_put(ledger_metrics(h->o->ledger), &s, h->o->model.names[0], b);
    http_count_put(&h->count, paths, ROUTES, b);
}

static void put_about(const struct http_calls *h, struct buf *b)
{
    struct str name = h->o->model.names[0];
    buf_puts(b, "Stator serves ");
    buf_put(b, name.p, name.n);
    buf_puts(b, " here, in the manner of OpenAI's API.\n\n");
    for (uint32_t i = 0; i + 2 < ROUTES; i++)
        buf_printf(b, "%-5s %s%s\n", routes[i].post ? "POST" : "GET", routes[i].path,
                   routes[i].kind == HTTP_ROUTE_MODEL ? "{id}" : "");
}

static unsigned put_health(const struct http_calls *h, bool ready, struct buf *b)
{
    const char *state = h->failed ? "failed" : h->draining ? "draining" : "ok";
    bool good = !h->failed && (!ready || !h->draining);
    buf_printf(b, "{\"status\":\"%s\"}", state);
    return good ? 200 : 503;
}

int http_route_answer(const struct http_calls *h, const struct http_route *r, struct str tail,
                      struct http_route_reply *reply)
{
    switch (r->kind) {
    case HTTP_ROUTE_MODELS:
        put_models(h, reply->body);
        return ST_OK;
    case HTTP_ROUTE_MODEL:
        if (!http_model_serves(&h->o->model, tail))
            return http_model_unknown(&h->o->model, tail, &reply->error);
        struct api_model m = model_of(h, tail);
        api_put_model(reply->body, &m);
        return ST_OK;
    case HTTP_ROUTE_LIVE:
    case HTTP_ROUTE_READY:
        reply->code = put_health(h, r->kind == HTTP_ROUTE_READY, reply->body);
        return ST_OK;
    case HTTP_ROUTE_VERSION:
        buf_puts(reply->body, "{\"version\":");
        buf_put_json(reply->body, h->o->version);
        buf_putc(reply->body, '}');
        return ST_OK;
    case HTTP_ROUTE_METRICS:
        reply->type = "text/plain; version=0.0.4; charset=utf-8";
        put_metrics(h, reply->body);
        return ST_OK;
    case HTTP_ROUTE_QUEUE:
        http_queue_put(h->o->ledger, clock_now_ns(), reply->body);
        return ST_OK;
    case HTTP_ROUTE_ABOUT:
        reply->type = "text/plain; charset=utf-8";
        put_about(h, reply->body);
        return ST_OK;
    case HTTP_ROUTE_UNKNOWN:
    case HTTP_ROUTE_COMPLETE:
        break;
    }
    return err_set(&reply->error, ST_ENOENT, "No such path");
}
