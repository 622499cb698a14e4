/* Filters on single values: text, numbers, JSON. Those that work on sequences are in chat_filter_list.c. A
 * filter that Jinja builds from a str method calls ours. */
#include "chat_run.h"

#include "chat_text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILTER(name) \
    static struct value name(struct chat_run *r, struct value self, const struct chat_args *a)

static struct value method(struct chat_run *r, const char *name, struct value self, const struct chat_args *a)
{
    struct value s = chat_str(r, self);
    if (s.kind == V_STR && self.kind == V_STR)
        s.flag = self.flag;
    return r->st ? UNDEF : chat_invoke(r, chat_method_find(TEXT(name, strlen(name))), s, a);
}

static const struct chat_args no_args = {0};

FILTER(f_trim)
{
    return method(r, "strip", self,
                  a->pos[0].kind == V_UNSET ? &no_args : &(struct chat_args){.pos = a->pos, .n = 1});
}

FILTER(f_upper)
{
    return method(r, "upper", self, a);
}

FILTER(f_lower)
{
    return method(r, "lower", self, a);
}

FILTER(f_capitalize)
{
    return method(r, "capitalize", self, a);
}

/* Jinja's own title: a word starts behind white space, - ( { [ or <. */
FILTER(f_title)
{
    (void)a;
    struct value s = chat_str(r, self);
    size_t mark = r->out->n;
    bool start = true;
    for (size_t i = 0; i < s.n && !r->st;) {
        uint32_t cp;
        i += (size_t)chat_text_next(s.u.s + i, s.n - i, &cp);
        char z[4];
        chat_put(r, z, (size_t)utf8_encode(start ? chat_text_upper(cp) : chat_text_lower(cp), z));
        start = chat_text_space(cp) || (cp < 128 && cp && strchr("-({[<", (int)cp));
    }
    return chat_cut(r, mark);
}

FILTER(f_replace)
{
    struct value v[3] = {chat_str(r, a->pos[0]), chat_str(r, a->pos[1]), a->pos[2]};
    if (v[2].kind == V_NONE)
        v[2].kind = V_UNSET;
    struct chat_args b = {.pos = v, .n = v[2].kind == V_UNSET ? 2 : 3};
    return method(r, "replace", self, &b);
}

FILTER(f_string)
{
    (void)a;
    return chat_str(r, self);
}

FILTER(f_safe)
{
    (void)a;
    struct value s = chat_str(r, self);
    s.flag |= s.kind == V_STR ? VF_MARKUP : 0;
    return s;
}

static struct value escape(struct chat_run *r, struct value self, bool again)
{
    if (self.kind == V_STR && (self.flag & VF_MARKUP) && !again)
        return self;
    struct value s = chat_str(r, self);
    size_t mark = r->out->n;
    if (s.kind == V_STR)
        chat_put_escaped(r, s.u.s, s.n);
    s = chat_cut(r, mark);
    s.flag |= s.kind == V_STR ? VF_MARKUP : 0;
    return s;
}

FILTER(f_escape)
{
    (void)a;
    return escape(r, self, false);
}

FILTER(f_forceescape)
{
    (void)a;
    return escape(r, self, true);
}

FILTER(f_default)
{
    bool falsy = chat_truth(r, a->pos[1]);
    if (self.kind == V_UNDEF || (falsy && !chat_truth(r, self)))
        return a->pos[0].kind == V_UNSET ? TEXT("", 0) : a->pos[0];
    return self;
}

FILTER(f_length)
{
    (void)a;
    switch (self.kind) {
    case V_UNDEF:
        return INT(0);
    case V_STR:
        chat_charge(r, self.n);
        return INT((int64_t)chat_text_chars(self.u.s, self.n));
    case V_LIST:
    case V_TUPLE:
    case V_VIEW:
        return INT(self.u.list->n);
    case V_DICT:
        return INT(self.u.dict->n);
    case V_RANGE:
        return INT(self.u.range->n);
    case V_LOOP:
        return INT(self.u.loop->n);
    default:
        return chat_fail(r, ST_EINVAL, "object of type '%s' has no len()", chat_type_name(self));
    }
}

/* Text of a number without underscores and outer space, for strtol and strtod. */
static bool number_text(struct value s, char *z, size_t size)
{
    size_t from = chat_text_lstrip(s.u.s, s.n), to = chat_text_rstrip(s.u.s, s.n), n = 0;
    for (size_t i = from; i < to; i++) {
        char c = s.u.s[i];
        bool between = i > from && i + 1 < to && s.u.s[i - 1] != '_' && s.u.s[i + 1] != '_';
        if (c == '_' && between)
            continue;
        if (n + 1 == size || !c || chat_text_space((unsigned char)c))
            return false;
        z[n++] = c;
    }
    z[n] = 0;
    return n != 0;
}

static bool parse_float(struct value s, double *out)
{
    char z[128], *end;
    if (!number_text(s, z, sizeof z) || strpbrk(z, "xX(_"))
        return false;
    *out = strtod(z, &end);
    return *end == 0;
}

