/* sample_cut: what a row of the sampler shares, and where top-k and top-p cut the order of its tokens.
 *
 * Owns     nothing.
 * Units    keys: see sample_math.cuh.
 * States   the maxima of the threads are known (sample_find_max) before a list is made.
 * Threads  all of the CTA reach every function.
 * Errors   -
 * Bounds   SAMPLE_LIST keys in a list; beyond it the row itself.
 * Source   KERNELS design, sections 6.3 and 6.4.
 *
 * top-k and top-p keep the first tokens in the order of their keys, until their count or mass is reached; nothing is sorted.
 * First the head of that order is gathered into a list: split the threads into G groups, each of which has seen a maximum; at
 * least G tokens reach the least of these maxima, and with real logits not many more. Then a search over the digits of the key
 * from the top finds the last key that stays: count or weigh the tokens by digit, cumulate, descend into the digit that crosses
 * the target. On the list that is quick, and the draw is from the list as well: a filtered row is read twice. Where the list
 * overflows (ties), or the head is too short (flat rows, a large top-k), the same search goes over the row, until what may still
 * stay fits into the list, or to its end: exact as well, slower.
 */
#ifndef STATOR_SAMPLE_CUT_CUH
#define STATOR_SAMPLE_CUT_CUH

#include "cu_sample.h"
#include "launch.h"
#include "sample_walk.cuh"

enum {
    SAMPLE_DIGIT = 12,
    SAMPLE_BINS = 1 << SAMPLE_DIGIT,
    SAMPLE_LIST = 4096,
    SAMPLE_THREADS = 1024, /* at most */
    SAMPLE_WARPS = SAMPLE_THREADS / 32,
};

#define SAMPLE_ROW 0xffffffffu /* sample_cta.n_list: tokens are taken from the row */
#define SAMPLE_BAD (~(uint64_t)0)

/* What a search knows after a digit: `digit` crosses the target, with n tokens; sum and n_above are of the digits above it. */
struct sample_digit {
    uint64_t above;
    uint32_t digit, n, n_above;
};

struct sample_smem {
    uint64_t first[SAMPLE_THREADS]; /* the largest key that each thread has seen */
    uint64_t list[SAMPLE_LIST];     /* keys, in any order */
    uint64_t room[SAMPLE_WARPS];    /* of one reduction */
    uint64_t top[BE_LOGPROBS_MAX];
    struct sample_digit found;
    uint32_t warp_n[SAMPLE_WARPS];
    uint32_t n_list, n_top;
    uint32_t prev_seen, poisoned;
    uint32_t n[SAMPLE_BINS], lo[SAMPLE_BINS], hi[SAMPLE_BINS]; /* per digit: tokens, and their mass in two words */
};

struct sample_cta {
    const float *z;
    struct sample_smem *sm;
    uint32_t vocab, best_id, n_list;
    float max, inv_t;
};

PTX_FN float sample_y(const struct sample_cta &c, float z)
{
    return (z - c.max) * c.inv_t;
}

/* ---- the list ------------------------------------------------------------------------------------------------------- */

struct sample_gatherer {
    enum { QUADS = 2 };
    const struct sample_cta &c;
    uint64_t low, mass;
    bool weigh;
};

PTX_FN void visit(struct sample_gatherer &g, uint32_t id, const float z[4])
{
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t key = sample_key(z[i], id + i);
        if (g.weigh)
            g.mass += sample_mass(sample_y(g.c, z[i]));
        if (key < g.low)
            continue;
        uint32_t at = ptx_atomic_add(&g.c.sm->n_list, 1u);
        if (at < SAMPLE_LIST)
            g.c.sm->list[at] = key;
    }
}

/* The tokens of the row with keys from `low` on become the list, if they fit. Returns this thread's part of the mass of all
 * tokens, if it is to weigh them. */
template <int THREADS> PTX_FN uint64_t sample_gather(struct sample_cta &c, uint64_t low, bool weigh)
{
    if (threadIdx.x == 0)
        c.sm->n_list = 0;
    ptx_syncthreads();
    struct sample_gatherer g = {c, low, 0, weigh};
    sample_walk<THREADS>(c.z, c.vocab, g);
    ptx_syncthreads();
    c.n_list = c.sm->n_list <= SAMPLE_LIST ? c.sm->n_list : SAMPLE_ROW;
    return g.mass;
}

