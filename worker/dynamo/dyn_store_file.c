/* The file store: one folder per bucket, one file per key, and whoever shares the folder is in the same deployment. A file
 * appears under its name complete (rename), lives as long as its owner touches it, and is deleted by any process that finds it
 * older than the time to live: this owner too may find its own gone, after a pause, and then writes it again. The folder is
 * anybody's who may write to it, so what stands under a name of ours is compared before it is kept alive.
 *
 * Deleting what others left behind is not done here: frontends do it, and a worker's clock may be the one that is wrong. */
#define _GNU_SOURCE
#include "dyn_store_state.h"

#include "mem.h"
#include "random.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct folder {
    struct buf root, path, part; /* the last two: of the record at hand */
};

static int make_folder(const char *path)
{
    return mkdir(path, 0777) == 0 || errno == EEXIST ? 0 : errno;
}

/* The folder of every bucket with all that is above it. */
static int make_folders(struct folder *f, struct err *e)
{
    for (int b = 0; b < DYN_BUCKETS; b++) {
        buf_reset(&f->path);
        buf_printf(&f->path, "%s/%s", f->root.p, dyn_store_buckets[b]);
        if (f->path.failed)
            return err_set(e, f->path.failed, "discovery: no memory");
        int bad = 0;
        for (char *slash = strchr(f->path.p + 1, '/'); slash && !bad; slash = strchr(slash + 1, '/')) {
            *slash = 0;
            bad = make_folder(f->path.p);
            *slash = '/';
        }
        bad = bad ? bad : make_folder(f->path.p);
        if (bad)
            return err_set(e, ST_EIO, "--dyn-file-kv: %.150s: %s", f->path.p, strerror(bad));
    }
    return ST_OK;
}

static int name_record(struct folder *f, const struct dyn_record *r, struct err *e)
{
    buf_reset(&f->path);
    buf_printf(&f->path, "%s/%s/", f->root.p, dyn_store_buckets[r->bucket]);
    for (size_t i = 0; i < r->key.n; i++) {
        unsigned char c = (unsigned char)r->key.p[i];
        if (c < 128 && isalnum(c))
            buf_putc(&f->path, (char)c);
        else
            buf_printf(&f->path, "%%%02X", c);
    }
    buf_reset(&f->part);
    buf_printf(&f->part, "%s/%s/.tmp_%016llx", f->root.p, dyn_store_buckets[r->bucket],
               (unsigned long long)random_u64());
    return f->path.failed || f->part.failed ? err_set(e, ST_ENOMEM, "discovery: no memory") : ST_OK;
}

static int write_all(int fd, struct str s)
{
    for (size_t done = 0; done < s.n;) {
        ssize_t n = write(fd, s.p + done, s.n - done);
        if (n < 0 && errno != EINTR)
            return errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int write_record(struct folder *f, const struct dyn_record *r, struct err *e)
{
    int fd = open(f->part.p, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_set(e, ST_EIO, "discovery: %.150s: %s", f->part.p, strerror(errno));
    int bad = write_all(fd, buf_str(&r->value));
    if (close(fd) && !bad)
        bad = errno;
    if (!bad && rename(f->part.p, f->path.p))
        bad = errno;
    if (bad)
        unlink(f->part.p);
    return bad ? err_set(e, ST_EIO, "discovery: %.150s: %s", f->path.p, strerror(bad)) : ST_OK;
}

/* Records are kept one by one, where they are found. */
static int file_keep(void *ctx, bool *alive, struct err *e)
{
    int st = make_folders(ctx, e);
    *alive = !st;
    return st;
}

/* Touches the record where it stands as we wrote it, byte for byte. A link, a pipe, a part of it, or somebody else's text under
 * its name is not it: keeping that alive would speak for what we never said. */
static bool keep_record(const struct folder *f, const struct dyn_record *r)
{
    char part[4096];
    struct stat st;
    struct str left = buf_str(&r->value);
    int fd = open(f->path.p, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    bool same = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == left.n;
    while (same && left.n > 0) {
        ssize_t n = read(fd, part, left.n < sizeof part ? left.n : sizeof part);
        same = n > 0 && memcmp(part, left.p, (size_t)n) == 0;
        left = (struct str){left.p + (same ? n : 0), left.n - (same ? (size_t)n : 0)};
    }
    same = same && futimens(fd, NULL) == 0;
    if (fd >= 0)
        close(fd);
    return same;
}

static int file_find(void *ctx, const struct dyn_record *r, uint32_t n, bool *stands, struct err *e)
{
    struct folder *f = ctx;
    int st = ST_OK;
    for (uint32_t i = 0; !st && i < n; i++) {
        st = name_record(f, &r[i], e);
        stands[i] = !st && keep_record(f, &r[i]);
    }
    return st;
}

static int file_write(void *ctx, const struct dyn_record *r, uint32_t n, const bool *stands, struct err *e)
{
    struct folder *f = ctx;
    int st = ST_OK;
    for (uint32_t i = 0; !st && i < n; i++) {
        if (stands[i])
            continue;
        st = name_record(f, &r[i], e);
        st = st ? st : write_record(f, &r[i], e);
    }
    return st;
}

static int file_withdraw(void *ctx, const struct dyn_record *r, uint32_t n, struct err *e)
{
    struct folder *f = ctx;
    int st = ST_OK;
    while (n-- > 0) {
        int one = name_record(f, &r[n], e);
        if (!one && unlink(f->path.p) && errno != ENOENT)
            one = err_set(e, ST_EIO, "discovery: %.150s: %s", f->path.p, strerror(errno));
        st = st ? st : one;
    }
    return st;
}

static void file_close(void *ctx)
{
    struct folder *f = ctx;
    buf_fini(&f->root);
    buf_fini(&f->path);
    buf_fini(&f->part);
    mem_free(f);
}

/* A folder that cannot be made is said at once: it is a mistake of the configuration. */
static int file_open(void **ctx, const struct dyn_store_options *o, struct err *e)
{
    struct folder *f = mem_zalloc(1, sizeof *f);
    if (!f || buf_puts(&f->root, o->folder)) {
        mem_free(f);
        return err_set(e, ST_ENOMEM, "discovery: no memory");
    }
    *ctx = f;
    return make_folders(f, e);
}

const struct dyn_store_kind dyn_store_file = {
    .open = file_open,
    .keep = file_keep,
    .find = file_find,
    .write = file_write,
    .withdraw = file_withdraw,
    .close = file_close,
};
