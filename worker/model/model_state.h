/* model_state: (internal) what model.c and model_open.c share.
 *
 * Owns     see struct model.
 */
#ifndef STATOR_MODEL_STATE_H
#define STATOR_MODEL_STATE_H

#include "arch.h"
#include "model.h"

struct model {
    struct source src;
    struct hparams h;
    struct model_info info;
    const struct arch *arch;
    void *net; /* the family's own; NULL before load */
    uint32_t max_context, max_rows;
    bool pending_tokens; /* a batch may hold BE_TOKEN_PREV: the backend looks it up */
};

int model_begin(struct model **out, const char *path, struct err *e);
/* `rc`: how reading src and h went. Ends with a described model, or with none. */
int model_finish(struct model *m, int rc, struct err *e);

#endif
