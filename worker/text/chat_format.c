/* Python's two ways of formatting: "%d of %s" % (a, b), and "{} of {name:>8.2f}".format(...). Both come down
 * to one specification (fill, sign, width, precision, kind) that put_spec prints. */
#include "chat_run.h"

#include "chat_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH_MAX = 1 << 16, PRECISION_MAX = 300 };

struct spec {
    uint32_t fill;
    char align, sign, kind; /* align: < > ^ =; kind: s d f e g x o b c % or 0 */
    char group;             /* , or _ */
    bool alternate;
    int64_t width, precision; /* precision -1: none */
};

static void put_padded(struct chat_run *r, const struct spec *s, const char *p, size_t n, size_t prefix)
{
    int64_t more = s->width - (int64_t)chat_text_chars(p, n);
    char fill[4];
    size_t nf = (size_t)utf8_encode(s->fill, fill);
    if (more <= 0) {
        chat_put(r, p, n);
        return;
    }
    int64_t left = s->align == '<' || s->align == '=' ? 0 : s->align == '^' ? more / 2 : more;
    if (s->align == '=') {
        chat_put(r, p, prefix);
        p += prefix;
        n -= prefix;
        left = more;
    }
    for (int64_t i = 0; i < left && !r->st; i++)
        chat_put(r, fill, nf);
    chat_put(r, p, n);
    for (int64_t i = left; i < more && !r->st; i++)
        chat_put(r, fill, nf);
}

/* Inserts the group separator every three digits of the integer part at z[from..). */
static void group_digits(char *z, size_t size, size_t from, char mark)
{
    size_t digits = strspn(z + from, "0123456789");
    for (size_t at = digits; at > 3; at -= 3) {
        size_t n = strlen(z);
        if (n + 2 > size)
            return;
        memmove(z + from + at - 2, z + from + at - 3, n - (from + at - 3) + 1);
        z[from + at - 3] = mark;
    }
}

static void put_integer(struct chat_run *r, struct spec s, int64_t i)
{
    char z[160];
    uint64_t u = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    size_t n = 0;
    if (i < 0)
        z[n++] = '-';
    else if (s.sign == '+' || s.sign == ' ')
        z[n++] = s.sign;
    if (s.alternate && s.kind != 'd') {
        z[n++] = '0';
        z[n++] = s.kind;
    }
    size_t prefix = n;
    if (s.kind == 'b') {
        int bits = 1;
        while (bits < 64 && u >> bits)
            bits++;
        while (bits--)
            z[n++] = (char)('0' + (u >> bits & 1));
        z[n] = 0;
    } else {
        const char *f = s.kind == 'x' ? "%llx" : s.kind == 'X' ? "%llX" : s.kind == 'o' ? "%llo" : "%llu";
        char digits[32];
        int len = s.kind == 'x'   ? snprintf(digits, sizeof digits, "%llx", (unsigned long long)u)
                  : s.kind == 'X' ? snprintf(digits, sizeof digits, "%llX", (unsigned long long)u)
                  : s.kind == 'o' ? snprintf(digits, sizeof digits, "%llo", (unsigned long long)u)
                                  : snprintf(digits, sizeof digits, "%llu", (unsigned long long)u);
        (void)f;
        memcpy(z + n, digits, (size_t)len + 1);
    }
    if (s.group)
        group_digits(z, sizeof z, prefix, s.group);
    put_padded(r, &s, z, strlen(z), prefix);
}

static void put_real(struct chat_run *r, struct spec s, double d)
{
    char z[720];
    size_t n = 0;
    if (signbit(d) && !isnan(d))
        z[n++] = '-';
    else if (s.sign == '+' || s.sign == ' ')
        z[n++] = s.sign;
    d = fabs(d);
    int precision = s.precision < 0 ? 6 : (int)s.precision;
    if (s.kind == '%')
        d *= 100;
    if (isinf(d) || isnan(d))
        snprintf(z + n, sizeof z - n, isnan(d) ? "nan" : "inf");
    else if (s.kind == 'e')
        snprintf(z + n, sizeof z - n, "%.*e", precision, d);
    else if (s.kind == 'E')
        snprintf(z + n, sizeof z - n, "%.*E", precision, d);
    else if (s.kind == 'g' || s.kind == 'G')
        snprintf(z + n, sizeof z - n, s.kind == 'g' ? "%.*g" : "%.*G", precision, d);
    else
        snprintf(z + n, sizeof z - n, "%.*f%s", precision, d, s.kind == '%' ? "%" : "");
    if (s.group)
        group_digits(z, sizeof z, n, s.group);
    put_padded(r, &s, z, strlen(z), n);
}

