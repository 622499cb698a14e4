/* pack: every model family asks for the same four things (matrix, fused matrices, vector, fused biases), each
 * with the same checks. The shape that the config implies is compared here, before a kernel sees a pointer: a
 * lying config ends with a sentence that names both shapes.
 *
 * A matrix of e4m3 comes with scales, "<name>_scale": one for each row or one for all, spelled alike by all
 * programs that write such files. They are handed on as one per row. Its NaN codes are refused: quantisers
 * make none, and a backend may read them as numbers. */
#include "pack.h"
#include "mem.h"
#include "unpack.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Finds a tensor of exactly this shape: [rows][k], or [k] when rows is 0. NULL: p->rc is set. */
static const struct tensor *need(struct pack *p, const char *name, uint64_t rows, uint64_t k)
{
    const struct tensor *t = source_tensor(p->src, name);
    if (t == NULL) {
        p->rc = err_set(p->e, ST_EFORMAT, "%s: tensor '%s' is missing", p->src->name, name);
        return NULL;
    }
    bool fits = rows == 0 ? t->n_dims == 1 && t->dims[0] == k
                          : t->n_dims == 2 && t->dims[0] == rows && t->dims[1] == k;
    if (!fits) {
        char found[96], want[48];
        tensor_shape_text(t, found, sizeof found);
        if (rows == 0)
            snprintf(want, sizeof want, "[%" PRIu64 "]", k);
        else
            snprintf(want, sizeof want, "[%" PRIu64 ", %" PRIu64 "]", rows, k);
        p->rc = err_set(p->e, ST_EFORMAT, "%s: tensor '%s': its shape is %s, the config asks for %s", t->file,
                        name, found, want);
        return NULL;
    }
    if (t->type < 0) {
        p->rc = err_set(p->e, ST_EUNSUP, "%s: tensor '%s': type %.20s is not supported", t->file, name,
                        t->type_text);
        return NULL;
    }
    return t;
}

static void account(struct pack *p, const struct tensor *t)
{
    source_drop(p->src, t);
    p->done += t->bytes;
    if (p->progress != NULL)
        p->progress(p->user, p->done, p->total);
}

/* Random matrices in place of a group of the file's. */
static bool fill_parts(struct pack *p, const struct pack_part *parts, uint64_t k, struct be_weight_desc *d)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < d->n_parts; i++)
        n += parts[i].rows * k;
    if (dummy_reserve(&p->dummy, n) != ST_OK) {
        p->rc = err_set(p->e, ST_ENOMEM, "%s: out of memory", parts[0].name);
        return false;
    }
    n = 0;
    for (uint32_t i = 0; i < d->n_parts; i++) {
        dummy_fill(&p->dummy, n, parts[i].rows, k, parts[i].name);
        d->parts[i] =
            (struct be_part){.type = BE_BF16, .rows = (uint32_t)parts[i].rows, .data = p->dummy.data + n};
        n += parts[i].rows * k;
    }
    p->done += n * sizeof *p->dummy.data;
    if (p->progress != NULL)
        p->progress(p->user, p->done < p->total ? p->done : p->total, p->total);
    return true;
}

static struct be_weight *create(struct pack *p, const struct be_weight_desc *d)
{
    struct be_weight *w = NULL;
    struct err inner = {0};
    int rc = p->be->ops->weight_create(p->be, d, &w, &inner);
    if (rc == ST_OK)
        return w;
    p->rc = err_set(p->e, rc, "%s: tensor '%s': %.150s", p->src->name, d->name,
                    inner.text[0] != 0 ? inner.text : status_text(rc));
    return NULL;
}

/* ---- e4m3 ---------------------------------------------------------------------------------------------- */

static bool has_nan_code(const unsigned char *p, size_t n)
{
    const uint64_t low = 0x0101010101010101u;
    uint64_t found = 0, w;
    for (; n >= 8; p += 8, n -= 8) {
        memcpy(&w, p, 8);
        found |= (w & 127 * low) + low; /* only 127 + 1 reaches a byte's top bit */
    }
    for (; n > 0; p++, n--)
        found |= (*p & 127u) + 1u;
    return (found & 128 * low) != 0;
}

