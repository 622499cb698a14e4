/* Methods of str, dict, list and tuple. Rows without a function are methods that Python has and the immutable
 * sandbox (or this interpreter) does not offer: they must still be known, because they hide dict items of the
 * same name. */
#include "chat_run.h"

#include "chat_text.h"

#include <string.h>

enum {
    ON_STR = 1 << V_STR,
    ON_DICT = 1 << V_DICT,
    ON_LIST = 1 << V_LIST,
    ON_SEQ = 1 << V_LIST | 1 << V_TUPLE,
};

#define METHOD(name) \
    static struct value name(struct chat_run *r, struct value self, const struct chat_args *a)

/* Narrows self to [start, end) in characters, as find, count and startswith allow. False: start is beyond the
 * end. */
static bool window(struct chat_run *r, struct value *self, const struct chat_args *a, size_t *skipped_bytes)
{
    int64_t n = 0, bound[2] = {0, 0};
    *skipped_bytes = 0;
    if (a->pos[1].kind == V_UNSET && a->pos[2].kind == V_UNSET)
        return true;
    n = (int64_t)chat_text_chars(self->u.s, self->n);
    bound[1] = n;
    for (int i = 0; i < 2; i++) {
        struct value v = a->pos[i + 1];
        if (v.kind == V_UNSET || v.kind == V_NONE)
            continue;
        if (v.kind != V_INT && v.kind != V_BOOL) {
            chat_fail(r, ST_EINVAL, "slice indices must be integers or None");
            return false;
        }
        bound[i] = chat_integer(v);
        if (bound[i] < 0)
            bound[i] = bound[i] + n < 0 ? 0 : bound[i] + n;
    }
    if (bound[0] > n || bound[0] > bound[1])
        return false;
    if (bound[1] > n)
        bound[1] = n;
    *skipped_bytes = chat_text_offset(self->u.s, self->n, (size_t)bound[0]);
    size_t end = chat_text_offset(self->u.s, self->n, (size_t)bound[1]);
    *self = chat_sub(*self, *skipped_bytes, end);
    return chat_charge(r, self->n);
}

static bool affix(struct value s, struct value x, bool end)
{
    return x.n <= s.n && (x.n == 0 || memcmp(s.u.s + (end ? s.n - x.n : 0), x.u.s, x.n) == 0);
}

static struct value with_affix(struct chat_run *r, struct value self, const struct chat_args *a, bool end)
{
    size_t skipped;
    struct value x = a->pos[0];
    if (!window(r, &self, a, &skipped))
        return BOOL(false);
    if (x.kind == V_TUPLE) {
        bool any = false;
        for (uint32_t i = 0; i < x.u.list->n && !any && chat_need_str(r, x.u.list->v[i]); i++)
            any = affix(self, x.u.list->v[i], end);
        return BOOL(any);
    }
    return BOOL(chat_need_str(r, x) && chat_charge(r, x.n) && affix(self, x, end));
}

METHOD(m_startswith)
{
    return with_affix(r, self, a, false);
}

METHOD(m_endswith)
{
    return with_affix(r, self, a, true);
}

static int64_t search(struct chat_run *r, struct value self, const struct chat_args *a, bool right)
{
    size_t skipped;
    struct value whole = self;
    if (!chat_need_str(r, a->pos[0]) || !window(r, &self, a, &skipped) || !chat_charge(r, self.n))
        return -1;
    if (right && !chat_charge(r, (size_t)self.n * (8 + a->pos[0].n / 16)))
        return -1;
    int64_t at = right ? chat_text_rfind(self.u.s, self.n, a->pos[0].u.s, a->pos[0].n)
                       : chat_text_find(self.u.s, self.n, a->pos[0].u.s, a->pos[0].n);
    return at < 0 ? -1 : (int64_t)chat_text_chars(whole.u.s, skipped + (size_t)at);
}

METHOD(m_find)
{
    return INT(search(r, self, a, false));
}

METHOD(m_rfind)
{
    return INT(search(r, self, a, true));
}

METHOD(m_index)
{
    int64_t at = search(r, self, a, false);
    return at < 0 ? chat_fail(r, ST_EINVAL, "substring not found") : INT(at);
}

METHOD(m_rindex)
{
    int64_t at = search(r, self, a, true);
    return at < 0 ? chat_fail(r, ST_EINVAL, "substring not found") : INT(at);
}

