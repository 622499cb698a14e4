/* gguf: a reader of GGUF files: typed metadata and tensors, as views into the file.
 *
 * Owns     its indexes and, after gguf_open, the mapping. Every str, array and tensor borrows from it.
 * Units    bytes. Tensor dims come out outermost first ([rows][k]), the reverse of the file's order.
 * States   open -> read -> close. Immutable in between.
 * Threads  reading from any.
 * Errors   ST_EFORMAT for a truncated or lying file, ST_EUNSUP for a version that is not read; the text names
 *          file and field. The gguf_opt_* getters return ST_OK and leave *out alone when the key is absent.
 * Bounds   GGUF_KV_MAX keys, GGUF_TENSORS_MAX tensors, 4 dims; every length, count and offset is checked
 *          against the file's length before it is used, and no allocation is larger than what the file's
 *          length can justify.
 * Source   the GGUF specification, versions 2 and 3 (they differ in byte order marks only), little-endian.
 */
#ifndef STATOR_GGUF_H
#define STATOR_GGUF_H

#include "tensor.h"

enum { GGUF_KV_MAX = 1000000, GGUF_TENSORS_MAX = 100000 };

enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPE_COUNT
};

struct gguf;

/* An array value. Elements of fixed size are indexed; strings are walked with gguf_array_str. */
struct gguf_array {
    enum gguf_type type; /* of the elements; never GGUF_ARRAY */
    uint64_t n;
    const unsigned char *p, *end; /* the elements' bytes */
};

/* `name` stands for the file in errors. The bytes at p must stay until gguf_close. */
int gguf_parse(struct gguf **out, const void *p, size_t n, const char *name, struct err *e);
int gguf_open(struct gguf **out, const char *path, struct err *e);
void gguf_close(struct gguf *g); /* NULL ok */

const char *gguf_name(const struct gguf *g);
uint32_t gguf_version(const struct gguf *g);
size_t gguf_size(const struct gguf *g); /* of the file */
/* The mapping after gguf_open, NULL after gguf_parse. */
const struct filemap *gguf_map(const struct gguf *g);

bool gguf_has(const struct gguf *g, const char *key);
int gguf_opt_int(const struct gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                 struct err *e);
int gguf_opt_num(const struct gguf *g, const char *key, double min, double max, double *out, struct err *e);
int gguf_opt_bool(const struct gguf *g, const char *key, bool *out, struct err *e);
int gguf_opt_str(const struct gguf *g, const char *key, struct str *out, struct err *e);
int gguf_opt_array(const struct gguf *g, const char *key, enum gguf_type type, struct gguf_array *out,
                   struct err *e); /* type GGUF_ARRAY = any element type */
int gguf_need_int(const struct gguf *g, const char *key, int64_t min, int64_t max, int64_t *out,
                  struct err *e);
int gguf_need_str(const struct gguf *g, const char *key, struct str *out, struct err *e);

/* Element i < a->n of an integer or bool array (u64 above INT64_MAX reads as INT64_MAX); of any number
 * array. */
int64_t gguf_array_int(const struct gguf_array *a, uint64_t i);
double gguf_array_num(const struct gguf_array *a, uint64_t i);
/* Takes the next string off the front of a GGUF_STRING array; false when none is left. O(1): copy the struct
 * to walk it. */
bool gguf_array_str(struct gguf_array *a, struct str *out);

uint32_t gguf_n_keys(const struct gguf *g);
uint32_t gguf_n_tensors(const struct gguf *g);
/* In order of their names; i < gguf_n_tensors. */
const struct tensor *gguf_tensor_at(const struct gguf *g, uint32_t i);
const struct tensor *gguf_tensor(const struct gguf *g, const char *name); /* NULL: none */

#endif
