/* A frontend chooses between MessagePack and JSON for a request's body and its items. Both carry the same values, so JSON is
 * rewritten at the door, in either direction, and no field is understood twice. A container's count stands before its elements
 * in MessagePack and is known after them in JSON: the widest head is written first and filled in at the end, which a reader
 * takes as well as the short one. */
#include "dyn_json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- JSON -> MessagePack ----------------------------------------------------------------------------------------- */

struct lexer {
    const char *p, *end;
    struct buf *out;
    struct buf text; /* of the string being read */
};

static void space(struct lexer *l)
{
    while (l->p < l->end && (*l->p == ' ' || *l->p == '\n' || *l->p == '\r' || *l->p == '\t'))
        l->p++;
}

static bool take(struct lexer *l, char c)
{
    space(l);
    if (l->p == l->end || *l->p != c)
        return false;
    l->p++;
    return true;
}

static bool word(struct lexer *l, const char *z)
{
    size_t n = strlen(z);
    if ((size_t)(l->end - l->p) < n || memcmp(l->p, z, n) != 0)
        return false;
    l->p += n;
    return true;
}

static bool hex4(struct lexer *l, uint32_t *out)
{
    static const char hex[] = "0123456789abcdef";
    *out = 0;
    if (l->end - l->p < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        char c = *l->p++;
        if (c >= 'A' && c <= 'F')
            c = (char)(c - 'A' + 'a');
        const char *at = c ? strchr(hex, c) : NULL;
        if (!at)
            return false;
        *out = *out << 4 | (uint32_t)(at - hex);
    }
    return true;
}

/* Behind the backslash. A half of a surrogate pair without its other half is no character. */
static bool escape(struct lexer *l)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (l->p == l->end)
        return false;
    char c = *l->p++;
    const char *known = c ? strchr(from, c) : NULL;
    if (known)
        return buf_putc(&l->text, to[known - from]) == ST_OK;
    uint32_t cp = 0, low = 0;
    char utf8[4];
    if (c != 'u' || !hex4(l, &cp))
        return false;
    if (cp >= 0xd800 && cp < 0xdc00) {
        if (!word(l, "\\u") || !hex4(l, &low) || low < 0xdc00 || low > 0xdfff)
            return false;
        cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
    } else if (cp >= 0xdc00 && cp <= 0xdfff) {
        return false;
    }
    return buf_put(&l->text, utf8, (size_t)utf8_encode(cp, utf8)) == ST_OK;
}

static bool string(struct lexer *l)
{
    if (!take(l, '"'))
        return false;
    buf_reset(&l->text);
    for (;;) {
        const char *run = l->p;
        while (l->p < l->end && *l->p != '"' && *l->p != '\\' && (unsigned char)*l->p >= 0x20)
            l->p++;
        buf_put(&l->text, run, (size_t)(l->p - run));
        if (l->p == l->end || (unsigned char)*l->p < 0x20)
            return false;
        if (*l->p++ == '"')
            break;
        if (!escape(l))
            return false;
    }
    dyn_msgpack_put_str(l->out, buf_str(&l->text));
    return !l->text.failed;
}

static size_t digits(struct lexer *l)
{
    const char *from = l->p;
    while (l->p < l->end && *l->p >= '0' && *l->p <= '9')
        l->p++;
    return (size_t)(l->p - from);
}

/* Digits alone that fit 64 bits are an integer; all else is a double. */
static bool number(struct lexer *l)
{
    char copy[64];
    const char *from = l->p;
    bool minus = take(l, '-'), whole = true;
    bool zero = l->p < l->end && *l->p == '0';
    size_t n = digits(l);
    if (n == 0 || (zero && n > 1))
        return false;
    uint64_t u = 0;
    for (const char *d = l->p - n; d < l->p && whole; d++)
        whole = !__builtin_mul_overflow(u, 10, &u) && !__builtin_add_overflow(u, (uint64_t)(*d - '0'), &u);
    if (l->p < l->end && *l->p == '.') {
        l->p++;
        whole = false;
        if (digits(l) == 0)
            return false;
    }
    if (l->p < l->end && (*l->p | 32) == 'e') {
        l->p++;
        whole = false;
        if (l->p < l->end && (*l->p == '+' || *l->p == '-'))
            l->p++;
        if (digits(l) == 0)
            return false;
    }
    if (whole && !minus) {
        dyn_msgpack_put_uint(l->out, u);
        return true;
    }
    if (whole && u <= (uint64_t)INT64_MAX + 1) {
        dyn_msgpack_put_int(l->out, (int64_t)(0 - u));
        return true;
    }
    size_t length = (size_t)(l->p - from); /* more digits than this decide nothing that a request asks for */
    if (length >= sizeof copy)
        return false;
    memcpy(copy, from, length);
    copy[length] = 0;
    double d = strtod(copy, NULL);
    dyn_msgpack_put_float(l->out, d);
    return isfinite(d);
}

