/* safetensors: problem: a header of JSON gives every tensor's bytes as offsets, over one file or over
 * hundreds of shards. Design: each file is parsed on its own (parse_file knows nothing of shards) into one
 * growing list, which is sorted by name at the end, so that a look-up does not care which shard a tensor
 * stands in. The index is used for its list of file names and as a promise that is checked: every tensor it
 * names must be in the shard it says. Offsets are JSON numbers and so doubles: integers are exact up to 2^53,
 * and more than that is refused.
 * Rejected: believing the index for places (it has none), opening shards lazily (a missing one should fail at
 * start). */
#include "safetensors.h"
#include "json.h"
#include "mem.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct file {
    struct filemap map; /* p NULL when the bytes are the caller's */
    const unsigned char *p;
    size_t n;
    char *name;
    cJSON *header; /* names and dtypes borrow from it */
};

struct safetensors {
    uint32_t n_files, n_tensors, cap_tensors;
    struct file *files;     /* [n_files] */
    struct tensor *tensors; /* [n_tensors], sorted by name when complete */
};

static const struct {
    const char *name;
    int be; /* -1: only an error when the tensor is used */
    uint32_t bytes;
} dtypes[] = {
    {"F32", BE_F32, 4}, {"F16", BE_F16, 2}, {"BF16", BE_BF16, 2}, {"F64", -1, 8},     {"I64", -1, 8},
    {"I32", -1, 4},     {"I16", -1, 2},     {"I8", -1, 1},        {"U64", -1, 8},     {"U32", -1, 4},
    {"U16", -1, 2},     {"U8", -1, 1},      {"BOOL", -1, 1},      {"F8_E4M3", BE_E4M3, 1}, {"F8_E5M2", -1, 1},
};

enum { DTYPE_COUNT = sizeof dtypes / sizeof *dtypes };

/* ---- one tensor of a header ---------------------------------------------------------------------------- */

/* A JSON number as an exact, non-negative integer. */
static bool exact(const cJSON *j, uint64_t *out)
{
    if (!cJSON_IsNumber(j) || !(j->valuedouble >= 0) || j->valuedouble > 9007199254740992.0)
        return false;
    uint64_t v = (uint64_t)j->valuedouble;
    if ((double)v != j->valuedouble)
        return false;
    *out = v;
    return true;
}

static int read_shape(const struct file *f, const cJSON *entry, struct tensor *t, struct err *e)
{
    const cJSON *shape = json_get(entry, "shape");
    if (!cJSON_IsArray(shape))
        return err_set(e, ST_EFORMAT, "%s: tensor '%.80s': shape: expected an array", f->name, entry->string);
    for (const cJSON *d = shape->child; d != NULL; d = d->next) {
        if (t->n_dims == TENSOR_DIMS_MAX)
            return err_set(e, ST_EFORMAT, "%s: tensor '%.80s': shape: more than %d dims", f->name,
                           entry->string, TENSOR_DIMS_MAX);
        if (!exact(d, &t->dims[t->n_dims]))
            return err_set(e, ST_EFORMAT, "%s: tensor '%.80s': shape[%" PRIu32 "]: expected a whole number",
                           f->name, entry->string, t->n_dims);
        t->n_dims++;
    }
    return ST_OK;
}

static int read_place(const struct file *f, const cJSON *entry, size_t data_off, uint64_t bytes,
                      struct tensor *t, struct err *e)
{
    const cJSON *place = json_get(entry, "data_offsets");
    uint64_t begin, end;
    if (!cJSON_IsArray(place) || place->child == NULL || place->child->next == NULL ||
        place->child->next->next != NULL || !exact(place->child, &begin) || !exact(place->child->next, &end))
        return err_set(e, ST_EFORMAT, "%s: tensor '%.80s': data_offsets: expected two whole numbers", f->name,
                       entry->string);
    if (end < begin || end > f->n - data_off)
        return err_set(e, ST_EFORMAT,
                       "%s: tensor '%.80s': data_offsets %" PRIu64 "..%" PRIu64
                       " exceed the file (%zu bytes of data)",
                       f->name, entry->string, begin, end, f->n - data_off);
    if (bytes != UINT64_MAX && end - begin != bytes)
        return err_set(e, ST_EFORMAT,
                       "%s: tensor '%.80s': %" PRIu64
                       " bytes of data, but its shape and dtype ask for %" PRIu64,
                       f->name, entry->string, end - begin, bytes);
    t->bytes = (size_t)(end - begin);
    t->file_off = data_off + (size_t)begin;
    t->file_len = f->n;
    t->data = t->type >= 0 ? f->p + t->file_off : NULL;
    return ST_OK;
}

