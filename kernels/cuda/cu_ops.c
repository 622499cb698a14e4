/* The ops of a step. None of them touches the GPU: each checks its shapes, decides the numeric class of what it makes, and
 * appends one or two records. end_step launches them (cu_run.c), so that it can see the whole step first: a decode step whose
 * records equal the last one's is one graph.
 *
 * An activation row has the type of its consumer's weights. 16 bits: the producer writes them itself. e4m3: norm writes it
 * itself; attention and the gated activation leave 16 bits, and one kernel more quantises whole rows, since a row's scale is
 * known only when all of its columns are. Columns up to the consumer's pitch are zeros: every producer sees to that, the
 * gated one by having as many rows of zero weights. */
#include "cu_be.h"

#include <string.h>

static struct cu_record *record(struct cu_be *b, enum cu_op op, uint32_t m)
{
    struct cu_record *r = &b->records[b->step.n_records];
    memset(r, 0, sizeof *r); /* padding too: records are compared as bytes */
    r->op = op;
    r->m = m == b->step.n_rows ? CU_ALL_ROWS : m;
    b->step.n_records++;
    return r;
}

/* ST_OK when `op` over m rows may take place now: room for its records is there afterwards. */
static int open_for(struct cu_be *b, const char *op, uint32_t m)
{
    if (b->why.status)
        return b->why.status;
    if (gpu_failure(b->gpu))
        return ST_EDEVICE;
    if (!b->step.open)
        return cu_backend_refuse(b, ST_EINVAL, "%s: outside of a step", op);
    if (b->step.n_records + 2 > CU_RECORDS)
        return cu_backend_refuse(b, ST_EINVAL, "%s: a step of more than %d operations", op, CU_RECORDS);
    if (m == 0 || m > b->limits.max_rows)
        return cu_backend_refuse(b, ST_EINVAL, "%s: %u rows, the limit is %u", op, m, b->limits.max_rows);
    return ST_OK;
}

/* ---- activations ------------------------------------------------------------------------------------------------- */

/* `a` will hold m rows of k values for `next`. */
static int act_begin(struct cu_be *b, const char *op, struct be_act *a, const struct be_weight *next,
                     uint32_t m, uint32_t k)
{
    if (!next || next->use == BE_USE_VECTOR || next->k != k || m > a->max_rows || next->ld > a->max_k)
        return cu_backend_refuse(b, ST_EINVAL,
                                 "%s: %u rows of %u values for a weight of %u inputs, in room for %u of %u",
                                 op, m, k, next ? next->k : 0, a->max_rows, a->max_k);
    if (b->step.m > a->max_rows) /* no room for padding */
        b->step.m = b->step.n_rows;
    a->type = next->type;
    a->n_rows = m;
    a->k = k;
    a->ld = next->ld;
    return ST_OK;
}

/* What stands in `a` as 16 bits becomes e4m3, where its consumer wants that. */
static void act_end(struct cu_be *b, struct be_act *a)
{
    if (a->type != CU_E4M3)
        return;
    struct cu_quant *q = &record(b, CU_OP_QUANT, a->n_rows)->u.quant;
    q->x = a->x;
    q->q = a->q;
    q->scale = a->scale;
    q->k = a->ld;
    q->ldx = q->ldq = a->ld;
    q->xt = b->xt;
}

static int act_fits(struct cu_be *b, const char *op, const struct be_act *a, const struct be_weight *w,
                    uint32_t m)
{
    if (w->use == BE_USE_VECTOR || a->type != w->type || a->k != w->k || a->n_rows < m)
        return cu_backend_refuse(b, ST_EINVAL, "%s: %u rows of %u inputs, but %u of %u are there", op, m,
                                 w->k, a->n_rows, a->k);
    return ST_OK;
}

static int bias_fits(struct cu_be *b, const char *op, const struct be_weight *bias, uint32_t n)
{
    if (bias && (bias->use != BE_USE_VECTOR || bias->k != n))
        return cu_backend_refuse(b, ST_EINVAL, "%s: a bias of %u values for %u outputs", op, bias->k, n);
    return ST_OK;
}

static struct cu_lin *linear(struct cu_be *b, uint32_t m, const struct be_weight *w, const struct be_act *a)
{
    struct cu_lin *l = &record(b, CU_OP_LINEAR, m)->u.lin;
    l->w = w->data;
    l->w_scale = w->scale;
    l->x = w->type == CU_E4M3 ? a->q : a->x;
    l->x_scale = w->type == CU_E4M3 ? a->scale : NULL;
    l->slabs = b->a.slabs;
    l->n = w->n_pad;
    l->n_out = w->n;
    l->k = l->ldx = w->ld;
    l->wt = w->type;
    return l;
}

/* ---- the ops ----------------------------------------------------------------------------------------------------- */

