/* stop: stop strings found in text that arrives in pieces, wherever the pieces are cut.
 *
 * Owns     a set owns its failure tables (it borrows the strings); a scan owns the bytes that it holds back.
 * Units    bytes.
 * States   scan: zeroed -> push* -> hit (further pushes add nothing) or flush -> fini.
 * Threads  a set is immutable after init; a scan has one owner.
 * Errors   init: ST_ENOMEM. push: ST_ENOMEM / ST_ETOOBIG from the buffers.
 * Bounds   held bytes <= the longest stop string; O(1) per byte and string.
 * Source   Knuth, Morris, Pratt: Fast pattern matching in strings (1977).
 */
#ifndef STATOR_STOP_H
#define STATOR_STOP_H

#include "buf.h"
#include "status.h"

#include <stdbool.h>
#include <stdint.h>

enum { STOP_MAX = 32, STOP_BYTES_MAX = 1024 };

struct stop_set {
    uint32_t n;
    struct str s[STOP_MAX];
    uint16_t *fail[STOP_MAX]; /* [s.n]: length of the longest proper border of s[0..i] */
};

struct stop_scan {
    uint16_t at[STOP_MAX]; /* bytes of each stop string that the text ends with */
    struct buf held;       /* text that may be the beginning of a stop string */
    bool hit;
};

/* 1 <= strings[i].n <= STOP_BYTES_MAX, n <= STOP_MAX (asserted). */
int stop_set_init(struct stop_set *set, const struct str *strings, uint32_t n);
void stop_set_fini(struct stop_set *set);

/* Appends to `out` what is now known to be no part of a stop string. The first string to be complete ends the text in front
 * of it (of several that end at one byte, the longest). */
int stop_push(const struct stop_set *set, struct stop_scan *scan, struct str text, struct buf *out);
int stop_flush(struct stop_scan *scan,
               struct buf *out); /* end of text: what was held comes out, unless hit */
void stop_scan_fini(struct stop_scan *scan);

#endif
