/* The rules of tok.h on small vocabularies: what is refused, what fails cleanly, what invalid bytes become. */
#define _GNU_SOURCE
#include "mem.h"
#include "tok.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define GOLDEN STATOR_SOURCE_DIR "/tests/golden/tok/"

static char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *p = malloc(*n + 1);
    assert_int_equal(fread(p, 1, *n, f), *n);
    p[*n] = 0;
    fclose(f);
    return p;
}

static struct tok *golden(const char *name, const char *config)
{
    char path[1024];
    size_t n;
    struct err e = {0};
    struct tok *t = NULL;
    snprintf(path, sizeof path, "%s%s", GOLDEN, name);
    char *json = slurp(path, &n);
    int st = tok_create_json(&t, (struct str){json, n}, str_from(config), &e);
    if (st)
        print_message("%s\n", e.text);
    assert_int_equal(st, ST_OK);
    free(json);
    return t;
}

static size_t encode(const struct tok *t, struct str s, unsigned flags, tok_t *ids, size_t cap)
{
    size_t n = 0;
    assert_int_equal(tok_encode(t, s, flags, ids, cap, &n), ST_OK);
    return n;
}

static void expect_text(const struct tok *t, const tok_t *ids, size_t n, const char *want)
{
    struct buf b = {0};
    assert_int_equal(tok_decode(t, ids, n, false, &b), ST_OK);
    assert_int_equal(b.n, strlen(want));
    if (b.n)
        assert_memory_equal(b.p, want, b.n);
    buf_fini(&b);
}

static void names_and_roles_are_found(void **state)
{
    (void)state;
    struct tok *t = golden("smollm.json",
                           "{\"bos_token\": \"<|im_start|>\", \"eos_token\": {\"content\": \"<|im_end|>\"}}");
    tok_t out[8];
    assert_int_equal(tok_vocab_size(t), 906);
    assert_int_equal(tok_bos(t), tok_find(t, STR_LIT("<|im_start|>")));
    assert_int_equal(tok_eos(t), tok_find(t, STR_LIT("<|im_end|>")));
    assert_true(tok_eos(t) > 0);
    assert_true(tok_is_special(t, tok_eos(t)));
    assert_false(tok_is_special(t, tok_find(t, STR_LIT("<tool_call>"))));
    assert_false(tok_is_special(t, -1));
    assert_false(tok_is_special(t, 906));
    assert_int_equal(tok_find(t, STR_LIT("no such token")), -1);
    assert_int_equal(tok_find(t, STR_LIT("")), -1);
    assert_int_equal(tok_eog(t, out, 8), 2); /* eos, and <|endoftext|> by name */
    assert_int_equal(out[0], tok_eos(t));
    assert_int_equal(out[1], tok_find(t, STR_LIT("<|endoftext|>")));
    assert_int_equal(tok_eog(t, out, 1), 1);
    assert_int_equal(tok_bytes(t, tok_eos(t), false).n, 0);
    assert_true(str_eqz(tok_bytes(t, tok_eos(t), true), "<|im_end|>"));
    assert_int_equal(tok_bytes(t, 100000, true).n, 0);
    tok_destroy(t);
    tok_destroy(NULL);
}

static void special_tokens_need_permission(void **state)
{
    (void)state;
    struct tok *t = golden("smollm.json", "");
    tok_t ids[64];
    struct str s = STR_LIT("<|im_end|>");
    assert_int_equal(encode(t, s, TOK_PARSE_SPECIAL, ids, 64), 1);
    assert_int_equal(ids[0], tok_find(t, s));
    size_t n = encode(t, s, 0, ids, 64);
    assert_true(n > 1);
    for (size_t i = 0; i < n; i++)
        assert_false(tok_is_special(t, ids[i]));
    expect_text(t, ids, n, "<|im_end|>");
    s = STR_LIT("<tool_call>"); /* user-defined: always one token */
    assert_int_equal(encode(t, s, 0, ids, 64), 1);
    tok_destroy(t);
}

