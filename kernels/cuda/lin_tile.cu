/* lin_tile: y = x W^T for any number of tokens, with the bits that lin_stream gives.
 *
 * The matrix product for prompts and large batches where rows must not depend on their batch: the library's kernels change their
 * order of sums with m. A block owns 128 rows of W times 32, 64 or 128 tokens and walks over the whole of k: one ring of stages,
 * filled by all threads, one barrier a stage. Class L (lin.cuh) is kept by a second set of accumulators: the chain of a part of k
 * starts at zero and is added to the total at the part's end, once per 512 or more k. Blocks stay and walk over tiles, so that
 * a tile's first stages come in while the one before it is stored.
 *
 * Tiles are taken in bands of 8 token tiles, tokens fastest: the blocks that run at a time share their rows of W and x in L2.
 *
 * Few tiles (4096 outputs of 32 tokens are 32) leave most of the GPU idle. Then a tile is cut where class L cuts k anyway: a
 * block takes one part, leaves its chain in a slab of the workspace and counts itself in. The last one of a tile adds its slabs
 * in the order of the parts, whoever came when, and stores the sums: the bits of the whole tile. It leaves the counter at zero,
 * so a graph can be replayed. One workspace serves all linears of a stream: slabs and counters are touched behind ptx_pdl_wait
 * alone, and a kernel is past that when the one in front of it, and with it every earlier one, has ended.
 *
 * Rejected: groups of parts for a block (the sum of a group is no prefix of the order: each part needs its slab all the same);
 * adding the slabs in the kernel behind (every consumer would have to know); a cluster that adds through shared memory (sm_90
 * alone); and larger tiles (no registers for the second set).
 */
#include "lin.cuh"

enum {
    LIN_TILE_ROWS = 128,
    LIN_SLAB_TOKENS = 64,  /* of the largest tile that is cut */
    LIN_SLAB_TILES = 1024, /* the workspace: so many counters, then a slab for each part of each tile */
    LIN_SLAB_FLOATS = LIN_TILE_ROWS * LIN_SLAB_TOKENS
};

template <int BT> struct lin_tile_shape {
    enum {
        ROWS = LIN_TILE_ROWS,
        TOKENS = BT,
        WARP_ROWS = 32,          /* 4 x 2 warps */
        WARP_TOKENS = BT / 2,
        RT = WARP_ROWS / 16,
        NT = WARP_TOKENS / 8,
        STAGE = (ROWS + TOKENS) * LIN_STAGE_ROW,
        STAGES = BT == 128 ? 4 : 5,
        STRIP_PITCH = WARP_ROWS + 4, /* floats: fragments are written without bank conflicts */
        STRIP = 8 * STRIP_PITCH,     /* sums of 8 tokens of one warp, on their way to y */
        FLAG = STAGES * STAGE + LIN_WARPS * STRIP * 4,
        SMEM = FLAG + 16,
        SLAB = ROWS * TOKENS, /* floats: a chain of all threads */
        CUTS = BT <= LIN_SLAB_TOKENS, /* larger tiles have no registers for it, and are taken where there are many */
        BLOCKS_SM = BT == 32 ? 2 : 1,
        BAND = 8 /* token tiles */
    };
};

struct lin_tile_walk { /* the block's stages, unit after unit: a unit is a tile and all of k, or one part of it */
    lin_k k;
    uint32_t row_tiles, token_tiles, units, stride;
    uint32_t cut;        /* units of a tile: 1, or the parts of k */
    uint32_t row, chunk; /* what this thread copies: rows row + 32i */
    unsigned char *ring;
};

struct lin_tile_place { /* the first output and the first token of a tile */
    uint32_t n, token;
};

struct lin_tile_span { /* stages */
    uint32_t begin, end;
};

struct lin_tile_feed { /* a place in the walk */
    uint32_t unit, slot;
    lin_tile_span stages; /* to come */
    lin_tile_place at;
};

