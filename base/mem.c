/* Every allocation passes here for two reasons: tests can fail the n-th one and count what is left,
 * and nothing in the project can forget an overflow check on count * size. */
#define _GNU_SOURCE
#include "mem.h"

#include "status.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static _Atomic uint64_t live;
static _Atomic uint64_t fail_at; /* 0 = never */

static bool fails_now(void)
{
    uint64_t n = atomic_load_explicit(&fail_at, memory_order_relaxed);
    if (n == 0)
        return false;
    if (n == 1)
        return true;
    atomic_fetch_sub_explicit(&fail_at, 1, memory_order_relaxed);
    return false;
}

static void *count(void *p)
{
    if (p)
        atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    return p;
}

void *mem_alloc(size_t size)
{
    return fails_now() ? NULL : count(malloc(size ? size : 1));
}

void *mem_zalloc(size_t n, size_t size)
{
    size_t total;
    if (!mem_mul(n, size, &total) || fails_now())
        return NULL;
    return count(calloc(1, total ? total : 1));
}

void *mem_realloc(void *p, size_t size)
{
    if (!p)
        return mem_alloc(size);
    return fails_now() ? NULL : realloc(p, size ? size : 1);
}

char *mem_dup(const void *p, size_t size)
{
    size_t total;
    if (!mem_add(size, 1, &total))
        return NULL;
    char *d = mem_alloc(total);
    if (!d)
        return NULL;
    if (size)
        memcpy(d, p, size);
    d[size] = 0;
    return d;
}

void mem_free(void *p)
{
    if (p)
        atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    free(p);
}

void mem_fail_after(uint64_t n)
{
    atomic_store(&fail_at, n);
}

uint64_t mem_live(void)
{
    return atomic_load(&live);
}

bool mem_add(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

bool mem_mul(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

enum { HUGE_BYTES = 2 << 20 };

/* mmap gives 4 KiB alignment: map 2 MiB more and cut the ends off, so that huge pages can be used throughout. */
void *mem_map(size_t size)
{
    size_t want;
    if (size == 0 || !mem_add(size, HUGE_BYTES, &want) || fails_now())
        return NULL;
    char *raw = mmap(NULL, want, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED)
        return NULL;
    size_t len = (size + 4095) & ~(size_t)4095;
    char *p = (char *)(((uintptr_t)raw + HUGE_BYTES - 1) & ~(uintptr_t)(HUGE_BYTES - 1));
    if (p > raw)
        munmap(raw, (size_t)(p - raw));
    if (raw + want > p + len)
        munmap(p + len, (size_t)(raw + want - (p + len)));
    madvise(p, len, MADV_HUGEPAGE); /* advice only: small pages are slower, not wrong */
    return p;
}

void mem_unmap(void *p, size_t size)
{
    if (p)
        munmap(p, (size + 4095) & ~(size_t)4095);
}

int arena_init(struct arena *a, size_t size)
{
    *a = (struct arena){.base = mem_alloc(size), .size = size};
    return a->base ? ST_OK : ST_ENOMEM;
}

void *arena_alloc(struct arena *a, size_t size)
{
    size_t at = (a->used + 15) & ~(size_t)15, end;
    if (!mem_add(at, size, &end) || end > a->size)
        return NULL;
    a->used = end;
    return a->base + at;
}

void arena_reset(struct arena *a)
{
    a->used = 0;
}

void arena_fini(struct arena *a)
{
    mem_free(a->base);
    *a = (struct arena){0};
}
