/* lin_stream: y = x W^T for up to 16 tokens, at the speed at which the weights can be read.
 *
 * A decode step reads every weight once and does next to nothing with it, so the one aim is to keep memory busy without a pause:
 * at least 48 KB of loads in flight on each SM, across tiles, across barriers and, on sm_90, from before the kernel in front has
 * ended. Hence the shape: a block owns 16 or 32 rows of W at a time, and each of its 8 warps owns one part of k (class L,
 * lin.cuh) and a private ring of stages that it alone fills and drains: the loop has no barrier wider than the warp. At the end
 * of a tile the 8 chains meet in shared memory, 256 threads add them in order and store; meanwhile the rings fill for the next
 * tile.
 *
 * With up to 4 tokens the norm in front of a linear is done here: while the rings fill, each block norms all rows into shared
 * memory, where they stay, and the ring is left to the weights. What every block reads again comes from L2; a launch, and a pass
 * of rows through memory, are gone from the step.
 *
 * Tokens are the 8-wide side of the mma: one token costs as much tensor time as eight, a few percent of the pipe, and gets the
 * bits that it would get among sixteen. Rejected: dot products on the CUDA cores for m = 1 (more instructions per weight, and
 * other bits), and splitting k over blocks (a second pass or float atomics).
 */
#include "lin.cuh"
#include "rows_norm.cuh"

/* RESIDENT: x is in shared memory as a whole, behind the sums; else the ring brings it stage by stage. */
template <int ROW_TILES, int TOKEN_TILES, bool RESIDENT> struct lin_stream_shape {
    enum {
        RT = ROW_TILES,
        NT = TOKEN_TILES,
        X_RESIDENT = RESIDENT,
        ROWS = 16 * RT,
        TOKENS = 8 * NT,
        STAGE = (ROWS + (RESIDENT ? 0 : TOKENS)) * LIN_STAGE_ROW, /* of one warp */
        STAGES = RESIDENT ? 6 : RT == 1 ? 4 : 3,
        RING = STAGES * STAGE,
        RED_PITCH = ROWS + 4, /* floats of a token's row of sums: fragments are written without bank conflicts */
        RED = TOKENS * RED_PITCH,
        REDS = RT == 1 ? 2 : 1, /* two where they fit into an A100's 163 KB: one barrier a tile less */
        SMEM = LIN_WARPS * RING + REDS * LIN_WARPS * RED * 4,
        BLOCKS_SM = RT == 1 ? 2 : 1
    };
};

/* What a warp works through: the stages of its part of k, tile after tile. */
struct lin_stream_warp {
    lin_k k;
    uint32_t tiles, stride; /* the block's tiles: every stride-th from blockIdx.x on, below tiles */
    uint32_t begin, end;    /* stages of the part; none if begin >= end */
    uint32_t row, chunk;    /* what this lane copies: rows row + 4i */
    unsigned char *ring;
};

/* A place in it. */
struct lin_stream_feed {
    uint32_t tile, stage, slot;
};

template <class T, class S>
PTX_FN void lin_stream_load_w(const cu_lin &p, const lin_stream_warp &v, const lin_stream_feed &f)
{
    if (f.tile >= v.tiles || f.stage >= v.end)
        return;
    unsigned char *to = v.ring + f.slot * S::STAGE;
    const uint32_t at = f.stage * LIN_STAGE_ROW + v.chunk * 16, n = f.tile * S::ROWS + v.row;
    const unsigned char *from = (const unsigned char *)p.w + (size_t)n * v.k.row_bytes + at;
    const bool in_k = T::BYTES == 2 || at < v.k.row_bytes;
#pragma unroll
    for (int i = 0; i < S::ROWS / 4; i++) /* a last tile of 16 rows only: zeros below it */
        ptx_cp16(to + ptx_swizzle128(v.row + 4 * i, v.chunk), from + (size_t)(4 * i) * v.k.row_bytes,
                 in_k && (S::RT == 1 || n + 4 * i < p.n) ? 16 : 0);
}

