/* JSON arguments are handed on as the model wrote them: printed anew from a tree of doubles, an id of 18 digits would be another
 * id. XML parameters have no types: the tool's schema says which values are text, and where it does not, only what cannot be
 * meant as text is JSON. */
#define _GNU_SOURCE
#include "answer_call.h"

#include "answer_json.h"

#include <string.h>

const cJSON *answer_call_find(const cJSON *tools, struct str name)
{
    for (const cJSON *t = tools ? tools->child : NULL; t; t = t->next) {
        const cJSON *function = json_get(t, "function"), *named = json_get(function, "name");
        if (cJSON_IsString(named) && str_eqz(name, named->valuestring))
            return function;
    }
    return NULL;
}

/* `quoted` is a JSON string with its quotes. */
static const cJSON *find_quoted(const cJSON *tools, struct str quoted)
{
    cJSON *name = NULL;
    if (json_parse(&name, quoted, NULL))
        return NULL;
    const cJSON *found = cJSON_IsString(name) ? answer_call_find(tools, str_from(name->valuestring)) : NULL;
    json_free(name);
    return found;
}

const cJSON *answer_call_object(const cJSON *tools, struct str object, struct str *arguments)
{
    const cJSON *function = NULL;
    struct str key, value;
    *arguments = (struct str){0};
    for (size_t at = 0; answer_json_member(object, &at, &key, &value);) {
        if (str_eqz(key, "name"))
            function = find_quoted(tools, value);
        else if (str_eqz(key, "arguments") || str_eqz(key, "parameters"))
            *arguments = value;
    }
    return arguments->n && arguments->p[0] == '{' ? function : NULL;
}

/* ---- parameters -------------------------------------------------------------------------------------------------- */

enum { AS_TEXT = 1, AS_NULL = 2, AS_JSON = 4 };

/* What the schema lets a value be; 0: it does not say. */
static unsigned kinds(const cJSON *schema)
{
    static const char *const unions[] = {"anyOf", "oneOf"};
    const cJSON *type = json_get(schema, "type");
    unsigned found = 0;
    for (const cJSON *t = cJSON_IsArray(type) ? type->child : type; t; t = t == type ? NULL : t->next)
        if (cJSON_IsString(t))
            found |= strcmp(t->valuestring, "string") == 0 ? AS_TEXT
                     : strcmp(t->valuestring, "null") == 0 ? AS_NULL
                                                           : AS_JSON;
    for (size_t i = 0; i < sizeof unions / sizeof *unions; i++) {
        const cJSON *list = json_get(schema, unions[i]);
        for (const cJSON *s = cJSON_IsArray(list) ? list->child : NULL; s; s = s->next)
            found |= kinds(s);
    }
    return found;
}

static struct str trimmed(struct str s)
{
    while (s.n && answer_json_space(s.p[0]))
        s = (struct str){s.p + 1, s.n - 1};
    while (s.n && answer_json_space(s.p[s.n - 1]))
        s.n--;
    return s;
}

/* Templates print Python's words where they print a value that is no string. */
static const char *json_word(struct str s)
{
    return str_eqz(s, "None") || str_eqz(s, "null") ? "null"
           : str_eqz(s, "True")                     ? "true"
           : str_eqz(s, "False")                    ? "false"
                                                    : NULL;
}

static void put_value(struct buf *out, const cJSON *schema, struct str value)
{
    unsigned kind = kinds(schema);
    struct str bare = trimmed(value);
    const char *word = json_word(bare);
    bool null = word && word[0] == 'n', nested = bare.n && (bare.p[0] == '{' || bare.p[0] == '[');
    if (kind & AS_TEXT ? null && kind & AS_NULL : word && kind)
        buf_puts(out, word);
    else if (!(kind & AS_TEXT) && (kind || nested) && answer_json_whole(bare))
        answer_json_copy(bare, out);
    else
        buf_put_json(out, value);
}

static bool take(struct str *s, const char *mark)
{
    size_t n = strlen(mark);
    if (s->n < n || memcmp(s->p, mark, n) != 0)
        return false;
    *s = (struct str){s->p + n, s->n - n};
    return true;
}

static size_t find(struct str s, const char *mark)
{
    const char *p = s.n ? memmem(s.p, s.n, mark, strlen(mark)) : NULL;
    return p ? (size_t)(p - s.p) : s.n;
}

/* What stands before the closing mark; models that forget it go on with the next parameter. One line feed at each end belongs
 * to the marks. */
static struct str take_value(struct str *s)
{
    size_t next = find(*s, "<parameter="), n = find((struct str){s->p, next}, "</parameter>");
    struct str value = {s->p, n};
    *s = (struct str){s->p + n, s->n - n};
    take(s, "</parameter>");
    take(&value, "\n");
    if (value.n && value.p[value.n - 1] == '\n')
        value.n--;
    return value;
}

bool answer_call_parameters(const cJSON *function, struct str body, struct buf *arguments)
{
    const cJSON *properties = json_get(json_get(function, "parameters"), "properties");
    char name[256];
    buf_putc(arguments, '{');
    for (bool first = true; (body = trimmed(body)).n; first = false) {
        if (!take(&body, "<parameter="))
            return false;
        size_t n = find(body, ">");
        if (n == body.n || n >= sizeof name)
            return false;
        memcpy(name, body.p, n);
        name[n] = 0;
        body = (struct str){body.p + n + 1, body.n - n - 1};
        if (!first)
            buf_putc(arguments, ',');
        buf_put_json(arguments, str_from(name));
        buf_putc(arguments, ':');
        put_value(arguments, json_get(properties, name), take_value(&body));
    }
    buf_putc(arguments, '}');
    return true;
}
