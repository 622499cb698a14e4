/* Values are 16 bytes, passed by value; what does not fit hangs off the run's pool and is never freed singly.
 * Python's rules for truth, equality and order live here in one place. Dicts keep insertion order in an
 * array; a hash index is made only when they outgrow a handful of keys, because message objects have two to
 * five. Every walk over something that can be large charges steps, so that time is bounded wherever size is.
 * */
#include "chat_run.h"

#include "chat_text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { DICT_SMALL = 8 };

struct value chat_fail(struct chat_run *r, int st, const char *fmt, ...)
{
    if (r->st)
        return UNDEF;
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    struct str s = {text, strlen(text)};
    text[utf8_complete(s)] = 0;
    r->st = err_set(r->e, st, "chat template, line %u: %s", r->line, text);
    return UNDEF;
}

bool chat_charge(struct chat_run *r, size_t bytes)
{
    r->steps += 1 + bytes / 64;
    if (r->steps > CHAT_STEPS_MAX)
        chat_fail(r, ST_ETOOBIG, "the template takes more than %d steps", CHAT_STEPS_MAX);
    return !r->st;
}

void *chat_take(struct chat_run *r, size_t size)
{
    void *p = r->st ? NULL : chat_pool_take(&r->pool, size);
    if (!p && r->pool.failed == ST_ETOOBIG)
        chat_fail(r, ST_ETOOBIG, "the template needs more than %d bytes of values", CHAT_MEMORY_MAX);
    else if (!p)
        chat_fail(r, ST_ENOMEM, "out of memory");
    return p;
}

const char *chat_type_name(struct value v)
{
    static const char *const names[] = {"Undefined", "Undefined", "NoneType", "bool",      "int",
                                        "float",     "str",       "list",     "tuple",     "generator",
                                        "dict view", "range",     "dict",     "Namespace", "LoopContext",
                                        "Macro",     "function",  "method",   "Cycler",    "Joiner"};
    return names[v.kind];
}

struct value chat_text(struct chat_run *r, const char *p, size_t n)
{
    if (n == 0)
        return TEXT("", 0);
    char *s = n <= CHAT_MEMORY_MAX && chat_charge(r, n) ? chat_take(r, n) : NULL;
    if (!s)
        return chat_fail(r, ST_ETOOBIG, "text too long");
    memcpy(s, p, n);
    return TEXT(s, n);
}

struct value chat_list_make(struct chat_run *r, int kind, uint32_t cap)
{
    struct chat_list *l = chat_take(r, sizeof *l);
    struct value *v = l && cap ? chat_take(r, (size_t)cap * sizeof *v) : NULL;
    if (r->st)
        return UNDEF;
    *l = (struct chat_list){.v = v, .cap = cap};
    return (struct value){.kind = (uint8_t)kind, .u.list = l};
}

bool chat_list_push(struct chat_run *r, struct value list, struct value v)
{
    if (!chat_charge(r, 0))
        return false;
    struct chat_list *l = list.u.list;
    if (l->n == l->cap) {
        uint32_t cap = l->cap ? l->cap * 2 : 8;
        struct value *more = chat_take(r, (size_t)cap * sizeof *more);
        if (!more)
            return false;
        if (l->n)
            memcpy(more, l->v, l->n * sizeof *more);
        l->v = more;
        l->cap = cap;
    }
    l->v[l->n++] = v;
    return true;
}

struct value chat_pair_make(struct chat_run *r, struct value a, struct value b)
{
    struct value t = chat_list_make(r, V_TUPLE, 2);
    if (!r->st) {
        t.u.list->v[0] = a;
        t.u.list->v[1] = b;
        t.u.list->n = 2;
    }
    return t;
}

struct value chat_dict_make(struct chat_run *r, int kind, uint32_t cap)
{
    struct chat_dict *d = chat_take(r, sizeof *d);
    struct chat_pair *p = d && cap ? chat_take(r, (size_t)cap * sizeof *p) : NULL;
    if (r->st)
        return UNDEF;
    *d = (struct chat_dict){.p = p, .cap = cap};
    return (struct value){.kind = (uint8_t)kind, .u.dict = d};
}

