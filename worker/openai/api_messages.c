/* Templates are programs that trust their input: a number where they expect a string raises deep inside, with a line number
 * of a file that the client never saw. So every message is checked here, where the field can be named, and brought to the
 * one form that templates of text models are written for. Multi-part content is joined rather than handed on: most
 * templates concatenate `content` with strings. */
#include "api_messages.h"

#include "api_limits.h"
#include "buf.h"

#include <stdio.h>
#include <string.h>

static int check_name(const cJSON *obj, const char *field, const char *where, struct err *e)
{
    const cJSON *v = json_get(obj, field);
    if (!v || cJSON_IsNull(v))
        return ST_OK;
    if (!cJSON_IsString(v))
        return err_set(e, ST_EINVAL, "%s.%s: expected a string", where, field);
    if (strlen(v->valuestring) > API_NAME_BYTES_MAX)
        return err_set(e, ST_EINVAL, "%s.%s: longer than %d bytes", where, field, API_NAME_BYTES_MAX);
    return ST_OK;
}

static int need_string(const cJSON *obj, const char *field, const char *where, const char **out,
                       struct err *e)
{
    const cJSON *v = json_get(obj, field);
    if (!v)
        return err_set(e, ST_EINVAL, "%s.%s: missing", where, field);
    if (!cJSON_IsString(v))
        return err_set(e, ST_EINVAL, "%s.%s: expected a string", where, field);
    *out = v->valuestring;
    return ST_OK;
}

/* Appends the text of one content part. */
static int join_part(const cJSON *part, int message, int index, struct buf *text, struct err *e)
{
    char where[64];
    snprintf(where, sizeof where, "messages[%d].content[%d]", message, index);
    if (!cJSON_IsObject(part))
        return err_set(e, ST_EINVAL, "%s: expected an object with type and text", where);
    const char *type = NULL, *value = NULL;
    int st = need_string(part, "type", where, &type, e);
    if (st)
        return st;
    if (strcmp(type, "text") != 0)
        return err_set(e, ST_EUNSUP, "%s.type: only \"text\" parts are supported", where);
    st = need_string(part, "text", where, &value, e);
    if (st)
        return st;
    if (index)
        buf_putc(text, '\n');
    buf_puts(text, value);
    return ST_OK;
}

static int set_content(cJSON *message, const char *text, int at, struct err *e)
{
    cJSON *content = cJSON_CreateString(text);
    bool set = content && (json_get(message, "content")
                               ? cJSON_ReplaceItemInObjectCaseSensitive(message, "content", content)
                               : cJSON_AddItemToObject(message, "content", content));
    if (set)
        return ST_OK;
    cJSON_Delete(content);
    return err_set(e, ST_ENOMEM, "messages[%d].content: out of memory", at);
}

static int join_parts(cJSON *message, const cJSON *parts, int at, struct err *e)
{
    if (!parts->child)
        return err_set(e, ST_EINVAL, "messages[%d].content: the array is empty", at);
    struct buf text = {0};
    int st = ST_OK, i = 0;
    for (const cJSON *p = parts->child; p && !st; p = p->next, i++)
        st = i == API_PARTS_MAX
                 ? err_set(e, ST_EINVAL, "messages[%d].content: more than %d parts", at, API_PARTS_MAX)
                 : join_part(p, at, i, &text, e);
    if (!st && text.failed)
        st = err_set(e, text.failed, "messages[%d].content: %s", at, status_text(text.failed));
    if (!st)
        st = set_content(message, text.p ? text.p : "", at, e);
    buf_fini(&text);
    return st;
}

bool api_has_nul(struct str json)
{
    for (size_t i = 0; i + 1 < json.n; i++) {
        if (json.p[i] != '\\')
            continue;
        if (json.n - i >= 6 && memcmp(json.p + i, "\\u0000", 6) == 0)
            return true;
        i++; /* the escaped character */
    }
    return false;
}

/* `arguments` is a string of JSON on the wire, an object in templates. */
static int open_arguments(cJSON *function, const char *where, struct err *e)
{
    const cJSON *args = json_get(function, "arguments");
    if (!args || cJSON_IsNull(args) || cJSON_IsObject(args))
        return ST_OK;
    if (!cJSON_IsString(args))
        return err_set(e, ST_EINVAL, "%s.function.arguments: expected a string of JSON", where);
    cJSON *value = NULL;
    if (args->valuestring[0] == 0)
        value = cJSON_CreateObject();
    else if (api_has_nul(str_from(args->valuestring)) ||
             json_parse(&value, str_from(args->valuestring), NULL) || !cJSON_IsObject(value)) {
        json_free(value);
        return err_set(e, ST_EINVAL, "%s.function.arguments: expected the JSON text of an object", where);
    }
    if (!value || !cJSON_ReplaceItemInObjectCaseSensitive(function, "arguments", value)) {
        json_free(value);
        return err_set(e, ST_ENOMEM, "%s.function.arguments: out of memory", where);
    }
    return ST_OK;
}

