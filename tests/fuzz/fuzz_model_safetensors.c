/* The safetensors reader on arbitrary bytes: whatever parses, its tensors lie inside the input. */
#include "safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors *s;
    volatile uint64_t sink;
    uint64_t sum = 0;
    if (safetensors_parse(&s, data, size, "fuzz.safetensors", NULL) != ST_OK)
        return 0;
    for (uint32_t i = 0; i < safetensors_n_tensors(s); i++) {
        const struct tensor *t = safetensors_tensor_at(s, i);
        if (t->data != NULL && t->bytes > 0)
            sum += (uint64_t)t->data[0] + t->data[t->bytes - 1];
    }
    safetensors_close(s);
    sink = sum;
    (void)sink;
    return 0;
}
