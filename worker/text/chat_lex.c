/* The template text becomes one array of tokens before anything is parsed. Most of the care goes into white
 * space: trim_blocks eats the newline behind a block or comment, lstrip_blocks the indentation in front of
 * one, and - and + override them, each a little differently for {{ }}, {% %} and {# #}. The rules follow
 * Jinja's regular expressions. A block ends at its closing delimiter only when no bracket is open, so that {{
 * {'a': {}} }} works. */
#include "chat_prog.h"

#include "chat_text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct lexer {
    struct chat *c;
    const char *s; /* [n], newlines normalised */
    size_t n, at;
    uint32_t line;
    bool line_start; /* the last token ended in a newline, or nothing was read yet */
    int open;        /* brackets */
    char closing[CHAT_NEST_MAX];
    struct chat_token *t;
    uint32_t nt, cap;
    int st;
    struct err *e;
};

static void fail(struct lexer *x, int st, const char *text)
{
    if (!x->st)
        x->st = err_set(x->e, st, "chat template, line %u: %s", x->line, text);
}

static void push(struct lexer *x, int type, struct value v)
{
    if (x->nt == x->cap) {
        uint32_t cap = x->cap ? x->cap * 2 : 256;
        struct chat_token *t = chat_pool_take(&x->c->pool, (size_t)cap * sizeof *t);
        if (!t) {
            fail(x, x->c->pool.failed, "template too large");
            return;
        }
        if (x->nt)
            memcpy(t, x->t, x->nt * sizeof *t);
        x->t = t;
        x->cap = cap;
    }
    x->t[x->nt++] = (struct chat_token){.type = (uint8_t)type, .line = x->line, .v = v};
}

static struct value text(const char *p, size_t n)
{
    return (struct value){.kind = V_STR, .n = (uint32_t)n, .u.s = p};
}

static void advance(struct lexer *x, size_t to)
{
    for (; x->at < to; x->at++)
        x->line += x->s[x->at] == '\n';
}

static bool looking_at(const struct lexer *x, size_t at, const char *z)
{
    size_t n = strlen(z);
    return at + n <= x->n && memcmp(x->s + at, z, n) == 0;
}

static size_t skip_space(const struct lexer *x, size_t at)
{
    return at + chat_text_lstrip(x->s + at, x->n - at);
}

/* `-%}\s*`, `+%}` or `%}` with the newline that trim_blocks eats. Returns the offset behind it, or 0. */
static size_t closing_end(const struct lexer *x, size_t at, const char *delimiter, bool trim, bool plus)
{
    if (looking_at(x, at, "-") && looking_at(x, at + 1, delimiter))
        return skip_space(x, at + 3);
    if (plus && looking_at(x, at, "+") && looking_at(x, at + 1, delimiter))
        return at + 3;
    if (!looking_at(x, at, delimiter))
        return 0;
    at += 2;
    return trim && at < x->n && x->s[at] == '\n' ? at + 1 : at;
}

/* `{%[-+]? WORD [-]%}`: returns the offset behind the delimiter, or 0. */
static size_t word_block(const struct lexer *x, size_t at, const char *word, bool trim)
{
    if (!looking_at(x, at, "{%"))
        return 0;
    at += 2;
    if (at < x->n && (x->s[at] == '-' || x->s[at] == '+'))
        at++;
    at = skip_space(x, at);
    if (!looking_at(x, at, word))
        return 0;
    at = skip_space(x, at + strlen(word));
    return closing_end(x, at, "%}", trim, trim);
}

/* Emits the text in front of a delimiter at `to`, stripped as the sign behind the delimiter demands. */
static void data(struct lexer *x, size_t to, bool variable)
{
    const char *p = x->s + x->at;
    size_t n = to - x->at;
    char sign = to + 2 < x->n ? x->s[to + 2] : 0;
    if (sign == '-') {
        n = chat_text_rstrip(p, n);
    } else if (sign != '+' && !variable) {
        size_t line = n;
        while (line && p[line - 1] != '\n')
            line--;
        if ((line > 0 || x->line_start) && line < n && chat_text_lstrip(p + line, n - line) == n - line)
            n = line;
    }
    if (n)
        push(x, T_DATA, text(p, n));
    advance(x, to);
}

