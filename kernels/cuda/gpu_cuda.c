/* The CUDA runtime, each call checked in one place: the first failure is kept with the call's name and what the runtime said,
 * and nothing is asked of the device after it. An error of a kernel shows at a later call, most often a wait:
 * CUDA_LAUNCH_BLOCKING=1 finds the kernel. */
#include "gpu.h"

#include "mem.h"

#include <cuda_runtime_api.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { BATCH_MAX = 64 };

struct gpu {
    struct gpu_info info;
    _Atomic int state; /* 0 well, 1 somebody writes failure, 2 failed */
    char failure[320];
};

struct gpu_stream {
    struct gpu *g;
    cudaStream_t s;
};

struct gpu_event {
    struct gpu *g;
    cudaEvent_t v;
};

struct gpu_graph {
    struct gpu *g;
    cudaGraphExec_t exec;
    uint32_t nodes;
};

/* ---- failures ------------------------------------------------------------------------------------------------------------ */

const char *gpu_failure(const struct gpu *g)
{
    return atomic_load(&((struct gpu *)g)->state) == 2 ? g->failure : NULL;
}

int gpu_fail(struct gpu *g, const char *what, const char *why)
{
    int well = 0;
    if (atomic_compare_exchange_strong(&g->state, &well, 1)) {
        snprintf(g->failure, sizeof g->failure, "%s: %s", what, why);
        atomic_store(&g->state, 2);
    }
    return ST_EDEVICE;
}

static int check(struct gpu *g, cudaError_t rc, const char *call)
{
    if (rc == cudaSuccess)
        return ST_OK;
    cudaGetLastError(); /* the runtime keeps it; we do */
    return gpu_fail(g, call, cudaGetErrorString(rc));
}

static bool failed(const struct gpu *g)
{
    return atomic_load(&((struct gpu *)g)->state) != 0;
}

/* ---- device -------------------------------------------------------------------------------------------------------------- */

static int attribute(enum cudaDeviceAttr a)
{
    int v = 0;
    return cudaDeviceGetAttribute(&v, a, 0) == cudaSuccess ? v : 0;
}

static int describe(struct gpu *g, struct err *e)
{
    struct cudaDeviceProp p;
    cudaError_t rc = cudaGetDeviceProperties(&p, 0);
    if (rc != cudaSuccess)
        return err_set(e, ST_EDEVICE, "cuda: the device does not say what it is: %s", cudaGetErrorString(rc));
    struct gpu_info *i = &g->info;
    snprintf(i->name, sizeof i->name, "%.100s", p.name);
    i->cc = p.major * 10 + p.minor;
    i->sms = (uint32_t)p.multiProcessorCount;
    i->smem_block = (uint32_t)p.sharedMemPerBlockOptin;
    i->smem_sm = (uint32_t)p.sharedMemPerMultiprocessor;
    i->l2_bytes = (uint32_t)attribute(cudaDevAttrL2CacheSize);
    cudaDriverGetVersion(&i->driver);
    cudaRuntimeGetVersion(&i->runtime);
    if (i->cc < 80)
        return err_set(e, ST_EUNSUP, "cuda: %s is of compute capability %d.%d; 8.0 (A100) or newer is needed", i->name, p.major,
                       p.minor);
    return ST_OK;
}

int gpu_open(struct gpu **out, struct err *e)
{
    int n = 0, driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0)
        return err_set(e, ST_EUNSUP, "cuda: no NVIDIA driver is installed");
    cudaError_t rc = cudaGetDeviceCount(&n);
    if (rc == cudaErrorInsufficientDriver)
        return err_set(e, ST_EUNSUP, "cuda: the driver is made for CUDA %d.%d, this build needs %d.%d", driver / 1000,
                       driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (rc != cudaSuccess || n == 0)
        return err_set(e, ST_EUNSUP, "cuda: no device: %s", rc == cudaSuccess ? "the driver shows none" : cudaGetErrorString(rc));
    rc = cudaSetDevice(0);
    if (rc != cudaSuccess)
        return err_set(e, ST_EDEVICE, "cuda: the device cannot be used: %s", cudaGetErrorString(rc));
    struct gpu *g = mem_zalloc(1, sizeof *g);
    if (!g)
        return err_set(e, ST_ENOMEM, "cuda: no memory");
    int s = describe(g, e);
    if (s != ST_OK) {
        mem_free(g);
        return s;
    }
    *out = g;
    return ST_OK;
}

void gpu_close(struct gpu *g)
{
    mem_free(g);
}

const struct gpu_info *gpu_info(const struct gpu *g)
{
    return &g->info;
}