static void put_plain_float(struct chat_run *r, struct spec s, double d)
{
    size_t mark = r->out->n;
    if ((s.sign == '+' || s.sign == ' ') && !signbit(d))
        chat_put(r, &s.sign, 1);
    chat_put_float(r, d);
    struct value v = chat_cut(r, mark);
    if (!r->st)
        put_padded(r, &s, v.u.s, v.n, v.n && (*v.u.s == '-' || *v.u.s == '+' || *v.u.s == ' '));
}

static void put_text(struct chat_run *r, struct spec s, struct value v)
{
    size_t n = v.n;
    if (s.precision >= 0)
        n = chat_text_offset(v.u.s, v.n, (size_t)s.precision);
    if (!s.align)
        s.align = '<';
    put_padded(r, &s, v.u.s, n, 0);
}

static void bad_kind(struct chat_run *r, char kind, struct value v)
{
    chat_fail(r, ST_EINVAL, "format code '%c' does not fit a value of type '%s'", kind, chat_type_name(v));
}

/* format(v, spec) */
static void put_spec(struct chat_run *r, struct spec s, struct value v)
{
    bool integer = v.kind == V_INT || (v.kind == V_BOOL && s.kind), real = v.kind == V_FLOAT;
    if (s.width > WIDTH_MAX || s.precision > PRECISION_MAX) {
        chat_fail(r, ST_ETOOBIG, "format width or precision too large");
    } else if (integer || real) {
        if (!s.align)
            s.align = '>';
        if (s.kind && strchr("eEfFgG%", s.kind))
            put_real(r, s, chat_number(v));
        else if (integer && (!s.kind || strchr("dxXobn", s.kind)) && s.precision < 0) {
            s.kind = s.kind && s.kind != 'n' ? s.kind : 'd';
            put_integer(r, s, chat_integer(v));
        } else if (real && !s.kind && s.precision < 0)
            put_plain_float(r, s, v.u.f);
        else if (real && !s.kind) {
            s.kind = 'g';
            put_real(r, s, v.u.f);
        } else
            bad_kind(r, s.kind ? s.kind : '.', v);
    } else if (v.kind == V_STR || v.kind == V_BOOL) {
        if ((s.kind && s.kind != 's') || s.align == '=' || s.sign)
            bad_kind(r, s.kind ? s.kind : '=', v);
        else
            put_text(r, s, chat_str(r, v));
    } else if (s.kind || s.align || s.width || s.precision >= 0) {
        chat_fail(r, ST_EINVAL, "unsupported format string passed to %s", chat_type_name(v));
    } else {
        chat_print(r, v);
    }
}

static int64_t read_number(const char *p, size_t n, size_t *at)
{
    int64_t v = 0;
    while (*at < n && p[*at] >= '0' && p[*at] <= '9' && v < 1 << 24)
        v = v * 10 + (p[(*at)++] - '0');
    return v;
}

static bool is_align(char c)
{
    return c == '<' || c == '>' || c == '^' || c == '=';
}

static bool parse_spec(struct chat_run *r, const char *p, size_t n, struct spec *s)
{
    size_t at = 0;
    uint32_t cp = 0;
    *s = (struct spec){.fill = ' ', .precision = -1};
    size_t first = n ? (size_t)chat_text_next(p, n, &cp) : 0;
    if (first < n && is_align(p[first])) {
        s->fill = cp;
        s->align = p[first];
        at = first + 1;
    } else if (n && is_align(p[0])) {
        s->align = p[at++];
    }
    if (at < n && (p[at] == '+' || p[at] == '-' || p[at] == ' '))
        s->sign = p[at++];
    if (at < n && p[at] == '#')
        s->alternate = p[at++];
    if (at < n && p[at] == '0') {
        s->fill = s->align ? s->fill : '0';
        s->align = s->align ? s->align : '=';
        at++;
    }
    s->width = read_number(p, n, &at);
    if (at < n && (p[at] == ',' || p[at] == '_'))
        s->group = p[at++];
    if (at + 1 < n && p[at] == '.' && p[at + 1] >= '0' && p[at + 1] <= '9') {
        at++;
        s->precision = read_number(p, n, &at);
    }
    if (at < n)
        s->kind = p[at++];
    if (at == n && (!s->kind || strchr("sdfFeEgGxXobn%", s->kind)))
        return true;
    chat_fail(r, ST_EINVAL, "invalid format specifier");
    return false;
}

/* The value of a replacement field such as 0.name[key]; *next counts the automatic ones, -1 after a manual
 * one. */
