/* Real vocabularies against their own test vectors. The vocabularies are data that is fetched, not
 * committed: flat files in <cache>/tok, which tests/golden/tok/prepare.sh makes from the package that ./test
 * fetches. */
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
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

struct vocab {
    char *data;
    size_t size, at;
    struct tok_spec spec;
    uint32_t n_cases;
    size_t cases_at;
};

static char folder[512];

static uint32_t u32(struct vocab *v)
{
    uint32_t x = 0;
    assert_true(v->size - v->at >= 4);
    memcpy(&x, v->data + v->at, 4);
    v->at += 4;
    return x;
}

static struct str text(struct vocab *v)
{
    uint32_t n = u32(v);
    assert_true(v->size - v->at >= n);
    v->at += n;
    return (struct str){v->data + v->at - n, n};
}

static struct str *texts(struct vocab *v, size_t *n_out)
{
    size_t n = *n_out = u32(v);
    struct str *s = calloc(n + 1, sizeof *s);
    for (size_t i = 0; i < n; i++)
        s[i] = text(v);
    return s;
}

static void *numbers(struct vocab *v, size_t n)
{
    char *p = malloc(n * 4 + 1);
    assert_true(v->size - v->at >= n * 4);
    memcpy(p, v->data + v->at, n * 4);
    v->at += n * 4;
    return p;
}

static bool vocab_read(struct vocab *v, const char *name)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/tok/%s", folder, name);
    FILE *f = fopen(path, "rb");
    *v = (struct vocab){0};
    if (!f)
        return false;
    fseek(f, 0, SEEK_END);
    v->size = (size_t)ftell(f);
    rewind(f);
    v->data = malloc(v->size + 1);
    assert_int_equal(fread(v->data, 1, v->size, f), v->size);
    fclose(f);
    assert_memory_equal(v->data, "TOKV0001", 8);
    v->at = 8;
    v->spec.kind = u32(v) ? TOK_BPE_SPM : TOK_BPE_BYTES;
    v->spec.bos = (int32_t)u32(v);
    v->spec.eos = (int32_t)u32(v);
    v->spec.unk = (int32_t)u32(v);
    uint32_t flags = u32(v);
    v->spec.add_bos = flags & 1;
    v->spec.add_eos = flags & 2;
    v->spec.add_space_prefix = flags & 4;
    v->spec.pre = text(v);
    v->spec.tokens = texts(v, &v->spec.n_tokens);
    v->spec.scores = numbers(v, v->spec.n_tokens);
    v->spec.types = numbers(v, v->spec.n_tokens);
    v->spec.merges = texts(v, &v->spec.n_merges);
    v->n_cases = u32(v);
    v->cases_at = v->at;
    return true;
}

