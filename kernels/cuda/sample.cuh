/* sample: one row of logits to one token. Included by sample.cu, and by tests that run it with fewer threads.
 *
 * Owns     nothing.
 * Units    see sample_math.cuh.
 * States   edit -> maximum, with the mask -> [cut by count] -> [cut by mass] -> draw -> [log-probabilities]: each a pass or a few
 *          over the row, which sits in L2. Greedy rows read it once.
 * Threads  one CTA a row. The token does not depend on THREADS: counts and masses are integers, winners are maxima of a total
 *          order. Only logZ is a sum of floats, in the order of the threads.
 * Errors   token -1: a NaN, +inf, or nothing but -inf.
 * Bounds   vocab <= 2^24; shared memory is struct sample_smem.
 * Source   KERNELS design, section 6; the semantics are those of kernels/cpu/cpu_sample.inl.
 */
#ifndef STATOR_SAMPLE_CUH
#define STATOR_SAMPLE_CUH

#include "sample_cut.cuh"

/* ---- edits ---------------------------------------------------------------------------------------------------------- */

/* The mask of a row, NULL: it has none. It is read where it has arrived, in the blob: no kernel before this one needs it. */
PTX_FN const uint32_t *sample_mask(const struct cu_sample &p, const struct cu_sample_row *r)
{
    return r->allowed ? (const uint32_t *)(p.blob[*p.parity % CU_BLOBS] + r->allowed) : NULL;
}

/* What the mask bans is -inf before any penalty, so that it has none to take. */
PTX_FN void sample_edit_seen(float *z, uint32_t vocab, const uint32_t *mask, const struct cu_sample_row *r, uint32_t token,
                             uint32_t n_out)
{
    if (token >= vocab || (mask && !(mask[token / 32] >> token % 32 & 1)))
        return;
    float v = z[token];
    if (r->repetition != 1.0f)
        v = v > 0 ? ptx_div(v, r->repetition) : v * r->repetition;
    if (n_out > 0) {
        v = v - r->frequency * (float)n_out;
        v = v - r->presence;
    }
    z[token] = v;
}

/* Tokens are distinct within a list (but for banned ones), so that only the lists have an order. A NaN or +inf fails the row:
 * where a banned token has one, none is banned, lest it be hidden. The token of the step before counts as one more output: of
 * its entry, or as an entry of its own. */
template <int THREADS>
PTX_FN void sample_edit(float *z, const uint32_t *mask, const struct cu_sample &p, const struct cu_sample_row *r,
                        struct sample_smem *sm)
{
    if ((r->n_bias | r->n_banned | r->n_seen | r->prev) == 0)
        return;
    uint32_t prev = r->prev ? (uint32_t)p.prev_drawn[r->prev - 1] : p.vocab;
    if (threadIdx.x == 0)
        sm->prev_seen = sm->poisoned = 0;
    for (uint32_t i = threadIdx.x; i < r->n_bias; i += THREADS) {
        struct be_bias b = p.bias[r->bias0 + i];
        if ((uint32_t)b.token < p.vocab)
            z[b.token] = z[b.token] + b.add;
    }
    ptx_syncthreads();
    for (uint32_t i = threadIdx.x; i < r->n_banned; i += THREADS) {
        uint32_t t = (uint32_t)p.banned[r->banned0 + i];
        if (t < p.vocab && !(z[t] < sample_inf()))
            sm->poisoned = 1;
    }
    ptx_syncthreads();
    for (uint32_t i = threadIdx.x; i < r->n_banned && !sm->poisoned; i += THREADS) {
        uint32_t t = (uint32_t)p.banned[r->banned0 + i];
        if (t < p.vocab)
            z[t] = -sample_inf();
    }
    ptx_syncthreads();
    for (uint32_t i = threadIdx.x; i < r->n_seen; i += THREADS) {
        struct be_seen s = p.seen[r->seen0 + i];
        bool again = (uint32_t)s.token == prev;
        if (again)
            sm->prev_seen = 1;
        sample_edit_seen(z, p.vocab, mask, r, (uint32_t)s.token, s.n_out + again);
    }
    ptx_syncthreads();
    if (threadIdx.x == 0 && !sm->prev_seen)
        sample_edit_seen(z, p.vocab, mask, r, prev, 1);
    ptx_syncthreads();
}

/* ---- maximum -------------------------------------------------------------------------------------------------------- */

struct sample_best {
    float value; /* a logit, or a score */
    uint32_t id;
};

struct sample_maximum {
    enum { QUADS = 4 };
    struct sample_best best;
    bool bad;
};

PTX_FN void visit(struct sample_maximum &v, uint32_t id, const float z[4])
{
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        v.bad |= !(z[i] < sample_inf());
        if (z[i] > v.best.value) {
            v.best.value = z[i];
            v.best.id = id + i;
        }
    }
}

