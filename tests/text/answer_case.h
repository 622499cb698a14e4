/* answer_case: answers to take apart, with tools of every kind of parameter.
 *
 * Owns     the tools, the reasoning of the answer under way.
 * Units    bytes.
 * States   answer_up -> (begin -> answer_push* -> finish)* -> answer_down.
 * Threads  one.
 * Errors   fail the test.
 * Bounds   LIMIT bytes held.
 * Source   -
 */
#ifndef STATOR_TEST_ANSWER_CASE_H
#define STATOR_TEST_ANSWER_CASE_H

#include "answer.h"
#include "mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { LIMIT = 1 << 16 };

static cJSON *tools;
static enum answer_reasoning reasoning; /* of the answers to come */
static bool opened;
static struct buf thought;

static inline int answer_up(void **state)
{
    (void)state;
    static const char text[] =
        "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{"
        "\"text\":{\"type\":\"string\"},\"n\":{\"type\":\"integer\"},\"list\":{\"type\":\"array\"},"
        "\"maybe\":{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]},\"flag\":{\"type\":[\"boolean\"]},"
        "\"ref\":{\"$ref\":\"#/x\"}}}}},"
        "{\"type\":\"function\",\"function\":{\"name\":\"caf\xc3\xa9-2\"}}]";
    return json_parse(&tools, str_from(text), NULL);
}

static inline int answer_down(void **state)
{
    (void)state;
    json_free(tools);
    tools = NULL;
    buf_fini(&thought);
    return 0;
}

/* ---- one answer -------------------------------------------------------------------------------------------------- */

/* Content, then reasoning as |think|text, then each call as |name|arguments. */
static inline uint32_t finish(struct answer *a, struct buf *out)
{
    assert_int_equal(answer_end(a, out, &thought), ST_OK);
    if (thought.n)
        buf_printf(out, "|think|%s", thought.p);
    for (uint32_t i = 0; i < a->n_calls; i++) {
        const struct answer_call *c = &a->calls[i];
        cJSON *parsed = NULL;
        assert_int_equal(json_parse(&parsed, c->arguments, NULL), ST_OK);
        assert_true(cJSON_IsObject(parsed));
        json_free(parsed);
        buf_printf(out, "|%.*s|%.*s", (int)c->name.n, c->name.p, (int)c->arguments.n, c->arguments.p);
    }
    uint32_t n = a->n_calls;
    answer_fini(a);
    return n;
}

static inline struct answer begin(enum answer_calls calls)
{
    struct answer a;
    answer_init(
        &a, &(struct answer_options){
                .calls = calls, .tools = tools, .limit = LIMIT, .reasoning = reasoning, .opened = opened});
    buf_reset(&thought);
    return a;
}

static inline uint32_t take_apart(enum answer_calls calls, struct str text, const size_t *cuts, size_t n_cuts,
                                  struct buf *out)
{
    struct answer a = begin(calls);
    size_t from = 0;
    buf_reset(out);
    for (size_t i = 0; i <= n_cuts; i++) {
        size_t to = i < n_cuts ? cuts[i] : text.n;
        assert_int_equal(answer_push(&a, (struct str){text.p + from, to - from}, out, &thought), ST_OK);
        from = to;
    }
    return finish(&a, out);
}

/* However it is cut. */
static inline void expect(enum answer_calls calls, const char *answer, const char *want)
{
    struct str text = str_from(answer);
    struct buf out = {0};
    take_apart(calls, text, NULL, 0, &out);
    assert_string_equal(buf_str(&out).p, want);
    for (size_t cut = 0; cut <= text.n; cut++) {
        take_apart(calls, text, &cut, 1, &out);
        assert_string_equal(buf_str(&out).p, want);
    }
    size_t each[1024];
    assert_true(text.n < 1024);
    for (size_t i = 0; i < text.n; i++)
        each[i] = i;
    take_apart(calls, text, each, text.n, &out);
    assert_string_equal(buf_str(&out).p, want);
    buf_fini(&out);
}

static inline void same(enum answer_calls calls, const char *answer)
{
    expect(calls, answer, answer);
}

static inline uint32_t rnd(uint64_t *s, uint32_t n)
{
    *s = *s * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*s >> 33) % n;
}

#endif
