/* bench_priority: plays the seed workload of priority/mix.h against one server and writes what came when, as JSON.
 *
 * It measures and does not judge: bench/priority.py starts the servers, plays the parts in turn, reads /metrics at the
 * window's two ends (the lines "window begins" and "window ends" on standard output tell it when) and makes the tables. */
#include "priority/mix.h"

#include "json.h"
#include "mem.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct arguments {
    const char *url, *json;
    struct mix_options mix;
};

enum kind { TEXT, WHOLE, REAL };
#define AT(field) offsetof(struct arguments, field)

static const struct flag {
    const char *name;
    enum kind kind;
    size_t at;
    double low, high;
    const char *value, *help;
} FLAGS[] = {
    {"url", TEXT, AT(url), 0, 0, "http://127.0.0.1:8099", "the server, http://HOST:PORT"},
    {"json", TEXT, AT(json), 0, 0, "/dev/null", "where the records go"},
    {"low", WHOLE, AT(mix.low), 0, 4096, "0", "LOW requests in flight"},
    {"low-isl", WHOLE, AT(mix.low_isl), 1, 1e6, "100", "their prompts, in words"},
    {"low-osl", WHOLE, AT(mix.low_osl), 1, 1e6, "500", "their outputs, in tokens"},
    {"high", WHOLE, AT(mix.high), 0, 4096, "0", "HIGH requests, at most"},
    {"high-isl", WHOLE, AT(mix.high_isl), 1, 1e6, "256", "their prompts, in words"},
    {"high-osl", WHOLE, AT(mix.high_osl), 1, 1e6, "10", "their outputs, in tokens"},
    {"high-rate", REAL, AT(mix.high_rate), 0, 1e6, "0", "Poisson arrivals per second; 0: one at a time"},
    {"pipelines", WHOLE, AT(mix.pipelines), 0, 256, "0", "triage pipelines, all at once"},
    {"pipeline-isl", WHOLE, AT(mix.pipeline_isl), 2, 1e6, "128", "prompts of their stages, in words"},
    {"settle", REAL, AT(mix.settle_s), 0, 3600, "0", "seconds of the flood alone"},
    {"seconds", REAL, AT(mix.seconds), 0, 3600, "0", "length of the window; 0: until all has ended"},
    {"timeout", REAL, AT(mix.timeout_s), 1, 36000, "300", "seconds after which the run counts as failed"},
    {"seed", WHOLE, AT(mix.seed), 0, 9e12, "1", "of prompts and arrivals"},
};
enum { FLAG_COUNT = sizeof FLAGS / sizeof *FLAGS };

static int set(struct arguments *a, const struct flag *f, const char *value, struct err *e)
{
    char *at = (char *)a + f->at, *end;
    if (f->kind == TEXT) {
        memcpy(at, &value, sizeof value);
        return ST_OK;
    }
    double number = strtod(value, &end);
    if (end == value || *end || !(number >= f->low && number <= f->high) ||
        (f->kind == WHOLE && number != floor(number)))
        return err_set(e, ST_EINVAL, "--%s: %s is no %s in %.15g..%.15g", f->name, value,
                       f->kind == WHOLE ? "whole number" : "number", f->low, f->high);
    if (f->kind == WHOLE)
        *(int64_t *)(void *)at = (int64_t)number;
    else
        *(double *)(void *)at = number;
    return ST_OK;
}

static int parse(struct arguments *a, int argc, char **argv, struct err *e)
{
    int rc = ST_OK;
    for (int i = 0; i < FLAG_COUNT && rc == ST_OK; i++)
        rc = set(a, &FLAGS[i], FLAGS[i].value, e);
    for (int i = 1; i < argc && rc == ST_OK; i += 2) {
        const struct flag *f = FLAGS;
        while (f < FLAGS + FLAG_COUNT &&
               (strncmp(argv[i], "--", 2) != 0 || strcmp(argv[i] + 2, f->name) != 0))
            f++;
        if (f == FLAGS + FLAG_COUNT || i + 1 == argc)
            return err_set(e, ST_EINVAL, "%s: no such flag, or its value is missing (--help)", argv[i]);
        rc = set(a, f, argv[i + 1], e);
    }
    return rc;
}

