/* Sampling one row, written once against v16; included by the per-ISA files after cpu_vec.h.
 *
 * The row is read a few times (it sits in L2): maximum and health; the sum for log-probabilities when
 * asked; then candidates above a floor, lowered until the filters are satisfied by them. Unfiltered rows
 * draw over the whole vocabulary: the Gumbel noise of a token is bounded by its random word's exponent, so
 * logarithms are taken for a handful only.
 */

struct sample {
    const float *z; /* [vocab], edited */
    uint32_t vocab, best_id;
    float max, inv_t, floor; /* y = (z - max) * inv_t; tokens with y < floor are out */
    uint32_t position, key[2];
    struct cpu_sample_cand *c; /* [vocab] */
};

VEC_FN struct v16 sample_load(const float *z, uint32_t i, uint32_t vocab)
{
    if (vocab - i >= 16)
        return v16_load(z + i);
    float t[16];
    for (uint32_t j = 0; j < 16; j++)
        t[j] = i + j < vocab ? z[i + j] : -INFINITY;
    return v16_load(t);
}

/* false: a NaN or +inf, or nothing but -inf. */
static bool sample_max(struct sample *s)
{
    struct v16 top = v16_set1(-INFINITY);
    struct w16 worst = w16_set1(0), abs = w16_set1(0x7fffffffu);
    for (uint32_t i = 0; i < s->vocab; i += 16) {
        struct v16 v = sample_load(s->z, i, s->vocab);
        top = v16_max(v, top);
        worst = w16_max_signed(worst, w16_and(v16_bits(v), abs));
    }
    uint32_t w[16];
    w16_store(w, worst);
    for (int i = 0; i < 16; i++)
        if (w[i] > 0x7f800000u)
            return false;
    s->max = v16_maximum(top);
    if (!(s->max > -INFINITY && s->max < INFINITY))
        return false;
    for (uint32_t i = 0;; i += 16) {
        uint32_t hit = v16_eq_mask(sample_load(s->z, i, s->vocab), v16_set1(s->max));
        if (hit) {
            s->best_id = i + (uint32_t)__builtin_ctz(hit);
            return true;
        }
    }
}

static float sample_log_z(const struct sample *s)
{
    struct v16 acc[4] = {v16_set1(0), v16_set1(0), v16_set1(0), v16_set1(0)}, max = v16_set1(s->max);
    for (uint32_t i = 0; i < s->vocab; i += 16) {
        struct v16 e = v16_exp(v16_sub(sample_load(s->z, i, s->vocab), max));
        acc[i / 16 % 4] = v16_add(acc[i / 16 % 4], e);
    }
    float sum = v16_sum(v16_add(v16_add(acc[0], acc[1]), v16_add(acc[2], acc[3])));
    float ln[16];
    v16_store(ln, v16_log(v16_set1(sum)));
    return s->max + ln[0];
}

VEC_FN struct v16 sample_y(const struct sample *s, struct v16 z)
{
    return v16_mul(v16_sub(z, v16_set1(s->max)), v16_set1(s->inv_t));
}

/* e^y * 2^32 in two exact halves: mass = hi * 65536 + lo. */
VEC_FN void sample_mass(struct v16 y, struct w16 *hi, struct w16 *lo)
{
    struct v16 e = v16_mul(v16_exp(y), v16_set1(65536.0f));
    *hi = v16_truncate(e);
    struct v16 rest = v16_sub(e, w16_to_v16_signed(*hi));
    *lo = v16_truncate(v16_mul(rest, v16_set1(65536.0f)));
}

static uint64_t sample_flush(uint64_t total, struct w16 hi, struct w16 lo)
{
    uint32_t h[16], l[16];
    w16_store(h, hi);
    w16_store(l, lo);
    for (int i = 0; i < 16; i++)
        total += ((uint64_t)h[i] << 16) + l[i];
    return total;
}