int gpu_memory(struct gpu *g, uint64_t *free_bytes, uint64_t *total_bytes)
{
    size_t f = 0, t = 0;
    if (failed(g))
        return ST_EDEVICE;
    int s = check(g, cudaMemGetInfo(&f, &t), "cudaMemGetInfo");
    *free_bytes = f;
    *total_bytes = t;
    return s;
}

/* ---- memory -------------------------------------------------------------------------------------------------------------- */

void *gpu_alloc(struct gpu *g, size_t bytes)
{
    void *p = NULL;
    if (failed(g))
        return NULL;
    cudaError_t rc = cudaMalloc(&p, bytes ? bytes : 1);
    if (rc == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return NULL;
    }
    if (check(g, rc, "cudaMalloc") != ST_OK)
        return NULL;
    /* The streams of this file do not wait for the legacy one, on which the zeroing runs. */
    if (check(g, cudaMemset(p, 0, bytes), "cudaMemset") == ST_OK &&
        check(g, cudaStreamSynchronize(cudaStreamLegacy), "cudaStreamSynchronize") == ST_OK)
        return p;
    cudaFree(p);
    return NULL;
}

void gpu_free(struct gpu *g, void *p)
{
    if (p)
        check(g, cudaFree(p), "cudaFree");
}

void *gpu_host_alloc(struct gpu *g, size_t bytes)
{
    void *p = NULL;
    if (failed(g))
        return NULL;
    cudaError_t rc = cudaHostAlloc(&p, bytes ? bytes : 1, cudaHostAllocPortable | cudaHostAllocMapped);
    if (rc == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return NULL;
    }
    return check(g, rc, "cudaHostAlloc") == ST_OK ? p : NULL;
}

void gpu_host_free(struct gpu *g, void *p)
{
    if (p)
        check(g, cudaFreeHost(p), "cudaFreeHost");
}

/* ---- streams ------------------------------------------------------------------------------------------------------------- */

