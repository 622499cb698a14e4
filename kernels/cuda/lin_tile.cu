/* lin_tile: y = x W^T for any number of tokens, with the bits that lin_stream gives.
 *
 * The matrix product for prompts and large batches where rows must not depend on their batch: the library's kernels change their
 * order of sums with m. A block owns 128 rows of W times 32, 64 or 128 tokens and walks over the whole of k: one ring of stages,
 * filled by all threads, one barrier a stage. Class L (lin.cuh) is kept by a second set of accumulators: the chain of a part of k
 * starts at zero and is added to the total at the part's end, once per 512 or more k. Blocks stay and walk over tiles, so that
 * a tile's first stages come in while the one before it is stored.
 *
 * Tiles are taken in bands of 8 token tiles, tokens fastest: the blocks that run at a time share their rows of W and x in L2.
 * Rejected: split k (needs workspace and a second pass), and larger tiles (no registers for the second set).
 */
#include "lin.cuh"

template <int BT> struct lin_tile_shape {
    enum {
        ROWS = 128,
        TOKENS = BT,
        WARP_ROWS = 32,          /* 4 x 2 warps */
        WARP_TOKENS = BT / 2,
        RT = WARP_ROWS / 16,
        NT = WARP_TOKENS / 8,
        STAGE = (ROWS + TOKENS) * LIN_STAGE_ROW,
        STAGES = BT == 128 ? 4 : 5,
        STRIP_PITCH = WARP_ROWS + 4, /* floats: fragments are written without bank conflicts */
        STRIP = 8 * STRIP_PITCH,     /* sums of 8 tokens of one warp, on their way to y */
        SMEM = STAGES * STAGE + LIN_WARPS * STRIP * 4,
        BLOCKS_SM = BT == 32 ? 2 : 1,
        BAND = 8 /* token tiles */
    };
};

struct lin_tile_walk { /* the block's stages: all of k, tile after tile */
    lin_k k;
    uint32_t row_tiles, token_tiles, tiles, stride;
    uint32_t row, chunk; /* what this thread copies: rows row + 32i */
    unsigned char *ring;
};

struct lin_tile_place { /* the first output and the first token of a tile */
    uint32_t n, token;
};

struct lin_tile_feed { /* a place in the walk */
    uint32_t tile, stage, slot;
    lin_tile_place at;
};

template <int BT> PTX_FN lin_tile_place lin_tile_find(const lin_tile_walk &v, uint32_t tile)
{
    using S = lin_tile_shape<BT>;
    const uint32_t band = tile / (v.row_tiles * S::BAND), first = band * S::BAND;
    const uint32_t left = v.token_tiles - first, width = left < S::BAND ? left : (uint32_t)S::BAND;
    const uint32_t i = tile - band * v.row_tiles * S::BAND;
    return {i / width * S::ROWS, (first + i % width) * S::TOKENS};
}

/* Rows first .. first + COUNT - 1 of w or x: zeros for those beyond `rows`. */
template <class T, int COUNT>
PTX_FN void lin_tile_load(const lin_tile_walk &v, unsigned char *to, const void *from, uint32_t first, uint32_t rows,
                          size_t pitch, uint32_t stage)
{
    const uint32_t at = stage * LIN_STAGE_ROW + v.chunk * 16, row = first + v.row;
    const unsigned char *src = (const unsigned char *)from + row * pitch + at;
    const bool in_k = T::BYTES == 2 || at < v.k.row_bytes;
#pragma unroll
    for (int i = 0; i < COUNT / 32; i++)
        ptx_cp16(to + ptx_swizzle128(v.row + 32 * i, v.chunk), src + 32 * i * pitch, in_k && row + 32 * i < rows ? 16 : 0);
}

template <class T, int BT> PTX_FN void lin_tile_load_w(const cu_lin &p, const lin_tile_walk &v, const lin_tile_feed &f)
{
    using S = lin_tile_shape<BT>;
    if (f.tile < v.tiles)
        lin_tile_load<T, S::ROWS>(v, v.ring + f.slot * S::STAGE, p.w, f.at.n, p.n, v.k.row_bytes, f.stage);
}

template <class T, int BT> PTX_FN void lin_tile_load_x(const cu_lin &p, const lin_tile_walk &v, const lin_tile_feed &f)
{
    using S = lin_tile_shape<BT>;
    if (f.tile < v.tiles)
        lin_tile_load<T, S::TOKENS>(v, v.ring + f.slot * S::STAGE + S::ROWS * LIN_STAGE_ROW, p.x, f.at.token, p.m,
                                    (size_t)p.ldx * T::BYTES, f.stage);
}

template <int BT> PTX_FN lin_tile_feed lin_tile_begin(const lin_tile_walk &v, uint32_t first)
{
    return {first, 0, 0, lin_tile_find<BT>(v, first)};
}

