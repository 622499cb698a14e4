/* The ops of a step: how each is cut into chunks for the pool, and what happens to a block of outputs while it is in L1.
 *
 * A matrix op computes blocks of 32 rows x 64 columns (one head for q, k, v) into the thread's scratch and ends them there:
 * residual add, rotation and KV append, silu * up and rounding for the next op. So an intermediate never goes through
 * memory as f32, and a layer has five joins: qkv, attention, output, gated, down. Norms of a few rows run on the calling
 * thread, where a join would cost more than the work.
 *
 * Work is cut by columns only. Few rows: one contiguous share per thread, so that each streams its weights in one line;
 * more rows: smaller shares, claimed as threads come free. Between the two, less than a panel or so per thread, norm and
 * attention pay one more join to round by columns too. Nothing of this changes a bit of any result. */
#include "cpu_be.h"

#include <string.h>

enum { FEW_ROWS = 4, MANY_ROWS = 64, SHARES = 3, FINE_SHARES = 12 };

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Chunks for `units` of work over `rows` rows. */
static uint32_t share(const struct cpu_be *b, uint32_t units, uint32_t rows)
{
    uint32_t threads = cpu_pool_threads(b->pool);
    uint32_t per_thread = rows <= FEW_ROWS ? 1 : rows < MANY_ROWS ? SHARES : FINE_SHARES;
    return min_u32(units, threads * per_thread);
}

static uint32_t cut(uint32_t units, uint32_t chunk, uint32_t n_chunks)
{
    return (uint32_t)((uint64_t)units * chunk / n_chunks);
}

/* ---- activations ------------------------------------------------------------------------------------------------- */

static bool act_begin(struct be_act *a, const struct be_weight *next, uint32_t n_rows, uint32_t k)
{
    if (!next || next->use == BE_USE_VECTOR || n_rows > a->max_rows || k > a->max_k || next->k != k)
        return false;
    a->cls = next->cls;
    a->n_rows = n_rows;
    a->k = k;
    a->panel_bytes = cpu_linear_panel_bytes(a->cls, k);
    return true;
}

static void act_store(const struct cpu_be *b, struct be_act *a, const float *x, uint32_t row, uint32_t k0,
                      uint32_t n)
{
    b->pick.linear.store[a->cls](x, k0, n, a->panels + row / CPU_PANEL * a->panel_bytes, row % CPU_PANEL);
}

static bool act_fits(const struct be_act *a, const struct be_weight *w, uint32_t n_rows)
{
    return a->cls == w->cls && a->k == w->k && a->n_rows >= n_rows && w->use != BE_USE_VECTOR;
}

struct round_job {
    const struct cpu_be *b;
    struct be_act *act;
    uint32_t n_chunks;
};

static void round_chunk(void *ctx, uint32_t chunk, uint32_t thread)
{
    (void)thread;
    const struct round_job *j = ctx;
    struct be_act *a = j->act;
    uint32_t groups = (a->k + CPU_GROUP - 1) / CPU_GROUP;
    uint32_t k0 = cut(groups, chunk, j->n_chunks) * CPU_GROUP;
    uint32_t end = min_u32(cut(groups, chunk + 1, j->n_chunks) * CPU_GROUP, a->k);
    for (uint32_t r = 0; r < a->n_rows; r++)
        act_store(j->b, a, a->rows + (size_t)r * a->k + k0, r, k0, end - k0);
}

/* Rounds all rows. Threads take columns: the rows of a panel stand side by side in its cache lines, and two threads that
 * write one line send it to and fro. */
static void round_columns(const struct cpu_be *b, struct be_act *a)
{
    struct round_job j = {b, a, min_u32((a->k + CPU_GROUP - 1) / CPU_GROUP, cpu_pool_threads(b->pool))};
    cpu_pool_run(b->pool, j.n_chunks, round_chunk, &j);
}

