/* Expressions are evaluated by walking the tree: chat templates are small and short-lived, and a walk of
 * interned names and pre-resolved filters renders a long conversation in microseconds; byte code would buy
 * little. Calls of the form obj.method(...) skip the bound method that Python would make in between. */
#include "chat_run.h"

#include <string.h>

static struct value lookup(struct chat_run *r, const struct chat_node *n)
{
    for (const struct chat_scope *s = r->scope; s; s = s->parent)
        for (uint32_t i = s->n; i-- > 0;)
            if (s->b[i].name == n->name)
                return s->b[i].v;
    struct value v = r->globals[n->name];
    return v.kind == V_UNSET ? chat_undefined(r, n->v) : v;
}

static struct value items(struct chat_run *r, const struct chat_node *n, int kind)
{
    struct value l = chat_list_make(r, kind, n->count);
    for (const struct chat_node *k = n->a; k && !r->st; k = k->next)
        chat_list_push(r, l, chat_eval(r, k));
    return l;
}

static struct value dict(struct chat_run *r, const struct chat_node *n)
{
    struct value d = chat_dict_make(r, V_DICT, n->count / 2);
    for (const struct chat_node *k = n->a; k && !r->st; k = k->next->next) {
        struct value key = chat_eval(r, k), v = chat_eval(r, k->next);
        if (!r->st)
            chat_dict_put(r, d, key, v);
    }
    return d;
}

static bool compare_one(struct chat_run *r, int op, struct value a, struct value b)
{
    int c;
    switch (op) {
    case T_EQ:
        return chat_equal(r, a, b);
    case T_NE:
        return !chat_equal(r, a, b);
    case OP_IN:
        return chat_contains(r, b, a);
    case OP_NOT_IN:
        return !chat_contains(r, b, a);
    case T_GT:
        return chat_order(r, a, b, ">") == 1;
    case T_LT:
        return chat_order(r, a, b, "<") == -1;
    case T_GE:
        c = chat_order(r, a, b, ">=");
        return c == 0 || c == 1;
    default:
        c = chat_order(r, a, b, "<=");
        return c == 0 || c == -1;
    }
}

static struct value compare(struct chat_run *r, const struct chat_node *n)
{
    struct value left = chat_eval(r, n->a);
    for (const struct chat_node *o = n->b; o && !r->st; o = o->next) {
        struct value right = chat_eval(r, o->a);
        if (r->st || !compare_one(r, o->op, left, right))
            return BOOL(false);
        left = right;
    }
    return BOOL(true);
}

static struct value concat(struct chat_run *r, const struct chat_node *n)
{
    size_t mark = r->out->n;
    for (const struct chat_node *k = n->a; k && !r->st; k = k->next)
        chat_print(r, chat_eval(r, k));
    return chat_cut(r, mark);
}

static void spread(struct chat_run *r, struct value v, struct value list)
{
    struct chat_iter it;
    struct value one;
    if (r->st || !chat_iter_init(r, &it, v))
        return;
    while (chat_iter_next(r, &it, &one))
        chat_list_push(r, list, one);
}

static bool add_keyword(struct chat_run *r, struct chat_args *a, uint32_t *cap, struct value name,
                        struct value v)
{
    if (r->st || name.kind != V_STR) {
        chat_fail(r, ST_EINVAL, "keywords must be strings");
        return false;
    }
    struct str s = {name.u.s, name.n};
    for (uint32_t i = 0; i < a->n_kw; i++) {
        if (!chat_charge(r, 0))
            return false;
        if (str_eq(a->kw[i].name, s)) {
            chat_fail(r, ST_EINVAL, "got multiple values for keyword argument '%.*s'", (int)name.n, name.u.s);
            return false;
        }
    }
    if (a->n_kw == *cap) {
        *cap = *cap ? *cap * 2 : 4;
        struct chat_keyword *kw = chat_take(r, *cap * sizeof *kw);
        if (!kw)
            return false;
        if (a->n_kw)
            memcpy(kw, a->kw, a->n_kw * sizeof *kw);
        a->kw = kw;
    }
    a->kw[a->n_kw++] = (struct chat_keyword){s, v};
    return true;
}

static void spread_keywords(struct chat_run *r, struct chat_args *a, uint32_t *cap, struct value v)
{
    if (v.kind != V_DICT) {
        chat_fail(r, ST_EINVAL, "argument after ** must be a mapping, not %s", chat_type_name(v));
        return;
    }
    for (uint32_t i = 0; i < v.u.dict->n; i++)
        if (!add_keyword(r, a, cap, v.u.dict->p[i].key, v.u.dict->p[i].value))
            return;
}