static void after(struct lexer *x, size_t to)
{
    advance(x, to);
    x->line_start = to > 0 && x->s[to - 1] == '\n';
}

static void comment(struct lexer *x)
{
    for (size_t i = x->at + 2; i < x->n; i++) {
        if (x->s[i] != '-' && x->s[i] != '+' && x->s[i] != '#')
            continue;
        size_t end = closing_end(x, i, "#}", true, true);
        if (end) {
            after(x, end);
            return;
        }
    }
    fail(x, ST_EFORMAT, "missing end of comment tag");
}

static void raw(struct lexer *x, size_t from)
{
    after(x, from);
    for (size_t i = from; i < x->n; i++) {
        size_t end = x->s[i] == '{' ? word_block(x, i, "endraw", true) : 0;
        if (end) {
            data(x, i, false);
            after(x, end);
            return;
        }
    }
    fail(x, ST_EFORMAT, "missing end of raw directive");
}

static int hex_digits(const char *p, size_t n, int want, uint32_t *out)
{
    uint32_t v = 0;
    for (int i = 0; i < want; i++) {
        if ((size_t)i >= n)
            return -1;
        char c = p[i];
        uint32_t d = c >= '0' && c <= '9' ? (uint32_t)(c - '0') : (uint32_t)((c | 32) - 'a' + 10);
        if (d > 15 || v >> 28)
            return -1;
        v = v * 16 + d;
    }
    *out = v;
    return want;
}

/* One escape at p[0..n) behind the backslash. Returns bytes read, -1 when malformed; an unknown escape reads
 * 0. */
static int unescape(const char *p, size_t n, char *out, int *put)
{
    static const char from[] = "abfnrtv\\'\"", to[] = "\a\b\f\n\r\t\v\\'\"";
    *put = 0;
    const char *simple = strchr(from, p[0]);
    if (p[0] && simple) {
        out[(*put)++] = to[simple - from];
        return 1;
    }
    if (p[0] == '\n')
        return 1;
    uint32_t cp = 0;
    int used = 0;
    if (p[0] >= '0' && p[0] <= '7') {
        while (used < 3 && (size_t)used < n && p[used] >= '0' && p[used] <= '7')
            cp = cp * 8 + (uint32_t)(p[used++] - '0');
    } else if (p[0] == 'x' || p[0] == 'u' || p[0] == 'U') {
        used = hex_digits(p + 1, n - 1, p[0] == 'x' ? 2 : p[0] == 'u' ? 4 : 8, &cp) + 1;
        if (used == 0 || cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000))
            return -1;
    } else {
        return p[0] == 'N' ? -1 : 0; /* names of characters are not known here */
    }
    *put = utf8_encode(cp, out);
    return used;
}

static void string(struct lexer *x)
{
    char quote = x->s[x->at];
    size_t end = x->at + 1;
    bool escaped = false;
    while (end < x->n && x->s[end] != quote) {
        if (x->s[end] == '\\') {
            escaped = true;
            end++;
        }
        end++;
    }
    if (end >= x->n) {
        fail(x, ST_EFORMAT, "string without an end");
        return;
    }
    const char *p = x->s + x->at + 1;
    size_t n = end - x->at - 1, w = 0;
    struct value v = text(p, n);
    if (escaped) {
        char *o = chat_pool_take(&x->c->pool, n + 4); /* an escape never grows: \x80 is 4 bytes in, 2 out */
        if (!o) {
            fail(x, x->c->pool.failed, "template too large");
            return;
        }
        for (size_t i = 0; i < n;) {
            int put = 0, used = p[i] == '\\' && i + 1 < n ? unescape(p + i + 1, n - i - 1, o + w, &put) : 0;
            if (used < 0) {
                fail(x, ST_EFORMAT, "malformed escape in a string");
                return;
            }
            if (used == 0)
                o[w++] = p[i++];
            else
                i += (size_t)used + 1;
            w += (size_t)put;
        }
        v = text(o, w);
    }
    push(x, T_STR, v);
    advance(x, end + 1);
}