int cu_ops_embed(struct be *be, const struct op_embed *p)
{
    struct cu_be *b = (struct cu_be *)be;
    const struct be_weight *w = p->table;
    int st = open_for(b, "embed", p->batch->n_rows);
    if (st)
        return st;
    if (w->use != BE_USE_EMBED || p->batch != b->step.batch || w->n < b->limits.vocab)
        return cu_backend_refuse(b, ST_EINVAL, "embed: a table of %u tokens, %u are meant", w->n,
                                 b->limits.vocab);
    struct cu_embed *r = &record(b, CU_OP_EMBED, p->batch->n_rows)->u.embed;
    r->tokens = b->a.tokens;
    r->table = w->data;
    r->x = p->x;
    r->d = w->k;
    r->ld = w->ld;
    r->scale = p->scale;
    r->type = w->type;
    return ST_OK;
}

int cu_ops_norm(struct be *be, const struct op_norm *p)
{
    struct cu_be *b = (struct cu_be *)be;
    int st = open_for(b, "norm", p->n_rows);
    if (st == ST_OK && (p->gain->use != BE_USE_VECTOR || p->gain->k != p->d))
        st = cu_backend_refuse(b, ST_EINVAL, "norm: %u gains for %u values", p->gain->k, p->d);
    const uint32_t *rows = NULL;
    if (st == ST_OK && p->rows)
        st = cu_blob_list(b, p->rows, p->n_rows, &rows);
    if (st == ST_OK)
        st = act_begin(b, "norm", p->act, p->next, p->n_rows, p->d);
    if (st)
        return st;
    struct cu_norm *r = &record(b, CU_OP_NORM, p->n_rows)->u.norm;
    r->x = p->x;
    r->rows = rows;
    r->gain = p->gain->vec;
    r->y = p->act->type == CU_E4M3 ? p->act->q : p->act->x;
    r->y_scale = p->act->type == CU_E4M3 ? p->act->scale : NULL;
    r->d = p->d;
    r->ldy = p->act->ld;
    r->eps = p->eps;
    r->yt = p->act->type;
    return ST_OK;
}

/* The pool is one that the step's plan and checks hold for. */
static int kv_fits(struct cu_be *b, const char *op, const struct be_kv *kv, uint32_t layer, uint32_t n_heads,
                   uint32_t n_kv_heads, uint32_t head_dim)
{
    const struct cu_attn_shape *s = &b->shape;
    const struct cu_kv *c = &kv->kv;
    if (b->kv && s->n_heads == n_heads && s->n_kv_heads == n_kv_heads && s->head_dim == head_dim &&
        c->n_kv_heads == n_kv_heads && c->head_dim == head_dim && c->block_tokens == s->block_tokens &&
        c->n_blocks >= b->kv->kv.n_blocks && layer < c->n_layers)
        return ST_OK;
    return cu_backend_refuse(
        b, ST_EINVAL, "%s layer %u: %u heads, %u of keys, of %u; the step was planned for %u, %u of %u", op,
        layer, n_heads, n_kv_heads, head_dim, s->n_heads, s->n_kv_heads, s->head_dim);
}

int cu_ops_qkv(struct be *be, const struct op_qkv *p)
{
    struct cu_be *b = (struct cu_be *)be;
    const struct be_weight *w = p->w;
    uint32_t m = p->batch->n_rows;
    int st = open_for(b, "qkv", m);
    if (st == ST_OK)
        st = kv_fits(b, "qkv", p->kv, p->layer, p->n_heads, p->n_kv_heads, p->head_dim);
    if (st == ST_OK)
        st = act_fits(b, "qkv", p->act, w, m);
    if (st == ST_OK)
        st = bias_fits(b, "qkv", p->bias, w->n);
    if (st)
        return st;
    if (w->use != BE_USE_QKV || p->batch != b->step.batch || w->head_dim != p->head_dim ||
        p->rot_dim != w->rot_dim || w->part_rows[0] != p->n_heads * p->head_dim ||
        w->part_rows[1] != p->n_kv_heads * p->head_dim)
        return cu_backend_refuse(
            b, ST_EINVAL, "qkv layer %u: %u and %u heads of %u, %u rotated; the weight has %u and %u rows",
            p->layer, p->n_heads, p->n_kv_heads, p->head_dim, p->rot_dim, w->part_rows[0], w->part_rows[1]);
    struct cu_lin *l = linear(b, m, w, p->act);
    l->bias = p->bias ? p->bias->vec : NULL;
    l->y = b->a.qkv;
    l->ldy = w->n_pad;
    l->yt = b->xt;
    l->epilogue = CU_STORE;
    struct cu_rope *r = &record(b, CU_OP_ROPE, m)->u.rope;
    r->qkv = b->a.qkv;
    r->rope = p->rope;
    r->positions = b->a.positions;
    r->slots = b->a.slots;
    r->q = p->q;
    r->kv = p->kv->kv;
    r->ldqkv = w->n_pad;
    r->layer = p->layer;
    r->n_heads = p->n_heads;
    r->rot_dim = p->rot_dim;
    r->xt = b->xt;
    r->interleaved = w->interleaved;
    return ST_OK;
}

