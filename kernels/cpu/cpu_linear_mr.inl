/* One tile (or half of one, where a register holds 8 floats) times MR rows, for every type; included once per MR by
 * cpu_linear_isa.inl with MR and R(X) = X(0) .. X(MR - 1) defined. Accumulators are named registers, not arrays: one of the
 * two compilers keeps arrays of vectors in memory.
 *
 * w is the tile at this half's lanes: nibble and byte words at w, 16-bit scales at ws. a is the panel's first block at this
 * row's bytes, ad the same block at this row's side values. */
#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
#define K(name) CAT(name, MR)
#define SIDE(field, r) (ad + offsetof(struct cpu_act_group, field) + 4 * (r))
#define PARAMS                                                                                               \
    const uint8_t *w, uint32_t lane, uint32_t k, const uint8_t *a, const uint8_t *ad, float *out, size_t ld

/* Both nibble sums of word j of the group at w. */
#define NIB_STEP(r)                                            \
    sum##r = NIB_ACC(sum##r, lo, VI_BC(a + 32 * (r) + 8 * J)); \
    sum##r = NIB_ACC(sum##r, hi, VI_BC(a + 32 * (r) + 8 * J + 4));
#define NIB_WORD(base)                                 \
    do {                                               \
        VI p = VI_LOAD((base) + 64 * J);               \
        VI lo = VI_AND(p, LOW4), hi = VI_HIGH4(p);     \
        R(NIB_STEP)                                    \
    } while (0);
#define BYTE_STEP(r) sum##r = BYTE_ACC(sum##r, p, p_abs, VI_BC(a + 32 * (r) + 4 * J));
#define BYTE_WORD(base)                                  \
    do {                                                 \
        VI p = BYTE_PREP(VI_LOAD((base) + 64 * J));      \
        VI p_abs = BYTE_ABS(p);                          \
        (void)p_abs;                                     \
        R(BYTE_STEP)                                     \
    } while (0);
#define SIX_STEP(r) sum##r = SIX_ACC(sum##r, p, VI_BC(a + 32 * (r) + 4 * J));
#define SIX_WORD(base)                     \
    do {                                   \
        VI p = VI_LOAD((base) + 64 * J);   \
        R(SIX_STEP)                        \
    } while (0);

/* Decoding waits for memory: ask for the lines a little ahead. */
#define AHEAD(lines)                                                    \
    if (AHEAD_BYTES)                                                    \
        for (int line = 0; line < (lines); line++)                      \
            _mm_prefetch((const char *)w + AHEAD_BYTES + 64 * line, _MM_HINT_T1);
#define ACC_ZERO(r) VF acc##r = VF_ZERO();
#define SUM_ZERO(r) VI sum##r = VI_ZERO();
#define SCALE(r) acc##r = VF_FMA(VF_MUL(dw, VF_BC(SIDE(d, r))), VI_CVT(sum##r), acc##r);
#define PUT(r) VF_STORE(out + (r) * ld, acc##r);

#ifndef ONLY_BF16
static void K(q4_1_)(PARAMS)
{
    const uint8_t *ws = w + 256 + 2 * lane;
    w += 4 * lane;
    R(ACC_ZERO)
    for (uint32_t i = 0; i < k; i += CPU_GROUP) {
        R(SUM_ZERO)
#define J 0
        NIB_WORD(w)
#undef J
#define J 1
        NIB_WORD(w)
#undef J
#define J 2
        NIB_WORD(w)
#undef J
#define J 3
        NIB_WORD(w)
#undef J
        VF dw = VF_F16(ws), mw = VF_F16(ws + 32);
#define END(r)                                        \
    sum##r = NIB_FIN(sum##r);                         \
    SCALE(r)                                          \
    acc##r = VF_FMA(mw, VF_BC(SIDE(s, r)), acc##r);
        R(END)
#undef END
        AHEAD(5)
        w += CPU_Q4_1_GROUP;
        ws += CPU_Q4_1_GROUP;
        a += sizeof(struct cpu_act_group);
        ad += sizeof(struct cpu_act_group);
    }
    R(PUT)
}