/* Evaluates the arguments of a call; `small` [ARGS_MAX] serves calls with few of them. */
static void arguments(struct chat_run *r, const struct chat_node *n, struct value *small, struct chat_args *a)
{
    uint32_t cap = 0;
    *a = (struct chat_args){.pos = small};
    struct value list = UNDEF;
    bool simple = n->count <= ARGS_MAX;
    for (const struct chat_node *k = n->b; k && simple; k = k->next)
        simple = k->kind != N_STAR;
    if (!simple)
        list = chat_list_make(r, V_LIST, n->count);
    for (const struct chat_node *k = n->b; k && !r->st; k = k->next) {
        if (k->kind == N_KEYWORD)
            add_keyword(r, a, &cap, k->v, chat_eval(r, k->a));
        else if (k->kind == N_STARSTAR)
            spread_keywords(r, a, &cap, chat_eval(r, k->a));
        else if (k->kind == N_STAR)
            spread(r, chat_eval(r, k->a), list);
        else if (simple)
            small[a->n++] = chat_eval(r, k);
        else
            chat_list_push(r, list, chat_eval(r, k));
    }
    if (!simple && !r->st) {
        a->pos = list.u.list->v;
        a->n = list.u.list->n;
    }
}

/* Binds the arguments to "name name? ..." and calls. */
struct value chat_invoke(struct chat_run *r, const struct chat_fn *fn, struct value self,
                         const struct chat_args *a)
{
    if (r->st)
        return UNDEF;
    if (!fn->sig)
        return fn->call(r, self, a);
    struct value bound[ARGS_MAX];
    uint32_t i = 0, used = 0;
    const char *s = fn->sig;
    if (*s == '/' && a->n_kw)
        return chat_fail(r, ST_EINVAL, "%s() takes no keyword arguments", fn->name);
    for (s += *s == '/'; *s; i++) {
        size_t n = strcspn(s, " ?");
        bool optional = s[n] == '?';
        bound[i] = i < a->n ? a->pos[i] : (struct value){.kind = V_UNSET};
        for (uint32_t k = 0; k < a->n_kw; k++) {
            if (!str_eq(a->kw[k].name, (struct str){s, n}))
                continue;
            if (i < a->n)
                return chat_fail(r, ST_EINVAL, "%s() got multiple values for '%.*s'", fn->name, (int)n, s);
            bound[i] = a->kw[k].v;
            used++;
        }
        if (bound[i].kind == V_UNSET && !optional)
            return chat_fail(r, ST_EINVAL, "%s() misses the argument '%.*s'", fn->name, (int)n, s);
        s += n + optional;
        s += *s == ' ';
    }
    if (a->n > i || used < a->n_kw)
        return chat_fail(r, ST_EINVAL, "%s() got an unexpected argument", fn->name);
    struct chat_args b = {.pos = bound, .n = i};
    return fn->call(r, self, &b);
}

static struct value call_cycle(struct chat_run *r, const struct chat_loop *l, const struct chat_args *a)
{
    if (a->n == 0)
        return chat_fail(r, ST_EINVAL, "no items for cycling given");
    return a->pos[l->at % a->n];
}

static struct value call_cycler(struct chat_cycler *c, bool next)
{
    uint32_t at = c->at;
    c->at = next ? (at + 1) % c->n : 0;
    return next ? c->v[at] : NONE;
}

/* loop.changed(...): remembers the arguments of the last call. */
static struct value call_changed(struct chat_run *r, struct chat_loop *l, const struct chat_args *a)
{
    struct value now = chat_list_make(r, V_TUPLE, a->n);
    for (uint32_t i = 0; i < a->n; i++)
        chat_list_push(r, now, a->pos[i]);
    if (r->st)
        return UNDEF;
    if (l->last_changed.kind != V_UNSET && chat_equal(r, l->last_changed, now))
        return BOOL(false);
    l->last_changed = now;
    return BOOL(true);
}

struct value chat_call(struct chat_run *r, struct value callee, const struct chat_args *a)
{
    if (r->st)
        return UNDEF;
    switch (callee.kind) {
    case V_FUNC:
        return chat_invoke(r, callee.u.fn, NONE, a);
    case V_METHOD:
        return chat_invoke(r, callee.u.bound->fn, callee.u.bound->self, a);
    case V_MACRO:
        return chat_macro_call(r, callee.u.macro, a);
    case V_LOOP:
        if (a->n != 1 || a->n_kw)
            return chat_fail(r, ST_EINVAL, "loop() takes one argument");
        return chat_loop_call(r, callee.u.loop, a->pos[0]);
    case V_JOINER:
        if (callee.u.list->at++ == 0)
            return TEXT("", 0);
        return callee.u.list->v[0];
    case V_UNDEF:
        return chat_fail(r, ST_EINVAL,
                         callee.flag & VF_UNSAFE ? "access to '%.*s' is unsafe" : "'%.*s' is undefined",
                         (int)(callee.n < 100 ? callee.n : 100), callee.n ? callee.u.s : "");
    default:
        return chat_fail(r, ST_EINVAL, "'%s' object is not callable", chat_type_name(callee));
    }
}

