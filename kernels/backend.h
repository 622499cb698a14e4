/* backend: the op table that a model's forward is written against. Nothing in here names a device API.
 *
 * Owns     a be owns its threads or streams, weights, KV pools and buffers made through it; destroy them before be_destroy.
 * Units    rows = tokens of one step; sizes in bytes; positions are absolute (0 = first token of the sequence).
 * States   create -> (weights, KV, buffers) -> step_limits -> {begin_step, ops..., end_step, wait_step}* -> destroy. Up to
 *          `depth` steps may be under way: end_step launches, wait_step waits for the oldest and fills its results. Steps
 *          run one after the other in the order of their end_step, whatever the host does meanwhile; what a step was given
 *          on the host may be reused after end_step, except op_sample.out, which belongs to the backend until wait_step.
 * Threads  one thread (the engine's) makes every call after create; a backend may use threads of its own inside.
 * Errors   ST_EINVAL for shapes that an op cannot take, ST_ENOMEM, ST_EDEVICE (sticky: every later call returns it).
 * Bounds   ops never allocate: weights, KV pools and activations are sized when they are created.
 * Source   docs/ARCHITECTURE.md section 3. Batch invariance: a row's result depends on that row alone, bit for bit on the
 *          CPU backend, whatever else is in the step, however it is chunked, and on how many threads it ran.
 */
#ifndef STATOR_BACKEND_H
#define STATOR_BACKEND_H

#include "status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Element types as they stand in model files. Quantised types are in blocks of 32 (Q4_0, Q4_1, Q8_0) or 256 (Q4_K, Q6_K)
 * along k, laid out as in GGUF. */
enum be_type { BE_F32, BE_F16, BE_BF16, BE_Q4_0, BE_Q4_1, BE_Q8_0, BE_Q4_K, BE_Q6_K, BE_E4M3, BE_TYPE_COUNT };

const char *be_type_name(enum be_type t);
uint32_t be_type_block(enum be_type t);       /* elements per block: 1, 32 or 256 */
uint32_t be_type_block_bytes(enum be_type t); /* bytes per block */
bool be_type_row_bytes(enum be_type t, uint64_t k,
                       uint64_t *out); /* false: k is no multiple of the block, or overflow */

struct be;        /* a backend instance; its first member is `const struct be_ops *ops` */
struct be_weight; /* a packed linear weight or vector, opaque, made by weight_create */
struct be_kv;     /* a pool of KV blocks, opaque, made by kv_create */
struct be_act; /* activations between a producing and a consuming op, in a layout that the backend chooses */

enum { BE_WEIGHT_PARTS_MAX = 4, BE_LOGPROBS_MAX = 20 };

/* One matrix part as it stands in a file: `rows` outputs of `k` inputs, row after row. */
struct be_part {
    enum be_type type;
    uint32_t rows;
    const void *data; /* [rows][k] of `type`, file order; only read during weight_create; may be unaligned */
    const float *scale; /* E4M3 only: [rows] multipliers of the stored values; NULL = 1 */
};

enum be_weight_use {
    BE_USE_LINEAR, /* plain y = W x */
    BE_USE_QKV,    /* parts are q, k, v; see rope_interleaved */
    BE_USE_GATED,  /* parts are gate, up, of equal rows */
    BE_USE_EMBED,  /* row lookup; also a linear head, tied or not: it is never quantised at load */
    BE_USE_VECTOR  /* one row of k values (norm gains, biases), kept as f32 */
};

struct be_weight_desc {
    enum be_weight_use use;
    uint32_t k; /* inputs per output */
    uint32_t n_parts;
    struct be_part parts[BE_WEIGHT_PARTS_MAX]; /* concatenated along rows */
    uint32_t head_dim;                         /* QKV only */
    bool
        rope_interleaved; /* QKV only: q, k rows pair (2i, 2i+1) as GGUF llama files do; else (i, i + head_dim/2) */
    uint32_t rot_dim; /* QKV only: leading dims of a head that rotate, 0 = head_dim; half-split pairs are then
                         (i, i + rot_dim/2) */
    const char *name; /* for errors and progress; borrowed for the call */
};

