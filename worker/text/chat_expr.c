/* Recursive descent over expressions, one function per level of precedence, in Jinja's order: which differs
 * from Python's in that `~` binds tighter than + and looser than *, and ** groups to the left. Filters and
 * tests are looked up here once; an unknown one fails when it is reached, as a template may guard it. */
#include "chat_parse.h"

#include "chat_run.h"

#include <string.h>

static struct chat_node *binary(struct chat_parser *p, int kind, int op, struct chat_node *a,
                                struct chat_node *b)
{
    struct chat_node *n = chat_parse_node(p, kind);
    n->op = (uint8_t)op;
    chat_parse_child(p, n, &n->a, a);
    chat_parse_child(p, n, &n->b, b);
    return n;
}

/* One argument of a call; kwargs follow positional ones, *args and **kwargs come last, as in Python. */
static struct chat_node *argument(struct chat_parser *p)
{
    struct chat_node *n;
    if (p->t->type == T_MUL || p->t->type == T_POW) {
        n = chat_parse_node(p, p->t->type == T_MUL ? N_STAR : N_STARSTAR);
        p->t++;
    } else if (p->t->type == T_NAME && p->t[1].type == T_ASSIGN) {
        n = chat_parse_node(p, N_KEYWORD);
        n->name = chat_name_intern(p->c, p->t->v);
        n->v = p->t->v;
        p->t += 2;
    } else {
        return chat_parse_expression(p, true);
    }
    chat_parse_child(p, n, &n->a, chat_parse_expression(p, true));
    return n;
}

static void arguments(struct chat_parser *p, struct chat_node *call)
{
    struct chat_chain args = {0};
    int rank = 0;
    chat_parse_expect(p, T_LPAREN);
    while (!p->st && p->t->type != T_RPAREN) {
        if (args.count && (!chat_parse_expect(p, T_COMMA) || p->t->type == T_RPAREN))
            break;
        struct chat_node *a = argument(p);
        int r = a->kind == N_STARSTAR ? 3 : a->kind == N_STAR ? 2 : a->kind == N_KEYWORD ? 1 : 0;
        if ((rank == 3) || (r == 2 && rank == 2) || (r == 0 && rank > 0))
            chat_parse_fail(p, ST_EFORMAT, "invalid order of arguments");
        rank = r > rank ? r : rank;
        chat_parse_append(&args, a);
    }
    chat_parse_expect(p, T_RPAREN);
    chat_parse_chain(p, call, &call->b, &args);
    call->count = args.count;
}

static struct chat_node *call(struct chat_parser *p, struct chat_node *callee)
{
    struct chat_node *n = chat_parse_node(p, N_CALL);
    chat_parse_child(p, n, &n->a, callee);
    arguments(p, n);
    return n;
}

static struct chat_node *absent(struct chat_parser *p)
{
    return chat_parse_node(p, N_NONE);
}

static struct chat_node *subscribed(struct chat_parser *p)
{
    struct chat_node *start = p->t->type == T_COLON ? absent(p) : chat_parse_expression(p, true);
    if (!chat_parse_skip(p, T_COLON))
        return start;
    struct chat_node *n = chat_parse_node(p, N_SLICE), *stop = absent(p), *stride = absent(p);
    if (p->t->type == T_COLON) {
        p->t++;
    } else if (p->t->type != T_RBRACKET && p->t->type != T_COMMA) {
        stop = chat_parse_expression(p, true);
        if (!chat_parse_skip(p, T_COLON))
            goto out;
    } else {
        goto out;
    }
    if (p->t->type != T_RBRACKET && p->t->type != T_COMMA)
        stride = chat_parse_expression(p, true);
out:
    chat_parse_child(p, n, &n->a, start);
    chat_parse_child(p, n, &n->b, stop);
    chat_parse_child(p, n, &n->c, stride);
    return n;
}

static struct chat_node *subscript(struct chat_parser *p, struct chat_node *subject)
{
    struct chat_chain args = {0};
    while (!p->st && p->t->type != T_RBRACKET) {
        if (args.count)
            chat_parse_expect(p, T_COMMA);
        chat_parse_append(&args, subscribed(p));
    }
    chat_parse_expect(p, T_RBRACKET);
    struct chat_node *key = args.first;
    if (args.count != 1) {
        key = chat_parse_node(p, N_TUPLE);
        chat_parse_chain(p, key, &key->a, &args);
    }
    return binary(p, N_ITEM, 0, subject, key);
}

