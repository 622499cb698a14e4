/* Statements. Names live in scopes that loops, macros and blocks open and `if` does not, as in Jinja: a
 * variable set in a loop is gone in the next turn. The outermost scope is an array indexed by name; inner
 * ones are short lists searched from the newest. A macro keeps the scope it was defined in; such a scope is
 * not reused for the next turn. */
#include "chat_run.h"

#include <string.h>

enum { SCOPE_FIRST = 8 };

bool chat_enter(struct chat_run *r, struct chat_scope *s)
{
    *s = (struct chat_scope){.parent = r->scope};
    r->scope = s;
    return !r->st;
}

void chat_leave(struct chat_run *r, struct chat_scope *s)
{
    r->scope = s->parent;
}

void chat_assign(struct chat_run *r, uint32_t name, struct value v)
{
    struct chat_scope *s = r->scope;
    if (r->st)
        return;
    if (!s) {
        r->globals[name] = v;
        return;
    }
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->b[i].name == name) {
            s->b[i].v = v;
            return;
        }
    }
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : SCOPE_FIRST;
        struct chat_binding *b = chat_take(r, cap * sizeof *b);
        if (!b)
            return;
        if (s->n)
            memcpy(b, s->b, s->n * sizeof *b);
        s->b = b;
        s->cap = cap;
    }
    s->b[s->n++] = (struct chat_binding){name, v};
}

static void assign_to(struct chat_run *r, const struct chat_node *target, struct value v);

static void unpack(struct chat_run *r, const struct chat_node *target, struct value v)
{
    struct chat_iter it;
    struct value one;
    uint32_t n = 0;
    if (!chat_iter_init(r, &it, v))
        return;
    for (const struct chat_node *t = target->a; t; t = t->next, n++) {
        if (!chat_iter_next(r, &it, &one)) {
            chat_fail(r, ST_EINVAL, "not enough values to unpack (expected %u, got %u)", target->count, n);
            return;
        }
        assign_to(r, t, one);
    }
    if (chat_iter_next(r, &it, &one))
        chat_fail(r, ST_EINVAL, "too many values to unpack (expected %u)", target->count);
}

static void assign_to(struct chat_run *r, const struct chat_node *target, struct value v)
{
    if (r->st)
        return;
    if (target->kind == N_NAME) {
        chat_assign(r, target->name, v);
    } else if (target->kind == N_NSREF) {
        struct chat_node name = {.kind = N_NAME, .name = target->name, .line = target->line};
        struct value ns = chat_eval(r, &name);
        if (ns.kind != V_NS)
            chat_fail(r, ST_EINVAL, "cannot assign attribute on non-namespace object");
        else
            chat_dict_put(r, ns, target->v, v);
    } else {
        unpack(r, target, v);
    }
}

/* Runs a body and cuts what it printed. */
static struct value capture(struct chat_run *r, const struct chat_node *body)
{
    size_t mark = r->out->n;
    chat_exec(r, body);
    return chat_cut(r, mark);
}

static struct value filtered(struct chat_run *r, const struct chat_node *filter, struct value v)
{
    struct value outer = r->piped;
    r->piped = v;
    v = chat_eval(r, filter);
    r->piped = outer;
    return v;
}

static void exec_block(struct chat_run *r, const struct chat_node *n)
{
    struct chat_scope *s = chat_take(r, sizeof *s);
    if (!s)
        return;
    chat_enter(r, s);
    struct value v = capture(r, n->b);
    chat_leave(r, s);
    if (n->kind == N_FILTERBLOCK) {
        chat_print(r, filtered(r, n->a, v));
    } else {
        if (n->c)
            v = filtered(r, n->c, v);
        assign_to(r, n->a, v);
    }
}

static enum chat_flow exec_with(struct chat_run *r, const struct chat_node *n)
{
    struct chat_scope *s = chat_take(r, sizeof *s);
    if (!s)
        return FLOW_NEXT;
    struct value list = chat_list_make(r, V_LIST, n->count);
    for (const struct chat_node *k = n->a; k && !r->st; k = k->next)
        chat_list_push(r, list, chat_eval(r, k->b));
    chat_enter(r, s);
    uint32_t i = 0;
    for (const struct chat_node *k = n->a; k && !r->st; k = k->next)
        assign_to(r, k->a, list.u.list->v[i++]);
    enum chat_flow flow = r->st ? FLOW_NEXT : chat_exec(r, n->b);
    chat_leave(r, s);
    return flow;
}

