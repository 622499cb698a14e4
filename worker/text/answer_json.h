/* answer_json: where a JSON value ends in text that arrives byte by byte, and the members of an object as they were written.
 *
 * Owns     nothing.
 * Units    bytes.
 * States   zeroed -> feed* -> DONE or BAD.
 * Threads  one owner.
 * Errors   -
 * Bounds   ANSWER_JSON_DEPTH levels, O(1) per byte.
 * Source   RFC 8259, but for control characters inside of strings: models write them, and readers of what they wrote escape them.
 *          What a request may not say is no value here either, since a client sends it back with the next request: NUL, in a
 *          string as a byte or as \u0000, and one half of a surrogate pair.
 *          Why not base/json: it needs the whole text to say whether it is whole, and numbers above 2^53 do not survive it.
 */
#ifndef STATOR_ANSWER_JSON_H
#define STATOR_ANSWER_JSON_H

#include "buf.h"
#include "json.h"

/* A level less than base/json takes: the value of a parameter becomes a member of an object. */
enum { ANSWER_JSON_DEPTH = JSON_DEPTH_MAX - 1 };

enum answer_feed { ANSWER_MORE, ANSWER_DONE, ANSWER_BAD };

struct answer_json {
    uint8_t state, digits; /* `digits`: hexadecimal ones still to come */
    uint8_t depth;
    const char *word;                             /* what is left of true, false or null */
    bool key;                                     /* the string is a member's name */
    bool high;                                    /* it ends with the first half of a surrogate pair */
    uint16_t unit;                                /* the hexadecimal digits so far */
    uint64_t objects[ANSWER_JSON_DEPTH / 64 + 1]; /* bit per level: object, else array */
};

/* DONE with the byte that closes the value, and for a number with the white space behind it. The byte of BAD is no part of it. */
enum answer_feed answer_json_feed(struct answer_json *j, char c);
bool answer_json_whole(struct str text); /* one value and nothing else */
bool answer_json_space(char c);

/* The members of an object that is known to be whole, one by one from *at = 0; `name` is without its quotes, not unescaped. */
bool answer_json_member(struct str object, size_t *at, struct str *name, struct str *value);
/* The value as it stands, control characters inside of strings escaped. */
void answer_json_copy(struct str value, struct buf *out);

#endif