struct be_kv_shape {
    uint32_t n_layers, n_kv_heads, head_dim;
    uint32_t block_tokens; /* a multiple of 16 */
    uint32_t n_blocks;
    enum be_type type; /* BE_F32, BE_F16, BE_BF16 or BE_E4M3, as far as the backend goes: else kv_block_bytes is 0 */
};

/* What the largest step may hold; everything that a step needs is allocated once for it. */
struct be_step_limits {
    uint32_t max_rows, max_spans, max_logits;
    uint32_t max_context; /* positions of one sequence */
    uint32_t max_blocks;  /* block table entries of all spans together */
    uint32_t vocab;
};

/* ---- a step ------------------------------------------------------------------------------------------------------ */

/* Consecutive rows of one sequence: rows row0 .. row0+n_rows-1 stand at positions pos0, pos0+1, ... They attend to all
 * positions 0 .. their own, found through the sequence's block table. */
struct be_span {
    uint32_t row0, n_rows, pos0;
    uint32_t n_blocks;     /* blocks that cover pos0 + n_rows positions */
    const uint32_t *table; /* [n_blocks] block ids */
};

/* A token that the host does not know yet: what row `r` of the previous step's op_sample drew (0 if it drew none). */
#define BE_TOKEN_PREV(r) (-1 - (int32_t)(r))

struct be_batch {
    uint32_t n_rows, n_spans, n_logits;
    const int32_t *tokens;     /* [n_rows], each 0 <= id < vocab (checked by the caller) or, where depth > 1,
                                  BE_TOKEN_PREV */
    const uint32_t *positions; /* [n_rows] */
    const uint32_t
        *kv_slots; /* [n_rows] block * block_tokens + offset: where the row's K and V are written */
    const struct be_span *spans; /* [n_spans], rows ascending, covering all rows */
    const uint32_t *logit_rows;  /* [n_logits] rows whose logits are wanted, ascending */
};

/* ---- ops: plain params structs; all pointers are backend buffers (buffer_create) unless said otherwise ------------- */

struct op_embed {
    const struct be_batch *batch;
    const struct be_weight *table; /* USE_EMBED [vocab][d] */
    float scale;                   /* usually 1 */
    float *x;                      /* out [n_rows][d] */
};

/* act = norm(x) * gain, ready for `next`. */
struct op_norm {
    uint32_t n_rows;
    const uint32_t *rows; /* host [n_rows] rows of x to take, or NULL for 0..n_rows-1 */
    uint32_t d;
    const float *x;               /* [..][d] */
    const struct be_weight *gain; /* USE_VECTOR [d] */
    float eps;
    const struct be_weight *next; /* the weight that will consume act: decides its numeric class */
    struct be_act *act;           /* out, n_rows x d */
};

/* q, k, v = act W^T + bias; rotary embedding on q and k; k, v appended to the KV pool at kv_slots; q written out. */
struct op_qkv {
    const struct be_batch *batch;
    const struct be_act *act;
    const struct be_weight *w;    /* USE_QKV */
    const struct be_weight *bias; /* USE_VECTOR [q+k+v rows] or NULL */
    const float *rope;            /* [max_context][rot_dim/2][2] cos, sin */
    uint32_t rot_dim;             /* rotated leading dims of a head, even, <= head_dim */
    uint32_t n_heads, n_kv_heads, head_dim, layer;
    struct be_kv *kv;
    float *q; /* out, room for [n_rows][n_heads][head_dim] floats; only op_attention reads it: type and order of pairs
                 are the backend's own */
};

/* act = softmax(q K^T * scale) V per head, causal, ready for `next`. */
struct op_attention {
    const struct be_batch *batch;
    const float *q; /* from op_qkv */
    struct be_kv *kv;
    uint32_t layer, n_heads, n_kv_heads, head_dim;
    uint32_t window; /* sliding window in positions; 0 = none */
    float scale;
    const struct be_weight *next;
    struct be_act *act; /* out, n_rows x (n_heads * head_dim) */
};

