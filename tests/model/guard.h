/* guard: bytes placed so that the first one behind them faults.
 *
 * Owns     the pages, from guard_put to guard_free.
 * Units    bytes.
 * States   put -> free.
 * Threads  one.
 * Errors   NULL when there is no memory.
 * Bounds   -
 */
#ifndef STATOR_TEST_GUARD_H
#define STATOR_TEST_GUARD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct guard {
    unsigned char *p; /* [n], ends where the guard page begins */
    void *base;
    size_t size;
};

static inline int guard_put(struct guard *g, const void *bytes, size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (n + page - 1) / page * page;
    g->size = room + page;
    g->base = mmap(NULL, g->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g->base == MAP_FAILED || mprotect((char *)g->base + room, page, PROT_NONE) != 0)
        return -1;
    g->p = (unsigned char *)g->base + room - n;
    if (n > 0)
        memcpy(g->p, bytes, n);
    return 0;
}

static inline void guard_free(struct guard *g)
{
    munmap(g->base, g->size);
}

#endif
