/* side: one decoder layer with embedding and head on one backend, of the same random weights on every backend.
 *
 * Owns     its backend and everything made from it.
 * Units    rows, tokens.
 * States   open -> (step | sample)* -> close.
 * Threads  one.
 * Errors   the backend's, with its text.
 * Bounds   SIDE_ROWS rows and SIDE_SPANS sequences a step, SIDE_CONTEXT positions.
 */
#ifndef STATOR_SIDE_H
#define STATOR_SIDE_H

#include "backend.h"

enum { SIDE_ROWS = 1024, SIDE_SPANS = 64, SIDE_CONTEXT = 1024, SIDE_BLOCK = 16 };

struct side_dims {
    const char *name;
    uint32_t n_heads, n_kv_heads, head_dim, d, ffn, vocab, window;
    bool bias, interleaved;
};

struct side_form {
    enum be_type half;    /* of activations, embedding, head: BE_BF16 or BE_F16 */
    enum be_type weights; /* of the layer: the same, or BE_E4M3 */
    enum be_type kv;
    bool deterministic;
};

struct side {
    struct be *be;
    const struct side_dims *dims;
    struct be_weight *embed, *head, *gain, *qkv, *qkv_bias, *o, *gated, *gated_bias, *down;
    struct be_kv *kv;
    struct be_act *act, *act_ffn;
    float *x, *x_attn, *x_ffn, *q, *rope, *logits; /* of the backend */
};

/* What one step leaves, on the host: [n_rows][d] and [n_logits][vocab]. */
struct side_result {
    float *x;    /* embedded */
    float *attn; /* x + attention block */
    float *ffn;  /* x + feed-forward block */
    float *logits;
};

/* `exact`: the layer's weights are given as f32, for the reference. `be` is taken in any case. */
int side_open(struct side *s, struct be *be, const struct side_dims *dims, const struct side_form *form, bool exact,
              struct err *e);
void side_close(struct side *s);
int side_step(struct side *s, const struct be_batch *b, struct side_result *out, struct err *e);
/* Rows of `logits` (host, [n][vocab]) through op_sample. */
int side_sample(struct side *s, const struct be_batch *b, const float *logits, const struct be_sample_row *rows, uint32_t n,
                struct be_sample_out *out, struct err *e);

#endif
