/* Filters on sequences. Where Jinja returns a generator, so do we (V_GEN): it can be walked once and has no
 * length, which templates notice. Sorting is a merge sort over keys made first, stable as Python's. */
#include "chat_run.h"

#include "chat_text.h"

#include <stdlib.h>
#include <string.h>

#define FILTER(name) \
    static struct value name(struct chat_run *r, struct value self, const struct chat_args *a)

/* "a.b.0" walks items; an integer is one subscript. With `lower`, text is folded for comparison. */
static struct value attribute(struct chat_run *r, struct value v, struct value path)
{
    if (path.kind == V_UNSET || path.kind == V_NONE)
        return v;
    if (path.kind != V_STR)
        return chat_item(r, v, path);
    for (size_t at = 0; at <= path.n && !r->st;) {
        size_t end = at;
        bool digits = true;
        while (end < path.n && path.u.s[end] != '.')
            digits &= path.u.s[end] >= '0' && path.u.s[end] <= '9', end++;
        struct value key = TEXT(path.u.s + at, end - at);
        if (digits && end > at && end - at < 10) {
            int64_t i = 0;
            for (size_t k = at; k < end; k++)
                i = i * 10 + (path.u.s[k] - '0');
            key = INT(i);
        }
        v = chat_item(r, v, key);
        at = end + 1;
    }
    return v;
}

static struct value folded(struct chat_run *r, struct value v, bool fold)
{
    if (!fold || v.kind != V_STR)
        return v;
    struct chat_args none = {0};
    return chat_invoke(r, chat_method_find(TEXT("lower", 5)), v, &none);
}

struct keyed {
    struct value key, v;
};

static void merge(struct chat_run *r, struct keyed *k, struct keyed *tmp, size_t n, bool down)
{
    if (n < 2 || r->st)
        return;
    size_t half = n / 2, i = 0, j = half, o = 0;
    merge(r, k, tmp, half, down);
    merge(r, k + half, tmp, n - half, down);
    while (i < half && j < n && !r->st) {
        int c = chat_order(r, k[j].key, k[i].key, "<");
        tmp[o++] = (down ? c == 1 : c == -1) ? k[j++] : k[i++];
        chat_charge(r, 0);
    }
    if (r->st)
        return;
    memcpy(tmp + o, k + i, (half - i) * sizeof *k);
    memcpy(tmp + o + (half - i), k + j, (n - j) * sizeof *k);
    memcpy(k, tmp, n * sizeof *k);
}

static struct value sorted(struct chat_run *r, struct value list, struct value path, bool fold, bool down)
{
    size_t n = list.u.list->n;
    struct keyed *k = chat_take(r, (n + 1) * sizeof *k), *tmp = chat_take(r, (n + 1) * sizeof *tmp);
    for (size_t i = 0; i < n && !r->st; i++) {
        struct value key = UNDEF, v = list.u.list->v[i];
        size_t at = 0;
        if (path.kind == V_STR &&
            memchr(path.u.s, ',', path.n)) { /* several attributes: compare them in turn */
            key = chat_list_make(r, V_LIST, 2);
            while (at <= path.n && !r->st) {
                const char *comma = at < path.n ? memchr(path.u.s + at, ',', path.n - at) : NULL;
                size_t end = comma ? (size_t)(comma - path.u.s) : path.n;
                chat_list_push(r, key, folded(r, attribute(r, v, TEXT(path.u.s + at, end - at)), fold));
                at = end + 1;
            }
        } else {
            key = folded(r, attribute(r, v, path), fold);
        }
        k[i] = (struct keyed){key, v};
    }
    if (!r->st)
        merge(r, k, tmp, n, down);
    struct value out = chat_list_make(r, V_LIST, (uint32_t)n);
    for (size_t i = 0; i < n && !r->st; i++)
        chat_list_push(r, out, k[i].v);
    return out;
}

/* sort(reverse=False, case_sensitive=False, attribute=None) */
FILTER(f_sort)
{
    struct value l = chat_to_list(r, self, V_LIST);
    return r->st ? UNDEF : sorted(r, l, a->pos[2], !chat_truth(r, a->pos[1]), chat_truth(r, a->pos[0]));
}

