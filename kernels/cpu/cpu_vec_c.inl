/* v16 in plain C: the definition that the vector files must match. */

struct v16 {
    float l[16];
};

struct w16 {
    uint32_t l[16];
};

#define LANES(expr)                  \
    do {                             \
        for (int i = 0; i < 16; i++) \
            r.l[i] = (expr);         \
        return r;                    \
    } while (0)

VEC_FN float vec_of_bits(uint32_t b)
{
    float f;
    memcpy(&f, &b, sizeof f);
    return f;
}

VEC_FN uint32_t vec_bits_of(float f)
{
    uint32_t b;
    memcpy(&b, &f, sizeof b);
    return b;
}

VEC_FN struct v16 v16_set1(float x)
{
    struct v16 r;
    LANES(x);
}

VEC_FN struct v16 v16_load(const float *p)
{
    struct v16 r;
    memcpy(&r, p, sizeof r);
    return r;
}

VEC_FN void v16_store(float *p, struct v16 a)
{
    memcpy(p, &a, sizeof a);
}

VEC_FN struct v16 v16_add(struct v16 a, struct v16 b)
{
    struct v16 r;
    LANES(a.l[i] + b.l[i]);
}

VEC_FN struct v16 v16_sub(struct v16 a, struct v16 b)
{
    struct v16 r;
    LANES(a.l[i] - b.l[i]);
}

VEC_FN struct v16 v16_mul(struct v16 a, struct v16 b)
{
    struct v16 r;
    LANES(a.l[i] * b.l[i]);
}

VEC_FN struct v16 v16_div(struct v16 a, struct v16 b)
{
    struct v16 r;
    LANES(a.l[i] / b.l[i]);
}

VEC_FN struct v16 v16_sqrt(struct v16 a)
{
    struct v16 r;
    LANES(sqrtf(a.l[i]));
}

VEC_FN struct v16 v16_fma(struct v16 a, struct v16 b, struct v16 c)
{
    struct v16 r;
    LANES(fmaf(a.l[i], b.l[i], c.l[i]));
}

VEC_FN struct v16 v16_max(struct v16 a, struct v16 b)
{
    struct v16 r;
    LANES(a.l[i] > b.l[i] ? a.l[i] : b.l[i]);
}

VEC_FN struct v16 v16_min(struct v16 a, struct v16 b)
{
    struct v16 r;
    LANES(a.l[i] < b.l[i] ? a.l[i] : b.l[i]);
}

VEC_FN float v16_sum(struct v16 a)
{
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            a.l[i] = a.l[i] + a.l[i + half];
    return a.l[0];
}

VEC_FN float v16_maximum(struct v16 a)
{
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            a.l[i] = a.l[i] > a.l[i + half] ? a.l[i] : a.l[i + half];
    return a.l[0];
}

/* 0 where x < lim, else a. */
VEC_FN struct v16 v16_zero_below(struct v16 a, struct v16 x, struct v16 lim)
{
    struct v16 r;
    LANES(x.l[i] < lim.l[i] ? 0.0f : a.l[i]);
}

/* x < lim ? a : b */
VEC_FN struct v16 v16_pick_below(struct v16 x, struct v16 lim, struct v16 a, struct v16 b)
{
    struct v16 r;
    LANES(x.l[i] < lim.l[i] ? a.l[i] : b.l[i]);
}

/* a where lane is in [lo, hi), else -inf. */
VEC_FN struct v16 v16_keep(struct v16 a, int32_t lo, int32_t hi)
{
    struct v16 r;
    LANES(i >= lo && i < hi ? a.l[i] : -INFINITY);
}

VEC_FN uint32_t v16_ge_mask(struct v16 a, struct v16 b)
{
    uint32_t m = 0;
    for (int i = 0; i < 16; i++)
        m |= (uint32_t)(a.l[i] >= b.l[i]) << i;
    return m;
}

VEC_FN uint32_t v16_eq_mask(struct v16 a, struct v16 b)
{
    uint32_t m = 0;
    for (int i = 0; i < 16; i++)
        m |= (uint32_t)(a.l[i] == b.l[i]) << i;
    return m;
}

/* Rotates the pairs (2i, 2i + 1) of x by the (cos, sin) pairs of t. */
VEC_FN struct v16 v16_rotate(struct v16 x, struct v16 t)
{
    struct v16 r;
    for (int i = 0; i < 16; i += 2) {
        float a = x.l[i + 1] * t.l[i + 1], b = x.l[i] * t.l[i + 1];
        r.l[i] = fmaf(x.l[i], t.l[i], -a);
        r.l[i + 1] = fmaf(x.l[i + 1], t.l[i], b);
    }
    return r;
}

/* p * 2^n, n in the low bits of t (see VEC_MAGIC); the caller keeps the result normal. */
VEC_FN struct v16 v16_add_exponent(struct v16 p, struct v16 t)
{
    struct v16 r;
    LANES(vec_of_bits(vec_bits_of(p.l[i]) + (vec_bits_of(t.l[i]) << 23)));
}

/* ---- half precision ---------------------------------------- */

