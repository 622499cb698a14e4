/* A counter through a mixer: no state but a number, so that a stream can be made anywhere from a seed and a name. The normal
 * draw is a sum of twelve uniforms: bounded, and exact arithmetic on every machine. */
#include "sim_rand.h"

#include <math.h>

uint64_t sim_rand_next(struct sim_rand *r)
{
    return sim_mix(r->state++, 0x73696d);
}

uint32_t sim_rand_below(struct sim_rand *r, uint32_t n)
{
    return (uint32_t)((sim_rand_next(r) >> 32) * n >> 32);
}

double sim_rand_unit(struct sim_rand *r)
{
    return ((double)(sim_rand_next(r) >> 12) + 0.5) * 0x1p-52;
}

double sim_rand_exp(struct sim_rand *r, double mean)
{
    return -mean * log(sim_rand_unit(r));
}

double sim_rand_normal(struct sim_rand *r)
{
    double sum = -6;
    for (int i = 0; i < 12; i++)
        sum += sim_rand_unit(r);
    return sum;
}

double sim_rand_lognormal(struct sim_rand *r, double median, double sigma)
{
    return median * exp(sigma * sim_rand_normal(r));
}

uint32_t sim_rand_geometric(struct sim_rand *r, double mean)
{
    double n = 1 + log(sim_rand_unit(r)) / log(1 - 1 / mean);
    return n < 1e6 ? (uint32_t)n : 1000000;
}
