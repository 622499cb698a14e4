/* A step of N rows takes g(N) + a * attention + k * context: g, the products with the weights, is flat while reading weights is
 * what takes time and rises linearly after, with humps where tiles fill up, so it is a table with straight lines between; a and k
 * are what attention costs. 24 numbers, and each step tells the sum of four of them.
 *
 * They are learned together, as multiples of the seed, by recursive least squares with a prior (a Kalman filter): the error of a
 * step is shared out by how unsure each number is and how much it weighs in the step. Neighbouring buckets start correlated, so
 * the first steps correct buckets that have not been seen; what has been seen often hardly moves. Errors count relative to the
 * measured time, so a stall that slips through weighs little.
 *
 * What was learned may for a while be negative or fall with N. Predictions are made from the nearest table that is neither,
 * each bucket weighted by its certainty: fit bisects, and a learned bucket must not be spoiled by a guessed neighbour. The filter
 * itself is left alone: cut values with the old certainties stay wrong for a thousand steps.
 *
 * Rejected: moving two buckets by a tenth of the error, with least squares for a and k alone on the rest: a bucket seen ten times
 * in 200 steps keeps a third of the seed's error, and g and a, k each correct for the other's. Forgetting by a factor: the
 * uncertainty of buckets not in use grows without bound. Here it grows by a constant, to that of the seed at most. */
#include "steptime.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { ATTENTION = STEPTIME_BUCKETS, CONTEXT, STRIKES = 5, TERMS = 4 };

static const uint32_t bucket_rows[STEPTIME_BUCKETS] = {
    1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192};

static const double BUCKET_VARIANCE = 1;    /* the seed may be off by its own size ... */
static const double ATTENTION_VARIANCE = 4; /* ... and by more where the guess is harder */
static const double NEIGHBOUR = 0.9;        /* correlation of one bucket with the next, in the seed's error */
static const double NOISE_VARIANCE = 0.0025; /* of one measurement, relative: 5 % */
static const double DRIFT_VARIANCE = 1e-5;   /* by which each number may wander between two steps */
static const double SCALE_LEAST =
    1.0 / 16; /* of the expected time: what errors are relative to, however short the step was */
static const double SIGMA_START = 0.25, SIGMA_RATE = 0.05, SIGMA_LEAST = 0.01;
static const double DOUBTED = 6; /* times what a step may be off */

