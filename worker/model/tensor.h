/* tensor: one tensor of a model file, as a checked view into the file's bytes.
 *
 * Owns     nothing: name, file name and data borrow from the reader that filled it.
 * Units    sizes in bytes; dims outermost first: a matrix is [rows][k].
 * States   -
 * Threads  plain data.
 * Errors   tensor_check_* name file, tensor and both shapes.
 * Bounds   data .. data + bytes lies inside the file and bytes is what dims and type ask for, whenever type
 *          >= 0.
 */
#ifndef STATOR_TENSOR_H
#define STATOR_TENSOR_H

#include "backend.h"
#include "buf.h"

enum { TENSOR_DIMS_MAX = 4 };

struct tensor {
    struct str name;
    const char *file;      /* for errors */
    int type;              /* enum be_type, or -1: a type that no kernel reads; data is then NULL */
    const char *type_text; /* the file's own word for the type */
    uint32_t n_dims;
    uint64_t dims[TENSOR_DIMS_MAX];
    const unsigned char *data; /* [bytes], maybe unaligned */
    size_t bytes;
    size_t file_off, file_len; /* where data stands in its file, and that file's length: for errors */
};

/* Elements = product of the dims; false on overflow. */
bool tensor_elements(const struct tensor *t, uint64_t *out);
/* "[49152, 576]"; cut at n. */
void tensor_shape_text(const struct tensor *t, char *out, size_t n);

#endif
