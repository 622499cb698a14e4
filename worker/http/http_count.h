/* http_count: replies by path and status code, for the metrics page.
 *
 * Owns     nothing beyond its own memory.
 * Units    replies.
 * States   zeroed is valid.
 * Threads  the io thread only.
 * Errors   none; http_count_put: see buf.h.
 * Bounds   HTTP_COUNT_PATHS paths; codes that no reply of ours has are not counted.
 * Source   -
 */
#ifndef STATOR_HTTP_COUNT_H
#define STATOR_HTTP_COUNT_H

#include "buf.h"

#include <stdint.h>

enum { HTTP_COUNT_PATHS = 16, HTTP_COUNT_CODES = 11 };

struct http_count {
    uint64_t replies[HTTP_COUNT_PATHS][HTTP_COUNT_CODES];
};

void http_count_add(struct http_count *c, uint32_t path, unsigned code);
/* paths[i], of n, names row i. */
void http_count_put(const struct http_count *c, const char *const *paths, uint32_t n, struct buf *out);

#endif