static uint64_t sample_total_mass(const struct sample *s)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < s->vocab;) {
        /* 2^14 sums of at most 2^16 fit a lane */
        uint32_t end = s->vocab - i > 16u << 14 ? i + (16u << 14) : s->vocab;
        struct w16 hi = w16_set1(0), lo = w16_set1(0);
        for (; i < end; i += 16) {
            struct w16 h, l;
            sample_mass(sample_y(s, sample_load(s->z, i, s->vocab)), &h, &l);
            hi = w16_add(hi, h);
            lo = w16_add(lo, l);
        }
        total = sample_flush(total, hi, lo);
    }
    return total;
}

/* Masses of the candidates; returns their sum. */
static uint64_t sample_weigh(const struct sample *s, size_t n)
{
    uint64_t total = 0;
    for (size_t i = 0; i < n; i += 16) {
        float z[16];
        uint32_t h[16], l[16];
        for (size_t j = 0; j < 16; j++)
            z[j] = i + j < n ? cpu_sample_logit(s->c[i + j].key) : -INFINITY;
        struct w16 hi, lo;
        sample_mass(sample_y(s, v16_load(z)), &hi, &lo);
        w16_store(h, hi);
        w16_store(l, lo);
        for (size_t j = 0; j < 16 && i + j < n; j++) {
            s->c[i + j].mass = ((uint64_t)h[j] << 16) + l[j];
            total += s->c[i + j].mass;
        }
    }
    return total;
}

/* Candidates: all tokens with z >= floor, in id order. */
static size_t sample_gather(const struct sample *s, float floor)
{
    size_t n = 0;
    struct v16 f = v16_set1(floor > -FLT_MAX ? floor : -FLT_MAX); /* never a -inf */
    for (uint32_t i = 0; i < s->vocab; i += 16) {
        struct v16 v = sample_load(s->z, i, s->vocab);
        uint32_t m = v16_ge_mask(v, f);
        for (; m != 0; m &= m - 1) {
            uint32_t id = i + (uint32_t)__builtin_ctz(m);
            s->c[n++].key = cpu_sample_key(s->z[id], id);
        }
    }
    return n;
}

/* Gumbel noise of random words: -ln(E), E = -log1p(-V), V = (x + 1/2) / 2^32 below 1. */
VEC_FN struct v16 sample_uniform(struct w16 x)
{
    struct v16 hi = w16_to_v16_signed(w16_shr16(x)), lo = w16_to_v16_signed(w16_and(x, w16_set1(0xffffu)));
    struct v16 f = v16_fma(hi, v16_set1(65536.0f), lo);
    struct v16 v = v16_mul(v16_add(f, v16_set1(0.5f)), v16_set1(0x1p-32f));
    return v16_min(v, v16_set1(0x1.fffffep-1f));
}

VEC_FN struct v16 sample_gumbel(struct v16 v)
{
    struct v16 one = v16_set1(1.0f), tiny = v16_set1(0x1p-12f);
    struct v16 series = v16_fma(v16_mul(v, v), v16_set1(0.5f), v);
    /* ln(u) is off by the rounding of u = 1 - v; v / (1 - u) undoes that */
    struct v16 u = v16_sub(one, v16_max(v, tiny));
    struct v16 e = v16_div(v16_mul(v16_log(u), v), v16_sub(u, one));
    return v16_sub(v16_set1(0), v16_log(v16_pick_below(v, tiny, series, e)));
}

