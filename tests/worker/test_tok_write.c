#define _GNU_SOURCE
/* Goal: the tokenizer.json that is written of a GGUF's vocabulary gives the ids that the vocabulary gives.
 * Method: real vocabularies (fetched into the cache) and their test texts, and random ones: the text is read back by our own
 *         reader of tokenizer.json, which has goldens of its own. With a folder as second argument the files and ids are left
 *         there, for tests/golden/tok/check_written.py to ask the real library. First argument: seed. */
#include "cache_path.h"
#include "bundle_vocab.h"
#include "mem.h"
#include "tok_write.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <cmocka.h>

enum { IDS_MAX = 1 << 16, RANDOM_TEXTS = 300 };

static uint64_t seed;
static const char *keep;
static char folder[512];

static uint32_t next_random(uint32_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % below;
}

static struct str read_all(const char *path, struct buf *out)
{
    FILE *f = fopen(path, "rb");
    char chunk[4096];
    for (size_t n; f && (n = fread(chunk, 1, sizeof chunk, f)) > 0;)
        buf_put(out, chunk, n);
    if (f)
        fclose(f);
    return buf_str(out);
}

static void keep_case(FILE *f, struct str text, const tok_t *ids, size_t n)
{
    struct buf line = {0};
    buf_put_json(&line, text);
    fprintf(f, "[%s,[", line.p);
    for (size_t i = 0; i < n; i++)
        fprintf(f, "%s%d", i ? "," : "", ids[i]);
    fprintf(f, "]]\n");
    buf_fini(&line);
}

static void compare(const struct tok *a, const struct tok *b, struct str text, FILE *kept)
{
    static tok_t x[IDS_MAX], y[IDS_MAX];
    for (unsigned flags = 0; flags < 4; flags++) {
        size_t n = 0, m = 0;
        assert_int_equal(tok_encode(a, text, flags, x, IDS_MAX, &n), ST_OK);
        assert_int_equal(tok_encode(b, text, flags, y, IDS_MAX, &m), ST_OK);
        if (n != m || memcmp(x, y, n * sizeof *x) != 0)
            fail_msg("flags %u, %zu and %zu ids: %.*s", flags, n, m, (int)text.n, text.p);
        if (kept && flags == TOK_PARSE_SPECIAL)
            keep_case(kept, text, x, n);
    }
}

/* Words, digits, spaces, code points of all lengths, and names of special tokens. */
static struct str random_text(struct buf *b, const struct tok_spec *s)
{
    static const char *const parts[] = {" ",
                                        "  ",
                                        "\n",
                                        "\t",
                                        "'s",
                                        "Hello",
                                        "wOrld",
                                        "12345",
                                        "7",
                                        "\xc3\xa4\xc3\xb6",
                                        "\xe6\x97\xa5\xe6\x9c\xac",
                                        "\xf0\x9f\x99\x82",
                                        "...",
                                        "==>",
                                        "\xd0\x9f\xd1\x80",
                                        "\xe0\xa4\xa8",
                                        "\r\n",
                                        "_",
                                        "<|",
                                        "|>",
                                        "\xc2\xa0"};
    buf_reset(b);
    for (uint32_t n = 1 + next_random(20); n > 0; n--) {
        uint32_t kind = next_random(8);
        if (kind == 0) {
            char utf8[4];
            uint32_t cp = 1 + next_random(0x2ffff);
            if (cp < 0xd800 || cp > 0xdfff)
                buf_put(b, utf8, (size_t)utf8_encode(cp, utf8));
        } else if (kind == 1) {
            struct str name = s->tokens[next_random((uint32_t)s->n_tokens)];
            if (name.n < 100 && utf8_valid(name))
                buf_put(b, name.p, name.n);
        } else {
            buf_puts(b, parts[next_random(sizeof parts / sizeof *parts)]);
        }
    }
    return buf_str(b);
}