/* Rows from m on keep what shared memory held, be it NaN: their columns of the product are not stored, and columns do not mix. */
template <class T, class S>
PTX_FN void lin_stream_load_x(const cu_lin &p, const lin_stream_warp &v, const lin_stream_feed &f)
{
    if (f.tile >= v.tiles || f.stage >= v.end)
        return;
    unsigned char *to = v.ring + f.slot * S::STAGE + S::ROWS * LIN_STAGE_ROW;
    const uint32_t at = f.stage * LIN_STAGE_ROW + v.chunk * 16;
    const size_t pitch = (size_t)p.ldx * T::BYTES;
    const unsigned char *from = (const unsigned char *)p.x + v.row * pitch + at;
    const bool in_k = T::BYTES == 2 || at < v.k.row_bytes;
#pragma unroll
    for (int i = 0; i < S::TOKENS / 4; i++)
        if (v.row + 4 * i < p.m)
            ptx_cp16(to + ptx_swizzle128(v.row + 4 * i, v.chunk), from + 4 * i * pitch, in_k ? 16 : 0);
}

template <class S> PTX_FN void lin_stream_advance(const lin_stream_warp &v, lin_stream_feed &f)
{
    f.slot = f.slot + 1 == S::STAGES ? 0 : f.slot + 1;
    if (++f.stage >= v.end) {
        f.stage = v.begin;
        f.tile += v.stride;
    }
}

/* A warp's chain of a tile: red[token][row]. */
template <class S> PTX_FN void lin_stream_leave(const float (&acc)[S::RT][S::NT][4], float *red)
{
    const uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int r = 0; r < S::RT; r++)
#pragma unroll
        for (int n = 0; n < S::NT; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                red[(8 * n + 2 * t + i % 2) * S::RED_PITCH + 16 * r + 8 * (i / 2) + g] = acc[r][n][i];
}

template <int RED> PTX_FN float lin_stream_sum(const float *red, uint32_t parts)
{
    float sum = red[0];
#pragma unroll
    for (uint32_t part = 1; part < LIN_PARTS; part++)
        if (part < parts)
            sum += red[part * RED];
    return sum;
}

/* All threads: the chains of a tile to y. Consecutive threads take consecutive outputs of a token. */
template <class S> PTX_FN void lin_stream_finish(const cu_lin &p, const float *red, uint32_t parts, uint32_t tile)
{
    const bool gated = p.epilogue == CU_SWIGLU;
    const uint32_t width = gated ? S::ROWS / 2 : S::ROWS;
    for (uint32_t i = threadIdx.x; i < p.m * width; i += LIN_THREADS) {
        const uint32_t token = i / width, j = i % width;
        const float x_scale = lin_x_scale(p, token);
        const uint32_t row = gated ? j / CU_GATE_GROUP * 2 * CU_GATE_GROUP + j % CU_GATE_GROUP : j;
        const uint32_t n = tile * S::ROWS + row;
        const float *at = red + token * S::RED_PITCH + row;
        const float sum = lin_stream_sum<S::RED>(at, parts);
        if (gated)
            lin_put_gated(p, token, n, sum, lin_stream_sum<S::RED>(at + CU_GATE_GROUP, parts), lin_row_of(p, n),
                          lin_row_of(p, n + CU_GATE_GROUP), x_scale);
        else
            lin_put(p, token, n, sum, lin_row_of(p, n), x_scale, lin_old(p, token, n));
    }
}

template <class T, class S> PTX_FN lin_stream_warp lin_stream_share(const cu_lin &p, unsigned char *smem)
{
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    lin_stream_warp v;
    v.k = lin_cut<T>(p);
    v.tiles = (p.n - 1) / S::ROWS + 1;
    v.stride = gridDim.x;
    v.begin = warp * v.k.per_part;
    v.end = v.begin + v.k.per_part < v.k.stages ? v.begin + v.k.per_part : v.k.stages;
    v.row = lane / 8;
    v.chunk = lane % 8;
    v.ring = smem + warp * S::RING;
    return v;
}

/* A block's tiles, once the first STAGES - 1 stages are under way, a group each; `ahead` is behind them. x: the resident rows,
 * a plane of p.m rows per stage. */