static void K(q4_0_)(PARAMS)
{
    const uint8_t *ws = w + 256 + 2 * lane;
    w += 4 * lane;
    R(ACC_ZERO)
    for (uint32_t i = 0; i < k; i += CPU_GROUP) {
        R(SUM_ZERO)
#define J 0
        NIB_WORD(w)
#undef J
#define J 1
        NIB_WORD(w)
#undef J
#define J 2
        NIB_WORD(w)
#undef J
#define J 3
        NIB_WORD(w)
#undef J
        VF dw = VF_F16(ws);
#define END(r)                                                   \
    sum##r = VI_ADD(NIB_FIN(sum##r), VI_BC(SIDE(n8, r)));        \
    SCALE(r)
        R(END)
#undef END
        AHEAD(5)
        w += CPU_Q4_0_GROUP;
        ws += CPU_Q4_0_GROUP;
        a += sizeof(struct cpu_act_group);
        ad += sizeof(struct cpu_act_group);
    }
    R(PUT)
}

static void K(q8_0_)(PARAMS)
{
    const uint8_t *ws = w + 512 + 2 * lane;
    w += 4 * lane;
    R(ACC_ZERO)
    for (uint32_t i = 0; i < k; i += CPU_GROUP) {
#define START(r) VI sum##r = BYTE_START(SIDE(n128, r));
        R(START)
#undef START
#define J 0
        BYTE_WORD(w)
#undef J
#define J 1
        BYTE_WORD(w)
#undef J
#define J 2
        BYTE_WORD(w)
#undef J
#define J 3
        BYTE_WORD(w)
#undef J
#define J 4
        BYTE_WORD(w)
#undef J
#define J 5
        BYTE_WORD(w)
#undef J
#define J 6
        BYTE_WORD(w)
#undef J
#define J 7
        BYTE_WORD(w)
#undef J
        VF dw = VF_F16(ws);
        R(SCALE)
        AHEAD(9)
        w += CPU_Q8_0_GROUP;
        ws += CPU_Q8_0_GROUP;
        a += sizeof(struct cpu_act_group);
        ad += sizeof(struct cpu_act_group);
    }
    R(PUT)
}

static void K(q4_k_)(PARAMS)
{
    const uint8_t *ws = w + 256 + lane; /* scales, minima 16 bytes on */
    w += 4 * lane;
    R(ACC_ZERO)
    for (uint32_t i = 0; i < k; i += 256) {
        const uint8_t *super = w - 4 * lane + 8 * CPU_Q4_K_GROUP + 2 * lane;
        VF d = VF_F16(super), m = VF_F16(super + 32);
        for (int g = 0; g < 8; g++) {
            R(SUM_ZERO)
#define J 0
            NIB_WORD(w)
#undef J
#define J 1
            NIB_WORD(w)
#undef J
#define J 2
            NIB_WORD(w)
#undef J
#define J 3
            NIB_WORD(w)
#undef J
            VF dw = VF_MUL(d, VI_CVT(VI_U8(ws))), mw = VF_MUL(m, VI_CVT(VI_U8(ws + 16)));
#define END(r)                                        \
    sum##r = NIB_FIN(sum##r);                         \
    SCALE(r)                                          \
    acc##r = VF_FNMA(mw, VF_BC(SIDE(s, r)), acc##r);
            R(END)
#undef END
            AHEAD(5)
            w += CPU_Q4_K_GROUP;
            ws += CPU_Q4_K_GROUP;
            a += sizeof(struct cpu_act_group);
            ad += sizeof(struct cpu_act_group);
        }
        w += 64;
        ws += 64;
    }
    R(PUT)
}

