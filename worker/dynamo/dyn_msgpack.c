/* MessagePack, read in place. A frontend's request is one map with a long array of token ids in it: the reader walks over the
 * bytes once, hands out views, and keeps nothing, so a body costs no memory beyond itself. msgpack-c was not taken: it builds
 * a tree of objects on a heap of its own (whose failures no test could inject), and what is needed of it is these two pages.
 *
 * Everything that a head announces is held against the bytes that are left: a lying length ends the reading there. */
#include "dyn_msgpack.h"

#include <assert.h>
#include <string.h>

struct dyn_msgpack dyn_msgpack_of(const void *p, size_t n)
{
    return (struct dyn_msgpack){p, n, 0};
}

bool dyn_msgpack_end(const struct dyn_msgpack *m)
{
    return m->at == m->n;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static uint64_t big_endian(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

static int64_t sign_extended(uint64_t v, size_t bytes)
{
    unsigned shift = 64 - 8 * (unsigned)bytes;
    return (int64_t)(v << shift) >> shift;
}

static double to_float(uint64_t bits, size_t bytes)
{
    float f;
    double d;
    uint32_t low = (uint32_t)bits;
    if (bytes == 4) {
        memcpy(&f, &low, sizeof f);
        return (double)f;
    }
    memcpy(&d, &bits, sizeof d);
    return d;
}

/* What follows the first byte: so many bytes of a number or a count, and what they mean. EXT: the type's byte comes after. */
struct form {
    uint8_t type, bytes;
};
static const struct form forms[0xe0 - 0xc0] = {
    [0x04] = {DYN_BIN, 1},   [0x05] = {DYN_BIN, 2},  [0x06] = {DYN_BIN, 4},   [0x07] = {DYN_EXT, 1},
    [0x08] = {DYN_EXT, 2},   [0x09] = {DYN_EXT, 4},  [0x0a] = {DYN_FLOAT, 4}, [0x0b] = {DYN_FLOAT, 8},
    [0x0c] = {DYN_UINT, 1},  [0x0d] = {DYN_UINT, 2}, [0x0e] = {DYN_UINT, 4},  [0x0f] = {DYN_UINT, 8},
    [0x10] = {DYN_INT, 1},   [0x11] = {DYN_INT, 2},  [0x12] = {DYN_INT, 4},   [0x13] = {DYN_INT, 8},
    [0x19] = {DYN_STR, 1},   [0x1a] = {DYN_STR, 2},  [0x1b] = {DYN_STR, 4},   [0x1c] = {DYN_ARRAY, 2},
    [0x1d] = {DYN_ARRAY, 4}, [0x1e] = {DYN_MAP, 2},  [0x1f] = {DYN_MAP, 4},
};

static int take_bytes(struct dyn_msgpack *m, size_t at, uint64_t n, struct dyn_value *out)
{
    if (n > m->n - at)
        return ST_EFORMAT;
    out->s = (struct str){(const char *)m->p + at, (size_t)n};
    m->at = at + (size_t)n;
    return ST_OK;
}

/* Each element is a byte at least, each pair two. */
static int take_count(struct dyn_msgpack *m, size_t at, uint64_t n, struct dyn_value *out)
{
    if (n > (m->n - at) / (out->type == DYN_MAP ? 2 : 1) || n > UINT32_MAX)
        return ST_EFORMAT;
    out->count = (uint32_t)n;
    m->at = at;
    return ST_OK;
}

static void set_int(struct dyn_value *out, int64_t v)
{
    out->type = v < 0 ? DYN_INT : DYN_UINT;
    if (v < 0)
        out->i = v;
    else
        out->u = (uint64_t)v;
}

static int read_form(struct dyn_msgpack *m, uint8_t first, size_t at, struct dyn_value *out)
{
    struct form f = forms[first - 0xc0];
    if (f.bytes == 0 || f.bytes > m->n - at)
        return ST_EFORMAT;
    uint64_t v = big_endian(m->p + at, f.bytes);
    out->type = (enum dyn_msgpack_type)f.type;
    at += f.bytes;
    switch (out->type) {
    case DYN_UINT:
        out->u = v;
        break;
    case DYN_INT:
        set_int(out, sign_extended(v, f.bytes));
        break;
    case DYN_FLOAT:
        out->f = to_float(v, f.bytes);
        break;
    case DYN_ARRAY:
    case DYN_MAP:
        return take_count(m, at, v, out);
    case DYN_EXT:
        return take_bytes(m, at, v + 1, out);
    default:
        return take_bytes(m, at, v, out);
    }
    m->at = at;
    return ST_OK;
}

int dyn_msgpack_read(struct dyn_msgpack *m, struct dyn_value *out)
{
    if (m->at >= m->n)
        return ST_EFORMAT;
    uint8_t first = m->p[m->at];
    size_t at = m->at + 1;
    if (first <= 0x7f || first >= 0xe0) {
        set_int(out, (int8_t)first);
    } else if (first <= 0x9f) {
        out->type = first <= 0x8f ? DYN_MAP : DYN_ARRAY;
        return take_count(m, at, first & 0x0f, out);
    } else if (first <= 0xbf) {
        out->type = DYN_STR;
        return take_bytes(m, at, first & 0x1f, out);
    } else if (first == 0xc0) {
        out->type = DYN_NIL;
    } else if (first == 0xc2 || first == 0xc3) {
        out->type = DYN_BOOL;
        out->yes = first == 0xc3;
    } else if (first >= 0xd4 && first <= 0xd8) { /* fixext: a type and 1, 2, 4, 8 or 16 bytes */
        out->type = DYN_EXT;
        return take_bytes(m, at, 1 + (UINT64_C(1) << (first - 0xd4)), out);
    } else {
        return read_form(m, first, at, out);
    }
    m->at = at;
    return ST_OK;
}

/* Nesting needs no stack here: what matters is how many values are still to be passed. */
int dyn_msgpack_skip(struct dyn_msgpack *m)
{
    struct dyn_msgpack at = *m;
    for (uint64_t left = 1; left > 0; left--) {
        struct dyn_value v;
        if (dyn_msgpack_read(&at, &v))
            return ST_EFORMAT;
        if (v.type == DYN_ARRAY)
            left += v.count;
        else if (v.type == DYN_MAP)
            left += 2 * (uint64_t)v.count;
    }
    *m = at;
    return ST_OK;
}

bool dyn_msgpack_get(const struct dyn_msgpack *m, const char *key, struct dyn_msgpack *out)
{
    struct dyn_msgpack at = *m;
    struct dyn_value v;
    if (dyn_msgpack_read(&at, &v) || v.type != DYN_MAP)
        return false;
    for (uint32_t left = v.count; left > 0; left--) {
        struct dyn_msgpack name = at;
        struct dyn_value k;
        if (dyn_msgpack_skip(&at) || dyn_msgpack_read(&name, &k))
            return false;
        if (k.type == DYN_STR && str_eqz(k.s, key)) {
            *out = at;
            return !dyn_msgpack_end(&at);
        }
        if (dyn_msgpack_skip(&at))
            return false;
    }
    return false;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static void put_head(struct buf *b, uint8_t first, uint64_t v, size_t bytes)
{
    uint8_t head[9] = {first};
    for (size_t i = 0; i < bytes; i++)
        head[bytes - i] = (uint8_t)(v >> 8 * i);
    buf_put(b, head, 1 + bytes);
}

/* The forms of a length or count, from the shortest: within the first byte, then 1, 2 and 4 bytes; a 0 is a form that the
 * family lacks. */
static void put_length(struct buf *b, uint8_t fix, uint32_t fix_max, uint8_t one, uint8_t two, uint64_t n)
{
    assert(n <= UINT32_MAX);
    if (fix && n <= fix_max)
        put_head(b, (uint8_t)(fix | n), 0, 0);
    else if (one && n <= UINT8_MAX)
        put_head(b, one, n, 1);
    else if (n <= UINT16_MAX)
        put_head(b, two, n, 2);
    else
        put_head(b, (uint8_t)(two + 1), n, 4);
}

void dyn_msgpack_put_nil(struct buf *b)
{
    put_head(b, 0xc0, 0, 0);
}

void dyn_msgpack_put_bool(struct buf *b, bool v)
{
    put_head(b, v ? 0xc3 : 0xc2, 0, 0);
}

void dyn_msgpack_put_uint(struct buf *b, uint64_t v)
{
    if (v <= 0x7f)
        put_head(b, (uint8_t)v, 0, 0);
    else if (v <= UINT8_MAX)
        put_head(b, 0xcc, v, 1);
    else if (v <= UINT16_MAX)
        put_head(b, 0xcd, v, 2);
    else if (v <= UINT32_MAX)
        put_head(b, 0xce, v, 4);
    else
        put_head(b, 0xcf, v, 8);
}

void dyn_msgpack_put_int(struct buf *b, int64_t v)
{
    if (v >= 0)
        dyn_msgpack_put_uint(b, (uint64_t)v);
    else if (v >= -32)
        put_head(b, (uint8_t)v, 0, 0);
    else if (v >= INT8_MIN)
        put_head(b, 0xd0, (uint64_t)v, 1);
    else if (v >= INT16_MIN)
        put_head(b, 0xd1, (uint64_t)v, 2);
    else if (v >= INT32_MIN)
        put_head(b, 0xd2, (uint64_t)v, 4);
    else
        put_head(b, 0xd3, (uint64_t)v, 8);
}

void dyn_msgpack_put_float(struct buf *b, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_head(b, 0xcb, bits, 8);
}

void dyn_msgpack_put_str(struct buf *b, struct str s)
{
    put_length(b, 0xa0, 31, 0xd9, 0xda, s.n);
    buf_put(b, s.p, s.n);
}

void dyn_msgpack_put_key(struct buf *b, const char *z)
{
    dyn_msgpack_put_str(b, str_from(z));
}

void dyn_msgpack_put_bin(struct buf *b, const void *p, size_t n)
{
    put_length(b, 0, 0, 0xc4, 0xc5, n);
    buf_put(b, p, n);
}

void dyn_msgpack_put_array(struct buf *b, uint32_t count)
{
    put_length(b, 0x90, 15, 0, 0xdc, count);
}

void dyn_msgpack_put_map(struct buf *b, uint32_t count)
{
    put_length(b, 0x80, 15, 0, 0xde, count);
}
