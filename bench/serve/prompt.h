/* prompt: synthetic prompts of a wanted length, and the request bodies around them.
 *
 * Owns     nothing; bodies are appended to the caller's buf.
 * Units    tokens; text prompts count words, and `per_word` and `overhead` (from calibration) turn tokens into words.
 * States   zeroed: one token a word, no overhead.
 * Threads  any; the same (seed, index) gives the same prompt.
 * Errors   the buf's.
 * Bounds   O(length).
 */
#ifndef BENCH_SERVE_PROMPT_H
#define BENCH_SERVE_PROMPT_H

#include "buf.h"
#include "options.h"

struct prompt_scale {
    double per_word; /* tokens per word */
    double overhead; /* tokens that the server adds (BOS, chat template) */
};

uint64_t prompt_random(uint64_t *state); /* splitmix64 */
/* Words that make a prompt of about `tokens` tokens. */
int64_t prompt_words(const struct prompt_scale *s, int64_t tokens);
/* The JSON body of request number `index`: `words` words (or token ids), the first `shared` of them the same for all. */
void prompt_body(struct buf *out, const struct options *o, const char *model, uint64_t seed, uint64_t index,
                 int64_t words, int64_t shared, int64_t max_tokens);

#endif
