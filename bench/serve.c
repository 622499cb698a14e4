/* bench_serve: loads any OpenAI-compatible server and reports TTFT, ITL, end-to-end times and tokens per second.
 *
 * The order of work: ask the server for its model; calibrate (two short requests tell how many tokens a word and the
 * server's own framing take, so that --isl is met without a tokenizer here); warm up; measure; report. Prompts never
 * repeat between these phases, so nothing measured comes from a prefix cache unless --shared-prefix asks for it. */
#include "serve/load.h"
#include "serve/options.h"
#include "serve/prompt.h"
#include "serve/report.h"

#include "json.h"
#include "mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CALIBRATE_FEW = 16, CALIBRATE_MANY = 80 };

static int first_model(const struct options *o, const struct load_target *t, char **out, struct err *e)
{
    struct buf body = {0};
    cJSON *root = NULL;
    int rc = load_get(t, o->api_key, "/v1/models", &body, e);
    if (rc == ST_OK)
        rc = json_parse(&root, buf_str(&body), e);
    if (rc == ST_OK) {
        struct str id = {0};
        rc = json_need_str(cJSON_GetArrayItem(json_get(root, "data"), 0), "id", &id, e);
        if (rc == ST_OK && !(*out = mem_dup(id.p, id.n)))
            rc = err_set(e, ST_ENOMEM, "no memory");
        json_free(root);
    }
    buf_fini(&body);
    return rc;
}

static int prompt_tokens_of(const struct load_spec *base, uint64_t index, int64_t words, int64_t *out,
                            struct err *e)
{
    struct load_spec s = *base;
    struct load_result r;
    s.first_index = index;
    s.num_requests = s.concurrency = s.max_tokens = 1;
    s.rate = 0;
    s.words = words;
    s.shared_words = 0;
    s.progress = false;
    int rc = load_run(&r, &s, e);
    if (rc == ST_OK && !r.records[0].has_usage)
        rc = err_set(e, ST_EUNSUP, "the server sends no usage: use --token-ids");
    if (rc == ST_OK)
        *out = r.records[0].prompt_tokens;
    load_result_fini(&r);
    return rc;
}

static int calibrate(struct prompt_scale *scale, const struct load_spec *base, struct err *e)
{
    *scale = (struct prompt_scale){.per_word = 1};
    if (base->o->token_ids)
        return ST_OK;
    int64_t few = 0, many = 0;
    int rc = prompt_tokens_of(base, 1u << 30, CALIBRATE_FEW, &few, e);
    if (rc == ST_OK)
        rc = prompt_tokens_of(base, (1u << 30) + 1, CALIBRATE_MANY, &many, e);
    if (rc != ST_OK)
        return rc;
    scale->per_word = (double)(many - few) / (CALIBRATE_MANY - CALIBRATE_FEW);
    if (scale->per_word <= 0)
        return err_set(e, ST_EFORMAT, "usage.prompt_tokens does not grow with the prompt (%lld, then %lld)",
                       (long long)few, (long long)many);
    scale->overhead = (double)few - scale->per_word * CALIBRATE_FEW;
    return ST_OK;
}

static int measure(const struct options *o, const struct load_target *target, const char *model,
                   struct err *e)
{
    struct prompt_scale scale;
    struct load_spec s = {.o = o, .target = target, .model = model, .phase = "warm-up", .max_tokens = o->osl};
    int rc = calibrate(&scale, &s, e);
    if (rc != ST_OK)
        return rc;
    s.words = o->token_ids ? o->isl : prompt_words(&scale, o->isl);
    s.shared_words = !o->shared_prefix ? 0
                     : o->token_ids    ? o->shared_prefix
                                       : prompt_words(&scale, o->shared_prefix);
    s.concurrency = o->concurrency;
    s.progress = !o->quiet;
    if (o->warmup) {
        struct load_result warm;
        s.num_requests = o->warmup;
        s.first_index = 1u << 31;
        rc = load_run(&warm, &s, e);
        load_result_fini(&warm);
        if (rc != ST_OK)
            return rc;
    }
    struct load_result r;
    s.phase = "measure";
    s.num_requests = o->num_requests;
    s.first_index = 0;
    s.rate = o->rate;
    rc = load_run(&r, &s, e);
    if (rc == ST_OK)
        rc = report_write(o, model, &r, e);
    load_result_fini(&r);
    return rc;
}

int main(int argc, char **argv)
{
    struct options o;
    struct err e = {0};
    struct load_target target;
    char *listed = NULL;
    int rc = options_parse(&o, argc, argv, &e);
    if (rc == ST_ECANCEL)
        return EXIT_SUCCESS;
    if (rc == ST_OK)
        rc = load_resolve(&target, o.url, &e);
    if (rc == ST_OK && !o.model)
        rc = first_model(&o, &target, &listed, &e);
    if (rc == ST_OK)
        rc = measure(&o, &target, o.model ? o.model : listed, &e);
    mem_free(listed);
    if (rc != ST_OK)
        fprintf(stderr, "bench_serve: %s\n", e.text[0] ? e.text : status_text(rc));
    return rc == ST_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
