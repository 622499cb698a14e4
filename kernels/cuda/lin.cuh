/* lin: what lin_stream and lin_tile share, and with it the numeric class L: how k is cut, in which order it is summed, and what
 * is done to a sum before it is stored. Two kernels that use these functions give equal bits.
 *
 * Owns     nothing.
 * Units    a stage = 128 bytes of k of each row in shared memory (64 16-bit values or 128 e4m3), chunk = 16 bytes of it.
 * States   -
 * Threads  lin_mma_stage: whole warps.
 * Errors   lin_check: ST_EINVAL.
 * Bounds   k a multiple of 64: the last stage of e4m3 may be half full, the rest of it is zeros.
 * Source   KERNELS design, sections 0.3 and 1. Class L: k is cut in at most 8 parts of equally many stages (the last one may
 *          be shorter). The chain of a part starts at 0 and takes one mma m16n8k16 per 16 k, ascending, rows of w as its A side;
 *          a sum is ((chain 0 + chain 1) + ..) + chain 7 over the parts that there are.
 */
#ifndef STATOR_LIN_CUH
#define STATOR_LIN_CUH

#include "cu_lin.h"
#include "launch.h"
#include "ptx.h"
#include "silu.cuh"

enum {
    LIN_THREADS = 256,
    LIN_WARPS = 8,
    LIN_PARTS = 8,
    LIN_STAGE_ROW = 128,     /* bytes of a row in a stage */
    LIN_SMEM_RESERVED = 1024 /* what the system takes of an SM's shared memory for each block */
};

/* ---- the types of w and x: fragments of one k16 group, from what ldmatrix brings ------------------------------------ */

/* Half a stage is 4 chunks. ldmatrix leaves, for 16 rows of w: a[j] = chunks 2j and 2j + 1 (rows 0-7, rows 8-15 of each), and for
 * 8 rows of x: b = chunks 0 to 3. */
template <class Act> struct lin_16bit {
    enum { BYTES = 2, GROUPS = 2 /* k16 groups of half a stage */ };
    PTX_FN_IN void frag_a(uint32_t out[4], const uint32_t a[2][4], int group)
    {
#pragma unroll
        for (int i = 0; i < 4; i++)
            out[i] = a[group][i];
    }
    PTX_FN_IN void frag_b(uint32_t out[2], const uint32_t b[4], int group)
    {
        out[0] = b[2 * group];
        out[1] = b[2 * group + 1];
    }
    PTX_FN_IN void mma(float c[4], const uint32_t a[4], const uint32_t b[2])
    {
        Act::mma(c, a, b[0], b[1]);
    }
};

/* A chunk is 16 k, of which ldmatrix gives a lane bytes 4t..4t+3. They become the mma's k slots 2t, 2t + 1, 2t + 8, 2t + 9, on
 * both sides: the sum is over the same products. Products and e4m3 -> f16 are exact. */
struct lin_e4m3 {
    enum { BYTES = 1, GROUPS = 4 };
    PTX_FN_IN void frag_a(uint32_t out[4], const uint32_t a[2][4], int group)
    {
        const uint32_t lo = a[group / 2][group % 2 * 2], hi = a[group / 2][group % 2 * 2 + 1];
        out[0] = ptx_e4m3x2_f16x2(lo & 0xffffu);
        out[1] = ptx_e4m3x2_f16x2(hi & 0xffffu);
        out[2] = ptx_e4m3x2_f16x2(lo >> 16);
        out[3] = ptx_e4m3x2_f16x2(hi >> 16);
    }
    PTX_FN_IN void frag_b(uint32_t out[2], const uint32_t b[4], int group)
    {
        out[0] = ptx_e4m3x2_f16x2(b[group] & 0xffffu);
        out[1] = ptx_e4m3x2_f16x2(b[group] >> 16);
    }
    PTX_FN_IN void mma(float c[4], const uint32_t a[4], const uint32_t b[2])
    {
        ptx_mma_f16(c, a, b[0], b[1]);
    }
};

/* ---- the parts of k -------------------------------------------------------------------------------------------------- */

struct lin_k {
    uint32_t row_bytes; /* of w */
    uint32_t stages;    /* of a row */
    uint32_t per_part;  /* stages: at least 1 */
    uint32_t parts;     /* that have any */
};

template <class T> __host__ PTX_FN lin_k lin_cut(const cu_lin &p)
{
    lin_k k;
    k.row_bytes = p.k * T::BYTES;
    k.stages = (k.row_bytes + LIN_STAGE_ROW - 1) / LIN_STAGE_ROW;
    k.per_part = (k.stages + LIN_PARTS - 1) / LIN_PARTS;
    k.parts = (k.stages + k.per_part - 1) / k.per_part;
    return k;
}

/* ---- one stage: acc += w x^T over its k ------------------------------------------------------------------------------- */

/* w: 16 RT rows, x: 8 NT rows, of 128 bytes, swizzled by their number from there on. */
template <class T, int RT, int NT>
PTX_FN void lin_mma_stage(float (&acc)[RT][NT][4], const unsigned char *w, const unsigned char *x)
{
    const uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        uint32_t a[RT][2][4], b[NT][4];
#pragma unroll
        for (int r = 0; r < RT; r++)
#pragma unroll
            for (int j = 0; j < 2; j++)
                ptx_ldmatrix_x4(a[r][j], w + ptx_swizzle128(16 * r + lane % 16, 4 * half + 2 * j + lane / 16));
#pragma unroll
        for (int n = 0; n < NT; n++)
            ptx_ldmatrix_x4(b[n], x + ptx_swizzle128(8 * n + lane % 8, 4 * half + lane / 8));
#pragma unroll
        for (int group = 0; group < T::GROUPS; group++) {
            uint32_t fa[RT][4];
#pragma unroll
            for (int r = 0; r < RT; r++)
                T::frag_a(fa[r], a[r], group);
#pragma unroll
            for (int n = 0; n < NT; n++) {
                uint32_t fb[2];
                T::frag_b(fb, b[n], group);
#pragma unroll
                for (int r = 0; r < RT; r++)
                    T::mma(acc[r][n], fa[r], fb);
            }
        }
    }
}

