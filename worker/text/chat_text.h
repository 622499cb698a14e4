/* chat_text: what Python's str knows about characters: white space, case, classes, positions.
 *
 * Owns     nothing.
 * Units    offsets in bytes unless named `chars`.
 * States   -
 * Threads  any; pure functions.
 * Errors   none: a byte that is not valid UTF-8 counts as one character of that value.
 * Bounds   linear in the text.
 * Source   Python 3.11 str methods; Unicode 14 (case and classes for the common scripts).
 */
#ifndef STATOR_CHAT_TEXT_H
#define STATOR_CHAT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int chat_text_next(const char *p, size_t n, uint32_t *cp_out); /* length of the character at p; n > 0 */
size_t chat_text_chars(const char *p, size_t n);
size_t chat_text_offset(const char *p, size_t n,
                        size_t chars); /* byte offset of that character, n when beyond */
bool chat_text_ascii(const char *p, size_t n);

bool chat_text_space(uint32_t cp);
bool chat_text_line_end(uint32_t cp);
bool chat_text_printable(uint32_t cp);
bool chat_text_alpha(uint32_t cp);
bool chat_text_digit(uint32_t cp);
uint32_t chat_text_upper(uint32_t cp);
uint32_t chat_text_lower(uint32_t cp);

size_t chat_text_lstrip(const char *p, size_t n); /* bytes of leading white space */
size_t chat_text_rstrip(const char *p, size_t n); /* length without trailing white space */

/* Offset of the first (last) occurrence, or -1. An empty needle is found at 0 (at n). */
int64_t chat_text_find(const char *p, size_t n, const char *needle, size_t m);
int64_t chat_text_rfind(const char *p, size_t n, const char *needle, size_t m);

#endif
