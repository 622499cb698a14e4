/* What decode does to the bus and the bus to decode: a graph that streams weights runs on one stream for as long as the copies
 * run on another, and both are timed. */
#include "copies.h"


enum { BATCH_MAX = 64, BLOCK_MAX = 2 << 20, N = 28672, K = 4096, PRODUCTS = 8, BESIDE_MS = 30 };

struct copies {
    struct rig *r;
    struct gpu_stream *lane;
    struct gpu_event *begin, *end;
    struct gpu_graph *load;
    uint8_t *device, *host;
    struct cu_lin p;
};

/* Blocks at the places of other blocks, as in a pool. */
static void places(const struct copies *c, size_t bytes, uint32_t n, bool to_host, void **dst, const void **src)
{
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *d = c->device + (size_t)(i * 37 % BATCH_MAX) * bytes, *h = c->host + (size_t)i * bytes;
        dst[i] = to_host ? h : d;
        src[i] = to_host ? d : h;
    }
}

/* Repeats batches for at least `ms`; `graphs` of the load run beside them. */
static int copy_for(struct copies *c, size_t bytes, uint32_t n, bool to_host, double ms, uint32_t graphs, double *batch_us)
{
    void *dst[BATCH_MAX];
    const void *src[BATCH_MAX];
    uint32_t batches = (uint32_t)(ms * 30e6 / ((double)bytes * n)) + 4; /* at 30 GB/s */
    batches = batches > 2000 ? 2000 : batches;
    places(c, bytes, n, to_host, dst, src);
    int rc = gpu_copy_batch(c->lane, dst, src, bytes, n); /* warm */
    if (rc == ST_OK)
        rc = gpu_stream_sync(c->lane);
    if (rc == ST_OK)
        rc = gpu_event_record(c->r->from, c->r->stream);
    for (uint32_t i = 0; i < graphs && rc == ST_OK; i++)
        rc = gpu_graph_launch(c->load, c->r->stream);
    if (rc == ST_OK)
        rc = gpu_event_record(c->r->to, c->r->stream);
    if (rc == ST_OK)
        rc = gpu_event_record(c->begin, c->lane);
    for (uint32_t i = 0; i < batches && rc == ST_OK; i++)
        rc = gpu_copy_batch(c->lane, dst, src, bytes, n);
    if (rc == ST_OK)
        rc = gpu_event_record(c->end, c->lane);
    if (rc == ST_OK)
        rc = gpu_stream_sync(c->lane);
    if (rc == ST_OK)
        rc = gpu_stream_sync(c->r->stream);
    if (rc == ST_OK)
        rc = gpu_event_us(c->begin, c->end, batch_us);
    *batch_us /= batches;
    return rc;
}

static int load_us(struct copies *c, uint32_t graphs, double *us)
{
    int rc = gpu_event_record(c->r->from, c->r->stream);
    for (uint32_t i = 0; i < graphs && rc == ST_OK; i++)
        rc = gpu_graph_launch(c->load, c->r->stream);
    if (rc == ST_OK)
        rc = gpu_event_record(c->r->to, c->r->stream);
    if (rc == ST_OK)
        rc = gpu_event_wait(c->r->to);
    return rc == ST_OK ? gpu_event_us(c->r->from, c->r->to, us) : rc;
}

static int one_row(struct copies *c, size_t bytes, uint32_t n, bool to_host, double graph_us)
{
    double alone = 0, beside = 0, load = 0, both = (double)bytes * n;
    int rc = copy_for(c, bytes, n, to_host, BESIDE_MS, 0, &alone);
    uint32_t graphs = (uint32_t)(BESIDE_MS * 1e3 / graph_us) + 1;
    if (rc == ST_OK)
        rc = copy_for(c, bytes, n, to_host, BESIDE_MS, graphs, &beside);
    if (rc == ST_OK)
        rc = gpu_event_us(c->r->from, c->r->to, &load);
    if (rc == ST_OK)
        rig_row(c->r, "%s,%zu,%u,%.1f,%.1f,%.1f,%.3f", to_host ? "to host" : "to device", bytes >> 10, n, alone,
                both / alone / 1e3, both / beside / 1e3, load / graphs / graph_us);
    return rc;
}

/* The weights of a few layers' largest product, one row: what a decode step does to the memory. */
static int make_load(struct copies *c, uint8_t *w, uint8_t *x, uint8_t *y, double *graph_us)
{
    struct gpu_stream *s = c->r->stream;
    c->p = (struct cu_lin){.x = x, .y = y, .m = 1, .n = N, .k = K, .ldx = K, .ldy = N, .n_out = N, .wt = CU_BF16, .yt = CU_BF16};
    c->p.w = w;
    int rc = cu_lin_stream(s, &c->p); /* loads the kernel */
    if (rc == ST_OK)
        rc = gpu_stream_sync(s);
    if (rc == ST_OK)
        rc = gpu_capture_begin(s);
    if (rc != ST_OK)
        return rc;
    for (uint32_t i = 0; i < PRODUCTS && rc == ST_OK; i++) {
        c->p.w = w + (size_t)(i % 2) * N * K * 2;
        rc = cu_lin_stream(s, &c->p);
    }
    int end = gpu_capture_end(s, &c->load);
    rc = rc == ST_OK ? end : rc;
    double us = 0;
    for (int i = 0; i < 2 && rc == ST_OK; i++)
        rc = load_us(c, 20, &us);
    *graph_us = us / 20;
    return rc;
}

static int all_rows(struct copies *c, double graph_us)
{
    static const uint32_t batches[] = {1, 16, BATCH_MAX};
    int rc = ST_OK;
    for (size_t bytes = 64 << 10; bytes <= BLOCK_MAX; bytes *= 2)
        for (int i = 0; i < 3; i++)
            for (int to_host = 0; to_host < 2 && rc == ST_OK; to_host++)
                rc = one_row(c, bytes, batches[i], to_host, graph_us);
    return rc;
}

int copies_bench(struct rig *r)
{
    struct copies c = {.r = r};
    size_t pool = (size_t)BATCH_MAX * BLOCK_MAX;
    uint8_t *w = gpu_alloc(r->gpu, (size_t)2 * N * K * 2), *x = gpu_alloc(r->gpu, K * 2), *y = gpu_alloc(r->gpu, N * 2);
    double graph_us = 0;
    c.device = gpu_alloc(r->gpu, pool);
    c.host = gpu_host_alloc(r->gpu, pool);
    int rc = w && x && y && c.device && c.host ? gpu_stream_create(r->gpu, &c.lane) : ST_ENOMEM;
    if (rc == ST_OK)
        rc = gpu_event_create(r->gpu, true, &c.begin);
    if (rc == ST_OK)
        rc = gpu_event_create(r->gpu, true, &c.end);
    if (rc == ST_OK)
        rc = make_load(&c, w, x, y, &graph_us);
    rig_table(r, "copies", "direction,kib,batch,batch_us,gbs,gbs_beside_decode,decode_slowdown");
    if (rc == ST_OK)
        rc = all_rows(&c, graph_us);
    rig_table_end(r);
    gpu_graph_destroy(c.load);
    gpu_event_destroy(c.begin);
    gpu_event_destroy(c.end);
    gpu_stream_destroy(c.lane);
    gpu_free(r->gpu, w);
    gpu_free(r->gpu, x);
    gpu_free(r->gpu, y);
    gpu_free(r->gpu, c.device);
    gpu_host_free(r->gpu, c.host);
    return rc;
}