static int read_entry(const struct file *f, const cJSON *entry, size_t data_off, struct tensor *t,
                      struct err *e)
{
    memset(t, 0, sizeof *t);
    t->name = str_from(entry->string);
    t->file = f->name;
    t->type = -1;
    if (!cJSON_IsObject(entry))
        return err_set(e, ST_EFORMAT, "%s: tensor '%.80s': expected an object", f->name, entry->string);
    const cJSON *dtype = json_get(entry, "dtype");
    if (!cJSON_IsString(dtype))
        return err_set(e, ST_EFORMAT, "%s: tensor '%.80s': dtype: expected a string", f->name, entry->string);
    t->type_text = dtype->valuestring;
    int rc = read_shape(f, entry, t, e);
    if (rc != ST_OK)
        return rc;
    uint64_t bytes = UINT64_MAX, n; /* of a dtype that is not known, any */
    if (!tensor_elements(t, &n))
        return err_set(e, ST_EFORMAT, "%s: tensor '%.80s': the product of its shape overflows", f->name,
                       entry->string);
    for (int i = 0; i < DTYPE_COUNT; i++) {
        if (strcmp(dtypes[i].name, dtype->valuestring) != 0)
            continue;
        t->type = dtypes[i].be;
        if (n >= UINT64_MAX / dtypes[i].bytes)
            return err_set(e, ST_EFORMAT, "%s: tensor '%.80s': its size overflows", f->name, entry->string);
        bytes = n * dtypes[i].bytes;
    }
    return read_place(f, entry, data_off, bytes, t, e);
}

/* ---- one file ------------------------------------------------------------------------------------------ */

static int grow(struct safetensors *s, uint32_t more, struct err *e)
{
    if (more > SAFETENSORS_TENSORS_MAX || s->n_tensors + more > SAFETENSORS_TENSORS_MAX)
        return err_set(e, ST_EFORMAT, "safetensors: more than %d tensors", SAFETENSORS_TENSORS_MAX);
    uint32_t need = s->n_tensors + more;
    if (need <= s->cap_tensors)
        return ST_OK;
    struct tensor *p = mem_realloc(s->tensors, need * sizeof *p);
    if (p == NULL)
        return err_set(e, ST_ENOMEM, "safetensors: out of memory for %" PRIu32 " tensors", need);
    s->tensors = p;
    s->cap_tensors = need;
    return ST_OK;
}

static int parse_file(struct safetensors *s, struct file *f, struct err *e)
{
    uint64_t head;
    if (f->n < 8)
        return err_set(e, ST_EFORMAT, "%s: %zu bytes are no safetensors file", f->name, f->n);
    memcpy(&head, f->p, 8);
    if (head > SAFETENSORS_HEADER_MAX || head > f->n - 8)
        return err_set(e, ST_EFORMAT,
                       "%s: a header of %" PRIu64 " bytes exceeds the file (%zu bytes) or the limit", f->name,
                       head, f->n);
    struct err inner = {0};
    int rc = json_parse(&f->header, (struct str){(const char *)f->p + 8, (size_t)head}, &inner);
    if (rc != ST_OK)
        return err_set(e, rc == ST_ENOMEM ? rc : ST_EFORMAT, "%s: header: %s", f->name, inner.text);
    if (!cJSON_IsObject(f->header))
        return err_set(e, ST_EFORMAT, "%s: header: expected an object", f->name);
    uint32_t count = 0;
    for (const cJSON *j = f->header->child; j != NULL && count <= SAFETENSORS_TENSORS_MAX; j = j->next)
        count++;
    if ((rc = grow(s, count, e)) != ST_OK)
        return rc;
    for (const cJSON *j = f->header->child; j != NULL; j = j->next) {
        if (strcmp(j->string, "__metadata__") == 0)
            continue;
        if ((rc = read_entry(f, j, 8 + (size_t)head, &s->tensors[s->n_tensors], e)) != ST_OK)
            return rc;
        s->n_tensors++;
    }
    return ST_OK;
}

static int tensor_order(const void *a, const void *b)
{
    /* Names come from JSON and hold no NUL: json_parse refuses them. */
    return strcmp(((const struct tensor *)a)->name.p, ((const struct tensor *)b)->name.p);
}

