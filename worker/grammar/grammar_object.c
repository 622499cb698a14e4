/* An object is a row of places, one per property in the order of the schema: at each the member is written, or skipped if it may
 * be. Whether a comma comes first is told by the node: `may[i]` is reached from the brace or from a comma and must write a
 * member that is at place i or behind; behind a member stand a comma or, if nothing that must come is left, the brace.
 *
 * Members beyond the named ones must not repeat a name: of two equal names parsers keep either. So their names are drawn
 * as the complement of the tree of names, and have no escapes, in which a name could hide. */
#include "grammar_compile.h"

#include "mem.h"

#include <stdio.h>
#include <string.h>

enum { MEMBERS_MAX = 1024 };

struct member {
    const char *name;
    const cJSON *schema; /* NULL: any value */
    bool required;
    bool shared; /* the schema is that of others as well: drawn once and called */
};

struct object {
    struct member *members; /* [n] */
    uint32_t n;
    const cJSON *extra; /* additionalProperties */
    bool open;          /* others may follow */
};

static struct member *find(struct grammar_compiler *c, const struct object *o, const char *name)
{
    for (uint32_t i = 0; i < o->n && grammar_draft_spend(&c->d, 1); i++)
        if (strcmp(o->members[i].name, name) == 0)
            return &o->members[i];
    return NULL;
}

static struct member *add_member(struct grammar_compiler *c, struct object *o, const char *name,
                                 const cJSON *schema)
{
    if (o->n == MEMBERS_MAX) {
        grammar_compile_fail(c, ST_EINVAL, "properties", "more than 1024");
        return NULL;
    }
    o->members[o->n] = (struct member){.name = name, .schema = schema};
    return &o->members[o->n++];
}

static void read_required(struct grammar_compiler *c, struct object *o, const cJSON *required)
{
    if (required && !cJSON_IsArray(required))
        grammar_compile_fail(c, ST_EINVAL, "required", "expected an array of names");
    for (const cJSON *v = required ? required->child : NULL; v && grammar_compile_ok(c); v = v->next) {
        if (!cJSON_IsString(v)) {
            grammar_compile_fail(c, ST_EINVAL, "required", "expected an array of names");
            return;
        }
        struct member *m = find(c, o, v->valuestring);
        if (!m && !o->open && o->extra)
            grammar_compile_fail(c, ST_EINVAL, "required",
                                 "names a member that additionalProperties forbids");
        if (!m)
            m = add_member(c, o, v->valuestring, cJSON_IsTrue(o->extra) ? NULL : o->extra);
        if (!m)
            return;
        m->shared |= m->schema && m->schema == o->extra;
        m->required = true;
    }
}

static void read_object(struct grammar_compiler *c, struct object *o, const cJSON *schema)
{
    const cJSON *properties = json_get(schema, "properties");
    o->extra = json_get(schema, "additionalProperties");
    o->open = o->extra ? !cJSON_IsFalse(o->extra) : !properties;
    if (properties && !cJSON_IsObject(properties))
        grammar_compile_fail(c, ST_EINVAL, "properties", "expected an object");
    for (const cJSON *v = properties ? properties->child : NULL; v && grammar_compile_ok(c); v = v->next)
        add_member(c, o, v->string, v);
    read_required(c, o, json_get(schema, "required"));
}

/* ---- names beyond the named ones ------------------------------------------------------------------------------------------ */

/* A name that needs escapes cannot be met by one without. */
static bool is_plain(const char *name)
{
    for (; *name; name++)
        if ((unsigned char)*name < ' ' || *name == '"' || *name == '\\')
            return false;
    return true;
}

/* Where the tree stands at one character, any that no name goes on with there leads out of it; so does the end, if no name is
 * through there. */
static void leave_tree(struct grammar_draft *d, uint16_t at, bool is_name, uint16_t body, uint16_t end)
{
    if (grammar_draft_has(d, at, 0x7F) && grammar_draft_has(d, at, ' '))
        return; /* done with an earlier name */
    if (!is_name)
        grammar_draft_bytes(d, at, '"', '"', end);
    grammar_draft_plain(d, at, body);
}

