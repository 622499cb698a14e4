/* A frontend fetches these files once, checks their hashes, and then tokenises, renders templates and parses tool calls for
 * us.
 *
 * Texts that were made go into a folder named by their hash: the same model gives the same folder in each start and on each
 * machine, two workers that start at once write the same bytes, and nothing needs to be deleted while a frontend may still
 * read it. The folder appears complete, by rename. A cache is a place where things get lost: what does not hold these texts any
 * more is written anew, and what was never completed is taken away by the next start. */
#define _GNU_SOURCE
#include "dyn_files.h"

#include "mem.h"

#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
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

/* On the disk, not only on its way there: what is renamed over a name must be whole after a loss of power, too. */
static int sync_and_close(int fd, const char *path, struct err *e)
{
    int st =
        fsync(fd) && errno != EINVAL ? fail(e, path) : ST_OK; /* EINVAL: not for this kind of file there */
    if (close(fd) && !st)
        st = fail(e, path);
    return st;
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
    if (!st)
        return sync_and_close(fd, path, e);
    close(fd);
    return st;
}

static int write_part(const char *part, const struct str texts[], struct err *e)
{
    struct buf path = {0};
    int st = ST_OK;
    for (int i = 0; !st && i < DYN_FILE_TEMPLATE; i++) {
        buf_reset(&path);
        st = buf_printf(&path, "%s/%s", part, dyn_file_names[i])
                 ? err_set(e, ST_ENOMEM, "--cache-dir: no memory")
                 : write_file(path.p, texts[i], e);
    }
    buf_fini(&path);
    int fd = st ? -1 : open(part, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!st)
        st = fd < 0 ? fail(e, part) : sync_and_close(fd, part, e);
    return st;
}

/* The part takes the folder's name; where a folder is there already, its files take the names of those in it: one that was
 * changed is replaced under the eyes of whoever reads it, and the same text over the same is no change. */
static int move_part(const char *part, const char *folder, struct err *e)
{
    if (rename(part, folder) == 0)
        return ST_OK;
    if (errno != EEXIST && errno != ENOTEMPTY)
        return fail(e, folder);
    struct buf from = {0}, to = {0};
    int st = ST_OK;
    for (int i = 0; !st && i < DYN_FILE_TEMPLATE; i++) {
        buf_reset(&from);
        buf_reset(&to);
        buf_printf(&from, "%s/%s", part, dyn_file_names[i]);
        buf_printf(&to, "%s/%s", folder, dyn_file_names[i]);
        if (from.failed || to.failed)
            st = err_set(e, ST_ENOMEM, "--cache-dir: no memory");
        else if (rename(from.p, to.p))
            st = fail(e, to.p);
    }
    buf_fini(&from);
    buf_fini(&to);
    return st;
}

static void remove_part(const char *part)
{
    struct buf path = {0};
    for (int i = 0; i < DYN_FILE_TEMPLATE; i++) {
        buf_reset(&path);
        if (!buf_printf(&path, "%s/%s", part, dyn_file_names[i]))
            unlink(path.p);
    }
    rmdir(part);
    buf_fini(&path);
}

/* What is above `folder`, held so that sweep sees that somebody writes there; -1: there is none, or no memory. */
static int hold_parent(const char *folder, int how)
{
    const char *slash = strrchr(folder, '/');
    char *parent = slash ? mem_dup(folder, (size_t)(slash - folder)) : NULL;
    int fd = parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    mem_free(parent);
    if (fd >= 0 && flock(fd, how)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* Into a folder beside, which then takes the name. */
static int write_files(char *folder, const struct str texts[], struct err *e)
{
    struct buf part = {0};
    int st = make_folders(folder, e);
    int held = st ? -1 : hold_parent(folder, LOCK_SH);
    buf_printf(&part, "%s.XXXXXX", folder);
    if (!st && part.failed)
        st = err_set(e, ST_ENOMEM, "--cache-dir: no memory");
    if (!st && !mkdtemp(part.p)) {
        st = fail(e, part.p);
    } else if (!st) {
        st = chmod(part.p, 0755) ? fail(e, part.p) : write_part(part.p, texts, e);
        st = st ? st : move_part(part.p, folder, e);
        remove_part(part.p); /* what is left of it */
    }
    if (held >= 0)
        close(held);
    buf_fini(&part);
    return st;
}

/* Takes away what writers left beside `folder` who were killed. Nobody writes while the lock is ours. */
static void sweep(const char *folder)
{
    int held = hold_parent(folder, LOCK_EX | LOCK_NB);
    DIR *d = held < 0 ? NULL : fdopendir(held);
    const char *name = strrchr(folder, '/') + 1;
    size_t n = strlen(name);
    struct buf part = {0};
    for (struct dirent *at; d && (at = readdir(d));) {
        if (strncmp(at->d_name, name, n) != 0 || at->d_name[n] != '.')
            continue;
        buf_reset(&part);
        if (!buf_printf(&part, "%.*s/%s", (int)(name - 1 - folder), folder, at->d_name))
            remove_part(part.p);
    }
    buf_fini(&part);
    if (d)
        closedir(d);
    else if (held >= 0)
        close(held);
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
    bool there = !st && dyn_files_find(out, folder.p, NULL, NULL) == ST_OK && is_intact(out, texts);
    if (!st && !there) {
        dyn_files_close(out);
        st = write_files(folder.p, texts, e);
        st = st ? st : dyn_files_find(out, folder.p, NULL, e);
    }
    if (!st && !there && !is_intact(out, texts)) {
        dyn_files_close(out);
        st = err_set(e, ST_EIO, "--cache-dir: %.150s: somebody changes the files", folder.p);
    }
    if (!st)
        sweep(folder.p);
    buf_fini(&folder);
    return st;
}
