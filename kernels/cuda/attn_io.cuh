/* attn_io: how the attention kernels reach memory: an item's rows and tokens, KV and q to shared memory, results, records of
 * splits and the last arriver that merges them.
 *
 * Owns     nothing.
 * Units    tokens, packed rows of an item, tiles of 64 tokens; token numbers are positions of the sequence.
 * States   a counter goes from 0 to n_parts - 1 and back to 0 within one launch.
 * Threads  the whole block makes every call that has THREADS; the others are for any.
 * Errors   attn_check: ST_EINVAL.
 * Bounds   head_dim a multiple of 16 up to 128, block_tokens a multiple of 16.
 * Source   KERNELS design, sections 4.1 to 4.5 and 4.7. Records are per (split, packed row); only a row's first record may be of
 *          several splits, from split 0 on, merged as they would be later: a result does not depend on how splits were dealt out.
 */
#ifndef STATOR_ATTN_IO_CUH
#define STATOR_ATTN_IO_CUH

#include "attn.cuh"

struct attn_params {
    struct cu_attn a;
    uint32_t group;  /* query heads of a kv head */
    uint32_t window; /* 2^31 - 1: none */
    float scale2;    /* scale * log2(e) */
};

/* ---- on the host --------------------------------------------------------------------------------------------------- */

static inline int attn_check(const struct cu_attn *a, struct attn_params *out)
{
    const struct cu_kv *kv = &a->kv;
    if ((a->xt != CU_BF16 && a->xt != CU_F16) || (kv->type != a->xt && kv->type != CU_E4M3))
        return ST_EINVAL;
    if (kv->head_dim == 0 || kv->head_dim % 16 || kv->head_dim > 128 || kv->block_tokens == 0 || kv->block_tokens % 16)
        return ST_EINVAL;
    if (kv->n_kv_heads == 0 || a->n_heads == 0 || a->n_heads % kv->n_kv_heads || a->layer >= kv->n_layers)
        return ST_EINVAL;
    if (a->ldy < a->n_heads * kv->head_dim || a->ldy % 2 || kv->block_stride % 16 || kv->scale_offset % 16)
        return ST_EINVAL;
    out->a = *a;
    out->group = a->n_heads / kv->n_kv_heads;
    out->window = a->window == 0 || a->window > 0x7fffffff ? 0x7fffffff : a->window;
    out->scale2 = a->scale * 1.44269504088896341f;
    return ST_OK;
}

/* ---- what an item covers ------------------------------------------------------------------------------------------- */

struct attn_range {
    uint32_t lo, hi;         /* tokens that some row sees; a shared item's rows see all of its splits but for windows */
    uint32_t tile, tile_end; /* of its splits; at least one, which may be empty (zeros) where all of it is behind the window */
};

PTX_FN attn_range attn_range_of(const attn_params &p, const cu_attn_item &it)
{
    const uint32_t first = it.pos0 + it.row0 / p.group + 1, tiles = it.split_tokens / CU_KV_TILE;
    const uint32_t begin = it.split0 * tiles, end = it.split1 * tiles;
    attn_range r;
    r.hi = it.pos0 + (it.row0 + it.n_rows - 1) / p.group + 1;
    r.lo = first > p.window ? first - p.window : 0;
    r.tile = r.lo / CU_KV_TILE;
    r.tile = r.tile < begin ? begin : r.tile < end ? r.tile : end - 1;
    r.tile_end = (r.hi + CU_KV_TILE - 1) / CU_KV_TILE;
    r.tile_end = r.tile_end < end ? r.tile_end : end;
    return r;
}

/* Its results go to records. */
PTX_FN bool attn_is_cut(const cu_attn_item &it)
{
    return it.partial != CU_NO_SLOT;
}

/* The tile is the last of its split. */
PTX_FN bool attn_ends_split(const cu_attn_item &it, uint32_t tile)
{
    return ((tile + 1) * CU_KV_TILE & (it.split_tokens - 1)) == 0;
}

/* Where a packed row of an item comes from. */
struct attn_row {
    uint32_t token0, pos0; /* its span's */
    uint32_t packed;       /* which row of the span it is */
    uint32_t record;       /* its first one; the next is `pitch` records on */
    uint32_t pitch;
};