template <int BT> PTX_FN void lin_tile_advance(const lin_tile_walk &v, lin_tile_feed &f)
{
    f.slot = f.slot + 1 == lin_tile_shape<BT>::STAGES ? 0 : f.slot + 1;
    if (++f.stage < v.k.stages)
        return;
    f.stage = 0;
    f.tile += v.stride;
    if (f.tile < v.tiles)
        f.at = lin_tile_find<BT>(v, f.tile);
}

/* 8 tokens from token0 on, as they lie in a strip: outputs n0 .. n0 + 31, a lane each. */
template <int PITCH> PTX_FN void lin_tile_put(const cu_lin &p, const float *strip, uint32_t token0, uint32_t n0)
{
    const uint32_t lane = threadIdx.x % 32, n = n0 + lane;
    const lin_row r = lin_row_of(p, n);
    float old[8], x_scale[8];
#pragma unroll
    for (uint32_t i = 0; i < 8; i++) {
        old[i] = token0 + i < p.m ? lin_old(p, token0 + i, n) : 0.0f;
        x_scale[i] = token0 + i < p.m ? lin_x_scale(p, token0 + i) : 1.0f;
    }
#pragma unroll
    for (uint32_t i = 0; i < 8; i++)
        if (token0 + i < p.m)
            lin_put(p, token0 + i, n, strip[i * PITCH + lane], r, x_scale[i], old[i]);
}

/* The same for pairs of gate and up: 16 channels, half of the lanes for each of two tokens. */
template <int PITCH> PTX_FN void lin_tile_put_gated(const cu_lin &p, const float *strip, uint32_t token0, uint32_t n0)
{
    const uint32_t lane = threadIdx.x % 32, row = lane % 16 / CU_GATE_GROUP * 2 * CU_GATE_GROUP + lane % CU_GATE_GROUP;
    const lin_row gate = lin_row_of(p, n0 + row), up = lin_row_of(p, n0 + row + CU_GATE_GROUP);
#pragma unroll
    for (uint32_t i = 0; i < 8; i += 2) {
        const uint32_t token = token0 + i + lane / 16;
        const float *at = strip + (i + lane / 16) * PITCH + row;
        if (token < p.m)
            lin_put_gated(p, token, n0 + row, at[0], at[CU_GATE_GROUP], gate, up, lin_x_scale(p, token));
    }
}

/* A warp's rows n0 .. n0 + 31 of tokens from token0 on to y. In the fragments a lane has rows g and g + 8 of two tokens; through
 * its strip of shared memory a warp stores 32 neighbouring outputs of a token at a time. */
template <int BT>
PTX_FN void lin_tile_finish(const cu_lin &p, const float (&total)[lin_tile_shape<BT>::RT][lin_tile_shape<BT>::NT][4],
                            float *strip, uint32_t n0, uint32_t token0)
{
    using S = lin_tile_shape<BT>;
    const uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < S::NT; n++) {
        if (token0 + 8 * n >= p.m)
            break;
        ptx_syncwarp(); /* the strip before has been read */
#pragma unroll
        for (int r = 0; r < S::RT; r++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                strip[(2 * t + i % 2) * S::STRIP_PITCH + 16 * r + 8 * (i / 2) + g] = total[r][n][i];
        ptx_syncwarp();
        if (p.epilogue == CU_SWIGLU)
            lin_tile_put_gated<S::STRIP_PITCH>(p, strip, token0 + 8 * n, n0);
        else
            lin_tile_put<S::STRIP_PITCH>(p, strip, token0 + 8 * n, n0);
    }
}

