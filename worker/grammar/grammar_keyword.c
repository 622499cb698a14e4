/* Which keywords a schema has decides how it is drawn, and whether it can be: one that constrains and is not built must be
 * refused, or answers would pass that the schema forbids; one that only describes is passed over. */
#include "grammar_compile.h"

#include <string.h>

static bool listed(const char *name, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(name, list[i]) == 0)
            return true;
    return false;
}
#define LISTED(name, list) listed(name, list, sizeof list / sizeof *list)

/* Constraints: `alone` decides about a value by itself, so that others beside it would have to be joined with it. */
static const char *const alone[] = {"$ref", "const", "enum", "anyOf", "oneOf", "allOf"};
static const char *const others[] = {"properties",      "required",    "additionalProperties",
                                     "items",           "prefixItems", "minItems",
                                     "maxItems",        "minLength",   "maxLength",
                                     "minimum",         "maximum",     "exclusiveMinimum",
                                     "exclusiveMaximum"};
static const char *const unbuilt[] = {"not",
                                      "if",
                                      "then",
                                      "else",
                                      "pattern",
                                      "multipleOf",
                                      "contains",
                                      "minContains",
                                      "maxContains",
                                      "uniqueItems",
                                      "minProperties",
                                      "maxProperties",
                                      "propertyNames",
                                      "patternProperties",
                                      "dependentRequired",
                                      "dependentSchemas",
                                      "dependencies",
                                      "unevaluatedItems",
                                      "unevaluatedProperties",
                                      "$dynamicRef",
                                      "$recursiveRef",
                                      "additionalItems"};

/* Says nothing: {"uniqueItems": false}, {"minProperties": 0}. */
static bool is_void(const cJSON *v)
{
    return cJSON_IsFalse(v)
               ? strcmp(v->string, "uniqueItems") == 0
               : strcmp(v->string, "minProperties") == 0 && cJSON_IsNumber(v) && v->valuedouble == 0;
}

const cJSON *grammar_compile_keywords(struct grammar_compiler *c, const cJSON *schema)
{
    const cJSON *decides = NULL, *other = NULL;
    for (const cJSON *v = schema->child; v; v = v->next) {
        if (LISTED(v->string, unbuilt) && !is_void(v))
            grammar_compile_fail(c, ST_EUNSUP, v->string, "this keyword is not supported");
        if (LISTED(v->string, others))
            other = v;
        if (!LISTED(v->string, alone))
            continue;
        if (decides)
            grammar_compile_fail(c, ST_EUNSUP, v->string,
                                 "not supported beside $ref, const, enum or another combination");
        decides = v;
    }
    if (decides && other)
        grammar_compile_fail(c, ST_EUNSUP, other->string,
                             "not supported beside $ref, const, enum, anyOf, oneOf or allOf");
    return decides;
}

static unsigned type_named(const char *name)
{
    static const struct {
        const char *name;
        unsigned type;
    } types[] = {{"null", GRAMMAR_NULL},
                 {"boolean", GRAMMAR_BOOLEAN},
                 {"integer", GRAMMAR_INTEGER_TYPE},
                 {"number", GRAMMAR_NUMBER_TYPE | GRAMMAR_INTEGER_TYPE},
                 {"string", GRAMMAR_STRING_TYPE},
                 {"array", GRAMMAR_ARRAY_TYPE},
                 {"object", GRAMMAR_OBJECT_TYPE}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(name, types[i].name) == 0)
            return types[i].type;
    return 0;
}

/* What the keywords speak of, where `type` does not say. */
static unsigned type_meant(const cJSON *schema)
{
    static const struct {
        const char *keyword;
        unsigned type;
    } hints[] = {{"properties", GRAMMAR_OBJECT_TYPE},
                 {"required", GRAMMAR_OBJECT_TYPE},
                 {"additionalProperties", GRAMMAR_OBJECT_TYPE},
                 {"items", GRAMMAR_ARRAY_TYPE},
                 {"prefixItems", GRAMMAR_ARRAY_TYPE},
                 {"minItems", GRAMMAR_ARRAY_TYPE},
                 {"maxItems", GRAMMAR_ARRAY_TYPE},
                 {"minLength", GRAMMAR_STRING_TYPE},
                 {"maxLength", GRAMMAR_STRING_TYPE},
                 {"minimum", GRAMMAR_NUMBER_TYPE | GRAMMAR_INTEGER_TYPE},
                 {"maximum", GRAMMAR_NUMBER_TYPE | GRAMMAR_INTEGER_TYPE},
                 {"exclusiveMinimum", GRAMMAR_NUMBER_TYPE | GRAMMAR_INTEGER_TYPE},
                 {"exclusiveMaximum", GRAMMAR_NUMBER_TYPE | GRAMMAR_INTEGER_TYPE}};
    unsigned types = 0;
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
        if (json_get(schema, hints[i].keyword))
            types |= hints[i].type;
    return types ? types : GRAMMAR_ANY_TYPE;
}

unsigned grammar_compile_types(struct grammar_compiler *c, const cJSON *schema, bool decided)
{
    const cJSON *type = json_get(schema, "type");
    unsigned types = 0;
    if (!type)
        return decided ? GRAMMAR_ANY_TYPE : type_meant(schema);
    if (cJSON_IsString(type))
        types = type_named(type->valuestring);
    for (const cJSON *v = cJSON_IsArray(type) ? type->child : NULL; v; v = v->next) {
        unsigned t = cJSON_IsString(v) ? type_named(v->valuestring) : 0;
        types = t ? types | t : 0;
        if (!t)
            break;
    }
    if (!types)
        grammar_compile_fail(c, ST_EINVAL, "type", "expected the name of a type, or a list of them");
    return types;
}
