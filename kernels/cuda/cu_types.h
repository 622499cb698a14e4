/* cu_types: element types and constants that host code and kernels of the CUDA backend share.
 *
 * Owns     nothing.
 * Units    -
 * States   -
 * Threads  plain data.
 * Errors   -
 * Bounds   -
 * Source   KERNELS design, sections 1 to 4.
 */
#ifndef STATOR_CU_TYPES_H
#define STATOR_CU_TYPES_H

#include <stddef.h>
#include <stdint.h>

enum cu_type { CU_BF16, CU_F16, CU_E4M3, CU_F32 };

enum {
    CU_K_ALIGN = 64,          /* k of every weight and activation row is padded to this with zeros: whoever writes an
                                 activation row writes zeros up to the pitch of its consumer */
    CU_N_ALIGN = 16,          /* rows of a weight are padded to this, as zeros */
    CU_GATE_GROUP = 8,        /* gated weights: rows 16j..16j+7 = gate 8j.., rows 16j+8..16j+15 = up 8j.. */
    CU_SPLIT = 256,           /* attention cuts KV at absolute multiples of this many tokens */
    CU_KV_TILE = 64,
    CU_STREAM_ROWS = 16       /* up to so many rows the streaming linear runs */
};

#define CU_NO_SLOT 0xffffffffu /* a padded row: writes no KV */

static inline uint32_t cu_type_bytes(enum cu_type t)
{
    return t == CU_F32 ? 4 : t == CU_E4M3 ? 1 : 2;
}

static inline uint32_t cu_round_up(uint32_t n, uint32_t to)
{
    return (n + to - 1) / to * to;
}

#endif