static struct value field(struct chat_run *r, const char *p, size_t n, const struct chat_args *a,
                          int64_t *next)
{
    size_t at = 0;
    struct value v = UNDEF;
    while (at < n && p[at] != '.' && p[at] != '[')
        at++;
    size_t digits = 0;
    int64_t i = read_number(p, at, &digits);
    if (digits == at) {
        if (at ? *next > 0 : *next < 0)
            return chat_fail(r, ST_EINVAL, "cannot mix automatic and manual field numbering");
        i = at ? i : *next;
        *next = at ? -1 : *next + 1;
        if (i >= a->n)
            return chat_fail(r, ST_EINVAL, "replacement index %lld out of range", (long long)i);
        v = a->pos[i];
    } else {
        uint32_t k = 0;
        while (k < a->n_kw && !str_eq(a->kw[k].name, (struct str){p, at}))
            k++;
        if (k == a->n_kw)
            return chat_fail(r, ST_EINVAL, "no argument named '%.*s'", (int)(at < 60 ? at : 60), p);
        v = a->kw[k].v;
    }
    while (at < n && !r->st) {
        char open = p[at++];
        size_t from = at;
        while (at < n && (open == '[' ? p[at] != ']' : p[at] != '.' && p[at] != '['))
            at++;
        struct value key = TEXT(p + from, at - from);
        size_t end = from;
        int64_t index = read_number(p, at, &end);
        if (open == '[' && end == at && at > from)
            key = INT(index);
        v = open == '[' ? chat_item(r, v, key)
                        : chat_attr(r, v, chat_name_find(r->c, key.u.s, key.n), key, chat_method_find(key));
        if (v.kind == V_UNDEF)
            return chat_fail(r, ST_EINVAL, "format: no such attribute or item");
        at += open == '[' && at < n;
    }
    return v;
}

static void put_field(struct chat_run *r, const char *p, size_t n, const struct chat_args *a, int64_t *next)
{
    size_t name = 0;
    while (name < n && p[name] != ':' && p[name] != '!')
        name++;
    struct value v = field(r, p, name, a, next);
    char spec_text[128];
    size_t at = name, w = 0;
    if (at + 1 < n && p[at] == '!') {
        size_t mark = r->out->n;
        if (p[at + 1] == 'r' || p[at + 1] == 'a')
            chat_repr(r, v);
        else
            chat_print(r, v);
        v = chat_cut(r, mark);
        at += 2;
    }
    at += at < n && p[at] == ':';
    for (; at < n && !r->st; at++) { /* a spec may hold fields itself: {:>{width}} */
        const char *close = p[at] == '{' ? memchr(p + at, '}', n - at) : NULL;
        if (p[at] == '{' && close) {
            struct value inner = chat_str(r, field(r, p + at + 1, (size_t)(close - p) - at - 1, a, next));
            if (r->st || inner.n > sizeof spec_text - 1 - w)
                break;
            memcpy(spec_text + w, inner.u.s, inner.n);
            w += inner.n;
            at = (size_t)(close - p);
        } else if (w + 1 < sizeof spec_text) {
            spec_text[w++] = p[at];
        } else {
            chat_fail(r, ST_ETOOBIG, "format specifier too long");
        }
    }
    struct spec s;
    if (!r->st && parse_spec(r, spec_text, w, &s))
        put_spec(r, s, v);
}

struct value chat_str_format(struct chat_run *r, struct value self, const struct chat_args *a)
{
    size_t mark = r->out->n;
    int64_t next = 0;
    const char *p = self.u.s;
    for (size_t at = 0; at < self.n && !r->st;) {
        size_t run = at;
        while (at < self.n && p[at] != '{' && p[at] != '}')
            at++;
        chat_put(r, p + run, at - run);
        if (at == self.n)
            break;
        if (at + 1 < self.n && p[at + 1] == p[at]) {
            chat_put(r, p + at, 1);
            at += 2;
            continue;
        }
        size_t end = at + 1;
        for (int depth = 1; end < self.n; end++) {
            depth += p[end] == '{' ? 1 : p[end] == '}' ? -1 : 0;
            if (depth == 0)
                break;
        }
        if (p[at] == '}' || end >= self.n)
            return chat_fail(r, ST_EINVAL, "unbalanced brace in format string");
        put_field(r, p + at + 1, end - at - 1, a, &next);
        at = end + 1;
    }
    return chat_cut(r, mark);
}

struct percent {
    struct value args; /* a tuple, a mapping or one value */
    uint32_t used;
    bool mapped;
};

static struct value next_arg(struct chat_run *r, struct percent *f)
{
    if (f->args.kind == V_TUPLE)
        return f->used < f->args.u.list->n
                   ? f->args.u.list->v[f->used++]
                   : chat_fail(r, ST_EINVAL, "not enough arguments for format string");
    if (f->used++)
        return chat_fail(r, ST_EINVAL, "not enough arguments for format string");
    return f->args;
}

