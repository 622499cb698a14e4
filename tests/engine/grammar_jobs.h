/* grammar_jobs: grammars for requests of random schedules, over a vocabulary that can write every JSON text.
 *
 * Owns     the vocabulary and the grammars: one test, one set of them at a time.
 * States   open -> pick* -> close.
 * Bounds   64 tokens at least: then all characters are among them.
 */
#ifndef STATOR_TEST_GRAMMAR_JOBS_H
#define STATOR_TEST_GRAMMAR_JOBS_H

#include "grammar_schema.h"
#include "grammar_vocab.h"
#include "schedules.h"

enum { GRAMMARS = 4 };
static uint32_t grammar_jobs_tokens;
static struct grammar_vocab *grammar_jobs_vocab;
static struct grammar *grammar_jobs[GRAMMARS];

/* First what no JSON can be written without, a character each; then scraps; then characters again, up to two control tokens. A
 * text that may go on can go on with some token. */
static inline struct str grammar_jobs_bytes(const void *ctx, uint32_t token)
{
    static const char chars[] = "{}[]\",: -.+0123456789eEtrufalsnbcd\\/";
    static const char *const scraps[] = {"{\"", "\"}", "\": ", "\", \"", "a\"",  "[[",    "]}",
                                         "12",  "tr",  "\"b",  ", ",     "null", "\":[\""};
    enum { CHARS = sizeof chars - 1, SCRAPS = sizeof scraps / sizeof *scraps };
    (void)ctx;
    if (token >= CHARS && token - CHARS < SCRAPS)
        return str_from(scraps[token - CHARS]);
    return (struct str){&chars[token % CHARS], token + 2 < grammar_jobs_tokens};
}

static inline void grammar_jobs_open(uint32_t n_tokens)
{
    static const char *const schemas[GRAMMARS] = {
        "{}",
        "{\"properties\":{\"a\":{\"type\":\"string\"},\"b\":{\"type\":\"integer\"}},\"required\":[\"b\"]}",
        "{\"enum\":[\"a\",\"ab\",null,12]}",
        "{\"type\":\"array\",\"minItems\":2,\"items\":{\"type\":\"string\"}}"};
    assert_true(n_tokens >= 64);
    grammar_jobs_tokens = n_tokens;
    assert_int_equal(grammar_vocab_create(&grammar_jobs_vocab, n_tokens, grammar_jobs_bytes, NULL), ST_OK);
    for (int i = 0; i < GRAMMARS; i++) {
        cJSON *schema = NULL;
        assert_int_equal(json_parse(&schema, str_from(schemas[i]), NULL), ST_OK);
        assert_int_equal(grammar_from_schema(&grammar_jobs[i], schema, grammar_jobs_vocab, NULL), ST_OK);
        json_free(schema);
    }
}

static inline void grammar_jobs_close(void)
{
    for (int i = 0; i < GRAMMARS; i++)
        grammar_put(grammar_jobs[i]);
    grammar_vocab_destroy(grammar_jobs_vocab);
}

/* A quarter of the requests get one. Their end tokens stay: it may be the only one that could follow. */
static inline void grammar_jobs_pick(struct engine_request *r)
{
    r->grammar = rnd(4) ? NULL : grammar_jobs[rnd(GRAMMARS)];
    if (r->grammar)
        r->ignore_eos = false;
}

#endif
