/* grammar_case: schemas as text, states that random texts lead to, and a vocabulary of bytes and scraps of JSON. */
#ifndef STATOR_TEST_GRAMMAR_CASE_H
#define STATOR_TEST_GRAMMAR_CASE_H

#include "grammar_machine.h"
#include "grammar_mask.h"
#include "grammar_schema.h"
#include "mem.h"

#include <stdio.h>
#include <string.h>

static uint64_t rng = 1;

static inline uint32_t rnd(uint32_t n)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng >> 33) % n;
}

enum { CASE_TOKENS = 900 };

struct words {
    char text[CASE_TOKENS][24];
    uint8_t n[CASE_TOKENS];
};

/* Every byte, then random runs of scraps. The last one is a control token. */
static inline void words_fill(struct words *w)
{
    static const char *const scraps[] = {"\"",   "\":", ": ",       ",",    ", \"", "{\"",  "\"}", "}]",
                                         "[",    "]",   "{",        "}",    "true", "nul",  "l",   "a",
                                         "b",    "ab",  "12",       "0",    ".5",   "e+",   "-",   " ",
                                         "\\",   "u0",  "d83",      "\\u",  "\xC3", "\xA9", "na",  "me",
                                         "name", "x",   "\xF0\x9F", "\x98", "n\\",  "cit",  "y\"", "null"};
    memset(w, 0, sizeof *w);
    for (int i = 0; i < 256; i++) {
        w->text[i][0] = (char)i;
        w->n[i] = 1;
    }
    for (int i = 256; i + 1 < CASE_TOKENS; i++)
        for (uint32_t k = 1 + rnd(4); k > 0; k--) {
            const char *s = scraps[rnd(sizeof scraps / sizeof *scraps)];
            size_t n = strlen(s);
            if (w->n[i] + n < sizeof w->text[i]) {
                memcpy(w->text[i] + w->n[i], s, n);
                w->n[i] += (uint8_t)n;
            }
        }
}

static inline struct str words_bytes(const void *ctx, uint32_t token)
{
    const struct words *w = ctx;
    return (struct str){w->text[token], w->n[token]};
}

static inline int case_grammar(struct grammar **out, const char *schema, const struct grammar_vocab *v,
                               struct err *e)
{
    cJSON *j = NULL;
    int st = json_parse(&j, str_from(schema), e);
    if (!st)
        st = cJSON_IsArray(j) ? grammar_from_choice(out, j, v, e) : grammar_from_schema(out, j, v, e);
    json_free(j);
    return st;
}

/* One random byte that may follow; false: there is none. `tame`: strings and numbers end soon. */
static inline bool case_step(struct grammar_state *s, uint8_t *byte)
{
    struct grammar_state next = *s;
    for (const char *c = "\"}]"; *c; c++)
        if (rnd(3) == 0 && grammar_push(&next, (uint8_t)*c)) {
            *s = next;
            *byte = (uint8_t)*c;
            return true;
        }
    uint32_t first = rnd(256);
    for (uint32_t i = 0; i < 256; i++)
        if (grammar_push(&next, (uint8_t)(first + i))) {
            *s = next;
            *byte = (uint8_t)(first + i);
            return true;
        }
    return false;
}

#endif
