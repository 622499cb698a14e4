/* Statements, and the small tools that both halves of the parser use. Errors stick: the first one is
 * reported, the token pointer is parked on the closing T_EOF, and every function returns a harmless dummy
 * node, so that no caller checks for NULL. Depth is limited twice: the parser's own recursion (nest) and the
 * tree that rendering will recurse over, which long operator chains make deep without any nesting in the
 * source. */
#include "chat_parse.h"

#include <string.h>

void chat_parse_fail(struct chat_parser *p, int st, const char *text)
{
    if (p->st)
        return;
    p->st = err_set(p->e, st, "chat template, line %u: %s", p->t->line, text);
    while (p->t->type != T_EOF)
        p->t++;
}

struct chat_node *chat_parse_node(struct chat_parser *p, int kind)
{
    struct chat_node *n = p->st ? NULL : chat_pool_take(&p->c->pool, sizeof *n);
    if (!n) {
        chat_parse_fail(p, p->c->pool.failed, "template too large");
        n = &p->dummy;
    }
    *n = (struct chat_node){.kind = (uint8_t)kind, .depth = 1, .line = p->t->line};
    return n;
}

void chat_parse_child(struct chat_parser *p, struct chat_node *n, struct chat_node **slot,
                      struct chat_node *child)
{
    if (p->st)
        return;
    *slot = child;
    if (child->depth >= n->depth)
        n->depth = (uint16_t)(child->depth + 1);
    if (n->depth > CHAT_TREE_MAX)
        chat_parse_fail(p, ST_ETOOBIG, "nested too deeply");
}

void chat_parse_append(struct chat_chain *c, struct chat_node *n)
{
    if (c->last)
        c->last->next = n;
    else
        c->first = n;
    c->last = n;
    c->count++;
}

void chat_parse_chain(struct chat_parser *p, struct chat_node *n, struct chat_node **slot,
                      const struct chat_chain *c)
{
    for (struct chat_node *k = c->first; k && !p->st; k = k->next)
        chat_parse_child(p, n, slot, k);
    if (!p->st) {
        *slot = c->first;
        n->count = c->count;
    }
}

bool chat_parse_is_name(const struct chat_parser *p, const char *name)
{
    return p->t->type == T_NAME && str_eqz((struct str){p->t->v.u.s, p->t->v.n}, name);
}

bool chat_parse_skip_name(struct chat_parser *p, const char *name)
{
    bool there = chat_parse_is_name(p, name);
    p->t += there;
    return there;
}

bool chat_parse_skip(struct chat_parser *p, int type)
{
    bool there = p->t->type == type && type != T_EOF;
    p->t += there;
    return there;
}

bool chat_parse_expect(struct chat_parser *p, int type)
{
    if (p->st)
        return false;
    if (chat_parse_skip(p, type))
        return true;
    chat_parse_fail(p, ST_EFORMAT,
                    p->t->type == T_EOF ? "unexpected end of the template" : "unexpected token");
    return false;
}

bool chat_parse_enter(struct chat_parser *p)
{
    if (p->nest == CHAT_NEST_MAX)
        chat_parse_fail(p, ST_ETOOBIG, "nested too deeply");
    if (p->st)
        return false;
    p->nest++;
    return true;
}

void chat_parse_leave(struct chat_parser *p)
{
    p->nest--;
}

static struct chat_node *target_name(struct chat_parser *p, bool with_namespace)
{
    struct chat_node *n = chat_parse_node(p, N_NAME);
    n->v = p->t->v;
    static const char *const reserved[] = {"true", "false", "none", "True", "False", "None"};
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        if (chat_parse_is_name(p, reserved[i]))
            chat_parse_fail(p, ST_EFORMAT, "cannot assign to a constant");
    if (!chat_parse_expect(p, T_NAME))
        return n;
    n->name = chat_name_intern(p->c, n->v);
    if (with_namespace && chat_parse_skip(p, T_DOT)) {
        n->kind = N_NSREF;
        n->v = p->t->v;
        chat_parse_expect(p, T_NAME);
    }
    return n;
}

