/* simt_c: (internal) the emulated GPU's controls, for tests in C. */
#ifndef STATOR_SIMT_C_H
#define STATOR_SIMT_C_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void sim_seed(uint64_t seed);
void sim_memory(uint64_t bytes);    /* of the next device; UINT64_MAX: plenty */
void sim_fail_after(uint32_t n);    /* the n-th call fails; 0: none */
uint32_t sim_live(void);            /* things of the device that exist */
void sim_library(bool there);       /* cuBLASLt, for backends made from now on */
uint32_t sim_library_runs(void);    /* since then */

#ifdef __cplusplus
}
#endif
#endif