/* y[nr][tiles * 16] = the tiles' outputs for rows r0 .. r0 + nr - 1; r0 is a multiple of 16. */
static void block(const struct cpu_be *b, const struct be_weight *w, const struct cpu_part *p, uint32_t tile,
                  uint32_t tiles, const struct be_act *a, uint32_t r0, uint32_t nr, float *y, size_t ld,
                  const uint8_t *next)
{
    const struct cpu_gemm g = {.w = p->data + tile * p->tile_bytes,
                               .tile_bytes = p->tile_bytes,
                               .n_tiles = tiles,
                               .k = w->k_pad,
                               .act = a->panels + r0 / CPU_PANEL * a->panel_bytes,
                               .panel_bytes = a->panel_bytes,
                               .n_rows = nr,
                               .out = y,
                               .ld = ld,
                               .next = next};
    b->pick.linear.gemm[p->type](&g);
}

/* ---- embed, norm ------------------------------------------------------------------------------------------------- */

struct embed_job {
    const struct op_embed *p;
    uint32_t n_chunks;
};

static void embed_chunk(void *ctx, uint32_t chunk, uint32_t thread)
{
    (void)thread;
    const struct embed_job *j = ctx;
    const struct be_weight *w = j->p->table;
    uint32_t n = j->p->batch->n_rows, end = cut(n, chunk + 1, j->n_chunks);
    for (uint32_t r = cut(n, chunk, j->n_chunks); r < end; r++) {
        float *x = j->p->x + (size_t)r * w->k;
        cpu_unpack_row(&w->parts[0], (uint32_t)j->p->batch->tokens[r], w->k, x);
        for (uint32_t i = 0; j->p->scale != 1.0f && i < w->k; i++)
            x[i] *= j->p->scale;
    }
}

int cpu_op_embed(struct be *be, const struct op_embed *p)
{
    struct cpu_be *b = (struct cpu_be *)be;
    if (p->table->use != BE_USE_EMBED)
        return ST_EINVAL;
    uint32_t n = p->batch->n_rows;
    struct embed_job j = {p, n <= FEW_ROWS ? 1 : share(b, n, n)};
    cpu_pool_run(b->pool, j.n_chunks, embed_chunk, &j);
    return ST_OK;
}

struct norm_job {
    const struct cpu_be *b;
    const struct op_norm *p;
    uint32_t n_chunks;
};

static void norm_rows(const struct cpu_be *b, const struct op_norm *p, uint32_t r, uint32_t end)
{
    for (; r < end; r++) {
        const float *x = p->x + (size_t)(p->rows ? p->rows[r] : r) * p->d;
        b->pick.rows->norm(p->act->rows + (size_t)r * p->d, x, p->gain->vec, p->d, p->eps);
    }
}

static void norm_chunk(void *ctx, uint32_t chunk, uint32_t thread)
{
    (void)thread;
    const struct norm_job *j = ctx;
    uint32_t panels = (j->p->n_rows + CPU_PANEL - 1) / CPU_PANEL;
    uint32_t r = cut(panels, chunk, j->n_chunks) * CPU_PANEL;
    uint32_t end = min_u32(cut(panels, chunk + 1, j->n_chunks) * CPU_PANEL, j->p->n_rows);
    norm_rows(j->b, j->p, r, end);
    for (; r < end; r++)
        act_store(j->b, j->p->act, j->p->act->rows + (size_t)r * j->p->d, r, 0, j->p->d);
}

int cpu_op_norm(struct be *be, const struct op_norm *p)
{
    struct cpu_be *b = (struct cpu_be *)be;
    if (p->gain->use != BE_USE_VECTOR || p->gain->k != p->d || !act_begin(p->act, p->next, p->n_rows, p->d))
        return ST_EINVAL;
    if (p->n_rows <= FEW_ROWS || p->n_rows >= MANY_ROWS) {
        uint32_t panels = (p->n_rows + CPU_PANEL - 1) / CPU_PANEL;
        struct norm_job j = {b, p, share(b, panels, p->n_rows)};
        cpu_pool_run(b->pool, j.n_chunks, norm_chunk, &j);
        return ST_OK;
    }
    norm_rows(b, p, 0, p->n_rows);
    round_columns(b, p->act);
    return ST_OK;
}

/* ---- q, k, v ----------------------------------------------------------------------------------------------------- */

