/* cu_be: what the host files of the CUDA backend share: its objects, opaque to everyone else.
 *
 * Owns     see each struct.
 * Units    bytes; rows and columns in elements; m = rows of a step.
 * States   see backend.h; a step: begin (blob and plan) -> ops (records) -> end (launch) -> wait (results).
 * Threads  the owner's thread; cu_load's lanes see only the rows that they fill.
 * Errors   a refused op leaves its text in `why`, which end_step hands out; a failed device call is sticky (gpu_failure).
 * Bounds   CU_RECORDS, CU_GRAPHS, CU_TICKETS; arrays of a step are sized by step_limits.
 * Source   KERNELS design, sections 7 and 8.
 */
#ifndef STATOR_CU_BE_H
#define STATOR_CU_BE_H

#include "backend.h"
#include "cu_attn.h"
#include "cu_lin.h"
#include "cu_lt.h"
#include "cu_rows.h"
#include "cu_sample.h"
#include "cu_step.h"

enum {
    CU_RECORDS = 4096,
    CU_GRAPHS = 48,
    CU_TICKETS = 64,
    CU_BOUNCE_BYTES = 1 << 20,
    CU_BIAS_PER_ROW = 1024, /* on average over the rows of a step */
    CU_BANNED_PER_ROW = 64,
    CU_SEEN = 1 << 19 /* seen tokens of a step that cross with its blob; no less than the vocabulary */
};

/* ---- objects ---------------------------------------------------------------------------------------------------- */

struct be_weight {
    struct be_weight *next; /* all weights, newest first */
    enum be_weight_use use;
    uint8_t type;          /* cu_type of `data` */
    uint32_t k, ld;        /* inputs; padded to CU_K_ALIGN: the pitch of a row */
    uint32_t n, n_pad;     /* outputs of all parts; rows of `data` */
    uint32_t part_rows[3]; /* QKV: of q, k, v; GATED: of gate, up */
    void *data;            /* device [n_pad][ld] */
    float *scale;          /* device [n_pad], e4m3 only */
    float *vec;            /* VECTOR: device [k], zeros up to CU_N_ALIGN ... */
    float *vec_gated;      /* ... and as the bias of a gated weight: its halves interleaved like the rows */
    uint32_t head_dim, rot_dim;
    bool interleaved; /* QKV: rope pairs (2i, 2i+1) */
    size_t bytes;
};

struct be_kv {
    struct cu_kv kv;
};

/* Rows for one consumer: in 16 bits, and where that takes e4m3, quantised beside them. */
struct be_act {
    uint32_t max_rows, max_k;
    uint8_t *x;   /* device [max_rows][ld] of the activation type */
    uint8_t *q;   /* device [max_rows][ld] e4m3 */
    float *scale; /* device [max_rows] */
    uint8_t type; /* of the rows that stand there: the activation type or CU_E4M3 */
    uint32_t n_rows, k, ld;
};

/* ---- a step ------------------------------------------------------------------------------------------------------ */

enum cu_op { CU_OP_EMBED, CU_OP_NORM, CU_OP_QUANT, CU_OP_LINEAR, CU_OP_ROPE, CU_OP_ATTENTION, CU_OP_SAMPLE };

#define CU_ALL_ROWS 0xffffffffu

/* One op as it will be launched. Device addresses only, and no row count where it is the step's: two decode steps of one
 * model have equal records, byte for byte, whatever they hold. */
struct cu_record {
    uint32_t op;
    uint32_t m; /* rows, or CU_ALL_ROWS: those of the step, padded when a graph runs it */
    union {
        struct cu_embed embed;
        struct cu_norm norm;
        struct cu_quant quant;
        struct cu_lin lin;
        struct cu_rope rope;
        struct cu_attn attn;
        struct cu_sample sample;
    } u;
};

