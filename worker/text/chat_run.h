/* chat_run: values while a template renders: making, comparing, walking and printing them as Python does.
 *
 * Owns     a run owns its pool; every value made in a run dies with it. Strings may borrow from the input
 *          and the program.
 * Units    steps: one per evaluated node, one per value walked, one per 64 bytes of text worked on.
 * States   one run per chat_render.
 * Threads  one.
 * Errors   sticky in `st`, set by chat_fail; functions then return V_UNDEF and change nothing more.
 * Bounds   CHAT_STEPS_MAX, CHAT_OUTPUT_MAX, CHAT_MEMORY_MAX, CHAT_DEPTH_MAX calls, EVAL_DEPTH_MAX levels of
 *          C recursion.
 * Source   CPython 3.11 and Jinja 3.1 behaviour.
 */
#ifndef STATOR_CHAT_RUN_H
#define STATOR_CHAT_RUN_H

#include "buf.h"
#include "chat.h"
#include "chat_prog.h"

enum { EVAL_DEPTH_MAX = 2500, ARGS_MAX = 8 };

struct chat_list {
    struct value *v; /* [cap] */
    uint32_t n, cap;
    uint32_t at;      /* V_GEN: values already taken */
    const char *view; /* V_VIEW: dict_items, dict_keys, dict_values */
};

struct chat_pair {
    struct value key, value;
};

struct chat_dict {
    struct chat_pair *p; /* [cap], in order of insertion */
    uint32_t n, cap;
    uint32_t *index; /* [cap_index] open addressing, place + 1; NULL while small */
    uint32_t cap_index;
};

struct chat_range {
    int64_t start, stop, stride;
    uint32_t n;
};

struct chat_bound {
    struct value self;
    const struct chat_fn *fn;
};

struct chat_cycler {
    struct value *v; /* [n] */
    uint32_t n, at;
};

struct chat_binding {
    uint32_t name;
    struct value v;
};

/* A block's own names. The outermost scope is run.globals. */
struct chat_scope {
    struct chat_scope *parent;
    struct chat_binding *b; /* [cap] */
    uint32_t n, cap;
    bool captured; /* a macro holds it: do not reuse */
};

struct chat_loop {
    const struct chat_node *node;
    struct chat_scope *outer;
    struct value items; /* anything indexable by chat_iter */
    uint32_t n, at, depth;
    struct value last_changed; /* V_UNSET before the first changed() */
};

struct chat_macro {
    const struct chat_node *node;
    struct chat_scope *scope;
};

struct chat_keyword {
    struct str name;
    struct value v;
};

struct chat_args {
    struct value *pos; /* [n]; bound to a signature: [its parameters], V_UNSET where absent */
    uint32_t n, n_kw;
    struct chat_keyword *kw; /* [n_kw] */
    struct value caller;     /* V_UNSET or the call block's body */
};

struct chat_run {
    const struct chat *c;
    struct chat_pool pool;
    struct buf *out;
    size_t out_base;
    uint64_t steps;
    int depth, calls;
    uint32_t line;
    struct value *globals; /* [c->n_names] */
    struct chat_scope *scope;
    struct value piped; /* what a filter without a subject works on */
    int64_t now_s;
    int st;
    struct err *e;
};

/* A filter, test, method or global function. `sig`: parameter names, `?` behind the optional ones, bound by name and
 * place into args->pos; a leading `/`: by place only; NULL: the function reads its arguments itself. */
struct chat_fn {
    const char *name;
    const char *sig;
    struct value (*call)(struct chat_run *r, struct value self, const struct chat_args *a);
    uint32_t kinds; /* methods: 1 << V_* of the types that have it; 0 in sig-less marker rows */
};

#define UNDEF ((struct value){.kind = V_UNDEF})
#define NONE ((struct value){.kind = V_NONE})
#define BOOL(x) ((struct value){.kind = V_BOOL, .u.b = (x)})
#define INT(x) ((struct value){.kind = V_INT, .u.i = (x)})
#define FLOAT(x) ((struct value){.kind = V_FLOAT, .u.f = (x)})
#define TEXT(p_, n_) ((struct value){.kind = V_STR, .n = (uint32_t)(n_), .u.s = (p_)})