static struct value from_double(struct chat_run *r, double d, struct value otherwise)
{
    if (isnan(d))
        return otherwise;
    return fabs(d) < 9.2e18 ? INT((int64_t)d) : chat_fail(r, ST_EUNSUP, "integer beyond 64 bits");
}

FILTER(f_int)
{
    struct value otherwise = a->pos[0].kind == V_UNSET ? INT(0) : a->pos[0];
    int64_t base = a->pos[1].kind == V_INT ? a->pos[1].u.i : 10;
    char z[128], *end;
    double d;
    if (self.kind == V_INT || self.kind == V_BOOL)
        return INT(chat_integer(self));
    if (self.kind == V_FLOAT)
        return from_double(r, self.u.f, otherwise);
    if (self.kind == V_UNDEF)
        return chat_fail(r, ST_EINVAL, "'%.*s' is undefined", (int)self.n, self.n ? self.u.s : "");
    if (self.kind != V_STR || base < 2 || base > 36)
        return otherwise;
    if (number_text(self, z, sizeof z)) {
        const char *p = z + (*z == '-' || *z == '+');
        if (base == 2 && p[0] == '0' && (p[1] | 32) == 'b')
            memmove(z + (p - z), p + 2, strlen(p + 2) + 1);
        else if (base == 8 && p[0] == '0' && (p[1] | 32) == 'o')
            memmove(z + (p - z), p + 2, strlen(p + 2) + 1);
        errno = 0;
        long long i = strtoll(z, &end, (int)base);
        if (*end == 0 && errno == ERANGE)
            return chat_fail(r, ST_EUNSUP, "integer beyond 64 bits");
        if (*end == 0 && end != z)
            return INT(i);
    }
    return parse_float(self, &d) && !isinf(d) ? from_double(r, d, otherwise) : otherwise;
}

FILTER(f_float)
{
    double d;
    if (chat_is_number(self))
        return FLOAT(chat_number(self));
    if (self.kind == V_UNDEF)
        return chat_fail(r, ST_EINVAL, "'%.*s' is undefined", (int)self.n, self.n ? self.u.s : "");
    if (self.kind == V_STR && parse_float(self, &d))
        return FLOAT(d);
    return a->pos[0].kind == V_UNSET ? FLOAT(0) : a->pos[0];
}

FILTER(f_abs)
{
    (void)a;
    if (self.kind == V_FLOAT)
        return FLOAT(fabs(self.u.f));
    if (!chat_is_number(self))
        return chat_fail(r, ST_EINVAL, "bad operand type for abs(): '%s'", chat_type_name(self));
    int64_t i = chat_integer(self);
    return chat_negate(r, INT(i), i < 0);
}

/* Python rounds to the nearest decimal, ties to even: exactly what printf does with the exact binary value.
 * */
static double round_common(double d, int64_t precision)
{
    char z[400];
    if (!isfinite(d) || precision > 300)
        return d;
    if (precision < -308)
        return 0;
    if (precision >= 0) {
        snprintf(z, sizeof z, "%.*f", (int)precision, d);
        return strtod(z, NULL);
    }
    double p = pow(10, (double)-precision), y = d / p, n = nearbyint(y);
    return n * p;
}

FILTER(f_round)
{
    int64_t precision = a->pos[0].kind == V_INT ? a->pos[0].u.i : 0;
    struct value how = a->pos[1];
    if (!chat_is_number(self))
        return chat_fail(r, ST_EINVAL, "type %s cannot be rounded", chat_type_name(self));
    bool common =
        how.kind == V_UNSET || (how.kind == V_STR && str_eqz((struct str){how.u.s, how.n}, "common"));
    bool up = how.kind == V_STR && str_eqz((struct str){how.u.s, how.n}, "ceil");
    if (!common && !up && !(how.kind == V_STR && str_eqz((struct str){how.u.s, how.n}, "floor")))
        return chat_fail(r, ST_EINVAL, "method must be common, ceil or floor");
    if (common && self.kind != V_FLOAT)
        return precision >= 0 ? INT(chat_integer(self))
                              : INT((int64_t)round_common(chat_number(self), precision));
    double d = chat_number(self), p = pow(10, (double)precision);
    return FLOAT(common ? round_common(d, precision) : (up ? ceil(d * p) : floor(d * p)) / p);
}

/* indent(width=4, first=False, blank=False) */
FILTER(f_indent)
{
    char spaces[256];
    struct value pad = a->pos[0], s = chat_str(r, self);
    bool first = chat_truth(r, a->pos[1]), blank = chat_truth(r, a->pos[2]);
    if (pad.kind != V_STR) {
        int64_t n = pad.kind == V_UNSET ? 4 : pad.kind == V_INT ? pad.u.i : -1;
        if (n > (int64_t)sizeof spaces)
            return chat_fail(r, ST_ETOOBIG, "indent too wide");
        n = n < 0 ? 0 : n;
        memset(spaces, ' ', (size_t)n);
        pad = TEXT(spaces, n);
    }
    size_t mark = r->out->n, at = 0;
    if (first)
        chat_put(r, pad.u.s, pad.n);
    /* Jinja splits lines as Python does, but joins them with plain newlines; a closing newline stays one. */
    for (bool line1 = true; !r->st; line1 = false) {
        size_t end = at, next = at;
        bool broken = false;
        while (end < s.n && !broken) {
            uint32_t cp;
            next = end + (size_t)chat_text_next(s.u.s + end, s.n - end, &cp);
            broken = chat_text_line_end(cp);
            if (broken && cp == '\r' && next < s.n && s.u.s[next] == '\n')
                next++;
            end = broken ? end : next;
        }
        if (!line1 && (end > at || blank))
            chat_put(r, pad.u.s, pad.n);
        chat_put(r, s.u.s + at, end - at);
        if (!broken)
            break;
        chat_put(r, "\n", 1);
        at = next;
    }
    return chat_cut(r, mark);
}

