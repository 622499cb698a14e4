/* gguf: problem: the file says where everything is, and the file may lie. Design: one cursor that knows how
 * many bytes are left, through which every byte of the header is taken; a count is only believed as far as
 * the bytes left could hold that many of the smallest entry, so a lie costs no memory; and tensor data is
 * checked as offset <= size, then bytes <= size - offset, never as a sum. Keys and tensors are sorted by name
 * once, for look-ups and to refuse duplicates.
 * Rejected: copying strings out (280,000 vocabulary entries are as many allocations): they are borrowed. */
#include "gguf_kv.h"

#include "mem.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Reads the header front to back. The first failure sticks in `rc`. */
struct cursor {
    const unsigned char *p;
    size_t left;
    const char *file;
    struct err *e;
};

const uint8_t gguf_kv_bytes[GGUF_TYPE_COUNT] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
};

const char *const gguf_kv_names[GGUF_TYPE_COUNT] = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64",
};

/* The file's tensor types by number; be < 0: known by name only. */
static const struct {
    const char *name;
    int be;
} tensor_types[] = {
    [0] = {"F32", BE_F32},    [1] = {"F16", BE_F16}, [2] = {"Q4_0", BE_Q4_0},  [3] = {"Q4_1", BE_Q4_1},
    [6] = {"Q5_0", -1},       [7] = {"Q5_1", -1},    [8] = {"Q8_0", BE_Q8_0},  [9] = {"Q8_1", -1},
    [10] = {"Q2_K", -1},      [11] = {"Q3_K", -1},   [12] = {"Q4_K", BE_Q4_K}, [13] = {"Q5_K", -1},
    [14] = {"Q6_K", BE_Q6_K}, [15] = {"Q8_K", -1},   [16] = {"IQ2_XXS", -1},   [17] = {"IQ2_XS", -1},
    [18] = {"IQ3_XXS", -1},   [19] = {"IQ1_S", -1},  [20] = {"IQ4_NL", -1},    [21] = {"IQ3_S", -1},
    [22] = {"IQ2_S", -1},     [23] = {"IQ4_XS", -1}, [24] = {"I8", -1},        [25] = {"I16", -1},
    [26] = {"I32", -1},       [27] = {"I64", -1},    [28] = {"F64", -1},       [29] = {"IQ1_M", -1},
    [30] = {"BF16", BE_BF16}, [34] = {"TQ1_0", -1},  [35] = {"TQ2_0", -1},     [39] = {"MXFP4", -1},
};

/* ---- cursor -------------------------------------------------------------------------------------------- */

static const unsigned char *take(struct cursor *c, uint64_t n)
{
    if (n > c->left)
        return NULL;
    const unsigned char *p = c->p;
    c->p += n;
    c->left -= (size_t)n;
    return p;
}

static bool take_u32(struct cursor *c, uint32_t *out)
{
    const unsigned char *p = take(c, 4);
    if (p == NULL)
        return false;
    memcpy(out, p, 4);
    return true;
}

static bool take_u64(struct cursor *c, uint64_t *out)
{
    const unsigned char *p = take(c, 8);
    if (p == NULL)
        return false;
    memcpy(out, p, 8);
    return true;
}

static bool take_str(struct cursor *c, struct str *out)
{
    uint64_t n;
    if (!take_u64(c, &n))
        return false;
    const unsigned char *p = take(c, n);
    if (p == NULL)
        return false;
    *out = (struct str){(const char *)p, (size_t)n};
    return true;
}

/* ---- metadata ------------------------------------------------------------------------------------------ */

static int read_array(struct cursor *c, struct gguf_kv *kv)
{
    uint32_t inner;
    uint64_t count;
    if (!take_u32(c, &inner) || !take_u64(c, &count))
        return err_set(c->e, ST_EFORMAT, "%s: key '%.*s': the array's head exceeds the file", c->file,
                       GGUF_NAME_ARGS(kv->key));
    if (inner >= GGUF_TYPE_COUNT || inner == GGUF_ARRAY)
        return err_set(c->e, ST_EFORMAT, "%s: key '%.*s': arrays of type %" PRIu32 " are not known", c->file,
                       GGUF_NAME_ARGS(kv->key), inner);
    const unsigned char *start = c->p;
    bool ok = true;
    if (inner == GGUF_STRING) {
        struct str s;
        ok = count <= c->left / 8;
        for (uint64_t i = 0; i < count && ok; i++)
            ok = take_str(c, &s);
    } else {
        ok = count <= c->left / gguf_kv_bytes[inner] && take(c, count * gguf_kv_bytes[inner]) != NULL;
    }
    if (!ok)
        return err_set(c->e, ST_EFORMAT, "%s: key '%.*s': an array of %" PRIu64 " %s exceeds the file",
                       c->file, GGUF_NAME_ARGS(kv->key), count, gguf_kv_names[inner]);
    kv->inner = (enum gguf_type)inner;
    kv->count = count;
    kv->value = (struct str){(const char *)start, (size_t)(c->p - start)};
    return ST_OK;
}

