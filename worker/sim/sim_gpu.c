/* One formula for prompts, decodes and mixtures of them. Weights are streamed while products are computed; neither hides the
 * other wholly, and the 4-norm of the two times is what lies between "the larger" and "the sum". */
#include "sim_gpu.h"

#include "model.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

static const struct sim_gpu gpus[] = {
    {"h100", 2, 790e12, 3.0e12, 80e9, 50e9, 50e9, 83e9, 0.30e-3},
    {"h200", 2, 790e12, 4.3e12, 141e9, 50e9, 50e9, 83e9, 0.30e-3},
    {"a100", 2, 250e12, 1.83e12, 80e9, 24e9, 24e9, 40e9, 0.35e-3},
    {"cpu2", 1, 0.15e12, 0.02e12, 8e9, 8e9, 8e9, 10e9, 0.05e-3},
};

/* Attention over a prompt reaches this part of what plain products do. */
static const double attention_part = 0.75;

const struct sim_gpu *sim_gpu_find(const char *name)
{
    for (size_t i = 0; i < sizeof gpus / sizeof gpus[0]; i++)
        if (strcmp(gpus[i].name, name) == 0)
            return &gpus[i];
    return NULL;
}

const char *sim_gpu_names(void)
{
    return "h100, h200, a100, cpu2";
}

void sim_model_from(struct sim_model *out, const struct model_info *info)
{
    double d = info->d, q = (double)info->n_heads * info->head_dim,
           kv = (double)info->n_kv_heads * info->head_dim;
    double layer = 2 * d * q + 2 * d * kv + 3 * d * info->ffn, table = d * info->vocab;
    out->linear_params = layer * info->n_layers;
    out->read_bytes = 2 * (out->linear_params + table);
    out->resident_bytes = out->read_bytes + (info->tied ? 0 : 2 * table);
    out->kv_bytes = 2 * 2 * kv * info->n_layers;
    out->attention_flops = 4 * q * info->n_layers;
    out->logits_flops = 2 * table;
}

double sim_gpu_step_ns(const struct sim_gpu *g, const struct sim_model *m, const struct sim_load *l,
                       double copy_rate)
{
    double rate = g->memory_rate - copy_rate;
    double weights = m->read_bytes / rate, products = 2 * m->linear_params * (double)l->n_rows / g->flops;
    double weights2 = weights * weights, products2 = products * products;
    double s = g->step_s + sqrt(sqrt(weights2 * weights2 + products2 * products2));
    s += m->kv_bytes * (double)l->context / rate;
    s += m->attention_flops * 0.5 * (double)l->attention2 / (attention_part * g->flops);
    s += m->logits_flops * (double)l->n_sampled / g->flops;
    return s * 1e9;
}

double sim_gpu_copy_rate(const struct sim_gpu *g, bool to_device, bool both)
{
    double alone = to_device ? g->to_device_rate : g->to_host_rate;
    return both && g->both_rate / 2 < alone ? g->both_rate / 2 : alone;
}
