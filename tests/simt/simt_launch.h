/* simt_launch: gpu_launch over fibers; included by kernels/cuda/launch.h.
 *
 * Owns     nothing: the stream keeps a copy of the params.
 * Units    as launch.h.
 * States   -
 * Threads  the stream's.
 * Errors   as launch.h.
 * Bounds   as launch.h.
 */
#ifndef STATOR_SIMT_LAUNCH_H
#define STATOR_SIMT_LAUNCH_H

#include "simt.h"

#include <type_traits>

template <class P> static void simt_call(void (*kernel)(void), const void *params)
{
    ((void (*)(const P &))kernel)(*(const P *)params);
}

template <class P>
static int gpu_launch(struct gpu_stream *s, const char *name, void (*kernel)(const P &), dim3 grid, uint32_t threads,
                      uint32_t smem, bool pdl, const P &params)
{
    static_assert(std::is_trivially_copyable<P>::value && sizeof(P) <= SIMT_PARAMS_MAX, "params are copied as bytes");
    struct simt_launch l = {name, simt_call<P>, (void (*)(void))kernel, grid, threads, smem, pdl, &params, sizeof(P)};
    return gpu_sim_launch(s, &l);
}

#endif
