/* What a copy moves is read and written when it is done, and until then its destination holds rubbish: a caller that lets a step
 * write to a block too early, or reads one that was not waited for, gets wrong digests.
 *
 * Each direction is a lane; a copy issued while the other lane is busy runs at the rate of both ways for all of its length, which
 * is fair enough for batches of equal size.
 *
 * Digests per position, not per block: a position that a stale row wrote is written again with the same value, as real KV is. */
#define _GNU_SOURCE
#include "sim_tier.h"

#include "mem.h"

#include <assert.h>
#include <string.h>
#include <sys/mman.h>

static const uint64_t rubbish = 0xdeadbeefdeadbeefu;
static const int64_t copy_latency_ns = 12000;

/* ---- pool and tier, made in either order --------------------------------------------------------------------------- */

size_t sim_tier_block_bytes(const struct be_kv_shape *shape)
{
    return (size_t)2 * 2 * shape->n_layers * shape->n_kv_heads * shape->head_dim * shape->block_tokens;
}

/* Digests of the host tier, and lanes that hold as many copies as there are blocks: once its blocks' size is known. */
static bool join(struct sim_tier *t)
{
    size_t n = t->host_bytes / t->block_bytes;
    if (n > UINT32_MAX - t->shape.n_blocks ||
        !(t->host_digests = mem_alloc(n * t->shape.block_tokens * sizeof *t->host_digests)))
        return false;
    for (int i = 0; i < SIM_TIER_WAYS; i++) {
        t->lanes[i].cap = t->shape.n_blocks + (uint32_t)n;
        t->lanes[i].ring = mem_zalloc(t->lanes[i].cap, sizeof *t->lanes[i].ring);
        if (!t->lanes[i].ring)
            return false;
    }
    return true;
}

int sim_tier_pool(struct sim_tier *t, const struct be_kv_shape *shape, struct err *e)
{
    size_t n = (size_t)shape->n_blocks * shape->block_tokens;
    t->shape = *shape;
    t->block_bytes = sim_tier_block_bytes(shape);
    t->pool = mem_alloc(n * sizeof *t->pool);
    if (!t->pool)
        return err_set(e, ST_ENOMEM, "simulation: no memory for the digests of %zu positions", n);
    for (size_t i = 0; i < n; i++)
        t->pool[i] = rubbish;
    if (t->host && !join(t))
        return err_set(e, ST_ENOMEM, "simulation: no memory for the digests of the host tier");
    return ST_OK;
}

void *sim_tier_host(struct sim_tier *t, size_t bytes)
{
    assert(!t->host); /* one tier, so one call */
    void *p =
        bytes ? mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) : MAP_FAILED;
    if (p == MAP_FAILED)
        return NULL;
    t->host = p;
    t->host_bytes = bytes;
    if (t->pool && !join(t)) {
        sim_tier_host_free(t, p);
        return NULL;
    }
    return p;
}

void sim_tier_host_free(struct sim_tier *t, void *p)
{
    if (p && p == t->host) {
        munmap(t->host, t->host_bytes);
        t->host = NULL;
    }
}

void sim_tier_fini(struct sim_tier *t)
{
    for (int i = 0; i < SIM_TIER_WAYS; i++)
        mem_free(t->lanes[i].ring);
    sim_tier_host_free(t, t->host);
    mem_free(t->host_digests);
    mem_free(t->pool);
}

/* ---- copies --------------------------------------------------------------------------------------------------------- */

uint64_t *sim_tier_block(const struct sim_tier *t, uint32_t block)
{
    return t->pool + (size_t)block * t->shape.block_tokens;
}

static uint64_t *host_block(const struct sim_tier *t, uint32_t host)
{
    return t->host_digests + (size_t)host * t->shape.block_tokens;
}

static void spoil(const struct sim_tier *t, uint64_t *digests)
{
    for (uint32_t i = 0; i < t->shape.block_tokens; i++)
        digests[i] = rubbish;
}

static struct sim_copy *nth(const struct sim_lane *l, uint32_t i)
{
    return &l->ring[(l->first + i) % l->cap];
}

