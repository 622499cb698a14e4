/* The parts of sampling that need no vector: edits of the logits, candidates and where a sorted list is cut.
 *
 * Filters (top-k, top-p) want "the first so many of the tokens sorted by (logit falling, id rising)".
 * Nothing here sorts: a token's 64-bit key orders like that pair, and a digit search over the keys finds
 * the smallest key that is kept, by count or by probability mass. Masses are integers (2^32 for the most
 * likely token), so that their sums do not depend on order.
 */
#include "cpu_sample_row.h"

#include <string.h>

size_t cpu_sample_scratch_bytes(uint32_t vocab)
{
    return ((size_t)vocab + 16) * sizeof(struct cpu_sample_cand);
}

void cpu_sample_philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)CPU_PHILOX_M0 * c0, p1 = (uint64_t)CPU_PHILOX_M1 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += CPU_PHILOX_W0;
        k1 += CPU_PHILOX_W1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* NaN and +inf stay: they must fail the row. */
static void ban(float *z, uint32_t t)
{
    if (z[t] < INFINITY)
        z[t] = -INFINITY;
}

static void ban_others(float *z, uint32_t vocab, const uint32_t *allowed)
{
    for (uint32_t i = 0; i < vocab; i += 32) {
        uint32_t n = vocab - i < 32 ? vocab - i : 32;
        for (uint32_t k = 0; allowed[i / 32] != UINT32_MAX && k < n; k++)
            if (!(allowed[i / 32] >> k & 1))
                ban(z, i + k);
    }
}

void cpu_sample_edit(float *z, uint32_t vocab, const struct be_sample_row *p)
{
    for (uint32_t i = 0; i < p->n_bias; i++)
        if ((uint32_t)p->bias[i].token < vocab)
            z[p->bias[i].token] += p->bias[i].add;
    for (uint32_t i = 0; i < p->n_banned; i++)
        if ((uint32_t)p->banned[i] < vocab)
            ban(z, (uint32_t)p->banned[i]);
    if (p->allowed)
        ban_others(z, vocab, p->allowed);
    for (uint32_t i = 0; i < p->n_seen; i++) {
        uint32_t t = (uint32_t)p->seen[i].token;
        if (t >= vocab)
            continue;
        if (p->repetition != 1.0f)
            z[t] = z[t] > 0 ? z[t] / p->repetition : z[t] * p->repetition;
        if (p->seen[i].n_out > 0) {
            float a = p->frequency * (float)p->seen[i].n_out;
            z[t] = z[t] - a;
            z[t] = z[t] - p->presence;
        }
    }
}

uint64_t cpu_sample_cut(const struct cpu_sample_cand *c, size_t n, uint64_t target, bool by_mass)
{
    struct {
        uint64_t sum, n;
    } bin[256];
    uint64_t min = UINT64_MAX, max = 0, taken = 0;
    for (size_t i = 0; i < n; i++) {
        min = c[i].key < min ? c[i].key : min;
        max = c[i].key > max ? c[i].key : max;
    }
    if (n == 0 || min == max)
        return 0;
    /* invariant: keys above those that share `prefix` in all bits but the low `top` are kept, and sum to
     * taken < target */
    uint32_t top = 64 - (uint32_t)__builtin_clzll(min ^ max);
    uint64_t prefix = top < 64 ? max >> top : 0;
    for (;;) {
        uint32_t shift = top > 8 ? top - 8 : 0;
        int digit = (1 << (top - shift)) - 1;
        memset(bin, 0, sizeof bin);
        for (size_t i = 0; i < n; i++)
            if (top == 64 || c[i].key >> top == prefix) {
                uint64_t b = c[i].key >> shift & (uint64_t)digit;
                bin[b].sum += by_mass ? c[i].mass : 1;
                bin[b].n++;
            }
        while (digit >= 0 && taken + bin[digit].sum < target)
            taken += bin[digit--].sum;
        if (digit < 0) /* only in the first round: all together are less than target */
            return 0;
        prefix = prefix << (top - shift) | (uint64_t)digit;
        if (bin[digit].n == 1 || shift == 0)
            return prefix << shift;
        top = shift;
    }
}

size_t cpu_sample_keep(struct cpu_sample_cand *c, size_t n, uint64_t cut)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (c[i].key >= cut)
            c[kept++] = c[i];
    return kept;
}

uint64_t cpu_sample_target(float top_p, uint64_t total)
{
    double x = (double)top_p * (double)total;
    uint64_t t = x > 0 ? (uint64_t)x : 0;
    if ((double)t < x)
        t++;
    return t > 0 ? t : 1;
}

void cpu_sample_top(struct be_sample_out *out, const struct cpu_sample_cand *c, size_t n, float log_z)
{
    /* by key, not by log-probability: different logits may round to one of these */
    uint64_t keys[BE_LOGPROBS_MAX];
    out->n_top = 0;
    for (size_t i = 0; i < n && i < BE_LOGPROBS_MAX; i++) {
        uint32_t at = out->n_top++;
        for (; at > 0 && keys[at - 1] < c[i].key; at--) {
            keys[at] = keys[at - 1];
            out->top[at] = out->top[at - 1];
        }
        keys[at] = c[i].key;
        out->top[at].token = (int32_t)cpu_sample_id(c[i].key);
        out->top[at].logprob = cpu_sample_logit(c[i].key) - log_z;
    }
}
