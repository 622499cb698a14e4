/* From a file's rows to the one layout that both the kernels and the library read: [n][k] row after row, 16-bit or e4m3, k
 * padded to 64 and n to 16 with zeros. Only the order of rows is ours: q, k, v behind each other; gate and up interleaved by
 * eight, which puts both of a channel into one lane of the matrix unit, each padded to 64 so that the output has the zero
 * columns that its consumer wants.
 *
 * What is in e4m3 already stays so, with its row scales; under `fp8` other linears get a scale per row, max / 448. A head and
 * an embedding (BE_USE_EMBED) keep 16 bits: rounding there shows in every logit. GGUF's types are expanded: there is no
 * kernel for them yet, and a 16-bit weight is what a GPU of this size has room for.
 *
 * A bias of a gated weight must stand in the order of its rows, but only the op that uses a vector knows what it is for. So
 * every vector is kept in both orders: some kilobytes, instead of state that changes at first use. */
#include "cu_be.h"

#include "mem.h"
#include "unpack.h"

#include <math.h>
#include <string.h>

enum {
    STRETCH = 256,
    HEAD_DIM_MAX = 128,
    K_MAX = 1 << 21,
    ROWS_MAX = 1 << 24
}; /* STRETCH: every block size divides it */

#define E4M3_MAX 448.0f

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