static bool digit_of(char c, int base)
{
    if (c >= '0' && c <= '9')
        return c - '0' < base;
    return base == 16 && (c | 32) >= 'a' && (c | 32) <= 'f';
}

/* Digits with single underscores between them; copies the digits to `out` and returns the offset behind them.
 * */
static size_t digits(const struct lexer *x, size_t at, int base, char *out, size_t *n, size_t max)
{
    for (; at < x->n; at++) {
        if (x->s[at] == '_' && *n && at + 1 < x->n && digit_of(x->s[at + 1], base))
            continue;
        if (!digit_of(x->s[at], base))
            break;
        if (*n < max)
            out[(*n)++] = x->s[at];
    }
    return at;
}

static void number(struct lexer *x)
{
    char z[72];
    size_t n = 0, at = x->at;
    int base = 10;
    if (x->s[at] == '0' && at + 2 < x->n) {
        char k = (char)(x->s[at + 1] | 32);
        int want = k == 'x' ? 16 : k == 'o' ? 8 : k == 'b' ? 2 : 10;
        if (want != 10 && digit_of(x->s[at + 2], want)) {
            base = want;
            at += 2;
        }
    }
    at = digits(x, at, base, z, &n, 66);
    bool is_float = false, after_dot = x->at > 0 && x->s[x->at - 1] == '.';
    if (base == 10 && !after_dot) {
        if (at + 1 < x->n && x->s[at] == '.' && digit_of(x->s[at + 1], 10)) {
            is_float = true;
            z[n++] = '.';
            at = digits(x, at + 1, 10, z, &n, 68);
        }
        size_t ex = at + 1;
        if (ex < x->n && (x->s[at] | 32) == 'e') {
            bool sign = x->s[ex] == '-' || x->s[ex] == '+';
            if (ex + sign < x->n && digit_of(x->s[ex + sign], 10)) {
                is_float = true;
                double m;
                z[n] = 0;
                m = strtod(z, NULL);
                char *end;
                char ez[16];
                size_t en = 0, eat = digits(x, ex + sign, 10, ez, &en, 6);
                ez[en] = 0;
                char full[100];
                size_t fn = n;
                memcpy(full, z, n);
                full[fn++] = 'e';
                full[fn++] = sign ? x->s[ex] : '+';
                memcpy(full + fn, ez, en + 1);
                m = strtod(full, &end);
                push(x, T_FLOAT, (struct value){.kind = V_FLOAT, .u.f = m});
                advance(x, eat);
                return;
            }
        }
    }
    z[n] = 0;
    if (is_float) {
        push(x, T_FLOAT, (struct value){.kind = V_FLOAT, .u.f = strtod(z, NULL)});
    } else {
        errno = 0;
        long long i = strtoll(z, NULL, base);
        if (errno)
            fail(x, ST_EUNSUP, "integer beyond 64 bits");
        push(x, T_INT, (struct value){.kind = V_INT, .u.i = i});
    }
    advance(x, at);
}

static bool name_byte(char c)
{
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_' || (c & 0x80);
}

static void operator_token(struct lexer *x)
{
    static const struct {
        char text[3];
        uint8_t type;
    } ops[] = {{"//", T_FLOORDIV}, {"**", T_POW},   {"==", T_EQ},    {"!=", T_NE},    {">=", T_GE},
               {"<=", T_LE},       {"+", T_ADD},    {"-", T_SUB},    {"*", T_MUL},    {"/", T_DIV},
               {"%", T_MOD},       {"~", T_TILDE},  {"(", T_LPAREN}, {")", T_RPAREN}, {"[", T_LBRACKET},
               {"]", T_RBRACKET},  {"{", T_LBRACE}, {"}", T_RBRACE}, {">", T_GT},     {"<", T_LT},
               {"=", T_ASSIGN},    {".", T_DOT},    {":", T_COLON},  {"|", T_PIPE},   {",", T_COMMA},
               {";", T_SEMI}};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        if (!looking_at(x, x->at, ops[i].text))
            continue;
        char c = ops[i].text[0];
        if (c == '(' || c == '[' || c == '{') {
            if (x->open == CHAT_NEST_MAX) {
                fail(x, ST_ETOOBIG, "brackets nested too deeply");
                return;
            }
            x->closing[x->open++] = c == '(' ? ')' : c == '[' ? ']' : '}';
        } else if (c == ')' || c == ']' || c == '}') {
            if (x->open == 0 || x->closing[--x->open] != c) {
                fail(x, ST_EFORMAT, "unexpected closing bracket");
                return;
            }
        }
        push(x, ops[i].type, (struct value){0});
        advance(x, x->at + strlen(ops[i].text));
        return;
    }
    fail(x, ST_EFORMAT, "unexpected character");
}

