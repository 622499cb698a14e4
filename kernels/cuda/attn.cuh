/* attn: the numbers of attention, for both kernels: fragments of K and V, the online softmax of a tile, the merge of splits. With
 * it the numeric class A: kernels that use these functions in the order given here give equal bits for a row.
 *
 * Owns     nothing.
 * Units    a tile = 64 tokens of KV in shared memory, K rows and below them V rows, one row per token; chunk = 16 dims.
 * States   -
 * Threads  whole warps. Lane: g = lane / 4 holds rows g and g + 8 of 16 (index h = 0, 1), t = lane % 4 a part of the columns.
 * Errors   -
 * Bounds   head_dim up to D, the template's 64 or 128: columns from head_dim to D are zeros in shared memory.
 * Source   KERNELS design, sections 0.3 and 4. Class A, per row: KV is cut into splits (cu_attn.h). Inside of a split, tiles
 *          ascending: s = chain over k16 groups of q k, ascending, from 0; x = s * scale * log2(e) (e4m3: s * 2^e
 *          first), -inf where masked; mn = max(m, max x), a = 2^(m - mn), P = 16-bit 2^(x - mn), O = O a, l = l a, then one mma
 *          per 16 tokens, ascending, adds P V to O and P 1 to l. Splits are merged ascending by attn_merge from (-inf, 0, 0).
 *          A tile or a split that the row does not see changes no bit, so that it may be left out (zeros change their sign at
 *          most: attn_value ends that).
 */
#ifndef STATOR_ATTN_CUH
#define STATOR_ATTN_CUH

#include "cu_attn.h"
#include "launch.h"
#include "ptx.h"

#define ATTN_NONE ptx_float(0xff800000u) /* -inf: the maximum of nothing */

/* Shared memory of one tile. The pitch is an odd multiple of 16 bytes: ldmatrix has no bank conflicts, for every D. */
template <class T, int D> struct attn_tile {
    enum {
        CHUNKS = D * T::BYTES / 16, /* of 16 bytes */
        PITCH = D * T::BYTES + 16,
        V = CU_KV_TILE * PITCH,
        SCALES = 2 * V, /* E8M0 bytes: 64 of K, 64 of V */
        BYTES = SCALES + (T::BYTES == 1 ? 2 * CU_KV_TILE : 0),
        Q_PITCH = 2 * D + 16
    };
};

/* ---- the types of KV ----------------------------------------------------------------------------------------------- */

/* Fragments come for two k16 groups at once, b[group] = {b0, b1} of columns 0-7 and {b0, b1} of columns 8-15:
 * k_frag: 16 tokens as columns, 32 dims from dim 32 * pair on; v_frag: 16 dims as columns (chunk), 32 tokens.
 * columns: which dims the accumulators o[2 chunk], o[2 chunk + 1] hold, as two pairs of neighbours. */
template <class X, uint32_t ONE> struct attn_16bit {
    enum { BYTES = 2 };
    enum : uint32_t { ONES = ONE };

    PTX_FN_IN void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t *b)
    {
        X::mma(c, a, b[0], b[1]);
    }
    PTX_FN_IN uint32_t pack(float lo, float hi)
    {
        return X::pack(lo, hi);
    }
    PTX_FN_IN uint32_t pack_out(uint8_t, float lo, float hi)
    {
        return X::pack(lo, hi);
    }
    PTX_FN_IN float k_scale(const unsigned char *)
    {
        return 1.0f;
    }
    PTX_FN_IN void v_scale(uint32_t (&)[4], const unsigned char *)
    {
    }
    template <int D> PTX_FN_IN void k_frag(uint32_t (&b)[2][4], const unsigned char *k, int pair)
    {
        const uint32_t lane = threadIdx.x % 32;
        const unsigned char *at = k + (lane % 8 + lane / 16 * 8) * attn_tile<attn_16bit, D>::PITCH + lane / 8 % 2 * 16;
#pragma unroll
        for (int j = 0; j < 2; j++)
            ptx_ldmatrix_x4(b[j], at + (2 * pair + j) * 32);
    }
    template <int D> PTX_FN_IN void v_frag(uint32_t (&b)[2][4], const unsigned char *v, int chunk, const uint32_t (&)[4])
    {
        const uint32_t lane = threadIdx.x % 32;
#pragma unroll
        for (int j = 0; j < 2; j++)
            ptx_ldmatrix_x4_trans(b[j], v + (16 * j + lane % 16) * attn_tile<attn_16bit, D>::PITCH + chunk * 32 + lane / 16 * 16);
    }
    PTX_FN_IN uint32_t dim(int pair)
    {
        return 8 * pair + threadIdx.x % 4 * 2;
    }
    PTX_FN_IN float column(const float *o0, const float *o1, int h, int pair, int i)
    {
        return pair == 0 ? o0[2 * h + i] : o1[2 * h + i];
    }
};

