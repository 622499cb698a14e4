/* Operators, subscripts and attributes. Attribute access follows the sandbox: a real attribute (a method)
 * wins over an item of the same name, methods that would change a list or dict are hidden, and what is not
 * there is Undefined, which fails only when something is done with it. Integers are 64 bits; leaving that
 * range is an error, not a wrap. */
#include "chat_run.h"

#include "chat_text.h"

#include <math.h>
#include <string.h>

struct value chat_undefined(struct chat_run *r, struct value name)
{
    (void)r;
    return (struct value){.kind = V_UNDEF, .n = name.n, .u.s = name.u.s};
}

static struct value undefined_error(struct chat_run *r, struct value v)
{
    return chat_fail(r, ST_EINVAL, "'%.*s' is undefined", (int)(v.n < 100 ? v.n : 100), v.n ? v.u.s : "");
}

static struct value overflow(struct chat_run *r)
{
    return chat_fail(r, ST_EUNSUP, "integer beyond 64 bits");
}

static struct value power(struct chat_run *r, struct value a, struct value b)
{
    if (a.kind == V_FLOAT || b.kind == V_FLOAT || chat_integer(b) < 0) {
        double x = chat_number(a), y = chat_number(b);
        if (x == 0 && y < 0)
            return chat_fail(r, ST_EINVAL, "0.0 cannot be raised to a negative power");
        if (x < 0 && y != floor(y))
            return chat_fail(r, ST_EUNSUP, "complex numbers");
        double p = pow(x, y);
        return isinf(p) && !isinf(x) && !isinf(y) ? chat_fail(r, ST_EINVAL, "result too large") : FLOAT(p);
    }
    int64_t base = chat_integer(a), exp = chat_integer(b), out = 1;
    while (exp) {
        if ((exp & 1) && __builtin_mul_overflow(out, base, &out))
            return overflow(r);
        exp >>= 1;
        if (exp && __builtin_mul_overflow(base, base, &base))
            return overflow(r);
    }
    return INT(out);
}

static struct value float_division(struct chat_run *r, int op, double x, double y)
{
    if (y == 0)
        return chat_fail(r, ST_EINVAL, "division by zero");
    if (op == T_DIV)
        return FLOAT(x / y);
    double m = fmod(x, y);
    if (m && (m < 0) != (y < 0))
        m += y;
    if (op == T_MOD)
        return FLOAT(m == 0 ? copysign(0.0, y) : m);
    double d = (x - m) / y, f = floor(d);
    return FLOAT(d == 0 ? copysign(0.0, x / y) : d - f > 0.5 ? f + 1 : f);
}

static struct value integer_division(struct chat_run *r, int op, int64_t x, int64_t y)
{
    if (y == 0)
        return chat_fail(r, ST_EINVAL, "division by zero");
    if (op == T_DIV)
        return FLOAT((double)x / (double)y);
    if (y == -1)
        return op == T_MOD ? INT(0) : x == INT64_MIN ? overflow(r) : INT(-x);
    int64_t q = x / y, m = x % y;
    if (m && (m < 0) != (y < 0)) {
        m += y;
        q--;
    }
    return INT(op == T_MOD ? m : q);
}

static struct value arithmetic(struct chat_run *r, int op, struct value a, struct value b)
{
    if (op == T_POW)
        return power(r, a, b);
    bool real = a.kind == V_FLOAT || b.kind == V_FLOAT;
    double x = chat_number(a), y = chat_number(b);
    int64_t i = real ? 0 : chat_integer(a), j = real ? 0 : chat_integer(b), out = 0;
    switch (op) {
    case T_ADD:
        return real ? FLOAT(x + y) : __builtin_add_overflow(i, j, &out) ? overflow(r) : INT(out);
    case T_SUB:
        return real ? FLOAT(x - y) : __builtin_sub_overflow(i, j, &out) ? overflow(r) : INT(out);
    case T_MUL:
        return real ? FLOAT(x * y) : __builtin_mul_overflow(i, j, &out) ? overflow(r) : INT(out);
    default:
        return real ? float_division(r, op, x, y) : integer_division(r, op, i, j);
    }
}

static struct value escaped(struct chat_run *r, struct value v)
{
    if (v.flag & VF_MARKUP)
        return v;
    size_t mark = r->out->n;
    chat_put_escaped(r, v.u.s, v.n);
    return chat_cut(r, mark);
}

