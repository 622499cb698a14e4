/* A pushdown automaton that takes a byte at a time: a broken value is known at the byte that breaks it, so that a stream is held
 * back no longer than it may still become a call, and nothing is read twice. */
#include "answer_json.h"

#include <ctype.h>
#include <string.h>

enum state {
    VALUE,      /* a value must follow */
    FIRST_ITEM, /* a value or ']' */
    FIRST_KEY,  /* a name or '}' */
    KEY,        /* a name */
    COLON,
    CLOSED, /* behind a value: ',' or what closes the level */
    STRING,
    ESCAPE,
    HEX,
    WORD,
    MINUS, /* of a number: what was read of it */
    ZERO,
    DIGITS,
    POINT,
    FRACTION,
    E,
    E_SIGN,
    EXPONENT,
    OVER
};

bool answer_json_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static bool in_object(const struct answer_json *j)
{
    uint8_t level = (uint8_t)(j->depth - 1);
    return j->objects[level / 64] >> level % 64 & 1;
}

static enum answer_feed go(struct answer_json *j, enum state next)
{
    j->state = (uint8_t)next;
    return next == OVER ? ANSWER_DONE : ANSWER_MORE;
}

static enum answer_feed value_over(struct answer_json *j)
{
    return go(j, j->depth ? CLOSED : OVER);
}

static enum answer_feed open_level(struct answer_json *j, bool object)
{
    if (j->depth == ANSWER_JSON_DEPTH)
        return ANSWER_BAD;
    uint64_t bit = UINT64_C(1) << j->depth % 64, *word = &j->objects[j->depth / 64];
    *word = object ? *word | bit : *word & ~bit;
    j->depth++;
    return go(j, object ? FIRST_KEY : FIRST_ITEM);
}

static enum answer_feed close_level(struct answer_json *j)
{
    j->depth--;
    return value_over(j);
}

static enum answer_feed begin(struct answer_json *j, char c)
{
    if (c == '{' || c == '[')
        return open_level(j, c == '{');
    if (c == '"') {
        j->key = false;
        return go(j, STRING);
    }
    if (c == '-')
        return go(j, MINUS);
    if (isdigit((unsigned char)c))
        return go(j, c == '0' ? ZERO : DIGITS);
    j->word = c == 't' ? "rue" : c == 'f' ? "alse" : c == 'n' ? "ull" : NULL;
    return j->word ? go(j, WORD) : ANSWER_BAD;
}

static enum answer_feed begin_key(struct answer_json *j, char c)
{
    if (c != '"')
        return ANSWER_BAD;
    j->key = true;
    return go(j, STRING);
}

static enum answer_feed behind_value(struct answer_json *j, char c)
{
    if (c == ',')
        return go(j, in_object(j) ? KEY : VALUE);
    return c == (in_object(j) ? '}' : ']') ? close_level(j) : ANSWER_BAD;
}

static enum answer_feed in_escape(struct answer_json *j, char c)
{
    j->digits = 4;
    j->unit = 0;
    if (c == 'u')
        return go(j, HEX);
    return !j->high && c && strchr("\"\\/bfnrt", c) ? go(j, STRING) : ANSWER_BAD;
}

static enum answer_feed in_hex(struct answer_json *j, char c)
{
    if (!isxdigit((unsigned char)c))
        return ANSWER_BAD;
    j->unit = (uint16_t)(j->unit << 4 | (isdigit((unsigned char)c) ? c - '0' : (c | 0x20) - 'a' + 10));
    if (--j->digits)
        return ANSWER_MORE;
    bool low = j->unit >= 0xdc00 && j->unit <= 0xdfff;
    if (low != j->high || j->unit == 0)
        return ANSWER_BAD;
    j->high = j->unit >= 0xd800 && j->unit < 0xdc00;
    return go(j, STRING);
}

static enum answer_feed in_string(struct answer_json *j, char c)
{
    if (c == '\\')
        return go(j, ESCAPE);
    if (c == 0 || j->high)
        return ANSWER_BAD;
    if (c != '"')
        return ANSWER_MORE;
    return j->key ? go(j, COLON) : value_over(j);
}