bool chat_hashable(struct chat_run *r, struct value v, uint32_t *hash)
{
    uint32_t h = 2166136261u;
    if (v.kind == V_STR) {
        for (uint32_t i = 0; i < v.n; i++)
            h = (h ^ (unsigned char)v.u.s[i]) * 16777619u;
        *hash = h;
        return chat_charge(r, v.n);
    }
    if (chat_is_number(v)) {
        double d = chat_number(v);
        uint64_t bits;
        d = d == 0 ? 0 : d;
        memcpy(&bits, &d, sizeof bits);
        *hash = (uint32_t)((bits * 0x9e3779b97f4a7c15u) >> 32);
        return true;
    }
    if (v.kind == V_TUPLE && r->depth < EVAL_DEPTH_MAX) {
        r->depth++;
        for (uint32_t i = 0; i < v.u.list->n && chat_charge(r, 0); i++) {
            uint32_t one = 0;
            if (!chat_hashable(r, v.u.list->v[i], &one))
                break;
            h = (h ^ one) * 16777619u;
        }
        r->depth--;
        *hash = h;
        return !r->st;
    }
    *hash = v.kind;
    if (v.kind == V_LIST || v.kind == V_DICT || v.kind == V_TUPLE || v.kind == V_VIEW) {
        chat_fail(r, ST_EINVAL, "unhashable type: '%s'", chat_type_name(v));
        return false;
    }
    return true;
}

/* The place of the key among the pairs, or n. `hash` is used only when there is an index. */
static uint32_t dict_place(struct chat_run *r, const struct chat_dict *d, struct value key, uint32_t hash)
{
    if (!d->index) {
        uint32_t i = 0;
        for (; i < d->n && !r->st; i++) {
            struct value k = d->p[i].key;
            if (key.kind == V_STR && k.kind == V_STR ? key.n == k.n && memcmp(key.u.s, k.u.s, k.n) == 0
                                                     : chat_equal(r, key, k))
                break;
        }
        return i;
    }
    uint32_t mask = d->cap_index - 1;
    for (uint32_t at = hash & mask; d->index[at] && chat_charge(r, 0); at = (at + 1) & mask)
        if (chat_equal(r, d->p[d->index[at] - 1].key, key))
            return d->index[at] - 1;
    return d->n;
}

static void dict_index_add(struct chat_dict *d, uint32_t place, uint32_t hash)
{
    uint32_t at = hash & (d->cap_index - 1);
    while (d->index[at])
        at = (at + 1) & (d->cap_index - 1);
    d->index[at] = place + 1;
}

static bool dict_grow(struct chat_run *r, struct chat_dict *d)
{
    uint32_t cap = d->cap ? d->cap * 2 : 4;
    struct chat_pair *p = chat_take(r, (size_t)cap * sizeof *p);
    if (!p)
        return false;
    if (d->n)
        memcpy(p, d->p, d->n * sizeof *p);
    d->p = p;
    d->cap = cap;
    return true;
}

static bool dict_reindex(struct chat_run *r, struct chat_dict *d)
{
    uint32_t cap = 32;
    while (cap < d->n * 4)
        cap *= 2;
    d->index = chat_take(r, cap * sizeof *d->index);
    if (!d->index)
        return false;
    memset(d->index, 0, cap * sizeof *d->index);
    d->cap_index = cap;
    for (uint32_t i = 0; i < d->n; i++) {
        uint32_t hash = 0;
        if (!chat_hashable(r, d->p[i].key, &hash))
            return false;
        dict_index_add(d, i, hash);
    }
    return true;
}

bool chat_dict_put(struct chat_run *r, struct value dict, struct value key, struct value v)
{
    struct chat_dict *d = dict.u.dict;
    uint32_t hash = 0;
    if (r->st || ((d->index || key.kind != V_STR) && !chat_hashable(r, key, &hash)))
        return false;
    uint32_t at = dict_place(r, d, key, hash);
    if (r->st)
        return false;
    if (at < d->n) {
        d->p[at].value = v;
        return true;
    }
    if (d->n == d->cap && !dict_grow(r, d))
        return false;
    d->p[d->n++] = (struct chat_pair){key, v};
    if (d->n > DICT_SMALL && (!d->index || d->n * 2 > d->cap_index))
        return dict_reindex(r, d);
    if (d->index)
        dict_index_add(d, d->n - 1, hash);
    return true;
}

struct value *chat_dict_get(struct chat_run *r, struct value dict, struct value key)
{
    struct chat_dict *d = dict.u.dict;
    uint32_t hash = 0;
    if ((d->index || key.kind != V_STR) && !chat_hashable(r, key, &hash))
        return NULL;
    uint32_t at = dict_place(r, d, key, hash);
    return at < d->n && !r->st ? &d->p[at].value : NULL;
}

