/* The registry of backends and the facts about element types that every backend and reader shares. A device that is not
 * there is refused here in plain words; "auto" takes the best that is. */
#include "backend.h"

#include "cpu_backend.h"

#include <string.h>

static const struct {
    const char *name;
    uint32_t block, bytes;
} types[BE_TYPE_COUNT] = {
    [BE_F32] = {"F32", 1, 4},       [BE_F16] = {"F16", 1, 2},       [BE_BF16] = {"BF16", 1, 2},
    [BE_Q4_0] = {"Q4_0", 32, 18},   [BE_Q4_1] = {"Q4_1", 32, 20},   [BE_Q8_0] = {"Q8_0", 32, 34},
    [BE_Q4_K] = {"Q4_K", 256, 144}, [BE_Q6_K] = {"Q6_K", 256, 210},
};

const char *be_type_name(enum be_type t)
{
    return types[t].name;
}

uint32_t be_type_block(enum be_type t)
{
    return types[t].block;
}

uint32_t be_type_block_bytes(enum be_type t)
{
    return types[t].bytes;
}

bool be_type_row_bytes(enum be_type t, uint64_t k, uint64_t *out)
{
    if (k % types[t].block)
        return false;
    return !__builtin_mul_overflow(k / types[t].block, (uint64_t)types[t].bytes, out);
}

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
