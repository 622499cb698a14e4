/* attn_rows128: attention of many rows: chunks of a prompt, or sequences with a prefix in common. It has to keep the tensor cores
 * busy.
 *
 * A block of 8 warps holds 128 packed rows, 16 per warp, and all warps share each tile of 64 tokens: K and V cross from L2 once
 * per 128 rows. A warp does its rows alone, in registers: the fragment in which the mma leaves S is the one in which it takes P.
 * q stays in shared memory and is fetched again for each tile, which frees the registers that the state of a split needs beside
 * the merged state of all splits (class A). Two stages of tiles: one is computed on while the next one comes.
 *
 * One item per block; hardware deals them out, longest first. A tile that none of a warp's rows sees is left out by that warp.
 *
 * The rows of a shared item belong to several runs of list 0. Where a row's q, position and records are is asked through its run,
 * when an item or a split begins or ends; the tiles between know no difference. Its records are read by a later kernel.
 */
#include "attn_io.cuh"

enum { ATTN128_THREADS = 256, ATTN128_ROWS = 128 };

template <class T, int D> struct attn128_shape {
    using Tile = attn_tile<T, D>;
    enum { Q = 2 * Tile::BYTES, FLAG = Q + ATTN128_ROWS * Tile::Q_PITCH, SMEM = FLAG + 16 };
};

/* Logits of the warp's 16 rows and all 64 tokens. */
template <class T, int D>
PTX_FN void attn128_qk(float (&s)[8][4], const unsigned char *q_smem, const unsigned char *tile_smem)
{
    attn_zero(s);
#pragma unroll
    for (int pair = 0; pair < D / 32; pair++) {
        uint32_t q[2][4];
        attn_a_frag(q[0], q_smem, attn_tile<T, D>::Q_PITCH, 2 * pair);
        attn_a_frag(q[1], q_smem, attn_tile<T, D>::Q_PITCH, 2 * pair + 1);
#pragma unroll
        for (int n = 0; n < 4; n++) { /* 16 tokens */
            uint32_t b[2][4];
            T::template k_frag<D>(b, tile_smem + 16 * n * attn_tile<T, D>::PITCH, pair);
#pragma unroll
            for (int j = 0; j < 2; j++) {
                T::mma(s[2 * n], q[j], b[j]);
                T::mma(s[2 * n + 1], q[j], b[j] + 2);
            }
        }
    }
}

/* The smallest and the largest position of the warp's rows: those of a shared item stand anywhere. */
PTX_FN void attn128_positions(uint32_t &first, uint32_t &last, const uint32_t (&pos)[2])
{
    first = pos[0] < pos[1] ? pos[0] : pos[1];
    last = pos[0] < pos[1] ? pos[1] : pos[0];
#pragma unroll
    for (int lanes = 4; lanes < 32; lanes *= 2) {
        const uint32_t other_first = ptx_shfl_xor(first, lanes), other_last = ptx_shfl_xor(last, lanes);
        first = other_first < first ? other_first : first;
        last = other_last > last ? other_last : last;
    }
}

/* One tile, for one warp. */
template <class T, int D>
PTX_FN void attn128_tile(const attn_params &p, attn_state<D / 8> &st, const unsigned char *q_smem, const unsigned char *tile_smem,
                         uint32_t tile, const uint32_t (&pos)[2], bool edge)
{
    using S = attn_tile<T, D>;
    float s[8][4], mx[2], base[2];
    attn128_qk<T, D>(s, q_smem, tile_smem);
    attn_logits<T>(s, tile_smem + S::SCALES, p.scale2, tile * CU_KV_TILE, pos, p.window, edge);
    attn_max(mx, s);
    attn_rescale(st, mx, base);
#pragma unroll
    for (int half = 0; half < 2; half++) { /* of the tile: 32 tokens */
        uint32_t pa[2][4];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int n = 4 * half + 2 * j;
            uint32_t even[2], odd[2];
            attn_p<T>(even, s[n], base);
            attn_p<T>(odd, s[n + 1], base);
            pa[j][0] = even[0], pa[j][1] = even[1], pa[j][2] = odd[0], pa[j][3] = odd[1];
        }
        attn_pv<T, D>(st, pa, tile_smem + S::V + half * 32 * S::PITCH, tile_smem + S::SCALES + CU_KV_TILE + half * 32, 0);
    }
}

