/* api_messages: validation of messages and tools, and their normal form for templates.
 *
 * Owns     nothing; edits the caller's tree in place.
 * Units    -
 * States   -
 * Threads  one owner per tree.
 * Errors   ST_EINVAL / ST_EUNSUP with the path of the field; ST_ENOMEM.
 * Bounds   api_limits.h.
 * Source   OpenAI API reference, chat completions. Normal form: content is a string (text parts joined by line feeds), or
 *          null for a template that knows tool calls; tool call arguments are objects where they hold JSON objects;
 *          "developer" is "system" for a template that does not know it.
 */
#ifndef STATOR_API_MESSAGES_H
#define STATOR_API_MESSAGES_H

#include "json.h"
#include "status.h"

#include <stdbool.h>

/* What the chat template speaks of: for others the messages are put in words that it knows. */
struct api_template {
    bool developer;  /* the role */
    bool tool_calls; /* the member, and so that content may be null beside it */
};

/* messages may be NULL: refused */
int api_messages_check(cJSON *messages, const struct api_template *knows, struct err *e);
/* JSON text with the escape \u0000: the tree's strings end at a NUL, so the rest of the text would be lost silently. */
bool api_has_nul(struct str json);
int api_tools_check(const cJSON *tools, struct err *e);

#endif