static void bos_comes_from_the_template_or_from_the_config(void **state)
{
    (void)state;
    tok_t ids[16];
    struct tok *t = golden("llama3.json", "");
    assert_int_equal(tok_bos(t), tok_find(t, STR_LIT("<|begin_of_text|>")));
    assert_int_equal(encode(t, STR_LIT(""), TOK_ADD_SPECIAL, ids, 16), 1);
    assert_int_equal(ids[0], tok_bos(t));
    assert_int_equal(encode(t, STR_LIT(""), 0, ids, 16), 0);
    tok_destroy(t);
    t = golden("gpt2.json",
               "{\"bos_token\": \"<|im_start|>\", \"add_bos_token\": true, \"add_eos_token\": false}");
    assert_int_equal(encode(t, STR_LIT(""), TOK_ADD_SPECIAL, ids, 16), 1);
    assert_int_equal(ids[0], tok_bos(t));
    tok_destroy(t);
}

static void too_little_room_is_pressure(void **state)
{
    (void)state;
    struct tok *t = golden("gpt2.json", "");
    struct str s = STR_LIT("The river had been rising since Tuesday.");
    tok_t ids[64];
    size_t n = encode(t, s, 0, ids, 64), m = 7;
    for (size_t cap = 0; cap < n; cap++) {
        assert_int_equal(tok_encode(t, s, 0, ids, cap, &m), ST_NOSPACE);
        assert_int_equal(m, 0);
    }
    assert_int_equal(tok_encode(t, s, 0, ids, n, &m), ST_OK);
    assert_int_equal(m, n);
    tok_destroy(t);
}

static void invalid_bytes_are_encoded_byte_by_byte(void **state)
{
    (void)state;
    static const char *const names[] = {"gpt2.json", "llama3.json", "qwen2.json", "llama2.json",
                                        "mistral.json"};
    struct str s = STR_LIT("ab\xFF\xC3(\xE2\x82 x\xF0\x9F\x98\xED\xA0\x80z\xC3");
    tok_t ids[128];
    for (size_t i = 0; i < 5; i++) {
        struct tok *t = golden(names[i], "");
        struct buf b = {0};
        size_t n = encode(t, s, 0, ids, 128);
        for (size_t k = 0; k < n; k++) {
            struct str w = tok_bytes(t, ids[k], true);
            buf_put(&b, w.p, w.n);
        }
        size_t skip = i >= 3; /* the SentencePiece ones put a space first */
        assert_int_equal(b.n, s.n + skip);
        assert_memory_equal(b.p + skip, s.p, s.n);
        buf_fini(&b);
        tok_destroy(t);
    }
}

static void the_stream_holds_half_characters(void **state)
{
    (void)state;
    struct tok *t = golden("gpt2.json", "");
    struct tok_stream s;
    struct buf out = {0};
    tok_t ids[16];
    size_t n = encode(t, STR_LIT("\xF0\x9F\xA6\x99!"), 0, ids, 16);
    assert_int_equal(n, 5);
    tok_stream_init(&s, false);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(tok_stream_push(&s, t, ids[i], &out), ST_OK);
        assert_int_equal(out.n, 0);
    }
    tok_stream_push(&s, t, ids[3], &out);
    assert_true(str_eqz(buf_str(&out), "\xF0\x9F\xA6\x99"));
    tok_stream_push(&s, t, ids[0], &out); /* begun and never finished */
    tok_stream_push(&s, t, ids[4], &out);
    assert_true(str_eqz(buf_str(&out), "\xF0\x9F\xA6\x99\xEF\xBF\xBD!"));
    tok_stream_push(&s, t, ids[0], &out);
    tok_stream_flush(&s, &out);
    tok_stream_flush(&s, &out);
    assert_true(str_eqz(buf_str(&out), "\xF0\x9F\xA6\x99\xEF\xBF\xBD!\xEF\xBF\xBD"));
    buf_fini(&out);
    tok_destroy(t);
}