/* What the blob holds for the kernels, at addresses that never change. */
struct cu_arrays {
    int32_t *tokens;               /* [max_rows] */
    uint32_t *positions, *slots;   /* [max_rows] */
    uint32_t *lists;               /* [max_rows] row lists of norms */
    uint32_t *counts;              /* CU_COUNT_* */
    struct cu_attn_item *items[2]; /* the plan ... */
    uint32_t *begin, *members;     /* ... and its lists */
    uint32_t *tables;              /* [max_blocks] block ids */
    struct cu_sample_row *rows;    /* [max_logits] */
    struct be_bias *bias;          /* [max_bias] */
    struct be_seen *seen;          /* [max_seen] */
    int32_t *banned;               /* [max_banned] */
    int32_t *drawn, *prev;         /* [max_logits] this step's and the previous one's tokens */
    struct be_sample_out *out;     /* [max_logits] */
    float *partials;               /* attention's */
    uint32_t *counters;
    void *slabs;    /* of linears whose tiles are cut */
    uint8_t *qkv;   /* [max_rows][widest QKV weight] */
    uint8_t *gated; /* [max_rows][widest GATED weight]; only with the library */
    uint8_t *blob[CU_BLOBS];
    uint32_t *parity;
};

enum { CU_COUNT_SAMPLE, CU_COUNT_ITEMS, CU_COUNTS = 4 };

/* Host side of a parity: filled by begin and the ops, free again when its step was awaited. */
struct cu_slot {
    uint8_t *blob;             /* pinned [blob_bytes] */
    struct be_sample_out *out; /* pinned [max_logits] */
    struct gpu_event *copied;  /* the blob is on the device */
    struct gpu_event *done;    /* the step has run and `out` is there */
    struct be_sample_out *to;  /* where wait_step puts the results, or NULL */
    uint32_t n_out;
};

struct cu_step {
    bool open; /* between begin and end */
    const struct be_batch *batch;
    uint32_t n_rows, m;      /* rows; rows with padding (= n_rows when no graph will run it) */
    bool decode;             /* one row per span, logits of every row */
    uint32_t n_lists;        /* entries of `lists` in use */
    struct op_sample sample; /* n_rows 0: none yet */
    bool seen_apart;         /* too many seen tokens for the blob: they come in turns */
    size_t used;             /* bytes of the blob */
    uint32_t *counts;        /* in the blob */
    uint32_t n_items[2];
    uint32_t grid; /* of list 1: at least its items */
    uint32_t n_records;
};

struct cu_graph {
    struct gpu_graph *graph;
    uint32_t records; /* generation of the records that it was captured from */
    uint32_t met;     /* generation that has run in this bucket launch by launch */
    uint32_t grid;    /* of attention's list 1: blocks without an item return */
};

struct cu_load; /* cu_load.c */

struct cu_be {
    struct be be;
    struct gpu *gpu;
    struct cu_lt *lt;                        /* NULL: deterministic, or the library is not there */
    struct gpu_stream *stream;               /* steps */
    struct gpu_stream *blobs, *store, *load; /* host to device per step; tiers */
    uint8_t xt;                              /* activations: CU_BF16 or CU_F16 */
    bool fp8, graphs;
    struct cu_load *loader; /* while weights come in */
    uint8_t *bounce;        /* pinned [CU_BOUNCE_BYTES], for upload and download */
    struct be_weight *weights;
    struct be_kv *kv;             /* the newest pool: its block_tokens are the plan's */
    struct be_step_limits limits; /* zero before step_limits */
    struct cu_attn_shape shape;   /* n_heads 0: no attention */
    struct cu_attn_plan plan;     /* host arrays */
    struct cu_attn_span *spans;   /* host [max_spans] */
    size_t blob_bytes;
    uint32_t max_bias, max_seen, max_banned, max_vocab;
    struct cu_arrays a;
    struct cu_slot slot[CU_BLOBS];
    uint32_t first, in_flight; /* oldest step's parity, steps under way */
    struct cu_step step;
    struct cu_record *records, *captured; /* [CU_RECORDS]: of this step; that the graphs were made from */
    uint32_t n_captured, generation;
    struct cu_graph graph[2][CU_GRAPHS]; /* without and with items in list 1 */
    struct {
        struct gpu_event *done[CU_TICKETS];
        uint64_t issued;
        struct gpu_event *loaded; /* the last load */
        bool unseen;              /* a load that no step waits for yet */
    } copies;
    struct err why; /* of the step that was refused; status 0: none */
    char describe[224];
};

