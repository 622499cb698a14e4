/* sizing: how much context and how many KV blocks, from what was asked, what the model takes and what memory there is.
 *
 * Owns     nothing.
 * Units    bytes, tokens, blocks.
 * States   -
 * Threads  any; sizing_choose is pure.
 * Errors   ST_EINVAL / ST_ENOMEM naming the flag to change and both numbers.
 * Bounds   blocks fit in 32 bits.
 * Source   -
 */
#ifndef STATOR_SIZING_H
#define STATOR_SIZING_H

#include "status.h"

#include <stdbool.h>
#include <stdint.h>

struct sizing_input {
    uint64_t context_asked;  /* 0 = choose */
    uint64_t kv_bytes_asked; /* 0 = choose */
    uint64_t context_max;    /* of the model */
    uint64_t block_tokens, block_bytes;
    uint64_t memory_available; /* bytes: of a host before the weights are loaded, of a device after it */
    uint64_t weight_bytes;     /* still to be taken from it */
    bool device;               /* all of memory_available is for the cache */
    uint64_t max_num_seqs;
};

struct sizing {
    uint32_t context_length, n_blocks;
    uint64_t kv_bytes;
    char why[200]; /* one sentence for the start-up log */
};

int sizing_choose(struct sizing *out, const struct sizing_input *in, struct err *e);
/* Blocks of the host tier that `bytes` hold; 0 bytes: none. `memory_available`: of the host, as for the KV cache. */
int sizing_host_blocks(uint32_t *out, uint64_t bytes, uint64_t block_bytes, uint64_t memory_available, struct err *e);
/* Memory that this process may still take: the smaller of MemAvailable and what its control group (v2) leaves, as `root`/proc and
 * `root`/sys tell; UINT64_MAX where they do not. "" is this machine. */
uint64_t sizing_memory_available(const char *root);

#endif