template <int RT, int NT> PTX_FN void lin_fill(float (&acc)[RT][NT][4], float v)
{
#pragma unroll
    for (int r = 0; r < RT; r++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                acc[r][n][i] = v;
}

template <int RT, int NT> PTX_FN void lin_add(float (&total)[RT][NT][4], const float (&chain)[RT][NT][4])
{
#pragma unroll
    for (int r = 0; r < RT; r++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                total[r][n][i] += chain[r][n][i];
}

/* ---- from sums to y ----------------------------------------------------------------------------------------------------- */

struct lin_row { /* what belongs to an output */
    float scale, bias;
};

PTX_FN lin_row lin_row_of(const cu_lin &p, uint32_t n) /* n may lie in a tile's padding */
{
    lin_row r = {1.0f, 0.0f};
    if (p.w_scale && n < p.n)
        r.scale = p.w_scale[n];
    if (p.bias && n < p.n)
        r.bias = p.bias[n];
    return r;
}

PTX_FN float lin_x_scale(const cu_lin &p, uint32_t token)
{
    return p.x_scale ? p.x_scale[token] : 1.0f;
}

PTX_FN float lin_scaled(float sum, lin_row r, float x_scale)
{
    return sum * (r.scale * x_scale) + r.bias;
}

PTX_FN void lin_store(const cu_lin &p, size_t at, float v)
{
    if (p.yt == CU_F32)
        ((float *)p.y)[at] = v;
    else if (p.yt == CU_BF16)
        ((uint16_t *)p.y)[at] = (uint16_t)ptx_bf16x2(v, 0.0f);
    else
        ((uint16_t *)p.y)[at] = (uint16_t)ptx_f16x2(v, 0.0f);
}

/* What CU_ADD adds to. Read for several outputs before the first of them is stored, the reads run together. */
PTX_FN float lin_old(const cu_lin &p, uint32_t token, uint32_t n)
{
    return p.epilogue == CU_ADD && n < p.n_out ? ((const float *)p.y)[(size_t)token * p.ldy + n] : 0.0f;
}

/* Output n of a token: CU_STORE and CU_ADD. */
PTX_FN void lin_put(const cu_lin &p, uint32_t token, uint32_t n, float sum, lin_row r, float x_scale, float old)
{
    const float v = lin_scaled(sum, r, x_scale);
    if (n < p.n_out)
        lin_store(p, (size_t)token * p.ldy + n, p.epilogue == CU_ADD ? old + v : v);
}

/* The channel whose gate is row n of w and whose up is row n + 8: CU_SWIGLU. */
PTX_FN void lin_put_gated(const cu_lin &p, uint32_t token, uint32_t n, float gate, float up, lin_row gate_row, lin_row up_row,
                          float x_scale)
{
    const uint32_t channel = n / (2 * CU_GATE_GROUP) * CU_GATE_GROUP + n % CU_GATE_GROUP;
    if (channel < p.n_out)
        lin_store(p, (size_t)token * p.ldy + channel,
                  cu_silu_mul(lin_scaled(gate, gate_row, x_scale), lin_scaled(up, up_row, x_scale)));
}

/* ---- host ------------------------------------------------------------------------------------------------------------------ */

/* Everything but x. */
static inline bool lin_takes_w(const struct cu_lin *p)
{
    const uint32_t outputs = p->epilogue == CU_SWIGLU ? p->n / 2 : p->n;
    bool ok = p->m && p->n && p->k && p->n % CU_N_ALIGN == 0 && p->k % CU_K_ALIGN == 0 && p->k <= 1u << 28;
    ok = ok && (p->wt == CU_BF16 || p->wt == CU_F16 || p->wt == CU_E4M3);
    ok = ok && (p->yt == CU_BF16 || p->yt == CU_F16 || p->yt == CU_F32);
    ok = ok && p->epilogue <= CU_SWIGLU && (p->epilogue != CU_ADD || p->yt == CU_F32);
    ok = ok && p->n_out <= outputs && p->ldy >= p->n_out;
    return ok && p->w && p->y && (uintptr_t)p->w % 16 == 0;
}

static inline int lin_check(const struct cu_lin *p)
{
    bool ok = lin_takes_w(p) && p->x && (uintptr_t)p->x % 16 == 0;
    ok = ok && p->ldx >= p->k && p->ldx * cu_type_bytes((enum cu_type)p->wt) % 16 == 0;
    return ok ? ST_OK : ST_EINVAL;
}

/* One block per tile, or as many as the GPU holds at a time (at most `blocks_sm` an SM): they walk over the tiles. */
static inline dim3 lin_grid(const struct gpu_info *g, uint32_t tiles, uint32_t smem, uint32_t blocks_sm)
{
    const uint32_t fit = g->smem_sm / (smem + LIN_SMEM_RESERVED);
    const uint32_t room = g->sms * (fit < 1 ? 1 : fit < blocks_sm ? fit : blocks_sm);
    return dim3(tiles < room ? tiles : room, 1, 1);
}

#endif