template <class T, int D> PTX_KERNEL(ATTN128_THREADS, 1) attn_rows128(PTX_PARAM(attn_params) p)
{
    using S = attn128_shape<T, D>;
    PTX_SMEM(smem);
    ptx_pdl_launch();
    ptx_pdl_wait();
    if (blockIdx.x >= *p.a.n_items)
        return;
    const cu_attn_item item = p.a.items[blockIdx.x];
    const attn_range range = attn_range_of(p, item);
    const uint32_t row0 = threadIdx.x / 32 * 16, row = row0 + threadIdx.x % 32 / 4;
    const uint32_t pos[2] = {attn_row_pos<true>(p, item, row), attn_row_pos<true>(p, item, row + 8)};
    uint32_t first, last; /* positions of the warp's rows */
    attn128_positions(first, last, pos);

    attn_place place = attn_find(p, item, range.tile, range.hi);
    attn_load_q<T, D, ATTN128_ROWS, ATTN128_THREADS, true>(p, smem + S::Q, item);
    attn_load_kv<T, D, ATTN128_THREADS>(p, smem, place, item.kv_head, range.tile, range.lo, range.hi);
    ptx_cp_commit();
    if (range.tile + 1 < range.tile_end)
        place = attn_find(p, item, range.tile + 1, range.hi);
    if (T::BYTES == 1) {
        ptx_cp_wait<0>();
        ptx_syncthreads();
        attn_q_to_f16<D, ATTN128_ROWS, ATTN128_THREADS>(smem + S::Q, p.a.xt);
    }

    attn_state<D / 8> split, all;
    attn_clear(split);
    attn_clear(all);
    const bool merges = !attn_is_cut(item) || (item.member_rows > 0 && item.split0 == 0);
    uint32_t stage = 0;
    for (uint32_t tile = range.tile; tile < range.tile_end; tile++) {
        ptx_cp_wait<0>();
        ptx_syncthreads(); /* this tile is there for all, and all are done with the one before it */
        const unsigned char *tile_smem = smem + stage * S::Tile::BYTES;
        stage ^= 1;
        if (tile + 1 < range.tile_end) {
            attn_load_kv<T, D, ATTN128_THREADS>(p, smem + stage * S::Tile::BYTES, place, item.kv_head, tile + 1, range.lo,
                                                range.hi);
            ptx_cp_commit();
            if (tile + 2 < range.tile_end)
                place = attn_find(p, item, tile + 2, range.hi);
        }
        const uint32_t token = tile * CU_KV_TILE, token_last = token + CU_KV_TILE - 1;
        const bool seen = row0 < item.n_rows && token <= last && (token_last >= first || first - token_last < p.window);
        if (seen)
            attn128_tile<T, D>(p, split, smem + S::Q + row0 * S::Tile::Q_PITCH, tile_smem, tile, pos,
                               token_last > first || last - token >= p.window);
        if (tile + 1 == range.tile_end || attn_ends_split(item, tile)) {
            if (!merges)
                attn_put_record<T, true>(p, item, split, tile, row0, 0);
            else
                attn_merge_split(all, split);
            attn_clear(split);
        }
    }
    if (item.member_rows > 0) {
        if (merges)
            attn_put_record<T, true>(p, item, all, 0, row0, 0);
    } else if (attn_is_cut(item)) {
        attn_arrive<ATTN128_THREADS>(p, item, (uint32_t *)(smem + S::FLAG));
    } else {
        attn_put<T>(p, item, all, row0, 0);
        attn_zero_tail<ATTN128_THREADS>(p, item);
    }
}

template <class T, int D> static int attn128_launch(struct gpu_stream *s, const struct attn_params *p)
{
    return gpu_launch(s, "attn_rows128", attn_rows128<T, D>, dim3(p->a.ctas), ATTN128_THREADS, attn128_shape<T, D>::SMEM, true,
                      *p);
}

extern "C" int cu_attn_rows128(struct gpu_stream *s, const struct cu_attn *a)
{
    struct attn_params p;
    int rc = attn_check(a, &p);
    if (rc != ST_OK || a->ctas == 0)
        return rc != ST_OK ? rc : ST_EINVAL;
    const bool wide = a->kv.head_dim > 64;
    switch (a->kv.type) {
    case CU_BF16:
        return wide ? attn128_launch<attn_bf16, 128>(s, &p) : attn128_launch<attn_bf16, 64>(s, &p);
    case CU_F16:
        return wide ? attn128_launch<attn_f16, 128>(s, &p) : attn128_launch<attn_f16, 64>(s, &p);
    default:
        return wide ? attn128_launch<attn_e4m3, 128>(s, &p) : attn128_launch<attn_e4m3, 64>(s, &p);
    }
}
