/* The first line printed is a command that gives the same table again, whatever was left to defaults: a result is quoted by it.
 * What depends on the machine that simulates (wall time) goes to stderr, so that stdout can be compared. */
#include "sim_main.h"

#include "clock.h"
#include "model.h"
#include "sim_report.h"
#include "sim_synth.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct flags {
    const char *trace, *gpu, *model, *priorities, *csv;
    uint64_t seed, requests, max_num_seqs, max_num_batched_tokens, max_queue, kv_bytes, host_kv_bytes;
    uint64_t max_step_ms, aging_ms, batch_wait_ms, slo_ttft_ms, slo_itl_ms;
    double scale;
    bool help;
};

enum type { TEXT, NUMBER, FACTOR };

static const struct flag {
    const char *name;
    enum type type;
    size_t offset;
    const char *initial;
    uint64_t min, max;
    const char *help;
} table[] = {
#define AT(f) offsetof(struct flags, f)
    {"trace", TEXT, AT(trace), "low_flood", 0, 0,
     "file of JSON lines, or low_flood, triage, agents, longdoc, thrash, diurnal"},
    {"gpu", TEXT, AT(gpu), "h100", 0, 0, "machine: h100, h200, a100, cpu2"},
    {"model", TEXT, AT(model), "bench/configs/llama-3.1-8b", 0, 0, "folder with a config.json"},
    {"seed", NUMBER, AT(seed), "1", 0, UINT64_MAX, "of all that is random"},
    {"requests", NUMBER, AT(requests), "0", 0, SIM_TRACE_REQUESTS_MAX,
     "as the workload counts them; 0: its own number"},
    {"scale", FACTOR, AT(scale), "1", 0, 0, "arrivals so many times as dense, 0.01 to 1000"},
    {"priorities", TEXT, AT(priorities), "on", 0, 0, "on or off"},
    {"max-num-seqs", NUMBER, AT(max_num_seqs), "256", 1, 1024, "sequences that run at once"},
    {"max-num-batched-tokens", NUMBER, AT(max_num_batched_tokens), "2048", 16, 65536,
     "token budget of one step"},
    {"max-queue", NUMBER, AT(max_queue), "1024", 0, 65536, "requests that may wait"},
    {"kv-bytes", NUMBER, AT(kv_bytes), "0", 0, UINT64_C(1) << 50,
     "KV cache; 0: what 0.9 of the memory leaves"},
    {"host-kv-bytes", NUMBER, AT(host_kv_bytes), "0", 0, UINT64_C(1) << 50, "host tier; 0: none"},
    {"max-step-ms", NUMBER, AT(max_step_ms), "0", 0, 60000,
     "a step with prompts aims to end within this; 0: the machine's"},
    {"aging-ms-per-point", NUMBER, AT(aging_ms), "30000", 1, 86400000,
     "waiting that weighs as a point of priority"},
    {"batch-wait-ms", NUMBER, AT(batch_wait_ms), "50", 0, 10000,
     "a request of l = 0 may wait this long for company"},
    {"slo-ttft-ms", NUMBER, AT(slo_ttft_ms), "0", 0, 86400000, "target for the first token; 0: none"},
    {"slo-itl-ms", NUMBER, AT(slo_itl_ms), "0", 0, 86400000,
     "target for 95 % of the gaps between tokens; 0: none"},
    {"csv", TEXT, AT(csv), "", 0, 0, "file for one line per request"},
#undef AT
};

enum { FLAGS = sizeof table / sizeof table[0] };

/* ---- flags ------------------------------------------------------------------------------------------------------------- */

static bool number(const char *text, uint64_t *out)
{
    static const char suffixes[] = "kmgt";
    char *end;
    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    const char *suffix = *end ? strchr(suffixes, tolower((unsigned char)*end)) : NULL;
    int shift = suffix ? 10 * (int)(suffix - suffixes + 1) : 0;
    if (errno || end[suffix != NULL] || v > UINT64_MAX >> shift)
        return false;
    *out = v << shift;
    return true;
}

