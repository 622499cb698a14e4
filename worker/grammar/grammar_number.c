/* Bounds of numbers, digit by digit. Between two numbers of equally many digits: the digits so far equal those of the lower
 * bound, of the upper, of both, or lie between, and only in the last case is the next digit free. Other lengths are between
 * powers of ten. Numbers with a fraction are bounded where both bounds are whole and not negative: then the digits before the
 * point decide, but for the bounds themselves. */
#include "grammar_compile.h"

#include <math.h>

#define WHOLE_MAX INT64_C(999999999999999999) /* 18 digits, as without bounds */

enum { DIGITS_MAX = 18, FRACTION_DIGITS = 17 };

struct bounds {
    int64_t lo, hi;
    bool lo_open, hi_open; /* the bound itself is out; of numbers with fractions */
};

static bool read_bound(struct grammar_compiler *c, const cJSON *schema, const char *keyword, bool fractions,
                       double *out)
{
    const cJSON *v = json_get(schema, keyword);
    if (!v)
        return false;
    if (!cJSON_IsNumber(v) || !isfinite(v->valuedouble))
        grammar_compile_fail(c, ST_EINVAL, keyword, "expected a number");
    else if (fractions && (v->valuedouble < 0 || v->valuedouble != floor(v->valuedouble)))
        grammar_compile_fail(c, ST_EUNSUP, keyword,
                             "of a number with fractions: only whole bounds from 0 on are supported");
    *out = v->valuedouble;
    return true;
}

static int64_t whole(double x)
{
    return x >= (double)WHOLE_MAX ? WHOLE_MAX : x <= -(double)WHOLE_MAX ? -WHOLE_MAX : (int64_t)x;
}

/* false: there are none. */
static bool read_bounds(struct grammar_compiler *c, const cJSON *schema, bool fractions, struct bounds *b)
{
    double x = 0;
    bool lo = false, hi = false;
    *b = (struct bounds){.lo = -WHOLE_MAX, .hi = WHOLE_MAX};
    if (read_bound(c, schema, "minimum", fractions, &x)) {
        b->lo = whole(ceil(x));
        lo = true;
    }
    if (read_bound(c, schema, "exclusiveMinimum", fractions, &x)) {
        int64_t least = fractions ? whole(x) : whole(floor(x)) + 1;
        b->lo_open = fractions && least >= b->lo;
        b->lo = least > b->lo ? least : b->lo;
        lo = true;
    }
    if (read_bound(c, schema, "maximum", fractions, &x)) {
        b->hi = whole(floor(x));
        hi = true;
    }
    if (read_bound(c, schema, "exclusiveMaximum", fractions, &x)) {
        int64_t most = fractions ? whole(x) : whole(ceil(x)) - 1;
        b->hi_open = fractions && most <= b->hi;
        b->hi = most < b->hi ? most : b->hi;
        hi = true;
    }
    if (fractions && hi && !lo)
        grammar_compile_fail(c, ST_EUNSUP, "maximum",
                             "of a number with fractions: needs a minimum from 0 on");
    if (b->lo > b->hi || (b->lo == b->hi && (b->lo_open || b->hi_open)))
        grammar_compile_fail(c, ST_EINVAL, "minimum", "no number is within the bounds");
    return lo || hi;
}

static void digits(struct grammar_draft *d, uint16_t from, int lo, int hi, uint16_t to)
{
    if (lo <= hi)
        grammar_draft_bytes(d, from, (uint8_t)('0' + lo), (uint8_t)('0' + hi), to);
}

static uint16_t digit(struct grammar_draft *d, uint16_t from, int lo, int hi)
{
    uint16_t to = grammar_draft_node(d);
    digits(d, from, lo, hi, to);
    return to;
}

