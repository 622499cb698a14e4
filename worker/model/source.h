/* source: the files of one model, whatever their format: a .gguf, or a Hugging Face folder.
 *
 * Owns     the readers and their mappings; tensors borrow from it.
 * Units    bytes.
 * States   open -> (tensor, populate, drop)* -> close.
 * Threads  one owner.
 * Errors   of the readers; ST_ENOENT / ST_EFORMAT naming the path.
 * Bounds   those of the readers.
 */
#ifndef STATOR_SOURCE_H
#define STATOR_SOURCE_H

#include "gguf.h"
#include "hparams.h"
#include "safetensors.h"

struct source {
    struct gguf *gguf;      /* or NULL */
    struct safetensors *st; /* or NULL */
    char *name;             /* last part of the path, for errors */
};

/* Opens the files and reads the numbers. */
int source_open(struct source *s, const char *path, struct hparams *h, struct err *e);
void source_close(struct source *s); /* zeroed ok */

const struct tensor *source_tensor(const struct source *s, const char *name); /* NULL: none */
uint32_t source_n_tensors(const struct source *s);
const struct tensor *source_tensor_at(const struct source *s, uint32_t i);
size_t source_bytes(const struct source *s); /* of all files */
void source_populate(const struct source *s, const struct tensor *t);
void source_drop(const struct source *s, const struct tensor *t);

#endif