static bool set(struct flags *f, const struct flag *d, const char *text)
{
    void *at = (char *)f + d->offset;
    char *end;
    uint64_t v = 0;
    double x = 0;
    switch (d->type) {
    case TEXT:
        memcpy(at, &text, sizeof text);
        return true;
    case NUMBER:
        if (!number(text, &v) || v < d->min || v > d->max)
            break;
        memcpy(at, &v, sizeof v);
        return true;
    case FACTOR:
        x = strtod(text, &end);
        if (end == text || *end || !(x >= 0.01 && x <= 1000))
            break;
        memcpy(at, &x, sizeof x);
        return true;
    }
    fprintf(stderr, "stator simulate: --%s: '%s' is not among its values: %s\n", d->name, text, d->help);
    return false;
}

static const struct flag *find(const char *arg)
{
    for (int i = 0; strncmp(arg, "--", 2) == 0 && i < FLAGS; i++)
        if (strcmp(arg + 2, table[i].name) == 0)
            return &table[i];
    return NULL;
}

static bool parse(struct flags *f, int argc, char **argv)
{
    *f = (struct flags){0};
    for (int i = 0; i < FLAGS; i++)
        set(f, &table[i], table[i].initial);
    for (int i = 1; i < argc; i += 2) {
        const struct flag *d = find(argv[i]);
        f->help |= strcmp(argv[i], "--help") == 0;
        if (f->help)
            return true;
        if (!d || i + 1 == argc) {
            fprintf(stderr, "stator simulate: %s: %s\n", argv[i],
                    d ? "a value is missing" : "no such flag; see --help");
            return false;
        }
        if (!set(f, d, argv[i + 1]))
            return false;
    }
    if (strcmp(f->priorities, "on") != 0 && strcmp(f->priorities, "off") != 0) {
        fprintf(stderr, "stator simulate: --priorities: '%s' is neither on nor off\n", f->priorities);
        return false;
    }
    return true;
}

static void print_help(void)
{
    puts("usage: stator simulate [--FLAG VALUE]...\n\nRuns the scheduler and the cache on a machine that is "
         "not there, in virtual time.\n");
    for (int i = 0; i < FLAGS; i++)
        printf("  --%-24s %s (%s)\n", table[i].name, table[i].help, table[i].initial);
}

static void print_command(struct buf *out, const struct flags *f)
{
    buf_puts(out, "stator simulate");
    for (int i = 0; i < FLAGS; i++) {
        const void *at = (const char *)f + table[i].offset;
        const char *text;
        uint64_t v;
        double x;
        switch (table[i].type) {
        case TEXT:
            memcpy(&text, at, sizeof text);
            if (*text)
                buf_printf(out, " --%s %s", table[i].name, text);
            break;
        case NUMBER:
            memcpy(&v, at, sizeof v);
            buf_printf(out, " --%s %" PRIu64, table[i].name, v);
            break;
        case FACTOR:
            memcpy(&x, at, sizeof x);
            buf_printf(out, " --%s %.17g", table[i].name, x);
            break;
        }
    }
    buf_putc(out, '\n');
}

/* ---- the run ----------------------------------------------------------------------------------------------------------- */

/* Where nobody says, the machine does, as the worker's own flag of that name. */
static uint32_t step_ms(const struct flags *f, const struct sim_gpu *g, bool priorities)
{
    if (f->max_step_ms)
        return (uint32_t)f->max_step_ms;
    if (g->depth == 1)
        return priorities ? 250 : 0;
    return priorities ? 15 : 50;
}

static void to_options(struct sim_options *o, const struct flags *f)
{
    bool priorities = strcmp(f->priorities, "on") == 0;
    o->seed = f->seed;
    o->max_num_seqs = (uint32_t)f->max_num_seqs;
    o->max_num_batched_tokens = (uint32_t)f->max_num_batched_tokens;
    o->max_queue = (uint32_t)f->max_queue;
    o->block_tokens = 16;
    o->kv_bytes = f->kv_bytes;
    o->host_kv_bytes = f->host_kv_bytes;
    o->noise = true;
    o->policy = (struct engine_policy){.priorities = priorities,
                                       .aging_ms = (uint32_t)f->aging_ms,
                                       .priority_clamp = 100,
                                       .classes = {0, 5, 10},
                                       .max_step_ms = step_ms(f, o->gpu, priorities),
                                       .slo_ttft_ms = (uint32_t)f->slo_ttft_ms,
                                       .slo_itl_ms = (uint32_t)f->slo_itl_ms,
                                       .batch_wait_ms = (uint32_t)f->batch_wait_ms};
}

