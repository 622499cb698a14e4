/* bench_plane: loads a worker's Dynamo request plane without a frontend before it: bench_serve's flags and its report.
 *
 * --url is what the worker's instance record says of its transport, HOST:PORT/PATH; --token-ids the vocabulary, as only token ids
 * go over the plane; --model any name. */
#include "plane/door.h"
#include "serve/options.h"
#include "serve/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check(const struct options *o, const char **path, struct err *e)
{
    const char *slash = strchr(o->url, '/');
    if (!slash || strstr(o->url, "//"))
        return err_set(e, ST_EINVAL, "--url: %.120s is not HOST:PORT/PATH", o->url);
    *path = slash + 1;
    if (!o->token_ids)
        return err_set(e, ST_EINVAL, "--token-ids: the size of the vocabulary is needed");
    if (o->rate > 0 || o->shared_prefix)
        return err_set(e, ST_EINVAL, "--rate, --shared-prefix: not over the request plane");
    return ST_OK;
}

static int measure(const struct options *o, const struct load_target *t, const char *path, struct err *e)
{
    struct load_result r;
    struct door_spec s = {.o = o,
                          .target = t,
                          .path = path,
                          .model = o->model ? o->model : "model",
                          .first_index = 1u << 31,
                          .num_requests = o->warmup,
                          .concurrency = o->concurrency};
    int rc = ST_OK;
    if (o->warmup) {
        rc = door_run(&r, &s, e);
        load_result_fini(&r);
    }
    if (rc != ST_OK)
        return rc;
    s.first_index = 0;
    s.num_requests = o->num_requests;
    rc = door_run(&r, &s, e);
    if (rc == ST_OK)
        rc = report_write(o, s.model, &r, e);
    load_result_fini(&r);
    return rc;
}

int main(int argc, char **argv)
{
    struct options o;
    struct err e = {0};
    struct load_target target;
    const char *path = NULL;
    char url[512];
    int rc = options_parse(&o, argc, argv, &e);
    if (rc == ST_ECANCEL)
        return EXIT_SUCCESS;
    if (rc == ST_OK)
        rc = check(&o, &path, &e);
    if (rc == ST_OK) {
        snprintf(url, sizeof url, "http://%s", o.url); /* what finds hosts speaks of pages */
        rc = load_resolve(&target, url, &e);
    }
    if (rc == ST_OK)
        rc = measure(&o, &target, path, &e);
    if (rc != ST_OK)
        fprintf(stderr, "bench_plane: %s\n", e.text[0] ? e.text : status_text(rc));
    return rc == ST_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
