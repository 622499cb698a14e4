/* simt_lt: (internal) whether backends made from now on find cuBLASLt, and how often it ran since. */
#ifndef STATOR_SIMT_LT_H
#define STATOR_SIMT_LT_H

#include <stdint.h>

void simt_lt_present(bool is);
uint32_t simt_lt_runs(void);

#endif
