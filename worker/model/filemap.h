/* filemap: a whole file, mapped read-only.
 *
 * Owns     the mapping, until filemap_close.
 * Units    bytes.
 * States   open -> close.
 * Threads  reading from any; open, drop and close from the owner.
 * Errors   ST_ENOENT, ST_EIO, ST_EFORMAT (empty, or no regular file), each naming the file.
 * Bounds   the mapping has the file's length at open. A file that shrinks under us faults, as with any
 *          mapping.
 */
#ifndef STATOR_FILEMAP_H
#define STATOR_FILEMAP_H

#include "status.h"

#include <stddef.h>

struct filemap {
    const unsigned char *p; /* [n] */
    size_t n;
};

int filemap_open(struct filemap *m, const char *path, struct err *e);
/* Brings p..p+n into the page tables at once: far cheaper than one fault per page when the file is in the
 * page cache. */
void filemap_populate(const struct filemap *m, const void *p, size_t n);
/* The caller is done with p..p+n: give its whole pages back. Reading them again is still valid, only slow. */
void filemap_drop(const struct filemap *m, const void *p, size_t n);
void filemap_close(struct filemap *m); /* zeroed struct ok */

#endif