/* The inside of {{ }} or {% %}. */
static void inside(struct lexer *x, bool variable)
{
    while (!x->st) {
        size_t at = x->at;
        if (x->open == 0) {
            size_t end =
                variable ? closing_end(x, at, "}}", false, false) : closing_end(x, at, "%}", true, true);
            if (end) {
                push(x, variable ? T_VAR_END : T_BLOCK_END, (struct value){0});
                after(x, end);
                return;
            }
        }
        if (at >= x->n) {
            fail(x, ST_EFORMAT, "a tag is not closed");
            return;
        }
        char c = x->s[at];
        size_t space = chat_text_lstrip(x->s + at, x->n - at);
        if (space) {
            advance(x, at + space);
        } else if (c == '"' || c == '\'') {
            string(x);
        } else if (c >= '0' && c <= '9') {
            number(x);
        } else if (name_byte(c)) {
            while (at < x->n && name_byte(x->s[at]))
                at++;
            push(x, T_NAME, text(x->s + x->at, at - x->at));
            advance(x, at);
        } else {
            operator_token(x);
        }
    }
}

static void step(struct lexer *x)
{
    size_t at = x->at;
    while (at + 1 < x->n &&
           !(x->s[at] == '{' && (x->s[at + 1] == '{' || x->s[at + 1] == '%' || x->s[at + 1] == '#')))
        at++;
    if (at + 1 >= x->n) {
        push(x, T_DATA, text(x->s + x->at, x->n - x->at));
        advance(x, x->n);
        return;
    }
    bool variable = x->s[at + 1] == '{';
    size_t raw_end = word_block(x, at, "raw", false);
    data(x, at, variable);
    if (raw_end) {
        raw(x, raw_end);
        return;
    }
    if (x->s[at + 1] == '#') {
        comment(x);
        return;
    }
    push(x, variable ? T_VAR_BEGIN : T_BLOCK_BEGIN, (struct value){0});
    char sign = at + 2 < x->n ? x->s[at + 2] : 0;
    advance(x, at + 2 + (sign == '-' || sign == '+'));
    x->line_start = false;
    inside(x, variable);
}

int chat_lex(struct chat *c, struct str source, struct chat_token **out, struct err *e)
{
    if (source.n > CHAT_SOURCE_MAX)
        return err_set(e, ST_ETOOBIG, "chat template: %zu bytes, at most %d allowed", source.n,
                       CHAT_SOURCE_MAX);
    if (!utf8_valid(source))
        return err_set(e, ST_EFORMAT, "chat template: not valid UTF-8");
    char *s = chat_pool_take(&c->pool, source.n + 1);
    if (!s)
        return err_set(e, c->pool.failed, "chat template: out of memory");
    size_t n = 0;
    for (size_t i = 0; i < source.n; i++) {
        if (source.p[i] == '\r') {
            s[n++] = '\n';
            i += i + 1 < source.n && source.p[i + 1] == '\n';
        } else {
            s[n++] = source.p[i];
        }
    }
    n -= n > 0 && s[n - 1] == '\n';
    struct lexer x = {.c = c, .s = s, .n = n, .line = 1, .line_start = true, .e = e};
    while (x.at < x.n && !x.st)
        step(&x);
    push(&x, T_EOF, (struct value){0});
    *out = x.t;
    return x.st;
}
