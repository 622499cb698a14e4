/* gpu: one GPU behind plain C: memory, streams, events, graphs. The only way from Stator to the CUDA runtime.
 *
 * Owns     a gpu owns its context; everything made from it is destroyed before gpu_close.
 * Units    bytes, microseconds.
 * States   open -> use -> close. The first failing call makes the gpu sticky: gpu_failure tells which call, what it said;
 *          every later call returns ST_EDEVICE at once.
 * Threads  any one at a time per stream; alloc, free and the sticky state may be used by several.
 * Errors   ST_EUNSUP (no driver, no device, too old: the text says which), ST_ENOMEM (gpu_alloc, gpu_host_alloc: NULL; not
 *          sticky), ST_EDEVICE.
 * Bounds   calls never synchronise unless their name says wait or sync.
 * Source   kernels/cuda/gpu_cuda.c over the CUDA runtime; tests/simt/gpu_sim.c, an emulation with the same contract
 *          whose streams run in any order that events and waits allow.
 */
#ifndef STATOR_GPU_H
#define STATOR_GPU_H

#include "status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gpu;
struct gpu_stream;
struct gpu_event;
struct gpu_graph;

struct gpu_info {
    char name[128];
    int cc;                                    /* 80 = sm_80, 90 = sm_90 */
    uint32_t sms;
    uint32_t smem_block, smem_sm;              /* bytes of shared memory that a block may ask for, and that an SM has */
    uint32_t l2_bytes;
    int driver, runtime;                       /* CUDA versions, 13000 = 13.0 */
};

int gpu_open(struct gpu **out, struct err *e); /* the device that CUDA_VISIBLE_DEVICES puts first */
void gpu_close(struct gpu *g);                 /* NULL ok */
const struct gpu_info *gpu_info(const struct gpu *g);
int gpu_memory(struct gpu *g, uint64_t *free_bytes, uint64_t *total_bytes);
/* NULL, or the first failure: "cudaEventSynchronize: an illegal memory access was encountered, after attn_rows". */
const char *gpu_failure(const struct gpu *g);
/* For launchers: makes the gpu sticky with `what` and returns ST_EDEVICE. */
int gpu_fail(struct gpu *g, const char *what, const char *why);

void *gpu_alloc(struct gpu *g, size_t bytes); /* device memory, 256-byte aligned, zeroed */
void gpu_free(struct gpu *g, void *p);        /* NULL ok */
void *gpu_host_alloc(struct gpu *g, size_t bytes); /* pinned; kernels may read and write it at the same address */
void gpu_host_free(struct gpu *g, void *p);        /* NULL ok */

int gpu_stream_create(struct gpu *g, struct gpu_stream **out);
void gpu_stream_destroy(struct gpu_stream *s); /* NULL ok */
struct gpu *gpu_stream_gpu(const struct gpu_stream *s);
void *gpu_stream_raw(const struct gpu_stream *s); /* cudaStream_t */
int gpu_stream_sync(struct gpu_stream *s);        /* waits until all of it has run */
/* Asynchronous, any direction; host memory must be pinned and stay until the stream has passed it. */
int gpu_copy(struct gpu_stream *s, void *dst, const void *src, size_t bytes);
/* n copies of `bytes` each, in no order among each other. */
int gpu_copy_batch(struct gpu_stream *s, void *const *dst, const void *const *src, size_t bytes, uint32_t n);
int gpu_zero(struct gpu_stream *s, void *dst, size_t bytes);

int gpu_event_create(struct gpu *g, bool timed, struct gpu_event **out);
void gpu_event_destroy(struct gpu_event *v); /* NULL ok */
int gpu_event_record(struct gpu_event *v, struct gpu_stream *s);
int gpu_event_poll(struct gpu_event *v); /* 1: what it recorded has completed (or nothing was recorded), 0: not yet */
int gpu_event_wait(struct gpu_event *v); /* the host waits */
int gpu_stream_wait(struct gpu_stream *s, struct gpu_event *v); /* the stream waits */
int gpu_event_us(struct gpu_event *from, struct gpu_event *to, double *us); /* both timed and completed */

/* Between begin and end, launches and copies on `s` are recorded, not run. */
int gpu_capture_begin(struct gpu_stream *s);
int gpu_capture_end(struct gpu_stream *s, struct gpu_graph **out); /* also after a failed launch: then ST_EDEVICE */
int gpu_graph_launch(struct gpu_graph *h, struct gpu_stream *s);
uint32_t gpu_graph_nodes(const struct gpu_graph *h);
void gpu_graph_destroy(struct gpu_graph *h); /* NULL ok */

#ifdef __cplusplus
}
#endif
#endif
