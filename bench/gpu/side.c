/* Both backends get the same values: they are drawn as the stored type has them, and the reference gets them as f32. */
#include "side.h"

#include "cpu_half.h"
#include "mem.h"

#include <math.h>
#include <string.h>

enum { PLACES = 1 << 16 };

/* ---- weights ----------------------------------------------------------------------------------------------------- */

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static float uniform(uint32_t *seed)
{
    return (float)next(seed) / 8388608.0f - 1;
}

/* Cut, not rounded: any f16 value will do. */
static uint16_t to_f16(float v)
{
    uint32_t u = cpu_bits_f32(v);
    int32_t e = (int32_t)(u >> 23 & 255) - 112;
    return e <= 0 ? 0 : (uint16_t)((u >> 16 & 0x8000) | (uint32_t)e << 10 | (u >> 13 & 0x3ff));
}

static float from_e4m3(uint8_t b)
{
    int e = b >> 3 & 15, m = b & 7;
    float v = e != 0 ? ldexpf((float)(8 + m), e - 10) : ldexpf((float)m, -9);
    return b & 0x80 ? -v : v;
}

/* One value of `type`, deviation about dev (e4m3: 1/4, the row's scale does the rest), and what it stands for. */
static float put(uint8_t *p, enum be_type type, float dev, uint32_t *seed)
{
    uint16_t h;
    if (type == BE_E4M3) {
        *p = (uint8_t)((next(seed) & 0x87) | (3 + next(seed) % 4) << 3);
        return from_e4m3(*p);
    }
    float v = uniform(seed) * dev * 1.732f;
    h = type == BE_BF16 ? cpu_f32_bf16(v) : to_f16(v);
    memcpy(p, &h, 2);
    return type == BE_BF16 ? cpu_bf16_f32(h) : cpu_f16_f32(h);
}

struct made {
    uint8_t *stored; /* as the type has them */
    float *values;   /* what they stand for */
    float *scales;
};

static void drop(struct made *m)
{
    mem_free(m->stored);
    mem_free(m->values);
    mem_free(m->scales);
}

/* Rows are pieces of one random table, from places that the row chooses: made at the speed of memory. */
static bool make(struct made *m, enum be_type type, uint32_t rows, uint32_t k, uint32_t seed)
{
    size_t n = (size_t)rows * k, es = type == BE_E4M3 ? 1 : 2, table = (size_t)PLACES + k;
    uint8_t *stored = mem_alloc(table * es);
    float *values = mem_alloc(table * sizeof *values);
    *m = (struct made){mem_alloc(n * es), mem_alloc(n * sizeof(float)), mem_alloc(rows * sizeof(float))};
    bool ok = stored && values && m->stored && m->values && m->scales;
    for (size_t i = 0; ok && i < table; i++)
        values[i] = put(stored + i * es, type, 1 / sqrtf((float)k), &seed);
    for (size_t i = 0; ok && i < rows; i++) {
        size_t place = next(&seed) % PLACES;
        m->scales[i] = type == BE_E4M3 ? (3 + uniform(&seed)) / sqrtf((float)k) : 1;
        memcpy(m->stored + i * k * es, stored + place * es, k * es);
        for (size_t j = 0; j < k; j++)
            m->values[i * k + j] = m->scales[i] * values[place + j];
    }
    mem_free(stored);
    mem_free(values);
    return ok;
}

struct maker {
    struct be *be;
    const struct side_dims *dims;
    enum be_type type;
    bool exact;
    uint32_t seed;
    int rc;
    struct err *e;
};