/* x += act W^T + bias */
struct op_linear_add {
    uint32_t n_rows;
    const struct be_act *act;
    const struct be_weight *w;    /* USE_LINEAR */
    const struct be_weight *bias; /* USE_VECTOR or NULL */
    float *x;                     /* in/out [n_rows][rows of w] */
};

/* act_out = silu(act Wg^T + bias) * (act Wu^T + bias), ready for `next`. */
struct op_gated {
    uint32_t n_rows;
    const struct be_act *act;
    const struct be_weight *w;    /* USE_GATED */
    const struct be_weight *bias; /* USE_VECTOR [gate + up rows] or NULL */
    const struct be_weight *next;
    struct be_act *act_out; /* out, n_rows x (rows of one part) */
};

struct op_logits {
    uint32_t n_rows;
    const struct be_act *act;
    const struct be_weight *w; /* USE_LINEAR or USE_EMBED [vocab][d] */
    float *logits;             /* out [n_rows][vocab] */
};

struct be_bias {
    int32_t token;
    float add;
};

/* A token that this sequence has seen: in its prompt (n_out may be 0) or its output. */
struct be_seen {
    int32_t token;
    uint32_t n_out;
};

/* Order of edits: logit bias -> repetition -> frequency, presence -> log-probabilities -> temperature -> top-k -> top-p ->
 * min-p -> draw. The draw is argmax of z/T + Gumbel noise from Philox(seed, position, token): a row's token depends on its
 * logits and this struct alone. Pointers are host memory, valid until end_step. */
struct be_sample_row {
    uint32_t logits_row;
    float temperature;                     /* < 1e-5 = greedy */
    uint32_t top_k;                        /* 0 = off */
    float top_p, min_p;                    /* 1 / 0 = off */
    float repetition, frequency, presence; /* 1 / 0 / 0 = off */
    uint64_t seed;
    uint32_t position; /* of the token to be drawn */
    uint32_t n_bias, n_seen;
    const struct be_bias *bias; /* [n_bias], distinct tokens */
    const struct be_seen *seen; /* [n_seen], distinct tokens */
    const int32_t *banned; /* [n_banned] tokens that must not be drawn (e.g. end tokens under ignore_eos) */
    uint32_t n_banned;
    const uint32_t *allowed; /* [(vocab + 31) / 32] bit t of word t / 32: token t may be drawn, all others are banned;
                                NULL = all may */
    int32_t n_logprobs; /* -1 = none, 0..BE_LOGPROBS_MAX alternatives */
    uint32_t prev;      /* 0, or 1 + the row of the previous step's op_sample whose token counts as one more output of
                           this sequence (it is in no `seen` yet); only where depth > 1 */
};

struct be_sample_out {
    int32_t token; /* -1: no token could be drawn (non-finite logits); the request must fail */
    float logprob;
    uint32_t n_top;
    struct {
        int32_t token;
        float logprob;
    } top[BE_LOGPROBS_MAX];
};

struct op_sample {
    uint32_t n_rows, vocab;
    float *logits;                    /* [..][vocab]; edited in place */
    const struct be_sample_row *rows; /* host [n_rows] */
    struct be_sample_out *out;        /* host [n_rows], filled by this step's wait_step */
};

/* One block between the KV pool and host memory of host_alloc. */
struct be_block_copy {
    uint32_t block;
    void *host; /* [kv_block_bytes] */
};

struct be_ops {
    const char *name; /* "cpu" */
    uint32_t depth;   /* steps that may be under way at once; 1: end_step returns with the results */
    bool masks;       /* sample honours be_sample_row.allowed; otherwise no row may have one */
    void (*destroy)(struct be *be);
    const char *(*describe)(const struct be *be); /* one line for the start-up log; valid as long as `be` */

    /* One copy of the weight in the layout that the kernels want; the source may go away afterwards. */
    int (*weight_create)(struct be *be, const struct be_weight_desc *d, struct be_weight **out,
                         struct err *e);
    void (*weight_destroy)(struct be *be, struct be_weight *w);
    size_t (*weight_bytes)(const struct be_weight *w);