/* dictsort(case_sensitive=False, by='key', reverse=False) */
FILTER(f_dictsort)
{
    if (self.kind != V_DICT)
        return chat_fail(r, ST_EINVAL, "dictsort needs a mapping, not %s", chat_type_name(self));
    struct value by = a->pos[1];
    bool value = by.kind == V_STR && str_eqz((struct str){by.u.s, by.n}, "value");
    if (!value && by.kind != V_UNSET && !(by.kind == V_STR && str_eqz((struct str){by.u.s, by.n}, "key")))
        return chat_fail(r, ST_EINVAL, "dictsort: by must be 'key' or 'value'");
    struct value l = chat_dict_view(r, self, "dict_items");
    return r->st ? UNDEF : sorted(r, l, INT(value), !chat_truth(r, a->pos[0]), chat_truth(r, a->pos[2]));
}

FILTER(f_list)
{
    (void)a;
    return chat_to_list(r, self, V_LIST);
}

FILTER(f_first)
{
    (void)a;
    struct chat_iter it;
    struct value one;
    return chat_iter_init(r, &it, self) && chat_iter_next(r, &it, &one) ? one : UNDEF;
}

FILTER(f_last)
{
    (void)a;
    if (self.kind == V_GEN)
        return chat_fail(r, ST_EINVAL, "'generator' object is not reversible");
    struct value l = chat_to_list(r, self, V_LIST);
    return !r->st && l.u.list->n ? l.u.list->v[l.u.list->n - 1] : UNDEF;
}

/* join(d='', attribute=None) */
FILTER(f_join)
{
    struct chat_iter it;
    struct value one, sep = a->pos[0].kind == V_UNSET ? TEXT("", 0) : chat_str(r, a->pos[0]);
    size_t mark = r->out->n;
    bool more = false;
    if (r->st || !chat_iter_init(r, &it, self))
        return UNDEF;
    while (chat_iter_next(r, &it, &one)) {
        if (more)
            chat_put(r, sep.u.s, sep.n);
        chat_print(r, attribute(r, one, a->pos[1]));
        more = true;
    }
    return chat_cut(r, mark);
}

FILTER(f_reverse)
{
    (void)a;
    bool text = self.kind == V_STR;
    if (self.kind == V_GEN || self.kind == V_NONE || chat_is_number(self))
        return chat_fail(r, ST_EINVAL, "argument must be iterable");
    struct value l = chat_to_list(r, self, text ? V_LIST : V_GEN);
    if (r->st)
        return UNDEF;
    struct chat_list *c = l.u.list;
    for (uint32_t i = 0; i < c->n / 2; i++) {
        struct value t = c->v[i];
        c->v[i] = c->v[c->n - 1 - i];
        c->v[c->n - 1 - i] = t;
    }
    struct chat_args none = {.pos = (struct value[2]){{0}, {0}}, .n = 2};
    return text ? f_join(r, l, &none) : l;
}

FILTER(f_items)
{
    (void)a;
    if (self.kind == V_UNDEF)
        return chat_list_make(r, V_GEN, 0);
    if (self.kind != V_DICT)
        return chat_fail(r, ST_EINVAL, "Can only get item pairs from a mapping.");
    struct value l = chat_dict_view(r, self, "dict_items");
    l.kind = r->st ? (uint8_t)V_UNDEF : (uint8_t)V_GEN;
    return l;
}

/* The first argument of map, select and the like, and the rest of them. */
static struct chat_args rest(const struct chat_args *a, uint32_t skip)
{
    return (struct chat_args){.pos = a->pos + skip, .n = a->n - skip, .n_kw = a->n_kw, .kw = a->kw};
}

static const struct value *keyword(const struct chat_args *a, const char *name)
{
    for (uint32_t i = 0; i < a->n_kw; i++)
        if (str_eqz(a->kw[i].name, name))
            return &a->kw[i].v;
    return NULL;
}

FILTER(f_map)
{
    struct chat_iter it;
    struct value one, out = chat_list_make(r, V_GEN, 0);
    const struct value *path = a->n ? NULL : keyword(a, "attribute"), *otherwise = keyword(a, "default");
    const struct chat_fn *fn = a->n && a->pos[0].kind == V_STR ? chat_filter_find(a->pos[0]) : NULL;
    struct chat_args more = rest(a, a->n ? 1 : 0);
    if (path && a->n_kw > 1u + (otherwise != NULL))
        return chat_fail(r, ST_EINVAL, "map: unexpected keyword argument");
    if (self.kind == V_NONE || (self.kind == V_UNDEF))
        return self.kind == V_NONE ? chat_fail(r, ST_EINVAL, "'NoneType' object is not iterable") : out;
    if (!path && !fn)
        return chat_fail(r, ST_EINVAL, "map requires a filter argument");
    if (!chat_truth(r, self))
        return out;
    if (!chat_iter_init(r, &it, self))
        return UNDEF;
    while (chat_iter_next(r, &it, &one)) {
        struct value v = path ? attribute(r, one, *path) : chat_invoke(r, fn, one, &more);
        if (path && otherwise && v.kind == V_UNDEF)
            v = *otherwise;
        if (!chat_list_push(r, out, v))
            break;
    }
    return out;
}

