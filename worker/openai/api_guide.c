/* Several fields can ask for a form, and two of them could ask for different ones: the second is refused rather than ignored. */
#include "api_guide.h"

#include <string.h>

static const cJSON *present(const cJSON *obj, const char *name)
{
    const cJSON *v = json_get(obj, name);
    return cJSON_IsNull(v) ? NULL : v;
}

static int take(struct api_guide *g, enum api_guide_kind kind, const cJSON *value, const char *field,
                struct err *e)
{
    if (g->kind != API_GUIDE_NONE)
        return err_set(e, ST_EINVAL, "%s: %s is there already; only one of them can hold", field, g->field);
    g->kind = kind;
    g->value = value;
    g->field = field;
    return ST_OK;
}

/* Takes over `made`, which is NULL when there was no memory for it. */
static int take_made(struct api_guide *g, cJSON *made, const char *field, struct err *e)
{
    int st =
        made ? take(g, API_GUIDE_SCHEMA, made, field, e) : err_set(e, ST_ENOMEM, "%s: out of memory", field);
    if (st)
        json_free(made);
    else
        g->made = made;
    return st;
}

static cJSON *any_object(void)
{
    cJSON *o = cJSON_CreateObject();
    if (o && !cJSON_AddStringToObject(o, "type", "object")) {
        cJSON_Delete(o);
        return NULL;
    }
    return o;
}

static int parse_format(struct api_guide *g, const cJSON *format, struct err *e)
{
    const cJSON *type = json_get(format, "type"), *named = json_get(format, "json_schema");
    if (!cJSON_IsObject(format))
        return err_set(e, ST_EINVAL, "response_format: expected an object");
    if (!cJSON_IsString(type))
        return err_set(e, ST_EINVAL, "response_format.type: expected a string");
    if (strcmp(type->valuestring, "text") == 0)
        return ST_OK;
    if (strcmp(type->valuestring, "json_object") == 0)
        return take_made(g, any_object(), "response_format", e);
    if (strcmp(type->valuestring, "json_schema") != 0)
        return err_set(e, ST_EUNSUP,
                       "response_format.type: only text, json_object and json_schema are supported");
    if (!cJSON_IsObject(named))
        return err_set(e, ST_EINVAL, "response_format.json_schema: expected an object with a schema");
    const cJSON *schema = present(named, "schema");
    if (!schema) /* the name alone asks for an object, whatever is in it */
        return take_made(g, any_object(), "response_format.json_schema", e);
    return take(g, API_GUIDE_SCHEMA, schema, "response_format.json_schema.schema", e);
}

static int parse_json(struct api_guide *g, const cJSON *v, const char *field, struct err *e)
{
    cJSON *schema = NULL;
    if (!cJSON_IsString(v))
        return take(g, API_GUIDE_SCHEMA, v, field, e);
    int st = json_parse(&schema, str_from(v->valuestring), NULL);
    if (st)
        return err_set(e, st == ST_ENOMEM ? st : ST_EINVAL, "%s: expected a JSON schema", field);
    return take_made(g, schema, field, e);
}

static int parse_guided(struct api_guide *g, const cJSON *o, const char *const names[4], struct err *e)
{
    int st = ST_OK;
    const cJSON *v = present(o, "guided_json");
    if (v)
        st = parse_json(g, v, names[0], e);
    if (!st && (v = present(o, "guided_choice")))
        st = take(g, API_GUIDE_CHOICE, v, names[1], e);
    if (!st && present(o, "guided_regex"))
        st = err_set(e, ST_EUNSUP, "%s: not supported", names[2]);
    if (!st && present(o, "guided_grammar"))
        st = err_set(e, ST_EUNSUP, "%s: not supported", names[3]);
    return st;
}

/* ---- tools ---------------------------------------------------------------------------------------------------------------- */

static bool add(cJSON *object, const char *name, cJSON *value)
{
    if (value && cJSON_AddItemToObject(object, name, value))
        return true;
    cJSON_Delete(value);
    return false;
}

/* {"properties": {"name": {"enum": [name]}, "parameters": ...}, "required": ["name", "parameters"]} */
static cJSON *call_schema(const cJSON *function)
{
    static const char *const both[] = {"name", "parameters"};
    const char *name = json_get(function, "name")->valuestring;
    const cJSON *given = present(function, "parameters");
    cJSON *o = cJSON_CreateObject(), *named = cJSON_CreateObject();
    bool ok = o && named && add(named, "enum", cJSON_CreateStringArray(&name, 1));
    cJSON *members = ok ? cJSON_AddObjectToObject(o, "properties") : NULL;
    ok = members && add(members, "name", named);
    if (ok)
        named = NULL; /* given away */
    ok = ok &&
         add(members, "parameters", given && given->child ? cJSON_Duplicate(given, true) : any_object()) &&
         add(o, "required", cJSON_CreateStringArray(both, 2));
    if (!members)
        cJSON_Delete(named);
    if (ok)
        return o;
    cJSON_Delete(o);
    return NULL;
}

