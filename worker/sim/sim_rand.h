/* sim_rand: the seeded numbers of a simulation: mixing, tokens of a text, random draws.
 *
 * Owns     nothing.
 * Units    -
 * States   a sim_rand is seeded by its state; equal states give equal draws for ever.
 * Threads  one owner per sim_rand.
 * Errors   none.
 * Bounds   -
 * Source   the finaliser of splitmix64 (Steele, Lea, Flood 2014).
 */
#ifndef STATOR_SIM_RAND_H
#define STATOR_SIM_RAND_H

#include <stdint.h>

static inline uint64_t sim_mix(uint64_t a, uint64_t b)
{
    uint64_t z = (a ^ (b + 0x9e3779b97f4a7c15u + (a << 6) + (a >> 2))) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Token i of a text: a prompt's piece, or what a request answers. */
static inline int32_t sim_token(uint64_t text, uint32_t i, uint32_t vocab)
{
    return (int32_t)((sim_mix(text, i) >> 32) * vocab >> 32);
}

struct sim_rand {
    uint64_t state;
};

uint64_t sim_rand_next(struct sim_rand *r);
uint32_t sim_rand_below(struct sim_rand *r, uint32_t n);
double sim_rand_unit(struct sim_rand *r);             /* 0 < u < 1 */
double sim_rand_exp(struct sim_rand *r, double mean); /* gaps of a Poisson process */
double sim_rand_normal(struct sim_rand *r);           /* about N(0, 1), within +-6 */
double sim_rand_lognormal(struct sim_rand *r, double median, double sigma);
uint32_t sim_rand_geometric(struct sim_rand *r, double mean); /* >= 1 */

#endif