METHOD(m_count)
{
    size_t skipped, at = 0;
    int64_t count = 0, next;
    struct value x = a->pos[0];
    if (!chat_need_str(r, x) || !window(r, &self, a, &skipped) || !chat_charge(r, self.n))
        return INT(0);
    if (x.n == 0)
        return INT((int64_t)chat_text_chars(self.u.s, self.n) + 1);
    while (at < self.n && (next = chat_text_find(self.u.s + at, self.n - at, x.u.s, x.n)) >= 0) {
        count++;
        at += (size_t)next + x.n;
    }
    return INT(count);
}

METHOD(m_replace)
{
    struct value from = a->pos[0], to = a->pos[1];
    int64_t max = a->pos[2].kind == V_INT ? a->pos[2].u.i : -1;
    size_t mark = r->out->n, at = 0;
    if (!chat_need_str(r, from) || !chat_need_str(r, to) || !chat_charge(r, self.n))
        return UNDEF;
    while (max != 0 && !r->st) {
        int64_t next = chat_text_find(self.u.s + at, self.n - at, from.u.s, from.n);
        if (next < 0)
            break;
        chat_put(r, self.u.s + at, (size_t)next);
        chat_put(r, to.u.s, to.n);
        at += (size_t)next + from.n;
        max--;
        if (from.n == 0) { /* an empty pattern matches before every character and at the end */
            if (at >= self.n)
                break;
            uint32_t cp;
            size_t len = (size_t)chat_text_next(self.u.s + at, self.n - at, &cp);
            chat_put(r, self.u.s + at, len);
            at += len;
        }
    }
    chat_put(r, self.u.s + at, self.n - at);
    struct value v = chat_cut(r, mark);
    v.flag = self.flag;
    return v;
}

enum recase { TO_UPPER, TO_LOWER, TO_TITLE, TO_CAPITAL, TO_SWAP };

static void put_case(struct chat_run *r, uint32_t cp, bool upper)
{
    char z[4];
    if (cp == 0xdf && upper)
        chat_puts(r, "SS");
    else
        chat_put(r, z, (size_t)utf8_encode(upper ? chat_text_upper(cp) : chat_text_lower(cp), z));
}

static struct value recase(struct chat_run *r, struct value self, enum recase how)
{
    size_t mark = r->out->n;
    bool first = true;
    for (size_t i = 0; i < self.n && !r->st;) {
        uint32_t cp;
        i += (size_t)chat_text_next(self.u.s + i, self.n - i, &cp);
        bool cased = chat_text_upper(cp) != cp || chat_text_lower(cp) != cp || cp == 0xdf;
        bool upper = how == TO_UPPER || ((how == TO_TITLE || how == TO_CAPITAL) && first) ||
                     (how == TO_SWAP && chat_text_upper(cp) != cp);
        put_case(r, cp, upper);
        first = how == TO_TITLE ? !cased : false;
    }
    struct value v = chat_cut(r, mark);
    v.flag = self.flag;
    return v;
}

METHOD(m_upper)
{
    (void)a;
    return recase(r, self, TO_UPPER);
}

METHOD(m_lower)
{
    (void)a;
    return recase(r, self, TO_LOWER);
}

METHOD(m_title)
{
    (void)a;
    return recase(r, self, TO_TITLE);
}

METHOD(m_capitalize)
{
    (void)a;
    return recase(r, self, TO_CAPITAL);
}

METHOD(m_swapcase)
{
    (void)a;
    return recase(r, self, TO_SWAP);
}

METHOD(m_join)
{
    struct chat_iter it;
    struct value one;
    size_t mark = r->out->n;
    bool more = false;
    if (!chat_iter_init(r, &it, a->pos[0]))
        return UNDEF;
    while (chat_iter_next(r, &it, &one)) {
        if (!chat_need_str(r, one))
            return UNDEF;
        if (more)
            chat_put(r, self.u.s, self.n);
        chat_put(r, one.u.s, one.n);
        more = true;
    }
    return chat_cut(r, mark);
}

static struct value all_of(struct chat_run *r, struct value self, bool (*is)(uint32_t))
{
    chat_charge(r, self.n);
    for (size_t i = 0; i < self.n;) {
        uint32_t cp;
        i += (size_t)chat_text_next(self.u.s + i, self.n - i, &cp);
        if (!is(cp))
            return BOOL(false);
    }
    return BOOL(self.n != 0);
}