    int (*kv_create)(struct be *be, const struct be_kv_shape *s, struct be_kv **out, struct err *e);
    void (*kv_destroy)(struct be *be, struct be_kv *kv);
    size_t (*kv_block_bytes)(struct be *be, const struct be_kv_shape *s); /* of one block, all layers */

    int (*act_create)(struct be *be, uint32_t max_rows, uint32_t max_k, struct be_act **out);
    void (*act_destroy)(struct be *be, struct be_act *a);
    void *(*buffer_create)(struct be *be, size_t bytes); /* 64-byte aligned, zeroed; NULL = no memory */
    void (*buffer_destroy)(struct be *be, void *p);
    int (*upload)(struct be *be, void *dst, const void *host, size_t bytes);
    int (*download)(struct be *be, void *host, const void *src, size_t bytes);

    /* Device memory: free now and in all. NULL: weights and KV live in the host's memory. */
    int (*memory)(struct be *be, uint64_t *free_bytes, uint64_t *total_bytes);

    /* Copies of whole blocks for the tiers below, on lanes of their own beside the steps. A store reads what the steps
     * launched so far leave in the blocks; a load is seen by the steps that begin after it. A step begun later may write
     * none of the blocks before copy_poll says that the copy is done. `list` is read in the call; tickets rise. */
    void *(*host_alloc)(struct be *be, size_t bytes); /* memory that copies are fast from; NULL = no memory */
    void (*host_free)(struct be *be, void *p);
    int (*kv_store)(struct be *be, struct be_kv *kv, const struct be_block_copy *list, uint32_t n,
                    uint64_t *ticket); /* pool -> host */
    int (*kv_load)(struct be *be, struct be_kv *kv, const struct be_block_copy *list, uint32_t n,
                   uint64_t *ticket);                    /* host -> pool */
    int (*copy_poll)(struct be *be, uint64_t ticket); /* 1 done, 0 under way, negative: failed */

    void (*wake)(struct be *be); /* a step will come soon: threads may leave their sleep */
    /* Before the first step; again, with other limits, while none is under way. */
    int (*step_limits)(struct be *be, const struct be_step_limits *l, struct err *e);
    int (*begin_step)(struct be *be, const struct be_batch *b);
    int (*end_step)(struct be *be, struct err *e);  /* launches */
    int (*wait_step)(struct be *be, struct err *e); /* waits for the oldest step launched */

    int (*embed)(struct be *be, const struct op_embed *p);
    int (*norm)(struct be *be, const struct op_norm *p);
    int (*qkv)(struct be *be, const struct op_qkv *p);
    int (*attention)(struct be *be, const struct op_attention *p);
    int (*linear_add)(struct be *be, const struct op_linear_add *p);
    int (*gated)(struct be *be, const struct op_gated *p);
    int (*logits)(struct be *be, const struct op_logits *p);
    int (*sample)(struct be *be, const struct op_sample *p);
};

struct be {
    const struct be_ops *ops;
};

struct be_options {
    const char *device;  /* "auto", "cpu" or "cuda" */
    const char *dtype;   /* cuda: "auto" (bfloat16), "bfloat16" or "float16", of activations and unquantised weights */
    const char *quantization; /* cuda: "none" or "fp8": quantise the linear weights of the layers at load */
    const char *cache_dir;    /* cuda: where tuned choices are kept; NULL = nowhere */
    bool deterministic;       /* cuda: a row's bits depend on that row alone in prefill too */
    bool no_graphs;           /* cuda: launch each kernel by itself (debugging) */
    uint32_t threads;    /* CPU compute threads; 0 = one per allowed physical core */
    const char *cpu_isa; /* "auto", or force one of "c", "avx2", "avxvnni", "avx512", "amx" */
    bool cpu_exact;      /* dequantise weights and keep activations in f32: the reference */
};

int be_create(struct be **out, const struct be_options *o, struct err *e);
void be_destroy(struct be *be); /* NULL ok */
/* One line for the start-up log: "cpu, 2 threads, avx512-vnni". Valid as long as `be`. */
const char *be_describe(const struct be *be);

#ifdef __cplusplus
}
#endif
#endif
