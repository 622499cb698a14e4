/* The functions a template finds without anyone passing them in: Jinja's range, dict, namespace, cycler and
 * joiner, and the two that transformers adds. */
#define _GNU_SOURCE
#include "chat_run.h"

#include <string.h>
#include <time.h>

enum { RANGE_MAX = 100000 }; /* the sandbox's own limit */

static struct value make_range(struct chat_run *r, struct value self, const struct chat_args *a)
{
    (void)self;
    int64_t v[3] = {0, 0, 1};
    for (uint32_t i = 0; i < 3; i++) {
        if (a->pos[i].kind == V_UNSET)
            continue;
        if (a->pos[i].kind != V_INT && a->pos[i].kind != V_BOOL)
            return chat_fail(r, ST_EINVAL, "'%s' object cannot be interpreted as an integer",
                             chat_type_name(a->pos[i]));
        v[i] = chat_integer(a->pos[i]);
    }
    if (a->pos[1].kind == V_UNSET) {
        v[1] = v[0];
        v[0] = 0;
    }
    if (v[2] == 0)
        return chat_fail(r, ST_EINVAL, "range() arg 3 must not be zero");
    __int128 span = v[2] > 0 ? (__int128)v[1] - v[0] : (__int128)v[0] - v[1];
    __int128 by = v[2] > 0 ? v[2] : -(__int128)v[2];
    __int128 n = span > 0 ? (span + by - 1) / by : 0;
    if (n > RANGE_MAX)
        return chat_fail(r, ST_ETOOBIG, "range too big, at most %d allowed", RANGE_MAX);
    struct chat_range *g = chat_take(r, sizeof *g);
    if (!g)
        return UNDEF;
    *g = (struct chat_range){v[0], v[1], v[2], (uint32_t)n};
    return (struct value){.kind = V_RANGE, .u.range = g};
}

/* dict() and namespace(): from a mapping or pairs, then keywords. */
static struct value fill(struct chat_run *r, int kind, const struct chat_args *a)
{
    struct value d = chat_dict_make(r, kind, a->n_kw);
    if (r->st)
        return UNDEF;
    if (a->n > 1)
        return chat_fail(r, ST_EINVAL, "expected at most 1 argument, got %u", a->n);
    if (a->n == 1 && a->pos[0].kind == V_DICT) {
        const struct chat_dict *from = a->pos[0].u.dict;
        for (uint32_t i = 0; i < from->n && !r->st; i++)
            chat_dict_put(r, d, from->p[i].key, from->p[i].value);
    } else if (a->n == 1) {
        struct chat_iter it;
        struct value one;
        if (!chat_iter_init(r, &it, a->pos[0]))
            return UNDEF;
        while (chat_iter_next(r, &it, &one)) {
            struct value pair = chat_to_list(r, one, V_LIST);
            if (r->st || pair.u.list->n != 2)
                return chat_fail(r, ST_EINVAL, "dictionary update sequence element is not a pair");
            chat_dict_put(r, d, pair.u.list->v[0], pair.u.list->v[1]);
        }
    }
    for (uint32_t i = 0; i < a->n_kw && !r->st; i++)
        chat_dict_put(r, d, TEXT(a->kw[i].name.p, a->kw[i].name.n), a->kw[i].v);
    return d;
}

static struct value make_dict(struct chat_run *r, struct value self, const struct chat_args *a)
{
    (void)self;
    return fill(r, V_DICT, a);
}

static struct value make_namespace(struct chat_run *r, struct value self, const struct chat_args *a)
{
    (void)self;
    return fill(r, V_NS, a);
}

static struct value make_cycler(struct chat_run *r, struct value self, const struct chat_args *a)
{
    (void)self;
    if (a->n == 0 || a->n_kw)
        return chat_fail(r, ST_EINVAL, "at least one item has to be provided");
    struct chat_cycler *c = chat_take(r, sizeof *c);
    struct value *v = chat_take(r, a->n * sizeof *v);
    if (r->st)
        return UNDEF;
    memcpy(v, a->pos, a->n * sizeof *v);
    *c = (struct chat_cycler){v, a->n, 0};
    return (struct value){.kind = V_CYCLER, .u.cycler = c};
}

static struct value make_joiner(struct chat_run *r, struct value self, const struct chat_args *a)
{
    (void)self;
    struct value l = chat_list_make(r, V_JOINER, 1);
    chat_list_push(r, l, a->pos[0].kind == V_UNSET ? TEXT(", ", 2) : a->pos[0]);
    return l;
}

static struct value raise_exception(struct chat_run *r, struct value self, const struct chat_args *a)
{
    (void)self;
    struct value v = chat_str(r, a->pos[0]);
    if (r->st)
        return UNDEF;
    struct str s = {v.u.s, v.n < 200 ? v.n : 200};
    r->st = err_set(r->e, ST_EINVAL, "%.*s", (int)(v.n < 200 ? v.n : utf8_complete(s)), v.u.s);
    return UNDEF;
}

static struct value strftime_now(struct chat_run *r, struct value self, const struct chat_args *a)
{
    (void)self;
    char format[256], out[1024];
    time_t t = (time_t)r->now_s;
    struct tm tm;
    if (a->pos[0].kind != V_STR || a->pos[0].n >= sizeof format || !gmtime_r(&t, &tm))
        return chat_fail(r, ST_EINVAL, "strftime_now needs a short format string");
    if (a->pos[0].n == 0)
        return TEXT("", 0);
    memcpy(format, a->pos[0].u.s, a->pos[0].n);
    format[a->pos[0].n] = 0;
    size_t n = strftime(out, sizeof out, format, &tm);
    return chat_text(r, out, n);
}

static const struct chat_fn functions[] = {
    {"range", "start stop? step?", make_range, 0},
    {"namespace", NULL, make_namespace, 0},
    {"dict", NULL, make_dict, 0},
    {"cycler", NULL, make_cycler, 0},
    {"joiner", "sep?", make_joiner, 0},
    {"raise_exception", "message", raise_exception, 0},
    {"strftime_now", "format", strftime_now, 0},
};

/* The names of these functions have consecutive ids from NAME_range on, in the order of the table. */
void chat_globals_init(struct chat_run *r)
{
    for (uint32_t i = 0; i < sizeof functions / sizeof *functions; i++)
        r->globals[NAME_range + i] = (struct value){.kind = V_FUNC, .u.fn = &functions[i]};
}
