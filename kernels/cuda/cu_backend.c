/* The GPU's op table, and the objects that are made through it.
 *
 * Four streams. Steps run on one, in order; the data of the next step crosses on another beside them; stores and loads of
 * blocks have one each, since a bus carries both directions at once. Events order them where they meet: a step waits for its
 * data and for loads that were asked for before it, copies of blocks for the steps launched before them.
 *
 * The first failing call of the device is the last: the process has lost its context, whatever it was. From then on every
 * call returns ST_EDEVICE with the words of that first failure. */
#include "cu_backend.h"

#include "cu_be.h"
#include "mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- errors ------------------------------------------------------------------------------------------------------ */

int cu_backend_failed(const struct cu_be *b, struct err *e)
{
    const char *why = gpu_failure(b->gpu);
    return err_set(e, ST_EDEVICE, "cuda: %s", why ? why : "the device failed");
}

int cu_backend_refuse(struct cu_be *b, int st, const char *fmt, ...)
{
    if (gpu_failure(b->gpu))
        return ST_EDEVICE;
    if (b->why.status)
        return b->why.status;
    va_list args;
    va_start(args, fmt);
    b->why.status = st;
    int n = snprintf(b->why.text, sizeof b->why.text, "cuda: ");
    vsnprintf(b->why.text + n, sizeof b->why.text - (size_t)n, fmt, args);
    va_end(args);
    return st;
}

int cu_backend_no_memory(const struct cu_be *b, struct err *e, const char *what, size_t bytes,
                         const char *lower)
{
    uint64_t left = 0, total = 0;
    if (gpu_failure(b->gpu))
        return cu_backend_failed(b, e);
    gpu_memory(b->gpu, &left, &total);
    return err_set(e, ST_ENOMEM, "%s: %zu MiB do not fit: %llu of %llu MiB are free on %s; lower %s", what,
                   bytes >> 20, (unsigned long long)(left >> 20), (unsigned long long)(total >> 20),
                   gpu_info(b->gpu)->name, lower);
}

/* ---- objects ----------------------------------------------------------------------------------------------------- */

/* Before memory goes away that a step or a copy may still use. */
static void quiet(struct cu_be *b)
{
    struct gpu_stream *streams[] = {b->stream, b->store, b->load};
    for (int i = 0; i < 3; i++)
        if (streams[i])
            gpu_stream_sync(streams[i]);
}

/* Keys and values have the activations' type, or e4m3. */
static int layout(const struct cu_be *b, const struct be_kv_shape *s, struct cu_kv *kv)
{
    enum be_type same = b->xt == CU_BF16 ? BE_BF16 : BE_F16;
    if ((s->type != same && s->type != BE_E4M3) || !s->n_layers || !s->n_kv_heads || !s->head_dim ||
        s->head_dim > 128 || s->head_dim % 16 || !s->block_tokens || s->block_tokens % 16 ||
        s->n_layers > 1u << 16 || s->n_kv_heads > 1u << 12 || s->block_tokens > 1u << 12)
        return ST_EINVAL;
    uint64_t rows = 2ull * s->n_layers * s->n_kv_heads * s->block_tokens;
    uint64_t bytes = rows * s->head_dim * (s->type == BE_E4M3 ? 1 : 2);
    *kv = (struct cu_kv){.n_blocks = s->n_blocks,
                         .n_layers = s->n_layers,
                         .n_kv_heads = s->n_kv_heads,
                         .head_dim = s->head_dim,
                         .block_tokens = s->block_tokens,
                         .type = s->type == BE_BF16  ? CU_BF16
                                 : s->type == BE_F16 ? CU_F16
                                                     : CU_E4M3};
    if (s->type == BE_E4M3) {
        kv->scale_offset = bytes;
        bytes += rows;
    }
    kv->block_stride = (bytes + 4095) & ~(uint64_t)4095;
    return ST_OK;
}

