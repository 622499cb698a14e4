/* The emulated device: what it is, what has failed, what memory was given out. Allocations lie between edges of poison; free
 * memory is filled with it, so that a late reader reads NaNs. Tests choose the device, bound its memory, let the n-th call fail
 * and count what is left. */
#include "gpu_sim.h"

#include <map>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define __asan_poison_memory_region(p, n) (void)(p)
#define __asan_unpoison_memory_region(p, n) (void)(p)
#endif

enum { ALIGN = 256, EDGE = 256 };
static const unsigned char EDGE_BYTE = 0xff;

struct allocation {
    gpu *g;
    void *raw;
    size_t bytes;
    bool host;
};

std::mutex gpu_sim_lock;
uint32_t gpu_sim_things;

static std::map<uintptr_t, allocation> allocations; /* by address */
static uint32_t n_gpus;
static int device_cc = 90;
static uint64_t device_bytes = 8ull << 30;
static uint32_t fail_in;

/* ---- failures --------------------------------------------------------------------------------------------------------- */

int gpu_sim_fail(gpu *g, const char *what, const char *why)
{
    if (!g->failed) {
        g->failed = true;
        g->failure = std::string(what) + ": " + why;
        for (gpu_stream *s : g->streams)
            s->queue.clear();
    }
    return ST_EDEVICE;
}

static bool injected(void)
{
    return fail_in && --fail_in == 0;
}

int gpu_sim_enter(gpu *g, const char *what)
{
    if (!g->failed && injected())
        gpu_sim_fail(g, what, "injected failure");
    return g->failed ? ST_EDEVICE : ST_OK;
}

int gpu_fail(struct gpu *g, const char *what, const char *why)
{
    guard hold(gpu_sim_lock);
    return gpu_sim_fail(g, what, why);
}

const char *gpu_failure(const struct gpu *g)
{
    guard hold(gpu_sim_lock);
    return g->failed ? g->failure.c_str() : NULL;
}

/* ---- memory ----------------------------------------------------------------------------------------------------------- */

bool gpu_sim_owns(const void *p, size_t bytes)
{
    static uintptr_t from, to; /* the one of last time, mostly the one of this time */
    static size_t n;
    uintptr_t at = (uintptr_t)p;
    if (n != allocations.size() || at < from || at >= to) {
        auto it = allocations.upper_bound(at);
        if (it == allocations.begin())
            return false;
        --it;
        from = it->first, to = from + it->second.bytes, n = allocations.size();
    }
    return at >= from && at < to && bytes <= to - at;
}

static void *allocate(gpu *g, size_t bytes, bool host)
{
    guard hold(gpu_sim_lock);
    if (g->failed || injected() || bytes == 0 || (!host && bytes > g->limit - g->used))
        return NULL;
    unsigned char *raw = (unsigned char *)calloc(1, bytes + 2 * EDGE + ALIGN);
    if (!raw)
        return NULL;
    unsigned char *p = (unsigned char *)(((uintptr_t)raw + EDGE + ALIGN - 1) & ~(uintptr_t)(ALIGN - 1));
    memset(p - EDGE, EDGE_BYTE, EDGE);
    memset(p + bytes, EDGE_BYTE, EDGE);
    if (host)
        memset(p, 0xff, bytes);
    __asan_poison_memory_region(p - EDGE, EDGE);
    __asan_poison_memory_region(p + bytes, EDGE);
    allocations[(uintptr_t)p] = allocation{g, raw, bytes, host};
    simt_race_forget(p, bytes);
    g->used += host ? 0 : bytes;
    return p;
}

static bool edges_hold(const unsigned char *p, const allocation &a)
{
#ifdef __SANITIZE_ADDRESS__
    (void)p, (void)a; /* poisoned: who touches them is caught in the act */
#else
    for (int i = 0; i < EDGE; i++)
        if (p[-1 - i] != EDGE_BYTE || p[a.bytes + (size_t)i] != EDGE_BYTE)
            return false;
#endif
    return true;
}

