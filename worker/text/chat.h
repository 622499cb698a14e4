/* chat: a chat template (the Jinja that model templates use), compiled once, rendered per request.
 *
 * Owns     a chat owns its compiled program; rendering owns nothing beyond the call.
 * Units    bytes; steps are evaluated nodes.
 * States   immutable after create.
 * Threads  any number of threads may render with one chat at once.
 * Errors   create: ST_EFORMAT / ST_EUNSUP with line number. render: ST_EINVAL with the template's own words for
 *          raise_exception, or with what went wrong and the line; ST_ETOOBIG when a budget ran out.
 * Bounds   CHAT_STEPS_MAX steps, CHAT_OUTPUT_MAX bytes out, CHAT_MEMORY_MAX bytes of values, recursion CHAT_DEPTH_MAX.
 * Source   Jinja 3.1 as configured by transformers' apply_chat_template: ImmutableSandboxedEnvironment with trim_blocks,
 *          lstrip_blocks, loopcontrols, `generation` tag, tojson without HTML escapes, raise_exception, strftime_now.
 */
#ifndef STATOR_CHAT_H
#define STATOR_CHAT_H

#include "answer_form.h"
#include "buf.h"
#include "json.h"
#include "status.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    CHAT_STEPS_MAX = 4000000,
    CHAT_OUTPUT_MAX = 16 << 20,
    CHAT_MEMORY_MAX = 64 << 20,
    CHAT_DEPTH_MAX = 200
};

struct chat; /* opaque */

int chat_create(struct chat **out, struct str source, struct err *e);
void chat_destroy(struct chat *c); /* NULL ok */
struct answer_form chat_form(const struct chat *c);

struct chat_input {
    const cJSON *messages;  /* array of {role, content, ...}; required */
    const cJSON *tools;     /* array or NULL */
    const cJSON *documents; /* array or NULL */
    const cJSON *kwargs;    /* object: chat_template_kwargs, become top-level variables; may be NULL */
    struct str bos_token, eos_token, unk_token, pad_token; /* empty: variable stays undefined, as in transformers */
    bool add_generation_prompt;
    int64_t now_s; /* seconds since the epoch, local time zone UTC: what strftime_now formats */
};

/* Appends the rendered text to `out`. */
int chat_render(const struct chat *c, const struct chat_input *in, struct buf *out, struct err *e);

#endif