/* A block's share: tiles first, first + stride, .. of the linear p. Passes ptx_pdl_wait. */
template <class T, int BT> PTX_FN void lin_tile_work(const cu_lin &p, uint32_t first, uint32_t stride, unsigned char *smem)
{
    using S = lin_tile_shape<BT>;
    const uint32_t warp = threadIdx.x / 32, warp_row = warp / 2 * S::WARP_ROWS, warp_token = warp % 2 * S::WARP_TOKENS;
    lin_tile_walk v;
    v.k = lin_cut<T>(p);
    v.row_tiles = (p.n - 1) / S::ROWS + 1;
    v.token_tiles = (p.m - 1) / S::TOKENS + 1;
    v.tiles = v.row_tiles * v.token_tiles;
    v.stride = stride;
    v.row = threadIdx.x / 8;
    v.chunk = threadIdx.x % 8;
    v.ring = smem;
    float *const strip = (float *)(smem + S::STAGES * S::STAGE) + warp * S::STRIP;

    /* Weights first: they depend on no kernel. They all count as the first group. */
    lin_tile_feed ahead = lin_tile_begin<BT>(v, first);
    for (int i = 0; i < S::STAGES - 1; i++) {
        lin_tile_load_w<T, BT>(p, v, ahead);
        lin_tile_advance<BT>(v, ahead);
    }
    ptx_pdl_launch();
    ptx_pdl_wait();
    ahead = lin_tile_begin<BT>(v, first);
    for (int i = 0; i < S::STAGES - 1; i++) {
        lin_tile_load_x<T, BT>(p, v, ahead);
        ptx_cp_commit();
        lin_tile_advance<BT>(v, ahead);
    }

    uint32_t slot = 0;
    for (uint32_t tile = first; tile < v.tiles; tile += stride) {
        float total[S::RT][S::NT][4], chain[S::RT][S::NT][4];
        lin_fill(total, -0.0f); /* what changes nothing that is added to it */
        for (uint32_t begin = 0; begin < v.k.stages; begin += v.k.per_part) {
            const uint32_t end = begin + v.k.per_part < v.k.stages ? begin + v.k.per_part : v.k.stages;
            lin_fill(chain, 0.0f);
            for (uint32_t stage = begin; stage < end; stage++) {
                ptx_cp_wait<S::STAGES - 2>();
                ptx_syncthreads(); /* this stage is there for all, and all are done with the one that is filled next */
                lin_tile_load_w<T, BT>(p, v, ahead);
                lin_tile_load_x<T, BT>(p, v, ahead);
                ptx_cp_commit(); /* at the end of the walk too: the wait counts groups */
                lin_tile_advance<BT>(v, ahead);
                const unsigned char *w = v.ring + slot * S::STAGE, *x = w + S::ROWS * LIN_STAGE_ROW;
                lin_mma_stage<T, S::RT, S::NT>(chain, w + warp_row * LIN_STAGE_ROW, x + warp_token * LIN_STAGE_ROW);
                slot = slot + 1 == S::STAGES ? 0 : slot + 1;
            }
            lin_add(total, chain);
        }
        const lin_tile_place at = lin_tile_find<BT>(v, tile);
        lin_tile_finish<BT>(p, total, strip, at.n + warp_row, at.token + warp_token);
    }
}

template <class T, int BT>
PTX_KERNEL(LIN_THREADS, (lin_tile_shape<BT>::BLOCKS_SM)) lin_tile(PTX_PARAM(cu_lin) p)
{
    PTX_SMEM(smem);
    lin_tile_work<T, BT>(p, blockIdx.x, gridDim.x, smem);
}

template <class T, int BT> static int lin_tile_launch(struct gpu_stream *s, const struct cu_lin *p)
{
    using S = lin_tile_shape<BT>;
    const struct gpu_info *g = gpu_info(gpu_stream_gpu(s));
    const uint64_t tiles = (uint64_t)((p->n - 1) / S::ROWS + 1) * ((p->m - 1) / S::TOKENS + 1);
    if (S::SMEM > g->smem_block || tiles > UINT32_MAX / 2)
        return ST_EINVAL;
    const dim3 grid = lin_grid(g, (uint32_t)tiles, S::SMEM, S::BLOCKS_SM);
    return gpu_launch<cu_lin>(s, "lin_tile", lin_tile<T, BT>, grid, LIN_THREADS, S::SMEM, true, *p);
}

/* Tokens per tile: no more than there are, and few enough that every SM has a tile: then more of the rows come from L2 twice. */
static uint32_t lin_tile_tokens(const struct gpu_info *g, const struct cu_lin *p)
{
    const uint64_t row_tiles = (p->n - 1) / lin_tile_shape<32>::ROWS + 1;
    uint32_t tokens = p->m <= 32 ? 32 : p->m <= 64 ? 64 : 128;
    while (tokens > 32 && row_tiles * ((p->m - 1) / tokens + 1) < g->sms)
        tokens /= 2;
    return tokens;
}

template <class T> static int lin_tile_pick(struct gpu_stream *s, const struct cu_lin *p)
{
    switch (lin_tile_tokens(gpu_info(gpu_stream_gpu(s)), p)) {
    case 32:
        return lin_tile_launch<T, 32>(s, p);
    case 64:
        return lin_tile_launch<T, 64>(s, p);
    default:
        return lin_tile_launch<T, 128>(s, p);
    }
}

extern "C" int cu_lin_tile(struct gpu_stream *s, const struct cu_lin *p)
{
    int rc = lin_check(p);
    if (rc != ST_OK)
        return rc;
    switch (p->wt) {
    case CU_BF16:
        return lin_tile_pick<lin_16bit<ptx_bf16>>(s, p);
    case CU_F16:
        return lin_tile_pick<lin_16bit<ptx_f16>>(s, p);
    default:
        return lin_tile_pick<lin_e4m3>(s, p);
    }
}
