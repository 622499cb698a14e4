/* Clients announce more than they know: a constant 512 tokens, a call back that never comes. So an announcement is taken as a
 * multiple of what it has meant so far in its class, and what says nothing falls back to what others did.
 *
 * Output: the ratio is learned as a mean of logarithms (twice too long and half too long cancel), against what the request could
 * have written at most, so that a small max_tokens teaches nothing wrong. Without announcement the 70th percentile of the class:
 * reservations that are too small cost a preemption, too large ones only a later start.
 *
 * Retry-After: to let k requests leave the queue, k must end, and a busy machine ends requests as fast as it retires their work;
 * what higher classes bring meanwhile takes their places, at the rate at which it came of late. So the queue's length is a random
 * walk with a drift, and what is told is the median of its first passage, near 1 / (1 / mean + 0.455 / shape) of the inverse
 * Gaussian: told the mean, half of the clients would wait twice as long as needed, as a queue at its limit crosses it often.
 * Rejected: the distribution of what the runners have left: better for the first place only, and there by less than the second to
 * which the answer is rounded. */
#include "estimate.h"

#include <assert.h>
#include <math.h>

enum {
    OUTPUT_LEAST = 16,
    OUTPUT_UNKNOWN = 256,
    USED_AFTER = 8, /* samples; a ratio counts fully after ... */
    FULL_AFTER = 32,
    HALVE_EVERY = 512,
    PERCENTILE = 70
};
static const double RATIO_RATE = 0.05, RATIO_LEAST = 1.0 / 8, RATIO_MOST = 4;

static uint32_t clamp_output(double tokens, uint32_t cap)
{
    uint32_t least = cap < OUTPUT_LEAST ? cap : OUTPUT_LEAST;
    return tokens >= cap ? cap : tokens <= least ? least : (uint32_t)lround(tokens);
}

static uint32_t length_bucket(uint32_t tokens)
{
    uint32_t b = 0;
    while (tokens > 1 && b + 1 < ESTIMATE_LENGTHS) {
        tokens >>= 1;
        b++;
    }
    return b;
}

/* Within its bucket as if all lengths were as frequent. */
static double usual_length(const struct output_estimate *s, uint32_t cls)
{
    uint32_t k = s->lengths[cls].n >= USED_AFTER ? cls : ENGINE_CLASSES;
    if (s->lengths[k].n < USED_AFTER)
        return OUTPUT_UNKNOWN;
    double want = s->lengths[k].n * (PERCENTILE / 100.0), below = 0;
    uint32_t b = 0;
    while (b + 1 < ESTIMATE_LENGTHS && below + s->lengths[k].count[b] < want)
        below += s->lengths[k].count[b++];
    return (double)(1u << b) * (1 + (want - below) / s->lengths[k].count[b]);
}

uint32_t estimate_output(const struct output_estimate *s, uint32_t cls, uint32_t announced, uint32_t cap)
{
    assert(cls < ENGINE_CLASSES);
    if (announced == 0)
        return clamp_output(usual_length(s, cls), cap);
    uint32_t most = announced < cap ? announced : cap, n = s->announced[cls].n;
    if (n <= USED_AFTER)
        return clamp_output(most, cap);
    double share = n < FULL_AFTER ? (double)(n - USED_AFTER) / (FULL_AFTER - USED_AFTER) : 1;
    double ratio = exp(s->announced[cls].log_ratio / s->announced[cls].weight);
    ratio = fmin(fmax(ratio, RATIO_LEAST), RATIO_MOST);
    return clamp_output(most * (1 + share * (ratio - 1)), cap);
}

static void note_length(struct output_estimate *s, uint32_t k, uint32_t bucket)
{
    s->lengths[k].count[bucket]++;
    s->lengths[k].n++;
    if (++s->lengths[k].since_halved < HALVE_EVERY)
        return;
    s->lengths[k].since_halved = s->lengths[k].n = 0;
    for (uint32_t i = 0; i < ESTIMATE_LENGTHS; i++)
        s->lengths[k].n += s->lengths[k].count[i] /= 2;
}

void estimate_note_output(struct output_estimate *s, uint32_t cls, uint32_t announced, uint32_t cap,
                          uint32_t actual)
{
    assert(cls < ENGINE_CLASSES);
    note_length(s, cls, length_bucket(actual));
    note_length(s, ENGINE_CLASSES, length_bucket(actual));
    if (announced == 0 || cap == 0)
        return;
    uint32_t most = announced < cap ? announced : cap;
    double x = log((double)(actual > 0 ? actual : 1) / most);
    s->announced[cls].log_ratio += RATIO_RATE * (x - s->announced[cls].log_ratio);
    s->announced[cls].weight += RATIO_RATE * (1 - s->announced[cls].weight); /* makes up for the start at 0 */
    s->announced[cls].n++;
}

/* ---- returns -------------------------------------------------------------------------------------------------------- */

enum { ONE = 1 << 16, MEAN_OF = 16, WINDOW_LEAST_MS = 250, SPREAD_START = ONE / 4, BELIEVED_SHARE = ONE / 5 };
static const int64_t ANNOUNCED_MOST_MS = 24 * 3600 * 1000;
static const int64_t GAP_LEAST = ONE / 4, GAP_MOST = 16 * ONE; /* of what was announced */

/* The mean of the first 16, then moving. */
static void mean_note(int64_t *mean, uint32_t n, int64_t x)
{
    *mean += (x - *mean) / (n < MEAN_OF ? n + 1 : MEAN_OF);
}

static int64_t announced_clamp(int64_t announced_ms)
{
    return announced_ms < ANNOUNCED_MOST_MS ? announced_ms : ANNOUNCED_MOST_MS;
}