/* Floats of the scale's own shape into one per row. */
static bool spread_scales(const struct tensor *s, uint64_t rows, float *out)
{
    uint64_t n = 1;
    bool shaped = s->n_dims <= 1 || (s->n_dims == 2 && s->dims[1] == 1);
    if (!shaped || !tensor_elements(s, &n) || (n != 1 && n != rows))
        return false;
    unpack_values((enum be_type)s->type, s->data, 0, (uint32_t)n, out);
    for (uint64_t i = n; i < rows; i++)
        out[i] = out[0];
    return true;
}

/* The scales of a matrix, one per row, for the caller to free; NULL: p->rc is set. */
static float *e4m3_scales(struct pack *p, const struct tensor *t)
{
    char name[128], found[96];
    uint64_t rows = t->dims[0];
    snprintf(name, sizeof name, "%.*s_scale", (int)t->name.n, t->name.p);
    const struct tensor *s = source_tensor(p->src, name);
    float *out = mem_alloc(rows * sizeof *out);
    if (out == NULL) {
        p->rc = err_set(p->e, ST_ENOMEM, "%s: out of memory", name);
    } else if (s == NULL) {
        p->rc = err_set(p->e, ST_EFORMAT, "%s: tensor '%s' is missing beside weights of %s", t->file, name,
                        t->type_text);
    } else if (s->type != BE_F32 && s->type != BE_F16 && s->type != BE_BF16) {
        p->rc = err_set(p->e, ST_EUNSUP, "%s: tensor '%s': scales of type %.20s are not supported", s->file,
                        name, s->type_text);
    } else if (!spread_scales(s, rows, out)) {
        tensor_shape_text(s, found, sizeof found);
        p->rc = err_set(p->e, ST_EUNSUP,
                        "%s: tensor '%s': its shape is %s; one scale per row (%" PRIu64
                        ") or one for all is supported",
                        s->file, name, found, rows);
    } else if (has_nan_code(t->data, t->bytes)) {
        p->rc = err_set(p->e, ST_EFORMAT, "%s: tensor '%.*s' holds NaN", t->file, (int)t->name.n, t->name.p);
    }
    for (uint64_t i = 0; i < rows && p->rc == ST_OK; i++)
        if (!isfinite(out[i]) || out[i] < 0)
            p->rc = err_set(p->e, ST_EFORMAT, "%s: tensor '%s': the scale of row %" PRIu64 " is %g", s->file,
                            name, i, (double)out[i]);
    if (p->rc == ST_OK)
        return out;
    mem_free(out);
    return NULL;
}

/* ---- matrices and vectors ------------------------------------------------------------------------------ */

bool pack_has(const struct pack *p, const char *name)
{
    return source_tensor(p->src, name) != NULL;
}

struct be_weight *pack_matrix(struct pack *p, enum be_weight_use use, const struct pack_part *parts,
                              uint32_t n_parts, uint64_t k)
{
    const struct tensor *t[BE_WEIGHT_PARTS_MAX];
    float *scales[BE_WEIGHT_PARTS_MAX] = {NULL};
    if (p->rc != ST_OK)
        return NULL;
    struct be_weight_desc d = {.use = use, .k = (uint32_t)k, .n_parts = n_parts, .name = parts[0].name};
    if (use == BE_USE_QKV) {
        d.head_dim = p->head_dim;
        d.rot_dim = p->rot_dim;
        d.rope_interleaved = p->rope_interleaved;
    }
    if (p->src->dummy)
        return fill_parts(p, parts, k, &d) ? create(p, &d) : NULL;
    for (uint32_t i = 0; i < n_parts && p->rc == ST_OK; i++) {
        t[i] = need(p, parts[i].name, parts[i].rows, k);
        if (t[i] == NULL)
            break;
        source_populate(p->src, t[i]);
        if (t[i]->type == BE_E4M3)
            scales[i] = e4m3_scales(p, t[i]);
        d.parts[i] = (struct be_part){.type = (enum be_type)t[i]->type,
                                      .rows = (uint32_t)parts[i].rows,
                                      .data = t[i]->data,
                                      .scale = scales[i]};
    }
    struct be_weight *w = p->rc == ST_OK ? create(p, &d) : NULL;
    for (uint32_t i = 0; i < n_parts; i++) {
        mem_free(scales[i]);
        if (w != NULL)
            account(p, t[i]);
    }
    return w;
}