static struct value call(struct chat_run *r, const struct chat_node *n, struct value caller)
{
    struct value small[ARGS_MAX];
    struct chat_args a;
    const struct chat_node *f = n->a;
    if (f->kind != N_ATTR) {
        struct value callee = chat_eval(r, f);
        arguments(r, n, small, &a);
        a.caller = caller;
        r->line = n->line;
        return chat_call(r, callee, &a);
    }
    struct value self = chat_eval(r, f->a);
    if (self.kind == V_LOOP && (f->name == NAME_cycle || f->name == NAME_changed)) {
        arguments(r, n, small, &a);
        if (r->st)
            return UNDEF;
        return f->name == NAME_cycle ? call_cycle(r, self.u.loop, &a) : call_changed(r, self.u.loop, &a);
    }
    if (self.kind == V_CYCLER && (f->name == NAME_next || f->name == NAME_reset))
        return call_cycler(self.u.cycler, f->name == NAME_next);
    if (f->fn && f->fn->call && (f->fn->kinds >> self.kind & 1)) {
        arguments(r, n, small, &a);
        r->line = n->line;
        return chat_invoke(r, f->fn, self, &a);
    }
    struct value callee = chat_attr(r, self, f->name, f->v, f->fn);
    arguments(r, n, small, &a);
    a.caller = caller;
    r->line = n->line;
    return chat_call(r, callee, &a);
}

static struct value apply(struct chat_run *r, const struct chat_node *n)
{
    struct value small[ARGS_MAX], self = n->a ? chat_eval(r, n->a) : r->piped;
    struct chat_args a;
    if (r->st)
        return UNDEF;
    r->line = n->line;
    if (!n->fn)
        return chat_fail(r, ST_EUNSUP, "no %s named '%.*s'", n->kind == N_TEST ? "test" : "filter",
                         (int)(n->v.n < 60 ? n->v.n : 60), n->v.u.s);
    arguments(r, n, small, &a);
    return chat_invoke(r, n->fn, self, &a);
}

static struct value item(struct chat_run *r, const struct chat_node *n)
{
    struct value v = chat_eval(r, n->a);
    if (n->b->kind != N_SLICE)
        return chat_item(r, v, chat_eval(r, n->b));
    struct value start = chat_eval(r, n->b->a), stop = chat_eval(r, n->b->b), by = chat_eval(r, n->b->c);
    return chat_slice(r, v, start, stop, by);
}

static struct value choose(struct chat_run *r, const struct chat_node *n)
{
    if (chat_truth(r, chat_eval(r, n->a)))
        return chat_eval(r, n->b);
    return n->c ? chat_eval(r, n->c) : UNDEF;
}

static struct value eval(struct chat_run *r, const struct chat_node *n)
{
    struct value v, w;
    switch (n->kind) {
    case N_CONST:
        return n->v;
    case N_NAME:
        return lookup(r, n);
    case N_TUPLE:
    case N_LIST:
        return items(r, n, n->kind == N_LIST ? V_LIST : V_TUPLE);
    case N_DICT:
        return dict(r, n);
    case N_ATTR:
        v = chat_eval(r, n->a);
        r->line = n->line;
        return chat_attr(r, v, n->name, n->v, n->fn);
    case N_ITEM:
        return item(r, n);
    case N_CALL:
        return call(r, n, (struct value){.kind = V_UNSET});
    case N_FILTER:
    case N_TEST:
        return apply(r, n);
    case N_NOT:
        return BOOL(!chat_truth(r, chat_eval(r, n->a)));
    case N_NEG:
    case N_POS:
        return chat_negate(r, chat_eval(r, n->a), n->kind == N_NEG);
    case N_AND:
        v = chat_eval(r, n->a);
        return chat_truth(r, v) ? chat_eval(r, n->b) : v;
    case N_OR:
        v = chat_eval(r, n->a);
        return chat_truth(r, v) ? v : chat_eval(r, n->b);
    case N_BIN:
        v = chat_eval(r, n->a);
        w = chat_eval(r, n->b);
        return chat_binary(r, n->op, v, w);
    case N_CONCAT:
        return concat(r, n);
    case N_COMPARE:
        return compare(r, n);
    case N_CHOOSE:
        return choose(r, n);
    case N_CALLBLOCK: {
        struct chat_macro *m = chat_take(r, sizeof *m);
        if (!m)
            return UNDEF;
        *m = (struct chat_macro){n->b, r->scope};
        if (r->scope)
            r->scope->captured = true;
        return call(r, n->a, (struct value){.kind = V_MACRO, .u.macro = m});
    }
    default:
        return (struct value){.kind = V_UNSET}; /* N_NONE: the absent part of a slice */
    }
}

struct value chat_eval(struct chat_run *r, const struct chat_node *n)
{
    if (!chat_charge(r, 0))
        return UNDEF;
    if (r->depth >= EVAL_DEPTH_MAX)
        return chat_fail(r, ST_ETOOBIG, "recursion too deep");
    r->depth++;
    struct value v = eval(r, n);
    r->depth--;
    return r->st ? UNDEF : v;
}