static uint32_t float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float bits_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* All to nearest, ties to even. */
static uint16_t to_bf16(float f)
{
    uint32_t u = float_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

static uint16_t to_f16(float f)
{
    uint32_t u = float_bits(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) /* 65520: halfway to what would be next */
        return (uint16_t)(sign | 0x7c00u);
    if (a < 0x38800000u) /* subnormal: multiples of 2^-24, by an addition that rounds */
        return (uint16_t)(sign | (float_bits(bits_float(a) + 0.5f) - 0x3f000000u));
    return (uint16_t)(sign | (a - 0x38000000u + 0xfffu + (a >> 13 & 1u)) >> 13);
}

static uint8_t to_e4m3(float f) /* finite; saturates */
{
    uint32_t u = float_bits(f), sign = u >> 24 & 0x80u, a = u & 0x7fffffffu;
    if (a >= 0x43e80000u) /* 464 */
        return (uint8_t)(sign | 0x7eu);
    if (a < 0x3c800000u) /* 2^-6: multiples of 2^-9 */
        return (uint8_t)(sign | (float_bits(bits_float(a) + 16384.0f) - 0x46800000u));
    uint32_t q = (a - 0x3c000000u + 0x7ffffu + (a >> 20 & 1u)) >> 20;
    return (uint8_t)(sign | (q > 0x7eu ? 0x7eu : q));
}

/* ---- rows -------------------------------------------------------------------------------------------------------- */

struct fill {
    const struct be_weight_desc *d;
    const struct be_weight *w;
    float *scale; /* host [n_pad], e4m3 only */
    int bad;      /* set when a row holds no finite numbers */
};

/* Values first .. first + n - 1 of a row; first is a multiple of STRETCH. */
static void values(const struct fill *f, const struct be_part *p, uint32_t row, uint32_t first, uint32_t n,
                   float *out)
{
    uint32_t k = f->d->k;
    uint64_t row_bytes = 0;
    be_type_row_bytes(p->type, k, &row_bytes);
    unpack_values(p->type, (const uint8_t *)p->data + row * row_bytes, first, n, out);
    for (uint32_t i = 0; p->type == BE_E4M3 && p->scale && i < n; i++)
        out[i] *= p->scale[row];
}

static void row_as_16(const struct fill *f, const struct be_part *p, uint32_t row, uint8_t *out)
{
    for (uint32_t i = 0; i < f->d->k; i += STRETCH) {
        float v[STRETCH];
        uint16_t h[STRETCH];
        uint32_t n = f->d->k - i < STRETCH ? f->d->k - i : STRETCH;
        values(f, p, row, i, n, v);
        for (uint32_t j = 0; j < n; j++)
            h[j] = f->w->type == CU_BF16 ? to_bf16(v[j]) : to_f16(v[j]);
        memcpy(out + 2 * (size_t)i, h, 2 * (size_t)n);
    }
}

static void row_as_e4m3(struct fill *f, const struct be_part *p, uint32_t row, uint32_t dst_row, uint8_t *out)
{
    float v[STRETCH], max = 0;
    for (int pass = 0; pass < 2; pass++) {
        float scale = max > 0 ? max / E4M3_MAX : 1;
        for (uint32_t i = 0; i < f->d->k; i += STRETCH) {
            uint32_t n = f->d->k - i < STRETCH ? f->d->k - i : STRETCH;
            values(f, p, row, i, n, v);
            for (uint32_t j = 0; j < n; j++) {
                if (pass == 1)
                    out[i + j] = to_e4m3(v[j] / scale);
                else if (!isfinite(v[j]))
                    __atomic_store_n(&f->bad, 1, __ATOMIC_RELAXED);
                else if (fabsf(v[j]) > max)
                    max = fabsf(v[j]);
            }
        }
        f->scale[dst_row] = scale;
    }
}

/* The part and row of the file that device row r holds; false: none, it is padding. */
static bool source_row(const struct fill *f, uint32_t r, uint32_t *part, uint32_t *row)
{
    const struct be_weight_desc *d = f->d;
    if (d->use == BE_USE_GATED) {
        *part = r % (2 * CU_GATE_GROUP) / CU_GATE_GROUP;
        *row = r / (2 * CU_GATE_GROUP) * CU_GATE_GROUP + r % CU_GATE_GROUP;
        return *row < d->parts[*part].rows;
    }
    for (*part = 0; *part < d->n_parts; ++*part) {
        if (r < d->parts[*part].rows) {
            *row = r;
            return true;
        }
        r -= d->parts[*part].rows;
    }
    return false;
}

static void fill_rows(void *ctx, uint64_t row0, uint32_t n, uint8_t *out)
{
    struct fill *f = ctx;
    const struct be_weight *w = f->w;
    size_t pitch = (size_t)w->ld * cu_type_bytes((enum cu_type)w->type), used = pitch / w->ld * w->k;
    for (uint32_t i = 0; i < n; i++, out += pitch) {
        uint32_t dst = (uint32_t)row0 + i, part, row;
        if (!source_row(f, dst, &part, &row)) {
            memset(out, 0, pitch);
            if (f->scale)
                f->scale[dst] = 1;
            continue;
        }
        const struct be_part *p = &f->d->parts[part];
        enum be_type same = w->type == CU_BF16 ? BE_BF16 : w->type == CU_F16 ? BE_F16 : BE_E4M3;
        memset(out + used, 0, pitch - used);
        if (p->type == same) {
            memcpy(out, (const uint8_t *)p->data + row * used, used);
            if (f->scale)
                f->scale[dst] = p->scale ? p->scale[row] : 1;
        } else if (w->type == CU_E4M3) {
            row_as_e4m3(f, p, row, dst, out);
        } else {
            row_as_16(f, p, row, out);
        }
    }
}

/* ---- checks ------------------------------------------------------------------------------------------------------ */

static int check_parts(const struct be_weight_desc *d, struct err *e)
{
    uint64_t rows = 0, bytes;
    if (d->k == 0 || d->k > K_MAX || d->n_parts == 0 || d->n_parts > BE_WEIGHT_PARTS_MAX)
        return err_set(e, ST_EINVAL, "%s: k = %u in %u parts", d->name, d->k, d->n_parts);
    for (uint32_t i = 0; i < d->n_parts; i++) {
        const struct be_part *p = &d->parts[i];
        if ((unsigned)p->type >= BE_TYPE_COUNT || p->rows == 0 || p->rows > ROWS_MAX || !p->data)
            return err_set(e, ST_EINVAL, "%s: part %u has no rows or an unknown type", d->name, i);
        if (!be_type_row_bytes(p->type, d->k, &bytes))
            return err_set(e, ST_EINVAL, "%s: %s [%u, %u] needs rows in multiples of %u", d->name,
                           be_type_name(p->type), p->rows, d->k, be_type_block(p->type));
        if (d->use == BE_USE_VECTOR && p->type != BE_F32 && p->type != BE_F16 && p->type != BE_BF16)
            return err_set(e, ST_EUNSUP, "%s: a vector of %s", d->name, be_type_name(p->type));
        rows += p->rows;
    }
    if (rows > ROWS_MAX || (d->use == BE_USE_VECTOR && rows * d->k > ROWS_MAX))
        return err_set(e, ST_ETOOBIG, "%s: %llu rows of %u", d->name, (unsigned long long)rows, d->k);
    return ST_OK;
}

static int check_qkv(const struct be_weight_desc *d, struct err *e)
{
    uint32_t hd = d->head_dim, rot = d->rot_dim ? d->rot_dim : hd;
    if (d->n_parts != 3 || hd == 0 || hd > HEAD_DIM_MAX || hd % 16)
        return err_set(e, ST_EUNSUP, "%s: head_dim %u is no multiple of 16 up to %d", d->name, hd,
                       HEAD_DIM_MAX);
    if (rot > hd || rot % 2)
        return err_set(e, ST_EINVAL, "%s: rot_dim %u of head_dim %u", d->name, rot, hd);
    uint32_t q = d->parts[0].rows, k = d->parts[1].rows, v = d->parts[2].rows;
    if (q % hd || k % hd || k != v || q % k)
        return err_set(e, ST_EINVAL, "%s: q, k, v have %u, %u, %u rows for heads of %u", d->name, q, k, v,
                       hd);
    return ST_OK;
}

static int check(const struct be_weight_desc *d, struct err *e)
{
    int st = check_parts(d, e);
    if (st)
        return st;
    switch (d->use) {
    case BE_USE_QKV:
        return check_qkv(d, e);
    case BE_USE_GATED:
        if (d->n_parts != 2 || d->parts[0].rows != d->parts[1].rows)
            return err_set(e, ST_EINVAL, "%s: gate and up differ in rows", d->name);
        return ST_OK;
    case BE_USE_EMBED:
        if (d->n_parts != 1)
            return err_set(e, ST_EINVAL, "%s: an embedding table in %u parts", d->name, d->n_parts);
        return ST_OK;
    case BE_USE_LINEAR:
    case BE_USE_VECTOR:
        return ST_OK;
    }
    return err_set(e, ST_EINVAL, "%s: unknown use %d", d->name, (int)d->use);
}

/* ---- a whole weight ---------------------------------------------------------------------------------------------- */

static uint8_t type_of(const struct cu_be *b, const struct be_weight_desc *d)
{
    bool e4m3 = true;
    for (uint32_t i = 0; i < d->n_parts; i++)
        e4m3 = e4m3 && d->parts[i].type == BE_E4M3;
    return d->use != BE_USE_EMBED && (e4m3 || b->fp8) ? CU_E4M3 : b->xt;
}

/* Device memory for `w`, counted. */
static void *reserve(struct cu_be *b, struct be_weight *w, const char *name, size_t bytes, struct err *e)
{
    void *p = gpu_alloc(b->gpu, bytes);
    if (!p)
        cu_backend_no_memory(b, e, name, bytes, "the model's size: --quantization fp8 halves it");
    else
        w->bytes += bytes;
    return p;
}

static int make_matrix(struct cu_be *b, const struct be_weight_desc *d, struct be_weight *w, struct err *e)
{
    w->type = type_of(b, d);
    w->ld = cu_round_up(d->k, CU_K_ALIGN);
    for (uint32_t i = 0; i < d->n_parts; i++) {
        w->n += d->parts[i].rows;
        if (i < 3)
            w->part_rows[i] = d->parts[i].rows;
    }
    w->n_pad = d->use == BE_USE_GATED ? 2 * cu_round_up(d->parts[0].rows, CU_K_ALIGN)
                                      : cu_round_up(w->n, CU_N_ALIGN);
    size_t pitch = (size_t)w->ld * cu_type_bytes((enum cu_type)w->type);
    w->data = reserve(b, w, d->name, w->n_pad * pitch, e);
    if (!w->data)
        return ST_ENOMEM;
    struct fill f = {.d = d, .w = w};
    if (w->type == CU_E4M3) {
        w->scale = reserve(b, w, d->name, w->n_pad * sizeof *w->scale, e);
        if (!w->scale)
            return ST_ENOMEM;
        f.scale = mem_zalloc(w->n_pad, sizeof *f.scale);
        if (!f.scale)
            return err_set(e, ST_ENOMEM, "%s: no memory for %u scales", d->name, w->n_pad);
    }
    int st = cu_load_rows(b, w->data, pitch, w->n_pad, fill_rows, &f);
    if (st == ST_OK && f.scale)
        st = cu_load_bytes(b, w->scale, f.scale, w->n_pad * sizeof *f.scale);
    mem_free(f.scale);
    if (st == ST_OK && f.bad)
        return err_set(e, ST_EFORMAT, "%s: a row holds NaN or infinity and cannot be quantised", d->name);
    return st == ST_OK ? ST_OK : err_set(e, st, "%s: no staging memory", d->name);
}

/* The values of all parts, end to end; and, in the order of a gated weight's rows, its halves by turns of eight. */
static int make_vector(struct cu_be *b, const struct be_weight_desc *d, struct be_weight *w, struct err *e)
{
    uint32_t n = 0, at = 0;
    for (uint32_t i = 0; i < d->n_parts; i++)
        n += d->parts[i].rows * d->k;
    uint32_t half = n / 2, plain = cu_round_up(n, CU_N_ALIGN), gated = 2 * cu_round_up(half, CU_K_ALIGN);
    size_t bytes = ((size_t)plain + gated) * sizeof(float);
    w->type = CU_F32;
    w->k = w->n = n;
    w->vec = reserve(b, w, d->name, bytes, e);
    if (!w->vec)
        return ST_ENOMEM;
    w->vec_gated = w->vec + plain;
    float *v = mem_zalloc((size_t)plain + gated, sizeof *v);
    if (!v)
        return err_set(e, ST_ENOMEM, "%s: no memory for %u values", d->name, n);
    struct fill f = {.d = d, .w = w};
    for (uint32_t i = 0; i < d->n_parts; i++)
        for (uint32_t r = 0; r < d->parts[i].rows; r++, at += d->k)
            values(&f, &d->parts[i], r, 0, d->k, v + at);
    for (uint32_t i = 0; i < half; i++) {
        float *group = v + plain + i / CU_GATE_GROUP * 2 * CU_GATE_GROUP + i % CU_GATE_GROUP;
        group[0] = v[i];
        group[CU_GATE_GROUP] = v[half + i];
    }
    int st = cu_load_bytes(b, w->vec, v, bytes);
    mem_free(v);
    return st == ST_OK ? ST_OK : err_set(e, st, "%s: no staging memory", d->name);
}

int cu_weight_create(struct be *be, const struct be_weight_desc *desc, struct be_weight **out, struct err *e)
{
    struct cu_be *b = (struct cu_be *)be;
    struct be_weight_desc d = *desc;
    d.name = desc->name ? desc->name : "weight";
    if (gpu_failure(b->gpu))
        return cu_backend_failed(b, e);
    int st = check(&d, e);
    if (st)
        return st;
    struct be_weight *w = mem_zalloc(1, sizeof *w);
    if (!w)
        return err_set(e, ST_ENOMEM, "%s: no memory", d.name);
    w->use = d.use;
    w->k = d.k;
    w->head_dim = d.head_dim;
    w->rot_dim = d.rot_dim ? d.rot_dim : d.head_dim;
    w->interleaved = d.rope_interleaved;
    w->next = b->weights;
    b->weights = w;
    st = d.use == BE_USE_VECTOR ? make_vector(b, &d, w, e) : make_matrix(b, &d, w, e);
    if (st == ST_OK && b->limits.max_rows) /* too late for step_limits to see to it */
        st = cu_load_close(b);
    if (gpu_failure(b->gpu))
        st = cu_backend_failed(b, e);
    if (st) {
        cu_weight_destroy(be, w);
        return st;
    }
    *out = w;
    return ST_OK;
}

void cu_weight_destroy(struct be *be, struct be_weight *w)
{
    struct cu_be *b = (struct cu_be *)be;
    if (!w)
        return;
    struct be_weight **at = &b->weights;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    cu_load_close(b); /* its rows may still be on their way */
    gpu_stream_sync(b->stream);
    gpu_free(b->gpu, w->data);
    gpu_free(b->gpu, w->scale);
    gpu_free(b->gpu, w->vec);
    mem_free(w);
}

size_t cu_weight_bytes(const struct be_weight *w)
{
    return w->bytes;
}
