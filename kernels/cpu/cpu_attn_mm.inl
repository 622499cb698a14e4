/* The product under both halves of attention, for one element type of K and V. Included once per type with
 *   MM(name)   the name with the type in it,   MM_T   the element,   MM_LOAD(p)   16 elements as a v16.
 *
 *   c[n][j] (16 lanes each) = (zero ? 0 : c[n][j]) + sum over k of b[n][k] * x[j][k]   for n < N rows, j <
 *   J columns
 *
 * QK: x[j] = K of sub-block j, k over dims, lanes are tokens. PV: x[j] = 16 dims of V, k over tokens, lanes
 * are dims. Each c[n][j] is one FMA chain in rising k; N and J only say how many chains are in flight
 * (about 12 hide the FMA latency). The accumulators are named variables, not arrays: clang 14 keeps such
 * arrays in memory.
 */

#define MM_DECL(n, j) struct v16 c##n##j = zero ? v16_set1(0) : v16_load(c + n * ldc + j * 16)
#define MM_FMA(n, j) c##n##j = v16_fma(w##n, y##j, c##n##j)
#define MM_STORE(n, j) v16_store(c + n * ldc + j * 16, c##n##j)
#define MM_B(n) struct v16 w##n = v16_set1(b[n * ldb + k])
#define MM_X(j) struct v16 y##j = MM_LOAD(x##j + k * ldx)

#define MM_COLS1(OP, n) OP(n, 0)
#define MM_COLS2(OP, n) OP(n, 0); OP(n, 1)
#define MM_COLS4(OP, n) OP(n, 0); OP(n, 1); OP(n, 2); OP(n, 3)
#define MM_ROWS1(M, OP) M(OP, 0)
#define MM_ROWS2(M, OP) MM_ROWS1(M, OP); M(OP, 1)
#define MM_ROWS3(M, OP) MM_ROWS2(M, OP); M(OP, 2)
#define MM_ROWS4(M, OP) MM_ROWS3(M, OP); M(OP, 3)
#define MM_ROWS5(M, OP) MM_ROWS4(M, OP); M(OP, 4)
#define MM_ROWS6(M, OP) MM_ROWS5(M, OP); M(OP, 5)
#define MM_STEP(J, n) { MM_B(n); MM_COLS##J(MM_FMA, n); }
#define MM_STEP1(OP, n) MM_STEP(1, n)
#define MM_STEP2(OP, n) MM_STEP(2, n)
#define MM_STEP4(OP, n) MM_STEP(4, n)
#define MM_LOADX1 MM_X(0)
#define MM_LOADX2 MM_X(0); MM_X(1)
#define MM_LOADX4 MM_X(0); MM_X(1); MM_X(2); MM_X(3)
#define MM_PTR1 const MM_T *x0 = x[0]
#define MM_PTR2 MM_PTR1, *x1 = x[1]
#define MM_PTR4 MM_PTR2, *x2 = x[2], *x3 = x[3]

#define MM_KERNEL(N, J)                                                                                     \
    static void MM(N##x##J)(float *c, size_t ldc, bool zero, const MM_T *const *x, size_t ldx,              \
                            const float *b, size_t ldb, size_t kn)                                          \
    {                                                                                                       \
        MM_PTR##J;                                                                                          \
        MM_ROWS##N(MM_COLS##J, MM_DECL);                                                                    \
        for (size_t k = 0; k < kn; k++) {                                                                   \
            MM_LOADX##J;                                                                                    \
            MM_ROWS##N(MM_STEP##J, MM_FMA);                                                                 \
        }                                                                                                   \
        MM_ROWS##N(MM_COLS##J, MM_STORE);                                                                   \
    }