static struct chat_node *target_tuple(struct chat_parser *p, bool with_namespace, bool parenthesised)
{
    struct chat_chain items = {0};
    bool is_tuple = false;
    while (!p->st && p->t->type != T_RPAREN && p->t->type != T_BLOCK_END && !chat_parse_is_name(p, "in")) {
        struct chat_node *n;
        if (chat_parse_skip(p, T_LPAREN)) {
            if (!chat_parse_enter(p))
                break;
            n = target_tuple(p, with_namespace, true);
            chat_parse_leave(p);
            chat_parse_expect(p, T_RPAREN);
        } else {
            n = target_name(p, with_namespace);
        }
        chat_parse_append(&items, n);
        if (!chat_parse_skip(p, T_COMMA))
            break;
        is_tuple = true;
    }
    if (p->st)
        return &p->dummy;
    if (!is_tuple && items.count)
        return items.first;
    if (!is_tuple && !parenthesised)
        chat_parse_fail(p, ST_EFORMAT, "expected a name to assign to");
    struct chat_node *n = chat_parse_node(p, N_TUPLE);
    chat_parse_chain(p, n, &n->a, &items);
    return n;
}

struct chat_node *chat_parse_target(struct chat_parser *p, bool with_namespace)
{
    return target_tuple(p, with_namespace, false);
}

static struct chat_node *block(struct chat_parser *p, const char *const *ends);
static struct chat_node *statement(struct chat_parser *p);

/* Parses statements up to {% END %} with END among the words, and leaves the token on the word. */
static struct chat_node *block(struct chat_parser *p, const char *const *ends)
{
    struct chat_node *scope = chat_parse_node(p, N_SCOPE);
    struct chat_chain body = {0};
    while (!p->st) {
        struct chat_node *n;
        if (p->t->type == T_EOF) {
            if (ends)
                chat_parse_fail(p, ST_EFORMAT, "unexpected end of the template, a block is not closed");
            break;
        }
        if (p->t->type == T_DATA) {
            n = chat_parse_node(p, N_DATA);
            n->v = p->t++->v;
        } else if (chat_parse_skip(p, T_VAR_BEGIN)) {
            n = chat_parse_node(p, N_OUT);
            chat_parse_child(p, n, &n->a, chat_parse_tuple(p, true, false));
            chat_parse_expect(p, T_VAR_END);
        } else {
            chat_parse_expect(p, T_BLOCK_BEGIN);
            for (const char *const *end = ends; end && *end; end++)
                if (chat_parse_is_name(p, *end))
                    goto out;
            n = statement(p);
            chat_parse_expect(p, T_BLOCK_END);
        }
        if (n)
            chat_parse_append(&body, n);
    }
out:
    chat_parse_chain(p, scope, &scope->a, &body);
    return scope;
}

/* The body of a block that ends in {% END %}; the token is then behind END. */
static struct chat_node *body_until(struct chat_parser *p, const char *end)
{
    const char *const ends[] = {end, NULL};
    chat_parse_expect(p, T_BLOCK_END);
    struct chat_node *n = block(p, ends);
    chat_parse_skip_name(p, end);
    return n;
}

static bool names_loop(const struct chat_node *target, const struct chat_parser *p)
{
    if (p->st || !target)
        return false;
    bool found = target->kind == N_NAME && target->name == NAME_loop;
    if (target->kind == N_TUPLE)
        for (const struct chat_node *k = target->a; k && !found; k = k->next)
            found = names_loop(k, p);
    return found;
}

static struct chat_node *parse_for(struct chat_parser *p)
{
    static const char *const ends[] = {"endfor", "else", NULL}, *const last[] = {"endfor", NULL};
    struct chat_node *n = chat_parse_node(p, N_FOR);
    chat_parse_child(p, n, &n->a, chat_parse_target(p, false));
    if (names_loop(n->a, p))
        chat_parse_fail(p, ST_EFORMAT, "cannot assign to the special variable loop");
    if (!chat_parse_skip_name(p, "in"))
        chat_parse_fail(p, ST_EFORMAT, "expected 'in'");
    chat_parse_child(p, n, &n->b, chat_parse_tuple(p, false, false));
    if (chat_parse_skip_name(p, "if"))
        chat_parse_child(p, n, &n->e, chat_parse_expression(p, true));
    n->op = chat_parse_skip_name(p, "recursive");
    chat_parse_expect(p, T_BLOCK_END);
    p->loops++;
    chat_parse_child(p, n, &n->c, block(p, ends));
    p->loops--;
    if (chat_parse_skip_name(p, "else")) {
        chat_parse_expect(p, T_BLOCK_END);
        chat_parse_child(p, n, &n->d, block(p, last));
    }
    chat_parse_skip_name(p, "endfor");
    return n;
}