static struct chat_node *dot(struct chat_parser *p, struct chat_node *subject)
{
    struct chat_node *n;
    if (p->t->type == T_INT) {
        n = chat_parse_node(p, N_CONST);
        n->v = p->t++->v;
        return binary(p, N_ITEM, 0, subject, n);
    }
    n = chat_parse_node(p, N_ATTR);
    n->v = p->t->v;
    if (chat_parse_expect(p, T_NAME)) {
        n->name = chat_name_intern(p->c, n->v);
        n->fn = chat_method_find(n->v);
    }
    chat_parse_child(p, n, &n->a, subject);
    return n;
}

static struct chat_node *postfix(struct chat_parser *p, struct chat_node *n)
{
    for (;;) {
        if (p->st)
            return n;
        if (chat_parse_skip(p, T_DOT))
            n = dot(p, n);
        else if (chat_parse_skip(p, T_LBRACKET))
            n = subscript(p, n);
        else if (p->t->type == T_LPAREN)
            n = call(p, n);
        else
            return n;
    }
}

static struct chat_node *sequence(struct chat_parser *p, int kind, int end)
{
    struct chat_node *n = chat_parse_node(p, kind);
    struct chat_chain items = {0};
    p->t++;
    while (!p->st && p->t->type != end) {
        if (items.count && (!chat_parse_expect(p, T_COMMA) || p->t->type == end))
            break;
        chat_parse_append(&items, chat_parse_expression(p, true));
        if (kind == N_DICT && chat_parse_expect(p, T_COLON))
            chat_parse_append(&items, chat_parse_expression(p, true));
    }
    chat_parse_expect(p, end);
    chat_parse_chain(p, n, &n->a, &items);
    return n;
}

static struct chat_node *constant(struct chat_parser *p, struct value v)
{
    struct chat_node *n = chat_parse_node(p, N_CONST);
    n->v = v;
    return n;
}

static struct chat_node *name(struct chat_parser *p)
{
    struct value v = p->t->v;
    struct str s = {v.u.s, v.n};
    if (str_eqz(s, "true") || str_eqz(s, "True") || str_eqz(s, "false") || str_eqz(s, "False")) {
        p->t++;
        return constant(p, (struct value){.kind = V_BOOL, .u.b = s.n == 4});
    }
    if (str_eqz(s, "none") || str_eqz(s, "None")) {
        p->t++;
        return constant(p, (struct value){.kind = V_NONE});
    }
    struct chat_node *n = chat_parse_node(p, N_NAME);
    p->t++;
    n->v = v;
    n->name = chat_name_intern(p->c, v);
    p->macro |= n->name == NAME_varargs ? MACRO_VARARGS : n->name == NAME_kwargs ? MACRO_KWARGS : 0;
    p->macro |= n->name == NAME_caller ? MACRO_CALLER : 0;
    return n;
}

static struct chat_node *strings(struct chat_parser *p)
{
    struct value v = p->t++->v;
    if (p->t->type != T_STR)
        return constant(p, v);
    size_t n = v.n;
    for (const struct chat_token *t = p->t; t->type == T_STR; t++)
        n += t->v.n;
    char *s = chat_pool_take(&p->c->pool, n);
    if (!s) {
        chat_parse_fail(p, p->c->pool.failed, "template too large");
        return &p->dummy;
    }
    memcpy(s, v.u.s, v.n);
    size_t at = v.n;
    for (; p->t->type == T_STR; p->t++) {
        memcpy(s + at, p->t->v.u.s, p->t->v.n);
        at += p->t->v.n;
    }
    return constant(p, (struct value){.kind = V_STR, .n = (uint32_t)n, .u.s = s});
}

static struct chat_node *primary(struct chat_parser *p)
{
    struct chat_node *n;
    switch (p->t->type) {
    case T_NAME:
        return name(p);
    case T_STR:
        return strings(p);
    case T_INT:
    case T_FLOAT:
        return constant(p, p->t++->v);
    case T_LPAREN:
        p->t++;
        n = chat_parse_tuple(p, true, true);
        chat_parse_expect(p, T_RPAREN);
        return n;
    case T_LBRACKET:
        return sequence(p, N_LIST, T_RBRACKET);
    case T_LBRACE:
        return sequence(p, N_DICT, T_RBRACE);
    default:
        chat_parse_fail(p, ST_EFORMAT, "expected an expression");
        return &p->dummy;
    }
}