MM_KERNEL(1, 1)
MM_KERNEL(2, 1)
MM_KERNEL(3, 1)
MM_KERNEL(4, 1)
MM_KERNEL(5, 1)
MM_KERNEL(6, 1)
#if CPU_VEC != 0
MM_KERNEL(1, 2)
MM_KERNEL(2, 2)
MM_KERNEL(3, 2)
#endif
#if CPU_VEC == 512
MM_KERNEL(4, 2)
MM_KERNEL(5, 2)
MM_KERNEL(6, 2)
MM_KERNEL(1, 4)
MM_KERNEL(2, 4)
MM_KERNEL(3, 4)
#endif

typedef void MM(fn)(float *, size_t, bool, const MM_T *const *, size_t, const float *, size_t, size_t);

static void MM(run)(uint32_t n, uint32_t nj, float *c, size_t ldc, bool zero, const MM_T *const *x,
                    size_t ldx, const float *b, size_t ldb, size_t kn)
{
    static MM(fn) *const one[6] = {MM(1x1), MM(2x1), MM(3x1), MM(4x1), MM(5x1), MM(6x1)};
#if CPU_VEC == 512
    static MM(fn) *const two[6] = {MM(1x2), MM(2x2), MM(3x2), MM(4x2), MM(5x2), MM(6x2)};
    static MM(fn) *const four[3] = {MM(1x4), MM(2x4), MM(3x4)};
    for (; n <= 3 && nj >= 4; nj -= 4, x += 4, c += 64)
        four[n - 1](c, ldc, zero, x, ldx, b, ldb, kn);
#elif CPU_VEC == 2
    static MM(fn) *const two[3] = {MM(1x2), MM(2x2), MM(3x2)};
#endif
#if CPU_VEC != 0
    for (; n <= sizeof two / sizeof *two && nj >= 2; nj -= 2, x += 2, c += 32)
        two[n - 1](c, ldc, zero, x, ldx, b, ldb, kn);
#endif
    for (; nj >= 1; nj--, x++, c += 16)
        one[n - 1](c, ldc, zero, x, ldx, b, ldb, kn);
}

/* Scores of n queries against sub-blocks: s[n][16 * nj]. */
static void MM(scores)(uint32_t n, uint32_t nj, float *s, const void *const *k_sub, uint32_t dim,
                       const float *q, size_t ldq)
{
    const MM_T *x[CPU_ATTN_PANEL / 16];
    for (uint32_t j = 0; j < nj; j++)
        x[j] = k_sub[j];
    MM(run)(n, nj, s, CPU_ATTN_SCORES, true, x, CPU_KV_SUB, q, ldq, dim);
}

/* o[n][dim] += p[n][0..kn) V, one sub-block. */
static void MM(values)(uint32_t n, float *o, size_t ldo, const void *v_sub, uint32_t dim, const float *p,
                       size_t kn)
{
    const MM_T *x[CPU_HEAD_DIM_MAX / 16], *v = v_sub;
    for (uint32_t j = 0; j < dim / 16; j++)
        x[j] = v + j * 16;
    MM(run)(n, dim / 16, o, ldo, false, x, dim, p, CPU_ATTN_SCORES, kn);
}

/* One sub-block's half (K or V) as f32. */
VEC_FN void MM(widen)(float *dst, const void *src, uint32_t n)
{
    const MM_T *p = src;
    for (uint32_t i = 0; i < n; i += 16)
        v16_store(dst + i, MM_LOAD(p + i));
}

#undef MM_DECL
#undef MM_FMA
#undef MM_STORE
#undef MM_B
#undef MM_X
#undef MM_COLS1
#undef MM_COLS2
#undef MM_COLS4
#undef MM_ROWS1
#undef MM_ROWS2
#undef MM_ROWS3
#undef MM_ROWS4
#undef MM_ROWS5
#undef MM_ROWS6
#undef MM_STEP
#undef MM_STEP1
#undef MM_STEP2
#undef MM_STEP4
#undef MM_LOADX1
#undef MM_LOADX2
#undef MM_LOADX4
#undef MM_PTR1
#undef MM_PTR2
#undef MM_PTR4
#undef MM_KERNEL
#undef MM
#undef MM_T
#undef MM_LOAD
