/* source: where a model's tensors come from, whatever their format: a .gguf, a Hugging Face folder, or nowhere (dummy).
 *
 * Owns     the readers and their mappings; tensors borrow from it.
 * Units    bytes.
 * States   open -> (tensor, populate, drop)* -> close.
 * Threads  one owner.
 * Errors   of the readers; ST_ENOENT / ST_EFORMAT naming the path.
 * Bounds   those of the readers.
 * Source   source.c: GGUF and dummy; source_hf.c: what needs JSON.
 */
#ifndef STATOR_SOURCE_H
#define STATOR_SOURCE_H

#include "gguf.h"
#include "hparams.h"
#include "safetensors.h"

struct source;

struct source_ops {
    void (*close)(struct source *s);
    const struct tensor *(*tensor)(const struct source *s, const char *name); /* NULL: none */
    uint32_t (*n_tensors)(const struct source *s);
    const struct tensor *(*tensor_at)(const struct source *s, uint32_t i);
    size_t (*bytes)(const struct source *s); /* of all files */
    void (*advise)(const struct source *s, const struct tensor *t,
                   void (*call)(const struct filemap *, const void *, size_t));
};

struct source {
    const struct source_ops *ops;
    struct gguf *gguf;      /* or NULL */
    struct safetensors *st; /* or NULL */
    char *name;             /* last part of the path, for errors */
    bool dummy;             /* no tensors: weights are random (dummy.h) */
};

/* Opens the files and reads the numbers. `path`: a .gguf file or a folder. */
int source_open(struct source *s, const char *path, struct hparams *h, struct err *e);
/* Only the numbers, from a folder's config.json; no tensors. */
int source_open_config(struct source *s, const char *path, struct hparams *h, struct err *e);

int source_open_gguf(struct source *s, const char *path, struct hparams *h, struct err *e);
int source_open_dummy(struct source *s, const char *path, struct err *e);
void source_close(struct source *s); /* zeroed ok */

const struct tensor *source_tensor(const struct source *s, const char *name); /* NULL: none */
uint32_t source_n_tensors(const struct source *s);
const struct tensor *source_tensor_at(const struct source *s, uint32_t i);
size_t source_bytes(const struct source *s); /* of all files */
void source_populate(const struct source *s, const struct tensor *t);
void source_drop(const struct source *s, const struct tensor *t);

#endif