template <class T, class S>
PTX_FN void lin_stream_tiles(const cu_lin &p, const lin_stream_warp &v, lin_stream_feed ahead, float *reds,
                             const unsigned char *x)
{
    const uint32_t warp = threadIdx.x / 32;
    uint32_t slot = 0, turn = 0;
    for (uint32_t tile = blockIdx.x; tile < v.tiles; tile += v.stride) {
        float acc[S::RT][S::NT][4];
        lin_fill(acc, 0.0f);
        for (uint32_t stage = v.begin; stage < v.end; stage++) {
            ptx_cp_wait<S::STAGES - 2>();
            ptx_syncwarp(); /* this stage is there for all lanes, and all are done with the one that is filled next */
            lin_stream_load_w<T, S>(p, v, ahead);
            if (!S::X_RESIDENT)
                lin_stream_load_x<T, S>(p, v, ahead);
            ptx_cp_commit(); /* at the end of the stream too: the wait counts groups */
            lin_stream_advance<S>(v, ahead);
            const unsigned char *at = v.ring + slot * S::STAGE;
            lin_mma_stage<T, S::RT, S::NT>(
                acc, at, S::X_RESIDENT ? x + (size_t)stage * p.m * LIN_STAGE_ROW : at + S::ROWS * LIN_STAGE_ROW);
            slot = slot + 1 == S::STAGES ? 0 : slot + 1;
        }
        float *red = reds + turn * LIN_WARPS * S::RED;
        turn = (turn + 1) % S::REDS;
        if (S::REDS == 1)
            ptx_syncthreads(); /* the last tile's chains have been read */
        if (v.begin < v.end)
            lin_stream_leave<S>(acc, red + warp * S::RED);
        ptx_syncthreads(); /* every warp, also one without a part of k */
        lin_stream_finish<S>(p, red, v.k.parts, tile);
    }
}

template <class T, int RT, int NT>
PTX_KERNEL(LIN_THREADS, (lin_stream_shape<RT, NT, false>::BLOCKS_SM)) lin_stream(PTX_PARAM(cu_lin) p)
{
    using S = lin_stream_shape<RT, NT, false>;
    PTX_SMEM(smem);
    const lin_stream_warp v = lin_stream_share<T, S>(p, smem);

    /* Weights depend on no kernel: the ring is full of them by the time x may be read. They all count as the first group. */
    const lin_stream_feed begin = {blockIdx.x, v.begin, 0};
    lin_stream_feed ahead = begin;
    for (int i = 0; i < S::STAGES - 1; i++) {
        lin_stream_load_w<T, S>(p, v, ahead);
        lin_stream_advance<S>(v, ahead);
    }
    ptx_pdl_launch();
    ptx_pdl_wait();
    ahead = begin;
    for (int i = 0; i < S::STAGES - 1; i++) {
        lin_stream_load_x<T, S>(p, v, ahead);
        ptx_cp_commit();
        lin_stream_advance<S>(v, ahead);
    }
    lin_stream_tiles<T, S>(p, v, ahead, (float *)(smem + LIN_WARPS * S::RING), NULL);
}

template <class T, int RT, int NT> static int lin_stream_launch(struct gpu_stream *s, const struct cu_lin *p)
{
    using S = lin_stream_shape<RT, NT, false>;
    const struct gpu_info *g = gpu_info(gpu_stream_gpu(s));
    if (S::SMEM > g->smem_block)
        return ST_EINVAL;
    const dim3 grid = lin_grid(g, (p->n - 1) / S::ROWS + 1, S::SMEM, S::BLOCKS_SM);
    return gpu_launch<cu_lin>(s, "lin_stream", lin_stream<T, RT, NT>, grid, LIN_THREADS, S::SMEM, true, *p);
}

template <class T> static int lin_stream_pick(struct gpu_stream *s, const struct cu_lin *p)
{
    return p->m <= 8 ? lin_stream_launch<T, 1, 1>(s, p) : lin_stream_launch<T, 2, 2>(s, p);
}

extern "C" int cu_lin_stream(struct gpu_stream *s, const struct cu_lin *p)
{
    if (lin_check(p) != ST_OK || p->m > CU_STREAM_ROWS)
        return ST_EINVAL;
    switch (p->wt) {
    case CU_BF16:
        return lin_stream_pick<lin_16bit<ptx_bf16>>(s, p);
    case CU_F16:
        return lin_stream_pick<lin_16bit<ptx_f16>>(s, p);
    default:
        return lin_stream_pick<lin_e4m3>(s, p);
    }
}

/* ---- with the norm in front ------------------------------------------------------------------------------------------------ */

using lin_stream_normed = lin_stream_shape<1, 1, true>;

enum {
    LIN_NORM_KEEP = 2,                           /* chunks that a thread keeps of each row: all of 4096 values */
    LIN_NORM_SCALES = lin_stream_normed::SMEM,   /* where the rows' scales are in shared memory */
    LIN_NORM_X = LIN_NORM_SCALES + LIN_STAGE_ROW /* and x: planes of m rows of a stage, swizzled */
};

struct lin_stream_norm_params {
    cu_lin lin;
    cu_norm norm;
};

