/* status: result codes and error text, shared by every module.
 *
 * Owns     nothing; `struct err` lives on the caller's stack.
 * Units    a status is 0 (ST_OK) or one of the negative ST_* codes.
 * States   -
 * Threads  any; no shared state.
 * Errors   bug: assert. Operating failure: negative status + text. Pressure (ST_NOSPACE, ST_AGAIN):
 *          a status without text, normal control flow.
 * Bounds   text is cut at sizeof err.text.
 * Source   house rule, docs/ARCHITECTURE.md section 3.
 */
#ifndef STATOR_STATUS_H
#define STATOR_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/* code, value, HTTP status, OpenAI error type, short text */
#define STATUS_TABLE(X)                                                    \
    X(ST_OK, 0, 200, "ok", "ok")                                           \
    X(ST_EINVAL, -1, 400, "invalid_request_error", "invalid value")        \
    X(ST_EAUTH, -2, 401, "authentication_error", "not authorised")         \
    X(ST_ENOENT, -3, 404, "not_found_error", "not found")                  \
    X(ST_ETOOBIG, -4, 413, "invalid_request_error", "too large")           \
    X(ST_EBUSY, -5, 429, "rate_limit_error", "too busy")                   \
    X(ST_EDRAIN, -6, 503, "service_unavailable", "shutting down")          \
    X(ST_ENOMEM, -7, 503, "server_error", "out of memory")                 \
    X(ST_EIO, -8, 500, "server_error", "input/output error")               \
    X(ST_EFORMAT, -9, 500, "server_error", "malformed file")               \
    X(ST_EUNSUP, -10, 400, "invalid_request_error", "not supported")       \
    X(ST_EDEVICE, -11, 500, "server_error", "device error")                \
    X(ST_EINTERNAL, -12, 500, "server_error", "internal error")            \
    X(ST_ECANCEL, -13, 499, "cancelled", "cancelled")                      \
    X(ST_EMETHOD, -14, 405, "invalid_request_error", "method not allowed") \
    X(ST_ETIMEOUT, -15, 408, "timeout_error", "timed out")                 \
    X(ST_NOSPACE, -30, 503, "server_error", "no space")                    \
    X(ST_AGAIN, -31, 503, "server_error", "try again")

enum status {
#define X(code, value, http, type, text) code = value,
    STATUS_TABLE(X)
#undef X
};

struct err {
    int status;
    char text[240];
};

/* Fill `e` (may be NULL) and return `status`, so that a caller can `return err_set(...)`. */
int err_set(struct err *e, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

const char *status_name(int status); /* "ST_EINVAL"; static storage */
const char *status_text(int status); /* "invalid value"; static storage */
const char *status_type(int status); /* OpenAI error type; static storage */
int status_http(int status);         /* HTTP status code; 500 for unknown codes */

#ifdef __cplusplus
}
#endif
#endif
