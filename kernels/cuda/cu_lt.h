/* cu_lt: the library's matrix product (cuBLASLt) for many rows, its algorithms timed once per shape.
 *
 * Owns     the library's handle, a workspace of 32 MiB, the tuned choices, their file under cache_dir.
 * Units    as cu_lin.h.
 * States   create -> (tune)* -> run* -> destroy. A shape that was not tuned runs by the library's first proposal.
 * Threads  one; runs on one stream at a time (the workspace is shared between them).
 * Errors   ST_EUNSUP: nothing for this shape (CU_SWIGLU, a bias that the library cannot add, e4m3 before cc 90, one scale
 *          without the other, what the library refuses): the caller has cu_lin_tile. ST_EINVAL, ST_ENOMEM, ST_EDEVICE.
 * Bounds   CU_LT_CHOICES shapes are remembered; run allocates nothing and may be captured.
 * Source   KERNELS design, section 2.1; cublasLt.h. Bits may depend on m: no class.
 */
#ifndef STATOR_CU_LT_H
#define STATOR_CU_LT_H

#include "cu_lin.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cu_lt;

/* cache_dir: NULL = choices are not kept. A file that cannot be read, parsed or written costs time, never a failure. */
int cu_lt_create(struct cu_lt **out, struct gpu *g, const char *cache_dir, struct err *e);
void cu_lt_destroy(struct cu_lt *l); /* NULL ok */

/* The row counts for which shapes are tuned, ascending: what lies between two runs by the upper one's choice. */
uint32_t cu_lt_bucket(uint32_t m); /* the smallest bucket >= m, or the last */

/* Times the candidates for p's shape with p->m rows, unless the file knows the answer; the choice holds for all m of the same
 * bucket. Overwrites p->y; not during a capture; waits for the stream. x and w shall hold typical values: power, and so speed,
 * depends on them. */
int cu_lt_tune(struct cu_lt *l, struct gpu_stream *s, const struct cu_lin *p);
int cu_lt_run(struct cu_lt *l, struct gpu_stream *s, const struct cu_lin *p);

#ifdef __cplusplus
}
#endif
#endif
