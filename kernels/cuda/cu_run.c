/* From records to launches.
 *
 * Two steps may be under way. Each has a slot: a pinned blob, a pinned array of results, two events. end_step copies the blob
 * on a stream of its own, beside the step that is still running; the steps' stream waits for it. On the device the same two
 * blobs alternate by a word that the step's last kernel flips, so host and device agree on the parity without a parameter.
 * A slot is used again only after its step was awaited.
 *
 * Results: the sampler writes them to device memory at a fixed address, and a copy behind the step brings them to the slot's
 * pinned array. (Rejected: writing pinned memory from the kernel. One array would be overwritten by the next step before the
 * host has read it; two would need two graphs per bucket. The copy costs 2 us of a step of milliseconds.)
 *
 * Graphs. A decode step's launches depend on its number of rows alone, once that is rounded up to a bucket: the first step of a
 * bucket runs launch by launch, which loads its kernels, the second is captured, later ones are one launch each. Whether a graph
 * still fits is seen by comparing the step's records with those that the graphs were made from, byte for byte: 50 KB for a large
 * model, 2 us. (Rejected: trusting the caller to repeat itself; a hash, which saves nothing.) Decode steps of sequences that
 * share KV have items in attention's list 1, and graphs of their own: the count is in the blob, so a graph serves all steps for
 * whose items its grid has blocks. Mixed steps are launched kernel by kernel: they are long enough.
 *
 * Linears: up to 16 rows stream the weights; above, the library's product where it is allowed and knows the shape, else the
 * tile kernel of the same numeric class as the stream. The library has no SwiGLU: it stores gate and up, and a kernel follows.
 * Up to four rows a norm goes into the linear behind it, when that is the only one to read it: the same bits, one launch less. */
#include "cu_be.h"

#include <stdio.h>
#include <string.h>

/* Ascending. Up to 16 rows exact or nearly so: there a row more costs time; above, tiles of 8 and 16. */
static const uint16_t buckets[] = {1,   2,   3,   4,   6,   8,   10,  12,  14,  16,  24,  32,  40,
                                   48,  56,  64,  72,  80,  88,  96,  104, 112, 120, 128, 144, 160,
                                   176, 192, 208, 224, 240, 256, 320, 384, 512, 640, 768, 1024};
enum { BUCKETS = sizeof buckets / sizeof *buckets };
_Static_assert((int)BUCKETS <= (int)CU_GRAPHS, "a graph per bucket");

uint32_t cu_run_bucket(const struct cu_be *b, uint32_t n, uint32_t *graph)
{
    const struct be_step_limits *l = &b->limits;
    uint32_t cap = l->max_rows < l->max_logits ? l->max_rows : l->max_logits;
    for (*graph = 0; *graph < BUCKETS; ++*graph)
        if (n <= buckets[*graph])
            return buckets[*graph] < cap ? buckets[*graph] : cap;
    return n;
}

/* ---- launches ---------------------------------------------------------------------------------------------------- */

static int run_linear(struct cu_be *b, struct cu_lin l)
{
    if (l.m <= CU_STREAM_ROWS)
        return cu_lin_stream(b->stream, &l);
    if (!b->lt)
        return cu_lin_tile(b->stream, &l);
    struct cu_lin plain = l;
    if (l.epilogue == CU_SWIGLU) {
        plain.epilogue = CU_STORE;
        plain.y = b->a.gated;
        plain.ldy = plain.n_out = l.n;
    }
    int st = cu_lt_run(b->lt, b->stream, &plain);
    if (st == ST_EUNSUP)
        return cu_lin_tile(b->stream, &l);
    if (st || l.epilogue != CU_SWIGLU)
        return st;
    return cu_rows_swiglu(
        b->stream,
        &(struct cu_swiglu){
            .gu = b->a.gated, .y = l.y, .m = l.m, .width = l.n_out, .ldgu = l.n, .ldy = l.ldy, .xt = l.yt});
}

