/* A failed append poisons the buffer instead of forcing a check per call: writers of JSON, SSE and templates
 * append dozens of small pieces, and one check at the end is both shorter and harder to forget. */
#include "buf.h"

#include "mem.h"
#include "status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct str str_from(const char *z)
{
    return (struct str){z ? z : "", z ? strlen(z) : 0};
}

bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool str_eqz(struct str a, const char *z)
{
    return str_eq(a, str_from(z));
}

int buf_reserve(struct buf *b, size_t more)
{
    if (b->failed)
        return b->failed;
    if (!b->limit && more < b->cap - b->n) /* most appends */
        return ST_OK;
    size_t need;
    if (!mem_add(b->n, more, &need) || !mem_add(need, 1, &need) || (b->limit && need - 1 > b->limit))
        return b->failed = ST_ETOOBIG;
    if (need <= b->cap)
        return ST_OK;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    char *p = mem_realloc(b->p, cap);
    if (!p)
        return b->failed = ST_ENOMEM;
    b->p = p;
    b->cap = cap;
    return ST_OK;
}

int buf_put(struct buf *b, const void *p, size_t n)
{
    int st = buf_reserve(b, n);
    if (st)
        return st;
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
    b->p[b->n] = 0;
    return ST_OK;
}

int buf_puts(struct buf *b, const char *z)
{
    return buf_put(b, z, strlen(z));
}

int buf_putc(struct buf *b, char c)
{
    return buf_put(b, &c, 1);
}

int buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    int st = n < 0 ? (b->failed = ST_EINTERNAL) : buf_reserve(b, (size_t)n);
    if (!st) {
        vsnprintf(b->p + b->n, (size_t)n + 1, fmt, again);
        b->n += (size_t)n;
    }
    va_end(again);
    va_end(ap);
    return st;
}

void buf_put_json(struct buf *b, struct str s)
{
    if (s.n == 0) { /* s.p may be NULL: no arithmetic on it */
        buf_puts(b, "\"\"");
        return;
    }
    buf_putc(b, '"');
    size_t run = 0, i = 0;
    while (i < s.n) {
        unsigned char c = (unsigned char)s.p[i];
        uint32_t cp;
        int len = utf8_decode(s.p + i, s.n - i, &cp);
        if (len > 0 && c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) {
            i += (size_t)len;
            continue;
        }
        buf_put(b, s.p + run, i - run);
        if (len < 0)
            buf_puts(b, "\xef\xbf\xbd");
        else if (c == '"' || c == '\\')
            buf_put(b, (char[]){'\\', (char)c}, 2);
        else if (c == '\n')
            buf_puts(b, "\\n");
        else if (c == '\t')
            buf_puts(b, "\\t");
        else if (c == '\r')
            buf_puts(b, "\\r");
        else
            buf_printf(b, "\\u%04x", c);
        run = ++i;
    }
    buf_put(b, s.p + run, i - run);
    buf_putc(b, '"');
}

void buf_reset(struct buf *b)
{
    b->n = 0;
    b->failed = ST_OK;
    if (b->p)
        b->p[0] = 0;
}

void buf_fini(struct buf *b)
{
    mem_free(b->p);
    *b = (struct buf){.limit = b->limit};
}

struct str buf_str(const struct buf *b)
{
    return (struct str){b->p ? b->p : "", b->n};
}

static int sequence_length(unsigned char c)
{
    if (c < 0x80)
        return 1;
    if (c >= 0xc2 && c <= 0xdf)
        return 2;
    if (c >= 0xe0 && c <= 0xef)
        return 3;
    if (c >= 0xf0 && c <= 0xf4)
        return 4;
    return -1;
}

/* The second byte alone tells overlong forms, surrogates and values above U+10FFFF. */
static bool second_byte_ok(unsigned char lead, unsigned char c)
{
    unsigned lo = 0x80, hi = 0xbf;
    if (lead == 0xe0)
        lo = 0xa0;
    else if (lead == 0xed)
        hi = 0x9f;
    else if (lead == 0xf0)
        lo = 0x90;
    else if (lead == 0xf4)
        hi = 0x8f;
    return c >= lo && c <= hi;
}

int utf8_decode(const char *p, size_t n, uint32_t *cp_out)
{
    if (n == 0)
        return 0;
    const unsigned char *u = (const unsigned char *)p;
    int len = sequence_length(u[0]);
    if (len < 0 || (size_t)len > n)
        return -1;
    if (len == 1) {
        *cp_out = u[0];
        return 1;
    }
    if (!second_byte_ok(u[0], u[1]))
        return -1;
    uint32_t cp = u[0] & (0xffu >> (len + 1));
    for (int i = 1; i < len; i++) {
        if ((u[i] & 0xc0) != 0x80)
            return -1;
        cp = cp << 6 | (u[i] & 0x3fu);
    }
    *cp_out = cp;
    return len;
}

int utf8_encode(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    int len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (int i = len - 1; i > 0; i--, cp >>= 6)
        out[i] = (char)(0x80 | (cp & 0x3f));
    out[0] = (char)((0xf00 >> len) | cp);
    return len;
}

bool utf8_valid(struct str s)
{
    uint32_t cp;
    for (size_t i = 0; i < s.n;) {
        int len = utf8_decode(s.p + i, s.n - i, &cp);
        if (len <= 0)
            return false;
        i += (size_t)len;
    }
    return true;
}

size_t utf8_complete(struct str s)
{
    for (size_t back = 1; back <= 3 && back <= s.n; back++) {
        unsigned char c = (unsigned char)s.p[s.n - back];
        if ((c & 0xc0) == 0x80)
            continue;
        int len = sequence_length(c);
        if (len <= (int)back)
            return s.n;
        if (back >= 2 && !second_byte_ok(c, (unsigned char)s.p[s.n - back + 1]))
            return s.n;
        return s.n - back;
    }
    return s.n;
}
