/* The rules that every grammar has, drawn first, so that their nodes have the same numbers everywhere: what is known about the
 * inside of a string (grammar_vocab.c) then holds for all grammars.
 *
 * Text is compact, with at most one space behind a comma and a colon: that is how models are used to write JSON in one line,
 * and free white space is where a small model loses itself. For the same reason a number has at most 18 digits before its
 * point, 17 behind it, and 3 in its exponent. */
#include "grammar_build.h"

enum { WHOLE_DIGITS = 18, PART_DIGITS = 17, EXPONENT_DIGITS = 3 };

static void hex_but_zero(struct grammar_draft *d, uint16_t from, uint16_t to)
{
    grammar_draft_bytes(d, from, '1', '9', to);
    grammar_draft_bytes(d, from, 'a', 'f', to);
    grammar_draft_bytes(d, from, 'A', 'F', to);
}

static void hex(struct grammar_draft *d, uint16_t from, uint16_t to)
{
    grammar_draft_bytes(d, from, '0', '0', to);
    hex_but_zero(d, from, to);
}

static void ends_in_hex(struct grammar_draft *d, uint16_t from, int n, uint16_t to)
{
    for (; n > 1; n--) {
        uint16_t next = grammar_draft_node(d);
        hex(d, from, next);
        from = next;
    }
    hex(d, from, to);
}

/* n digits that are not all zeros. */
static void ends_in_some_hex(struct grammar_draft *d, uint16_t from, int n, uint16_t to)
{
    for (; n > 1; n--) {
        uint16_t zeros = grammar_draft_byte(d, from, '0'), rest = grammar_draft_node(d);
        hex_but_zero(d, from, rest);
        ends_in_hex(d, rest, n - 1, to);
        from = zeros;
    }
    hex_but_zero(d, from, to);
}

/* Behind "\u": four digits; of a high surrogate, its low one must follow. Not those of NUL, which no request may say: a forced
 * call could not be sent back. */
static void code_unit(struct grammar_draft *d, uint16_t from, uint16_t to)
{
    uint16_t three = grammar_draft_node(d), dd = grammar_draft_node(d), two = grammar_draft_node(d);
    ends_in_some_hex(d, grammar_draft_byte(d, from, '0'), 3, to);
    grammar_draft_bytes(d, from, '1', '9', three);
    grammar_draft_bytes(d, from, 'a', 'c', three);
    grammar_draft_bytes(d, from, 'A', 'C', three);
    grammar_draft_bytes(d, from, 'e', 'f', three);
    grammar_draft_bytes(d, from, 'E', 'F', three);
    ends_in_hex(d, three, 3, to);
    grammar_draft_bytes(d, from, 'd', 'd', dd);
    grammar_draft_bytes(d, from, 'D', 'D', dd);
    grammar_draft_bytes(d, dd, '0', '7', two);
    ends_in_hex(d, two, 2, to);
    uint16_t high = grammar_draft_node(d), low = grammar_draft_node(d);
    grammar_draft_bytes(d, dd, '8', '9', high);
    grammar_draft_bytes(d, dd, 'a', 'b', high);
    grammar_draft_bytes(d, dd, 'A', 'B', high);
    ends_in_hex(d, high, 2, low);
    uint16_t at = grammar_draft_text(d, low, STR_LIT("\\u")), cf = grammar_draft_node(d),
             end = grammar_draft_node(d);
    grammar_draft_bytes(d, at, 'd', 'd', cf);
    grammar_draft_bytes(d, at, 'D', 'D', cf);
    grammar_draft_bytes(d, cf, 'c', 'f', end);
    grammar_draft_bytes(d, cf, 'C', 'F', end);
    ends_in_hex(d, end, 2, to);
}

/* Those bytes of the range that have no edge yet. */
static void fill(struct grammar_draft *d, uint16_t from, int lo, int hi, uint16_t to)
{
    for (int first = lo; first <= hi; first++) {
        int last = first;
        if (grammar_draft_has(d, from, (uint8_t)first))
            continue;
        while (last < hi && !grammar_draft_has(d, from, (uint8_t)(last + 1)))
            last++;
        grammar_draft_bytes(d, from, (uint8_t)first, (uint8_t)last, to);
        first = last;
    }
}

void grammar_draft_plain(struct grammar_draft *d, uint16_t from, uint16_t to)
{
    uint16_t one = grammar_draft_node(d), two = grammar_draft_node(d), e0 = grammar_draft_node(d),
             ed = grammar_draft_node(d), f0 = grammar_draft_node(d), f4 = grammar_draft_node(d),
             three = grammar_draft_node(d);
    const struct {
        uint16_t from;
        uint8_t lo, hi;
        uint16_t to;
    } edges[] = {{from, ' ', '!', to},      {from, '#', '[', to},    {from, ']', 0x7F, to},
                 {from, 0xC2, 0xDF, one},   {from, 0xE0, 0xE0, e0},  {from, 0xE1, 0xEC, two},
                 {from, 0xED, 0xED, ed},    {from, 0xEE, 0xEF, two}, {from, 0xF0, 0xF0, f0},
                 {from, 0xF1, 0xF3, three}, {from, 0xF4, 0xF4, f4},  {e0, 0xA0, 0xBF, one},
                 {ed, 0x80, 0x9F, one},     {f0, 0x90, 0xBF, two},   {f4, 0x80, 0x8F, two},
                 {three, 0x80, 0xBF, two},  {two, 0x80, 0xBF, one},  {one, 0x80, 0xBF, to}};
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++)
        fill(d, edges[i].from, edges[i].lo, edges[i].hi, edges[i].to);
}

