/* The gateway speaks JSON with base64 for bytes and decimal strings for 64-bit numbers, and leaves out whatever is zero or false:
 * a lease that is gone is a keepalive without TTL, a transaction that did not write is one without `succeeded`. */
#include "dyn_etcd.h"

#include "dyn_store_state.h"
#include "json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void dyn_etcd_put_grant(struct buf *out, uint64_t lease, uint32_t ttl_s)
{
    buf_printf(out, "{\"ID\":\"%" PRIu64 "\",\"TTL\":\"%u\"}", lease, ttl_s);
}

void dyn_etcd_put_lease(struct buf *out, uint64_t lease)
{
    buf_printf(out, "{\"ID\":\"%" PRIu64 "\"}", lease);
}

void dyn_etcd_put_login(struct buf *out, const char *user, const char *password)
{
    buf_puts(out, "{\"name\":");
    buf_put_json(out, str_from(user));
    buf_puts(out, ",\"password\":");
    buf_put_json(out, str_from(password));
    buf_putc(out, '}');
}

void dyn_etcd_put_base64(struct buf *out, struct str s)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < s.n; i += 3) {
        uint32_t v = (uint32_t)(unsigned char)s.p[i] << 16;
        if (i + 1 < s.n)
            v |= (uint32_t)(unsigned char)s.p[i + 1] << 8;
        if (i + 2 < s.n)
            v |= (unsigned char)s.p[i + 2];
        const char four[4] = {alphabet[v >> 18], alphabet[v >> 12 & 63],
                              i + 1 < s.n ? alphabet[v >> 6 & 63] : '=',
                              i + 2 < s.n ? alphabet[v & 63] : '='};
        buf_put(out, four, 4);
    }
}

static void put_key(struct buf *out, const struct dyn_record *r)
{
    struct buf path = {0};
    buf_printf(&path, "%s/%.*s", dyn_store_buckets[r->bucket], (int)r->key.n, r->key.p);
    if (path.failed)
        out->failed = path.failed;
    buf_puts(out, "\"key\":\"");
    dyn_etcd_put_base64(out, buf_str(&path));
    buf_putc(out, '"');
    buf_fini(&path);
}

void dyn_etcd_put_read(struct buf *out, const struct dyn_record *r, uint32_t n)
{
    buf_puts(out, "{\"success\":[");
    for (uint32_t i = 0; i < n; i++) {
        buf_puts(out, i ? ",{\"requestRange\":{" : "{\"requestRange\":{");
        put_key(out, &r[i]);
        buf_puts(out, "}}");
    }
    buf_puts(out, "]}");
}

void dyn_etcd_put_write(struct buf *out, const struct dyn_record *r, uint32_t n, const bool *stands,
                        const uint64_t *revisions, uint64_t lease)
{
    const char *between = "";
    buf_puts(out, "{\"compare\":[");
    for (uint32_t i = 0; i < n; i++) {
        if (stands[i])
            continue;
        buf_printf(out, "%s{\"target\":\"MOD\",\"result\":\"EQUAL\",\"mod_revision\":\"%" PRIu64 "\",",
                   between, revisions[i]);
        put_key(out, &r[i]);
        buf_putc(out, '}');
        between = ",";
    }
    buf_puts(out, "],\"success\":[");
    between = "";
    for (uint32_t i = 0; i < n; i++) {
        if (stands[i])
            continue;
        buf_printf(out, "%s{\"requestPut\":{\"lease\":\"%" PRIu64 "\",\"value\":\"", between, lease);
        dyn_etcd_put_base64(out, buf_str(&r[i].value));
        buf_puts(out, "\",");
        put_key(out, &r[i]);
        buf_puts(out, "}}");
        between = ",";
    }
    buf_puts(out, "]}");
}

/* ---- replies ---------------------------------------------------------------------------------------------------------- */

static int parse(cJSON **out, struct str reply, struct err *e)
{
    struct err inner = {0};
    int st = json_parse(out, reply, &inner);
    if (!st && !cJSON_IsObject(*out)) {
        json_free(*out);
        *out = NULL;
        st = ST_EINVAL;
    }
    if (st)
        st = err_set(e, ST_EFORMAT, "etcd: this is no reply of etcd: %.*s",
                     (int)(reply.n < 60 ? reply.n : 60), reply.n ? reply.p : "");
    return st;
}

int dyn_etcd_check(struct str reply, long http, int64_t *code_out, struct err *e)
{
    cJSON *j = NULL;
    *code_out = 0;
    int st = parse(&j, reply, e);
    if (st)
        return st;
    struct str text = {0};
    const cJSON *inner = json_get(j, "error"), *at = cJSON_IsObject(inner) ? inner : j; /* streams wrap it */
    if (http != 200 || inner) {
        if (json_opt_str(at, "message", &text, NULL) || text.n == 0)
            json_opt_str(j, "error", &text, NULL);
        const cJSON *code = json_get(at, "code") ? json_get(at, "code") : json_get(at, "grpc_code");
        if (cJSON_IsNumber(code) && code->valuedouble >= 0 && code->valuedouble < 1000)
            *code_out = (int64_t)code->valuedouble;
        st = err_set(e, ST_EIO, "etcd: %.*s (HTTP %ld)", (int)(text.n < 160 ? text.n : 160),
                     text.n ? text.p : "refused", http);
    }
    json_free(j);
    return st;
}

