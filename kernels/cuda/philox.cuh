/* philox: Philox4x32-10, counter-based random words (Salmon et al., SC 2011); the bits of cpu_sample_philox.
 *
 * Owns     nothing.
 * Units    32-bit words.
 * States   -
 * Threads  any.
 * Errors   -
 * Bounds   -
 * Source   sampling takes counter (position, token / 4, 0, 0), key (low, high half of the seed), word token % 4.
 */
#ifndef STATOR_PHILOX_CUH
#define STATOR_PHILOX_CUH

#include "ptx.h"

PTX_FN void philox(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    const uint32_t m0 = 0xD2511F53u, m1 = 0xCD9E8D57u, w0 = 0x9E3779B9u, w1 = 0xBB67AE85u;
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
#pragma unroll
    for (int round = 0; round < 10; round++) {
        uint32_t hi0 = ptx_mulhi(m0, c0), lo0 = m0 * c0, hi1 = ptx_mulhi(m1, c2), lo1 = m1 * c2;
        c0 = hi1 ^ c1 ^ k0;
        c1 = lo1;
        c2 = hi0 ^ c3 ^ k1;
        c3 = lo0;
        k0 += w0;
        k1 += w1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

#endif
