/* Row operations, written once against v16; included by the per-ISA files after cpu_vec.h. */

static void rows_norm(float *out, const float *x, const float *gain, uint32_t d, float eps)
{
    struct v16 acc = v16_set1(0);
    for (uint32_t i = 0; i < d; i += 16) {
        struct v16 v = v16_load_n(x + i, d - i);
        acc = v16_fma(v, v, acc);
    }
    float mean = v16_sum(acc) / (float)d;
    struct v16 inv = v16_div(v16_set1(1.0f), v16_sqrt(v16_set1(mean + eps)));
    for (uint32_t i = 0; i < d; i += 16) {
        struct v16 v = v16_mul(v16_load_n(x + i, d - i), inv);
        v16_store_n(out + i, v16_mul(v, v16_load_n(gain + i, d - i)), d - i);
    }
}

static void rows_silu_mul(float *out, const float *gate, const float *up, uint32_t n)
{
    struct v16 one = v16_set1(1.0f), lim = v16_set1(88.0f);
    for (uint32_t i = 0; i < n; i += 16) {
        struct v16 g = v16_load_n(gate + i, n - i);
        /* min keeps its second operand when that is NaN */
        struct v16 e = v16_exp(v16_min(lim, v16_sub(v16_set1(0), g)));
        /* far below 0 the capped e is too small for g; silu is 0 there to within 1e-36 */
        struct v16 s = v16_zero_below(v16_div(g, v16_add(one, e)), g, v16_set1(-87.0f));
        v16_store_n(out + i, v16_mul(s, v16_load_n(up + i, n - i)), n - i);
    }
}

static void rows_rope(float *x, const float *cos_sin, uint32_t rot_dim)
{
    for (uint32_t i = 0; i < rot_dim; i += 16) {
        struct v16 v = v16_load_n(x + i, rot_dim - i), t = v16_load_n(cos_sin + i, rot_dim - i);
        v16_store_n(x + i, v16_rotate(v, t), rot_dim - i);
    }
}

/* Converts 16 values to 16 bits each; counts what f16 could not hold. */
VEC_FN uint32_t rows_narrow(uint16_t *dst, const float *src, enum be_type type)
{
    struct v16 v = v16_load(src);
    if (type == BE_BF16) {
        v16_store_bf16(dst, v);
        return 0;
    }
    struct v16 max = v16_set1(65504.0f), min = v16_set1(-65504.0f), above = v16_set1(0x1.ffc002p+15f);
    uint32_t over = v16_ge_mask(v, above) | v16_ge_mask(v16_set1(-0x1.ffc002p+15f), v);
    v16_store_f16(dst, v16_max(min, v16_min(max, v))); /* NaN passes: it is the second operand */
    return (uint32_t)__builtin_popcount(over);
}

static uint32_t rows_kv_append(const struct cpu_kv_view *kv, uint32_t layer, uint32_t head, uint32_t slot,
                               const float *k, const float *v)
{
    const struct cpu_kv_layout *l = &kv->l;
    uint32_t d = l->head_dim, offset = slot % l->block_tokens, col = offset % CPU_KV_SUB;
    char *sub = kv->base + (size_t)(slot / l->block_tokens) * l->block_bytes + layer * l->layer_bytes +
                head * l->head_bytes + offset / CPU_KV_SUB * l->sub_bytes;
    if (l->type == BE_F32) {
        float *kd = (float *)(void *)sub, *vd = kd + CPU_KV_SUB * d;
        for (uint32_t i = 0; i < d; i++)
            kd[i * CPU_KV_SUB + col] = k[i];
        memcpy(vd + col * d, v, d * sizeof *v);
        return 0;
    }
    uint16_t *kd = (uint16_t *)(void *)sub, *vd = kd + CPU_KV_SUB * d + col * d, t[16];
    uint32_t over = 0;
    for (uint32_t i = 0; i < d; i += 16) {
        over += rows_narrow(t, k + i, l->type);
        for (uint32_t j = 0; j < 16; j++)
            kd[(i + j) * CPU_KV_SUB + col] = t[j];
        over += rows_narrow(vd + i, v + i, l->type);
    }
    return over;
}