static void allocation_failures_leave_nothing_behind(void **state)
{
    (void)state;
    static const char *const names[] = {"mixed.json", "llama2.json", "llama3.json", "qwen2.json"};
    for (size_t i = 0; i < 4; i++) {
        char path[1024];
        size_t size;
        snprintf(path, sizeof path, "%s%s", GOLDEN, names[i]);
        char *json = slurp(path, &size);
        uint64_t live = mem_live();
        uint64_t n = 1;
        for (int st = ST_ENOMEM; st; n++) {
            struct tok *t = NULL;
            struct err e = {0};
            mem_fail_after(n);
            st = tok_create_json(&t, (struct str){json, size}, STR_LIT("{\"bos_token\": \"<s>\"}"), &e);
            mem_fail_after(0);
            if (st)
                assert_non_null(strchr(e.text, ':'));
            tok_destroy(t);
            assert_int_equal(mem_live(), live);
            assert_true(n < 100000);
        }
        print_message("%s: %llu allocations to create\n", names[i], (unsigned long long)n - 2);
        free(json);
        struct tok *t = golden(names[i], "");
        live = mem_live();
        struct str s = STR_LIT("e\xCC\x81 a  (b), 12 \xFF word 3 =+ "
                               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
        tok_t ids[256], want[256];
        size_t m = 0, want_n = encode(t, s, 0, want, 256);
        n = 1;
        for (int st = ST_ENOMEM; st; n++) {
            mem_fail_after(n);
            st = tok_encode(t, s, 0, ids, 256, &m);
            mem_fail_after(0);
            assert_true(st == ST_OK || st == ST_ENOMEM);
            assert_int_equal(mem_live(), live);
        }
        assert_int_equal(m, want_n);
        assert_memory_equal(ids, want, m * sizeof *ids);
        tok_destroy(t);
    }
}

#define V "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2}"
static const struct {
    int status;
    const char *json, *names;
} malformed[] = {
    {ST_EFORMAT, "", "JSON: the text is empty"},
    {ST_EFORMAT, "[]", "model.vocab"},
    {ST_EFORMAT, "{\"model\":{\"merges\":[]}}", "model.vocab"},
    {ST_EFORMAT, "{\"model\":{\"vocab\":{},\"merges\":[]}}", "model.vocab"},
    {ST_EFORMAT, "{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "model.vocab"},
    {ST_EFORMAT, "{\"model\":{\"vocab\":{\"a\":1.5},\"merges\":[]}}", "model.vocab"},
    {ST_EFORMAT, "{\"model\":{\"vocab\":{\"a\":1e300},\"merges\":[]}}", "model.vocab"},
    {ST_EFORMAT, "{\"model\":{\"vocab\":{\"a\":2000000},\"merges\":[]}}", "model.vocab"},
    {ST_EFORMAT, "{\"model\":{\"vocab\":{\"a\":\"0\"},\"merges\":[]}}", "model.vocab"},
    {ST_EFORMAT, "{\"model\":{" V "}}", "model.merges"},
    {ST_EFORMAT, "{\"model\":{" V ",\"merges\":[\"ab\"]}}", "model.merges[0]"},
    {ST_EFORMAT, "{\"model\":{" V ",\"merges\":[\"a b\",\"a c\"]}}", "model.merges[1]"},
    {ST_EFORMAT, "{\"model\":{" V ",\"merges\":[[\"a\"]]}}", "model.merges[0]"},
    {ST_EFORMAT, "{\"model\":{" V ",\"merges\":[[\"a\",\"b\",\"c\"]]}}", "model.merges[0]"},
    {ST_EFORMAT, "{\"model\":{" V ",\"merges\":[3]}}", "model.merges[0]"},
    {ST_EUNSUP, "{\"model\":{\"type\":\"Unigram\"," V ",\"merges\":[]}}", "model.type"},
    {ST_EUNSUP, "{\"model\":{\"dropout\":0.1," V ",\"merges\":[]}}", "model.dropout"},
    {ST_EUNSUP, "{\"model\":{\"end_of_word_suffix\":\"</w>\"," V ",\"merges\":[]}}", "end_of_word_suffix"},
    {ST_EFORMAT, "{\"added_tokens\":[{\"id\":3}],\"model\":{" V ",\"merges\":[]}}", "added_tokens"},
    {ST_EUNSUP, "{\"normalizer\":{\"type\":\"NFKD\"},\"model\":{" V ",\"merges\":[]}}", "normalizer"},
    {ST_EFORMAT, "{\"normalizer\":{\"type\":\"Prepend\"},\"model\":{" V ",\"merges\":[]}}",
     "normalizer.prepend"},
    {ST_EFORMAT, "{\"normalizer\":7,\"model\":{" V ",\"merges\":[]}}", "normalizer.type"},
    {ST_EFORMAT,
     "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"},"
     "\"model\":{" V ",\"merges\":[]}}",
     "pattern"},
    {ST_EUNSUP,
     "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a&&b]\"},\"behavior\":"
     "\"Isolated\"},\"model\":{" V ",\"merges\":[]}}",
     "pattern"},
    {ST_EFORMAT,
     "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Both\"},"
     "\"model\":{" V ",\"merges\":[]}}",
     "behavior"},
    {ST_EUNSUP, "{\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"},\"model\":{" V ",\"merges\":[]}}",
     "UnicodeScripts"},
    {ST_EFORMAT,
     "{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}}]"
     "},\"model\":{" V ",\"merges\":[]}}",
     "post_processor"},
    {ST_EFORMAT,
     "{\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\",9],\"sep\":[\"b\",1]},\"model\":{" V
     ",\"merges\":[]}}",
     "post_processor"},
    {ST_EUNSUP, "{\"decoder\":{\"type\":\"WordPiece\"},\"model\":{" V ",\"merges\":[]}}", "decoder"},
};

