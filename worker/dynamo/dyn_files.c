/* A frontend fetches these files once, checks their hashes, and then tokenises, renders templates and parses tool calls for
 * us.
 *
 * Texts that were made go into a folder named by their hash: the same model gives the same folder in each start and on each
 * machine, two workers that start at once write the same bytes, and nothing needs to be deleted while a frontend may still
 * read it. The folder appears complete, by rename. */
#define _GNU_SOURCE
#include "dyn_files.h"

#include "mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *const dyn_file_names[DYN_FILES] = {
    [DYN_FILE_CONFIG] = "config.json",
    [DYN_FILE_TOKENIZER] = "tokenizer.json",
    [DYN_FILE_TOKENIZER_CONFIG] = "tokenizer_config.json",
    [DYN_FILE_GENERATION] = "generation_config.json",
    [DYN_FILE_TEMPLATE] = "chat_template.jinja",
};

/* ---- found ------------------------------------------------------------------------------------------------------------ */

static int hash_file(struct dyn_file *f, struct err *e)
{
    static const size_t piece = 1 << 16;
    int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set(e, ST_EIO, "%.200s: %s", f->path, strerror(errno));
    char *p = mem_alloc(piece);
    struct hash h;
    ssize_t n = p ? 0 : -1;
    hash_init(&h);
    f->size = 0;
    while (p && ((n = read(fd, p, piece)) > 0 || (n < 0 && errno == EINTR))) {
        hash_update(&h, p, n > 0 ? (size_t)n : 0);
        f->size += n > 0 ? (uint64_t)n : 0;
    }
    int st = n < 0 ? err_set(e, ST_EIO, "%.200s: %s", f->path, p ? strerror(errno) : "no memory") : ST_OK;
    hash_final(&h, f->hash);
    mem_free(p);
    close(fd);
    return st;
}

/* ST_ENOENT without text when there is no such file. */
static int take_file(struct dyn_file *f, const char *path, struct err *e)
{
    char *real = realpath(path, NULL);
    if (!real)
        return errno == ENOENT ? ST_ENOENT : err_set(e, ST_EIO, "%.200s: %s", path, strerror(errno));
    f->path = mem_dup(real, strlen(real));
    free(real);
    return f->path ? hash_file(f, e) : err_set(e, ST_ENOMEM, "%.200s: no memory", path);
}

int dyn_files_find(struct dyn_files *out, const char *folder, const char *template_path, struct err *e)
{
    *out = (struct dyn_files){0};
    int st = ST_OK;
    struct buf path = {0};
    for (int i = 0; !st && i < DYN_FILES; i++) {
        bool given = i == DYN_FILE_TEMPLATE && template_path;
        buf_reset(&path);
        if (given)
            buf_puts(&path, template_path);
        else
            buf_printf(&path, "%s/%s", folder, dyn_file_names[i]);
        st = path.failed ? err_set(e, path.failed, "%.200s: no memory", folder)
                         : take_file(&out->f[i], path.p, e);
        if (st == ST_ENOENT && (i == DYN_FILE_GENERATION || (i == DYN_FILE_TEMPLATE && !given)))
            st = ST_OK;
        else if (st == ST_ENOENT)
            st = err_set(e, st, "%.200s: no such file; frontends need it", path.p);
    }
    buf_fini(&path);
    if (st)
        dyn_files_close(out);
    return st;
}

void dyn_files_close(struct dyn_files *f)
{
    for (int i = 0; i < DYN_FILES; i++)
        mem_free(f->f[i].path);
    *f = (struct dyn_files){0};
}

/* ---- made ------------------------------------------------------------------------------------------------------------- */

static int fail(struct err *e, const char *path)
{
    return err_set(e, ST_EIO, "--cache-dir: %.180s: %s", path, strerror(errno));
}

