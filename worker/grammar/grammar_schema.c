/* A schema is translated as it is read: each value becomes a piece of automaton between two nodes. What stands in one place is
 * drawn there; what is referred to, or repeated, becomes a rule of its own, drawn once and called: recursion needs that,
 * and counted repetition would multiply its element otherwise.
 *
 * Alternatives are drawn side by side from one node, and the run sorts them out. That makes oneOf the same as anyOf: where two
 * alternatives overlap, a text of both would be wrong by the letter of oneOf, but schemas mean "one of these kinds". */
#include "grammar_schema.h"

#include "grammar_compile.h"
#include "grammar_vocab.h"
#include "mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALTERNATIVES_MAX = 128 }; /* as many as a run follows */
enum { REF_STEPS = 4 };          /* what passing over a member costs: it lies anywhere in memory */

/* ---- errors and where they are -------------------------------------------------------------------------------------------- */

bool grammar_compile_ok(const struct grammar_compiler *c)
{
    return c->status == ST_OK && c->d.status == ST_OK;
}

/* The whole has no name here: the caller knows of which field it is. */
void grammar_compile_fail(struct grammar_compiler *c, int status, const char *keyword, const char *why)
{
    int n = (int)strlen(c->path) - !*keyword; /* without the dot that waits for a keyword */
    if (c->status)
        return;
    if (*keyword || *c->path)
        c->status = err_set(c->e, status, "%.*s%.60s: %.100s", n, c->path, keyword, why);
    else
        c->status = err_set(c->e, status, "%.100s", why);
}

size_t grammar_compile_enter(struct grammar_compiler *c, const char *keyword, const char *name)
{
    size_t n = strlen(c->path);
    snprintf(c->path + n, sizeof c->path - n, name ? "%s.%.40s." : "%s.", keyword, name);
    return n;
}

void grammar_compile_leave(struct grammar_compiler *c, size_t length)
{
    c->path[length] = 0;
}

bool grammar_compile_count(struct grammar_compiler *c, const cJSON *schema, const char *keyword,
                           uint32_t *out)
{
    const cJSON *v = json_get(schema, keyword);
    if (!v)
        return false;
    if (!cJSON_IsNumber(v) || v->valuedouble < 0 || v->valuedouble != floor(v->valuedouble))
        grammar_compile_fail(c, ST_EINVAL, keyword, "expected a count");
    else if (v->valuedouble > GRAMMAR_REPEAT_MAX)
        grammar_compile_fail(c, ST_EUNSUP, keyword, "larger than 10000 is not supported");
    else
        *out = (uint32_t)v->valuedouble;
    return true;
}

/* ---- values by themselves ------------------------------------------------------------------------------------------------- */

static unsigned type_of_value(const cJSON *v)
{
    if (cJSON_IsNumber(v))
        return v->valuedouble == floor(v->valuedouble) ? GRAMMAR_INTEGER_TYPE : GRAMMAR_NUMBER_TYPE;
    return cJSON_IsString(v)   ? GRAMMAR_STRING_TYPE
           : cJSON_IsBool(v)   ? GRAMMAR_BOOLEAN
           : cJSON_IsArray(v)  ? GRAMMAR_ARRAY_TYPE
           : cJSON_IsObject(v) ? GRAMMAR_OBJECT_TYPE
                               : GRAMMAR_NULL;
}

static void branch_value(struct grammar_compiler *c, const cJSON *v, uint16_t tree, uint16_t end)
{
    struct buf quoted = {0};
    char *text = NULL;
    if (cJSON_IsString(v))
        buf_put_json(&quoted, str_from(v->valuestring));
    else if ((text = cJSON_PrintUnformatted(v)))
        buf_puts(&quoted, text);
    cJSON_free(text);
    if (quoted.failed || quoted.n == 0)
        grammar_compile_fail(c, ST_ENOMEM, v->string ? v->string : "enum", "out of memory");
    else
        grammar_draft_skip(&c->d, grammar_draft_branch(&c->d, tree, buf_str(&quoted)), end);
    buf_fini(&quoted);
}

