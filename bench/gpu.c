/* What the CUDA backend does on this GPU, part by part; bench/gpu.sh builds and runs it.
 *
 *   bench_gpu [--out DIR] [--fp8] PART...
 *
 * Parts: name (prints the device's name as a folder), parity, parity-small, linear, attention, rows, invariance, copies, and
 * under the engine decode, prefill, requests (together they load the weights once; --fp8: e4m3 weights and KV).
 * Status 0; 1: a part failed; 2: usage; 77: no usable GPU, nothing was measured. */
#include "attend.h"
#include "copies.h"
#include "linears.h"
#include "parity.h"
#include "rowops.h"
#include "serving.h"

#include <ctype.h>
#include <string.h>

static int parity_full(struct rig *r)
{
    return parity_bench(r, false);
}

static int parity_small(struct rig *r)
{
    return parity_bench(r, true);
}

static int name(struct rig *r)
{
    for (const char *p = r->info->name; *p != 0; p++)
        putchar(isalnum((unsigned char)*p) ? tolower((unsigned char)*p) : '_');
    putchar('\n');
    return ST_OK;
}

static const struct part {
    const char *name;
    int (*run)(struct rig *r);
    bool ceilings; /* its figures are shares of them */
} parts[] = {{"name", name, false},
             {"parity", parity_full, false},
             {"parity-small", parity_small, false},
             {"linear", linears_bench, true},
             {"attention", attend_bench, true},
             {"rows", rowops_bench, true},
             {"invariance", linears_probe, false},
             {"copies", copies_bench, false}};

enum { PARTS = sizeof parts / sizeof *parts };

static int run(const char *dir, const bool want[PARTS], const struct serving *serving)
{
    struct rig r;
    struct err e = {0};
    bool engine = serving->decode || serving->prefill || serving->requests, ceilings = engine;
    if (rig_open(&r, dir, &e) != ST_OK) {
        fprintf(stderr, "%s\n", e.text);
        return e.status == ST_EUNSUP ? 77 : 1;
    }
    for (int i = 0; i < PARTS; i++)
        ceilings |= want[i] && parts[i].ceilings;
    int rc = ceilings ? rig_ceilings(&r) : ST_OK, worst = rc;
    for (int i = 0; i < PARTS && rc != ST_EDEVICE; i++)
        if (want[i] && (rc = parts[i].run(&r)) != ST_OK) {
            fprintf(stderr, "%s: %s\n", parts[i].name, status_text(rc));
            worst = rc;
        }
    if (engine && rc != ST_EDEVICE && (rc = serving_bench(&r, serving)) != ST_OK)
        worst = rc;
    if (rig_gone(&r) != ST_OK)
        worst = ST_EDEVICE;
    rig_close(&r);
    return worst == ST_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
    const char *dir = NULL;
    bool want[PARTS] = {false}, any = false;
    struct serving serving = {0};
    for (int i = 1; i < argc; i++) {
        bool known = true;
        if (!strcmp(argv[i], "--out") && i + 1 < argc) {
            dir = argv[++i];
            continue;
        }
        if (!strcmp(argv[i], "--fp8")) {
            serving.fp8 = true;
            continue;
        }
        if (!strcmp(argv[i], "decode"))
            serving.decode = true;
        else if (!strcmp(argv[i], "prefill"))
            serving.prefill = true;
        else if (!strcmp(argv[i], "requests"))
            serving.requests = true;
        else
            known = false;
        for (int j = 0; j < PARTS; j++)
            if (!strcmp(argv[i], parts[j].name))
                known = want[j] = true;
        any = true;
        if (!known) {
            fprintf(stderr, "bench_gpu: '%s' is no part\n", argv[i]);
            return 2;
        }
    }
    if (!any) {
        fprintf(stderr, "usage: %s [--out DIR] [--fp8] PART...\n", argv[0]);
        return 2;
    }
    return run(dir, want, &serving);
}
