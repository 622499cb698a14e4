/* JSON in and out. In: the request's tree becomes values once per render, borrowing its strings. Out: the
 * tojson that transformers installs, that is Python's json.dumps with its separators and number forms and no
 * HTML escapes. */
#include "chat_run.h"

#include "chat_text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct value from_number(double d)
{
    if (d == floor(d) && fabs(d) < 9.2e18)
        return INT((int64_t)d);
    return FLOAT(d);
}

static struct value from_container(struct chat_run *r, const cJSON *j)
{
    uint32_t n = 0;
    const cJSON *k;
    for (k = j->child; k; k = k->next)
        n++;
    bool object = cJSON_IsObject(j);
    struct value v = object ? chat_dict_make(r, V_DICT, n) : chat_list_make(r, V_LIST, n);
    for (k = j->child; k && !r->st; k = k->next) {
        struct value one = chat_from_cjson(r, k);
        if (object)
            chat_dict_put(r, v, TEXT(k->string, strlen(k->string)), one);
        else
            chat_list_push(r, v, one);
    }
    return v;
}

struct value chat_from_cjson(struct chat_run *r, const cJSON *j)
{
    if (!chat_charge(r, 0))
        return UNDEF;
    if (!j || cJSON_IsNull(j))
        return NONE;
    if (cJSON_IsBool(j))
        return BOOL(cJSON_IsTrue(j));
    if (cJSON_IsNumber(j))
        return from_number(j->valuedouble);
    if (cJSON_IsString(j))
        return TEXT(j->valuestring, strlen(j->valuestring));
    if (r->depth >= EVAL_DEPTH_MAX)
        return chat_fail(r, ST_ETOOBIG, "input nested too deeply");
    r->depth++;
    struct value v = from_container(r, j);
    r->depth--;
    return v;
}

struct writer {
    struct chat_run *r;
    bool ascii, sort;
    struct value indent; /* V_NONE, V_INT or V_STR */
    struct value item, colon;
    int level;
};

static void write_escape(struct chat_run *r, uint32_t cp)
{
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    char z[16];
    const char *simple = cp && cp < 128 ? strchr(from, (int)cp) : NULL;
    if (simple)
        snprintf(z, sizeof z, "\\%c", to[simple - from]);
    else if (cp < 0x10000)
        snprintf(z, sizeof z, "\\u%04x", cp);
    else
        snprintf(z, sizeof z, "\\u%04x\\u%04x", 0xd800 + ((cp - 0x10000) >> 10),
                 0xdc00 + ((cp - 0x10000) & 0x3ff));
    chat_puts(r, z);
}

static void write_text(struct writer *w, const char *p, size_t n)
{
    chat_put(w->r, "\"", 1);
    size_t run = 0, len;
    for (size_t i = 0; i < n; i += len) {
        uint32_t cp = (unsigned char)p[i];
        len = 1;
        if (cp >= 0x80)
            len = (size_t)chat_text_next(p + i, n - i, &cp);
        if (cp >= 0x20 && cp != '"' && cp != '\\' && !(w->ascii && cp >= 0x7f && cp != 0x7f))
            continue;
        chat_put(w->r, p + run, i - run);
        write_escape(w->r, cp);
        run = i + len;
    }
    chat_put(w->r, p + run, n - run);
    chat_put(w->r, "\"", 1);
}

static void write_line(struct writer *w)
{
    if (w->indent.kind == V_NONE)
        return;
    chat_put(w->r, "\n", 1);
    for (int i = 0; i < w->level && !w->r->st; i++) {
        if (w->indent.kind == V_STR)
            chat_put(w->r, w->indent.u.s, w->indent.n);
        else
            for (int64_t k = 0; k < w->indent.u.i && !w->r->st; k++)
                chat_put(w->r, " ", 1);
    }
}

static void write_value(struct writer *w, struct value v);

static void write_number(struct writer *w, struct value v)
{
    if (v.kind == V_FLOAT && (isnan(v.u.f) || isinf(v.u.f)))
        chat_puts(w->r, isnan(v.u.f) ? "NaN" : v.u.f < 0 ? "-Infinity" : "Infinity");
    else
        chat_repr(w->r, v);
}

static void write_key(struct writer *w, struct value key)
{
    if (key.kind == V_STR) {
        write_text(w, key.u.s, key.n);
    } else if (key.kind == V_NONE || chat_is_number(key)) {
        chat_put(w->r, "\"", 1);
        write_value(w, key);
        chat_put(w->r, "\"", 1);
    } else {
        chat_fail(w->r, ST_EINVAL, "keys must be str, int, float, bool or None, not %s", chat_type_name(key));
    }
}

