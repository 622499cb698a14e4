/* sim_gpu: what a step and a copy cost on a machine that is not there.
 *
 * Owns     nothing: constants and pure functions.
 * Units    seconds, bytes, FLOP in doubles; results in ns.
 * States   -
 * Threads  any.
 * Errors   NULL for a name that is not in the table.
 * Bounds   -
 * Source   shared/design/SCHEDULING.md 10.2, there from rooflines and published measurements. Estimates: they order
 *          policies, they do not predict a product.
 */
#ifndef STATOR_SIM_GPU_H
#define STATOR_SIM_GPU_H

#include <stdbool.h>
#include <stdint.h>

struct model_info;

struct sim_gpu {
    const char *name;
    uint32_t depth;     /* steps that may be under way */
    double flops;       /* reached in large products, 16-bit */
    double memory_rate; /* bytes/s reached */
    double memory_bytes;
    double to_device_rate, to_host_rate; /* bytes/s of the host link, one way alone */
    double both_rate;                    /* both ways together */
    double step_s;                       /* fixed cost of a step */
};

const struct sim_gpu *sim_gpu_find(const char *name); /* "h100", "h200", "a100", "cpu2" */
const char *sim_gpu_names(void);

/* What of a model costs time and memory; weights and KV are 16-bit. */
struct sim_model {
    double linear_params;   /* of the layers: each token multiplies by them */
    double read_bytes;      /* weights that a step reads */
    double resident_bytes;  /* weights that memory holds */
    double kv_bytes;        /* of one token */
    double attention_flops; /* of one row and one position */
    double logits_flops;    /* of one sampled row */
};

void sim_model_from(struct sim_model *out, const struct model_info *info);

struct sim_load {
    uint64_t n_rows, n_sampled;
    uint64_t attention2; /* prompts: sum of n * (2 start + n), which is twice the pairs of positions */
    uint64_t context;    /* decodes: sum of the positions they read */
};

/* `copy_rate`: bytes/s that copies take from the memory meanwhile. */
double sim_gpu_step_ns(const struct sim_gpu *g, const struct sim_model *m, const struct sim_load *l,
                       double copy_rate);
/* `both`: the other direction is busy too. */
double sim_gpu_copy_rate(const struct sim_gpu *g, bool to_device, bool both);

#endif