/* SHARED: the item may be a shared one, whose rows are of several spans. */
template <bool SHARED> PTX_FN attn_row attn_find_row(const attn_params &p, const cu_attn_item &it, uint32_t row)
{
    attn_row r = {it.token0, it.pos0, it.row0 + row, it.partial + row, it.n_rows};
    if (SHARED && it.member_rows > 0) {
        const cu_attn_item *run = p.a.runs + p.a.members[it.member0 + row / it.member_rows];
        const uint32_t at = row % it.member_rows;
        r = {run->token0, run->pos0, at, run->partial + at, it.member_rows};
    }
    return r;
}

template <bool SHARED> PTX_FN uint32_t attn_row_pos(const attn_params &p, const cu_attn_item &it, uint32_t row)
{
    /* rows that do not exist are computed with zeros for q, and dropped */
    const attn_row r = attn_find_row<SHARED>(p, it, row < it.n_rows ? row : it.n_rows - 1u);
    return r.pos0 + r.packed / p.group;
}

/* Index of a row's q among all [token][head]. */
template <bool SHARED> PTX_FN size_t attn_row_index(const attn_params &p, const cu_attn_item &it, uint32_t row)
{
    const attn_row r = attn_find_row<SHARED>(p, it, row);
    return (size_t)(r.token0 + r.packed / p.group) * p.a.n_heads + it.kv_head * p.group + r.packed % p.group;
}

/* ---- to shared memory ---------------------------------------------------------------------------------------------- */

/* Where a tile lies: each lane knows it for tokens 16 * (lane % 4) to + 15, which are in one block. */
struct attn_place {
    uint32_t block, offset;
};

PTX_FN attn_place attn_find(const attn_params &p, const cu_attn_item &it, uint32_t tile, uint32_t hi)
{
    uint32_t token = tile * CU_KV_TILE + threadIdx.x % 4 * 16;
    token = token < hi ? token : hi - 1; /* the table ends there */
    attn_place at;
    at.block = p.a.tables[it.table + token / p.a.kv.block_tokens];
    at.offset = token / 16 * 16 % p.a.kv.block_tokens;
    return at;
}

/* K and V of a tile, and their scales. Tokens outside of [lo, hi), and columns from head_dim on, become zeros: what memory holds
 * there may be NaN. */
template <class T, int D, int THREADS>
PTX_FN void attn_load_kv(const attn_params &p, unsigned char *tile_smem, const attn_place &at, uint32_t kv_head, uint32_t tile,
                         uint32_t lo, uint32_t hi)
{
    using S = attn_tile<T, D>;
    const struct cu_kv &kv = p.a.kv;
    const uint32_t row_bytes = kv.head_dim * T::BYTES, chunk = threadIdx.x % S::CHUNKS;
    const bool in_row = chunk * 16 < row_bytes;
    const size_t row0 = ((size_t)p.a.layer * 2 * kv.n_kv_heads + kv_head) * kv.block_tokens; /* rows of a block before K's */
    const size_t to_v = (size_t)kv.n_kv_heads * kv.block_tokens;
#pragma unroll
    for (int i = 0; i < CU_KV_TILE * S::CHUNKS / THREADS; i++) {
        const uint32_t row = (threadIdx.x + i * THREADS) / S::CHUNKS, token = tile * CU_KV_TILE + row;
        const uint32_t block = ptx_shfl(at.block, row / 16), offset = ptx_shfl(at.offset, row / 16) + row % 16;
        const unsigned char *k = kv.pool + block * kv.block_stride + (row0 + offset) * row_bytes + chunk * 16;
        const uint32_t bytes = token >= lo && token < hi && in_row ? 16 : 0;
        unsigned char *to = tile_smem + row * S::PITCH + chunk * 16;
        ptx_cp16(to, k, bytes);
        ptx_cp16(to + S::V, k + to_v * row_bytes, bytes);
    }
    if (T::BYTES == 1 && threadIdx.x < 8) { /* threads 0-3: 16 scales of K each, 4-7: of V */
        const uint32_t is_v = threadIdx.x / 4, token = tile * CU_KV_TILE + threadIdx.x % 4 * 16;
        const uint32_t bytes = token + 16 <= lo || token >= hi ? 0 : hi - token < 16 ? hi - token : 16;
        ptx_cp16(tile_smem + S::SCALES + threadIdx.x * 16,
                 kv.pool + at.block * kv.block_stride + kv.scale_offset + row0 + is_v * to_v + at.offset, bytes);
    }
}

