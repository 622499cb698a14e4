/* tensor: the small part that the GGUF and safetensors readers share. Both formats come down to "name, type,
 * shape, bytes"; everything after the readers works on that alone. */
#include "tensor.h"

#include <inttypes.h>
#include <stdio.h>

bool tensor_elements(const struct tensor *t, uint64_t *out)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        if (t->dims[i] != 0 && n > UINT64_MAX / t->dims[i])
            return false;
        n *= t->dims[i];
    }
    *out = n;
    return true;
}

void tensor_shape_text(const struct tensor *t, char *out, size_t n)
{
    size_t at = 0;
    if (n == 0)
        return;
    out[0] = 0;
    for (uint32_t i = 0; i <= t->n_dims && at < n; i++) {
        int w = i == t->n_dims ? snprintf(out + at, n - at, i == 0 ? "[]" : "]")
                               : snprintf(out + at, n - at, "%s%" PRIu64, i == 0 ? "[" : ", ", t->dims[i]);
        at += w > 0 ? (size_t)w : 0;
    }
}