static void malformed_files_are_refused_by_field(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof malformed / sizeof *malformed; i++) {
        struct tok *t = NULL;
        struct err e = {0};
        int st = tok_create_json(&t, str_from(malformed[i].json), (struct str){0}, &e);
        if (st != malformed[i].status || !strstr(e.text, malformed[i].names))
            print_message("case %zu: status %d, \"%s\"\n", i, st, e.text);
        assert_int_equal(st, malformed[i].status);
        assert_non_null(strstr(e.text, malformed[i].names));
        assert_null(t);
        assert_int_equal(tok_create_json(&t, str_from(malformed[i].json), (struct str){0}, NULL),
                         malformed[i].status);
    }
    struct tok *t = NULL;
    struct err e = {0};
    const char *good = "{\"model\":{" V ",\"merges\":[\"a b\"]}}";
    assert_int_equal(tok_create_json(&t, str_from(good), STR_LIT("{\"add_bos_token\": 3}"), &e), ST_EFORMAT);
    assert_non_null(strstr(e.text, "tokenizer_config.json"));
    assert_int_equal(tok_create_json(&t, str_from(good), (struct str){0}, &e), ST_OK);
    tok_destroy(t);
    assert_int_equal(mem_live(), 0);
}

static void lying_specs_are_refused(void **state)
{
    (void)state;
    const struct str tokens[3] = {STR_LIT("a"), STR_LIT("b"), STR_LIT("ab")};
    const struct str merges[2] = {STR_LIT("a b"), STR_LIT("ab")};
    const float scores[3] = {0, -1, NAN};
    struct tok_spec s = {
        .n_tokens = 3, .tokens = tokens, .n_merges = 1, .merges = merges, .bos = -1, .eos = -1, .unk = -1};
    struct tok *t = NULL;
    struct err e = {0};
    tok_t ids[4];
    assert_int_equal(tok_create_spec(&t, &s, &e), ST_OK);
    assert_int_equal(encode(t, STR_LIT("abc"), 0, ids, 4), 1); /* c is in no token */
    assert_int_equal(ids[0], 2);
    tok_destroy(t);
    s.n_merges = 2;
    assert_int_equal(tok_create_spec(&t, &s, &e), ST_EFORMAT);
    assert_non_null(strstr(e.text, "merges[1]"));
    s.n_merges = 1;
    s.eos = 3;
    assert_int_equal(tok_create_spec(&t, &s, &e), ST_EFORMAT);
    assert_non_null(strstr(e.text, "eos"));
    s.eos = -1;
    s.kind = TOK_BPE_SPM;
    s.scores = scores;
    assert_int_equal(tok_create_spec(&t, &s, &e), ST_EFORMAT);
    assert_non_null(strstr(e.text, "scores[2]"));
    s.n_tokens = 0;
    assert_int_equal(tok_create_spec(&t, &s, &e), ST_EFORMAT);
    assert_int_equal(mem_live(), 0);
}