int cu_ops_attention(struct be *be, const struct op_attention *p)
{
    struct cu_be *b = (struct cu_be *)be;
    uint32_t m = p->batch->n_rows;
    int st = open_for(b, "attention", m);
    if (st == ST_OK)
        st = kv_fits(b, "attention", p->kv, p->layer, p->n_heads, p->n_kv_heads, p->head_dim);
    if (st == ST_OK)
        st = act_begin(b, "attention", p->act, p->next, m, p->n_heads * p->head_dim);
    if (st)
        return st;
    struct cu_attn *r = &record(b, CU_OP_ATTENTION, m)->u.attn;
    r->q = p->q;
    r->y = p->act->x;
    r->kv = p->kv->kv;
    r->tables = b->a.tables;
    r->n_items = &b->a.counts[CU_COUNT_ITEMS];
    r->partials = b->a.partials;
    r->counters = b->a.counters;
    r->layer = p->layer;
    r->n_heads = p->n_heads;
    r->ldy = p->act->ld;
    r->window = p->window;
    r->scale = p->scale;
    r->xt = b->xt;
    act_end(b, p->act);
    return ST_OK;
}

int cu_ops_linear_add(struct be *be, const struct op_linear_add *p)
{
    struct cu_be *b = (struct cu_be *)be;
    int st = open_for(b, "linear", p->n_rows);
    if (st == ST_OK && p->w->use != BE_USE_LINEAR)
        st = cu_backend_refuse(b, ST_EINVAL, "linear: the weight has another use");
    if (st == ST_OK)
        st = act_fits(b, "linear", p->act, p->w, p->n_rows);
    if (st == ST_OK)
        st = bias_fits(b, "linear", p->bias, p->w->n);
    if (st)
        return st;
    struct cu_lin *l = linear(b, p->n_rows, p->w, p->act);
    l->bias = p->bias ? p->bias->vec : NULL;
    l->y = p->x;
    l->ldy = p->w->n;
    l->yt = CU_F32;
    l->epilogue = CU_ADD;
    return ST_OK;
}

int cu_ops_gated(struct be *be, const struct op_gated *p)
{
    struct cu_be *b = (struct cu_be *)be;
    uint32_t width = p->w->part_rows[0];
    int st = open_for(b, "gated", p->n_rows);
    if (st == ST_OK && (p->w->use != BE_USE_GATED || p->act == p->act_out))
        st = cu_backend_refuse(b, ST_EINVAL, "gated: no gated weight, or its output over its input");
    if (st == ST_OK)
        st = act_fits(b, "gated", p->act, p->w, p->n_rows);
    if (st == ST_OK)
        st = bias_fits(b, "gated", p->bias, p->w->n);
    if (st == ST_OK)
        st = act_begin(b, "gated", p->act_out, p->next, p->n_rows, width);
    if (st)
        return st;
    struct cu_lin *l = linear(b, p->n_rows, p->w, p->act);
    l->bias = p->bias ? p->bias->vec_gated : NULL;
    l->y = p->act_out->x;
    l->ldy = l->n_out = p->act_out->ld; /* half of n: the rows of zeros make the columns of zeros */
    l->yt = b->xt;
    l->epilogue = CU_SWIGLU;
    act_end(b, p->act_out);
    return ST_OK;
}

int cu_ops_logits(struct be *be, const struct op_logits *p)
{
    struct cu_be *b = (struct cu_be *)be;
    int st = open_for(b, "logits", p->n_rows);
    if (st == ST_OK && p->w->use != BE_USE_LINEAR && p->w->use != BE_USE_EMBED)
        st = cu_backend_refuse(b, ST_EINVAL, "logits: the weight is no head");
    if (st == ST_OK)
        st = act_fits(b, "logits", p->act, p->w, p->n_rows);
    if (st)
        return st;
    struct cu_lin *l = linear(b, p->n_rows, p->w, p->act);
    l->y = p->logits;
    l->ldy = p->w->n;
    l->yt = CU_F32;
    l->epilogue = CU_STORE;
    return ST_OK;
}

int cu_ops_sample(struct be *be, const struct op_sample *p)
{
    struct cu_be *b = (struct cu_be *)be;
    int st = open_for(b, "sample", p->n_rows);
    if (st == ST_OK)
        st = cu_blob_sample(b, p);
    if (st)
        return st;
    struct cu_sample *r = &record(b, CU_OP_SAMPLE, p->n_rows)->u.sample;
    r->logits = p->logits;
    r->rows = b->a.rows;
    r->n_rows = &b->a.counts[CU_COUNT_SAMPLE];
    r->bias = b->a.bias;
    r->seen = b->a.seen;
    r->banned = b->a.banned;
    r->prev_drawn = b->a.prev;
    r->drawn = b->a.drawn;
    r->out = b->a.out;
    r->blob[0] = b->a.blob[0];
    r->blob[1] = b->a.blob[1];
    r->parity = b->a.parity;
    r->vocab = r->ld = p->vocab;
    cu_be_slot(b)->to = p->out;
    cu_be_slot(b)->n_out = p->n_rows;
    return ST_OK;
}
