/* sim_tier: the KV pool and the host tier of a simulated device, as digests, and the copies between the two.
 *
 * Owns     the digests of both, the host tier's addresses, the copies under way.
 * Units    bytes, ns of virtual time.
 * States   zeroed but for `gpu` -> pool, host, in either order -> (copy, settle)* -> fini.
 * Threads  one.
 * Errors   ST_ENOMEM; copy: ST_EINVAL without a host tier, ST_AGAIN when as many are under way as there are blocks.
 * Bounds   8 bytes per position of pool and host tier; the host tier itself is address space only.
 * Source   kernels/backend.h
 */
#ifndef STATOR_SIM_TIER_H
#define STATOR_SIM_TIER_H

#include "backend.h"
#include "sim_gpu.h"

enum { SIM_TIER_LOAD = 0, SIM_TIER_STORE, SIM_TIER_WAYS };

struct sim_copy {
    uint64_t ticket;
    int64_t end_ns;
    uint32_t block, host;
};

/* First come, first served. */
struct sim_lane {
    struct sim_copy *ring;  /* [cap] */
    uint32_t first, n, cap; /* n under way, of which the first `applied` have moved their bytes */
    uint32_t applied;
    int64_t end_ns; /* of the last one issued */
};

struct sim_tier {
    const struct sim_gpu *gpu;
    struct be_kv_shape shape;
    size_t block_bytes;
    uint64_t *pool; /* [n_blocks * block_tokens] */
    char *host;     /* [host_bytes] addresses only */
    size_t host_bytes;
    uint64_t *host_digests; /* [host_bytes / block_bytes * block_tokens] */
    struct sim_lane lanes[SIM_TIER_WAYS];
    uint64_t tickets, n_copied[SIM_TIER_WAYS];
};

size_t sim_tier_block_bytes(const struct be_kv_shape *shape);
int sim_tier_pool(struct sim_tier *t, const struct be_kv_shape *shape, struct err *e);
void *sim_tier_host(struct sim_tier *t, size_t bytes); /* NULL: no memory */
void sim_tier_host_free(struct sim_tier *t, void *p);
void sim_tier_fini(struct sim_tier *t);

uint64_t *sim_tier_block(const struct sim_tier *t, uint32_t block); /* [block_tokens] of the pool */

/* One way; none begins before `begin_ns`. */
int sim_tier_copy(struct sim_tier *t, const struct be_block_copy *list, uint32_t n, int way, int64_t begin_ns,
                  uint64_t *ticket);
/* Moves the bytes of all copies that are done by `until_ns`, and forgets those that are by `now_ns`. */
void sim_tier_settle(struct sim_tier *t, int64_t until_ns, int64_t now_ns);
bool sim_tier_is_done(const struct sim_tier *t, uint64_t ticket); /* as of the last settle */
int64_t sim_tier_loaded_ns(const struct sim_tier *t);             /* end of the last load issued */
int64_t sim_tier_next_ns(const struct sim_tier *t,
                         int64_t now_ns); /* end of the next copy; INT64_MAX: none under way */
double sim_tier_rate(const struct sim_tier *t,
                     int64_t at_ns); /* bytes/s of device memory that copies take then */

#endif