template <int BT> PTX_FN lin_tile_place lin_tile_find(const lin_tile_walk &v, uint32_t unit)
{
    using S = lin_tile_shape<BT>;
    const uint32_t tile = S::CUTS ? unit / v.cut : unit, band = tile / (v.row_tiles * S::BAND), first = band * S::BAND;
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
    if (f.unit < v.units)
        lin_tile_load<T, S::ROWS>(v, v.ring + f.slot * S::STAGE, p.w, f.at.n, p.n, v.k.row_bytes, f.stages.begin);
}

template <class T, int BT> PTX_FN void lin_tile_load_x(const cu_lin &p, const lin_tile_walk &v, const lin_tile_feed &f)
{
    using S = lin_tile_shape<BT>;
    if (f.unit < v.units)
        lin_tile_load<T, S::TOKENS>(v, v.ring + f.slot * S::STAGE + S::ROWS * LIN_STAGE_ROW, p.x, f.at.token, p.m,
                                    (size_t)p.ldx * T::BYTES, f.stages.begin);
}

/* The stages of a unit. */
template <int BT> PTX_FN lin_tile_span lin_tile_stages(const lin_tile_walk &v, uint32_t unit)
{
    if (!lin_tile_shape<BT>::CUTS || v.cut == 1)
        return {0, v.k.stages};
    const uint32_t begin = unit % v.cut * v.k.per_part;
    return {begin, begin + v.k.per_part < v.k.stages ? begin + v.k.per_part : v.k.stages};
}

template <int BT> PTX_FN lin_tile_feed lin_tile_begin(const lin_tile_walk &v, uint32_t first)
{
    return {first, 0, lin_tile_stages<BT>(v, first), lin_tile_find<BT>(v, first)};
}

