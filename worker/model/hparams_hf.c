/* hparams_hf: config.json and generation_config.json. Absent fields take transformers' own defaults for the
 * class (Mistral's window is 4096 when nothing is said), since that is what the weights were trained and
 * saved under. As in hparams_gguf, what would change the arithmetic and is not carried out is refused by
 * name: of quantised weights, all but e4m3 with a scale per tensor or row. */
#include "hparams.h"
#include "json.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { CONFIG_BYTES_MAX = 4 * 1024 * 1024 };

static const struct class_row {
    const char *name, *arch;
    uint32_t kv_heads, window; /* defaults of the class; 0 = as many as query heads, no window */
    bool biases;               /* the class knows attention_bias and mlp_bias */
} classes[] = {
    {"LlamaForCausalLM", "llama", 0, 0, true},
    {"MistralForCausalLM", "llama", 8, 4096, false},
};

static const struct class_row *find_class(const char *name)
{
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (strcmp(classes[i].name, name) == 0)
            return &classes[i];
    return NULL;
}

const char *hparams_hf_arch(const char *class_name)
{
    const struct class_row *row = find_class(class_name);
    return row != NULL ? row->arch : NULL;
}

/* Reads members of one object; the first failure sticks. */
struct reader {
    const cJSON *obj;
    struct err e;
    int rc;
};

static void opt_u32(struct reader *r, const char *name, uint32_t min, uint32_t max, uint32_t *out)
{
    int64_t v = *out;
    if (r->rc == ST_OK)
        r->rc = json_opt_int(r->obj, name, min, max, &v, &r->e);
    if (r->rc == ST_OK)
        *out = (uint32_t)v;
}

static void need_u32(struct reader *r, const char *name, uint32_t max, uint32_t *out)
{
    int64_t v = 0;
    if (r->rc == ST_OK)
        r->rc = json_need_int(r->obj, name, 1, max, &v, &r->e);
    if (r->rc == ST_OK)
        *out = (uint32_t)v;
}

static void opt_num(struct reader *r, const char *name, double min, double max, double *out)
{
    if (r->rc == ST_OK)
        r->rc = json_opt_num(r->obj, name, min, max, out, &r->e);
}

static void opt_bool(struct reader *r, const char *name, bool *out)
{
    if (r->rc == ST_OK)
        r->rc = json_opt_bool(r->obj, name, out, &r->e);
}

static void refuse(struct reader *r, const char *field, struct str what)
{
    if (r->rc == ST_OK)
        r->rc = err_set(&r->e, ST_EUNSUP, "%s: '%.*s' is not supported", field,
                        (int)(what.n > 60 ? 60 : what.n), what.p);
}

/* The class: architectures[0]. */
static const struct class_row *read_class(struct reader *r)
{
    const cJSON *list = json_get(r->obj, "architectures");
    const cJSON *first = cJSON_IsArray(list) ? list->child : NULL;
    if (!cJSON_IsString(first)) {
        r->rc = err_set(&r->e, ST_EFORMAT, "architectures: expected an array with a class name");
        return NULL;
    }
    const struct class_row *row = find_class(first->valuestring);
    if (row == NULL)
        refuse(r, "architectures", str_from(first->valuestring));
    return row;
}

/* Scaling of one object: rope_scaling (old) or rope_parameters (new; holds the base too). */
static void read_rope(struct reader *r, const char *name, struct hparams *h)
{
    const cJSON *obj = json_get(r->obj, name);
    if (r->rc != ST_OK || obj == NULL || cJSON_IsNull(obj))
        return;
    if (!cJSON_IsObject(obj)) {
        r->rc = err_set(&r->e, ST_EFORMAT, "%s: expected an object", name);
        return;
    }
    struct reader in = {.obj = obj};
    struct str type = STR_LIT("default");
    in.rc = json_opt_str(obj, "type", &type, &in.e);
    if (in.rc == ST_OK)
        in.rc = json_opt_str(obj, "rope_type", &type, &in.e);
    opt_num(&in, "rope_theta", 1, 1e12, &h->rope_theta);
    if (in.rc == ST_OK && str_eqz(type, "linear")) {
        h->scaling = HPARAMS_SCALING_LINEAR;
        opt_num(&in, "factor", 1e-3, 1e6, &h->rope_factor);
    } else if (in.rc == ST_OK && str_eqz(type, "llama3")) {
        h->scaling = HPARAMS_SCALING_LLAMA3;
        opt_num(&in, "factor", 1e-3, 1e6, &h->rope_factor);
        opt_num(&in, "low_freq_factor", 1e-3, 1e6, &h->rope_low);
        opt_num(&in, "high_freq_factor", 1e-3, 1e6, &h->rope_high);
        need_u32(&in, "original_max_position_embeddings", HPARAMS_CONTEXT_MAX, &h->rope_original);
    } else if (!str_eqz(type, "default")) {
        refuse(&in, "rope_type", type);
    }
    if (in.rc != ST_OK)
        r->rc = err_set(&r->e, in.rc, "%s.%.200s", name, in.e.text);
}

