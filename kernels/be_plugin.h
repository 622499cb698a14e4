/* be_plugin: what a backend in a shared library shows to the program: one symbol, `stator_plugin`.
 *
 * Owns     the library stays loaded until the process ends.
 * Units    bytes.
 * States   -
 * Threads  be_create's.
 * Errors   a plug-in of another build is refused by the numbers below, before anything of it runs.
 * Bounds   -
 * Source   docs/ARCHITECTURE.md section 3: the core links no device library.
 */
#ifndef STATOR_BE_PLUGIN_H
#define STATOR_BE_PLUGIN_H

#include "backend.h"

enum { BE_PLUGIN_ABI = 1 }; /* raised when a struct of backend.h changes meaning but not size */

struct be_plugin {
    uint32_t abi, ops_bytes, options_bytes, batch_bytes;
    int (*create)(struct be **out, const struct be_options *o, struct err *e);
};

#define BE_PLUGIN_NUMBERS                                                                                               \
    .abi = BE_PLUGIN_ABI, .ops_bytes = sizeof(struct be_ops), .options_bytes = sizeof(struct be_options),               \
    .batch_bytes = sizeof(struct be_batch)

#endif
