/* The tests behind `is`. Comparison tests are the operators under their names. */
#include "chat_run.h"

#include "chat_text.h"

#include <string.h>

#define TEST(name, expr)                                                                         \
    static struct value is_##name(struct chat_run *r, struct value v, const struct chat_args *a) \
    {                                                                                            \
        (void)r;                                                                                 \
        (void)a;                                                                                 \
        return BOOL(expr);                                                                       \
    }

static bool integral(struct chat_run *r, struct value v, int64_t by, bool *zero)
{
    struct value m = chat_binary(r, T_MOD, v, INT(by));
    *zero = !r->st && chat_is_number(m) && chat_number(m) == 0;
    return !r->st;
}

static bool remainder_is(struct chat_run *r, struct value v, int64_t want)
{
    struct value m = chat_binary(r, T_MOD, v, INT(2));
    return !r->st && chat_equal(r, m, INT(want));
}

static bool divisible(struct chat_run *r, struct value v, struct value by)
{
    bool zero = false;
    if (by.kind == V_INT)
        return integral(r, v, by.u.i, &zero) && zero;
    struct value m = chat_binary(r, T_MOD, v, by);
    return !r->st && chat_equal(r, m, INT(0));
}

/* str.isupper() and str.islower(): at least one cased character and none of the other case. */
static bool has_case(struct chat_run *r, struct value v, bool upper)
{
    struct value s = chat_str(r, v);
    bool any = false;
    if (r->st || !chat_charge(r, s.n))
        return false;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        i += (size_t)chat_text_next(s.u.s + i, s.n - i, &cp);
        bool is_upper = chat_text_lower(cp) != cp, is_lower = chat_text_upper(cp) != cp || cp == 0xdf;
        if (upper ? is_lower : is_upper)
            return false;
        any |= is_upper || is_lower;
    }
    return any;
}

static bool iterable(struct value v)
{
    return v.kind == V_UNDEF || v.kind == V_STR || (v.kind >= V_LIST && v.kind <= V_DICT) || v.kind == V_LOOP;
}

static bool sequence(struct value v)
{
    return v.kind == V_UNDEF || v.kind == V_STR || v.kind == V_LIST || v.kind == V_TUPLE ||
           v.kind == V_RANGE || v.kind == V_DICT;
}

static bool callable(struct value v)
{
    return v.kind == V_FUNC || v.kind == V_METHOD || v.kind == V_MACRO || v.kind == V_LOOP ||
           v.kind == V_JOINER || v.kind == V_UNDEF;
}

static bool same(struct chat_run *r, struct value a, struct value b)
{
    if (a.kind != b.kind)
        return false;
    if (a.kind == V_LIST || a.kind == V_TUPLE || a.kind == V_DICT || a.kind == V_NS)
        return a.u.list == b.u.list;
    return chat_equal(r, a, b);
}

static bool named(struct chat_run *r, struct value v, bool filter)
{
    (void)r;
    return v.kind == V_STR && (filter ? chat_filter_find(v) : chat_test_find(v)) != NULL;
}

static bool ordered(struct chat_run *r, struct value v, struct value w, const char *op)
{
    int c = chat_order(r, v, w, op);
    return !r->st && c != 2 && (op[0] == '<' ? c < 0 || (op[1] && c == 0) : c > 0 || (op[1] && c == 0));
}

TEST(defined, v.kind != V_UNDEF)
TEST(undefined, v.kind == V_UNDEF)
TEST(none, v.kind == V_NONE)
TEST(boolean, v.kind == V_BOOL)
TEST(true, v.kind == V_BOOL && v.u.b)
TEST(false, v.kind == V_BOOL && !v.u.b)
TEST(integer, v.kind == V_INT)
TEST(float, v.kind == V_FLOAT)
TEST(number, chat_is_number(v))
TEST(string, v.kind == V_STR)
TEST(mapping, v.kind == V_DICT)
TEST(iterable, iterable(v))
TEST(sequence, sequence(v))
TEST(callable, callable(v))
TEST(escaped, v.kind == V_STR && (v.flag & VF_MARKUP))
TEST(odd, remainder_is(r, v, 1))
TEST(even, remainder_is(r, v, 0))
TEST(divisibleby, divisible(r, v, a->pos[0]))
TEST(upper, has_case(r, v, true))
TEST(lower, has_case(r, v, false))
TEST(sameas, same(r, v, a->pos[0]))
TEST(in, chat_contains(r, a->pos[0], v))
TEST(eq, chat_equal(r, v, a->pos[0]))
TEST(ne, !chat_equal(r, v, a->pos[0]))
TEST(lt, ordered(r, v, a->pos[0], "<"))
TEST(le, ordered(r, v, a->pos[0], "<="))
TEST(gt, ordered(r, v, a->pos[0], ">"))
TEST(ge, ordered(r, v, a->pos[0], ">="))
TEST(filter, named(r, v, true))
TEST(test, named(r, v, false))

static const struct chat_fn tests[] = {
    {"defined", "", is_defined, 0},    {"undefined", "", is_undefined, 0},
    {"none", "", is_none, 0},          {"string", "", is_string, 0},
    {"boolean", "", is_boolean, 0},    {"true", "", is_true, 0},
    {"false", "", is_false, 0},        {"integer", "", is_integer, 0},
    {"float", "", is_float, 0},        {"number", "", is_number, 0},
    {"mapping", "", is_mapping, 0},    {"iterable", "", is_iterable, 0},
    {"sequence", "", is_sequence, 0},  {"callable", "", is_callable, 0},
    {"escaped", "", is_escaped, 0},    {"odd", "", is_odd, 0},
    {"even", "", is_even, 0},          {"divisibleby", "num", is_divisibleby, 0},
    {"upper", "", is_upper, 0},        {"lower", "", is_lower, 0},
    {"sameas", "other", is_sameas, 0}, {"in", "seq", is_in, 0},
    {"eq", "other", is_eq, 0},         {"equalto", "other", is_eq, 0},
    {"==", "other", is_eq, 0},         {"ne", "other", is_ne, 0},
    {"!=", "other", is_ne, 0},         {"lt", "other", is_lt, 0},
    {"lessthan", "other", is_lt, 0},   {"<", "other", is_lt, 0},
    {"le", "other", is_le, 0},         {"<=", "other", is_le, 0},
    {"gt", "other", is_gt, 0},         {"greaterthan", "other", is_gt, 0},
    {">", "other", is_gt, 0},          {"ge", "other", is_ge, 0},
    {">=", "other", is_ge, 0},         {"filter", "", is_filter, 0},
    {"test", "", is_test, 0},
};

const struct chat_fn *chat_find_in(const struct chat_fn *table, size_t n, struct value name)
{
    for (size_t i = 0; i < n; i++)
        if (str_eqz((struct str){name.u.s, name.n}, table[i].name))
            return &table[i];
    return NULL;
}

const struct chat_fn *chat_test_find(struct value name)
{
    return chat_find_in(tests, sizeof tests / sizeof *tests, name);
}