static int run_attention(struct cu_be *b, struct cu_attn a)
{
    int st = ST_OK;
    a.runs = b->a.items[0];
    a.members = b->a.members;
    if (b->step.grid) {
        a.items = b->a.items[1];
        a.begin = NULL;
        a.ctas = b->step.grid;
        st = cu_attn_rows128(b->stream, &a);
    }
    if (st == ST_OK && b->step.n_items[0]) {
        a.items = b->a.items[0];
        a.begin = b->a.begin;
        a.ctas = b->shape.ctas;
        st = cu_attn_rows16(b->stream, &a);
    }
    return st;
}

/* As many rows at a time as their seen tokens have room for. Each turn waits for the one before it: no matter, it is rare. */
static int run_sample_in_turns(struct cu_be *b, struct cu_sample all)
{
    const struct op_sample *p = &b->step.sample;
    int st = ST_OK;
    for (uint32_t row = 0, end; row < p->n_rows && st == ST_OK; row = end) {
        uint32_t at = 0;
        for (end = row; end < p->n_rows && st == ST_OK && at + p->rows[end].n_seen <= b->max_seen; end++) {
            uint32_t n = p->rows[end].n_seen;
            st = cu_backend_upload(b, b->a.seen + at, p->rows[end].seen, n * sizeof *b->a.seen);
            at += n;
        }
        struct cu_sample s = all;
        s.rows += row;
        s.drawn += row;
        s.out += row;
        s.m = end - row;
        s.n_rows = NULL;
        if (st == ST_OK)
            st = cu_sample_launch(b->stream, &s);
    }
    return st;
}

static int run_record(struct cu_be *b, const struct cu_record *r)
{
    struct cu_record c = *r;
    uint32_t m = r->m == CU_ALL_ROWS ? b->step.m : r->m;
    switch ((enum cu_op)r->op) {
    case CU_OP_EMBED:
        c.u.embed.m = m;
        return cu_rows_embed(b->stream, &c.u.embed);
    case CU_OP_NORM:
        c.u.norm.m = m;
        return cu_rows_norm(b->stream, &c.u.norm);
    case CU_OP_QUANT:
        c.u.quant.m = m;
        return cu_rows_quant(b->stream, &c.u.quant);
    case CU_OP_LINEAR:
        c.u.lin.m = m;
        return run_linear(b, c.u.lin);
    case CU_OP_ROPE:
        c.u.rope.m = m;
        return cu_rows_rope(b->stream, &c.u.rope);
    case CU_OP_ATTENTION:
        return run_attention(b, c.u.attn);
    case CU_OP_SAMPLE:
        c.u.sample.m = m;
        if (b->step.seen_apart)
            return run_sample_in_turns(b, c.u.sample);
        return cu_sample_launch(b->stream, &c.u.sample);
    }
    return ST_EINVAL;
}

/* A launcher that refuses does so before the device sees anything, but the step has begun there: the blobs' parity is lost. */
static int broken(struct cu_be *b, const struct cu_record *r, int st)
{
    static const char *const names[] = {"embed", "norm", "quantise", "linear", "rope", "attention", "sample"};
    char why[160];
    if (gpu_failure(b->gpu))
        return ST_EDEVICE;
    uint32_t m = r->m == CU_ALL_ROWS ? b->step.m : r->m, n = (uint32_t)(r - b->records);
    if (r->op == CU_OP_LINEAR)
        snprintf(why, sizeof why, "%s (operation %u of the step), %u rows, %u x %u", status_text(st), n, m,
                 r->u.lin.n, r->u.lin.k);
    else if (r->op == CU_OP_ATTENTION)
        snprintf(why, sizeof why, "%s, layer %u, %u rows", status_text(st), r->u.attn.layer, m);
    else
        snprintf(why, sizeof why, "%s (operation %u of the step), %u rows", status_text(st), n, m);
    return gpu_fail(b->gpu, names[r->op], why);
}