static size_t kv_block_bytes(struct be *be, const struct be_kv_shape *s)
{
    struct cu_kv kv;
    return layout((struct cu_be *)be, s, &kv) == ST_OK ? kv.block_stride : 0;
}

static int kv_create(struct be *be, const struct be_kv_shape *s, struct be_kv **out, struct err *e)
{
    struct cu_be *b = (struct cu_be *)be;
    struct cu_kv l;
    size_t bytes;
    if (gpu_failure(b->gpu))
        return cu_backend_failed(b, e);
    if (layout(b, s, &l))
        return err_set(
            e, ST_EUNSUP,
            "kv: %u heads of %u in %s, blocks of %u: beside %s the GPU takes %s and E4M3, heads of 16 to 128",
            s->n_kv_heads, s->head_dim, be_type_name(s->type), s->block_tokens,
            b->xt == CU_BF16 ? "bfloat16" : "float16", b->xt == CU_BF16 ? "BF16" : "F16");
    if (s->n_blocks == 0 || s->n_blocks > UINT32_MAX / s->block_tokens ||
        !mem_mul(l.block_stride, s->n_blocks, &bytes))
        return err_set(e, ST_EINVAL, "kv: %u blocks of %llu bytes", s->n_blocks,
                       (unsigned long long)l.block_stride);
    struct be_kv *kv = mem_zalloc(1, sizeof *kv);
    if (!kv)
        return err_set(e, ST_ENOMEM, "kv: no memory");
    kv->kv = l;
    kv->kv.pool = gpu_alloc(b->gpu, bytes);
    if (!kv->kv.pool) {
        mem_free(kv);
        return cu_backend_no_memory(b, e, "KV cache", bytes, "--kv-bytes");
    }
    b->kv = kv;
    *out = kv;
    return ST_OK;
}

static void kv_destroy(struct be *be, struct be_kv *kv)
{
    struct cu_be *b = (struct cu_be *)be;
    if (!kv)
        return;
    quiet(b);
    if (b->kv == kv)
        b->kv = NULL;
    gpu_free(b->gpu, kv->kv.pool);
    mem_free(kv);
}

static void act_destroy(struct be *be, struct be_act *a)
{
    struct cu_be *b = (struct cu_be *)be;
    if (!a)
        return;
    quiet(b);
    gpu_free(b->gpu, a->x);
    gpu_free(b->gpu, a->q);
    gpu_free(b->gpu, a->scale);
    mem_free(a);
}

static int act_create(struct be *be, uint32_t max_rows, uint32_t max_k, struct be_act **out)
{
    struct cu_be *b = (struct cu_be *)be;
    if (gpu_failure(b->gpu))
        return ST_EDEVICE;
    if (max_rows == 0 || max_rows > 1u << 20 || max_k == 0 || max_k > 1u << 24)
        return ST_EINVAL;
    struct be_act *a = mem_zalloc(1, sizeof *a);
    if (!a)
        return ST_ENOMEM;
    a->max_rows = max_rows;
    a->max_k = cu_round_up(max_k, CU_K_ALIGN);
    size_t values = (size_t)max_rows * a->max_k;
    a->x = gpu_alloc(b->gpu, values * 2);
    a->q = gpu_alloc(b->gpu, values);
    a->scale = gpu_alloc(b->gpu, max_rows * sizeof *a->scale);
    if (!a->x || !a->q || !a->scale) {
        act_destroy(be, a);
        return gpu_failure(b->gpu) ? ST_EDEVICE : ST_ENOMEM;
    }
    *out = a;
    return ST_OK;
}

static void *buffer_create(struct be *be, size_t bytes)
{
    return gpu_alloc(((struct cu_be *)be)->gpu, bytes);
}

static void buffer_destroy(struct be *be, void *p)
{
    struct cu_be *b = (struct cu_be *)be;
    if (!p)
        return;
    quiet(b);
    gpu_free(b->gpu, p);
}