/* One of a list of values (or this one), as a tree of their texts. */
static uint16_t compile_values(struct grammar_compiler *c, const cJSON *keyword, unsigned types,
                               uint16_t from)
{
    uint16_t tree = grammar_draft_node(&c->d), end = grammar_draft_node(&c->d);
    bool list = strcmp(keyword->string, "enum") == 0, any = false;
    if (list && !cJSON_IsArray(keyword))
        grammar_compile_fail(c, ST_EINVAL, "enum", "expected an array");
    uint32_t n = 0;
    for (const cJSON *v = list ? keyword->child : keyword; v && grammar_compile_ok(c);
         v = list ? v->next : NULL) {
        if (++n > GRAMMAR_CHOICES_MAX)
            grammar_compile_fail(c, ST_EINVAL, "enum", "more than 4096 values");
        if (!(type_of_value(v) & types))
            continue;
        branch_value(c, v, tree, end);
        any = true;
    }
    if (!any)
        grammar_compile_fail(c, ST_EINVAL, keyword->string, "no value of that type");
    grammar_draft_skip(&c->d, from, tree);
    return end;
}

static uint16_t compile_any_of(struct grammar_compiler *c, const cJSON *list, unsigned types, uint16_t from)
{
    uint16_t ends[ALTERNATIVES_MAX], n = 0;
    bool all = strcmp(list->string, "allOf") == 0;
    if (!cJSON_IsArray(list) || !list->child)
        grammar_compile_fail(c, ST_EINVAL, list->string, "expected an array of schemas");
    else if (all && list->child->next)
        grammar_compile_fail(c, ST_EUNSUP, list->string, "more than one schema is not supported");
    for (const cJSON *v = list->child; v && grammar_compile_ok(c); v = v->next) {
        char at[8];
        if (n == ALTERNATIVES_MAX) {
            grammar_compile_fail(c, ST_EINVAL, list->string, "more than 128 schemas");
            break;
        }
        snprintf(at, sizeof at, "%u", n);
        size_t length = grammar_compile_enter(c, list->string, at);
        ends[n++] = grammar_compile(c, v, types, from);
        grammar_compile_leave(c, length);
    }
    uint16_t end = grammar_draft_node(&c->d);
    for (uint16_t i = 0; i < n; i++)
        grammar_draft_skip(&c->d, ends[i], end);
    return end;
}

/* ---- references ----------------------------------------------------------------------------------------------------------- */

uint16_t grammar_compile_rule(struct grammar_compiler *c, const cJSON *schema)
{
    for (uint32_t i = 0; i < c->n_rules; i++)
        if (c->rules[i].schema == schema)
            return c->rules[i].start;
    if (c->n_rules == GRAMMAR_RULES_MAX) {
        grammar_compile_fail(c, ST_EINVAL, "$ref", "more than 1024 parts are referred to");
        return 0;
    }
    if (c->n_rules == c->cap_rules) {
        uint32_t cap = c->cap_rules ? 2 * c->cap_rules : 16;
        void *grown = mem_realloc(c->rules, cap * sizeof *c->rules);
        if (!grown) {
            grammar_compile_fail(c, ST_ENOMEM, "$ref", "out of memory");
            return 0;
        }
        c->rules = grown;
        c->cap_rules = cap;
    }
    uint16_t start = grammar_draft_node(&c->d);
    c->rules[c->n_rules++] = (struct grammar_rule){schema, start};
    return start;
}

/* One step of a pointer: up to '/', with ~0 and ~1 undone. */
static const cJSON *step(struct grammar_compiler *c, const cJSON *at, const char **p)
{
    char name[256];
    size_t n = 0;
    for (; **p && **p != '/' && n + 1 < sizeof name; ++*p) {
        bool tilde = **p == '~' && ((*p)[1] == '0' || (*p)[1] == '1');
        name[n++] = !tilde ? **p : *++*p == '0' ? '~' : '/';
    }
    name[n] = 0;
    if (**p && **p != '/')
        return NULL;
    bool list = cJSON_IsArray(at);
    char *digits_end;
    unsigned long left = list ? strtoul(name, &digits_end, 10) : 0;
    if (list && (!*name || *digits_end))
        return NULL;
    for (at = at->child; at && grammar_draft_spend(&c->d, REF_STEPS); at = at->next)
        if (list ? left-- == 0 : strcmp(at->string, name) == 0)
            return at;
    return NULL;
}

