/* Nothing in a model's files says how it writes a tool call. Its chat template shows it: it renders the calls of earlier turns
 * into the prompt in the very form that the model was trained to write. So the form is told by the marks that stand in the
 * template's source, which is less than to understand the template and has no exceptions among those that are served. */
#define _GNU_SOURCE
#include "answer_form.h"

#include <string.h>

#define DEEPSEEK_CALLS              \
    "<\xef\xbd\x9ctool\xe2\x96\x81" \
    "calls\xe2\x96\x81"             \
    "begin\xef\xbd\x9c>"

/* The first whose every mark is in the template: dialects of a form stand in front of it. */
static const struct {
    const char *marks[2];
    enum answer_calls calls;
} forms[] = {
    {{"]<]minimax[>["}, ANSWER_MINIMAX_M3},
    {{"<tool_call>", "<arg_key>"}, ANSWER_GLM47},        /* GLM from 4.5 on, Laguna, Ling 3 */
    {{"<tool_call>", "<function="}, ANSWER_QWEN3_CODER}, /* Qwen 3 Coder and 3.5, Nemotron 3 */
    {{"<tool_calls>[", "</tool_calls>"}, ANSWER_JAMBA},  /* Jamba, Apriel */
    {{"<tool_call>"}, ANSWER_HERMES},                    /* Hermes, Qwen 2.5 and 3, SmolLM3, Granite 4 */
    {{"[TOOL_CALLS]"}, ANSWER_MISTRAL},
    {{DEEPSEEK_CALLS, "```json"}, ANSWER_DEEPSEEK_V3},
    {{DEEPSEEK_CALLS}, ANSWER_DEEPSEEK_V3_1},
    {{"<|start|>assistant<|channel|>"}, ANSWER_HARMONY},
    {{"Environment: ipython", "<function="}, ANSWER_CALLS_UNKNOWN}, /* Functionary: no frontend knows it */
    {{"Environment: ipython"}, ANSWER_LLAMA3_JSON},                 /* Llama 3.1 to 3.3 */
};

#define THINK_MARKS           \
    {                         \
        "<think>", "</think>" \
    }
const char *const answer_form_think[ANSWER_REASONINGS][2] = {
    [ANSWER_REASONING_UNKNOWN] = {"", ""},
    [ANSWER_QWEN3] = THINK_MARKS,
    [ANSWER_DEEPSEEK_R1] = THINK_MARKS,
    [ANSWER_MISTRAL_THINK] = {"[THINK]", "[/THINK]"}};

static bool holds(struct str text, const char *mark)
{
    return !mark || (text.n && memmem(text.p, text.n, mark, strlen(mark)));
}

static enum answer_calls find_calls(struct str source)
{
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (holds(source, forms[i].marks[0]) && holds(source, forms[i].marks[1]))
            return forms[i].calls;
    return ANSWER_CALLS_UNKNOWN;
}

/* DeepSeek's distilled models begin inside their reasoning: the opening mark stands in the prompt. */
static enum answer_reasoning find_reasoning(struct str source)
{
    if (holds(source, "[THINK]"))
        return ANSWER_MISTRAL_THINK;
    if (!holds(source, "</think>"))
        return ANSWER_REASONING_UNKNOWN;
    return holds(source, "<\xef\xbd\x9c"
                         "Assistant\xef\xbd\x9c>")
               ? ANSWER_DEEPSEEK_R1
               : ANSWER_QWEN3;
}

struct answer_form answer_form_find(struct str chat_template)
{
    return (struct answer_form){.calls = find_calls(chat_template),
                                .reasoning = find_reasoning(chat_template)};
}

bool answer_form_opened(enum answer_reasoning reasoning, struct str prompt)
{
    const char *mark = answer_form_think[reasoning][0];
    size_t n = strlen(mark);
    while (prompt.n && strchr(" \n\r\t", prompt.p[prompt.n - 1]))
        prompt.n--;
    return n && prompt.n >= n && memcmp(prompt.p + prompt.n - n, mark, n) == 0;
}

const char *answer_form_call_parser(enum answer_calls calls)
{
    static const char *const names[] = {[ANSWER_HERMES] = "hermes",
                                        [ANSWER_QWEN3_CODER] = "qwen3_coder",
                                        [ANSWER_MISTRAL] = "mistral",
                                        [ANSWER_LLAMA3_JSON] = "llama3_json",
                                        [ANSWER_JAMBA] = "jamba",
                                        [ANSWER_GLM47] = "glm47",
                                        [ANSWER_MINIMAX_M3] = "minimax_m3",
                                        [ANSWER_DEEPSEEK_V3] = "deepseek_v3",
                                        [ANSWER_DEEPSEEK_V3_1] = "deepseek_v3_1",
                                        [ANSWER_HARMONY] = "harmony",
                                        [ANSWER_ARRAY] = NULL};
    return names[calls];
}

const char *answer_form_reasoning_parser(enum answer_reasoning reasoning)
{
    static const char *const names[] = {
        [ANSWER_QWEN3] = "qwen3", [ANSWER_DEEPSEEK_R1] = "deepseek_r1", [ANSWER_MISTRAL_THINK] = "mistral"};
    return names[reasoning];
}