static struct value dotted_name(struct chat_parser *p)
{
    struct value v = p->t->v;
    if (!chat_parse_expect(p, T_NAME))
        return v;
    while (!p->st && p->t->type == T_DOT) {
        p->t++;
        v = p->t->v;
        chat_parse_expect(p, T_NAME);
    }
    return v;
}

static struct chat_node *test(struct chat_parser *p, struct chat_node *subject)
{
    p->t++;
    bool negated = chat_parse_skip_name(p, "not");
    struct chat_node *n = chat_parse_node(p, N_TEST);
    n->v = dotted_name(p);
    if (p->st)
        return n;
    n->fn = chat_test_find(n->v);
    chat_parse_child(p, n, &n->a, subject);
    int k = p->t->type;
    if (k == T_LPAREN) {
        arguments(p, n);
    } else if ((k == T_NAME && !chat_parse_is_name(p, "else") && !chat_parse_is_name(p, "or") &&
                !chat_parse_is_name(p, "and")) ||
               k == T_STR || k == T_INT || k == T_FLOAT || k == T_LBRACKET || k == T_LBRACE) {
        if (chat_parse_is_name(p, "is"))
            chat_parse_fail(p, ST_EFORMAT, "tests cannot be chained with is");
        chat_parse_child(p, n, &n->b, postfix(p, primary(p)));
        n->count = 1;
    }
    if (!negated)
        return n;
    struct chat_node *not = chat_parse_node(p, N_NOT);
    chat_parse_child(p, not, &not ->a, n);
    return not ;
}

struct chat_node *chat_parse_filters(struct chat_parser *p, struct chat_node *subject, bool start_inline)
{
    while (!p->st && (start_inline || p->t->type == T_PIPE)) {
        if (!start_inline)
            p->t++;
        start_inline = false;
        struct chat_node *n = chat_parse_node(p, N_FILTER);
        n->v = dotted_name(p);
        n->fn = p->st ? NULL : chat_filter_find(n->v);
        if (subject)
            chat_parse_child(p, n, &n->a, subject);
        if (p->t->type == T_LPAREN)
            arguments(p, n);
        subject = n;
    }
    return subject ? subject : &p->dummy;
}

static struct chat_node *filter_expr(struct chat_parser *p, struct chat_node *n)
{
    while (!p->st) {
        if (p->t->type == T_PIPE)
            n = chat_parse_filters(p, n, false);
        else if (chat_parse_is_name(p, "is"))
            n = test(p, n);
        else if (p->t->type == T_LPAREN)
            n = call(p, n);
        else
            break;
    }
    return n;
}

static struct chat_node *unary(struct chat_parser *p, bool with_filter)
{
    struct chat_node *n;
    if (!chat_parse_enter(p))
        return &p->dummy;
    if (p->t->type == T_SUB || p->t->type == T_ADD) {
        n = chat_parse_node(p, p->t->type == T_SUB ? N_NEG : N_POS);
        p->t++;
        chat_parse_child(p, n, &n->a, unary(p, false));
    } else {
        n = primary(p);
    }
    n = postfix(p, n);
    if (with_filter)
        n = filter_expr(p, n);
    chat_parse_leave(p);
    return n;
}

struct chat_node *chat_parse_unary(struct chat_parser *p)
{
    return unary(p, true);
}

static struct chat_node *power(struct chat_parser *p)
{
    struct chat_node *n = unary(p, true);
    while (chat_parse_skip(p, T_POW))
        n = binary(p, N_BIN, T_POW, n, unary(p, true));
    return n;
}

static struct chat_node *product(struct chat_parser *p)
{
    struct chat_node *n = power(p);
    while (p->t->type == T_MUL || p->t->type == T_DIV || p->t->type == T_FLOORDIV || p->t->type == T_MOD) {
        int op = p->t++->type;
        n = binary(p, N_BIN, op, n, power(p));
    }
    return n;
}

static struct chat_node *concat(struct chat_parser *p)
{
    struct chat_node *first = product(p);
    if (p->t->type != T_TILDE)
        return first;
    struct chat_node *n = chat_parse_node(p, N_CONCAT);
    struct chat_chain parts = {0};
    chat_parse_append(&parts, first);
    while (chat_parse_skip(p, T_TILDE))
        chat_parse_append(&parts, product(p));
    chat_parse_chain(p, n, &n->a, &parts);
    return n;
}

