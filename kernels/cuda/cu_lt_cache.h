/* cu_lt_cache: the file of tuned choices, as text. A choice is a number: the place of the algorithm in the list that the
 * library proposes for the shape. The list is a function of what stands in the file's head, so no byte of the file reaches the
 * library, and the worst that a forged file can do is to choose a slow algorithm.
 *
 * Owns     nothing.
 * Units    nanoseconds; shapes as cu_lin.h.
 * States   -
 * Threads  pure functions.
 * Errors   ST_EFORMAT: the text is not what cu_lt_cache_print writes, to the byte; ST_EUNSUP: of another device, driver or
 *          library. Nothing is taken from such a file.
 * Bounds   CU_LT_CHOICES lines, CU_LT_TEXT_MAX bytes.
 */
#ifndef STATOR_CU_LT_CACHE_H
#define STATOR_CU_LT_CACHE_H

#include "buf.h"
#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CU_LT_CHOICES = 512, CU_LT_CANDIDATES = 8, CU_LT_TEXT_MAX = 64 * 1024 };

/* What the library's list of proposals depends on besides the shape. */
struct cu_lt_id {
    char gpu[128]; /* printable */
    uint32_t sms, driver;
    uint64_t library;
};

/* The numbers that make a shape; all u32, so that a line of the file is a row of numbers. */
enum cu_lt_field {
    CU_LT_M,
    CU_LT_N,
    CU_LT_K,
    CU_LT_LDX,
    CU_LT_LDY,
    CU_LT_WT,
    CU_LT_YT,
    CU_LT_EPILOGUE,
    CU_LT_BIAS,
    CU_LT_SCALES,
    CU_LT_FIELDS
};

struct cu_lt_choice {
    uint32_t key[CU_LT_FIELDS];
    uint32_t rank; /* < CU_LT_CANDIDATES */
    uint32_t ns;   /* what it took */
};

int cu_lt_cache_print(struct buf *b, const struct cu_lt_id *id, const struct cu_lt_choice *c, uint32_t n);
/* out[CU_LT_CHOICES]; *n is 0 unless ST_OK. */
int cu_lt_cache_parse(struct str text, const struct cu_lt_id *id, struct cu_lt_choice *out, uint32_t *n);

#ifdef __cplusplus
}
#endif
#endif