/* A key that at least n tokens reach, or all that are not -inf. n <= THREADS. */
template <int THREADS> PTX_FN uint64_t sample_head(const struct sample_cta &c, uint32_t n)
{
    uint64_t group = c.sm->first[threadIdx.x];
    for (int lanes = 1; lanes < 32 && (uint32_t)lanes * 2 * n <= THREADS; lanes *= 2) {
        uint64_t o = ptx_shfl_xor(group, lanes);
        group = o > group ? o : group;
    }
    uint64_t least = ~sample_max<THREADS>(~group, c.sm->room);
    return least > SAMPLE_KEY_MIN ? least : SAMPLE_KEY_MIN;
}

/* ---- where a filter cuts the order of tokens -------------------------------------------------------------------------- */

/* The tokens whose keys are at least `low` and begin with `prefix`, before the low `top` bits. */
struct sample_histogram {
    enum { QUADS = 1 };
    const struct sample_cta &c;
    uint64_t low, prefix;
    uint32_t top, shift;
    bool by_mass;
};

PTX_FN void sample_count(struct sample_histogram &h, uint64_t key)
{
    if (key < h.low || key >> h.top != h.prefix)
        return;
    struct sample_smem *sm = h.c.sm;
    uint32_t bin = (uint32_t)(key >> h.shift) & (SAMPLE_BINS - 1);
    if (h.by_mass) {
        uint64_t mass = sample_mass(sample_y(h.c, sample_key_value(key)));
        uint32_t lo = (uint32_t)mass, old = ptx_atomic_add(&sm->lo[bin], lo);
        uint32_t hi = (uint32_t)(mass >> 32) + (old + lo < old); /* every wrap of lo is seen by one thread */
        if (hi)
            ptx_atomic_add(&sm->hi[bin], hi);
    }
    ptx_atomic_add(&sm->n[bin], 1u);
}

PTX_FN void visit(struct sample_histogram &h, uint32_t id, const float z[4])
{
#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
        sample_count(h, sample_key(z[i], id + i));
}

template <int THREADS> PTX_FN void sample_fill(struct sample_histogram &h)
{
    struct sample_smem *sm = h.c.sm;
    for (uint32_t i = threadIdx.x; i < SAMPLE_BINS; i += THREADS)
        sm->n[i] = sm->lo[i] = sm->hi[i] = 0;
    ptx_syncthreads();
    if (h.c.n_list == SAMPLE_ROW)
        sample_walk<THREADS>(h.c.z, h.c.vocab, h);
    else
        for (uint32_t i = threadIdx.x; i < h.c.n_list; i += THREADS)
            sample_count(h, sm->list[i]);
    ptx_syncthreads();
}

PTX_FN uint64_t sample_bin_sum(const struct sample_smem *sm, uint32_t bin, bool by_mass)
{
    return by_mass ? (uint64_t)sm->hi[bin] << 32 | sm->lo[bin] : sm->n[bin];
}

/* Sums of the bins, from the top: each thread has PER bins, and learns what lies above them and in all. */
struct sample_sums {
    uint64_t above, all;
    uint32_t n_above, n_all;
};

template <int THREADS> PTX_FN struct sample_sums sample_scan(struct sample_smem *sm, bool by_mass)
{
    enum { PER = SAMPLE_BINS / THREADS };
    uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, n = 0;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < PER; i++) {
        uint32_t bin = SAMPLE_BINS - 1 - (threadIdx.x * PER + i);
        n += sm->n[bin];
        sum += sample_bin_sum(sm, bin, by_mass);
    }
    struct sample_sums s = {0, 0, 0, 0};
    uint64_t upto = sum;
    uint32_t n_upto = n;
#pragma unroll
    for (int by = 1; by < 32; by *= 2) {
        uint64_t u = ptx_shfl_up(upto, by);
        uint32_t k = ptx_shfl_up(n_upto, by);
        if (lane >= (uint32_t)by) {
            upto += u;
            n_upto += k;
        }
    }
    if (lane == 31) {
        sm->room[warp] = upto;
        sm->warp_n[warp] = n_upto;
    }
    ptx_syncthreads();
    s.above = upto - sum;
    s.n_above = n_upto - n;
#pragma unroll 4
    for (uint32_t w = 0; w < THREADS / 32; w++) {
        s.all += sm->room[w];
        s.n_all += sm->warp_n[w];
        if (w < warp) {
            s.above += sm->room[w];
            s.n_above += sm->warp_n[w];
        }
    }
    ptx_syncthreads();
    return s;
}