static int finish(struct safetensors *s, struct err *e)
{
    if (s->n_tensors > 1)
        qsort(s->tensors, s->n_tensors, sizeof *s->tensors, tensor_order);
    for (uint32_t i = 1; i < s->n_tensors; i++)
        if (tensor_order(&s->tensors[i - 1], &s->tensors[i]) == 0)
            return err_set(e, ST_EFORMAT, "%s: tensor '%.80s' stands twice", s->tensors[i].file,
                           s->tensors[i].name.p);
    return ST_OK;
}

static struct safetensors *create(uint32_t n_files)
{
    struct safetensors *s = mem_zalloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->files = mem_zalloc(n_files, sizeof *s->files);
    if (s->files == NULL) {
        mem_free(s);
        return NULL;
    }
    return s;
}

int safetensors_parse(struct safetensors **out, const void *p, size_t n, const char *name, struct err *e)
{
    struct safetensors *s = create(1);
    if (s == NULL)
        return err_set(e, ST_ENOMEM, "%s: out of memory", name);
    s->n_files = 1;
    s->files[0].p = p;
    s->files[0].n = n;
    s->files[0].name = mem_dup(name, strlen(name));
    int rc = s->files[0].name == NULL ? err_set(e, ST_ENOMEM, "%s: out of memory", name)
                                      : parse_file(s, s->files, e);
    if (rc == ST_OK)
        rc = finish(s, e);
    if (rc != ST_OK)
        safetensors_close(s);
    else
        *out = s;
    return rc;
}

/* ---- files and shards ---------------------------------------------------------------------------------- */

static int open_file(struct safetensors *s, const char *folder, const char *name, struct err *e)
{
    struct buf path = {0};
    struct file *f = &s->files[s->n_files++];
    f->name = mem_dup(name, strlen(name));
    if (buf_printf(&path, "%s%s%s", folder, *folder != 0 ? "/" : "", name) != ST_OK || f->name == NULL) {
        buf_fini(&path);
        return err_set(e, ST_ENOMEM, "%s: out of memory", name);
    }
    int rc = filemap_open(&f->map, path.p, e);
    buf_fini(&path);
    if (rc != ST_OK)
        return rc;
    f->p = f->map.p;
    f->n = f->map.n;
    return parse_file(s, f, e);
}