void gpu_sim_check_edges(const char *after)
{
    for (auto &it : allocations) {
        const unsigned char *p = (const unsigned char *)it.first;
        if (edges_hold(p, it.second))
            continue;
        simt_report("after %s: the edge of an allocation of %zu bytes was written over", after, it.second.bytes);
        memset((void *)(p - EDGE), EDGE_BYTE, EDGE);
        memset((void *)(p + it.second.bytes), EDGE_BYTE, EDGE);
    }
}

static void release(gpu *g, void *p, bool host)
{
    guard hold(gpu_sim_lock);
    if (!p)
        return;
    auto it = allocations.find((uintptr_t)p);
    if (it == allocations.end() || it->second.host != host || it->second.g != g) {
        simt_report("%s of %p, which it did not give", host ? "gpu_host_free" : "gpu_free", p);
        return;
    }
    allocation a = it->second;
    if (!edges_hold((unsigned char *)p, a))
        simt_report("the edge of an allocation of %zu bytes was written over", a.bytes);
    g->used -= host ? 0 : a.bytes;
    allocations.erase(it);
    __asan_unpoison_memory_region((unsigned char *)p - EDGE, EDGE);
    __asan_unpoison_memory_region((unsigned char *)p + a.bytes, EDGE);
    memset(p, 0xff, a.bytes); /* who still reads it reads NaNs */
    free(a.raw);
}

void *gpu_alloc(struct gpu *g, size_t bytes)
{
    return allocate(g, bytes, false);
}

void gpu_free(struct gpu *g, void *p)
{
    release(g, p, false);
}

void *gpu_host_alloc(struct gpu *g, size_t bytes)
{
    return allocate(g, bytes, true);
}

void gpu_host_free(struct gpu *g, void *p)
{
    release(g, p, true);
}

int gpu_memory(struct gpu *g, uint64_t *free_bytes, uint64_t *total_bytes)
{
    guard hold(gpu_sim_lock);
    if (gpu_sim_enter(g, "gpu_memory"))
        return ST_EDEVICE;
    *free_bytes = g->limit - g->used;
    *total_bytes = g->limit;
    return ST_OK;
}

/* ---- the device ------------------------------------------------------------------------------------------------------- */

int gpu_open(struct gpu **out, struct err *e)
{
    guard hold(gpu_sim_lock);
    *out = NULL;
    if (device_cc == 0 || injected())
        return err_set(e, ST_EUNSUP, "no CUDA device (emulated)");
    gpu *g = new gpu;
    snprintf(g->info.name, sizeof g->info.name, "emulated sm_%d", device_cc);
    g->info.cc = device_cc;
    g->info.sms = 4;
    g->info.smem_block = device_cc >= 90 ? 227 * 1024 : 163 * 1024;
    g->info.smem_sm = g->info.smem_block + 1024;
    g->info.l2_bytes = (device_cc >= 90 ? 50u : 40u) << 20;
    g->info.driver = g->info.runtime = 13000;
    g->limit = device_bytes;
    n_gpus++;
    *out = g;
    return ST_OK;
}

void gpu_close(struct gpu *g)
{
    guard hold(gpu_sim_lock);
    if (!g)
        return;
    size_t left = g->streams.size() + g->n_events + g->n_graphs;
    for (auto &it : allocations)
        left += it.second.g == g;
    if (left)
        simt_report("gpu_close: %zu streams, events, graphs and allocations still exist", left);
    n_gpus--;
    delete g;
}

const struct gpu_info *gpu_info(const struct gpu *g)
{
    return &g->info;
}

/* ---- for tests -------------------------------------------------------------------------------------------------------- */

void gpu_sim_device(int cc)
{
    guard hold(gpu_sim_lock);
    device_cc = cc;
}

void gpu_sim_memory(uint64_t bytes)
{
    guard hold(gpu_sim_lock);
    device_bytes = bytes;
}

void gpu_sim_fail_after(uint32_t n)
{
    guard hold(gpu_sim_lock);
    fail_in = n;
}

uint32_t gpu_sim_live(void)
{
    guard hold(gpu_sim_lock);
    return n_gpus + gpu_sim_things + (uint32_t)allocations.size();
}