/* Behind the quote that opens it, up to the one that closes it. */
static uint16_t other_name(struct grammar_compiler *c, const struct object *o, uint16_t root)
{
    struct grammar_draft *d = &c->d;
    uint16_t body = grammar_draft_node(d), end = grammar_draft_node(d);
    bool *is_name = mem_zalloc(GRAMMAR_NODES_MAX, sizeof *is_name);
    if (!is_name)
        grammar_compile_fail(c, ST_ENOMEM, "additionalProperties", "out of memory");
    for (uint32_t i = 0; i < o->n && is_name; i++)
        if (is_plain(o->members[i].name))
            is_name[grammar_draft_branch(d, root, str_from(o->members[i].name))] = true;
    for (uint32_t i = 0; i < o->n && is_name; i++) {
        const char *p = is_plain(o->members[i].name) ? o->members[i].name : "";
        uint16_t at = root;
        for (; *p && !d->status; at = grammar_draft_branch(d, at, (struct str){p++, 1}))
            if (((unsigned char)*p & 0xC0) != 0x80) /* not inside of a character */
                leave_tree(d, at, is_name[at], body, end);
        leave_tree(d, at, is_name[at], body, end);
    }
    if (o->n == 0)
        leave_tree(d, root, false, body, end);
    mem_free(is_name);
    grammar_draft_plain(d, body, body);
    grammar_draft_bytes(d, body, '"', '"', end);
    return end;
}

/* ---- members -------------------------------------------------------------------------------------------------------------- */

static uint16_t value(struct grammar_compiler *c, const cJSON *schema, const char *name, uint16_t from)
{
    uint16_t at = grammar_draft_colon(&c->d, from), end;
    if (!schema) {
        end = grammar_draft_node(&c->d);
        grammar_draft_call(&c->d, at, c->basics.value, end);
        return end;
    }
    size_t length = grammar_compile_enter(c, name ? "properties" : "additionalProperties", name);
    end = grammar_compile(c, schema, GRAMMAR_ANY_TYPE, at);
    grammar_compile_leave(c, length);
    return end;
}

static uint16_t member(struct grammar_compiler *c, const struct member *m, uint16_t from)
{
    struct buf quoted = {0};
    buf_put_json(&quoted, str_from(m->name));
    if (quoted.failed)
        grammar_compile_fail(c, ST_ENOMEM, "properties", "out of memory");
    uint16_t at = grammar_draft_text(&c->d, from, buf_str(&quoted));
    buf_fini(&quoted);
    if (!m->shared)
        return value(c, m->schema, m->name, at);
    uint16_t colon = grammar_draft_colon(&c->d, at), end = grammar_draft_node(&c->d);
    grammar_draft_call(&c->d, colon, grammar_compile_rule(c, m->schema), end);
    return end;
}

static uint16_t members(struct grammar_compiler *c, const struct object *o, uint16_t from)
{
    struct grammar_draft *d = &c->d;
    uint16_t open = grammar_draft_byte(d, from, '{'), may = open, close = grammar_draft_node(d);
    uint32_t must = 0; /* places below are needed or followed by a needed one */
    for (uint32_t i = 0; i < o->n; i++)
        if (o->members[i].required)
            must = i + 1;
    if (must == 0)
        grammar_draft_bytes(d, open, '}', '}', close);
    for (uint32_t i = 0; i < o->n && grammar_compile_ok(c); i++) {
        uint16_t key = grammar_draft_node(d);
        grammar_draft_skip(d, may, key);
        uint16_t behind = member(c, &o->members[i], key), next = grammar_draft_node(d);
        if (i + 1 < o->n || o->open)
            grammar_draft_skip(d, grammar_draft_comma(d, behind), next);
        if (i + 1 >= must)
            grammar_draft_bytes(d, behind, '}', '}', close);
        if (!o->members[i].required)
            grammar_draft_skip(d, may, next);
        may = next;
    }
    if (o->open && grammar_compile_ok(c)) {
        uint16_t key = grammar_draft_node(d);
        grammar_draft_skip(d, may, key);
        uint16_t behind = value(c, o->extra, NULL, other_name(c, o, grammar_draft_byte(d, key, '"')));
        grammar_draft_skip(d, grammar_draft_comma(d, behind), key);
        grammar_draft_bytes(d, behind, '}', '}', close);
    }
    return close;
}

