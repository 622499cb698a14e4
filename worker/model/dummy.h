/* dummy: random matrices in place of a file's, for benchmarks without a download.
 *
 * Owns     one buffer, reused from matrix to matrix.
 * Units    elements of bfloat16.
 * States   zeroed -> fill* -> fini.
 * Threads  one owner.
 * Errors   ST_ENOMEM.
 * Bounds   one group of matrices at a time.
 * Source   rows are pieces of one table of normal-like values, deviation 1 / sqrt(k), from a place that name and row choose:
 *          the same weights at every start, made at the speed of memory.
 */
#ifndef STATOR_DUMMY_H
#define STATOR_DUMMY_H

#include "status.h"

#include <stddef.h>
#include <stdint.h>

struct dummy {
    uint16_t *table, *data;
    size_t data_bytes;
    uint64_t k; /* the table's */
};

/* Room for `n` elements; what was filled before is gone. */
int dummy_reserve(struct dummy *d, uint64_t n);
/* Fills d->data[at .. at + rows * k). */
void dummy_fill(struct dummy *d, uint64_t at, uint64_t rows, uint64_t k, const char *name);
void dummy_fini(struct dummy *d); /* zeroed ok */

#endif
