/* Prompts must be unique from their first words on, or a prefix cache would answer for the model: each is a fresh
 * draw from 64 words that byte-level and SentencePiece vocabularies of English hold as one token. Which of them are
 * not, the calibration in serve.c absorbs: it measures the server's own count for two lengths and solves for the rest. */
#include "prompt.h"

#include "mem.h"

#include <string.h>

static const char *const WORDS[64] = {
    "the",   "and",   "people", "water", "house", "over",   "time",    "year",  "world", "life", "hand",
    "part",  "place", "work",   "week",  "case",  "point",  "number",  "group", "fact",  "long", "great",
    "small", "large", "young",  "high",  "last",  "right",  "with",    "from",  "that",  "this", "have",
    "after", "about", "under",  "where", "which", "while",  "there",   "these", "being", "made", "most",
    "many",  "some",  "what",   "only",  "other", "first",  "then",    "them",  "into",  "also", "back",
    "even",  "still", "much",   "such",  "both",  "before", "through", "well",  "down",
};

uint64_t prompt_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

int64_t prompt_words(const struct prompt_scale *s, int64_t tokens)
{
    double per_word = s->per_word > 0 ? s->per_word : 1;
    double words = ((double)tokens - s->overhead) / per_word + 0.5;
    return words < 1 ? 1 : (int64_t)words;
}

static void put_text(struct buf *out, uint64_t common, uint64_t own, int64_t words, int64_t shared)
{
    for (int64_t i = 0; i < words; i++) {
        const char *word = WORDS[prompt_random(i < shared ? &common : &own) & 63];
        buf_puts(out, i ? " " : "");
        buf_puts(out, word);
    }
}

static void put_ids(struct buf *out, uint64_t limit, uint64_t common, uint64_t own, int64_t count,
                    int64_t shared)
{
    /* the first ids of a vocabulary are its control tokens: stay clear of them where the vocabulary allows */
    uint64_t low = limit > 2000 ? 1000 : 0;
    for (int64_t i = 0; i < count; i++)
        buf_printf(out, "%s%llu", i ? "," : "",
                   (unsigned long long)(low + prompt_random(i < shared ? &common : &own) % (limit - low)));
}

void prompt_body(struct buf *out, const struct options *o, const char *model, uint64_t seed, uint64_t index,
                 int64_t words, int64_t shared, int64_t max_tokens)
{
    uint64_t common = seed, own = seed;
    own = prompt_random(&own) ^ (index + 1) * 0xd1342543de82ef95u;
    buf_puts(out, "{\"model\":");
    buf_put_json(out, str_from(model));
    if (strcmp(o->endpoint, "chat") == 0) {
        buf_puts(out, ",\"messages\":[{\"role\":\"user\",\"content\":\"");
        put_text(out, common, own, words, shared);
        buf_puts(out, "\"}]");
    } else if (o->token_ids) {
        buf_puts(out, ",\"prompt\":[");
        put_ids(out, (uint64_t)o->token_ids, common, own, words, shared);
        buf_puts(out, "]");
    } else {
        buf_puts(out, ",\"prompt\":\"");
        put_text(out, common, own, words, shared);
        buf_puts(out, "\"");
    }
    buf_printf(out,
               ",\"max_tokens\":%lld,\"temperature\":0,\"stream\":true,"
               "\"stream_options\":{\"include_usage\":true}%s}",
               (long long)max_tokens, o->stop_at_eos ? "" : ",\"ignore_eos\":true");
}
