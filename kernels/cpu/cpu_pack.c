/* From file bytes to tiles, once, at load.
 *
 * A tile holds 16 consecutive outputs, interleaved so that one vector load brings the same four k of all 16: then no kernel
 * ever sums across a register, and decode streams memory in one line. Weights keep their own bits: packing only moves
 * them, and nothing grows (Q6_K alone is widened to bytes). Where a weight mixes quantised and float parts, or the caller
 * wants exact arithmetic, everything becomes f32 tiles: one class per weight, because a row of activations is rounded once.
 * E4M3 parts are expanded to f32, value times scale, so that such files run here as the reference for a GPU.
 *
 * Rotary pairs: half-split files pair (i, i + rot/2). Scores do not change when q and k are permuted alike, so those rows
 * are packed as pairs side by side, and one rotation serves both orders.
 *
 * Packed weights live in slabs of large pages, many weights per slab: a mapping each would waste up to 2 MiB per weight. */
#include "cpu_be.h"

#include "cpu_half.h"
#include "mem.h"
#include "unpack.h"

#include <string.h>

enum { SLAB_BYTES = 32 << 20, PACK_TILES = 8 };

struct cpu_slab {
    struct cpu_slab *next;
    char *base;
    size_t size, used;
    uint32_t live;
};

static void *slab_alloc(struct cpu_be *b, size_t bytes, struct cpu_slab **from)
{
    bytes = (bytes + 63) & ~(size_t)63;
    struct cpu_slab *s = b->slabs;
    if (!s || s->size - s->used < bytes) {
        s = mem_zalloc(1, sizeof *s);
        if (!s)
            return NULL;
        s->size = bytes > SLAB_BYTES ? bytes : SLAB_BYTES;
        s->base = mem_map(s->size);
        if (!s->base) {
            mem_free(s);
            return NULL;
        }
        s->next = b->slabs;
        b->slabs = s;
    }
    void *p = s->base + s->used;
    s->used += bytes;
    s->live++;
    *from = s;
    return p;
}

static void slab_release(struct cpu_be *b, struct cpu_slab *s)
{
    if (--s->live)
        return;
    struct cpu_slab **at = &b->slabs;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    mem_unmap(s->base, s->size);
    mem_free(s);
}

/* ---- one row into its lane of a tile ----------------------------------------------------------------------------- */

static uint32_t word(const uint8_t *p)
{
    uint32_t u;
    memcpy(&u, p, 4);
    return u;
}

static void put(uint8_t *p, uint32_t u)
{
    memcpy(p, &u, 4);
}

#define LOW 0x0f0f0f0fu

/* `qs` as Q4_0 and Q4_1 have them: byte i holds k = i low, k = 16 + i high. */
static void put_nibbles(uint8_t *group, uint32_t lane, const uint8_t *qs)
{
    uint32_t a = word(qs), b = word(qs + 4), c = word(qs + 8), d = word(qs + 12);
    uint8_t *p = group + 4 * lane;
    put(p, (a & LOW) | (b & LOW) << 4);
    put(p + 64, (c & LOW) | (d & LOW) << 4);
    put(p + 128, (a >> 4 & LOW) | (b & ~LOW));
    put(p + 192, (c >> 4 & LOW) | (d & ~LOW));
}

static void pack_q4_0(const uint8_t *src, uint32_t k, uint8_t *tile, uint32_t lane)
{
    for (uint32_t g = 0; g < k / 32; g++, src += 18, tile += CPU_Q4_0_GROUP) {
        put_nibbles(tile, lane, src + 2);
        memcpy(tile + 256 + 2 * lane, src, 2);
    }
}

static void pack_q4_1(const uint8_t *src, uint32_t k, uint8_t *tile, uint32_t lane)
{
    for (uint32_t g = 0; g < k / 32; g++, src += 20, tile += CPU_Q4_1_GROUP) {
        put_nibbles(tile, lane, src + 4);
        memcpy(tile + 256 + 2 * lane, src, 2);
        memcpy(tile + 288 + 2 * lane, src + 2, 2);
    }
}