uint16_t grammar_compile_object(struct grammar_compiler *c, const cJSON *schema, uint16_t from)
{
    struct object o = {.members = mem_zalloc(MEMBERS_MAX, sizeof *o.members)};
    uint16_t end = from;
    if (!o.members)
        grammar_compile_fail(c, ST_ENOMEM, "properties", "out of memory");
    else
        read_object(c, &o, schema);
    if (grammar_compile_ok(c) && o.n == 0 && o.open && (!o.extra || cJSON_IsTrue(o.extra))) {
        end = grammar_draft_node(&c->d);
        grammar_draft_call(&c->d, from, c->basics.object, end);
    } else if (grammar_compile_ok(c)) {
        end = members(c, &o, from);
    }
    mem_free(o.members);
    return end;
}

/* ---- arrays --------------------------------------------------------------------------------------------------------------- */

struct items {
    const cJSON *prefix, *rest; /* prefix: the first child; rest: NULL = any value */
    uint32_t least, most;       /* most: UINT32_MAX = any number */
};

static void read_array(struct grammar_compiler *c, struct items *a, const cJSON *schema)
{
    const cJSON *prefix = json_get(schema, "prefixItems");
    uint32_t n_prefix = 0;
    a->rest = json_get(schema, "items");
    a->most = UINT32_MAX;
    if (prefix && !cJSON_IsArray(prefix))
        grammar_compile_fail(c, ST_EINVAL, "prefixItems", "expected an array of schemas");
    if (cJSON_IsArray(a->rest))
        grammar_compile_fail(c, ST_EUNSUP, "items", "an array of schemas is not supported; use prefixItems");
    a->prefix = prefix ? prefix->child : NULL;
    for (const cJSON *v = a->prefix; v; v = v->next)
        n_prefix++;
    grammar_compile_count(c, schema, "minItems", &a->least);
    grammar_compile_count(c, schema, "maxItems", &a->most);
    if (cJSON_IsFalse(a->rest) && a->most > n_prefix)
        a->most = n_prefix;
    if (a->least > a->most)
        grammar_compile_fail(c, ST_EINVAL, "minItems", "more than the array may have");
}

/* The next item. `many`: its schema is drawn once and called, however often it is needed. */
static uint16_t item(struct grammar_compiler *c, const struct items *a, const cJSON *prefix, bool many,
                     uint16_t from)
{
    const cJSON *schema = prefix ? prefix : a->rest;
    if (schema && (prefix || !many)) {
        size_t length = grammar_compile_enter(c, prefix ? "prefixItems" : "items", NULL);
        uint16_t end = grammar_compile(c, schema, GRAMMAR_ANY_TYPE, from);
        grammar_compile_leave(c, length);
        return end;
    }
    uint16_t end = grammar_draft_node(&c->d);
    grammar_draft_call(&c->d, from, schema ? grammar_compile_rule(c, schema) : c->basics.value, end);
    return end;
}

uint16_t grammar_compile_array(struct grammar_compiler *c, const cJSON *schema, uint16_t from)
{
    struct grammar_draft *d = &c->d;
    struct items a = {0};
    read_array(c, &a, schema);
    uint16_t open = grammar_draft_byte(d, from, '['), close = grammar_draft_node(d),
             at = grammar_draft_node(d);
    bool endless = a.most == UINT32_MAX, many = a.least > 1 || !endless;
    grammar_draft_skip(d, open, at);
    if (a.least == 0)
        grammar_draft_bytes(d, open, ']', ']', close);
    const cJSON *prefix = a.prefix;
    for (uint32_t i = 0; i < a.most && grammar_compile_ok(c); i++) {
        bool last = endless && !prefix && i + 1 >= a.least; /* all that follow are like this one */
        uint16_t behind = item(c, &a, prefix, many, at);
        if (i + 1 >= a.least)
            grammar_draft_bytes(d, behind, ']', ']', close);
        if (last || i + 1 < a.most) {
            uint16_t next = last ? at : grammar_draft_node(d);
            grammar_draft_skip(d, grammar_draft_comma(d, behind), next);
            at = next;
        }
        prefix = prefix ? prefix->next : NULL;
        if (last)
            break;
    }
    return close;
}