/* Host memory of any kind, behind the steps launched so far: through a pinned buffer, piece by piece. */
static int transfer(struct cu_be *b, uint8_t *dst, const uint8_t *src, size_t bytes, bool up)
{
    int st = gpu_failure(b->gpu) ? ST_EDEVICE : ST_OK;
    for (size_t at = 0; at < bytes && st == ST_OK; at += CU_BOUNCE_BYTES) {
        size_t n = bytes - at < CU_BOUNCE_BYTES ? bytes - at : CU_BOUNCE_BYTES;
        if (up)
            memcpy(b->bounce, src + at, n);
        st = up ? gpu_copy(b->stream, dst + at, b->bounce, n) : gpu_copy(b->stream, b->bounce, src + at, n);
        if (st == ST_OK)
            st = gpu_stream_sync(b->stream);
        if (st == ST_OK && !up)
            memcpy(dst + at, b->bounce, n);
    }
    return st;
}

int cu_backend_upload(struct cu_be *b, void *dst, const void *src, size_t bytes)
{
    return transfer(b, dst, src, bytes, true);
}

static int upload(struct be *be, void *dst, const void *host, size_t bytes)
{
    return cu_backend_upload((struct cu_be *)be, dst, host, bytes);
}

static int download(struct be *be, void *host, const void *src, size_t bytes)
{
    return transfer((struct cu_be *)be, host, src, bytes, false);
}

static int memory(struct be *be, uint64_t *free_bytes, uint64_t *total_bytes)
{
    return gpu_memory(((struct cu_be *)be)->gpu, free_bytes, total_bytes);
}

static void *host_alloc(struct be *be, size_t bytes)
{
    return gpu_host_alloc(((struct cu_be *)be)->gpu, bytes);
}

static void host_free(struct be *be, void *p)
{
    struct cu_be *b = (struct cu_be *)be;
    if (!p)
        return;
    quiet(b);
    gpu_host_free(b->gpu, p);
}

/* The host only launches: there are no threads to wake. */
static void wake(struct be *be)
{
    (void)be;
}

static const char *describe(const struct be *be)
{
    return ((const struct cu_be *)be)->describe;
}

/* ---- the backend ------------------------------------------------------------------------------------------------- */

static void destroy(struct be *be)
{
    struct cu_be *b = (struct cu_be *)be;
    if (b->gpu) {
        cu_load_close(b);
        quiet(b);
        cu_limits_free(b);
        for (int i = 0; i < CU_TICKETS; i++)
            gpu_event_destroy(b->copies.done[i]);
        gpu_event_destroy(b->copies.loaded);
        for (int i = 0; i < CU_BLOBS; i++) {
            gpu_event_destroy(b->slot[i].copied);
            gpu_event_destroy(b->slot[i].done);
        }
        gpu_host_free(b->gpu, b->bounce);
        cu_lt_destroy(b->lt);
        struct gpu_stream *streams[] = {b->stream, b->blobs, b->store, b->load};
        for (int i = 0; i < 4; i++)
            gpu_stream_destroy(streams[i]);
        gpu_close(b->gpu);
    }
    mem_free(b);
}

static const struct be_ops cuda_ops = {
    .name = "cuda",
    .depth = CU_BLOBS,
    .masks = true,
    .destroy = destroy,
    .describe = describe,
    .weight_create = cu_weight_create,
    .weight_destroy = cu_weight_destroy,
    .weight_bytes = cu_weight_bytes,
    .kv_create = kv_create,
    .kv_destroy = kv_destroy,
    .kv_block_bytes = kv_block_bytes,
    .act_create = act_create,
    .act_destroy = act_destroy,
    .buffer_create = buffer_create,
    .buffer_destroy = buffer_destroy,
    .upload = upload,
    .download = download,
    .memory = memory,
    .host_alloc = host_alloc,
    .host_free = host_free,
    .kv_store = cu_copy_store,
    .kv_load = cu_copy_load,
    .copy_poll = cu_copy_poll,
    .wake = wake,
    .step_limits = cu_limits_set,
    .begin_step = cu_run_begin,
    .end_step = cu_run_end,
    .wait_step = cu_run_wait,
    .embed = cu_ops_embed,
    .norm = cu_ops_norm,
    .qkv = cu_ops_qkv,
    .attention = cu_ops_attention,
    .linear_add = cu_ops_linear_add,
    .gated = cu_ops_gated,
    .logits = cu_ops_logits,
    .sample = cu_ops_sample,
};