static struct value join_text(struct chat_run *r, struct value a, struct value b)
{
    uint8_t flag = (a.flag | b.flag) & VF_MARKUP;
    if (flag) {
        a = escaped(r, a);
        b = escaped(r, b);
    }
    size_t n = (size_t)a.n + b.n;
    if (n > CHAT_MEMORY_MAX)
        return chat_fail(r, ST_ETOOBIG, "text too long");
    char *s = chat_charge(r, n) ? chat_take(r, n) : NULL;
    if (!s)
        return UNDEF;
    if (a.n)
        memcpy(s, a.u.s, a.n);
    if (b.n)
        memcpy(s + a.n, b.u.s, b.n);
    struct value v = TEXT(s, n);
    v.flag = flag;
    return v;
}

static struct value join_lists(struct chat_run *r, struct value a, struct value b)
{
    struct value l = chat_list_make(r, a.kind, a.u.list->n + b.u.list->n);
    for (uint32_t i = 0; i < a.u.list->n && !r->st; i++)
        chat_list_push(r, l, a.u.list->v[i]);
    for (uint32_t i = 0; i < b.u.list->n && !r->st; i++)
        chat_list_push(r, l, b.u.list->v[i]);
    return l;
}

static struct value repeat(struct chat_run *r, struct value v, int64_t times)
{
    size_t n = v.kind == V_STR ? v.n : v.u.list->n;
    if (times <= 0 || n == 0)
        return v.kind == V_STR ? TEXT("", 0) : chat_list_make(r, v.kind, 0);
    if (times > CHAT_MEMORY_MAX || n > CHAT_MEMORY_MAX / (size_t)times)
        return chat_fail(r, ST_ETOOBIG, "a repeated value is too long");
    if (v.kind != V_STR) {
        struct value l = chat_list_make(r, v.kind, (uint32_t)(n * (size_t)times));
        for (int64_t k = 0; k < times && !r->st; k++)
            for (size_t i = 0; i < n && !r->st; i++)
                chat_list_push(r, l, v.u.list->v[i]);
        return l;
    }
    char *s = chat_charge(r, n * (size_t)times) ? chat_take(r, n * (size_t)times) : NULL;
    for (int64_t k = 0; s && k < times; k++)
        memcpy(s + (size_t)k * n, v.u.s, n);
    return s ? TEXT(s, n * (size_t)times) : UNDEF;
}

static bool repeatable(struct value v)
{
    return v.kind == V_STR || v.kind == V_LIST || v.kind == V_TUPLE;
}