static int make_folders(char *path, struct err *e)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        int st = mkdir(path, 0755) && errno != EEXIST ? fail(e, path) : ST_OK;
        *slash = '/';
        if (st)
            return st;
    }
    return ST_OK;
}

static int write_file(const char *path, struct str text, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return fail(e, path);
    int st = ST_OK;
    while (!st && text.n) {
        ssize_t n = write(fd, text.p, text.n);
        if (n < 0 && errno != EINTR)
            st = fail(e, path);
        text = n > 0 ? (struct str){text.p + n, text.n - (size_t)n} : text;
    }
    if (close(fd) && !st)
        st = fail(e, path);
    return st;
}

/* Into a folder beside, which then takes the name. Whoever was faster has written the same. */
static int write_files(char *folder, const struct str texts[], struct err *e)
{
    struct buf part = {0}, path = {0};
    int st = make_folders(folder, e);
    buf_printf(&part, "%s.XXXXXX", folder);
    if (!st && part.failed)
        st = err_set(e, ST_ENOMEM, "--cache-dir: no memory");
    if (!st && (!mkdtemp(part.p) || chmod(part.p, 0755)))
        st = fail(e, part.p);
    for (int i = 0; !st && i < DYN_FILE_TEMPLATE; i++) {
        buf_reset(&path);
        st = buf_printf(&path, "%s/%s", part.p, dyn_file_names[i]) ? ST_ENOMEM
                                                                   : write_file(path.p, texts[i], e);
    }
    bool moved = !st && rename(part.p, folder) == 0;
    if (!st && !moved && errno != EEXIST && errno != ENOTEMPTY)
        st = fail(e, folder);
    for (int i = 0; part.p && !moved && i < DYN_FILE_TEMPLATE; i++) {
        buf_reset(&path);
        if (!buf_printf(&path, "%s/%s", part.p, dyn_file_names[i]))
            unlink(path.p);
    }
    if (part.p && !moved)
        rmdir(part.p);
    buf_fini(&part);
    buf_fini(&path);
    return st;
}

/* The hash over all texts, each with its length before it. */
static void name_folder(struct buf *out, const char *cache, const struct str texts[])
{
    struct hash h;
    uint8_t hash[HASH_BYTES];
    hash_init(&h);
    for (int i = 0; i < DYN_FILE_TEMPLATE; i++) {
        uint64_t n = texts[i].n;
        hash_update(&h, &n, sizeof n);
        hash_update(&h, texts[i].p, texts[i].n);
    }
    hash_final(&h, hash);
    buf_printf(out, "%s/dynamo/", cache);
    for (int i = 0; i < 16; i++)
        buf_printf(out, "%02x", hash[i]);
}

/* What is there must be what was written: a cache is a place where things get lost. */
static bool is_intact(const struct dyn_files *f, const struct str texts[])
{
    for (int i = 0; i < DYN_FILE_TEMPLATE; i++) {
        uint8_t hash[HASH_BYTES];
        hash_once(texts[i].p, texts[i].n, hash);
        if (f->f[i].size != texts[i].n || memcmp(hash, f->f[i].hash, sizeof hash) != 0)
            return false;
    }
    return true;
}

int dyn_files_make(struct dyn_files *out, const char *cache, const struct str texts[DYN_FILE_TEMPLATE],
                   struct err *e)
{
    struct buf folder = {0};
    *out = (struct dyn_files){0};
    name_folder(&folder, cache, texts);
    int st = folder.failed ? err_set(e, ST_ENOMEM, "--cache-dir: no memory") : ST_OK;
    if (!st && access(folder.p, F_OK))
        st = write_files(folder.p, texts, e);
    st = st ? st : dyn_files_find(out, folder.p, NULL, e);
    if (!st && !is_intact(out, texts)) {
        dyn_files_close(out);
        st = err_set(e, ST_EIO, "--cache-dir: %.150s: the files were changed; remove the folder", folder.p);
    }
    buf_fini(&folder);
    return st;
}
