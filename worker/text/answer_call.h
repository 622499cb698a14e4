/* answer_call: (internal) the text of one call -> which tool, with which arguments. */
#ifndef STATOR_ANSWER_CALL_H
#define STATOR_ANSWER_CALL_H

#include "buf.h"
#include "json.h"

/* The function of an offered tool; NULL: there is none of this name. */
const cJSON *answer_call_find(const cJSON *tools, struct str name);
/* {"name": "f", "arguments": {}}, known to be whole; "parameters" will do. NULL: it is no call of an offered tool. */
const cJSON *answer_call_object(const cJSON *tools, struct str object, struct str *arguments);

#endif
