/* model: a model file or folder, opened, described, loaded into a backend, and run.
 *
 * Owns     a model owns its file mappings, its packed weights, its workspace. The backend must outlive it.
 * Units    tokens, positions, bytes.
 * States   open -> (info, gguf) -> load -> forward* -> destroy. Opening is cheap (headers only), so that the
 *          caller can choose a context length by info before anything large is made.
 * Threads  one thread at a time; forward from the engine's thread.
 * Errors   ST_EFORMAT, ST_EUNSUP, ST_ENOENT, ST_ENOMEM, each text naming file and field.
 * Bounds   workspace and tables are sized by model_load; model_forward allocates nothing.
 * Source   docs/ARCHITECTURE.md sections 1 and 3.
 *
 * Details that have caused bugs in code like this:
 * - GGUF llama files hold q and k rows permuted, so that rotary pairs are rows (2i, 2i+1); safetensors pair
 *   (i, i + half). The biases of q and k are permuted with their rows.
 * - GGUF dims are written innermost first; safetensors shapes outermost first.
 * - No output tensor in a GGUF means a tied head; in Hugging Face files the flag tie_word_embeddings does.
 * - Llama-3.1's rope scaling stands in config.json as numbers, but in GGUF as the tensor rope_freqs.weight,
 *   which divides.
 * - head_dim need not be d / n_heads: o_proj is then [d][n_heads * head_dim], not square.
 * - Mistral's sliding window is 4096 when config.json does not speak of it, and none when it says null.
 * - A window of w positions includes the row's own: keys at positions > pos - w.
 * - RMS eps is added to the mean square, inside the root. Files differ: 1e-5 and 1e-6 are both common.
 * - rope_theta moved into rope_parameters in newer config.json files; end tokens may be a number or a list,
 *   and the list in generation_config.json is often the longer one.
 * - Q8_0 and Q4_1 blocks are 34 and 20 bytes: rows are not aligned to anything, and neither are safetensors'
 *   offsets.
 */
#ifndef STATOR_MODEL_H
#define STATOR_MODEL_H

#include "backend.h"
#include "gguf.h"
#include "hparams.h"

enum { MODEL_EOS_MAX = 16, MODEL_FINGERPRINT_BYTES = 32 };

struct model;

struct model_info {
    const char *arch;  /* "llama"; lives as long as the model */
    const char *name;  /* as the file calls it, or the file's own name */
    const char *file;  /* last part of the path */
    const char *quant; /* the type that most weights of the layers have: "Q4_1" */
    uint32_t n_layers, d, n_heads, n_kv_heads, head_dim, ffn, vocab;
    uint32_t context_max; /* positions that the model was made for */
    uint32_t window;      /* sliding window, 0 = none */
    double rope_theta, rope_factor;
    bool tied;
    int32_t bos; /* -1 = none */
    uint32_t n_eos;
    int32_t eos[MODEL_EOS_MAX];
    uint64_t n_params;
    uint64_t tensor_bytes; /* of all tensors in the files: about what the packed weights take */
    uint64_t file_bytes;
    uint8_t fingerprint
        [MODEL_FINGERPRINT_BYTES]; /* of numbers, tensor names, shapes, types, and samples of every tensor */
};

struct model_load_options {
    uint32_t max_context; /* positions per sequence; 0 = info's context_max */
    uint32_t max_rows;    /* tokens per step */
    void (*progress)(void *user, size_t done_bytes, size_t total_bytes); /* NULL: none */
    void *user;
};

/* `path`: a .gguf file, or a folder with config.json and model*.safetensors. */
int model_open(struct model **out, const char *path, struct err *e);
/* Random weights in the shapes of a folder's config.json, or of `h`; nothing else is read. For benchmarks. */
int model_open_dummy(struct model **out, const char *path, struct err *e);
int model_open_hparams(struct model **out, const struct hparams *h, struct err *e);
void model_destroy(struct model *m); /* NULL ok */
const struct model_info *model_info(const struct model *m);
/* The file's metadata, for the tokenizer; NULL for a folder. Valid as long as the model. */
const struct gguf *model_gguf(const struct model *m);

/* Packs all weights for `be`; once per model. */
int model_load(struct model *m, struct be *be, const struct model_load_options *o, struct err *e);
size_t model_weight_bytes(const struct model *m);  /* packed; 0 before load */
uint32_t model_max_context(const struct model *m); /* as loaded */
/* The KV pool that fits this model. */
void model_kv_shape(const struct model *m, uint32_t block_tokens, uint32_t n_blocks, enum be_type type,
                    struct be_kv_shape *out);

/* Issues the ops of one step, between begin_step and end_step: logits[n_logits][vocab] (a backend buffer).
 * n_rows <= max_rows; positions < max_context; tokens < vocab. Returns the first failing op's status. */
int model_forward(struct model *m, const struct be_batch *batch, struct be_kv *kv, float *logits);

#endif