/* n digits from `lo` to `hi`, most significant first; both have n digits, perhaps zeros in front. */
static void between(struct grammar_draft *d, uint16_t from, int64_t lo, int64_t hi, int n, uint16_t end)
{
    int64_t unit = 1;
    for (int i = 1; i < n; i++)
        unit *= 10;
    if (n == 0) {
        grammar_draft_skip(d, from, end);
        return;
    }
    int a = (int)(lo / unit), z = (int)(hi / unit);
    int64_t low = lo % unit, high = hi % unit;
    bool full_a = low == 0, full_z = high == unit - 1;
    if (a == z) {
        between(d, digit(d, from, a, a), low, high, n - 1, end);
        return;
    }
    if (!full_a)
        between(d, digit(d, from, a, a), low, unit - 1, n - 1, end);
    if (!full_z)
        between(d, digit(d, from, z, z), 0, high, n - 1, end);
    int first = full_a ? a : a + 1, last = full_z ? z : z - 1;
    if (first <= last)
        between(d, digit(d, from, first, last), 0, unit - 1, n - 1, end);
}

/* 0 <= lo <= hi, without leading zeros. */
static void natural(struct grammar_draft *d, uint16_t from, int64_t lo, int64_t hi, uint16_t end)
{
    int64_t least = 0, most = 9;
    for (int n = 1; n <= DIGITS_MAX; n++) {
        if (lo <= most && hi >= least)
            between(d, from, lo > least ? lo : least, hi < most ? hi : most, n, end);
        least = most + 1;
        most = n < DIGITS_MAX ? most * 10 + 9 : most; /* ten to the 19th is no int64 */
    }
}

static uint16_t integer(struct grammar_draft *d, const struct bounds *b, uint16_t from)
{
    uint16_t end = grammar_draft_node(d);
    if (b->hi >= 0)
        natural(d, from, b->lo > 0 ? b->lo : 0, b->hi, end);
    if (b->lo < 0)
        natural(d, grammar_draft_byte(d, from, '-'), b->hi < 0 ? -b->hi : 1, -b->lo, end);
    return end;
}

/* Behind the point. `above`: not all of them 0; `zeros`: nothing else. */
static void fraction(struct grammar_draft *d, uint16_t from, bool above, bool zeros, uint16_t end)
{
    uint16_t at = grammar_draft_byte(d, from, '.'), free = grammar_draft_node(d);
    for (int i = 0; i < FRACTION_DIGITS; i++) {
        uint16_t next = digit(d, at, 0, above || zeros ? 0 : 9);
        if (above)
            digits(d, at, 1, 9, free);
        else
            grammar_draft_skip(d, next, end);
        at = next;
    }
    for (int i = 0; above && i < FRACTION_DIGITS; i++) {
        grammar_draft_skip(d, free, end);
        free = digit(d, free, 0, 9);
    }
}

static uint16_t number(struct grammar_draft *d, const struct bounds *b, uint16_t from)
{
    uint16_t lowest = grammar_draft_node(d), inner = grammar_draft_node(d), highest = grammar_draft_node(d),
             end = grammar_draft_node(d);
    if (b->lo == b->hi) {
        natural(d, from, b->lo, b->lo, highest);
    } else {
        natural(d, from, b->lo, b->lo, b->lo_open ? lowest : inner);
        if (b->lo + 1 < b->hi)
            natural(d, from, b->lo + 1, b->hi - 1, inner);
        if (!b->hi_open)
            natural(d, from, b->hi, b->hi, highest);
    }
    fraction(d, lowest, true, false, end);
    fraction(d, inner, false, false, end);
    fraction(d, highest, false, true, end);
    grammar_draft_skip(d, inner, end);
    grammar_draft_skip(d, highest, end);
    return end;
}

uint16_t grammar_compile_number(struct grammar_compiler *c, const cJSON *schema, bool fractions,
                                uint16_t from)
{
    struct bounds b;
    bool bounded = read_bounds(c, schema, fractions, &b);
    if (!grammar_compile_ok(c))
        return from;
    if (bounded)
        return fractions ? number(&c->d, &b, from) : integer(&c->d, &b, from);
    uint16_t end = grammar_draft_node(&c->d);
    grammar_draft_call(&c->d, from, fractions ? c->basics.number : c->basics.integer, end);
    return end;
}