static void pack_q8_0(const uint8_t *src, uint32_t k, uint8_t *tile, uint32_t lane)
{
    for (uint32_t g = 0; g < k / 32; g++, src += 34, tile += CPU_Q8_0_GROUP) {
        for (int j = 0; j < 8; j++)
            put(tile + 64 * j + 4 * lane, word(src + 2 + 4 * j) ^ 0x80808080u);
        memcpy(tile + 512 + 2 * lane, src, 2);
    }
}

/* Scale (bits 0..5) and minimum (bits 8..13) of group j out of Q4_K's twelve bytes. */
static uint32_t q4_k_scale(const uint8_t *s, int j)
{
    if (j < 4)
        return (s[j] & 63u) | (s[j + 4] & 63u) << 8;
    uint32_t scale = (s[j + 4] & 15u) | (s[j - 4] >> 6) << 4;
    uint32_t min = (uint32_t)(s[j + 4] >> 4) | (s[j] >> 6) << 4;
    return scale | min << 8;
}

static void pack_q4_k(const uint8_t *src, uint32_t k, uint8_t *tile, uint32_t lane)
{
    for (uint32_t s = 0; s < k / 256; s++, src += 144, tile += CPU_Q4_K_SUPER) {
        for (int g = 0; g < 8; g++) {
            const uint8_t *qs =
                src + 16 + 32 * (g / 2); /* 32 bytes: group g even in the low nibbles, odd in the high */
            uint8_t *to = tile + g * CPU_Q4_K_GROUP;
            for (int j = 0; j < 4; j++) {
                uint32_t a = word(qs + 8 * j) >> (g % 2 * 4) & LOW,
                         b = word(qs + 8 * j + 4) >> (g % 2 * 4) & LOW;
                put(to + 64 * j + 4 * lane, a | b << 4);
            }
            uint32_t sm = q4_k_scale(src + 4, g);
            to[256 + lane] = (uint8_t)sm;
            to[272 + lane] = (uint8_t)(sm >> 8);
        }
        memcpy(tile + 8 * CPU_Q4_K_GROUP + 2 * lane, src, 2);
        memcpy(tile + 8 * CPU_Q4_K_GROUP + 32 + 2 * lane, src + 2, 2);
    }
}

/* Four values 0..63 from k = 32 g + i of a Q6_K block. */
static uint32_t q6_k_word(const uint8_t *src, int g, int i)
{
    const uint8_t *ql = src + g / 4 * 64 + g % 2 * 32, *qh = src + 128 + g / 4 * 32;
    uint32_t low = word(ql + i) >> (g % 4 / 2 * 4) & LOW, high = word(qh + i) >> (g % 4 * 2) & 0x03030303u;
    return low | high << 4;
}

static void pack_q6_k(const uint8_t *src, uint32_t k, uint8_t *tile, uint32_t lane)
{
    for (uint32_t s = 0; s < k / 256; s++, src += 210, tile += CPU_Q6_K_SUPER) {
        for (int g = 0; g < 8; g++) {
            uint8_t *to = tile + g * CPU_Q6_K_GROUP;
            for (int j = 0; j < 8; j++)
                put(to + 64 * j + 4 * lane, q6_k_word(src, g, 4 * j));
            to[512 + lane] = src[192 + 2 * g];
            to[528 + lane] = src[192 + 2 * g + 1];
        }
        memcpy(tile + 8 * CPU_Q6_K_GROUP + 2 * lane, src + 208, 2);
    }
}

static void pack_f16(const uint8_t *src, uint32_t k, uint8_t *tile, uint32_t lane)
{
    for (uint32_t i = 0; i < k; i++)
        memcpy(tile + (size_t)i * 32 + 2 * lane, src + 2 * (size_t)i, 2);
}

static void pack_bf16(const uint8_t *src, uint32_t k, uint8_t *tile, uint32_t lane)
{
    for (uint32_t i = 0; i < k; i++)
        memcpy(tile + (size_t)(i / 2) * 64 + 4 * lane + i % 2 * 2, src + 2 * (size_t)i, 2);
}

static void pack_f32(const uint8_t *src, uint32_t k, uint8_t *tile, uint32_t lane)
{
    for (uint32_t i = 0; i < k; i++)
        memcpy(tile + (size_t)i * 64 + 4 * lane, src + 4 * (size_t)i, 4);
}