static void print_help(void)
{
    printf("bench_priority: LOW flood, HIGH requests on top, triage pipelines.\n\n");
    for (int i = 0; i < FLAG_COUNT; i++)
        printf("  --%-14s %s (default %s)\n", FLAGS[i].name, FLAGS[i].help, FLAGS[i].value);
}

static int first_model(const struct load_target *t, char **out, struct err *e)
{
    struct buf body = {0};
    cJSON *root = NULL;
    struct str id = {0};
    int rc = load_get(t, NULL, "/v1/models", &body, e);
    if (rc == ST_OK)
        rc = json_parse(&root, buf_str(&body), e);
    if (rc == ST_OK)
        rc = json_need_str(cJSON_GetArrayItem(json_get(root, "data"), 0), "id", &id, e);
    if (rc == ST_OK && !(*out = mem_dup(id.p, id.n)))
        rc = err_set(e, ST_ENOMEM, "no memory");
    if (root)
        json_free(root);
    buf_fini(&body);
    return rc;
}

static void tell_window(bool begins)
{
    printf("window %s\n", begins ? "begins" : "ends");
    fflush(stdout);
}

static double ms(const struct mix_result *r, int64_t t_ns)
{
    return t_ns ? (double)(t_ns - r->begin_ns) / 1e6 : 0;
}

/* Times are milliseconds from the begin of the window; what was before is negative. */
static void put_record(FILE *f, const struct mix_result *r, const struct mix_record *m)
{
    fprintf(f,
            "{\"stage\":\"%s\",\"pipeline\":%d,\"n_high\":%u,\"window\":%s,\"done\":%s,\"steps\":%u,\"start_"
            "ms\":%.3f,"
            "\"first_ms\":%.3f,\"done_ms\":%.3f,\"prompt\":%lld,\"output\":%lld,\"cached\":%lld,\"events\":%"
            "u,\"gap_us\":[",
            mix_stage_name(m->stage), m->pipeline, m->n_high, m->window ? "true" : "false",
            m->done ? "true" : "false", m->steps, ms(r, m->start_ns), ms(r, m->first_ns), ms(r, m->done_ns),
            (long long)m->prompt_tokens, (long long)m->output_tokens, (long long)m->cached_tokens, m->events);
    for (uint32_t i = 0; m->gap_us && i + 1 < m->events; i++)
        fprintf(f, "%s%u", i ? "," : "", m->gap_us[i]);
    fprintf(f, "]}");
}

static int write_json(const char *path, const struct mix_result *r, struct err *e)
{
    FILE *f = fopen(path, "w");
    if (!f)
        return err_set(e, ST_EIO, "cannot write %s", path);
    fprintf(f, "{\"window_ms\":%.3f,\"flood_events\":%llu,\"step_ms\":[", ms(r, r->end_ns),
            (unsigned long long)r->flood_events);
    for (uint32_t i = 0; i < r->n_steps; i++)
        fprintf(f, "%s%.3f", i ? "," : "", ms(r, r->step_ns[i]));
    fprintf(f, "],\n\"records\":[");
    for (uint32_t i = 0; i < r->n; i++) {
        fprintf(f, "%s\n", i ? "," : "");
        put_record(f, r, &r->records[i]);
    }
    fprintf(f, "]}\n");
    bool bad = ferror(f);
    return fclose(f) != 0 || bad ? err_set(e, ST_EIO, "cannot write %s", path) : ST_OK;
}

int main(int argc, char **argv)
{
    struct arguments a = {0};
    struct err e = {0};
    struct load_target target;
    struct mix_result r = {0};
    char *model = NULL;
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        print_help();
        return EXIT_SUCCESS;
    }
    int rc = parse(&a, argc, argv, &e);
    if (rc == ST_OK)
        rc = load_resolve(&target, a.url, &e);
    if (rc == ST_OK)
        rc = first_model(&target, &model, &e);
    if (rc == ST_OK) {
        a.mix.target = &target;
        a.mix.model = model;
        rc = mix_run(&r, &a.mix, tell_window, &e);
    }
    if (rc == ST_OK)
        rc = write_json(a.json, &r, &e);
    mix_fini(&r);
    mem_free(model);
    if (rc != ST_OK)
        fprintf(stderr, "bench_priority: %s\n", e.text[0] ? e.text : status_text(rc));
    return rc == ST_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