static bool value(struct lexer *l, unsigned depth);

static bool container(struct lexer *l, bool map, unsigned depth)
{
    const char close = map ? '}' : ']';
    size_t head = l->out->n;
    uint32_t count = 0;
    if (depth == DYN_JSON_DEPTH || buf_put(l->out, map ? "\xdf\0\0\0\0" : "\xdd\0\0\0\0", 5))
        return false;
    l->p++;
    if (take(l, close))
        return true;
    do {
        if (map && (!string(l) || !take(l, ':')))
            return false;
        if (!value(l, depth + 1) || l->out->failed)
            return false;
        count++;
    } while (take(l, ','));
    for (int i = 0; i < 4; i++)
        l->out->p[head + 1 + (size_t)i] = (char)(count >> (24 - 8 * i));
    return take(l, close);
}

static bool value(struct lexer *l, unsigned depth)
{
    space(l);
    if (l->p == l->end)
        return false;
    switch (*l->p) {
    case '{':
    case '[':
        return container(l, *l->p == '{', depth);
    case '"':
        return string(l);
    case 'n':
        dyn_msgpack_put_nil(l->out);
        return word(l, "null");
    case 't':
        dyn_msgpack_put_bool(l->out, true);
        return word(l, "true");
    case 'f':
        dyn_msgpack_put_bool(l->out, false);
        return word(l, "false");
    default:
        return number(l);
    }
}

int dyn_json_to_msgpack(struct str json, struct buf *out)
{
    struct lexer l = {.p = json.p, .end = json.p + json.n, .out = out};
    if (json.n == 0 || !utf8_valid(json))
        return ST_EFORMAT;
    bool good = value(&l, 0);
    space(&l);
    int failed = out->failed ? out->failed : l.text.failed;
    buf_fini(&l.text);
    if (failed)
        return failed;
    return good && l.p == l.end ? ST_OK : ST_EFORMAT;
}

/* ---- MessagePack -> JSON ----------------------------------------------------------------------------------------- */

static void put_double(struct buf *out, double d)
{
    char text[40];
    if (!isfinite(d)) { /* as JSON writers do: there is no such number */
        buf_puts(out, "null");
        return;
    }
    for (int precision = 15; precision <= 17; precision++) { /* the shortest that reads back as the same */
        snprintf(text, sizeof text, "%.*g", precision, d);
        if (strtod(text, NULL) == d)
            break;
    }
    buf_puts(out, text);
    if (!strpbrk(text, ".e"))
        buf_puts(out, ".0"); /* a float stays one for a reader that tells them apart */
}

static int put_value(struct dyn_msgpack *m, struct buf *out, unsigned depth);

static int put_container(struct dyn_msgpack *m, const struct dyn_value *v, struct buf *out, unsigned depth)
{
    bool map = v->type == DYN_MAP;
    if (depth == DYN_JSON_DEPTH)
        return ST_EFORMAT;
    buf_putc(out, map ? '{' : '[');
    for (uint32_t i = 0; i < v->count; i++) {
        struct dyn_value key;
        if (i)
            buf_putc(out, ',');
        if (map) {
            if (dyn_msgpack_read(m, &key) || key.type != DYN_STR)
                return ST_EFORMAT;
            buf_put_json(out, key.s);
            buf_putc(out, ':');
        }
        int st = put_value(m, out, depth + 1);
        if (st)
            return st;
    }
    return buf_putc(out, map ? '}' : ']');
}

static int put_value(struct dyn_msgpack *m, struct buf *out, unsigned depth)
{
    struct dyn_value v;
    if (dyn_msgpack_read(m, &v))
        return ST_EFORMAT;
    switch (v.type) {
    case DYN_NIL:
        return buf_puts(out, "null");
    case DYN_BOOL:
        return buf_puts(out, v.yes ? "true" : "false");
    case DYN_UINT:
        return buf_printf(out, "%llu", (unsigned long long)v.u);
    case DYN_INT:
        return buf_printf(out, "%lld", (long long)v.i);
    case DYN_FLOAT:
        put_double(out, v.f);
        return out->failed;
    case DYN_STR:
        buf_put_json(out, v.s);
        return out->failed;
    case DYN_ARRAY:
    case DYN_MAP:
        return put_container(m, &v, out, depth);
    default:
        return ST_EFORMAT;
    }
}

int dyn_json_from_msgpack(struct dyn_msgpack *m, struct buf *out)
{
    return put_value(m, out, 0);
}
