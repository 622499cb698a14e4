#include "cpu_linear.h"
const struct cpu_linear_kernels cpu_linear_amx = {.name = "amx"};
