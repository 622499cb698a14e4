/* rows: embedding lookup and SwiGLU, element by element: a thread makes eight columns of one row, and nothing is shared. */
#include "cu_rows.h"
#include "launch.h"
#include "rows.cuh"
#include "silu.cuh"

template <class T> PTX_KERNEL(ROWS_THREADS, 4) embed_kernel(PTX_PARAM(struct cu_embed) p)
{
    ptx_pdl_launch();
    ptx_pdl_wait();
    uint32_t row = blockIdx.x, col = blockIdx.y * ROWS_STRIDE + 8 * threadIdx.x;
    if (col >= p.d)
        return;
    float v[8];
    rows_unpack<T>(v, rows_load_16((const uint16_t *)p.table + (size_t)p.tokens[row] * p.ld, col, p.d));
#pragma unroll
    for (int i = 0; i < 8; i++)
        v[i] *= p.scale;
    rows_store_f32(p.x + (size_t)row * p.d, v, col, p.d);
}

template <class T> PTX_KERNEL(ROWS_THREADS, 4) swiglu_kernel(PTX_PARAM(struct cu_swiglu) p)
{
    ptx_pdl_launch();
    ptx_pdl_wait();
    uint32_t row = blockIdx.x, col = blockIdx.y * ROWS_STRIDE + 8 * threadIdx.x;
    if (col >= p.ldy)
        return;
    const uint16_t *group = (const uint16_t *)p.gu + (size_t)row * p.ldgu + 2 * (size_t)col; /* 8 gates, 8 ups */
    uint32_t n = col < p.width ? p.width - col : 0;
    float gate[8], up[8];
    rows_unpack<T>(gate, rows_load_16(group, 0, n));
    rows_unpack<T>(up, rows_load_16(group + CU_GATE_GROUP, 0, n));
#pragma unroll
    for (int i = 0; i < 8; i++)
        gate[i] = cu_silu_mul(gate[i], up[i]); /* 0 of 0, 0 */
    *(uint4 *)((uint16_t *)p.y + (size_t)row * p.ldy + col) = rows_pack<T>(gate);
}

/* Blocks of a grid that covers m rows of `cols` columns. */
static dim3 rows_grid(uint32_t m, uint32_t cols)
{
    return dim3(m, (cols + ROWS_STRIDE - 1) / ROWS_STRIDE);
}

extern "C" int cu_rows_embed(struct gpu_stream *s, const struct cu_embed *p)
{
    if (!p->m || !p->d || p->ld < p->d || p->ld % 8)
        return ST_EINVAL;
    dim3 grid = rows_grid(p->m, p->d);
    /* Not early: it is the first behind cu_step_unpack, which so has ended before any kernel of the step begins. They may read
     * positions, block tables and plans ahead of ptx_pdl_wait. */
    switch (p->type) {
    case CU_BF16:
        return gpu_launch(s, "rows_embed", embed_kernel<ptx_bf16>, grid, ROWS_THREADS, 0, false, *p);
    case CU_F16:
        return gpu_launch(s, "rows_embed", embed_kernel<ptx_f16>, grid, ROWS_THREADS, 0, false, *p);
    default:
        return ST_EINVAL;
    }
}

extern "C" int cu_rows_swiglu(struct gpu_stream *s, const struct cu_swiglu *p)
{
    uint32_t groups = cu_round_up(p->width, CU_GATE_GROUP);
    if (!p->m || !p->width || p->ldy < p->width || p->ldy % 8 || p->ldgu / 2 < groups || p->ldgu % 8)
        return ST_EINVAL;
    dim3 grid = rows_grid(p->m, p->ldy);
    switch (p->xt) {
    case CU_BF16:
        return gpu_launch(s, "rows_swiglu", swiglu_kernel<ptx_bf16>, grid, ROWS_THREADS, 0, true, *p);
    case CU_F16:
        return gpu_launch(s, "rows_swiglu", swiglu_kernel<ptx_f16>, grid, ROWS_THREADS, 0, true, *p);
    default:
        return ST_EINVAL;
    }
}