struct qkv_job {
    struct cpu_be *b;
    const struct op_qkv *p;
    uint32_t n_chunks;
};

/* Bias of one head; packed rows may stand in another order than the file's. */
static void add_bias(const struct op_qkv *p, float *y, uint32_t first, bool rotated)
{
    for (uint32_t i = 0; p->bias && i < p->head_dim; i++)
        y[i] += p->bias->vec[first + (rotated ? cpu_pack_source_row(p->w, i) : i)];
}

static void rope_row(const struct qkv_job *j, float *y, uint32_t row)
{
    const struct op_qkv *p = j->p;
    j->b->pick.rows->rope(y, p->rope + (size_t)p->batch->positions[row] * p->rot_dim, p->rot_dim);
}

static void query_head(const struct qkv_job *j, uint32_t head, float *y)
{
    const struct op_qkv *p = j->p;
    uint32_t tiles = p->head_dim / CPU_TILE, n = p->batch->n_rows;
    for (uint32_t r0 = 0; r0 < n; r0 += CPU_OPS_ROWS) {
        uint32_t nr = min_u32(n - r0, CPU_OPS_ROWS);
        block(j->b, p->w, &p->w->parts[0], head * tiles, tiles, p->act, r0, nr, y, p->head_dim, NULL);
        for (uint32_t r = 0; r < nr; r++) {
            float *h = y + (size_t)r * p->head_dim;
            add_bias(p, h, head * p->head_dim, true);
            rope_row(j, h, r0 + r);
            memcpy(p->q + ((size_t)(r0 + r) * p->n_heads + head) * p->head_dim, h, p->head_dim * sizeof *h);
        }
    }
}

static uint32_t kv_head(const struct qkv_job *j, uint32_t head, float *y)
{
    const struct op_qkv *p = j->p;
    uint32_t tiles = p->head_dim / CPU_TILE, n = p->batch->n_rows, saturated = 0;
    uint32_t q_rows = p->n_heads * p->head_dim, kv_rows = p->n_kv_heads * p->head_dim;
    float *v = y + (size_t)CPU_OPS_ROWS * p->head_dim;
    for (uint32_t r0 = 0; r0 < n; r0 += CPU_OPS_ROWS) {
        uint32_t nr = min_u32(n - r0, CPU_OPS_ROWS);
        block(j->b, p->w, &p->w->parts[1], head * tiles, tiles, p->act, r0, nr, y, p->head_dim,
              p->w->parts[2].data + head * tiles * p->w->parts[2].tile_bytes);
        block(j->b, p->w, &p->w->parts[2], head * tiles, tiles, p->act, r0, nr, v, p->head_dim, NULL);
        for (uint32_t r = 0; r < nr; r++) {
            float *kr = y + (size_t)r * p->head_dim, *vr = v + (size_t)r * p->head_dim;
            add_bias(p, kr, q_rows + head * p->head_dim, true);
            add_bias(p, vr, q_rows + kv_rows + head * p->head_dim, false);
            rope_row(j, kr, r0 + r);
            saturated +=
                j->b->pick.rows->kv_append(&p->kv->view, p->layer, head, p->batch->kv_slots[r0 + r], kr, vr);
        }
    }
    return saturated;
}

/* KV heads come first and cost two query heads each; a chunk takes the heads whose cost starts within its share. */
static void qkv_chunk(void *ctx, uint32_t chunk, uint32_t thread)
{
    const struct qkv_job *j = ctx;
    const struct op_qkv *p = j->p;
    float *y = cpu_be_thread_scratch(j->b, thread);
    uint32_t cost = 2 * p->n_kv_heads + p->n_heads;
    uint32_t first = cut(cost, chunk, j->n_chunks), end = cut(cost, chunk + 1, j->n_chunks);
    uint32_t saturated = 0;
    for (uint32_t h = 0; h < p->n_kv_heads; h++)
        if (2 * h >= first && 2 * h < end)
            saturated += kv_head(j, h, y);
    for (uint32_t h = 0; h < p->n_heads; h++)
        if (2 * p->n_kv_heads + h >= first && 2 * p->n_kv_heads + h < end)
            query_head(j, h, y);
    if (saturated)
        __atomic_fetch_add(&j->b->kv_saturated, saturated, __ATOMIC_RELAXED);
}

