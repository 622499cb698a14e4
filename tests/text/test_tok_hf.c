/* Token ids and decoded text against the Hugging Face library's own, on golden files that
 * tests/golden/tok/make_goldens.py made with it. The committed set covers the rules with small vocabularies;
 * full-size ones are checked too when the script has put them into <cache>/tok/hf. */
#define _GNU_SOURCE
#include "cache_path.h"
#include "mem.h"
#include "tok.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

enum { TEXTS_MAX = 4096, IDS_MAX = 4096 };

static char *slurp(const char *dir, const char *name, size_t *n)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *p = malloc(*n + 1);
    assert_int_equal(fread(p, 1, *n, f), *n);
    p[*n] = 0;
    fclose(f);
    return p;
}

static int digit(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* In place. */
static struct str unhex(char *p)
{
    size_t n = strlen(p) / 2;
    for (size_t i = 0; i < n; i++)
        p[i] = (char)(digit(p[2 * i]) << 4 | digit(p[2 * i + 1]));
    return (struct str){p, n};
}

static size_t numbers(char *p, tok_t *out)
{
    size_t n = 0;
    for (char *end; *p; p = *end ? end + 1 : end) {
        assert_true(n < IDS_MAX);
        out[n++] = (tok_t)strtol(p, &end, 10);
        assert_true(end != p);
    }
    return n;
}

struct texts {
    char *data;
    struct str at[TEXTS_MAX];
    size_t n;
};

static void texts_read(struct texts *t, const char *dir)
{
    size_t n;
    t->n = 0;
    t->data = slurp(dir, "texts.hex", &n);
    assert_non_null(t->data);
    for (char *p = t->data, *end; (end = strchr(p, '\n')); p = end + 1) {
        *end = 0;
        assert_true(t->n < TEXTS_MAX);
        t->at[t->n++] = unhex(p);
    }
}

static void show(const char *what, const tok_t *ids, size_t n)
{
    print_message("  %s:", what);
    for (size_t i = 0; i < n; i++)
        print_message(" %d", ids[i]);
    print_message("\n");
}

static int check_ids(const struct tok *t, struct str s, unsigned flags, char *want_text)
{
    static tok_t want[IDS_MAX], got[IDS_MAX];
    size_t want_n = numbers(want_text, want), n = 0;
    int st = tok_encode(t, s, flags, got, IDS_MAX, &n);
    if (st == ST_OK && n == want_n && memcmp(got, want, n * sizeof *got) == 0)
        return 0;
    print_message("  text \"%.*s\" (flags %u, status %d)\n", (int)s.n, s.p, flags, st);
    show("want", want, want_n);
    show("got ", got, n);
    return 1;
}

static int check_text(const struct tok *t, const tok_t *ids, size_t n, bool special, struct str want)
{
    struct buf b = {0};
    assert_int_equal(tok_decode(t, ids, n, special, &b), ST_OK);
    int bad = !str_eq(buf_str(&b), want);
    if (bad)
        print_message("  decoded \"%.*s\" instead of \"%.*s\"\n", (int)b.n, b.p, (int)want.n, want.p);
    buf_fini(&b);
    return bad;
}

/* One line of a .vec file; see make_goldens.py. */
static int check_line(const struct tok *t, struct str s, char *line)
{
    static tok_t ids[IDS_MAX];
    char *f[4] = {line, NULL, NULL, NULL}, copy[1 << 16];
    for (int i = 1; i < 4; i++) {
        f[i] = strchr(f[i - 1], '|');
        assert_non_null(f[i]);
        *f[i]++ = 0;
    }
    assert_true(strlen(f[0]) < sizeof copy);
    strcpy(copy, f[0]);
    int bad = check_ids(t, s, TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, copy);
    strcpy(copy, f[1][0] == '=' ? f[0] : f[1]);
    bad += check_ids(t, s, TOK_ADD_SPECIAL, copy);
    size_t n = numbers(f[0], ids);
    struct str skip = f[2][0] == '=' ? s : unhex(f[2]);
    bad += check_text(t, ids, n, false, skip);
    if (f[3][0] != '-')
        bad += check_text(t, ids, n, true, f[3][0] == '=' ? skip : unhex(f[3]));
    return bad;
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static struct tok *load(const char *dir, const char *name)
{
    size_t n;
    char *json = slurp(dir, name, &n);
    struct tok *t = NULL;
    struct err e = {0};
    double from = now_ms();
    assert_non_null(json);
    int st = tok_create_json(&t, (struct str){json, n}, (struct str){0}, &e);
    if (st)
        print_message("%s: %s\n", name, e.text);
    assert_int_equal(st, ST_OK);
    print_message("%s: %u tokens in %.1f ms\n", name, tok_vocab_size(t), now_ms() - from);
    free(json);
    return t;
}

static int check_folder(const char *dir, int *files)
{
    static struct texts texts;
    DIR *d = opendir(dir);
    int bad = 0;
    if (!d)
        return 0;
    texts_read(&texts, dir);
    for (struct dirent *f; (f = readdir(d));) {
        char *dot = strstr(f->d_name, ".vec"), name[300];
        size_t n;
        if (!dot)
            continue;
        char *lines = slurp(dir, f->d_name, &n), *p = lines;
        snprintf(name, sizeof name, "%.*s.json", (int)(dot - f->d_name), f->d_name);
        struct tok *t = load(dir, name);
        int here = 0;
        for (size_t i = 0; i < texts.n; i++) {
            char *end = strchr(p, '\n');
            assert_non_null(end);
            *end = 0;
            here += check_line(t, texts.at[i], p);
            p = end + 1;
        }
        if (here)
            print_message("%s: %d differences\n", name, here);
        bad += here;
        ++*files;
        tok_destroy(t);
        free(lines);
    }
    closedir(d);
    print_message("%s: %zu texts, %d tokenizers so far\n", dir, texts.n, *files);
    free(texts.data);
    return bad;
}

static void ids_and_text_equal_the_library_s(void **state)
{
    (void)state;
    int files = 0;
    assert_int_equal(check_folder(STATOR_SOURCE_DIR "/tests/golden/tok", &files), 0);
    assert_true(files >= 9);
    assert_int_equal(mem_live(), 0);
}

/* Lets tests/golden/tok/prepare.sh turn what ./test fetched into what is read here; does nothing the second time. */
static void prepare(const char *cache)
{
    char *command = NULL;
    if (asprintf(&command, "sh '%s/tests/golden/tok/prepare.sh' '%s'", STATOR_SOURCE_DIR, cache) < 0)
        return;
    if (system(command) != 0)
        print_message("prepare.sh failed\n");
    free(command);
}

static void full_size_vocabularies_too_where_the_cache_has_them(void **state)
{
    (void)state;
    char root[512], dir[600];
    int files = 0;
    prepare(cache_path(root, sizeof root, ""));
    snprintf(dir, sizeof dir, "%s/tok/hf", root);
    assert_int_equal(check_folder(dir, &files), 0);
    if (files == 0) {
        print_message("no %s: skipped\n", dir);
        skip();
    }
    assert_int_equal(mem_live(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_and_text_equal_the_library_s),
        cmocka_unit_test(full_size_vocabularies_too_where_the_cache_has_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