using attn_bf16 = attn_16bit<ptx_bf16, 0x3f803f80u>;
using attn_f16 = attn_16bit<ptx_f16, 0x3c003c00u>;

/* e4m3 becomes f16, exactly, in registers. A row of 16 bytes of ldmatrix gives a lane dims 4t..4t+3 of K: they become the mma's k
 * slots 2t, 2t + 1, 2t + 8, 2t + 9, and attn_q_to_f16 has put q into the same order. Of V the transposed form gives dims 2g and
 * 2g + 1 of two tokens: even dims are the columns of one mma, odd dims of the other. */
struct attn_e4m3 {
    enum { BYTES = 1 };
    enum : uint32_t { ONES = 0x3c003c00u };

    PTX_FN_IN void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t *b)
    {
        ptx_mma_f16(c, a, b[0], b[1]);
    }
    PTX_FN_IN uint32_t pack(float lo, float hi)
    {
        return ptx_f16x2(lo, hi);
    }
    PTX_FN_IN uint32_t pack_out(uint8_t xt, float lo, float hi)
    {
        return xt == CU_BF16 ? ptx_bf16x2(lo, hi) : ptx_f16x2(lo, hi);
    }
    PTX_FN_IN float k_scale(const unsigned char *scale)
    {
        return ptx_float((uint32_t)*scale << 23);
    }
    /* Two tokens' scales as f16: exponents -15 (a subnormal) to 7, so that products with e4m3 are exact. Tokens that do not
     * exist have byte 0, and V of zeros. */
    PTX_FN_IN uint32_t v_scale2(const unsigned char *scale)
    {
        const uint32_t lo = scale[0], hi = scale[1];
        return (lo > 112 ? (lo - 112) << 10 : 0x200u) | (hi > 112 ? (hi - 112) << 10 : 0x200u) << 16;
    }
    PTX_FN_IN void v_scale(uint32_t (&s)[4], const unsigned char *scales) /* of 32 tokens */
    {
#pragma unroll
        for (int i = 0; i < 4; i++)
            s[i] = v_scale2(scales + 8 * i + threadIdx.x % 4 * 2);
    }
    template <int D> PTX_FN_IN void k_frag(uint32_t (&b)[2][4], const unsigned char *k, int pair)
    {
        const uint32_t lane = threadIdx.x % 32;
        uint32_t raw[4]; /* tokens 0-7, tokens 8-15, of the first group, then of the second */
        ptx_ldmatrix_x4(raw, k + lane % 16 * attn_tile<attn_e4m3, D>::PITCH + (2 * pair + lane / 16) * 16);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            b[i / 2][i % 2 * 2] = ptx_e4m3x2_f16x2(raw[i] & 0xffffu);
            b[i / 2][i % 2 * 2 + 1] = ptx_e4m3x2_f16x2(raw[i] >> 16);
        }
    }
    template <int D> PTX_FN_IN void v_frag(uint32_t (&b)[2][4], const unsigned char *v, int chunk, const uint32_t (&scale)[4])
    {
        uint32_t raw[4]; /* tokens 0-7, .., 24-31 */
        ptx_ldmatrix_x4_trans(raw, v + threadIdx.x % 32 * attn_tile<attn_e4m3, D>::PITCH + chunk * 16);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            b[i / 2][i % 2] = ptx_f16x2_mul(ptx_e4m3x2_f16x2(ptx_prmt(raw[i], 0, 0x4420)), scale[i]);
            b[i / 2][2 + i % 2] = ptx_f16x2_mul(ptx_e4m3x2_f16x2(ptx_prmt(raw[i], 0, 0x4431)), scale[i]);
        }
    }
    PTX_FN_IN uint32_t dim(int pair)
    {
        return threadIdx.x % 4 * 4 + 2 * pair;
    }
    PTX_FN_IN float column(const float *o0, const float *o1, int h, int pair, int i)
    {
        return i == 0 ? o0[2 * h + pair] : o1[2 * h + pair];
    }
};

/* ---- a tile -------------------------------------------------------------------------------------------------------- */

template <int N> PTX_FN void attn_zero(float (&o)[N][4])
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            o[n][i] = 0.0f;
}

/* A fragment of 16 rows of 16-bit values, group: which 32 bytes of each. */
PTX_FN void attn_a_frag(uint32_t (&a)[4], const unsigned char *rows, int pitch, int group)
{
    const uint32_t lane = threadIdx.x % 32;
    ptx_ldmatrix_x4(a, rows + lane % 16 * pitch + group * 32 + lane / 16 * 16);
}

/* Sums of q k to logits in base 2. scales: of the first of the 8 N tokens. A token is seen if pos - token < window: one
 * comparison for both ends, window <= 2^31 - 1. */