/* q of an item: [ROWS][Q_PITCH], zeros beyond its rows and beyond head_dim. */
template <class T, int D, int ROWS, int THREADS, bool SHARED>
PTX_FN void attn_load_q(const attn_params &p, unsigned char *q_smem, const cu_attn_item &it)
{
    enum { CHUNKS = D * 2 / 16 };
    const uint32_t row_bytes = p.a.kv.head_dim * 2, chunk = threadIdx.x % CHUNKS;
#pragma unroll
    for (int i = 0; i < ROWS * CHUNKS / THREADS; i++) {
        const uint32_t row = (threadIdx.x + i * THREADS) / CHUNKS;
        const bool there = row < it.n_rows && chunk * 16 < row_bytes;
        const unsigned char *q = (const unsigned char *)p.a.q + attn_row_index<SHARED>(p, it, there ? row : 0) * row_bytes;
        ptx_cp16(q_smem + row * attn_tile<T, D>::Q_PITCH + chunk * 16, q + (there ? chunk * 16 : 0), there ? 16 : 0);
    }
}

PTX_FN float attn_saturate(float x) /* to f16's range; NaN stays */
{
    return x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x;
}

/* e4m3 pools: q to f16 in place, and of every 16 dims the pairs in the order 0, 2, 4, 6, 1, 3, 5, 7: see attn_e4m3. */
template <int D, int ROWS, int THREADS> PTX_FN void attn_q_to_f16(unsigned char *q_smem, uint8_t xt)
{
    for (uint32_t i = threadIdx.x; i < ROWS * D / 16; i += THREADS) {
        uint32_t *w = (uint32_t *)(q_smem + i / (D / 16) * attn_tile<attn_e4m3, D>::Q_PITCH + i % (D / 16) * 32), pairs[8];
#pragma unroll
        for (int j = 0; j < 8; j++)
            pairs[j] = xt == CU_F16 ? w[j] : ptx_f16x2(attn_saturate(ptx_bf16_lo(w[j])), attn_saturate(ptx_bf16_hi(w[j])));
#pragma unroll
        for (int j = 0; j < 8; j++)
            w[j] = pairs[j % 4 * 2 + j / 4];
    }
}

/* ---- results ------------------------------------------------------------------------------------------------------- */

/* Columns of y behind the last head: whoever writes an item's results writes them for the rows of that head. */
template <int THREADS> PTX_FN void attn_zero_tail(const attn_params &p, const cu_attn_item &it)
{
    const uint32_t width = p.a.n_heads * p.a.kv.head_dim, tail = p.a.ldy - width;
    if (tail == 0 || it.kv_head + 1u != p.a.kv.n_kv_heads)
        return;
    for (uint32_t i = threadIdx.x; i < it.n_rows * tail; i += THREADS) {
        const uint32_t packed = it.row0 + i / tail;
        if (packed % p.group == p.group - 1)
            ((uint16_t *)p.a.y)[(size_t)(it.token0 + packed / p.group) * p.a.ldy + width + i % tail] = 0;
    }
}

PTX_FN size_t attn_y_index(const attn_params &p, const cu_attn_item &it, uint32_t row)
{
    const uint32_t token = (it.row0 + row) / p.group, head = it.kv_head * p.group + (it.row0 + row) % p.group;
    return (size_t)(it.token0 + token) * p.a.ldy + head * p.a.kv.head_dim;
}

/* The thread's part of rows row0 + g and row0 + g + 8: dims of N / 2 chunks from chunk0 on. */
template <class T, int N>
PTX_FN void attn_put(const attn_params &p, const cu_attn_item &it, const attn_state<N> &st, uint32_t row0, uint32_t chunk0)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const uint32_t row = row0 + threadIdx.x % 32 / 4 + 8 * h;
        if (row >= it.n_rows)
            continue;
        uint16_t *y = (uint16_t *)p.a.y + attn_y_index(p, it, row);
        const float l = st.l[2 * h];
#pragma unroll
        for (int i = 0; i < N; i++) { /* pairs of neighbouring dims */
            const uint32_t dim = (chunk0 + i / 2) * 16 + T::dim(i % 2);
            const float *o0 = st.o[i / 2 * 2], *o1 = st.o[i / 2 * 2 + 1];
            if ((chunk0 + i / 2) * 16 < p.a.kv.head_dim)
                *(uint32_t *)(y + dim) = T::pack_out(p.a.xt, attn_value(T::column(o0, o1, h, i % 2, 0), l),
                                                     attn_value(T::column(o0, o1, h, i % 2, 1), l));
        }
    }
}

/* Which of a row's records is that of a split. */
PTX_FN uint32_t attn_record_of(const cu_attn_item &it, uint32_t split)
{
    return split < it.merged ? 0 : split + 1 - it.merged;
}

