/* The order is that of what is known: the model's headers size the cache on a host, before its weights are there; on a device
 * the sizes come after the weights, when its free memory is known. Packing weights and building the tokenizer's tables are
 * nearly all of the time from exec to ready, so they run beside each other. */
#define _GNU_SOURCE
#include "loaded.h"

#include "clock.h"
#include "log.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool loaded_on_device(const struct loaded *l)
{
    return l->be->ops->memory != NULL;
}

static enum be_type kv_type(const struct loaded *l)
{
    static const struct {
        const char *name;
        enum be_type type;
    } types[] = {{"f16", BE_F16}, {"bf16", BE_BF16}, {"f32", BE_F32}, {"fp8", BE_E4M3}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(l->config->kv_dtype, types[i].name) == 0)
            return types[i].type;
    return loaded_on_device(l) && strcmp(l->config->dtype, "float16") != 0 ? BE_BF16 : BE_F16;
}

static void warn_of_gpu_flags(const struct config *c)
{
    struct buf flags = {0};
    config_put_gpu_flags(c, &flags);
    if (flags.n)
        log_warn("load", "%.*s: without effect here, on a CPU", (int)flags.n, flags.p);
    buf_fini(&flags);
}

static int create_backend(struct loaded *l, struct err *e)
{
    const struct config *c = l->config;
    const struct be_options o = {.device = c->device,
                                 .dtype = c->dtype,
                                 .quantization = c->quantization,
                                 .cache_dir = c->cache_dir,
                                 .deterministic = c->deterministic,
                                 .no_graphs = c->no_cuda_graphs,
                                 .threads = (uint32_t)c->threads,
                                 .cpu_isa = c->cpu_isa,
                                 .cpu_exact = strcmp(c->cpu_math, "exact") == 0};
    int st = be_create(&l->be, &o, e);
    if (st)
        return st;
    bool device = loaded_on_device(l);
    if (!device)
        warn_of_gpu_flags(c);
    l->kv_type = kv_type(l);
    l->max_num_seqs = c->max_num_seqs ? (uint32_t)c->max_num_seqs : device ? 256 : 32;
    l->max_num_batched_tokens = c->max_num_batched_tokens ? (uint32_t)c->max_num_batched_tokens
                                : device                  ? 2048
                                                          : 512;
    if (l->max_num_batched_tokens < l->max_num_seqs)
        return err_set(e, ST_EINVAL, "--max-num-batched-tokens: %u is less than --max-num-seqs, %u",
                       l->max_num_batched_tokens, l->max_num_seqs);
    return ST_OK;
}

/* What the device still has for the cache: its share, less what is taken, less what the engine allocates after the cache. */
static int device_memory(struct loaded *l, uint64_t *out, struct err *e)
{
    const uint64_t workspace =
        512 << 20; /* activations, partial results, blobs, graphs of an 8B model: about 400 MiB */
    uint64_t free_bytes, total, share, reserve;
    int st = l->be->ops->memory(l->be, &free_bytes, &total);
    if (st)
        return err_set(e, st, "the device does not tell its free memory");
    share = (uint64_t)(l->config->gpu_memory_utilization * (double)total);
    reserve = (uint64_t)l->max_num_seqs * model_info(l->model)->vocab * sizeof(float) + workspace +
              (total - free_bytes);
    *out = share > reserve ? share - reserve : 0;
    return ST_OK;
}

static int choose_sizes(struct loaded *l, struct err *e)
{
    const struct config *c = l->config;
    const struct model_info *info = model_info(l->model);
    struct be_kv_shape shape;
    model_kv_shape(l->model, (uint32_t)c->block_size, 0, l->kv_type, &shape);
    struct sizing_input in = {.context_asked = c->context_length,
                              .kv_bytes_asked = c->kv_bytes,
                              .context_max = info->context_max,
                              .block_tokens = c->block_size,
                              .block_bytes = l->be->ops->kv_block_bytes(l->be, &shape),
                              .max_num_seqs = l->max_num_seqs,
                              .device = loaded_on_device(l)};
    if (in.block_bytes == 0)
        return err_set(e, ST_EUNSUP, "%s: the %s backend has no KV layout for %u heads of %u in %s (--kv-dtype %s)", info->file,
                       l->be->ops->name, info->n_kv_heads, info->head_dim, be_type_name(l->kv_type), c->kv_dtype);
    uint64_t host = sizing_memory_available("");
    int st = sizing_host_blocks(&l->n_host_blocks, c->host_kv_bytes, in.block_bytes, host, e);
    if (st)
        return st;
    if (!in.device) {
        in.memory_available = host - c->host_kv_bytes;
        in.weight_bytes = info->tensor_bytes;
    } else {
        st = device_memory(l, &in.memory_available, e);
        if (st)
            return st;
    }
    st = sizing_choose(&l->sizing, &in, e);
    if (!st)
        log_info("load", "%s", l->sizing.why);
    if (!st && l->n_host_blocks)
        log_info("load", "host tier: %u KV blocks in %llu MiB", l->n_host_blocks, (unsigned long long)c->host_kv_bytes >> 20);
    return st;
}

