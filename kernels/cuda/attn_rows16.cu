/* attn_rows16: attention of few rows against long KV: decode. It has to read KV at the speed of memory and hide everything else.
 *
 * A block of 4 warps holds 16 packed rows (a decode token fills as many as a kv head has query heads) and walks tiles of 64
 * tokens. The warps split a tile by tokens for q k and by dims for P V: a row's maximum and P go through shared memory, so that
 * every value of o is one chain over ascending tokens, as in attn_rows128. The ring of tiles runs on across splits and items:
 * while one item ends, the tiles of the next are on their way; the table's entry of a tile is fetched one tile earlier still.
 * A block is persistent and works off the share that the plan gave it; two blocks per SM cover each other's barriers.
 *
 * Rejected: a warp per tile with private maxima (four chains per value: other sums than attn_rows128), and S transposed, which
 * needs half the mma but P in another layout (the tensor cores are at a tenth of what they can do here).
 */
#include "attn_io.cuh"

enum { ATTN16_THREADS = 128, ATTN16_P_PITCH = CU_KV_TILE * 2 + 16 };

template <class T, int D> struct attn16_shape {
    using Tile = attn_tile<T, D>;
    enum {
        /* At most 3: q has two places, and at most the two next items' tiles may be on their way. */
        STAGES = Tile::BYTES > 32 * 1024 ? 2 : 3,
        BLOCKS_SM = STAGES, /* an A100 has shared memory for two; more than this an H100's registers do not allow */
        Q = STAGES * Tile::BYTES,
        Q_BYTES = 16 * Tile::Q_PITCH,
        P = Q + 2 * Q_BYTES,
        MAX = P + 16 * ATTN16_P_PITCH, /* f32 [warp][row] */
        FLAG = MAX + 4 * 16 * 4,
        SMEM = FLAG + 16
    };
};

/* A place in the block's work: an item and a tile of it. */
struct attn16_walk {
    cu_attn_item item;
    attn_range range;
    uint32_t i, tile;
};

PTX_FN void attn16_enter(const attn_params &p, attn16_walk &w, uint32_t i, uint32_t end)
{
    w.i = i;
    if (i >= end)
        return;
    w.item = p.a.items[i];
    w.range = attn_range_of(p, w.item);
    w.tile = w.range.tile;
}

PTX_FN void attn16_advance(const attn_params &p, attn16_walk &w, uint32_t end)
{
    if (++w.tile == w.range.tile_end)
        attn16_enter(p, w, w.i + 1, end);
}

/* The walk of the loads, ahead of the walk of the sums. */
struct attn16_feed {
    attn16_walk at;
    attn_place place; /* of its tile */
    uint32_t stage, begin, end;
};

/* Issues the next tile, with q where an item begins; then asks for the place of the one after it. */
template <class T, int D> PTX_FN void attn16_feed_next(const attn_params &p, attn16_feed &f, unsigned char *smem)
{
    using S = attn16_shape<T, D>;
    attn16_walk &w = f.at;
    if (w.i < f.end) {
        attn_load_kv<T, D, ATTN16_THREADS>(p, smem + f.stage * S::Tile::BYTES, f.place, w.item.kv_head, w.tile, w.range.lo,
                                           w.range.hi);
        if (w.tile == w.range.tile)
            attn_load_q<T, D, 16, ATTN16_THREADS, false>(p, smem + S::Q + (w.i - f.begin) % 2 * S::Q_BYTES, w.item);
        attn16_advance(p, w, f.end);
        if (w.i < f.end)
            f.place = attn_find(p, w.item, w.tile, w.range.hi);
        f.stage = f.stage + 1 == S::STAGES ? 0 : f.stage + 1;
    }
    ptx_cp_commit(); /* at the end of the work too: waits count groups */
}

/* q of an item, from shared memory to registers. */
template <class T, int D> PTX_FN void attn16_take_q(uint32_t (&q)[D / 16][4], unsigned char *q_smem, uint8_t xt)
{
    if (T::BYTES == 1) {
        attn_q_to_f16<D, 16, ATTN16_THREADS>(q_smem, xt);
        ptx_syncthreads();
    }
#pragma unroll
    for (int k = 0; k < D / 16; k++)
        attn_a_frag(q[k], q_smem, attn_tile<T, D>::Q_PITCH, k);
}