/* The values a loop walks: as a list, less what its filter refuses. Ranges stay lazy when nothing filters
 * them. */
static struct value loop_items(struct chat_run *r, const struct chat_node *n, struct value v)
{
    if (v.kind == V_LIST || v.kind == V_TUPLE || v.kind == V_VIEW) {
        if (!n->e)
            return v;
    } else {
        v = chat_to_list(r, v, V_LIST);
    }
    if (!n->e || r->st)
        return v;
    struct chat_scope *s = chat_take(r, sizeof *s);
    struct value kept = chat_list_make(r, V_LIST, v.u.list->n);
    if (r->st)
        return UNDEF;
    chat_enter(r, s);
    for (uint32_t i = 0; i < v.u.list->n && !r->st; i++) {
        s->n = 0;
        assign_to(r, n->a, v.u.list->v[i]);
        if (chat_truth(r, chat_eval(r, n->e)))
            chat_list_push(r, kept, v.u.list->v[i]);
    }
    chat_leave(r, s);
    return kept;
}

static void run_loop(struct chat_run *r, const struct chat_node *n, struct value v, uint32_t depth)
{
    v = loop_items(r, n, v);
    struct chat_loop *l = chat_take(r, sizeof *l);
    struct chat_scope *s = chat_take(r, sizeof *s);
    if (r->st)
        return;
    *l = (struct chat_loop){.node = n, .outer = r->scope, .items = v, .n = v.u.list->n, .depth = depth};
    chat_enter(r, s);
    for (uint32_t i = 0; i < l->n && !r->st; i++) {
        l->at = i;
        if (s->captured) {
            chat_leave(r, s);
            s = chat_take(r, sizeof *s);
            if (!s)
                return;
            chat_enter(r, s);
        }
        s->n = 0;
        assign_to(r, n->a, v.u.list->v[i]);
        chat_assign(r, NAME_loop, (struct value){.kind = V_LOOP, .u.loop = l});
        if (r->st || chat_exec(r, n->c) == FLOW_BREAK)
            break;
    }
    chat_leave(r, s);
    if (l->n == 0 && n->d && !r->st && chat_enter(r, s)) {
        chat_exec(r, n->d);
        chat_leave(r, s);
    }
}

static bool enter_call(struct chat_run *r)
{
    if (r->calls >= CHAT_DEPTH_MAX) {
        chat_fail(r, ST_ETOOBIG, "calls nested deeper than %d levels", CHAT_DEPTH_MAX);
        return false;
    }
    r->calls++;
    return true;
}

struct value chat_loop_call(struct chat_run *r, const struct chat_loop *l, struct value items)
{
    if (!l->node->op)
        return chat_fail(r, ST_EINVAL, "the loop is not marked recursive");
    if (!enter_call(r))
        return UNDEF;
    struct chat_scope *scope = r->scope;
    size_t mark = r->out->n;
    r->scope = l->outer;
    run_loop(r, l->node, items, l->depth + 1);
    r->scope = scope;
    r->calls--;
    return chat_cut(r, mark);
}

/* Fills *v with the keyword argument of that name and marks it used (by emptying its name's pointer). */
static bool take_keyword(struct chat_run *r, const struct chat_args *a, bool *used, struct value name,
                         struct value *v)
{
    for (uint32_t i = 0; i < a->n_kw; i++) {
        if (!used[i] && str_eq(a->kw[i].name, (struct str){name.u.s, name.n}) && chat_charge(r, 0)) {
            *v = a->kw[i].v;
            return used[i] = true;
        }
    }
    return false;
}

static void bind_rest(struct chat_run *r, const struct chat_node *m, const struct chat_args *a,
                      const bool *used)
{
    if (m->op & MACRO_KWARGS) {
        struct value d = chat_dict_make(r, V_DICT, a->n_kw);
        for (uint32_t i = 0; i < a->n_kw && !r->st; i++)
            if (!used[i])
                chat_dict_put(r, d, TEXT(a->kw[i].name.p, a->kw[i].name.n), a->kw[i].v);
        chat_assign(r, NAME_kwargs, d);
    } else {
        for (uint32_t i = 0; i < a->n_kw; i++)
            if (!used[i])
                chat_fail(r, ST_EINVAL, "macro takes no keyword argument '%.*s'",
                          (int)(a->kw[i].name.n < 60 ? a->kw[i].name.n : 60), a->kw[i].name.p);
    }
    if (m->op & MACRO_VARARGS) {
        struct value l = chat_list_make(r, V_TUPLE, 0);
        for (uint32_t i = m->count; i < a->n && !r->st; i++)
            chat_list_push(r, l, a->pos[i]);
        chat_assign(r, NAME_varargs, l);
    } else if (a->n > m->count) {
        chat_fail(r, ST_EINVAL, "macro takes not more than %u argument(s)", m->count);
    }
}

