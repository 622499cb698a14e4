/* api_limits: the one table of what a request may ask for.
 *
 * Owns     nothing.
 * Units    counts, bytes where the name says so.
 * States   -
 * Threads  any.
 * Errors   -
 * Bounds   this file is the bounds.
 * Source   OpenAI API reference (chat, completions); vLLM's extra sampling fields.
 */
#ifndef STATOR_API_LIMITS_H
#define STATOR_API_LIMITS_H

enum {
    API_FIELDS_MAX = 512,      /* members of the request object */
    API_MESSAGES_MAX = 16384,  /* messages of one chat */
    API_PARTS_MAX = 4096,      /* text parts of one message */
    API_TOOLS_MAX = 512,       /* tools offered, and tool calls of one message */
    API_PROMPTS_MAX = 128,     /* prompts of one completions call */
    API_CHOICES_MAX = 128,     /* prompts x n */
    API_STOP_MAX = 32,         /* stop strings */
    API_STOP_BYTES_MAX = 1024, /* of one stop string */
    API_STOP_TOKENS_MAX = 8,   /* stop_token_ids */
    API_BIAS_MAX = 1024,       /* logit_bias entries */
    API_NAME_BYTES_MAX = 256,  /* model, user, names */
    API_HINT_BYTES_MAX = 128,  /* nvext.agent_hints.prefix_id */
    API_STRICT_MAX = 3,        /* nvext.agent_hints.strict_priority */
    API_IAT_MS_MAX = 600000,   /* nvext.agent_hints.iat */
    API_SALT_BYTES_MAX = 1024, /* cache_salt */
    API_TOP_LOGPROBS_MAX = 20,
    API_TOKEN_MAX = 0x7ffffffe,
    API_MAX_TOKENS_DEFAULT = 16 /* of /v1/completions, as OpenAI's */
};

/* Plain numbers: field of struct api_sampling, least, most. */
#define API_INTS(X)              \
    X(max_tokens, 1, 1000000000) \
    X(n, 1, API_CHOICES_MAX)     \
    X(top_k, -1, 1000000)        \
    X(seed, INT64_MIN, INT64_MAX)
#define API_NUMS(X)             \
    X(temperature, 0, 2)        \
    X(top_p, 0, 1)              \
    X(min_p, 0, 1)              \
    X(frequency_penalty, -2, 2) \
    X(presence_penalty, -2, 2)  \
    X(repetition_penalty, 0.01, 100)

#endif