template <int BT> PTX_FN void lin_tile_advance(const lin_tile_walk &v, lin_tile_feed &f)
{
    f.slot = f.slot + 1 == lin_tile_shape<BT>::STAGES ? 0 : f.slot + 1;
    if (++f.stages.begin < f.stages.end)
        return;
    f.unit += v.stride;
    f.stages = lin_tile_stages<BT>(v, f.unit);
    if (f.unit < v.units)
        f.at = lin_tile_find<BT>(v, f.unit);
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

/* A part of a tile that is cut: its chain goes to its slab. The last part to come gets the sum of all, and true. */
template <int BT>
PTX_FN bool lin_tile_meet(const cu_lin &p, const lin_tile_walk &v, uint32_t unit,
                          float (&total)[lin_tile_shape<BT>::RT][lin_tile_shape<BT>::NT][4], uint32_t *flag)
{
    using S = lin_tile_shape<BT>;
    const uint32_t tile = unit / v.cut;
    uint32_t *const counter = (uint32_t *)p.slabs + tile;
    float *const slabs = (float *)p.slabs + LIN_SLAB_TILES + (size_t)tile * v.cut * S::SLAB + threadIdx.x;
    float *const mine = slabs + unit % v.cut * S::SLAB;
#pragma unroll
    for (int r = 0; r < S::RT; r++)
#pragma unroll
        for (int n = 0; n < S::NT; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                mine[((r * S::NT + n) * 4 + i) * LIN_THREADS] = total[r][n][i];
    ptx_fence_gpu();
    ptx_syncthreads();
    if (threadIdx.x == 0)
        *flag = ptx_atomic_add(counter, 1u) + 1 == v.cut;
    ptx_syncthreads();
    if (*flag == 0)
        return false;
    ptx_fence_gpu();
    lin_fill(total, -0.0f);
#pragma unroll(128 / BT) /* 64 loads of a thread at a time */
    for (uint32_t part = 0; part < v.cut; part++) {
        float chain[S::RT][S::NT][4];
#pragma unroll
        for (int r = 0; r < S::RT; r++)
#pragma unroll
            for (int n = 0; n < S::NT; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    chain[r][n][i] = ptx_ld_cg(slabs + part * S::SLAB + ((r * S::NT + n) * 4 + i) * LIN_THREADS);
        lin_add(total, chain);
    }
    if (threadIdx.x == 0)
        *counter = 0;
    return true;
}

/* A block's share: units first, first + stride, .. of the linear p. Passes ptx_pdl_wait. */
template <class T, int BT> PTX_FN void lin_tile_work(const cu_lin &p, uint32_t first, uint32_t stride, unsigned char *smem)
{
    using S = lin_tile_shape<BT>;
    const uint32_t warp = threadIdx.x / 32, warp_row = warp / 2 * S::WARP_ROWS, warp_token = warp % 2 * S::WARP_TOKENS;
    lin_tile_walk v;
    v.k = lin_cut<T>(p);
    v.row_tiles = (p.n - 1) / S::ROWS + 1;
    v.token_tiles = (p.m - 1) / S::TOKENS + 1;
    v.cut = S::CUTS && p.slabs ? v.k.parts : 1;
    v.units = v.row_tiles * v.token_tiles * v.cut;
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
    for (uint32_t unit = first; unit < v.units; unit += stride) {
        const lin_tile_span span = lin_tile_stages<BT>(v, unit);
        float total[S::RT][S::NT][4], chain[S::RT][S::NT][4];
        lin_fill(total, -0.0f); /* what changes nothing that is added to it */
        for (uint32_t begin = span.begin; begin < span.end; begin += v.k.per_part) {
            const uint32_t end = begin + v.k.per_part < span.end ? begin + v.k.per_part : span.end;
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
        if (S::CUTS && v.cut > 1 && !lin_tile_meet<BT>(p, v, unit, total, (uint32_t *)(smem + S::FLAG)))
            continue;
        const lin_tile_place at = lin_tile_find<BT>(v, unit);
        lin_tile_finish<BT>(p, total, strip, at.n + warp_row, at.token + warp_token);
    }
}

template <class T, int BT>
PTX_KERNEL(LIN_THREADS, (lin_tile_shape<BT>::BLOCKS_SM)) lin_tile(PTX_PARAM(cu_lin) p)
{
    PTX_SMEM(smem);
    lin_tile_work<T, BT>(p, blockIdx.x, gridDim.x, smem);
}

static uint64_t lin_tile_count(const struct cu_lin *p, uint32_t tokens)
{
    return (uint64_t)((p->n - 1) / LIN_TILE_ROWS + 1) * ((p->m - 1) / tokens + 1);
}

/* Tiles are cut when there are fewer than this: by then a tenth of the SMs has none. */
static uint32_t lin_tile_enough(const struct gpu_info *g)
{
    const uint32_t tiles = (g->sms * 9 + 9) / 10;
    return tiles < LIN_SLAB_TILES ? tiles : (uint32_t)LIN_SLAB_TILES;
}

template <class T, int BT> static int lin_tile_launch(struct gpu_stream *s, const struct cu_lin *p)
{
    using S = lin_tile_shape<BT>;
    const struct gpu_info *g = gpu_info(gpu_stream_gpu(s));
    const uint64_t tiles = lin_tile_count(p, BT);
    if (S::SMEM > g->smem_block || tiles > UINT32_MAX / 2)
        return ST_EINVAL;
    struct cu_lin lin = *p;
    if (!S::CUTS || tiles >= lin_tile_enough(g))
        lin.slabs = NULL;
    const uint32_t units = (uint32_t)tiles * (lin.slabs ? lin_cut<T>(lin).parts : 1);
    const dim3 grid = lin_grid(g, units, S::SMEM, S::BLOCKS_SM);
    return gpu_launch<cu_lin>(s, "lin_tile", lin_tile<T, BT>, grid, LIN_THREADS, S::SMEM, true, lin);
}

/* Tokens per tile: no more than there are, and few enough that every SM has a tile, though then more of the rows come from L2
 * twice: not as few where the tile may be cut instead. */
static uint32_t lin_tile_tokens(const struct gpu_info *g, const struct cu_lin *p)
{
    const uint32_t least = p->slabs ? (uint32_t)LIN_SLAB_TOKENS : 32;
    uint32_t tokens = p->m <= 32 ? 32 : p->m <= 64 ? 64 : 128;
    while (tokens > least && lin_tile_count(p, tokens) < g->sms)
        tokens /= 2;
    return tokens;
}

extern "C" size_t cu_lin_slab_bytes(const struct gpu_info *g)
{
    return (LIN_SLAB_TILES + (size_t)lin_tile_enough(g) * LIN_PARTS * LIN_SLAB_FLOATS) * sizeof(float);
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