void grammar_draft_char(struct grammar_draft *d, uint16_t from, uint16_t to)
{
    uint16_t escape = grammar_draft_byte(d, from, '\\'), unit = grammar_draft_node(d);
    for (const char *c = "\"\\/bfnrt"; *c; c++)
        grammar_draft_bytes(d, escape, (uint8_t)*c, (uint8_t)*c, to);
    grammar_draft_bytes(d, escape, 'u', 'u', unit);
    code_unit(d, unit, to);
    grammar_draft_plain(d, from, to);
}

static uint16_t draw_string(struct grammar_draft *d)
{
    uint16_t start = grammar_draft_node(d), body = grammar_draft_byte(d, start, '"'),
             end = grammar_draft_byte(d, body, '"');
    grammar_draft_char(d, body, body);
    grammar_draft_final(d, end);
    return start;
}

/* Up to n more digits. Each node on the way may be the last. */
static void more_digits(struct grammar_draft *d, uint16_t from, int n, uint16_t end)
{
    grammar_draft_skip(d, from, end);
    for (; n > 0; n--) {
        uint16_t next = grammar_draft_node(d);
        grammar_draft_bytes(d, from, '0', '9', next);
        grammar_draft_skip(d, next, end);
        from = next;
    }
}

static uint16_t one_digit(struct grammar_draft *d, uint16_t from)
{
    uint16_t to = grammar_draft_node(d);
    grammar_draft_bytes(d, from, '0', '9', to);
    return to;
}

/* Returns the node behind an integer, which is not final yet. */
static uint16_t draw_whole(struct grammar_draft *d, uint16_t start)
{
    uint16_t digits = grammar_draft_byte(d, start, '-'), first = grammar_draft_node(d);
    grammar_draft_skip(d, start, digits);
    uint16_t zero = grammar_draft_byte(d, digits, '0'), end = grammar_draft_node(d);
    grammar_draft_bytes(d, digits, '1', '9', first);
    more_digits(d, first, WHOLE_DIGITS - 1, end);
    grammar_draft_skip(d, zero, end);
    return end;
}

static uint16_t draw_integer(struct grammar_draft *d)
{
    uint16_t start = grammar_draft_node(d);
    grammar_draft_final(d, draw_whole(d, start));
    return start;
}

static uint16_t draw_number(struct grammar_draft *d)
{
    uint16_t start = grammar_draft_node(d), whole = draw_whole(d, start),
             point = grammar_draft_byte(d, whole, '.');
    uint16_t part = grammar_draft_node(d), exponent = grammar_draft_node(d), sign = grammar_draft_node(d),
             end = grammar_draft_node(d);
    more_digits(d, one_digit(d, point), PART_DIGITS - 1, part);
    grammar_draft_skip(d, whole, part);
    grammar_draft_skip(d, part, end);
    grammar_draft_bytes(d, part, 'e', 'e', exponent);
    grammar_draft_bytes(d, part, 'E', 'E', exponent);
    grammar_draft_bytes(d, exponent, '+', '+', sign);
    grammar_draft_bytes(d, exponent, '-', '-', sign);
    grammar_draft_skip(d, exponent, sign);
    more_digits(d, one_digit(d, sign), EXPONENT_DIGITS - 1, end);
    grammar_draft_final(d, end);
    return start;
}

static uint16_t draw_object(struct grammar_draft *d, const struct grammar_basics *b, uint16_t from)
{
    uint16_t open = grammar_draft_byte(d, from, '{'), key = grammar_draft_node(d),
             colon = grammar_draft_node(d), value = grammar_draft_node(d);
    grammar_draft_skip(d, open, key);
    grammar_draft_call(d, key, b->string, colon);
    grammar_draft_call(d, grammar_draft_colon(d, colon), b->value, value);
    grammar_draft_skip(d, grammar_draft_comma(d, value), key);
    uint16_t close = grammar_draft_byte(d, value, '}');
    grammar_draft_bytes(d, open, '}', '}', close);
    return close;
}

static uint16_t draw_array(struct grammar_draft *d, const struct grammar_basics *b, uint16_t from)
{
    uint16_t open = grammar_draft_byte(d, from, '['), item = grammar_draft_node(d),
             value = grammar_draft_node(d);
    grammar_draft_skip(d, open, item);
    grammar_draft_call(d, item, b->value, value);
    grammar_draft_skip(d, grammar_draft_comma(d, value), item);
    uint16_t close = grammar_draft_byte(d, value, ']');
    grammar_draft_bytes(d, open, ']', ']', close);
    return close;
}

static void draw_value(struct grammar_draft *d, const struct grammar_basics *b)
{
    uint16_t end = grammar_draft_node(d);
    grammar_draft_call(d, b->value, b->string, end);
    grammar_draft_call(d, b->value, b->number, end);
    grammar_draft_skip(d, grammar_draft_text(d, b->value, STR_LIT("true")), end);
    grammar_draft_skip(d, grammar_draft_text(d, b->value, STR_LIT("false")), end);
    grammar_draft_skip(d, grammar_draft_text(d, b->value, STR_LIT("null")), end);
    grammar_draft_skip(d, draw_object(d, b, b->value), end);
    grammar_draft_skip(d, draw_array(d, b, b->value), end);
    grammar_draft_final(d, end);
}

int grammar_draft_init(struct grammar_draft *d, struct grammar_basics *b)
{
    *d = (struct grammar_draft){.status = ST_OK};
    *b = (struct grammar_basics){
        .string = draw_string(d), .number = draw_number(d), .integer = draw_integer(d)};
    b->value = grammar_draft_node(d);
    b->object = grammar_draft_node(d);
    b->array = grammar_draft_node(d);
    draw_value(d, b);
    grammar_draft_final(d, draw_object(d, b, b->object));
    grammar_draft_final(d, draw_array(d, b, b->array));
    return d->status;
}
