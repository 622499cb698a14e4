/* The library's product in the emulation: cu_lt.h over lin_tile. It refuses what the real one refuses (SwiGLU, biases), so that
 * the backend's ways around it run in tests. Absent until a test asks for it. And the controls for tests in C. */
#include "cu_lt.h"
#include "simt.h"
#include "simt_c.h"

struct cu_lt {
    struct gpu *gpu;
};

static bool present;
static uint32_t runs;

void sim_library(bool there)
{
    present = there;
    runs = 0;
}

uint32_t sim_library_runs(void)
{
    return runs;
}

void sim_seed(uint64_t seed)
{
    simt_seed(seed);
}

void sim_memory(uint64_t bytes)
{
    gpu_sim_memory(bytes);
}

void sim_fail_after(uint32_t n)
{
    gpu_sim_fail_after(n);
}

uint32_t sim_live(void)
{
    return gpu_sim_live();
}

int cu_lt_create(struct cu_lt **out, struct gpu *g, const char *, struct err *e)
{
    if (!present)
        return err_set(e, ST_EUNSUP, "no library");
    *out = new cu_lt{g};
    return ST_OK;
}

void cu_lt_destroy(struct cu_lt *l)
{
    delete l;
}

uint32_t cu_lt_bucket(uint32_t m)
{
    return m <= 32 ? 32 : 64;
}

int cu_lt_tune(struct cu_lt *l, struct gpu_stream *s, const struct cu_lin *p)
{
    int st = cu_lt_run(l, s, p);
    runs -= st == ST_OK;
    return st;
}

int cu_lt_run(struct cu_lt *, struct gpu_stream *s, const struct cu_lin *p)
{
    if (p->epilogue == CU_SWIGLU || p->bias)
        return ST_EUNSUP;
    runs++;
    return cu_lin_tile(s, p);
}
