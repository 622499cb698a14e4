/* buf: borrowed byte views and one growable byte buffer.
 *
 * Owns     a buf owns its bytes until buf_fini; a str owns nothing.
 * Units    sizes in bytes. A buf is always NUL-terminated behind `n`, and may hold NULs inside.
 * States   A zeroed buf is empty and valid. A failed buf (`failed` set) drops appends until buf_reset.
 * Threads  one owner at a time.
 * Errors   appends return ST_OK, or ST_ETOOBIG (limit) / ST_ENOMEM; the error sticks in `failed`, so a
 *          writer may append many times and check once.
 * Bounds   `limit` bytes when non-zero. Amortised O(1) per byte.
 */
#ifndef STATOR_BUF_H
#define STATOR_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct str {
    const char *p; /* [n], not NUL-terminated; valid as long as what it was borrowed from */
    size_t n;
};

struct buf {
    char *p; /* [cap]; NULL while nothing was appended */
    size_t n, cap;
    size_t limit; /* 0 = none */
    int failed;   /* ST_OK or the first error */
};

#define STR_LIT(s) ((struct str){(s), sizeof(s) - 1})

struct str str_from(const char *z); /* NULL gives an empty view */
bool str_eq(struct str a, struct str b);
bool str_eqz(struct str a, const char *z);

int buf_reserve(struct buf *b, size_t more);
int buf_put(struct buf *b, const void *p, size_t n);
int buf_puts(struct buf *b, const char *z);
int buf_putc(struct buf *b, char c);
int buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_put_json(struct buf *b, struct str s); /* appends a quoted JSON string; invalid UTF-8 -> U+FFFD */
void buf_reset(struct buf *b);                  /* keeps the memory */
void buf_fini(struct buf *b);
struct str buf_str(const struct buf *b); /* valid until the next append */

/* UTF-8. utf8_decode reads one scalar value at p[0..n): returns its length, 0 when n == 0, or
 * -1 when the bytes are not valid (overlong, surrogate, above U+10FFFF or cut short). */
int utf8_decode(const char *p, size_t n, uint32_t *cp_out);
int utf8_encode(uint32_t cp, char out[4]); /* returns the length 1..4 */
bool utf8_valid(struct str s);
/* Length of the longest prefix of `s` that ends on a character boundary: an incomplete but so far
 * valid sequence at the very end is left out, invalid bytes elsewhere are not. */
size_t utf8_complete(struct str s);

#endif
