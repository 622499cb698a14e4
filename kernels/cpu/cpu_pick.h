/* cpu_pick: which kernels this machine runs.
 *
 * Owns     nothing; tables are constant.
 * Units    -
 * States   -
 * Threads  cpu_pick_init may be called from any thread; asking for AMX changes the process once (tile state permission).
 * Errors   ST_EINVAL for an unknown name, ST_EUNSUP for an instruction set that the machine or the kernel lacks.
 * Bounds   -
 * Source   CPU design, section 8.
 */
#ifndef STATOR_CPU_PICK_H
#define STATOR_CPU_PICK_H

#include "cpu_linear.h"
#include "cpu_rows.h"

struct cpu_pick {
    struct cpu_linear_kernels linear;
    const struct cpu_row_kernels *rows;
    const char *isa;   /* the name that cpu_isa takes */
    const char *label; /* for people: "avx512-vnni-bf16" */
};

/* `isa`: NULL or "auto" = the best there is; else "c", "avx2", "avxvnni", "avx512", "amx". */
int cpu_pick_init(struct cpu_pick *out, const char *isa, struct err *e);

#endif