/* A load may bring what an earlier store put there: in the order of their ends. */
void sim_tier_settle(struct sim_tier *t, int64_t until_ns, int64_t now_ns)
{
    for (;;) {
        struct sim_lane *next = NULL;
        for (int i = 0; i < SIM_TIER_WAYS; i++) {
            struct sim_lane *l = &t->lanes[i];
            if (l->applied < l->n && nth(l, l->applied)->end_ns <= until_ns &&
                (!next || nth(l, l->applied)->end_ns < nth(next, next->applied)->end_ns))
                next = l;
        }
        if (!next)
            break;
        const struct sim_copy *c = nth(next, next->applied++);
        uint64_t *device = sim_tier_block(t, c->block), *host = host_block(t, c->host);
        bool load = next == &t->lanes[SIM_TIER_LOAD];
        memcpy(load ? device : host, load ? host : device, t->shape.block_tokens * sizeof *device);
    }
    for (int i = 0; i < SIM_TIER_WAYS; i++)
        for (struct sim_lane *l = &t->lanes[i]; l->applied > 0 && nth(l, 0)->end_ns <= now_ns; l->applied--, l->n--)
            l->first = (l->first + 1) % l->cap;
}

int sim_tier_copy(struct sim_tier *t, const struct be_block_copy *list, uint32_t n, int way, int64_t begin_ns, uint64_t *ticket)
{
    struct sim_lane *l = &t->lanes[way], *other = &t->lanes[SIM_TIER_WAYS - 1 - way];
    bool load = way == SIM_TIER_LOAD;
    if (n == 0 || !t->host)
        return ST_EINVAL;
    if (n > l->cap - l->n)
        return ST_AGAIN;
    if (begin_ns < l->end_ns)
        begin_ns = l->end_ns;
    double rate = sim_gpu_copy_rate(t->gpu, load, other->end_ns > begin_ns);
    *ticket = t->tickets++ * SIM_TIER_WAYS + (uint64_t)way;
    for (uint32_t i = 0; i < n; i++) {
        size_t host = (size_t)((const char *)list[i].host - t->host) / t->block_bytes;
        assert(list[i].block < t->shape.n_blocks && host < t->host_bytes / t->block_bytes);
        l->end_ns = begin_ns + copy_latency_ns + (int64_t)((double)t->block_bytes * (i + 1) / rate * 1e9);
        *nth(l, l->n++) = (struct sim_copy){
            .ticket = *ticket, .end_ns = l->end_ns, .block = list[i].block, .host = (uint32_t)host};
        spoil(t, load ? sim_tier_block(t, list[i].block) : host_block(t, (uint32_t)host));
    }
    t->n_copied[way] += n;
    return ST_OK;
}

bool sim_tier_is_done(const struct sim_tier *t, uint64_t ticket)
{
    const struct sim_lane *l = &t->lanes[ticket % SIM_TIER_WAYS];
    return l->n == 0 || l->ring[l->first].ticket > ticket;
}

int64_t sim_tier_loaded_ns(const struct sim_tier *t)
{
    return t->lanes[SIM_TIER_LOAD].end_ns;
}

int64_t sim_tier_next_ns(const struct sim_tier *t, int64_t now_ns)
{
    int64_t next = INT64_MAX;
    for (int i = 0; i < SIM_TIER_WAYS; i++)
        for (uint32_t k = 0; k < t->lanes[i].n; k++) {
            int64_t end = nth(&t->lanes[i], k)->end_ns;
            if (end > now_ns) {
                next = end < next ? end : next;
                break;
            }
        }
    return next;
}

double sim_tier_rate(const struct sim_tier *t, int64_t at_ns)
{
    bool busy[SIM_TIER_WAYS];
    double rate = 0;
    for (int i = 0; i < SIM_TIER_WAYS; i++)
        busy[i] = t->lanes[i].end_ns > at_ns;
    for (int i = 0; i < SIM_TIER_WAYS; i++)
        rate += busy[i] ? sim_gpu_copy_rate(t->gpu, i == SIM_TIER_LOAD, busy[SIM_TIER_WAYS - 1 - i]) : 0;
    return rate;
}