/* The same of a row with a mask, which is written into the row on the way. A NaN or +inf stays, though banned: the row fails. */
struct sample_masked {
    enum { QUADS = 4 };
    struct sample_maximum all;
    const uint32_t *mask;
    float *z;
    uint32_t vocab;
    bool aligned;
};

PTX_FN void visit(struct sample_masked &v, uint32_t id, const float z[4])
{
    if (id >= v.vocab)
        return;
    uint32_t may = v.mask[id / 32] >> id % 32 & 15; /* a quad lies within a word */
    bool whole = v.aligned && id + 4 <= v.vocab;
    float f[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        bool ban = !(may >> i & 1) && z[i] < sample_inf();
        f[i] = ban ? -sample_inf() : z[i];
        if (ban && !whole && id + i < v.vocab)
            v.z[id + i] = f[i];
    }
    if (whole && may != 15)
        *(uint4 *)(v.z + id) = {ptx_bits(f[0]), ptx_bits(f[1]), ptx_bits(f[2]), ptx_bits(f[3])};
    visit(v.all, id, f);
}

/* false: no token can be drawn. `z`: c.z, to be written. */
template <int THREADS> PTX_FN bool sample_find_max(struct sample_cta &c, float *z, const uint32_t *mask)
{
    struct sample_maximum v = {{-sample_inf(), 0}, false};
    if (mask) {
        struct sample_masked masked = {v, mask, z, c.vocab, ((size_t)z & 15) == 0};
        sample_walk<THREADS>(c.z, c.vocab, masked);
        v = masked.all;
    } else {
        sample_walk<THREADS>(c.z, c.vocab, v);
    }
    uint64_t first = sample_key(v.best.value, v.best.id);
    c.sm->first[threadIdx.x] = first;
    uint64_t best = sample_max<THREADS>(v.bad ? SAMPLE_BAD : first, c.sm->room);
    c.max = sample_key_value(best);
    c.best_id = sample_key_id(best);
    return best != SAMPLE_BAD && c.max > -sample_inf();
}

/* ---- the draw: maximum of y + noise ------------------------------------------------------------------------------------ */

struct sample_draw {
    enum { QUADS = 1 };
    const struct sample_cta &c;
    uint64_t cut;
    float floor; /* tokens with y below are out */
    uint32_t position, key[2];
    struct sample_best best;
};

PTX_FN void sample_offer(struct sample_draw &d, uint32_t id, float score)
{
    if (score > d.best.value || (score == d.best.value && id < d.best.id)) {
        d.best.value = score;
        d.best.id = id;
    }
}

PTX_FN void sample_words(uint32_t word[4], const struct sample_draw &d, uint32_t quad)
{
    uint32_t counter[4] = {d.position, quad, 0, 0};
    philox(word, counter, d.key);
}

PTX_FN void sample_offer_key(struct sample_draw &d, uint64_t key)
{
    float y = sample_y(d.c, sample_key_value(key));
    uint32_t id = sample_key_id(key), word[4];
    if (key < d.cut || !(y >= d.floor))
        return;
    sample_words(word, d, id / 4);
    uint32_t low = id & 1 ? word[1] : word[0], high = id & 1 ? word[3] : word[2];
    sample_offer(d, id, y + sample_gumbel(sample_uniform(id & 2 ? high : low)));
}

/* Random words only where a token could win, logarithms only where its word lets it. */
PTX_FN void visit(struct sample_draw &d, uint32_t id, const float z[4])
{
    float y[4], limit = d.best.value - SAMPLE_NOISE_MAX;
    bool any = false;
    limit = limit > d.floor ? limit : d.floor;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        y[i] = sample_y(d.c, z[i]);
        any |= y[i] >= limit;
    }
    if (!any)
        return;
    uint32_t word[4];
    sample_words(word, d, id / 4);
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        float v = sample_uniform(word[i]);
        if (y[i] >= limit && sample_score_bound(y[i], v) >= d.best.value && sample_key(z[i], id + i) >= d.cut)
            sample_offer(d, id + i, y[i] + sample_gumbel(v));
    }
}

/* y = ln(min_p) and above stays. */
PTX_FN float sample_floor(float min_p)
{
    if (!(min_p > 0.0f))
        return -SAMPLE_FLT_MAX;
    float ln = sample_log(min_p > SAMPLE_FLT_MIN ? min_p : SAMPLE_FLT_MIN);
    return ln < 0.0f ? ln : 0.0f;
}

template <int THREADS> PTX_FN uint32_t sample_random(struct sample_cta &c, const struct cu_sample_row *r)
{
    uint64_t cut = SAMPLE_KEY_MIN;
    uint32_t top_k = r->top_k < c.vocab ? r->top_k : 0;
    c.inv_t = ptx_div(1.0f, r->temperature);
    if (top_k > 0 || r->top_p < 1.0f)
        cut = sample_filter<THREADS>(c, top_k, r->top_p);
    struct sample_draw d = {c, cut, sample_floor(r->min_p), r->position, {(uint32_t)r->seed, (uint32_t)(r->seed >> 32)},
                            {-sample_inf(), c.best_id}};
    sample_offer_key(d, sample_key(c.max, c.best_id)); /* the most likely token passes every filter */
    if (c.n_list == SAMPLE_ROW)
        sample_walk<THREADS>(c.z, c.vocab, d);
    else
        for (uint32_t i = threadIdx.x; i < c.n_list; i += THREADS)
            sample_offer_key(d, c.sm->list[i]);
    return sample_key_id(sample_max<THREADS>(sample_key(d.best.value, d.best.id), c.sm->room));
}

