/* A byte that picks the form and where to cut, then an answer. Whole and cut it must come apart into the same; without a call it
 * must come out as it went in, and a call's arguments must be what a request may say, as they come back with the next. */
#include "answer.h"
#include "mem.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool has_nul(struct str json)
{
    for (size_t i = 0; i + 5 < json.n; i += json.p[i] == '\\' ? 2 : 1)
        if (memcmp(json.p + i, "\\u0000", 6) == 0)
            return true;
    return false;
}

static bool can_be_sent_back(struct str arguments, enum answer_calls calls)
{
    cJSON *j = NULL;
    bool ok = !has_nul(arguments) && json_parse(&j, arguments, NULL) == ST_OK && cJSON_IsObject(j);
    for (const cJSON *m = ok && calls == ANSWER_QWEN3_CODER ? j->child : NULL; m; m = m->next)
        ok = ok && json_get(j, m->string) == m; /* no name twice */
    json_free(j);
    return ok;
}

static void take_apart(const struct answer_options *o, struct str text, size_t step, struct buf *content,
                       struct buf *reasoning, struct buf *calls)
{
    struct answer a;
    answer_init(&a, o);
    for (size_t at = 0; at < text.n; at += step)
        if (answer_push(&a, (struct str){text.p + at, text.n - at < step ? text.n - at : step}, content,
                        reasoning))
            abort();
    if (answer_end(&a, content, reasoning))
        abort();
    for (uint32_t i = 0; i < a.n_calls; i++) {
        if (utf8_valid(text) &&
            !can_be_sent_back(a.calls[i].arguments, o->calls)) /* as the tokenizer sees to */
            abort();
        buf_put(calls, a.calls[i].name.p, a.calls[i].name.n);
        buf_put(calls, a.calls[i].arguments.p, a.calls[i].arguments.n);
    }
    answer_fini(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum answer_calls kinds[] = {ANSWER_HERMES,      ANSWER_QWEN3_CODER, ANSWER_MISTRAL,
                                              ANSWER_LLAMA3_JSON, ANSWER_ARRAY,       ANSWER_JAMBA};
    cJSON *tools = NULL;
    if (size < 1 ||
        json_parse(&tools,
                   STR_LIT("[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"n\":{\"type\":"
                           "\"integer\"},\"t\":{\"type\":[\"string\",\"null\"]}}}}}]"),
                   NULL))
        return 0;
    struct answer_options o = {.calls = kinds[(data[0] & 15) % 6], .tools = tools, .limit = 1 << 20};
    o.reasoning = data[0] & 64 ? ANSWER_QWEN3 : ANSWER_REASONING_UNKNOWN;
    o.opened = data[0] & 128;
    struct str text = {(const char *)data + 1, size - 1};
    struct buf content = {0}, calls = {0}, cut_content = {0}, cut_calls = {0};
    struct buf thought = {0}, cut_thought = {0};
    take_apart(&o, text, text.n + 1, &content, &thought, &calls);
    take_apart(&o, text, 1 + (data[0] >> 4 & 3), &cut_content, &cut_thought, &cut_calls);
    if (!str_eq(buf_str(&content), buf_str(&cut_content)) || !str_eq(buf_str(&calls), buf_str(&cut_calls)) ||
        !str_eq(buf_str(&thought), buf_str(&cut_thought)))
        abort();
    if (calls.n == 0 && !o.reasoning && !str_eq(buf_str(&content), text))
        abort();
    buf_fini(&content);
    buf_fini(&calls);
    buf_fini(&cut_content);
    buf_fini(&cut_calls);
    buf_fini(&thought);
    buf_fini(&cut_thought);
    json_free(tools);
    if (mem_live() != 0)
        abort();
    return 0;
}