/* What a norm's gain is about in a trained model. */
static struct be_weight *unit_vector(struct pack *p, const char *name, uint64_t n)
{
    float *ones = p->rc == ST_OK ? mem_zalloc(n, sizeof *ones) : NULL;
    if (ones == NULL) {
        if (p->rc == ST_OK)
            p->rc = err_set(p->e, ST_ENOMEM, "%s: out of memory", name);
        return NULL;
    }
    for (uint64_t i = 0; i < n; i++)
        ones[i] = 1;
    struct be_weight_desc d = {.use = BE_USE_VECTOR, .k = (uint32_t)n, .n_parts = 1, .name = name};
    d.parts[0] = (struct be_part){.type = BE_F32, .rows = 1, .data = ones};
    struct be_weight *w = create(p, &d);
    mem_free(ones);
    return w;
}

struct be_weight *pack_vector(struct pack *p, const char *name, uint64_t n)
{
    if (p->src->dummy)
        return unit_vector(p, name, n);
    const struct tensor *t = p->rc == ST_OK ? need(p, name, 0, n) : NULL;
    if (t == NULL)
        return NULL;
    struct be_weight_desc d = {.use = BE_USE_VECTOR, .k = (uint32_t)n, .n_parts = 1, .name = name};
    d.parts[0] = (struct be_part){.type = (enum be_type)t->type, .rows = 1, .data = t->data};
    struct be_weight *w = create(p, &d);
    if (w != NULL)
        account(p, t);
    return w;
}

/* ---- vectors as floats --------------------------------------------------------------------------------- */

void pack_floats(struct pack *p, const char *name, uint64_t n, float *out)
{
    const struct tensor *t = p->rc == ST_OK ? need(p, name, 0, n) : NULL;
    if (t == NULL)
        return;
    if (t->type != BE_F32 && t->type != BE_F16 && t->type != BE_BF16) {
        p->rc = err_set(p->e, ST_EUNSUP, "%s: tensor '%s': a vector of type %.20s is not supported", t->file,
                        name, t->type_text);
        return;
    }
    unpack_values((enum be_type)t->type, t->data, 0, (uint32_t)n, out);
    account(p, t);
}

struct be_weight *pack_biases(struct pack *p, const struct pack_part *parts, uint32_t n_parts)
{
    uint64_t n = 0, at = 0;
    bool any = false;
    for (uint32_t i = 0; i < n_parts; i++) {
        any |= pack_has(p, parts[i].name);
        n += parts[i].rows;
    }
    if (!any || p->rc != ST_OK)
        return NULL;
    float *all = mem_zalloc(n, sizeof *all);
    if (all == NULL) {
        p->rc = err_set(p->e, ST_ENOMEM, "%s: out of memory", parts[0].name);
        return NULL;
    }
    /* All or none of a group is in every file seen: a part that is missing beside others is an error of
     * need(). */
    for (uint32_t i = 0; i < n_parts; i++) {
        pack_floats(p, parts[i].name, parts[i].rows, all + at);
        at += parts[i].rows;
    }
    struct be_weight_desc d = {.use = BE_USE_VECTOR, .k = (uint32_t)n, .n_parts = 1, .name = parts[0].name};
    d.parts[0] = (struct be_part){.type = BE_F32, .rows = 1, .data = all};
    struct be_weight *w = p->rc == ST_OK ? create(p, &d) : NULL;
    mem_free(all);
    return w;
}