/* A number has no end of its own: the byte behind it is read once more. */
static enum answer_feed in_number(struct answer_json *j, char c)
{
    bool digit = isdigit((unsigned char)c), whole = j->state == ZERO || j->state == DIGITS;
    if (digit && j->state != ZERO) {
        static const uint8_t next[] = {[DIGITS] = DIGITS, [POINT] = FRACTION,  [FRACTION] = FRACTION,
                                       [E] = EXPONENT,    [E_SIGN] = EXPONENT, [EXPONENT] = EXPONENT};
        return go(j, j->state == MINUS ? (c == '0' ? ZERO : DIGITS) : next[j->state]);
    }
    if (c == '.' && whole)
        return go(j, POINT);
    if ((c == 'e' || c == 'E') && (whole || j->state == FRACTION))
        return go(j, E);
    if ((c == '+' || c == '-') && j->state == E)
        return go(j, E_SIGN);
    if (!whole && j->state != FRACTION && j->state != EXPONENT)
        return ANSWER_BAD;
    if (j->depth == 0)
        return answer_json_space(c) ? go(j, OVER) : ANSWER_BAD;
    go(j, CLOSED);
    return answer_json_feed(j, c);
}

enum answer_feed answer_json_feed(struct answer_json *j, char c)
{
    if (j->state <= CLOSED && answer_json_space(c))
        return ANSWER_MORE;
    switch ((enum state)j->state) {
    case VALUE:
        return begin(j, c);
    case FIRST_ITEM:
        return c == ']' ? close_level(j) : begin(j, c);
    case FIRST_KEY:
        return c == '}' ? close_level(j) : begin_key(j, c);
    case KEY:
        return begin_key(j, c);
    case COLON:
        return c == ':' ? go(j, VALUE) : ANSWER_BAD;
    case CLOSED:
        return behind_value(j, c);
    case STRING:
        return in_string(j, c);
    case ESCAPE:
        return in_escape(j, c);
    case HEX:
        return in_hex(j, c);
    case WORD:
        if (c != *j->word)
            return ANSWER_BAD;
        return *++j->word ? ANSWER_MORE : value_over(j);
    case OVER:
        return ANSWER_BAD;
    default:
        return in_number(j, c);
    }
}

bool answer_json_whole(struct str text)
{
    struct answer_json j = {0};
    enum answer_feed r = ANSWER_MORE;
    for (size_t i = 0; i < text.n && r != ANSWER_BAD; i++)
        if (r != ANSWER_DONE || !answer_json_space(text.p[i]))
            r = answer_json_feed(&j, text.p[i]);
    return r == ANSWER_DONE || (r == ANSWER_MORE && answer_json_feed(&j, ' ') == ANSWER_DONE);
}

/* ---- what is known to be whole ----------------------------------------------------------------------------------- */

/* From *at on to the end of the string that begins there. */
static struct str string_at(struct str s, size_t *at)
{
    size_t from = ++*at;
    while (s.p[*at] != '"')
        *at += s.p[*at] == '\\' ? 2 : 1;
    return (struct str){s.p + from, (*at)++ - from};
}

static void skip(struct str s, size_t *at, const char *bytes)
{
    while (*at < s.n && strchr(bytes, s.p[*at]))
        ++*at;
}

static struct str value_at(struct str s, size_t *at)
{
    size_t from = *at, depth = 0;
    if (s.p[from] != '"' && s.p[from] != '{' && s.p[from] != '[') {
        while (!strchr(",} \n\r\t", s.p[*at]))
            ++*at;
        return (struct str){s.p + from, *at - from};
    }
    do {
        char c = s.p[*at];
        depth += c == '{' || c == '[';
        depth -= c == '}' || c == ']';
        if (c == '"')
            string_at(s, at);
        else
            ++*at;
    } while (depth);
    return (struct str){s.p + from, *at - from};
}

bool answer_json_member(struct str object, size_t *at, struct str *name, struct str *value)
{
    skip(object, at, "{, \n\r\t");
    if (*at >= object.n || object.p[*at] != '"')
        return false;
    *name = string_at(object, at);
    skip(object, at, ": \n\r\t");
    *value = value_at(object, at);
    return true;
}

void answer_json_copy(struct str value, struct buf *out)
{
    bool inside = false;
    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i];
        if (inside && c < 0x20) {
            buf_printf(out, "\\u%04x", c);
            continue;
        }
        buf_putc(out, (char)c);
        if (inside && c == '\\' && i + 1 < value.n)
            buf_putc(out, value.p[++i]);
        else if (c == '"')
            inside = !inside;
    }
}