static uint16_t compile_ref(struct grammar_compiler *c, const cJSON *ref, uint16_t from)
{
    const cJSON *at = c->root;
    uint16_t end = grammar_draft_node(&c->d);
    const char *p = cJSON_IsString(ref) ? ref->valuestring : "";
    if (*p != '#') {
        grammar_compile_fail(c, ST_EUNSUP, "$ref", "only \"#\" and \"#/...\" are supported");
        return end;
    }
    for (p++; at && *p == '/';) {
        p++;
        at = step(c, at, &p);
    }
    if (grammar_compile_ok(c) && (!at || *p))
        grammar_compile_fail(c, ST_EINVAL, "$ref", "leads nowhere");
    else if (at)
        grammar_draft_call(&c->d, from, grammar_compile_rule(c, at), end);
    return end;
}

/* ---- values by type ------------------------------------------------------------------------------------------------------- */

static uint16_t char_rule(struct grammar_compiler *c)
{
    if (c->char_rule < 0) {
        uint16_t start = grammar_draft_node(&c->d), end = grammar_draft_node(&c->d);
        grammar_draft_char(&c->d, start, end);
        grammar_draft_final(&c->d, end);
        c->char_rule = start;
    }
    return (uint16_t)c->char_rule;
}

static uint16_t compile_string(struct grammar_compiler *c, const cJSON *schema, uint16_t from)
{
    uint32_t least = 0, most = 0;
    struct grammar_draft *d = &c->d;
    grammar_compile_count(c, schema, "minLength", &least);
    bool bounded = grammar_compile_count(c, schema, "maxLength", &most);
    if (bounded && most < least)
        grammar_compile_fail(c, ST_EINVAL, "maxLength", "less than minLength");
    if (!bounded && least == 0) {
        uint16_t end = grammar_draft_node(d);
        grammar_draft_call(d, from, c->basics.string, end);
        return end;
    }
    uint16_t at = grammar_draft_byte(d, from, '"'), one = char_rule(c), end = grammar_draft_node(d);
    for (uint32_t i = 0; i < (bounded ? most : least) && grammar_compile_ok(c); i++) {
        uint16_t next = grammar_draft_node(d);
        if (i >= least)
            grammar_draft_bytes(d, at, '"', '"', end);
        grammar_draft_call(d, at, one, next);
        at = next;
    }
    if (!bounded)
        grammar_draft_call(d, at, one, at);
    grammar_draft_bytes(d, at, '"', '"', end);
    return end;
}

static uint16_t compile_type(struct grammar_compiler *c, const cJSON *schema, unsigned type, uint16_t from)
{
    struct grammar_draft *d = &c->d;
    uint16_t end;
    switch (type) {
    case GRAMMAR_NULL:
        return grammar_draft_text(d, from, STR_LIT("null"));
    case GRAMMAR_BOOLEAN:
        end = grammar_draft_node(d);
        grammar_draft_skip(d, grammar_draft_text(d, from, STR_LIT("true")), end);
        grammar_draft_skip(d, grammar_draft_text(d, from, STR_LIT("false")), end);
        return end;
    case GRAMMAR_STRING_TYPE:
        return compile_string(c, schema, from);
    case GRAMMAR_ARRAY_TYPE:
        return grammar_compile_array(c, schema, from);
    case GRAMMAR_OBJECT_TYPE:
        return grammar_compile_object(c, schema, from);
    default:
        return grammar_compile_number(c, schema, type == GRAMMAR_NUMBER_TYPE, from);
    }
}

static uint16_t compile_types(struct grammar_compiler *c, const cJSON *schema, unsigned types, uint16_t from)
{
    uint16_t end = grammar_draft_node(&c->d);
    if (types == GRAMMAR_ANY_TYPE) {
        grammar_draft_call(&c->d, from, c->basics.value, end);
        return end;
    }
    if (types & GRAMMAR_NUMBER_TYPE)
        types &= ~(unsigned)GRAMMAR_INTEGER_TYPE; /* numbers have them */
    for (unsigned t = 1; t < GRAMMAR_ANY_TYPE && grammar_compile_ok(c); t *= 2)
        if (types & t)
            grammar_draft_skip(&c->d, compile_type(c, schema, t, from), end);
    return end;
}

