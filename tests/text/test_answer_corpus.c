/* What the templates of real models write for a call of an earlier turn is what their models were trained to write: it must be
 * read back as that call. The templates lie in the cache folder, as for test_chat_corpus. */
#include "cache_path.h"
#include "answer.h"
#include "chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static cJSON *corpus;

/* The rendered text behind the user's; empty: this template does not take the messages. */
static struct str render(const struct chat *chat, const cJSON *messages, const cJSON *tools, struct buf *out)
{
    const struct chat_input in = {
        .messages = messages, .tools = tools, .bos_token = STR_LIT("<s>"), .eos_token = STR_LIT("</s>")};
    struct err e;
    const char *at = chat_render(chat, &in, out, &e) ? NULL : strstr(buf_str(out).p, "Seven?");
    return at ? str_from(at + strlen("Seven?")) : (struct str){0};
}

/* Nothing of a call is left in the content. */
static bool clean(const struct buf *content)
{
    static const char *const marks[] = {"tool_call",  "TOOL_CALL",   "<function",      "</function",
                                        "<parameter", "</parameter", "[ARGS]",         "get_weather",
                                        "arguments",  "days",        "<|python_tag|>", "Z\xc3\xbcrich"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (content->n && strstr(content->p, marks[i]))
            return false;
    return true;
}

/* Whether the call that the template wrote was found, and nothing else. */
static bool found(enum answer_calls calls, const cJSON *tools, struct str text)
{
    struct answer a;
    struct buf content = {0}, reasoning = {0};
    cJSON *arguments = NULL;
    answer_init(&a, &(struct answer_options){.calls = calls, .tools = tools, .limit = 1 << 20});
    assert_int_equal(answer_push(&a, text, &content, &reasoning), ST_OK);
    assert_int_equal(answer_end(&a, &content, &reasoning), ST_OK);
    bool ok = a.n_calls == 1 && clean(&content) && str_eqz(a.calls[0].name, "get_weather") &&
              json_parse(&arguments, a.calls[0].arguments, NULL) == ST_OK &&
              cJSON_GetArraySize(arguments) == 2 && json_get(arguments, "days") &&
              json_get(arguments, "days")->valuedouble == 3 && json_get(arguments, "city") &&
              strcmp(json_get(arguments, "city")->valuestring, "Z\xc3\xbcrich") == 0;
    json_free(arguments);
    answer_fini(&a);
    buf_fini(&content);
    buf_fini(&reasoning);
    return ok;
}

static bool ours(enum answer_calls calls, const cJSON *tools)
{
    struct answer a;
    answer_init(&a, &(struct answer_options){.calls = calls, .tools = tools});
    return a.o.calls != ANSWER_CALLS_UNKNOWN;
}

static void calls_of_real_templates_are_read_back(void **state)
{
    (void)state;
    cJSON *messages = NULL, *tools = NULL;
    assert_int_equal(
        json_parse(
            &messages,
            STR_LIT("[{\"role\":\"user\",\"content\":\"Seven?\"},{\"role\":\"assistant\",\"content\":\"\","
                    "\"tool_calls\":[{\"id\":\"a1b2c3d4e\",\"type\":\"function\",\"function\":{\"name\":"
                    "\"get_weather\",\"arguments\":{\"city\":\"Z\xc3\xbcrich\",\"days\":3}}}]}]"),
            NULL),
        ST_OK);
    assert_int_equal(
        json_parse(
            &tools,
            STR_LIT("[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"description\":\"w\","
                    "\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"},"
                    "\"days\":{\"type\":\"integer\"}},\"required\":[\"city\"]}}}]"),
            NULL),
        ST_OK);
    int n = 0;
    for (const cJSON *t = json_get(corpus, "templates")->child; t; t = t->next) {
        struct chat *chat = NULL;
        struct buf out = {0};
        struct err e;
        if (chat_create(&chat, str_from(t->valuestring), &e) == ST_OK) {
            enum answer_calls calls = chat_form(chat).calls;
            struct str text = render(chat, messages, tools, &out);
            if (calls == ANSWER_LLAMA3_JSON && text.n) /* it is the whole answer, behind a header */
                text = str_from(strchr(text.p, '{'));
            if (ours(calls, tools) && text.n) {
                n++;
                if (!found(calls, tools, text))
                    fail_msg("%s, %s: %s", t->string, answer_form_call_parser(calls), text.p);
            }
            chat_destroy(chat);
        }
        buf_fini(&out);
    }
    print_message("%d templates\n", n);
    assert_true(n > 0);
    json_free(messages);
    json_free(tools);
}

int main(void)
{
    char path[4096];
    FILE *f = fopen(cache_path(path, sizeof path, "chat_corpus.json"), "rb");
    if (!f) {
        printf("skipped: %s is not there (make_goldens.py --templates DIR --out FILE makes it)\n", path);
        return 77;
    }
    struct buf text = {0};
    char chunk[65536];
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0;)
        buf_put(&text, chunk, n);
    fclose(f);
    corpus = cJSON_ParseWithLength(buf_str(&text).p, text.n);
    buf_fini(&text);
    const struct CMUnitTest tests[] = {cmocka_unit_test(calls_of_real_templates_are_read_back)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    json_free(corpus);
    return failed;
}
