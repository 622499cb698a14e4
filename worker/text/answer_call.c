/* Arguments are handed on as the model wrote them: printed anew from a tree of doubles, an id of 18 digits would be another id.
 * The tools are the client's, as long as it likes: they are looked at once a call, however often the call gives its name. */
#include "answer_call.h"

#include "answer_json.h"

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
    struct str key, value, name = {0};
    *arguments = (struct str){0};
    for (size_t at = 0; answer_json_member(object, &at, &key, &value);) {
        if (str_eqz(key, "name"))
            name = value;
        else if (str_eqz(key, "arguments") || str_eqz(key, "parameters"))
            *arguments = value;
    }
    return arguments->n && arguments->p[0] == '{' ? find_quoted(tools, name) : NULL;
}
