/* source: the forwards load by tensor name and do not care which format the names came from. */
#include "source.h"
#include "filemap.h"
#include "mem.h"

#include <string.h>

static int begin(struct source *s, const char *path, const struct source_ops *ops, struct err *e)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    *s = (struct source){.ops = ops, .name = mem_dup(path + start, end - start)};
    return s->name != NULL ? ST_OK : err_set(e, ST_ENOMEM, "%s: out of memory", path);
}

/* ---- GGUF ---------------------------------------------------------------------------------------------- */

static void close_gguf(struct source *s)
{
    gguf_close(s->gguf);
}

static const struct tensor *tensor_gguf(const struct source *s, const char *name)
{
    return gguf_tensor(s->gguf, name);
}

static uint32_t n_tensors_gguf(const struct source *s)
{
    return gguf_n_tensors(s->gguf);
}

static const struct tensor *tensor_at_gguf(const struct source *s, uint32_t i)
{
    return gguf_tensor_at(s->gguf, i);
}

static size_t bytes_gguf(const struct source *s)
{
    return gguf_size(s->gguf);
}

static void advise_gguf(const struct source *s, const struct tensor *t,
                        void (*call)(const struct filemap *, const void *, size_t))
{
    if (gguf_map(s->gguf) != NULL)
        call(gguf_map(s->gguf), t->data, t->bytes);
}

static const struct source_ops ops_gguf = {close_gguf,     tensor_gguf, n_tensors_gguf,
                                           tensor_at_gguf, bytes_gguf,  advise_gguf};

int source_open_gguf(struct source *s, const char *path, struct hparams *h, struct err *e)
{
    int rc = begin(s, path, &ops_gguf, e);
    if (rc == ST_OK)
        rc = gguf_open(&s->gguf, path, e);
    if (rc == ST_OK)
        rc = hparams_gguf(h, s->gguf, e);
    if (rc != ST_OK)
        source_close(s);
    return rc;
}

/* ---- no tensors at all --------------------------------------------------------------------------------- */

static void close_dummy(struct source *s)
{
    (void)s;
}

static const struct tensor *tensor_dummy(const struct source *s, const char *name)
{
    (void)s;
    (void)name;
    return NULL;
}

static uint32_t n_tensors_dummy(const struct source *s)
{
    (void)s;
    return 0;
}

static size_t bytes_dummy(const struct source *s)
{
    (void)s;
    return 0;
}

static const struct source_ops ops_dummy = {.close = close_dummy,
                                            .tensor = tensor_dummy,
                                            .n_tensors = n_tensors_dummy,
                                            .bytes = bytes_dummy};

int source_open_dummy(struct source *s, const char *path, struct err *e)
{
    int rc = begin(s, path, &ops_dummy, e);
    s->dummy = true;
    return rc;
}

/* ---- any ----------------------------------------------------------------------------------------------- */

void source_close(struct source *s)
{
    if (s->ops != NULL)
        s->ops->close(s);
    mem_free(s->name);
    memset(s, 0, sizeof *s);
}

const struct tensor *source_tensor(const struct source *s, const char *name)
{
    return s->ops->tensor(s, name);
}

uint32_t source_n_tensors(const struct source *s)
{
    return s->ops->n_tensors(s);
}

const struct tensor *source_tensor_at(const struct source *s, uint32_t i)
{
    return s->ops->tensor_at(s, i);
}

size_t source_bytes(const struct source *s)
{
    return s->ops->bytes(s);
}

void source_populate(const struct source *s, const struct tensor *t)
{
    s->ops->advise(s, t, filemap_populate);
}

void source_drop(const struct source *s, const struct tensor *t)
{
    s->ops->advise(s, t, filemap_drop);
}