struct value chat_dict_view(struct chat_run *r, struct value dict, const char *view)
{
    struct chat_dict *d = dict.u.dict;
    struct value l = chat_list_make(r, V_VIEW, d->n);
    for (uint32_t i = 0; i < d->n && !r->st; i++)
        chat_list_push(r, l,
                       view[5] == 'i'   ? chat_pair_make(r, d->p[i].key, d->p[i].value)
                       : view[5] == 'k' ? d->p[i].key
                                        : d->p[i].value);
    if (!r->st)
        l.u.list->view = view;
    return l;
}

bool chat_is_number(struct value v)
{
    return v.kind == V_INT || v.kind == V_FLOAT || v.kind == V_BOOL;
}

double chat_number(struct value v)
{
    return v.kind == V_FLOAT ? v.u.f : v.kind == V_BOOL ? v.u.b : (double)v.u.i;
}

int64_t chat_integer(struct value v)
{
    return v.kind == V_BOOL ? v.u.b : v.u.i;
}

bool chat_truth(struct chat_run *r, struct value v)
{
    (void)r;
    switch (v.kind) {
    case V_UNSET:
    case V_UNDEF:
    case V_NONE:
        return false;
    case V_BOOL:
        return v.u.b;
    case V_INT:
        return v.u.i != 0;
    case V_FLOAT:
        return v.u.f != 0;
    case V_STR:
        return v.n != 0;
    case V_LIST:
    case V_TUPLE:
    case V_VIEW:
        return v.u.list->n != 0;
    case V_RANGE:
        return v.u.range->n != 0;
    case V_DICT:
        return v.u.dict->n != 0;
    case V_LOOP:
        return v.u.loop->n != 0;
    default:
        return true;
    }
}

static bool equal_lists(struct chat_run *r, const struct chat_list *a, const struct chat_list *b)
{
    if (a->n != b->n)
        return false;
    for (uint32_t i = 0; i < a->n; i++)
        if (!chat_equal(r, a->v[i], b->v[i]))
            return false;
    return true;
}

static bool equal_dicts(struct chat_run *r, struct value a, struct value b)
{
    if (a.u.dict == b.u.dict)
        return true;
    if (a.u.dict->n != b.u.dict->n)
        return false;
    for (uint32_t i = 0; i < a.u.dict->n; i++) {
        struct value *v = chat_dict_get(r, b, a.u.dict->p[i].key);
        if (!v || !chat_equal(r, a.u.dict->p[i].value, *v))
            return false;
    }
    return true;
}

static bool equal_ranges(const struct chat_range *a, const struct chat_range *b)
{
    return a->n == b->n && (a->n == 0 || (a->start == b->start && (a->n == 1 || a->stride == b->stride)));
}

static bool equal_deep(struct chat_run *r, struct value a, struct value b)
{
    if (r->depth >= EVAL_DEPTH_MAX) {
        chat_fail(r, ST_ETOOBIG, "values nested too deeply");
        return false;
    }
    r->depth++;
    bool same;
    if (a.kind == V_DICT)
        same = equal_dicts(r, a, b);
    else
        same = a.u.list == b.u.list || equal_lists(r, a.u.list, b.u.list);
    r->depth--;
    return same;
}

bool chat_equal(struct chat_run *r, struct value a, struct value b)
{
    if (!chat_charge(r, a.kind == V_STR && b.kind == V_STR && a.n == b.n ? a.n : 0))
        return false;
    if (chat_is_number(a) && chat_is_number(b)) {
        if (a.kind == V_FLOAT || b.kind == V_FLOAT)
            return chat_number(a) == chat_number(b);
        return chat_integer(a) == chat_integer(b);
    }
    if (a.kind != b.kind)
        return false;
    switch (a.kind) {
    case V_UNSET:
    case V_UNDEF:
    case V_NONE:
        return true;
    case V_STR:
        return a.n == b.n && (a.n == 0 || memcmp(a.u.s, b.u.s, a.n) == 0);
    case V_LIST:
    case V_TUPLE:
    case V_DICT:
        return equal_deep(r, a, b);
    case V_RANGE:
        return equal_ranges(a.u.range, b.u.range);
    default:
        return a.u.list == b.u.list; /* identity, whichever pointer it is */
    }
}

static int order_numbers(struct value a, struct value b)
{
    if (a.kind != V_FLOAT && b.kind != V_FLOAT) {
        int64_t x = chat_integer(a), y = chat_integer(b);
        return (x > y) - (x < y);
    }
    if (isnan(chat_number(a)) || isnan(chat_number(b)))
        return 2;
    long double x = a.kind == V_FLOAT ? a.u.f : (long double)chat_integer(a);
    long double y = b.kind == V_FLOAT ? b.u.f : (long double)chat_integer(b);
    return (x > y) - (x < y);
}