uint16_t grammar_compile(struct grammar_compiler *c, const cJSON *schema, unsigned types, uint16_t from)
{
    if (!grammar_compile_ok(c))
        return from;
    if (cJSON_IsTrue(schema))
        return compile_types(c, schema, types, from);
    if (!cJSON_IsObject(schema)) {
        grammar_compile_fail(c, ST_EINVAL, "", "expected an object");
        return from;
    }
    const cJSON *decides = grammar_compile_keywords(c, schema);
    unsigned own = grammar_compile_types(c, schema, decides != NULL) & types;
    if (!own)
        grammar_compile_fail(c, ST_EINVAL, "type", "no value can have it");
    if (!grammar_compile_ok(c))
        return from;
    if (!decides)
        return compile_types(c, schema, own, from);
    if (strcmp(decides->string, "$ref") == 0)
        return compile_ref(c, decides, from);
    if (strcmp(decides->string, "const") == 0 || strcmp(decides->string, "enum") == 0)
        return compile_values(c, decides, own, from);
    return compile_any_of(c, decides, own, from);
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------ */

static int compiler_init(struct grammar_compiler *c, const cJSON *root, struct err *e)
{
    *c = (struct grammar_compiler){.root = root, .char_rule = -1, .e = e};
    return grammar_draft_init(&c->d, &c->basics);
}

static int compiler_end(struct grammar_compiler *c, uint16_t start, uint16_t end,
                        const struct grammar_vocab *vocab, struct grammar **out)
{
    grammar_draft_final(&c->d, end);
    int st = c->status;
    if (!st && vocab)
        st = grammar_vocab_ready(vocab, c->e);
    if (!st)
        st = grammar_draft_end(&c->d, start, vocab, out, c->e);
    grammar_draft_fini(&c->d);
    mem_free(c->rules);
    return st;
}

int grammar_from_schema(struct grammar **out, const cJSON *schema, const struct grammar_vocab *vocab,
                        struct err *e)
{
    struct grammar_compiler c;
    compiler_init(&c, schema, e);
    uint16_t start = grammar_draft_node(&c.d), end = grammar_compile(&c, schema, GRAMMAR_ANY_TYPE, start);
    while (c.n_drawn < c.n_rules && grammar_compile_ok(&c)) {
        struct grammar_rule r = c.rules[c.n_drawn++];
        grammar_draft_final(&c.d, grammar_compile(&c, r.schema, GRAMMAR_ANY_TYPE, r.start));
    }
    return compiler_end(&c, start, end, vocab, out);
}

int grammar_from_choice(struct grammar **out, const cJSON *list, const struct grammar_vocab *vocab,
                        struct err *e)
{
    struct grammar_compiler c;
    compiler_init(&c, list, e);
    uint16_t start = grammar_draft_node(&c.d), end = grammar_draft_node(&c.d);
    uint32_t n = 0;
    if (!cJSON_IsArray(list))
        grammar_compile_fail(&c, ST_EINVAL, "", "expected an array of strings");
    else if (!list->child)
        grammar_compile_fail(&c, ST_EINVAL, "", "expected at least one string");
    for (const cJSON *v = list->child; v && grammar_compile_ok(&c); v = v->next) {
        if (!cJSON_IsString(v) || !v->valuestring[0])
            grammar_compile_fail(&c, ST_EINVAL, "", "expected strings that are not empty");
        else if (++n > GRAMMAR_CHOICES_MAX)
            grammar_compile_fail(&c, ST_EINVAL, "", "more than 4096 strings");
        else
            grammar_draft_skip(&c.d, grammar_draft_branch(&c.d, start, str_from(v->valuestring)), end);
    }
    return compiler_end(&c, start, end, vocab, out);
}

int grammar_from_guided(struct grammar **out, const cJSON *guided, const struct grammar_vocab *vocab, struct err *e)
{
    const cJSON *json = NULL, *choice = NULL;
    for (const cJSON *v = guided->child; v; v = v->next) {
        if (cJSON_IsNull(v))
            continue;
        if (strcmp(v->string ? v->string : "", "json") == 0)
            json = v;
        else if (strcmp(v->string ? v->string : "", "choice") == 0)
            choice = v;
        else if (!cJSON_IsFalse(v)) /* of options that are off */
            return err_set(e, ST_EUNSUP, "%.60s: not supported", v->string ? v->string : "?");
    }
    if (!json == !choice)
        return err_set(e, ST_EINVAL, "expected json or choice, and only one of them");
    struct err why = {0};
    int st =
        json ? grammar_from_schema(out, json, vocab, &why) : grammar_from_choice(out, choice, vocab, &why);
    return st ? err_set(e, st, "%s: %.200s", json ? "json" : "choice", why.text) : ST_OK;
}