/* select, reject (by_attribute false), selectattr, rejectattr: a test over the value or one of its
 * attributes. */
static struct value pick(struct chat_run *r, struct value self, const struct chat_args *a, bool by_attribute,
                         bool keep)
{
    struct chat_iter it;
    struct value one, out = chat_list_make(r, V_GEN, 0);
    uint32_t at = by_attribute;
    const struct chat_fn *test = a->n > at && a->pos[at].kind == V_STR ? chat_test_find(a->pos[at]) : NULL;
    struct chat_args more = rest(a, a->n > at ? at + 1 : a->n);
    if (r->st || !chat_truth(r, self))
        return out;
    if (by_attribute && a->n == 0)
        return chat_fail(r, ST_EINVAL, "Missing parameter for attribute name");
    if (a->n > at && !test)
        return chat_fail(r, ST_EINVAL, "no such test");
    if (!chat_iter_init(r, &it, self))
        return UNDEF;
    while (chat_iter_next(r, &it, &one)) {
        struct value v = by_attribute ? attribute(r, one, a->pos[0]) : one;
        bool yes = chat_truth(r, test ? chat_invoke(r, test, v, &more) : v);
        if (yes == keep)
            chat_list_push(r, out, one);
    }
    return out;
}

FILTER(f_select)
{
    return pick(r, self, a, false, true);
}

FILTER(f_reject)
{
    return pick(r, self, a, false, false);
}

FILTER(f_selectattr)
{
    return pick(r, self, a, true, true);
}

FILTER(f_rejectattr)
{
    return pick(r, self, a, true, false);
}

/* unique(case_sensitive=False, attribute=None) */
FILTER(f_unique)
{
    struct chat_iter it;
    struct value one, out = chat_list_make(r, V_GEN, 0), seen = chat_dict_make(r, V_DICT, 0);
    bool fold = !chat_truth(r, a->pos[0]);
    if (r->st || !chat_iter_init(r, &it, self))
        return UNDEF;
    while (chat_iter_next(r, &it, &one)) {
        struct value key = folded(r, attribute(r, one, a->pos[1]), fold);
        uint32_t hash;
        if (r->st || !chat_hashable(r, key, &hash) || chat_dict_get(r, seen, key))
            continue;
        chat_dict_put(r, seen, key, NONE);
        chat_list_push(r, out, one);
    }
    return out;
}

/* min, max (case_sensitive=False, attribute=None) */
static struct value extreme(struct chat_run *r, struct value self, const struct chat_args *a, int want)
{
    struct chat_iter it;
    struct value one, best = UNDEF, best_key = UNDEF;
    bool fold = !chat_truth(r, a->pos[0]), any = false;
    if (!chat_iter_init(r, &it, self))
        return UNDEF;
    while (chat_iter_next(r, &it, &one)) {
        struct value key = folded(r, attribute(r, one, a->pos[1]), fold);
        if (any && chat_order(r, key, best_key, want < 0 ? "<" : ">") != want)
            continue;
        best = one;
        best_key = key;
        any = true;
    }
    return best;
}

FILTER(f_min)
{
    return extreme(r, self, a, -1);
}

FILTER(f_max)
{
    return extreme(r, self, a, 1);
}

/* sum(attribute=None, start=0) */
FILTER(f_sum)
{
    struct chat_iter it;
    struct value one, total = a->pos[1].kind == V_UNSET ? INT(0) : a->pos[1];
    if (total.kind == V_STR)
        return chat_fail(r, ST_EINVAL, "sum() can't sum strings");
    if (!chat_iter_init(r, &it, self))
        return UNDEF;
    while (chat_iter_next(r, &it, &one))
        total = chat_binary(r, T_ADD, total, attribute(r, one, a->pos[0]));
    return total;
}

