/* The registry of backends. A device that is not there is refused here in plain words; "auto" takes the best that is. */
#include "backend.h"

#include "cpu_backend.h"

#include <string.h>

int be_create(struct be **out, const struct be_options *o, struct err *e)
{
    const char *device = o->device ? o->device : "auto";
    if (strcmp(device, "auto") == 0 || strcmp(device, "cpu") == 0)
        return cpu_backend_create(out, o, e);
    if (strcmp(device, "cuda") == 0)
        return err_set(e, ST_EUNSUP, "device: this build has no CUDA backend; use --device cpu");
    return err_set(e, ST_EINVAL, "device: '%s' is none of auto, cpu, cuda", device);
}

void be_destroy(struct be *be)
{
    if (be)
        be->ops->destroy(be);
}

const char *be_describe(const struct be *be)
{
    return be->ops->describe(be);
}
