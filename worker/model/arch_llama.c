/* arch_llama: Llama 1 to 3.x, Mistral, CodeLlama, SmolLM2: pre-norm blocks of grouped-query attention with
 * rotary embedding and a gated SiLU feed-forward, RMS norms, optional biases, a head that may be the
 * embedding.
 *
 *     x = embed(token)
 *     per layer:  a = norm(x)   q,k,v = rope(qkv(a)), KV append   a = attention(q)   x += o(a)
 *                 a = norm(x)   f = silu(gate(a)) * up(a)         x += down(f)
 *     logits = head(norm(x)) of the rows that want them
 *
 * Two activation buffers are enough: a step's consumer is done with `a` before its next producer runs, and
 * only gated reads one while it writes the other.
 * Rejected: dropping the rows without logits before the last feed-forward (needs a gather op; 1/30 of prefill
 * at best). */
#include "arch.h"
#include "mem.h"
#include "rope.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

struct layer {
    struct be_weight *attn_norm, *qkv, *qkv_bias, *o, *o_bias, *ffn_norm, *gated, *gated_bias, *down,
        *down_bias;
};

struct llama {
    struct be *be;
    struct hparams h;
    struct arch_limits limits;
    struct layer *layers;                  /* [h.n_layers] */
    struct be_weight *embed, *norm, *head; /* head NULL: the embedding */
    float *rope, *x, *q;                   /* backend buffers */
    struct be_act *act, *act_ffn;
};

enum role { EMBED, NORM, HEAD, ATTN_NORM, Q, K, V, O, FFN_NORM, GATE, UP, DOWN, ROLE_COUNT };

/* Names without ".weight" / ".bias", in GGUF and in Hugging Face files; per layer from ATTN_NORM on. */
static const char *const tensor_names[ROLE_COUNT][2] = {
    [EMBED] = {"token_embd", "model.embed_tokens"},
    [NORM] = {"output_norm", "model.norm"},
    [HEAD] = {"output", "lm_head"},
    [ATTN_NORM] = {"attn_norm", "input_layernorm"},
    [Q] = {"attn_q", "self_attn.q_proj"},
    [K] = {"attn_k", "self_attn.k_proj"},
    [V] = {"attn_v", "self_attn.v_proj"},
    [O] = {"attn_output", "self_attn.o_proj"},
    [FFN_NORM] = {"ffn_norm", "post_attention_layernorm"},
    [GATE] = {"ffn_gate", "mlp.gate_proj"},
    [UP] = {"ffn_up", "mlp.up_proj"},
    [DOWN] = {"ffn_down", "mlp.down_proj"},
};

/* ---- loading ------------------------------------------------------------------------------------------- */

struct names {
    bool hf;
    uint32_t layer;
    char text[3][64];
};

static const char *name(struct names *n, uint32_t slot, enum role role, const char *what)
{
    const char *base = tensor_names[role][n->hf];
    if (role < ATTN_NORM)
        snprintf(n->text[slot], sizeof n->text[slot], "%s.%s", base, what);
    else
        snprintf(n->text[slot], sizeof n->text[slot], "%s.%" PRIu32 ".%s.%s", n->hf ? "model.layers" : "blk",
                 n->layer, base, what);
    return n->text[slot];
}

static struct be_weight *vector(struct pack *p, struct names *n, enum role role, uint32_t len)
{
    return pack_vector(p, name(n, 0, role, "weight"), len);
}

static struct be_weight *bias(struct pack *p, struct names *n, enum role role, uint32_t len)
{
    struct pack_part part = {name(n, 0, role, "bias"), len};
    return pack_biases(p, &part, 1);
}

static struct be_weight *matrix(struct pack *p, struct names *n, enum be_weight_use use, enum role role,
                                uint32_t rows, uint32_t k)
{
    struct pack_part part = {name(n, 0, role, "weight"), rows};
    return pack_matrix(p, use, &part, 1, k);
}

