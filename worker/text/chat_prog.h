/* chat_prog: the compiled form of a chat template: values as constants, tokens, tree, and what makes it.
 *
 * Owns     a chat_pool owns its chunks; tokens, nodes and constants live in the pool of the chat they belong
 *          to.
 * Units    bytes; lines count from 1.
 * States   pool: zeroed -> take* -> fini.
 * Threads  a pool has one owner; a finished program is read-only and shared by all renderers.
 * Errors   chat_lex / chat_parse: ST_EFORMAT, ST_EUNSUP, ST_ETOOBIG, ST_ENOMEM, with the line.
 * Bounds   CHAT_SOURCE_MAX bytes of source, CHAT_TREE_MAX levels of tree, pool.limit bytes of memory.
 * Source   grammar of Jinja 3.1.
 */
#ifndef STATOR_CHAT_PROG_H
#define STATOR_CHAT_PROG_H

#include "answer_form.h"
#include "buf.h"
#include "status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CHAT_SOURCE_MAX = 4 << 20, CHAT_TREE_MAX = 150, CHAT_NEST_MAX = 100 };

struct chat_chunk;

struct chat_pool {
    struct chat_chunk *chunk;
    size_t used, cap;    /* within the newest chunk */
    size_t total, limit; /* bytes of all chunks */
    int failed;          /* ST_OK, ST_ENOMEM or ST_ETOOBIG */
};

void *chat_pool_take(struct chat_pool *p, size_t size); /* 16-byte aligned, not zeroed; NULL on failure */
void chat_pool_fini(struct chat_pool *p);

enum chat_kind {
    V_UNSET, /* no value: an absent argument, a name never set */
    V_UNDEF, /* Jinja's Undefined; s names what was missing */
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STR,
    V_LIST,
    V_TUPLE,
    V_GEN,  /* a list that can be walked once and has no length */
    V_VIEW, /* dict.items() and friends */
    V_RANGE,
    V_DICT,
    V_NS,
    V_LOOP,
    V_MACRO,
    V_FUNC,
    V_METHOD,
    V_CYCLER,
    V_JOINER
};

/* Flags of a value. */
enum { VF_MARKUP = 1, VF_UNSAFE = 2, VF_GROUP = 4 /* a pair of groupby: has .grouper and .list */ };

struct value {
    uint8_t kind, flag;
    uint16_t id;
    uint32_t n; /* V_STR, V_UNDEF: bytes at s */
    union {
        bool b;
        int64_t i;
        double f;
        const char *s;
        struct chat_list *list;
        struct chat_dict *dict; /* V_DICT, V_NS */
        struct chat_range *range;
        struct chat_loop *loop;
        struct chat_macro *macro;
        struct chat_bound *bound;
        struct chat_cycler *cycler;
        const struct chat_fn *fn;
    } u;
};

enum chat_token_type {
    T_EOF,
    T_DATA,
    T_VAR_BEGIN,
    T_VAR_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STR,
    T_INT,
    T_FLOAT,
    T_ADD,
    T_SUB,
    T_MUL,
    T_DIV,
    T_FLOORDIV,
    T_MOD,
    T_POW,
    T_TILDE,
    T_LPAREN,
    T_RPAREN,
    T_LBRACKET,
    T_RBRACKET,
    T_LBRACE,
    T_RBRACE,
    T_EQ,
    T_NE,
    T_GT,
    T_GE,
    T_LT,
    T_LE,
    T_ASSIGN,
    T_DOT,
    T_COLON,
    T_PIPE,
    T_COMMA,
    T_SEMI
};

struct chat_token {
    uint8_t type;
    uint32_t line;
    struct value v; /* T_NAME, T_STR, T_DATA: V_STR; T_INT, T_FLOAT */
};

enum chat_node_kind {
    N_CONST,
    N_NAME,
    N_TUPLE,
    N_LIST,
    N_DICT, /* a: keys and values in turn */
    N_ATTR,
    N_ITEM,
    N_SLICE,
    N_CALL,
    N_FILTER,
    N_TEST,
    N_NOT,
    N_NEG,
    N_POS,
    N_AND,
    N_OR,
    N_BIN,
    N_CONCAT,
    N_COMPARE, /* a: first operand; b: chain of N_OPERAND */
    N_OPERAND,
    N_CHOOSE, /* b if a else c */
    N_KEYWORD,
    N_STAR,
    N_STARSTAR,
    N_NSREF,
    N_NONE, /* an absent part of a slice */
    N_DATA,
    N_OUT,
    N_SET,
    N_SETBLOCK,
    N_FOR,
    N_IF,     /* a: chain of N_BRANCH */
    N_BRANCH, /* a: condition or NULL; b: body */
    N_MACRO,
    N_PARAM, /* a: default or NULL */
    N_CALLBLOCK,
    N_FILTERBLOCK,
    N_WITH,
    N_SCOPE,
    N_BREAK,
    N_CONTINUE
};

/* Comparison operators beyond the token types. */
enum { OP_IN = 200, OP_NOT_IN };

/* Flags of a macro, in op. */
enum { MACRO_VARARGS = 1, MACRO_KWARGS = 2, MACRO_CALLER = 4 };

struct chat_node {
    uint8_t kind, op;
    uint16_t depth;
    uint32_t line;
    uint32_t name; /* interned: N_NAME, N_ATTR, N_KEYWORD, N_NSREF, N_MACRO, N_PARAM */
    uint32_t
        count; /* children on the chain at a (N_TUPLE, N_CONCAT...), arguments (N_CALL, N_FILTER, N_TEST) */
    struct chat_node *a, *b, *c, *d, *e;
    struct chat_node *next;   /* the chain this node is on */
    struct value v;           /* N_CONST, N_DATA; N_FILTER, N_TEST, N_ATTR: the name */
    const struct chat_fn *fn; /* N_FILTER, N_TEST, N_ATTR (method): NULL when no such thing is known */
};

/* Names known before any template: their ids are these. */
#define CHAT_NAMES(X)                                                                                       \
    X(loop)                                                                                                 \
    X(caller)                                                                                               \
    X(varargs) X(kwargs) X(messages) X(tools) X(documents) X(add_generation_prompt) X(bos_token)            \
        X(eos_token) X(unk_token) X(pad_token) X(range) X(namespace) X(dict) X(cycler) X(joiner)            \
            X(raise_exception) X(strftime_now) X(index) X(index0) X(revindex) X(revindex0) X(first) X(last) \
                X(length) X(previtem) X(nextitem) X(depth) X(depth0) X(cycle) X(changed) X(name)            \
                    X(arguments) X(current) X(next) X(reset) X(grouper) X(list)

enum chat_name {
#define X(n) NAME_##n,
    CHAT_NAMES(X)
#undef X
        NAME_COUNT
};

struct chat {
    struct answer_form form;
    struct chat_pool pool;
    struct chat_node *body;
    struct value *names; /* [n_names] */
    uint32_t n_names, cap_names;
    uint32_t *index; /* open addressing over names, id + 1; [cap_index], a power of two */
    uint32_t cap_index;
};

/* Copies what it needs of `source` into the chat's pool. */
int chat_lex(struct chat *c, struct str source, struct chat_token **out, struct err *e);
int chat_parse(struct chat *c, const struct chat_token *tokens, struct err *e);
/* UINT32_MAX when not there (find) or out of memory (intern). */
uint32_t chat_name_find(const struct chat *c, const char *p, uint32_t n);
uint32_t chat_name_intern(struct chat *c, struct value name);

#endif
