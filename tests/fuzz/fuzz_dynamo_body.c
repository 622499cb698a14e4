/* A request's body as MessagePack and as JSON: any bytes. What parses keeps its promises to the engine; MessagePack that can be
 * written as JSON comes back from it, and asks for the same in both forms. */
#define _GNU_SOURCE
#include "dyn_json.h"
#include "dyn_request.h"
#include "mem.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int request(struct dyn_request *r, const uint8_t *body, size_t n)
{
    static const int32_t eog[] = {2, 0};
    static const struct dyn_request_limits limits = {
        .context_length = 512, .vocab_size = 1000, .priority_max = 100, .eog = eog, .n_eog = 2};
    struct err e = {0};
    *r = (struct dyn_request){0};
    int st = dyn_request_parse(r, body, n, &limits, &e);
    assert(!st || e.text[0]);
    if (st)
        return st;
    const struct engine_request *g = &r->engine;
    assert(g->n_prompt >= 1 && g->max_tokens >= 1 && g->n_prompt + g->max_tokens <= limits.context_length);
    assert(g->min_tokens <= g->max_tokens && r->n >= 1 && r->n <= 128);
    assert(g->n_stop_tokens <= ENGINE_STOP_TOKENS_MAX && r->n_last <= ENGINE_STOP_TOKENS_MAX);
    assert(g->temperature >= 0 && g->temperature <= 2 && g->top_p > 0 && g->top_p <= 1 && g->priority <= 100);
    for (uint32_t i = 0; i < g->n_prompt; i++)
        assert(g->prompt[i] >= 0 && g->prompt[i] < 1000);
    return ST_OK;
}

static void assert_same(const struct dyn_request *x, const struct dyn_request *y)
{
    const struct engine_request *a = &x->engine, *b = &y->engine;
    assert(a->n_prompt == b->n_prompt && memcmp(a->prompt, b->prompt, a->n_prompt * sizeof *a->prompt) == 0);
    assert(a->max_tokens == b->max_tokens && a->min_tokens == b->min_tokens && a->seed == b->seed);
    assert(a->temperature == b->temperature && a->top_p == b->top_p && a->min_p == b->min_p &&
           a->top_k == b->top_k);
    assert(a->repetition == b->repetition && a->frequency == b->frequency && a->presence == b->presence);
    assert(a->n_logprobs == b->n_logprobs && a->priority == b->priority && a->ignore_eos == b->ignore_eos);
    assert(a->strict_priority == b->strict_priority &&
           a->expected_output_tokens == b->expected_output_tokens);
    assert(a->latency_sensitivity == b->latency_sensitivity && a->salt_tag == b->salt_tag);
    assert(a->n_stop_tokens == b->n_stop_tokens && x->n_last == y->n_last && x->n == y->n);
    for (uint32_t i = 0; i < a->n_stop_tokens; i++)
        assert(a->stop_tokens[i] == b->stop_tokens[i]);
    for (uint32_t i = 0; i < x->n_last; i++)
        assert(x->last[i].token == y->last[i].token && x->last[i].visible == y->last[i].visible);
    assert(x->has_seed == y->has_seed && str_eq(x->salt, y->salt) && str_eq(x->session, y->session));
    assert(str_eq(buf_str(&x->guided), buf_str(&y->guided)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf packed = {.limit = 1 << 20}, text = {.limit = 1 << 20}, again = {.limit = 1 << 20};
    struct dyn_msgpack m = dyn_msgpack_of(data, size);
    struct dyn_request asked, same;
    int st = request(&asked, data, size);
    if (dyn_json_from_msgpack(&m, &text) == ST_OK && text.n < 1 << 16) {
        assert(dyn_json_to_msgpack(buf_str(&text), &again) == ST_OK);
        int st_same = request(&same, (const uint8_t *)again.p, again.n);
        if (!st && !memmem(text.p, text.n, "\xef\xbf\xbd", 3)) { /* what is no UTF-8 cannot come back */
            assert(!st_same);
            assert_same(&asked, &same);
        }
        dyn_request_fini(&same);
    }
    dyn_request_fini(&asked);
    if (dyn_json_to_msgpack((struct str){(const char *)data, size}, &packed) == ST_OK) {
        struct dyn_msgpack all = dyn_msgpack_of(packed.p, packed.n);
        assert(dyn_msgpack_skip(&all) == ST_OK && dyn_msgpack_end(&all));
        request(&asked, (const uint8_t *)packed.p, packed.n);
        dyn_request_fini(&asked);
    }
    buf_fini(&packed);
    buf_fini(&text);
    buf_fini(&again);
    assert(mem_live() == 0);
    return 0;
}
