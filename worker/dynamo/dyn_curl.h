/* dyn_curl: POSTs of JSON over HTTP(S), by libcurl, which is loaded when first used.
 *
 * Owns     the library and one connection, kept between calls.
 * Units    ms, bytes.
 * States   open -> post* -> close.
 * Threads  one at a time.
 * Errors   open: ST_EUNSUP where there is no libcurl, ST_EINVAL for a file that cannot be read. post: ST_EIO with the URL and
 *          libcurl's word, ST_ETOOBIG. A status of HTTP is no error here.
 * Bounds   replies of DYN_CURL_REPLY_MAX bytes; a call ends within its time. No proxy, no redirect, no other protocol.
 * Source   libcurl's easy interface, 7.85 or later.
 */
#ifndef STATOR_DYN_CURL_H
#define STATOR_DYN_CURL_H

#include "buf.h"
#include "status.h"

#include <stdint.h>

enum { DYN_CURL_REPLY_MAX = 1 << 20 };

struct dyn_curl;

/* What proves who is who under https. Each is PEM text, or the path of a file with it; NULL: none. Borrowed until close. */
struct dyn_curl_tls {
    const char *ca; /* instead of those that the system trusts */
    const char *cert, *key;
};

int dyn_curl_open(struct dyn_curl **out, const struct dyn_curl_tls *tls, struct err *e);
void dyn_curl_close(struct dyn_curl *c); /* NULL ok */

/* `header`: one more header line, NULL = none. `reply` is reset first. */
int dyn_curl_post(struct dyn_curl *c, const char *url, const char *header, struct str body,
                  uint32_t timeout_ms, struct buf *reply, long *http_out, struct err *e);

#endif