/* The bucket at or below n, so that there is one above. */
static uint32_t bucket_of(uint32_t n)
{
    uint32_t lo = 0, hi = STEPTIME_BUCKETS - 1; /* rows[lo] <= n, or lo = 0 */
    while (hi - lo > 1) {
        uint32_t mid = (lo + hi) / 2;
        if (bucket_rows[mid] <= n)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* Where n stands between its bucket (0) and the next (1); above 1 beyond the last bucket, whose line goes on. */
static double place_of(uint32_t n, uint32_t bucket)
{
    uint32_t at = bucket_rows[bucket];
    return (double)(n - at) / (double)(bucket_rows[bucket + 1] - at);
}

static uint32_t rows_of(const struct steptime_load *load)
{
    return load->n_rows > 0 ? load->n_rows : 1;
}

/* As unsure as at the start: the seed was a guess, or the machine has changed. */
static void open_up(struct steptime *m)
{
    memset(m->cov, 0, sizeof m->cov);
    for (uint32_t i = 0; i < STEPTIME_BUCKETS; i++) {
        double v = BUCKET_VARIANCE;
        for (uint32_t j = i; j < STEPTIME_BUCKETS; j++, v *= NEIGHBOUR)
            m->cov[i][j] = m->cov[j][i] = v;
    }
    m->cov[ATTENTION][ATTENTION] = m->cov[CONTEXT][CONTEXT] = ATTENTION_VARIANCE;
    m->sigma = SIGMA_START;
    m->strikes = 0;
}

void steptime_init(struct steptime *m, const struct steptime_seed *seed)
{
    assert(seed->step_ns >= 0 && seed->row_ns > 0 && seed->attention_ns > 0 && seed->context_ns > 0);
    *m = (struct steptime){0};
    for (uint32_t i = 0; i < STEPTIME_BUCKETS; i++)
        m->unit_ns[i] = seed->step_ns + bucket_rows[i] * seed->row_ns;
    m->unit_ns[ATTENTION] = seed->attention_ns;
    m->unit_ns[CONTEXT] = seed->context_ns;
    for (uint32_t i = 0; i < STEPTIME_PARTS; i++)
        m->times[i] = 1;
    memcpy(m->part_ns, m->unit_ns, sizeof m->part_ns);
    open_up(m);
}

/* Rises with each member to the last bit: every operation is monotone, and g1 - g0 is exact where it is small. */
double steptime_predict_ns(const struct steptime *m, const struct steptime_load *load, double z)
{
    uint32_t n = rows_of(load), b = bucket_of(n);
    const double *g = &m->part_ns[b];
    double ns = g[0] + place_of(n, b) * (g[1] - g[0]) + (double)load->attention * m->part_ns[ATTENTION] +
                (double)load->context * m->part_ns[CONTEXT];
    return ns * (1 + z * m->sigma);
}

/* A step's share in each part, and what the filter makes of it. */
struct look {
    double pull[STEPTIME_PARTS]; /* cov * h: h what each part adds to the step, relative to scale_ns */
    double learned_ns;           /* the step's time by `times` */
    double variance;             /* of that: h * cov * h */
    double scale_ns;
};

static struct look look_at(const struct steptime *m, const struct steptime_load *load, double scale_ns)
{
    uint32_t n = rows_of(load), b = bucket_of(n);
    double up = place_of(n, b);
    const uint32_t part[TERMS] = {b, b + 1, ATTENTION, CONTEXT};
    const double share[TERMS] = {1 - up, up, (double)load->attention, (double)load->context};
    struct look l = {.scale_ns = scale_ns};
    for (uint32_t k = 0; k < TERMS; k++) {
        double ns = share[k] * m->unit_ns[part[k]], h = ns / scale_ns;
        l.learned_ns += ns * m->times[part[k]];
        for (uint32_t i = 0; i < STEPTIME_PARTS; i++)
            l.pull[i] += m->cov[part[k]][i] * h;
    }
    for (uint32_t k = 0; k < TERMS; k++)
        l.variance += share[k] * m->unit_ns[part[k]] / scale_ns * l.pull[part[k]];
    l.variance = fmax(l.variance, 0);
    return l;
}

static void learn(struct steptime *m, const struct look *l, double measured_ns)
{
    double error = (measured_ns - l->learned_ns) / l->scale_ns, sum = 1 / (l->variance + NOISE_VARIANCE);
    for (uint32_t i = 0; i < STEPTIME_PARTS; i++) {
        double limit = i < STEPTIME_BUCKETS ? BUCKET_VARIANCE : ATTENTION_VARIANCE;
        m->times[i] += l->pull[i] * sum * error;
        for (uint32_t j = 0; j < STEPTIME_PARTS; j++)
            m->cov[i][j] -= l->pull[i] * l->pull[j] * sum;
        if (m->cov[i][i] < limit)
            m->cov[i][i] += DRIFT_VARIANCE;
    }
}

/* Pool adjacent violators: the rising table nearest to what was learned. */
static void make_parts(struct steptime *m)
{
    struct {
        double ns, weight;
        uint32_t n;
    } run[STEPTIME_BUCKETS];
    uint32_t n_runs = 0, b = 0;
    for (uint32_t i = 0; i < STEPTIME_BUCKETS; i++) {
        double unit = m->unit_ns[i];
        run[n_runs].ns = fmax(m->times[i] * unit, 0);
        run[n_runs].weight = 1 / (m->cov[i][i] * unit * unit);
        run[n_runs++].n = 1;
        while (n_runs > 1 && run[n_runs - 2].ns > run[n_runs - 1].ns) {
            double w = run[n_runs - 2].weight, v = run[n_runs - 1].weight;
            run[n_runs - 2].ns = (run[n_runs - 2].ns * w + run[n_runs - 1].ns * v) / (w + v);
            run[n_runs - 2].weight = w + v;
            run[n_runs - 2].n += run[n_runs - 1].n;
            n_runs--;
        }
    }
    for (uint32_t r = 0; r < n_runs; r++)
        for (uint32_t i = 0; i < run[r].n; i++, b++)
            m->part_ns[b] = run[r].ns;
    for (uint32_t i = STEPTIME_BUCKETS; i < STEPTIME_PARTS; i++)
        m->part_ns[i] = fmax(m->times[i], 0) * m->unit_ns[i];
}

void steptime_update(struct steptime *m, const struct steptime_load *load, int64_t measured_ns)
{
    if (measured_ns <= 0)
        return;
    double measured = (double)measured_ns, expected = steptime_predict_ns(m, load, 0);
    double error_ns = fabs(measured - expected);
    struct look l = look_at(m, load, fmax(measured, expected * SCALE_LEAST));
    if (error_ns > DOUBTED * (m->sigma * expected + sqrt(l.variance) * l.scale_ns)) {
        m->n_doubted++;
        if (++m->strikes < STRIKES)
            return;
        open_up(m); /* five in a row are no accident: what was known is void */
        l = look_at(m, load, l.scale_ns);
    }
    m->strikes = 0;
    learn(m, &l, measured);
    make_parts(m);
    double error = error_ns < expected ? error_ns / expected : 1;
    m->sigma = fmax(m->sigma + SIGMA_RATE * (error - m->sigma), SIGMA_LEAST);
    m->n_updates++;
}

struct steptime_load steptime_with_chunk(const struct steptime_load *base, uint32_t start, uint32_t n)
{
    struct steptime_load l = *base;
    l.n_rows += n;
    l.attention += (uint64_t)n * start + (uint64_t)n * n / 2;
    return l;
}

uint32_t steptime_fit(const struct steptime *m, const struct steptime_load *base, uint32_t start,
                      uint32_t want, double cap_ns, double z)
{
    uint32_t lo = 0, hi = want; /* lo fits, or is 0; all above hi do not */
    while (lo < hi) {
        uint32_t mid = hi - (hi - lo) / 2;
        struct steptime_load l = steptime_with_chunk(base, start, mid);
        if (steptime_predict_ns(m, &l, z) <= cap_ns)
            lo = mid;
        else
            hi = mid - 1;
    }
    return lo;
}