/* Does any record behind `first` read what stands at `act`, before another one writes there? */
static bool read_later(const struct cu_be *b, uint32_t first, const void *act)
{
    for (uint32_t i = first; i < b->step.n_records; i++) {
        const struct cu_record *r = &b->records[i];
        bool linear = r->op == CU_OP_LINEAR, quant = r->op == CU_OP_QUANT;
        if ((linear && r->u.lin.x == act) || (quant && r->u.quant.x == act))
            return true;
        if ((linear && r->u.lin.y == act) || (quant && r->u.quant.q == act) ||
            (r->op == CU_OP_NORM && r->u.norm.y == act) || (r->op == CU_OP_ATTENTION && r->u.attn.y == act))
            return false;
    }
    return false;
}

/* Records i and i + 1 in one launch; ST_EUNSUP: they are two. */
static int run_normed(struct cu_be *b, uint32_t i)
{
    if (i + 1 >= b->step.n_records || b->records[i].op != CU_OP_NORM ||
        b->records[i + 1].op != CU_OP_LINEAR || b->records[i].m != b->records[i + 1].m)
        return ST_EUNSUP;
    struct cu_norm norm = b->records[i].u.norm;
    struct cu_lin lin = b->records[i + 1].u.lin;
    norm.m = lin.m = b->records[i].m == CU_ALL_ROWS ? b->step.m : b->records[i].m;
    if (norm.m > CU_LIN_NORM_ROWS || lin.x != norm.y || lin.epilogue == CU_ADD ||
        read_later(b, i + 2, norm.y))
        return ST_EUNSUP;
    int st = cu_lin_stream_norm(b->stream, &lin, &norm);
    return st == ST_EINVAL ? ST_EUNSUP : st; /* rows too long for shared memory */
}

static int run_kernels(struct cu_be *b)
{
    const struct cu_arrays *a = &b->a;
    struct cu_unpack u = {.blob = {a->blob[0], a->blob[1]},
                          .parity = a->parity,
                          .tokens = a->tokens,
                          .drawn = a->drawn,
                          .prev = a->prev,
                          .n_prev = b->limits.max_logits};
    int st = cu_step_unpack(b->stream, &u);
    for (uint32_t i = 0; i < b->step.n_records && st == ST_OK; i++) {
        st = run_normed(b, i);
        if (st == ST_OK)
            i++;
        else if (st == ST_EUNSUP)
            st = run_record(b, &b->records[i]);
        if (st)
            return broken(b, &b->records[i], st);
    }
    if (st == ST_OK)
        st = cu_step_finish(b->stream, &(struct cu_finish){a->parity});
    return st == ST_OK || gpu_failure(b->gpu) ? st : gpu_fail(b->gpu, "step", status_text(st));
}

/* ---- graphs ------------------------------------------------------------------------------------------------------ */

static bool graph_fits(const struct cu_be *b)
{
    if (!b->graphs || !b->step.decode || b->step.seen_apart || !b->step.n_records)
        return false;
    for (uint32_t i = 0; i < b->step.n_records; i++)
        if (b->records[i].m != CU_ALL_ROWS)
            return false;
    return true;
}

static int run_graph(struct cu_be *b)
{
    size_t bytes = b->step.n_records * sizeof *b->records;
    if (b->n_captured != b->step.n_records || memcmp(b->records, b->captured, bytes) != 0) {
        memcpy(b->captured, b->records, bytes);
        b->n_captured = b->step.n_records;
        b->generation++;
    }
    uint32_t at;
    if (cu_run_bucket(b, b->step.n_rows, &at) != b->step.m || at == BUCKETS)
        return run_kernels(b);
    struct cu_graph *g = &b->graph[b->step.n_items[1] > 0][at];
    if (g->met != b->generation) {
        g->met = b->generation;
        return run_kernels(b);
    }
    if (!g->graph || g->records != b->generation || b->step.n_items[1] > g->grid) {
        int st = g->graph ? gpu_stream_sync(b->stream) : ST_OK; /* it may still run */
        gpu_graph_destroy(g->graph);
        g->graph = NULL;
        g->grid = b->step.grid = cu_round_up(b->step.n_items[1], b->shape.sms);
        if (st == ST_OK)
            st = gpu_capture_begin(b->stream);
        if (st)
            return st;
        st = run_kernels(b);
        int end = gpu_capture_end(b->stream, &g->graph);
        if (st || end)
            return st ? st : end;
        g->records = b->generation;
    }
    return gpu_graph_launch(g->graph, b->stream);
}

