/* source: the forwards load by tensor name and do not care which format the names came from. */
#include "source.h"
#include "filemap.h"
#include "mem.h"

#include <string.h>
#include <sys/stat.h>

static int open_folder(struct source *s, const char *path, struct hparams *h, struct err *e)
{
    struct filemap config = {0}, generation = {0};
    struct buf b = {0};
    int rc = buf_printf(&b, "%s/config.json", path);
    if (rc != ST_OK)
        return err_set(e, ST_ENOMEM, "%s: out of memory", path);
    rc = filemap_open(&config, b.p, e);
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
    return rc == ST_OK ? safetensors_open(&s->st, path, e) : rc;
}

int source_open(struct source *s, const char *path, struct hparams *h, struct err *e)
{
    struct stat st;
    size_t end = strlen(path);
    memset(s, 0, sizeof *s);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    s->name = mem_dup(path + start, end - start);
    if (s->name == NULL)
        return err_set(e, ST_ENOMEM, "%s: out of memory", path);
    int rc;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        rc = open_folder(s, path, h, e);
    } else {
        rc = gguf_open(&s->gguf, path, e);
        if (rc == ST_OK)
            rc = hparams_gguf(h, s->gguf, e);
    }
    if (rc != ST_OK)
        source_close(s);
    return rc;
}

void source_close(struct source *s)
{
    gguf_close(s->gguf);
    safetensors_close(s->st);
    mem_free(s->name);
    memset(s, 0, sizeof *s);
}

const struct tensor *source_tensor(const struct source *s, const char *name)
{
    return s->gguf != NULL ? gguf_tensor(s->gguf, name) : safetensors_tensor(s->st, name);
}

uint32_t source_n_tensors(const struct source *s)
{
    return s->gguf != NULL ? gguf_n_tensors(s->gguf) : safetensors_n_tensors(s->st);
}

const struct tensor *source_tensor_at(const struct source *s, uint32_t i)
{
    return s->gguf != NULL ? gguf_tensor_at(s->gguf, i) : safetensors_tensor_at(s->st, i);
}

size_t source_bytes(const struct source *s)
{
    return s->gguf != NULL ? gguf_size(s->gguf) : safetensors_size(s->st);
}

/* filemap_* ignore ranges outside their mapping, so a shard need not be looked up by name. */
static void advise(const struct source *s, const struct tensor *t,
                   void (*call)(const struct filemap *, const void *, size_t))
{
    if (s->gguf != NULL) {
        if (gguf_map(s->gguf) != NULL)
            call(gguf_map(s->gguf), t->data, t->bytes);
        return;
    }
    for (uint32_t i = 0; i < safetensors_n_files(s->st); i++)
        if (safetensors_map(s->st, i) != NULL)
            call(safetensors_map(s->st, i), t->data, t->bytes);
}

void source_populate(const struct source *s, const struct tensor *t)
{
    advise(s, t, filemap_populate);
}

void source_drop(const struct source *s, const struct tensor *t)
{
    advise(s, t, filemap_drop);
}