/* The step that is being built, between begin and end. */
static inline struct cu_slot *cu_be_slot(struct cu_be *b)
{
    return &b->slot[(b->first + b->in_flight) % CU_BLOBS];
}

/* cu_backend.c */
int cu_backend_failed(const struct cu_be *b, struct err *e); /* ST_EDEVICE with the device's words */
/* ST_EINVAL (`st`), with the reason kept for end_step; the first one counts. */
int cu_backend_refuse(struct cu_be *b, int st, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Host memory of any kind to the device, behind what was launched so far. Waits. */
int cu_backend_upload(struct cu_be *b, void *dst, const void *src, size_t bytes);
/* ST_ENOMEM: what was asked, what is free, what to lower. */
int cu_backend_no_memory(const struct cu_be *b, struct err *e, const char *what, size_t bytes,
                         const char *lower);

/* cu_weight.c */
int cu_weight_create(struct be *be, const struct be_weight_desc *d, struct be_weight **out, struct err *e);
void cu_weight_destroy(struct be *be, struct be_weight *w);
size_t cu_weight_bytes(const struct be_weight *w);

/* cu_load.c: rows into device memory by way of pinned staging, filled by several threads. */
typedef void cu_load_fill(void *ctx, uint64_t row0, uint32_t n, uint8_t *out); /* rows row0 .. row0 + n - 1 */
/* Rows of `row_bytes` to dst: returns when all were filled; the copies may still run. */
int cu_load_rows(struct cu_be *b, void *dst, size_t row_bytes, uint64_t n_rows, cu_load_fill *fill,
                 void *ctx);
int cu_load_bytes(struct cu_be *b, void *dst, const void *src, size_t bytes);
int cu_load_close(
    struct cu_be *b); /* waits for the copies, ends threads, frees staging; nothing open: ST_OK */

/* cu_limits.c: everything that a step needs, allocated once. */
int cu_limits_set(struct be *be, const struct be_step_limits *l, struct err *e);
void cu_limits_free(struct cu_be *b);

/* cu_tune.c: the library's choices for all weights, within the limits. */
int cu_tune_all(struct cu_be *b);

/* cu_blob.c: host data on its way to the kernels. */
int cu_blob_begin(struct cu_be *b, const struct be_batch *batch);
int cu_blob_list(struct cu_be *b, const uint32_t *rows, uint32_t n, const uint32_t **device);
int cu_blob_sample(struct cu_be *b, const struct op_sample *p);
size_t cu_blob_max_bytes(const struct cu_be *b);

/* cu_ops.c */
int cu_ops_embed(struct be *be, const struct op_embed *p);
int cu_ops_norm(struct be *be, const struct op_norm *p);
int cu_ops_qkv(struct be *be, const struct op_qkv *p);
int cu_ops_attention(struct be *be, const struct op_attention *p);
int cu_ops_linear_add(struct be *be, const struct op_linear_add *p);
int cu_ops_gated(struct be *be, const struct op_gated *p);
int cu_ops_logits(struct be *be, const struct op_logits *p);
int cu_ops_sample(struct be *be, const struct op_sample *p);

/* cu_run.c: from records to launches. */
int cu_run_begin(struct be *be, const struct be_batch *batch);
int cu_run_end(struct be *be, struct err *e);
int cu_run_wait(struct be *be, struct err *e);
/* Rows that a decode step of n rows is padded to; its index in *graph. */
uint32_t cu_run_bucket(const struct cu_be *b, uint32_t n, uint32_t *graph);

/* cu_copy.c */
int cu_copy_store(struct be *be, struct be_kv *kv, const struct be_block_copy *list, uint32_t n,
                  uint64_t *ticket);
int cu_copy_load(struct be *be, struct be_kv *kv, const struct be_block_copy *list, uint32_t n,
                 uint64_t *ticket);
int cu_copy_poll(struct be *be, uint64_t ticket);

#endif