/* The warp's 16 tokens: logits of all 16 rows. */
template <class T, int D>
PTX_FN void attn16_qk(const attn_params &p, float (&s)[2][4], const uint32_t (&q)[D / 16][4], const unsigned char *tile_smem,
                      uint32_t tile, const uint32_t (&pos)[2])
{
    const uint32_t token = threadIdx.x / 32 * 16; /* in the tile */
    attn_zero(s);
#pragma unroll
    for (int pair = 0; pair < D / 32; pair++) {
        uint32_t b[2][4];
        T::template k_frag<D>(b, tile_smem + token * attn_tile<T, D>::PITCH, pair);
#pragma unroll
        for (int j = 0; j < 2; j++) {
            T::mma(s[0], q[2 * pair + j], b[j]);
            T::mma(s[1], q[2 * pair + j], b[j] + 2);
        }
    }
    attn_logits<T>(s, tile_smem + attn_tile<T, D>::SCALES + token, p.scale2, tile * CU_KV_TILE + token, pos, p.window, true);
}

/* From the warp's logits to its dims of o: two barriers, between which `feed` may refill what the last tile left free. */
template <class T, int D>
PTX_FN void attn16_softmax_pv(const attn_params &p, attn_state<D / 32> &st, const float (&s)[2][4], unsigned char *smem,
                              const unsigned char *tile_smem, attn16_feed &feed)
{
    using S = attn16_shape<T, D>;
    const uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, warp = threadIdx.x / 32;
    float *const maxima = (float *)(smem + S::MAX);
    unsigned char *const p_smem = smem + S::P;
    float mx[2], base[2];
    attn_max(mx, s);
    if (t == 0) {
        maxima[warp * 16 + g] = mx[0];
        maxima[warp * 16 + g + 8] = mx[1];
    }
    ptx_syncthreads();
    attn16_feed_next<T, D>(p, feed, smem);
#pragma unroll
    for (int h = 0; h < 2; h++)
#pragma unroll
        for (int w = 0; w < 4; w++)
            mx[h] = fmaxf(mx[h], maxima[w * 16 + g + 8 * h]);
    attn_rescale(st, mx, base);
#pragma unroll
    for (int n = 0; n < 2; n++) {
        uint32_t pair[2];
        attn_p<T>(pair, s[n], base);
#pragma unroll
        for (int h = 0; h < 2; h++)
            *(uint32_t *)(p_smem + (g + 8 * h) * ATTN16_P_PITCH + (warp * 16 + 8 * n + 2 * t) * 2) = pair[h];
    }
    ptx_syncthreads();
#pragma unroll
    for (int half = 0; half < 2; half++) { /* of the tile: 32 tokens */
        uint32_t pa[2][4];
        attn_a_frag(pa[0], p_smem, ATTN16_P_PITCH, 2 * half);
        attn_a_frag(pa[1], p_smem, ATTN16_P_PITCH, 2 * half + 1);
        attn_pv<T, D>(st, pa, tile_smem + S::Tile::V + half * 32 * S::Tile::PITCH,
                      tile_smem + S::Tile::SCALES + CU_KV_TILE + half * 32, warp * (D / 64));
    }
}

