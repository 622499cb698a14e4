/* dyn_msgpack: a reader over MessagePack bytes and a writer into a buffer.
 *
 * Owns     nothing: what the reader returns borrows from the bytes.
 * Units    bytes.
 * States   A reader stands before a value. dyn_msgpack_read passes the head of a container, after which the reader stands before
 *          its first element; dyn_msgpack_skip passes a whole value with all that is in it.
 * Threads  one owner at a time.
 * Errors   ST_EFORMAT: not MessagePack, or cut short; the reader then stays where it is. The writer's errors stick in the buffer.
 * Bounds   no allocation, no recursion. A container that announces more elements than bytes are left is refused at its head, so
 *          a count may be trusted for sizing.
 * Source   MessagePack specification (spec.md of 2017-08-09).
 */
#ifndef STATOR_DYN_MSGPACK_H
#define STATOR_DYN_MSGPACK_H

#include "buf.h"
#include "status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum dyn_msgpack_type {
    DYN_NIL,
    DYN_BOOL,
    DYN_UINT, /* any integer that is not negative, however it was written */
    DYN_INT,  /* a negative integer */
    DYN_FLOAT,
    DYN_STR,
    DYN_BIN,
    DYN_ARRAY,
    DYN_MAP,
    DYN_EXT
};

struct dyn_msgpack { /* reader: zero it with the bytes in, or use dyn_msgpack_of */
    const uint8_t *p;
    size_t n, at;
};

struct dyn_value {
    enum dyn_msgpack_type type;
    union {
        bool yes;
        uint64_t u;
        int64_t i;
        double f;
        struct str s;   /* STR (any bytes: the writer promised UTF-8), BIN, EXT */
        uint32_t count; /* elements of an ARRAY, pairs of a MAP */
    };
};

struct dyn_msgpack dyn_msgpack_of(const void *p, size_t n);
int dyn_msgpack_read(struct dyn_msgpack *m, struct dyn_value *out);
int dyn_msgpack_skip(struct dyn_msgpack *m);
bool dyn_msgpack_end(const struct dyn_msgpack *m); /* nothing is left */
/* The reader of the member `key` of the map that `m` stands before; `m` stays. False: not a map, no such member, or broken. */
bool dyn_msgpack_get(const struct dyn_msgpack *m, const char *key, struct dyn_msgpack *out);

/* The writer takes the shortest form of a number, a length or a count. */
void dyn_msgpack_put_nil(struct buf *b);
void dyn_msgpack_put_bool(struct buf *b, bool v);
void dyn_msgpack_put_uint(struct buf *b, uint64_t v);
void dyn_msgpack_put_int(struct buf *b, int64_t v);
void dyn_msgpack_put_float(struct buf *b, double v); /* float64 */
void dyn_msgpack_put_str(struct buf *b, struct str s);
void dyn_msgpack_put_key(struct buf *b, const char *z); /* a string, for literals */
void dyn_msgpack_put_bin(struct buf *b, const void *p, size_t n);
void dyn_msgpack_put_array(struct buf *b, uint32_t count);
void dyn_msgpack_put_map(struct buf *b, uint32_t count);

#endif
