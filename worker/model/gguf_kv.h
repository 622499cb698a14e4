/* gguf_kv: (internal) what the reader of a GGUF header (gguf.c) leaves for the getters of its values (gguf_value.c). */
#ifndef STATOR_GGUF_KV_H
#define STATOR_GGUF_KV_H

#include "filemap.h"
#include "gguf.h"

/* A name from the file for an error text: cut, so that the rest of the text survives. */
#define GGUF_NAME_ARGS(s) (int)((s).n > 80 ? 80 : (s).n), (s).p

struct gguf_kv {
    struct str key;
    enum gguf_type type;
    struct str value;     /* the bytes: of a string its text, of an array its elements */
    enum gguf_type inner; /* element type of an array */
    uint64_t count;       /* elements of an array */
};

struct gguf {
    struct filemap map; /* p NULL after gguf_parse */
    const unsigned char *p;
    size_t n;
    char *name;
    uint32_t version, n_kv, n_tensors;
    struct gguf_kv *kv;     /* [n_kv], sorted by key */
    struct tensor *tensors; /* [n_tensors], sorted by name */
};

extern const uint8_t gguf_kv_bytes[GGUF_TYPE_COUNT]; /* of one scalar; 0 for strings and arrays */
extern const char *const gguf_kv_names[GGUF_TYPE_COUNT];

const struct gguf_kv *gguf_kv_find(const struct gguf *g, const char *name); /* NULL: none */

#endif