FILTER(f_wordcount)
{
    (void)a;
    struct value s = chat_str(r, self);
    int64_t words = 0;
    bool in = false;
    chat_charge(r, s.n);
    for (size_t i = 0; i < s.n && !r->st;) {
        uint32_t cp;
        i += (size_t)chat_text_next(s.u.s + i, s.n - i, &cp);
        bool word = chat_text_alpha(cp) || chat_text_digit(cp) || cp == '_';
        words += word && !in;
        in = word;
    }
    return INT(words);
}

static void put_quoted(struct chat_run *r, struct value s, bool slash)
{
    for (size_t i = 0; i < s.n && !r->st; i++) {
        unsigned char c = (unsigned char)s.u.s[i];
        char z[4];
        bool plain = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') ||
                     (c && strchr("_.-~", c)) || (c == '/' && slash);
        if (c == ' ' && !slash)
            chat_put(r, "+", 1);
        else if (plain)
            chat_put(r, s.u.s + i, 1);
        else
            chat_put(r, z, (size_t)snprintf(z, sizeof z, "%%%02X", c));
    }
}

FILTER(f_urlencode)
{
    (void)a;
    size_t mark = r->out->n;
    if (self.kind == V_STR || chat_is_number(self) || self.kind == V_NONE || self.kind == V_UNDEF) {
        put_quoted(r, chat_str(r, self), true);
        return chat_cut(r, mark);
    }
    struct value pairs =
        self.kind == V_DICT ? chat_dict_view(r, self, "dict_items") : chat_to_list(r, self, V_LIST);
    for (uint32_t i = 0; !r->st && i < pairs.u.list->n; i++) {
        struct value pair = chat_to_list(r, pairs.u.list->v[i], V_LIST);
        if (r->st || pair.u.list->n != 2)
            return chat_fail(r, ST_EINVAL, "urlencode needs pairs");
        for (int k = 0; k < 2; k++) {
            struct value s = chat_str(r, pair.u.list->v[k]);
            chat_put(r, k ? "=" : "&", k || i);
            put_quoted(r, s, false);
        }
    }
    return chat_cut(r, mark);
}

/* "%s" | format(...): keywords make the mapping of %(name)s. */
FILTER(f_format)
{
    struct value s = chat_str(r, self), args;
    if (a->n && a->n_kw)
        return chat_fail(r, ST_EINVAL, "can't handle positional and keyword arguments at the same time");
    if (a->n_kw) {
        args = chat_dict_make(r, V_DICT, a->n_kw);
        for (uint32_t i = 0; i < a->n_kw && !r->st; i++)
            chat_dict_put(r, args, TEXT(a->kw[i].name.p, a->kw[i].name.n), a->kw[i].v);
    } else {
        args = chat_list_make(r, V_TUPLE, a->n);
        for (uint32_t i = 0; i < a->n && !r->st; i++)
            chat_list_push(r, args, a->pos[i]);
    }
    return r->st ? UNDEF : chat_percent(r, s, args);
}

static const struct chat_fn filters[] = {
    {"tojson", "ensure_ascii? indent? separators? sort_keys?", chat_tojson, 0},
    {"length", "", f_length, 0},
    {"count", "", f_length, 0},
    {"trim", "chars?", f_trim, 0},
    {"string", "", f_string, 0},
    {"default", "default_value? boolean?", f_default, 0},
    {"d", "default_value? boolean?", f_default, 0},
    {"upper", "", f_upper, 0},
    {"lower", "", f_lower, 0},
    {"capitalize", "", f_capitalize, 0},
    {"title", "", f_title, 0},
    {"replace", "old new count?", f_replace, 0},
    {"safe", "", f_safe, 0},
    {"escape", "", f_escape, 0},
    {"e", "", f_escape, 0},
    {"forceescape", "", f_forceescape, 0},
    {"int", "default? base?", f_int, 0},
    {"float", "default?", f_float, 0},
    {"abs", "", f_abs, 0},
    {"round", "precision? method?", f_round, 0},
    {"indent", "width? first? blank?", f_indent, 0},
    {"wordcount", "", f_wordcount, 0},
    {"urlencode", "", f_urlencode, 0},
    {"format", NULL, f_format, 0},
};

const struct chat_fn *chat_filter_find(struct value name)
{
    const struct chat_fn *fn = chat_find_in(filters, sizeof filters / sizeof *filters, name);
    return fn ? fn : chat_filter_more(name);
}
