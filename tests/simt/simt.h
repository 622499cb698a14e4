/* simt: runs kernels on a CPU, one fiber per thread, and an emulated GPU (gpu_sim) around it. For tests.
 *
 * Owns     the stacks and the shared memory of one block: blocks run one after another, in a shuffled order.
 * Units    bytes, threads.
 * States   A seed fixes every order: of the blocks, of the threads, of what streams run. A report names it; SIMT_SEED in the
 *          environment takes the place of what tests set.
 * Threads  the emulation holds one lock: any thread may call, one runs.
 * Errors   A broken rule (see simt_ptx.h and gpu_sim.cc) is reported on stderr with kernel, block, thread and places, and the
 *          program ends with status 86; between simt_catch and simt_caught the report is kept instead, the launch is given
 *          up and the gpu is sticky.
 * Bounds   1024 threads per block, SIMT_STACK bytes of stack each.
 * Source   KERNELS design, section 14.
 *
 * Race detection: kernels that are compiled with -fsanitize=thread (code generation only, its library is not linked) report
 * every access to simt_race.cc, which then finds unordered accesses whatever the order was.
 */
#ifndef STATOR_SIMT_H
#define STATOR_SIMT_H

#include "gpu.h"
#include "ptx.h"

enum { SIMT_THREADS_MAX = 1024, SIMT_PARAMS_MAX = 4096, SIMT_STACK = 256 * 1024 };

struct simt_launch {
    const char *name;
    void (*call)(void (*kernel)(void), const void *params);
    void (*kernel)(void);
    dim3 grid;
    uint32_t threads, smem;
    bool pdl;
    const void *params;
    size_t params_bytes;
};

void simt_seed(uint64_t seed);
uint64_t simt_random(void); /* of that seed */

void simt_catch(void);
const char *simt_caught(void); /* the first report since simt_catch, or NULL; valid until the next simt_catch */

/* Runs a grid now; false: it was given up because of a report. */
bool simt_run(const struct simt_launch *l);
uint64_t simt_switches(void); /* of fibers, since the program began */
/* A report by the emulation itself: ends the program, or is kept; inside of a kernel it does not return. */
void simt_report(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

void simt_race_forget(const void *p, size_t bytes); /* global memory that begins anew */

/* ---- gpu_sim: gpu.h over it ------------------------------------------------------------------------------------------- */

int gpu_sim_launch(struct gpu_stream *s, const struct simt_launch *l);
void gpu_sim_device(int cc);            /* 80 or 90: what the next gpu_open finds; 0: no device */
void gpu_sim_memory(uint64_t bytes);    /* device memory of the next gpu_open */
void gpu_sim_fail_after(uint32_t n);    /* the n-th call from now on that can fail does; 0: none */
uint32_t gpu_sim_live(void);            /* gpus, streams, events, graphs and allocations that exist */
bool gpu_sim_owns(const void *p, size_t bytes); /* all of it in one live allocation, device or pinned */

#endif