static void bind(struct chat_run *r, const struct chat_node *m, const struct chat_args *a)
{
    bool few[16] = {false}, *used = few;
    if (a->n_kw > 16) {
        used = chat_take(r, a->n_kw);
        if (!used)
            return;
        memset(used, 0, a->n_kw);
    }
    uint32_t i = 0;
    for (const struct chat_node *p = m->a; p && !r->st; p = p->next, i++) {
        struct value v = chat_undefined(r, p->v);
        if (i < a->n)
            v = a->pos[i];
        else if (!take_keyword(r, a, used, p->v, &v) && p->a)
            v = chat_eval(r, p->a);
        chat_assign(r, p->name, v);
    }
    struct value caller = a->caller, unnamed = (struct value){.kind = V_STR, .n = 6, .u.s = "caller"};
    if (m->op & MACRO_CALLER) {
        if (caller.kind == V_UNSET && !take_keyword(r, a, used, unnamed, &caller))
            caller = UNDEF;
        chat_assign(r, NAME_caller, caller);
    } else if (caller.kind != V_UNSET) {
        chat_fail(r, ST_EINVAL, "the macro was called with a block but does not use caller");
    }
    bind_rest(r, m, a, used);
}

struct value chat_macro_call(struct chat_run *r, const struct chat_macro *m, const struct chat_args *a)
{
    struct chat_scope *s = chat_take(r, sizeof *s), *outer = r->scope;
    if (!s || !enter_call(r))
        return UNDEF;
    r->scope = m->scope;
    chat_enter(r, s);
    bind(r, m->node, a);
    struct value v = r->st ? UNDEF : capture(r, m->node->b);
    r->scope = outer;
    r->calls--;
    return v;
}

static void define_macro(struct chat_run *r, const struct chat_node *n)
{
    struct chat_macro *m = chat_take(r, sizeof *m);
    if (!m)
        return;
    *m = (struct chat_macro){n, r->scope};
    for (struct chat_scope *s = r->scope; s; s = s->parent)
        s->captured = true;
    chat_assign(r, n->name, (struct value){.kind = V_MACRO, .u.macro = m});
}

static enum chat_flow exec_if(struct chat_run *r, const struct chat_node *n)
{
    for (const struct chat_node *b = n->a; b && !r->st; b = b->next)
        if (!b->a || chat_truth(r, chat_eval(r, b->a)))
            return r->st ? FLOW_NEXT : chat_exec(r, b->b);
    return FLOW_NEXT;
}

static enum chat_flow exec_one(struct chat_run *r, const struct chat_node *n)
{
    r->line = n->line;
    switch (n->kind) {
    case N_DATA:
        chat_put(r, n->v.u.s, n->v.n);
        break;
    case N_OUT:
        chat_print(r, chat_eval(r, n->a));
        break;
    case N_SET:
        assign_to(r, n->a, chat_eval(r, n->b));
        break;
    case N_IF:
        return exec_if(r, n);
    case N_FOR:
        run_loop(r, n, chat_eval(r, n->b), 0);
        break;
    case N_SETBLOCK:
    case N_FILTERBLOCK:
        exec_block(r, n);
        break;
    case N_MACRO:
        define_macro(r, n);
        break;
    case N_CALLBLOCK:
        chat_print(r, chat_eval(r, n));
        break;
    case N_WITH:
        return exec_with(r, n);
    case N_BREAK:
        return FLOW_BREAK;
    case N_CONTINUE:
        return FLOW_CONTINUE;
    default:
        break;
    }
    return FLOW_NEXT;
}

enum chat_flow chat_exec(struct chat_run *r, const struct chat_node *body)
{
    enum chat_flow flow = FLOW_NEXT;
    if (r->depth >= EVAL_DEPTH_MAX) {
        chat_fail(r, ST_ETOOBIG, "recursion too deep");
        return FLOW_NEXT;
    }
    r->depth++;
    for (const struct chat_node *n = body->a; n && flow == FLOW_NEXT && chat_charge(r, 0); n = n->next)
        flow = exec_one(r, n);
    r->depth--;
    return flow;
}
