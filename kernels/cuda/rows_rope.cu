/* rows_rope: rotary embedding of q and k, and k, v into the block pool.
 *
 * A warp takes one head of one row, a lane eight of its dims: one 16-byte read of them, one of the eight that they turn with
 * (half-split pairs; the second read of a line hits L1), one 16-byte write. Rotations whose pairs do not fall into whole
 * chunks of eight (rot_dim / 2 no multiple of 8) read their partners one by one. Bound: heads of 256 dims, a warp's width.
 */
#include "cu_rows.h"
#include "launch.h"
#include "rows.cuh"

enum { ROPE_MAX_DIM = 256 };

/* v = dims [col, col + 8) of `head`, rotated as far as they lie in front of rot_dim. `turn`: this position's cos, sin pairs. */
template <class T>
PTX_FN void rope_half_split(float v[8], const uint16_t *head, const float *turn, uint32_t col, uint32_t rot_dim)
{
    uint32_t half = rot_dim / 2;
    rows_unpack<T>(v, *(const uint4 *)(head + col));
    if (half % 8 == 0) {
        if (col >= rot_dim)
            return;
        bool front = col < half;
        uint32_t pair = front ? col : col - half;
        float other[8], t[16];
        rows_unpack<T>(other, *(const uint4 *)(head + (front ? col + half : pair)));
        rows_load_f32(t, turn, 2 * pair, rot_dim);
        rows_load_f32(t + 8, turn, 2 * pair + 8, rot_dim);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float sin = front ? -t[2 * i + 1] : t[2 * i + 1];
            v[i] = v[i] * t[2 * i] + other[i] * sin;
        }
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < 8; i++) {
        if (col + i >= rot_dim)
            break;
        bool front = col + i < half;
        uint32_t pair = front ? col + i : col + i - half;
        float other = T::lo(head[front ? pair + half : pair]), sin = turn[2 * pair + 1];
        v[i] = v[i] * turn[2 * pair] + other * (front ? -sin : sin);
    }
}

template <class T>
PTX_FN void rope_interleaved(float v[8], const uint16_t *head, const float *turn, uint32_t col, uint32_t rot_dim)
{
    float t[8]; /* a pair's cos, sin stand where its two dims do */
    rows_unpack<T>(v, *(const uint4 *)(head + col));
    rows_load_f32(t, turn, col, rot_dim);
#pragma unroll
    for (uint32_t i = 0; i < 8; i += 2) {
        if (col + i >= rot_dim)
            break;
        float x = v[i], y = v[i + 1];
        v[i] = x * t[i] + y * -t[i + 1];
        v[i + 1] = y * t[i] + x * t[i + 1];
    }
}

/* e of the scale 2^e for values up to amax: ceil(log2(amax / 448)) in [-15, 7]. 448 is 1.75 * 2^8. */
PTX_FN int kv_exponent(float amax)
{
    uint32_t bits = ptx_bits(amax);
    int e = (int)(bits >> 23) - 127 - 8 + ((bits & 0x7fffffu) > 0x600000u);
    return e < -15 ? -15 : e > 7 ? 7 : e;
}

/* This warp's head, eight dims a lane, into the pool. `plane`: its (layer, k or v, kv head); lanes past the head hold zeros. */
template <class T>
PTX_FN void kv_put(const struct cu_kv &kv, uint32_t slot, uint32_t plane, uint32_t col, const float v[8])
{
    uint32_t block = slot / kv.block_tokens, token = slot % kv.block_tokens;
    if (block >= kv.n_blocks) /* CU_NO_SLOT */
        return;
    uint8_t *base = kv.pool + block * kv.block_stride;
    size_t at = (size_t)plane * kv.block_tokens + token, dim = at * kv.head_dim + col;
    bool mine = col < kv.head_dim;
    uint4 w = rows_pack<T>(v);
    if (kv.type == CU_E4M3) {
        int e = kv_exponent(T::lo(rows_warp_max(rows_max_16(w))));
        if (mine)
            *(uint64_t *)(base + dim) = rows_e4m3<T>(w, ptx_float((uint32_t)(127 - e) << 23));
        if (col == 0)
            base[kv.scale_offset + at] = (uint8_t)(e + 127);
        return;
    }
    if (mine)
        *(uint4 *)(base + 2 * dim) = w;
}

template <class T> PTX_KERNEL(ROWS_THREADS, 4) rope_kernel(PTX_PARAM(struct cu_rope) p)
{
    ptx_pdl_launch();
    ptx_pdl_wait();
    uint32_t row = blockIdx.x, head = blockIdx.y * ROWS_WARPS + threadIdx.x / 32, col = 8 * (threadIdx.x % 32);
    uint32_t n_kv = p.kv.n_kv_heads, dim = p.kv.head_dim;
    if (head >= p.n_heads + 2 * n_kv)
        return;
    const uint16_t *src = (const uint16_t *)p.qkv + (size_t)row * p.ldqkv + (size_t)head * dim;
    float v[8] = {};
    if (col < dim) {
        const float *turn = p.rope + (size_t)p.positions[row] * p.rot_dim;
        if (head >= p.n_heads + n_kv)
            rows_unpack<T>(v, *(const uint4 *)(src + col));
        else if (p.interleaved)
            rope_interleaved<T>(v, src, turn, col, p.rot_dim);
        else
            rope_half_split<T>(v, src, turn, col, p.rot_dim);
    }
    if (head >= p.n_heads) { /* the planes of a layer: k heads, then v heads */
        kv_put<T>(p.kv, p.slots[row], p.layer * 2 * n_kv + head - p.n_heads, col, v);
    } else if (col < dim) {
        uint16_t *q = (uint16_t *)p.q + ((size_t)row * p.n_heads + head) * dim;
        *(uint4 *)(q + col) = rows_pack<T>(v);
    }
}

static bool kv_fits(const struct cu_kv *kv, uint32_t layer, uint8_t xt)
{
    uint64_t values = (uint64_t)kv->n_layers * 2 * kv->n_kv_heads * kv->block_tokens;
    uint64_t bytes = values * kv->head_dim * cu_type_bytes((enum cu_type)kv->type);
    if (kv->type == CU_E4M3) {
        if (kv->scale_offset < bytes)
            return false;
        bytes = kv->scale_offset + values;
    } else if (kv->type != xt) {
        return false;
    }
    return layer < kv->n_layers && kv->n_kv_heads && kv->block_tokens && kv->block_stride % 16 == 0 &&
           bytes <= kv->block_stride && (uint64_t)kv->n_blocks * kv->block_tokens < CU_NO_SLOT;
}

extern "C" int cu_rows_rope(struct gpu_stream *s, const struct cu_rope *p)
{
    uint32_t dim = p->kv.head_dim, heads = p->n_heads + 2 * p->kv.n_kv_heads;
    if (!p->m || !p->n_heads || !dim || dim % 16 || dim > ROPE_MAX_DIM || p->rot_dim > dim || p->rot_dim % 2 ||
        p->ldqkv < (uint64_t)heads * dim || p->ldqkv % 8 || !kv_fits(&p->kv, p->layer, p->xt))
        return ST_EINVAL;
    dim3 grid(p->m, (heads + ROWS_WARPS - 1) / ROWS_WARPS);
    switch (p->xt) {
    case CU_BF16:
        return gpu_launch(s, "rows_rope", rope_kernel<ptx_bf16>, grid, ROWS_THREADS, 0, true, *p);
    case CU_F16:
        return gpu_launch(s, "rows_rope", rope_kernel<ptx_f16>, grid, ROWS_THREADS, 0, true, *p);
    default:
        return ST_EINVAL;
    }
}