/* A 64-bit number: a string as the gateway writes it; 0 when it is absent. */
static bool take_u64(const cJSON *obj, const char *name, uint64_t *out)
{
    const cJSON *v = json_get(obj, name);
    *out = 0;
    if (!v)
        return true;
    if (!cJSON_IsString(v) || v->valuestring[0] < '0' || v->valuestring[0] > '9')
        return false;
    char *end;
    errno = 0;
    *out = strtoull(v->valuestring, &end, 10);
    return *end == 0 && errno == 0;
}

int dyn_etcd_take_keepalive(struct str reply, bool *alive_out, struct err *e)
{
    cJSON *j = NULL;
    int st = parse(&j, reply, e);
    if (st)
        return st;
    const cJSON *result = json_get(j, "result");
    uint64_t ttl;
    if (!cJSON_IsObject(result) || !take_u64(result, "TTL", &ttl))
        st = err_set(e, ST_EFORMAT, "etcd: a keepalive's reply without result");
    else
        *alive_out = ttl > 0;
    json_free(j);
    return st;
}

int dyn_etcd_take_token(struct str reply, struct buf *token_out, struct err *e)
{
    cJSON *j = NULL;
    struct str token = {0};
    int st = parse(&j, reply, e);
    if (st)
        return st;
    if (json_need_str(j, "token", &token, NULL) || token.n == 0)
        st = err_set(e, ST_EFORMAT, "etcd: a login's reply without token");
    for (size_t i = 0; !st && i < token.n; i++) /* it becomes a header */
        if ((unsigned char)token.p[i] <= ' ' || (unsigned char)token.p[i] > '~')
            st = err_set(e, ST_EFORMAT, "etcd: a login's token with control bytes");
    if (!st) {
        buf_reset(token_out);
        st = buf_put(token_out, token.p, token.n);
    }
    json_free(j);
    return st;
}

/* Gateways differ in how they write names of more than one word. */
static const cJSON *get_either(const cJSON *obj, const char *name, const char *camel)
{
    const cJSON *v = json_get(obj, name);
    return v ? v : json_get(obj, camel);
}

static int take_one(const cJSON *range, const struct dyn_record *r, uint64_t lease, bool *stands,
                    uint64_t *revision, struct err *e)
{
    const cJSON *kv = cJSON_GetArrayItem(json_get(range, "kvs"), 0), *value = json_get(kv, "value");
    const cJSON *mod = get_either(kv, "mod_revision", "modRevision");
    uint64_t holder;
    *stands = false;
    *revision = 0;
    if (!cJSON_IsObject(range) || (kv && (!cJSON_IsObject(kv) || !mod)))
        return err_set(e, ST_EFORMAT, "etcd: a range's reply without range");
    if (!kv)
        return ST_OK;
    if (!take_u64(kv, "lease", &holder) || !take_u64(kv, mod->string, revision))
        return err_set(e, ST_EFORMAT, "etcd: a key without lease or revision");
    if (holder != lease)
        return err_set(e, ST_EIO, "etcd: %s/%.120s belongs to another lease", dyn_store_buckets[r->bucket],
                       r->key.p);
    struct buf ours = {0};
    dyn_etcd_put_base64(&ours, buf_str(&r->value));
    *stands = !ours.failed && str_eqz(buf_str(&ours), cJSON_IsString(value) ? value->valuestring : "");
    buf_fini(&ours);
    return ours.failed ? err_set(e, ST_ENOMEM, "etcd: no memory") : ST_OK;
}

int dyn_etcd_take_found(struct str reply, const struct dyn_record *r, uint32_t n, uint64_t lease,
                        bool *stands, uint64_t *revisions, struct err *e)
{
    cJSON *j = NULL;
    int st = parse(&j, reply, e);
    const cJSON *responses = json_get(j, "responses");
    if (!st && (uint32_t)cJSON_GetArraySize(responses) != n)
        st = err_set(e, ST_EFORMAT, "etcd: not as many replies as ranges");
    const cJSON *at = st ? NULL : responses ? responses->child : NULL;
    for (uint32_t i = 0; !st && i < n; i++, at = at->next)
        st = take_one(get_either(at, "response_range", "responseRange"), &r[i], lease, &stands[i],
                      &revisions[i], e);
    json_free(j);
    return st;
}

int dyn_etcd_take_written(struct str reply, struct err *e)
{
    cJSON *j = NULL;
    int st = parse(&j, reply, e);
    if (!st && !cJSON_IsTrue(json_get(j, "succeeded")))
        st = err_set(e, ST_EIO, "etcd: our keys were changed while we looked at them");
    json_free(j);
    return st;
}