static void vocab_free(struct vocab *v)
{
    free((void *)v->spec.tokens);
    free((void *)v->spec.scores);
    free((void *)v->spec.types);
    free((void *)v->spec.merges);
    free(v->data);
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static struct tok *vocab_tok(const struct vocab *v, const char *name)
{
    struct err e = {0};
    struct tok *t = NULL;
    double from = now_ms();
    int st = tok_create_spec(&t, &v->spec, &e);
    if (st)
        print_message("%s: %s\n", name, e.text);
    assert_int_equal(st, ST_OK);
    print_message("%s: %zu tokens loaded in %.1f ms\n", name, v->spec.n_tokens, now_ms() - from);
    return t;
}

static void print_ids(const char *what, const tok_t *ids, size_t n)
{
    print_message("  %s:", what);
    for (size_t i = 0; i < n; i++)
        print_message(" %d", ids[i]);
    print_message("\n");
}

/* Returns how many cases differ. */
static int check_cases(struct vocab *v, const struct tok *t, const char *name)
{
    int bad = 0;
    v->at = v->cases_at;
    for (uint32_t i = 0; i < v->n_cases; i++) {
        struct str s = text(v);
        size_t want_n = u32(v), n = 0;
        tok_t *want = numbers(v, want_n), ids[4096];
        int st = tok_encode(t, s, 0, ids, 4096, &n);
        bool same = st == ST_OK && n == want_n && memcmp(ids, want, n * sizeof *ids) == 0;
        if (!same) {
            print_message("%s: case %u differs: \"%.*s\"\n", name, i, (int)s.n, s.p);
            print_ids("want", want, want_n);
            print_ids("got ", ids, n);
            bad++;
        }
        struct buf b = {0};
        assert_int_equal(tok_decode(t, ids, n, false, &b), ST_OK);
        bool stripped = v->spec.add_space_prefix;
        if (!str_eq(buf_str(&b), s) && !stripped) {
            print_message("%s: case %u decodes to \"%.*s\"\n", name, i, (int)b.n, b.p);
            bad++;
        }
        buf_fini(&b);
        free(want);
    }
    return bad;
}

static void every_vocabulary_encodes_as_its_vectors_say(void **state)
{
    (void)state;
    char path[600];
    snprintf(path, sizeof path, "%s/tok", folder);
    DIR *d = opendir(path);
    int files = 0, cases = 0, bad = 0;
    assert_non_null(d);
    for (struct dirent *f; (f = readdir(d));) {
        struct vocab v;
        if (!strstr(f->d_name, ".tokv") || !vocab_read(&v, f->d_name))
            continue;
        struct tok *t = vocab_tok(&v, f->d_name);
        bad += check_cases(&v, t, f->d_name);
        cases += (int)v.n_cases;
        files++;
        tok_destroy(t);
        vocab_free(&v);
    }
    closedir(d);
    print_message("%d vocabularies, %d vectors\n", files, cases);
    assert_int_equal(bad, 0);
    assert_true(files > 0);
    assert_int_equal(mem_live(), 0);
}

static uint64_t next_random(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* Streaming any ids gives what decoding them at once gives; and always valid UTF-8 on the way. */
static void check_stream(const struct tok *t, uint64_t seed, bool bytes_exact)
{
    uint64_t s = seed;
    tok_t ids[64];
    for (int round = 0; round < 300; round++) {
        size_t n = next_random(&s) % 64;
        for (size_t i = 0; i < n; i++)
            ids[i] = (tok_t)(next_random(&s) % (round % 3 ? tok_vocab_size(t) : 300));
        struct buf whole = {0}, parts = {0};
        struct tok_stream st;
        bool show = round & 1;
        assert_int_equal(tok_decode(t, ids, n, show, &whole), ST_OK);
        tok_stream_init(&st, show);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(tok_stream_push(&st, t, ids[i], &parts), ST_OK);
            assert_true(utf8_valid(buf_str(&parts)));
        }
        assert_int_equal(tok_stream_flush(&st, &parts), ST_OK);
        bool replaced = !bytes_exact && whole.n && memmem(whole.p, whole.n, "\xEF\xBF\xBD", 3);
        if (!replaced)
            assert_true(str_eq(buf_str(&whole), buf_str(&parts)));
        buf_fini(&whole);
        buf_fini(&parts);
    }
}

static void streaming_equals_whole_decode(void **state)
{
    (void)state;
    static const char *const names[] = {"gpt-2.tokv", "llama-spm.tokv", "qwen2.tokv"};
    uint64_t seed = (uint64_t)time(NULL) | 1;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (size_t i = 0; i < 3; i++) {
        struct vocab v;
        if (!vocab_read(&v, names[i]))
            continue;
        struct tok *t = vocab_tok(&v, names[i]);
        check_stream(t, seed, v.spec.kind == TOK_BPE_BYTES);
        tok_destroy(t);
        vocab_free(&v);
    }
}

static size_t encode_timed(const struct tok *t, struct str s, const char *what)
{
    tok_t *ids = malloc((s.n + 16) * sizeof *ids);
    size_t n = 0;
    double from = now_ms();
    assert_int_equal(tok_encode(t, s, TOK_PARSE_SPECIAL, ids, s.n + 16, &n), ST_OK);
    double ms = now_ms() - from;
    print_message("  %-24s %8zu bytes %8zu ids %8.1f ms %6.1f MB/s\n", what, s.n, n, ms,
                  (double)s.n / ms / 1e3);
    free(ids);
    return n;
}

/* No wall-clock assertion: a quadratic merge would take hours here and run into the test's own time limit. */
static void hostile_texts_of_a_megabyte_are_encoded(void **state)
{
    (void)state;
    static const char *const names[] = {"gpt-2.tokv", "llama-bpe.tokv", "llama-spm.tokv",
                                        "deepseek-llm.tokv"};
    enum { N = 1 << 20 };
    static const char english[] =
        "The quick brown fox jumps over the lazy dog, and then it wrote 17 letters to "
        "its mother about the weather in Amsterdam. ";
    static const char *const fill[] = {"a",  " ", "<",  "\n",          "ab", "\xF0\x9F\x98\x80",
                                       "'s", "1", " a", "\xE2\x96\x81"};
    char *p = malloc(N);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct vocab v;
        if (!vocab_read(&v, names[i]))
            continue;
        struct tok *t = vocab_tok(&v, names[i]);
        for (size_t k = 0; k < N; k++)
            p[k] = english[k % (sizeof english - 1)];
        encode_timed(t, (struct str){p, N}, "English");
        for (size_t f = 0; f < sizeof fill / sizeof *fill; f++) {
            size_t len = strlen(fill[f]);
            for (size_t k = 0; k < N; k++)
                p[k] = fill[f][k % len];
            encode_timed(t, (struct str){p, N - N % len}, fill[f][0] == '\n' ? "newlines" : fill[f]);
        }
        memset(p, ' ', N);
        p[N - 1] = '1';
        encode_timed(t, (struct str){p, N}, "blanks and a digit");
        uint64_t seed = 88172645463325252u;
        for (size_t k = 0; k < N; k++)
            p[k] = (char)next_random(&seed);
        encode_timed(t, (struct str){p, N}, "random bytes");
        for (size_t k = 0; k < N; k++)
            p[k] = (char)('a' + next_random(&seed) % 26);
        encode_timed(t, (struct str){p, N}, "random letters");
        tok_destroy(t);
        vocab_free(&v);
    }
    free(p);
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

static bool find_data(void)
{
    char path[1024];
    struct stat sb;
    prepare(cache_path(folder, sizeof folder, ""));
    snprintf(path, sizeof path, "%s/tok/gpt-2.tokv", folder);
    return stat(path, &sb) == 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_vocabulary_encodes_as_its_vectors_say),
        cmocka_unit_test(streaming_equals_whole_decode),
        cmocka_unit_test(hostile_texts_of_a_megabyte_are_encoded),
    };
    if (!find_data()) {
        printf("skipped: no vocabularies in %s/tok and no llama_cpp_python-0.3.36.tar.gz in %s\n", folder,
               folder);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
