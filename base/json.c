/* cJSON is a good parser with two gaps for hostile input: its depth limit costs stack before it bites, and it takes
 * invalid UTF-8 and bytes behind the value. One linear scan in front closes both. */
#include "json.h"

#include <math.h>
#include <string.h>

/* Depth and control bytes, without building anything. */
static int scan(struct str t, struct err *e)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < t.n; i++) {
        char c = t.p[i];
        if (c == 0)
            return err_set(e, ST_EINVAL, "JSON: NUL byte at offset %zu", i);
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > JSON_DEPTH_MAX)
                return err_set(e, ST_EINVAL, "JSON: nested deeper than %d levels", JSON_DEPTH_MAX);
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return ST_OK;
}

int json_parse(cJSON **out, struct str text, struct err *e)
{
    int st = scan(text, e);
    if (st)
        return st;
    if (text.n == 0)
        return err_set(e, ST_EINVAL, "JSON: the text is empty");
    if (!utf8_valid(text))
        return err_set(e, ST_EINVAL, "JSON: text is not valid UTF-8");
    const char *end = NULL;
    cJSON *j = cJSON_ParseWithLengthOpts(text.p, text.n, &end, 0);
    if (!j) {
        size_t at = end && end >= text.p ? (size_t)(end - text.p) : 0;
        return err_set(e, ST_EINVAL, "JSON: syntax error at offset %zu", at);
    }
    while (end < text.p + text.n && strchr(" \t\r\n", *end))
        end++;
    if (end != text.p + text.n) {
        cJSON_Delete(j);
        return err_set(e, ST_EINVAL, "JSON: unexpected text at offset %zu", (size_t)(end - text.p));
    }
    *out = j;
    return ST_OK;
}

void json_free(cJSON *j)
{
    cJSON_Delete(j);
}

const cJSON *json_get(const cJSON *obj, const char *name)
{
    return cJSON_IsObject(obj) ? cJSON_GetObjectItemCaseSensitive(obj, name) : NULL;
}

static const cJSON *present(const cJSON *obj, const char *name)
{
    const cJSON *v = json_get(obj, name);
    return cJSON_IsNull(v) ? NULL : v;
}

int json_opt_int(const cJSON *obj, const char *name, int64_t min, int64_t max, int64_t *out, struct err *e)
{
    const cJSON *v = present(obj, name);
    if (!v)
        return ST_OK;
    double d = v->valuedouble;
    if (!cJSON_IsNumber(v) || !isfinite(d) || d != floor(d))
        return err_set(e, ST_EINVAL, "%s: expected an integer", name);
    if (d < (double)min || d > (double)max)
        return err_set(e, ST_EINVAL, "%s: %.17g is outside %lld..%lld", name, d, (long long)min,
                       (long long)max);
    /* 2^63 as a double passes the compare above when max is INT64_MAX */
    *out = d >= 9223372036854775807.0 ? INT64_MAX : (int64_t)d;
    return ST_OK;
}

int json_opt_num(const cJSON *obj, const char *name, double min, double max, double *out, struct err *e)
{
    const cJSON *v = present(obj, name);
    if (!v)
        return ST_OK;
    if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble))
        return err_set(e, ST_EINVAL, "%s: expected a number", name);
    if (v->valuedouble < min || v->valuedouble > max)
        return err_set(e, ST_EINVAL, "%s: %.17g is outside %.17g..%.17g", name, v->valuedouble, min, max);
    *out = v->valuedouble;
    return ST_OK;
}

int json_opt_bool(const cJSON *obj, const char *name, bool *out, struct err *e)
{
    const cJSON *v = present(obj, name);
    if (!v)
        return ST_OK;
    if (!cJSON_IsBool(v))
        return err_set(e, ST_EINVAL, "%s: expected true or false", name);
    *out = cJSON_IsTrue(v);
    return ST_OK;
}

int json_opt_str(const cJSON *obj, const char *name, struct str *out, struct err *e)
{
    const cJSON *v = present(obj, name);
    if (!v)
        return ST_OK;
    if (!cJSON_IsString(v))
        return err_set(e, ST_EINVAL, "%s: expected a string", name);
    *out = str_from(v->valuestring);
    return ST_OK;
}

int json_need_int(const cJSON *obj, const char *name, int64_t min, int64_t max, int64_t *out, struct err *e)
{
    if (!present(obj, name))
        return err_set(e, ST_EINVAL, "%s: missing", name);
    return json_opt_int(obj, name, min, max, out, e);
}

int json_need_str(const cJSON *obj, const char *name, struct str *out, struct err *e)
{
    if (!present(obj, name))
        return err_set(e, ST_EINVAL, "%s: missing", name);
    return json_opt_str(obj, name, out, e);
}
