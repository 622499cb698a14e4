/* The file is cut into lines in place; an empty line is none of them. */
#define _GNU_SOURCE
#include "keys.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int read_file(struct buf *text, const char *file, struct err *e)
{
    char chunk[4096];
    FILE *f = fopen(file, "re");
    if (!f)
        return err_set(e, ST_EIO, "--api-key-file: %s: %s", file, strerror(errno));
    text->limit = 1 << 20;
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0;)
        buf_put(text, chunk, n);
    bool bad = ferror(f) || text->failed;
    fclose(f);
    return bad ? err_set(e, ST_EIO, "--api-key-file: %s cannot be read, or is larger than 1 MiB", file)
               : ST_OK;
}

int keys_load(struct keys *k, const char *key, const char *file, struct err *e)
{
    if (key)
        k->list[k->n++] = str_from(key);
    if (!file)
        return ST_OK;
    int st = read_file(&k->text, file, e);
    if (st)
        return st;
    for (char *at = k->text.p, *line; (line = strsep(&at, "\r\n"));) {
        if (*line == 0)
            continue;
        if (k->n == KEYS_MAX)
            return err_set(e, ST_EINVAL, "--api-key-file: more than %d keys", KEYS_MAX);
        k->list[k->n++] = str_from(line);
    }
    return k->n ? ST_OK : err_set(e, ST_EINVAL, "--api-key-file: %s holds no key", file);
}

void keys_fini(struct keys *k)
{
    buf_fini(&k->text);
}
