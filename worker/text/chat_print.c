/* str() and repr() as Python prints them, straight into the output buffer: nothing is built only to be
 * copied. Code that needs text as a value (macros, ~, filters) prints at the end of the same buffer and cuts
 * it off again. */
#include "chat_run.h"

#include "chat_text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void chat_put(struct chat_run *r, const char *p, size_t n)
{
    if (r->st || !n)
        return;
    if (n > CHAT_OUTPUT_MAX || r->out->n - r->out_base > CHAT_OUTPUT_MAX - n) {
        chat_fail(r, ST_ETOOBIG, "more than %d bytes of output", CHAT_OUTPUT_MAX);
        return;
    }
    if (chat_charge(r, n) && buf_put(r->out, p, n))
        chat_fail(r, r->out->failed, "%s", status_text(r->out->failed));
}

void chat_puts(struct chat_run *r, const char *z)
{
    chat_put(r, z, strlen(z));
}

struct value chat_cut(struct chat_run *r, size_t mark)
{
    if (r->st)
        return UNDEF;
    if (r->out->n == mark)
        return TEXT("", 0);
    struct value v = chat_text(r, r->out->p + mark, r->out->n - mark);
    r->out->n = mark;
    r->out->p[mark] = 0;
    return v;
}

struct value chat_str(struct chat_run *r, struct value v)
{
    if (v.kind == V_STR)
        return v;
    if (v.kind == V_UNDEF)
        return TEXT("", 0);
    size_t mark = r->out->n;
    chat_print(r, v);
    return chat_cut(r, mark);
}

/* The shortest digits that read back as the same number, in Python's layout. */
void chat_put_float(struct chat_run *r, double d)
{
    char z[40], digits[24], out[48];
    if (isnan(d) || isinf(d)) {
        chat_puts(r, isnan(d) ? "nan" : d < 0 ? "-inf" : "inf");
        return;
    }
    int prec = 0;
    do
        snprintf(z, sizeof z, "%.*e", prec, d);
    while (strtod(z, NULL) != d && ++prec < 17);
    int exp = atoi(strchr(z, 'e') + 1), nd = 0;
    for (const char *p = z; *p != 'e'; p++)
        if (*p >= '0' && *p <= '9')
            digits[nd++] = *p;
    while (nd > 1 && digits[nd - 1] == '0')
        nd--;
    digits[nd] = 0;
    const char *sign = z[0] == '-' ? "-" : "";
    if (exp < -4 || exp >= 16)
        snprintf(out, sizeof out, "%s%c%s%s%c%s%02d", sign, digits[0], nd > 1 ? "." : "", digits + 1, 'e',
                 exp < 0 ? "-" : "+", abs(exp));
    else if (exp < 0)
        snprintf(out, sizeof out, "%s0.%.*s%s", sign, -exp - 1, "0000", digits);
    else if (nd <= exp + 1)
        snprintf(out, sizeof out, "%s%s%.*s.0", sign, digits, exp + 1 - nd, "0000000000000000");
    else
        snprintf(out, sizeof out, "%s%.*s.%s", sign, exp + 1, digits, digits + exp + 1);
    chat_puts(r, out);
}