struct value chat_binary(struct chat_run *r, int op, struct value a, struct value b)
{
    static const char *const names[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
    if (r->st)
        return UNDEF;
    if (op == T_MOD && a.kind == V_STR)
        return chat_percent(r, a, b);
    if (a.kind == V_UNDEF || b.kind == V_UNDEF)
        return undefined_error(r, a.kind == V_UNDEF ? a : b);
    if (chat_is_number(a) && chat_is_number(b))
        return arithmetic(r, op, a, b);
    if (op == T_ADD && a.kind == V_STR && b.kind == V_STR)
        return join_text(r, a, b);
    if (op == T_ADD && a.kind == b.kind && (a.kind == V_LIST || a.kind == V_TUPLE))
        return join_lists(r, a, b);
    if (op == T_MUL && repeatable(a) && (b.kind == V_INT || b.kind == V_BOOL))
        return repeat(r, a, chat_integer(b));
    if (op == T_MUL && repeatable(b) && (a.kind == V_INT || a.kind == V_BOOL))
        return repeat(r, b, chat_integer(a));
    return chat_fail(r, ST_EINVAL, "unsupported operand type(s) for %s: '%s' and '%s'", names[op - T_ADD],
                     chat_type_name(a), chat_type_name(b));
}

struct value chat_negate(struct chat_run *r, struct value v, bool negative)
{
    if (v.kind == V_FLOAT)
        return FLOAT(negative ? -v.u.f : v.u.f);
    if (v.kind == V_INT || v.kind == V_BOOL) {
        int64_t i = chat_integer(v);
        return negative && i == INT64_MIN ? overflow(r) : INT(negative ? -i : i);
    }
    if (v.kind == V_UNDEF)
        return undefined_error(r, v);
    return chat_fail(r, ST_EINVAL, "bad operand type for unary %c: '%s'", negative ? '-' : '+',
                     chat_type_name(v));
}

/* The value at an index that may count from the end; V_UNSET when out of range. */
static struct value at_index(struct chat_run *r, struct value v, int64_t i)
{
    int64_t n = v.kind == V_STR     ? (int64_t)chat_text_chars(v.u.s, v.n)
                : v.kind == V_RANGE ? v.u.range->n
                                    : v.u.list->n;
    chat_charge(r, v.kind == V_STR ? v.n : 0);
    if (i < 0)
        i += n;
    if (i < 0 || i >= n)
        return (struct value){.kind = V_UNSET};
    if (v.kind == V_RANGE)
        return chat_range_at(v.u.range, (uint32_t)i);
    if (v.kind != V_STR)
        return v.u.list->v[i];
    size_t at = n == (int64_t)v.n ? (size_t)i : chat_text_offset(v.u.s, v.n, (size_t)i);
    uint32_t cp;
    int len = chat_text_next(v.u.s + at, v.n - at, &cp);
    return TEXT(v.u.s + at, len);
}

/* obj[key]: items first, then attributes; what is missing is Undefined. */
struct value chat_item(struct chat_run *r, struct value v, struct value key)
{
    if (r->st)
        return UNDEF;
    if (v.kind == V_UNDEF)
        return undefined_error(r, v);
    if (v.kind == V_DICT) {
        uint32_t hash;
        bool list_key = key.kind == V_LIST || key.kind == V_DICT || key.kind == V_VIEW;
        if (list_key || (key.kind == V_TUPLE && !chat_hashable(r, key, &hash)))
            return UNDEF;
        struct value *found = chat_dict_get(r, v, key);
        if (found)
            return *found;
    }
    bool sequence = v.kind == V_STR || v.kind == V_LIST || v.kind == V_TUPLE || v.kind == V_RANGE;
    if (sequence && (key.kind == V_INT || key.kind == V_BOOL)) {
        struct value one = at_index(r, v, chat_integer(key));
        return one.kind == V_UNSET ? UNDEF : one;
    }
    if (key.kind != V_STR)
        return UNDEF;
    uint32_t name = chat_name_find(r->c, key.u.s, key.n);
    return chat_attr(r, v, name, key, chat_method_find(key));
}

static bool slice_bound(struct chat_run *r, struct value v, int64_t *out, bool *given)
{
    *given = v.kind != V_NONE && v.kind != V_UNSET;
    if (!*given)
        return true;
    if (v.kind != V_INT && v.kind != V_BOOL) {
        chat_fail(r, ST_EINVAL, "slice indices must be integers or None");
        return false;
    }
    *out = chat_integer(v);
    return true;
}

static int64_t clamp_bound(int64_t i, int64_t n, bool backwards)
{
    if (i < 0)
        i = i + n < 0 ? (backwards ? -1 : 0) : i + n;
    else if (i >= n)
        i = backwards ? n - 1 : n;
    return i;
}

static struct value slice_text(struct chat_run *r, struct value v, int64_t from, int64_t count, int64_t by)
{
    if (!chat_charge(r, v.n))
        return UNDEF;
    if (by == 1 && chat_text_ascii(v.u.s, v.n))
        return TEXT(v.u.s + from, count);
    if (by == 1) {
        size_t a = chat_text_offset(v.u.s, v.n, (size_t)from);
        return TEXT(v.u.s + a, chat_text_offset(v.u.s + a, v.n - a, (size_t)count));
    }
    struct value chars = chat_to_list(r, v, V_LIST);
    size_t mark = r->out->n;
    for (int64_t i = 0; i < count && !r->st; i++) {
        struct value c = chars.u.list->v[from + i * by];
        chat_put(r, c.u.s, c.n);
    }
    return chat_cut(r, mark);
}

struct value chat_slice(struct chat_run *r, struct value v, struct value start, struct value stop,
                        struct value by)
{
    if (r->st)
        return UNDEF;
    if (v.kind == V_UNDEF)
        return undefined_error(r, v);
    if (v.kind != V_STR && v.kind != V_LIST && v.kind != V_TUPLE && v.kind != V_RANGE)
        return UNDEF;
    int64_t from = 0, to = 0, stride = 1;
    bool has_from, has_to, has_stride;
    if (!slice_bound(r, start, &from, &has_from) || !slice_bound(r, stop, &to, &has_to) ||
        !slice_bound(r, by, &stride, &has_stride))
        return UNDEF;
    if (stride == 0)
        return chat_fail(r, ST_EINVAL, "slice step cannot be zero");
    int64_t n = v.kind == V_STR     ? (int64_t)chat_text_chars(v.u.s, v.n)
                : v.kind == V_RANGE ? v.u.range->n
                                    : v.u.list->n;
    if (stride < -n - 1 || stride > n + 1)
        stride = stride < 0 ? -n - 1 : n + 1;
    from = has_from ? clamp_bound(from, n, stride < 0) : stride < 0 ? n - 1 : 0;
    to = has_to ? clamp_bound(to, n, stride < 0) : stride < 0 ? -1 : n;
    int64_t span = stride < 0 ? from - to : to - from, step = stride < 0 ? -stride : stride;
    int64_t count = span > 0 ? (span + step - 1) / step : 0;
    if (v.kind == V_STR) {
        struct value s = count ? slice_text(r, v, from, count, stride) : TEXT("", 0);
        s.flag |= s.kind == V_STR ? v.flag & VF_MARKUP : 0;
        return s;
    }
    struct value l = chat_list_make(r, v.kind == V_RANGE ? V_LIST : v.kind, (uint32_t)count);
    for (int64_t i = 0; i < count && !r->st; i++)
        chat_list_push(r, l, at_index(r, v, from + i * stride));
    return l;
}

static struct value loop_attr(const struct chat_loop *l, uint32_t name)
{
    switch (name) {
    case NAME_index:
        return INT(l->at + 1);
    case NAME_index0:
        return INT(l->at);
    case NAME_revindex:
        return INT(l->n - l->at);
    case NAME_revindex0:
        return INT(l->n - l->at - 1);
    case NAME_first:
        return BOOL(l->at == 0);
    case NAME_last:
        return BOOL(l->at + 1 == l->n);
    case NAME_length:
        return INT(l->n);
    case NAME_depth:
        return INT(l->depth + 1);
    case NAME_depth0:
        return INT(l->depth);
    case NAME_previtem:
        return l->at ? l->items.u.list->v[l->at - 1] : UNDEF;
    case NAME_nextitem:
        return l->at + 1 < l->n ? l->items.u.list->v[l->at + 1] : UNDEF;
    default:
        return (struct value){.kind = V_UNSET};
    }
}

static struct value macro_attr(struct chat_run *r, const struct chat_macro *m, uint32_t name)
{
    if (name == NAME_name)
        return m->node->v;
    if (name != NAME_arguments)
        return (struct value){.kind = V_UNSET};
    struct value l = chat_list_make(r, V_TUPLE, m->node->count);
    for (const struct chat_node *p = m->node->a; p && !r->st; p = p->next)
        chat_list_push(r, l, p->v);
    return l;
}

/* obj.name: attributes first, then items. */
struct value chat_attr(struct chat_run *r, struct value v, uint32_t name, struct value text,
                       const struct chat_fn *fn)
{
    if (r->st)
        return UNDEF;
    struct value own = {.kind = V_UNSET};
    if (v.kind == V_UNDEF)
        return undefined_error(r, v);
    if (fn && (fn->kinds >> v.kind & 1)) {
        if (!fn->call && (v.kind == V_LIST || v.kind == V_DICT)) {
            own = chat_undefined(r, text);
            own.flag = VF_UNSAFE;
            return own;
        }
        struct chat_bound *b = chat_take(r, sizeof *b);
        if (!b)
            return UNDEF;
        *b = (struct chat_bound){v, fn};
        return (struct value){.kind = V_METHOD, .u.bound = b};
    }
    if (v.kind == V_DICT || v.kind == V_NS) {
        struct value *found = chat_dict_get(r, v, text);
        return found ? *found : chat_undefined(r, text);
    }
    if (v.kind == V_LOOP)
        own = loop_attr(v.u.loop, name);
    else if (v.kind == V_MACRO)
        own = macro_attr(r, v.u.macro, name);
    else if (v.flag & VF_GROUP && (name == NAME_grouper || name == NAME_list))
        own = v.u.list->v[name == NAME_list];
    else if (v.kind == V_CYCLER && name == NAME_current)
        own = v.u.cycler->v[v.u.cycler->at];
    return own.kind == V_UNSET ? chat_undefined(r, text) : own;
}