/* Parts of rows[i] outputs each; NULL after a failure, which sticks. */
static struct be_weight *matrix(struct maker *w, enum be_weight_use use, enum be_type type, const uint32_t *rows, uint32_t n,
                                uint32_t k)
{
    struct be_weight_desc d = {.use = use, .k = k, .n_parts = n, .name = "random"};
    struct be_weight *out = NULL;
    struct made m[3] = {{0}};
    d.head_dim = use == BE_USE_QKV ? w->dims->head_dim : 0;
    d.rope_interleaved = use == BE_USE_QKV && w->dims->interleaved;
    for (uint32_t i = 0; i < n; i++) {
        if (!make(&m[i], type, rows[i], k, ++w->seed) && w->rc == ST_OK)
            w->rc = err_set(w->e, ST_ENOMEM, "out of memory");
        d.parts[i] = (struct be_part){w->exact ? BE_F32 : type, rows[i], w->exact ? (void *)m[i].values : m[i].stored,
                                      type == BE_E4M3 && !w->exact ? m[i].scales : NULL};
    }
    if (w->rc == ST_OK)
        w->rc = w->be->ops->weight_create(w->be, &d, &out, w->e);
    for (uint32_t i = 0; i < n; i++)
        drop(&m[i]);
    return out;
}

static struct be_weight *vector(struct maker *w, uint32_t k, float middle)
{
    struct be_weight_desc d = {.use = BE_USE_VECTOR, .k = k, .n_parts = 1, .name = "random vector"};
    struct be_weight *out = NULL;
    float *v = mem_alloc(k * sizeof *v);
    w->seed++;
    uint32_t seed = w->seed;
    for (uint32_t i = 0; v != NULL && i < k; i++)
        v[i] = middle + 0.25f * uniform(&seed);
    d.parts[0] = (struct be_part){BE_F32, 1, v, NULL};
    if (w->rc == ST_OK)
        w->rc = v != NULL ? w->be->ops->weight_create(w->be, &d, &out, w->e) : err_set(w->e, ST_ENOMEM, "out of memory");
    mem_free(v);
    return out;
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

static void make_weights(struct side *s, struct maker *w, const struct side_form *form)
{
    const struct side_dims *m = s->dims;
    uint32_t q = m->n_heads * m->head_dim, kv = m->n_kv_heads * m->head_dim;
    s->embed = matrix(w, BE_USE_EMBED, form->half, &m->vocab, 1, m->d);
    s->head = matrix(w, BE_USE_EMBED, form->half, &m->vocab, 1, m->d);
    s->gain = vector(w, m->d, 1);
    s->qkv = matrix(w, BE_USE_QKV, form->weights, (uint32_t[]){q, kv, kv}, 3, m->d);
    s->o = matrix(w, BE_USE_LINEAR, form->weights, &m->d, 1, q);
    s->gated = matrix(w, BE_USE_GATED, form->weights, (uint32_t[]){m->ffn, m->ffn}, 2, m->d);
    s->down = matrix(w, BE_USE_LINEAR, form->weights, &m->d, 1, m->ffn);
    if (m->bias) {
        s->qkv_bias = vector(w, q + 2 * kv, 0);
        s->gated_bias = vector(w, 2 * m->ffn, 0);
    }
}

static int make_rope(struct side *s)
{
    uint32_t pairs = s->dims->head_dim / 2;
    size_t bytes = (size_t)SIDE_CONTEXT * pairs * 2 * sizeof(float);
    float *host = mem_alloc(bytes);
    for (uint32_t p = 0; host != NULL && p < SIDE_CONTEXT; p++)
        for (uint32_t i = 0; i < pairs; i++) {
            double angle = p * pow(10000, -(double)i / pairs);
            host[((size_t)p * pairs + i) * 2] = (float)cos(angle);
            host[((size_t)p * pairs + i) * 2 + 1] = (float)sin(angle);
        }
    int rc = host != NULL && s->rope != NULL ? s->be->ops->upload(s->be, s->rope, host, bytes) : ST_ENOMEM;
    mem_free(host);
    return rc;
}

static int make_buffers(struct side *s, const struct side_form *form, struct err *e)
{
    const struct be_ops *ops = s->be->ops;
    const struct side_dims *m = s->dims;
    uint32_t q = m->n_heads * m->head_dim;
    struct be_kv_shape shape = {1, m->n_kv_heads, m->head_dim, SIDE_BLOCK, SIDE_SPANS * (SIDE_CONTEXT / SIDE_BLOCK), form->kv};
    struct be_step_limits limits = {SIDE_ROWS, SIDE_SPANS, SIDE_ROWS, SIDE_CONTEXT, shape.n_blocks, m->vocab};
    int rc = ops->kv_create(s->be, &shape, &s->kv, e);
    if (rc != ST_OK)
        return rc;
    s->x = ops->buffer_create(s->be, (size_t)SIDE_ROWS * m->d * sizeof(float));
    s->x_attn = ops->buffer_create(s->be, (size_t)SIDE_ROWS * m->d * sizeof(float));
    s->x_ffn = ops->buffer_create(s->be, (size_t)SIDE_ROWS * m->d * sizeof(float));
    s->q = ops->buffer_create(s->be, (size_t)SIDE_ROWS * q * sizeof(float));
    s->logits = ops->buffer_create(s->be, (size_t)SIDE_ROWS * m->vocab * sizeof(float));
    s->rope = ops->buffer_create(s->be, (size_t)SIDE_CONTEXT * m->head_dim * sizeof(float));
    if (!s->x || !s->x_attn || !s->x_ffn || !s->q || !s->logits || make_rope(s) != ST_OK ||
        ops->act_create(s->be, SIDE_ROWS, q > m->d ? q : m->d, &s->act) != ST_OK ||
        ops->act_create(s->be, SIDE_ROWS, m->ffn, &s->act_ffn) != ST_OK)
        return err_set(e, ST_ENOMEM, "%s: out of memory", ops->name);
    return ops->step_limits(s->be, &limits, e);
}

int side_open(struct side *s, struct be *be, const struct side_dims *dims, const struct side_form *form, bool exact,
              struct err *e)
{
    *s = (struct side){.be = be, .dims = dims};
    struct maker w = {be, dims, form->weights, exact, 1, ST_OK, e};
    make_weights(s, &w, form);
    int rc = w.rc == ST_OK ? make_buffers(s, form, e) : w.rc;
    if (rc != ST_OK)
        side_close(s);
    return rc;
}

void side_close(struct side *s)
{
    if (s->be == NULL)
        return;
    const struct be_ops *ops = s->be->ops;
    struct be_weight *weights[] = {s->embed, s->head,     s->gain,  s->qkv,       s->qkv_bias,
                                   s->o,     s->gated,    s->down,  s->gated_bias};
    float *buffers[] = {s->x, s->x_attn, s->x_ffn, s->q, s->rope, s->logits};
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        if (weights[i] != NULL)
            ops->weight_destroy(s->be, weights[i]);
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        if (buffers[i] != NULL)
            ops->buffer_destroy(s->be, buffers[i]);
    if (s->act != NULL)
        ops->act_destroy(s->be, s->act);
    if (s->act_ffn != NULL)
        ops->act_destroy(s->be, s->act_ffn);
    if (s->kv != NULL)
        ops->kv_destroy(s->be, s->kv);
    be_destroy(s->be);
    *s = (struct side){0};
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static int embed(struct side *s, const struct be_batch *b, float *x)
{
    struct op_embed p = {b, s->embed, 1, x};
    return s->be->ops->embed(s->be, &p);
}

static int norm(struct side *s, uint32_t n, const uint32_t *rows, const float *x, const struct be_weight *consumer)
{
    struct op_norm p = {n, rows, s->dims->d, x, s->gain, 1e-5f, consumer, s->act};
    return s->be->ops->norm(s->be, &p);
}

static int attention_block(struct side *s, const struct be_batch *b)
{
    const struct side_dims *m = s->dims;
    const struct be_ops *ops = s->be->ops;
    struct op_qkv qkv = {b, s->act, s->qkv, s->qkv_bias, s->rope, m->head_dim, m->n_heads, m->n_kv_heads, m->head_dim, 0, s->kv,
                         s->q};
    struct op_attention attention = {b,          s->q,        s->kv,     0,   m->n_heads, m->n_kv_heads, m->head_dim,
                                     m->window, 1 / sqrtf((float)m->head_dim), s->o, s->act};
    struct op_linear_add o = {b->n_rows, s->act, s->o, NULL, s->x_attn};
    int rc = embed(s, b, s->x_attn);
    if (rc == ST_OK)
        rc = norm(s, b->n_rows, NULL, s->x_attn, s->qkv);
    if (rc == ST_OK)
        rc = ops->qkv(s->be, &qkv);
    if (rc == ST_OK)
        rc = ops->attention(s->be, &attention);
    return rc == ST_OK ? ops->linear_add(s->be, &o) : rc;
}

static int ffn_block(struct side *s, const struct be_batch *b)
{
    const struct be_ops *ops = s->be->ops;
    struct op_gated gated = {b->n_rows, s->act, s->gated, s->gated_bias, s->down, s->act_ffn};
    struct op_linear_add down = {b->n_rows, s->act_ffn, s->down, NULL, s->x_ffn};
    int rc = embed(s, b, s->x_ffn);
    if (rc == ST_OK)
        rc = norm(s, b->n_rows, NULL, s->x_ffn, s->gated);
    if (rc == ST_OK)
        rc = ops->gated(s->be, &gated);
    return rc == ST_OK ? ops->linear_add(s->be, &down) : rc;
}

/* begin_step, what `rc` says of the ops, and the step's end. */
static int finish(struct side *s, int rc, struct err *e)
{
    int end = s->be->ops->end_step(s->be, e);
    if (end == ST_OK)
        end = s->be->ops->wait_step(s->be, e);
    if (rc == ST_OK || e->status != ST_OK)
        return rc == ST_OK ? end : rc;
    return err_set(e, rc, "%s: an op refused its shapes", s->be->ops->name);
}

int side_step(struct side *s, const struct be_batch *b, struct side_result *out, struct err *e)
{
    const struct be_ops *ops = s->be->ops;
    const struct side_dims *m = s->dims;
    struct op_logits logits = {b->n_logits, s->act, s->head, s->logits};
    size_t row = m->d * sizeof(float);
    int rc = ops->begin_step(s->be, b);
    if (rc == ST_OK)
        rc = attention_block(s, b);
    if (rc == ST_OK)
        rc = ffn_block(s, b);
    if (rc == ST_OK)
        rc = embed(s, b, s->x);
    if (rc == ST_OK)
        rc = norm(s, b->n_logits, b->logit_rows, s->x, s->head);
    if (rc == ST_OK)
        rc = ops->logits(s->be, &logits);
    rc = finish(s, rc, e);
    if (rc == ST_OK && (ops->download(s->be, out->x, s->x, b->n_rows * row) != ST_OK ||
                        ops->download(s->be, out->attn, s->x_attn, b->n_rows * row) != ST_OK ||
                        ops->download(s->be, out->ffn, s->x_ffn, b->n_rows * row) != ST_OK ||
                        ops->download(s->be, out->logits, s->logits, (size_t)b->n_logits * m->vocab * 4) != ST_OK))
        rc = err_set(e, ST_EDEVICE, "%s: download failed", ops->name);
    return rc;
}

int side_sample(struct side *s, const struct be_batch *b, const float *logits, const struct be_sample_row *rows, uint32_t n,
                struct be_sample_out *out, struct err *e)
{
    const struct be_ops *ops = s->be->ops;
    struct op_sample p = {n, s->dims->vocab, s->logits, rows, out};
    int rc = ops->upload(s->be, s->logits, logits, (size_t)n * s->dims->vocab * 4);
    if (rc == ST_OK)
        rc = ops->begin_step(s->be, b);
    if (rc == ST_OK)
        rc = ops->sample(s->be, &p);
    return finish(s, rc, e);
}