int gpu_stream_create(struct gpu *g, struct gpu_stream **out)
{
    if (failed(g))
        return ST_EDEVICE;
    struct gpu_stream *s = mem_zalloc(1, sizeof *s);
    if (!s)
        return ST_ENOMEM;
    s->g = g;
    int rc = check(g, cudaStreamCreateWithFlags(&s->s, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    if (rc != ST_OK) {
        mem_free(s);
        return rc;
    }
    *out = s;
    return ST_OK;
}

void gpu_stream_destroy(struct gpu_stream *s)
{
    if (!s)
        return;
    check(s->g, cudaStreamDestroy(s->s), "cudaStreamDestroy");
    mem_free(s);
}

struct gpu *gpu_stream_gpu(const struct gpu_stream *s)
{
    return s->g;
}

void *gpu_stream_raw(const struct gpu_stream *s)
{
    return s->s;
}

int gpu_stream_sync(struct gpu_stream *s)
{
    return failed(s->g) ? ST_EDEVICE : check(s->g, cudaStreamSynchronize(s->s), "cudaStreamSynchronize");
}

int gpu_copy(struct gpu_stream *s, void *dst, const void *src, size_t bytes)
{
    if (failed(s->g))
        return ST_EDEVICE;
    return check(s->g, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, s->s), "cudaMemcpyAsync");
}

#if CUDART_VERSION < 13000
static int copy_each(struct gpu_stream *s, void *const *dst, const void *const *src, size_t bytes, uint32_t n)
{
    int rc = ST_OK;
    for (uint32_t i = 0; i < n && rc == ST_OK; i++)
        rc = gpu_copy(s, dst[i], src[i], bytes);
    return rc;
}
#endif

/* One call for many copies where the runtime has it (CUDA 13): the driver then feeds the copy engines back to back. */
int gpu_copy_batch(struct gpu_stream *s, void *const *dst, const void *const *src, size_t bytes, uint32_t n)
{
#if CUDART_VERSION >= 13000
    struct cudaMemcpyAttributes a = {.srcAccessOrder = cudaMemcpySrcAccessOrderStream,
                                     .flags = cudaMemcpyFlagPreferOverlapWithCompute};
    size_t sizes[BATCH_MAX], first = 0;
    int rc = failed(s->g) ? ST_EDEVICE : ST_OK;
    for (uint32_t i = 0; i < n && rc == ST_OK; i += BATCH_MAX) {
        uint32_t part = n - i < BATCH_MAX ? n - i : BATCH_MAX;
        for (uint32_t k = 0; k < part; k++)
            sizes[k] = bytes;
        rc = check(s->g, cudaMemcpyBatchAsync(dst + i, src + i, sizes, part, &a, &first, 1, s->s), "cudaMemcpyBatchAsync");
    }
    return rc;
#else
    return copy_each(s, dst, src, bytes, n);
#endif
}

int gpu_zero(struct gpu_stream *s, void *dst, size_t bytes)
{
    return failed(s->g) ? ST_EDEVICE : check(s->g, cudaMemsetAsync(dst, 0, bytes, s->s), "cudaMemsetAsync");
}

/* ---- events -------------------------------------------------------------------------------------------------------------- */

int gpu_event_create(struct gpu *g, bool timed, struct gpu_event **out)
{
    if (failed(g))
        return ST_EDEVICE;
    struct gpu_event *v = mem_zalloc(1, sizeof *v);
    if (!v)
        return ST_ENOMEM;
    v->g = g;
    int rc = check(g, cudaEventCreateWithFlags(&v->v, timed ? cudaEventDefault : cudaEventDisableTiming),
                   "cudaEventCreateWithFlags");
    if (rc != ST_OK) {
        mem_free(v);
        return rc;
    }
    *out = v;
    return ST_OK;
}

void gpu_event_destroy(struct gpu_event *v)
{
    if (!v)
        return;
    check(v->g, cudaEventDestroy(v->v), "cudaEventDestroy");
    mem_free(v);
}

int gpu_event_record(struct gpu_event *v, struct gpu_stream *s)
{
    return failed(v->g) ? ST_EDEVICE : check(v->g, cudaEventRecord(v->v, s->s), "cudaEventRecord");
}

int gpu_event_poll(struct gpu_event *v)
{
    if (failed(v->g))
        return ST_EDEVICE;
    cudaError_t rc = cudaEventQuery(v->v);
    if (rc == cudaErrorNotReady) {
        cudaGetLastError();
        return 0;
    }
    int s = check(v->g, rc, "cudaEventQuery");
    return s == ST_OK ? 1 : s;
}

int gpu_event_wait(struct gpu_event *v)
{
    return failed(v->g) ? ST_EDEVICE : check(v->g, cudaEventSynchronize(v->v), "cudaEventSynchronize");
}

int gpu_stream_wait(struct gpu_stream *s, struct gpu_event *v)
{
    return failed(s->g) ? ST_EDEVICE : check(s->g, cudaStreamWaitEvent(s->s, v->v, 0), "cudaStreamWaitEvent");
}

int gpu_event_us(struct gpu_event *from, struct gpu_event *to, double *us)
{
    float ms = 0;
    if (failed(from->g))
        return ST_EDEVICE;
    int rc = check(from->g, cudaEventElapsedTime(&ms, from->v, to->v), "cudaEventElapsedTime");
    *us = 1e3 * (double)ms;
    return rc;
}

/* ---- graphs -------------------------------------------------------------------------------------------------------------- */

/* Thread-local: a loader thread of another part may allocate meanwhile. */
int gpu_capture_begin(struct gpu_stream *s)
{
    if (failed(s->g))
        return ST_EDEVICE;
    return check(s->g, cudaStreamBeginCapture(s->s, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
}

/* Always ends the capture, so that the stream is usable again; a graph comes out of one that went well. */
int gpu_capture_end(struct gpu_stream *s, struct gpu_graph **out)
{
    cudaGraph_t graph = NULL;
    cudaError_t ended = cudaStreamEndCapture(s->s, &graph);
    int rc = failed(s->g) ? ST_EDEVICE : check(s->g, ended, "cudaStreamEndCapture");
    struct gpu_graph *h = rc == ST_OK ? mem_zalloc(1, sizeof *h) : NULL;
    if (rc == ST_OK && !h)
        rc = ST_ENOMEM;
    size_t nodes = 0;
    if (rc == ST_OK)
        rc = check(s->g, cudaGraphGetNodes(graph, NULL, &nodes), "cudaGraphGetNodes");
    if (rc == ST_OK)
        rc = check(s->g, cudaGraphInstantiate(&h->exec, graph, 0), "cudaGraphInstantiate");
    if (graph)
        cudaGraphDestroy(graph);
    if (rc != ST_OK) {
        mem_free(h);
        return rc;
    }
    h->g = s->g;
    h->nodes = (uint32_t)nodes;
    *out = h;
    return ST_OK;
}

int gpu_graph_launch(struct gpu_graph *h, struct gpu_stream *s)
{
    return failed(s->g) ? ST_EDEVICE : check(s->g, cudaGraphLaunch(h->exec, s->s), "cudaGraphLaunch");
}

uint32_t gpu_graph_nodes(const struct gpu_graph *h)
{
    return h->nodes;
}

void gpu_graph_destroy(struct gpu_graph *h)
{
    if (!h)
        return;
    check(h->g, cudaGraphExecDestroy(h->exec), "cudaGraphExecDestroy");
    mem_free(h);
}