static void load_layer(struct llama *m, struct layer *l, struct names *n, struct pack *p)
{
    const struct hparams *h = &m->h;
    uint32_t q = h->n_heads * h->head_dim, kv = h->n_kv_heads * h->head_dim;
    l->attn_norm = vector(p, n, ATTN_NORM, h->d);
    struct pack_part qkv[] = {
        {name(n, 0, Q, "weight"), q}, {name(n, 1, K, "weight"), kv}, {name(n, 2, V, "weight"), kv}};
    l->qkv = pack_matrix(p, BE_USE_QKV, qkv, 3, h->d);
    name(n, 0, Q, "bias");
    name(n, 1, K, "bias");
    name(n, 2, V, "bias");
    l->qkv_bias = pack_biases(p, qkv, 3);
    l->o = matrix(p, n, BE_USE_LINEAR, O, h->d, q);
    l->o_bias = bias(p, n, O, h->d);
    l->ffn_norm = vector(p, n, FFN_NORM, h->d);
    struct pack_part gated[] = {{name(n, 0, GATE, "weight"), h->ffn}, {name(n, 1, UP, "weight"), h->ffn}};
    l->gated = pack_matrix(p, BE_USE_GATED, gated, 2, h->d);
    name(n, 0, GATE, "bias");
    name(n, 1, UP, "bias");
    l->gated_bias = pack_biases(p, gated, 2);
    l->down = matrix(p, n, BE_USE_LINEAR, DOWN, h->d, h->ffn);
    l->down_bias = bias(p, n, DOWN, h->d);
}

/* The config says whether there must be biases; a file without them would otherwise load and compute
 * something else. */
static void check_biases(const struct llama *m, struct pack *p, struct names *n)
{
    for (n->layer = 0; n->layer < m->h.n_layers && p->rc == ST_OK; n->layer++) {
        const struct layer *l = &m->layers[n->layer];
        if (m->h.attn_bias && (l->qkv_bias == NULL || l->o_bias == NULL))
            p->rc = err_set(p->e, ST_EFORMAT, "%s: tensor '%s' is missing, but attention_bias is set",
                            p->src->name, name(n, 0, l->qkv_bias == NULL ? Q : O, "bias"));
        if (p->rc == ST_OK && m->h.mlp_bias && (l->gated_bias == NULL || l->down_bias == NULL))
            p->rc = err_set(p->e, ST_EFORMAT, "%s: tensor '%s' is missing, but mlp_bias is set", p->src->name,
                            name(n, 0, l->gated_bias == NULL ? GATE : DOWN, "bias"));
    }
}

static void make_rope(struct llama *m, struct pack *p, bool hf)
{
    const struct hparams *h = &m->h;
    float factors[HPARAMS_HEAD_DIM_MAX / 2];
    double freq[HPARAMS_HEAD_DIM_MAX / 2];
    uint32_t pairs = h->rot_dim / 2;
    bool scaled = !hf && pack_has(p, "rope_freqs.weight");
    if (scaled)
        pack_floats(p, "rope_freqs.weight", pairs, factors);
    for (uint32_t i = 0; scaled && p->rc == ST_OK && i < pairs; i++)
        if (!isfinite(factors[i]) || factors[i] <= 0)
            p->rc = err_set(p->e, ST_EFORMAT,
                            "%s: tensor 'rope_freqs.weight': element %" PRIu32 " is no positive number",
                            p->src->name, i);
    size_t count, bytes;
    if (p->rc != ST_OK)
        return;
    if (!mem_mul(m->limits.max_context, (size_t)pairs * 2, &count) ||
        !mem_mul(count, sizeof(float), &bytes)) {
        p->rc =
            err_set(p->e, ST_ENOMEM, "context: %" PRIu32 " positions are too many", m->limits.max_context);
        return;
    }
    float *host = mem_alloc(bytes);
    m->rope = m->be->ops->buffer_create(m->be, bytes);
    if (host == NULL || m->rope == NULL) {
        p->rc = err_set(p->e, ST_ENOMEM, "context: out of memory for a table of %" PRIu32 " positions",
                        m->limits.max_context);
    } else {
        rope_frequencies(h, scaled ? factors : NULL, freq);
        rope_table(freq, pairs, m->limits.max_context, host);
        p->rc = m->be->ops->upload(m->be, m->rope, host, bytes);
    }
    mem_free(host);
}

