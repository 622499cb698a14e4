/* json: bounded parsing and typed, field-naming access over cJSON.
 *
 * Owns     the cJSON tree returned by json_parse, freed with json_free. Getters borrow from it.
 * Units    bytes.
 * States   -
 * Threads  one owner per tree.
 * Errors   ST_EINVAL with a text that names the field ("messages[3].content: expected a string").
 * Bounds   depth JSON_DEPTH_MAX is checked before cJSON sees the text; size is the caller's limit.
 * Source   RFC 8259; cJSON 1.7.15.
 */
#ifndef STATOR_JSON_H
#define STATOR_JSON_H

#include "buf.h"
#include "status.h"

#include <cjson/cJSON.h>

enum { JSON_DEPTH_MAX = 128 };

/* Parses the whole of `text` (trailing garbage, NUL bytes and invalid UTF-8 are refused). */
int json_parse(cJSON **out, struct str text, struct err *e);
void json_free(cJSON *j); /* NULL ok */

/* Member lookup (exact name). NULL when `obj` is not an object or has no such member. */
const cJSON *json_get(const cJSON *obj, const char *name);

/* Optional typed members: absent or null leaves *out as it was and returns ST_OK; a wrong type or a value out of
 * [min, max] is ST_EINVAL. `json_opt_int` refuses fractions, NaN and infinities. */
int json_opt_int(const cJSON *obj, const char *name, int64_t min, int64_t max, int64_t *out, struct err *e);
int json_opt_num(const cJSON *obj, const char *name, double min, double max, double *out, struct err *e);
int json_opt_bool(const cJSON *obj, const char *name, bool *out, struct err *e);
int json_opt_str(const cJSON *obj, const char *name, struct str *out, struct err *e); /* borrowed */
/* As above, but absence is an error too. */
int json_need_int(const cJSON *obj, const char *name, int64_t min, int64_t max, int64_t *out, struct err *e);
int json_need_str(const cJSON *obj, const char *name, struct str *out, struct err *e);

#endif
