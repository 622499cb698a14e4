/* tok_nfc: Unicode normalisation form C.
 *
 * Owns     nothing.
 * Units    UTF-8 bytes; the text must be valid.
 * States   -
 * Threads  any; no state.
 * Errors   tok_nfc_put: sticks in `out`.
 * Bounds   O(n log n) for n combining characters in a row, O(n) otherwise.
 * Source   Unicode Standard Annex 15; the tables of tok_nfc_table.h.
 */
#ifndef STATOR_TOK_NFC_H
#define STATOR_TOK_NFC_H

#include "buf.h"

#include <stdbool.h>

bool tok_nfc_quick(struct str text); /* true: certainly in form C already */
void tok_nfc_put(struct str text, struct buf *out);

#endif
