/* Goal: what stands beside the weights is found in every place where models keep it, and a bad file is refused by name.
 * Method: Hugging Face folders written into a temporary place; the default model from the cache when it is there. */
#define _GNU_SOURCE
#include "cache_path.h"
#include "put_file.h"
#include "bundle.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char folder[] = "/tmp/stator-bundle-XXXXXX";

static void put(const char *name, const char *text)
{
    put_file(folder, name, text);
}

static void put_tokenizer(void)
{
    char path[256], *text = NULL;
    size_t n = 0;
    FILE *f = fopen(STATOR_SOURCE_DIR "/tests/golden/tok/llama3.json", "r");
    assert_non_null(f);
    assert_true(getdelim(&text, &n, 0, f) > 0);
    fclose(f);
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    put("tokenizer.json", text);
    free(text);
}

static int set_up(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(folder));
    put_tokenizer();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    static const char *const files[] = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                                        "own.jinja"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        put(files[i], NULL);
    return rmdir(folder);
}

static void render(const struct bundle *b, const char *expected)
{
    cJSON *messages = NULL;
    struct err e = {0};
    struct buf out = {0};
    assert_int_equal(json_parse(&messages, STR_LIT("[{\"role\":\"user\",\"content\":\"hi\"}]"), &e), ST_OK);
    const struct chat_input in = {.messages = messages, .bos_token = str_from(b->bos)};
    assert_non_null(b->chat);
    assert_int_equal(chat_render(b->chat, &in, &out, &e), ST_OK);
    assert_string_equal(out.p, expected);
    json_free(messages);
    buf_fini(&out);
}

static void check(const char *template_path, const char *expected)
{
    struct bundle b;
    struct err e = {0};
    assert_int_equal(bundle_open(&b, folder, NULL, template_path, 0, &e), ST_OK);
    assert_string_equal(b.name, strrchr(folder, '/') + 1);
    if (expected)
        render(&b, expected);
    else
        assert_null(b.chat);
    bundle_close(&b);
}

static void the_template_is_found_where_models_keep_it(void **state)
{
    (void)state;
    check(NULL, NULL);
    put("tokenizer_config.json", "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"</s>\"}");
    check(NULL, NULL);
    put("tokenizer_config.json",
        "{\"bos_token\":\"<s>\",\"chat_template\":\"{{bos_token}}A {{messages[0].content}}\"}");
    check(NULL, "<s>A hi");
    put("tokenizer_config.json", "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"T\"},"
                                 "{\"name\":\"default\",\"template\":\"B {{messages[0].role}}\"}]}");
    check(NULL, "B user");
    put("chat_template.jinja", "C");
    check(NULL, "C");
    char own[256];
    snprintf(own, sizeof own, "%s/own.jinja", folder);
    put("own.jinja", "D");
    check(own, "D");
}

static void refuse(const char *template_path, const char *part)
{
    struct bundle b;
    struct err e = {0};
    assert_true(bundle_open(&b, folder, NULL, template_path, 0, &e) < 0);
    assert_non_null(strstr(e.text, part));
    assert_null(b.tok);
}

static void bad_files_are_refused_by_name(void **state)
{
    (void)state;
    put("chat_template.jinja", "{% for %}");
    refuse(NULL, ": chat template, line 1: ");
    put("chat_template.jinja", NULL);
    put("tokenizer_config.json", "{");
    refuse(NULL, "tokenizer_config.json: JSON: syntax error");
    put("tokenizer_config.json", NULL);
    refuse("/nonexistent.jinja", "--chat-template: /nonexistent.jinja: no such file");
    put("tokenizer.json", "{}");
    refuse(NULL, "tokenizer.json: ");
    put("tokenizer.json", NULL);
    refuse(NULL, "tokenizer.json: no such file");
    put_tokenizer();
}

static void a_failed_allocation_leaves_nothing(void **state)
{
    (void)state;
    put("chat_template.jinja", "{{ messages }}");
    uint64_t live = mem_live(), n = 0;
    int st;
    do {
        struct bundle b;
        mem_fail_after(++n);
        st = bundle_open(&b, folder, NULL, NULL, 0, NULL);
        mem_fail_after(0);
        if (!st)
            bundle_close(&b);
        assert_int_equal(mem_live(), live);
        n += n / 8;
    } while (st);
    put("chat_template.jinja", NULL);
}

static void the_default_model_has_all_parts(void **state)
{
    (void)state;
    char path[512];
    struct gguf *g;
    if (gguf_open(&g, cache_path(path, sizeof path, "models/SmolLM2-135M-Instruct.Q4_1.gguf"), NULL)) {
        print_message("the default model is not in the cache\n");
        skip();
    }
    struct bundle b;
    struct err e = {0};
    assert_int_equal(bundle_open(&b, path, g, NULL, 0, &e), ST_OK);
    gguf_close(g);
    assert_string_equal(b.name, "SmolLM2-135M-Instruct.Q4_1");
    assert_string_equal(b.bos, "<|im_start|>");
    assert_string_equal(b.eos, "<|im_end|>");
    assert_int_equal(tok_vocab_size(b.tok), 49152);
    assert_true(b.n_eog >= 1);
    render(
        &b,
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nhi<|im_end|>\n");
    bundle_close(&b);
}

static void dummy_tokens_are_bytes_then_numbers(void **state)
{
    (void)state;
    struct tok *t = NULL;
    struct err e = {0};
    tok_t ids[8];
    size_t n = 0;
    struct buf out = {0};
    assert_int_equal(bundle_byte_tok(&t, 1000, &e), ST_OK);
    assert_int_equal(tok_vocab_size(t), 1000);
    assert_int_equal(tok_encode(t, STR_LIT("a \n\xc3\xa9"), 0, ids, 8, &n), ST_OK);
    assert_int_equal(n, 5);
    assert_int_equal(ids[0], 'a');
    assert_int_equal(ids[1], ' ');
    assert_int_equal(ids[2], '\n');
    assert_int_equal(ids[3], 0xc3);
    ids[5] = 256;
    ids[6] = 999;
    assert_int_equal(tok_decode(t, ids, 7, false, &out), ST_OK);
    buf_put(&out, "", 1);
    assert_string_equal(out.p, "a \n\xc3\xa9 <256> <999>");
    buf_fini(&out);
    tok_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dummy_tokens_are_bytes_then_numbers),
        cmocka_unit_test(the_template_is_found_where_models_keep_it),
        cmocka_unit_test(bad_files_are_refused_by_name),
        cmocka_unit_test(a_failed_allocation_leaves_nothing),
        cmocka_unit_test(the_default_model_has_all_parts),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
