/* api_hints: nvext.agent_hints -> struct api_hints: what a client says about when its request matters.
 *
 * Owns     nothing: prefix_id borrows from the JSON tree.
 * Units    tokens; iat in ms.
 * States   -
 * Threads  any.
 * Errors   ST_EINVAL naming the member when its type is wrong. A value out of range is no error: it is moved into the range
 *          and the hint's bit in `clamped` is set.
 * Bounds   the table in api_hints.c; unknown members are ignored.
 * Source   NVIDIA Dynamo's nvext.agent_hints; docs/HINTS.md.
 */
#ifndef STATOR_API_HINTS_H
#define STATOR_API_HINTS_H

#include "buf.h"
#include "json.h"
#include "status.h"

#include <stdbool.h>
#include <stdint.h>

enum api_hint {
    API_HINT_PRIORITY,
    API_HINT_STRICT_PRIORITY,
    API_HINT_OSL,
    API_HINT_LATENCY_SENSITIVITY,
    API_HINT_IAT,
    API_HINT_PREFIX_ID,
    API_HINTS
};

struct api_hints {
    int32_t priority;           /* higher first */
    int32_t strict_priority;    /* before everything of a lower one */
    int32_t osl;                /* expected output; 0 = not given */
    int64_t iat_ms;             /* until the conversation's next call; 0 = not given, "now" is 1 */
    double latency_sensitivity; /* 0 .. 1 */
    bool speculative_prefill;
    struct str prefix_id;
    uint32_t clamped; /* bit 1 << enum api_hint */
};

void api_hints_init(struct api_hints *h); /* what holds without hints */
/* `priority_max`: |priority| at most; 0 = any. A failed call leaves `h` in parts. */
int api_hints_parse(struct api_hints *h, const cJSON *hints, uint32_t priority_max, struct err *e);
const char *api_hint_name(enum api_hint hint); /* as in the request */

#endif