static bool alnum(uint32_t cp)
{
    return chat_text_alpha(cp) || chat_text_digit(cp);
}

METHOD(m_isdigit)
{
    (void)a;
    return all_of(r, self, chat_text_digit);
}

METHOD(m_isalpha)
{
    (void)a;
    return all_of(r, self, chat_text_alpha);
}

METHOD(m_isalnum)
{
    (void)a;
    return all_of(r, self, alnum);
}

METHOD(m_isspace)
{
    (void)a;
    return all_of(r, self, chat_text_space);
}

METHOD(m_isupper)
{
    return chat_invoke(r, chat_test_find(TEXT("upper", 5)), self, a);
}

METHOD(m_islower)
{
    return chat_invoke(r, chat_test_find(TEXT("lower", 5)), self, a);
}

METHOD(m_removeprefix)
{
    return chat_need_str(r, a->pos[0]) && affix(self, a->pos[0], false) ? chat_sub(self, a->pos[0].n, self.n)
                                                                        : self;
}

METHOD(m_removesuffix)
{
    return chat_need_str(r, a->pos[0]) && affix(self, a->pos[0], true)
               ? chat_sub(self, 0, self.n - a->pos[0].n)
               : self;
}

static struct value pad(struct chat_run *r, struct value self, const struct chat_args *a, int side)
{
    struct value fill = a->pos[1].kind == V_UNSET ? TEXT(" ", 1) : a->pos[1];
    if (a->pos[0].kind != V_INT || !chat_need_str(r, fill) || chat_text_chars(fill.u.s, fill.n) != 1)
        return chat_fail(r, ST_EINVAL, "expected a width and one fill character");
    int64_t n = (int64_t)chat_text_chars(self.u.s, self.n), more = a->pos[0].u.i - n;
    if (more <= 0)
        return self;
    int64_t left = side == 1 ? more : side == 0 ? 0 : more / 2 + (more & a->pos[0].u.i & 1);
    size_t mark = r->out->n;
    for (int64_t i = 0; i < left && !r->st; i++)
        chat_put(r, fill.u.s, fill.n);
    chat_put(r, self.u.s, self.n);
    for (int64_t i = left; i < more && !r->st; i++)
        chat_put(r, fill.u.s, fill.n);
    return chat_cut(r, mark);
}

METHOD(m_ljust)
{
    return pad(r, self, a, 0);
}

METHOD(m_rjust)
{
    return pad(r, self, a, 1);
}

METHOD(m_center)
{
    return pad(r, self, a, 2);
}

METHOD(m_zfill)
{
    if (a->pos[0].kind != V_INT)
        return chat_fail(r, ST_EINVAL, "zfill needs a width");
    int64_t more = a->pos[0].u.i - (int64_t)chat_text_chars(self.u.s, self.n);
    size_t mark = r->out->n, sign = self.n && (*self.u.s == '-' || *self.u.s == '+');
    chat_put(r, self.u.s, sign);
    for (; more > 0 && !r->st; more--)
        chat_put(r, "0", 1);
    chat_put(r, self.u.s + sign, self.n - sign);
    return chat_cut(r, mark);
}

METHOD(m_get)
{
    struct value *v = chat_dict_get(r, self, a->pos[0]);
    return v ? *v : a->pos[1].kind == V_UNSET ? NONE : a->pos[1];
}

METHOD(m_items)
{
    (void)a;
    return chat_dict_view(r, self, "dict_items");
}

METHOD(m_keys)
{
    (void)a;
    return chat_dict_view(r, self, "dict_keys");
}

METHOD(m_values)
{
    (void)a;
    return chat_dict_view(r, self, "dict_values");
}

METHOD(m_copy)
{
    (void)a;
    if (self.kind == V_LIST)
        return chat_to_list(r, self, V_LIST);
    struct value d = chat_dict_make(r, V_DICT, self.u.dict->n);
    for (uint32_t i = 0; i < self.u.dict->n && !r->st; i++)
        chat_dict_put(r, d, self.u.dict->p[i].key, self.u.dict->p[i].value);
    return d;
}

METHOD(m_list_index)
{
    for (uint32_t i = 0; i < self.u.list->n && !r->st; i++)
        if (chat_equal(r, self.u.list->v[i], a->pos[0]))
            return INT(i);
    return chat_fail(r, ST_EINVAL, "value is not in list");
}