/* A record: head_dim values, maximum, sum. */
PTX_FN float *attn_record(const attn_params &p, const attn_row &row, uint32_t n)
{
    return p.a.partials + (row.record + (size_t)n * row.pitch) * (p.a.kv.head_dim + 2);
}

/* As attn_put, to the record of the split that `tile` is of. */
template <class T, bool SHARED, int N>
PTX_FN void attn_put_record(const attn_params &p, const cu_attn_item &it, const attn_state<N> &st, uint32_t tile, uint32_t row0,
                            uint32_t chunk0)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const uint32_t row = row0 + threadIdx.x % 32 / 4 + 8 * h;
        if (row >= it.n_rows)
            continue;
        const uint32_t n = attn_record_of(it, tile * CU_KV_TILE / it.split_tokens);
        float *record = attn_record(p, attn_find_row<SHARED>(p, it, row), n);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float *o0 = st.o[i / 2 * 2], *o1 = st.o[i / 2 * 2 + 1];
            float *to = record + (chunk0 + i / 2) * 16 + T::dim(i % 2);
            if ((chunk0 + i / 2) * 16 < p.a.kv.head_dim) {
                to[0] = T::column(o0, o1, h, i % 2, 0);
                to[1] = T::column(o0, o1, h, i % 2, 1);
            }
        }
        if (chunk0 == 0 && threadIdx.x % 4 == 0) {
            record[p.a.kv.head_dim] = st.m[h];
            record[p.a.kv.head_dim + 1] = st.l[2 * h];
        }
    }
}

/* All splits of a row group, ascending, to y: what the in-register merge does, value by value. It is a chain of loads from L2:
 * a thread keeps four values of several splits under way. */
template <int THREADS> PTX_FN void attn_combine(const attn_params &p, const cu_attn_item &it)
{
    enum { VALUES = 4 };
    const attn_range r = attn_range_of(p, it);
    const uint32_t dims = p.a.kv.head_dim, n = it.n_rows * dims;
    const uint32_t first = attn_record_of(it, r.lo / it.split_tokens), end = attn_record_of(it, (r.hi - 1) / it.split_tokens) + 1;
    const size_t pitch = (size_t)it.n_rows * (dims + 2);
    for (uint32_t base = threadIdx.x; base < n; base += VALUES * THREADS) {
        const float *record[VALUES];
        float m[VALUES], l[VALUES], o[VALUES];
#pragma unroll
        for (int v = 0; v < VALUES; v++) {
            record[v] = attn_record(p, attn_find_row<false>(p, it, (base + v * THREADS) / dims), first);
            m[v] = ATTN_NONE;
            l[v] = o[v] = 0.0f;
        }
#pragma unroll 4
        for (uint32_t n_record = first; n_record < end; n_record++)
#pragma unroll
            for (int v = 0; v < VALUES; v++)
                if (base + v * THREADS < n) {
                    float a, b;
                    const float value = ptx_ld_cg(record[v] + (base + v * THREADS) % dims);
                    attn_merge(m[v], l[v], ptx_ld_cg(record[v] + dims), ptx_ld_cg(record[v] + dims + 1), a, b);
                    o[v] = ptx_fma(o[v], a, value * b);
                    record[v] += pitch;
                }
#pragma unroll
        for (int v = 0; v < VALUES; v++)
            if (base + v * THREADS < n) {
                const float y = attn_value(o[v], l[v]);
                const size_t at = attn_y_index(p, it, (base + v * THREADS) / dims) + (base + v * THREADS) % dims;
                ((uint16_t *)p.a.y)[at] = (uint16_t)(p.a.xt == CU_BF16 ? ptx_bf16x2(y, 0.0f) : ptx_f16x2(y, 0.0f));
            }
    }
    attn_zero_tail<THREADS>(p, it);
}

/* An item of several parts has written its records: the last one to arrive merges all. `flag`: a word of shared memory. */
template <int THREADS> PTX_FN void attn_arrive(const attn_params &p, const cu_attn_item &it, uint32_t *flag)
{
    ptx_fence_gpu();
    ptx_syncthreads();
    if (threadIdx.x == 0)
        *flag = ptx_atomic_add(&p.a.counters[it.counter], 1u) + 1 == it.n_parts;
    ptx_syncthreads();
    if (*flag == 0)
        return;
    ptx_fence_gpu();
    attn_combine<THREADS>(p, it);
    if (threadIdx.x == 0)
        p.a.counters[it.counter] = 0;
}

#endif
