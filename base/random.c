/* A request without a seed needs one that nobody can expect, hundreds of times a second at most: the system's generator is fast
 * enough, and needs no state of ours. */
#include "random.h"

#include "clock.h"

#include <sys/random.h>

uint64_t random_u64(void)
{
    uint64_t v = 0;
    if (getrandom(&v, sizeof v, GRND_NONBLOCK) != sizeof v)
        v = (uint64_t)clock_now_ns() * UINT64_C(0x9e3779b97f4a7c15);
    return v;
}
