/* The facts about element types that every backend and reader shares. */
#include "backend.h"

static const struct {
    const char *name;
    uint32_t block, bytes;
} types[BE_TYPE_COUNT] = {
    [BE_F32] = {"F32", 1, 4},       [BE_F16] = {"F16", 1, 2},       [BE_BF16] = {"BF16", 1, 2},
    [BE_Q4_0] = {"Q4_0", 32, 18},   [BE_Q4_1] = {"Q4_1", 32, 20},   [BE_Q8_0] = {"Q8_0", 32, 34},
    [BE_Q4_K] = {"Q4_K", 256, 144}, [BE_Q6_K] = {"Q6_K", 256, 210},
    [BE_E4M3] = {"E4M3", 1, 1},
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