static void K(q6_k_)(PARAMS)
{
    const uint8_t *ws = w + 512 + lane;
    w += 4 * lane;
    R(ACC_ZERO)
    for (uint32_t i = 0; i < k; i += 256) {
        VF d = VF_F16(w - 4 * lane + 8 * CPU_Q6_K_GROUP + 2 * lane);
        for (int g = 0; g < 8; g++) {
            {
#define START(r) VI sum##r = VI_BC(SIDE(h32[0], r));
                R(START)
#undef START
#define J 0
                SIX_WORD(w)
#undef J
#define J 1
                SIX_WORD(w)
#undef J
#define J 2
                SIX_WORD(w)
#undef J
#define J 3
                SIX_WORD(w)
#undef J
                VF dw = VF_MUL(d, VI_CVT(VI_I8(ws)));
                R(SCALE)
            }
            {
#define START(r) VI sum##r = VI_BC(SIDE(h32[1], r));
                R(START)
#undef START
#define J 4
                SIX_WORD(w)
#undef J
#define J 5
                SIX_WORD(w)
#undef J
#define J 6
                SIX_WORD(w)
#undef J
#define J 7
                SIX_WORD(w)
#undef J
                VF dw = VF_MUL(d, VI_CVT(VI_I8(ws + 16)));
                R(SCALE)
            }
            AHEAD(9)
            w += CPU_Q6_K_GROUP;
            ws += CPU_Q6_K_GROUP;
            a += sizeof(struct cpu_act_group);
            ad += sizeof(struct cpu_act_group);
        }
        w += 32;
        ws += 32;
    }
    R(PUT)
}

static void K(f32_)(PARAMS)
{
    (void)ad;
    w += 4 * lane;
    R(ACC_ZERO)
    for (uint32_t i = 0; i < k; i += CPU_F32_K, w += CPU_F32_BLOCK, a += CPU_FLOAT_BLOCK) {
        AHEAD(8)
#define STEP(r) acc##r = VF_FMA(x, VF_BC(a + 32 * (r) + 4 * j), acc##r);
#pragma GCC unroll 8
        for (int j = 0; j < CPU_F32_K; j++) {
            VF x = VF_LOAD(w + 64 * j);
            R(STEP)
        }
#undef STEP
    }
    R(PUT)
}

static void K(f16_)(PARAMS)
{
    (void)ad;
    w += 2 * lane;
    R(ACC_ZERO)
    for (uint32_t i = 0; i < k; i += CPU_F32_K, w += CPU_F16_BLOCK, a += CPU_FLOAT_BLOCK) {
        AHEAD(4)
#define STEP(r) acc##r = VF_FMA(x, VF_BC(a + 32 * (r) + 4 * j), acc##r);
#pragma GCC unroll 8
        for (int j = 0; j < CPU_F32_K; j++) {
            VF x = VF_F16(w + 32 * j);
            R(STEP)
        }
#undef STEP
    }
    R(PUT)
}

#endif

static void K(bf16_)(PARAMS)
{
    (void)ad;
    w += 4 * lane;
    R(ACC_ZERO)
    for (uint32_t i = 0; i < k; i += CPU_BF16_K, w += CPU_BF16_BLOCK, a += CPU_FLOAT_BLOCK) {
        AHEAD(8)
#define STEP(r) acc##r = BF16_ACC(acc##r, p, odd, even, a + 32 * (r) + 4 * j);
#pragma GCC unroll 8
        for (int j = 0; j < CPU_BF16_K / 2; j++) {
            VI p = VI_LOAD(w + 64 * j);
            VF odd = BF16_ODD(p), even = BF16_EVEN(p);
            (void)odd, (void)even;
            R(STEP)
        }
#undef STEP
    }
    R(PUT)
}

#undef CAT_
#undef CAT
#undef K
#undef SIDE
#undef PARAMS
#undef NIB_STEP
#undef NIB_WORD
#undef BYTE_STEP
#undef BYTE_WORD
#undef SIX_STEP
#undef SIX_WORD
#undef AHEAD
#undef ACC_ZERO
#undef SUM_ZERO
#undef SCALE
#undef PUT
#undef MR
#undef R