/* ---- begin, end, wait -------------------------------------------------------------------------------------------- */

int cu_run_begin(struct be *be, const struct be_batch *batch)
{
    struct cu_be *b = (struct cu_be *)be;
    b->why.status = ST_OK;
    b->step.open = false;
    if (gpu_failure(b->gpu))
        return ST_EDEVICE;
    if (!b->limits.max_rows)
        return cu_backend_refuse(b, ST_EINVAL, "step: before step_limits");
    if (b->in_flight == CU_BLOBS)
        return cu_backend_refuse(b, ST_EINVAL, "step: %d steps are under way", CU_BLOBS);
    cu_be_slot(b)->to = NULL;
    return cu_blob_begin(b, batch);
}

/* The blob crosses beside the step that is running; loads of blocks that were asked for are there before the step. */
static int send_blob(struct cu_be *b, uint32_t parity)
{
    struct cu_slot *s = &b->slot[parity];
    int st = gpu_copy(b->blobs, b->a.blob[parity], s->blob, b->step.used);
    if (st == ST_OK)
        st = gpu_event_record(s->copied, b->blobs);
    if (st == ST_OK)
        st = gpu_stream_wait(b->stream, s->copied);
    if (st == ST_OK && b->copies.unseen)
        st = gpu_stream_wait(b->stream, b->copies.loaded);
    b->copies.unseen = false;
    return st;
}

int cu_run_end(struct be *be, struct err *e)
{
    struct cu_be *b = (struct cu_be *)be;
    bool open = b->step.open;
    b->step.open = false;
    if (gpu_failure(b->gpu))
        return cu_backend_failed(b, e);
    if (b->why.status)
        return err_set(e, b->why.status, "%s", b->why.text);
    if (!open)
        return err_set(e, ST_EINVAL, "cuda: end of a step that did not begin");
    uint32_t parity = (b->first + b->in_flight) % CU_BLOBS;
    struct cu_slot *s = &b->slot[parity];
    int st = send_blob(b, parity);
    if (st == ST_OK)
        st = graph_fits(b) ? run_graph(b) : run_kernels(b);
    if (st == ST_OK && s->to)
        st = gpu_copy(b->stream, s->out, b->a.out, s->n_out * sizeof *s->out);
    if (st == ST_OK)
        st = gpu_event_record(s->done, b->stream);
    if (st) {
        if (!gpu_failure(b->gpu)) /* the host's memory ran out: the step is half on the device */
            gpu_fail(b->gpu, "step", status_text(st));
        return cu_backend_failed(b, e);
    }
    b->in_flight++;
    return ST_OK;
}

int cu_run_wait(struct be *be, struct err *e)
{
    struct cu_be *b = (struct cu_be *)be;
    if (b->in_flight == 0)
        return gpu_failure(b->gpu) ? cu_backend_failed(b, e) : ST_OK;
    struct cu_slot *s = &b->slot[b->first];
    int st = gpu_event_wait(s->done);
    b->first = (b->first + 1) % CU_BLOBS;
    b->in_flight--;
    if (st)
        return cu_backend_failed(b, e);
    if (s->to)
        memcpy(s->to, s->out, s->n_out * sizeof *s->out);
    return ST_OK;
}
