/* cu_step: a step's data on its way to the kernels: one pinned blob, one copy, one kernel that puts each part where the
 * kernels of a graph look for it.
 *
 * Owns     nothing; cu_be.h owns the arrays.
 * Units    bytes, 16-byte aligned sections.
 * States   blob (host) -> copy -> cu_step_unpack -> kernels -> cu_step_finish.
 * Threads  the stream's.
 * Errors   ST_EINVAL, ST_EDEVICE.
 * Bounds   CU_SECTIONS.
 * Source   KERNELS design, section 7.1, with the whole block tables in every blob instead of deltas.
 */
#ifndef STATOR_CU_STEP_H
#define STATOR_CU_STEP_H

#include "cu_types.h"
#include "gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CU_SECTIONS = 24, CU_BLOBS = 2 };

/* The blob's first bytes. */
struct cu_blob {
    uint32_t n_sections, n_tokens; /* tokens: rows of the step; the section of tokens is the first */
    struct {
        uint64_t dst;           /* device address */
        uint32_t offset, bytes; /* in the blob, multiples of 16 */
    } section[CU_SECTIONS];
};

struct cu_unpack {
    const uint8_t *blob[CU_BLOBS];
    uint32_t *parity;     /* device: which blob is this step's; cu_step_finish flips it */
    int32_t *tokens;      /* [n_tokens] after unpacking, with BE_TOKEN_PREV resolved */
    const int32_t *drawn; /* [..] tokens of the previous step */
    int32_t *prev;        /* out: a copy of drawn[0 .. n_prev) */
    uint32_t n_prev;
};

struct cu_finish {
    uint32_t *parity;
};

int cu_step_unpack(struct gpu_stream *s, const struct cu_unpack *p);
int cu_step_finish(struct gpu_stream *s, const struct cu_finish *p);

#ifdef __cplusplus
}
#endif
#endif