static struct chat_node *parse_if(struct chat_parser *p)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL}, *const last[] = {"endif", NULL};
    struct chat_node *n = chat_parse_node(p, N_IF);
    struct chat_chain branches = {0};
    do {
        struct chat_node *b = chat_parse_node(p, N_BRANCH);
        chat_parse_child(p, b, &b->a, chat_parse_tuple(p, false, false));
        chat_parse_expect(p, T_BLOCK_END);
        chat_parse_child(p, b, &b->b, block(p, ends));
        chat_parse_append(&branches, b);
    } while (!p->st && chat_parse_skip_name(p, "elif"));
    if (chat_parse_skip_name(p, "else")) {
        struct chat_node *b = chat_parse_node(p, N_BRANCH);
        chat_parse_expect(p, T_BLOCK_END);
        chat_parse_child(p, b, &b->b, block(p, last));
        chat_parse_append(&branches, b);
    }
    chat_parse_skip_name(p, "endif");
    chat_parse_chain(p, n, &n->a, &branches);
    return n;
}

static struct chat_node *parse_set(struct chat_parser *p)
{
    struct chat_node *n = chat_parse_node(p, N_SET), *target = chat_parse_target(p, true);
    if (chat_parse_skip(p, T_ASSIGN)) {
        chat_parse_child(p, n, &n->a, target);
        chat_parse_child(p, n, &n->b, chat_parse_tuple(p, true, false));
        return n;
    }
    n->kind = N_SETBLOCK;
    chat_parse_child(p, n, &n->a, target);
    if (p->t->type == T_PIPE)
        chat_parse_child(p, n, &n->c, chat_parse_filters(p, NULL, false));
    chat_parse_child(p, n, &n->b, body_until(p, "endset"));
    return n;
}

/* (a, b=1, ...) of a macro or a call block. */
static void parameters(struct chat_parser *p, struct chat_node *n)
{
    struct chat_chain params = {0};
    bool defaults = false;
    chat_parse_expect(p, T_LPAREN);
    while (!p->st && p->t->type != T_RPAREN) {
        if (params.count)
            chat_parse_expect(p, T_COMMA);
        struct chat_node *param = target_name(p, false);
        param->kind = N_PARAM;
        if (chat_parse_skip(p, T_ASSIGN)) {
            chat_parse_child(p, param, &param->a, chat_parse_expression(p, true));
            defaults = true;
        } else if (defaults) {
            chat_parse_fail(p, ST_EFORMAT, "non-default argument follows default argument");
        }
        chat_parse_append(&params, param);
    }
    chat_parse_expect(p, T_RPAREN);
    chat_parse_chain(p, n, &n->a, &params);
}

/* A macro's body cannot break the loop around it, and its use of varargs, kwargs and caller is its own. */
static void macro_body(struct chat_parser *p, struct chat_node *n, const char *end)
{
    int loops = p->loops;
    uint8_t outer = p->macro;
    p->loops = 0;
    p->macro = 0;
    chat_parse_child(p, n, &n->b, body_until(p, end));
    n->op = p->macro;
    p->loops = loops;
    p->macro = outer | (n->op & (uint8_t)~MACRO_CALLER);
}

static struct chat_node *parse_macro(struct chat_parser *p)
{
    struct chat_node *n = chat_parse_node(p, N_MACRO), *name = target_name(p, false);
    n->name = name->name;
    n->v = name->v;
    parameters(p, n);
    macro_body(p, n, "endmacro");
    return n;
}