/* ---- log-probabilities ------------------------------------------------------------------------------------------------- */

struct sample_z_sum {
    enum { QUADS = 4 };
    float max, sum[4];
};

PTX_FN void visit(struct sample_z_sum &v, uint32_t, const float z[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        v.sum[i] = v.sum[i] + sample_exp(z[i] - v.max);
}

template <int THREADS> PTX_FN float sample_log_z(const struct sample_cta &c)
{
    struct sample_z_sum v = {c.max, {0, 0, 0, 0}};
    sample_walk<THREADS>(c.z, c.vocab, v);
    return c.max + sample_log(sample_sum<THREADS>((v.sum[0] + v.sum[1]) + (v.sum[2] + v.sum[3]), c.sm->room));
}

/* The most likely tokens in the order of their keys: each of them counts how many come before it. Returns their number. */
template <int THREADS>
PTX_FN uint32_t sample_top(struct sample_cta &c, uint32_t n_top, float log_z, struct be_sample_out *out)
{
    struct sample_smem *sm = c.sm;
    if (c.n_list == SAMPLE_ROW || c.n_list < n_top)
        sample_gather<THREADS>(c, sample_head<THREADS>(c, n_top), false);
    uint64_t cut = sample_cut<THREADS>(c, SAMPLE_KEY_MIN, n_top, false);
    if (threadIdx.x == 0)
        sm->n_top = 0;
    ptx_syncthreads();
    for (uint32_t i = threadIdx.x; i < c.n_list; i += THREADS)
        if (sm->list[i] >= cut)
            sm->top[ptx_atomic_add(&sm->n_top, 1u)] = sm->list[i];
    ptx_syncthreads();
    uint32_t n = sm->n_top;
    if (threadIdx.x < n) {
        uint64_t key = sm->top[threadIdx.x];
        uint32_t before = 0;
        for (uint32_t i = 0; i < n; i++)
            before += sm->top[i] > key;
        out->top[before].token = (int32_t)sample_key_id(key);
        out->top[before].logprob = sample_key_value(key) - log_z;
    }
    return n;
}

/* ---- a row -------------------------------------------------------------------------------------------------------------- */

template <int THREADS> PTX_KERNEL(THREADS, 1) sample_kernel(PTX_PARAM(struct cu_sample) p)
{
    PTX_SMEM(smem);
    ptx_pdl_wait();
    ptx_pdl_launch();
    if (p.n_rows && blockIdx.x >= *p.n_rows)
        return;
    const struct cu_sample_row *r = &p.rows[blockIdx.x];
    struct be_sample_out *out = &p.out[blockIdx.x];
    float *z = p.logits + (size_t)r->logits_row * p.ld;
    struct sample_cta c = {z, (struct sample_smem *)smem, p.vocab, 0, SAMPLE_ROW, 0, 1};
    uint32_t n_top = 0;
    int32_t token = -1;
    float logprob = 0;
    const uint32_t *mask = sample_mask(p, r);
    sample_edit<THREADS>(z, mask, p, r, c.sm);
    if (sample_find_max<THREADS>(c, z, mask)) {
        token = (int32_t)(r->temperature < 1e-5f ? c.best_id : sample_random<THREADS>(c, r));
        if (r->n_logprobs >= 0) {
            float log_z = sample_log_z<THREADS>(c);
            logprob = z[token] - log_z;
            n_top = (uint32_t)(r->n_logprobs < BE_LOGPROBS_MAX ? r->n_logprobs : BE_LOGPROBS_MAX);
            if (n_top > 0)
                n_top = sample_top<THREADS>(c, n_top, log_z, out);
        }
    }
    if (threadIdx.x == 0) {
        p.drawn[blockIdx.x] = token;
        out->token = token;
        out->logprob = logprob;
        out->n_top = n_top;
    }
}

template <int THREADS> static int sample_launch(struct gpu_stream *s, const struct cu_sample *p)
{
    if (p->vocab == 0 || p->vocab > SAMPLE_IDS || p->ld < p->vocab || !p->logits || !p->rows || !p->drawn || !p->out)
        return ST_EINVAL;
    if (p->m == 0)
        return ST_OK;
    uint32_t smem = sizeof(struct sample_smem);
    return gpu_launch(s, "sample", sample_kernel<THREADS>, dim3(p->m, 1, 1), THREADS, smem, true, *p);
}

#endif