struct lin_norm_out { /* the planes of x */
    unsigned char *x;
    uint32_t plane; /* bytes */
    PTX_FN_IN unsigned char *at(const lin_norm_out &out, uint32_t i, uint32_t byte)
    {
        const uint32_t in_stage = byte % LIN_STAGE_ROW;
        return out.x + (size_t)(byte / LIN_STAGE_ROW) * out.plane + ptx_swizzle128(i, in_stage / 16) + in_stage % 16;
    }
};

/* Act: what the norm rounds to. The fragments' 8 tokens reach beyond the m rows of a plane, into the next one: those columns of
 * the product are not stored, and columns do not mix. */
template <class T, class Act>
PTX_KERNEL(LIN_THREADS, (lin_stream_normed::BLOCKS_SM)) lin_stream_norm(PTX_PARAM(lin_stream_norm_params) params)
{
    using S = lin_stream_normed;
    constexpr bool QUANT = T::BYTES == 1;
    PTX_SMEM(smem);
    float *const reds = (float *)(smem + LIN_WARPS * S::RING), *const scales = (float *)(smem + LIN_NORM_SCALES);
    unsigned char *const x = smem + LIN_NORM_X;
    cu_lin p = params.lin;
    if (QUANT)
        p.x_scale = scales;
    const lin_stream_warp v = lin_stream_share<T, S>(p, smem);

    lin_stream_feed ahead = {blockIdx.x, v.begin, 0};
    for (int i = 0; i < S::STAGES - 1; i++) {
        lin_stream_load_w<T, S>(p, v, ahead);
        ptx_cp_commit();
        lin_stream_advance<S>(v, ahead);
    }
    float gain[LIN_NORM_KEEP][8];
    norm_load_gain(gain, params.norm);
    ptx_pdl_launch();
    ptx_pdl_wait();
    const lin_norm_out out = {x, p.m * LIN_STAGE_ROW};
    const uint32_t width = v.k.stages * (LIN_STAGE_ROW / T::BYTES); /* zeros where w has none: the last stage of e4m3 */
    norm_rows<Act, QUANT, CU_LIN_NORM_ROWS>(params.norm, gain, 0, p.m, width, out, scales, reds);
    ptx_syncthreads(); /* x and its scales are there; and the norm is done with the room of the sums */
    lin_stream_tiles<T, S>(p, v, ahead, reds, x);
}

template <class T, class Act>
static int lin_stream_norm_launch(struct gpu_stream *s, const struct cu_lin *p, const struct cu_norm *norm)
{
    using S = lin_stream_normed;
    static_assert((int)LIN_THREADS == (int)ROWS_THREADS, "a block norms as cu_rows_norm does");
    static_assert(NORM_SHARED(CU_LIN_NORM_ROWS) <= S::REDS * LIN_WARPS * S::RED * 4, "the norm works in the room of the sums");
    const struct gpu_info *g = gpu_info(gpu_stream_gpu(s));
    const uint64_t stages = ((uint64_t)p->k * T::BYTES + LIN_STAGE_ROW - 1) / LIN_STAGE_ROW;
    const uint64_t x = (stages * p->m + S::TOKENS - p->m) * LIN_STAGE_ROW; /* the fragments of the last plane end inside */
    if (LIN_NORM_X + x > g->smem_block)
        return ST_EINVAL;
    const uint32_t smem = LIN_NORM_X + (uint32_t)x;
    const dim3 grid = lin_grid(g, (p->n - 1) / S::ROWS + 1, smem, S::BLOCKS_SM);
    const lin_stream_norm_params params = {*p, *norm};
    return gpu_launch(s, "lin_stream_norm", lin_stream_norm<T, Act>, grid, LIN_THREADS, smem, true, params);
}

extern "C" int cu_lin_stream_norm(struct gpu_stream *s, const struct cu_lin *p, const struct cu_norm *norm)
{
    if (!lin_takes_w(p) || p->m > CU_LIN_NORM_ROWS)
        return ST_EINVAL;
    if (norm->m != p->m || norm->yt != p->wt || !norm->d || norm->d > p->k || !norm->x || !norm->gain || norm->x == p->y)
        return ST_EINVAL;
    switch (p->wt) {
    case CU_BF16:
        return lin_stream_norm_launch<lin_16bit<ptx_bf16>, ptx_bf16>(s, p, norm);
    case CU_F16:
        return lin_stream_norm_launch<lin_16bit<ptx_f16>, ptx_f16>(s, p, norm);
    default:
        return lin_stream_norm_launch<lin_e4m3, ptx_bf16>(s, p, norm);
    }
}