int chat_order(struct chat_run *r, struct value a, struct value b, const char *op)
{
    if (chat_is_number(a) && chat_is_number(b))
        return order_numbers(a, b);
    if (a.kind == V_STR && b.kind == V_STR) {
        uint32_t n = a.n < b.n ? a.n : b.n;
        chat_charge(r, n);
        int c = n ? memcmp(a.u.s, b.u.s, n) : 0;
        return c ? (c > 0) - (c < 0) : (a.n > b.n) - (a.n < b.n);
    }
    if (a.kind == b.kind && (a.kind == V_LIST || a.kind == V_TUPLE) && r->depth < EVAL_DEPTH_MAX) {
        const struct chat_list *x = a.u.list, *y = b.u.list;
        r->depth++;
        int c = 2;
        for (uint32_t i = 0; i < x->n && i < y->n && c == 2 && !r->st; i++)
            if (!chat_equal(r, x->v[i], y->v[i]))
                c = chat_order(r, x->v[i], y->v[i], op);
        r->depth--;
        return c == 2 ? (x->n > y->n) - (x->n < y->n) : c;
    }
    if (a.kind == V_UNDEF || b.kind == V_UNDEF)
        chat_fail(r, ST_EINVAL, "'%.*s' is undefined", (int)(a.kind == V_UNDEF ? a.n : b.n),
                  a.kind == V_UNDEF && a.n   ? a.u.s
                  : b.kind == V_UNDEF && b.n ? b.u.s
                                             : "");
    else
        chat_fail(r, ST_EINVAL, "'%s' not supported between instances of '%s' and '%s'", op,
                  chat_type_name(a), chat_type_name(b));
    return 2;
}

bool chat_contains(struct chat_run *r, struct value in, struct value v)
{
    if (in.kind == V_STR) {
        if (v.kind != V_STR) {
            chat_fail(r, ST_EINVAL, "'in <string>' requires string as left operand, not %s",
                      chat_type_name(v));
            return false;
        }
        return chat_charge(r, in.n) && chat_text_find(in.u.s, in.n, v.u.s, v.n) >= 0;
    }
    if (in.kind == V_DICT)
        return chat_dict_get(r, in, v) != NULL;
    struct chat_iter it;
    struct value one;
    if (!chat_iter_init(r, &it, in))
        return false;
    while (chat_iter_next(r, &it, &one))
        if (chat_equal(r, one, v))
            return true;
    return false;
}

struct value chat_range_at(const struct chat_range *g, uint32_t i)
{
    return INT(g->start + (int64_t)i * g->stride);
}

bool chat_iter_init(struct chat_run *r, struct chat_iter *it, struct value v)
{
    *it = (struct chat_iter){.v = v};
    switch (v.kind) {
    case V_UNDEF:
    case V_STR:
    case V_GEN:
        break;
    case V_LIST:
    case V_TUPLE:
    case V_VIEW:
        it->n = v.u.list->n;
        break;
    case V_RANGE:
        it->n = v.u.range->n;
        break;
    case V_DICT:
        it->n = v.u.dict->n;
        break;
    default:
        chat_fail(r, ST_EINVAL, "'%s' object is not iterable", chat_type_name(v));
    }
    return !r->st;
}

bool chat_iter_next(struct chat_run *r, struct chat_iter *it, struct value *out)
{
    if (!chat_charge(r, 0))
        return false;
    struct value v = it->v;
    if (v.kind == V_STR) {
        if (it->at >= v.n)
            return false;
        uint32_t cp;
        int len = chat_text_next(v.u.s + it->at, v.n - it->at, &cp);
        *out = TEXT(v.u.s + it->at, len);
        it->at += (size_t)len;
        return true;
    }
    if (v.kind == V_GEN) {
        if (v.u.list->at >= v.u.list->n)
            return false;
        *out = v.u.list->v[v.u.list->at++];
        return true;
    }
    if (it->at >= it->n)
        return false;
    if (v.kind == V_RANGE)
        *out = chat_range_at(v.u.range, (uint32_t)it->at);
    else if (v.kind == V_DICT)
        *out = v.u.dict->p[it->at].key;
    else
        *out = v.u.list->v[it->at];
    it->at++;
    return true;
}

struct value chat_to_list(struct chat_run *r, struct value v, int kind)
{
    struct chat_iter it;
    struct value one;
    if (!chat_iter_init(r, &it, v))
        return UNDEF;
    struct value l = chat_list_make(r, kind, it.n);
    while (!r->st && chat_iter_next(r, &it, &one))
        chat_list_push(r, l, one);
    return r->st ? UNDEF : l;
}