int cpu_op_qkv(struct be *be, const struct op_qkv *p)
{
    struct cpu_be *b = (struct cpu_be *)be;
    const struct be_weight *w = p->w;
    const struct cpu_kv_layout *l = &p->kv->view.l;
    if (w->use != BE_USE_QKV || !act_fits(p->act, w, p->batch->n_rows) || w->head_dim != p->head_dim ||
        w->parts[0].rows != p->n_heads * p->head_dim || w->parts[1].rows != p->n_kv_heads * p->head_dim ||
        p->rot_dim != w->rot_dim || (p->bias && p->bias->k != w->n) || l->head_dim != p->head_dim ||
        l->n_kv_heads != p->n_kv_heads || p->layer >= l->n_layers)
        return ST_EINVAL;
    struct qkv_job j = {b, p, share(b, p->n_heads + 2 * p->n_kv_heads, p->batch->n_rows)};
    cpu_pool_run(b->pool, j.n_chunks, qkv_chunk, &j);
    return ST_OK;
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

struct attn_job {
    const struct cpu_be *b;
    struct cpu_attn a;
    struct be_act *act;
    bool rounds; /* an item rounds its own rows */
    uint32_t n_chunks;
};

static void attn_chunk(void *ctx, uint32_t chunk, uint32_t thread)
{
    const struct attn_job *j = ctx;
    uint32_t end = cut(j->a.n_items, chunk + 1, j->n_chunks);
    for (uint32_t item = cut(j->a.n_items, chunk, j->n_chunks); item < end; item++) {
        j->b->pick.rows->attn_item(&j->a, item, cpu_be_thread_scratch(j->b, thread));
        if (!j->rounds)
            continue;
        struct cpu_attn_range r;
        cpu_attn_range(&j->a, item, &r);
        uint32_t hd = j->a.kv->l.head_dim, k0 = r.head0 * hd;
        for (uint32_t i = r.row0; i < r.row0 + r.n_rows; i++)
            act_store(j->b, j->act, j->act->rows + (size_t)i * j->act->k + k0, i, k0, r.n_heads * hd);
    }
}

int cpu_op_attention(struct be *be, const struct op_attention *p)
{
    struct cpu_be *b = (struct cpu_be *)be;
    const struct cpu_kv_layout *l = &p->kv->view.l;
    uint32_t n = p->batch->n_rows;
    if (l->head_dim != p->head_dim || l->n_kv_heads != p->n_kv_heads || p->layer >= l->n_layers ||
        p->n_heads % p->n_kv_heads || !act_begin(p->act, p->next, n, p->n_heads * p->head_dim))
        return ST_EINVAL;
    struct attn_job j = {.b = b,
                         .a = {.batch = p->batch,
                               .kv = &p->kv->view,
                               .q = p->q,
                               .out = p->act->rows,
                               .layer = p->layer,
                               .n_heads = p->n_heads,
                               .window = p->window,
                               .scale = p->scale},
                         .act = p->act,
                         .rounds = p->head_dim % CPU_GROUP == 0 && (n <= FEW_ROWS || n >= MANY_ROWS)};
    cpu_attn_plan(&j.a, cpu_pool_threads(b->pool));
    j.n_chunks = n <= FEW_ROWS || n >= MANY_ROWS ? j.a.n_items : share(b, j.a.n_items, n);
    cpu_pool_run(b->pool, j.n_chunks, attn_chunk, &j);
    if (!j.rounds)
        round_columns(b, p->act);
    return ST_OK;
}

/* ---- plain linear layers ----------------------------------------------------------------------------------------- */

struct linear_job {
    const struct cpu_be *b;
    const struct be_weight *w, *bias;
    const struct be_act *act;
    uint32_t n_rows, n_chunks;
    float *x;      /* [n_rows][w->n] */
    bool residual; /* x += y, else x = y */
};

static void add_tile(float *restrict x, const float *restrict y)
{
    for (int i = 0; i < CPU_TILE; i++)
        x[i] += y[i];
}

/* x + (acc + bias): two roundings, in this order. */
static void end_block(const struct linear_job *j, float *y, uint32_t col, uint32_t cols, uint32_t r0,
                      uint32_t nr)
{
    for (uint32_t r = 0; r < nr; r++, y += CPU_OPS_TILES * CPU_TILE) {
        float *x = j->x + (size_t)(r0 + r) * j->w->n + col;
        for (uint32_t i = 0; j->bias && i < cols; i++)
            y[i] += j->bias->vec[col + i];
        if (!j->residual) {
            memcpy(x, y, cols * sizeof *x);
            continue;
        }
        uint32_t i = 0;
        for (; i + CPU_TILE <= cols; i += CPU_TILE)
            add_tile(x + i, y + i);
        for (; i < cols; i++)
            x[i] += y[i];
    }
}

static void linear_chunk(void *ctx, uint32_t chunk, uint32_t thread)
{
    const struct linear_job *j = ctx;
    float *y = cpu_be_thread_scratch(j->b, thread);
    uint32_t t = cut(j->w->tiles, chunk, j->n_chunks), end = cut(j->w->tiles, chunk + 1, j->n_chunks);
    uint32_t part_t0 = 0, part_col = 0;
    for (uint32_t i = 0; i < j->w->n_parts; i++) {
        const struct cpu_part *p = &j->w->parts[i];
        for (uint32_t n; t < end && t < part_t0 + p->tiles; t += n) {
            uint32_t tile = t - part_t0;
            n = min_u32(end - t, p->tiles - tile);
            /* what goes straight to its place needs no block of scratch */
            if (j->residual || j->bias || j->n_rows > CPU_OPS_ROWS || tile + n == p->tiles)
                n = min_u32(n, CPU_OPS_TILES);
            uint32_t cols = min_u32(n * CPU_TILE, p->rows - tile * CPU_TILE);
            for (uint32_t r0 = 0; r0 < j->n_rows; r0 += CPU_OPS_ROWS) {
                uint32_t nr = min_u32(j->n_rows - r0, CPU_OPS_ROWS);
                uint32_t col = part_col + tile * CPU_TILE;
                if (!j->residual && !j->bias && cols == n * CPU_TILE) {
                    float *x = j->x + (size_t)r0 * j->w->n + col;
                    block(j->b, j->w, p, tile, n, j->act, r0, nr, x, j->w->n, NULL);
                    continue;
                }
                block(j->b, j->w, p, tile, n, j->act, r0, nr, y, CPU_OPS_TILES * CPU_TILE, NULL);
                end_block(j, y, col, cols, r0, nr);
            }
        }
        part_t0 += p->tiles;
        part_col += p->rows;
    }
}

int cpu_op_linear_add(struct be *be, const struct op_linear_add *p)
{
    struct cpu_be *b = (struct cpu_be *)be;
    if (!act_fits(p->act, p->w, p->n_rows) || (p->bias && p->bias->k != p->w->n))
        return ST_EINVAL;
    struct linear_job j = {.b = b,
                           .w = p->w,
                           .bias = p->bias,
                           .act = p->act,
                           .n_rows = p->n_rows,
                           .n_chunks = share(b, p->w->tiles, p->n_rows),
                           .x = p->x,
                           .residual = true};
    cpu_pool_run(b->pool, j.n_chunks, linear_chunk, &j);
    return ST_OK;
}

int cpu_op_logits(struct be *be, const struct op_logits *p)
{
    struct cpu_be *b = (struct cpu_be *)be;
    if (!act_fits(p->act, p->w, p->n_rows))
        return ST_EINVAL;
    struct linear_job j = {.b = b,
                           .w = p->w,
                           .act = p->act,
                           .n_rows = p->n_rows,
                           .n_chunks = share(b, p->w->tiles, p->n_rows),
                           .x = p->logits};
    cpu_pool_run(b->pool, j.n_chunks, linear_chunk, &j);
    return ST_OK;
}

/* ---- gated ------------------------------------------------------------------------------------------------------- */

struct gated_job {
    const struct cpu_be *b;
    const struct op_gated *p;
    uint32_t units, n_chunks; /* a unit is one group of 32 outputs: two tiles of gate, two of up */
};

static void gated_chunk(void *ctx, uint32_t chunk, uint32_t thread)
{
    const struct gated_job *j = ctx;
    const struct op_gated *p = j->p;
    const struct cpu_part *gate = &p->w->parts[0], *up = &p->w->parts[1];
    float *yg = cpu_be_thread_scratch(j->b, thread), *yu = yg + CPU_OPS_ROWS * CPU_OPS_COLS;
    uint32_t end = cut(j->units, chunk + 1, j->n_chunks);
    for (uint32_t u = cut(j->units, chunk, j->n_chunks), n; u < end; u += n) {
        n = min_u32(end - u, CPU_OPS_TILES / 2);
        uint32_t tile = 2 * u, tiles = min_u32(2 * n, gate->tiles - tile), k0 = u * CPU_GROUP;
        uint32_t cols = min_u32(n * CPU_GROUP, gate->rows - k0), ld = CPU_OPS_TILES * CPU_TILE;
        for (uint32_t r0 = 0; r0 < p->n_rows; r0 += CPU_OPS_ROWS) {
            uint32_t nr = min_u32(p->n_rows - r0, CPU_OPS_ROWS);
            block(j->b, p->w, gate, tile, tiles, p->act, r0, nr, yg, ld, up->data + tile * up->tile_bytes);
            block(j->b, p->w, up, tile, tiles, p->act, r0, nr, yu, ld,
                  gate->data + (tile + tiles) * gate->tile_bytes);
            for (uint32_t r = 0; r < nr; r++) {
                float *y = yg + (size_t)r * ld, *up_row = yu + (size_t)r * ld;
                for (uint32_t i = 0; p->bias && i < cols; i++) {
                    y[i] += p->bias->vec[k0 + i];
                    up_row[i] += p->bias->vec[gate->rows + k0 + i];
                }
                j->b->pick.rows->silu_mul(y, y, up_row, cols);
                act_store(j->b, p->act_out, y, r0 + r, k0, cols);
            }
        }
    }
}

int cpu_op_gated(struct be *be, const struct op_gated *p)
{
    struct cpu_be *b = (struct cpu_be *)be;
    if (p->w->use != BE_USE_GATED || p->act == p->act_out || !act_fits(p->act, p->w, p->n_rows) ||
        (p->bias && p->bias->k != 2 * p->w->parts[0].rows) ||
        !act_begin(p->act_out, p->next, p->n_rows, p->w->parts[0].rows))
        return ST_EINVAL;
    uint32_t units = (p->w->parts[0].rows + CPU_GROUP - 1) / CPU_GROUP;
    struct gated_job j = {b, p, units, share(b, units, p->n_rows)};
    cpu_pool_run(b->pool, j.n_chunks, gated_chunk, &j);
    return ST_OK;
}

/* ---- sample ------------------------------------------------------------------------------------------------------ */

struct sample_job {
    const struct cpu_be *b;
    const struct op_sample *p;
};

static void sample_chunk(void *ctx, uint32_t chunk, uint32_t thread)
{
    const struct sample_job *j = ctx;
    const struct op_sample *p = j->p;
    const struct be_sample_row *row = &p->rows[chunk];
    j->b->pick.rows->sample(p->logits + (size_t)row->logits_row * p->vocab, p->vocab, row, &p->out[chunk],
                            cpu_be_thread_scratch(j->b, thread));
}

int cpu_op_sample(struct be *be, const struct op_sample *p)
{
    struct cpu_be *b = (struct cpu_be *)be;
    /* A no-op once the embedding table is packed, which sizes the scratch for its vocabulary. */
    if (cpu_be_scratch(b, cpu_sample_scratch_bytes(p->vocab)))
        return ST_ENOMEM;
    struct sample_job j = {b, p};
    cpu_pool_run(b->pool, p->n_rows, sample_chunk, &j);
    return ST_OK;
}