static void repr_text(struct chat_run *r, const char *p, size_t n)
{
    bool single = memchr(p, '\'', n) != NULL, twice = memchr(p, '"', n) != NULL;
    char quote = single && !twice ? '"' : '\'';
    chat_put(r, &quote, 1);
    size_t run = 0, len;
    for (size_t i = 0; i < n; i += len) {
        uint32_t cp;
        len = (size_t)chat_text_next(p + i, n - i, &cp);
        char z[12];
        if (cp == (unsigned char)quote || cp == '\\')
            snprintf(z, sizeof z, "\\%c", (int)cp);
        else if (cp == '\n' || cp == '\r' || cp == '\t')
            snprintf(z, sizeof z, "\\%c", cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
        else if (chat_text_printable(cp))
            continue;
        else
            snprintf(z, sizeof z, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", cp);
        chat_put(r, p + run, i - run);
        chat_puts(r, z);
        run = i + len;
    }
    chat_put(r, p + run, n - run);
    chat_put(r, &quote, 1);
}

static void repr_list(struct chat_run *r, const struct chat_list *l, const char *open, const char *close)
{
    chat_puts(r, open);
    for (uint32_t i = 0; i < l->n && !r->st; i++) {
        if (i)
            chat_puts(r, ", ");
        chat_repr(r, l->v[i]);
    }
    chat_puts(r, close);
}

static void repr_dict(struct chat_run *r, const struct chat_dict *d)
{
    chat_puts(r, "{");
    for (uint32_t i = 0; i < d->n && !r->st; i++) {
        if (i)
            chat_puts(r, ", ");
        chat_repr(r, d->p[i].key);
        chat_puts(r, ": ");
        chat_repr(r, d->p[i].value);
    }
    chat_puts(r, "}");
}

static void repr_nested(struct chat_run *r, struct value v)
{
    if (r->depth >= EVAL_DEPTH_MAX) {
        chat_fail(r, ST_ETOOBIG, "values nested too deeply");
        return;
    }
    r->depth++;
    switch (v.kind) {
    case V_LIST:
        repr_list(r, v.u.list, "[", "]");
        break;
    case V_TUPLE:
        repr_list(r, v.u.list, "(", v.u.list->n == 1 ? ",)" : ")");
        break;
    case V_VIEW:
        chat_puts(r, v.u.list->view);
        repr_list(r, v.u.list, "([", "])");
        break;
    case V_NS:
        chat_puts(r, "<Namespace ");
        repr_dict(r, v.u.dict);
        chat_puts(r, ">");
        break;
    default:
        repr_dict(r, v.u.dict);
    }
    r->depth--;
}

static void repr_object(struct chat_run *r, struct value v)
{
    char z[96];
    if (v.kind == V_RANGE) {
        const struct chat_range *g = v.u.range;
        if (g->stride == 1)
            snprintf(z, sizeof z, "range(%lld, %lld)", (long long)g->start, (long long)g->stop);
        else
            snprintf(z, sizeof z, "range(%lld, %lld, %lld)", (long long)g->start, (long long)g->stop,
                     (long long)g->stride);
    } else if (v.kind == V_LOOP) {
        snprintf(z, sizeof z, "<LoopContext %u/%u>", v.u.loop->at + 1, v.u.loop->n);
    } else if (v.kind == V_MACRO) {
        struct value name = v.u.macro->node->v;
        snprintf(z, sizeof z, "<Macro '%.*s'>", (int)(name.n < 64 ? name.n : 64), name.u.s);
    } else {
        snprintf(z, sizeof z, "<%s object>", chat_type_name(v));
    }
    chat_puts(r, z);
}

void chat_repr(struct chat_run *r, struct value v)
{
    char z[32];
    if (!chat_charge(r, 0))
        return;
    switch (v.kind) {
    case V_UNSET:
    case V_UNDEF:
        chat_puts(r, "Undefined");
        return;
    case V_NONE:
        chat_puts(r, "None");
        return;
    case V_BOOL:
        chat_puts(r, v.u.b ? "True" : "False");
        return;
    case V_INT:
        snprintf(z, sizeof z, "%lld", (long long)v.u.i);
        chat_puts(r, z);
        return;
    case V_FLOAT:
        chat_put_float(r, v.u.f);
        return;
    case V_STR:
        if (v.flag & VF_MARKUP)
            chat_puts(r, "Markup(");
        repr_text(r, v.u.s, v.n);
        if (v.flag & VF_MARKUP)
            chat_puts(r, ")");
        return;
    case V_LIST:
    case V_TUPLE:
    case V_VIEW:
    case V_DICT:
    case V_NS:
        repr_nested(r, v);
        return;
    default:
        repr_object(r, v);
    }
}

void chat_print(struct chat_run *r, struct value v)
{
    if (v.kind == V_STR)
        chat_put(r, v.u.s, v.n);
    else if (v.kind != V_UNDEF)
        chat_repr(r, v);
}

void chat_put_escaped(struct chat_run *r, const char *p, size_t n)
{
    size_t run = 0;
    for (size_t i = 0; i < n; i++) {
        const char *z = p[i] == '&'    ? "&amp;"
                        : p[i] == '<'  ? "&lt;"
                        : p[i] == '>'  ? "&gt;"
                        : p[i] == '"'  ? "&#34;"
                        : p[i] == '\'' ? "&#39;"
                                       : NULL;
        if (!z)
            continue;
        chat_put(r, p + run, i - run);
        chat_puts(r, z);
        run = i + 1;
    }
    chat_put(r, p + run, n - run);
}