static int check_tool_calls(const cJSON *calls, int message, struct err *e)
{
    if (!cJSON_IsArray(calls))
        return err_set(e, ST_EINVAL, "messages[%d].tool_calls: expected an array", message);
    int i = 0;
    for (cJSON *c = calls->child; c; c = c->next, i++) {
        char where[64];
        snprintf(where, sizeof where, "messages[%d].tool_calls[%d]", message, i);
        if (i == API_TOOLS_MAX)
            return err_set(e, ST_EINVAL, "messages[%d].tool_calls: more than %d entries", message,
                           API_TOOLS_MAX);
        if (!cJSON_IsObject(c))
            return err_set(e, ST_EINVAL, "%s: expected an object", where);
        cJSON *function = cJSON_GetObjectItemCaseSensitive(c, "function");
        if (!cJSON_IsObject(function))
            return err_set(e, ST_EINVAL, "%s.function: expected an object", where);
        if (!cJSON_IsString(json_get(function, "name")))
            return err_set(e, ST_EINVAL, "%s.function.name: expected a string", where);
        int st = check_name(c, "id", where, e);
        if (!st)
            st = check_name(c, "type", where, e);
        if (!st)
            st = check_name(function, "name", where, e);
        if (!st)
            st = open_arguments(function, where, e);
        if (st)
            return st;
    }
    return ST_OK;
}

static int check_role(cJSON *message, const char *where, bool knows_developer, const char **role_out,
                      struct err *e)
{
    static const char *const roles[] = {"system", "developer", "user", "assistant", "tool"};
    const char *role = NULL;
    int st = need_string(message, "role", where, &role, e);
    if (st)
        return st;
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++) {
        if (strcmp(role, roles[i]) != 0)
            continue;
        *role_out = roles[i];
        if (i != 1 || knows_developer)
            return ST_OK;
        *role_out = roles[0];
        cJSON *renamed = cJSON_CreateString(roles[0]);
        if (renamed && cJSON_ReplaceItemInObjectCaseSensitive(message, "role", renamed))
            return ST_OK;
        cJSON_Delete(renamed);
        return err_set(e, ST_ENOMEM, "%s.role: out of memory", where);
    }
    return err_set(e, ST_EINVAL, "%s.role: unknown role; expected system, developer, user, assistant or tool",
                   where);
}

static int check_message(cJSON *m, int at, const struct api_template *knows, struct err *e)
{
    char where[48];
    snprintf(where, sizeof where, "messages[%d]", at);
    if (!cJSON_IsObject(m))
        return err_set(e, ST_EINVAL, "%s: expected an object with role and content", where);
    const char *role = NULL;
    int st = check_role(m, where, knows->developer, &role, e);
    if (!st)
        st = check_name(m, "name", where, e);
    if (!st)
        st = check_name(m, "tool_call_id", where, e);
    if (st)
        return st;

    const cJSON *calls = json_get(m, "tool_calls");
    bool assistant = strcmp(role, "assistant") == 0;
    if (calls && !cJSON_IsNull(calls)) {
        if (!assistant)
            return err_set(e, ST_EINVAL, "%s.tool_calls: only an assistant message may have them", where);
        st = check_tool_calls(calls, at, e);
        if (st)
            return st;
    }
    const cJSON *content = json_get(m, "content");
    if (cJSON_IsString(content))
        return ST_OK;
    if (cJSON_IsArray(content))
        return join_parts(m, content, at, e);
    if (content && !cJSON_IsNull(content))
        return err_set(e, ST_EINVAL, "%s.content: expected a string or an array of text parts", where);
    if (assistant && cJSON_IsArray(calls) && calls->child)
        return knows->tool_calls ? ST_OK : set_content(m, "", at, e);
    return content ? err_set(e, ST_EINVAL, "%s.content: may be null only beside tool_calls", where)
                   : err_set(e, ST_EINVAL, "%s.content: missing", where);
}

int api_messages_check(cJSON *messages, const struct api_template *knows, struct err *e)
{
    if (!messages)
        return err_set(e, ST_EINVAL, "messages: missing");
    if (!cJSON_IsArray(messages))
        return err_set(e, ST_EINVAL, "messages: expected an array");
    if (!messages->child)
        return err_set(e, ST_EINVAL, "messages: the array is empty");
    int i = 0;
    for (cJSON *m = messages->child; m; m = m->next, i++) {
        if (i == API_MESSAGES_MAX)
            return err_set(e, ST_EINVAL, "messages: more than %d entries", API_MESSAGES_MAX);
        int st = check_message(m, i, knows, e);
        if (st)
            return st;
    }
    return ST_OK;
}

int api_tools_check(const cJSON *tools, struct err *e)
{
    if (!cJSON_IsArray(tools))
        return err_set(e, ST_EINVAL, "tools: expected an array");
    int i = 0;
    for (const cJSON *t = tools->child; t; t = t->next, i++) {
        char where[48];
        const char *type = NULL;
        snprintf(where, sizeof where, "tools[%d]", i);
        if (i == API_TOOLS_MAX)
            return err_set(e, ST_EINVAL, "tools: more than %d entries", API_TOOLS_MAX);
        if (!cJSON_IsObject(t))
            return err_set(e, ST_EINVAL, "%s: expected an object", where);
        int st = need_string(t, "type", where, &type, e);
        if (st)
            return st;
        if (strcmp(type, "function") != 0)
            return err_set(e, ST_EUNSUP, "%s.type: only \"function\" is supported", where);
        const cJSON *function = json_get(t, "function");
        if (!cJSON_IsObject(function))
            return err_set(e, ST_EINVAL, "%s.function: expected an object", where);
        if (!cJSON_IsString(json_get(function, "name")))
            return err_set(e, ST_EINVAL, "%s.function.name: expected a string", where);
        const cJSON *parameters = json_get(function, "parameters");
        if (parameters && !cJSON_IsNull(parameters) && !cJSON_IsObject(parameters))
            return err_set(e, ST_EINVAL, "%s.function.parameters: expected an object", where);
    }
    return ST_OK;
}
