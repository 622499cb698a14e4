/* A trace of any bytes: it is refused, or every request keeps the promised bounds and its prompt can be written. */
#include "sim_trace.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { VOCAB = 50, WRITTEN_MAX = 1 << 16 };
    struct sim_trace t = {.seed = 1};
    static int32_t prompt[WRITTEN_MAX];
    if (sim_trace_parse(&t, (struct str){(const char *)data, size}, 1000, NULL) == ST_OK) {
        sim_trace_scale(&t, 2);
        assert(t.n <= 1000);
        for (uint32_t i = 0; i < t.n; i++) {
            const struct sim_request *r = &t.requests[i];
            assert(r->n_prompt >= 1 && r->n_prompt <= SIM_TRACE_TOKENS_MAX && r->at_ns >= 0 &&
                   r->iat_ms >= 0);
            assert(r->n_output >= 1 && r->n_output <= SIM_TRACE_TOKENS_MAX && r->strict >= 0);
            assert(r->sensitivity >= 0 && r->sensitivity <= 1 && r->osl <= SIM_TRACE_TOKENS_MAX);
            assert(r->text + r->n_texts <= t.n_texts && (r->parent == SIM_NONE || r->parent < i));
            if (r->n_prompt > WRITTEN_MAX)
                continue;
            sim_trace_prompt(&t, i, VOCAB, prompt);
            for (uint32_t p = 0; p < r->n_prompt; p++)
                assert(prompt[p] >= 0 && prompt[p] < VOCAB);
        }
    }
    sim_trace_fini(&t);
    return 0;
}