/* The digit at which the sum from the top reaches `want` > 0, which all digits together do reach. */
template <int THREADS>
PTX_FN struct sample_digit sample_cross(struct sample_smem *sm, struct sample_sums s, uint64_t want, bool by_mass)
{
    enum { PER = SAMPLE_BINS / THREADS };
    for (uint32_t i = 0; i < PER && s.above < want; i++) {
        uint32_t bin = SAMPLE_BINS - 1 - (threadIdx.x * PER + i);
        uint64_t sum = sample_bin_sum(sm, bin, by_mass);
        if (s.above + sum >= want)
            sm->found = {s.above, bin, sm->n[bin], s.n_above};
        s.above += sum;
        s.n_above += sm->n[bin];
    }
    ptx_syncthreads();
    return sm->found;
}

/* Of the tokens with keys from `low` on: the last key that stays when the first ones are kept until their number or mass is
 * `want`; `low` if all are less. */
template <int THREADS> PTX_FN uint64_t sample_cut(struct sample_cta &c, uint64_t low, uint64_t want, bool by_mass)
{
    if (by_mass) { /* most of a row has no mass at all: it need not be weighed */
        uint64_t light = sample_key(c.max - ptx_div(SAMPLE_DEPTH, c.inv_t), SAMPLE_IDS - 1);
        low = light > low ? light : low;
    }
    struct sample_histogram h = {c, low, 0, SAMPLE_KEY_BITS, SAMPLE_KEY_BITS, by_mass};
    uint32_t n_above = 0;
    for (;;) {
        h.shift = h.top > SAMPLE_DIGIT ? h.top - SAMPLE_DIGIT : 0;
        sample_fill<THREADS>(h);
        struct sample_sums s = sample_scan<THREADS>(c.sm, by_mass);
        struct sample_digit d = {0, 0, 0, s.n_all};
        bool all = s.all < want; /* only at the first digit */
        if (!all)
            d = sample_cross<THREADS>(c.sm, s, want, by_mass);
        want -= d.above; /* from now on: of the tokens with this prefix */
        n_above += d.n_above;
        h.prefix = h.prefix << (h.top - h.shift) | d.digit;
        h.top = h.shift;
        uint64_t edge = all || h.prefix << h.shift < low ? low : h.prefix << h.shift;
        if (c.n_list == SAMPLE_ROW && n_above + d.n <= SAMPLE_LIST)
            sample_gather<THREADS>(c, edge, false);
        if (all || d.n == 1 || h.shift == 0)
            return edge;
    }
}

/* ---- the filters ---------------------------------------------------------------------------------------------------- */

struct sample_weigher {
    enum { QUADS = 1 };
    const struct sample_cta &c;
    uint64_t low, mass;
};

PTX_FN void sample_add(struct sample_weigher &w, uint64_t key)
{
    if (key >= w.low)
        w.mass += sample_mass(sample_y(w.c, sample_key_value(key)));
}

PTX_FN void visit(struct sample_weigher &w, uint32_t id, const float z[4])
{
#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
        sample_add(w, sample_key(z[i], id + i));
}

/* The mass of the tokens with keys from `low` on, of the list or the row. */
template <int THREADS> PTX_FN uint64_t sample_weigh(const struct sample_cta &c, uint64_t low)
{
    struct sample_weigher w = {c, low, 0};
    if (c.n_list == SAMPLE_ROW)
        sample_walk<THREADS>(c.z, c.vocab, w);
    else
        for (uint32_t i = threadIdx.x; i < c.n_list; i += THREADS)
            sample_add(w, c.sm->list[i]);
    return sample_total<THREADS>(w.mass, c.sm->room);
}

/* The last key that stays, after top-k (0: off), then top-p (1: off). */
template <int THREADS> PTX_FN uint64_t sample_filter(struct sample_cta &c, uint32_t top_k, float top_p)
{
    uint64_t cut = SAMPLE_KEY_MIN, mass = 0;
    bool weigh = top_k == 0;
    uint32_t head = weigh ? THREADS / 4 : top_k;
    if (head <= THREADS / 2)
        mass = sample_gather<THREADS>(c, sample_head<THREADS>(c, head), weigh);
    if (top_k)
        cut = sample_cut<THREADS>(c, cut, top_k, false);
    if (top_p < 1.0f) {
        mass = weigh ? sample_total<THREADS>(mass, c.sm->room) : sample_weigh<THREADS>(c, cut);
        uint64_t want = sample_target(top_p, mass);
        if (weigh && c.n_list != SAMPLE_ROW && sample_weigh<THREADS>(c, cut) < want) /* the list is too short */
            c.n_list = SAMPLE_ROW;
        cut = sample_cut<THREADS>(c, cut, want, true);
    }
    return cut;
}

#endif
