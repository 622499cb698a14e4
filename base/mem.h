/* mem: the only door to the heap, checked size arithmetic, arenas, large pages.
 *
 * Owns     an arena owns its chunk; everything taken from it dies with arena_reset.
 * Units    bytes.
 * States   arena: init -> alloc* -> reset -> ... -> fini.
 * Threads  allocation from any thread; an arena has one owner at a time.
 * Errors   NULL on failure (real or injected by mem_fail_after); nothing aborts.
 * Bounds   an arena never grows beyond the size given at init.
 */
#ifndef STATOR_MEM_H
#define STATOR_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void *mem_alloc(size_t size);                /* malloc; size 0 gives a valid pointer */
void *mem_zalloc(size_t count, size_t size); /* zeroed; checks the product */
void *mem_realloc(void *p, size_t size);
char *mem_dup(const void *p, size_t size); /* copy with a NUL behind it */
void mem_free(void *p);                    /* NULL ok */

/* Tests: the n-th allocation from now on fails (1 = the next one), and all after it until called with 0. */
void mem_fail_after(uint64_t n);
uint64_t mem_live(void); /* allocations not yet freed; for leak checks */

/* false when the result does not fit; *out is then untouched. */
bool mem_add(size_t a, size_t b, size_t *out);
bool mem_mul(size_t a, size_t b, size_t *out);

/* Anonymous zeroed memory, aligned to 2 MiB and backed by huge pages where the kernel grants them. */
void *mem_map(size_t size);
void mem_unmap(void *p, size_t size); /* NULL ok */

struct arena {
    char *base; /* [size] */
    size_t size, used;
};

int arena_init(struct arena *a, size_t size);    /* ST_ENOMEM */
void *arena_alloc(struct arena *a, size_t size); /* 16-byte aligned, not zeroed; NULL when full */
void arena_reset(struct arena *a);
void arena_fini(struct arena *a);

#ifdef __cplusplus
}
#endif
#endif
