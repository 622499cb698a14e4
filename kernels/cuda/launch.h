/* launch: how a launcher in a .cu file starts its kernel.
 *
 * Owns     nothing.
 * Units    bytes of shared memory, threads, blocks.
 * States   -
 * Threads  the stream's.
 * Errors   ST_EDEVICE; the gpu is sticky then and names the kernel.
 * Bounds   params <= 4 KB; grids below 2^31 - 1.
 * Source   kernels/cuda/gpu.h. `pdl`: on sm_90 the kernel may start before the one in front of it in the stream has ended:
 *          then it must call ptx_pdl_wait in every thread. On sm_80 it is ignored.
 */
#ifndef STATOR_LAUNCH_H
#define STATOR_LAUNCH_H

#include "gpu.h"
#include "ptx.h"

#ifdef STATOR_SIMT
#include "simt_launch.h" /* the same gpu_launch, over fibers */
#else

template <class P>
static int gpu_launch(struct gpu_stream *s, const char *name, void (*kernel)(const P), dim3 grid, uint32_t threads, uint32_t smem,
                      bool pdl, const P &params)
{
    struct gpu *g = gpu_stream_gpu(s);
    if (gpu_failure(g))
        return ST_EDEVICE;
    cudaError_t rc = cudaSuccess;
    if (smem > 48 * 1024)
        rc = cudaFuncSetAttribute((const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)smem);
    cudaLaunchAttribute attr[1];
    cudaLaunchConfig_t c = {};
    c.gridDim = grid;
    c.blockDim = dim3(threads, 1, 1);
    c.dynamicSmemBytes = smem;
    c.stream = (cudaStream_t)gpu_stream_raw(s);
    if (pdl && gpu_info(g)->cc >= 90) {
        attr[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attr[0].val.programmaticStreamSerializationAllowed = 1;
        c.attrs = attr;
        c.numAttrs = 1;
    }
    P copy = params;
    void *args[1] = {&copy};
    if (rc == cudaSuccess)
        rc = cudaLaunchKernelExC(&c, (const void *)kernel, args);
    return rc == cudaSuccess ? ST_OK : gpu_fail(g, name, cudaGetErrorString(rc));
}

#endif
#endif
