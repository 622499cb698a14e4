/* The library's choices for the weights that are there, timed at start: before a graph captures one of them, and before the first
 * prompt would wait for it. Every shape once per bucket of rows, on values of the size that activations have (what the matrix
 * units draw, and so their clock, depends on it). Without room for the attempt the library's first proposal will do. */
#include "cu_be.h"

#include <string.h>

struct trial {
    uint8_t *x;  /* [rows][widest ld] of any type */
    float *ones; /* [rows] scales */
    uint8_t *y;  /* [rows][widest output] */
};

/* Of deviation about 1 in every type: a random sign and mantissa under a fixed exponent. */
static void fill_values(void *ctx, uint64_t row0, uint32_t n, uint8_t *out)
{
    bool wide = *(const enum cu_type *)ctx != CU_E4M3, bf16 = *(const enum cu_type *)ctx == CU_BF16;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t h = (uint32_t)((row0 + i) * 0x9e3779b97f4a7c15u >> 40), sign = h >> 16 & 1;
        uint16_t v = (uint16_t)(sign << 15 | (bf16 ? 0x3f00u | (h & 0x7fu) : 0x3800u | (h & 0x3ffu)));
        if (wide)
            memcpy(out + 2 * (size_t)i, &v, 2);
        else
            out[i] = (uint8_t)(sign << 7 | 0x30u | (h & 7u));
    }
}

static void fill_ones(void *ctx, uint64_t row0, uint32_t n, uint8_t *out)
{
    (void)row0;
    for (uint32_t i = 0; i < n; i++)
        memcpy(out + 4 * (size_t)i, ctx, 4);
}

/* How the ops use a weight, with the gated one stored plainly. */
static struct cu_lin product(const struct cu_be *b, const struct be_weight *w, const struct trial *t,
                             uint32_t m)
{
    bool plain = w->use == BE_USE_QKV || w->use == BE_USE_GATED;
    return (struct cu_lin){.w = w->data,
                           .x = t->x,
                           .w_scale = w->scale,
                           .x_scale = w->type == CU_E4M3 ? t->ones : NULL,
                           .y = t->y,
                           .m = m,
                           .n = w->n_pad,
                           .k = w->ld,
                           .ldx = w->ld,
                           .ldy = plain ? w->n_pad : w->n,
                           .n_out = w->use == BE_USE_GATED ? w->n_pad : w->n,
                           .wt = w->type,
                           .yt = plain ? b->xt : CU_F32,
                           .epilogue = w->use == BE_USE_LINEAR ? CU_ADD : CU_STORE};
}

static bool seen_before(const struct be_weight *w)
{
    for (const struct be_weight *v = w->next; v; v = v->next)
        if (v->use == w->use && v->type == w->type && v->n == w->n && v->ld == w->ld)
            return true;
    return false;
}

static uint32_t rows_of(const struct cu_be *b, const struct be_weight *w)
{
    return w->use == BE_USE_EMBED ? b->limits.max_logits : b->limits.max_rows;
}

static int tune_weight(struct cu_be *b, const struct be_weight *w, const struct trial *t)
{
    enum cu_type type = (enum cu_type)w->type;
    uint32_t max = rows_of(b, w), m = CU_STREAM_ROWS;
    int st = cu_load_rows(b, t->x, cu_type_bytes(type), (uint64_t)max * w->ld, fill_values, &type);
    if (st == ST_OK)
        st = cu_load_close(b);
    while (m < max && st == ST_OK) {
        uint32_t next = cu_lt_bucket(m + 1);
        if (next <= m) /* the last bucket */
            break;
        m = next < max ? next : max;
        struct cu_lin p = product(b, w, t, m);
        st = cu_lt_tune(b->lt, b->stream, &p);
        if (st == ST_EUNSUP)
            return ST_OK;
    }
    return st;
}

int cu_tune_all(struct cu_be *b)
{
    struct trial t = {0};
    size_t x = 0, y = 0;
    float one = 1;
    for (const struct be_weight *w = b->weights; w; w = w->next) {
        if (w->use == BE_USE_VECTOR)
            continue;
        size_t rows = rows_of(b, w), in = rows * w->ld * cu_type_bytes((enum cu_type)w->type),
               out = rows * w->n_pad * 4;
        x = in > x ? in : x;
        y = out > y ? out : y;
    }
    t.x = gpu_alloc(b->gpu, x);
    t.y = gpu_alloc(b->gpu, y);
    t.ones = gpu_alloc(b->gpu, b->limits.max_rows * sizeof one);
    bool room = t.x && t.y && t.ones;
    int st = room ? cu_load_rows(b, t.ones, sizeof one, b->limits.max_rows, fill_ones, &one) : ST_OK;
    for (const struct be_weight *w = b->weights; w && room && st == ST_OK; w = w->next)
        if (w->use != BE_USE_VECTOR && !seen_before(w))
            st = tune_weight(b, w, &t);
    if (st == ST_OK)
        st = gpu_stream_sync(b->stream);
    cu_load_close(b);
    gpu_free(b->gpu, t.x);
    gpu_free(b->gpu, t.y);
    gpu_free(b->gpu, t.ones);
    return gpu_failure(b->gpu) ? ST_EDEVICE : st;
}
