/* api_messages: validation of messages and tools, and their normal form for templates.
 *
 * Owns     nothing; edits the caller's tree in place.
 * Units    -
 * States   -
 * Threads  one owner per tree.
 * Errors   ST_EINVAL / ST_EUNSUP with the path of the field; ST_ENOMEM.
 * Bounds   api_limits.h.
 * Source   OpenAI API reference, chat completions. Normal form: content is a string or null (text parts joined by line
 *          feeds), tool call arguments are objects where they hold JSON objects, "developer" is "system" unless kept.
 */
#ifndef STATOR_API_MESSAGES_H
#define STATOR_API_MESSAGES_H

#include "json.h"
#include "status.h"

#include <stdbool.h>

int api_messages_check(cJSON *messages, bool keep_developer,
                       struct err *e); /* messages may be NULL: refused */
/* JSON text with the escape \u0000: the tree's strings end at a NUL, so the rest of the text would be lost silently. */
bool api_has_nul(struct str json);
int api_tools_check(const cJSON *tools, struct err *e);

#endif