typedef void pack_fn(const uint8_t *src, uint32_t k, uint8_t *tile, uint32_t lane);

static pack_fn *const packers[BE_TYPE_COUNT] = {
    [BE_F32] = pack_f32,   [BE_F16] = pack_f16,   [BE_BF16] = pack_bf16, [BE_Q4_0] = pack_q4_0,
    [BE_Q4_1] = pack_q4_1, [BE_Q8_0] = pack_q8_0, [BE_Q4_K] = pack_q4_k, [BE_Q6_K] = pack_q6_k,
};

/* Any type as f32, by way of a one-row tile: packing and unpacking are the only two readers of each format. */
static void pack_as_f32(enum be_type t, const uint8_t *src, uint32_t k, uint8_t *tile, uint32_t lane)
{
    uint32_t step = be_type_block(t) == 256 ? 256 : 32;
    uint8_t one[CPU_Q6_K_SUPER > 32 * 64 ? CPU_Q6_K_SUPER : 32 * 64] = {0};
    struct cpu_part p = {.type = t, .rows = 1, .tiles = 1, .data = one};
    for (uint32_t i = 0; i < k; i += step) {
        uint32_t n = k - i < step ? k - i : step;
        float v[256];
        packers[t](src, n, one, 0);
        p.tile_bytes = sizeof one;
        cpu_unpack_row(&p, 0, n, v);
        pack_f32((const uint8_t *)v, n, tile + (size_t)i * 64, lane);
        src += (size_t)n / be_type_block(t) * be_type_block_bytes(t);
    }
}

static void pack_e4m3(const uint8_t *src, float scale, uint32_t k, uint8_t *tile, uint32_t lane)
{
    float v[256];
    for (uint32_t i = 0; i < k; i += 256) {
        uint32_t n = k - i < 256 ? k - i : 256;
        unpack_values(BE_E4M3, src, i, n, v);
        for (uint32_t j = 0; j < n; j++)
            v[j] *= scale;
        pack_f32((const uint8_t *)v, n, tile + (size_t)i * 64, lane);
    }
}

/* ---- a whole weight ---------------------------------------------------------------------------------------------- */

struct pack_job {
    const struct be_weight *w;
    const struct be_weight_desc *d;
    uint32_t part;
};

uint32_t cpu_pack_source_row(const struct be_weight *w, uint32_t p)
{
    if (!w->permuted || p >= w->rot_dim)
        return p;
    return p / 2 + (p % 2) * (w->rot_dim / 2);
}

static void pack_chunk(void *ctx, uint32_t chunk, uint32_t thread)
{
    (void)thread;
    const struct pack_job *j = ctx;
    const struct be_part *src = &j->d->parts[j->part];
    const struct cpu_part *p = &j->w->parts[j->part];
    uint64_t row_bytes;
    be_type_row_bytes(src->type, j->w->k, &row_bytes);
    bool rotated = j->w->use == BE_USE_QKV && j->part < 2;
    uint32_t end = (chunk + 1) * PACK_TILES * CPU_TILE;
    for (uint32_t r = chunk * PACK_TILES * CPU_TILE; r < p->rows && r < end; r++) {
        uint32_t from = r;
        if (rotated)
            from = r / j->w->head_dim * j->w->head_dim + cpu_pack_source_row(j->w, r % j->w->head_dim);
        const uint8_t *row = (const uint8_t *)src->data + from * row_bytes;
        uint8_t *tile = p->data + r / CPU_TILE * p->tile_bytes;
        if (src->type == BE_E4M3)
            pack_e4m3(row, src->scale ? src->scale[from] : 1.0f, j->w->k, tile, r % CPU_TILE);
        else if (p->type == src->type)
            packers[p->type](row, j->w->k, tile, r % CPU_TILE);
        else
            pack_as_f32(src->type, row, j->w->k, tile, r % CPU_TILE);
    }
}

static bool is_float(enum be_type t)
{
    return t == BE_F32 || t == BE_F16 || t == BE_BF16;
}