static void compare_all(const char *name, const struct tok_spec *s, const struct tok *a, const struct tok *b,
                        FILE *kept)
{
    char path[1024];
    struct buf cases = {0}, text = {0};
    snprintf(path, sizeof path, "%s/corpus/models/ggml-vocab-%s.gguf.inp", folder, name);
    struct str rest = read_all(path, &cases);
    static const char mark[] = "\n__ggml_vocab_test__\n";
    for (const char *end; rest.n; rest = (struct str){end, (size_t)(rest.p + rest.n - end)}) {
        const char *at = memmem(rest.p, rest.n, mark, sizeof mark - 1);
        end = at ? at + sizeof mark - 1 : rest.p + rest.n;
        compare(a, b, (struct str){rest.p, (size_t)((at ? at : end) - rest.p)}, kept);
    }
    for (int i = 0; i < RANDOM_TEXTS; i++)
        compare(a, b, random_text(&text, s), kept);
    buf_fini(&cases);
    buf_fini(&text);
}

static FILE *keep_file(const char *name, const char *suffix)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s.%s", keep, name, suffix);
    return fopen(path, "w");
}

static bool check_vocab(const char *name)
{
    char path[1024];
    struct gguf *g = NULL;
    struct err e = {0};
    snprintf(path, sizeof path, strchr(name, '/') ? "%s/%s" : "%s/corpus/models/ggml-vocab-%s.gguf", folder,
             name);
    if (gguf_open(&g, path, &e))
        return false;
    struct bundle_vocab v;
    struct buf json = {0};
    struct tok *a = NULL, *b = NULL;
    assert_int_equal(bundle_vocab_open(&v, g, &e), ST_OK);
    if (tok_write_json(&json, &v.spec, &e) || tok_create_spec(&a, &v.spec, &e) ||
        tok_create_json(&b, buf_str(&json), (struct str){0}, &e))
        fail_msg("%s: %s", name, e.text);
    const char *base = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
    FILE *kept = keep ? keep_file(base, "ids") : NULL, *written = keep ? keep_file(base, "json") : NULL;
    if (written) {
        fwrite(json.p, 1, json.n, written);
        fclose(written);
    }
    compare_all(name, &v.spec, a, b, kept);
    if (kept)
        fclose(kept);
    tok_destroy(a);
    tok_destroy(b);
    buf_fini(&json);
    bundle_vocab_close(&v);
    gguf_close(g);
    assert_int_equal(mem_live(), 0);
    return true;
}

static void written_tokenizers_give_the_same_ids(void **state)
{
    (void)state;
    static const char *const names[] = {"models/SmolLM2-135M-Instruct.Q4_1.gguf",
                                        "llama-spm",
                                        "llama-bpe",
                                        "phi-3",
                                        "qwen2",
                                        "gpt-2",
                                        "starcoder",
                                        "refact",
                                        "deepseek-coder",
                                        "deepseek-llm",
                                        "falcon",
                                        "command-r",
                                        "mpt"};
    uint32_t found = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        found += check_vocab(names[i]);
    print_message("%u vocabularies\n", found);
    if (found == 0)
        skip();
}

/* Without files: the forms that real vocabularies do not have. */
static void what_cannot_be_written_is_refused(void **state)
{
    (void)state;
    const struct str tokens[] = {STR_LIT("<unk>"), STR_LIT("ab"), STR_LIT("a")};
    const int32_t types[] = {TOK_UNKNOWN, TOK_NORMAL, TOK_NORMAL};
    struct tok_spec s = {
        .kind = TOK_BPE_SPM, .n_tokens = 3, .tokens = tokens, .types = types, .bos = -1, .eos = -1, .unk = 0};
    struct buf out = {0};
    struct err e = {0};
    assert_int_equal(tok_write_json(&out, &s, &e), ST_EUNSUP);
    assert_non_null(strstr(e.text, "token 1"));
    s = (struct tok_spec){
        .n_tokens = 1, .tokens = tokens, .pre = STR_LIT("gemma4"), .bos = -1, .eos = -1, .unk = -1};
    assert_int_equal(tok_write_json(&out, &s, &e), ST_EUNSUP);
    assert_non_null(strstr(e.text, "gemma4"));
    buf_fini(&out);
    assert_int_equal(mem_live(), 0);
}

int main(int argc, char **argv)
{
    cache_path(folder, sizeof folder, "");
    seed = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)time(NULL);
    keep = argc > 2 ? argv[2] : NULL;
    print_message("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_tokenizers_give_the_same_ids),
        cmocka_unit_test(what_cannot_be_written_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