static bool is(const char *option, const char *value)
{
    return option && strcmp(option, value) == 0;
}

static int read_options(struct cu_be *b, const struct be_options *o, struct err *e)
{
    b->be.ops = &cuda_ops;
    b->graphs = !o->no_graphs;
    b->fp8 = is(o->quantization, "fp8");
    b->xt = is(o->dtype, "float16") ? CU_F16 : CU_BF16;
    if (o->quantization && !b->fp8 && !is(o->quantization, "none"))
        return err_set(e, ST_EINVAL, "quantization: '%s' is none of none, fp8", o->quantization);
    if (o->dtype && b->xt == CU_BF16 && !is(o->dtype, "auto") && !is(o->dtype, "bfloat16"))
        return err_set(e, ST_EINVAL, "dtype: '%s' is none of auto, bfloat16, float16", o->dtype);
    return ST_OK;
}

static int open_device(struct cu_be *b, struct err *e)
{
    int st = gpu_open(&b->gpu, e);
    if (st)
        return st;
    struct gpu_stream **streams[] = {&b->stream, &b->blobs, &b->store, &b->load};
    for (int i = 0; i < 4 && st == ST_OK; i++)
        st = gpu_stream_create(b->gpu, streams[i]);
    for (int i = 0; i < CU_BLOBS && st == ST_OK; i++) {
        st = gpu_event_create(b->gpu, false, &b->slot[i].copied);
        if (st == ST_OK)
            st = gpu_event_create(b->gpu, false, &b->slot[i].done);
    }
    for (int i = 0; i < CU_TICKETS && st == ST_OK; i++)
        st = gpu_event_create(b->gpu, false, &b->copies.done[i]);
    if (st == ST_OK)
        st = gpu_event_create(b->gpu, false, &b->copies.loaded);
    if (st)
        return gpu_failure(b->gpu) ? cu_backend_failed(b, e)
                                   : err_set(e, st, "cuda: no memory for streams and events");
    b->bounce = gpu_host_alloc(b->gpu, CU_BOUNCE_BYTES);
    if (gpu_failure(b->gpu))
        return cu_backend_failed(b, e);
    return b->bounce ? ST_OK : err_set(e, ST_ENOMEM, "cuda: no pinned host memory");
}

int cuda_backend_create(struct be **out, const struct be_options *o, struct err *e)
{
    struct cu_be *b = mem_zalloc(1, sizeof *b);
    if (!b)
        return err_set(e, ST_ENOMEM, "cuda: no memory");
    int st = read_options(b, o, e);
    if (st == ST_OK)
        st = open_device(b, e);
    if (st == ST_OK && !o->deterministic) {
        st = cu_lt_create(&b->lt, b->gpu, o->cache_dir, e);
        if (st == ST_EUNSUP) /* the tile kernel does its work */
            st = ST_OK;
    }
    if (st) {
        destroy(&b->be);
        return st;
    }
    const struct gpu_info *i = gpu_info(b->gpu);
    snprintf(b->describe, sizeof b->describe, "cuda, %s, %u SMs, %s%s%s%s", i->name, i->sms,
             b->xt == CU_F16 ? "f16" : "bf16", b->fp8 ? ", fp8 weights" : "",
             b->lt              ? ""
             : o->deterministic ? ", deterministic"
                                : ", own products only",
             b->graphs ? ", graphs" : "");
    *out = &b->be;
    return ST_OK;
}
