/* cpu_pool: pinned compute threads that run one parallel-for at a time.
 *
 * Owns     n_threads - 1 threads; the caller is thread 0.
 * Units    chunks: independent pieces of one op, 0..n_chunks-1, claimed by any thread in any order.
 * States   asleep (futex) -> spinning (after wake or work, 200 us) -> running.
 * Threads  one owner thread calls run and wake. Results must not depend on who ran a chunk.
 * Errors   create: ST_ENOMEM. run cannot fail.
 * Bounds   no allocation after create. Idle threads burn no CPU.
 * Source   CPU design, section 7.
 */
#ifndef STATOR_CPU_POOL_H
#define STATOR_CPU_POOL_H

#include "status.h"

#include <stdint.h>

struct cpu_pool;

typedef void cpu_pool_fn(void *ctx, uint32_t chunk, uint32_t thread);

int cpu_pool_create(struct cpu_pool **out, uint32_t n_threads,
                    struct err *e);        /* 0 = one per allowed physical core */
void cpu_pool_destroy(struct cpu_pool *p); /* NULL ok */
uint32_t cpu_pool_threads(const struct cpu_pool *p);
void cpu_pool_wake(struct cpu_pool *p); /* leave the sleep: work comes within microseconds */
void cpu_pool_run(struct cpu_pool *p, uint32_t n_chunks, cpu_pool_fn *fn, void *ctx);

#endif
