/* The backend is measured as it is: the linker sends its gpu_graph_launch here (--wrap), where events go in front of the graph
 * and behind it. From behind one to in front of the next there are the results' copy to the host and the wait for the next
 * step's data: what the device does there is not a step. */
#include "gap.h"

#include <stdatomic.h>
#include <stdlib.h>

static struct {
    struct gpu_event *before[GAP_LAUNCHES], *after[GAP_LAUNCHES];
    _Atomic bool on;
    uint32_t n;
} gaps;

int __real_gpu_graph_launch(struct gpu_graph *h, struct gpu_stream *s);
int __wrap_gpu_graph_launch(struct gpu_graph *h, struct gpu_stream *s);

int __wrap_gpu_graph_launch(struct gpu_graph *h, struct gpu_stream *s)
{
    if (!atomic_load(&gaps.on) || gaps.n == GAP_LAUNCHES)
        return __real_gpu_graph_launch(h, s);
    int rc = gpu_event_record(gaps.before[gaps.n], s);
    if (rc == ST_OK)
        rc = __real_gpu_graph_launch(h, s);
    if (rc == ST_OK)
        rc = gpu_event_record(gaps.after[gaps.n++], s);
    return rc;
}

int gap_open(struct gpu *g)
{
    int rc = ST_OK;
    for (int i = 0; i < GAP_LAUNCHES && rc == ST_OK; i++) {
        rc = gpu_event_create(g, true, &gaps.before[i]);
        if (rc == ST_OK)
            rc = gpu_event_create(g, true, &gaps.after[i]);
    }
    return rc;
}

void gap_close(void)
{
    for (int i = 0; i < GAP_LAUNCHES; i++) {
        gpu_event_destroy(gaps.before[i]);
        gpu_event_destroy(gaps.after[i]);
        gaps.before[i] = gaps.after[i] = NULL;
    }
}

void gap_start(void)
{
    gaps.n = 0;
    atomic_store(&gaps.on, true);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int measure_floor(struct gpu_stream *s, double *us)
{
    int rc = gpu_event_record(gaps.before[0], s);
    if (rc == ST_OK)
        rc = gpu_event_record(gaps.after[0], s);
    if (rc == ST_OK)
        rc = gpu_event_wait(gaps.after[0]);
    return rc == ST_OK ? gpu_event_us(gaps.before[0], gaps.after[0], us) : rc;
}

int gap_stop(struct gpu_stream *s, struct gap *out)
{
    double us[GAP_LAUNCHES];
    int rc = ST_OK;
    atomic_store(&gaps.on, false);
    *out = (struct gap){0};
    if (gaps.n < 2)
        return ST_OK;
    rc = gpu_event_wait(gaps.after[gaps.n - 1]);
    for (uint32_t i = 0; i + 1 < gaps.n && rc == ST_OK; i++)
        rc = gpu_event_us(gaps.after[i], gaps.before[i + 1], &us[i]);
    if (rc != ST_OK)
        return rc;
    out->n = gaps.n - 1;
    qsort(us, out->n, sizeof *us, ascending);
    out->median_us = us[out->n / 2];
    out->p99_us = us[(out->n * 99) / 100];
    return measure_floor(s, &out->floor_us);
}
