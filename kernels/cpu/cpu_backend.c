/* The CPU's op table, and the objects that are made through it. Device memory is host memory here, so upload and download
 * are copies, and a step's results are there as soon as its last op returns. So are copies of blocks when their call returns: a
 * thread of their own would take its time from the steps, which are bound by the same memory.
 *
 * Every compute thread runs with denormals flushed: their products cost a factor of two in the matrix kernels, and the
 * numeric contract counts on it. The pool's threads set it once; the caller has it between begin_step and end_step. */
#include "cpu_backend.h"

#include "cpu_be.h"
#include "mem.h"

#include <immintrin.h>
#include <stdio.h>
#include <string.h>

enum { MXCSR_FTZ_DAZ = 0x8040, LINE = 64 };

int cpu_be_scratch(struct cpu_be *b, size_t bytes)
{
    bytes = (bytes + 4095) & ~(size_t)4095;
    if (bytes <= b->scratch_bytes)
        return ST_OK;
    uint32_t threads = cpu_pool_threads(b->pool);
    size_t total;
    if (!mem_mul(bytes, threads, &total))
        return ST_ENOMEM;
    char *p = mem_map(total);
    if (!p)
        return ST_ENOMEM;
    mem_unmap(b->scratch, b->scratch_bytes * threads);
    b->scratch = p;
    b->scratch_bytes = bytes;
    return ST_OK;
}

static void destroy(struct be *be)
{
    struct cpu_be *b = (struct cpu_be *)be;
    mem_unmap(b->scratch, b->pool ? b->scratch_bytes * cpu_pool_threads(b->pool) : 0);
    cpu_pool_destroy(b->pool);
    mem_free(b);
}

static size_t weight_bytes(const struct be_weight *w)
{
    return w->bytes;
}

static int kv_create(struct be *be, const struct be_kv_shape *s, struct be_kv **out, struct err *e)
{
    struct cpu_be *b = (struct cpu_be *)be;
    struct be_kv *kv = mem_zalloc(1, sizeof *kv);
    if (!kv)
        return err_set(e, ST_ENOMEM, "kv: no memory");
    int st = cpu_kv_layout_init(&kv->view.l, s, e);
    if (st == ST_OK && cpu_be_scratch(b, cpu_attn_scratch_bytes(s->head_dim)))
        st = err_set(e, ST_ENOMEM, "kv: no memory for attention scratch");
    if (st == ST_OK) {
        kv->view.base = mem_map(kv->view.l.total_bytes);
        if (!kv->view.base)
            st = err_set(e, ST_ENOMEM, "kv: no memory for %u blocks of %zu bytes", s->n_blocks,
                         kv->view.l.block_bytes);
    }
    if (st) {
        mem_free(kv);
        return st;
    }
    *out = kv;
    return ST_OK;
}

static void kv_destroy(struct be *be, struct be_kv *kv)
{
    (void)be;
    if (kv)
        mem_unmap(kv->view.base, kv->view.l.total_bytes);
    mem_free(kv);
}

static size_t kv_block_bytes(struct be *be, const struct be_kv_shape *s)
{
    (void)be;
    struct cpu_kv_layout l;
    return cpu_kv_layout_init(&l, s, NULL) == ST_OK ? l.block_bytes : 0;
}

static int act_create(struct be *be, uint32_t max_rows, uint32_t max_k, struct be_act **out)
{
    (void)be;
    if (max_rows == 0 || max_rows > 1u << 20 || max_k == 0 || max_k > 1u << 24)
        return ST_EINVAL;
    struct be_act *a = mem_zalloc(1, sizeof *a);
    if (!a)
        return ST_ENOMEM;
    size_t panels = (max_rows + CPU_PANEL - 1) / CPU_PANEL;
    size_t panel_bytes = cpu_linear_panel_bytes(CPU_F32, max_k); /* the widest class */
    size_t rows_bytes = (size_t)max_rows * max_k * sizeof(float);
    a->max_rows = max_rows;
    a->max_k = max_k;
    a->map_bytes = panels * panel_bytes + rows_bytes;
    a->panels = mem_map(a->map_bytes);
    if (!a->panels) {
        mem_free(a);
        return ST_ENOMEM;
    }
    a->rows = (float *)(a->panels + panels * panel_bytes);
    *out = a;
    return ST_OK;
}

static void act_destroy(struct be *be, struct be_act *a)
{
    (void)be;
    if (a)
        mem_unmap(a->panels, a->map_bytes);
    mem_free(a);
}

/* The size stands in the line before the buffer. */
static void *buffer_create(struct be *be, size_t bytes)
{
    (void)be;
    size_t total;
    if (!mem_add(bytes, LINE, &total))
        return NULL;
    char *p = mem_map(total);
    if (!p)
        return NULL;
    memcpy(p, &total, sizeof total);
    return p + LINE;
}

static void buffer_destroy(struct be *be, void *p)
{
    (void)be;
    if (!p)
        return;
    size_t total;
    memcpy(&total, (char *)p - LINE, sizeof total);
    mem_unmap((char *)p - LINE, total);
}

