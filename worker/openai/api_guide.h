/* api_guide: what a request says that its answer must look like: response_format, guided_json, guided_choice (at the top or in
 * nvext), tool_choice "required" or of one function.
 *
 * Owns     `made`, until fini; `value` borrows from it or from the request.
 * Units    -
 * States   zeroed -> parse -> fini. A failed parse leaves it safe to fini.
 * Threads  one owner.
 * Errors   ST_EINVAL, ST_EUNSUP with the field named; ST_ENOMEM. What the schema says is not looked at here.
 * Bounds   of the request.
 * Source   OpenAI API reference; vLLM's guided_* fields. Tool calls are asked for as an array of {"name", "parameters"}, as vLLM
 *          and Dynamo do.
 */
#ifndef STATOR_API_GUIDE_H
#define STATOR_API_GUIDE_H

#include "json.h"
#include "status.h"

#include <stdbool.h>

enum api_guide_kind { API_GUIDE_NONE, API_GUIDE_SCHEMA, API_GUIDE_CHOICE };

struct api_guide {
    enum api_guide_kind kind;
    const cJSON *value; /* the schema, or the array of strings */
    const char *field;  /* whence, for errors; static storage */
    bool calls;         /* the text is an array of tool calls */
    cJSON *made;
};

/* `request` was parsed, its tools (NULL: none) were checked. */
int api_guide_parse(struct api_guide *g, const cJSON *request, const cJSON *tools, struct err *e);
void api_guide_fini(struct api_guide *g);

#endif
