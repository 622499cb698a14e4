/* chat_golden: runs a golden file of make_goldens.py against the chat module.
 *
 * Owns     nothing beyond a call.
 * Units    cases.
 * States   -
 * Threads  one.
 * Errors   cmocka failures, after every mismatch was printed.
 * Bounds   the file is read whole.
 */
#ifndef STATOR_TESTS_CHAT_GOLDEN_H
#define STATOR_TESTS_CHAT_GOLDEN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "chat.h"
#include "json.h"
#include "mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline char *golden_read(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *p = malloc(*n + 1);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, *n, f), *n);
    fclose(f);
    p[*n] = 0;
    return p;
}

static inline struct chat_input golden_input(const cJSON *in, int64_t now_s)
{
    struct chat_input i = {.messages = json_get(in, "messages"), .now_s = now_s};
    i.tools = json_get(in, "tools");
    i.documents = json_get(in, "documents");
    i.kwargs = json_get(in, "kwargs");
    struct err e;
    assert_int_equal(json_opt_str(in, "bos_token", &i.bos_token, &e), ST_OK);
    assert_int_equal(json_opt_str(in, "eos_token", &i.eos_token, &e), ST_OK);
    assert_int_equal(json_opt_bool(in, "add_generation_prompt", &i.add_generation_prompt, &e), ST_OK);
    return i;
}

/* True when the outcome is the golden one: equal bytes, or an error where Jinja2 raised. */
static inline bool golden_case(const struct chat *c, const cJSON *k, const cJSON *given, int compile_status,
                               int64_t now_s)
{
    const cJSON *want = json_get(k, "out");
    struct buf out = {0};
    struct err e = {0};
    struct chat_input in = golden_input(json_get(k, "in") ? json_get(k, "in") : given, now_s);
    int st = c ? chat_render(c, &in, &out, &e) : compile_status;
    struct str got = buf_str(&out);
    bool ok = want ? st == ST_OK && str_eqz(got, want->valuestring) : st != ST_OK;
    if (!ok) {
        fprintf(stderr, "--- template %s, prompt %d\n", json_get(k, "t")->valuestring,
                in.add_generation_prompt);
        fprintf(stderr, "status %s %s\ngot:  %s\n", status_name(st), e.text, out.p ? out.p : "");
        fprintf(stderr, "want: %s\n", want ? want->valuestring : json_get(k, "error")->valuestring);
    }
    buf_fini(&out);
    return ok;
}

static inline void golden_run(cJSON *doc, bool all_compile)
{
    const cJSON *templates = json_get(doc, "templates"), *k = json_get(doc, "cases");
    int64_t now_s = (int64_t)json_get(doc, "now_s")->valuedouble;
    struct chat *c = NULL;
    const char *name = "";
    int compile_status = ST_OK;
    size_t bad = 0, n = 0;
    for (k = k->child; k; k = k->next, n++) {
        const char *t = json_get(k, "t")->valuestring;
        if (strcmp(t, name) != 0) {
            struct err e = {0};
            chat_destroy(c);
            c = NULL;
            name = t;
            compile_status = chat_create(&c, str_from(json_get(templates, t)->valuestring), &e);
            if (compile_status && all_compile) {
                fprintf(stderr, "template %s does not compile: %s\n", t, e.text);
                bad++;
            }
        }
        bad += !golden_case(c, k, json_get(doc, "in"), compile_status, now_s);
    }
    chat_destroy(c);
    printf("%zu cases, %zu differ from Jinja2\n", n, bad);
    assert_true(n > 0);
    assert_int_equal(bad, 0);
}

static inline void golden_file(const char *path, bool all_compile)
{
    size_t n = 0;
    char *text = golden_read(path, &n);
    struct err e = {0};
    cJSON *doc = NULL;
    assert_non_null(text);
    if (json_parse(&doc, (struct str){text, n}, &e))
        fail_msg("%s: %s", path, e.text);
    free(text);
    golden_run(doc, all_compile);
    json_free(doc);
}

#endif