static int name_order(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct shard names of a weight map, sorted, borrowed from it; *out is [returned count], to free. */
static int shard_names(const cJSON *weights, const char *index, const char ***out, uint32_t *n_out,
                       struct err *e)
{
    uint32_t n = 0, distinct = 0;
    for (const cJSON *j = weights->child; j != NULL; j = j->next) {
        if (!cJSON_IsString(j) || j->valuestring[0] == 0 || j->valuestring[0] == '.' ||
            strchr(j->valuestring, '/') != NULL)
            return err_set(e, ST_EFORMAT, "%s: weight_map: '%.80s': expected a plain file name", index,
                           j->string);
        if (++n > SAFETENSORS_TENSORS_MAX)
            return err_set(e, ST_EFORMAT, "%s: weight_map: more than %d tensors", index,
                           SAFETENSORS_TENSORS_MAX);
    }
    if (n == 0)
        return err_set(e, ST_EFORMAT, "%s: weight_map: names no tensor", index);
    const char **names = mem_zalloc(n, sizeof *names);
    if (names == NULL)
        return err_set(e, ST_ENOMEM, "%s: out of memory", index);
    n = 0;
    for (const cJSON *j = weights->child; j != NULL; j = j->next)
        names[n++] = j->valuestring;
    qsort(names, n, sizeof *names, name_order);
    for (uint32_t i = 0; i < n; i++)
        if (distinct == 0 || strcmp(names[distinct - 1], names[i]) != 0)
            names[distinct++] = names[i];
    if (distinct > SAFETENSORS_SHARDS_MAX) {
        mem_free(names);
        return err_set(e, ST_EFORMAT, "%s: weight_map: more than %d shards", index, SAFETENSORS_SHARDS_MAX);
    }
    *out = names;
    *n_out = distinct;
    return ST_OK;
}

static int open_shards(struct safetensors **out, const char *folder, const char *index, const cJSON *j,
                       struct err *e)
{
    const cJSON *weights = json_get(j, "weight_map");
    const char **names = NULL;
    uint32_t n = 0;
    if (!cJSON_IsObject(weights))
        return err_set(e, ST_EFORMAT, "%s: weight_map: expected an object", index);
    int rc = shard_names(weights, index, &names, &n, e);
    if (rc != ST_OK)
        return rc;
    struct safetensors *s = create(n);
    if (s == NULL)
        rc = err_set(e, ST_ENOMEM, "%s: out of memory", index);
    for (uint32_t i = 0; i < n && rc == ST_OK; i++)
        rc = open_file(s, folder, names[i], e);
    mem_free(names);
    if (rc == ST_OK)
        rc = finish(s, e);
    for (const cJSON *w = weights->child; w != NULL && rc == ST_OK; w = w->next) {
        const struct tensor *t = safetensors_tensor(s, w->string);
        if (t == NULL || strcmp(t->file, w->valuestring) != 0)
            rc = err_set(e, ST_EFORMAT, "%s: weight_map: tensor '%.80s' is not in %.80s", index, w->string,
                         w->valuestring);
    }
    if (rc != ST_OK)
        safetensors_close(s);
    else
        *out = s;
    return rc;
}

static int open_one(struct safetensors **out, const char *folder, const char *name, struct err *e)
{
    struct safetensors *s = create(1);
    if (s == NULL)
        return err_set(e, ST_ENOMEM, "%s: out of memory", name);
    int rc = open_file(s, folder, name, e);
    if (rc == ST_OK)
        rc = finish(s, e);
    if (rc != ST_OK)
        safetensors_close(s);
    else
        *out = s;
    return rc;
}

static int open_index(struct safetensors **out, const char *folder, const char *path, struct err *e)
{
    static const char name[] = "model.safetensors.index.json";
    struct filemap map;
    cJSON *j = NULL;
    struct err inner = {0};
    int rc = filemap_open(&map, path, e);
    if (rc != ST_OK)
        return rc;
    if (map.n > SAFETENSORS_INDEX_MAX)
        rc = err_set(e, ST_EFORMAT, "%s: larger than %d bytes", name, SAFETENSORS_INDEX_MAX);
    else if ((rc = json_parse(&j, (struct str){(const char *)map.p, map.n}, &inner)) != ST_OK)
        rc = err_set(e, rc == ST_ENOMEM ? rc : ST_EFORMAT, "%s: %s", name, inner.text);
    if (rc == ST_OK)
        rc = open_shards(out, folder, name, j, e);
    json_free(j);
    filemap_close(&map);
    return rc;
}

int safetensors_open(struct safetensors **out, const char *path, struct err *e)
{
    struct stat st;
    if (stat(path, &st) == 0 && S_ISREG(st.st_mode))
        return open_one(out, "", path, e);
    struct buf b = {0};
    int rc;
    if (buf_printf(&b, "%s/model.safetensors", path) != ST_OK)
        rc = err_set(e, ST_ENOMEM, "%s: out of memory", path);
    else if (stat(b.p, &st) == 0)
        rc = open_one(out, path, "model.safetensors", e);
    else if (buf_puts(&b, ".index.json") != ST_OK)
        rc = err_set(e, ST_ENOMEM, "%s: out of memory", path);
    else if (stat(b.p, &st) == 0)
        rc = open_index(out, path, b.p, e);
    else
        rc =
            err_set(e, ST_ENOENT, "%s: has neither model.safetensors nor model.safetensors.index.json", path);
    buf_fini(&b);
    return rc;
}

void safetensors_close(struct safetensors *s)
{
    if (s == NULL)
        return;
    for (uint32_t i = 0; i < s->n_files; i++) {
        json_free(s->files[i].header);
        filemap_close(&s->files[i].map);
        mem_free(s->files[i].name);
    }
    mem_free(s->files);
    mem_free(s->tensors);
    mem_free(s);
}

/* ---- look-ups ------------------------------------------------------------------------------------------ */

uint32_t safetensors_n_tensors(const struct safetensors *s)
{
    return s->n_tensors;
}

const struct tensor *safetensors_tensor_at(const struct safetensors *s, uint32_t i)
{
    assert(i < s->n_tensors);
    return &s->tensors[i];
}

const struct tensor *safetensors_tensor(const struct safetensors *s, const char *name)
{
    struct tensor key = {.name = str_from(name)};
    return s->n_tensors == 0 ? NULL : bsearch(&key, s->tensors, s->n_tensors, sizeof key, tensor_order);
}

size_t safetensors_size(const struct safetensors *s)
{
    size_t n = 0;
    for (uint32_t i = 0; i < s->n_files; i++)
        n += s->files[i].n;
    return n;
}

uint32_t safetensors_n_files(const struct safetensors *s)
{
    return s->n_files;
}

const struct filemap *safetensors_map(const struct safetensors *s, uint32_t i)
{
    assert(i < s->n_files);
    return s->files[i].map.p != NULL ? &s->files[i].map : NULL;
}