/* batch(linecount, fill_with=None) */
FILTER(f_batch)
{
    struct chat_iter it;
    struct value one, out = chat_list_make(r, V_GEN, 0), row = UNDEF;
    int64_t n = a->pos[0].kind == V_INT ? a->pos[0].u.i : 0;
    if (!chat_iter_init(r, &it, self))
        return UNDEF;
    while (chat_iter_next(r, &it, &one)) {
        if (row.kind == V_UNDEF || row.u.list->n == n) {
            row = chat_list_make(r, V_LIST, 0);
            chat_list_push(r, out, row);
        }
        chat_list_push(r, row, one);
    }
    if (row.kind == V_LIST && a->pos[1].kind != V_UNSET && a->pos[1].kind != V_NONE)
        while (row.u.list->n < n && chat_list_push(r, row, a->pos[1]))
            ;
    return out;
}

/* slice(slices, fill_with=None) */
FILTER(f_slice)
{
    struct value all = chat_to_list(r, self, V_LIST), out = chat_list_make(r, V_GEN, 0);
    int64_t n = a->pos[0].kind == V_INT ? a->pos[0].u.i : 0;
    if (r->st)
        return UNDEF;
    if (n <= 0)
        return n < 0 ? out : chat_fail(r, ST_EINVAL, "integer division or modulo by zero");
    int64_t per = all.u.list->n / n, more = all.u.list->n % n, at = 0;
    for (int64_t k = 0; k < n && !r->st; k++) {
        struct value row = chat_list_make(r, V_LIST, 0);
        for (int64_t i = 0; i < per + (k < more) && !r->st; i++)
            chat_list_push(r, row, all.u.list->v[at++]);
        if (k >= more && a->pos[1].kind != V_UNSET && a->pos[1].kind != V_NONE)
            chat_list_push(r, row, a->pos[1]);
        chat_list_push(r, out, row);
    }
    return out;
}

/* groupby(attribute, default=None, case_sensitive=False): pairs (grouper, list). */
FILTER(f_groupby)
{
    struct value l = chat_to_list(r, self, V_LIST), out = chat_list_make(r, V_LIST, 0), group = UNDEF,
                 last = UNDEF;
    bool fold = !chat_truth(r, a->pos[2]);
    if (r->st)
        return UNDEF;
    l = sorted(r, l, a->pos[0], fold, false);
    for (uint32_t i = 0; !r->st && i < l.u.list->n; i++) {
        struct value v = l.u.list->v[i], key = attribute(r, v, a->pos[0]);
        if (key.kind == V_UNDEF && a->pos[1].kind != V_UNSET)
            key = a->pos[1];
        if (group.kind == V_UNDEF || !chat_equal(r, folded(r, key, fold), last)) {
            group = chat_list_make(r, V_LIST, 0);
            last = folded(r, key, fold);
            struct value pair = chat_pair_make(r, key, group);
            pair.flag = VF_GROUP;
            chat_list_push(r, out, pair);
        }
        chat_list_push(r, group, v);
    }
    return out;
}

static const struct chat_fn filters[] = {
    {"list", "", f_list, 0},
    {"join", "d? attribute?", f_join, 0},
    {"first", "", f_first, 0},
    {"last", "", f_last, 0},
    {"reverse", "", f_reverse, 0},
    {"items", "", f_items, 0},
    {"sort", "reverse? case_sensitive? attribute?", f_sort, 0},
    {"dictsort", "case_sensitive? by? reverse?", f_dictsort, 0},
    {"map", NULL, f_map, 0},
    {"select", NULL, f_select, 0},
    {"reject", NULL, f_reject, 0},
    {"selectattr", NULL, f_selectattr, 0},
    {"rejectattr", NULL, f_rejectattr, 0},
    {"unique", "case_sensitive? attribute?", f_unique, 0},
    {"min", "case_sensitive? attribute?", f_min, 0},
    {"max", "case_sensitive? attribute?", f_max, 0},
    {"sum", "attribute? start?", f_sum, 0},
    {"batch", "linecount fill_with?", f_batch, 0},
    {"slice", "slices fill_with?", f_slice, 0},
    {"groupby", "attribute default? case_sensitive?", f_groupby, 0},
};

const struct chat_fn *chat_filter_more(struct value name)
{
    return chat_find_in(filters, sizeof filters / sizeof *filters, name);
}
