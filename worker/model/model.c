/* model: the front of this room: which reader, which family, and what the outside may know.
 *
 * The fingerprint stands in the identity of every KV block, so that two models never share one. It covers all
 * numbers that the forward uses, each tensor's name, type and shape, and the first and last 4 KiB of its
 * bytes: a different training run differs everywhere, while hashing all bytes of a large model would cost
 * seconds at each start. */
#include "model_state.h"
#include "hash.h"
#include "log.h"
#include "mem.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { SAMPLE_BYTES = 4096 };

_Static_assert((int)MODEL_EOS_MAX == (int)HPARAMS_EOS_MAX, "one list of end tokens");
_Static_assert((int)MODEL_FINGERPRINT_BYTES == (int)HASH_BYTES, "one hash");

/* ---- description --------------------------------------------------------------------------------------- */

static void hash_u64(struct hash *h, uint64_t v)
{
    unsigned char b[8];
    for (int i = 0; i < 8; i++)
        b[i] = (unsigned char)(v >> 8 * i);
    hash_update(h, b, sizeof b);
}

static void hash_double(struct hash *h, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, 8);
    hash_u64(h, bits);
}

static void hash_text(struct hash *h, struct str s)
{
    hash_u64(h, s.n); /* a length in front keeps "ab" + "c" apart from "a" + "bc" */
    hash_update(h, s.p, s.n);
}

static void hash_tensor(struct hash *h, const struct tensor *t)
{
    hash_text(h, t->name);
    hash_text(h, str_from(t->type_text));
    hash_u64(h, t->n_dims);
    for (uint32_t i = 0; i < t->n_dims; i++)
        hash_u64(h, t->dims[i]);
    hash_u64(h, t->bytes);
    if (t->data == NULL)
        return;
    size_t n = t->bytes < SAMPLE_BYTES ? t->bytes : SAMPLE_BYTES;
    hash_update(h, t->data, n);
    hash_update(h, t->data + t->bytes - n, n);
}

static void fingerprint(struct model *m)
{
    const struct hparams *p = &m->h;
    const uint32_t counts[] = {p->n_layers,     p->d,     p->n_heads, p->n_kv_heads, p->head_dim,
                               p->ffn,          p->vocab, p->window,  p->rot_dim,    (uint32_t)p->scaling,
                               p->rope_original};
    struct hash h;
    hash_init(&h);
    hash_text(&h, STR_LIT("stator model 1"));
    hash_text(&h, str_from(p->arch));
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        hash_u64(&h, counts[i]);
    hash_double(&h, p->rms_eps);
    hash_double(&h, p->rope_theta);
    hash_double(&h, p->rope_factor);
    hash_double(&h, p->rope_low);
    hash_double(&h, p->rope_high);
    hash_u64(&h, p->tied);
    hash_u64(&h, m->src.dummy);
    for (uint32_t i = 0; i < source_n_tensors(&m->src); i++)
        hash_tensor(&h, source_tensor_at(&m->src, i));
    hash_final(&h, m->info.fingerprint);
}

/* Layers are numbered; embedding and head, often of another type, are not. */
static bool in_layer(struct str name)
{
    for (size_t i = 0; i < name.n; i++)
        if (name.p[i] >= '0' && name.p[i] <= '9')
            return true;
    return false;
}

static void count_dummy(struct model *m)
{
    const struct hparams *h = &m->h;
    uint64_t d = h->d, heads = (uint64_t)2 * h->n_heads + (uint64_t)2 * h->n_kv_heads;
    uint64_t layer = d * heads * h->head_dim + 3 * d * h->ffn + 2 * d;
    m->info.n_params = h->n_layers * layer + (h->tied ? 1 : 2) * d * h->vocab + d;
    m->info.tensor_bytes = 2 * m->info.n_params;
    m->info.quant = "BF16, random";
}

static bool ends_with(struct str s, const char *end)
{
    size_t n = strlen(end);
    return s.n >= n && memcmp(s.p + s.n - n, end, n) == 0;
}

/* Scales for activations or for a KV cache, fixed when the file was made: every backend takes its own. */
static void log_unused_scales(const struct model *m)
{
    uint32_t unused = 0;
    for (uint32_t i = 0; i < source_n_tensors(&m->src); i++) {
        struct str name = source_tensor_at(&m->src, i)->name;
        unused += ends_with(name, "_scale") && !ends_with(name, ".weight_scale");
    }
    if (unused != 0)
        log_info("model", "%s: %" PRIu32 " fixed scales of activations and KV are not used", m->src.name,
                 unused);
}

/* Sums over tensors, and the type that the matrices of the layers have most. */
static void count_tensors(struct model *m)
{
    uint64_t by_type[BE_TYPE_COUNT] = {0};
    m->info.quant = "unknown";
    for (uint32_t i = 0; i < source_n_tensors(&m->src); i++) {
        const struct tensor *t = source_tensor_at(&m->src, i);
        uint64_t n;
        if (!tensor_elements(t, &n) || str_eqz(t->name, "rope_freqs.weight") || ends_with(t->name, "_scale"))
            continue;
        m->info.n_params += n;
        m->info.tensor_bytes += t->bytes;
        if (t->type >= 0 && t->n_dims == 2 && in_layer(t->name))
            by_type[t->type] += n;
    }
    if (m->src.dummy)
        count_dummy(m);
    uint64_t best = 0;
    for (int i = 0; i < BE_TYPE_COUNT; i++) {
        if (by_type[i] > best) {
            best = by_type[i];
            m->info.quant = be_type_name((enum be_type)i);
        }
    }
}

