/* rig: what the parts of bench_gpu share: one GPU, timing by graphs, the ceilings of this run, tables.
 *
 * Owns     the GPU's context, a stream, the timing events, the table that is open.
 * Units    microseconds; GB/s and TFLOP/s in powers of ten.
 * States   open -> (ceilings) -> tables and timings -> close.
 * Threads  one.
 * Errors   statuses of gpu.h; rig_gone tells whether the device is lost, and a part then ends.
 * Bounds   RIG_CALLS calls in one timing.
 */
#ifndef STATOR_RIG_H
#define STATOR_RIG_H

#include "cu_lt.h"

#include <stdio.h>

enum { RIG_CALLS = 512, RIG_REPEATS = 7 };

struct rig {
    struct gpu *gpu;
    const struct gpu_info *info;
    struct gpu_stream *stream;
    struct gpu_event *from, *to;
    struct cu_lt *lt;                     /* NULL: the library is not there */
    const char *dir;                      /* of the CSV files; NULL: only to the terminal */
    double copy_gbs;                      /* ceilings, 0 before rig_ceilings */
    double gemm_tflops, gemm_fp8_tflops;  /* fp8: 0 before cc 90 */
    FILE *csv;
};

int rig_open(struct rig *r, const char *dir, struct err *e);
void rig_close(struct rig *r);
int rig_gone(const struct rig *r); /* ST_OK, or ST_EDEVICE after it was printed why */

/* Measures the ceilings: a device-to-device copy of 1 GB (bytes read and written), products of 8192 x 8192 x 8192. */
int rig_ceilings(struct rig *r);
double rig_gemm(const struct rig *r, enum cu_type t); /* TFLOP/s for operands of this type */

/* The i-th of a timing's calls. */
typedef int rig_call(void *ctx, struct gpu_stream *s, uint32_t i);
/* Time of one call when `n` of them run in one graph, median of RIG_REPEATS launches. A call's own status when it refuses. */
int rig_time(struct rig *r, rig_call *call, void *ctx, uint32_t n, double *us);

/* Device memory filled with values of deviation `dev` (bf16, f32), or of e4m3's middle exponents. */
int rig_fill(struct rig *r, void *dst, size_t bytes, enum cu_type t, float dev);

/* A table: to the terminal, and to DIR/<name>.csv. `columns` and rows are comma-separated. */
void rig_table(struct rig *r, const char *name, const char *columns);
void rig_row(struct rig *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void rig_table_end(struct rig *r);

#endif