static int read_kv(struct cursor *c, uint32_t index, struct gguf_kv *kv)
{
    uint32_t type;
    if (!take_str(c, &kv->key))
        return err_set(c->e, ST_EFORMAT, "%s: key %" PRIu32 ": its name exceeds the file", c->file, index);
    if (!take_u32(c, &type))
        return err_set(c->e, ST_EFORMAT, "%s: key '%.*s': its type exceeds the file", c->file,
                       GGUF_NAME_ARGS(kv->key));
    if (type >= GGUF_TYPE_COUNT)
        return err_set(c->e, ST_EFORMAT, "%s: key '%.*s': value type %" PRIu32 " is not known", c->file,
                       GGUF_NAME_ARGS(kv->key), type);
    kv->type = (enum gguf_type)type;
    if (type == GGUF_ARRAY)
        return read_array(c, kv);
    if (type == GGUF_STRING) {
        if (!take_str(c, &kv->value))
            return err_set(c->e, ST_EFORMAT, "%s: key '%.*s': its string exceeds the file", c->file,
                           GGUF_NAME_ARGS(kv->key));
        return ST_OK;
    }
    const unsigned char *p = take(c, gguf_kv_bytes[type]);
    if (p == NULL)
        return err_set(c->e, ST_EFORMAT, "%s: key '%.*s': its value exceeds the file", c->file,
                       GGUF_NAME_ARGS(kv->key));
    kv->value = (struct str){(const char *)p, gguf_kv_bytes[type]};
    return ST_OK;
}

/* ---- tensors ------------------------------------------------------------------------------------------- */

/* One entry of the tensor list; `file_off` is relative to the data section until place_tensor. */
static int read_tensor(struct cursor *c, uint32_t index, struct tensor *t)
{
    uint32_t type;
    uint64_t off;
    t->file = c->file;
    if (!take_str(c, &t->name))
        return err_set(c->e, ST_EFORMAT, "%s: tensor %" PRIu32 ": its name exceeds the file", c->file, index);
    if (!take_u32(c, &t->n_dims))
        return err_set(c->e, ST_EFORMAT, "%s: tensor '%.*s': its dims exceed the file", c->file,
                       GGUF_NAME_ARGS(t->name));
    if (t->n_dims < 1 || t->n_dims > TENSOR_DIMS_MAX)
        return err_set(c->e, ST_EFORMAT, "%s: tensor '%.*s': %" PRIu32 " dims (1 to %d are known)", c->file,
                       GGUF_NAME_ARGS(t->name), t->n_dims, TENSOR_DIMS_MAX);
    for (uint32_t i = 0; i < t->n_dims; i++) {
        uint64_t *dim = &t->dims[t->n_dims - 1 - i];
        if (!take_u64(c, dim))
            return err_set(c->e, ST_EFORMAT, "%s: tensor '%.*s': its dims exceed the file", c->file,
                           GGUF_NAME_ARGS(t->name));
        if (*dim == 0)
            return err_set(c->e, ST_EFORMAT, "%s: tensor '%.*s': dim %" PRIu32 " is 0", c->file,
                           GGUF_NAME_ARGS(t->name), i);
    }
    if (!take_u32(c, &type) || !take_u64(c, &off))
        return err_set(c->e, ST_EFORMAT, "%s: tensor '%.*s': its type or offset exceeds the file", c->file,
                       GGUF_NAME_ARGS(t->name));
    t->type = -1;
    t->type_text = "of an unknown type";
    if (type < sizeof tensor_types / sizeof *tensor_types && tensor_types[type].name != NULL) {
        t->type = tensor_types[type].be;
        t->type_text = tensor_types[type].name;
    }
    if (off > SIZE_MAX)
        return err_set(c->e, ST_EFORMAT, "%s: tensor '%.*s': offset %" PRIu64 " exceeds the file", c->file,
                       GGUF_NAME_ARGS(t->name), off);
    t->file_off = (size_t)off;
    return ST_OK;
}

