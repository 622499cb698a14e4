/* safetensors: a reader of safetensors files, one alone or the shards of a folder, as one set of tensors.
 *
 * Owns     its mappings and index. Tensors borrow from it.
 * Units    bytes; dims as in the file, outermost first.
 * States   open -> read -> close. Immutable in between.
 * Threads  reading from any.
 * Errors   ST_EFORMAT for a truncated or lying file, ST_ENOENT for a missing one; the text names file and
 *          field.
 * Bounds   a header of SAFETENSORS_HEADER_MAX bytes, SAFETENSORS_TENSORS_MAX tensors, SAFETENSORS_SHARDS_MAX
 *          shards, 4 dims; every offset is checked against the file's length before it is used.
 * Source   the safetensors format description (8-byte header length, JSON header, data);
 *          model.safetensors.index.json of Hugging Face transformers.
 */
#ifndef STATOR_SAFETENSORS_H
#define STATOR_SAFETENSORS_H

#include "filemap.h"
#include "tensor.h"

enum {
    SAFETENSORS_HEADER_MAX = 100 * 1000 * 1000,
    SAFETENSORS_INDEX_MAX = 64 * 1024 * 1024,
    SAFETENSORS_TENSORS_MAX = 100000,
    SAFETENSORS_SHARDS_MAX = 1000
};

struct safetensors;

/* One file's bytes; `name` stands for it in errors, the bytes must stay until safetensors_close. */
int safetensors_parse(struct safetensors **out, const void *p, size_t n, const char *name, struct err *e);
/* `path` is a file, or a folder with model.safetensors or model.safetensors.index.json in it. */
int safetensors_open(struct safetensors **out, const char *path, struct err *e);
void safetensors_close(struct safetensors *s); /* NULL ok */

uint32_t safetensors_n_tensors(const struct safetensors *s);
/* In order of their names; i < safetensors_n_tensors. */
const struct tensor *safetensors_tensor_at(const struct safetensors *s, uint32_t i);
const struct tensor *safetensors_tensor(const struct safetensors *s, const char *name); /* NULL: none */
size_t safetensors_size(const struct safetensors *s);                                   /* of all files */
uint32_t safetensors_n_files(const struct safetensors *s);
/* The mapping of file i, or NULL after safetensors_parse. */
const struct filemap *safetensors_map(const struct safetensors *s, uint32_t i);

#endif
