/* filemap: model files are read through a mapping, because each byte is read once, by the packing of its
 * tensor, and is then of no use: read() would need a second buffer of the tensor's size, and memory would
 * hold file and packed copy together. Populate and drop keep that to one tensor at a time. */
#define _GNU_SOURCE
#include "filemap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

int filemap_open(struct filemap *m, const char *path, struct err *e)
{
    memset(m, 0, sizeof *m);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(e, errno == ENOENT ? ST_ENOENT : ST_EIO, "%s: %s", path, strerror(errno));
    struct stat st;
    int rc = ST_OK;
    if (fstat(fd, &st) != 0)
        rc = err_set(e, ST_EIO, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        rc = err_set(e, ST_EFORMAT, "%s: not a regular file", path);
    else if (st.st_size <= 0)
        rc = err_set(e, ST_EFORMAT, "%s: the file is empty", path);
    else if ((uintmax_t)st.st_size > SIZE_MAX / 2)
        rc = err_set(e, ST_ETOOBIG, "%s: too large to map", path);
    if (rc == ST_OK) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            rc = err_set(e, ST_EIO, "%s: cannot map: %s", path, strerror(errno));
        else
            *m = (struct filemap){p, (size_t)st.st_size};
    }
    close(fd);
    return rc;
}

/* The pages that lie wholly (inner) or partly (outer) in p..p+n, cut to the mapping. */
static size_t pages(const struct filemap *m, const void *p, size_t n, int inner, void **out)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), base = (uintptr_t)m->p, a = (uintptr_t)p, b = a + n;
    if (m->p == NULL || a < base || b > base + m->n || b < a)
        return 0;
    a = inner ? (a + page - 1) / page * page : a / page * page;
    b = inner ? b / page * page : b;
    *out = (void *)a;
    return b > a ? b - a : 0;
}

void filemap_populate(const struct filemap *m, const void *p, size_t n)
{
    void *at = NULL;
    size_t len = pages(m, p, n, 0, &at);
    /* Advice only: an older kernel refuses it and the pages come by faults. */
    if (len > 0 && madvise(at, len, MADV_POPULATE_READ) != 0)
        (void)madvise(at, len, MADV_WILLNEED);
}

void filemap_drop(const struct filemap *m, const void *p, size_t n)
{
    void *at = NULL;
    size_t len = pages(m, p, n, 1, &at);
    if (len > 0)
        (void)madvise(at, len, MADV_DONTNEED);
}

void filemap_close(struct filemap *m)
{
    if (m->p != NULL)
        munmap((void *)m->p, m->n);
    memset(m, 0, sizeof *m);
}
