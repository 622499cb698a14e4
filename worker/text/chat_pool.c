/* Rendering makes thousands of small values that all die together, so both the program and a render take from
 * a bump allocator made of growing chunks. Chunks start small: most renders need 20 kB, and a large first
 * chunk would cost page faults on every request. Rejected: base arenas, which are of one fixed size. */
#include "chat_prog.h"

#include "mem.h"

struct chat_chunk {
    struct chat_chunk *next;
    uint64_t pad; /* keeps the payload 16-byte aligned */
};

enum { CHUNK_MIN = 16 << 10, CHUNK_MAX = 1 << 20 };

void *chat_pool_take(struct chat_pool *p, size_t size)
{
    if (p->failed)
        return NULL;
    if (size > p->limit) {
        p->failed = ST_ETOOBIG;
        return NULL;
    }
    size = (size + 15) & ~(size_t)15;
    if (p->chunk && size <= p->cap - p->used) {
        char *at = (char *)(p->chunk + 1) + p->used;
        p->used += size;
        return at;
    }
    size_t cap = p->chunk ? p->cap * 2 : CHUNK_MIN;
    if (cap > CHUNK_MAX)
        cap = CHUNK_MAX;
    if (cap < size)
        cap = size;
    if (p->total + cap > p->limit) {
        p->failed = ST_ETOOBIG;
        return NULL;
    }
    struct chat_chunk *c = mem_alloc(sizeof *c + cap);
    if (!c) {
        p->failed = ST_ENOMEM;
        return NULL;
    }
    *c = (struct chat_chunk){.next = p->chunk};
    p->chunk = c;
    p->cap = cap;
    p->total += cap;
    p->used = size;
    return c + 1;
}

void chat_pool_fini(struct chat_pool *p)
{
    while (p->chunk) {
        struct chat_chunk *next = p->chunk->next;
        mem_free(p->chunk);
        p->chunk = next;
    }
    *p = (struct chat_pool){.limit = p->limit};
}
