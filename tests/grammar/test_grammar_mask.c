/* The mask is what trying every token byte by byte gives, in every state that a random text leads to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "grammar_case.h"

static uint64_t only_seed;
static struct words words;

static const char *const schemas[] = {
    "{}",
    "{\"type\":\"object\"}",
    "{\"type\":\"string\",\"maxLength\":4}",
    "{\"properties\":{\"name\":{\"type\":\"string\"},\"city\":{\"type\":\"string\"},\"b\":{\"type\":"
    "\"number\"},\"ab\":{}},"
    "\"required\":[\"city\"]}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"}},\"additionalProperties\":{\"type\":"
    "\"string\"}}",
    "{\"type\":\"array\",\"minItems\":1,\"items\":{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"integer\","
    "\"minimum\":-12},"
    "{\"$ref\":\"#\"}]}}",
    "{\"anyOf\":[{\"type\":\"string\"},{\"enum\":[\"name\",\"x\"]}]}",
    "[\"a\",\"ab\",\"name\",\"{\\\"\"]",
};

static void check(const struct grammar_state *s, struct grammar_walk *w, uint32_t n_bits)
{
    uint32_t bits[CASE_TOKENS / 32 + 4];
    memset(bits, 0xA5, sizeof bits);
    grammar_mask(s, w, bits, n_bits);
    for (uint32_t t = 0; t < n_bits; t++) {
        struct grammar_state next = *s;
        bool want = t < CASE_TOKENS && words.n[t] > 0 && grammar_push_token(&next, t);
        if ((bits[t / 32] >> t % 32 & 1) != want)
            fail_msg("token %u \"%.*s\": %d expected", t, t < CASE_TOKENS ? words.n[t] : 0,
                     words.text[t % CASE_TOKENS], want);
    }
}

static void the_mask_is_what_trying_every_token_gives(void **state)
{
    (void)state;
    rng = only_seed ? only_seed : (uint64_t)time(NULL);
    printf("seed %llu\n", (unsigned long long)rng);
    uint64_t live = mem_live();
    words_fill(&words);
    struct grammar_vocab *v;
    struct grammar_walk *w;
    assert_int_equal(grammar_vocab_create(&v, CASE_TOKENS, words_bytes, &words), ST_OK);
    assert_int_equal(grammar_walk_create(&w), ST_OK);
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++)
        for (int run = 0; run < 6; run++) {
            struct grammar *g = NULL;
            struct err e = {0};
            struct grammar_state s;
            uint8_t byte;
            if (case_grammar(&g, schemas[i], v, &e))
                fail_msg("%s: %s", schemas[i], e.text);
            grammar_begin(&s, g);
            check(&s, w, CASE_TOKENS);
            for (int n = 0; n < 40 && case_step(&s, &byte); n++)
                check(&s, w, CASE_TOKENS - 5 + rnd(60));
            grammar_put(g);
        }
    grammar_walk_destroy(w);
    grammar_vocab_destroy(v);
    assert_int_equal(mem_live(), live);
}

static void the_body_of_a_string_has_one_number_everywhere(void **state)
{
    (void)state;
    struct grammar *g = NULL;
    struct err e = {0};
    struct grammar_state s;
    assert_int_equal(
        case_grammar(&g, "{\"properties\":{\"a\":{\"type\":\"string\"}},\"required\":[\"a\"]}", NULL, &e),
        ST_OK);
    grammar_begin(&s, g);
    assert_true(grammar_push_text(&s, STR_LIT("{\"a\": \"b")));
    assert_int_equal(s.n, 1);
    assert_int_equal(s.paths[0].node, 1);
    grammar_put(g);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_mask_is_what_trying_every_token_gives),
                                       cmocka_unit_test(the_body_of_a_string_has_one_number_everywhere)};
    if (argc > 1)
        only_seed = strtoull(argv[1], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