static struct chat_node *parse_call(struct chat_parser *p)
{
    struct chat_node *n = chat_parse_node(p, N_CALLBLOCK), *macro = chat_parse_node(p, N_MACRO);
    macro->v = (struct value){.kind = V_STR, .n = 6, .u.s = "caller"};
    if (p->t->type == T_LPAREN)
        parameters(p, macro);
    struct chat_node *call = chat_parse_unary(p);
    if (!p->st && call->kind != N_CALL)
        chat_parse_fail(p, ST_EFORMAT, "expected a call");
    macro_body(p, macro, "endcall");
    chat_parse_child(p, n, &n->a, call);
    chat_parse_child(p, n, &n->b, macro);
    return n;
}

static struct chat_node *parse_with(struct chat_parser *p)
{
    struct chat_node *n = chat_parse_node(p, N_WITH);
    struct chat_chain sets = {0};
    while (!p->st && p->t->type != T_BLOCK_END) {
        if (sets.count)
            chat_parse_expect(p, T_COMMA);
        struct chat_node *s = chat_parse_node(p, N_SET);
        chat_parse_child(p, s, &s->a, target_name(p, false));
        chat_parse_expect(p, T_ASSIGN);
        chat_parse_child(p, s, &s->b, chat_parse_expression(p, true));
        chat_parse_append(&sets, s);
    }
    chat_parse_chain(p, n, &n->a, &sets);
    chat_parse_child(p, n, &n->b, body_until(p, "endwith"));
    return n;
}

static struct chat_node *scoped(struct chat_parser *p, const char *end)
{
    struct chat_node *n = chat_parse_node(p, N_WITH);
    int loops = p->loops;
    p->loops = 0;
    chat_parse_child(p, n, &n->b, body_until(p, end));
    p->loops = loops;
    return n;
}

static struct chat_node *parse_filter(struct chat_parser *p)
{
    struct chat_node *n = chat_parse_node(p, N_FILTERBLOCK);
    chat_parse_child(p, n, &n->a, chat_parse_filters(p, NULL, true));
    chat_parse_child(p, n, &n->b, body_until(p, "endfilter"));
    return n;
}

static struct chat_node *keyword_statement(struct chat_parser *p, struct chat_token word)
{
    struct str w = {word.v.u.s, word.v.n};
    if (str_eqz(w, "if"))
        return parse_if(p);
    if (str_eqz(w, "set"))
        return parse_set(p);
    if (str_eqz(w, "for"))
        return parse_for(p);
    if (str_eqz(w, "macro"))
        return parse_macro(p);
    if (str_eqz(w, "call"))
        return parse_call(p);
    if (str_eqz(w, "with"))
        return parse_with(p);
    if (str_eqz(w, "filter"))
        return parse_filter(p);
    if (str_eqz(w, "generation"))
        return scoped(p, "endgeneration");
    if (str_eqz(w, "break") || str_eqz(w, "continue")) {
        if (!p->loops)
            chat_parse_fail(p, ST_EFORMAT, "break or continue outside of a loop");
        return chat_parse_node(p, str_eqz(w, "break") ? N_BREAK : N_CONTINUE);
    }
    static const char *const known[] = {"include", "import",     "from", "extends",
                                        "block",   "autoescape", "do",   "print"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (str_eqz(w, known[i]))
            chat_parse_fail(p, ST_EUNSUP, "a statement that chat templates have no use for");
    chat_parse_fail(p, ST_EFORMAT, "unknown statement");
    return &p->dummy;
}

static struct chat_node *statement(struct chat_parser *p)
{
    struct chat_token word = *p->t;
    if (!chat_parse_expect(p, T_NAME) || !chat_parse_enter(p))
        return &p->dummy;
    struct chat_node *n = keyword_statement(p, word);
    chat_parse_leave(p);
    return n;
}

int chat_parse(struct chat *c, const struct chat_token *tokens, struct err *e)
{
    struct chat_parser p = {.c = c, .t = tokens, .e = e};
    static const char *const names[] = {
#define X(n) #n,
        CHAT_NAMES(X)
#undef X
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        chat_name_intern(c, (struct value){.kind = V_STR, .n = (uint32_t)strlen(names[i]), .u.s = names[i]});
    c->body = block(&p, NULL);
    if (!p.st && c->pool.failed)
        p.st = err_set(e, c->pool.failed, "chat template: too large");
    return p.st;
}
