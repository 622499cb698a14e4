/* chat_parse: what the expression and the statement half of the parser share.
 *
 * Owns     nothing; nodes come from the chat's pool.
 * Units    tokens.
 * States   one pass over the tokens; after the first error the current token stays the last one.
 * Threads  one.
 * Errors   sticky in `st`. Parsing functions never return NULL: after an error they return `dummy`.
 * Bounds   CHAT_NEST_MAX levels of recursion, CHAT_TREE_MAX levels of tree.
 */
#ifndef STATOR_CHAT_PARSE_H
#define STATOR_CHAT_PARSE_H

#include "chat_prog.h"

struct chat_parser {
    struct chat *c;
    const struct chat_token *t; /* the current token; the array ends in T_EOF */
    int nest, loops;
    uint8_t macro; /* MACRO_* seen in the macro being parsed */
    struct chat_node dummy;
    int st;
    struct err *e;
};

/* A chain of nodes under construction. */
struct chat_chain {
    struct chat_node *first, *last;
    uint32_t count;
};

struct chat_node *chat_parse_node(struct chat_parser *p, int kind);
/* Sets a child and keeps the depth of the tree right. */
void chat_parse_child(struct chat_parser *p, struct chat_node *n, struct chat_node **slot,
                      struct chat_node *child);
void chat_parse_append(struct chat_chain *c, struct chat_node *n);
void chat_parse_chain(struct chat_parser *p, struct chat_node *n, struct chat_node **slot,
                      const struct chat_chain *c);
void chat_parse_fail(struct chat_parser *p, int st, const char *text);
bool chat_parse_is_name(const struct chat_parser *p, const char *name);
bool chat_parse_skip_name(struct chat_parser *p, const char *name);
bool chat_parse_skip(struct chat_parser *p, int type);
bool chat_parse_expect(struct chat_parser *p, int type); /* fails the parse unless the token is there */
bool chat_parse_enter(struct chat_parser *p);            /* false at the depth limit; paired with leave */
void chat_parse_leave(struct chat_parser *p);

struct chat_node *chat_parse_expression(struct chat_parser *p, bool with_choose);
struct chat_node *chat_parse_tuple(struct chat_parser *p, bool with_choose, bool explicit_parentheses);
struct chat_node *chat_parse_target(struct chat_parser *p,
                                    bool with_namespace); /* name, tuple of names, ns.name */
struct chat_node *chat_parse_filters(struct chat_parser *p, struct chat_node *subject, bool start_inline);
struct chat_node *chat_parse_unary(struct chat_parser *p);

#endif
