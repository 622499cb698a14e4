/* pack: tensors by name -> shape check -> packed weights of a backend, with progress and the file's pages
 * given back.
 *
 * Owns     nothing lasting: weights go to the caller, who destroys them through the backend.
 * Units    bytes; shapes outermost first.
 * States   pack_begin -> pack_* calls -> read `rc`. The first failure sticks: later calls return NULL at
 *          once, so a forward can ask for all its weights and check once.
 * Threads  one owner.
 * Errors   ST_EFORMAT for a missing tensor or a shape that the config contradicts (file, tensor, both
 *          shapes), ST_EUNSUP for a type that no kernel reads; weight_create's own.
 * Bounds   one tensor group of the file is in memory beside the packed weights.
 */
#ifndef STATOR_PACK_H
#define STATOR_PACK_H

#include "dummy.h"
#include "source.h"

struct pack {
    struct be *be;
    const struct source *src;
    bool rope_interleaved; /* how the source pairs the rows of q and k */
    uint32_t head_dim, rot_dim;
    void (*progress)(void *user, size_t done, size_t total); /* NULL: none */
    void *user;
    struct err *e;
    int rc;
    size_t done, total; /* bytes of tensors: packed so far, in the files */
    struct dummy dummy; /* where the source has no tensors; the owner of the pack calls dummy_fini */
};

/* One matrix of a group. */
struct pack_part {
    const char *name;
    uint64_t rows;
};

bool pack_has(const struct pack *p, const char *name);
struct be_weight *pack_matrix(struct pack *p, enum be_weight_use use, const struct pack_part *parts,
                              uint32_t n_parts, uint64_t k);
struct be_weight *pack_vector(struct pack *p, const char *name, uint64_t n);
/* Vectors end to end as one; NULL without an error when none of them is in the file. */
struct be_weight *pack_biases(struct pack *p, const struct pack_part *parts, uint32_t n_parts);
/* The tensor as f32, in the caller's array. */
void pack_floats(struct pack *p, const char *name, uint64_t n, float *out);

#endif
