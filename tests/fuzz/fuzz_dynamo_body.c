/* A request's body as MessagePack and as JSON: any bytes. What parses keeps its promises to the engine; MessagePack that can be
 * written as JSON comes back from it. */
#include "dyn_json.h"
#include "dyn_request.h"
#include "mem.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void request(const uint8_t *body, size_t n)
{
    static const int32_t eog[] = {2, 0};
    static const struct dyn_request_limits limits = {
        .context_length = 512, .vocab_size = 1000, .priority_max = 100, .eog = eog, .n_eog = 2};
    struct dyn_request r = {0};
    struct err e = {0};
    int st = dyn_request_parse(&r, body, n, &limits, &e);
    assert(!st || e.text[0]);
    if (!st) {
        const struct engine_request *g = &r.engine;
        assert(g->n_prompt >= 1 && g->max_tokens >= 1 &&
               g->n_prompt + g->max_tokens <= limits.context_length);
        assert(g->min_tokens <= g->max_tokens && r.n >= 1 && r.n <= 128);
        assert(g->n_stop_tokens <= ENGINE_STOP_TOKENS_MAX && r.n_last <= ENGINE_STOP_TOKENS_MAX);
        assert(g->temperature >= 0 && g->temperature <= 2 && g->top_p > 0 && g->top_p <= 1 &&
               g->priority <= 100);
        for (uint32_t i = 0; i < g->n_prompt; i++)
            assert(g->prompt[i] >= 0 && g->prompt[i] < 1000);
    }
    dyn_request_fini(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf packed = {.limit = 1 << 20}, text = {.limit = 1 << 20}, again = {.limit = 1 << 20};
    struct dyn_msgpack m = dyn_msgpack_of(data, size);
    request(data, size);
    if (dyn_json_from_msgpack(&m, &text) == ST_OK && text.n < 1 << 16)
        assert(dyn_json_to_msgpack(buf_str(&text), &again) == ST_OK);
    if (dyn_json_to_msgpack((struct str){(const char *)data, size}, &packed) == ST_OK) {
        struct dyn_msgpack all = dyn_msgpack_of(packed.p, packed.n);
        assert(dyn_msgpack_skip(&all) == ST_OK && dyn_msgpack_end(&all));
        request((const uint8_t *)packed.p, packed.n);
    }
    buf_fini(&packed);
    buf_fini(&text);
    buf_fini(&again);
    assert(mem_live() == 0);
    return 0;
}