VEC_FN float vec_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = (h >> 10) & 31u, m = h & 0x3ffu;
    if (e == 31)
        return vec_of_bits(sign | 0x7f800000u | (m << 13) | (m ? 0x00400000u : 0));
    if (e != 0)
        return vec_of_bits(sign | ((e + 112) << 23) | (m << 13));
    if (m == 0)
        return vec_of_bits(sign);
    uint32_t shift = 0;
    while (!(m & 0x400u)) {
        m <<= 1;
        shift++;
    }
    return vec_of_bits(sign | ((113 - shift) << 23) | ((m & 0x3ffu) << 13));
}

/* Round to nearest even, by integers alone: F16C ignores FTZ, so this must not meet it either. */
VEC_FN uint16_t vec_f32_to_f16(float f)
{
    uint32_t b = vec_bits_of(f), sign = (b >> 16) & 0x8000u, a = b & 0x7fffffffu;
    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
    if (a >= 0x47800000u)
        return (uint16_t)(sign | 0x7c00u);
    if (a < 0x33000000u)
        return (uint16_t)sign;
    uint32_t drop = 13, m = a;
    if (a < 0x38800000u) { /* subnormal result: 24-bit mantissa, shifted further */
        drop = 126 - (a >> 23);
        m = (a & 0x7fffffu) | 0x800000u;
    } else {
        m -= 112u << 23;
    }
    uint32_t q = m >> drop, rest = m & ((1u << drop) - 1), half = 1u << (drop - 1);
    q += rest > half || (rest == half && (q & 1));
    return (uint16_t)(sign | q);
}

VEC_FN struct v16 v16_load_f16(const uint16_t *p)
{
    struct v16 r;
    LANES(vec_f16_to_f32(p[i]));
}

VEC_FN void v16_store_f16(uint16_t *p, struct v16 a)
{
    for (int i = 0; i < 16; i++)
        p[i] = vec_f32_to_f16(a.l[i]);
}

/* ---- integers ---------------------------------------- */

VEC_FN struct w16 w16_set1(uint32_t x)
{
    struct w16 r;
    LANES(x);
}

VEC_FN struct w16 w16_load(const uint32_t *p)
{
    struct w16 r;
    memcpy(&r, p, sizeof r);
    return r;
}

VEC_FN void w16_store(uint32_t *p, struct w16 a)
{
    memcpy(p, &a, sizeof a);
}

VEC_FN struct w16 w16_load_u16(const uint16_t *p)
{
    struct w16 r;
    LANES(p[i]);
}

/* The low halves of the lanes. */
VEC_FN void w16_store_u16(uint16_t *p, struct w16 a)
{
    for (int i = 0; i < 16; i++)
        p[i] = (uint16_t)a.l[i];
}

VEC_FN struct w16 w16_add(struct w16 a, struct w16 b)
{
    struct w16 r;
    LANES(a.l[i] + b.l[i]);
}

VEC_FN struct w16 w16_sub(struct w16 a, struct w16 b)
{
    struct w16 r;
    LANES(a.l[i] - b.l[i]);
}

VEC_FN struct w16 w16_and(struct w16 a, struct w16 b)
{
    struct w16 r;
    LANES(a.l[i] & b.l[i]);
}

VEC_FN struct w16 w16_xor(struct w16 a, struct w16 b)
{
    struct w16 r;
    LANES(a.l[i] ^ b.l[i]);
}

VEC_FN struct w16 w16_shl16(struct w16 a)
{
    struct w16 r;
    LANES(a.l[i] << 16);
}

VEC_FN struct w16 w16_shr16(struct w16 a)
{
    struct w16 r;
    LANES(a.l[i] >> 16);
}

VEC_FN struct w16 w16_sra(struct w16 a, int n)
{
    struct w16 r;
    LANES((uint32_t)((int32_t)a.l[i] >> n));
}

VEC_FN struct w16 w16_max_signed(struct w16 a, struct w16 b)
{
    struct w16 r;
    LANES((int32_t)a.l[i] > (int32_t)b.l[i] ? a.l[i] : b.l[i]);
}

VEC_FN struct w16 w16_mul_wide(struct w16 a, uint32_t k, struct w16 *hi)
{
    struct w16 r;
    for (int i = 0; i < 16; i++)
        hi->l[i] = (uint32_t)(((uint64_t)a.l[i] * k) >> 32);
    LANES(a.l[i] * k);
}

VEC_FN struct v16 w16_as_v16(struct w16 a)
{
    struct v16 r;
    memcpy(&r, &a, sizeof r);
    return r;
}

VEC_FN struct w16 v16_bits(struct v16 a)
{
    struct w16 r;
    memcpy(&r, &a, sizeof r);
    return r;
}

VEC_FN struct v16 w16_to_v16_signed(struct w16 a)
{
    struct v16 r;
    LANES((float)(int32_t)a.l[i]);
}

/* Towards zero; the caller keeps |a| < 2^31. */
VEC_FN struct w16 v16_truncate(struct v16 a)
{
    struct w16 r;
    LANES((uint32_t)(int32_t)a.l[i]);
}

/* Four words of 16 counters to 64 consecutive words: lane 4j + k of a..d is the counter 4k + j. */
VEC_FN void w16_store_quads(uint32_t *p, struct w16 a, struct w16 b, struct w16 c, struct w16 d)
{
    for (int lane = 0; lane < 16; lane++) {
        uint32_t *q = p + 4 * (4 * (lane % 4) + lane / 4);
        q[0] = a.l[lane];
        q[1] = b.l[lane];
        q[2] = c.l[lane];
        q[3] = d.l[lane];
    }
}

#undef LANES
