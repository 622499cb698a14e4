/* silu: the gate of a SwiGLU, the same bits in the linear's epilogue and in cu_rows_swiglu.
 *
 * Owns     nothing.
 * Units    -
 * States   -
 * Threads  any.
 * Errors   -: NaN stays NaN; -inf gives NaN.
 * Bounds   relative error below 2^-18 for |gate| <= 16; an |error| below 1e-7 * |gate * up| beyond.
 * Source   KERNELS design, section 3.4: g / (1 + exp(-g)), every operation rounded once.
 */
#ifndef STATOR_SILU_CUH
#define STATOR_SILU_CUH

#include "ptx.h"

PTX_FN float cu_silu_mul(float gate, float up)
{
    return ptx_div(gate, 1.0f + ptx_exp2(gate * -1.44269504088896341f)) * up;
}

#endif