template <class T, int N>
PTX_FN void attn_logits(float (&s)[N][4], const unsigned char *scales, float scale2, uint32_t token, const uint32_t (&pos)[2],
                        uint32_t window, bool edge)
{
    const uint32_t t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t column = 8 * n + 2 * t + i % 2;
            s[n][i] = s[n][i] * T::k_scale(scales + column) * scale2;
        }
    if (!edge) /* all of them are seen */
        return;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (pos[i / 2] - (token + 8 * n + 2 * t + i % 2) >= window)
                s[n][i] = ATTN_NONE;
}

/* Largest logit of each row over the warp's columns. */
template <int N> PTX_FN void attn_max(float (&mx)[2], const float (&s)[N][4])
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        mx[h] = ATTN_NONE;
#pragma unroll
        for (int n = 0; n < N; n++)
            mx[h] = fmaxf(mx[h], fmaxf(s[n][2 * h], s[n][2 * h + 1]));
        mx[h] = fmaxf(mx[h], ptx_shfl_xor(mx[h], 1));
        mx[h] = fmaxf(mx[h], ptx_shfl_xor(mx[h], 2));
    }
}

/* What exponents are relative to: no row's maximum may make -inf - -inf. */
PTX_FN float attn_base(float m)
{
    return m == ATTN_NONE ? 0.0f : m;
}

/* The state of a split: maximum, sum (columns of l are equal: an mma against ones), values. */
template <int N> struct attn_state {
    float m[2], l[4], o[N][4];
};

template <int N> PTX_FN void attn_clear(attn_state<N> &st)
{
    attn_zero(st.o);
#pragma unroll
    for (int i = 0; i < 4; i++)
        st.l[i] = 0.0f;
    st.m[0] = st.m[1] = ATTN_NONE;
}

/* Takes a tile's maximum in; base: what the tile's exponents are relative to. */
template <int N> PTX_FN void attn_rescale(attn_state<N> &st, const float (&mx)[2], float (&base)[2])
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const float m = fmaxf(st.m[h], mx[h]);
        base[h] = attn_base(m);
        const float a = ptx_exp2(st.m[h] - base[h]);
        st.m[h] = m;
        st.l[2 * h] *= a;
        st.l[2 * h + 1] *= a;
#pragma unroll
        for (int n = 0; n < N; n++) {
            st.o[n][2 * h] *= a;
            st.o[n][2 * h + 1] *= a;
        }
    }
}

/* P of 8 tokens, both rows, as halves of an A fragment. */
template <class T> PTX_FN void attn_p(uint32_t (&p)[2], const float (&s)[4], const float (&base)[2])
{
#pragma unroll
    for (int h = 0; h < 2; h++)
        p[h] = T::pack(ptx_exp2(s[2 * h] - base[h]), ptx_exp2(s[2 * h + 1] - base[h]));
}

/* o, l += P V, P 1 over 32 tokens. v: the first of them; chunk0: the first of the N / 2 chunks of 16 dims that o holds. */
template <class T, int D, int N>
PTX_FN void attn_pv(attn_state<N> &st, const uint32_t (&p)[2][4], const unsigned char *v, const unsigned char *scales, int chunk0)
{
    const uint32_t ones[2] = {T::ONES, T::ONES};
    uint32_t scale[4];
    T::v_scale(scale, scales);
    T::mma(st.l, p[0], ones);
    T::mma(st.l, p[1], ones);
#pragma unroll
    for (int c = 0; c < N / 2; c++) {
        uint32_t b[2][4];
        T::template v_frag<D>(b, v, chunk0 + c, scale);
#pragma unroll
        for (int j = 0; j < 2; j++) {
            T::mma(st.o[2 * c], p[j], b[j]);
            T::mma(st.o[2 * c + 1], p[j], b[j] + 2);
        }
    }
}

/* ---- splits -------------------------------------------------------------------------------------------------------- */

/* One row: takes a split's maximum and sum in; values follow by o = fma(o, a, split's o * b). */
PTX_FN void attn_merge(float &m, float &l, float split_m, float split_l, float &a, float &b)
{
    const float mn = fmaxf(m, split_m), base = attn_base(mn);
    a = ptx_exp2(m - base);
    b = ptx_exp2(split_m - base);
    l = ptx_fma(l, a, split_l * b);
    m = mn;
}

/* Both rows; `all` has only columns 0 and 2 of l. */
template <int N> PTX_FN void attn_merge_split(attn_state<N> &all, const attn_state<N> &split)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float a, b;
        attn_merge(all.m[h], all.l[2 * h], split.m[h], split.l[2 * h], a, b);
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 2 * h; i < 2 * h + 2; i++)
                all.o[n][i] = ptx_fma(all.o[n][i], a, split.o[n][i] * b);
    }
}

/* A row's result; adding 0 makes -0 to 0, which alone could tell whether an unseen tile was left out. */
PTX_FN float attn_value(float o, float l)
{
    return l == 0.0f ? 0.0f : ptx_div(o, l) + 0.0f;
}

#endif
