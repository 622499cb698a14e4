/* One table gives parsing, range checks and --help, as in the worker; the load generator is a separate program and
 * reads no environment, so that a report's flags tell the whole run. */
#include "options.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { TEXT, WHOLE, REAL, SWITCH };

struct flag {
    const char *name;
    enum kind kind;
    size_t at; /* offset in struct options */
    double low, high;
    const char *value, *help;
};

#define AT(field) offsetof(struct options, field)

static const struct flag FLAGS[] = {
    {"url", TEXT, AT(url), 0, 0, "http://127.0.0.1:8099", "the server, http://HOST:PORT"},
    {"endpoint", TEXT, AT(endpoint), 0, 0, "completions", "completions or chat"},
    {"model", TEXT, AT(model), 0, 0, NULL, "model name; default: the first that the server lists"},
    {"api-key", TEXT, AT(api_key), 0, 0, NULL, "sent as Bearer token"},
    {"concurrency", WHOLE, AT(concurrency), 1, 4096, "1",
     "closed loop: requests in flight; open loop: the most"},
    {"rate", REAL, AT(rate), 0, 1e6, "0", "open loop: Poisson arrivals per second; 0 = closed loop"},
    {"num-requests", WHOLE, AT(num_requests), 1, 10000000, "16", "measured requests"},
    {"warmup", WHOLE, AT(warmup), 0, 100000, "1", "requests before the clock starts"},
    {"isl", WHOLE, AT(isl), 1, 1000000, "128", "prompt tokens per request"},
    {"osl", WHOLE, AT(osl), 1, 1000000, "128", "output tokens per request"},
    {"shared-prefix", WHOLE, AT(shared_prefix), 0, 1000000, "0",
     "leading prompt tokens that all requests share"},
    {"token-ids", WHOLE, AT(token_ids), 0, 10000000, "0", "send random token ids below N instead of text"},
    {"seed", WHOLE, AT(seed), 0, 9e15, "1", "of prompts and arrivals"},
    {"timeout", REAL, AT(timeout_s), 0.1, 1e6, "600", "seconds before a request counts as failed"},
    {"stop-at-eos", SWITCH, AT(stop_at_eos), 0, 0, NULL,
     "let replies end by themselves (default: ignore_eos)"},
    {"json", TEXT, AT(json), 0, 0, NULL, "write the report as JSON to this file"},
    {"label", TEXT, AT(label), 0, 0, "", "a name for the run, copied into the report"},
    {"quiet", SWITCH, AT(quiet), 0, 0, NULL, "no progress, no table"},
};
enum { FLAG_COUNT = sizeof FLAGS / sizeof FLAGS[0] };

static int set(struct options *o, const struct flag *f, const char *value, struct err *e)
{
    char *at = (char *)o + f->at;
    if (f->kind == TEXT) {
        memcpy(at, &value, sizeof value);
        return ST_OK;
    }
    char *end;
    double number = strtod(value, &end);
    if (end == value || *end || !isfinite(number) || (f->kind == WHOLE && number != floor(number)))
        return err_set(e, ST_EINVAL, "--%s: %s is no %s", f->name, value,
                       f->kind == WHOLE ? "whole number" : "number");
    if (number < f->low || number > f->high)
        return err_set(e, ST_EINVAL, "--%s: %s is outside %.15g..%.15g", f->name, value, f->low, f->high);
    if (f->kind == WHOLE)
        *(int64_t *)(void *)at = (int64_t)number;
    else
        *(double *)(void *)at = number;
    return ST_OK;
}

static void print_help(void)
{
    printf("bench_serve: loads an OpenAI-compatible server and measures it.\n\n");
    for (int i = 0; i < FLAG_COUNT; i++) {
        const struct flag *f = &FLAGS[i];
        const char *unit = f->kind == TEXT ? "TEXT" : f->kind == SWITCH ? "" : "N";
        printf("  --%-14s %-5s %s", f->name, unit, f->help);
        if (f->value && *f->value)
            printf(" (default %s)", f->value);
        printf("\n");
    }
}

static int check(const struct options *o, struct err *e)
{
    if (strcmp(o->endpoint, "chat") != 0 && strcmp(o->endpoint, "completions") != 0)
        return err_set(e, ST_EINVAL, "--endpoint: %s is neither chat nor completions", o->endpoint);
    if (o->token_ids && strcmp(o->endpoint, "chat") == 0)
        return err_set(e, ST_EINVAL, "--token-ids: only --endpoint completions takes token ids");
    if (o->shared_prefix > o->isl)
        return err_set(e, ST_EINVAL, "--shared-prefix: %lld is more than --isl %lld",
                       (long long)o->shared_prefix, (long long)o->isl);
    return ST_OK;
}

static const struct flag *find(const char *name, size_t n)
{
    for (int i = 0; i < FLAG_COUNT; i++)
        if (strlen(FLAGS[i].name) == n && memcmp(FLAGS[i].name, name, n) == 0)
            return &FLAGS[i];
    return NULL;
}

int options_parse(struct options *o, int argc, char **argv, struct err *e)
{
    *o = (struct options){0};
    int rc = ST_OK;
    for (int i = 0; i < FLAG_COUNT && rc == ST_OK; i++)
        if (FLAGS[i].value)
            rc = set(o, &FLAGS[i], FLAGS[i].value, e);
    for (int i = 1; i < argc && rc == ST_OK; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help();
            return ST_ECANCEL;
        }
        const char *name = argv[i] + (strncmp(argv[i], "--", 2) == 0 ? 2 : 0);
        const char *equals = strchr(name, '=');
        const struct flag *f = find(name, equals ? (size_t)(equals - name) : strlen(name));
        if (name == argv[i] || !f)
            return err_set(e, ST_EINVAL, "%s: no such flag (--help lists them)", argv[i]);
        if (f->kind == SWITCH) {
            *((bool *)o + f->at) = true;
            continue;
        }
        if (!equals && i + 1 == argc)
            return err_set(e, ST_EINVAL, "--%s: value missing", f->name);
        rc = set(o, f, equals ? equals + 1 : argv[++i], e);
    }
    return rc == ST_OK ? check(o, e) : rc;
}