template <class T, int D> PTX_KERNEL(ATTN16_THREADS, (attn16_shape<T, D>::BLOCKS_SM)) attn_rows16(PTX_PARAM(attn_params) p)
{
    using S = attn16_shape<T, D>;
    PTX_SMEM(smem);
    const uint32_t g = threadIdx.x % 32 / 4, chunk0 = threadIdx.x / 32 * (D / 64);
    attn16_feed feed;
    feed.begin = p.a.begin[blockIdx.x];
    feed.end = p.a.begin[blockIdx.x + 1];
    feed.stage = 0;
    ptx_pdl_launch();
    if (feed.begin == feed.end) {
        ptx_pdl_wait(); /* the next kernel relies on all that came before this one */
        return;
    }
    attn16_enter(p, feed.at, feed.begin, feed.end);
    feed.place = attn_find(p, feed.at.item, feed.at.tile, feed.at.range.hi);
    attn16_walk at = feed.at;
    ptx_pdl_wait();
    for (int i = 0; i < S::STAGES - 1; i++)
        attn16_feed_next<T, D>(p, feed, smem);

    attn_state<D / 32> split, all;
    uint32_t q[D / 16][4], pos[2] = {0, 0}, stage = 0;
    attn_clear(split);
    attn_clear(all);
    while (at.i < feed.end) {
        const cu_attn_item &item = at.item;
        ptx_cp_wait<S::STAGES - 2>();
        ptx_syncthreads(); /* this tile is there for all, and all are done with the one before it */
        if (at.tile == at.range.tile) {
            attn16_take_q<T, D>(q, smem + S::Q + (at.i - feed.begin) % 2 * S::Q_BYTES, p.a.xt);
            pos[0] = attn_row_pos<false>(p, item, g);
            pos[1] = attn_row_pos<false>(p, item, g + 8);
        }
        const unsigned char *tile_smem = smem + stage * S::Tile::BYTES;
        stage = stage + 1 == S::STAGES ? 0 : stage + 1;
        float s[2][4];
        attn16_qk<T, D>(p, s, q, tile_smem, at.tile, pos);
        attn16_softmax_pv<T, D>(p, split, s, smem, tile_smem, feed);

        const bool last = at.tile + 1 == at.range.tile_end;
        if (last || attn_ends_split(item, at.tile)) {
            if (attn_is_cut(item))
                attn_put_record<T, false>(p, item, split, at.tile, 0, chunk0);
            else
                attn_merge_split(all, split);
            attn_clear(split);
        }
        if (last) {
            if (attn_is_cut(item)) {
                attn_arrive<ATTN16_THREADS>(p, item, (uint32_t *)(smem + S::FLAG));
            } else {
                attn_put<T>(p, item, all, 0, chunk0);
                attn_zero_tail<ATTN16_THREADS>(p, item);
                attn_clear(all);
            }
        }
        attn16_advance(p, at, feed.end);
    }
}

template <class T, int D> static int attn16_launch(struct gpu_stream *s, const struct attn_params *p)
{
    return gpu_launch(s, "attn_rows16", attn_rows16<T, D>, dim3(p->a.ctas), ATTN16_THREADS, attn16_shape<T, D>::SMEM, true, *p);
}

extern "C" int cu_attn_rows16(struct gpu_stream *s, const struct cu_attn *a)
{
    struct attn_params p;
    int rc = attn_check(a, &p);
    if (rc != ST_OK || a->ctas == 0)
        return rc != ST_OK ? rc : ST_EINVAL;
    const bool wide = a->kv.head_dim > 64;
    switch (a->kv.type) {
    case CU_BF16:
        return wide ? attn16_launch<attn_bf16, 128>(s, &p) : attn16_launch<attn_bf16, 64>(s, &p);
    case CU_F16:
        return wide ? attn16_launch<attn_f16, 128>(s, &p) : attn16_launch<attn_f16, 64>(s, &p);
    default:
        return wide ? attn16_launch<attn_e4m3, 128>(s, &p) : attn16_launch<attn_e4m3, 64>(s, &p);
    }
}

/* Blocks that an SM holds at once. */
template <class T, int D> static uint32_t attn16_per_sm(const struct gpu_info *i)
{
    enum { RESERVED = 1024 }; /* bytes that the system takes of an SM's shared memory for each block */
    const uint32_t n = i->smem_sm / (attn16_shape<T, D>::SMEM + RESERVED), most = attn16_shape<T, D>::BLOCKS_SM;
    return n < 1 ? 1 : n > most ? most : n;
}

extern "C" uint32_t cu_attn_ctas(const struct gpu_info *i, uint32_t head_dim, enum cu_type kv)
{
    if (kv == CU_E4M3)
        return i->sms * (head_dim > 64 ? attn16_per_sm<attn_e4m3, 128>(i) : attn16_per_sm<attn_e4m3, 64>(i));
    return i->sms * (head_dim > 64 ? attn16_per_sm<attn_bf16, 128>(i) : attn16_per_sm<attn_bf16, 64>(i));
}