/* One id, a list of ids, or null. */
static void read_eos(struct reader *r, struct hparams *h)
{
    const cJSON *j = json_get(r->obj, "eos_token_id");
    if (r->rc != ST_OK || j == NULL || cJSON_IsNull(j))
        return;
    for (const cJSON *id = cJSON_IsArray(j) ? j->child : j; id != NULL;
         id = cJSON_IsArray(j) ? id->next : NULL) {
        double v = cJSON_IsNumber(id) ? id->valuedouble : -1;
        if (!(v >= 0 && v < HPARAMS_VOCAB_MAX) || v != (double)(int32_t)v ||
            !hparams_add_eos(h, (int64_t)v)) {
            r->rc = err_set(&r->e, ST_EFORMAT, "eos_token_id: expected a token id or up to %d of them",
                            HPARAMS_EOS_MAX);
            return;
        }
    }
}

static void read_bos(struct reader *r, struct hparams *h)
{
    uint32_t v = UINT32_MAX;
    opt_u32(r, "bos_token_id", 0, HPARAMS_VOCAB_MAX - 1, &v);
    if (r->rc == ST_OK && v != UINT32_MAX)
        h->bos = (int32_t)v;
}

/* ---- quantization_config: weights in e4m3 with a scale per tensor or row --------------------------------- */

static bool is_set(const cJSON *j)
{
    return j != NULL && !cJSON_IsNull(j);
}

/* One of compressed-tensors' groups. How it would have activations rounded is not read: that is the backend's
 * own choice. */
static void check_group(struct reader *r, const cJSON *group)
{
    struct reader w = {.obj = json_get(group, "weights")};
    struct str type = STR_LIT("int"), strategy = STR_LIT("tensor");
    uint32_t bits = 8;
    bool symmetric = true;
    char what[96];
    if (!cJSON_IsObject(w.obj))
        w.rc = err_set(&w.e, ST_EFORMAT, "expected an object");
    if (w.rc == ST_OK)
        w.rc = json_opt_str(w.obj, "type", &type, &w.e);
    if (w.rc == ST_OK)
        w.rc = json_opt_str(w.obj, "strategy", &strategy, &w.e);
    opt_u32(&w, "num_bits", 1, 64, &bits);
    opt_bool(&w, "symmetric", &symmetric);
    snprintf(what, sizeof what, "%" PRIu32 "-bit %.16s by %.16s%s", bits, type.p, strategy.p,
             symmetric ? "" : ", asymmetric");
    if (w.rc != ST_OK)
        r->rc = err_set(&r->e, w.rc, "quantization_config.config_groups.weights: %.150s", w.e.text);
    else if (!str_eqz(type, "float") || bits != 8 || !symmetric ||
             !(str_eqz(strategy, "tensor") || str_eqz(strategy, "channel")))
        refuse(r, "quantization_config.config_groups.weights", str_from(what));
}

static void check_compressed_tensors(struct reader *r, const cJSON *q)
{
    const cJSON *groups = json_get(q, "config_groups"), *transform = json_get(q, "transform_config");
    const cJSON *sparse = json_get(json_get(q, "sparsity_config"), "format");
    if (cJSON_IsString(sparse) && strcmp(sparse->valuestring, "dense") != 0)
        refuse(r, "quantization_config.sparsity_config", str_from(sparse->valuestring));
    if (is_set(transform) && transform->child != NULL)
        refuse(r, "quantization_config", STR_LIT("transform_config"));
    if (r->rc == ST_OK && (!cJSON_IsObject(groups) || groups->child == NULL))
        r->rc = err_set(&r->e, ST_EFORMAT, "quantization_config.config_groups: expected an object of groups");
    for (const cJSON *g = groups != NULL ? groups->child : NULL; g != NULL && r->rc == ST_OK; g = g->next)
        check_group(r, g);
}

/* Which tensors are e4m3 the file itself says; here is only asked whether their scales are of a known kind. */
static void check_quantization(struct reader *r)
{
    const cJSON *q = json_get(r->obj, "quantization_config");
    struct str method = STR_LIT("unnamed"), algo = STR_LIT("unnamed");
    if (r->rc != ST_OK || !is_set(q))
        return;
    struct err e = {0};
    int rc = json_opt_str(q, "quant_method", &method, &e);
    if (rc == ST_OK)
        rc = json_opt_str(q, "quant_algo", &algo, &e);
    if (rc != ST_OK) {
        r->rc = err_set(&r->e, rc, "quantization_config.%.150s", e.text);
    } else if (str_eqz(method, "compressed-tensors")) {
        check_compressed_tensors(r, q);
    } else if (str_eqz(method, "modelopt")) {
        if (!str_eqz(algo, "FP8") && !str_eqz(algo, "FP8_PER_CHANNEL_PER_TOKEN"))
            refuse(r, "quantization_config.quant_algo", algo);
    } else if (str_eqz(method, "fp8")) {
        if (is_set(json_get(q, "weight_block_size")))
            refuse(r, "quantization_config", STR_LIT("weight_block_size"));
    } else if (!str_eqz(method, "fbgemm_fp8")) {
        refuse(r, "quantization_config", method);
    }
}