bool estimate_return(const struct return_estimate *s, int64_t announced_ms, int64_t *gap_ms,
                     int64_t *window_ms)
{
    if (announced_ms <= 0 || (s->n_ends >= MEAN_OF && s->returned < BELIEVED_SHARE))
        return false;
    int64_t announced = announced_clamp(announced_ms);
    int64_t window = announced * (s->n_returns > 0 ? s->spread : SPREAD_START) / ONE;
    *gap_ms = announced * (s->n_returns > 0 ? s->ratio : ONE) / ONE;
    *window_ms = window > WINDOW_LEAST_MS ? window : WINDOW_LEAST_MS;
    return true;
}

void estimate_note_return(struct return_estimate *s, int64_t announced_ms, int64_t gap_ms)
{
    if (announced_ms <= 0 || gap_ms < 0)
        return;
    int64_t announced = announced_clamp(announced_ms), expected = s->n_returns > 0 ? s->ratio : ONE;
    int64_t gap = gap_ms < 16 * announced ? gap_ms * ONE / announced : GAP_MOST;
    gap = gap > GAP_LEAST ? gap : GAP_LEAST;
    mean_note(&s->spread, s->n_returns, gap > expected ? gap - expected : expected - gap);
    mean_note(&s->ratio, s->n_returns, gap);
    mean_note(&s->returned, s->n_ends, ONE);
    s->n_returns++;
    s->n_ends++;
}

void estimate_note_no_return(struct return_estimate *s)
{
    mean_note(&s->returned, s->n_ends, 0);
    s->n_ends++;
}

/* ---- expiry --------------------------------------------------------------------------------------------------------- */

/* An expiry is the moment that a block pretends to have been used at: now, for most, which is least recently used, whatever the
 * residence. Only what a hint adds or takes is measured in residences, so a residence that is off, or drifts, cannot put blocks
 * of yesterday before those of today. */

/* 2^(points / 8) in 1/1024. */
static const int64_t weights[] = {512,  558,  609,  664,  724,  790,  861,  939, 1024,
                                  1117, 1218, 1328, 1448, 1579, 1722, 1878, 2048};
enum { POINTS_MOST = 8 };

static int64_t tier_expiry(int64_t now_ns, int64_t residence_ns, int64_t weight, bool returns, int64_t gap_ns,
                           int64_t window_ns)
{
    int64_t normal = now_ns + residence_ns / 1024 * (weight - 1024);
    if (!returns)
        return normal;
    if (gap_ns / 2 > residence_ns)
        return now_ns - residence_ns;
    int64_t until = now_ns + gap_ns + window_ns - residence_ns;
    return until > normal ? until : normal;
}

struct retain_until estimate_expiry(const struct return_estimate *s, const struct retain_ask *ask)
{
    int64_t p = ask->points < -POINTS_MOST  ? -POINTS_MOST
                : ask->points > POINTS_MOST ? POINTS_MOST
                                            : ask->points;
    int64_t weight = weights[p + POINTS_MOST], gap_ms = 0, window_ms = 0;
    bool returns = estimate_return(s, ask->iat_ms, &gap_ms, &window_ms);
    int64_t gap_ns = gap_ms * 1000000, window_ns = window_ms * 1000000;
    return (struct retain_until){
        .device_ns = tier_expiry(ask->now_ns, ask->device_residence_ns, weight, returns, gap_ns, window_ns),
        .host_ns = tier_expiry(ask->now_ns, ask->host_residence_ns, weight, returns, gap_ns, window_ns)};
}

/* ---- Retry-After ---------------------------------------------------------------------------------------------------- */

static const double MEMORY_S = 30, JITTER = 0.1, RETRY_MOST_S = 120;
static const double LEVY = 0.455; /* the median of a chi-squared variable of one degree of freedom */

static double kept(int64_t ns) /* of a moving sum, after so long */
{
    return MEMORY_S / (MEMORY_S + (double)(ns > 0 ? ns : 0) * 1e-9);
}

void estimate_note_retired(struct service_estimate *s, double work, int64_t busy_ns)
{
    double f = kept(busy_ns);
    s->retired = s->retired * f + work;
    s->busy_s = s->busy_s * f + (double)busy_ns * 1e-9;
}

void estimate_note_accepted(struct service_estimate *s, uint32_t cls, double work, int64_t now_ns)
{
    assert(cls < ENGINE_CLASSES);
    double f = kept(now_ns - s->accepted_ns);
    for (uint32_t i = 0; i < ENGINE_CLASSES; i++)
        s->accepted[i] *= f;
    s->accepted[cls] += work;
    s->accepted_ns = now_ns;
}

uint32_t estimate_retry_after_s(const struct service_estimate *s, uint32_t cls, const struct service_queue *q,
                                int64_t now_ns, uint64_t request)
{
    if (q->waiting == 0 || s->busy_s <= 0)
        return 1;
    double out = s->retired / s->busy_s, in = 0, f = kept(now_ns - s->accepted_ns) / MEMORY_S;
    for (uint32_t i = cls + 1; i < ENGINE_CLASSES; i++)
        in += s->accepted[i] * f;
    double leave = q->waiting >= q->places ? q->waiting - q->places + 1.0 : 1;
    double rate = out - in + LEVY * (out + in) / leave;
    double spread = 1 + JITTER * (double)((request * 0x9e3779b97f4a7c15u) >> 32) / 4294967296.0;
    double most_s = RETRY_MOST_S / (1 + JITTER) - 1e-9;
    double wait_s = rate > 0 ? leave * q->work / q->waiting / rate : most_s;
    wait_s = ceil(fmin(wait_s, most_s) * spread);
    return wait_s > 1 ? (uint32_t)wait_s : 1;
}