static void make_workspace(struct llama *m, struct pack *p)
{
    const struct be_ops *ops = m->be->ops;
    const struct hparams *h = &m->h;
    size_t rows = m->limits.max_rows, q = (size_t)h->n_heads * h->head_dim;
    if (p->rc != ST_OK)
        return;
    m->x = ops->buffer_create(m->be, rows * h->d * sizeof(float));
    m->q = ops->buffer_create(m->be, rows * q * sizeof(float));
    if (m->x == NULL || m->q == NULL ||
        ops->act_create(m->be, m->limits.max_rows, (uint32_t)(q > h->d ? q : h->d), &m->act) != ST_OK ||
        ops->act_create(m->be, m->limits.max_rows, h->ffn, &m->act_ffn) != ST_OK)
        p->rc =
            err_set(p->e, ST_ENOMEM, "out of memory for a workspace of %" PRIu32 " rows", m->limits.max_rows);
}

static void llama_destroy(void *self);

static int llama_load(void **out, const struct hparams *h, const struct arch_limits *limits, struct pack *p)
{
    struct llama *m = mem_zalloc(1, sizeof *m);
    if (m == NULL)
        return err_set(p->e, ST_ENOMEM, "out of memory");
    m->be = p->be;
    m->h = *h;
    m->limits = *limits;
    m->layers = mem_zalloc(h->n_layers, sizeof *m->layers);
    if (m->layers == NULL) {
        mem_free(m);
        return err_set(p->e, ST_ENOMEM, "out of memory for %" PRIu32 " layers", h->n_layers);
    }
    struct names n = {.hf = p->src->gguf == NULL};
    m->embed = matrix(p, &n, BE_USE_EMBED, EMBED, h->vocab, h->d);
    for (n.layer = 0; n.layer < h->n_layers && p->rc == ST_OK; n.layer++)
        load_layer(m, &m->layers[n.layer], &n, p);
    check_biases(m, p, &n);
    m->norm = vector(p, &n, NORM, h->d);
    /* GGUF has no flag for tied heads: there, a missing output tensor is the flag. */
    bool tied = n.hf ? h->tied : !pack_has(p, name(&n, 0, HEAD, "weight"));
    if (!tied)
        m->head = matrix(p, &n, BE_USE_EMBED, HEAD, h->vocab, h->d); /* as precise as a tied one */
    make_rope(m, p, n.hf);
    make_workspace(m, p);
    if (p->rc != ST_OK) {
        llama_destroy(m);
        return p->rc;
    }
    *out = m;
    return ST_OK;
}

enum { LAYER_WEIGHTS = 10 };

static uint32_t layer_weights(const struct layer *l, struct be_weight *out[LAYER_WEIGHTS])
{
    struct be_weight *all[LAYER_WEIGHTS] = {l->attn_norm, l->qkv,   l->qkv_bias,   l->o,    l->o_bias,
                                            l->ffn_norm,  l->gated, l->gated_bias, l->down, l->down_bias};
    uint32_t n = 0;
    for (uint32_t i = 0; i < LAYER_WEIGHTS; i++)
        if (all[i] != NULL)
            out[n++] = all[i];
    return n;
}

static void llama_destroy(void *self)
{
    struct llama *m = self;
    struct be_weight *w[LAYER_WEIGHTS];
    if (m == NULL)
        return;
    const struct be_ops *ops = m->be->ops;
    for (uint32_t i = 0; i < m->h.n_layers; i++)
        for (uint32_t n = layer_weights(&m->layers[i], w); n > 0; n--)
            ops->weight_destroy(m->be, w[n - 1]);
    struct be_weight *ends[] = {m->embed, m->norm, m->head};
    for (int i = 0; i < 3; i++)
        if (ends[i] != NULL)
            ops->weight_destroy(m->be, ends[i]);
    float *buffers[] = {m->rope, m->x, m->q};
    for (int i = 0; i < 3; i++)
        if (buffers[i] != NULL)
            ops->buffer_destroy(m->be, buffers[i]);
    if (m->act != NULL)
        ops->act_destroy(m->be, m->act);
    if (m->act_ffn != NULL)
        ops->act_destroy(m->be, m->act_ffn);
    mem_free(m->layers);
    mem_free(m);
}

static size_t llama_weight_bytes(const void *self)
{
    const struct llama *m = self;
    struct be_weight *w[LAYER_WEIGHTS];
    size_t bytes = m->be->ops->weight_bytes(m->embed) + m->be->ops->weight_bytes(m->norm);
    if (m->head != NULL)
        bytes += m->be->ops->weight_bytes(m->head);
    for (uint32_t i = 0; i < m->h.n_layers; i++)
        for (uint32_t n = layer_weights(&m->layers[i], w); n > 0; n--)
            bytes += m->be->ops->weight_bytes(w[n - 1]);
    return bytes;
}