static enum cpu_class class_of(const struct be_weight_desc *d, bool exact)
{
    bool quant = !exact, bf16 = !exact;
    for (uint32_t i = 0; i < d->n_parts; i++) {
        quant = quant && be_type_block(d->parts[i].type) > 1;
        bf16 = bf16 && d->parts[i].type == BE_BF16;
    }
    return quant ? CPU_INT8 : bf16 ? CPU_BF16 : CPU_F32;
}

static int check_parts(const struct be_weight_desc *d, struct err *e)
{
    const char *name = d->name ? d->name : "weight";
    uint64_t rows = 0, bytes;
    if (d->k == 0 || d->k > 1u << 24 || d->n_parts == 0 || d->n_parts > BE_WEIGHT_PARTS_MAX)
        return err_set(e, ST_EINVAL, "%s: k = %u in %u parts", name, d->k, d->n_parts);
    for (uint32_t i = 0; i < d->n_parts; i++) {
        const struct be_part *p = &d->parts[i];
        if ((unsigned)p->type >= BE_TYPE_COUNT || p->rows == 0 || p->rows > 1u << 24 || !p->data)
            return err_set(e, ST_EINVAL, "%s: part %u has no rows or an unknown type", name, i);
        if (!be_type_row_bytes(p->type, d->k, &bytes))
            return err_set(e, ST_EINVAL, "%s: %s [%u, %u] needs rows in multiples of %u", name,
                           be_type_name(p->type), p->rows, d->k, be_type_block(p->type));
        rows += p->rows;
    }
    if (rows > 1u << 24)
        return err_set(e, ST_ETOOBIG, "%s: %llu rows", name, (unsigned long long)rows);
    return ST_OK;
}

static int check_use(const struct be_weight_desc *d, struct err *e)
{
    const char *name = d->name ? d->name : "weight";
    uint32_t rot = d->rot_dim ? d->rot_dim : d->head_dim;
    switch (d->use) {
    case BE_USE_QKV:
        if (d->n_parts != 3 || d->head_dim == 0 || d->head_dim > CPU_HEAD_DIM_MAX || d->head_dim % CPU_TILE)
            return err_set(e, ST_EUNSUP, "%s: head_dim %u is no multiple of 16 up to %d", name, d->head_dim,
                           CPU_HEAD_DIM_MAX);
        if (rot > d->head_dim || rot % 2)
            return err_set(e, ST_EINVAL, "%s: rot_dim %u of head_dim %u", name, rot, d->head_dim);
        for (int i = 0; i < 3; i++)
            if (d->parts[i].rows % d->head_dim)
                return err_set(e, ST_EINVAL, "%s: %u rows are no multiple of head_dim %u", name,
                               d->parts[i].rows, d->head_dim);
        if (d->parts[1].rows != d->parts[2].rows || d->parts[0].rows % d->parts[1].rows)
            return err_set(e, ST_EINVAL, "%s: q, k, v have %u, %u, %u rows", name, d->parts[0].rows,
                           d->parts[1].rows, d->parts[2].rows);
        return ST_OK;
    case BE_USE_GATED:
        if (d->n_parts != 2 || d->parts[0].rows != d->parts[1].rows)
            return err_set(e, ST_EINVAL, "%s: gate and up differ in rows", name);
        return ST_OK;
    case BE_USE_VECTOR:
    case BE_USE_LINEAR:
        return ST_OK;
    case BE_USE_EMBED:
        if (d->n_parts != 1)
            return err_set(e, ST_EINVAL, "%s: an embedding table in %u parts", name, d->n_parts);
        return ST_OK;
    }
    return err_set(e, ST_EINVAL, "%s: unknown use %d", name, (int)d->use);
}