static int copy(struct be *be, void *dst, const void *src, size_t bytes)
{
    (void)be;
    memcpy(dst, src, bytes);
    return ST_OK;
}

/* Both ways; a step's half may be in the blocks while one is open. */
static int copy_blocks(struct cpu_be *b, struct be_kv *kv, const struct be_block_copy *list, uint32_t n,
                       bool store, uint64_t *ticket)
{
    size_t bytes = kv->view.l.block_bytes;
    if (n == 0 || b->in_step)
        return ST_EINVAL;
    for (uint32_t i = 0; i < n; i++)
        if (list[i].block >= kv->view.l.n_blocks || !list[i].host)
            return ST_EINVAL;
    for (uint32_t i = 0; i < n; i++) {
        char *block = (char *)kv->view.base + list[i].block * bytes;
        memcpy(store ? list[i].host : block, store ? block : list[i].host, bytes);
    }
    *ticket = b->n_copies++;
    return ST_OK;
}

static int kv_store(struct be *be, struct be_kv *kv, const struct be_block_copy *list, uint32_t n,
                    uint64_t *ticket)
{
    return copy_blocks((struct cpu_be *)be, kv, list, n, true, ticket);
}

static int kv_load(struct be *be, struct be_kv *kv, const struct be_block_copy *list, uint32_t n,
                   uint64_t *ticket)
{
    return copy_blocks((struct cpu_be *)be, kv, list, n, false, ticket);
}

static int copy_poll(struct be *be, uint64_t ticket)
{
    return ticket < ((struct cpu_be *)be)->n_copies ? 1 : ST_EINVAL;
}

static void wake(struct be *be)
{
    cpu_pool_wake(((struct cpu_be *)be)->pool);
}

static int begin_step(struct be *be, const struct be_batch *batch)
{
    struct cpu_be *b = (struct cpu_be *)be;
    (void)batch;
    uint32_t csr = _mm_getcsr();
    if (!b->in_step)
        b->mxcsr = csr;
    b->in_step = true;
    _mm_setcsr(csr | MXCSR_FTZ_DAZ);
    cpu_pool_wake(b->pool);
    return ST_OK;
}

static int end_step(struct be *be, struct err *e)
{
    (void)e;
    struct cpu_be *b = (struct cpu_be *)be;
    if (b->in_step)
        _mm_setcsr(b->mxcsr);
    b->in_step = false;
    return ST_OK;
}

/* Steps run inside their ops: there is nothing to prepare and nothing to wait for. */
static int step_limits(struct be *be, const struct be_step_limits *l, struct err *e)
{
    (void)be;
    (void)l;
    (void)e;
    return ST_OK;
}

static int wait_step(struct be *be, struct err *e)
{
    (void)be;
    (void)e;
    return ST_OK;
}

static const char *describe(const struct be *be)
{
    return ((const struct cpu_be *)be)->describe;
}

static const struct be_ops cpu_ops = {
    .name = "cpu",
    .depth = 1,
    .masks = true,
    .destroy = destroy,
    .describe = describe,
    .weight_create = cpu_pack_weight,
    .weight_destroy = cpu_pack_destroy,
    .weight_bytes = weight_bytes,
    .kv_create = kv_create,
    .kv_destroy = kv_destroy,
    .kv_block_bytes = kv_block_bytes,
    .act_create = act_create,
    .act_destroy = act_destroy,
    .buffer_create = buffer_create,
    .buffer_destroy = buffer_destroy,
    .upload = copy,
    .download = copy,
    .host_alloc = buffer_create,
    .host_free = buffer_destroy,
    .kv_store = kv_store,
    .kv_load = kv_load,
    .copy_poll = copy_poll,
    .wake = wake,
    .step_limits = step_limits,
    .begin_step = begin_step,
    .end_step = end_step,
    .wait_step = wait_step,
    .embed = cpu_op_embed,
    .norm = cpu_op_norm,
    .qkv = cpu_op_qkv,
    .attention = cpu_op_attention,
    .linear_add = cpu_op_linear_add,
    .gated = cpu_op_gated,
    .logits = cpu_op_logits,
    .sample = cpu_op_sample,
};

int cpu_backend_create(struct be **out, const struct be_options *o, struct err *e)
{
    struct cpu_be *b = mem_zalloc(1, sizeof *b);
    if (!b)
        return err_set(e, ST_ENOMEM, "cpu: no memory");
    b->be.ops = &cpu_ops;
    b->exact = o->cpu_exact;
    int s = cpu_pick_init(&b->pick, o->cpu_isa, e);
    if (s == ST_OK)
        s = cpu_pool_create(&b->pool, o->threads, e);
    if (s == ST_OK && cpu_be_scratch(b, CPU_OPS_SCRATCH))
        s = err_set(e, ST_ENOMEM, "cpu: no memory for scratch");
    if (s) {
        destroy(&b->be);
        return s;
    }
    uint32_t threads = cpu_pool_threads(b->pool);
    snprintf(b->describe, sizeof b->describe, "cpu, %u thread%s, %s%s", threads, threads == 1 ? "" : "s",
             b->pick.label, b->exact ? ", exact" : "");
    *out = &b->be;
    return ST_OK;
}