static int open_model(struct loaded *l, struct err *e)
{
    const struct config *c = l->config;
    int st = create_backend(l, e);
    if (!st)
        st = strcmp(c->load_format, "dummy") == 0 ? model_open_dummy(&l->model, c->model, e)
                                                  : model_open(&l->model, c->model, e);
    if (!st && !loaded_on_device(l))
        st = choose_sizes(l, e);
    if (st)
        return st;
    const struct model_info *info = model_info(l->model);
    if (c->context_length > info->context_max)
        return err_set(e, ST_EINVAL, "--context-length: %llu is above the model's %u",
                       (unsigned long long)c->context_length, info->context_max);
    log_info("load", "%s: %s %s, %.1f M parameters; %s", info->file, info->arch, info->quant,
             (double)info->n_params / 1e6, be_describe(l->be));
    return ST_OK;
}

/* A bar on a terminal, a line per tenth elsewhere; nothing for models that load at once. */
struct progress {
    int64_t started_ns, shown_ns;
    int tenth;
};

static void show_progress(void *user, size_t done, size_t total)
{
    struct progress *p = user;
    int64_t now = clock_now_ns();
    int percent = total ? (int)(100.0 * (double)done / (double)total) : 100;
    if (now - p->started_ns < NS_PER_S / 2)
        return;
    if (isatty(STDERR_FILENO)) {
        if (now - p->shown_ns < NS_PER_S / 10 && percent < 100)
            return;
        p->shown_ns = now;
        char bar[41];
        memset(bar, ' ', 40);
        memset(bar, '#', (size_t)percent * 40 / 100);
        bar[40] = 0;
        fprintf(stderr, "\rloading [%s] %3d %%%s", bar, percent, percent >= 100 ? "\n" : "");
    } else if (percent / 10 > p->tenth) {
        p->tenth = percent / 10;
        log_info("load", "loading: %d %%", percent);
    }
}

struct bundle_job {
    struct loaded *l;
    struct err err;
    int status;
};

static void *open_bundle(void *arg)
{
    struct bundle_job *j = arg;
    struct loaded *l = j->l;
    j->status =
        bundle_open(&l->bundle, l->config->model, model_gguf(l->model), l->config->chat_template,
                    strcmp(l->config->load_format, "dummy") == 0 ? model_info(l->model)->vocab : 0, &j->err);
    return NULL;
}

static int load_model(struct loaded *l, struct err *e)
{
    struct progress progress = {.started_ns = clock_now_ns()};
    const struct model_load_options o = {
        .max_context = loaded_on_device(l) ? (uint32_t)l->config->context_length : l->sizing.context_length,
        .max_rows = l->max_num_batched_tokens,
        .progress = show_progress,
        .user = &progress};
    struct bundle_job job = {.l = l};
    pthread_t thread;
    bool threaded = pthread_create(&thread, NULL, open_bundle, &job) == 0;
    int st = model_load(l->model, l->be, &o, e);
    if (threaded)
        pthread_join(thread, NULL);
    else
        open_bundle(&job);
    if (!st && job.status) {
        st = job.status;
        if (e)
            *e = job.err;
    }
    return st || !loaded_on_device(l) ? st : choose_sizes(l, e);
}

int loaded_open(struct loaded *l, const struct config *c, struct err *e)
{
    l->config = c;
    int st = open_model(l, e);
    return st ? st : load_model(l, e);
}

void loaded_close(struct loaded *l)
{
    bundle_close(&l->bundle);
    model_destroy(l->model);
    be_destroy(l->be);
}