static int64_t star_or_number(struct chat_run *r, struct percent *f, const char *p, size_t n, size_t *at)
{
    if (*at >= n || p[*at] != '*')
        return read_number(p, n, at);
    ++*at;
    struct value v = next_arg(r, f);
    return v.kind == V_INT ? v.u.i : (chat_fail(r, ST_EINVAL, "* wants int"), 0);
}

static void put_percent_value(struct chat_run *r, struct spec s, struct value v)
{
    size_t mark = r->out->n;
    if (s.kind == 's' || s.kind == 'r' || s.kind == 'a') {
        if (s.kind == 's')
            chat_print(r, v);
        else
            chat_repr(r, v);
        v = chat_cut(r, mark);
        s.fill = ' ';
        s.align = s.align == '<' ? '<' : '>';
        if (!r->st)
            put_text(r, s, v);
    } else if (s.kind == 'c') {
        bool one = v.kind == V_STR && chat_text_chars(v.u.s, v.n) == 1;
        char z[4];
        if (v.kind == V_INT && v.u.i > 0 && v.u.i < 0xd800)
            v = chat_text(r, z, (size_t)utf8_encode((uint32_t)v.u.i, z));
        else if (!one)
            chat_fail(r, ST_EINVAL, "%%c requires int or char");
        s.align = s.align == '<' ? '<' : '>';
        if (!r->st)
            put_text(r, s, v);
    } else if (!chat_is_number(v)) {
        chat_fail(r, ST_EINVAL, "%%%c format: a number is required, not %s", s.kind, chat_type_name(v));
    } else if (strchr("diu", s.kind)) {
        s.kind = 'd';
        s.precision = -1;
        double d = chat_number(v);
        if (v.kind == V_FLOAT && !(fabs(d) < 9.2e18))
            chat_fail(r, ST_EINVAL, "cannot convert float to integer");
        else
            put_spec(r, s, v.kind == V_FLOAT ? INT((int64_t)d) : INT(chat_integer(v)));
    } else if (strchr("xXo", s.kind) && v.kind == V_FLOAT) {
        bad_kind(r, s.kind, v);
    } else {
        put_spec(r, s, v);
    }
}

static size_t percent_one(struct chat_run *r, struct percent *f, const char *p, size_t n, size_t at)
{
    struct spec s = {.fill = ' ', .precision = -1, .align = '>'};
    struct value v = {.kind = V_UNSET};
    if (at < n && p[at] == '(') {
        const char *close = memchr(p + at, ')', n - at);
        if (!close || f->args.kind != V_DICT) {
            chat_fail(r, ST_EINVAL, "format requires a mapping");
            return n;
        }
        struct value key = TEXT(p + at + 1, close - (p + at + 1)), *found = chat_dict_get(r, f->args, key);
        if (!found) {
            chat_fail(r, ST_EINVAL, "no such key in the mapping");
            return n;
        }
        v = *found;
        f->mapped = true;
        at = (size_t)(close - p) + 1;
    }
    for (; at < n && strchr("#0- +", p[at]) && p[at]; at++) {
        s.alternate |= p[at] == '#';
        s.sign = p[at] == '+' || (p[at] == ' ' && !s.sign) ? p[at] : s.sign;
        if (p[at] == '-')
            s.align = '<';
        else if (p[at] == '0' && s.align != '<')
            s.align = '=';
    }
    s.fill = s.align == '=' ? '0' : ' ';
    s.width = star_or_number(r, f, p, n, &at);
    if (at < n && p[at] == '.') {
        at++;
        s.precision = star_or_number(r, f, p, n, &at);
    }
    if (at >= n || !p[at] || !strchr("sradiuxXofFeEgGc%", p[at])) {
        chat_fail(r, ST_EINVAL, at >= n ? "incomplete format" : "unsupported format character");
        return n;
    }
    s.kind = p[at++];
    if (s.kind == '%') {
        chat_put(r, "%", 1);
        return at;
    }
    if (v.kind == V_UNSET)
        v = next_arg(r, f);
    if (!r->st)
        put_percent_value(r, s, v);
    return at;
}

struct value chat_percent(struct chat_run *r, struct value format, struct value args)
{
    struct percent f = {.args = args};
    size_t mark = r->out->n;
    const char *p = format.u.s;
    for (size_t at = 0; at < format.n && !r->st;) {
        const char *next = memchr(p + at, '%', format.n - at);
        size_t end = next ? (size_t)(next - p) : format.n;
        chat_put(r, p + at, end - at);
        at = next ? percent_one(r, &f, p, format.n, end + 1) : format.n;
    }
    bool over = args.kind == V_TUPLE ? f.used < args.u.list->n
                                     : !f.used && !f.mapped && args.kind != V_DICT && args.kind != V_LIST;
    if (over && !f.mapped)
        return chat_fail(r, ST_EINVAL, "not all arguments converted during string formatting");
    return chat_cut(r, mark);
}
