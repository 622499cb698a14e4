/* answer_form: how the models of a chat template write tool calls and reasoning.
 *
 * Owns     nothing.
 * Units    -
 * States   -
 * Threads  any.
 * Errors   -
 * Bounds   O(length) of the text.
 * Source   the templates of the models; the names of the parsers are those of NVIDIA Dynamo 1.6.1, which are vLLM's.
 */
#ifndef STATOR_ANSWER_FORM_H
#define STATOR_ANSWER_FORM_H

#include "buf.h"

enum answer_calls {
    ANSWER_CALLS_UNKNOWN,
    ANSWER_HERMES,      /* <tool_call>{"name": "f", "arguments": {}}</tool_call> */
    ANSWER_QWEN3_CODER, /* <tool_call><function=f><parameter=x>1</parameter></function></tool_call> */
    ANSWER_MISTRAL,     /* [TOOL_CALLS][{"name": "f", "arguments": {}}], or [TOOL_CALLS]f[ARGS]{} */
    ANSWER_LLAMA3_JSON, /* {"name": "f", "parameters": {}} as the whole answer */
    ANSWER_JAMBA,       /* <tool_calls>[{"name": "f", "arguments": {}}]</tool_calls> */
    ANSWER_GLM47,       /* known to frontends only, as the next */
    ANSWER_MINIMAX_M3,
    ANSWER_DEEPSEEK_V3,
    ANSWER_DEEPSEEK_V3_1,
    ANSWER_HARMONY,
    ANSWER_ARRAY /* [{"name": "f", "parameters": {}}]: no model's habit, but what a grammar for forced calls allows */
};

enum answer_reasoning {
    ANSWER_REASONING_UNKNOWN,
    ANSWER_QWEN3,         /* <think>..</think> in front of what is said, if at all */
    ANSWER_DEEPSEEK_R1,   /* the same; frontends take it that reasoning begins in the prompt */
    ANSWER_MISTRAL_THINK, /* [THINK]..[/THINK] */
    ANSWER_REASONINGS
};
/* Marks, empty where unknown. */
extern const char *const answer_form_think[ANSWER_REASONINGS][2];

struct answer_form {
    enum answer_calls calls;
    enum answer_reasoning reasoning;
};

struct answer_form answer_form_find(struct str chat_template);
/* The prompt ends inside of reasoning: the template has written the mark that opens it. */
bool answer_form_opened(enum answer_reasoning reasoning, struct str prompt);
/* What a frontend calls the parser that understands this; NULL: it has none. */
const char *answer_form_call_parser(enum answer_calls calls);
const char *answer_form_reasoning_parser(enum answer_reasoning reasoning);

#endif