/* References inside of a tool's parameters are from their root, which is no longer the root. */
static bool has_ref(const cJSON *schema)
{
    for (const cJSON *v = schema->child; v; v = v->next)
        if ((v->string && strcmp(v->string, "$ref") == 0) || has_ref(v))
            return true;
    return false;
}

static int calls_schema(struct api_guide *g, const cJSON *tools, const char *only, bool one, struct err *e)
{
    cJSON *list = cJSON_CreateObject(), *items = NULL, *any = NULL;
    bool ok = list && cJSON_AddStringToObject(list, "type", "array") &&
              cJSON_AddNumberToObject(list, "minItems", 1) &&
              (!one || cJSON_AddNumberToObject(list, "maxItems", 1)) &&
              (items = cJSON_AddObjectToObject(list, "items")) &&
              cJSON_AddStringToObject(items, "type", "object") &&
              (any = cJSON_AddArrayToObject(items, "anyOf"));
    int st = ok ? ST_OK : err_set(e, ST_ENOMEM, "tool_choice: out of memory"), n = 0;
    for (const cJSON *t = tools->child; t && !st; t = t->next) {
        const cJSON *function = json_get(t, "function"), *parameters = json_get(function, "parameters");
        if (only && strcmp(json_get(function, "name")->valuestring, only) != 0)
            continue;
        cJSON *schema = call_schema(function);
        if (parameters && has_ref(parameters))
            st = err_set(e, ST_EUNSUP,
                         "tools: $ref in the parameters of %.60s is not supported beside tool_choice",
                         json_get(function, "name")->valuestring);
        else if (!schema || !cJSON_AddItemToArray(any, schema))
            st = err_set(e, ST_ENOMEM, "tool_choice: out of memory");
        if (st)
            cJSON_Delete(schema);
        n++;
    }
    if (!st && n == 0)
        st = err_set(e, ST_EINVAL, "tool_choice: no tool of that name");
    if (st) {
        json_free(list);
        return st;
    }
    g->calls = true;
    return take_made(g, list, "tools", e);
}

static int parse_tool_choice(struct api_guide *g, const cJSON *request, const cJSON *tools, struct err *e)
{
    const cJSON *choice = present(request, "tool_choice"),
                *parallel = json_get(request, "parallel_tool_calls");
    const char *only = NULL;
    if (!choice)
        return ST_OK;
    if (cJSON_IsString(choice)) {
        if (strcmp(choice->valuestring, "auto") == 0 || strcmp(choice->valuestring, "none") == 0)
            return ST_OK;
        if (strcmp(choice->valuestring, "required") != 0)
            return err_set(e, ST_EINVAL, "tool_choice: expected auto, none, required or a function");
    } else {
        const cJSON *name = json_get(json_get(choice, "function"), "name");
        if (!cJSON_IsObject(choice) || !cJSON_IsString(name))
            return err_set(e, ST_EINVAL, "tool_choice: expected a string, or an object with function.name");
        only = name->valuestring;
    }
    if (!tools || !tools->child)
        return err_set(e, ST_EINVAL, "tool_choice: there are no tools");
    return calls_schema(g, tools, only, only || cJSON_IsFalse(parallel), e);
}

int api_guide_parse(struct api_guide *g, const cJSON *request, const cJSON *tools, struct err *e)
{
    static const char *const top[] = {"guided_json", "guided_choice", "guided_regex", "guided_grammar"};
    static const char *const inner[] = {"nvext.guided_json", "nvext.guided_choice", "nvext.guided_regex",
                                        "nvext.guided_grammar"};
    const cJSON *format = present(request, "response_format");
    int st = format ? parse_format(g, format, e) : ST_OK;
    if (!st)
        st = parse_guided(g, request, top, e);
    if (!st)
        st = parse_guided(g, json_get(request, "nvext"), inner, e);
    return st ? st : parse_tool_choice(g, request, tools, e);
}

void api_guide_fini(struct api_guide *g)
{
    json_free(g->made);
    *g = (struct api_guide){0};
}