static struct value sorted_keys(struct chat_run *r, const struct chat_dict *d)
{
    struct value l = chat_list_make(r, V_LIST, d->n);
    for (uint32_t i = 0; i < d->n && !r->st; i++)
        chat_list_push(r, l, d->p[i].key);
    for (uint32_t i = 1; i < d->n && !r->st; i++) { /* key sets are small; steps bound the rest */
        struct value k = l.u.list->v[i];
        uint32_t at = i;
        for (; at > 0 && chat_charge(r, 0) && chat_order(r, k, l.u.list->v[at - 1], "<") == -1; at--)
            l.u.list->v[at] = l.u.list->v[at - 1];
        l.u.list->v[at] = k;
    }
    return l;
}

static void write_dict(struct writer *w, struct value v)
{
    const struct chat_dict *d = v.u.dict;
    struct value keys = w->sort ? sorted_keys(w->r, d) : NONE;
    chat_put(w->r, "{", 1);
    w->level++;
    for (uint32_t i = 0; i < d->n && !w->r->st; i++) {
        if (i)
            chat_put(w->r, w->item.u.s, w->item.n);
        write_line(w);
        struct value key = w->sort ? keys.u.list->v[i] : d->p[i].key;
        struct value *one = w->sort ? chat_dict_get(w->r, v, key) : &d->p[i].value;
        write_key(w, key);
        chat_put(w->r, w->colon.u.s, w->colon.n);
        if (one)
            write_value(w, *one);
    }
    w->level--;
    if (d->n)
        write_line(w);
    chat_put(w->r, "}", 1);
}

static void write_list(struct writer *w, const struct chat_list *l)
{
    chat_put(w->r, "[", 1);
    w->level++;
    for (uint32_t i = 0; i < l->n && !w->r->st; i++) {
        if (i)
            chat_put(w->r, w->item.u.s, w->item.n);
        write_line(w);
        write_value(w, l->v[i]);
    }
    w->level--;
    if (l->n)
        write_line(w);
    chat_put(w->r, "]", 1);
}

static void write_value(struct writer *w, struct value v)
{
    if (!chat_charge(w->r, 0))
        return;
    if (v.kind == V_NONE)
        chat_puts(w->r, "null");
    else if (v.kind == V_BOOL)
        chat_puts(w->r, v.u.b ? "true" : "false");
    else if (v.kind == V_INT || v.kind == V_FLOAT)
        write_number(w, v);
    else if (v.kind == V_STR)
        write_text(w, v.u.s, v.n);
    else if (v.kind != V_LIST && v.kind != V_TUPLE && v.kind != V_DICT)
        chat_fail(w->r, ST_EINVAL, "Object of type %s is not JSON serializable", chat_type_name(v));
    else if (w->r->depth >= EVAL_DEPTH_MAX)
        chat_fail(w->r, ST_ETOOBIG, "values nested too deeply");
    else {
        w->r->depth++;
        if (v.kind == V_DICT)
            write_dict(w, v);
        else
            write_list(w, v.u.list);
        w->r->depth--;
    }
}

/* tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False) */
struct value chat_tojson(struct chat_run *r, struct value self, const struct chat_args *a)
{
    struct writer w = {.r = r, .indent = NONE, .colon = TEXT(": ", 2)};
    w.ascii = chat_truth(r, a->pos[0]);
    w.sort = chat_truth(r, a->pos[3]);
    struct value indent = a->pos[1], separators = a->pos[2];
    if (indent.kind == V_INT || indent.kind == V_BOOL)
        w.indent = INT(chat_integer(indent));
    else if (indent.kind == V_STR)
        w.indent = indent;
    else if (indent.kind != V_UNSET && indent.kind != V_NONE)
        return chat_fail(r, ST_EINVAL, "indent must be a number or a string");
    w.item = w.indent.kind == V_NONE ? TEXT(", ", 2) : TEXT(",", 1);
    if (separators.kind != V_UNSET && separators.kind != V_NONE) {
        struct value pair = chat_to_list(r, separators, V_LIST);
        if (r->st || pair.u.list->n != 2 || pair.u.list->v[0].kind != V_STR ||
            pair.u.list->v[1].kind != V_STR)
            return chat_fail(r, ST_EINVAL, "separators must be a pair of strings");
        w.item = pair.u.list->v[0];
        w.colon = pair.u.list->v[1];
    }
    size_t mark = r->out->n;
    write_value(&w, self);
    return chat_cut(r, mark);
}
