/* Weights on their way in: 16 GB that a file's pages hold become rows in device memory. A chunk of rows is filled (copied or
 * converted) into one of three pinned buffers by all threads together, and crosses the bus while the next is filled. The file
 * is read once, by the threads that convert it; nothing lies in host memory a second time.
 *
 * Rejected: a cudaMemcpy from pageable memory (half the rate, one thread); registering the mapped file (pins all of it). */
#define _GNU_SOURCE
#include "cu_be.h"

#include "jobs.h"
#include "mem.h"

#include <sched.h>
#include <semaphore.h>
#include <string.h>

enum { STAGES = 3, STAGE_BYTES = 8 << 20, LANES_MAX = 8, MIN_LANE_BYTES = 64 << 10 };

struct stage {
    uint8_t *host; /* pinned [STAGE_BYTES] */
    struct gpu_event *copied;
};

struct cu_load {
    struct gpu_stream *stream;
    struct stage stage[STAGES];
    uint32_t next;
    struct jobs *lane[LANES_MAX];
    uint32_t n_lanes;
    sem_t done;
};

/* One chunk, cut among the lanes and the caller. */
struct chunk {
    struct cu_load *l;
    cu_load_fill *fill;
    void *ctx;
    uint64_t row0;
    uint32_t n, shares;
    size_t row_bytes;
    uint8_t *out;
};

static void fill_share(const struct chunk *c, uint64_t share)
{
    uint64_t first = c->n * share / c->shares, end = c->n * (share + 1) / c->shares;
    if (end > first)
        c->fill(c->ctx, c->row0 + first, (uint32_t)(end - first), c->out + first * c->row_bytes);
}

static void run_share(void *ctx, uint64_t share)
{
    const struct chunk *c = ctx;
    fill_share(c, share);
    sem_post(&c->l->done);
}

static void fill_chunk(struct chunk *c)
{
    size_t bytes = c->n * c->row_bytes;
    uint32_t pushed = 0;
    c->shares = c->l->n_lanes + 1;
    if (bytes / c->shares < MIN_LANE_BYTES)
        c->shares = 1;
    for (uint32_t i = 1; i < c->shares; i++) {
        if (jobs_push(c->l->lane[i - 1], run_share, c, i) == ST_OK)
            pushed++;
        else
            fill_share(c, i);
    }
    fill_share(c, 0);
    while (pushed > 0)
        if (sem_wait(&c->l->done) == 0)
            pushed--;
}

static uint32_t cpus(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1;
}

/* As many lanes as come: one thread fewer only takes longer. */
static void start_lanes(struct cu_load *l)
{
    uint32_t want = cpus() - 1;
    for (l->n_lanes = 0; l->n_lanes < want && l->n_lanes < LANES_MAX; l->n_lanes++)
        if (jobs_create(&l->lane[l->n_lanes], 2, "load") != ST_OK)
            break;
}

static int load_open(struct cu_be *b)
{
    struct cu_load *l = mem_zalloc(1, sizeof *l);
    if (!l)
        return ST_ENOMEM;
    sem_init(&l->done, 0, 0);
    b->loader = l;
    int st = gpu_stream_create(b->gpu, &l->stream);
    for (int i = 0; i < STAGES && st == ST_OK; i++) {
        l->stage[i].host = gpu_host_alloc(b->gpu, STAGE_BYTES);
        st = l->stage[i].host ? gpu_event_create(b->gpu, false, &l->stage[i].copied) : ST_ENOMEM;
    }
    if (st) {
        cu_load_close(b);
        return gpu_failure(b->gpu) ? ST_EDEVICE : st;
    }
    start_lanes(l);
    return ST_OK;
}

int cu_load_close(struct cu_be *b)
{
    struct cu_load *l = b->loader;
    if (!l)
        return ST_OK;
    b->loader = NULL;
    int st = l->stream ? gpu_stream_sync(l->stream) : ST_OK;
    for (uint32_t i = 0; i < l->n_lanes; i++)
        jobs_destroy(l->lane[i]);
    for (int i = 0; i < STAGES; i++) {
        gpu_event_destroy(l->stage[i].copied);
        gpu_host_free(b->gpu, l->stage[i].host);
    }
    gpu_stream_destroy(l->stream);
    sem_destroy(&l->done);
    mem_free(l);
    return st;
}

int cu_load_rows(struct cu_be *b, void *dst, size_t row_bytes, uint64_t n_rows, cu_load_fill *fill, void *ctx)
{
    if (row_bytes == 0 || row_bytes > STAGE_BYTES)
        return ST_EINVAL;
    int st = b->loader ? ST_OK : load_open(b);
    struct cu_load *l = b->loader;
    uint64_t per_chunk = STAGE_BYTES / row_bytes;
    for (uint64_t row = 0; row < n_rows && st == ST_OK; row += per_chunk) {
        struct stage *s = &l->stage[l->next];
        uint64_t n = n_rows - row < per_chunk ? n_rows - row : per_chunk;
        l->next = (l->next + 1) % STAGES;
        st = gpu_event_wait(s->copied);
        if (st)
            break;
        struct chunk c = {l, fill, ctx, row, (uint32_t)n, 0, row_bytes, s->host};
        fill_chunk(&c);
        st = gpu_copy(l->stream, (uint8_t *)dst + row * row_bytes, s->host, n * row_bytes);
        if (st == ST_OK)
            st = gpu_event_record(s->copied, l->stream);
    }
    return st;
}

static void fill_bytes(void *ctx, uint64_t row0, uint32_t n, uint8_t *out)
{
    memcpy(out, (const uint8_t *)ctx + row0, n);
}

int cu_load_bytes(struct cu_be *b, void *dst, const void *src, size_t bytes)
{
    return cu_load_rows(b, dst, 1, bytes, fill_bytes, (void *)(uintptr_t)src);
}
