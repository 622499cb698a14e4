/* A table of the few codes there are replaces a map. */
#include "http_count.h"

#include <assert.h>
#include <inttypes.h>

static const unsigned codes[HTTP_COUNT_CODES] = {200, 400, 401, 404, 405, 408, 413, 429, 499, 500, 503};

void http_count_add(struct http_count *c, uint32_t path, unsigned code)
{
    assert(path < HTTP_COUNT_PATHS);
    for (uint32_t i = 0; i < HTTP_COUNT_CODES; i++)
        if (codes[i] == code)
            c->replies[path][i]++;
}

void http_count_put(const struct http_count *c, const char *const *paths, uint32_t n, struct buf *out)
{
    buf_puts(out, "# HELP stator_http_requests_total HTTP requests by path and status code.\n"
                  "# TYPE stator_http_requests_total counter\n");
    for (uint32_t p = 0; p < n; p++)
        for (uint32_t i = 0; i < HTTP_COUNT_CODES; i++)
            if (c->replies[p][i])
                buf_printf(out, "stator_http_requests_total{path=\"%s\",code=\"%u\"} %" PRIu64 "\n", paths[p], codes[i],
                           c->replies[p][i]);
}