/* Sets the first error; returns UNDEF so that it can be returned. */
struct value chat_fail(struct chat_run *r, int st, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
bool chat_charge(struct chat_run *r,
                 size_t bytes);                   /* steps for work on text; false when the run has failed */
void *chat_take(struct chat_run *r, size_t size); /* NULL when the run has failed */
const char *chat_type_name(struct value v);       /* Python's */

/* chat_value.c */
struct value chat_text(struct chat_run *r, const char *p, size_t n); /* a copy */
struct value chat_list_make(struct chat_run *r, int kind, uint32_t cap);
bool chat_list_push(struct chat_run *r, struct value list, struct value v);
struct value chat_pair_make(struct chat_run *r, struct value a, struct value b); /* a tuple */
struct value chat_dict_make(struct chat_run *r, int kind, uint32_t cap);
bool chat_dict_put(struct chat_run *r, struct value dict, struct value key, struct value v);
struct value *chat_dict_get(struct chat_run *r, struct value dict, struct value key); /* NULL when absent */
struct value chat_dict_view(struct chat_run *r, struct value dict, const char *view);
bool chat_truth(struct chat_run *r, struct value v);
bool chat_equal(struct chat_run *r, struct value a, struct value b);
int chat_order(struct chat_run *r, struct value a, struct value b, const char *op); /* -1 0 1; 2 for NaN */
bool chat_contains(struct chat_run *r, struct value in, struct value v);
bool chat_is_number(struct value v); /* bool, int or float */
double chat_number(struct value v);
int64_t chat_integer(struct value v); /* V_BOOL or V_INT */
bool chat_hashable(struct chat_run *r, struct value v, uint32_t *hash);

/* Walking. Strings give characters, dicts keys. */
struct chat_iter {
    struct value v;
    size_t at;
    uint32_t n; /* values left, when known ahead */
};
bool chat_iter_init(struct chat_run *r, struct chat_iter *it,
                    struct value v); /* false: not iterable, run failed */
bool chat_iter_next(struct chat_run *r, struct chat_iter *it, struct value *out);
struct value chat_to_list(struct chat_run *r, struct value v, int kind);
struct value chat_range_at(const struct chat_range *g, uint32_t i);

/* chat_print.c: text forms. Scratch text is made at the end of the output and taken off again by chat_cut. */
void chat_print(struct chat_run *r, struct value v); /* str(v) */
void chat_repr(struct chat_run *r, struct value v);
void chat_put(struct chat_run *r, const char *p, size_t n);
void chat_puts(struct chat_run *r, const char *z);
struct value chat_cut(struct chat_run *r, size_t mark); /* the output from mark on, as a string value */
struct value chat_str(struct chat_run *r, struct value v);
void chat_put_float(struct chat_run *r, double d);
void chat_put_escaped(struct chat_run *r, const char *p, size_t n); /* HTML */

/* chat_json.c */
struct value chat_from_cjson(struct chat_run *r, const cJSON *j);
struct value chat_tojson(struct chat_run *r, struct value self, const struct chat_args *a);

/* chat_ops.c: operators, attributes, subscripts, formatting. */
struct value chat_binary(struct chat_run *r, int op, struct value a, struct value b);
struct value chat_negate(struct chat_run *r, struct value v, bool negative);
struct value chat_item(struct chat_run *r, struct value v, struct value key);
struct value chat_slice(struct chat_run *r, struct value v, struct value start, struct value stop,
                        struct value by);
struct value chat_attr(struct chat_run *r, struct value v, uint32_t name, struct value text,
                       const struct chat_fn *fn);
struct value chat_undefined(struct chat_run *r, struct value name); /* remembers the name for errors */

/* chat_format.c */
struct value chat_percent(struct chat_run *r, struct value format, struct value args);
struct value chat_str_format(struct chat_run *r, struct value self, const struct chat_args *a);

/* chat_split.c */
bool chat_need_str(struct chat_run *r, struct value v);           /* fails the run unless v is a string */
struct value chat_sub(struct value self, size_t from, size_t to); /* bytes [from, to); borrows */
struct value chat_str_strip(struct chat_run *r, struct value self, const struct chat_args *a);
struct value chat_str_lstrip(struct chat_run *r, struct value self, const struct chat_args *a);
struct value chat_str_rstrip(struct chat_run *r, struct value self, const struct chat_args *a);
struct value chat_str_split(struct chat_run *r, struct value self, const struct chat_args *a);
struct value chat_str_rsplit(struct chat_run *r, struct value self, const struct chat_args *a);
struct value chat_str_splitlines(struct chat_run *r, struct value self, const struct chat_args *a);
struct value chat_str_partition(struct chat_run *r, struct value self, const struct chat_args *a);
struct value chat_str_rpartition(struct chat_run *r, struct value self, const struct chat_args *a);

/* chat_eval.c */
struct value chat_eval(struct chat_run *r, const struct chat_node *n);
struct value chat_call(struct chat_run *r, struct value callee, const struct chat_args *a);
/* Calls a table function: binds the arguments to its signature first. */
struct value chat_invoke(struct chat_run *r, const struct chat_fn *fn, struct value self,
                         const struct chat_args *a);
/* chat_exec.c */
enum chat_flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE };
enum chat_flow chat_exec(struct chat_run *r, const struct chat_node *body);
struct value chat_macro_call(struct chat_run *r, const struct chat_macro *m, const struct chat_args *a);
struct value chat_loop_call(struct chat_run *r, const struct chat_loop *l, struct value items);
void chat_assign(struct chat_run *r, uint32_t name, struct value v);
bool chat_enter(struct chat_run *r, struct chat_scope *s);
void chat_leave(struct chat_run *r, struct chat_scope *s);

/* Tables. NULL when there is no such name. */
const struct chat_fn *chat_filter_find(struct value name);
const struct chat_fn *chat_test_find(struct value name);
const struct chat_fn *chat_method_find(struct value name);
const struct chat_fn *chat_find_in(const struct chat_fn *table, size_t n, struct value name);
const struct chat_fn *chat_filter_more(struct value name); /* chat_filter_list.c */
void chat_globals_init(struct chat_run *r);

#endif
