/* tok_nfc_table: what Unicode says about canonical composition, as sorted arrays.
 *
 * Owns     static storage.
 * Units    code points.
 * States   -
 * Threads  any; read only.
 * Errors   -
 * Bounds   tok_nfc_*_n rows each.
 * Source   Unicode Character Database, as far as Hugging Face tokenizers knows it; tests/golden/tok/make_nfc.py.
 */
#ifndef STATOR_TOK_NFC_TABLE_H
#define STATOR_TOK_NFC_TABLE_H

#include <stddef.h>
#include <stdint.h>

extern const uint32_t tok_nfc_decomp[][3];  /* {code point, first, second or 0}, by code point */
extern const uint32_t tok_nfc_pair[][3];    /* {first, second, composed}, by (first, second) */
extern const uint32_t tok_nfc_class[][3];   /* {from, to, canonical combining class} */
extern const uint32_t tok_nfc_suspect[][2]; /* {from, to}: what may change under NFC */
extern const size_t tok_nfc_decomp_n, tok_nfc_pair_n, tok_nfc_class_n, tok_nfc_suspect_n;

#endif
