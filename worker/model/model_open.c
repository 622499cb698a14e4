/* model_open: from a path. Apart from model.c because folders are described in JSON (see source_hf.c). */
#include "model_state.h"

int model_open(struct model **out, const char *path, struct err *e)
{
    struct model *m = NULL;
    int rc = model_begin(&m, path, e);
    if (rc != ST_OK)
        return rc;
    rc = model_finish(m, source_open(&m->src, path, &m->h, e), e);
    if (rc == ST_OK)
        *out = m;
    return rc;
}

int model_open_dummy(struct model **out, const char *path, struct err *e)
{
    struct model *m = NULL;
    int rc = model_begin(&m, path, e);
    if (rc != ST_OK)
        return rc;
    rc = model_finish(m, source_open_config(&m->src, path, &m->h, e), e);
    if (rc == ST_OK)
        *out = m;
    return rc;
}
