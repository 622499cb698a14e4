/* step: a step's data from its blob to where the kernels of a graph read it, and the turn to the next blob.
 *
 * A graph has its addresses and grids baked in, so the kernel finds out for itself which blob is due and how much there is:
 * every block reads the header and adds up the sections' sizes, then the grid's threads take 16-byte pieces from the
 * sections as if they were one array. A typical blob is one piece a thread: two reads of memory deep, however many sections.
 * Section 0 is the tokens. Their pieces are resolved on the way: a token that was drawn in the previous step is taken from
 * `drawn`, which the sampler of this step overwrites later; the copy in `prev` is for that sampler.
 */
#include "cu_step.h"
#include "launch.h"

enum { UNPACK_BLOCKS = 64, UNPACK_THREADS = 256, UNPACK_GRID = UNPACK_BLOCKS * UNPACK_THREADS };

struct unpack_smem {
    struct cu_blob blob;
    uint32_t begin[32]; /* of each section's pieces; past the last section: how many there are */
};

PTX_FN uint32_t resolve_token(const struct cu_unpack &p, uint32_t token)
{
    if ((int32_t)token >= 0)
        return token;
    uint32_t row = ~token; /* BE_TOKEN_PREV(row) */
    int32_t drawn = row < p.n_prev ? p.drawn[row] : 0;
    return drawn < 0 ? 0 : (uint32_t)drawn;
}

/* The header and the sections' begins into shared memory. */
PTX_FN void unpack_index(struct unpack_smem *sm, const uint8_t *blob)
{
    static_assert(sizeof(struct cu_blob) % 4 == 0 && sizeof(struct cu_blob) / 4 <= UNPACK_THREADS && CU_SECTIONS < 32, "");
    if (threadIdx.x < sizeof(struct cu_blob) / 4)
        ((uint32_t *)&sm->blob)[threadIdx.x] = ((const uint32_t *)blob)[threadIdx.x];
    ptx_syncthreads();
    if (threadIdx.x < 32) {
        uint32_t lane = threadIdx.x, n_sections = sm->blob.n_sections;
        uint32_t n = lane < n_sections && lane < CU_SECTIONS ? (sm->blob.section[lane].bytes + 15) / 16 : 0, end = n;
#pragma unroll
        for (int by = 1; by < 32; by *= 2) {
            uint32_t before = ptx_shfl_up(end, by);
            end += lane >= (uint32_t)by ? before : 0;
        }
        sm->begin[lane] = end - n;
    }
    ptx_syncthreads();
}

PTX_KERNEL(UNPACK_THREADS, 1) unpack_kernel(PTX_PARAM(struct cu_unpack) p)
{
    PTX_SMEM(smem);
    struct unpack_smem *sm = (struct unpack_smem *)smem;
    ptx_pdl_launch();
    ptx_pdl_wait();
    const uint8_t *blob = p.blob[*p.parity % CU_BLOBS];
    unpack_index(sm, blob);

    uint32_t first = blockIdx.x * UNPACK_THREADS + threadIdx.x;
    for (uint32_t i = first; i < sm->begin[CU_SECTIONS]; i += UNPACK_GRID) {
        uint32_t s = 0;
#pragma unroll
        for (int k = 1; k < CU_SECTIONS; k++)
            s += sm->begin[k] <= i;
        uint32_t at = 16 * (i - sm->begin[s]), left = sm->blob.section[s].bytes - at;
        uint8_t *dst = s ? (uint8_t *)sm->blob.section[s].dst : (uint8_t *)p.tokens;
        uint4 w = *(const uint4 *)(blob + sm->blob.section[s].offset + at);
        if (s == 0) {
            uint32_t row = at / 4, n = sm->blob.n_tokens;
            w.x = row + 0 < n ? resolve_token(p, w.x) : w.x;
            w.y = row + 1 < n ? resolve_token(p, w.y) : w.y;
            w.z = row + 2 < n ? resolve_token(p, w.z) : w.z;
            w.w = row + 3 < n ? resolve_token(p, w.w) : w.w;
        }
        if (left >= 16) {
            *(uint4 *)(dst + at) = w;
        } else {
            uint32_t words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
            for (uint32_t j = 0; j < 15; j++)
                if (j < left)
                    dst[at + j] = (uint8_t)(words[j / 4] >> 8 * (j % 4));
        }
    }
    for (uint32_t i = first; i < p.n_prev; i += UNPACK_GRID)
        p.prev[i] = p.drawn[i];
}

PTX_KERNEL(32, 1) finish_kernel(PTX_PARAM(struct cu_finish) p)
{
    ptx_pdl_launch();
    ptx_pdl_wait();
    if (threadIdx.x == 0)
        *p.parity ^= 1;
}

extern "C" int cu_step_unpack(struct gpu_stream *s, const struct cu_unpack *p)
{
    if (!p->blob[0] || !p->blob[1] || !p->parity || !p->tokens || (p->n_prev && (!p->drawn || !p->prev)))
        return ST_EINVAL;
    return gpu_launch(s, "step_unpack", unpack_kernel, dim3(UNPACK_BLOCKS), UNPACK_THREADS, sizeof(struct unpack_smem), true, *p);
}

extern "C" int cu_step_finish(struct gpu_stream *s, const struct cu_finish *p)
{
    if (!p->parity)
        return ST_EINVAL;
    return gpu_launch(s, "step_finish", finish_kernel, dim3(1), 32, 0, true, *p);
}