/* Checks the bytes that the tensor claims against the file, and only then forms the pointer. */
static int place_tensor(const struct gguf *g, size_t data_off, uint64_t align, struct tensor *t,
                        struct err *e)
{
    uint64_t row = 0, bytes = 0, k = t->dims[t->n_dims - 1], elements;
    t->file_len = g->n;
    if (t->file_off % align != 0)
        return err_set(e, ST_EFORMAT,
                       "%s: tensor '%.*s': offset %zu is no multiple of the alignment %" PRIu64, g->name,
                       GGUF_NAME_ARGS(t->name), t->file_off, align);
    if (!tensor_elements(t, &elements))
        return err_set(e, ST_EFORMAT, "%s: tensor '%.*s': the product of its dims overflows", g->name,
                       GGUF_NAME_ARGS(t->name));
    if (t->type >= 0) {
        if (!be_type_row_bytes((enum be_type)t->type, k, &row))
            return err_set(e, ST_EFORMAT,
                           "%s: tensor '%.*s': rows of %" PRIu64 " do not divide into blocks of %s", g->name,
                           GGUF_NAME_ARGS(t->name), k, t->type_text);
        if (row != 0 && elements / k > UINT64_MAX / row)
            return err_set(e, ST_EFORMAT, "%s: tensor '%.*s': its size overflows", g->name,
                           GGUF_NAME_ARGS(t->name));
        bytes = elements / k * row;
    }
    size_t room = g->n > data_off ? g->n - data_off : 0;
    if (t->file_off > room || bytes > room - t->file_off)
        return err_set(e, ST_EFORMAT,
                       "%s: tensor '%.*s': offset %zu + %" PRIu64
                       " bytes exceeds the file (%zu bytes of data)",
                       g->name, GGUF_NAME_ARGS(t->name), t->file_off, bytes, room);
    t->file_off += data_off;
    t->bytes = (size_t)bytes;
    t->data = t->type >= 0 ? g->p + t->file_off : NULL;
    return ST_OK;
}

/* ---- the whole header ---------------------------------------------------------------------------------- */

