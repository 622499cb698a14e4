/* hparams_gguf: the "<arch>.*" keys. A key that would change the arithmetic and is not carried out here is
 * refused by name: a model that loads must compute what its file says. */
#include "hparams.h"
#include "arch.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Reads keys under one prefix; the first failure sticks and turns the rest into no-ops. */
struct reader {
    const struct gguf *g;
    const char *arch;
    struct err *e;
    int rc;
    char key[96];
};

static const char *key(struct reader *r, const char *suffix)
{
    snprintf(r->key, sizeof r->key, "%s.%s", r->arch, suffix);
    return r->key;
}

static void need_u32(struct reader *r, const char *suffix, uint32_t max, uint32_t *out)
{
    int64_t v = 0;
    if (r->rc == ST_OK)
        r->rc = gguf_need_int(r->g, key(r, suffix), 1, max, &v, r->e);
    if (r->rc == ST_OK)
        *out = (uint32_t)v;
}

static void opt_u32(struct reader *r, const char *suffix, uint32_t min, uint32_t max, uint32_t *out)
{
    int64_t v = *out;
    if (r->rc == ST_OK)
        r->rc = gguf_opt_int(r->g, key(r, suffix), min, max, &v, r->e);
    if (r->rc == ST_OK)
        *out = (uint32_t)v;
}

static void opt_num(struct reader *r, const char *suffix, double min, double max, double *out)
{
    if (r->rc == ST_OK)
        r->rc = gguf_opt_num(r->g, key(r, suffix), min, max, out, r->e);
}

/* A count that some files give per layer: taken when all layers agree. */
static void opt_u32_layers(struct reader *r, const char *suffix, uint32_t max, uint32_t *out)
{
    struct gguf_array a;
    if (r->rc != ST_OK || gguf_opt_array(r->g, key(r, suffix), GGUF_U32, &a, NULL) != ST_OK ||
        !gguf_has(r->g, r->key)) {
        opt_u32(r, suffix, 1, max, out);
        return;
    }
    for (uint64_t i = 0; i < a.n; i++) {
        int64_t v = gguf_array_int(&a, i);
        if (v != gguf_array_int(&a, 0) || v < 1 || v > max) {
            r->rc = err_set(r->e, ST_EUNSUP,
                            "%s: key '%s': differs between layers or is not within 1 to %" PRIu32,
                            gguf_name(r->g), r->key, max);
            return;
        }
        *out = (uint32_t)v;
    }
}

static void read_scaling(struct reader *r, struct hparams *h)
{
    struct str type = STR_LIT("none");
    if (r->rc == ST_OK)
        r->rc = gguf_opt_str(r->g, key(r, "rope.scaling.type"), &type, r->e);
    if (r->rc != ST_OK)
        return;
    h->rope_factor = 1;
    opt_num(r, "rope.scale_linear", 1e-3, 1e6, &h->rope_factor); /* the older spelling */
    opt_num(r, "rope.scaling.factor", 1e-3, 1e6, &h->rope_factor);
    if (str_eqz(type, "linear") || (str_eqz(type, "none") && gguf_has(r->g, key(r, "rope.scale_linear")))) {
        h->scaling = HPARAMS_SCALING_LINEAR;
    } else if (str_eqz(type, "llama3")) {
        h->scaling = HPARAMS_SCALING_LLAMA3;
        opt_num(r, "rope.scaling.low_freq_factor", 1e-3, 1e6, &h->rope_low);
        opt_num(r, "rope.scaling.high_freq_factor", 1e-3, 1e6, &h->rope_high);
        need_u32(r, "rope.scaling.original_context_length", HPARAMS_CONTEXT_MAX, &h->rope_original);
    } else if (!str_eqz(type, "none") && r->rc == ST_OK) {
        r->rc = err_set(r->e, ST_EUNSUP,
                        "%s: key '%s.rope.scaling.type': '%.*s' is not supported (none, linear, llama3)",
                        gguf_name(r->g), r->arch, (int)(type.n > 40 ? 40 : type.n), type.p);
    }
}

static void read_ends(struct reader *r, struct hparams *h)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    int64_t id = -1;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && r->rc == ST_OK; i++) {
        id = -1;
        r->rc = gguf_opt_int(r->g, keys[i], 0, HPARAMS_VOCAB_MAX - 1, &id, r->e);
        if (id >= 0)
            hparams_add_eos(h, id);
    }
    id = -1;
    if (r->rc == ST_OK)
        r->rc = gguf_opt_int(r->g, "tokenizer.ggml.bos_token_id", 0, HPARAMS_VOCAB_MAX - 1, &id, r->e);
    h->bos = (int32_t)id;
}