/* The values of all parts, end to end: the biases of q, k and v may come as three parts with k = 1. */
static int pack_vector(struct cpu_be *b, const struct be_weight_desc *d, struct be_weight *w, struct err *e)
{
    const char *name = d->name ? d->name : "vector";
    size_t n = 0, at = 0;
    for (uint32_t i = 0; i < d->n_parts; i++)
        n += (size_t)d->parts[i].rows * d->k;
    if (n > 1u << 24)
        return err_set(e, ST_ETOOBIG, "%s: a vector of %zu values", name, n);
    w->bytes = n * sizeof *w->vec;
    w->vec = slab_alloc(b, w->bytes, &w->slab);
    if (!w->vec)
        return err_set(e, ST_ENOMEM, "%s: no memory for %zu bytes", name, w->bytes);
    w->k = w->n = (uint32_t)n;
    for (uint32_t i = 0; i < d->n_parts; i++) {
        const uint8_t *src = d->parts[i].data;
        enum be_type t = d->parts[i].type;
        if (!is_float(t))
            return err_set(e, ST_EUNSUP, "%s: a vector of %s", name, be_type_name(t));
        for (size_t j = 0; j < (size_t)d->parts[i].rows * d->k; j++, at++) {
            if (t == BE_F32)
                memcpy(&w->vec[at], src + 4 * j, 4);
            else
                w->vec[at] = t == BE_F16 ? cpu_f16_f32(cpu_load_u16(src + 2 * j))
                                         : cpu_bf16_f32(cpu_load_u16(src + 2 * j));
        }
    }
    return ST_OK;
}

static int pack_tiles(struct cpu_be *b, const struct be_weight_desc *d, struct be_weight *w, struct err *e)
{
    w->cls = class_of(d, b->exact);
    w->n_parts = d->n_parts;
    for (uint32_t i = 0; i < d->n_parts; i++) {
        struct cpu_part *p = &w->parts[i];
        bool keep = w->cls != CPU_F32 || d->parts[i].type == BE_F16;
        p->type = keep ? d->parts[i].type : BE_F32;
        p->rows = d->parts[i].rows;
        p->tiles = (p->rows + CPU_TILE - 1) / CPU_TILE;
        w->k_pad = cpu_linear_pad_k(p->type, d->k); /* the same for all parts: they share a class */
        p->tile_bytes = cpu_linear_tile_bytes(p->type, w->k_pad);
        w->bytes += p->tiles * ((p->tile_bytes + 63) & ~(size_t)63);
        w->n += p->rows;
        w->tiles += p->tiles;
    }
    char *at = slab_alloc(b, w->bytes, &w->slab);
    if (!at)
        return err_set(e, ST_ENOMEM, "%s: no memory for %zu bytes", d->name ? d->name : "weight", w->bytes);
    for (uint32_t i = 0; i < d->n_parts; i++) {
        struct cpu_part *p = &w->parts[i];
        p->data = (uint8_t *)at;
        at += (p->tiles * p->tile_bytes + 63) & ~(size_t)63;
        struct pack_job job = {.w = w, .d = d, .part = i};
        cpu_pool_run(b->pool, (p->tiles + PACK_TILES - 1) / PACK_TILES, pack_chunk, &job);
    }
    return ST_OK;
}

int cpu_pack_weight(struct be *be, const struct be_weight_desc *d, struct be_weight **out, struct err *e)
{
    struct cpu_be *b = (struct cpu_be *)be;
    int s = check_parts(d, e);
    if (s == ST_OK)
        s = check_use(d, e);
    if (s)
        return s;
    struct be_weight *w = mem_zalloc(1, sizeof *w);
    if (!w)
        return err_set(e, ST_ENOMEM, "%s: no memory", d->name ? d->name : "weight");
    w->use = d->use;
    w->k = d->k;
    w->head_dim = d->head_dim;
    w->rot_dim = d->rot_dim ? d->rot_dim : d->head_dim;
    w->permuted = d->use == BE_USE_QKV && !d->rope_interleaved;
    s = d->use == BE_USE_VECTOR ? pack_vector(b, d, w, e) : pack_tiles(b, d, w, e);
    if (s == ST_OK && d->use == BE_USE_EMBED && cpu_be_scratch(b, cpu_sample_scratch_bytes(w->n)))
        s = err_set(e, ST_ENOMEM, "%s: no memory for sampling", d->name ? d->name : "weight");
    if (s) {
        cpu_pack_destroy(be, w);
        return s;
    }
    *out = w;
    return ST_OK;
}

void cpu_pack_destroy(struct be *be, struct be_weight *w)
{
    if (!w)
        return;
    if (w->slab)
        slab_release((struct cpu_be *)be, w->slab);
    mem_free(w);
}
