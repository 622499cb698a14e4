/* Typed getters over keys that gguf.c has checked: bytes may be unaligned and are copied out; a number of any integer type is
 * taken where an integer is asked for, because files differ in the widths that they write. */
#include "gguf_kv.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

static bool is_int(enum gguf_type t)
{
    return t <= GGUF_I32 || t == GGUF_U64 || t == GGUF_I64 || t == GGUF_BOOL;
}

static int64_t load_int(enum gguf_type t, const void *p)
{
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
    } v = {0};
    memcpy(&v, p, gguf_kv_bytes[t]);
    switch (t) {
    case GGUF_U8:
        return v.u8;
    case GGUF_BOOL:
        return v.u8 != 0;
    case GGUF_I8:
        return v.i8;
    case GGUF_U16:
        return v.u16;
    case GGUF_I16:
        return v.i16;
    case GGUF_U32:
        return v.u32;
    case GGUF_I32:
        return v.i32;
    case GGUF_U64:
        return v.u64 > INT64_MAX ? INT64_MAX : (int64_t)v.u64;
    default:
        return v.i64;
    }
}

static double load_num(enum gguf_type t, const void *p)
{
    if (t == GGUF_F32) {
        float f;
        memcpy(&f, p, 4);
        return f;
    }
    if (t == GGUF_F64) {
        double d;
        memcpy(&d, p, 8);
        return d;
    }
    return (double)load_int(t, p);
}

static int wrong_type(const struct gguf *g, const struct gguf_kv *kv, const char *want, struct err *e)
{
    return err_set(e, ST_EFORMAT, "%s: key '%.*s': expected %s, found %s", g->name, GGUF_NAME_ARGS(kv->key),
                   want, gguf_kv_names[kv->type]);
}

int gguf_opt_int(const struct gguf *g, const char *key, int64_t min, int64_t max, int64_t *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_kv_find(g, key);
    if (kv == NULL)
        return ST_OK;
    if (!is_int(kv->type) || kv->type == GGUF_BOOL)
        return wrong_type(g, kv, "an integer", e);
    int64_t v = load_int(kv->type, kv->value.p);
    if (v < min || v > max)
        return err_set(e, ST_EFORMAT, "%s: key '%s': %" PRId64 " is not within %" PRId64 " to %" PRId64,
                       g->name, key, v, min, max);
    *out = v;
    return ST_OK;
}

int gguf_opt_num(const struct gguf *g, const char *key, double min, double max, double *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_kv_find(g, key);
    if (kv == NULL)
        return ST_OK;
    if (kv->type == GGUF_STRING || kv->type == GGUF_ARRAY || kv->type == GGUF_BOOL)
        return wrong_type(g, kv, "a number", e);
    double v = load_num(kv->type, kv->value.p);
    if (!(v >= min && v <= max)) /* also catches NaN */
        return err_set(e, ST_EFORMAT, "%s: key '%s': %g is not within %g to %g", g->name, key, v, min, max);
    *out = v;
    return ST_OK;
}

int gguf_opt_bool(const struct gguf *g, const char *key, bool *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_kv_find(g, key);
    if (kv == NULL)
        return ST_OK;
    if (kv->type != GGUF_BOOL)
        return wrong_type(g, kv, "a bool", e);
    *out = kv->value.p[0] != 0;
    return ST_OK;
}

int gguf_opt_str(const struct gguf *g, const char *key, struct str *out, struct err *e)
{
    const struct gguf_kv *kv = gguf_kv_find(g, key);
    if (kv == NULL)
        return ST_OK;
    if (kv->type != GGUF_STRING)
        return wrong_type(g, kv, "a string", e);
    *out = kv->value;
    return ST_OK;
}

int gguf_opt_array(const struct gguf *g, const char *key, enum gguf_type type, struct gguf_array *out,
                   struct err *e)
{
    const struct gguf_kv *kv = gguf_kv_find(g, key);
    if (kv == NULL)
        return ST_OK;
    if (kv->type != GGUF_ARRAY)
        return wrong_type(g, kv, "an array", e);
    if (type != GGUF_ARRAY && kv->inner != type)
        return err_set(e, ST_EFORMAT, "%s: key '%s': expected an array of %s, found one of %s", g->name, key,
                       gguf_kv_names[type], gguf_kv_names[kv->inner]);
    const unsigned char *p = (const unsigned char *)kv->value.p;
    *out = (struct gguf_array){kv->inner, kv->count, p, p + kv->value.n};
    return ST_OK;
}

int gguf_need_int(const struct gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                  struct err *e)
{
    if (gguf_kv_find(g, key) == NULL)
        return err_set(e, ST_EFORMAT, "%s: key '%s' is missing", g->name, key);
    return gguf_opt_int(g, key, min, max, out, e);
}

int gguf_need_str(const struct gguf *g, const char *key, struct str *out, struct err *e)
{
    if (gguf_kv_find(g, key) == NULL)
        return err_set(e, ST_EFORMAT, "%s: key '%s' is missing", g->name, key);
    return gguf_opt_str(g, key, out, e);
}

int64_t gguf_array_int(const struct gguf_array *a, uint64_t i)
{
    assert(i < a->n && is_int(a->type));
    return load_int(a->type, a->p + i * gguf_kv_bytes[a->type]);
}

double gguf_array_num(const struct gguf_array *a, uint64_t i)
{
    assert(i < a->n && a->type != GGUF_STRING);
    return load_num(a->type, a->p + i * gguf_kv_bytes[a->type]);
}

bool gguf_array_str(struct gguf_array *a, struct str *out)
{
    if (a->n == 0 || a->type != GGUF_STRING)
        return false;
    /* read_array walked these bytes already: the lengths hold. */
    uint64_t n;
    memcpy(&n, a->p, 8);
    *out = (struct str){(const char *)a->p + 8, (size_t)n};
    a->p += 8 + n;
    a->n--;
    return true;
}