static void read_shape(struct reader *r, struct hparams *h)
{
    uint32_t experts = 0, value_dim;
    need_u32(r, "block_count", HPARAMS_LAYERS_MAX, &h->n_layers);
    need_u32(r, "embedding_length", HPARAMS_WIDTH_MAX, &h->d);
    opt_u32_layers(r, "attention.head_count", HPARAMS_HEADS_MAX, &h->n_heads);
    if (r->rc == ST_OK && h->n_heads == 0)
        need_u32(r, "attention.head_count", HPARAMS_HEADS_MAX, &h->n_heads);
    h->n_kv_heads = h->n_heads;
    opt_u32_layers(r, "attention.head_count_kv", HPARAMS_HEADS_MAX, &h->n_kv_heads);
    opt_u32_layers(r, "feed_forward_length", HPARAMS_FFN_MAX, &h->ffn);
    if (r->rc == ST_OK && h->ffn == 0)
        need_u32(r, "feed_forward_length", HPARAMS_FFN_MAX, &h->ffn);
    need_u32(r, "context_length", HPARAMS_CONTEXT_MAX, &h->context_max);
    opt_u32(r, "vocab_size", 1, HPARAMS_VOCAB_MAX, &h->vocab);
    opt_u32(r, "expert_count", 0, UINT32_MAX, &experts);
    if (r->rc == ST_OK && experts > 0)
        r->rc = err_set(r->e, ST_EUNSUP, "%s: key '%s.expert_count': mixtures of experts are not supported",
                        gguf_name(r->g), r->arch);
    h->head_dim = h->n_heads > 0 ? h->d / h->n_heads : 0;
    opt_u32(r, "attention.key_length", 1, HPARAMS_HEAD_DIM_MAX, &h->head_dim);
    value_dim = h->head_dim;
    opt_u32(r, "attention.value_length", 1, HPARAMS_HEAD_DIM_MAX, &value_dim);
    if (r->rc == ST_OK && value_dim != h->head_dim)
        r->rc = err_set(r->e, ST_EUNSUP,
                        "%s: key '%s.attention.value_length': %" PRIu32 " differs from key_length %" PRIu32,
                        gguf_name(r->g), r->arch, value_dim, h->head_dim);
}

int hparams_gguf(struct hparams *out, const struct gguf *g, struct err *e)
{
    struct hparams h = {.rms_eps = 1e-5, .rope_theta = 10000, .rope_low = 1, .rope_high = 4, .bos = -1};
    struct str arch, name = {"", 0};
    int rc = gguf_need_str(g, "general.architecture", &arch, e);
    if (rc == ST_OK)
        rc = gguf_opt_str(g, "general.name", &name, e);
    if (rc != ST_OK)
        return rc;
    if (arch.n == 0 || arch.n >= sizeof h.arch || memchr(arch.p, 0, arch.n) != NULL)
        return err_set(e, ST_EFORMAT, "%s: key 'general.architecture': expected a name of 1 to %zu bytes",
                       gguf_name(g), sizeof h.arch - 1);
    memcpy(h.arch, arch.p, arch.n);
    if (arch_find(h.arch) == NULL)
        return err_set(e, ST_EUNSUP, "%s: architecture '%s' is not supported", gguf_name(g), h.arch);
    name.n = utf8_complete((struct str){name.p, name.n < sizeof h.name ? name.n : sizeof h.name - 1});
    if (name.n > 0 && memchr(name.p, 0, name.n) == NULL)
        memcpy(h.name, name.p, name.n);

    int64_t files = 1;
    rc = gguf_opt_int(g, "split.count", 0, INT64_MAX, &files, e);
    if (rc != ST_OK)
        return rc;
    if (files > 1)
        return err_set(e, ST_EUNSUP,
                       "%s: key 'split.count': one of %" PRId64 " files; merge them into one first",
                       gguf_name(g), files);

    struct reader r = {.g = g, .arch = h.arch, .e = e};
    read_shape(&r, &h);
    opt_num(&r, "attention.layer_norm_rms_epsilon", 0, 1, &h.rms_eps);
    opt_num(&r, "rope.freq_base", 1, 1e12, &h.rope_theta);
    h.rot_dim = h.head_dim;
    opt_u32(&r, "rope.dimension_count", 1, HPARAMS_HEAD_DIM_MAX, &h.rot_dim);
    opt_u32(&r, "attention.sliding_window", 0, HPARAMS_CONTEXT_MAX, &h.window);
    read_scaling(&r, &h);
    read_ends(&r, &h);
    if (r.rc == ST_OK)
        r.rc = hparams_check(&h, gguf_name(g), e);
    if (r.rc == ST_OK)
        *out = h;
    return r.rc;
}