static int write_file(const char *path, const struct buf *b, struct err *e)
{
    FILE *f = b->failed ? NULL : fopen(path, "we");
    if (!f)
        return err_set(e, ST_EIO, "%s: %s", path, b->failed ? status_text(b->failed) : strerror(errno));
    bool ok = fwrite(b->p, 1, b->n, f) == b->n;
    ok &= fclose(f) == 0;
    return ok ? ST_OK : err_set(e, ST_EIO, "%s: %s", path, strerror(errno));
}

static int report(const struct flags *f, const struct sim_result *r, const struct sim_trace *t,
                  const struct sim_options *o, struct err *e)
{
    struct buf text = {0}, csv = {0};
    print_command(&text, f);
    sim_report_table(&text, r, t, &o->policy);
    int rc = text.failed ? err_set(e, text.failed, "report: %s", status_text(text.failed)) : ST_OK;
    if (rc == ST_OK)
        fwrite(text.p, 1, text.n, stdout);
    if (rc == ST_OK && *f->csv) {
        sim_report_csv(&csv, r, t, &o->policy);
        rc = write_file(f->csv, &csv, e);
    }
    buf_fini(&text);
    buf_fini(&csv);
    if (rc == ST_OK && (r->n_wrong || r->n_failed))
        rc = err_set(e, ST_EINTERNAL, "%u requests had a wrong token, %u failed", r->n_wrong, r->n_failed);
    return rc;
}

static int make_trace(struct sim_trace *t, const struct flags *f, struct err *e)
{
    uint32_t n = (uint32_t)f->requests;
    t->seed = f->seed;
    int rc = sim_synth_known(f->trace) ? sim_synth(t, f->trace, n, e)
                                       : sim_trace_load(t, f->trace, n ? n : SIM_TRACE_REQUESTS_MAX, e);
    if (rc == ST_OK)
        sim_trace_scale(t, f->scale);
    return rc;
}

/* The default is a folder of the repository: who runs this elsewhere must learn which flag to give. */
static int open_model(struct model **m, const char *path, struct err *e)
{
    struct err why = {0};
    int rc = model_open_dummy(m, path, &why);
    return rc ? err_set(e, rc, "--model: %.220s", why.text[0] ? why.text : status_text(rc)) : ST_OK;
}

static int simulate(const struct flags *f, struct err *e)
{
    struct sim_options o = {.gpu = sim_gpu_find(f->gpu)};
    struct sim_trace t = {0};
    struct model *m = NULL;
    static struct sim_result r;
    int64_t begun_ns = clock_now_ns();
    if (!o.gpu)
        return err_set(e, ST_EINVAL, "--gpu: no machine '%s'; there are %s", f->gpu, sim_gpu_names());
    to_options(&o, f);
    int rc = open_model(&m, f->model, e);
    rc = rc ? rc : make_trace(&t, f, e);
    if (rc == ST_OK) {
        o.model = model_info(m);
        rc = sim_run(&r, &o, &t, e);
    }
    if (rc == ST_OK) {
        rc = report(f, &r, &t, &o, e);
        fprintf(stderr, "%u requests, %.2f s of virtual time in %.2f s\n", r.n, (double)r.end_ns / 1e9,
                (double)(clock_now_ns() - begun_ns) / 1e9);
    }
    sim_result_fini(&r);
    sim_trace_fini(&t);
    model_destroy(m);
    return rc;
}

int sim_main(int argc, char **argv)
{
    struct flags f;
    struct err e = {0};
    if (!parse(&f, argc, argv))
        return 2;
    if (f.help) {
        print_help();
        return 0;
    }
    int rc = simulate(&f, &e);
    if (rc != ST_OK)
        fprintf(stderr, "stator simulate: %s\n", e.text[0] ? e.text : status_text(rc));
    return rc == ST_OK ? 0 : rc == ST_EINVAL || rc == ST_ENOENT ? 2 : 1;
}