static int str_order(struct str a, struct str b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n > 0 ? memcmp(a.p, b.p, n) : 0;
    return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

static int kv_order(const void *a, const void *b)
{
    return str_order(((const struct gguf_kv *)a)->key, ((const struct gguf_kv *)b)->key);
}

static int tensor_order(const void *a, const void *b)
{
    return str_order(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

static int read_head(struct gguf *g, struct cursor *c)
{
    static const size_t kv_min = 8 + 4 + 1, tensor_min = 8 + 4 + 8 + 4 + 8;
    uint64_t n_tensors, n_kv;
    const unsigned char *magic = take(c, 4);
    if (magic == NULL || memcmp(magic, "GGUF", 4) != 0)
        return err_set(c->e, ST_EFORMAT, "%s: not a GGUF file", c->file);
    if (!take_u32(c, &g->version))
        return err_set(c->e, ST_EFORMAT, "%s: the version exceeds the file", c->file);
    if (g->version == 0x03000000 || g->version == 0x02000000)
        return err_set(c->e, ST_EUNSUP, "%s: a big-endian GGUF file", c->file);
    if (g->version != 2 && g->version != 3)
        return err_set(c->e, ST_EUNSUP, "%s: GGUF version %" PRIu32 " (2 and 3 are read)", c->file,
                       g->version);
    if (!take_u64(c, &n_tensors) || !take_u64(c, &n_kv))
        return err_set(c->e, ST_EFORMAT, "%s: the counts exceed the file", c->file);
    if (n_kv > GGUF_KV_MAX || n_kv > c->left / kv_min)
        return err_set(c->e, ST_EFORMAT, "%s: %" PRIu64 " keys exceed the file or the limit %d", c->file,
                       n_kv, GGUF_KV_MAX);
    if (n_tensors > GGUF_TENSORS_MAX || n_tensors > c->left / tensor_min)
        return err_set(c->e, ST_EFORMAT, "%s: %" PRIu64 " tensors exceed the file or the limit %d", c->file,
                       n_tensors, GGUF_TENSORS_MAX);
    g->n_kv = (uint32_t)n_kv;
    g->n_tensors = (uint32_t)n_tensors;
    g->kv = mem_zalloc(g->n_kv, sizeof *g->kv);
    g->tensors = mem_zalloc(g->n_tensors, sizeof *g->tensors);
    if (g->kv == NULL || g->tensors == NULL)
        return err_set(c->e, ST_ENOMEM, "%s: out of memory for %" PRIu32 " keys, %" PRIu32 " tensors",
                       c->file, g->n_kv, g->n_tensors);
    return ST_OK;
}

static int read_keys(struct gguf *g, struct cursor *c)
{
    for (uint32_t i = 0; i < g->n_kv; i++) {
        int rc = read_kv(c, i, &g->kv[i]);
        if (rc != ST_OK)
            return rc;
    }
    qsort(g->kv, g->n_kv, sizeof *g->kv, kv_order);
    for (uint32_t i = 1; i < g->n_kv; i++)
        if (str_eq(g->kv[i - 1].key, g->kv[i].key))
            return err_set(c->e, ST_EFORMAT, "%s: key '%.*s' stands twice", c->file,
                           GGUF_NAME_ARGS(g->kv[i].key));
    return ST_OK;
}

static int read_tensors(struct gguf *g, struct cursor *c)
{
    int64_t align = 32;
    int rc = gguf_opt_int(g, "general.alignment", 1, 1 << 20, &align, c->e);
    if (rc != ST_OK)
        return rc;
    if ((align & (align - 1)) != 0)
        return err_set(c->e, ST_EFORMAT, "%s: general.alignment: %" PRId64 " is no power of two", c->file,
                       align);
    for (uint32_t i = 0; i < g->n_tensors; i++)
        if ((rc = read_tensor(c, i, &g->tensors[i])) != ST_OK)
            return rc;
    size_t data_off = (size_t)(c->p - g->p);
    if (!mem_add(data_off, (size_t)align - 1, &data_off))
        return err_set(c->e, ST_EFORMAT, "%s: the header is too large", c->file);
    data_off -= data_off % (size_t)align;
    for (uint32_t i = 0; i < g->n_tensors; i++)
        if ((rc = place_tensor(g, data_off, (uint64_t)align, &g->tensors[i], c->e)) != ST_OK)
            return rc;
    qsort(g->tensors, g->n_tensors, sizeof *g->tensors, tensor_order);
    for (uint32_t i = 1; i < g->n_tensors; i++)
        if (str_eq(g->tensors[i - 1].name, g->tensors[i].name))
            return err_set(c->e, ST_EFORMAT, "%s: tensor '%.*s' stands twice", c->file,
                           GGUF_NAME_ARGS(g->tensors[i].name));
    return ST_OK;
}

int gguf_parse(struct gguf **out, const void *p, size_t n, const char *name, struct err *e)
{
    struct gguf *g = mem_zalloc(1, sizeof *g);
    if (g == NULL)
        return err_set(e, ST_ENOMEM, "%s: out of memory", name);
    g->p = p;
    g->n = n;
    g->name = mem_dup(name, strlen(name));
    struct cursor c = {p, n, g->name, e};
    int rc = g->name == NULL ? err_set(e, ST_ENOMEM, "%s: out of memory", name) : read_head(g, &c);
    if (rc == ST_OK)
        rc = read_keys(g, &c);
    if (rc == ST_OK)
        rc = read_tensors(g, &c);
    if (rc != ST_OK) {
        gguf_close(g);
        return rc;
    }
    *out = g;
    return ST_OK;
}

int gguf_open(struct gguf **out, const char *path, struct err *e)
{
    struct filemap map;
    int rc = filemap_open(&map, path, e);
    if (rc != ST_OK)
        return rc;
    const char *slash = strrchr(path, '/');
    rc = gguf_parse(out, map.p, map.n, slash != NULL ? slash + 1 : path, e);
    if (rc != ST_OK)
        filemap_close(&map);
    else
        (*out)->map = map;
    return rc;
}

void gguf_close(struct gguf *g)
{
    if (g == NULL)
        return;
    filemap_close(&g->map);
    mem_free(g->kv);
    mem_free(g->tensors);
    mem_free(g->name);
    mem_free(g);
}

/* ---- look-ups ------------------------------------------------------------------------------------------ */

const char *gguf_name(const struct gguf *g)
{
    return g->name;
}

uint32_t gguf_version(const struct gguf *g)
{
    return g->version;
}

size_t gguf_size(const struct gguf *g)
{
    return g->n;
}

const struct filemap *gguf_map(const struct gguf *g)
{
    return g->map.p != NULL ? &g->map : NULL;
}

uint32_t gguf_n_keys(const struct gguf *g)
{
    return g->n_kv;
}

uint32_t gguf_n_tensors(const struct gguf *g)
{
    return g->n_tensors;
}

const struct tensor *gguf_tensor_at(const struct gguf *g, uint32_t i)
{
    assert(i < g->n_tensors);
    return &g->tensors[i];
}

const struct tensor *gguf_tensor(const struct gguf *g, const char *name)
{
    struct tensor key = {.name = str_from(name)};
    return g->n_tensors == 0 ? NULL : bsearch(&key, g->tensors, g->n_tensors, sizeof key, tensor_order);
}

const struct gguf_kv *gguf_kv_find(const struct gguf *g, const char *name)
{
    struct gguf_kv key = {.key = str_from(name)};
    return g->n_kv == 0 ? NULL : bsearch(&key, g->kv, g->n_kv, sizeof key, kv_order);
}

bool gguf_has(const struct gguf *g, const char *key)
{
    return gguf_kv_find(g, key) != NULL;
}
