/* unpack: rows of a model file as floats, whatever their type.
 *
 * Owns     nothing.
 * Units    elements; a row is laid out as in the file (GGUF's blocks for quantised types).
 * States   -
 * Threads  pure functions.
 * Errors   none: any bytes mean something; NaN and infinity come out as they stand.
 * Bounds   `first` a multiple of be_type_block; reads no byte behind the blocks that it needs.
 * Source   the GGUF block formats (ggml's reference quantisers); IEEE 754; OCP 8-bit floating point, E4M3.
 */
#ifndef STATOR_UNPACK_H
#define STATOR_UNPACK_H

#include "backend.h"

/* Elements first .. first + n - 1 of a row of `t`; E4M3 without its scale. `n` need not be whole blocks. */
void unpack_values(enum be_type t, const void *row, uint32_t first, uint32_t n, float *out);

float unpack_f16(uint16_t h);
float unpack_bf16(uint16_t h);
float unpack_e4m3(uint8_t q); /* 0x7f and 0xff: NaN */

#endif