static void check_activation(struct reader *r)
{
    struct str act = STR_LIT("silu");
    if (r->rc == ST_OK)
        r->rc = json_opt_str(r->obj, "hidden_act", &act, &r->e);
    if (!str_eqz(act, "silu"))
        refuse(r, "hidden_act", act);
}

static void read_shape(struct reader *r, const struct class_row *row, struct hparams *h)
{
    need_u32(r, "num_hidden_layers", HPARAMS_LAYERS_MAX, &h->n_layers);
    need_u32(r, "hidden_size", HPARAMS_WIDTH_MAX, &h->d);
    need_u32(r, "num_attention_heads", HPARAMS_HEADS_MAX, &h->n_heads);
    need_u32(r, "intermediate_size", HPARAMS_FFN_MAX, &h->ffn);
    need_u32(r, "vocab_size", HPARAMS_VOCAB_MAX, &h->vocab);
    if (r->rc != ST_OK)
        return;
    h->n_kv_heads = row->kv_heads != 0 ? row->kv_heads : h->n_heads;
    opt_u32(r, "num_key_value_heads", 1, HPARAMS_HEADS_MAX, &h->n_kv_heads);
    h->head_dim = h->d / h->n_heads;
    opt_u32(r, "head_dim", 2, HPARAMS_HEAD_DIM_MAX, &h->head_dim);
    opt_u32(r, "max_position_embeddings", 1, HPARAMS_CONTEXT_MAX, &h->context_max);
    if (row->window != 0) {
        h->window = row->window;
        const cJSON *w = json_get(r->obj, "sliding_window");
        if (w != NULL && cJSON_IsNull(w))
            h->window = 0; /* null is "none", which absence is not */
        opt_u32(r, "sliding_window", 1, HPARAMS_CONTEXT_MAX, &h->window);
    }
    double part = 1;
    opt_num(r, "partial_rotary_factor", 0, 1, &part);
    h->rot_dim = (uint32_t)(h->head_dim * part);
    opt_bool(r, "tie_word_embeddings", &h->tied);
    if (row->biases) {
        opt_bool(r, "attention_bias", &h->attn_bias);
        opt_bool(r, "mlp_bias", &h->mlp_bias);
    }
}

static void read_config(struct reader *r, struct hparams *h)
{
    struct str name = {"", 0};
    const struct class_row *row = read_class(r);
    if (row == NULL)
        return;
    snprintf(h->arch, sizeof h->arch, "%s", row->arch);
    r->rc = json_opt_str(r->obj, "_name_or_path", &name, &r->e);
    name.n = utf8_complete((struct str){name.p, name.n < sizeof h->name ? name.n : sizeof h->name - 1});
    memcpy(h->name, name.p, name.n);
    read_shape(r, row, h);
    opt_num(r, "rms_norm_eps", 0, 1, &h->rms_eps);
    opt_num(r, "rope_theta", 1, 1e12, &h->rope_theta);
    read_rope(r, "rope_scaling", h);
    read_rope(r, "rope_parameters", h);
    check_activation(r);
    check_quantization(r);
    read_eos(r, h);
    read_bos(r, h);
}

/* Parses one file and hands its object to `read`; errors get the file's name in front. */
static int with_file(struct str text, const char *file, void (*read)(struct reader *, struct hparams *),
                     struct hparams *h, struct err *e)
{
    cJSON *j = NULL;
    struct reader r = {0};
    if (text.n > CONFIG_BYTES_MAX)
        return err_set(e, ST_EFORMAT, "%s: larger than %d bytes", file, CONFIG_BYTES_MAX);
    r.rc = json_parse(&j, text, &r.e);
    r.obj = j;
    if (r.rc == ST_OK && !cJSON_IsObject(j))
        r.rc = err_set(&r.e, ST_EFORMAT, "expected an object");
    if (r.rc == ST_OK)
        read(&r, h);
    json_free(j);
    if (r.rc == ST_EINVAL)
        r.rc = ST_EFORMAT; /* the JSON view speaks of requests; here the value stands in a file */
    return r.rc == ST_OK ? ST_OK : err_set(e, r.rc, "%s: %.200s", file, r.e.text);
}

static void read_generation(struct reader *r, struct hparams *h)
{
    read_eos(r, h);
    if (h->bos < 0)
        read_bos(r, h);
}

int hparams_hf(struct hparams *out, struct str config, struct str generation, struct err *e)
{
    struct hparams h = {.rms_eps = 1e-6,
                        .rope_theta = 10000,
                        .rope_factor = 1,
                        .rope_low = 1,
                        .rope_high = 4,
                        .bos = -1,
                        .context_max = 2048};
    int rc = with_file(config, "config.json", read_config, &h, e);
    if (rc == ST_OK && generation.n > 0)
        rc = with_file(generation, "generation_config.json", read_generation, &h, e);
    if (rc == ST_OK)
        rc = hparams_check(&h, "config.json", e);
    if (rc == ST_OK)
        *out = h;
    return rc;
}