static struct chat_node *sum(struct chat_parser *p)
{
    struct chat_node *n = concat(p);
    while (p->t->type == T_ADD || p->t->type == T_SUB) {
        int op = p->t++->type;
        n = binary(p, N_BIN, op, n, concat(p));
    }
    return n;
}

static int comparison(struct chat_parser *p)
{
    int k = p->t->type;
    if (k >= T_EQ && k <= T_LE) {
        p->t++;
        return k;
    }
    if (chat_parse_skip_name(p, "in"))
        return OP_IN;
    if (chat_parse_is_name(p, "not") && p->t[1].type == T_NAME && p->t[1].v.n == 2 &&
        memcmp(p->t[1].v.u.s, "in", 2) == 0) {
        p->t += 2;
        return OP_NOT_IN;
    }
    return 0;
}

static struct chat_node *compare(struct chat_parser *p)
{
    struct chat_node *first = sum(p);
    struct chat_chain ops = {0};
    int op;
    while (!p->st && (op = comparison(p)) != 0) {
        struct chat_node *o = chat_parse_node(p, N_OPERAND);
        o->op = (uint8_t)op;
        chat_parse_child(p, o, &o->a, sum(p));
        chat_parse_append(&ops, o);
    }
    if (!ops.count)
        return first;
    struct chat_node *n = chat_parse_node(p, N_COMPARE);
    chat_parse_child(p, n, &n->a, first);
    chat_parse_chain(p, n, &n->b, &ops);
    return n;
}

static struct chat_node *not_level(struct chat_parser *p)
{
    if (!chat_parse_is_name(p, "not"))
        return compare(p);
    if (!chat_parse_enter(p))
        return &p->dummy;
    struct chat_node *n = chat_parse_node(p, N_NOT);
    p->t++;
    chat_parse_child(p, n, &n->a, not_level(p));
    chat_parse_leave(p);
    return n;
}

static struct chat_node *and_level(struct chat_parser *p)
{
    struct chat_node *n = not_level(p);
    while (chat_parse_skip_name(p, "and"))
        n = binary(p, N_AND, 0, n, not_level(p));
    return n;
}

static struct chat_node *or_level(struct chat_parser *p)
{
    struct chat_node *n = and_level(p);
    while (chat_parse_skip_name(p, "or"))
        n = binary(p, N_OR, 0, n, and_level(p));
    return n;
}

struct chat_node *chat_parse_expression(struct chat_parser *p, bool with_choose)
{
    if (!chat_parse_enter(p))
        return &p->dummy;
    struct chat_node *n = or_level(p);
    while (with_choose && chat_parse_skip_name(p, "if")) {
        struct chat_node *choose = chat_parse_node(p, N_CHOOSE);
        chat_parse_child(p, choose, &choose->b, n);
        chat_parse_child(p, choose, &choose->a, or_level(p));
        if (chat_parse_skip_name(p, "else"))
            chat_parse_child(p, choose, &choose->c, chat_parse_expression(p, true));
        n = choose;
    }
    chat_parse_leave(p);
    return n;
}

static bool tuple_end(const struct chat_parser *p)
{
    int k = p->t->type;
    return k == T_VAR_END || k == T_BLOCK_END || k == T_RPAREN || k == T_EOF || chat_parse_is_name(p, "in") ||
           chat_parse_is_name(p, "recursive");
}

struct chat_node *chat_parse_tuple(struct chat_parser *p, bool with_choose, bool explicit_parentheses)
{
    struct chat_chain items = {0};
    bool is_tuple = false;
    while (!p->st && !tuple_end(p)) {
        chat_parse_append(&items, chat_parse_expression(p, with_choose));
        if (!chat_parse_skip(p, T_COMMA))
            break;
        is_tuple = true;
    }
    if (p->st)
        return &p->dummy;
    if (!is_tuple && items.count)
        return items.first;
    if (!is_tuple && !explicit_parentheses) {
        chat_parse_fail(p, ST_EFORMAT, "expected an expression");
        return &p->dummy;
    }
    struct chat_node *n = chat_parse_node(p, N_TUPLE);
    chat_parse_chain(p, n, &n->a, &items);
    return n;
}