METHOD(m_list_count)
{
    int64_t n = 0;
    for (uint32_t i = 0; i < self.u.list->n && !r->st; i++)
        n += chat_equal(r, self.u.list->v[i], a->pos[0]);
    return INT(n);
}

/* index and count are methods of strings and of lists. */
METHOD(m_any_index)
{
    return self.kind == V_STR ? m_index(r, self, a) : m_list_index(r, self, a);
}

METHOD(m_any_count)
{
    return self.kind == V_STR ? m_count(r, self, a) : m_list_count(r, self, a);
}

static const struct chat_fn methods[] = {
    {"strip", "/chars?", chat_str_strip, ON_STR},
    {"get", "/key default?", m_get, ON_DICT},
    {"items", "/", m_items, ON_DICT},
    {"split", "sep? maxsplit?", chat_str_split, ON_STR},
    {"lstrip", "/chars?", chat_str_lstrip, ON_STR},
    {"rstrip", "/chars?", chat_str_rstrip, ON_STR},
    {"startswith", "/prefix start? end?", m_startswith, ON_STR},
    {"endswith", "/suffix start? end?", m_endswith, ON_STR},
    {"format", NULL, chat_str_format, ON_STR},
    {"replace", "/old new count?", m_replace, ON_STR},
    {"keys", "/", m_keys, ON_DICT},
    {"values", "/", m_values, ON_DICT},
    {"upper", "/", m_upper, ON_STR},
    {"lower", "/", m_lower, ON_STR},
    {"title", "/", m_title, ON_STR},
    {"capitalize", "/", m_capitalize, ON_STR},
    {"swapcase", "/", m_swapcase, ON_STR},
    {"casefold", "/", m_lower, ON_STR},
    {"join", "/iterable", m_join, ON_STR},
    {"rsplit", "sep? maxsplit?", chat_str_rsplit, ON_STR},
    {"splitlines", "keepends?", chat_str_splitlines, ON_STR},
    {"find", "/sub start? end?", m_find, ON_STR},
    {"rfind", "/sub start? end?", m_rfind, ON_STR},
    {"index", "/sub start? end?", m_any_index, ON_STR | ON_SEQ},
    {"rindex", "/sub start? end?", m_rindex, ON_STR},
    {"count", "/sub start? end?", m_any_count, ON_STR | ON_SEQ},
    {"isdigit", "/", m_isdigit, ON_STR},
    {"isdecimal", "/", m_isdigit, ON_STR},
    {"isnumeric", "/", m_isdigit, ON_STR},
    {"isalpha", "/", m_isalpha, ON_STR},
    {"isalnum", "/", m_isalnum, ON_STR},
    {"isspace", "/", m_isspace, ON_STR},
    {"isupper", "/", m_isupper, ON_STR},
    {"islower", "/", m_islower, ON_STR},
    {"removeprefix", "/prefix", m_removeprefix, ON_STR},
    {"removesuffix", "/suffix", m_removesuffix, ON_STR},
    {"partition", "/sep", chat_str_partition, ON_STR},
    {"rpartition", "/sep", chat_str_rpartition, ON_STR},
    {"ljust", "/width fillchar?", m_ljust, ON_STR},
    {"rjust", "/width fillchar?", m_rjust, ON_STR},
    {"center", "/width fillchar?", m_center, ON_STR},
    {"zfill", "/width", m_zfill, ON_STR},
    {"copy", "/", m_copy, ON_DICT | ON_LIST},
    {"append", NULL, NULL, ON_LIST},
    {"extend", NULL, NULL, ON_LIST},
    {"insert", NULL, NULL, ON_LIST},
    {"remove", NULL, NULL, ON_LIST},
    {"reverse", NULL, NULL, ON_LIST},
    {"sort", NULL, NULL, ON_LIST},
    {"pop", NULL, NULL, ON_LIST | ON_DICT},
    {"clear", NULL, NULL, ON_LIST | ON_DICT},
    {"popitem", NULL, NULL, ON_DICT},
    {"setdefault", NULL, NULL, ON_DICT},
    {"update", NULL, NULL, ON_DICT},
};

const struct chat_fn *chat_method_find(struct value name)
{
    return chat_find_in(methods, sizeof methods / sizeof *methods, name);
}