static void characters_without_a_token_still_merge(void **state)
{
    (void)state;
    /* "é" is no token, "éa" is: the pair must be found, and a lone "é" falls back to bytes */
    const struct str tokens[6] = {STR_LIT("<unk>"),
                                  STR_LIT("a"),
                                  STR_LIT("\xC3\xA9"
                                          "a"),
                                  STR_LIT("<0xC3>"),
                                  STR_LIT("<0xA9>"),
                                  STR_LIT("b")};
    const int32_t types[6] = {TOK_UNKNOWN, TOK_NORMAL, TOK_NORMAL, TOK_BYTE, TOK_BYTE, TOK_NORMAL};
    struct tok_spec s = {
        .kind = TOK_BPE_SPM, .n_tokens = 6, .tokens = tokens, .types = types, .bos = -1, .eos = -1, .unk = 0};
    struct tok *t = NULL;
    tok_t ids[8];
    assert_int_equal(tok_create_spec(&t, &s, NULL), ST_OK);
    assert_int_equal(tok_vocab_size(t), 6);
    assert_int_equal(tok_find(t, STR_LIT("\xC3\xA9")), -1);
    assert_int_equal(encode(t,
                            STR_LIT("b\xC3\xA9"
                                    "a\xC3\xA9z"),
                            0, ids, 8),
                     5);
    const tok_t want[5] = {5, 2, 3, 4, 0};
    assert_memory_equal(ids, want, sizeof want);
    tok_destroy(t);
}

struct shared {
    const struct tok *t;
    int bad;
};

/* Other texts in each round, so that the threads are at different places of the tables. */
static void *encode_many(void *arg)
{
    struct shared *s = arg;
    for (int i = 0; i < 500; i++) {
        struct buf text = {0}, back = {0};
        tok_t ids[256];
        size_t n = 0;
        buf_printf(&text, "The %d quick\n brown <tool_call> foxes\xE2\x80\xA6 jump%*s over it", i, 1 + i % 17, "");
        if (tok_encode(s->t, buf_str(&text), 0, ids, 256, &n) || tok_decode(s->t, ids, n, true, &back) ||
            !str_eq(buf_str(&text), buf_str(&back)))
            s->bad++;
        buf_fini(&text);
        buf_fini(&back);
    }
    return NULL;
}

static void one_tokenizer_serves_many_threads(void **state)
{
    (void)state;
    struct tok *t = golden("smollm.json", "");
    struct shared s[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        s[i] = (struct shared){.t = t};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_many, &s[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(s[i].bad, 0);
    }
    tok_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_roles_are_found),
        cmocka_unit_test(special_tokens_need_permission),
        cmocka_unit_test(bos_comes_from_the_template_or_from_the_config),
        cmocka_unit_test(too_little_room_is_pressure),
        cmocka_unit_test(invalid_bytes_are_encoded_byte_by_byte),
        cmocka_unit_test(the_stream_holds_half_characters),
        cmocka_unit_test(allocation_failures_leave_nothing_behind),
        cmocka_unit_test(malformed_files_are_refused_by_field),
        cmocka_unit_test(lying_specs_are_refused),
        cmocka_unit_test(one_tokenizer_serves_many_threads),
        cmocka_unit_test(characters_without_a_token_still_merge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