static void describe(struct model *m)
{
    const struct hparams *h = &m->h;
    struct model_info *i = &m->info;
    i->arch = m->arch->name;
    i->file = m->src.name;
    i->name = h->name[0] != 0 ? h->name : m->src.name;
    i->n_layers = h->n_layers;
    i->d = h->d;
    i->n_heads = h->n_heads;
    i->n_kv_heads = h->n_kv_heads;
    i->head_dim = h->head_dim;
    i->ffn = h->ffn;
    i->vocab = h->vocab;
    i->context_max = h->context_max;
    i->window = h->window;
    i->rope_theta = h->rope_theta;
    i->rope_factor = h->rope_factor;
    i->tied = m->src.gguf != NULL ? source_tensor(&m->src, "output.weight") == NULL : h->tied;
    i->bos = h->bos;
    i->n_eos = h->n_eos;
    memcpy(i->eos, h->eos, sizeof i->eos);
    i->file_bytes = source_bytes(&m->src);
    count_tensors(m);
    fingerprint(m);
}

/* GGUF files may leave the vocabulary's size to the embedding. */
static int settle_vocab(struct model *m, struct err *e)
{
    if (m->h.vocab != 0)
        return ST_OK;
    const struct tensor *t = source_tensor(&m->src, "token_embd.weight");
    if (t == NULL || t->n_dims != 2 || t->dims[0] > HPARAMS_VOCAB_MAX)
        return err_set(e, ST_EFORMAT, "%s: tensor 'token_embd.weight' is missing or of no known shape",
                       m->src.name);
    m->h.vocab = (uint32_t)t->dims[0];
    return ST_OK;
}

/* ---- life ---------------------------------------------------------------------------------------------- */

int model_begin(struct model **out, const char *path, struct err *e)
{
    *out = mem_zalloc(1, sizeof **out);
    return *out != NULL ? ST_OK : err_set(e, ST_ENOMEM, "%s: out of memory", path);
}

int model_finish(struct model *m, int rc, struct err *e)
{
    if (rc == ST_OK)
        rc = settle_vocab(m, e);
    if (rc != ST_OK) {
        model_destroy(m);
        return rc;
    }
    m->arch = arch_find(m->h.arch); /* the readers of hparams refuse names that it does not know */
    assert(m->arch != NULL);
    describe(m);
    log_unused_scales(m);
    return ST_OK;
}

int model_open_hparams(struct model **out, const struct hparams *h, struct err *e)
{
    struct model *m = NULL;
    const char *name = h->name[0] != 0 ? h->name : h->arch;
    int rc = model_begin(&m, name, e);
    if (rc != ST_OK)
        return rc;
    m->h = *h;
    rc = arch_find(h->arch) != NULL ? hparams_check(h, name, e)
                                    : err_set(e, ST_EUNSUP, "%s: architecture '%s' is unknown", name, h->arch);
    if (rc == ST_OK)
        rc = source_open_dummy(&m->src, name, e);
    rc = model_finish(m, rc, e);
    if (rc == ST_OK)
        *out = m;
    return rc;
}

void model_destroy(struct model *m)
{
    if (m == NULL)
        return;
    if (m->net != NULL)
        m->arch->destroy(m->net);
    source_close(&m->src);
    mem_free(m);
}

const struct model_info *model_info(const struct model *m)
{
    return &m->info;
}

const struct gguf *model_gguf(const struct model *m)
{
    return m->src.gguf;
}

int model_load(struct model *m, struct be *be, const struct model_load_options *o, struct err *e)
{
    assert(m->net == NULL && o->max_rows > 0);
    struct arch_limits limits = {o->max_rows, o->max_context != 0 ? o->max_context : m->h.context_max};
    struct pack p = {.be = be,
                     .src = &m->src,
                     .rope_interleaved = m->src.gguf != NULL,
                     .head_dim = m->h.head_dim,
                     .rot_dim = m->h.rot_dim,
                     .progress = o->progress,
                     .user = o->user,
                     .e = e,
                     .total = m->info.tensor_bytes};
    int rc = m->arch->load(&m->net, &m->h, &limits, &p);
    dummy_fini(&p.dummy);
    if (rc != ST_OK)
        return rc;
    /* Tensors that no weight asked for (a second copy of a tied head) leave the count short. */
    if (o->progress != NULL && p.done < p.total)
        o->progress(o->user, p.total, p.total);
    m->max_context = limits.max_context;
    m->max_rows = limits.max_rows;
    m->pending_tokens = be->ops->depth > 1;
    return ST_OK;
}

size_t model_weight_bytes(const struct model *m)
{
    return m->net != NULL ? m->arch->weight_bytes(m->net) : 0;
}

uint32_t model_max_context(const struct model *m)
{
    return m->max_context;
}

void model_kv_shape(const struct model *m, uint32_t block_tokens, uint32_t n_blocks, enum be_type type,
                    struct be_kv_shape *out)
{
    *out = (struct be_kv_shape){m->h.n_layers, m->h.n_kv_heads, m->h.head_dim, block_tokens, n_blocks, type};
}

/* Beyond the rope table's end an op would read foreign memory. */
static bool batch_fits(const struct model *m, const struct be_batch *b)
{
    bool ok = b->n_rows <= m->max_rows && b->n_logits <= b->n_rows;
    for (uint32_t i = 0; i < b->n_rows && ok; i++) {
        bool known = b->tokens[i] >= 0;
        ok = b->positions[i] < m->max_context &&
             (known ? (uint32_t)b->tokens[i] < m->h.vocab : m->pending_tokens);
    }
    return ok;
}

int model_forward(struct model *m, const struct be_batch *batch, struct be_kv *kv, float *logits)
{
    assert(m->net != NULL && batch_fits(m, batch));
    return m->arch->forward(m->net, batch, kv, logits);
}
