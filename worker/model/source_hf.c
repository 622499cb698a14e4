/* The part of source that reads JSON: Hugging Face folders. A file of its own, so that a program that makes its numbers itself (a
 * benchmark) needs no JSON library. */
#include "source.h"
#include "filemap.h"
#include "mem.h"

#include <string.h>
#include <sys/stat.h>

static int read_config(const char *path, struct hparams *h, struct err *e)
{
    struct filemap config = {0}, generation = {0};
    struct buf b = {0};
    int rc = buf_printf(&b, "%s/config.json", path);
    if (rc != ST_OK)
        return err_set(e, ST_ENOMEM, "%s: out of memory", path);
    rc = filemap_open(&config, b.p, e);
    if (rc == ST_ENOENT)
        rc = err_set(e, rc, "%s: no config.json there: a model is a .gguf file or a Hugging Face folder", path);
    buf_reset(&b);
    if (rc == ST_OK && buf_printf(&b, "%s/generation_config.json", path) != ST_OK)
        rc = err_set(e, ST_ENOMEM, "%s: out of memory", path);
    struct stat st;
    if (rc == ST_OK && stat(b.p, &st) == 0)
        rc = filemap_open(&generation, b.p, e);
    buf_fini(&b);
    if (rc == ST_OK)
        rc = hparams_hf(h, (struct str){(const char *)config.p, config.n},
                        (struct str){(const char *)generation.p, generation.n}, e);
    filemap_close(&config);
    filemap_close(&generation);
    return rc;
}

static void close_hf(struct source *s)
{
    safetensors_close(s->st);
}

static const struct tensor *tensor_hf(const struct source *s, const char *name)
{
    return safetensors_tensor(s->st, name);
}

static uint32_t n_tensors_hf(const struct source *s)
{
    return safetensors_n_tensors(s->st);
}

static const struct tensor *tensor_at_hf(const struct source *s, uint32_t i)
{
    return safetensors_tensor_at(s->st, i);
}

static size_t bytes_hf(const struct source *s)
{
    return safetensors_size(s->st);
}

/* filemap_* ignore ranges outside their mapping, so a shard need not be looked up by name. */
static void advise_hf(const struct source *s, const struct tensor *t,
                      void (*call)(const struct filemap *, const void *, size_t))
{
    for (uint32_t i = 0; i < safetensors_n_files(s->st); i++)
        if (safetensors_map(s->st, i) != NULL)
            call(safetensors_map(s->st, i), t->data, t->bytes);
}

static const struct source_ops ops_hf = {close_hf, tensor_hf, n_tensors_hf, tensor_at_hf, bytes_hf, advise_hf};

int source_open_config(struct source *s, const char *path, struct hparams *h, struct err *e)
{
    int rc = source_open_dummy(s, path, e);
    if (rc == ST_OK)
        rc = read_config(path, h, e);
    if (rc != ST_OK)
        source_close(s);
    return rc;
}

int source_open(struct source *s, const char *path, struct hparams *h, struct err *e)
{
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return source_open_gguf(s, path, h, e);
    int rc = source_open_config(s, path, h, e);
    if (rc != ST_OK)
        return rc;
    s->dummy = false;
    s->ops = &ops_hf;
    rc = safetensors_open(&s->st, path, e);
    if (rc != ST_OK)
        source_close(s);
    return rc;
}