/* Best of the candidates with key >= cut. */
static uint32_t sample_draw_list(const struct sample *s, size_t n, float *best_score)
{
    uint32_t best = s->best_id;
    float score = -INFINITY;
    for (size_t i = 0; i < n; i += 16) {
        float z[16], y[16], total[16];
        uint32_t x[16] = {0}, id[16] = {0};
        for (size_t j = 0; j < 16; j++) {
            z[j] = -INFINITY;
            if (i + j >= n)
                continue;
            id[j] = cpu_sample_id(s->c[i + j].key);
            z[j] = cpu_sample_logit(s->c[i + j].key);
            uint32_t word[4], counter[4] = {s->position, id[j] / 4, 0, 0};
            cpu_sample_philox(word, counter, s->key);
            x[j] = word[id[j] % 4];
        }
        struct v16 yv = sample_y(s, v16_load(z));
        v16_store(y, yv);
        v16_store(total, v16_add(yv, sample_gumbel(sample_uniform(w16_load(x)))));
        for (size_t j = 0; j < 16 && i + j < n; j++)
            if (y[j] >= s->floor && (total[j] > score || (total[j] == score && id[j] < best))) {
                score = total[j];
                best = id[j];
            }
    }
    *best_score = score;
    return best;
}

VEC_FN void sample_philox16(uint32_t *words, uint32_t first, const struct sample *s)
{
    /* lane 4j + k is counter first + 4k + j: the order that w16_store_quads undoes */
    static const uint32_t order[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
    struct w16 c0 = w16_set1(s->position), c1 = w16_add(w16_load(order), w16_set1(first));
    struct w16 c2 = w16_set1(0), c3 = w16_set1(0);
    uint32_t k0 = s->key[0], k1 = s->key[1];
    for (int round = 0; round < 10; round++) {
        struct w16 hi0, hi1, lo0 = w16_mul_wide(c0, CPU_PHILOX_M0, &hi0);
        struct w16 lo1 = w16_mul_wide(c2, CPU_PHILOX_M1, &hi1);
        c0 = w16_xor(w16_xor(hi1, c1), w16_set1(k0));
        c1 = lo1;
        c2 = w16_xor(w16_xor(hi0, c3), w16_set1(k1));
        c3 = lo0;
        k0 += CPU_PHILOX_W0;
        k1 += CPU_PHILOX_W1;
    }
    w16_store_quads(words, c0, c1, c2, c3);
}

/* Best of all tokens with key >= cut; `best` and `score` start with a valid candidate. */
static uint32_t sample_draw_all(const struct sample *s, uint64_t cut, uint32_t best, float score)
{
    const float most = 22.9f; /* no word gives more noise */
    for (uint32_t i = 0; i < s->vocab; i += 64) {
        struct v16 y[4], top = v16_set1(-INFINITY);
        uint32_t n = s->vocab - i < 64 ? (s->vocab - i + 15) / 16 : 4, words[64];
        for (uint32_t j = 0; j < n; j++) {
            y[j] = sample_y(s, sample_load(s->z, i + 16 * j, s->vocab));
            top = v16_max(top, y[j]);
        }
        if (!v16_ge_mask(top, v16_set1(score - most)))
            continue;
        sample_philox16(words, i / 4, s);
        for (uint32_t j = 0; j < n; j++) {
            struct v16 v = sample_uniform(w16_load(words + 16 * j));
            /* v >= 2^k with k its exponent, so the noise, at most -ln v, is at most -k ln 2 */
            struct v16 k = w16_to_v16_signed(w16_sub(w16_sra(v16_bits(v), 23), w16_set1(127)));
            struct v16 bound = v16_fma(k, v16_set1(-0.693148f), v16_add(y[j], v16_set1(0.001f)));
            uint32_t m = v16_ge_mask(bound, v16_set1(score)) & v16_ge_mask(y[j], v16_set1(s->floor));
            if (m == 0)
                continue;
            float total[16];
            v16_store(total, v16_add(y[j], sample_gumbel(v)));
            for (; m != 0; m &= m - 1) {
                uint32_t lane = (uint32_t)__builtin_ctz(m), id = i + 16 * j + lane;
                if (total[lane] < score || (total[lane] == score && id >= best))
                    continue;
                if (cpu_sample_key(s->z[id], id) < cut)
                    continue;
                score = total[lane];
                best = id;
            }
        }
    }
    return best;
}

/* Applies top-k and top-p; returns the number of candidates left in s->c. */
static size_t sample_filter(const struct sample *s, uint32_t top_k, float top_p)
{
    float t = 1.0f / s->inv_t;
    uint64_t target = 0, cut = 0;
    size_t n = 0;
    if (top_k == 0)
        target = cpu_sample_target(top_p, sample_total_mass(s));
    for (float depth = 8.0f;; depth *= 2) {
        float floor = depth < 200.0f ? s->max - depth * t : -INFINITY;
        n = sample_gather(s, floor);
        bool all = depth >= 200.0f || !(floor > -FLT_MAX);
        if (top_k > 0) {
            if (n < top_k && !all)
                continue;
            n = cpu_sample_keep(s->c, n, cpu_sample_cut(s->c, n, top_k, false));
            break;
        }
        if (sample_weigh(s, n) < target && !all)
            continue;
        cut = cpu_sample_cut(s->c, n, target, true);
        return cpu_sample_keep(s->c, n, cut);
    }
    if (top_p < 1.0f) {
        target = cpu_sample_target(top_p, sample_weigh(s, n));
        n = cpu_sample_keep(s->c, n, cpu_sample_cut(s->c, n, target, true));
    }
    return n;
}

static uint32_t sample_draw(struct sample *s, const struct be_sample_row *p)
{
    uint32_t top_k = p->top_k < s->vocab ? p->top_k : 0;
    float score;
    s->inv_t = 1.0f / p->temperature;
    s->position = p->position;
    s->key[0] = (uint32_t)p->seed;
    s->key[1] = (uint32_t)(p->seed >> 32);
    s->floor = -FLT_MAX;
    if (p->min_p > 0.0f) {
        float ln[16];
        v16_store(ln, v16_log(v16_set1(p->min_p > FLT_MIN ? p->min_p : FLT_MIN)));
        s->floor = ln[0] < 0.0f ? ln[0] : 0.0f;
    }
    if (top_k > 0 || p->top_p < 1.0f) {
        size_t n = sample_filter(s, top_k, p->top_p);
        if (n <= 256)
            return sample_draw_list(s, n, &score);
        uint64_t cut = s->c[0].key;
        for (size_t i = 1; i < n; i++)
            cut = s->c[i].key < cut ? s->c[i].key : cut;
        s->c[0].key = cpu_sample_key(s->max, s->best_id);
        uint32_t first = sample_draw_list(s, 1, &score);
        return sample_draw_all(s, cut, first, score);
    }
    s->c[0].key = cpu_sample_key(s->max, s->best_id);
    uint32_t first = sample_draw_list(s, 1, &score);
    return sample_draw_all(s, 0, first, score);
}

static void sample_logprobs(const struct sample *s, uint32_t n_top, struct be_sample_out *out)
{
    float log_z = sample_log_z(s);
    out->logprob = s->z[out->token] - log_z;
    if (n_top == 0)
        return;
    n_top = n_top < BE_LOGPROBS_MAX ? n_top : BE_LOGPROBS_MAX;
    size_t n = 0;
    for (float depth = 4.0f; n < n_top; depth *= 2) {
        bool all = depth > 1000.0f;
        n = sample_gather(s, all ? -INFINITY : s->max - depth);
        if (all)
            break;
    }
    n = cpu_sample_keep(s->c, n, cpu_sample_cut(s->c, n, n_top, false));
    cpu_sample_top(out, s->c, n, log_z);
}

static void rows_sample(float *logits, uint32_t vocab, const struct be_sample_row *p,
                        struct be_sample_out *out, void *scratch)
{
    struct sample s = {.z = logits, .vocab = vocab, .c = scratch};
    out->token = -1;
    out->logprob = 0;
    out->n_top = 0;
    cpu_sample_edit(logits, vocab, p);
    if (!sample_max(&s))
        return;
    out->token = (int32_t)(p->temperature < 1e-5f ? s.best_id : sample_draw(&s, p));
    if (p->n_logprobs >= 0)
        sample_logprobs(&s, (uint32_t)p->n_logprobs, out);
}
