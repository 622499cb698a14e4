/* hparams: the numbers that describe a model, read from GGUF metadata or from a Hugging Face config.json.
 *
 * Owns     plain data.
 * Units    counts; positions for windows and contexts.
 * States   -
 * Threads  plain data.
 * Errors   ST_EFORMAT (missing, of a wrong type, out of bounds, contradictory), ST_EUNSUP (known but not
 *          carried out here, by name: yarn, experts, other activations...); the text names file and field.
 * Bounds   every number is checked against HPARAMS_* before anything is sized by it.
 * Source   GGUF specification (keys "<arch>.*"); transformers' LlamaConfig and MistralConfig, old
 *          (rope_theta, rope_scaling) and new (rope_parameters) spelling.
 */
#ifndef STATOR_HPARAMS_H
#define STATOR_HPARAMS_H

#include "buf.h"
#include "gguf.h"

enum {
    HPARAMS_LAYERS_MAX = 1024,
    HPARAMS_WIDTH_MAX = 1 << 17,
    HPARAMS_HEADS_MAX = 1024,
    HPARAMS_HEAD_DIM_MAX = 512,
    HPARAMS_FFN_MAX = 1 << 20,
    HPARAMS_VOCAB_MAX = 1 << 22,
    HPARAMS_CONTEXT_MAX = 1 << 24,
    HPARAMS_EOS_MAX = 16
};

enum hparams_scaling { HPARAMS_SCALING_NONE, HPARAMS_SCALING_LINEAR, HPARAMS_SCALING_LLAMA3 };

struct hparams {
    char arch[32];  /* "llama" */
    char name[128]; /* as the file calls the model; may be empty */
    uint32_t n_layers, d, n_heads, n_kv_heads, head_dim, ffn;
    uint32_t vocab; /* 0 after GGUF without "<arch>.vocab_size": then the embedding says */
    uint32_t context_max;
    uint32_t window;  /* sliding window in positions, 0 = none */
    uint32_t rot_dim; /* rotated leading dims of a head */
    double rms_eps, rope_theta;
    enum hparams_scaling scaling;
    double rope_factor, rope_low, rope_high; /* low, high and rope_original: llama3 only */
    uint32_t rope_original;
    bool tied, attn_bias, mlp_bias; /* Hugging Face only: in GGUF the tensors that are there tell */
    int32_t bos;                    /* -1: none */
    uint32_t n_eos;
    int32_t eos[HPARAMS_EOS_MAX];
};

int hparams_gguf(struct hparams *out, const struct gguf *g, struct err *e);
/* `config` is config.json; `generation` is generation_config.json, empty when there is none. */
int hparams_hf(struct hparams *out, struct str config, struct str generation, struct err *e);
/* The architecture that runs a class name of config.json ("MistralForCausalLM" -> "llama"), or NULL. */
const char *hparams_hf_arch(const char *class_name);

/* What both readers end with: do the numbers fit each other? `file` names the source. */
int hparams_check(const struct hparams *h, const char *file, struct err *e);
/* Adds an end token unless it is there; false: id is negative or the list is full. */
bool hparams_add_eos(struct hparams *h, int64_t id);

#endif