/* ---- the forward --------------------------------------------------------------------------------------- */

static int attention_block(struct llama *m, const struct layer *l, uint32_t index, const struct be_batch *b,
                           struct be_kv *kv)
{
    const struct be_ops *ops = m->be->ops;
    const struct hparams *h = &m->h;
    struct op_norm norm = {.n_rows = b->n_rows,
                           .d = h->d,
                           .x = m->x,
                           .gain = l->attn_norm,
                           .eps = (float)h->rms_eps,
                           .next = l->qkv,
                           .act = m->act};
    struct op_qkv qkv = {.batch = b,
                         .act = m->act,
                         .w = l->qkv,
                         .bias = l->qkv_bias,
                         .rope = m->rope,
                         .rot_dim = h->rot_dim,
                         .n_heads = h->n_heads,
                         .n_kv_heads = h->n_kv_heads,
                         .head_dim = h->head_dim,
                         .layer = index,
                         .kv = kv,
                         .q = m->q};
    struct op_attention attention = {.batch = b,
                                     .q = m->q,
                                     .kv = kv,
                                     .layer = index,
                                     .n_heads = h->n_heads,
                                     .n_kv_heads = h->n_kv_heads,
                                     .head_dim = h->head_dim,
                                     .window = h->window,
                                     .scale = (float)(1 / sqrt(h->head_dim)),
                                     .next = l->o,
                                     .act = m->act};
    struct op_linear_add o = {.n_rows = b->n_rows, .act = m->act, .w = l->o, .bias = l->o_bias, .x = m->x};
    int rc = ops->norm(m->be, &norm);
    if (rc == ST_OK)
        rc = ops->qkv(m->be, &qkv);
    if (rc == ST_OK)
        rc = ops->attention(m->be, &attention);
    return rc == ST_OK ? ops->linear_add(m->be, &o) : rc;
}

static int ffn_block(struct llama *m, const struct layer *l, const struct be_batch *b)
{
    const struct be_ops *ops = m->be->ops;
    const struct hparams *h = &m->h;
    struct op_norm norm = {.n_rows = b->n_rows,
                           .d = h->d,
                           .x = m->x,
                           .gain = l->ffn_norm,
                           .eps = (float)h->rms_eps,
                           .next = l->gated,
                           .act = m->act};
    struct op_gated gated = {.n_rows = b->n_rows,
                             .act = m->act,
                             .w = l->gated,
                             .bias = l->gated_bias,
                             .next = l->down,
                             .act_out = m->act_ffn};
    struct op_linear_add down = {
        .n_rows = b->n_rows, .act = m->act_ffn, .w = l->down, .bias = l->down_bias, .x = m->x};
    int rc = ops->norm(m->be, &norm);
    if (rc == ST_OK)
        rc = ops->gated(m->be, &gated);
    return rc == ST_OK ? ops->linear_add(m->be, &down) : rc;
}

static int llama_forward(void *self, const struct be_batch *b, struct be_kv *kv, float *logits)
{
    struct llama *m = self;
    const struct be_ops *ops = m->be->ops;
    const struct be_weight *head = m->head != NULL ? m->head : m->embed;
    struct op_embed embed = {.batch = b, .table = m->embed, .scale = 1, .x = m->x};
    int rc = ops->embed(m->be, &embed);
    for (uint32_t i = 0; i < m->h.n_layers && rc == ST_OK; i++) {
        rc = attention_block(m, &m->layers[i], i, b, kv);
        if (rc == ST_OK)
            rc = ffn_block(m, &m->layers[i], b);
    }
    if (rc != ST_OK || b->n_logits == 0)
        return rc;
    struct op_norm norm = {.n_rows = b->n_logits,
                           .rows = b->logit_rows,
                           .d = m->h.d,
                           .x = m->x,
                           .gain = m->norm,
                           .eps = (float)m->h.rms_eps,
                           .next = head,
                           .act = m->act};
    struct op_logits out = {.n_rows = b->n_logits, .act = m->act, .w = head, .logits = logits};
    rc = ops->norm(m->be, &norm);
    return rc == ST_OK ? ops->logits(m->be, &out) : rc;
}

const struct arch arch_llama = {"llama", llama_load, llama_forward, llama_destroy, llama_weight_bytes};
