/* arch: the table of model families. A family is how its weights are loaded and how its forward is written in
 * ops; a new one is a new file and a new row.
 *
 * Owns     what load made, until destroy.
 * Units    rows, positions.
 * States   load -> forward* -> destroy.
 * Threads  one thread (the engine's).
 * Errors   load: as pack.h. forward: the first failing op's status.
 * Bounds   the workspace is sized at load from arch_limits; forward allocates nothing.
 */
#ifndef STATOR_ARCH_H
#define STATOR_ARCH_H

#include "pack.h"

struct arch_limits {
    uint32_t max_rows, max_context;
};

struct arch {
    const char *name; /* GGUF's general.architecture; hparams_hf_arch maps class names to it */
    int (*load)(void **out, const struct hparams *h, const struct arch_limits *limits, struct pack *p);
    int (*forward)(void *self, const struct be_batch *batch, struct be_kv *kv, float *logits);
    void (*destroy)(void *self); /* NULL ok */
    size_t (*weight_bytes)(const void *self);
};

extern const struct arch arch_llama;

const struct arch *arch_find(const char *name); /* NULL: not supported */

#endif
